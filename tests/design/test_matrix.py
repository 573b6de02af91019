"""Downsampling, delays, trimming and standardising, against the golden cases and plain loops."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from encoding_nb._columns import constant_columns
from encoding_nb.design import (
    DOWNSAMPLERS,
    TRIMMINGS,
    Trimming,
    add_delays,
    downsample,
    standardize,
    words_to_trs,
)
from encoding_nb.design.downsampling import lanczos_weights, sinc_weights

GOLDEN = Path(__file__).parents[1] / "golden"
STORIES = ("storya", "storyb", "storyc", "storyd", "storyz_test")
# no word of storyd is empty, and LITcoder then sums in float32: its own rounding is what differs there
FLOAT32 = {"storyd": 5e-6}


@pytest.fixture(scope="module")
def golden():
    files = {"stimuli": "stimuli", "sampled": "downsampled", "delayed": "delayed"}
    files["features"] = "features_tiny-gpt2_default_fullcontext_last"
    return {name: dict(np.load(GOLDEN / f"{file}.npz")) for name, file in files.items()}


def inputs(golden, story):
    stimuli = golden["stimuli"]
    features = golden["features"][f"{story}/L2"].astype(float)
    return features, stimuli[f"{story}/data_times"], stimuli[f"{story}/tr_times"]


# ---------------------------------------------------------------------- downsampling


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize(
    ("name", "method"), [("rect", "rect"), ("lanczos_w3_c1", "lanczos"), ("sinc_w3_c1", "sinc")]
)
def test_golden_downsampling_by_time(golden, story, name, method):
    found = downsample(*inputs(golden, story), method=method)
    tolerance = FLOAT32.get(story, 1e-10) if method == "rect" else 1e-10
    expected = golden["sampled"][f"{story}/{name}"].copy()
    if method == "sinc":  # LITcoder divides by row totals near 0
        expected[~keeps_a_tenth(*inputs(golden, story)[1:])] = 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def keeps_a_tenth(data_times, tr_times):
    """(n_trs,) bool: whether the weights sinc(x), |x| <= 3, of the words of a TR of 2 s do not cancel."""
    x = (tr_times[:, None] - data_times[None]) * (2 / np.mean(np.diff(tr_times)))
    weights = np.where(np.abs(x) <= 3, np.sinc(x), 0)
    return np.abs(weights.sum(axis=1)) >= 0.1 * np.abs(weights).sum(axis=1)


def test_sinc_weights_that_cancel_are_no_data(golden):
    """Weights 1 and -0.21 of words at the TR and in a side lobe are divided by their sum; weights that cancel are 0."""
    lost = [int((~keeps_a_tenth(*inputs(golden, story)[1:])).sum()) for story in STORIES]
    assert sum(lost) >= 10
    tr_times, features = 2.0 * np.arange(5), np.array([[1.0], [3.0]])
    side = np.sinc(1.45)
    found = downsample(features, np.array([4.0, 5.45]), tr_times, method="sinc")
    assert found[2, 0] == pytest.approx((1 + 3 * side) / (1 + side), rel=1e-6)
    near = 0.815  # sinc(0.815) = 0.213 cancels sinc(1.45) = -0.217 nearly
    assert np.sinc(near) + side == pytest.approx(0, abs=0.005)
    found = downsample(features, np.array([4 + near, 5.45]), tr_times, method="sinc")
    assert found[2, 0] == 0


def test_sinc_passes_what_trs_cannot_show_and_lanczos_does_not():
    """A sine of 0.4 Hz, where TRs of 2 s show at most 0.25 Hz; sinc with half the cutoff stops it."""
    tr_times, times = 2.0 * np.arange(200), np.arange(0, 400, 0.02)
    sine = np.sin(2 * np.pi * 0.4 * times)[:, None]
    passed = {}
    half = {"method": "sinc", "cutoff_mult": 0.5, "window": 8}
    for name, options in {"sinc": {"method": "sinc"}, "half": half, "lanczos": {"method": "lanczos"}}.items():
        sampled = downsample(sine, times, tr_times, **options)[20:180]
        gain = downsample(np.ones_like(sine), times, tr_times, **options)[20:180].mean()
        passed[name] = sampled.std() / gain * np.sqrt(2)
    assert passed["sinc"] > 0.8 and passed["half"] < 0.15 and passed["lanczos"] < 0.05, passed


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("method", ["average", "sum", "last"])
def test_golden_downsampling_by_split_indices(golden, story, method):
    split = golden["stimuli"][f"{story}/split_indices"]
    found = downsample(*inputs(golden, story), method=method, split_indices=split)
    expected = golden["sampled"][f"{story}/legacy_{method}_bounds"]
    tolerance = 1e-10 if method == "last" else FLOAT32.get(story, 1e-10)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "options", "n_features"),
    [
        ("lanczos_w3_c1_rectify", {"rectify": True}, 64),
        ("lanczos_w2_c0.5", {"window": 2, "cutoff_mult": 0.5}, 64),
        ("sinc_w3_c1_causal_norenorm", {"method": "sinc", "causal": True, "renorm": False}, 64),
        ("gabor_first8dims", {"method": "gabor", "freqs": [0.05, 0.1], "sigma": 2.0}, 8),
    ],
)
def test_golden_variants(golden, name, options, n_features):
    features, times, trs = inputs(golden, "storya")
    found = downsample(features[:, :n_features], times, trs, **options)
    np.testing.assert_allclose(found, golden["sampled"][f"storya/{name}"], rtol=0, atol=1e-10)


def made(seed=0, n_words=60, n_trs=25):
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 2 * n_trs, n_words))
    times[times > 40] += 6  # TRs without words
    return rng.normal(size=(n_words, 3)), np.sort(times), 2.0 * np.arange(n_trs) + 1.0


def test_lanczos_is_the_filter_written_out():
    features, times, trs = made()
    cutoff = 1 / 2.0
    expected = np.zeros((len(trs), 3))
    for i, tr in enumerate(trs):
        for j, time in enumerate(times):
            x = (tr - time) * cutoff
            if abs(x) <= 3:
                expected[i] += np.sinc(x) * np.sinc(x / 3) * features[j]
    np.testing.assert_allclose(downsample(features, times, trs), expected, rtol=0, atol=1e-12)


def test_words_at_a_tr_have_the_peak_of_the_kernel():
    trs = np.arange(10) * 2.0
    assert lanczos_weights(trs, trs).toarray()[4, 4] == 1.0
    weights = sinc_weights(trs, trs, renorm=False).toarray()
    assert weights[4, 4] == pytest.approx(2 * 0.5), "2B at t = 0, B one TR's rate"
    nearly = sinc_weights(trs + 1e-7, trs, renorm=False).toarray()
    assert weights[4, 4] == pytest.approx(nearly[4, 4], abs=1e-6), "no hole where a word meets a TR"


def test_the_order_of_words_does_not_matter_where_times_decide():
    features, times, trs = made()
    shuffled = np.random.default_rng(1).permutation(len(times))
    options = {"gabor": {"freqs": [0.1], "sigma": 2.0}}
    for method in DOWNSAMPLERS:
        given = options.get(method, {})
        found = downsample(features[shuffled], times[shuffled], trs, method=method, **given)
        np.testing.assert_allclose(
            found, downsample(features, times, trs, method=method, **given), atol=1e-12
        )


@pytest.mark.parametrize(
    ("method", "pool"),
    [
        ("sum", lambda x: x.sum(0)),
        ("average", lambda x: x.mean(0)),
        ("last", lambda x: x[-1]),
        ("rect", lambda x: x.mean(0)),
    ],
)
def test_trs_pool_their_own_words_and_are_zero_without(method, pool):
    features, times, trs = made()
    found = downsample(features, times, trs, method=method)
    for i, tr in enumerate(trs):
        own = features[(times >= tr - 1) & (times < tr + 1)]
        np.testing.assert_allclose(found[i], pool(own) if len(own) else np.zeros(3), atol=1e-12)
    assert (found == 0).all(axis=1).any(), "the case holds TRs without words"


def test_words_outside_the_trs_belong_to_none():
    trs = words_to_trs(np.array([-5.0, 0.0, 1.99, 2.0, 19.99, 20.0]), np.arange(10) * 2.0 + 1)
    assert trs.tolist() == [-1, 0, 0, 1, 9, -1]


def test_precision_follows_the_features():
    features, times, trs = made()
    assert downsample(features, times, trs).dtype == np.float64
    assert downsample(features.astype(np.float32), times, trs).dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "linear"}, "method must be one of lanczos, .* got 'linear'"),
        ({"features": np.ones((4, 2))}, r"got features \(4, 2\) and \(60,\) times"),
        ({"features": np.full((60, 3), np.nan)}, "180 of 180 features are not finite, in 60 words"),
        ({"data_times": np.full(60, np.inf)}, "60 of 60 word times are not finite"),
        ({"tr_times": np.array([1.0, 3.0, 2.0])}, "TR times that increase"),
        ({"features": np.ones((0, 3)), "data_times": np.ones(0)}, "at least one word, got none"),
        ({"method": "sum", "split_indices": [3, 2]}, "expected 24 split indices"),
        ({"method": "gabor"}, "expects freqs"),
        ({"window": 0}, "expected window as lobes of 1 or more, such as 3; got 0"),
        ({"window": -1, "method": "sinc"}, "expected window as lobes of 1 or more, such as 3; got -1"),
        ({"window": float("nan")}, "expected window as lobes of 1 or more, such as 3; got nan"),
        ({"window": "3"}, "expected window as lobes of 1 or more, such as 3; got '3'"),
        (
            {"cutoff_mult": 0},
            "expected cutoff_mult as a finite multiple of the TR rate above 0, such as 1.0; got 0",
        ),
        ({"cutoff_mult": float("nan"), "method": "sinc"}, "expected cutoff_mult .* got nan"),
        ({"cutoff_mult": float("inf")}, "expected cutoff_mult .* got inf"),
    ],
)
def test_downsampling_that_cannot_be(change, message):
    names = ("features", "data_times", "tr_times")
    arrays = dict(zip(names, made(), strict=True)) | {k: v for k, v in change.items() if k in names}
    options = {k: v for k, v in change.items() if k not in names}
    with pytest.raises(ValueError, match=message):
        downsample(arrays["features"], arrays["data_times"], arrays["tr_times"], **options)


# ---------------------------------------------------------------------- delays


@pytest.mark.parametrize("story", STORIES)
def test_golden_delays(golden, story):
    found = add_delays(golden["sampled"][f"{story}/rect"], [1, 2, 3, 4])
    np.testing.assert_allclose(found, golden["delayed"][f"{story}/rect"], rtol=0, atol=1e-10)


def test_golden_negative_and_circular_delays(golden):
    found = add_delays(golden["sampled"]["storya/rect"], [-1, 0, 2], circular=True)
    np.testing.assert_allclose(found, golden["delayed"]["storya/rect_neg_circ"], rtol=0, atol=1e-10)


@given(
    n_trs=st.integers(1, 8),
    delays=st.lists(st.integers(-10, 10), min_size=1, max_size=4),
    circular=st.booleans(),
)
def test_delays_row_by_row(n_trs, delays, circular):
    X = np.arange(2.0 * n_trs).reshape(n_trs, 2) + 1
    found = add_delays(X, delays, circular=circular).reshape(n_trs, len(delays), 2)
    for t in range(n_trs):
        for d, delay in enumerate(delays):
            source = (t - delay) % n_trs if circular else t - delay
            expected = X[source] if 0 <= source < n_trs else np.zeros(2)
            assert found[t, d].tolist() == expected.tolist()


def test_a_window_that_no_filter_reads_is_not_looked_at():
    features, times, trs = made()
    assert np.array_equal(
        downsample(features, times, trs, method="sum", window=0),
        downsample(features, times, trs, method="sum"),
    )


@pytest.mark.parametrize("delays", [[], [0.5], [float("nan")], [float("inf")], ["1"], [None], "12", 2.5])
def test_delays_that_cannot_be(delays):
    with pytest.raises(ValueError, match="whole numbers of TRs"):
        add_delays(np.ones((4, 2)), delays)


# ---------------------------------------------------------------------- trimming

starts = st.integers(-12, 12)
ends = st.one_of(st.none(), starts)


@given(n_trs=st.integers(0, 10), n_rows=st.integers(0, 10), numbers=st.tuples(starts, ends, starts, ends))
def test_trimming_is_slicing_and_counts_what_it_leaves(n_trs, n_rows, numbers):
    names = ("features_start", "features_end", "targets_start", "targets_end")
    X, Y = np.arange(n_trs), np.arange(n_rows)
    for part in ("train", "test"):
        trimming = Trimming(**{f"{part}_{name}": value for name, value in zip(names, numbers, strict=True)})
        test = part == "test"
        kept_X, kept_Y = trimming.features(X, test=test), trimming.targets(Y, test=test)
        assert kept_X.tolist() == list(range(n_trs))[numbers[0] : numbers[1]]
        assert kept_Y.tolist() == list(range(n_rows))[numbers[2] : numbers[3]]
        if len(kept_X) == len(kept_Y) > 0:
            assert trimming.check("s", n_trs, n_rows, test=test) == len(kept_X)
        else:
            with pytest.raises(ValueError, match=f"leaves.*of {n_trs} TRs gives {len(kept_X)}"):
                trimming.check("s", n_trs, n_rows, test=test)
        assert trimming.features(X, test=not test).tolist() == X.tolist()


def test_the_tutorials_trimming_meets_the_golden_rows(golden):
    stimuli = golden["stimuli"]
    kept = [
        TRIMMINGS["lebel"].check(
            story,
            len(stimuli[f"{story}/tr_times"]),
            len(stimuli[f"{story}/brain_data"]),
            test="test" in story,
        )
        for story in STORIES
    ]
    assert sum(kept[:-1]) == 318
    assert kept[-1] == 53


def test_wheretheressmoke_keeps_251_rows():
    assert TRIMMINGS["lebel"].check("wheretheressmoke", 311 - 5, 311 - 20, test=True) == 251


def test_a_trimming_that_does_not_meet_says_story_and_numbers():
    with pytest.raises(ValueError) as error:
        TRIMMINGS["none"].check("souls", 370, 355, test=False)
    assert "souls (training story)" in str(error.value)
    assert "[0:] of 370 TRs gives 370, targets [0:] of 355 rows gives 355" in str(error.value)
    with pytest.raises(ValueError, match=r"expected train_features_start as a whole number of TRs, got 1.5"):
        Trimming(train_features_start=1.5)
    with pytest.raises(TypeError):
        Trimming(train_feature_start=1)


def test_numbers_of_numpy_become_plain_ones_in_a_trimming():
    trimming = Trimming(train_features_start=np.int64(3), test_targets_end=np.int32(-2))
    assert type(trimming.train_features_start) is int and type(trimming.test_targets_end) is int


# ---------------------------------------------------------------------- standardising


def test_standardising_is_scipys_zscore():
    X = np.random.default_rng(0).normal(3, [1, 20, 1e-6], size=(50, 3))
    np.testing.assert_allclose(standardize(X), stats.zscore(X), atol=1e-9)
    np.testing.assert_allclose(
        standardize(X.astype(np.float32)), stats.zscore(X.astype(np.float32).astype(float)), atol=1e-6
    )
    assert standardize(X.astype(np.float32)).dtype == np.float32


def test_constant_columns_become_zero_and_are_counted():
    X = np.random.default_rng(0).normal(size=(97, 5)).astype(np.float32)
    X[:, 1], X[:, 2], X[:, 3] = 0, 3.7, -1e30
    assert constant_columns(X).tolist() == [False, True, True, True, False]
    with pytest.warns(UserWarning, match="storya, voxels: 3 of 5 columns have no variance"):
        scores = standardize(X, name="storya, voxels")
    assert (scores[:, 1:4] == 0).all()
    assert np.isfinite(scores).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        standardize(X, quiet=True)
        standardize(X[:, [0, 4]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
def test_columns_are_constant_where_a_look_at_each_value_says_so(dtype):
    """Most columns are cleared by their variance alone: that must never clear one that is constant."""
    rng, n = np.random.default_rng(1), 20_000
    level = np.array([0, 1, -7, 1000, 3, 300, 5], dtype)
    X = np.broadcast_to(level, (n, len(level))).copy()
    if np.issubdtype(dtype, np.floating):
        # a step or two of rounding around the level, still constant; then eighty steps, which vary
        X[rng.integers(0, n, 50), 5] = np.nextafter(np.nextafter(dtype(300), dtype(np.inf)), dtype(np.inf))
        X[:: n // 2, 6] += 80 * np.spacing(dtype(5))
    else:
        X[0, 6] += 1
    constant = constant_columns(X)
    assert constant.tolist() == [True] * 6 + [False]
    scores = standardize(X, quiet=True)
    assert (scores[:, :6] == 0).all()
    assert scores[:, 6].astype(float).std() == pytest.approx(1, rel=1e-2)


def test_a_small_variance_on_a_large_mean_is_kept():
    X = np.full((40, 1), 100.0)
    X[::2] += 1e-6
    assert not constant_columns(X).any()
    assert standardize(X).std() == pytest.approx(1)


@pytest.mark.parametrize("X", [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 3)), [["a", "b"]], "abc"])
def test_what_has_no_columns_of_numbers_is_not_standardised(X):
    with pytest.raises(ValueError, match=r"standardize: expected numbers as \(n_rows, n_columns\), got "):
        standardize(X)


def test_nan_stays_nan():
    X = np.random.default_rng(0).normal(size=(10, 2))
    X[3, 0] = np.nan
    scores = standardize(X)
    assert np.isnan(scores[:, 0]).all()
    assert np.isfinite(scores[:, 1]).all()


def test_the_golden_design_matrix_comes_out(golden):
    """X_train of a whole LITcoder run is trimmed, then z-scored per story: its columns say so."""
    rows = [
        TRIMMINGS["lebel"].features(golden["delayed"][f"{story}/rect"], test=False) for story in STORIES[:-1]
    ]
    X = np.vstack([standardize(part, quiet=True) for part in rows])
    assert X.shape == (318, 256)
    for part, scores in zip(rows, np.split(X, np.cumsum([len(r) for r in rows])[:-1]), strict=True):
        varied = part.std(axis=0) > 0
        np.testing.assert_allclose(scores[:, varied], stats.zscore(part[:, varied]), atol=1e-9)


def test_a_causal_filter_keeps_the_word_at_the_tr_itself():
    found = downsample(np.eye(2), [4.0, 4.5], 2.0 * np.arange(5), method="sinc", causal=True, renorm=False)
    np.testing.assert_allclose(found[:, 0], [0, 0, 1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(found[:, 1], [0, 0, 0, np.sinc(1.5), 0], atol=1e-15)


def test_standardising_keeps_double_precision():
    X = np.random.default_rng(0).normal(3, [1, 20], size=(50, 2))
    assert standardize(X).dtype == np.float64
    np.testing.assert_allclose(standardize(X), stats.zscore(X), rtol=0, atol=1e-13)
