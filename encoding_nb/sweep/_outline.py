"""A subject as a sweep's workers need it: words, times and areas in two files; BOLD by its shape alone.

The responses themselves lie beside them, see `_shared.SharedInputs`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..assembly import Array, Assembly, Story, Surface, Words


class _Elsewhere:
    """BOLD that lies in the sweep's files: only its shape is here."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)

    def __getitem__(self, key: Any) -> Array:
        raise LookupError("these responses are read through the sweep's SharedInputs.")


def write_outline(assembly: Assembly, folder: Path) -> None:
    """All of an assembly but its BOLD and truth into `folder`, without pickles."""
    stories = list(assembly.stories.values())
    texts = {
        "subject": assembly.subject,
        "tr": assembly.tr,
        "test_stories": assembly.test_stories,
        "surface": None if assembly.surface is None else asdict(assembly.surface),
        "voxel_names": assembly.voxel_names,
        "simulated": assembly.simulated,
        "rois": list(assembly.rois),
        "stories": [
            {
                "name": s.name,
                "words": s.words.text,
                "contexts": dict(s.contexts or {}),
                "shape": tuple(s.bold.shape),
            }
            for s in stories
        ],
    }
    arrays = {}
    for i, story in enumerate(stories):
        arrays |= {f"onsets{i}": story.words.onsets, f"offsets{i}": story.words.offsets}
        arrays[f"tr_times{i}"] = story.tr_times
    arrays |= {f"roi{i}": np.packbits(mask) for i, mask in enumerate(assembly.rois.values())}
    np.savez(folder / "outline.npz", **arrays)
    (folder / "outline.json").write_text(json.dumps(texts), encoding="utf-8")


@lru_cache(maxsize=16)  # subjects take turns where they share a design
def read_outline(folder: Path) -> Assembly:
    """The assembly that `write_outline` wrote; its BOLD has shapes and no values."""
    texts = json.loads((folder / "outline.json").read_text(encoding="utf-8"))
    with np.load(folder / "outline.npz", allow_pickle=False) as arrays:
        stories = {}
        for i, s in enumerate(texts["stories"]):
            words = Words(tuple(s["words"]), arrays[f"onsets{i}"], arrays[f"offsets{i}"])
            contexts = {name: tuple(windows) for name, windows in s["contexts"].items()} or None
            stories[s["name"]] = Story(
                s["name"], words, arrays[f"tr_times{i}"], _Elsewhere(s["shape"]), contexts=contexts
            )
        n_voxels = texts["stories"][0]["shape"][1]
        rois = {
            name: np.unpackbits(arrays[f"roi{i}"], count=n_voxels).astype(bool)
            for i, name in enumerate(texts["rois"])
        }
    return Assembly(
        subject=texts["subject"],
        tr=texts["tr"],
        stories=stories,
        test_stories=tuple(texts["test_stories"]),
        surface=None if texts["surface"] is None else Surface(**texts["surface"]),
        rois=rois,
        voxel_names=texts["voxel_names"],
        truth={} if texts["simulated"] else None,
    )
