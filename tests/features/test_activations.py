"""Activations against Hugging Face and the golden cases; models by name; a cache that is damaged on purpose."""

import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from joblib import Memory

from encoding_nb import _machine
from encoding_nb._files import cache_folder
from encoding_nb._progress import Cancelled
from encoding_nb.assembly import Words
from encoding_nb.features import (
    ActivationSpec,
    activations,
    available_models,
    cache_info,
    check_spec,
    context_windows,
    language_model,
    layer_activations,
    model_info,
    models,
    prune_cache,
    store_folder,
    token_embeddings,
)
from encoding_nb.features.activations import activations_cached as is_cached
from encoding_nb.features.cache import entry_path, read_array, write_array
from encoding_nb.features.language_model import extract
from encoding_nb.features.models import ModelError, identity

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = str(GOLDEN / "hf" / "tiny-gpt2")
STORIES = ("storya", "storyb", "storyc", "storyd", "storyz_test")
WORDS = (
    "the raise statement is used to generate exceptions and the try suite is executed until an exception occurs "
    "in the handler of the clause that matches it"
).split()
SPEC = ActivationSpec(TINY, lookback=8)


def assert_same(found, expected):
    """Equal up to float32's rounding, whose last digits hang on the windows in a pass and on the threads.

    Measured against float64 at a scale of 9: 4e-6 to 5.5e-6 for Hugging Face and for this package, and so up to 8e-6
    between them.
    """
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * scale)


@pytest.fixture(scope="module")
def stimuli():
    return dict(np.load(GOLDEN / "stimuli.npz"))


# ---------------------------------------------------------------------- against LITcoder


@pytest.mark.parametrize(
    ("processing", "golden", "context_type"),
    [
        ("raw", "noproc", "fullcontext"),
        ("litcoder", "default", "fullcontext"),
        ("raw", "noproc", "nocontext"),
    ],
)
def test_golden_features(tmp_path, stimuli, processing, golden, context_type):
    stored = np.load(GOLDEN / f"features_tiny-gpt2_{golden}_{context_type}_last.npz")
    spec = ActivationSpec(TINY, processing=processing)
    for story in STORIES:
        words = stimuli[f"{story}/words"].tolist()
        windows = stimuli[f"{story}/stimuli_{context_type}"].tolist()
        for layer in range(4):
            found = layer_activations(words, spec, layer_idx=layer, memory=tmp_path, contexts=windows)
            np.testing.assert_allclose(found, stored[f"{story}/L{layer}"], rtol=0, atol=1e-5)


# ---------------------------------------------------------------------- against Hugging Face

CAUSAL = ("gpt2", "opt", "neox", "llama", "gemma2")
SIZES = {"vocab_size": 1500, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
WIDE = SIZES | {"intermediate_size": 64, "max_position_embeddings": 64}


def made_model(family):
    import torch
    import transformers as hf

    torch.manual_seed(0)
    if family == "gpt2":
        return hf.GPT2LMHeadModel.from_pretrained(TINY)
    if family == "opt":
        config = SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
        return hf.OPTForCausalLM(hf.OPTConfig(**config, bos_token_id=0, eos_token_id=0))
    if family == "neox":
        return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**WIDE))
    if family == "llama":
        return hf.LlamaForCausalLM(hf.LlamaConfig(**WIDE, num_key_value_heads=1))
    if family == "gemma2":
        return hf.Gemma2ForCausalLM(hf.Gemma2Config(**WIDE, num_key_value_heads=1, head_dim=16))
    return hf.BertForMaskedLM(hf.BertConfig(**WIDE))


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """{family: (folder, plain Hugging Face model)}, random weights but for GPT-2."""
    made = {}
    for family in (*CAUSAL, "bert"):
        folder = tmp_path_factory.mktemp(family)
        model = made_model(family).eval()
        model.save_pretrained(folder)
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "vocab.json",
            "merges.txt",
        ):
            shutil.copy(Path(TINY) / name, folder)
        made[family] = (str(folder), model)
    return made


@lru_cache(maxsize=8)
def in_float64(model):
    return copy.deepcopy(model).double()


def reference(model, ids):
    """(n_layers, length, d_model): Hugging Face's hidden states in front of every block, in float64."""
    import torch

    with torch.no_grad():
        states = in_float64(model)(torch.as_tensor(ids)[None], output_hidden_states=True).hidden_states
    return np.stack([state[0].numpy() for state in states[:-1]])


@pytest.mark.parametrize("context_type", ["fullcontext", "nocontext", "halfcontext", "strided"])
@pytest.mark.parametrize("family", [*CAUSAL, "bert"])
def test_every_word_gets_the_residual_of_its_own_window(families, tmp_path, family, context_type):
    folder, model = families[family]
    windows = context_windows(
        WORDS, models.load_tokenizer(Path(folder)), lookback=6, context_type=context_type, stride=5
    )
    last, mean = (
        np.stack([pool(reference(model, [0, *windows.ids(i)])) for i in range(len(WORDS))], axis=1)
        for pool in (lambda s: s[:, -1], lambda s: s.mean(axis=1))
    )
    spec = ActivationSpec(folder, lookback=6, context_type=context_type, stride=5)
    for layer in range(len(last)):
        found = layer_activations(WORDS, spec, layer_idx=layer, memory=tmp_path)
        assert_same(found, last[layer])
    pooled = dataclasses.replace(spec, last_token=False)
    assert_same(layer_activations(WORDS, pooled, layer_idx=2, memory=tmp_path), mean[2])


def test_an_encoder_reads_every_window_by_itself(families):
    loaded = {
        family: language_model.load_model(model_info(families[family][0])) for family in (*CAUSAL, "bert")
    }
    assert {family: model.causal for family, model in loaded.items()} == {f: f != "bert" for f in loaded}


def test_an_encoder_whose_configuration_calls_it_causal_is_found_out(families, monkeypatch):
    from transformer_lens.model_bridge.supported_architectures import BertArchitectureAdapter

    made = BertArchitectureAdapter.__init__

    def causal(self, cfg):
        made(self, cfg)
        self.cfg.attention_dir = "causal"

    monkeypatch.setattr(BertArchitectureAdapter, "__init__", causal)
    language_model._LOADED.clear()
    assert not language_model.load_model(model_info(families["bert"][0])).causal
    language_model._LOADED.clear()


def test_the_last_layer_is_the_stream_before_the_final_norm(families):
    import torch

    folder, model = families["gpt2"]
    model, seen = in_float64(model), []
    handle = model.transformer.ln_f.register_forward_pre_hook(
        lambda module, given: seen.append(given[0][0, -1].numpy())
    )
    windows = context_windows(
        WORDS, models.load_tokenizer(Path(folder)), lookback=8, context_type="fullcontext"
    )
    with torch.no_grad():
        for i in range(len(WORDS)):
            model(torch.tensor([[0, *windows.ids(i)]]))
    handle.remove()
    found = layer_activations(WORDS, ActivationSpec(folder, lookback=8), layer_idx=4)
    assert_same(found, seen)


@pytest.mark.parametrize("family", [*CAUSAL, "bert"])
def test_the_last_mlp_reads_only_the_words_positions_and_gives_the_same(families, family):
    info = model_info(families[family][0])
    model = language_model.load_model(info)
    spec = ActivationSpec(families[family][0], lookback=8, context_type="halfcontext")
    mlp, read = model.last_mlp, []
    assert (mlp is None) == (family in ("opt", "bert"))  # these have no MLP of one piece
    if mlp is None:
        return
    handle = mlp.register_forward_hook(lambda module, given, values: read.append(values.shape[:2]))
    try:
        narrow = layer_activations(WORDS, spec, layer_idx=info.n_layers)
        assert sum(rows * length for rows, length in read) == len(WORDS)
        model.last_mlp = None
        whole = layer_activations(WORDS, spec, layer_idx=info.n_layers)
        assert sum(rows * length for rows, length in read) > 2 * len(WORDS)
    finally:
        handle.remove()
        model.last_mlp = mlp
    assert_same(narrow, whole)


def test_an_mlp_that_looks_beyond_its_position_is_left_whole(families, monkeypatch):
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    plain = GPT2MLP.forward
    monkeypatch.setattr(GPT2MLP, "forward", lambda self, x: plain(self, x) + x.mean(1, keepdim=True))
    language_model._LOADED.clear()
    assert language_model.load_model(model_info(families["gpt2"][0])).last_mlp is None
    language_model._LOADED.clear()


def test_one_layer_alone_stops_there_and_is_the_same(families, tmp_path):
    folder, _ = families["gpt2"]
    spec = ActivationSpec(folder, lookback=8)
    model = language_model.load_model(model_info(folder))
    blocks = []
    handles = [b.register_forward_hook(lambda *_, i=i: blocks.append(i)) for i, b in enumerate(model.blocks)]
    alone = layer_activations(WORDS, spec, layer_idx=2)
    for handle in handles:
        handle.remove()
    assert set(blocks) == {0, 1}
    assert_same(alone, layer_activations(WORDS, spec, layer_idx=2, memory=tmp_path))


def test_batches_do_not_change_what_comes_out(families, monkeypatch):
    folder, _ = families["llama"]
    model = language_model.load_model(model_info(folder))
    windows = context_windows(
        WORDS * 3, models.load_tokenizer(Path(folder)), lookback=7, context_type="fullcontext"
    )

    def run(most):
        monkeypatch.setattr("encoding_nb.features.language_model._most_tokens", lambda _: most)
        monkeypatch.setattr("encoding_nb.features.language_model.STEP_SECONDS", 1e6)
        counts = []
        result = extract(
            model,
            windows,
            range(4),
            bos=0,
            last_token=True,
            progress=lambda done, total: counts.append((done, total)),
        )
        return counts, result

    one_counts, one = run(1)
    many_counts, many = run(10_000)
    assert len(one_counts) == len(windows.segments) > 10 * len(many_counts)
    assert one_counts[-1] == many_counts[-1] == (one_counts[-1][1],) * 2
    for layer in range(4):
        assert_same(one[layer], many[layer])


def test_a_gpu_that_is_too_small_gets_smaller_batches(families, monkeypatch):
    import torch

    folder, _ = families["llama"]
    model = language_model.load_model(model_info(folder))
    windows = context_windows(
        WORDS * 3, models.load_tokenizer(Path(folder)), lookback=7, context_type="fullcontext"
    )

    whole, sizes = language_model._pass, []

    def small(model, ids, *rest):
        sizes.append(len(ids))
        if len(ids) > 3:
            raise torch.cuda.OutOfMemoryError
        return whole(model, ids, *rest)

    monkeypatch.setattr(language_model, "STEP_SECONDS", 1e6)
    monkeypatch.setattr(language_model, "_pass", small)
    found = extract(model, windows, range(3, 4), bos=0, last_token=True)[3]
    assert max(sizes) > 3
    monkeypatch.undo()
    expected = layer_activations(WORDS * 3, ActivationSpec(folder, lookback=7), layer_idx=3)
    assert_same(found, expected)


def test_a_tokenizer_without_any_first_token(families):
    folder, model = families["neox"]
    tokenizer = models.load_tokenizer(Path(folder))
    windows = context_windows(WORDS, tokenizer, lookback=6, context_type="halfcontext")
    loaded = language_model.load_model(model_info(folder))
    for last_token, pool in ((True, lambda s: s[:, -1]), (False, lambda s: s.mean(axis=1))):
        found = extract(loaded, windows, range(3), bos=None, last_token=last_token)
        expected = np.stack([pool(reference(model, windows.ids(i))) for i in range(len(WORDS))], axis=1)
        for layer in range(3):
            assert_same(found[layer], expected[layer])


def test_the_first_token_is_bos_or_what_takes_its_place():
    class Tokenizer:
        bos_token_id = cls_token_id = eos_token_id = None

    tokenizer = Tokenizer()
    assert models.first_token(tokenizer) is None
    for name, token in (("eos_token_id", 7), ("cls_token_id", 0), ("bos_token_id", 3)):
        setattr(tokenizer, name, token)
        assert models.first_token(tokenizer) == token


def test_numbers_that_are_not_finite_are_refused_and_not_kept(tmp_path, monkeypatch):
    def broken(model, windows, layers, **_):
        arrays = {layer: np.ones((len(windows), 64), np.float32) for layer in layers}
        arrays[3][5] = np.inf
        return arrays

    monkeypatch.setattr(activations, "extract", broken)
    with pytest.raises(ValueError, match="layer 3: some numbers are not finite in float32"):
        layer_activations(WORDS, SPEC, layer_idx=3, memory=tmp_path)
    assert [is_cached(WORDS, SPEC, layer, tmp_path) for layer in range(5)] == [True, True, True, False, True]


def test_empty_words_are_zero_and_others_are_not_moved(tmp_path):
    words = ["", *WORDS[:4], " ", *WORDS[4:]]
    found = layer_activations(words, SPEC, layer_idx=2)
    assert (found[[0, 5]] == 0).all()
    assert_same(np.delete(found, [0, 5], axis=0), layer_activations(WORDS, SPEC, layer_idx=2))


def test_words_without_a_stored_window_are_counted():
    with pytest.warns(UserWarning, match=r"1 of 3 words have no tokens to read \(first: word 1, 'raise'\)"):
        found = layer_activations(["the", "raise", ""], SPEC, layer_idx=1, contexts=["the", "", ""])
    assert (found[1:] == 0).all()


def test_token_embeddings_are_the_mean_of_a_words_own_rows(families):
    folder, model = families["opt"]
    tokenizer = models.load_tokenizer(Path(folder))
    table = model.get_input_embeddings().weight.detach().numpy()
    words = ["the", "", "exceptions", "zyzzyva", "new york"]
    found = token_embeddings(words, folder)
    for i, word in enumerate(words):
        ids = tokenizer(word if i == 0 else f" {word}", add_special_tokens=False)["input_ids"] if word else []
        expected = table[ids].mean(axis=0) if ids else np.zeros(32)
        np.testing.assert_allclose(found[i], expected, atol=1e-6)


def test_litcoder_processing_centres_layer_norm_models_only(families):
    for family, centred in (("gpt2", True), ("llama", False)):
        spec = ActivationSpec(families[family][0], lookback=8)
        raw = layer_activations(WORDS, spec, layer_idx=2)
        found = layer_activations(WORDS, dataclasses.replace(spec, processing="litcoder"), layer_idx=2)
        expected = raw - raw.mean(axis=1, keepdims=True) if centred else raw
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------- progress, cancelling and refusals


def pieces_in(folder):
    """The files of a cache with the finished parts of stories, {file: (start, stop)}."""
    found = {}
    for path in folder.rglob("array.zip"):
        with zipfile.ZipFile(path) as file:
            header = json.loads(file.read("header.json"))
        if "piece" in header:
            found[path] = tuple(header["piece"][:2])
    return found


def state(folder):
    """What a cancelled extraction must leave as it found it: entries, threads, torch's settings, the model's hooks."""
    import torch

    model = language_model.load_model(model_info("demo"))
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.model.modules())
    return {
        "files": sorted({path for path in folder.rglob("*") if path.is_file()} - pieces_in(folder).keys()),
        "threads": set(threading.enumerate()),
        "hooks": hooks,
        "torch": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()),
        "locked": (model.lock.locked(), models.LOADING.locked()),
    }


@pytest.mark.parametrize("last_token", [True, False])
def test_cancelled_at_every_call_leaves_no_half_entry_and_the_next_call_gives_the_same(
    tmp_path, monkeypatch, last_token
):
    # one window a batch: batches that grow with the machine's speed change the last digits
    monkeypatch.setattr("encoding_nb.features.language_model._most_tokens", lambda _: 1)
    spec = ActivationSpec("demo", lookback=4, context_type="halfcontext", last_token=last_token)
    first, second = WORDS[:14], WORDS[14:]
    calls = []
    expected = layer_activations(second, spec, layer_idx=2, progress=lambda *step: calls.append(step))
    assert len(calls) > 5 and calls[0] == (0, 1) and 0 < calls[1][0] < calls[-1][0] == calls[-1][1]
    layer_activations(first, spec, layer_idx=2, memory=tmp_path)
    before = state(tmp_path)
    assert len(before["files"]) == model_info("demo").n_layers + 1

    def cancel_at(number, seen):
        def progress(done, total):
            assert threading.current_thread() is threading.main_thread()
            assert state(tmp_path) == before
            seen.append((done, total))
            if len(seen) == number:
                raise Cancelled

        return progress

    for number in range(1, len(calls) + 1):
        seen = []
        with pytest.raises(Cancelled):
            layer_activations(second, spec, layer_idx=2, memory=tmp_path, progress=cancel_at(number, seen))
        assert seen == calls[:number]
        assert state(tmp_path) == before
        kept = pieces_in(tmp_path)
        assert list(kept.values()) == ([(0, number - 1)] if number > 1 else []), "one window a batch"
        for path in kept:
            path.unlink()
        assert is_cached(first, spec, 2, tmp_path) and not is_cached(second, spec, 2, tmp_path)
        assert layer_activations(second, spec, layer_idx=2).tobytes() == expected.tobytes()
    found = layer_activations(second, spec, layer_idx=2, memory=tmp_path)
    with pytest.raises(Cancelled):
        layer_activations(second, spec, layer_idx=2, memory=tmp_path, progress=raising(Cancelled()))
    kept = layer_activations(second, spec, layer_idx=2, memory=tmp_path)
    assert found.tobytes() == kept.tobytes() == expected.tobytes()


def raising(error):
    """A progress function that raises this."""

    def progress(done, total):
        raise error

    return progress


@pytest.mark.parametrize(
    "error", [ValueError("mine"), ModelError("mine"), RuntimeError(), KeyboardInterrupt()]
)
def test_what_a_progress_function_raises_comes_out_as_it_is(tmp_path, error):
    before = state(tmp_path)
    with pytest.raises(type(error)) as raised:
        layer_activations(WORDS, SPEC, layer_idx=1, memory=tmp_path, progress=raising(error))
    assert raised.value is error
    assert state(tmp_path) == before


def test_progress_reaches_its_total():
    seen = []
    layer_activations(WORDS, SPEC, layer_idx=1, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("change", "layer", "field", "message"),
    [
        ({}, 5, "layer_idx", r"Layer 5 is out of range: .* layers 0 \(the embedding\) to 4"),
        ({}, -1, "layer_idx", "Layer -1 is out of range"),
        ({}, 1.5, "layer_idx", "Expected the layer as a whole number, got 1.5"),
        ({}, "3", "layer_idx", "Expected the layer as a whole number, got '3'"),
        (
            {"lookback": 512},
            1,
            "lookback",
            "context is 512 tokens, one of them BOS; choose a lookback from 1 to 511",
        ),
        (
            {"lookback": 400, "stride": 200, "context_type": "strided"},
            1,
            "stride",
            "choose a stride from 1 to 111",
        ),
        ({"lookback": 300, "context_type": "strided"}, 1, "lookback", "choose a lookback from 1 to 255"),
        (
            {"lookback": 0},
            1,
            "lookback",
            r"lookback \(in tokens\) must be a whole number of 1 or more, got 0",
        ),
        (
            {"context_type": "window"},
            1,
            "context_type",
            "Unknown context type 'window'; choose one of fullcontext",
        ),
        ({"processing": "folded"}, 1, "processing", "Unknown processing 'folded'"),
        ({"dtype": "int8"}, 1, "dtype", "Unknown dtype 'int8'"),
        ({"revision": "main"}, 1, "model_name", "is a local folder, which has no revisions"),
        ({"model_name": "gpt2-smal"}, 1, "model_name", "did you mean one of gpt2-small"),
    ],
)
def test_problems_are_found_before_any_work(monkeypatch, change, layer, field, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(activations, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    spec = dataclasses.replace(SPEC, **change)
    assert field in check_spec(spec, layer_idx=layer)
    with pytest.raises(ValueError, match=message):
        layer_activations(WORDS, spec, layer_idx=layer)


def test_the_largest_lookback_fits(families):
    found = layer_activations(WORDS * 3, ActivationSpec(families["opt"][0], lookback=63), layer_idx=3)
    assert np.isfinite(found).all()
    assert check_spec(ActivationSpec(families["opt"][0], lookback=64), layer_idx=3).keys() == {"lookback"}


def test_litcoder_processing_is_refused_for_an_encoder(families):
    problems = check_spec(ActivationSpec(families["bert"][0], lookback=8, processing="litcoder"), layer_idx=1)
    assert "BertForMaskedLM" in problems["processing"]


def test_half_precision_never_runs_on_a_cpu():
    for dtype in ("float16", "bfloat16"):
        with pytest.raises(ModelError, match=f"{dtype} needs a GPU"):
            layer_activations(WORDS, dataclasses.replace(SPEC, dtype=dtype), layer_idx=1, device="cpu")


@pytest.mark.parametrize(
    ("words", "contexts", "message"),
    [
        ([], None, "one or more words, .* got a list"),
        ("the raise statement", None, "got the text 'the raise statement'"),
        (["", " "], None, "got 2 words, none with text"),
        (["a", "b"], ["a"], "got 1 texts for 2 words"),
    ],
)
def test_words_that_cannot_be(words, contexts, message):
    with pytest.raises(ValueError, match=message):
        layer_activations(words, SPEC, layer_idx=1, contexts=contexts)


def test_words_of_a_story_and_a_models_name_are_told_apart_from_what_is_wanted():
    words = Words(("a", "b"), [0.0, 1.0], [0.5, 1.5])
    with pytest.raises(ValueError, match=r"such as words.text, got a Words"):
        layer_activations(words, ActivationSpec("demo", lookback=4), layer_idx=1)
    with pytest.raises(ValueError, match=r"such as story.words.text, got None"):
        layer_activations(None, ActivationSpec("demo", lookback=4), layer_idx=1)
    with pytest.raises(
        TypeError, match=r"Expected an ActivationSpec, got 'demo'; for example ActivationSpec\('demo', look"
    ):
        layer_activations(words.text, "demo", layer_idx=1)


def test_a_cache_in_the_home_folder_is_found_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store_folder("~/cache") == store_folder(tmp_path / "cache") == store_folder(Path("~/cache"))


def test_a_model_in_the_home_folder_is_the_same_model(tmp_path, monkeypatch):
    shutil.copytree(model_info("demo").folder, tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model_info("~/model").folder == tmp_path / "model"
    written, whole = (ActivationSpec(name, lookback=4) for name in ("~/model", str(tmp_path / "model")))
    layer_activations(("a", "b"), written, layer_idx=1, memory=tmp_path / "cache")
    assert activations.activations_cached(("a", "b"), whole, 1, tmp_path / "cache")


def test_a_model_that_does_not_fit_is_refused_with_both_sizes(monkeypatch):
    language_model._LOADED.clear()
    monkeypatch.setattr(_machine, "free_memory", lambda: 1_000_000)
    with pytest.raises(ModelError, match=r"needs about 0\.0 GB of memory on cpu and 0\.0 GB are free"):
        layer_activations(WORDS, SPEC, layer_idx=1)


# ---------------------------------------------------------------------- models by name


def test_model_info_reads_no_weights(tmp_path):
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(Path(TINY) / name, tmp_path)
    info = model_info(str(tmp_path))
    assert (info.n_layers, info.d_model, info.n_ctx, info.on_this_machine) == (4, 64, 512, False)
    whole = model_info(TINY)
    assert whole.on_this_machine
    assert whole.n_parameters == made_model("gpt2").num_parameters()
    assert whole.n_bytes == 4 * whole.n_parameters
    assert abs(info.n_parameters / whole.n_parameters - 1) < 0.15, "the estimate without weights is near"


def test_model_info_of_every_family(families):
    for folder, model in families.values():
        info = model_info(folder)
        config = model.config
        assert (info.n_layers, info.d_model) == (config.num_hidden_layers, config.hidden_size)
        assert info.n_ctx == config.max_position_embeddings
        assert info.n_parameters == model.num_parameters()


def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_names_that_are_not_here_are_refused_at_once(monkeypatch, tmp_path):
    offline(monkeypatch, tmp_path)
    with pytest.raises(ModelError, match="gpt2-medium is not on this machine, and HF_HUB_OFFLINE is set"):
        model_info("gpt2-medium")
    with pytest.raises(
        ModelError, match=r"Unknown model 'facebook/opt125m' .* did you mean one of facebook/opt-125m"
    ):
        model_info("facebook/opt125m")
    with pytest.raises(ModelError, match="this folder does not exist"):
        model_info("/nowhere/at/all")
    with pytest.raises(ModelError, match=r"no config\.json"):
        model_info(str(tmp_path))


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch, tmp_path):
    offline(monkeypatch, tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)

    def refused(*_, **__):
        raise OSError("no route")

    def silent(*_, **__):
        threading.Event().wait(5)
        raise TimeoutError("no answer")

    monkeypatch.setattr(models, "_PATIENCE", 0.2)
    for answer in (refused, silent):
        monkeypatch.setattr("socket.create_connection", answer)
        with pytest.raises(
            ModelError, match=r"gpt2-small is not on this machine, and huggingface\.co cannot be reached"
        ):
            model_info("gpt2-small")


def test_a_download_that_stopped_halfway_is_not_on_this_machine(tmp_path):
    shutil.copytree(TINY, tmp_path / "model")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not model_info(str(tmp_path / "model")).on_this_machine


def test_a_hub_model_on_this_machine_needs_no_network(monkeypatch, tmp_path):
    offline(monkeypatch, tmp_path)
    repository = tmp_path / "models--gpt2"
    commit = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    shutil.copytree(TINY, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    info = model_info("gpt2-small")
    assert (info.n_layers, info.on_this_machine) == (4, True)
    assert identity(info.folder) == f"gpt2@{commit}"
    assert available_models()[0].name in ("demo", "gpt2")
    assert "gpt2" in [m.name for m in available_models()[:2]]
    found = layer_activations(WORDS, ActivationSpec("gpt2-small", lookback=8), layer_idx=2)
    assert_same(found, layer_activations(WORDS, SPEC, layer_idx=2))


def test_available_models_starts_with_the_well_known_ones(monkeypatch, tmp_path):
    offline(monkeypatch, tmp_path)
    names = [model.name for model in available_models()]
    assert len(names) == len(set(names)) > 10_000
    assert {"gpt2-small", "gpt2-medium", "facebook/opt-125m"} <= set(names[:8])
    assert "EleutherAI/pythia-70m" in names


def test_identity_follows_the_weights_and_not_the_place(tmp_path):
    shutil.copytree(TINY, tmp_path / "copy")
    assert identity(tmp_path / "copy") == identity(Path(TINY))
    weights = tmp_path / "copy" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert identity(tmp_path / "copy") != identity(Path(TINY))


def test_a_folder_is_digested_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCODING_NB_CACHE", str(tmp_path / "cache"))
    shutil.copytree(TINY, tmp_path / "copy")
    first = identity(tmp_path / "copy")
    (noted,) = (tmp_path / "cache" / "digests").iterdir()
    assert f"sha256:{noted.read_text()}" == first
    models._digest.cache_clear()  # as in a new kernel
    monkeypatch.setattr(models, "digest_of_file", lambda _: pytest.fail("the weights were read again"))
    assert identity(tmp_path / "copy") == first


# ---------------------------------------------------------------------- the cache


@pytest.fixture
def warm(tmp_path):
    """A cache that holds WORDS, and their layer 2."""
    return tmp_path, layer_activations(WORDS, SPEC, layer_idx=2, memory=tmp_path)


def layer_files(folder):
    """The files of a cache, {layer: path}."""
    found = {}
    for path in folder.rglob("array.zip"):
        with zipfile.ZipFile(path) as file:
            found[json.loads(file.read("header.json"))["layer"]] = path
    return found


def no_model(monkeypatch):
    monkeypatch.setattr(activations, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))


def test_every_layer_is_kept_and_read_without_the_model(warm, monkeypatch):
    folder, computed = warm
    assert sorted(layer_files(folder)) == [0, 1, 2, 3, 4]
    no_model(monkeypatch)
    assert np.array_equal(layer_activations(WORDS, SPEC, layer_idx=2, memory=folder), computed), (
        "kept without loss"
    )
    for layer in (0, 1, 3, 4):
        assert is_cached(WORDS, SPEC, layer, folder)
        assert np.isfinite(
            layer_activations(tuple(WORDS), SPEC, layer_idx=layer, memory=Memory(folder, verbose=0))
        ).all()


def test_only_the_layer_that_is_asked_for_is_read(warm):
    folder, _ = warm
    for layer, path in layer_files(folder).items():
        if layer != 3:
            path.write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer_activations(WORDS, SPEC, layer_idx=3, memory=folder)


@pytest.mark.parametrize(
    "change",
    [
        {"lookback": 9},
        {"context_type": "nocontext"},
        {"context_type": "strided", "stride": 4},
        {"last_token": False},
        {"storage": "float16"},
        {"dtype": "float16"},
    ],
)
def test_what_changes_a_value_is_a_miss(warm, change):
    folder, _ = warm
    assert not is_cached(WORDS, dataclasses.replace(SPEC, **change), 2, folder)


def test_other_words_windows_models_and_versions_are_misses(warm, tmp_path_factory, monkeypatch):
    folder, _ = warm
    assert not is_cached([*WORDS[:-1], "them"], SPEC, 2, folder)
    assert not is_cached(WORDS[:-1], SPEC, 2, folder)
    assert not is_cached(
        WORDS, SPEC, 2, folder, contexts=[" ".join(WORDS[: i + 1]) for i in range(len(WORDS))]
    )
    other = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(TINY, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 1e-3}))
    assert not is_cached(WORDS, dataclasses.replace(SPEC, model_name=str(other)), 2, folder)
    monkeypatch.setattr(activations, "CACHE_VERSION", activations.CACHE_VERSION + 1)
    assert not is_cached(WORDS, SPEC, 2, folder)


def test_what_changes_nothing_is_a_hit(warm, tmp_path_factory, monkeypatch):
    folder, computed = warm
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    shutil.copytree(TINY, moved)
    no_model(monkeypatch)
    for spec in (
        dataclasses.replace(SPEC, model_name=str(moved)),
        dataclasses.replace(SPEC, stride=99),
        dataclasses.replace(SPEC, processing="litcoder"),
    ):
        assert is_cached(np.array(WORDS), spec, 2, folder)
    assert np.array_equal(
        layer_activations(WORDS, SPEC, layer_idx=2, memory=str(folder), device="cpu"), computed
    )


def damage_truncate(raw, rng):
    return raw[: int(rng.integers(0, len(raw)))]


def damage_flip(raw, rng):
    at = int(rng.integers(0, len(raw)))
    return raw[:at] + bytes([raw[at] ^ (1 << int(rng.integers(0, 8)))]) + raw[at + 1 :]


def damage_swap(raw, rng):
    """Another story's file, whole, in this one's place."""
    with tempfile.TemporaryDirectory() as folder:
        write_array(Path(folder), "another story", np.zeros((2, 3), np.float32), {})
        return entry_path(Path(folder), "another story").read_bytes()


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_swap])
def test_a_damaged_entry_is_noticed_and_computed_again(warm, damage):
    folder, computed = warm
    path = layer_files(folder)[2]
    raw = path.read_bytes()
    noticed = 0
    for seed in range(8):
        path.write_bytes(damage(raw, np.random.default_rng(seed)))
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            found = layer_activations(WORDS, SPEC, layer_idx=2, memory=folder)
        noticed += any("computing its features again" in str(w.message) for w in heard)
        assert_same(found, computed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(layer_activations(WORDS, SPEC, layer_idx=2, memory=folder), found), (
                "and repaired"
            )
    assert noticed >= 7, "all but a byte of the zip file's directory that decides nothing"


def test_any_flipped_byte_of_a_file_is_noticed_or_changes_nothing(tmp_path):
    array = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    write_array(tmp_path, "k", array, {"layer": 1})
    path = entry_path(tmp_path, "k")
    raw, unnoticed = path.read_bytes(), 0
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for at in range(len(raw)):
            for bit in range(8):
                path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :])
                found = read_array(tmp_path, "k")
                unnoticed += found is not None
                assert found is None or found[0].tobytes() == array.tobytes()
        assert len(heard) == 8 * len(raw) - unnoticed
        for length in range(len(raw)):
            path.write_bytes(raw[:length])
            assert read_array(tmp_path, "k") is None


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(500, 64), (2000,), (0, 4), (1, 1)])
def test_an_array_of_any_shape_comes_back_without_loss(tmp_path, dtype, shape):
    array = np.random.default_rng(0).normal(0, 30, shape).astype(dtype)
    odd = [0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).tiny, np.finfo(dtype).max]
    array.flat[: len(odd)] = odd[: array.size]
    header = {"model": "any", "n_words": 3}
    assert write_array(tmp_path, "k", array, header)
    found, described = read_array(tmp_path, "k")
    assert found.tobytes() == array.tobytes() and found.shape == shape and found.dtype == dtype
    assert header.items() <= described.items()
    if array.size > 10_000:
        assert entry_path(tmp_path, "k").stat().st_size < 0.9 * array.nbytes


def test_files_of_an_older_version_are_counted_and_pruned_and_not_read(warm):
    folder, _ = warm
    old = folder / "joblib" / "encoding_nb" / "activations" / "story-0" / ("a" * 32) / "2.layer"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"encoding_nb activations 1\n")
    os.utime(old, (time.time() - 7200,) * 2)
    info = cache_info(folder)
    assert info.by_model == {TINY: (5, info.n_bytes - 26), "older version": (1, 26)}
    assert prune_cache(folder, max_bytes=info.n_bytes - 1) == 26
    assert not old.parent.parent.exists() and len(layer_files(folder)) == 5


WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from encoding_nb.features.cache import write_array
folder, seed, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
array = np.full((400, 256), seed, dtype=np.float32)
print("started", flush=True)
until = time.monotonic() + seconds
while time.monotonic() < until:
    for layer in range(3):
        assert write_array(folder, f"k{layer}", array, {"model": "made", "seed": seed})
"""


def start_writer(folder, seed, seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(seed), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "started\n"
    return process


def test_two_writers_at_once_never_mix(tmp_path):
    writers = [start_writer(tmp_path, seed, 1.5) for seed in (1, 2)]
    seen = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while any(writer.poll() is None for writer in writers):
            kept = read_array(tmp_path, "k1")
            if kept is not None:
                assert np.unique(kept[0]) == kept[1]["seed"], "a file is one writer's"
                seen.add(float(kept[1]["seed"]))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == {1.0, 2.0}
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"array.zip"}


def test_a_killed_writer_leaves_whole_files_only(tmp_path):
    for attempt in range(4):
        writer = start_writer(tmp_path, 7, 30)
        time.sleep(0.03 + 0.02 * attempt)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for layer in range(3):
                kept = read_array(tmp_path, f"k{layer}")
                assert kept is None or (kept[0] == 7).all()


# stops half-way through the bytes, or with all of them under the other name
HALTED_WRITER = """
import os, sys, time
import numpy as np
from pathlib import Path
from zipfile import ZipFile
from encoding_nb.features import cache

def halt(*_):
    print("halted", flush=True)
    time.sleep(600)

write = ZipFile.writestr
def half(file, name, data, *given, **named):
    write(file, name, data, *given, **named)
    if name == "byte1":
        file.fp.flush()
        halt()

if sys.argv[2] == "replace":
    os.replace = halt
else:
    ZipFile.writestr = half
array = np.full((400, 256), 9, dtype=np.float32)
cache.write_array(Path(sys.argv[1]), "k", array, {})
"""


@pytest.mark.parametrize("before", [False, True], ids=("new", "replaced"))
@pytest.mark.parametrize("where", ["writestr", "replace"])
def test_a_writer_killed_in_the_midst_of_it_leaves_what_was_there(tmp_path, where, before):
    old = np.full((400, 256), 7, dtype=np.float32)
    if before:
        write_array(tmp_path, "k", old, {})
    command = [sys.executable, "-c", HALTED_WRITER, str(tmp_path), where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "halted\n"
        writer.kill()
    (part,) = (path for path in tmp_path.rglob("*.zip") if path.name != "array.zip")
    assert part.stat().st_size > 10_000, "the kill fell in the midst of writing"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = read_array(tmp_path, "k")
        assert np.array_equal(kept[0], old) if before else kept is None
        new = np.full((400, 256), 8, dtype=np.float32)
        write_array(tmp_path, "k", new, {})
        assert np.array_equal(read_array(tmp_path, "k")[0], new)


def test_what_a_killed_writer_left_is_counted_and_pruned(warm):
    folder, _ = warm
    part = layer_files(folder)[0].with_name(".array-abc.zip")
    part.write_bytes(b"half")
    os.utime(part, (time.time() - 7200,) * 2)
    info = cache_info(folder)
    assert info.by_model["unfinished"] == (1, 4)
    assert prune_cache(folder, max_bytes=info.n_bytes - 1) == 4
    assert len(layer_files(folder)) == 5


FULL_DISK = """
import resource, signal, sys, warnings
import numpy as np
from pathlib import Path
from encoding_nb.features.cache import write_array
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    kept = write_array(Path(sys.argv[1]), "k", np.random.default_rng(0).normal(size=(200, 100)), {})
print(kept, len(said), said[0].message)
"""


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path):
    printed = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith("False 1 Features could not be kept")
    assert "used now and computed again next time" in printed
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("in_place_of", ["joblib", "joblib/encoding_nb", "joblib/encoding_nb/activations"])
def test_a_cache_whose_place_is_taken_by_a_file_is_said(tmp_path, in_place_of):
    taken = tmp_path / in_place_of
    taken.parent.mkdir(parents=True, exist_ok=True)
    taken.write_text("a file")
    with pytest.warns(UserWarning, match="could not be kept in .*give another folder"):
        assert not write_array(store_folder(tmp_path), "k", np.ones((2, 3), np.float32), {})
    with pytest.warns(UserWarning, match="could not be kept"):
        found = layer_activations(WORDS, SPEC, layer_idx=2, memory=tmp_path)
    assert_same(found, layer_activations(WORDS, SPEC, layer_idx=2))
    assert taken.read_text() == "a file"


def test_activations_are_used_though_they_cannot_be_kept(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    expected = layer_activations(WORDS, SPEC, layer_idx=2)
    monkeypatch.setattr("os.replace", full)
    with pytest.warns(UserWarning, match="No space left on device") as said:
        found = layer_activations(WORDS, SPEC, layer_idx=2, memory=tmp_path)
    assert len(said) == 1, "said once, not for every layer"
    assert_same(found, expected)


def test_a_layer_is_its_share_of_the_entry_and_the_entry_is_smaller_than_its_arrays(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(0, 1 + layer, (200, 768)).astype(np.float32) for layer in range(13)]
    for layer, array in enumerate(arrays):
        write_array(tmp_path, f"k{layer}", array, {"layer": layer})
    sizes = [path.stat().st_size for path in layer_files(tmp_path).values()]
    assert max(sizes) <= 1.3 / 13 * sum(sizes)
    assert sum(sizes) < 0.9 * sum(array.nbytes for array in arrays)


def test_cache_info_counts_by_model_and_pruning_takes_the_least_used(warm, families):
    folder, _ = warm
    layer_activations(WORDS, ActivationSpec(families["opt"][0], lookback=8), layer_idx=0, memory=folder)
    info = cache_info(folder)
    assert {model: n for model, (n, _) in info.by_model.items()} == {TINY: 5, families["opt"][0]: 4}
    files = [path for path in folder.rglob("array.zip")]
    assert (
        info.n_bytes
        == sum(path.stat().st_size for path in files)
        == sum(b for _, b in info.by_model.values())
    )
    for path in files:
        os.utime(path, (time.time() - 1000,) * 2)
    layer_activations(WORDS, SPEC, layer_idx=3, memory=folder)
    limit = info.n_bytes // 3
    freed = prune_cache(folder, max_bytes=limit)
    assert info.n_bytes - freed == cache_info(folder).n_bytes <= limit
    assert is_cached(WORDS, SPEC, 3, folder), "what was just read stays"
    assert prune_cache(folder, max_bytes=0) > 0
    assert cache_info(folder).n_entries == 0


def test_joblib_can_clear_and_shrink_it_too(warm):
    folder, _ = warm
    memory = Memory(folder, verbose=0)
    whole = cache_info(memory).n_bytes
    memory.reduce_size(bytes_limit=whole // 2)
    assert 0 < cache_info(memory).n_bytes <= whole // 2
    memory.clear(warn=False)
    assert cache_info(memory).n_entries == 0


def test_no_memory_keeps_nothing(tmp_path):
    assert not is_cached(WORDS, SPEC, 1, None)
    assert not is_cached(WORDS, SPEC, 1, Memory(None))
    layer_activations(WORDS, SPEC, layer_idx=1, memory=Memory(None))
    assert cache_info(None).n_entries == 0


def test_float16_storage_is_half_the_size_and_rounds(tmp_path):
    exact = layer_activations(WORDS, SPEC, layer_idx=2, memory=tmp_path / "a")
    spec = dataclasses.replace(SPEC, storage="float16")
    found = layer_activations(WORDS, spec, layer_idx=2, memory=tmp_path / "b")
    assert np.array_equal(found, exact.astype(np.float16).astype(np.float32))
    assert np.array_equal(layer_activations(WORDS, spec, layer_idx=2, memory=tmp_path / "b"), found)
    assert cache_info(tmp_path / "b").n_bytes < 0.7 * cache_info(tmp_path / "a").n_bytes


def test_numbers_too_large_for_float16_stay_in_float32(tmp_path, monkeypatch):
    large = np.full((len(WORDS), 64), 7e4, np.float32)
    monkeypatch.setattr(
        activations, "extract", lambda model, windows, layers, **_: dict.fromkeys(layers, large)
    )
    spec = dataclasses.replace(SPEC, storage="float16")
    with pytest.warns(UserWarning, match="layer 3: 1728 numbers are too large for storage='float16'"):
        layer_activations(WORDS, spec, layer_idx=3, memory=tmp_path)
    assert np.array_equal(layer_activations(WORDS, spec, layer_idx=3, memory=tmp_path), large)


def test_the_default_memory_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCODING_NB_CACHE", str(tmp_path / "here"))
    layer_activations(WORDS, SPEC, layer_idx=1, memory=activations.default_memory())
    assert cache_info(tmp_path / "here").n_entries == 5


def test_the_users_cache_may_be_named_from_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ENCODING_NB_CACHE", "~/kept")
    assert cache_folder() == tmp_path / "kept"
