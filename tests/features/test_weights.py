"""Weights that do not fit their configuration are refused before anything is computed; those that fit are loaded."""

import json
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from encoding_nb.features import (
    ActivationSpec,
    ModelError,
    cache_info,
    check_spec,
    language_model,
    layer_activations,
    load_tokenizer,
    model_info,
)

TINY = Path(__file__).parents[1] / "golden" / "hf" / "tiny-gpt2"
WORDS = "the raise statement is used to generate exceptions".split()
FORMATS = ("safetensors", "bin", "shards")


def tensors():
    from safetensors.torch import load_file

    return load_file(TINY / "model.safetensors")


def made(folder, weights, form="safetensors", **config):
    """TINY's folder with other weights, in one of FORMATS."""
    import torch
    from safetensors.torch import save_file

    shutil.copytree(TINY, folder)
    (folder / "model.safetensors").unlink()
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | config))
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    if form == "safetensors":
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    elif form == "bin":
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        names = sorted(weights)
        halves = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
        for file, own in halves.items():
            save_file({name: weights[name] for name in own}, folder / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": {name: file for file, own in halves.items() for name in own}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def features(folder, **options):
    return layer_activations(WORDS, ActivationSpec(str(folder), lookback=8), layer_idx=2, **options)


def without(weights, part):
    return {name: tensor for name, tensor in weights.items() if part not in name}


MISFITS = {
    "torch.compile": (
        lambda w: {f"_orig_mod.{name}": tensor for name, tensor in w.items()},
        r"tensors are missing \(transformer\.h\.0\.attn.*the model does not know \(_orig_mod\..*torch.compile",
    ),
    "DDP": (
        lambda w: {f"module.{name}": tensor for name, tensor in w.items()},
        r"names that the model does not know \(module\.transformer.*DDP: save `model.module`",
    ),
    "a block lacks its attention": (
        lambda w: without(w, "h.2.attn"),
        r"4 tensors are missing \(transformer\.h\.2\.attn\.c_attn\.bias, .*\.\.\.\)\. The files are incomplete",
    ),
    "no embedding": (lambda w: without(w, "wte"), r"tensors are missing \(transformer\.wte\.weight\)"),
    "another width": (
        lambda w: w | {"transformer.h.1.mlp.c_fc.weight": w["transformer.h.1.mlp.c_fc.weight"][:, :100]},
        r"1 have another shape \(transformer\.h\.1\.mlp\.c_fc\.weight \(64, 100\), expected \(64, 256\)\)",
    ),
    "PEFT": (
        lambda w: {name.replace("c_attn.", "c_attn.base_layer."): tensor for name, tensor in w.items()},
        r"8 have names that the model does not know .*PEFT: save `model\.merge_and_unload\(\)`",
    ),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("misfit", MISFITS)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_kept(tmp_path, misfit, form):
    edit, says = MISFITS[misfit]
    folder = made(tmp_path / "model", edit(tensors()), form)
    with pytest.raises(ModelError, match=says) as raised:
        features(folder, memory=tmp_path / "cache")
    assert str(folder) in str(raised.value) and "do not fit its config.json" in str(raised.value)
    assert cache_info(tmp_path / "cache").n_entries == 0


@pytest.mark.parametrize("form", FORMATS)
def test_weights_of_whole_numbers_are_refused_and_masks_are_not(tmp_path, form):
    import torch

    weights = tensors()
    mask = torch.ones(1, 1, 512, 512, dtype=torch.uint8)  # in files of older versions
    features(made(tmp_path / "masked", weights | {"transformer.h.0.attn.bias": mask}, form))
    weights["transformer.h.1.mlp.c_fc.weight"] = (30 * weights["transformer.h.1.mlp.c_fc.weight"]).to(
        torch.int8
    )
    with pytest.raises(
        ModelError, match=r"1 of its weights are whole numbers \(transformer\.h\.1\.mlp\.c_fc"
    ):
        features(made(tmp_path / "quantized", weights, form))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_files_of_any_float_are_read(tmp_path, dtype):
    import torch

    folder = made(tmp_path / "model", {n: t.to(getattr(torch, dtype)) for n, t in tensors().items()})
    np.testing.assert_allclose(features(folder), features(TINY), rtol=0, atol=0.3)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"n_layer": 6}, r"24 tensors are missing \(transformer\.h\.4\."),
        ({"vocab_size": 1600}, r"transformer\.wte\.weight \(1500, 64\), expected \(1600, 64\)"),
        ({"n_embd": 32}, "have another shape"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "tensors are missing"),
    ],
)
def test_a_configuration_of_another_model_is_refused(tmp_path, config, says):
    with pytest.raises(ModelError, match=says):
        features(made(tmp_path / "model", tensors(), **config))


@pytest.mark.parametrize("layers", [{"num_hidden_layers": 3}, {"num_hidden_layers": 5}, {"n_layers": 6}])
def test_a_configuration_that_names_the_layers_twice_gives_no_layer_of_zeros(tmp_path, layers):
    folder = made(tmp_path / "model", tensors(), **layers)
    n_layers = model_info(str(folder)).n_layers
    try:
        last = layer_activations(WORDS, ActivationSpec(str(folder), lookback=8), layer_idx=n_layers)
    except ModelError as error:
        assert "tensors are missing" in str(error) or "blocks; does config.json name the layers twice" in str(
            error
        )
    else:
        assert np.abs(last).max() > 0.1


def test_random_values_that_transformers_gives_are_noticed_even_after_loading(tmp_path, monkeypatch):
    # a consolidated copy has what the file that is read lacks
    folder = made(tmp_path / "model", without(tensors(), "h.2.attn"))
    shutil.copy(TINY / "model.safetensors", folder / "consolidated.safetensors")
    with pytest.raises(ModelError, match=r"4 tensors are missing \(transformer\.h\.2"):
        features(folder)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_and_names_without_their_prefix_give_the_same(tmp_path, form):
    expected = features(TINY)
    language_model._LOADED.clear()
    whole = made(tmp_path / "whole", tensors(), form)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors().items()}
    bare = made(tmp_path / "bare", bare, form)
    for folder in (whole, bare):
        np.testing.assert_array_equal(features(folder), expected)


def without_head(weights):
    return {name: tensor for name, tensor in weights.items() if not name.startswith(("lm_head", "cls."))}


@pytest.mark.parametrize("head", [True, False], ids=["with its head", "without"])
@pytest.mark.parametrize("family", ["llama", "llama tied", "neox", "opt", "bert", "gpt2 untied"])
def test_a_head_may_be_missing(tmp_path, family, head):
    """It is not used: residual streams end before it."""
    import torch
    import transformers as hf

    sizes = {
        "vocab_size": 1500,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    wide, tied = sizes | {"intermediate_size": 64}, family.endswith(" tied")
    models = {
        "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**wide, tie_word_embeddings=tied)),
        "neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**wide)),
        "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(**sizes, ffn_dim=64, word_embed_proj_dim=32)),
        "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**wide)),
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(vocab_size=1500, n_embd=32, n_layer=3, n_head=2, tie_word_embeddings=False)
        ),
    }
    torch.manual_seed(0)
    model = models[family.split()[0]]().eval()
    model.save_pretrained(tmp_path, state_dict=None if head else without_head(model.state_dict()))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, tmp_path)
    found = layer_activations(WORDS[:1], ActivationSpec(str(tmp_path), lookback=8), layer_idx=2)
    with torch.no_grad():
        ids = torch.tensor([[0, *load_tokenizer(tmp_path)(WORDS[0], add_special_tokens=False)["input_ids"]]])
        expected = model(ids, output_hidden_states=True).hidden_states[2][0, -1]
    np.testing.assert_allclose(found[0], expected.numpy(), rtol=0, atol=2e-6)


# ---------------------------------------------------------------------- files that ask for too much


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"n_layer": 100_000}, r"expected at most 1,000 layers in .*config\.json, got 100000 \(n_layer\)"),
        ({"n_layer": 4, "num_hidden_layers": 10**9}, "at most 1,000 layers"),
        ({"n_layer": 10**400}, "at most 1,000 layers"),
        ({"text_config": {"n_layer": 2001}}, "at most 1,000 layers"),
        ({"n_layer": 900}, "describes a model that is much larger than its weights"),
        ({"n_embd": 10**40}, "expected layers and a width"),
        ({"vocab_size": 2**31 - 1}, r"wte\.weight \(1500, 64\), expected \(2147483647, 64\)"),
        ({"n_positions": 2**31 - 1}, r"wpe\.weight \(512, 64\), expected \(2147483647, 64\)"),
        ({"n_inner": 2**31 - 1}, "have another shape"),
    ],
)
def test_a_configuration_that_builds_more_than_the_files_hold_is_refused_at_once(tmp_path, config, says):
    folder = made(tmp_path / "model", tensors(), **config)
    started = time.monotonic()
    with pytest.raises(ModelError, match=says):
        features(folder)
    assert time.monotonic() - started < 10


def test_tables_that_are_computed_need_memory_too(tmp_path):
    """Of sines of positions, for example: they are in no file."""
    import transformers as hf

    config = hf.GPTJConfig(vocab_size=1500, n_embd=32, n_layer=2, n_head=2, n_positions=64, rotary_dim=8)
    hf.GPTJForCausalLM(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | {"n_positions": 2**31 - 1}))
    with pytest.raises(ModelError, match=r"The tables of .* need \d+\.\d GB of memory on cpu"):
        features(tmp_path)


HEADERS = {
    "huge numbers": json.dumps(
        {"a": {"dtype": "F32", "shape": [10**4000] * 300, "data_offsets": [0, 4]}}
    ).encode(),
    "a shape that is not there": json.dumps(
        {"a": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 4]}}
    ).encode(),
    "nested": b"[" * 100_000,
    "nested in a tensor": b'{"a":' * 50_000,
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_of_weights_that_cannot_be_is_refused_at_once(tmp_path, header):
    folder, started = made(tmp_path / "model", tensors()), time.monotonic()
    (folder / "model.safetensors").write_bytes(
        struct.pack("<Q", len(HEADERS[header])) + HEADERS[header] + b"\0" * 4
    )
    assert model_info(str(folder)).n_layers == 4, "of the configuration, which is fine"
    with pytest.raises(ModelError, match=r"cannot be loaded .*copy or download the model again"):
        features(folder)
    assert time.monotonic() - started < 10


def test_a_length_of_a_header_that_is_too_large_is_refused(tmp_path):
    folder = made(tmp_path / "model", tensors())
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        features(folder)


def test_a_compressed_file_of_torch_is_refused_before_it_is_unpacked(tmp_path):
    import zipfile

    folder = made(tmp_path / "model", tensors(), "bin")
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * 50_000_000)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is compressed"):
        features(folder)


# ---------------------------------------------------------------------- tokenizers and embeddings


def with_token(folder, token, text, *, special):
    """TINY with one token more in its tokenizer."""
    shutil.copytree(TINY, folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens([text], special_tokens=special)
    assert tokenizer.convert_tokens_to_ids(text) == token
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_a_problem_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "encoding_nb.features.activations.load_model", lambda *_, **__: pytest.fail("the model was loaded")
    )
    folder = with_token(tmp_path / "model", 1500, "uhm", special=False)
    says = check_spec(ActivationSpec(str(folder), lookback=4), layer_idx=1)
    assert says.keys() == {"model_name"}
    assert "'uhm' has id 1500, and the embedding has 1500 rows (ids 0 to 1499)" in says["model_name"]
    with pytest.raises(ModelError, match="has a token that the model does not know: 'uhm'"):
        features(folder)


def test_a_special_token_without_a_row_is_refused_only_where_the_text_has_it(tmp_path):
    """Gemma 3 is published with such a token, for images."""
    folder = with_token(tmp_path / "model", 1500, "<image>", special=True)
    spec = ActivationSpec(str(folder), lookback=4)
    assert check_spec(spec, layer_idx=1) == {}
    np.testing.assert_array_equal(features(folder), features(TINY))
    with pytest.raises(ModelError, match="'<image>' has id 1500, and the embedding has 1500 rows"):
        layer_activations([*WORDS, "<image>"], spec, layer_idx=1)


def test_a_token_without_a_row_is_refused_though_the_configuration_does_not_say_how_many(tmp_path):
    folder = with_token(tmp_path / "model", 1500, "uhm", special=False)
    config = json.loads((folder / "config.json").read_text())
    del config["vocab_size"]
    (folder / "config.json").write_text(json.dumps(config))
    assert model_info(str(folder)).n_embeddings is None
    with pytest.raises(ModelError, match=r"wte\.weight \(1500, 64\), expected \(50257, 64\)"):
        features(folder)


def renumbered(folder):
    """Other ids for the same tokens, as a new training of the tokenizer gives."""
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text())
    vocabulary = described["model"]["vocab"]
    names = [name for name in vocabulary if vocabulary[name]]  # not that of <|endoftext|>
    ids = [vocabulary[name] for name in names]
    vocabulary |= dict(zip(names, ids[7:] + ids[:7], strict=True))
    path.write_text(json.dumps(described))


def test_a_tokenizer_that_was_saved_again_is_read_again(tmp_path):
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    before, tokenizer = features(folder, memory=tmp_path / "cache"), load_tokenizer(folder)
    assert load_tokenizer(folder) is tokenizer
    renumbered(folder)
    assert load_tokenizer(folder) is not tokenizer
    elsewhere = Path(shutil.copytree(folder, tmp_path / "copy"))  # has never been read in this kernel
    after = features(folder, memory=tmp_path / "cache")
    np.testing.assert_array_equal(after, features(elsewhere))
    assert not np.allclose(after, before, atol=1e-2)
    assert cache_info(tmp_path / "cache").n_entries == 10


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
def test_every_file_of_a_tokenizer_counts(tmp_path, file):
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    tokenizer = load_tokenizer(folder)
    path = folder / file
    path.write_text(path.read_text() + " " if path.is_file() else "{}")
    assert load_tokenizer(folder) is not tokenizer
