"""Time the demo's stories like speech and write them as TextGrids.

    python tools/demo/textgrids.py

Reads texts/*.txt of `encoding_nb/datasets/demo_data` and writes stories/*.TextGrid there: tier 0 phones,
tier 1 words, as the LeBel data set has them. Nobody spoke these stories: a word lasts as long as its
phones, the phones are taken from its letters by rule (rough, but it has the right count), words at
phrase ends are drawn out and followed by pauses. The same seed gives the same files.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
from corpus import FUNCTION_WORDS

DATA = Path(__file__).resolve().parents[2] / "encoding_nb" / "datasets" / "demo_data"
SEED = 7
LEAD_IN = 0.4  # seconds before the first word
TAIL = 1.0  # seconds after the last one
PHONE_SECONDS = 0.085
# punctuation -> (mean pause in seconds, what the transcript calls it)
PAUSES = {
    ",": (0.18, "sp"),
    ":": (0.3, "sp"),
    ";": (0.3, "sp"),
    ".": (0.5, "sp"),
    "?": (0.5, "sp"),
    "!": (0.5, "sp"),
}
PARAGRAPH_PAUSE = (1.1, "{BR}")

# Letters to ARPABET-like phones, longest spelling first; a rough rule set, not a dictionary.
SPELLINGS = {
    "tion": "SH AH0 N", "ough": "AO1", "eigh": "EY1", "igh": "AY1", "tch": "CH", "sch": "SK", "dge": "JH",
    "ch": "CH", "sh": "SH", "th": "TH", "ph": "F", "wh": "W", "ck": "K", "ng": "NG", "qu": "K W", "kn": "N",
    "wr": "R", "ee": "IY1", "ea": "IY1", "oo": "UW1", "ou": "AW1", "ow": "OW1", "oi": "OY1", "oy": "OY1",
    "ai": "EY1", "ay": "EY1", "au": "AO1", "aw": "AO1", "ie": "IY1", "oa": "OW1", "er": "ER0", "ir": "ER1",
    "ur": "ER1", "ar": "AA1 R", "or": "AO1 R", "a": "AE1", "b": "B", "c": "K", "d": "D", "e": "EH1", "f": "F",
    "g": "G", "h": "HH", "i": "IH1", "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "o": "AA1", "p": "P",
    "r": "R", "s": "S", "t": "T", "u": "AH1", "v": "V", "w": "W", "x": "K S", "y": "IY0", "z": "Z",
}  # fmt: skip
_SPELLING = re.compile("|".join(SPELLINGS))


def phones_of(word: str) -> list[str]:
    """ARPABET-like phones of a lower-case word, by spelling."""
    letters = re.sub(r"(.)\1", r"\1", re.sub(r"[^a-z]", "", word))
    if len(letters) > 3 and letters.endswith("e") and letters[-2] not in "aeiou":
        letters = letters[:-1]
    return [phone for match in _SPELLING.findall(letters) for phone in SPELLINGS[match].split()]


def spoken(text: str) -> list[tuple[str, str]]:
    """Words in order, each with the punctuation mark that follows it ('' for none, '\\n' for a paragraph's end)."""
    pairs: list[tuple[str, str]] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        tokens = re.findall(r"[a-z]+(?:'[a-z]+)*|[,:;.?!]|--", paragraph.lower().replace("\u2019", "'"))
        for token in tokens:
            if token[0].isalpha():
                pairs.append((token, ""))
            elif pairs:
                pairs[-1] = (pairs[-1][0], "," if token == "--" else token)
        pairs[-1] = (pairs[-1][0], "\n")
    return pairs


def timed(text: str, rng: np.random.Generator) -> tuple[list, list]:
    """Intervals (start, end, label) of the phone and the word tier, without gaps."""
    phones, words, now = [(0.0, LEAD_IN, "sil")], [(0.0, LEAD_IN, "{NS}")], LEAD_IN
    for word, mark in spoken(text):
        labels = phones_of(word)
        seconds = np.full(len(labels), PHONE_SECONDS) * rng.lognormal(0.0, 0.25, len(labels))
        seconds *= 0.75 if word in FUNCTION_WORDS else 1.0
        seconds[-2:] *= 1.4 if mark else 1.0
        seconds = np.maximum(seconds, 0.03)
        start = now
        for label, duration in zip(labels, seconds, strict=True):
            phones.append((now, now + duration, label))
            now += duration
        words.append((start, now, word.upper()))
        if mark:
            mean, label = PARAGRAPH_PAUSE if mark == "\n" else PAUSES[mark]
            pause = mean * rng.lognormal(0.0, 0.3)
            phones.append((now, now + pause, "sp" if label == "sp" else "br"))
            words.append((now, now + pause, label))
            now += pause
    end = now + TAIL
    return [*phones, (now, end, "sil")], [*words, (now, end, "{NS}")]


def textgrid(phones: list, words: list) -> str:
    """The two tiers in Praat's long text format."""
    end = words[-1][1]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end:.6f}"]
    lines += ["tiers? <exists>", "size = 2", "item []:"]
    for number, (name, intervals) in enumerate((("phone", phones), ("word", words)), start=1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += [
            "        xmin = 0",
            f"        xmax = {end:.6f}",
            f"        intervals: size = {len(intervals)}",
        ]
        for i, (start, stop, label) in enumerate(intervals, start=1):
            lines += [
                f"        intervals [{i}]:",
                f"            xmin = {start:.6f}",
                f"            xmax = {stop:.6f}",
            ]
            lines.append(f'            text = "{label}"')
    return "\n".join(lines) + "\n"


def main() -> None:
    (DATA / "stories").mkdir(exist_ok=True)
    for path in sorted((DATA / "texts").glob("*.txt")):
        rng = np.random.default_rng([SEED, zlib.crc32(path.stem.encode())])
        phones, words = timed(path.read_text(), rng)
        out = DATA / "stories" / f"{path.stem}.TextGrid"
        temporary = out.with_suffix(".part")
        temporary.write_text(textgrid(phones, words))
        temporary.rename(out)
        spoken_words = [w for w in words if w[2] not in ("sp", "{BR}", "{NS}")]
        seconds = words[-1][1]
        print(
            f"{path.stem}: {len(spoken_words)} words, {seconds:.0f} s, {len(spoken_words) / seconds:.2f} words/s"
        )


if __name__ == "__main__":
    main()
