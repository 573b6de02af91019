"""A small subject in a pycortex store of its own: two folded sheets, two transforms, three areas, a sulcus.

pycortex needs a minute for the flat mapper of a real cortex and a second for this one.
"""

import json
from pathlib import Path

import nibabel
import numpy as np

N = 24  # vertices along a side of each hemisphere
SHAPES = {"near": (16, 26, 24), "far": (10, 18, 15)}  # volume of each transform: z, y, x
SIZE = 60.0  # mm, height of the flat surface

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="1000" height="500"
  xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape">
 <g inkscape:label="rois" inkscape:groupmode="layer" id="rois">
  <g inkscape:label="shapes" inkscape:groupmode="layer" id="rois_shapes">
   <g inkscape:label="box" id="box"><path d="M 50,50 L 250,50 250,250 50,250 Z"/></g>
   <g inkscape:label="blob" id="blob">
    <path d="m 600,300 c 0,-60 150,-60 150,0 c 0,80 -150,80 -150,0 z"/>
    <path d="m 300,350 h 80 v 80 h -80 z"/>
   </g>
   <g inkscape:label="empty" id="empty"/>
  </g>
  <g inkscape:label="labels" inkscape:groupmode="layer" id="rois_labels"/>
 </g>
 <g inkscape:label="sulci" inkscape:groupmode="layer" id="sulci">
  <g inkscape:label="shapes" inkscape:groupmode="layer" id="sulci_shapes">
   <g inkscape:label="CS" id="CS"><path d="M 700,50 C 720,150 760,200 800,400"/></g>
  </g>
  <g inkscape:label="labels" inkscape:groupmode="layer" id="sulci_labels"/>
 </g>
</svg>
"""


def make_store(store: Path, subject: str = "tiny") -> Path:
    """Write the subject into `store` and return `store`."""
    folder = store / subject
    for name in ("surfaces", "transforms", "surface-info", "anatomicals"):
        (folder / name).mkdir(parents=True)
    for side, sign in (("lh", -1), ("rh", 1)):
        _write_surfaces(folder / "surfaces", side, sign)
    for name, shape in SHAPES.items():
        _write_transform(folder / "transforms" / name, shape)
    (folder / "overlays.svg").write_text(SVG)
    return store


def _write_surfaces(folder: Path, side: str, sign: int) -> None:
    u, v = (axis.ravel() for axis in np.meshgrid(*[np.linspace(0, SIZE, N)] * 2, indexing="ij"))
    wave = 4 * np.sin(v / 5) + 3 * np.cos(u / 7)
    flat = np.column_stack([sign * u, v, 0 * u])
    pia = np.column_stack([sign * (u + 4), v, wave + 2])
    wm = np.column_stack([sign * (u + 4), v, wave - 2])
    corner = (np.arange(N - 1)[:, None] * N + np.arange(N - 1)).ravel()
    faces = np.vstack([np.column_stack([corner, corner + N, corner + 1]),
                       np.column_stack([corner + 1, corner + N, corner + N + 1])])  # fmt: skip
    faces = faces[:, ::sign].astype(np.int32)
    for name, points in (("flat", flat), ("pia", pia), ("wm", wm)):
        arrays = [nibabel.gifti.GiftiDataArray(points.astype(np.float32), intent="NIFTI_INTENT_POINTSET"),
                  nibabel.gifti.GiftiDataArray(faces, intent="NIFTI_INTENT_TRIANGLE")]  # fmt: skip
        nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), folder / f"{name}_{side}.gii")


def _write_transform(folder: Path, shape: tuple[int, int, int]) -> None:
    folder.mkdir()
    low, high = np.array([-SIZE - 8, -4.0, -12.0]), np.array([SIZE + 8, SIZE + 4, 12.0])
    scale = (np.array(shape[::-1]) - 1) / (high - low)
    coord = np.diag([*scale, 1.0])
    coord[:3, 3] = -low * scale
    matrices = {"coord": coord.tolist(), "magnet": coord.tolist()}
    (folder / "matrices.xfm").write_text(json.dumps(matrices))
    # from voxels to the millimetres of the surfaces, with voxels of three sizes
    reference = nibabel.Nifti1Image(np.zeros(shape[::-1], np.float32), np.linalg.inv(coord))
    nibabel.save(reference, folder / "reference.nii.gz")


def reference_affine(store: Path, transform: str = "near", subject: str = "tiny") -> np.ndarray:
    """(4, 4): from voxel numbers of a transform to millimetres."""
    return nibabel.load(store / subject / "transforms" / transform / "reference.nii.gz").affine
