"""Make the demo's surface files: a voxel mask of pycortex's subject S1, its flat mappers and its outlines.

    python tools/demo/surface.py

Takes some minutes with a cold pycortex cache. The mask "demo" of S1/fullhead is a part of pycortex's "thin"
mask (voxels within 2 mm of the cortical surface, 37,226): every pixel of the flatmap that thin covers keeps a
voxel, chosen one by one, each time the voxel that shows in the most pixels not yet covered. That leaves
15,000 to 25,000 voxels spread over the whole cortex, where S1/retinotopy would cover its back part only.
"""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np

from encoding_nb._files import new_file
from encoding_nb.assembly import Surface
from encoding_nb.brain import surfaces
from encoding_nb.brain._pycortex import find_store
from encoding_nb.brain.outlines import read_drawing

THIN = Surface("S1", "fullhead", "thin")
HEIGHTS = (512, 1024)


def covering_voxels(weights: np.ndarray) -> np.ndarray:
    """Columns of a (pixels, voxels) sparse matrix that together cover what all columns do; greedy."""
    columns = weights.tocsc()
    covered = np.zeros(columns.shape[0], bool)
    queue = [(-int(n), j) for j, n in enumerate(np.diff(columns.indptr)) if n]
    heapq.heapify(queue)
    chosen = []
    while queue:
        _, j = heapq.heappop(queue)
        rows = columns.indices[columns.indptr[j] : columns.indptr[j + 1]]
        gain = int((~covered[rows]).sum())
        if gain and queue and gain < -queue[0][0]:  # what was queued was out of date
            heapq.heappush(queue, (-gain, j))
        elif gain:
            covered[rows] = True
            chosen.append(j)
    return np.sort(chosen)


def main() -> None:
    folder = surfaces.SHIPPED_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    thin = surfaces.surface_mask(THIN)
    mask = np.zeros(thin.size, bool)
    mask[np.flatnonzero(thin)[covering_voxels(surfaces.flat_mapper(THIN, height=512).weights)]] = True
    mask = mask.reshape(thin.shape)
    with new_file(folder / "mask.npz") as draft:
        np.savez_compressed(draft, bits=np.packbits(mask), shape=mask.shape)
    for height in HEIGHTS:
        mapper = surfaces.mapper_of_pycortex(surfaces.SHIPPED, mask, height)
        surfaces.write_mapper(folder / f"flat-{height}.npz", mapper)
    write_outlines(folder / "outlines.npz", find_store("S1") / "S1" / "overlays.svg")


def write_outlines(path: Path, drawing: Path) -> None:
    lines = [line for line in read_drawing(drawing)[0] if line.layer in ("rois", "sulci", "edge")]
    with new_file(path) as draft:
        np.savez_compressed(
            draft,
            layers=[line.layer for line in lines],
            names=[line.name for line in lines],
            closed=[line.closed for line in lines],
            lengths=[len(line.points) for line in lines],
            points=np.vstack([line.points for line in lines]).astype(np.float32),
            label_at=np.vstack(
                [np.full(2, np.nan) if line.label_at is None else line.label_at for line in lines]
            ).astype(np.float32),
        )


if __name__ == "__main__":
    main()
