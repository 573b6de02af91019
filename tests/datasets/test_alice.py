"""Alice in Wonderland: made-up files of the published folder's layout."""

import numpy as np
import pytest

from encoding_nb import Settings, add_delays, load_assembly, run
from encoding_nb.datasets.alice import REGIONS, listeners, over_listeners
from encoding_nb.design import TRIMMINGS
from encoding_nb.features import word_rate

from ..made_lebel import VOCABULARY, textgrid

N_ROWS = 362


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_alice(tmp_path_factory.mktemp("alice"))


def make_alice(root):
    """Five listeners; the third region follows word rate some 4 s later, the others are drifting noise."""
    rng = np.random.default_rng(3)
    entries, at = [(12.0, 20.05, "sp")], 20.05
    while at < 740:
        rate = 1.5 + np.sin(at / 9)  # seconds a word
        text = "sp" if rng.random() < 0.1 else str(rng.choice(VOCABULARY)).capitalize()
        entries.append((round(at, 4), round(at + 0.2 * rate, 4), text))
        at += 0.2 * rate + 0.01
    (root / "Alice.TextGrid").write_text(textgrid([("word", entries)]))
    middles = np.array([(start + end) / 2 for start, end, text in entries if text != "sp"])
    counts, _ = np.histogram(middles, 20 + 2.0 * np.arange(N_ROWS + 1) - 4)
    signal = (counts - counts.mean()) / counts.std()
    for radius in (6, 10):
        (root / f"{radius}mm").mkdir()
        for number in (17, 18, 19, 20, 33):
            values = rng.standard_normal((N_ROWS, 6)) + 0.02 * np.arange(N_ROWS)[:, None]
            values[:, 2] += 0.7 * signal
            values = np.zeros_like(values) if number == 33 else 100 + values
            np.savetxt(root / f"{radius}mm" / f"s{number}-timecourses.txt", values)
    return root


def test_one_listener(made):
    assembly = load_assembly(made, subject="s18")
    story = assembly.stories["alice"]
    assert assembly.voxel_names == REGIONS and assembly.surface is None and assembly.test_stories == ()
    assert story.bold.shape == (N_ROWS, 6) and story.tr_times[[0, -1]].tolist() == [20.0, 742.0]
    raw = np.loadtxt(made / "10mm" / "s18-timecourses.txt")
    powers = np.vander(np.linspace(-1, 1, N_ROWS), 5)  # spans what Legendre polynomials up to order 4 span
    rest = raw - powers @ np.linalg.lstsq(powers, raw, rcond=None)[0]
    np.testing.assert_allclose(story.bold, rest / rest.std(axis=0), atol=1e-4)
    plain = load_assembly(made, subject="s18", detrend=None, radius_mm=6).stories["alice"].bold
    raw = np.loadtxt(made / "6mm" / "s18-timecourses.txt")
    np.testing.assert_allclose(plain, (raw - raw.mean(axis=0)) / raw.std(axis=0), atol=1e-4)


def test_words_are_those_of_the_transcript(made):
    words = load_assembly(made, subject="s18").stories["alice"].words
    assert set(words.text) <= set(VOCABULARY) and words.onsets[0] >= 20.0


def test_the_mean_and_all_listeners(made):
    with pytest.warns(UserWarning, match="s33 left out, the time courses do not vary; 4 listeners remain"):
        everyone = load_assembly(made, subject="all")
    with pytest.warns(UserWarning, match="s33"):
        mean = load_assembly(made)
    assert listeners(made) == ("s17", "s18", "s19", "s20", "s33")
    assert everyone.voxel_names[5:7] == ("s17 LIFG", "s18 LATL") and everyone.n_voxels == 24
    assert everyone.rois["LPTL"].sum() == 4 and mean.voxel_names == REGIONS
    bold = everyone.stories["alice"].bold.reshape(N_ROWS, 4, 6)
    np.testing.assert_allclose(mean.stories["alice"].bold, bold.mean(axis=1), atol=1e-6)
    one = load_assembly(made, subject="s19").stories["alice"].bold
    np.testing.assert_array_equal(bold[:, 2], one)


@pytest.mark.filterwarnings("ignore:.*s33 left out")
def test_a_fit_of_all_finds_the_region_that_follows_word_rate(made):
    settings = Settings(
        modality="wordrate", use_train_test_split=False, trimming=TRIMMINGS["alice"], folding_type="kfold"
    )
    everyone = load_assembly(made, subject="all")
    result = run(everyone, settings, progress=False)
    found = over_listeners(result.scores, result.voxel_names)
    assert tuple(found) == REGIONS and all(region.n == 4 for region in found.values())
    assert found["LPTL"].mean > 0.4
    assert all(abs(found[name].mean) < 0.2 for name in REGIONS if name != "LPTL")
    scores = result.scores.reshape(4, 6)[:, 2]
    np.testing.assert_allclose(found["LPTL"].standard_error, np.std(scores, ddof=1) / 2)
    rate = word_rate(everyone.stories["alice"].words, everyone.stories["alice"].tr_times)
    assert rate.shape == (N_ROWS, 1) and rate.sum() == len(everyone.stories["alice"].words)


@pytest.mark.filterwarnings("ignore:.*s33 left out")
def test_delays_do_not_reach_before_the_first_row(made):
    """With the advised trimming every row of the delayed design was sampled: no zero stands for what was not."""
    story = load_assembly(made, subject="s18").stories["alice"]
    counter = np.arange(1, story.n_trs + 1, dtype=float)[:, None]
    delayed = add_delays(counter, Settings().fir_delays)
    assert (delayed[:4] == 0).any()
    for test in (False, True):
        kept = TRIMMINGS["alice"].features(delayed, test=test)
        assert (kept > 0).all() and TRIMMINGS["alice"].check(
            "alice", story.n_trs, story.n_rows, test=test
        ) == N_ROWS - 4


@pytest.mark.filterwarnings("ignore:.*s33 left out")
def test_a_fit_of_the_mean_listener_is_drawn_by_region(made):
    from encoding_nb.plots.regions import plot_regions

    settings = Settings(
        modality="wordrate", use_train_test_split=False, trimming=TRIMMINGS["alice"], folding_type="kfold"
    )
    result = run(load_assembly(made), settings, progress=False)
    assert result.surface is None and result.voxel_names == REGIONS
    figure = plot_regions(result)
    (axes,) = figure.axes
    assert next(label.get_text() for label in axes.get_yticklabels()) == "LPTL"
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(sorted(widths), np.sort(result.scores), atol=1e-6)


def test_over_listeners_leaves_out_what_has_no_value():
    names = ["s1 A", "s1 B", "s2 A", "s2 B", "s3 A", "s3 B"]
    found = over_listeners(np.array([0.1, np.nan, 0.3, np.nan, np.nan, 0.5]), names)
    assert found["A"].n == 2 and found["A"].mean == pytest.approx(0.2)
    assert found["A"].standard_error == pytest.approx(0.1) and np.isnan(found["B"].standard_error)
    with pytest.raises(ValueError, match=r"a value for each column of subject='all', got \(6,\) for 6 names"):
        over_listeners(np.zeros(6), REGIONS)


@pytest.mark.filterwarnings("ignore:.*s33 left out")
def test_what_cannot_be_opened(made, tmp_path):
    with pytest.raises(ValueError, match="no listener 's99'; it has mean, all, s17, s18, s19, s20, s33"):
        load_assembly(made, subject="s99")
    with pytest.raises(ValueError, match="the time courses of s33 do not vary; choose another listener"):
        load_assembly(made, subject="s33")
    with pytest.raises(ValueError, match="no time courses for radius_mm=8; the folder has 10mm, 6mm"):
        load_assembly(made, radius_mm=8)
    with pytest.raises(ValueError, match=r"no story souls; it has alice"):
        load_assembly(made, stories=["souls"])
    (tmp_path / "10mm").mkdir()
    path = tmp_path / "10mm" / "s1-timecourses.txt"
    np.savetxt(path, np.random.default_rng(0).standard_normal((20, 6)))
    with pytest.raises(ValueError, match="one TextGrid, got 0; pass textgrid="):
        load_assembly(tmp_path)
    for content, says in (
        ("a b c", "cannot be read as a table"),
        ("1 2 3\n", "in 6 columns"),
        ("", "in 6 columns"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=says):
            load_assembly(tmp_path, textgrid=made / "Alice.TextGrid")
    np.savetxt(path, np.random.default_rng(0).standard_normal((20, 6)))
    np.savetxt(tmp_path / "10mm" / "s2-timecourses.txt", np.random.default_rng(0).standard_normal((21, 6)))
    with pytest.raises(ValueError, match="the same number of rows from every listener, got s1 20, s2 21"):
        load_assembly(tmp_path, textgrid=made / "Alice.TextGrid")
