"""`ridge_cv` and `nested_cv` against scikit-learn, himalaya, a float64 brute force and LITcoder's stored runs."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from encoding_nb import _columns, _machine
from encoding_nb._progress import Cancelled
from encoding_nb.ridge import _arrays, _fit, _solvers, cv
from encoding_nb.ridge import folds as the_folds

GOLDEN = Path(__file__).parents[1] / "golden"
LITCODER_ALPHAS = np.logspace(-1, 8, 10)


def make_data(n, k, v=12, n_test=25, *, seed=0, kind=""):
    """X, Y, X_test, Y_test in float64 with the difficulties named in `kind`."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + n_test, k))
    if "duplicated" in kind:
        X[:, k // 2 :] = X[:, : k - k // 2]
    if "collinear" in kind:
        X[:, -3:] = X[:, :3] + 2 * X[:, 3:6]
    if "zero" in kind:
        X[:, 5] = 0
    if "strong" in kind:
        X += 30 * rng.standard_normal((n + n_test, 1)) * rng.standard_normal(k)
    if "centred" in kind:
        X -= X[:n].mean(0)
    strength = np.linspace(0, 0.5, v)
    Y = X @ (rng.standard_normal((k, v)) * strength) / np.sqrt(k) + rng.standard_normal((n + n_test, v))
    return X[:n], Y[:n], X[n:], Y[n:]


def svd_weights(X, Y, alpha):
    """Ridge weights in float64 from the singular values, without those that are rounding noise."""
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    keep = s > 1e-13 * s[0]
    return Vt[keep].T @ ((s[keep] / (s[keep] ** 2 + alpha))[:, None] * (U[:, keep].T @ Y))


def brute_scores(X, Y, alphas, folds, use_corr=True):
    """Mean held-out scores (n_alphas, n_voxels), one decomposition per fold and alpha."""
    out = []
    for train, test in folds:
        predictions = [X[test] @ svd_weights(X[train], Y[train], alpha) for alpha in alphas]
        if use_corr:
            rows = [
                [np.corrcoef(a, b)[0, 1] for a, b in zip(Y[test].T, p.T, strict=True)] for p in predictions
            ]
        else:
            total = ((Y[test] - Y[test].mean(0)) ** 2).sum(0)
            rows = [1 - ((Y[test] - p) ** 2).sum(0) / total for p in predictions]
        out.append(rows)
    return np.mean(out, axis=0)


def golden_run(tag):
    """Stored arrays of one LITcoder run; the single-alpha run shares the arrays of the lanczos run."""
    run = dict(np.load(GOLDEN / f"run_{tag}.npz"))
    if "X_train" not in run:
        run = dict(np.load(GOLDEN / "run_tt_default_lanczos.npz")) | run
    folds = [the_folds.Fold(run[f"folds/0/{i}/train"], run[f"folds/0/{i}/test"]) for i in range(5)]
    return run, folds


# --- exactness -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tag", ["tt_default_rect", "tt_default_lanczos", "tt_default_lanczos_single_alpha"])
def test_equals_litcoder_on_its_arrays_and_folds(tag, dtype):
    run, folds = golden_run(tag)
    result = cv.ridge_cv(
        run["X_train"],
        run["Y_train"],
        X_test=run["X_test"],
        Y_test=run["Y_test"],
        alphas=cv.huth_alphas(LITCODER_ALPHAS),
        folds=folds,
        normalpha=True,
        prediction_floor=1e-8,
        single_alpha="single" in tag,
        return_weights=True,
        dtype=dtype,
    )
    # Voxel 0 is constant, voxel 2 constant in the test rows: LITcoder scores 0 there, which is no score.
    np.testing.assert_array_equal(result.constant_voxels, [0])
    np.testing.assert_allclose(np.sqrt(result.best_alphas[1:]), run["best_alphas"][1:], rtol=1e-6)
    assert np.isnan(result.best_alphas[0])
    scored = np.isfinite(result.correlations)
    np.testing.assert_array_equal(np.flatnonzero(~scored), [0, 1, 2])
    np.testing.assert_allclose(result.correlations[scored], run["correlations"][scored], atol=1e-5)
    if "weights" in run:
        np.testing.assert_allclose(result.weights[:, 1:], run["weights"][:, 1:], atol=1e-5)


CASES = ["", "duplicated", "collinear zero centred", "strong centred"]


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("shape", [(60, 90), (60, 50), (110, 24)])
@pytest.mark.parametrize("folding_type", ["chunked", "kfold_trimmed", "timeseries"])
def test_scores_weights_and_predictions_equal_brute_force(shape, kind, folding_type):
    X, Y, X_test, Y_test = make_data(*shape, kind=kind)
    folds = the_folds.make_folds(len(X), folding_type=folding_type, n_folds=4, chunk_length=7, trim_size=2)
    alphas = 10.0 ** np.array([-9, -3, 0, 1, 2, 4, 8])
    result = cv.ridge_cv(
        X,
        Y,
        X_test=X_test,
        Y_test=Y_test,
        alphas=alphas,
        folds=folds,
        return_weights=True,
        return_all_scores=True,
    )
    expected = brute_scores(X, Y, alphas, folds)
    np.testing.assert_allclose(result.all_cv_scores, expected, atol=1e-5)
    np.testing.assert_allclose(result.cv_scores, expected.max(0), atol=1e-5)
    for voxel, alpha in enumerate(result.best_alphas):
        weights = svd_weights(X, Y[:, [voxel]], alpha)[:, 0]
        np.testing.assert_allclose(result.weights[:, voxel], weights, atol=1e-5 * np.abs(weights).max())
        predicted = X_test @ weights
        np.testing.assert_allclose(
            result.predictions[:, voxel], predicted, atol=1e-5 * np.abs(predicted).max()
        )
        r = np.corrcoef(predicted, Y_test[:, voxel])[0, 1]
        assert result.correlations[voxel] == pytest.approx(r, abs=1e-5)


@pytest.mark.parametrize("shape", [(60, 90), (110, 24)])
def test_predictions_without_weights_equal_those_with(shape):
    """They take another way through the dual: operators instead of a decomposition."""
    X, Y, X_test, Y_test = make_data(*shape)
    options = {"X_test": X_test, "Y_test": Y_test, "alphas": [1.0, 10.0, 100.0]}
    options |= {"folds": the_folds.make_folds(len(X), folding_type="kfold")}
    plain = cv.ridge_cv(X, Y, **options)
    weighted = cv.ridge_cv(X, Y, return_weights=True, **options)
    np.testing.assert_allclose(plain.predictions, weighted.predictions, atol=1e-5)
    np.testing.assert_allclose(plain.predictions, X_test @ weighted.weights, atol=1e-5)


def nearly_collinear(kind, n, k, v=12, n_test=60, seed=0):
    """X, Y, X_test, Y_test whose columns are copies but for a little noise, or whose spectrum decays."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + n_test, k))
    if kind == "decaying":
        X = X * 10.0 ** np.linspace(0, -6, k) @ np.linalg.qr(rng.standard_normal((k, k)))[0]
    else:
        X[:, k // 2 :] = X[:, : k - k // 2] + float(kind) * X[:, k // 2 :]
    Y = X @ (rng.standard_normal((k, v)) * np.linspace(0, 0.5, v)) / np.sqrt(k)
    Y += rng.standard_normal(Y.shape)
    return X[:n], Y[:n], X[n:], Y[n:]


@pytest.mark.parametrize("ratio", [1e-12, 1e-10, 1.5e-9, 1e-8])
@pytest.mark.parametrize("shape", [(120, 180), (150, 100), (200, 48)])
@pytest.mark.parametrize("kind", ["1e-4", "1e-6", "decaying"])
@pytest.mark.parametrize("return_weights", [False, True])
def test_nearly_collinear_columns_equal_brute_force(kind, shape, ratio, return_weights):
    X, Y, X_test, Y_test = nearly_collinear(kind, *shape)
    alpha = ratio * np.linalg.norm(X, 2) ** 2
    folds = the_folds.make_folds(len(X), folding_type="kfold", n_folds=4)
    result = cv.ridge_cv(
        X, Y, X_test=X_test, Y_test=Y_test, alphas=[alpha], folds=folds, return_weights=return_weights
    )
    weights = svd_weights(X, Y, alpha)
    predicted = X_test @ weights
    np.testing.assert_allclose(result.cv_scores, brute_scores(X, Y, [alpha], folds)[0], atol=5e-6)
    np.testing.assert_allclose(
        result.predictions / np.abs(predicted).max(0), predicted / np.abs(predicted).max(0), atol=5e-6
    )
    r = [np.corrcoef(p, y)[0, 1] for p, y in zip(predicted.T, Y_test.T, strict=True)]
    np.testing.assert_allclose(result.correlations, r, atol=5e-6)
    if return_weights:
        np.testing.assert_allclose(
            result.weights / np.abs(weights).max(0), weights / np.abs(weights).max(0), atol=5e-6
        )


def word_rate_rows(story, *, test):
    """Features of LITcoder's word-rate run: delays 1 to 4, the tutorial's trimming, z-scored within the story."""
    rate = np.load(GOLDEN / "stimuli.npz")[f"{story}/word_rates"]
    delayed = np.concatenate([np.vstack([np.zeros((d, 1)), rate[:-d]]) for d in (1, 2, 3, 4)], axis=1)
    rows = delayed[slice(50, -5) if test else slice(10, -5)]
    return (rows - rows.mean(0)) / rows.std(0)


def test_equals_litcoder_on_word_rate():
    """Its run with four columns; it stored no arrays, so they are made again (the responses are another run's)."""
    responses, _ = golden_run("tt_default_lanczos")
    run = np.load(GOLDEN / "run_tt_wordrate.npz")
    result = cv.ridge_cv(
        np.concatenate([word_rate_rows(f"story{letter}", test=False) for letter in "abcd"]),
        responses["Y_train"],
        X_test=word_rate_rows("storyz_test", test=True),
        Y_test=responses["Y_test"],
        alphas=cv.huth_alphas(LITCODER_ALPHAS),
        folds=[the_folds.Fold(run[f"folds/0/{i}/train"], run[f"folds/0/{i}/test"]) for i in range(5)],
        normalpha=True,
        prediction_floor=1e-8,
    )
    scored = np.isfinite(result.correlations)
    np.testing.assert_array_equal(np.flatnonzero(~scored), [0, 1, 2])
    np.testing.assert_allclose(np.sqrt(result.best_alphas[1:]), run["best_alphas"][1:], rtol=1e-6)
    np.testing.assert_allclose(result.correlations[scored], run["correlations"][scored], atol=1e-5)


def test_large_inverse_is_exact():
    """Above the size at which the inverse is halved."""
    X = np.random.default_rng(0).standard_normal((500, 700))
    gram = X @ X.T + np.eye(500)
    inverse = _solvers.spd_inverse(gram, _arrays.NumpyArrays())
    np.testing.assert_allclose(inverse @ gram, np.eye(500), atol=1e-9)


@pytest.mark.parametrize("shape", [(60, 90), (110, 24)])
def test_r2_selection_equals_brute_force(shape):
    X, Y, *_ = make_data(*shape)
    Y = Y + 2.0
    alphas = 10.0 ** np.array([0, 1, 2, 4])
    folds = the_folds.make_folds(len(X), folding_type="kfold", n_folds=3)
    result = cv.ridge_cv(X, Y, alphas=alphas, folds=folds, use_corr=False, return_all_scores=True)
    expected = brute_scores(X, Y, alphas, folds, use_corr=False)
    np.testing.assert_allclose(result.all_cv_scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result.best_alphas, alphas[expected.argmax(0)])


def test_weights_equal_scikit_learn_without_intercept():
    X, Y, *_ = make_data(80, 30)
    X, Y = X + 1.0, Y + 3.0
    result = cv.ridge_cv(
        X, Y, alphas=[7.0], folds=the_folds.make_folds(80, folding_type="kfold"), return_weights=True
    )
    expected = Ridge(alpha=7.0, fit_intercept=False).fit(X, Y).coef_.T
    np.testing.assert_allclose(result.weights, expected, atol=1e-5)


def test_equals_himalaya():
    from himalaya.ridge import RidgeCV
    from himalaya.scoring import correlation_score

    X, Y, X_test, _ = make_data(90, 40, v=30)
    folds = the_folds.make_folds(90, folding_type="kfold")
    alphas = np.logspace(-1, 4, 6)
    result = cv.ridge_cv(X, Y, X_test=X_test, alphas=alphas, folds=folds)
    model = RidgeCV(
        alphas=alphas, cv=[tuple(f) for f in folds], solver_params={"score_func": correlation_score}
    )
    model.fit(X, Y)
    np.testing.assert_allclose(result.best_alphas, model.best_alphas_)
    np.testing.assert_allclose(result.predictions, model.predict(X_test), atol=1e-5)


def test_single_alpha_is_the_best_on_average():
    X, Y, *_ = make_data(90, 40, v=9)
    Y[:, 3] = 1.0
    folds = the_folds.make_folds(90, folding_type="kfold")
    alphas = np.logspace(-1, 4, 6)
    result = cv.ridge_cv(X, Y, alphas=alphas, folds=folds, single_alpha=True)
    varying = np.delete(Y, 3, axis=1)
    expected = brute_scores(X, varying, alphas, folds).mean(1)
    np.testing.assert_array_equal(np.delete(result.best_alphas, 3), alphas[expected.argmax()])
    assert np.isnan(result.best_alphas[3])


def test_alphas_that_tie_give_the_largest():
    X, Y, *_ = make_data(60, 20)
    alphas = np.array([1e12, 1e10, 1e14])
    result = cv.ridge_cv(X, Y, alphas=alphas, folds=the_folds.make_folds(60, folding_type="kfold"))
    assert set(result.best_alphas) == {1e14}


def test_huth_alphas_enter_squared():
    X, Y, *_ = make_data(60, 20)
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    a = 0.3
    theirs = Vt.T @ ((s / (s**2 + (a * s[0]) ** 2))[:, None] * (U.T @ Y))
    folds = the_folds.make_folds(60, folding_type="kfold")
    alpha = cv.huth_alphas(a, largest_singular_value=s[0])
    for options in ({"alphas": [alpha]}, {"alphas": [cv.huth_alphas(a)], "normalpha": True}):
        result = cv.ridge_cv(X, Y, folds=folds, return_weights=True, **options)
        np.testing.assert_allclose(result.weights, theirs, atol=1e-6)


# --- tiles, storage, devices -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 90), (110, 24)])
@pytest.mark.parametrize("single_alpha", [False, True])
# Slabs of one alpha and 16 voxels, and of two or three of the four alphas.
@pytest.mark.parametrize("side", [1, 40])
def test_tiles_groups_of_folds_and_slabs_change_nothing(shape, single_alpha, side, monkeypatch):
    X, Y, X_test, Y_test = make_data(*shape, v=23)
    options = {
        "X_test": X_test,
        "Y_test": Y_test,
        "alphas": np.logspace(0, 3, 4),
        "folds": the_folds.make_folds(len(X), folding_type="kfold"),
        "return_weights": True,
        "single_alpha": single_alpha,
        "dtype": np.float64,
    }
    whole = cv.ridge_cv(X, Y, **options)
    monkeypatch.setattr(_fit, "OPERATOR_BYTES", 1)
    monkeypatch.setattr(_solvers, "SLAB_SIDE", side)
    parts = cv.ridge_cv(X, Y, tile=20, **options)
    for name in ("best_alphas", "cv_scores", "weights", "predictions", "correlations"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-11)


def test_y_from_hdf5_and_weights_to_disk(tmp_path):
    X, Y, *_ = make_data(60, 20)
    options = {"alphas": [1.0, 100.0], "folds": the_folds.make_folds(60, folding_type="kfold")}
    with h5py.File(tmp_path / "y.h5", "w") as file:
        stored = file.create_dataset("bold", data=Y)
        result = cv.ridge_cv(X, stored, weights_path=tmp_path / "w.npy", tile=5, **options)
    expected = cv.ridge_cv(X, Y, return_weights=True, **options)
    assert isinstance(result.weights, np.memmap)
    np.testing.assert_allclose(np.load(tmp_path / "w.npy"), expected.weights, atol=1e-6)
    np.testing.assert_array_equal(result.best_alphas, expected.best_alphas)


def test_weights_too_large_for_memory_go_to_a_temporary_file(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    X, Y, *_ = make_data(60, 20)
    options = {"alphas": [1.0, 100.0], "folds": the_folds.make_folds(60, folding_type="kfold"), "tile": 5}
    options |= {"return_weights": True}
    expected = cv.ridge_cv(X, Y, **options)
    result = cv.ridge_cv(X, Y, weights_memory=100, **options)
    assert result.weights_on_disk and isinstance(result.weights, np.memmap)
    assert not expected.weights_on_disk and "are in a temporary file in" in caplog.text
    np.testing.assert_array_equal(result.weights, expected.weights)
    assert list(tmp_path.iterdir()) == []
    outer = the_folds.make_folds(60, folding_type="kfold", n_folds=3)
    options = {"alphas": [1.0], "outer_folds": outer, "return_weights": True, "folding_type": "kfold"}
    nested = cv.nested_cv(X, Y, weights_memory=100, **options)
    assert isinstance(nested.weights, np.memmap)
    np.testing.assert_array_equal(nested.weights, cv.nested_cv(X, Y, **options).weights)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 10}))
    with pytest.raises(ValueError, match=r"more than memory has to spare .* pass weights_path"):
        cv.ridge_cv(X, Y, alphas=[1.0], folds=outer, return_weights=True, weights_memory=100)


def test_weights_take_half_of_the_memory_that_a_container_has_free(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    X, Y, *_ = make_data(60, 20)
    options = {
        "alphas": [1.0],
        "folds": the_folds.make_folds(60, folding_type="kfold"),
        "return_weights": True,
    }
    size = 4 * 20 * Y.shape[1]
    monkeypatch.setattr(_machine, "free_memory", lambda: 2 * size)
    assert not cv.ridge_cv(X, Y, **options).weights_on_disk
    monkeypatch.setattr(_machine, "free_memory", lambda: 2 * size - 2)
    assert cv.ridge_cv(X, Y, **options).weights_on_disk


def test_a_stopped_fit_leaves_no_weights_behind(tmp_path):
    X, Y, *_ = make_data(60, 20)
    folds = the_folds.make_folds(60, folding_type="kfold")
    seen = []

    def progress(done, total):
        assert list(tmp_path.iterdir()), "a draft"
        seen.append((done, total))
        if done:
            raise stop

    for stop in (Cancelled(), ValueError("of the caller's own")):
        with pytest.raises(type(stop)) as raised:
            cv.ridge_cv(
                X, Y, alphas=[1.0], folds=folds, weights_path=tmp_path / "w.npy", tile=5, progress=progress
            )
        assert raised.value is stop and list(tmp_path.iterdir()) == []
    assert all(done < total for done, total in seen)


@pytest.mark.parametrize("shape", [(60, 90), (110, 24)])
@pytest.mark.parametrize("return_weights", [False, True])
def test_torch_gives_the_same(shape, return_weights, monkeypatch):
    """The path of device="cuda", on torch's CPU."""
    pytest.importorskip("torch")
    X, Y, X_test, Y_test = make_data(*shape)
    options = {"X_test": X_test, "Y_test": Y_test, "alphas": 10.0 ** np.array([-9, 0, 2, 4])}
    options |= {"folds": the_folds.make_folds(len(X), folding_type="kfold"), "return_weights": return_weights}
    expected = cv.ridge_cv(X, Y, **options)
    monkeypatch.setattr(_arrays, "arrays_on", lambda device: _arrays.TorchArrays("cpu"))
    result = cv.ridge_cv(X, Y, device="cuda", **options)
    np.testing.assert_array_equal(result.best_alphas, expected.best_alphas)
    np.testing.assert_allclose(result.cv_scores, expected.cv_scores, atol=2e-6)
    np.testing.assert_allclose(result.predictions, expected.predictions, atol=1e-5)


def test_products_on_a_gpu_are_full_float32_whatever_torch_is_set_to(monkeypatch):
    torch = pytest.importorskip("torch")
    seen, matmul = [], torch.matmul
    monkeypatch.setattr(
        torch, "matmul", lambda *a, **o: seen.append(torch.get_float32_matmul_precision()) or matmul(*a, **o)
    )
    xp, one = _arrays.TorchArrays("cpu"), torch.ones(2, 3)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU: three digits
    try:
        assert xp.product(one, one.T).tolist() == [[3.0, 3.0], [3.0, 3.0]]
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["highest"]


# --- progress --------------------------------------------------------------------------------------------


def test_progress_rises_to_the_total():
    X, Y, *_ = make_data(60, 20)
    seen = []
    options = {"alphas": [1.0, 10.0], "folds": the_folds.make_folds(60, folding_type="kfold"), "tile": 4}
    cv.ridge_cv(X, Y, progress=lambda done, total: seen.append((done, total)), **options)
    done, total = np.array(seen).T
    assert len(seen) > 10
    assert (np.diff(done) >= 0).all()
    assert done[-1] == total[-1] and len(set(total)) == 1


def test_cancelling_stops_the_reading():
    X, Y, *_ = make_data(60, 20, v=40)
    reads = []

    class Watched:
        shape = Y.shape

        def __getitem__(self, index):
            reads.append(index)
            return Y[index]

    def progress(done, total):
        raise Cancelled

    folds = the_folds.make_folds(60, folding_type="kfold")
    with pytest.raises(Cancelled):
        cv.ridge_cv(X, Watched(), alphas=[1.0], folds=folds, tile=4, progress=progress)
    assert len(reads) == 1
    with pytest.raises(Cancelled):
        cv.nested_cv(X, Watched(), alphas=[1.0], outer_folds=folds, folding_type="kfold", progress=progress)
    assert len(reads) == 2


# --- voxels and columns without variance, values that are not finite -------------------------------------


def test_constant_voxels_and_columns_are_reported_and_scored_nan():
    X, Y, X_test, Y_test = make_data(60, 20, v=6)
    X[:, 4], X_test[:, 4] = 2.0, 2.0
    Y = Y.astype(np.float32)
    Y[:, 0] = 0.0
    Y[:, 1] = 3.7
    Y[::2, 1] = np.nextafter(np.float32(3.7), np.float32(4))  # varies by rounding only
    Y_test[:, 2] = 5.0
    result = cv.ridge_cv(
        X,
        Y,
        X_test=X_test,
        Y_test=Y_test,
        alphas=[1.0, 10.0],
        folds=the_folds.make_folds(60, folding_type="kfold"),
        return_weights=True,
    )
    np.testing.assert_array_equal(result.constant_voxels, [0, 1])
    np.testing.assert_array_equal(result.constant_columns, [4])
    for values in (result.best_alphas, result.cv_scores, result.weights[0], result.predictions[0]):
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(values)), [0, 1])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.correlations)), [0, 1, 2])


def test_a_fold_in_which_a_voxel_is_constant_does_not_count():
    X, Y, *_ = make_data(60, 20, v=3)
    folds = the_folds.make_folds(60, folding_type="kfold")
    Y[folds[1].test, 1] = 0.25
    result = cv.ridge_cv(X, Y, alphas=[10.0], folds=folds)
    expected = brute_scores(X, Y[:, 1:2], [10.0], [f for i, f in enumerate(folds) if i != 1])
    assert result.cv_scores[1] == pytest.approx(expected[0, 0], abs=1e-6)


def test_features_that_predict_nothing_score_nan_not_noise():
    X, Y, *_ = make_data(60, 20, v=3)
    result = cv.ridge_cv(
        np.ones_like(X), Y, alphas=[1.0], folds=the_folds.make_folds(60, folding_type="kfold")
    )
    assert np.isnan(result.cv_scores).all() and np.isnan(result.best_alphas).all()


def test_not_finite_responses_are_refused_or_skipped():
    X, Y, *_ = make_data(60, 20, v=6)
    Y[3, 2], Y[5, 4], Y[6, 4] = np.nan, np.inf, np.nan
    options = {"alphas": [1.0, 10.0], "folds": the_folds.make_folds(60, folding_type="kfold")}
    with pytest.raises(ValueError, match=r"got 3 NaN or infinite values in 2 of 6 voxels, first 2, 4"):
        cv.ridge_cv(X, Y, **options)
    result = cv.ridge_cv(X, Y, on_nan="skip", **options)
    np.testing.assert_array_equal(result.skipped_voxels, [2, 4])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.cv_scores)), [2, 4])
    clean = cv.ridge_cv(X, Y[:, [0, 1, 3, 5]], **options)
    np.testing.assert_allclose(result.cv_scores[[0, 1, 3, 5]], clean.cv_scores, atol=1e-6)


@pytest.mark.parametrize("shape", [(50, 80), (100, 90), (100, 20)])
@pytest.mark.parametrize("normalpha", [False, True])
def test_features_that_are_all_zero_score_nan(shape, normalpha):
    X, Y, X_test, Y_test = make_data(*shape, v=4)
    result = cv.ridge_cv(
        0 * X, Y, X_test=X_test, Y_test=Y_test, alphas=[1.0, 9.0], normalpha=normalpha,
        folds=the_folds.make_folds(len(X), folding_type="kfold"), return_weights=True,
    )  # fmt: skip
    for values in (result.best_alphas, result.cv_scores, result.correlations, result.weights):
        assert np.isnan(values).all()
    np.testing.assert_array_equal(result.unscored_voxels, np.arange(4))
    np.testing.assert_array_equal(result.constant_columns, np.arange(shape[1]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@given(level=st.floats(0.01, 1000), steps=st.integers(0, 20), n=st.integers(2, 3000), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_no_flat_voxel_is_cleared_by_its_sums_of_squares(dtype, level, steps, n, seed):
    """Values within some steps of rounding of each other: `is_constant` decides, `may_be_constant` only spares it."""
    level = dtype(level)
    values = level + np.spacing(level) * np.random.default_rng(seed).integers(0, steps + 1, n).astype(dtype)
    low, high = (np.array([end(values)]) for end in (np.min, np.max))
    exact = values.astype(float)
    about_mean, about_zero = (np.array([np.sum(np.square(exact - m))]) for m in (exact.mean(), 0.0))
    if _columns.is_constant(low, high, np.dtype(dtype)).all():
        assert _columns.may_be_constant(about_mean, about_zero, np.dtype(dtype)).all()


def test_what_varies_or_is_no_number_is_told_apart_by_sums_of_squares():
    about_mean = np.array([1e-3, 0.0, np.nan, np.inf, 1e-30])
    about_zero = np.array([1.0, 0.0, np.nan, np.inf, 1e-30])
    found = _columns.may_be_constant(about_mean, about_zero, np.dtype(np.float32))
    assert found.tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int64, bool, np.float16])
@pytest.mark.parametrize("shape", [(60, 90), (110, 24)])
def test_responses_of_any_number_type(shape, dtype):
    """Integers whose range does not fit into their own type, too."""
    X, Y, X_test, Y_test = make_data(*shape, v=5)
    low, high = (0, 1) if dtype is bool else (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype in (
        np.int16, np.uint8) else (-60000, 60000)  # fmt: skip
    Y, Y_test = (np.interp(values, [-3, 3], [low, high]).round().astype(dtype) for values in (Y, Y_test))
    folds = the_folds.make_folds(len(X), folding_type="kfold")
    found, expected = (
        cv.ridge_cv(X, convert(Y), X_test=X_test, Y_test=convert(Y_test), alphas=[1.0, 30.0], folds=folds)
        for convert in (np.asarray, lambda values: values.astype(float))
    )
    assert len(found.constant_voxels) == 0
    np.testing.assert_array_equal(found.best_alphas, expected.best_alphas)
    np.testing.assert_allclose(found.cv_scores, expected.cv_scores, atol=1e-6)
    np.testing.assert_allclose(found.correlations, expected.correlations, atol=1e-5)


@pytest.mark.parametrize("use_corr", [True, False])
@pytest.mark.parametrize("shape", [(60, 90), (110, 24)])
def test_units_of_the_responses_change_nothing(shape, use_corr):
    X, Y, X_test, Y_test = make_data(*shape, v=6)
    units = np.array([1.0, 1e18, 1e-25, 1e9, 1e-12, 1e33])
    options = {"X_test": X_test, "alphas": np.logspace(0, 4, 5), "use_corr": use_corr}
    options |= {"folds": the_folds.make_folds(len(X), folding_type="kfold"), "return_weights": True}
    plain = cv.ridge_cv(X, Y, Y_test=Y_test, **options)
    scaled = cv.ridge_cv(X, (Y * units).astype(np.float32), Y_test=Y_test * units, **options)
    np.testing.assert_array_equal(scaled.best_alphas, plain.best_alphas)
    np.testing.assert_allclose(scaled.cv_scores, plain.cv_scores, atol=1e-6)
    np.testing.assert_allclose(scaled.correlations, plain.correlations, atol=1e-6)
    np.testing.assert_allclose(scaled.weights / units, plain.weights, atol=1e-6)
    np.testing.assert_allclose(scaled.predictions / units, plain.predictions, atol=1e-5)
    huge = cv.ridge_cv(X, Y * 1e200, Y_test=Y_test * 1e200, dtype=np.float64, **options)
    np.testing.assert_allclose(huge.correlations, plain.correlations, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"sizes between 1e-36 and 1e36; got 1 others, first 5, up to .*float64"
    ):
        cv.ridge_cv(X, Y * [1, 1, 1, 1, 1, 1e60], **options)


def test_the_floor_of_predictions_counts_in_units_of_the_responses():
    X, Y, *_ = make_data(60, 20, v=2)
    options = {"alphas": [1.0, 1e14], "folds": the_folds.make_folds(60, folding_type="kfold")}
    options |= {"return_all_scores": True}
    plain = cv.ridge_cv(X, Y, prediction_floor=1e-8, **options)
    scaled = cv.ridge_cv(X, 1e10 * Y, prediction_floor=1e2, **options)
    np.testing.assert_allclose(scaled.all_cv_scores, plain.all_cv_scores, atol=1e-6)
    assert np.abs(plain.all_cv_scores[1]).max() < 1e-4


def test_test_responses_are_read_before_the_fit():
    X, Y, X_test, Y_test = make_data(60, 20, v=6)
    Y_test[3, 2], Y_test[:, 4] = np.nan, 1.5
    Y[5, 5] = np.inf
    options = {"X_test": X_test, "Y_test": Y_test, "alphas": [1.0, 10.0]}
    options |= {"folds": the_folds.make_folds(60, folding_type="kfold")}
    with pytest.raises(ValueError, match=r"Y_test must be finite, got 1 NaN .* first 2, and 1 rows, first 3"):
        cv.ridge_cv(X, np.nan_to_num(Y, posinf=0), **options)
    result = cv.ridge_cv(X, Y, on_nan="skip", **options)
    np.testing.assert_array_equal(result.skipped_voxels, [2, 5])
    np.testing.assert_array_equal(result.constant_test_voxels, [4])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.best_alphas)), [2, 5])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.correlations)), [2, 4, 5])


@pytest.mark.parametrize("shape", [(60, 90), (120, 24)])
@pytest.mark.parametrize("single_alpha", [False, True])
def test_a_voxel_that_no_fold_can_score_has_no_fit(shape, single_alpha):
    X, Y, X_test, Y_test = make_data(*shape, v=4)
    folds = [
        the_folds.Fold(np.arange(30, len(X)), np.arange(10)),
        the_folds.Fold(np.arange(20), np.arange(20, 30)),
    ]
    Y[:10, 1], Y[20:30, 1] = 1.0, 2.0
    result = cv.ridge_cv(
        X, Y, X_test=X_test, Y_test=Y_test, alphas=[1.0, 10.0], folds=folds, return_weights=True,
        single_alpha=single_alpha,
    )  # fmt: skip
    np.testing.assert_array_equal(result.unscored_voxels, [1])
    assert len(result.constant_voxels) == 0 and np.isnan(result.cv_scores[1])
    values = (result.best_alphas, result.correlations, result.weights[0], result.predictions[0])
    for found in values:
        # one alpha for all was chosen by the other voxels, and fits this one too
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(found)), [] if single_alpha else [1])


def test_folds_may_come_from_a_generator():
    from sklearn.model_selection import KFold

    X, Y, *_ = make_data(60, 20, v=3)
    found = cv.ridge_cv(X, Y, alphas=[1.0, 9.0], folds=KFold(5).split(X))
    expected = cv.ridge_cv(X, Y, alphas=[1.0, 9.0], folds=the_folds.make_folds(60, folding_type="kfold"))
    np.testing.assert_array_equal(found.cv_scores, expected.cv_scores)
    nested = cv.nested_cv(
        X, Y, alphas=[1.0, 9.0], outer_folds=KFold(3).split(X), inner_folds=lambda rows: KFold(2).split(rows)
    )
    assert np.isfinite(nested.predictions).all()


@pytest.mark.parametrize("shape", [(60, 90), (110, 24)])
def test_standardised_by_the_training_rows(shape):
    X, Y, X_test, Y_test = make_data(*shape, v=5)
    X, X_test, Y, Y_test = 3 * X + 2, 3 * X_test + 2, 7 * Y - 4, 7 * Y_test - 4
    options = {"alphas": np.logspace(0, 3, 4), "folds": the_folds.make_folds(len(X), folding_type="kfold")}
    options |= {"return_weights": True}
    found = cv.ridge_cv(X, Y, X_test=X_test, Y_test=Y_test, standardize_X=True, standardize_Y=True, **options)
    A, B = ((v - v.mean(0)) / v.std(0) for v in (X, Y))
    C = (X_test - X.mean(0)) / X.std(0)
    by_hand = cv.ridge_cv(A, B, X_test=C, Y_test=Y_test, **options)
    np.testing.assert_array_equal(found.best_alphas, by_hand.best_alphas)
    np.testing.assert_allclose(found.cv_scores, by_hand.cv_scores, atol=1e-6)
    np.testing.assert_allclose(found.weights, by_hand.weights, atol=1e-6)
    np.testing.assert_allclose(found.correlations, by_hand.correlations, atol=1e-6)
    np.testing.assert_allclose(found.predictions, by_hand.predictions * Y.std(0) + Y.mean(0), atol=1e-4)


def no_step(done, total):
    pytest.fail("a step was told")


FOLDS = [(np.arange(20, 60), np.arange(20)), (np.arange(40), np.arange(40, 60))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.full((60, 5), np.nan)}, "300 NaN or infinite values in 5 of 5 columns"),
        ({"X": np.zeros(60)}, r"X must be \(rows, columns\)"),
        ({"Y": np.zeros((59, 4))}, r"got X \(60, 5\) and Y \(59, 4\): check the trimming"),
        ({"Y": np.zeros(60)}, r"Y must be an array \(rows, voxels\) of numbers, got an? .* of shape \(60,\)"),
        ({"Y": [[1.0] * 4] * 60}, "Y must be an array .* got a list"),
        ({"alphas": [1.0, 0.0]}, "alphas must be a list of positive numbers"),
        ({"alphas": []}, "alphas must be a list of positive numbers"),
        ({"folds": []}, "folds is empty"),
        ({"folds": [(np.arange(50), np.arange(55, 65))]}, "Fold 0: test rows must be within 0..59"),
        (
            {"folds": [FOLDS[0], (np.arange(50), np.arange(49, 60))]},
            "Fold 1 scores 1 rows that it also trains on",
        ),
        ({"folds": [(np.arange(50), np.array([55]))]}, "test must be a 1-D array of at least 2"),
        ({"folds": [(np.zeros(5, int), np.arange(5, 9))]}, "Fold 0: train names 4 rows twice"),
        ({"X_test": np.zeros((9, 4))}, "X_test must have the 5 columns of X"),
        ({"Y_test": np.zeros((9, 4))}, "Y_test needs X_test"),
        (
            {"X_test": np.zeros((9, 5)), "Y_test": np.zeros((8, 4))},
            "X_test and Y_test must have the same rows",
        ),
        ({"X_test": np.zeros((9, 5)), "Y_test": np.zeros((9, 3))}, "Y_test must have the 4 voxels of Y"),
        ({"on_nan": "zero"}, "on_nan must be one of raise, skip; got 'zero'"),
        ({"dtype": np.int32}, "dtype must be float32 or float64"),
        ({"device": "gpu"}, 'device must be "cpu" or "cuda"'),
        ({"X": [["a"] * 5] * 60}, "X must be numbers, got others"),
        ({"Y": pd.DataFrame(np.zeros((60, 4)))}, r"must be an array .* got a table: pass Y.to_numpy"),
        ({"Y": np.full((60, 4), "a")}, "Y must be an array .* of numbers, got dtype <U1"),
        ({"Y": np.full((60, 4), None)}, "Y must be an array .* of numbers, got dtype object"),
        (
            {"X_test": np.zeros((9, 5)), "Y_test": np.full((9, 4), "a")},
            "Y_test must be an array .* of numbers, got dtype <U1",
        ),
        ({"alphas": ["a"]}, "alphas must be numbers, got others .*'a'"),
        ({"folds": 5}, "folds must be pairs of .* got 5: use make_folds"),
        ({"tile": 0}, "tile must be a whole number of 1 or more, got 0"),
        ({"tile": "a"}, "tile must be a whole number of 1 or more, got 'a'"),
        ({"tile": 2.5}, "tile must be a whole number of 1 or more, got 2.5"),
        ({"prediction_floor": "a"}, "prediction_floor must be 0 or more, got 'a'"),
        ({"prediction_floor": -1.0}, "prediction_floor must be 0 or more"),
    ],
)
def test_bad_input_is_refused_before_any_step(change, message):
    rng = np.random.default_rng(0)
    inputs = {"X": rng.standard_normal((60, 5)), "Y": rng.standard_normal((60, 4)), "alphas": [1.0]}
    inputs |= {"folds": FOLDS} | change
    with pytest.raises(ValueError, match=message):
        cv.ridge_cv(inputs.pop("X"), inputs.pop("Y"), progress=no_step, **inputs)


# --- nested cross-validation -----------------------------------------------------------------------------


def test_nested_cv_equals_a_loop_over_scikit_learn():
    X, Y, *_ = make_data(90, 30, v=5)
    X, Y = 3 * X + 1, 2 * Y + 7
    stories = np.repeat(["a", "b", "c"], 30)
    outer = the_folds.make_folds(90, folding_type="group", n_folds=3, groups=stories)
    alphas = np.logspace(0, 3, 4)
    result = cv.nested_cv(
        X,
        Y,
        alphas=alphas,
        outer_folds=outer,
        folding_type="kfold",
        n_inner_folds=3,
        standardize_X=True,
        standardize_Y=True,
        return_weights=True,
    )
    coefficients = []
    for number, (train, test) in enumerate(outer):
        mean_x, sd_x, mean_y, sd_y = X[train].mean(0), X[train].std(0), Y[train].mean(0), Y[train].std(0)
        A, B, C = (X[train] - mean_x) / sd_x, (Y[train] - mean_y) / sd_y, (X[test] - mean_x) / sd_x
        scores = brute_scores(A, B, alphas, the_folds.make_folds(60, folding_type="kfold", n_folds=3))
        best = alphas[scores.argmax(0)]
        np.testing.assert_array_equal(result.fold_alphas[number], best)
        model = Ridge(alpha=best, fit_intercept=False).fit(A, B)
        predicted = model.predict(C)
        np.testing.assert_allclose(result.predictions[test], predicted * sd_y + mean_y, atol=1e-4)
        r = [np.corrcoef(p, y)[0, 1] for p, y in zip(predicted.T, Y[test].T, strict=True)]
        np.testing.assert_allclose(result.fold_correlations[number], r, atol=1e-5)
        coefficients.append(model.coef_.T)
    np.testing.assert_allclose(result.correlations, result.fold_correlations.mean(0))
    np.testing.assert_allclose(result.weights, np.mean(coefficients, axis=0), atol=1e-5)


def test_nested_cv_never_sees_the_held_out_rows():
    X, Y, *_ = make_data(80, 20, v=4)
    outer = the_folds.make_folds(80, folding_type="kfold", n_folds=4)
    options = {"alphas": np.logspace(0, 3, 4), "outer_folds": outer, "chunk_length": 10}
    options |= {"n_inner_folds": 3, "standardize_X": True, "standardize_Y": True}
    before = cv.nested_cv(X, Y, **options)
    changed = Y.copy()
    changed[outer[2].test] = 100 * np.random.default_rng(9).standard_normal((len(outer[2].test), 4))
    after = cv.nested_cv(X, changed, **options)
    np.testing.assert_array_equal(after.predictions[outer[2].test], before.predictions[outer[2].test])
    assert not np.allclose(after.predictions[outer[0].test], before.predictions[outer[0].test])


def test_nested_cv_with_inner_groups_trimmed_outer_and_constant_voxels():
    X, Y, *_ = make_data(80, 20, v=4)
    Y[:, 1] = 3.7
    stories = np.repeat(np.arange(4), 20)
    outer = the_folds.make_folds(80, folding_type="kfold_trimmed", n_folds=4, trim_size=3)
    seen = []
    result = cv.nested_cv(
        X,
        Y,
        alphas=[1.0, 10.0],
        outer_folds=outer,
        groups=stories,
        folding_type="group",
        n_inner_folds=3,
        standardize_Y=True,
        progress=lambda done, total: seen.append(done / total),
    )
    np.testing.assert_array_equal(result.constant_voxels, [1])
    assert np.isnan(result.fold_correlations[:, 1]).all() and np.isnan(result.correlations[1])
    unscored = np.flatnonzero(np.isnan(result.predictions[:, 0]))
    np.testing.assert_array_equal(
        unscored, np.setdiff1d(np.arange(80), np.concatenate([f.test for f in outer]))
    )
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_nested_cv_takes_given_inner_folds_and_refuses_wrong_groups():
    X, Y, *_ = make_data(60, 20, v=3)
    outer = the_folds.make_folds(60, folding_type="kfold", n_folds=3)

    def inner(train):
        return the_folds.make_folds(len(train), folding_type="kfold", n_folds=2)

    given_folds = cv.nested_cv(X, Y, alphas=[1.0, 9.0], outer_folds=outer, inner_folds=inner)
    made = cv.nested_cv(X, Y, alphas=[1.0, 9.0], outer_folds=outer, folding_type="kfold", n_inner_folds=2)
    np.testing.assert_array_equal(given_folds.fold_alphas, made.fold_alphas)
    with pytest.raises(ValueError, match="groups must hold one label per row"):
        cv.nested_cv(X, Y, alphas=[1.0], outer_folds=outer, groups=[1, 2], progress=no_step)


def test_nested_cv_takes_a_list_of_inner_folds_for_each_outer_fold():
    X, Y, *_ = make_data(60, 20, v=3)
    outer = the_folds.make_folds(60, folding_type="kfold", n_folds=3)
    options = {"alphas": [1.0, 9.0, 90.0], "outer_folds": outer}
    inner = [
        the_folds.make_folds(40, folding_type="kfold", n_folds=2 + number, seed=number) for number in range(3)
    ]
    found = cv.nested_cv(X, Y, inner_folds=inner, **options)
    remaining = iter(inner)
    by_function = cv.nested_cv(X, Y, inner_folds=lambda train: next(remaining), **options)
    np.testing.assert_array_equal(found.predictions, by_function.predictions)
    for number, (fold, folds) in enumerate(zip(outer, inner, strict=True)):
        alone = cv.ridge_cv(
            X[fold.train], Y[fold.train], X_test=X[fold.test], alphas=options["alphas"], folds=folds
        )
        np.testing.assert_array_equal(found.fold_alphas[number], alone.best_alphas)
        np.testing.assert_array_equal(found.predictions[fold.test], alone.predictions)
    for wrong, got in (
        (inner[:2], "got a list of 2"),
        ([*inner, inner[0]], "got a list of 4"),
        (5, "got 5"),
        ("kfold", "got 'kfold'"),
    ):
        with pytest.raises(ValueError, match=f"for each of the 3 outer folds, {got}"):
            cv.nested_cv(X, Y, inner_folds=wrong, progress=no_step, **options)
    with pytest.raises(ValueError, match=r"Fold 0: train rows must be within 0\.\.39"):
        cv.nested_cv(X, Y, inner_folds=[*inner[:2], outer], progress=no_step, **options)


@pytest.mark.parametrize("name", ["weights_path", "X_test", "folds", "return_all_scores"])
def test_nested_cv_refuses_options_of_one_fit(name):
    X, Y, *_ = make_data(60, 20, v=3)
    outer = the_folds.make_folds(60, folding_type="kfold", n_folds=3)
    with pytest.raises(ValueError, match=f"so it does not take {name}: leave it out"):
        cv.nested_cv(X, Y, alphas=[1.0], outer_folds=outer, progress=no_step, **{name: "w.npy"})


def test_nested_cv_without_predictions():
    X, Y, *_ = make_data(60, 20, v=3)
    options = {"alphas": [1.0, 9.0], "folding_type": "kfold"}
    options |= {"outer_folds": the_folds.make_folds(60, folding_type="kfold", n_folds=3)}
    found = cv.nested_cv(X, Y, return_predictions=False, **options)
    assert found.predictions is None
    np.testing.assert_array_equal(found.fold_correlations, cv.nested_cv(X, Y, **options).fold_correlations)


def test_nested_cv_refuses_before_any_fitting(monkeypatch):
    X, Y, *_ = make_data(60, 20, v=3)
    monkeypatch.setattr(cv, "solve", lambda *_, **__: pytest.fail("something was fitted"))
    outer = the_folds.make_folds(60, folding_type="kfold", n_folds=3)
    for change, message in (
        ({"alphas": [-1.0]}, "alphas must be"),
        ({"alphas": [1.0], "on_nan": "zero"}, "on_nan must be"),
        ({"alphas": [1.0], "dtype": np.int32}, "dtype must be"),
        ({"alphas": [1.0], "tile": 0}, "tile must be"),
        ({"alphas": [1.0], "device": "gpu"}, "device must be"),
        ({"alphas": [1.0], "inner_folds": lambda rows: 3}, "folds must be pairs of .* got 3"),
        ({"alphas": [1.0], "n_inner_folds": 30}, "30 folds need at least 60 rows, got 40"),
        ({"alphas": [1.0], "inner_folds": lambda rows: [([0, 1], [1, 2])]}, "trains on"),
    ):
        with pytest.raises(ValueError, match=message):
            cv.nested_cv(X, Y, outer_folds=outer, folding_type="kfold", progress=no_step, **change)
    with pytest.raises(TypeError, match="single_alfa"):
        cv.nested_cv(X, Y, outer_folds=outer, alphas=[1.0], single_alfa=True, progress=no_step)
    Y[outer[0].test[3], 1] = np.nan  # the first fold does not train on it
    with pytest.raises(ValueError, match=r"Y must be finite, got 1 NaN .* first 1, and 1 rows, first 3"):
        cv.nested_cv(X, Y, alphas=[1.0], outer_folds=outer, folding_type="kfold")


def test_nested_cv_reports_voxels_that_held_out_rows_or_inner_folds_cannot_score():
    X, Y, *_ = make_data(60, 20, v=4)
    outer = the_folds.make_folds(60, folding_type="kfold", n_folds=3)
    Y[outer[1].test, 2] = 0.5
    Y[5, 3] = np.nan
    found = cv.nested_cv(X, Y, alphas=[1.0], outer_folds=outer, folding_type="kfold", on_nan="skip")
    np.testing.assert_array_equal(found.constant_test_voxels, [2])
    np.testing.assert_array_equal(found.skipped_voxels, [3])
    assert len(found.unscored_voxels) == 0 and len(found.constant_voxels) == 0
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found.fold_correlations[1])), [2, 3])


# --- folds -----------------------------------------------------------------------------------------------

PARTITIONS = ["chunked", "chunked_contiguous", "kfold", "group"]
TRIMMED = ["chunked_trimmed", "kfold_trimmed"]


@settings(max_examples=60, deadline=None)
@given(
    folding_type=st.sampled_from(PARTITIONS + TRIMMED + ["timeseries"]),
    n_folds=st.integers(2, 6),
    chunk_length=st.integers(7, 12),
    trim_size=st.integers(0, 2),
    extra=st.integers(0, 60),
    seed=st.integers(0, 5),
)
def test_folds_use_every_row_and_never_score_what_they_train_on(
    folding_type, n_folds, chunk_length, trim_size, extra, seed
):
    n_rows = n_folds * chunk_length * 2 + extra
    groups = np.arange(n_rows) // chunk_length if folding_type == "group" else None
    folds = the_folds.make_folds(
        n_rows,
        folding_type=folding_type,
        n_folds=n_folds,
        chunk_length=chunk_length,
        trim_size=trim_size,
        groups=groups,
        seed=seed,
    )
    assert len(folds) == n_folds
    assert all(len(np.intersect1d(*fold)) == 0 for fold in folds)
    scored = np.concatenate([fold.test for fold in folds])
    assert len(np.unique(scored)) == len(scored)
    trained = np.unique(np.concatenate([fold.train for fold in folds]))
    if folding_type == "timeseries":
        assert all(fold.train.max() < fold.test.min() for fold in folds)
        assert len(np.union1d(trained, scored)) == n_rows
        return
    np.testing.assert_array_equal(trained, np.arange(n_rows))
    if folding_type in PARTITIONS or trim_size == 0:
        np.testing.assert_array_equal(np.sort(scored), np.arange(n_rows))
    if folding_type == "kfold_trimmed":
        for fold in folds:
            gap = np.abs(fold.test[:, None] - fold.train).min()
            assert gap == trim_size + 1 or len(fold.train) == 0
    if folding_type == "chunked_trimmed":
        inside = scored % chunk_length
        length = np.minimum(chunk_length, n_rows - scored // chunk_length * chunk_length)
        assert ((inside >= trim_size) & (inside < length - trim_size)).all()


def test_chunks_stay_together_and_the_seed_decides():
    folds = the_folds.make_folds(107, folding_type="chunked", n_folds=3, chunk_length=10)
    for fold in folds:
        chunks = np.unique(fold.test // 10)
        np.testing.assert_array_equal(fold.test, [r for r in range(107) if r // 10 in chunks])
    again = the_folds.make_folds(107, folding_type="chunked", n_folds=3, chunk_length=10)
    other = the_folds.make_folds(107, folding_type="chunked", n_folds=3, chunk_length=10, seed=1)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(folds, again, strict=True))
    assert not all(np.array_equal(a.test, b.test) for a, b in zip(folds, other, strict=True))


def test_chunks_start_anew_with_each_story():
    stories = np.repeat(["a", "b"], [25, 35])
    folds = the_folds.make_folds(
        60, folding_type="chunked_contiguous", n_folds=3, chunk_length=10, groups=stories
    )
    starts = [0, 10, 20, 25, 35, 45, 55]
    np.testing.assert_array_equal(folds[0].test, np.arange(starts[0], starts[3]))
    np.testing.assert_array_equal(folds[1].test, np.arange(starts[3], starts[5]))


def test_group_holds_out_whole_stories():
    stories = np.repeat(["a", "b", "c", "d"], [10, 20, 30, 15])
    for fold in the_folds.make_folds(75, folding_type="group", n_folds=3, groups=stories):
        assert not set(stories[fold.train]) & set(stories[fold.test])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folding_type": "chunk"}, "folding_type must be one of chunked, .* got 'chunk'"),
        ({"n_folds": 1}, "n_folds must be a whole number of 2 or more, got 1"),
        ({"n_rows": 7}, "5 folds need at least 10 rows, got 7"),
        ({"chunk_length": 30}, "100 rows make 4 chunks, too few for 5 folds"),
        ({"chunk_length": 0}, "chunk_length must be a whole number of 1 or more, got 0"),
        ({"folding_type": "chunked_trimmed", "trim_size": 10}, "Trimming leaves a fold with 0 rows"),
        ({"folding_type": "kfold_trimmed", "trim_size": 10}, "Trimming leaves a fold with 0 rows"),
        (
            {"folding_type": "kfold_trimmed", "trim_size": -1},
            "trim_size must be a whole number of 0 or more, got -1",
        ),
        ({"folding_type": "group"}, "needs groups"),
        ({"folding_type": "group", "groups": np.zeros(100)}, "1 groups are too few for 5 folds"),
        ({"groups": [1, 2]}, "one label per row"),
    ],
)
def test_impossible_folds_are_refused(options, message):
    options = {"n_rows": 100} | options
    with pytest.raises(ValueError, match=message):
        the_folds.make_folds(options.pop("n_rows"), **options)


def test_the_seed_of_nested_cv_decides_its_inner_folds():
    X, Y, *_ = make_data(120, 4, v=60)
    outer = the_folds.make_folds(120, folding_type="kfold", n_folds=3)

    def alphas(**inner):
        return cv.nested_cv(X, Y, alphas=np.logspace(0, 4, 9), outer_folds=outer, **inner).fold_alphas

    of_fold = {"n_folds": 4, "chunk_length": 7, "seed": 5}
    given = alphas(inner_folds=lambda rows: the_folds.make_folds(len(rows), **of_fold))
    np.testing.assert_array_equal(alphas(n_inner_folds=4, chunk_length=7, seed=5), given)
    assert (alphas(n_inner_folds=4, chunk_length=7, seed=6) != given).any()


def test_nested_z_scores_are_those_of_each_fold_and_group():
    """Each group by the rows that a fold trains on; a group of which it trains on nothing by its own rows."""
    rng = np.random.default_rng(5)
    groups = np.repeat([0, 1, 2], [40, 30, 30])
    X, Y = rng.normal(size=(100, 6)) + groups[:, None], rng.normal(size=(100, 5)) * (1 + groups[:, None]) + 7
    outer = [(np.r_[0:30, 40:70], np.r_[30:40, 70:100]), (np.r_[20:100], np.r_[0:20])]
    options = {"alphas": [1.0, 100.0], "folding_type": "kfold", "n_inner_folds": 3, "dtype": np.float64}
    found = cv.nested_cv(
        X, Y, outer_folds=outer, groups=groups, standardize_X=True, standardize_Y=True, **options
    )
    for number, (train, test) in enumerate(outer):
        A, B = np.empty(X.shape), np.empty(Y.shape)
        mean, sd = np.empty(Y.shape), np.empty(Y.shape)
        for group in range(3):
            rows = np.flatnonzero(groups == group)
            own = np.intersect1d(rows, train)
            own = own if len(own) else rows
            A[rows] = (X[rows] - X[own].mean(axis=0)) / X[own].std(axis=0)
            mean[rows], sd[rows] = Y[own].mean(axis=0), Y[own].std(axis=0)
            B[rows] = (Y[rows] - mean[rows]) / sd[rows]
        inner = the_folds.make_folds(len(train), folding_type="kfold", n_folds=3)
        alone = cv.ridge_cv(
            A[train],
            B[train],
            X_test=A[test],
            Y_test=B[test],
            folds=inner,
            alphas=[1.0, 100.0],
            dtype=np.float64,
        )
        np.testing.assert_allclose(found.fold_correlations[number], alone.correlations, atol=1e-10)
        if number == 1:  # in the units of Y
            np.testing.assert_allclose(
                found.predictions[test], alone.predictions * sd[test] + mean[test], atol=1e-9
            )
    centred = cv.nested_cv(X, Y, outer_folds=outer, groups=groups, standardize_X="center", **options)
    for number, (train, test) in enumerate(outer):
        A = np.empty(X.shape)
        for group in range(3):
            rows = np.flatnonzero(groups == group)
            own = np.intersect1d(rows, train)
            A[rows] = X[rows] - X[own if len(own) else rows].mean(axis=0)
        inner = the_folds.make_folds(len(train), folding_type="kfold", n_folds=3)
        alone = cv.ridge_cv(
            A[train],
            Y[train],
            X_test=A[test],
            Y_test=Y[test],
            folds=inner,
            alphas=[1.0, 100.0],
            dtype=np.float64,
        )
        np.testing.assert_allclose(centred.fold_correlations[number], alone.correlations, atol=1e-10)
