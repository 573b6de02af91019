"""Banded ridge and variance partitioning, on data whose shares are known."""

import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from joblib import Memory
from sklearn.linear_model import Ridge

from encoding_nb import Settings, Story, Words, scoring
from encoding_nb.assembly import Assembly
from encoding_nb.design import Trimming, downsampling
from encoding_nb.features import word_rate
from encoding_nb.pipeline import design_matrices, partitioning, plan_run
from encoding_nb.ridge import cv, folds
from encoding_nb.scoring import correlations, permutation
from encoding_nb.settings import SettingsError

NO_CACHE = Memory(None)
ALPHAS = (1.0, 10.0, 100.0, 1000.0)
MEANING = np.array([1.0, -1.0, 0.5, -0.5, 0.2])
BANDS = [np.arange(3), np.arange(3, 43)]


def made_bands(n_rows=300, n_voxels=12, seed=0):
    """X with two bands of 3 and 40 columns; a third of the voxels follows each, a third both."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_rows, 43))
    weights = [rng.standard_normal((len(band), n_voxels)) / np.sqrt(len(band)) for band in BANDS]
    weights[0][:, 4:8] = 0
    weights[1][:, :4] = 0
    Y = X @ np.vstack(weights) + rng.standard_normal((n_rows, n_voxels))
    return X - X.mean(0), Y - Y.mean(0)


def inner_folds(n_train=200):
    return folds.make_folds(n_train, folding_type="kfold", n_folds=4)


def fitted(X, Y, bands=BANDS, n_train=200, **options):
    return partitioning.banded_ridge(
        X[:n_train], Y[:n_train], X[n_train:], bands, alphas=ALPHAS, folds=inner_folds(n_train), **options
    )


def brute_force(X, Y, X_test, bands, alphas, inner, weights):
    """Held-out predictions of banded ridge in float64, by scikit-learn, one voxel and one penalty after another."""
    columns = np.concatenate(bands)
    predictions = np.empty((len(X_test), Y.shape[1]))
    for voxel, y in enumerate(Y.T):
        best = -np.inf
        for row, alpha in product(weights.astype(float), alphas):
            scale = np.repeat(np.sqrt(row), [len(band) for band in bands])
            model = Ridge(alpha, fit_intercept=False)
            scores = []
            for fold in inner:
                model.fit(X[fold.train][:, columns] * scale, y[fold.train])
                held = y[fold.test]
                residual = held - model.predict(X[fold.test][:, columns] * scale)
                scores.append(1 - (residual**2).sum() / ((held - held.mean()) ** 2).sum())
            if np.mean(scores) > best:
                best = np.mean(scores)
                predictions[:, voxel] = model.fit(X[:, columns] * scale, y).predict(
                    X_test[:, columns] * scale
                )
    return predictions


def test_banded_ridge_equals_a_brute_force():
    X, Y = made_bands()
    Y, inner, weights = Y[:, ::4], inner_folds(), partitioning.band_weights(2, 6)
    expected = brute_force(X[:200], Y[:200], X[200:], BANDS, ALPHAS, inner, weights)
    np.testing.assert_allclose(fitted(X, Y, n_iter=6).predictions, expected, atol=1e-4)


def test_banded_ridge_equals_himalaya():
    from himalaya.ridge import GroupRidgeCV
    from himalaya.scoring import r2_score

    X, Y = (values.astype(np.float32) for values in made_bands())
    solver = {
        "alphas": np.array(ALPHAS, np.float32), "n_iter": partitioning.band_weights(2, 12), "score_func": r2_score,
        "progress_bar": False,
    }  # fmt: skip
    model = GroupRidgeCV(
        groups="input", solver="random_search", solver_params=solver, cv=inner_folds(), fit_intercept=False
    ).fit([X[:200, band] for band in BANDS], Y[:200])
    found = fitted(X, Y, n_iter=12)
    np.testing.assert_allclose(found.cv_scores, model.cv_scores_, atol=1e-5)
    expected = model.predict([X[200:, band] for band in BANDS])
    np.testing.assert_allclose(found.predictions, expected, atol=2e-4)


def test_parts_sum_to_the_r2_of_the_prediction():
    rng = np.random.default_rng(0)
    held, parts = rng.standard_normal((50, 6)), rng.standard_normal((3, 50, 6))
    shares = partitioning.product_measure(held, parts)
    np.testing.assert_allclose(sum(shares), partitioning.explained(held, parts.sum(0))[0], atol=1e-12)
    centred = held - held.mean(0)
    np.testing.assert_allclose(
        partitioning.explained(centred, parts[0])[0], correlations.r2(centred, parts[0]), atol=1e-12
    )


def test_r2_of_a_prediction_of_0_is_0_and_of_no_measurement_undefined():
    held = np.stack([np.arange(9.0), np.zeros(9)], axis=1)
    r2, squares = partitioning.explained(held, np.zeros((9, 2)))
    assert r2[0] == 0 and np.isnan(r2[1])
    assert squares.tolist() == [204.0, 0.0]


def test_one_band_is_plain_ridge_selected_by_r2():
    X, Y = made_bands()
    found = fitted(X, Y, BANDS[1:])
    plain = cv.ridge_cv(
        X[:200, BANDS[1]],
        Y[:200],
        X_test=X[200:, BANDS[1]],
        alphas=ALPHAS,
        use_corr=False,
        folds=inner_folds(),
    )
    np.testing.assert_allclose(found.predictions, plain.predictions, atol=1e-5)
    assert found.cv_scores.shape == (1, 12)


def test_a_voxel_without_variance_has_no_fit():
    X, Y = made_bands()
    Y[:, 2] = 0
    found = fitted(X, Y, n_iter=4).predictions
    assert np.isnan(found[:, 2]).all() and np.isfinite(np.delete(found, 2, axis=1)).all()


def test_weights_of_bands():
    weights = partitioning.band_weights(3, 12, seed=1)
    assert weights.shape == (12, 3) and (weights > 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert (weights[:3].argmax(1) == [0, 1, 2]).all() and weights[:3].max(1).min() > 0.99
    np.testing.assert_allclose(weights[3], 1 / 3)
    np.testing.assert_array_equal(weights, partitioning.band_weights(3, 12, seed=1))
    np.testing.assert_array_equal(weights, partitioning.band_weights(3, 30, seed=1)[:12])
    assert not np.allclose(weights, partitioning.band_weights(3, 12, seed=2))
    assert partitioning.band_weights(1, 12).tolist() == [[1.0]]


@pytest.mark.parametrize("seed", range(5))
def test_weights_leave_no_large_gap(seed):
    """Ratios of two bands from 1 / 1000 to 1000 on a logarithmic scale: no gap of a factor of 10 among 16."""
    weights = partitioning.band_weights(2, 19, seed=seed)[3:]
    steps = np.diff(np.sort(np.r_[-3, np.log10(weights[:, 0] / weights[:, 1]), 3]))
    assert steps.max() < 1


@pytest.fixture(scope="module")
def assembly(tmp_path_factory):
    """Voxel 0 follows word rate, voxel 1 the words' vectors, voxel 2 both, voxels 3 to 9 nothing."""
    rng = np.random.default_rng(1)
    vectors = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    table = made_table(rng)
    vectors.write_text("".join(f"w{i} {' '.join(f'{x:.6f}' for x in row)}\n" for i, row in enumerate(table)))
    stories = {name: make_story(name, rng, table) for name in ("a", "b", "c", "z")}
    data = Assembly("S", 2.0, stories, test_stories=("z",))
    settings = Settings(
        modality="embeddings", embedding=str(vectors), joined_with=("wordrate",), trimming=Trimming(),
        fir_delays=(2,), alphas=ALPHAS, downsample_method="sum", fdr_q=0.001,
    )  # fmt: skip
    return data, settings


def made_table(rng):
    """Vectors of 9 words. Their mean is 0, or their sum over the words of a TR would tell how many there are."""
    table = rng.standard_normal((9, 5))
    return table - table.mean(axis=0)


def make_story(name, rng, table, n_trs=200):
    onsets = np.sort(rng.uniform(0, 2 * n_trs, 3 * n_trs))
    kinds = rng.integers(0, 9, len(onsets))
    words = Words([f"w{k}" for k in kinds], onsets, onsets)
    tr_times = 2.0 * np.arange(n_trs)
    rate = word_rate(words, tr_times).ravel()
    meaning = downsampling.downsample(table[kinds], words.times, tr_times, method="sum") @ MEANING
    # what the vectors sum to goes along with how many words there are: take that part out of the truth
    meaning -= rate * (rate @ meaning) / (rate @ rate)
    parts = [rate / rate.std(), meaning / meaning.std()]
    bold = np.stack([parts[0], parts[1], parts[0] + parts[1], *np.zeros((7, n_trs))], axis=1)
    bold = np.roll(bold, 2, axis=0) + 0.5 * rng.standard_normal(bold.shape)
    return Story(name, words, tr_times, bold.astype(np.float32))


def nested(settings, **changes):
    return replace(settings, use_train_test_split=False, **changes)


def only(data, *names):
    return replace(data, stories={name: data.stories[name] for name in names}, test_stories=())


@pytest.fixture(scope="module")
def found(assembly):
    return partitioning.partition(*assembly, voxels=np.arange(4), memory=NO_CACHE)


def check_shares(found):
    rate, meaning = found.unique["wordrate"], found.unique["embeddings"]
    assert rate[0] > 0.2 and meaning[0] < 0.1
    assert meaning[1] > 0.2 and rate[1] < 0.1
    assert rate[2] > 0.1 and meaning[2] > 0.1
    assert found.joint[3] < 0.1
    assert found.gain["wordrate"][0] > 0.1 and found.gain["wordrate"][1] < 0.1
    np.testing.assert_allclose(sum(found.split.values()), found.joint, atol=1e-5)
    np.testing.assert_allclose(found.unique["wordrate"], found.joint - found.alone["embeddings"], atol=1e-9)


def test_each_voxels_variance_goes_to_what_it_follows(found):
    check_shares(found)
    assert found.significant[:3].all() and not found.significant[3]
    assert found.selected.tolist() == [True] * 4 + [False] * 6
    assert np.isnan(found.joint[4:]).all() and len(found.folds) == 1
    assert "4 voxels fitted, 3 significant (permutation test); median unique R2 in the 4" in repr(found)
    assert f"wordrate {np.median(found.unique['wordrate'][:4]):.3f}" in repr(found)
    assert f"(gain in r {np.median(found.gain['wordrate'][:4]):.3f})" in repr(found)


@pytest.mark.parametrize("seed", range(3))
def test_shares_do_not_depend_on_how_the_data_were_drawn(assembly, seed):
    rng = np.random.default_rng(seed)
    table = made_table(np.random.default_rng(1))  # that of the file of vectors
    stories = {name: make_story(name, rng, table) for name in ("a", "b", "c", "z")}
    data = Assembly("S", 2.0, stories, test_stories=("z",))
    check_shares(partitioning.partition(data, assembly[1], voxels=np.arange(4), memory=NO_CACHE))


@pytest.mark.parametrize(("stories", "n_folds"), [(("a", "b", "c", "z"), 4), (("a",), 4)])
def test_nested_folds_and_one_story(assembly, stories, n_folds):
    data, settings = assembly
    data, settings = only(data, *stories), nested(settings, n_outer_folds=n_folds, outer_gap=4.0)
    found = partitioning.partition(data, settings, voxels=np.arange(4), memory=NO_CACHE)
    check_shares(found)
    assert found.significant is None and "not tested" in repr(found)
    assert found.selected.shape == (n_folds, 10) and len(found.folds) == n_folds


@pytest.mark.parametrize("stories", [("a", "b", "c"), ("a",)])
def test_nested_r2_equals_a_brute_force(assembly, stories):
    """BOLD is z-scored by each fold's training rows, story by story, and features are centred by them."""
    data, settings = assembly
    settings = nested(settings, n_outer_folds=3, n_inner_folds=3, alphas=(10.0, 1000.0), outer_gap=4.0)
    plan = plan_run(only(data, *stories), settings)
    made = design_matrices(plan)
    bands, n_iter = list(made.columns.values()), 5
    Y = made.Y[:, :3]
    residual, total, r = np.zeros(3), np.zeros(3), []
    for fold, inner in zip(plan.outer_folds, plan.inner_folds, strict=True):
        X_z, Y_z = made.X.astype(float), Y.astype(float)
        for story in np.unique(plan.groups):
            rows = np.flatnonzero(plan.groups == story)
            own = np.intersect1d(rows, fold.train)
            own = own if len(own) else rows
            X_z[rows] -= X_z[own].mean(0)
            Y_z[rows] = (Y_z[rows] - Y_z[own].mean(0)) / Y_z[own].std(0)
        weights = partitioning.band_weights(2, n_iter)
        Y_hat = brute_force(
            X_z[fold.train], Y_z[fold.train], X_z[fold.test], bands, (10.0, 1000.0), inner, weights
        )
        held = Y_z[fold.test]
        residual, total = residual + ((held - Y_hat) ** 2).sum(0), total + (held**2).sum(0)
        r.append(scoring.correlation(held, Y_hat))
    expected = 1 - residual / total
    scores = partitioning.banded_scores(plan, made.X, Y, None, None, bands, n_iter=n_iter)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # five ratios are few
        found = partitioning.partition(
            plan.assembly, settings, voxels=range(3), n_iter=n_iter, memory=NO_CACHE
        )
    np.testing.assert_allclose(found.joint[:3], expected, atol=1e-4)
    # of two spaces, the gain is that over the other space alone
    alone = [cv_r(plan, made, Y, band) for band in bands]
    for name, without in zip(made.columns, alone[::-1], strict=True):
        np.testing.assert_allclose(found.gain[name][:3], np.mean(r, axis=0) - without, atol=1e-3)


def cv_r(plan, made, Y, band):
    """Mean over outer folds of the correlation of ridge on one band, alphas by R2."""
    return cv.nested_cv(
        made.X[:, band], Y, alphas=plan.settings.alphas, outer_folds=plan.outer_folds, inner_folds=plan.inner_folds,
        groups=plan.groups, use_corr=False, standardize_X="center", standardize_Y=True,
    ).correlations  # fmt: skip


def test_scores_of_a_train_test_split_are_the_joint_r2(assembly, found):
    plan = plan_run(*assembly)
    made = design_matrices(plan)
    bands = list(made.columns.values())
    scores = partitioning.banded_scores(plan, made.X, made.Y, made.X_test, made.Y_test, bands)
    np.testing.assert_allclose(scores[:4], found.joint[:4], atol=1e-5)
    np.testing.assert_allclose(scores[:4], found.folds[0].joint[:4], atol=1e-5)


class Columns:
    """Responses that are read by columns, and how many were asked for at once."""

    def __init__(self, values):
        self.values, self.shape, self.most = values, values.shape, 0

    def __getitem__(self, index):
        rows, columns = index
        self.most = max(self.most, len(range(*columns.indices(self.shape[1]))))
        return self.values[rows, columns]


@pytest.mark.parametrize("split", [True, False])
def test_scores_read_few_columns_at_once(assembly, split, monkeypatch):
    data, settings = assembly
    settings = settings if split else nested(settings, n_outer_folds=3)
    plan = plan_run(data, settings)
    made = design_matrices(plan)
    bands = list(made.columns.values())
    expected = partitioning.banded_scores(plan, made.X, made.Y, made.X_test, made.Y_test, bands, n_iter=4)
    monkeypatch.setattr(partitioning, "BATCH_BYTES", 4 * 3000 * 3)
    Y, Y_test = Columns(made.Y), None if made.Y_test is None else Columns(made.Y_test)
    told = []
    scores = partitioning.banded_scores(
        plan, made.X, Y, made.X_test, Y_test, bands, n_iter=4, progress=lambda *step: told.append(step)
    )
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert 1 <= Y.most < 10
    shares = [done / total for done, total in told]
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] == 1


def test_unique_r2_of_noise_is_centred_on_0(assembly):
    """In nested folds of one story, for both spaces."""
    data, settings = assembly
    rng = np.random.default_rng(0)
    story = data.stories["a"]
    noise = rng.standard_normal((len(story.tr_times), 300)).astype(np.float32)
    noise_only = Assembly("S", 2.0, {"a": replace(story, bold=noise)})
    settings = nested(settings, outer_gap=10.0, alphas=(10.0, 1000.0, 1e5))
    found = partitioning.partition(noise_only, settings, voxels=np.arange(300), memory=NO_CACHE)
    for values in found.unique.values():
        assert abs(values.mean()) < 0.015
        assert np.mean(values > 0) < 0.6
    assert abs(found.joint.mean()) < 0.02


# --- the voxels of the summary ---


def test_by_default_only_predicted_voxels_are_fitted(assembly):
    found = partitioning.partition(*assembly, memory=NO_CACHE)
    assert np.isfinite(found.joint[:3]).all() and found.selected[:3].all()
    assert not found.selected[3:].any() and np.isnan(found.joint[3:]).all()
    assert found.significant[:3].all() and not found.significant[3:].any()


@pytest.mark.parametrize("split", [True, False])
def test_the_choice_does_not_look_at_the_held_out_rows(assembly, split):
    """With other BOLD in the held-out rows, the same voxels are selected for that fit, and others for other folds."""
    data, settings = assembly
    if not split:
        settings = nested(settings)
    before = partitioning.partition(data, settings, memory=NO_CACHE)
    noise = np.random.default_rng(0).standard_normal(data.stories["z"].bold.shape).astype(np.float32)
    changed = data.stories | {"z": replace(data.stories["z"], bold=noise)}
    after = partitioning.partition(replace(data, stories=changed), settings, memory=NO_CACHE)
    if split:
        np.testing.assert_array_equal(before.selected, after.selected)
        assert (after.joint[:3] < 0.1).all() and (before.joint[:3] > 0.3).all()
        return
    folds_with_z = [
        3 in np.unique(plan_run(data, settings).groups[f.test]) for f in plan_run(data, settings).outer_folds
    ]
    fold = folds_with_z.index(True)
    np.testing.assert_array_equal(before.selected[fold], after.selected[fold])
    assert before.folds[fold].joint[0] > 0.3 > 0.1 > after.folds[fold].joint[0]


def test_the_summary_takes_each_fold_over_its_own_voxels(found):
    one = found.folds[0]
    twice = replace(found, folds=(one, one), selected=np.eye(2, 10, dtype=bool))
    rate = one.unique["wordrate"]
    assert twice.median("unique", "wordrate") == pytest.approx((rate[0] + rate[1]) / 2)
    none = replace(twice, selected=np.zeros((2, 10), bool))
    assert np.isnan(none.median("unique", "wordrate")) and "nan" in repr(none)


def test_r2_of_all_folds_is_weighted_by_their_squares():
    values, squares = np.array([[0.5, np.nan], [-1.0, 0.2]]), np.array([[3.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(partitioning.pooled(values, squares), [0.125, 0.2])


# --- convergence ---


def test_the_default_converges_and_few_ratios_do_not(assembly):
    data, settings = assembly
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = partitioning.partition(data, settings, memory=NO_CACHE)
    assert found.convergence.shape == (partitioning.N_ITER,)
    assert (np.diff(found.convergence) >= 0).all()
    # up to three, each is a space by itself or both
    with pytest.warns(
        UserWarning, match="has not converged: the last quarter of the 3 ratios .* raise n_iter to 6"
    ):
        few = partitioning.partition(data, settings, n_iter=3, memory=NO_CACHE)
    assert few.convergence[-1] < found.convergence[-1]


def test_convergence_is_the_best_mean_r2_in_the_inner_folds(assembly, found):
    plan = plan_run(*assembly)
    made = design_matrices(plan)
    scores = partitioning.banded_ridge(
        made.X,
        made.Y[:, :4],
        made.X_test,
        list(made.columns.values()),
        alphas=ALPHAS,
        folds=plan.inner_folds[0],
    ).cv_scores
    best = [scores[: n + 1].max(axis=0).mean() for n in range(len(scores))]
    np.testing.assert_allclose(found.convergence, best, atol=1e-6)


# --- bad input ---


def test_refusals(assembly):
    data, settings = assembly
    with pytest.raises(SettingsError, match='got "embeddings" alone'):
        partitioning.partition(data, replace(settings, joined_with=()), memory=NO_CACHE)
    with pytest.raises(ValueError, match=r"mask of 10 voxels, got shape \(3,\)"):
        partitioning.partition(data, settings, voxels=np.ones(3, bool), memory=NO_CACHE)
    with pytest.raises(ValueError, match="numbers from 0 to 9, got 2 to 17"):
        partitioning.partition(data, settings, voxels=[2, 17], memory=NO_CACHE)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"voxels": []}, "voxels: expected at least one voxel, got none; leave voxels out"),
        ({"voxels": np.zeros(10, bool)}, "voxels: expected at least one voxel, got none"),
        (
            {"voxels": [1.5]},
            r"mask of 10 voxels or whole numbers in a list, got an array of float64 of shape \(1,\)",
        ),
        ({"voxels": [[1, 2]]}, r"got an array of int64 of shape \(1, 2\)"),
        ({"voxels": ["a"]}, "voxels: expected a mask of 10 voxels"),
        ({"n_iter": 0}, "n_iter must be .* 1 or more, got 0"),
        ({"n_iter": 2.5}, "n_iter must be .* got 2.5"),
        ({"n_iter": "5"}, "n_iter must be .* got '5'"),
    ],
)
def test_refusals_before_any_work(assembly, options, says, monkeypatch):
    monkeypatch.setattr(partitioning, "design_matrices", lambda *a, **k: pytest.fail("work was begun"))
    with pytest.raises(ValueError, match=says):
        partitioning.partition(*assembly, memory=NO_CACHE, **options)


def test_voxels_that_nothing_predicts_are_not_shared_out(assembly):
    data, settings = assembly
    noise = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    stories = {name: replace(story, bold=noise) for name, story in data.stories.items()}
    with pytest.raises(ValueError, match="no variance to partition"):
        partitioning.partition(replace(data, stories=stories), settings, memory=NO_CACHE)


# --- significance ---


@pytest.mark.parametrize("significance", ["permutation", "parametric"])
def test_chance_is_what_the_settings_say(assembly, significance):
    """Unrelated slow series: the formula calls many of them predicted, the permutation test few."""
    rng = np.random.default_rng(3)
    slow = np.apply_along_axis(np.convolve, 2, rng.standard_normal((2, 400, 309)), np.ones(10), mode="valid")
    Y, Y_hat = slow.transpose(0, 2, 1)
    settings = replace(assembly[1], significance=significance, fdr_q=0.2, n_permutations=300, block_trs=30)
    found = partitioning._significant(Y, Y_hat, settings).mean()
    assert (found > 0.15) if significance == "parametric" else (found < 0.03)


def test_voxels_are_called_significant_by_the_settings_test(assembly, monkeypatch):
    data, settings = assembly
    asked = []
    made = permutation.permutation_pvalues
    monkeypatch.setattr(scoring, "permutation_pvalues", lambda *a, **o: asked.append(o) or made(*a, **o))
    options = {"n_permutations": 99, "block_trs": 7, "seed": 4}
    partitioning.partition(data, replace(settings, **options), memory=NO_CACHE)
    assert asked == [options | {"alternative": "greater", "tail": "t"}]
    found = partitioning.partition(data, replace(settings, significance="parametric"), memory=NO_CACHE)
    assert len(asked) == 1 and "assumes white noise" in repr(found)


@pytest.mark.parametrize("changes", [{"significance": "shift"}, {"use_train_test_split": False}])
def test_shifts_and_nested_folds_are_not_tested_here(assembly, changes):
    data, settings = assembly
    found = partitioning.partition(data, replace(settings, **changes), voxels=[0, 1], memory=NO_CACHE)
    assert found.significant is None
    assert found.test_name in repr(found) and 'use shift_test(..., statistic="r2")' in found.test_name


def test_the_settings_seed_draws_the_ratios_that_are_tried(assembly, monkeypatch):
    asked, made = [], partitioning.band_weights

    def drawn(n_bands, n_iter, *, seed):
        asked.append((n_bands, n_iter, seed))
        return made(n_bands, n_iter, seed=seed)

    monkeypatch.setattr(partitioning, "band_weights", drawn)
    data, settings = assembly
    partitioning.partition(data, replace(settings, seed=6), voxels=[0], n_iter=9, memory=NO_CACHE)
    assert asked == [(2, 9, 6), (1, 9, 6), (1, 9, 6)]
