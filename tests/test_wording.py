"""Plain English: text that people read has none of the phrases that earlier versions were cleaned of.

That is docstrings, messages, labels, tooltips, README, docs and notebooks. `PATTERNS` says what to write instead.
"""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# {pattern: what to write instead}; matched without regard to case
PATTERNS = {
    r"\bmend(s|ed|ing)?\b": "fix, correct",
    r"\blearn(s|t|ed|ing)? (it |them |\w+ )?by heart\b": "overfit, memorise",
    r"\bdealt\b": "assigned, drawn",
    r"\bwhat is (no|none)\b": "X is not a Y; anything but a Y",
    r"\bwho is none\b": "X is not a Y",
    r"\bof what (is|was|are)\b": "name it",
    r"\b(is|are) there always\b": "is always available",
    r"\bwhat cannot be\b": "invalid ...",
    r"\b(to be|be|is|are) had\b": "is available, obtain",
    r"\bstands?\b(?! for\b)|\bstood\b|(?<!-)\bstanding\b": "is, are",
    r"\bsaid\b|\bsays? nothing\b|\bis told\b|\bare told\b|\btold by\b": "reported, shown, named",
    r"\bunheard\b|\bhears? of\b": "reported",
    r"\bnobody\b|\bwhoever\b|\bwhomever\b|\bsomebody\b": "you, or the passive",
    r"\bbeside\b": "next to, and, besides",
    r"\bmakes? no sense\b": "is corrupt",
    r"(^|[.;:] )(?-i:Of) (a|an|the|its|their|each|every|all|what|two|one|such|several)\b": "normal word order",
    r"\b(let|lets) go\b": "free, stop",
    r"\bown (format|file format|\.h5)\b": "name the format",
    r"\bfor one, (makes|gives)\b": "for example",
    r"\bupside down\b": "negative",
    r"\balike\b": "the same, equally",
    r"\bin the midst\b": "during",
    r"\bas it (stands|stood)\b": "as it is",
    r"\bthe like\b": "name them",
    r"\bthrown away\b": "deleted, discarded",
    r"(?<!there )\b(is|are) no (?!longer|more|less|fewer|other|problem)\w+": "is not a",
    r"\bwhich it is not\b|\bthat it is not\b": "rephrase",
    r"\bgoes its way\b|\bworth counting\b": "rephrase",
}
# (file, text around the match): where a word has its plain meaning
EXCEPTIONS = {
    ("CONTRIBUTING.md", "`PATTERNS`"),
}
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "binder").glob("*.md"),
    *(ROOT / ".github").rglob("*.*"),
]
HISTORY = {"CHANGELOG.md"}  # what was written about earlier versions
SOURCES = [*(ROOT / "encoding_nb").rglob("*.py"), *(ROOT / "encoding_nb").rglob("*.js")]
NOTEBOOKS = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "binder").glob("*.ipynb")]


def texts_of_python(path):
    """Docstrings and strings, those of one message joined."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside.update(id(part) for part in node.values)
            yield (
                "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values),
                node.lineno,
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value, node.lineno


def texts_of(path):
    if path.suffix == ".py":
        yield from texts_of_python(path)
    elif path.suffix == ".ipynb":
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            yield "".join(cell["source"]), 0
    else:
        yield path.read_text(encoding="utf-8"), 0


def is_prose(text):
    return " " in text.strip()


def found_in(path):
    name = path.relative_to(ROOT).as_posix()
    for text, line in texts_of(path):
        plain = re.sub(r"\s+", " ", text)
        if not is_prose(plain):
            continue
        for pattern, instead in PATTERNS.items():
            for match in re.finditer(pattern, plain, re.IGNORECASE):
                around = plain[max(0, match.start() - 60) : match.end() + 60]
                if not any(name == file and part in around for file, part in EXCEPTIONS):
                    yield f"{name}:{line}: ...{around}... ({match.group().strip()!r}: {instead})"


@pytest.mark.parametrize(
    "path",
    [path for path in (*PAGES, *SOURCES, *NOTEBOOKS) if path.name not in HISTORY],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_plain_words(path):
    found = list(found_in(path))
    assert not found, "\n".join(found)


def test_the_patterns_find_what_they_are_for():
    for sentence in (
        "Fit is off until this is mended: alphas.",
        "Of the filter: how many lobes",
        "what is no Assembly",
        "'demo' is there always.",
        "the assembly in it makes no sense",
        "the record stands in a folder beside it",
    ):
        assert any(re.search(pattern, sentence, re.IGNORECASE) for pattern in PATTERNS), sentence
