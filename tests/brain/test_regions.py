import json
from dataclasses import dataclass, field, replace

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoding_nb import Surface
from encoding_nb._files import CACHE_VARIABLE
from encoding_nb.brain import _pycortex, regions, surfaces

from ..tiny_subject import make_store, reference_affine

DEMO = surfaces.SHIPPED


@dataclass(frozen=True, eq=False)
class Result:
    """What the tables read of a pipeline.Result."""

    scores: np.ndarray
    significant: np.ndarray | None
    surface: Surface | None = None
    rois: dict = field(default_factory=dict)
    noise_ceiling: np.ndarray | None = None
    chance_ceiling: float | None = None
    test_name: str = "permutation test"
    subject: str = "S1"


@pytest.fixture(scope="module")
def own_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pycortex")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_pycortex.STORE_VARIABLE, str(make_store(folder / "store")))
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        yield folder / "store"


@pytest.fixture
def tiny(own_store):
    return Surface("tiny", "near", "thick")


@pytest.fixture
def result(tiny):
    rng = np.random.default_rng(0)
    n = surfaces.voxel_count(tiny)
    scores = rng.normal(size=n)
    scores[::9] = np.nan
    return Result(scores, (rng.random(n) < 0.3) & np.isfinite(scores), tiny)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_table_equals_pandas_own_sums(seed, n):
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))
    masks = {name: rng.random(n) < share for name, share in (("a", 0.5), ("b", 0.1), ("c", 1.0))}
    significant = rng.random(n) < 0.4
    table = regions.roi_table(Result(scores, significant), masks)
    for name, mask in masks.items():
        column = pd.Series(scores[mask])
        row = table.loc[name]
        np.testing.assert_allclose([row["mean"], row["median"]], [column.mean(), column.median()])
        assert (row["count"], row["significant"]) == (mask.sum(), (mask & significant).sum())
    medians = table["median"].dropna()
    assert medians.is_monotonic_decreasing and table.index.name == "region"


def test_without_masks_of_their_own_the_drawn_areas_count(result):
    table = regions.roi_table(result)
    assert set(table.index) == {"box", "blob"}
    drawn = surfaces.roi_masks(result.surface)
    assert table.loc["box", "count"] == drawn["box"].sum() > 0
    assert table.loc["box", "mean"] == pytest.approx(np.nanmean(result.scores[drawn["box"]]))


def test_the_data_own_masks_come_first_and_drawn_areas_by_name(result):
    mine = np.zeros(len(result.scores), bool)
    mine[:10] = True
    with_masks = Result(result.scores, result.significant, result.surface, {"mine": mine})
    assert list(regions.roi_table(with_masks).index) == ["mine"]
    assert set(regions.roi_table(with_masks, ["mine", "blob"]).index) == {"mine", "blob"}
    assert list(regions.roi_table(with_masks, "blob").index) == ["blob"]
    with pytest.raises(ValueError, match="no region 'Brocca'; known are box, blob, mine"):
        regions.roi_table(with_masks, ["Brocca"])


def test_own_masks_and_other_values(result):
    mask = np.arange(len(result.scores)) < 50
    table = regions.roi_table(result, {"first": mask}, values=np.arange(len(mask)))
    assert table.loc["first", "mean"] == 24.5 and table.loc["first", "count"] == 50
    assert table.loc["first", "significant"] == result.significant[:50].sum()


def test_a_table_of_a_run_without_a_test_has_no_significant_voxels(result):
    why = 'not tested: nested cross-validation needs significance="shift"'
    table = regions.roi_table(replace(result, significant=None, test_name=why))
    assert list(table.columns) == ["mean", "median", "count"] and table.columns.name == "not tested"
    tested = regions.roi_table(replace(result, test_name="parametric test, assumes white noise"))
    assert "assumes white noise" in str(tested) and "assumes white noise" in tested.to_html()
    pd.testing.assert_frame_equal(table, tested[["mean", "median", "count"]], check_names=False)
    metrics = regions.roi_metrics(replace(result, significant=None))
    assert set(metrics) == {name for name in regions.roi_metrics(result) if "significant" not in name}


def test_a_table_of_ceilings_and_shares_counts_ceilings_above_chance(result):
    ceiling = np.linspace(0, 0.9, len(result.scores))
    heard = replace(result, noise_ceiling=ceiling, chance_ceiling=0.4)
    masks = {"all": np.ones(len(ceiling), bool), "low": ceiling < 0.3}
    table = regions.roi_table(heard, masks, values="ceiling")
    assert table.loc["all", "mean"] == pytest.approx(0.45)
    assert table["above_chance"].to_dict() == {"all": (ceiling >= 0.4).sum(), "low": 0}
    shares = regions.roi_table(heard, masks, values="share")
    expected = np.nanmedian((heard.scores / ceiling)[ceiling >= 0.4])
    assert shares.loc["all", "median"] == pytest.approx(expected)
    assert np.isnan(shares.loc["low", "median"]) and shares.loc["all", "count"] == len(ceiling)
    assert shares.loc["all", "significant"] == result.significant.sum()
    with pytest.raises(ValueError, match="S1: no noise ceiling, because no held-out story has repeats"):
        regions.roi_table(result, values="share")


def test_metrics_are_the_table_in_flat_numbers(result):
    table, metrics = regions.roi_table(result), regions.roi_metrics(result)
    assert len(metrics) == table.size
    for region, row in table.iterrows():
        for name, column in (("mean_score", "mean"), ("median_score", "median"), ("n_voxels", "count"),
                             ("n_significant", "significant")):  # fmt: skip
            assert metrics[f"{region}/{name}"] == row[column]
    mine = np.arange(len(result.scores)) < 50
    assert set(regions.roi_metrics(result, {"mine": mine})) == {
        f"mine/{name}" for name in ("mean_score", "median_score", "n_voxels", "n_significant")
    }


def test_masks_that_do_not_fit_are_refused(result):
    n = len(result.scores)
    with pytest.raises(ValueError, match=rf"a: expected a mask of {n} voxels, .* got shape \(3,\)"):
        regions.roi_table(result, {"a": np.ones(3, bool)})
    with pytest.raises(ValueError, match=r"a: expected a mask .* other values"):
        regions.roi_table(result, {"a": np.arange(n)})
    with pytest.raises(
        ValueError, match=rf"roi_table: expected {n} values, one per voxel .* got shape \(3,\)"
    ):
        regions.roi_table(result, {"a": np.ones(n, bool)}, values=np.zeros(3))
    pvalues = Result(result.scores, np.full(n, 0.9))
    with pytest.raises(ValueError, match=r"significant must be flags, .* got float64 such as \[0.9"):
        regions.roi_table(pvalues, {"a": np.ones(n, bool)})
    with pytest.raises(TypeError, match="roi_table: expected a Result, got 'demo'"):
        regions.roi_table("demo")
    with pytest.raises(ValueError, match="no regions, and no surface with drawn areas"):
        regions.roi_table(Result(result.scores, result.significant))
    with pytest.raises(ValueError, match="an atlas needs the surface"):
        regions.roi_table(Result(result.scores, result.significant), "atlas.nii.gz")


# --- atlas files ---


@pytest.fixture
def affine(own_store):
    return reference_affine(own_store)


@pytest.fixture
def labels(tiny):
    """A volume of labels (z, y, x) in which label 5 touches no voxel of the mask."""
    mask = surfaces.surface_mask(tiny)
    volume = np.zeros(mask.shape, np.int16)
    volume[mask] = np.arange(mask.sum()) % 4  # 0 to 3
    volume[tuple(np.argwhere(~mask)[0])] = 5
    return volume


def test_label_volume(tiny, labels, affine, tmp_path, result):
    path = tmp_path / "atlas.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels.T, affine), path)
    masks = regions.read_masks(path, tiny, names={1: "one", 3: "three"})
    assert list(masks) == ["one", "label 2", "three", "label 5"]
    np.testing.assert_array_equal(masks["three"], np.arange(len(masks["three"])) % 4 == 3)
    assert not masks["label 5"].any(), "listed, and empty"
    table = regions.roi_table(result, path, names={1: "one"})
    assert table.loc["one", "count"] == masks["one"].sum()
    assert np.isnan(table.loc["label 5", "median"]) and table.loc["label 5", "count"] == 0


def saved(path, values, affine):
    """A NIfTI file; also with an affine that nibabel would refuse to write."""
    image = nibabel.Nifti1Image(values, None)
    if affine is not None:
        image.header["sform_code"] = 2
        image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
        image = nibabel.Nifti1Image(values, None, image.header)
    with nibabel.openers.Opener(path, "wb") as file:
        image.header.set_data_dtype(values.dtype)
        image.header.set_data_shape(values.shape)
        image.header["vox_offset"], image.header["magic"] = 352, b"n+1"
        file.write(image.header.binaryblock + b"\0" * 4)
        file.write(values.tobytes(order="F"))
    return path


def test_labels_in_other_types_are_the_same_regions(tiny, labels, affine, tmp_path):
    """As whole numbers with rounding, scaled, with a fourth axis of one volume, with NaN outside the cortex."""
    path = tmp_path / "atlas.nii.gz"
    expected = regions.read_masks(saved(path, labels.T, affine), tiny)
    scaled = nibabel.Nifti1Image(labels.T * np.int16(3000), affine)
    scaled.header.set_slope_inter(1 / 3000, 0)
    nibabel.save(scaled, tmp_path / "scaled.nii.gz")
    assert np.asarray(nibabel.load(tmp_path / "scaled.nii.gz").dataobj).dtype.kind == "f"
    outside = np.where(surfaces.surface_mask(tiny) | (labels != 0), labels, np.nan).T
    for other in (labels.T + np.float32(1e-6), labels.T[..., None], outside.astype(np.float32)):
        found = regions.read_masks(saved(path, other, affine), tiny)
        assert list(found) == list(expected)
        for name, mask in expected.items():
            np.testing.assert_array_equal(found[name], mask)
    found = regions.read_masks(tmp_path / "scaled.nii.gz", tiny)
    assert all((found[name] == mask).all() for name, mask in expected.items())


def test_negative_labels_and_labels_of_one_name(tiny, labels, affine, tmp_path):
    path = saved(tmp_path / "atlas.nii.gz", np.where(labels == 2, -2, labels).T.astype(np.int16), affine)
    numbers = labels[surfaces.surface_mask(tiny)]
    masks = regions.read_masks(path, tiny, names={"1": "one", -2: "two", 3: "one"})
    assert list(masks) == ["two", "one", "label 5"]
    np.testing.assert_array_equal(masks["two"], numbers == 2)
    np.testing.assert_array_equal(masks["one"], (numbers == 1) | (numbers == 3))
    with pytest.raises(ValueError, match=r"expected labels 71, 72, which names gives, got -2, 1, 3, 5"):
        regions.read_masks(path, tiny, names={71: "V1", 72: "V2"})
    for wrong in ({"V1": 1}, {1.5: "V1"}, {None: "V1"}):
        with pytest.raises(ValueError, match=r"names: expected a name for each whole-number label"):
            regions.read_masks(path, tiny, names=wrong)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda v, a: (v[:-1], a), r"expected the voxels of .*reference.nii.gz \(24 x 26 x 16 voxels of .*got 23 x 26"),
        (lambda v, a: (v[:, :, 1:], a), "got 24 x 26 x 15"),
        (lambda v, a: (v + 0.5, a), r"whole-number labels, got some such as 5\.5; resample with nearest"),
        (lambda v, a: (np.stack([v, v], 3), a), "expected one volume .* got 24 x 26 x 16 x 2; save each volume"),
        (lambda v, a: (v[:, :, 0], a), "expected one volume .* got 24 x 26"),
        (lambda v, a: (v.astype(complex), a), "whole-number labels, got values of type complex128"),
        (lambda v, a: (np.where(v == 1, np.nan, v).astype("f4"), a), r"label for every voxel .* got NaN"),
        (lambda v, a: (v.astype("f4") * 2e7, a), "stored as float32, which is exact only up to 16777216"),
        (lambda v, a: (v, a @ np.diag([1, 1, 1.1, 1])), "in other places; resample it: nilearn.*nearest"),
        (lambda v, a: (v, np.diag([1.1, 1.1, 1.1, 1]) @ a), "in other places"),
        (lambda v, a: (v, a @ np.diag([0, 1, 1, 1])), "affine is singular or not finite"),
        (lambda v, a: (v, a @ np.diag([np.nan, 1, 1, 1])), "affine is singular or not finite"),
        (lambda v, a: (v, None), "has no affine .*not known which side is left"),
    ],
)  # fmt: skip
def test_label_volumes_that_do_not_fit(change, named, tiny, labels, affine, tmp_path):
    path = saved(tmp_path / "atlas.nii.gz", *change(labels.T, affine))
    with pytest.raises(ValueError, match=rf"atlas\.nii\.gz.*{named}"):
        regions.read_masks(path, tiny)


def test_files_that_are_not_volumes_are_named(tiny, labels, affine, tmp_path):
    whole = saved(tmp_path / "atlas.nii", labels.T, affine).read_bytes()
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\n", whole[:300], whole[:-100]):
        (tmp_path / "atlas.nii").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"atlas\.nii: cannot be read as a NIfTI volume .*download it again"
        ):
            regions.read_masks(tmp_path / "atlas.nii", tiny)
    with pytest.raises(FileNotFoundError):
        regions.read_masks(tmp_path / "gone.nii.gz", tiny)
    axes = [
        nibabel.cifti2.ScalarAxis(["a"]),
        nibabel.cifti2.BrainModelAxis.from_mask(np.ones(5, bool), "left_cortex"),
    ]
    nibabel.save(nibabel.Cifti2Image(np.ones((1, 5)), axes), tmp_path / "a.dscalar.nii")
    with pytest.raises(ValueError, match="expected a NIfTI volume, got a Cifti2 file"):
        regions.read_masks(tmp_path / "a.dscalar.nii", tiny)


def test_a_file_of_values_per_vertex_is_not_taken_for_a_name(result, tmp_path):
    for name in ("lh.aparc.annot", "atlas.label.gii", "mask.npy"):
        with pytest.raises(
            ValueError, match=rf"{name}: expected an atlas as .*boolean masks over the vertices"
        ):
            regions.roi_table(result, str(tmp_path / name))


def test_npz_of_masks_over_voxels_or_volumes(tiny, labels, tmp_path):
    mask = surfaces.surface_mask(tiny)
    np.savez(tmp_path / "atlas.npz", flat=labels[mask] == 2, volume=labels == 2)
    masks = regions.read_masks(tmp_path / "atlas.npz", tiny)
    np.testing.assert_array_equal(masks["flat"], masks["volume"])
    np.savez(tmp_path / "short.npz", short=np.ones(4, bool))
    with pytest.raises(ValueError, match="short: expected a mask"):
        regions.read_masks(tmp_path / "short.npz", tiny)
    np.savez(tmp_path / "turned.npz", turned=(labels == 2).T)
    with pytest.raises(
        ValueError, match=r"'turned': expected a volume \(z, y, x\) of shape \(16, 26, 24\), got"
    ):
        regions.read_masks(tmp_path / "turned.npz", tiny)
    with pytest.raises(ValueError, match="names are for a NIfTI volume of labels"):
        regions.read_masks(tmp_path / "atlas.npz", tiny, names={1: "a"})


def test_npz_with_pickled_content_is_not_opened(tiny, tmp_path):
    np.savez(tmp_path / "evil.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        regions.read_masks(tmp_path / "evil.npz", tiny)


def test_json_of_voxel_numbers_or_flags(tiny, tmp_path):
    n = surfaces.voxel_count(tiny)
    content = {"numbers": [0, 5, 7], "flags": [i == 3 for i in range(n)], "empty": []}
    (tmp_path / "atlas.json").write_text(json.dumps(content))
    masks = regions.read_masks(tmp_path / "atlas.json", tiny)
    assert np.flatnonzero(masks["numbers"]).tolist() == [0, 5, 7]
    assert np.flatnonzero(masks["flags"]).tolist() == [3] and not masks["empty"].any()
    for wrong, said in (({"a": [n]}, f"voxel numbers from 0 to {n - 1}"), ({"a": "x"}, "voxel numbers"),
                        ([1, 2], "expected an object of region names, got a list")):  # fmt: skip
        (tmp_path / "atlas.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=said):
            regions.read_masks(tmp_path / "atlas.json", tiny)
    (tmp_path / "atlas.json").write_text(json.dumps({"a": [int(i == 3) for i in range(n)]}))
    with pytest.raises(ValueError, match=r"'a': expected the number of each voxel once.* true and false"):
        regions.read_masks(tmp_path / "atlas.json", tiny)
    (tmp_path / "atlas.json").write_text('{"a": [1], "b": [2], "a": [3]}')
    with pytest.raises(ValueError, match="the region 'a' is there twice"):
        regions.read_masks(tmp_path / "atlas.json", tiny)


def test_an_unknown_kind_of_atlas_is_named(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"atlas\.txt: expected an atlas as \.nii, .*\.json"):
        regions.read_masks(tmp_path / "atlas.txt", tiny)
