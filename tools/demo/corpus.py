"""Gather the text that the demo's language model is trained on.

    python tools/demo/corpus.py PACKAGES_DIR OUT_DIR

`PACKAGES_DIR` holds the Debian packages named in `SOURCES`, fetched there with
`apt-get download`; this script unpacks them next to themselves, takes the running prose out of
each, writes it as one paragraph a line, lower-cased and without punctuation (the form of the
transcripts that the model will read), and adds the demo's training stories. The test story is
never part of it. `OUT_DIR/narrative.txt` holds what is told or said (stories, dialogue, sayings),
`OUT_DIR/expository.txt` the rest; an empty line parts two documents.
"""

from __future__ import annotations

import gzip
import html
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TEST_STORY = "lasttrainhome"
TEXTS = Path(__file__).resolve().parents[2] / "encoding_nb" / "datasets" / "demo_data" / "texts"

# Frequent words by which running English prose is told from code, tables and lists of names.
FUNCTION_WORDS = frozenset(
    "the of and to a in is that it for you was on are as with be this i not or have he at they "
    "by but from which we an his your if can will there all has when one her she so my their "
    "what were been no would who them then do out up into more about than him our".split()
)


def normalise(text: str) -> str:
    """Lower-cased words without punctuation: letters and inner apostrophes, single spaces."""
    text = text.replace("\u2019", "'").replace("\u2018", "'").lower()
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)*", text))


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is at least eight words of running English."""
    words = normalise(paragraph).split()
    if len(words) < 8:
        return False
    letters = sum(c.isalpha() or c in " ',.!?" for c in paragraph) / len(paragraph)
    return letters > 0.93 and sum(w in FUNCTION_WORDS for w in words) / len(words) > 0.33


def paragraphs(text: str) -> Iterator[str]:
    """The text's blocks between empty lines, each on one line."""
    for block in re.split(r"\n\s*\n", text):
        yield " ".join(block.split())


def from_html(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8", errors="ignore")
    for block in re.findall(r"<(?:p|li|dd|div class=\"para\")\b[^>]*>(.*?)</(?:p|li|dd|div)>", text, re.S):
        yield " ".join(html.unescape(re.sub(r"<[^>]+>", "", block)).split())


def from_plain_html(path: Path) -> Iterator[str]:
    """Pages whose paragraphs are opened by <p> and never closed."""
    text = path.read_text("utf-8", errors="ignore")
    for block in re.split(r"<(?:p|li|blockquote|h\d|br)\b[^>]*>", text, flags=re.I):
        yield " ".join(html.unescape(re.sub(r"<[^>]+>", "", block)).split())


def from_pod(path: Path) -> Iterator[str]:
    for block in paragraphs(path.read_text("utf-8", errors="ignore")):
        if not block.startswith("="):
            yield re.sub(r"[A-Z]<+\s*(.*?)\s*>+", r"\1", block)


def from_rst(path: Path) -> Iterator[str]:
    for block in paragraphs(path.read_text("utf-8", errors="ignore")):
        if not block.startswith(".. "):
            yield re.sub(r":[a-z:]+:`([^`]*)`", r"\1", block).replace("*", "").replace("`", "")


def from_text(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", errors="ignore") as stream:
        yield from paragraphs(stream.read())


def from_fortunes(path: Path) -> Iterator[str]:
    for cookie in path.read_text("utf-8", errors="ignore").split("\n%\n"):
        yield " ".join(re.sub(r"\n\s*--.*", "", cookie, flags=re.S).split())


def from_wml(path: Path) -> Iterator[str]:
    """Dialogue and narration of Wesnoth's scenarios: the translatable strings."""
    text = path.read_text("utf-8", errors="ignore")
    said = re.findall(r'(?:message|story)\s*=\s*_\s*"((?:[^"]|"")+)"', text)
    for start in range(0, len(said), 12):
        yield " ".join(" ".join(re.sub(r"<[^>]+>", "", line).split()) for line in said[start : start + 12])


def from_endless_sky(path: Path) -> Iterator[str]:
    """Conversations, in order: the back-quoted strings of a mission file, joined by mission."""
    text = path.read_text("utf-8", errors="ignore")
    for mission in re.split(r"\n(?=\S)", text):
        yield " ".join(" ".join(re.sub(r"<[^>]+>", "", s).split()) for s in re.findall(r"`([^`]+)`", mission))


WESNOTH = "did dm dw ei httt l low nr sof sota sotbe thot trow tsg ttb utbs data".split()

# package -> (pattern below its unpacked root, reader, licence as its copyright file states it)
SOURCES = {
    **{f"wesnoth-1.16-{campaign}": ("usr/share/games/**/*.cfg", from_wml, "GPL-2+") for campaign in WESNOTH},
    "endless-sky-data": ("usr/share/games/endless-sky/data/**/*.txt", from_endless_sky, "GPL-3+"),
    "fortunes": ("usr/share/games/fortunes/*[!t]", from_fortunes, "BSD (compilation)"),
    "anarchism": ("usr/share/doc/anarchism/html/*.html", from_plain_html, "GPL-2+"),
    "debian-handbook": (
        "usr/share/doc/debian-handbook/html/en-US/*.html",
        from_html,
        "GPL-2+ or CC-BY-SA-3.0+",
    ),
    "developers-reference": ("usr/share/developers-reference/*.html", from_html, "GPL-2+"),
    "jargon-text": ("usr/share/doc/jargon-text/**/*.gz", from_text, "public domain"),
    "python3.11-doc": ("usr/share/doc/python3.11/html/_sources/**/*.txt", from_rst, "PSF-2"),
    "perl-doc": ("usr/share/perl/**/*.pod", from_pod, "GPL-1+ or Artistic"),
}

NARRATIVE = (from_wml, from_endless_sky, from_fortunes)


def unpack(package: str, packages_dir: Path) -> Path:
    """The package's files, unpacked once below `packages_dir`."""
    root = packages_dir / "unpacked" / package
    if not root.is_dir():
        found = sorted(packages_dir.glob(f"{package}_*.deb"))
        if not found:
            raise SystemExit(f"{package}: no .deb in {packages_dir}; run: apt-get download {package}")
        root.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "-x", str(found[-1]), str(root)], check=True)
    return root


def prose_of(package: str, packages_dir: Path) -> list[list[str]]:
    """The normalised prose paragraphs of each file of a package, each paragraph once."""
    pattern, reader, _ = SOURCES[package]
    seen: set[str] = set()
    documents = []
    for path in sorted(p for p in unpack(package, packages_dir).glob(pattern) if p.is_file()):
        lines = [normalise(p) for p in reader(path) if p and is_prose(p)]
        lines = [line for line in lines if not (line in seen or seen.add(line))]
        if lines:
            documents.append(lines)
    return documents


def write_documents(documents: list[list[str]], path: Path) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text("\n\n".join("\n".join(document) for document in documents) + "\n")
    temporary.rename(path)


def main(packages_dir: str, out_dir: str) -> None:
    kinds: dict[str, list[list[str]]] = {"narrative": [], "expository": []}
    for package, (_, reader, licence) in SOURCES.items():
        found = prose_of(package, Path(packages_dir))
        kind = "narrative" if reader in NARRATIVE else "expository"
        kinds[kind] += found
        n_words = sum(len(line.split()) for document in found for line in document)
        print(f"{package}\t{licence}\t{kind}\t{len(found)} documents\t{n_words} words")
    stories = [p for p in sorted(TEXTS.glob("*.txt")) if p.stem != TEST_STORY]
    kinds["narrative"] += [[normalise(p) for p in paragraphs(s.read_text()) if p] for s in stories]
    print(f"stories of this project: {', '.join(p.stem for p in stories)}")
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    for kind, documents in kinds.items():
        write_documents(documents, Path(out_dir) / f"{kind}.txt")


if __name__ == "__main__":
    main(*sys.argv[1:])
