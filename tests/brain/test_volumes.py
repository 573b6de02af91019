"""Images in any orientation, and the order of voxels: checked by coordinates in millimetres, voxel by voxel."""

import itertools
import warnings

import nibabel
import numpy as np
import pytest

from encoding_nb import Surface, voxel_order
from encoding_nb._files import CACHE_VARIABLE
from encoding_nb.brain import SHIPPED, _pycortex, regions, surfaces, vertex_surface

from ..tiny_subject import make_store, reference_affine

ORIENTATIONS = [
    (axes, signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def oblique(degrees):
    """A rotation about two axes."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    about_z = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return about_x @ about_z


@pytest.fixture(scope="module", params=[0, 25], ids=["straight", "oblique"])
def store(request, tmp_path_factory):
    """A subject whose scanner was straight, and one whose head was tilted."""
    folder = tmp_path_factory.mktemp("pycortex")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_pycortex.STORE_VARIABLE, str(make_store(folder / "store")))
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        file = folder / "store" / "tiny" / "transforms" / "near" / "reference.nii.gz"
        image = nibabel.load(file)
        values, affine = np.asarray(image.dataobj), oblique(request.param) @ image.affine
        nibabel.save(nibabel.Nifti1Image(values, affine), file)
        yield folder / "store"


@pytest.fixture
def tiny(store):
    return Surface("tiny", "near", "thick")


@pytest.fixture
def affine(store):
    return reference_affine(store)


def stored(values, affine, axes, signs):
    """The image (x, y, z) with its axes in another order and direction, and its affine from the voxels' places."""
    moved = values.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    first = [values.shape[axis] - 1 if sign < 0 else 0 for axis, sign in zip(axes, signs, strict=True)]

    def place(index):  # of a voxel of the moved image, in millimetres
        at = np.zeros(4)
        at[3] = 1
        for k, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
            at[axis] = first[k] + sign * index[k]
        return (affine @ at)[:3]

    other = np.eye(4)
    other[:3, 3] = place((0, 0, 0))
    for k in range(3):
        other[:3, k] = place(np.eye(3, dtype=int)[k]) - other[:3, 3]
    return moved, other


def at_places(surface, affine, image):
    """The value of an image at each voxel of the surface, found by millimetres."""
    z, y, x = np.argwhere(surfaces.surface_mask(surface)).T
    millimetres = affine @ np.array([x, y, z, np.ones_like(x)])
    index = np.linalg.solve(image.affine, millimetres)[:3]
    assert np.abs(index - np.rint(index)).max() < 0.01
    return np.asarray(image.dataobj)[tuple(np.rint(index).astype(int))]


@pytest.mark.parametrize("order", ORIENTATIONS, ids=str)
def test_every_orientation_gives_the_same_regions_and_order(order, tiny, affine, tmp_path):
    mask = surfaces.surface_mask(tiny)
    labels = np.random.default_rng(0).integers(1, 4, mask.shape[::-1]).astype(np.int16)
    path = tmp_path / "atlas.nii.gz"
    nibabel.save(nibabel.Nifti1Image(*stored(labels, affine, *order)), path)
    masks = regions.read_masks(path, tiny)
    expected = at_places(tiny, affine, nibabel.load(path))
    np.testing.assert_array_equal(expected, labels.T[mask])
    for label in (1, 2, 3):
        np.testing.assert_array_equal(masks[f"label {label}"], expected == label)

    # BOLD as nilearn's masker reads it: `series[mask].T` of images stored as the mask is
    nibabel.save(nibabel.Nifti1Image(*stored(mask.T.astype(np.uint8), affine, *order)), path)
    in_file = nibabel.load(path)
    values = np.random.default_rng(1).normal(size=mask.shape[::-1])
    image = nibabel.Nifti1Image(*stored(values, affine, *order))
    bold = np.asarray(image.dataobj)[np.asarray(in_file.dataobj) != 0][None]
    np.testing.assert_array_equal(bold[:, voxel_order(tiny, mask=path)][0], at_places(tiny, affine, image))


def test_without_a_mask_the_order_is_that_of_the_reference_image(tiny):
    for surface in (tiny, SHIPPED):
        mask = surfaces.surface_mask(surface)
        volume = np.random.default_rng(0).normal(size=mask.shape)
        order = voxel_order(surface)
        assert order.shape == (mask.sum(),) and order.dtype.kind == "i"
        np.testing.assert_array_equal(volume.T[mask.T][order], volume[mask])


@pytest.mark.parametrize("order", ORIENTATIONS[::7], ids=str)
@pytest.mark.parametrize(
    ("off", "fits"), [(0.02, True), (-0.05, True), (0.5, False), (-0.2, False), (1, False), (3, False)]
)
def test_images_that_are_shifted(off, fits, order, tiny, affine, tmp_path):
    """By whole voxels, too: the field of view is another one."""
    mask = surfaces.surface_mask(tiny)
    values, other = stored(mask.T.astype(np.uint8), affine, *order)
    for axis in range(3):
        shifted = other.copy()
        shifted[:3, 3] += off * other[:3, axis]
        nibabel.save(nibabel.Nifti1Image(values, shifted), tmp_path / "mask.nii.gz")
        if fits:
            assert regions.read_masks(tmp_path / "mask.nii.gz", tiny)["label 1"].all()
            assert sorted(voxel_order(tiny, mask=tmp_path / "mask.nii.gz")) == list(range(mask.sum()))
            continue
        with pytest.raises(
            ValueError, match=r"mask.nii.gz: expected the voxels of .*reference.nii.gz.*nilearn.image"
        ):
            regions.read_masks(tmp_path / "mask.nii.gz", tiny)
        with pytest.raises(ValueError, match=r"expected the voxels of .*; resample BOLD .not only the mask"):
            voxel_order(tiny, mask=tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("degrees", [1, 10, 45, 60, 90, 170])
def test_images_that_are_tilted(degrees, tiny, affine, tmp_path):
    mask = surfaces.surface_mask(tiny).T.astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, oblique(degrees) @ affine), tmp_path / "mask.nii.gz")
    with pytest.raises(ValueError, match="expected the voxels of"):
        regions.read_masks(tmp_path / "mask.nii.gz", tiny)
    sheared = affine.copy()
    sheared[:3, 0] += 0.3 * sheared[:3, 1]
    nibabel.save(nibabel.Nifti1Image(mask, sheared), tmp_path / "mask.nii.gz")
    with pytest.raises(ValueError, match="in other places"):
        regions.read_masks(tmp_path / "mask.nii.gz", tiny)


def test_a_mask_with_other_voxels_has_no_order(tiny, affine, tmp_path):
    mask = surfaces.surface_mask(tiny).T.copy()
    inside, outside = np.argwhere(mask), np.argwhere(~mask)
    mask[tuple(inside[:3].T)] = False
    mask[tuple(outside[:2].T)] = True
    path = tmp_path / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), path)
    named = (
        rf"mask.nii.gz: expected the {len(inside)} voxels .* 3 of them are missing, and there are 2 others"
    )
    with pytest.raises(ValueError, match=named):
        voxel_order(tiny, mask=path)
    nibabel.save(nibabel.Nifti1Image(np.full(mask.shape, np.nan), affine), path)
    with pytest.raises(ValueError, match="not finite"):
        voxel_order(tiny, mask=path)
    with pytest.raises(ValueError, match="per vertex and have no volume mask"):
        voxel_order(vertex_surface("tiny"))
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), None), path)
    with pytest.raises(ValueError, match="has no affine"):
        voxel_order(tiny, mask=path)


def test_a_reference_without_an_affine_is_warned_of(tmp_path):
    store = make_store(tmp_path / "store", subject="bare")
    folder = store / "bare" / "transforms" / "near"
    nibabel.save(nibabel.Nifti1Image(np.zeros((24, 26, 16), np.float32), None), folder / "reference.nii.gz")
    mask = np.zeros((24, 26, 16), np.uint8)
    mask[3:9] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / "mask_mine.nii.gz")
    surface = Surface("bare", "near", "mine", store=str(store))
    with pytest.warns(UserWarning, match="reference.nii.gz has no affine .*order in which they are stored"):
        masks = regions.read_masks(folder / "mask_mine.nii.gz", surface)
    assert masks["label 1"].all() and len(masks["label 1"]) == mask.sum()
    (folder / "reference.nii.gz").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks = regions.read_masks(folder / "mask_mine.nii.gz", surface)  # the mask has an affine
    assert masks["label 1"].all()


# --- masks of pycortex's store ---


@pytest.mark.parametrize("order", ORIENTATIONS[::5], ids=str)
def test_a_mask_of_the_store_in_another_orientation_is_refused(order, tmp_path):
    """pycortex takes its array and not its affine, so BOLD and map may have been made in either order."""
    store = make_store(tmp_path / "store")
    affine, shape = reference_affine(store), (24, 26, 16)
    values = (np.random.default_rng(0).random(shape) < 0.3).astype(np.uint8)
    file = store / "tiny" / "transforms" / "near" / "mask_mine.nii.gz"
    nibabel.save(nibabel.Nifti1Image(*stored(values, affine, *order)), file)
    surface = Surface("tiny", "near", "mine", store=str(store))
    if order == ((0, 1, 2), (1, 1, 1)):
        np.testing.assert_array_equal(surfaces.surface_mask(surface), values.T != 0)
        return
    with pytest.raises(ValueError, match=r"mask_mine.nii.gz: .*(another order of axes|expected the voxels)"):
        surfaces.surface_mask(surface)


def test_a_mask_of_the_store_that_changes_is_read_again(tmp_path):
    store = make_store(tmp_path / "store")
    affine, file = reference_affine(store), store / "tiny" / "transforms" / "near" / "mask_mine.nii.gz"
    surface = Surface("tiny", "near", "mine", store=str(store))
    for n in (1, 2):
        values = np.zeros((24, 26, 16), np.float32)
        values[:n] = 1
        nibabel.save(nibabel.Nifti1Image(values, affine), file)
        assert surfaces.known_voxel_count(surface) == surfaces.voxel_count(surface) == n * 26 * 16
    values[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, affine), file)
    with pytest.raises(ValueError, match="mask of 0 and 1, got values that are not finite"):
        surfaces.surface_mask(surface)
    values[0, 0, 0] = 1
    nibabel.save(nibabel.Nifti1Image(values, affine + np.diag([0.0, 0, 0.5, 0])), file)
    with pytest.warns(UserWarning, match="pycortex uses only the array of the mask"):
        assert surfaces.voxel_count(surface) == 2 * 26 * 16
    assert surfaces.known_voxel_count(vertex_surface("tiny", store=str(store))) == 1152
