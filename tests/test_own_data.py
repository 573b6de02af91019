"""The worked example of docs/own_data.md, run as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

from .made_lebel import make_words, responses

LEAD_IN = 10.0  # seconds from the first volume to the start of the sound
PAGE = Path(__file__).resolve().parent.parent / "docs" / "own_data.md"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What the page takes for granted: three runs of a subject, half of whose voxels follow word rate."""
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        entries = make_words(120, seed)
        rows = [
            f"{start + LEAD_IN:.3f}\t{end - start:.3f}\t{text}"  # from the first volume, as BIDS has it
            for start, end, text in entries
            if text not in ("sp", "{NS}")
        ]
        events = "\n".join(["onset\tduration\tword", *rows]) + "\n"
        Path(f"sub-01_run-{seed + 1}_events.tsv").write_text(events)
        # the made-up responses begin 10 s into the sound: ten TRs, the lead-in included, go in front
        rng = np.random.default_rng(seed)
        bold = np.vstack([rng.standard_normal((10, 8)), responses(entries, 110, 8, rng)])
        np.save(f"sub-01_run-{seed + 1}_bold.npy", bold.astype(np.float32))
    return tmp_path


def test_the_page_runs_from_top_to_bottom(files):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # the page is ours
    result, assembly = names["result"], names["assembly"]
    assert (result.scores[:4] > 0.4).all() and (np.abs(result.scores[4:]) < 0.35).all()
    assert assembly.source == "sub-01.h5" and tuple(assembly.stories) == ("run-1", "run-2", "run-3")
    assert assembly.test_stories == ("run-3",)
    np.testing.assert_array_equal(assembly.stories["run-2"].bold[:], np.load("sub-01_run-2_bold.npy"))
