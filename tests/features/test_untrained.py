"""The untrained twin of a model: initialised from a seed, without weight files, and never mixed with trained ones."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from encoding_nb.features import (
    ActivationSpec,
    ModelError,
    activations,
    cache_info,
    check_spec,
    language_model,
    layer_activations,
    load_tokenizer,
    model_info,
    token_embeddings,
)
from encoding_nb.features.activations import _input, activations_cached
from encoding_nb.features.language_model import load_model

TINY = Path(__file__).parents[1] / "golden" / "hf" / "tiny-gpt2"
WORDS = "the raise statement is used to generate exceptions".split()
TRAINED = ActivationSpec(str(TINY), lookback=16)
UNTRAINED = replace(TRAINED, weights="untrained")
SMALL = {
    "vocab_size": 1500,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}


def bare(folder, **config):
    """TINY's configuration and tokenizer, without weights."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(TINY / name, folder)
    shutil.copy(TINY / "config.json", folder)
    return described(folder, **config) if config else folder


def described(folder, **config):
    """The folder, whose configuration says something else now."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def small(folder, architecture, **config):
    """A configuration of another family, without weights."""
    import transformers as hf

    bare(folder)
    family = {"LlamaForCausalLM": hf.LlamaConfig, "BertForMaskedLM": hf.BertConfig}[architecture]
    (folder / "config.json").unlink()
    family(**SMALL, architectures=[architecture], **config).save_pretrained(folder)
    return folder


def spec_of(folder, seed=0, **options):
    return ActivationSpec(str(folder), lookback=16, weights="untrained", weights_seed=seed, **options)


def features(spec, layer=2, words=WORDS, **options):
    return layer_activations(words, spec, layer_idx=layer, device="cpu", **options)


def bytes_of(spec):
    """Digest of all weights and of the features of a layer."""
    model = load_model(model_info(spec.model_name), seed=spec.seed).model
    weights = b"".join(tensor.detach().numpy().tobytes() for tensor in model.state_dict().values())
    return sha256(weights).hexdigest(), sha256(features(spec).tobytes()).hexdigest()


def no_model(monkeypatch):
    monkeypatch.setattr(activations, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))


# ---------------------------------------------------------------------- the weights


@pytest.mark.parametrize("family", ["gpt2", "LlamaForCausalLM", "BertForMaskedLM"])
def test_it_is_the_model_that_transformers_initialises(tmp_path, family):
    import torch
    import transformers as hf

    folder = bare(tmp_path / "m") if family == "gpt2" else small(tmp_path / "m", family)
    torch.manual_seed(7)
    config = hf.AutoConfig.from_pretrained(folder, attn_implementation="eager")
    known = hf.AutoModelForMaskedLM if family.startswith("Bert") else hf.AutoModelForCausalLM
    expected = known.from_config(config, dtype=torch.float32).eval()
    state = torch.get_rng_state()
    found = [features(spec_of(folder, 7), layer) for layer in range(3)]
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers go on as they would have"
    tokenizer = load_tokenizer(folder)
    ids = tokenizer(" ".join(WORDS[:1]), add_special_tokens=False)["input_ids"]
    first = activations.first_token(tokenizer)
    with torch.no_grad():
        streams = expected(torch.tensor([[first, *ids]]), output_hidden_states=True).hidden_states
    last = 2 if family == "gpt2" else 1  # the last hidden state of Hugging Face is behind the final norm
    for layer in range(last + 1):
        np.testing.assert_allclose(found[layer][0], streams[layer][0, -1], rtol=0, atol=2e-6)


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path):
    folder = bare(tmp_path / "m")
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); torch.manual_seed(99); torch.rand(5)\n"
        "from tests.features.test_untrained import bytes_of, spec_of\n"
        "print(*bytes_of(spec_of(sys.argv[2], 3)))"
    )
    root = str(Path(__file__).parents[2])
    there = subprocess.run(
        [sys.executable, "-c", code, root, str(folder)], capture_output=True, text=True, check=True
    )
    assert there.stdout.split()[-2:] == list(bytes_of(spec_of(folder, 3)))


def test_another_seed_gives_other_weights(tmp_path):
    folder = bare(tmp_path / "m")
    first, second = (features(spec_of(folder, seed)) for seed in (0, 1))
    assert np.abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2
    language_model._LOADED.clear()
    np.testing.assert_array_equal(features(spec_of(folder, 0)), first)


@pytest.mark.parametrize("scale", [0.02, 0.1])
def test_weights_have_the_mean_and_sd_that_the_configuration_names(tmp_path, scale):
    """GPT-2's own rule: normal, with what is written to the residual stream divided by sqrt(2 n_layers)."""
    folder = bare(tmp_path / "m", initializer_range=scale)
    weights = dict(load_model(model_info(str(folder)), seed=0).model.named_parameters())
    expected = {"attn.c_attn": scale, "mlp.c_fc": scale, "attn.c_proj": scale / 8**0.5}
    for name, sd in expected.items():
        values = weights[f"transformer.h.1.{name}.weight"].detach().numpy().ravel()
        assert abs(values.std() / sd - 1) < 4 / np.sqrt(2 * values.size)
        assert abs(values.mean()) < 4 * sd / np.sqrt(values.size)
        assert not weights[f"transformer.h.1.{name}.bias"].any()
    table = weights["transformer.wte.weight"].detach().numpy()
    assert abs(table.std() / scale - 1) < 4 / np.sqrt(2 * table.size)
    assert (weights["transformer.h.1.ln_1.weight"] == 1).all()


def test_the_same_word_differs_with_the_words_before_it_only(tmp_path):
    found = features(spec_of(bare(tmp_path / "m")), 4)
    before = features(spec_of(tmp_path / "m"), 4, ["some", *WORDS[1:]])
    after = features(spec_of(tmp_path / "m"), 4, [*WORDS[:-1], "words"])
    sd = found.std()
    assert np.abs(found[-2] - before[-2]).max() > 0.01 * sd
    np.testing.assert_allclose(found[:-1], after[:-1], rtol=0, atol=1e-5 * sd)


def test_litcoder_processing_centres_it(tmp_path):
    raw = spec_of(bare(tmp_path / "m"))
    centred, raw = features(replace(raw, processing="litcoder")), features(raw)
    np.testing.assert_allclose(centred, raw - raw.mean(axis=1, keepdims=True), rtol=0, atol=1e-6)
    assert np.abs(centred - raw).max() > 1e-4


def test_embeddings_are_rows_of_its_table(tmp_path):
    folder = bare(tmp_path / "m")
    table = load_model(model_info(str(folder)), seed=4).model.get_input_embeddings().weight.detach().numpy()
    found = token_embeddings(["the", "the", "raise"], str(folder), weights="untrained", weights_seed=4)
    ids = load_tokenizer(folder)("the", add_special_tokens=False)["input_ids"]
    np.testing.assert_allclose(found[0], table[ids].mean(axis=0), rtol=0, atol=1e-7)
    assert np.abs(found - token_embeddings(["the", "the", "raise"], str(TINY))).max() > 0.01


# ---------------------------------------------------------------------- files


def test_weights_are_neither_needed_nor_read(tmp_path):
    expected = features(UNTRAINED, memory=tmp_path / "cache")
    folder, damaged = bare(tmp_path / "none"), bare(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\0" * 64)
    for model in (folder, damaged):
        assert check_spec(spec_of(model), layer_idx=2) == {}
        assert activations_cached(WORDS, spec_of(model), 2, tmp_path / "cache"), (
            "weights do not change its key"
        )
        language_model._LOADED.clear()
        np.testing.assert_array_equal(features(spec_of(model)), expected)
    assert (
        "expected weights" in check_spec(replace(TRAINED, model_name=str(folder)), layer_idx=2)["model_name"]
    )
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "expected a tokenizer's files" in check_spec(spec_of(folder), layer_idx=2)["model_name"]


def test_the_bundled_model_has_one():
    found, trained = (
        features(ActivationSpec("demo", lookback=16, weights=weights)) for weights in ("untrained", "trained")
    )
    assert found.shape == trained.shape
    assert np.abs(np.corrcoef(found.ravel(), trained.ravel())[0, 1]) < 0.2


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A model's configuration alone in the Hub's cache, as `model_info` leaves it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--someone--own", "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    shutil.copy(TINY / "config.json", folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "step3000").write_text(commit)
    return folder


def test_only_the_tokenizer_of_a_hub_model_is_downloaded(hub, monkeypatch):
    asked = []

    def download(name, *, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TINY / file, hub)
        return str(hub)

    monkeypatch.setattr("encoding_nb.features.models.offline_reason", lambda: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    spec = spec_of("someone/own@step3000")
    assert check_spec(spec, layer_idx=2) == {}
    found = features(spec)
    np.testing.assert_array_equal(found, features(UNTRAINED))
    ((name, revision, patterns),) = asked
    assert (name, revision) == ("someone/own", "step3000")
    assert not any(pattern.endswith((".safetensors", ".bin")) for pattern in patterns)
    np.testing.assert_array_equal(features(spec), found)
    assert len(asked) == 1, "the second call finds the tokenizer here"


def test_a_hub_model_without_its_tokenizer_is_refused_offline(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    problems = check_spec(spec_of("someone/own@step3000"), layer_idx=2)
    assert "tokenizer is not on this machine, and HF_HUB_OFFLINE is set" in problems["model_name"]


# ---------------------------------------------------------------------- kept apart from trained ones

# made before untrained models existed: a change throws away what users have computed
KEPT_KEYS = {
    ActivationSpec(
        str(TINY), lookback=8
    ): "9711191ac6d2c15b3d7293345cee7fcfdb74b601dc3c53e3b718929fba5ea60d layer",
    ActivationSpec(
        str(TINY), lookback=8, last_token=False, storage="float16", first_token="none"
    ): "bbfada91436a684ec9bd716c580271246671f727efbed47277acc62ba6700636 layer",
}


@pytest.mark.parametrize("spec", KEPT_KEYS)
@pytest.mark.parametrize("seed", [0, 5])
def test_keys_of_trained_models_are_what_they_were(spec, seed):
    assert _input(WORDS, replace(spec, weights_seed=seed), None).key == KEPT_KEYS[spec]


def test_each_has_its_own_entry_and_its_own_place_in_memory(tmp_path, monkeypatch):
    specs = [TRAINED, UNTRAINED, replace(UNTRAINED, weights_seed=1)]
    language_model._LOADED.clear()
    alone = []
    for spec in specs:
        language_model._LOADED.clear()
        alone.append(features(spec))
    for i in (0, 1, 0, 2, 1, 0):  # models that are in memory
        np.testing.assert_array_equal(features(specs[i]), alone[i])
    for i, spec in enumerate(specs):
        assert not activations_cached(WORDS, spec, 2, tmp_path)
        features(spec, memory=tmp_path)
        assert cache_info(tmp_path).n_entries == 5 * (i + 1)
    assert list(sorted(cache_info(tmp_path).by_model)) == [
        str(TINY),
        f"{TINY} (untrained, seed 0)",
        f"{TINY} (untrained, seed 1)",
    ]
    no_model(monkeypatch)
    for spec, expected in zip(specs, alone, strict=True):
        np.testing.assert_array_equal(features(spec, memory=tmp_path), expected)


def test_other_versions_of_the_libraries_are_other_weights(tmp_path, monkeypatch):
    """They may initialise differently, and one run must not mix both."""
    features(UNTRAINED, memory=tmp_path)
    assert activations_cached(WORDS, UNTRAINED, 2, tmp_path)
    monkeypatch.setattr("encoding_nb.features.models.version", lambda name: "99.0")
    assert not activations_cached(WORDS, UNTRAINED, 2, tmp_path)


# ---------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "random"}, "Unknown weights 'random'; choose one of trained, untrained"),
        ({"weights": None}, "Unknown weights None"),
        ({"weights": ["untrained"]}, "Unknown weights"),
        ({"weights_seed": -1}, r"weights_seed must be a whole number from 0 to \d+, got -1"),
        ({"weights_seed": 2**63}, "weights_seed must be a whole number"),
        ({"weights_seed": True}, "weights_seed must be a whole number"),
        ({"weights_seed": 1.0}, r"weights_seed .* got 1\.0"),
    ],
)
def test_values_that_cannot_be_are_refused_before_any_work(monkeypatch, change, message):
    no_model(monkeypatch)
    assert list(check_spec(replace(UNTRAINED, **change), layer_idx=2)) == list(change)
    with pytest.raises(ValueError, match=message):
        features(replace(UNTRAINED, **change))
    with pytest.raises(ValueError, match=message):
        token_embeddings(WORDS, str(TINY), **change)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8", "unheard-of"])
def test_a_quantized_model_has_a_twin_with_plain_layers(tmp_path, method):
    expected = features(spec_of(small(tmp_path / "plain", "LlamaForCausalLM")))
    quantized = small(tmp_path / "quantized", "LlamaForCausalLM")
    described(quantized, quantization_config={"quant_method": method, "bits": 4})
    np.testing.assert_array_equal(features(spec_of(quantized)), expected)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"n_head": 5},
            r"a model with random weights cannot be built from .*config\.json \(ValueError: .*\); choose",
        ),
        ({"n_positions": 2**31 - 1}, r"with random weights needs about \d+\.\d GB of memory on cpu"),
        ({"vocab_size": 2**31 - 1}, r"needs about \d+\.\d GB of memory on cpu"),
        ({"model_type": "unheard-of"}, "a model with random weights cannot be built"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_in_one_sentence(tmp_path, config, says):
    with pytest.raises(ModelError, match=says):
        features(spec_of(bare(tmp_path / "m", **config)))


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    folder = bare(tmp_path / "m", model_type="own", auto_map={"AutoConfig": "own.Own"})
    (folder / "own.py").write_text("raise SystemExit('this code was run')")
    with pytest.raises(ModelError, match="code that comes with it"):
        features(spec_of(folder))
