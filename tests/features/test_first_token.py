"""What is read in front of every window, against plain transformers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoding_nb import Settings, to_code
from encoding_nb.features import (
    FIRST_TOKENS,
    ActivationSpec,
    ModelError,
    activations,
    check_spec,
    context_windows,
    layer_activations,
    load_tokenizer,
    model_info,
)

TINY = Path(__file__).parents[1] / "golden" / "hf" / "tiny-gpt2"
WORDS = "the raise statement is used to generate exceptions and the try suite".split()
SIZES = {"vocab_size": 1500, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = SIZES | {"intermediate_size": 64, "max_position_embeddings": 32}
BOS, EOS = 7, 9


def set_tokens(folder, **special):
    """Give a folder's tokenizer these special tokens, by id; None takes one away."""
    path = folder / "tokenizer_config.json"
    described = json.loads(path.read_text())
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    described["tokenizer_class"] = "PreTrainedTokenizerFast"  # GPT-2's own class has a default for each
    names = load_tokenizer(TINY).convert_ids_to_tokens
    for name in ("bos", "eos", "cls", "unk"):
        described.pop(f"{name}_token", None)
    described |= {f"{name}_token": names(token) for name, token in special.items() if token is not None}
    path.write_text(json.dumps(described))


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """{family: (folder, plain model)}; their BOS is token 7 and their EOS token 9."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    models = {
        "gpt2": hf.GPT2LMHeadModel(
            hf.GPT2Config(vocab_size=1500, n_embd=32, n_layer=2, n_head=2, n_positions=32)
        ),
        "llama": hf.LlamaForCausalLM(hf.LlamaConfig(**WIDE)),
        "neox": hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**WIDE)),
        "bloom": hf.BloomForCausalLM(hf.BloomConfig(vocab_size=1500, hidden_size=32, n_layer=2, n_head=2)),
        "bert": hf.BertForMaskedLM(hf.BertConfig(**WIDE)),
    }
    made = {}
    for family, model in models.items():
        folder = tmp_path_factory.mktemp(family)
        model.eval().save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TINY / name, folder)
        set_tokens(folder, bos=BOS, eos=EOS)
        made[family] = (folder, model)
    return made


@pytest.mark.parametrize("last_token", [True, False])
@pytest.mark.parametrize("choice", FIRST_TOKENS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "bloom", "bert"])
def test_every_choice_is_what_transformers_gives(families, family, choice, last_token):
    import torch

    folder, model = families[family]
    spec = ActivationSpec(str(folder), lookback=4, first_token=choice, last_token=last_token)
    windows = context_windows(WORDS, load_tokenizer(folder), lookback=4, context_type="fullcontext")
    first = {"bos": [BOS], "eos": [EOS], "none": []}[choice]
    found = layer_activations(WORDS, spec, layer_idx=1)
    for i, values in enumerate(found):
        with torch.no_grad():
            ids = torch.tensor([[*first, *windows.ids(i).tolist()]])
            states = model(ids, output_hidden_states=True).hidden_states[1][0]
        expected = states[-1] if last_token else states.mean(dim=0)
        np.testing.assert_allclose(values, expected.numpy(), rtol=0, atol=1e-5)


def test_stored_windows_follow_the_choice_too(families):
    import torch

    folder, model = families["llama"]
    spec = ActivationSpec(str(folder), lookback=4, first_token="none")
    texts = [" ".join(WORDS[: i + 1]) for i in range(len(WORDS))]
    found = layer_activations(WORDS, spec, layer_idx=1, contexts=texts)
    ids = load_tokenizer(folder)(texts[5], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        expected = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0, -1]
    np.testing.assert_allclose(found[5], expected.numpy(), rtol=0, atol=1e-5)


def test_the_default_is_bos_and_has_its_former_key(tmp_path):
    """So that files that were kept before this choice existed are still read."""
    spec = ActivationSpec("demo", lookback=64)
    found = activations._input(["the", "boat", "left"], spec, None)
    assert (spec.first_token, found.bos) == ("bos", 0)
    assert found.key == FORMER_KEY
    # the demo's BOS and EOS are one token, so that these are the same features
    assert (
        activations._input(["the", "boat", "left"], replace(spec, first_token="eos"), None).key == found.key
    )
    assert (
        activations._input(["the", "boat", "left"], replace(spec, first_token="none"), None).key != found.key
    )


FORMER_KEY = "7a8c0736e28241ef0403df859a0a7b891e6e9c9e70d33a8fc9fb96c5bf6bf30d layer"


@pytest.mark.parametrize(("choice", "most"), [("bos", 31), ("eos", 31), ("none", 32)])
def test_the_first_token_counts_in_the_models_context(families, choice, most):
    folder, _ = families["gpt2"]
    spec = ActivationSpec(str(folder), lookback=most, first_token=choice)
    assert check_spec(spec, layer_idx=1) == {}
    assert np.isfinite(layer_activations(WORDS * 4, spec, layer_idx=1)).all()
    says = check_spec(replace(spec, lookback=most + 1), layer_idx=1)
    first = "" if choice == "none" else f", one of them {choice.upper()}"
    assert f"its context is 32 tokens{first}; choose a lookback from 1 to {most}." in says["lookback"]
    strided = replace(spec, context_type="strided", lookback=16, stride=most - 15)
    assert f"choose a stride from 1 to {most - 16}." in check_spec(strided, layer_idx=1)["stride"]


@pytest.mark.parametrize(
    ("special", "bos", "note"),
    [
        ({"bos": BOS, "eos": EOS, "cls": 3}, BOS, ""),
        ({"eos": EOS, "cls": 3}, 3, ""),
        ({"eos": EOS}, EOS, "The tokenizer has no BOS, so the token that ends a text (EOS) is read"),
        ({}, None, None),
    ],
)
def test_model_info_says_what_is_read_first(tmp_path, special, bos, note):
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    set_tokens(folder, **special)
    first = model_info(str(folder)).first_token
    if bos is None:
        assert first is None
    else:
        text = load_tokenizer(TINY).convert_ids_to_tokens(bos)
        assert (first.id, first.text) == (bos, text) and first.note.startswith(note)
        assert bool(first.note) == bool(note)


@pytest.mark.parametrize(
    ("template", "is_marker"),
    [
        ("{% for m in messages %}<|im_start|>{{ m['role'] }}{% endfor %}<|im_start|>assistant", True),
        ("{{ bos_token }}{% for m in messages %}{{ m['role'] }}{% endfor %}", False),
        ("<|im_start|>{% for m in messages %}{{ m['role'] }}{% endfor %}", False),
    ],
)
def test_a_marker_of_a_chat_is_said(tmp_path, template, is_marker):
    """SmolLM2-Instruct has <|im_start|> for BOS."""
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    tokenizer.chat_template = template
    (folder / "special_tokens_map.json").unlink()  # an older form, which would win
    tokenizer.save_pretrained(folder)
    first = model_info(str(folder)).first_token
    assert (first.id, first.text) == (1500, "<|im_start|>")
    assert ("<|im_start|> is a marker of turns in this model's chats" in first.note) == is_marker
    assert bool(first.note) == ("first_token='none'" in first.note) == is_marker


def test_a_model_without_a_tokenizer_here_says_nothing(tmp_path):
    shutil.copy(TINY / "config.json", tmp_path)
    assert model_info(str(tmp_path)).first_token is None


def test_choices_that_cannot_be_are_found_before_any_work(tmp_path):
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    set_tokens(folder, bos=BOS)
    spec = ActivationSpec(str(folder), lookback=4)
    for value in ("BOS", "", None, True, 3):
        says = check_spec(replace(spec, first_token=value), layer_idx=1)
        assert says["first_token"] == f"Unknown first token {value!r}; choose one of bos, eos, none."
    says = check_spec(replace(spec, first_token="eos"), layer_idx=1)
    assert "needs a token that ends a text, and the tokenizer of" in says["first_token"]
    with pytest.raises(ValueError, match="choose 'bos' or 'none'"):
        layer_activations(WORDS, replace(spec, first_token="eos"), layer_idx=1)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer cannot be loaded"):
        layer_activations(WORDS, replace(spec, first_token="eos"), layer_idx=1)


def test_settings_hold_the_choice():
    settings = Settings(first_token="none")
    assert settings.feature_specs["language_model"].activation.first_token == "none"
    assert "first_token='none'" in to_code(settings, "demo")
    described = json.loads(settings.to_json())
    assert Settings.from_json(settings.to_json()) == settings
    del described["first_token"]  # a record of an earlier version
    assert Settings.from_json(json.dumps(described)).first_token == "bos"
