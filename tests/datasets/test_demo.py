"""The demo: its parts are what they are said to be, and a fit finds the truth that was put in."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoding_nb.datasets import demo as the_demo
from encoding_nb.datasets import load_assembly
from encoding_nb.design import downsampling, matrix
from encoding_nb.features import activations, models
from encoding_nb.pipeline import runs
from encoding_nb.scoring import correlations
from encoding_nb.settings import Settings

MODEL = the_demo.DATA / "model"
RECORD = json.loads((MODEL / "training.json").read_text())


def test_stories_are_long_enough_and_timed_like_speech(demo):
    assert len(demo.stories) >= 9 and demo.test_stories == ("lasttrainhome",)
    for name, story in demo.stories.items():
        assert len(story.words) >= (1300 if name in demo.test_stories else 600)
        rate = len(story.words) / story.words.offsets[-1]
        assert 2.0 < rate < 3.5, f"{name}: {rate:.2f} words a second"
        pauses = story.words.onsets[1:] - story.words.offsets[:-1]
        assert (pauses > 0.1).mean() > 0.05 and pauses.min() > -1e-6


def test_phone_tier_spans_the_words():
    words = the_demo.read_story_words("gravy")
    from encoding_nb.datasets import read_textgrid

    phones = read_textgrid(the_demo.DATA / "stories" / "gravy.TextGrid", tier="phone")
    assert len(phones) > 2.5 * len(words)
    assert np.isin(np.round(words.onsets, 5), np.round(phones.onsets, 5)).all()


def test_rows_and_trimming_are_those_of_the_lebel_data(demo):
    for story in demo.stories.values():
        volumes = the_demo.n_volumes(story.words)
        assert (story.n_trs, story.n_rows) == (volumes - 5, volumes - 20)
        assert story.tr_times[0] == -10.0 and np.allclose(np.diff(story.tr_times), 2.0)


def test_subject(demo):
    assert 15_000 <= demo.n_voxels <= 25_000
    assert demo.stories["lasttrainhome"].repeats.shape[0] >= 5
    assert demo.simulated and "simulated" in repr(demo) and "simulated" in demo.subject


def test_areas_are_apart_and_whole(demo):
    areas = demo.truth["areas"]
    assert np.sum(list(areas.values()), axis=0).tolist() == [1] * demo.n_voxels
    assert all(mask.sum() >= 40 for mask in areas.values())
    assert areas["wordrate"][~demo.rois["AC"]].sum() == 0
    for name in ("Broca", "sPMv"):
        inside = demo.rois[name]
        assert (areas["language"] | areas["both"])[inside].mean() > 0.95


def test_same_seed_same_numbers(demo):
    again = load_assembly("demo", stories=["gravy"])
    np.testing.assert_array_equal(again.stories["gravy"].bold, demo.stories["gravy"].bold)
    repeats = demo.stories["lasttrainhome"].repeats
    np.testing.assert_allclose(
        repeats[:, 40:].mean(axis=0), demo.stories["lasttrainhome"].bold[40:], atol=1e-5
    )
    assert not np.array_equal(repeats[0], repeats[1])


def test_it_is_the_demo_that_the_lessons_describe(demo):
    """Rounded, since last digits differ between machines. A change here changes numbers in every notebook."""
    story = demo.stories["gravy"]
    assert story.bold.shape == (145, 21229) and len(story.words) == 892
    np.testing.assert_allclose(story.words.offsets[-1], 299.504, atol=1e-3)
    expected = {  # area: voxels, a voxel of it, its response at rows 20 and 100, and the area's mean at row 3
        "wordrate": (629, 3171, 0.0614, -0.0634, -0.3602),
        "language": (1231, 1298, -0.4389, -0.6758, -0.0116),
        "both": (560, 1417, 1.0849, 0.2453, -0.3022),
        "noise": (18809, 7, -0.4841, -0.4786, 0.0129),
    }
    for area, (n_voxels, voxel, *values) in expected.items():
        mask = demo.truth["areas"][area]
        assert mask.sum() == n_voxels and mask[voxel]
        found = [story.bold[20, voxel], story.bold[100, voxel], story.bold[3, mask].mean()]
        np.testing.assert_allclose(found, values, atol=2e-3, err_msg=area)


def test_noise_is_autocorrelated_as_said(demo):
    bold = demo.stories["gravy"].bold[:, demo.truth["areas"]["noise"]]
    z = matrix.standardize(bold)
    assert abs((z[1:] * z[:-1]).mean() - the_demo.NOISE_AR) < 0.05


def test_unknown_story_and_source():
    with pytest.raises(ValueError, match="demo: no story nowhere; it has deepend"):
        load_assembly("demo", stories=["nowhere"])
    with pytest.raises(ValueError, match="Unknown data set 'nothing'"):
        load_assembly("nothing")
    with pytest.raises(ValueError, match="load_assembly: expected a path, got an empty"):
        load_assembly("")
    with pytest.raises(TypeError, match="load_assembly: expected a path"):
        load_assembly(None)


@pytest.fixture(scope="module")
def story_model():
    """The demo model and the held-out story's tokens, by Hugging Face's own code."""
    import torch
    from transformers import AutoTokenizer, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = GPT2LMHeadModel.from_pretrained(MODEL, dtype=torch.float32).eval()
    ids = tokenizer(" ".join(the_demo.read_story_words("lasttrainhome").text), add_special_tokens=False)[
        "input_ids"
    ]
    return model, ids


def heldout_loss(model, ids, length):
    """Mean nats of every eighth token after the first 256, each from `length` tokens before it and BOS."""
    import torch

    total, targets = 0.0, range(256, len(ids), 8)
    with torch.no_grad():
        for start in range(0, len(targets), 32):
            ends = targets[start : start + 32]
            windows = torch.tensor([[0, *ids[t - length : t]] for t in ends])
            log_p = model.lm_head(model.transformer(windows).last_hidden_state[:, -1]).log_softmax(-1)
            total -= log_p[range(len(ends)), [ids[t] for t in ends]].sum().item()
    return total / len(targets)


def test_model_is_small():
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 8 * 2**20


def test_model_beats_unigrams_and_bigrams_on_the_held_out_story(story_model):
    loss = heldout_loss(*story_model, 255)
    counted = RECORD["heldout_loss_nats_per_token"]
    assert loss < counted["bigram"] - 0.1 < counted["unigram"] - 0.1
    assert abs(loss - counted["model"]) < 0.15, "the record beside the weights is not of these weights"


def test_longer_context_helps_the_model(story_model):
    losses = [heldout_loss(*story_model, length) for length in (4, 16, 64, 255)]
    assert all(longer < shorter - 0.02 for shorter, longer in itertools.pairwise(losses)), losses


def test_stored_truth_is_what_the_model_gives(demo, memory):
    """The stored components lie in the leading directions of the true layer, and less so in another."""
    stored = np.load(the_demo.DATA / "truth.npz", allow_pickle=False)
    story = demo.stories["gravy"]
    spec = activations.ActivationSpec("demo", lookback=the_demo.LOOKBACK, context_type=the_demo.CONTEXT_TYPE)
    found = {
        layer: downsampling.downsample(
            activations.layer_activations(story.words.text, spec, layer_idx=layer, memory=memory),
            story.words.times,
            story.tr_times,
        )
        for layer in (the_demo.LAYER_IDX, the_demo.LAYER_IDX - 1)
    }
    fitted = {}
    target = stored["gravy"] - stored["gravy"].mean(axis=0)
    for layer, X in found.items():
        # With as many columns as rows anything fits, so the components must lie in 60 leading directions.
        z = matrix.standardize(X.astype(float))
        basis = np.linalg.svd(z, full_matrices=False)[0][:, :60]
        fitted[layer] = 1 - (target - basis @ (basis.T @ target)).var() / target.var()
    assert fitted[the_demo.LAYER_IDX] > 0.99 and fitted[the_demo.LAYER_IDX] > fitted[the_demo.LAYER_IDX - 1]


@pytest.fixture(scope="module")
def profile(demo, memory):
    """{layer: Result} over all layers at the true lookback."""
    n_layers = models.model_info("demo").n_layers
    settings = Settings(lookback=the_demo.LOOKBACK, context_type=the_demo.CONTEXT_TYPE)
    return {
        layer: runs.run(demo, replace(settings, layer_idx=layer), memory=memory, progress=False)
        for layer in range(n_layers + 1)
    }


def test_the_map_is_recovered(demo, profile):
    result = profile[the_demo.LAYER_IDX]
    areas = demo.truth["areas"]
    median = {area: np.median(result.scores[mask]) for area, mask in areas.items()}
    # High: at least two thirds of what the noise lets any model reach.
    for area in ("wordrate", "language", "both"):
        ceiling = np.median(result.noise_ceiling[areas[area]])
        assert median[area] > 0.66 * ceiling and median[area] > 0.3, (area, median[area], ceiling)
        assert result.significant[areas[area]].mean() > 0.9
    # Indistinguishable from 0: the median lies within two standard errors of a median of so many voxels.
    n_noise = areas["noise"].sum()
    spread = result.scores[areas["noise"]].std()
    assert abs(median["noise"]) < 2 * 1.2533 * spread / np.sqrt(n_noise), median


def test_the_layer_profile_peaks_at_the_true_layer(demo, profile):
    language = demo.truth["areas"]["language"]
    medians = {layer: np.median(result.scores[language]) for layer, result in profile.items()}
    assert max(medians, key=medians.get) == the_demo.LAYER_IDX, medians
    others = max(value for layer, value in medians.items() if layer != the_demo.LAYER_IDX)
    assert medians[the_demo.LAYER_IDX] > others + 0.005, medians


def test_word_rate_alone_predicts_auditory_cortex_only(demo, memory):
    result = runs.run(demo, Settings(modality="wordrate"), memory=memory, progress=False)
    areas = demo.truth["areas"]
    assert np.median(result.scores[areas["wordrate"]]) > 0.4
    assert abs(np.median(result.scores[areas["language"]])) < 0.2


def test_scores_are_correlations_of_what_is_kept(profile):
    result = profile[the_demo.LAYER_IDX]
    name = "lasttrainhome"
    by_hand = correlations.correlation(result.measured[name], result.predictions[name])
    np.testing.assert_array_equal(result.story_scores[name], by_hand)


def test_licences_and_sources_stand_beside_the_model():
    text = (the_demo.DATA / "README.md").read_text()
    for package in (
        "wesnoth-1.16-httt",
        "endless-sky-data",
        "fortunes",
        "anarchism",
        "python3.11-doc",
        "perl-doc",
    ):
        assert package in text
    assert str(RECORD["seed"]) in text
    for script in ("corpus", "train", "textgrids", "surface", "truth"):
        path = f"tools/demo/{script}.py"
        assert path in text and (Path(__file__).resolve().parents[2] / path).is_file()
