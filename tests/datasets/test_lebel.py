"""ds003020's layout: TR times, trimming, lazy BOLD, NaN, surfaces, and what is wrong with a folder."""

import json
import shutil
import signal
import subprocess
import sys
import tracemalloc
import warnings

import h5py
import numpy as np
import pytest

from encoding_nb import Settings, Surface, load_assembly, run
from encoding_nb.assembly import LazyArray
from encoding_nb.datasets import lebel

from ..fuzz import damaged_copies, no_hang
from ..made_lebel import N_TRS, make_lebel, make_words, write_hf5, write_mask

POINTER = (
    "../../../.git/annex/objects/vg/Xz/MD5E-s29--c905809627b7291b5d031083dc36d56f.hf5/MD5E-s29--c905.hf5"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_lebel(tmp_path_factory.mktemp("lebel") / "ds003020")


@pytest.fixture
def copied(made, tmp_path):
    return shutil.copytree(made, tmp_path / "ds003020")


def responses(root, story="alpha", subject="UTS03"):
    return root / "derivative" / "preprocessed_data" / subject / f"{story}.hf5"


def test_lists_of_stories_are_the_published_ones():
    assert len(lebel.LITCODER_STORIES) == 25 and len(lebel.AUTHORS_STORIES) == 27
    assert set(lebel.AUTHORS_STORIES) - set(lebel.LITCODER_STORIES) == {"life", "myfirstdaywiththeyankees"}
    assert lebel.TEST_STORY in lebel.LITCODER_STORIES


def test_a_subject_opens_with_times_rows_and_surface(made):
    assembly = load_assembly(made, subject="UTS03")
    assert tuple(assembly.stories) == ("alpha", "beta", "gamma", "wheretheressmoke")
    assert assembly.test_stories == ("wheretheressmoke",) and assembly.tr == 2.0 and assembly.n_voxels == 12
    assert assembly.surface == Surface(
        "UTS03", "UTS03_auto", "thick", str((made / "derivative" / "pycortex-db").resolve())
    )
    for seed, (name, n_trs) in enumerate(N_TRS.items()):
        story = assembly.stories[name]
        assert story.bold.shape == (n_trs - 20, 12) and story.repeats is None
        assert story.n_trs == n_trs - 5
        np.testing.assert_array_equal(story.tr_times[[0, 5, -1]], [-10, 0, 2 * (n_trs - 6) - 10])
        spoken = [entry for entry in make_words(n_trs, seed) if entry[2] not in ("sp", "{NS}")]
        assert story.words.text == tuple(text for _, _, text in spoken)
        np.testing.assert_allclose(story.words.times, [(start + end) / 2 for start, end, _ in spoken])


def test_bold_is_read_from_its_file_row_by_row_as_float32(made):
    bold = load_assembly(made).stories["beta"].bold
    with h5py.File(responses(made, "beta")) as file:
        stored = file["data"][:]
    assert isinstance(bold, LazyArray) and stored.dtype == np.float64
    np.testing.assert_array_equal(bold[40:], stored[40:].astype(np.float32))
    assert bold[:].dtype == np.float32


def test_repeats_come_only_when_asked_for(made):
    story = load_assembly(made, repeats=True).stories["wheretheressmoke"]
    assert (
        story.repeats.shape == (3, 291, 12)
        and load_assembly(made, repeats=True).stories["alpha"].repeats is None
    )
    np.testing.assert_allclose(story.repeats[:].mean(axis=0), story.bold[:], atol=1e-5)


def test_stories_by_name_and_by_list(made, monkeypatch):
    assert tuple(load_assembly(made, stories=["wheretheressmoke", "gamma"]).stories) == (
        "gamma",
        "wheretheressmoke",
    )
    monkeypatch.setitem(lebel.STORY_LISTS, "litcoder", ("beta", "wheretheressmoke"))
    found = load_assembly(made, stories="litcoder")
    assert tuple(found.stories) == ("beta", "wheretheressmoke")
    assert dict(found.source_options) == {"stories": "litcoder"}


def test_a_fit_trims_as_the_authors_do_and_finds_the_signal(made):
    assembly = load_assembly(made, subject="UTS03", repeats=True)
    result = run(assembly, Settings(modality="wordrate"), progress=False)
    assert result.predictions["wheretheressmoke"].shape == (251, 12)
    times = result.row_times["wheretheressmoke"]
    np.testing.assert_array_equal(times[[0, -1]], [2 * 50 - 10, 2 * (311 - 11) - 10])
    assert (result.scores[:6] > 0.4).all() and (np.abs(result.scores[6:]) < 0.25).all()
    assert result.surface == assembly.surface and result.noise_ceiling.shape == (12,)


def test_nan_become_zero_and_are_counted_once(copied):
    data = np.ones((40, 12)) * np.arange(40)[:, None]
    data[3, :2], data[5, 1] = np.nan, np.nan
    write_hf5(responses(copied), data)
    bold = load_assembly(copied).stories["alpha"].bold
    with pytest.warns(
        UserWarning, match=r"alpha\.hf5: 3 NaN in 2 of 12 voxels become 0; nan='keep' leaves them"
    ):
        values = bold[:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(bold[:], values)
        assert bold[3, 0] == 0
        assert load_assembly(copied).stories["beta"].bold[:].shape == (44, 12)
    np.testing.assert_array_equal(values, np.nan_to_num(data))
    kept = load_assembly(copied, nan="keep").stories["alpha"].bold[:]
    np.testing.assert_array_equal(np.isnan(kept), np.isnan(data))
    with pytest.raises(ValueError, match="nan must be one of zero, keep; got 'drop'"):
        load_assembly(copied, nan="drop")


def test_a_row_with_nan_first_and_more_of_them_later(copied):
    data = np.ones((40, 12))
    data[0, 0], data[9, 4] = np.nan, np.nan
    write_hf5(responses(copied), data)
    bold = load_assembly(copied).stories["alpha"].bold
    with pytest.warns(UserWarning, match="1 NaN in 1 of 12 voxels"):
        bold[0:1]
    with pytest.warns(UserWarning, match="2 NaN in 2 of 12 voxels"):
        bold[:]


def make_true_shape(folder):
    """UTS03 with one story of the published rows and voxels."""
    root = make_lebel(folder, n_trs={"souls": 375}, n_voxels=12)
    path = responses(root, "souls")
    path.unlink()
    with h5py.File(path, "w") as file:  # HDF5 allocates what is written only: a small file of the true shape
        file.create_dataset("data", (355, 95_556), np.float64)
    write_mask(root / "derivative" / "pycortex-db", "UTS03", "thick", 95_556, shape=(54, 84, 84))
    return root


def test_the_true_shape_opens_without_reading_it(tmp_path):
    root = make_true_shape(tmp_path)
    tracemalloc.start()
    assembly = load_assembly(root, subject="UTS03")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    story = assembly.stories["souls"]
    assert story.bold.shape == (355, 95_556) and assembly.surface.mask == "thick" and peak < 50e6
    assert story.bold[350:352].shape == (2, 95_556) and story.n_trs == 370


OPENED = """
import resource, sys
from encoding_nb import load_assembly
load_assembly(sys.argv[1], subject="UTS03")  # imports what reading needs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assembly = load_assembly(sys.argv[2], subject="UTS03")
assert assembly.stories["souls"].bold.shape == (355, 95_556)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the resource module is of POSIX systems")
def test_the_true_shape_opens_within_the_memory_of_a_process(made, tmp_path):
    """What tracemalloc does not see, such as HDF5's own buffers, is part of the process's size."""
    root = make_true_shape(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-c", OPENED, str(made), str(root)], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 200e6  # the story's BOLD alone is 271 MB


def test_going_through_the_stories_holds_one_at_a_time(tmp_path):
    root = make_lebel(tmp_path, n_trs=dict.fromkeys("abcdef", 500), n_voxels=380)
    assembly = load_assembly(root)
    one = assembly.stories["a"].bold[:].nbytes
    tracemalloc.start()
    for story in assembly.stories.values():
        assert story.bold[:].shape == (480, 380)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * one


# ---------------------------------------------------------------------- what is wrong with a folder


@pytest.mark.parametrize("level", ["derivative", "derivative/preprocessed_data", ".."])
def test_a_wrong_folder_level_is_answered_with_the_right_one(made, level):
    right = made / ".." / "ds003020" if level == ".." else made.resolve()
    with pytest.raises(
        ValueError, match="expected ds003020, a folder with derivative/preprocessed_data; "
    ) as e:
        load_assembly(made / level)
    assert str(e.value).endswith(f"; pass {right}.")
    assert load_assembly(right).n_voxels == 12


def test_a_folder_of_another_kind(tmp_path):
    with pytest.raises(ValueError, match=r"its kind is unknown; load_assembly opens 'demo', a LITcoder"):
        load_assembly(tmp_path)


def test_subjects_and_stories_that_are_not_there(made):
    with pytest.raises(ValueError, match="no subject 'UTS10'; it has UTS03"):
        load_assembly(made, subject="UTS10")
    with pytest.raises(ValueError, match="no story souls; it has alpha, beta, gamma, wheretheressmoke"):
        load_assembly(made, stories=["souls"])
    with pytest.raises(ValueError, match="one of litcoder, authors; got 'some'"):
        load_assembly(made, stories="some")


def test_responses_and_respdict_that_disagree(copied):
    write_hf5(responses(copied), np.zeros((41, 12)))
    with pytest.raises(ValueError, match=r"alpha\.hf5: expected 40 rows .* 60 TRs of respdict.json, got 41"):
        load_assembly(copied)
    (copied / "derivative" / "respdict.json").write_text(json.dumps({"beta": 64}))
    with pytest.raises(ValueError, match=r"respdict.json: story alpha is missing"):
        load_assembly(copied)
    (copied / "derivative" / "respdict.json").write_text("{")
    with pytest.raises(ValueError, match=r"respdict.json: expected JSON"):
        load_assembly(copied)


def test_voxels_that_differ_between_stories_or_from_the_mask(copied):
    write_hf5(responses(copied, "beta"), np.zeros((44, 13)))
    with pytest.raises(ValueError, match=r"beta.hf5 has 13 voxels but alpha.hf5 has 12"):
        load_assembly(copied)
    write_hf5(responses(copied, "beta"), np.zeros((44, 12)))
    store = copied / "derivative" / "pycortex-db"
    write_mask(store, "UTS03", "thick", 20)
    with pytest.raises(ValueError, match=r"no mask has the responses' 12 voxels, got thick 20, cortical 9"):
        load_assembly(copied)
    write_mask(store, "UTS03", "cortical", 12)
    assert load_assembly(copied).surface.mask == "cortical"
    shutil.rmtree(store)
    with pytest.warns(
        UserWarning, match="the mask thick is not downloaded, .*\\(got none\\), so there are no flatmaps"
    ):
        assert load_assembly(copied).surface is None


@pytest.mark.parametrize("state", ["a pointer", "a link to nowhere", "not there"])
def test_the_right_mask_is_not_downloaded_but_another_is(copied, state):
    thick = (
        copied / "derivative" / "pycortex-db" / "UTS03" / "transforms" / "UTS03_auto" / "mask_thick.nii.gz"
    )
    thick.unlink()
    if state == "a pointer":
        thick.write_text("/annex/objects/MD5E-s29--c905809627b7291b5d031083dc36d56f.nii.gz\n")
    elif state == "a link to nowhere":
        thick.symlink_to(POINTER)
    with pytest.warns(
        UserWarning,
        match=r"the mask thick is not downloaded, and no other has the 12 voxels .*\(got cortical 9\), so there are no "
        "flatmaps; get it with",
    ):
        assert load_assembly(copied).surface is None


def test_words_past_the_end_of_the_run_are_said(copied):
    shutil.copy(
        copied / "derivative" / "TextGrids" / "beta.TextGrid",
        copied / "derivative" / "TextGrids" / "alpha.TextGrid",
    )
    with pytest.warns(
        UserWarning, match=r"alpha.TextGrid: 16 of \d+ words start past the end of the run .* at 100.0 s"
    ):
        load_assembly(copied, stories=["alpha"])
    shutil.copy(
        copied / "derivative" / "TextGrids" / "wheretheressmoke.TextGrid",
        copied / "derivative" / "TextGrids" / "alpha.TextGrid",
    )
    with pytest.raises(
        ValueError, match=r"alpha.TextGrid: \d+ of \d+ words start past the end of the run of story alpha"
    ):
        load_assembly(copied, stories=["alpha"])


def test_files_that_were_not_downloaded(copied):
    path = responses(copied, "gamma")
    path.unlink()
    path.symlink_to(POINTER)
    with pytest.warns(UserWarning, match="1 of 4 stories are not downloaded and are left out"):
        assert "gamma" not in load_assembly(copied).stories
    with pytest.raises(
        FileNotFoundError, match=r"gamma.hf5 is a link to a missing file: .*encoding_nb fetch"
    ):
        load_assembly(copied, stories=["gamma"])
    path.unlink()
    path.write_text("/annex/objects/MD5E-s29--c905809627b7291b5d031083dc36d56f.hf5\n")
    with pytest.raises(FileNotFoundError, match=r"gamma.hf5 is only a git-annex pointer"):
        load_assembly(copied, stories=["gamma"])
    transcript = copied / "derivative" / "TextGrids" / "alpha.TextGrid"
    transcript.unlink()
    with pytest.raises(FileNotFoundError, match=r"alpha.TextGrid does not exist; get it with"):
        load_assembly(copied, stories=["alpha"])
    (copied / "derivative" / "respdict.json").write_text(POINTER)
    with pytest.raises(FileNotFoundError, match=r"respdict.json is only a git-annex pointer"):
        load_assembly(copied, stories=["beta"])


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: path.write_bytes(b"not HDF5" * 100), "cannot be read as HDF5"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "cannot be read as HDF5 .*truncated"),
        (lambda path: write_hf5(path, np.zeros(40)), r"numbers 'data' with 2 axes, got data \(40,\)"),
    ],
)
def test_responses_that_are_no_responses(copied, write, says):
    write(responses(copied))
    with pytest.raises(ValueError, match=says):
        load_assembly(copied, stories=["alpha"])


def test_damaged_copies_of_responses_load_or_are_refused_in_a_sentence(copied):
    path, refused = responses(copied), 0
    content = path.read_bytes()
    with no_hang(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for copy in damaged_copies(content, seed=3):
            path.write_bytes(copy)
            try:
                bold = lebel._lazy(path, "data", 2, "zero")
                if bold.shape == (40, 12):  # else the story is refused by its rows
                    assert bold[:].shape == (40, 12)
            except ValueError as error:
                assert "alpha.hf5" in str(error)
                refused += 1
    assert refused


@pytest.mark.parametrize("there", [False, True])
def test_before_it_was_fetched_it_is_said_how(tmp_path, there):
    folder = tmp_path / "ds003020"
    if there:
        folder.mkdir()
    with pytest.raises(
        ValueError, match=r"Unknown data set .*fetch_lebel, or `python -m encoding_nb fetch`, downloads"
    ):
        load_assembly(folder)


def test_nan_of_single_presentations_follow_the_same_rule(copied):
    with h5py.File(responses(copied, "wheretheressmoke"), "r+") as file:
        file["individual_repeats"][0, 3, 1] = np.nan
    kept = load_assembly(copied, repeats=True, nan="keep").stories["wheretheressmoke"].repeats[:]
    assert np.argwhere(np.isnan(kept)).tolist() == [[0, 3, 1]]
    with pytest.warns(UserWarning, match="1 NaN in 1 of 12 voxels become 0"):
        zero = load_assembly(copied, repeats=True).stories["wheretheressmoke"].repeats[:]
    np.testing.assert_array_equal(zero, np.nan_to_num(kept))
