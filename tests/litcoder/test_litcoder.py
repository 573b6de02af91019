"""LITcoder's names: the tutorial's five steps give LITcoder's numbers, and what cannot be is said before a fit."""

import inspect
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from joblib import Memory
from scipy.stats import t

from encoding_nb import ridge
from encoding_nb.assembly import Assembly, Story, Words
from encoding_nb.litcoder import (
    FIR,
    AbstractTrainer,
    Downsampler,
    FeatureExtractorFactory,
    LitcoderAssembly,
    NestedCVModel,
    load_assembly,
)
from encoding_nb.records import list_runs, load_description, load_run, loggers
from encoding_nb.settings import SettingsError

from ..made_lebel import make_lebel

GOLDEN = Path(__file__).parents[1] / "golden"
PICKLE = GOLDEN / "assembly_lebel_fullcontext.pkl"
LESSON = Path(__file__).resolve().parents[2] / "notebooks" / "06_litcoder_tutorial.ipynb"
TINY = str(GOLDEN / "hf" / "tiny-gpt2")
STORIES = ["storya", "storyb", "storyc", "storyd", "storyz_test"]
TRIMMING = {
    "train_features_start": 10, "train_features_end": -5, "train_targets_start": 0, "train_targets_end": None,
    "test_features_start": 50, "test_features_end": -5, "test_targets_start": 40, "test_targets_end": None,
}  # fmt: skip
LANCZOS = {"method": "lanczos", "window": 3, "cutoff_mult": 1.0}
CONSTANT = [0, 1, 2]  # voxels without variance, whose alpha is anybody's


def make_story(name):
    stimuli = np.load(GOLDEN / "stimuli.npz")
    times = stimuli[f"{name}/data_times"]
    return Story(
        name,
        Words(stimuli[f"{name}/words"].tolist(), times, times),
        stimuli[f"{name}/tr_times"],
        stimuli[f"{name}/brain_data"],
        contexts={"fullcontext": tuple(stimuli[f"{name}/stimuli_fullcontext"].tolist())},
    )


@pytest.fixture(scope="module")
def plain():
    """The golden stories as an Assembly that names no test story."""
    return Assembly("UTS99", 2.0, {name: make_story(name) for name in STORIES})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache_language_model")


@pytest.fixture(scope="module")
def golden():
    def read(run):
        arrays = np.load(GOLDEN / f"run_tt_{run}.npz")
        folds = [(arrays[f"folds/0/{i}/train"], arrays[f"folds/0/{i}/test"]) for i in range(5)]
        return arrays, json.loads((GOLDEN / f"run_tt_{run}_metrics.json").read_text()), folds

    return read


def extractor(modality="language_model", cache_dir=None, **config):
    return FeatureExtractorFactory.create_extractor(
        modality=modality, model_name=TINY, config=config, cache_dir=cache_dir
    )


def trainer(assembly, *extractors, **changes):
    arguments = {
        "assembly": assembly,
        "feature_extractors": list(extractors) or [extractor("wordrate")],
        "downsampler": Downsampler(),
        "model": NestedCVModel(model_name="ridge_regression"),
        "fir_delays": [1, 2, 3, 4],
        "trimming_config": TRIMMING,
        "use_train_test_split": True,
        "progress": False,
    }
    return AbstractTrainer(**{**arguments, **changes})


def pearson_pvalue(r, n):
    """Two-sided, by Student's t with n - 2 degrees of freedom."""
    return 2 * t.sf(np.abs(r) * np.sqrt((n - 2) / (1 - r**2)), n - 2)


def assert_golden(metrics, expected, tolerance):
    assert set(metrics) == set(expected) | {"n_undefined"}
    assert metrics["n_undefined"] == len(CONSTANT)
    for name in set(expected) - {"best_alphas"}:
        np.testing.assert_allclose(
            np.asarray(metrics[name], float), np.asarray(expected[name], float), atol=tolerance, err_msg=name
        )
    alphas = [np.delete(np.asarray(found["best_alphas"]), CONSTANT) for found in (metrics, expected)]
    np.testing.assert_allclose(*alphas, rtol=1e-6)


# --- the tutorial -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*no variance:UserWarning")
def test_the_tutorial_gives_the_golden_metrics(golden, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, expected, folds = golden("default_rect")
    # 1. load the assembly
    assembly = load_assembly(str(PICKLE))
    # 2. create a feature extractor
    extractor = FeatureExtractorFactory.create_extractor(
        modality="language_model",
        model_name=TINY,
        config={
            "model_name": TINY,
            "layer_idx": 2,
            "last_token": True,
            "lookback": 256,
            "context_type": "fullcontext",
        },
        cache_dir=cache,
    )
    # 3. downsampler and model
    downsampler = Downsampler()
    model = NestedCVModel(model_name="ridge_regression")
    # 4. parameters
    fir_delays = [1, 2, 3, 4]
    downsample_config = {}
    # 5. train; the golden run drew its folds at random, so they are handed in
    with pytest.warns(UserWarning, match="windows stored with the data are read"):
        trainer = AbstractTrainer(
            assembly=assembly,
            feature_extractors=[extractor],
            downsampler=downsampler,
            model=model,
            fir_delays=fir_delays,
            trimming_config=TRIMMING,
            use_train_test_split=True,
            logger_backend="tensorboard",
            wandb_project_name="lebel-language-model",
            dataset_type="lebel",
            results_dir="results",
            layer_idx=2,
            lookback=256,
            downsample_config=downsample_config,
        )
    metrics = trainer.train(folds=folds)
    assert_golden(metrics, expected, 1e-5)
    assert (
        f"Median correlation: {metrics.get('median_score', float('nan')):.4f}" == "Median correlation: 0.1310"
    )
    # every run leaves a record, and the log beside it
    runs = list_runs("results")
    assert list(runs["status"]) == ["whole"] and runs["path"][0] == str(trainer.record)
    np.testing.assert_array_equal(load_run(trainer.record).scores, trainer.result.scores)
    extra = load_description(trainer.record)["Extra"]
    assert extra["litcoder"]["dataset_type"] == "lebel" and extra["given_folds"]
    assert extra["litcoder"]["metrics"]["median_score"] == metrics["median_score"]
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = events.EventAccumulator(str(Path("results/runs") / trainer.record.name))
    log.Reload()
    assert log.Scalars("median_correlation")[0].value == pytest.approx(expected["median_score"], abs=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("run", "config", "options"),
    [
        ("default_lanczos", LANCZOS, {}),
        ("default_lanczos_single_alpha", LANCZOS, {"single_alpha": True}),
        ("wordrate", {}, {}),
    ],
)
def test_the_other_golden_runs(plain, golden, cache, tmp_path, run, config, options):
    _, expected, folds = golden(run)
    space = extractor("wordrate") if run == "wordrate" else extractor(cache_dir=cache, layer_idx=2)
    made = trainer(plain, space, downsample_config=config, results_dir=tmp_path)
    assert_golden(made.train(folds=folds, **options), expected, 1e-5)


@pytest.mark.filterwarnings("ignore:.*no variance:UserWarning")
def test_folds_of_its_own_give_the_strong_voxels_alike(plain, golden, tmp_path):
    _, expected, _ = golden("wordrate")
    found = trainer(plain, results_dir=tmp_path).train()
    strong = np.asarray(expected["p_values"]) < 1e-6
    np.testing.assert_allclose(
        np.asarray(found["correlations"])[strong], np.asarray(expected["correlations"])[strong], atol=0.05
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data", ["a pickle", "ds003020 without its pycortex-db"])
def test_the_lesson_runs_on_other_data_by_changing_one_line(data, tmp_path, activation_folder, monkeypatch):
    import matplotlib.pyplot as plt

    source = repr(str(PICKLE))
    if data != "a pickle":
        folder = make_lebel(tmp_path / "ds003020")
        shutil.rmtree(folder / "derivative" / "pycortex-db")
        source = f"{str(folder)!r}, subject='UTS03'"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENCODING_NB_CACHE", str(activation_folder))
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = [line for cell in code for line in cell.splitlines() if 'load_assembly("demo")' in line]
    assert lines == ['assembly = load_assembly("demo")']
    names = {}
    for cell in code:
        exec(cell.replace(lines[0], f"assembly = load_assembly({source})"), names)
    plt.close("all")
    assert names["trainer"].result.surface is None and not names["data"].simulated
    assert list(list_runs("results")["name"]) == ["language model", "word rate"]


def with_boundaries(assembly, **changes):
    """The golden stories with the TR boundaries that LITcoder stored."""
    stimuli = np.load(GOLDEN / "stimuli.npz")
    return replace(
        assembly,
        stories={
            name: replace(s, extras={"split_indices": changes.get(name, stimuli[f"{name}/split_indices"])})
            for name, s in assembly.stories.items()
        },
    )


@pytest.mark.filterwarnings(
    "ignore:.*no variance:UserWarning", "ignore:.*windows stored with the data:UserWarning"
)
@pytest.mark.parametrize("method", ["legacy_average", "legacy_sum", "legacy_last"])
def test_legacy_methods_go_by_the_stored_boundaries(plain, golden, cache, tmp_path, method):
    """Against the matrices made by hand of LITcoder's own legacy samples, fitted by the golden fit's model."""
    _, _, folds = golden("default_rect")
    sampled, rows = np.load(GOLDEN / "downsampled.npz"), {}
    for name, story in plain.stories.items():
        found = sampled[f"{name}/{method}_bounds"]
        whole = np.zeros(
            (story.n_trs, found.shape[1])
        )  # LITcoder leaves out the last TRs, which have no words
        whole[: len(found)] = found
        test = name == "storyz_test"
        X = FIR.make_delayed(whole, [1, 2, 3, 4])[50 if test else 10 : -5]
        Y = np.asarray(story.bold, dtype=float)[40 if test else 0 :]
        rows[name] = [(a - a.mean(0)) / np.where(np.ptp(a, axis=0) > 0, a.std(0), np.inf) for a in (X, Y)]
    X, Y = (np.vstack([rows[name][i] for name in STORIES[:-1]]) for i in (0, 1))
    expected, _, _ = NestedCVModel().fit_predict(X, Y, *rows["storyz_test"], folds=folds)
    made = trainer(
        with_boundaries(plain), extractor(cache_dir=cache), layer_idx=2, lookback=32, results_dir=tmp_path,
        downsample_config={"method": method},
    )  # fmt: skip
    metrics = made.train(folds=folds)
    np.testing.assert_allclose(metrics["correlations"], expected["correlations"], atol=1e-4)
    assert load_description(made.record)["Extra"]["litcoder"]["stored_tr_boundaries"]


def test_legacy_methods_without_boundaries_say_so_and_with_wrong_ones_are_refused(plain):
    config = {"downsample_config": {"method": "legacy_sum"}}
    with pytest.warns(UserWarning, match="legacy_sum uses the TR boundaries .* storya, .* came without"):
        assert trainer(plain, **config).settings.downsample_method == "sum"
    with pytest.raises(ValueError, match=r"storyb: .* expected 97 split indices .* got \(3,\)"):
        trainer(with_boundaries(plain, storyb=[1, 2, 3]), **config)
    with pytest.raises(ValueError, match="storyb"):
        trainer(with_boundaries(plain, storyb=np.arange(97)[::-1]), **config)


@pytest.mark.filterwarnings(
    "ignore:.*no variance:UserWarning", "ignore:.*windows stored with the data:UserWarning"
)
def test_embeddings_of_a_model_and_of_a_file(plain, cache, tmp_path):
    """A model's input embedding is what `token_embeddings` gives; written to a file, the file gives the same fit."""
    words = sorted({word for story in plain.stories.values() for word in story.words.text if word.strip()})
    vectors = extractor("embeddings").extract_features(words)
    file = tmp_path / "vectors.txt"
    plain_words = [(w, v) for w, v in zip(words, vectors, strict=True) if " " not in w]
    file.write_text("\n".join(f"{w} {' '.join(f'{x:.8g}' for x in v)}" for w, v in plain_words))
    of_model = trainer(plain, extractor("embeddings"), results_dir=tmp_path)
    assert (of_model.settings.model_name, of_model.settings.embedding) == (TINY, None)
    by_path = extractor("embeddings", vector_path=str(file), binary=False, no_header=True)
    by_name = FeatureExtractorFactory.create_extractor("embeddings", str(file))
    of_file = [trainer(plain, space, results_dir=tmp_path) for space in (by_path, by_name)]
    assert {made.settings.embedding for made in of_file} == {str(file)}
    first = of_model.train()["correlations"]
    with pytest.warns(UserWarning, match=r"words are not in vectors.txt and are 0 \('new york'\)"):
        second = of_file[0].train()["correlations"]
    # "new york" is no word of the file, so the fits are close and not the same
    np.testing.assert_allclose(first, second, atol=0.1)
    both = trainer(plain, extractor(cache_dir=cache), extractor("embeddings"), layer_idx=2, lookback=32)
    assert both.settings.model_name == TINY and both.settings.joined_with == ("embeddings",)
    other = FeatureExtractorFactory.create_extractor("embeddings", "demo")
    with pytest.raises(ValueError, match="expected one model for the language model and the embeddings, got"):
        trainer(plain, extractor(), other)


# --- the model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["default_rect", "default_lanczos"])
def test_fit_predict_gives_the_golden_fit(golden, run):
    arrays, expected, folds = golden(run)
    metrics, weights, alphas = NestedCVModel("ridge_regression").fit_predict(
        features=arrays["X_train"], targets=arrays["Y_train"], X_test=arrays["X_test"], y_test=arrays["Y_test"],
        folds=folds,
    )  # fmt: skip
    assert_golden(metrics, expected, 1e-5)
    np.testing.assert_allclose(alphas[3:], arrays["best_alphas"][3:], rtol=1e-6)
    if "weights" in arrays:
        np.testing.assert_allclose(weights[:, 3:], arrays["weights"][:, 3:], atol=1e-5)


def test_fit_predict_has_litcoders_arguments():
    names = list(inspect.signature(NestedCVModel.fit_predict).parameters)
    assert names[1:19] == [
        "features", "targets", "X_test", "y_test", "groups", "folding_type", "n_outer_folds", "n_inner_folds",
        "chunk_length", "alphas", "alpha_fdr", "use_gpu", "single_alpha", "normalpha", "use_corr",
        "normalize_features", "normalize_targets", "singcutoff",
    ]  # fmt: skip


def test_alphas_are_litcoders():
    """Without normalpha the weights are V diag(s / (s^2 + a^2)) U'y, by numpy's SVD."""
    rng = np.random.default_rng(0)
    X, X_test = rng.standard_normal((80, 6)), rng.standard_normal((20, 6))
    W = rng.standard_normal((6, 3))
    Y, Y_test = X @ W + rng.standard_normal((80, 3)), X_test @ W
    options = {"alphas": [3.0], "chunk_length": 8}
    _, weights, alphas = NestedCVModel().fit_predict(X, Y, X_test, Y_test, normalpha=False, **options)
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    np.testing.assert_allclose(alphas, 3.0)
    np.testing.assert_allclose(weights, Vt.T @ ((s / (s**2 + 9))[:, None] * (U.T @ Y)), atol=1e-5)
    # z-scored by the training rows' own mean and deviation, both are what they would be by hand
    scaled = NestedCVModel().fit_predict(
        5 * X + 2,
        Y - 4,
        5 * X_test + 2,
        Y_test - 4,
        normalize_features=True,
        normalize_targets=True,
        **options,
    )[0]
    z = (X - X.mean(0)) / X.std(0)
    z_test, Z, Z_test = (
        (X_test - X.mean(0)) / X.std(0),
        (Y - Y.mean(0)) / Y.std(0),
        (Y_test - Y.mean(0)) / Y.std(0),
    )
    by_hand = NestedCVModel().fit_predict(z, Z, z_test, Z_test, **options)[0]
    np.testing.assert_allclose(scaled["correlations"], by_hand["correlations"], atol=1e-6)


def test_cross_validation_averages_the_outer_folds():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((200, 5))
    Y = np.column_stack([X @ rng.standard_normal((5, 3)), rng.standard_normal((200, 3)), np.ones(200)])
    options = {"folding_type": "kfold", "n_outer_folds": 4, "n_inner_folds": 3, "alphas": [0.1, 1.0]}
    metrics, weights, alphas = NestedCVModel().fit_predict(X, Y, **options)
    outer = ridge.make_folds(200, folding_type="kfold", n_folds=4)
    found = ridge.nested_cv(
        X, Y, outer_folds=outer, folding_type="kfold", n_inner_folds=3, normalpha=True,
        alphas=ridge.huth_alphas([0.1, 1.0]), prediction_floor=1e-8,
    )  # fmt: skip
    np.testing.assert_allclose(metrics["correlations"][:6], found.correlations[:6], atol=1e-6)
    assert metrics["correlations"][6] == 0 and metrics["p_values"][6] == 1 and metrics["n_undefined"] == 1
    assert metrics["significant_mask"] == metrics["majority_significant_mask"] == [True] * 3 + [False] * 4
    assert metrics["n_majority_significant"] == 3 and metrics[
        "percent_majority_significant"
    ] == pytest.approx(300 / 7)
    assert weights.shape == (5, 7) and set(np.round(alphas[:6], 6)) <= set(np.linspace(0.1, 1, 5).round(6))
    with pytest.raises(ValueError, match="folds number the rows of one training set"):
        NestedCVModel().fit_predict(X, Y, folds=outer)
    with pytest.raises(ValueError, match="together"):
        NestedCVModel().fit_predict(X, Y, X_test=X)


def test_cross_validation_z_scores_by_all_training_rows_whatever_the_groups():
    """LITcoder's normalize_features and normalize_targets know no stories; groups only make its folds."""
    rng = np.random.default_rng(2)
    groups = np.repeat([0, 1, 2, 3], 40)
    X = rng.standard_normal((160, 4)) * (1 + groups[:, None]) + groups[:, None]
    Y = X @ rng.standard_normal((4, 3)) + rng.standard_normal((160, 3))
    options = {"folding_type": "group", "n_outer_folds": 4, "n_inner_folds": 3, "alphas": [3.0]}
    options |= {"normalize_features": True, "normalize_targets": True, "groups": groups}
    found, _, _ = NestedCVModel().fit_predict(X, Y, normalpha=False, **options)
    by_hand = []
    for group in range(4):
        train, test = groups != group, groups == group
        z, Z = ((part[train] - part[train].mean(0)) / part[train].std(0) for part in (X, Y))
        W = np.linalg.solve(z.T @ z + 9 * np.eye(4), z.T @ Z)
        Z_hat = (X[test] - X[train].mean(0)) / X[train].std(0) @ W
        by_hand.append([np.corrcoef(Y[test, v], Z_hat[:, v])[0, 1] for v in range(3)])
    np.testing.assert_allclose(found["correlations"], np.mean(by_hand, axis=0), atol=1e-5)


def test_a_large_singcutoff_is_refused_and_a_small_one_changes_nothing(plain):
    with pytest.raises(ValueError, match="at most 1e-05"):
        NestedCVModel().fit_predict(np.eye(30), np.eye(30), singcutoff=0.1)
    with pytest.raises(ValueError, match=r"unknown model 'lasso'"):
        NestedCVModel("lasso")
    with pytest.raises(ValueError, match="at most 1e-05"):
        trainer(plain).train(singcutoff=1.0)


# --- downsampler and delays -------------------------------------------------------------------------------


@pytest.mark.parametrize("story", STORIES)
def test_downsampler_gives_the_golden_samples(story):
    features = np.load(GOLDEN / "features_tiny-gpt2_default_fullcontext_last.npz")[f"{story}/L2"]
    stimuli, sampled = np.load(GOLDEN / "stimuli.npz"), np.load(GOLDEN / "downsampled.npz")
    at = (features, stimuli[f"{story}/data_times"], stimuli[f"{story}/tr_times"])
    bounds, trs = stimuli[f"{story}/split_indices"], stimuli[f"{story}/word_tr_index"]
    downsampler = Downsampler()

    def close(found, name, rows=None):
        expected = sampled[f"{story}/{name}"]
        np.testing.assert_allclose(found[: len(expected)], expected, atol=2e-6)
        assert not found[len(expected) :].any() and len(found) == len(at[2])

    close(
        downsampler.downsample(*at, split_indices=bounds), "rect"
    )  # LITcoder's trainer always hands them in
    close(downsampler.downsample(*at, method="lanczos", window=3, cutoff_mult=1.0), "lanczos_w3_c1")
    for method in ("average", "sum", "last"):
        close(
            downsampler.downsample(*at, method=f"legacy_{method}", split_indices=bounds),
            f"legacy_{method}_bounds",
        )
        close(downsampler.downsample(*at, method=method, split_indices=trs), f"{method}_wordtr")
        # where LITcoder takes boundaries for TRs, "average" is what it says
        close(downsampler.downsample(*at, method=method, split_indices=bounds), f"legacy_{method}_bounds")


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40).map(sorted))
def test_average_by_each_words_tr_is_a_mean_per_tr(trs):
    data = np.arange(2.0 * len(trs)).reshape(-1, 2) ** 2
    tr_times = 2.0 * np.arange(10)
    assume(len(trs) != len(tr_times) - 1)  # as many words as boundaries could be either
    found = Downsampler().downsample(data, tr_times[trs], tr_times, method="average", split_indices=trs)
    expected = [data[np.equal(trs, i)].mean(axis=0) if i in trs else [0, 0] for i in range(10)]
    np.testing.assert_allclose(found, expected)


def test_downsampler_refuses_what_it_does_not_know():
    data, times, trs = np.ones((6, 2)), np.arange(6.0), np.array([0.0, 2.0, 4.0])
    down = Downsampler().downsample
    for options, message in [
        ({"method": "linear"}, "method must be one of .* sum, .* got 'linear'"),
        ({"method": "legacy_lanczos"}, "got 'legacy_lanczos'"),
        ({"method": "sum", "split_indices": [1, 2, 3]}, r"expected 2 split indices .* got \(3,\)"),
        ({"method": "legacy_sum", "split_indices": [0] * 6}, r"expected 2 split indices .* got \(6,\)"),
        ({"method": "sum", "split_indices": [0, 0, 1, 1, 2, 3]}, "from 0 to 2"),
        ({"method": "sum", "split_indices": [1, 0, 1, 1, 2, 2]}, "backwards"),
    ]:
        with pytest.raises(ValueError, match=message):
            down(data, times, trs, **options)
    with pytest.raises(TypeError, match="'windo'"):
        down(data, times, trs, windo=3)
    assert {"gabor", "legacy_sum"} <= set(Downsampler().available_methods)


def test_fir_gives_the_golden_delays():
    sampled, delayed = np.load(GOLDEN / "downsampled.npz"), np.load(GOLDEN / "delayed.npz")
    X = sampled["storya/rect"]
    np.testing.assert_allclose(FIR.make_delayed(X, [1, 2, 3, 4]), delayed["storya/rect"], atol=1e-10)
    circular = FIR([-1, 0, 2], circpad=True).expand(X)
    np.testing.assert_allclose(circular, delayed["storya/rect_neg_circ"], atol=1e-10)
    with pytest.raises(ValueError, match=r"expected one or more whole numbers of TRs, got \[\]"):
        FIR().expand(X)


# --- the assembly -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["pickle", "plain"])
def view(request):
    if request.param == "pickle":
        return load_assembly(PICKLE)
    return LitcoderAssembly(Assembly("UTS99", 2.0, {name: make_story(name) for name in STORIES}))


def test_accessors(view):
    stimuli = np.load(GOLDEN / "stimuli.npz")
    assert view.stories == STORIES and list(view.story_data) == STORIES
    assert view.shape == (411, 80) == view.data.shape and len(view) == 411
    # the pickle says "outer"; the plain assembly names no test story
    assert view.get_validation_method() == ("outer" if view.assembly.test_stories else "inner")
    assert bool(view.assembly.test_stories) == bool(view.story_data["storya"].extras)
    for i, name in enumerate(STORIES):
        for accessor, key in [
            (view.get_words, "words"), (view.get_stimuli, "stimuli_fullcontext"), (view.get_data_times, "data_times"),
            (view.get_tr_times, "tr_times"), (view.get_word_rates, "word_rates"), (view.get_brain_data, "brain_data"),
        ]:  # fmt: skip
            np.testing.assert_array_equal(accessor()[i], stimuli[f"{name}/{key}"], err_msg=key)
        # LITcoder goes by the onsets of words, which its pickle does not hold: a word may fall on either side
        found = np.asarray(view.get_split_indices()[i])
        assert np.abs(found - stimuli[f"{name}/split_indices"]).max() <= 1
        data = view.story_data[name]
        np.testing.assert_array_equal(data.brain_data, view.get_brain_data()[i])
        assert data.stimuli == view.get_stimuli()[i] and data.words == view.get_words()[i]
        stored = "extras" in vars(data.story) and data.story.extras
        assert view.get_audio_path()[i] == (f"audio_files/{name}.wav" if stored else None)
        assert view.get_temporal_baseline(name) is None  # the golden assembly was made without one
    np.testing.assert_array_equal(view[70:153], stimuli["storyb/brain_data"])
    assert (
        "411" in repr(view)
        and "storya" in view._repr_html_()
        and "330 words" in repr(view.story_data["storya"])
    )
    with pytest.raises(ValueError, match="No story 'x'"):
        view.get_temporal_baseline("x")


def test_stored_split_indices_are_the_pickles():
    stimuli = np.load(GOLDEN / "stimuli.npz")
    for name, found in zip(STORIES, load_assembly(PICKLE).get_split_indices(), strict=True):
        assert found == stimuli[f"{name}/split_indices"].tolist()


def test_the_demo_has_the_accessors_too(demo):
    view = LitcoderAssembly(demo)
    assert view.get_validation_method() == "outer"
    assert view.get_stimuli() == view.get_words()
    for words, bounds, trs in zip(
        view.get_words(), view.get_split_indices(), view.get_tr_times(), strict=True
    ):
        assert len(bounds) == len(trs) - 1 and 0 <= bounds[0] <= bounds[-1] <= len(words)
    assert load_assembly("demo", stories=list(demo.stories)[:2]).stories == list(demo.stories)[:2]


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"modality": "embeddings", "lowercase": True},
            "lowercase can only be False .* as it is written, and then",
        ),
        ({"modality": "embeddings", "l2_normalize_tokens": True}, "as their file has them; leave it out"),
        ({"modality": "embeddings", "tokenizer_pattern": "x"}, "not split again"),
        (
            {"modality": "embeddings", "oov_handling": "copy_prev"},
            "can only be 'zero' here, got 'copy_prev': a word without",
        ),
        (
            {"modality": "embeddings", "vector_path": "v.txt", "binary": True},
            "binary=True but v.txt has no .bin",
        ),
        (
            {"modality": "embeddings", "vector_path": "v.bin", "binary": False},
            "binary=False but v.bin has a .bin",
        ),
        ({"hook_type": ["x"]}, "hook_type can only be"),
        (
            {"modality": "speech"},
            "Unknown modality 'speech'; this package has language_model, wordrate, embeddings",
        ),
        ({"layer": 3}, "unknown key 'layer'; .* model_name, layer_idx"),
        ({"model_name": "gpt2"}, "config names 'gpt2'"),
        ({"hook_type": "hook_mlp_out"}, "hook_type can only be 'hook_resid_pre'"),
        ({"modality": "wordrate", "layer_idx": 3}, "config of wordrate: unknown key 'layer_idx'"),
        ({"modality": "embeddings", "oov_handling": "skip"}, "oov_handling can only be 'zero'"),
    ],
)
def test_an_extractor_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        extractor(**arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trimming_config": {"train_feature_start": 10}},
            "trimming: unknown names train_feature_start; .* train_features_start",
        ),
        ({"trimming_config": {"features_start": 5}}, "say train_features_start"),
        (
            {"trimming_config": {**TRIMMING, "test_features_start": 103, "test_targets_start": 93}},
            "leaves no rows",
        ),
        ({"trimming_config": {}}, "different numbers of rows"),
        (
            {"downsample_config": {"rectify": True}},
            "downsample_config: unknown key 'rectify'",
        ),
        ({"downsample_config": {"windo": 3}}, "downsample_config: unknown key 'windo'"),
        ({"downsample_config": {"method": "linear"}}, "downsample_method must be one of .* got 'linear'"),
        ({"story_selection": ["storya", "nowhere"]}, "nowhere"),
        ({"story_selection": 6}, "number from 1 to 5, got 6"),
        ({"fir_delays": [1, "2"]}, r"got \(1, '2'\)"),
        ({"lookback": 2.5, "feature_extractors": [extractor()]}, "lookback .*got 2.5"),
        (
            {"layer_idx": "2", "feature_extractors": [extractor(layer_idx=2)]},
            "layer_idx: .* says 2 and .* '2'",
        ),
        ({"story_selection": ["storya", "storya"]}, "stories .*each once"),
        ({"story_selection": ["storya", 2]}, "stories .*each once"),
        ({"downsample_config": {"method": "lanczos", "window": "3"}}, "window"),
        ({"downsample_config": {"method": "lanczos", "cutoff_mult": -1}}, "cutoff"),
        ({"logger_backend": "mlflow"}, "Unknown logger 'mlflow'"),
        ({"feature_extractors": []}, "expected one or more"),
        ({"feature_extractors": [extractor("wordrate")] * 2}, "joined_with .*wordrate"),
        ({"fir_delays": []}, "fir_delays .* one or more delays"),
    ],
)
def test_a_trainer_refuses_before_train(plain, changes, message):
    with pytest.raises(ValueError, match=message):
        trainer(plain, **changes)


def test_objects_of_other_kinds_are_refused(plain):
    for changes in ({"downsampler": "rect"}, {"model": object()}, {"feature_extractors": ["gpt2"]}):
        with pytest.raises(TypeError, match=r"of encoding_nb\.litcoder"):
            trainer(plain, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trimming_config": None}, "trimming_config: expected names with values, such as .*, got None"),
        ({"trimming_config": [10, -5]}, "trimming_config: expected names with values"),
        ({"downsample_config": ["lanczos"]}, "downsample_config: expected names with values"),
        ({"feature_extractors": 3}, "feature_extractors: expected a FeatureExtractor .* got a int"),
        ({"fir_delays": 4}, "fir_delays.* got 4"),
        ({"story_selection": True}, "story_selection, .*: expected a whole number, got True"),
        ({"story_selection": 1.0}, "story_selection, .*: expected a whole number, got 1.0"),
    ],
)
def test_arguments_of_other_kinds_are_one_sentence(plain, changes, message):
    with pytest.raises(TypeError, match=message):
        trainer(plain, **changes)


def test_a_path_is_no_assembly():
    with pytest.raises(
        TypeError, match=r"expected what load_assembly gives, got a str; write load_assembly\("
    ):
        trainer("demo")


def test_a_config_that_is_not_a_mapping():
    with pytest.raises(TypeError, match="config: expected names with values"):
        FeatureExtractorFactory.create_extractor("language_model", TINY, [1])


@pytest.mark.filterwarnings("ignore:.*from the extractor's config:UserWarning")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layer_idx": "2"}, "layer_idx must be a whole number .* got '2'"),
        ({"lookback": 32.0, "use_stored_contexts": False}, "lookback must be a whole number .* got 32.0"),
        ({"last_token": "yes"}, "last_token must be True or False, got 'yes'"),
        ({"use_stored_contexts": 3}, "use_stored_contexts must be True or False, got 3"),
    ],
)
def test_values_of_a_config_are_checked_before_train(plain, config, message):
    with pytest.raises(SettingsError, match=message):
        trainer(plain, extractor(**config))


def test_values_of_a_config_are_checked_before_texts_are_read():
    for config in ({"layer_idx": "2"}, {"layer_idx": 2, "last_token": "2"}):
        with pytest.raises(ValueError, match="got '2'"):
            extractor(**config).extract_features(["a"])


def test_numbers_of_numpy_are_numbers(plain):
    space = extractor(layer_idx=np.int64(2), last_token=np.bool_(True), use_stored_contexts=True)
    settings = trainer(plain, space, layer_idx=2).settings
    assert (type(settings.layer_idx), type(settings.last_token)) == (int, bool)


def test_a_results_folder_that_cannot_be_is_refused_before_train(plain, tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(
        ValueError, match=r"results_dir: expected a folder for records, but .*results cannot be written"
    ):
        trainer(plain, results_dir=tmp_path / "results")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"alphas": []}, ValueError, r"alphas: expected one or more finite numbers above 0, got \[\]"),
        ({"alphas": [-1]}, ValueError, r"alphas: expected .* above 0, got \[-1.0\]"),
        ({"alphas": [float("nan")]}, ValueError, "alphas: expected"),
        ({"alphas": 3}, TypeError, "alphas and singcutoff: expected a list of numbers and a number; 'int'"),
        ({"singcutoff": "small"}, TypeError, "alphas and singcutoff: .* 'small'"),
        ({"n_inner_folds": "5"}, ValueError, "n_inner_folds .* a whole number .* got '5'"),
        ({"chunk_length": 0}, ValueError, "chunk_length .* got 0"),
    ],
)
def test_options_of_train_are_refused_before_the_fit(plain, options, kind, message, monkeypatch):
    monkeypatch.setattr(ridge, "ridge_cv", lambda *args, **options: pytest.fail("the fit has started"))
    made = trainer(plain)
    with pytest.raises(kind, match=message):
        made.train(**options)
    with pytest.raises(pytest.fail.Exception, match="the fit has started"):
        made.train()


def test_a_logger_that_cannot_log_is_refused_before_train(plain, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(loggers.LoggerError, match=r'pip install "encoding_nb\[wandb\]"'):
        trainer(plain, logger_backend="wandb")


def test_unknown_arguments_of_train_are_refused(plain):
    made = trainer(plain)
    with pytest.raises(ValueError, match=r"unknown key 'alpha'; .* folding_type, n_outer_folds"):
        made.train(alpha=[1])
    with pytest.raises(ValueError, match="rows must be within"):
        made.train(folds=[([0, 1], [5000, 5001])])


def test_layer_and_lookback_who_wins(plain):
    bare = replace(plain, stories={n: replace(s, contexts=None) for n, s in plain.stories.items()})
    both = extractor(layer_idx=2, lookback=32)
    with pytest.raises(ValueError, match="layer_idx: the extractor's config says 2 and the trainer 3"):
        trainer(bare, both, layer_idx=3)
    with pytest.raises(ValueError, match="lookback: the extractor's config says 32 and the trainer 256"):
        trainer(bare, both, layer_idx=2, lookback=256)
    with pytest.warns(UserWarning) as said:
        settings = trainer(bare, both).settings
    assert (settings.layer_idx, settings.lookback) == (2, 32)
    assert sorted(str(w.message).split(" from")[0] for w in said) == ["layer_idx is 2,", "lookback is 32,"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings = trainer(bare, extractor(), layer_idx=1, lookback=16).settings
        assert (settings.layer_idx, settings.lookback, settings.use_stored_contexts) == (1, 16, False)
        assert trainer(bare, both, layer_idx=2, lookback=32).settings.lookback == 32
        chosen = extractor(layer_idx=2, lookback=32, use_stored_contexts=False)
        assert not trainer(plain, chosen, layer_idx=2, lookback=32).settings.use_stored_contexts
    # where nobody says, LITcoder's 9 and 256, which this model of 4 layers cannot have
    with pytest.raises(SettingsError, match=r"9\b.* has layers 0"):
        trainer(bare, extractor())


def test_stories_and_the_test_story(plain):
    assert trainer(plain).settings.test_stories == ("storyz_test",)
    assert trainer(replace(plain, test_stories=("storyb",))).settings.test_stories == ("storyb",)
    assert trainer(plain, feature_extractors=extractor("wordrate")).settings.modality == "wordrate"
    chosen = trainer(plain, story_selection=["storya", "storyz_test"]).settings
    assert chosen.stories == ("storya", "storyz_test") and chosen.test_stories == ("storyz_test",)
    with pytest.raises(ValueError, match="put storyz_test last"):
        trainer(replace(plain, test_stories=("storyz_test",)), story_selection=["storyz_test", "storyb"])
    one = trainer(
        plain,
        story_selection=2,
        use_train_test_split=False,
        trimming_config={"features_start": 10, "features_end": -5},
    )
    assert one.settings.stories == ("storyb",) and one.settings.trimming.train_features_start == 10


@pytest.mark.filterwarnings("ignore:.*no variance:UserWarning")
def test_two_feature_spaces_and_cross_validation(plain, cache, tmp_path):
    spaces = (extractor(cache_dir=cache, layer_idx=2, use_stored_contexts=True), extractor("wordrate"))
    with pytest.warns(UserWarning, match="layer_idx is 2"):
        made = trainer(plain, *spaces, use_train_test_split=False, run_name="both", results_dir=tmp_path)
    assert made.settings.modality == "language_model" and made.settings.joined_with == ("wordrate",)
    metrics = made.train(alphas=[0.1, 1.0], n_outer_folds=3, n_inner_folds=3)
    result = made.result
    assert set(result.story_scores) == set(STORIES) and len(metrics["best_alphas"]) == 80
    assert result.test_name == "parametric test, assumes white noise"
    # LITcoder's outer folds are of the type of its inner ones, without a gap
    assert result.settings.outer_folds_of(len(STORIES)) == ("chunked", 3, 0.0)
    folds = np.concatenate(list(result.row_folds.values()))
    outer = ridge.make_folds(
        len(folds), n_folds=3, groups=np.repeat(range(5), [len(r) for r in result.row_folds.values()])
    )
    for number, fold in enumerate(outer):
        np.testing.assert_array_equal(np.flatnonzero(folds == number), fold.test)
    # its score is the mean over the folds, its p-values are two-sided and assume white noise
    found = result.scores[len(CONSTANT) :]
    np.testing.assert_allclose(metrics["correlations"][len(CONSTANT) :], found)
    np.testing.assert_allclose(metrics["p_values"][len(CONSTANT) :], pearson_pvalue(found, len(folds)))
    assert metrics["median_score"] == pytest.approx(np.median(metrics["correlations"]))
    assert list(list_runs(tmp_path)["name"]) == ["both"]
    with pytest.raises(ValueError, match="each outer fold z-scores stories one by one"):
        made.train(normalize_features=True)


def test_an_extractor_reads_texts(cache):
    windows = np.load(GOLDEN / "stimuli.npz")["storya/stimuli_fullcontext"][:20].tolist()
    expected = np.load(GOLDEN / "features_tiny-gpt2_default_fullcontext_last.npz")["storya/L2"][:20]
    space = extractor(layer_idx=2, cache_dir=cache)
    np.testing.assert_allclose(space.extract_features(windows), expected, atol=1e-5)
    np.testing.assert_allclose(space.extract_features(windows, layer_idx=2), expected, atol=1e-5)
    assert space.memory == cache and isinstance(extractor().memory, Memory)
    assert extractor("wordrate").extract_features([1, 2]).tolist() == [[1], [2]]
    assert extractor("embeddings").extract_features(["the", "a"]).shape == (2, 64)
    assert FeatureExtractorFactory.get_supported_modalities() == ["language_model", "wordrate", "embeddings"]
