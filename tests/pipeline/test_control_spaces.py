"""Controls as feature spaces in a run, and the high-pass: against the same stages by hand."""

from dataclasses import replace

import numpy as np
import pytest
from joblib import Memory
from sklearn.linear_model import Ridge

from encoding_nb import Assembly, Settings, partition, run, to_code
from encoding_nb.design import Trimming, add_delays, high_pass, standardize
from encoding_nb.features import position_features, time_features, word_rate
from encoding_nb.pipeline import design_matrices, plan_run
from encoding_nb.scoring import noise_ceiling
from encoding_nb.settings import SettingsError

NO_CACHE = Memory(None)
TRIM = Trimming(train_features_start=5, train_targets_start=5, test_features_start=8, test_targets_start=8)
SETTINGS = Settings(
    modality="wordrate", trimming=TRIM, n_inner_folds=3, alphas=(1.0,), significance="parametric"
)


def story(n_rows, seed, repeats=None):
    rng = np.random.default_rng(seed)
    onsets = np.sort(rng.uniform(0, 2 * n_rows, 3 * n_rows))
    bold = np.cumsum(rng.normal(size=(n_rows, 5)), axis=0) + 3 * rng.normal(size=(n_rows, 5))
    part = {"words": ["rain"] * len(onsets), "onsets": onsets, "offsets": onsets + 0.2, "bold": bold}
    if repeats:
        part["repeats"] = np.stack([bold + rng.normal(size=bold.shape) for _ in range(repeats)])
    return part | {"extras": {"motion": rng.normal(size=(n_rows, 2)), "sound": rng.normal(size=n_rows)}}


@pytest.fixture(scope="module")
def assembly():
    stories = {"a": story(90, 0), "b": story(120, 1), "c": story(100, 2, repeats=3)}
    return Assembly.from_arrays(stories, subject="s", tr=2.0, test_stories=["c"])


def by_hand(assembly, name, *, delay_extras):
    own = assembly.stories[name]
    start = 8 if name == "c" else 5
    extras = np.column_stack([own.extras["motion"], own.extras["sound"]])
    delayed = [word_rate(own.words, own.tr_times)] + ([extras] if delay_extras else [])
    parts = [add_delays(np.hstack(delayed), (1, 2, 3, 4)), position_features(own.tr_times, first_row=start)]
    parts += [time_features(own.n_trs, 120)] + ([] if delay_extras else [extras])
    return standardize(np.hstack(parts)[start:], quiet=True)


@pytest.mark.parametrize("delay_extras", [True, False])
def test_only_spaces_that_are_delayed_are_delayed(assembly, delay_extras, recwarn):
    settings = replace(
        SETTINGS,
        joined_with=("position", "time", "extras"),
        extras=("motion", "sound"),
        delay_extras=delay_extras,
    )
    plan = plan_run(assembly, settings, memory=NO_CACHE)
    data = design_matrices(plan)
    expected = np.concatenate([by_hand(assembly, name, delay_extras=delay_extras) for name in "ab"])
    np.testing.assert_allclose(data.X, expected, atol=1e-5)
    np.testing.assert_allclose(data.X_test, by_hand(assembly, "c", delay_extras=delay_extras), atol=1e-5)
    assert not [w for w in recwarn if "no variance" in str(w.message)]  # rows of longer stories are no fault
    widths = {"wordrate": 4, "position": 3, "time": 120, "extras": 12 if delay_extras else 3}
    assert {name: len(own) for name, own in data.columns.items()} == widths
    assert sorted(np.concatenate(list(data.columns.values()))) == list(range(sum(widths.values())))
    assert plan.shape.n_columns == sum(widths.values()) == data.X.shape[1]
    position = standardize(position_features(assembly.stories["a"].tr_times, first_row=5)[5:], quiet=True)
    np.testing.assert_allclose(data.X[:85, data.columns["position"]], position, atol=1e-5)


@pytest.mark.parametrize("modality", ["position", "time", "extras"])
def test_a_control_can_be_a_run_of_its_own(assembly, modality):
    settings = replace(SETTINGS, modality=modality, extras=("motion",))
    found = run(assembly, settings, memory=NO_CACHE, progress=False)
    data = design_matrices(plan_run(assembly, settings, memory=NO_CACHE))
    fitted = Ridge(alpha=1.0, fit_intercept=False).fit(data.X, data.Y).predict(data.X_test)
    expected = [np.corrcoef(fitted[:, v], data.Y_test[:, v])[0, 1] for v in range(5)]
    np.testing.assert_allclose(found.scores, expected, atol=1e-4)
    code = to_code(settings, None)
    names = {"assembly": assembly}
    exec(code.replace("run(assembly, settings)", "run(assembly, settings, progress=False)"), names)
    np.testing.assert_array_equal(names["result"].scores, found.scores)


def test_controls_can_be_partitioned(assembly):
    settings = replace(SETTINGS, joined_with=("position",))
    shares = partition(assembly, settings, voxels=np.arange(5), memory=NO_CACHE)
    np.testing.assert_allclose(shares.split["wordrate"] + shares.split["position"], shares.joint, atol=1e-4)


def test_extras_of_other_widths_are_refused(assembly):
    stories = dict(assembly.stories)
    stories["b"] = replace(stories["b"], extras={"motion": np.zeros((120, 3))})
    other = replace(assembly, stories=stories)
    with pytest.raises(
        SettingsError, match="the same number of columns in every story, got 2 in a and 3 in b"
    ):
        run(other, replace(SETTINGS, modality="extras", extras=("motion",)), memory=NO_CACHE, progress=False)
    stories["b"] = replace(stories["b"], extras={"motion": np.zeros((119, 2))})
    with pytest.raises(
        SettingsError, match="b: expected 120 rows in the extras 'motion', one for each TR time, got 119"
    ):
        run(
            replace(assembly, stories=stories),
            replace(SETTINGS, modality="extras", extras=("motion",)),
            memory=NO_CACHE,
            progress=False,
        )


def test_extras_that_are_not_finite_are_refused_with_the_story(assembly):
    motion = np.zeros((120, 2))
    motion[0] = np.nan  # as in the first row of a table of confounds
    stories = {**assembly.stories, "b": replace(assembly.stories["b"], extras={"motion": motion})}
    with pytest.raises(ValueError, match="b: 2 NaN or infinite values in 2 of 2 features"):
        run(
            replace(assembly, stories=stories),
            replace(SETTINGS, modality="extras", extras=("motion",)),
            memory=NO_CACHE,
            progress=False,
        )


def test_a_high_pass_is_of_the_kept_rows_of_bold_and_of_repeats(assembly):
    found = run(assembly, replace(SETTINGS, high_pass=60.0), memory=NO_CACHE, progress=False)
    own = assembly.stories["c"]
    filtered = high_pass(np.asarray(own.bold[8:], float), tr=2.0, period=60.0)
    np.testing.assert_allclose(found.measured["c"], standardize(filtered), atol=1e-4)
    repeats = np.stack([high_pass(repeat, tr=2.0, period=60.0) for repeat in own.repeats[:, 8:]])
    np.testing.assert_allclose(found.noise_ceiling, noise_ceiling(repeats), atol=1e-6)
    plain = run(assembly, SETTINGS, memory=NO_CACHE, progress=False)
    np.testing.assert_allclose(plain.noise_ceiling, noise_ceiling(own.repeats[:, 8:]), atol=1e-6)
    assert "high_pass=60.0" in to_code(found.settings, None)


def test_an_untrained_twin_is_fitted_with_features_of_its_own(assembly, tmp_path):
    memory = Memory(tmp_path, verbose=0)
    settings = replace(SETTINGS, modality="language_model", layer_idx=1, lookback=4)
    trained, twin, other = (
        run(assembly, replace(settings, **change), memory=memory, progress=False)
        for change in ({}, {"weights": "untrained"}, {"weights": "untrained", "seed": 1})
    )
    again = run(assembly, replace(settings, weights="untrained"), memory=NO_CACHE, progress=False)
    np.testing.assert_allclose(twin.scores, again.scores, atol=1e-5)
    assert (
        np.abs(twin.scores - trained.scores).max() > 1e-3 and np.abs(twin.scores - other.scores).max() > 1e-3
    )
    assert 'weights="untrained"' in to_code(twin.settings, None).replace("'", '"')
