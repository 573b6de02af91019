"""`RidgeCV` as scikit-learn checks it, against `ridge_cv` and scikit-learn's own, and in pipelines with `Delayer`."""

import numpy as np
import pytest
import sklearn
from sklearn.linear_model import Ridge
from sklearn.linear_model import RidgeCV as TheirRidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from encoding_nb.design.estimators import Delayer
from encoding_nb.ridge import make_folds, ridge_cv
from encoding_nb.ridge.estimators import RidgeCV

ALPHAS = np.logspace(-1, 4, 6)


def make_data(n=90, k=12, v=7, *, seed=0):
    """X, Y, X_new in float64, with means that an intercept must fit."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + 30, k)) * rng.uniform(0.5, 2, k) + 3
    weights = rng.standard_normal((k, v)) * np.linspace(0, 1, v)
    Y = X @ weights + 2 * rng.standard_normal((n + 30, v)) - 5
    return X[:n], Y[:n], X[n:]


@parametrize_with_checks([RidgeCV(), RidgeCV(use_corr=False, fit_intercept=False)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("use_corr", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_ridge_cv(use_corr, fit_intercept, dtype):
    X, Y, X_new = make_data()
    Y = Y.astype(dtype)
    folds = make_folds(len(X), n_folds=4, chunk_length=5)
    model = RidgeCV(ALPHAS, cv=folds, use_corr=use_corr, fit_intercept=fit_intercept).fit(X, Y)
    means = (X.mean(0), Y.mean(0, dtype=float)) if fit_intercept else (0, 0)
    found = ridge_cv(
        X - means[0], (Y - means[1]).astype(dtype), X_test=X_new - means[0], alphas=ALPHAS, folds=folds,
        use_corr=use_corr, return_weights=True, dtype=dtype,
    )  # fmt: skip
    np.testing.assert_array_equal(model.best_alphas_, found.best_alphas)
    np.testing.assert_array_equal(model.alpha_, found.best_alphas)
    np.testing.assert_array_equal(model.cv_scores_, found.cv_scores)
    np.testing.assert_array_equal(model.coef_, found.weights.T)
    atol = 1e-4 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(model.predict(X_new), found.predictions + means[1], atol=atol)


@pytest.mark.parametrize("shape", [(90, 12), (60, 80)])
def test_equals_scikit_learn(shape):
    """The alphas chosen by R2 are those of its RidgeCV for each centred target, the refit is that of its Ridge."""
    X, Y, X_new = make_data(*shape)
    folds = list(KFold(5).split(X))
    model = RidgeCV(ALPHAS, cv=KFold(5), use_corr=False).fit(X, Y)
    centred = X - X.mean(0), Y - Y.mean(0)
    for target, alpha in enumerate(model.alpha_):
        theirs = TheirRidgeCV(ALPHAS, cv=folds, fit_intercept=False)
        assert theirs.fit(centred[0], centred[1][:, target]).alpha_ == alpha
    theirs = Ridge(alpha=model.alpha_).fit(X, Y)
    np.testing.assert_allclose(model.coef_, theirs.coef_, atol=1e-8)
    np.testing.assert_allclose(model.intercept_, theirs.intercept_, atol=1e-8)
    np.testing.assert_allclose(model.predict(X_new), theirs.predict(X_new), atol=1e-8)
    assert model.score(X, Y) == pytest.approx(r2_score(Y, theirs.predict(X)))


def test_a_single_target_has_the_shapes_of_scikit_learn():
    X, Y, X_new = make_data()
    one, column = RidgeCV(ALPHAS).fit(X, Y[:, 3]), RidgeCV(ALPHAS).fit(X, Y[:, [3]])
    assert one.coef_.shape == (12,) and isinstance(one.intercept_, float) and isinstance(one.alpha_, float)
    assert column.coef_.shape == (1, 12) and column.intercept_.shape == column.alpha_.shape == (1,)
    assert one.predict(X_new).shape == (30,) and column.predict(X_new).shape == (30, 1)
    np.testing.assert_array_equal(one.predict(X_new), column.predict(X_new)[:, 0])


def test_a_constant_target_is_warned_of_and_predicted_by_its_mean():
    X, Y, X_new = make_data()
    Y[:, 2] = 1.5
    with pytest.warns(UserWarning, match=r"1 of 7 targets are constant.*first: 2"):
        model = RidgeCV(ALPHAS).fit(X, Y)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(model.alpha_)), [2])
    np.testing.assert_allclose(model.predict(X_new)[:, 2], 1.5)
    assert np.isfinite(model.predict(X_new)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alphas": [0.0]}, "alphas must be a list of positive numbers"),
        ({"cv": [([0, 1], [1, 2])]}, "Fold 0 scores 1 rows that it also trains on"),
        ({"device": "gpu"}, 'device must be "cpu" or "cuda"'),
        ({"cv": KFold(80)}, "test must be a 1-D array of at least 2"),
    ],
)
def test_bad_parameters_are_refused_in_fit(change, message):
    X, Y, _ = make_data()
    with pytest.raises(ValueError, match=message):
        RidgeCV(**change).fit(X, Y)


def test_a_pipeline_with_delays_cross_validates():
    rng = np.random.default_rng(3)
    stimulus = rng.standard_normal((200, 2))
    bold = np.zeros((200, 3))
    for delay, strength in ((2, 1.0), (3, 0.5)):
        bold[delay:] += strength * stimulus[:-delay] @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]])
    bold += 0.3 * rng.standard_normal(bold.shape)
    model = make_pipeline(Delayer([1, 2, 3, 4]), StandardScaler(), RidgeCV(ALPHAS))
    assert cross_val_score(model, stimulus, bold, cv=KFold(4)).mean() > 0.85
    undelayed = make_pipeline(StandardScaler(), RidgeCV(ALPHAS))
    assert cross_val_score(undelayed, stimulus, bold, cv=KFold(4)).mean() < 0.1


def test_stories_reach_the_steps_of_a_pipeline_by_metadata_routing():
    X, Y, _ = make_data()
    stories = np.repeat(["a", "b", "c"], 30)
    with sklearn.config_context(enable_metadata_routing=True):
        ridge = RidgeCV(ALPHAS, cv=GroupKFold(3)).set_fit_request(groups=True)
        model = make_pipeline(Delayer([1, 2]).set_transform_request(groups=True), StandardScaler(), ridge)
        model.fit(X, Y, groups=stories)
        delayed = np.vstack([Delayer([1, 2]).fit_transform(X[stories == story]) for story in "abc"])
        by_hand = RidgeCV(ALPHAS, cv=GroupKFold(3)).fit(
            StandardScaler().fit_transform(delayed), Y, groups=stories
        )
        np.testing.assert_array_equal(model[-1].coef_, by_hand.coef_)
        delayer = Delayer([1, 2]).set_transform_request(groups=True)
        whole = make_pipeline(delayer, RidgeCV(ALPHAS).set_fit_request(groups=False))
        scores = cross_val_score(whole, X, Y, cv=GroupKFold(3), params={"groups": stories})
        assert scores.shape == (3,) and np.isfinite(scores).all()
