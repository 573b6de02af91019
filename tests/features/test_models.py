"""Models that cannot be had, and why: damaged files, no tokenizer, code of their own, the hub's refusals."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoding_nb.features import (
    ActivationSpec,
    check_spec,
    language_model,
    layer_activations,
    model_info,
    models,
)
from encoding_nb.features.models import ModelError, fetch, identity, model_folder

TINY = Path(__file__).parents[1] / "golden" / "hf" / "tiny-gpt2"
WORDS = "the raise statement is used to generate exceptions".split()


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def features(folder):
    return layer_activations(WORDS, ActivationSpec(str(folder), lookback=8), layer_idx=2)


# ---------------------------------------------------------------------- identity


def test_weights_written_over_with_their_size_and_time_kept_are_other_weights(folder, monkeypatch):
    monkeypatch.setenv("ENCODING_NB_CACHE", str(folder.parent / "cache"))
    before, weights = identity(folder), folder / "model.safetensors"
    status, changed = weights.stat(), bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    now = weights.stat()
    assert (now.st_size, now.st_mtime_ns) == (status.st_size, status.st_mtime_ns), (
        "what a stamp alone would miss"
    )
    after = identity(folder)
    assert after != before
    other = folder.parent / "other.safetensors"
    shutil.copy2(TINY / "model.safetensors", other)
    os.replace(other, weights)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert identity(folder) == before, "and the first ones are found again"


# ---------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", r"config\.json: expected the configuration of .* cannot be read \(JSONDecodeError"),
        (b"\xff\xfe", r"config\.json: expected the configuration of .* cannot be read \(UnicodeDecodeError"),
        (b"[1, 2]", r"config\.json: expected the configuration of .* cannot be read \(got \[1, 2\]"),
        (b"null", "got None"),
        (b"{}", r"expected layers and a width in .*config\.json, got none"),
        (b'{"n_layer": NaN, "n_embd": 8}', "expected layers and a width"),
        (b'{"n_layer": "4", "n_embd": 8}', "expected layers and a width"),
        (b'{"n_layer": 0, "n_embd": 8}', "expected layers and a width"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_a_damaged_configuration_is_said(folder, content, says):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=says) as raised:
        model_info(str(folder))
    assert str(folder) in str(raised.value)
    assert list(check_spec(ActivationSpec(str(folder)), layer_idx=0)) == ["model_name"]


@pytest.mark.parametrize(
    "change",
    [
        {"text_config": None},
        {"text_config": [1]},
        {"architectures": 3},
        {"architectures": [None]},
        {"architectures": []},
    ],
)
def test_parts_of_a_configuration_that_are_not_needed_may_be_odd(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    info = model_info(str(folder))
    assert (info.n_layers, info.d_model) == (4, 64)


def test_an_index_that_cannot_be_read_is_said(folder):
    for content in ("{", "[]", "{}", '{"weight_map": 3}'):
        (folder / "model.safetensors.index.json").write_text(content)
        with pytest.raises(ModelError, match=r"index\.json: expected the list of a model's weight files"):
            model_info(str(folder))


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:200], lambda raw: raw[:-9], lambda raw: b"\0" * 64, lambda raw: b""]
)
def test_damaged_weights_are_said_with_their_model_and_folder(folder, damage):
    weights = folder / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(
        ModelError, match=r"its model cannot be loaded .*copy or download the model again"
    ) as raised:
        features(folder)
    assert str(folder) in str(raised.value)


def test_no_weights_are_said_before_any_work(folder):
    (folder / "model.safetensors").unlink()
    problems = check_spec(ActivationSpec(str(folder)), layer_idx=0)
    assert "expected weights (*.safetensors or pytorch_model*.bin" in problems["model_name"]
    with pytest.raises(ModelError, match="expected weights"):
        features(folder)


def test_a_link_into_a_cache_that_was_cleared_is_no_weight_file(folder):
    weights = folder / "model.safetensors"
    weights.unlink()
    weights.symlink_to(folder / "gone")
    assert not model_info(str(folder)).on_this_machine


@pytest.mark.parametrize(
    "name", ["x" * 300, "a/" * 3000, "\0", "\ud800", " ", "", None, 3, "a b", "../nowhere"]
)
def test_names_that_cannot_be_are_model_errors(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError):
        model_info(name)


# ---------------------------------------------------------------------- tokenizers


def test_a_folder_without_a_tokenizer_is_refused(folder):
    for path in folder.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    problems = check_spec(ActivationSpec(str(folder)), layer_idx=0)
    assert "expected a tokenizer's files (such as tokenizer.json)" in problems["model_name"]
    # transformers makes an empty tokenizer where only its options are there
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(
        ModelError, match=r"none of 8 words has a token to read|its tokenizer cannot be loaded"
    ):
        features(folder)


def test_a_tokenizer_that_knows_no_word_is_refused(monkeypatch):
    class Empty:
        is_fast = False
        bos_token_id = cls_token_id = eos_token_id = None

        def __call__(self, texts, **_):
            return {"input_ids": [] if isinstance(texts, str) else [[] for _ in texts]}

    monkeypatch.setattr("encoding_nb.features.activations.load_tokenizer", lambda _: Empty())
    with pytest.raises(
        ModelError, match=r"none of 8 words has a token to read, so its tokenizer in .* is damaged"
    ):
        features(TINY)
    with pytest.raises(ValueError, match="expected text in them, got 8 windows without any token"):
        layer_activations(WORDS, ActivationSpec(str(TINY)), layer_idx=2, contexts=[""] * 8)


def test_a_damaged_tokenizer_is_said(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="its tokenizer cannot be loaded"):
        features(folder)


# ---------------------------------------------------------------------- code that comes with a model

OWN_CODE = (
    "import pathlib\npathlib.Path(__file__).with_name('RAN').write_text('x')\nraise SystemExit('ran')\n"
)


@pytest.fixture
def nobody_answers(monkeypatch):
    """A terminal on which a question is a failure."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    monkeypatch.setattr(sys.stdin, "readline", lambda *_: pytest.fail("a question was asked"), raising=False)


def own_code(folder, **maps):
    (folder / "own.py").write_text(OWN_CODE)
    for file, auto_map in maps.items():
        path = folder / f"{file}.json"
        described = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(described | auto_map))


def test_a_tokenizer_with_code_of_its_own_is_refused_and_nobody_is_asked(folder, nobody_answers):
    (folder / "tokenizer.json").unlink()
    own_code(
        folder,
        config={"model_type": "own"},
        tokenizer_config={"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
    )
    with pytest.raises(ModelError, match=r"tokenizer needs code that comes with it .* never run here"):
        models.load_tokenizer(folder)
    assert not list(folder.rglob("RAN"))


def test_a_model_with_code_of_its_own_is_refused_and_nobody_is_asked(folder, nobody_answers):
    own_code(folder, config={"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}})
    with pytest.raises(ModelError, match=r"model needs code that comes with it .* never run here"):
        features(folder)
    assert not list(folder.rglob("RAN"))


def test_code_beside_a_model_that_transformers_knows_is_left_alone(folder, nobody_answers):
    maps = {"AutoConfig": "own.Config", "AutoModel": "own.M", "AutoModelForCausalLM": "own.M"}
    own_code(
        folder, config={"auto_map": maps}, tokenizer_config={"auto_map": {"AutoTokenizer": ["own.T", None]}}
    )
    language_model._LOADED.clear()
    np.testing.assert_allclose(features(folder), features(TINY), rtol=0, atol=2e-6)
    assert not list(folder.rglob("RAN"))


# ---------------------------------------------------------------------- the hub


def hub_error(kind, status=404):
    import httpx
    from huggingface_hub import errors

    request = httpx.Request("GET", "https://huggingface.co/x")
    if kind == "connection":
        return httpx.ConnectError("no route to host")
    if kind == "LocalEntryNotFoundError":
        return errors.LocalEntryNotFoundError("offline")
    return getattr(errors, kind)("said no", response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        (
            "RepositoryNotFoundError",
            "someone/own-model",
            "Unknown model 'someone/own-model@v9'; did you mean one of",
        ),
        (
            "GatedRepoError",
            "meta-llama/Llama-3.2-1B",
            "is a gated model: accept its terms at huggingface.co/meta-llama/Llama-3.2-1B, then run `hf auth login`",
        ),
        ("GatedRepoError", "someone/own-model", "someone/own-model@v9 is a gated model"),
        ("RevisionNotFoundError", "gpt2-small", "gpt2-small@v9: .*gpt2 has no such revision"),
        (
            "RemoteEntryNotFoundError",
            "someone/own-model",
            "someone/own-model@v9: it has no config.json on the Hub",
        ),
        (
            "LocalEntryNotFoundError",
            "someone/own-model",
            "someone/own-model@v9 is not on this machine, and the Hub",
        ),
        (
            "HfHubHTTPError",
            "someone/own-model",
            "Could not download someone/own-model@v9 .*said no.*demo",
        ),
        (
            "connection",
            "gpt2-small",
            "Could not download gpt2-small@v9 .*no route to host.*one of: demo",
        ),
    ],
)
def test_what_the_hub_refuses_is_said_as_what_it_is(kind, name, says, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("encoding_nb.features.models.offline_reason", lambda: None)

    def refused(*_, **__):
        raise hub_error(kind)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    monkeypatch.setattr("huggingface_hub.list_repo_files", refused)
    for weights in (False, True):
        with pytest.raises(ModelError, match=says):
            fetch(name, "v9", weights=weights)


def made_hub(tmp_path, monkeypatch, *, weights=True):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repository, commit = tmp_path / "models--someone--own", "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    shutil.copytree(TINY, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    for reference in ("main", "step3000"):
        (repository / "refs" / reference).write_text(commit)
    if not weights:
        (repository / "snapshots" / commit / "model.safetensors").unlink()
    return repository / "snapshots" / commit


def test_offline_says_what_works_instead(tmp_path, monkeypatch):
    made_hub(tmp_path, monkeypatch)
    with pytest.raises(
        ModelError,
        match=r"gpt2-small is not on this machine, and HF_HUB_OFFLINE is set. .* \(demo, someone/own\)",
    ):
        model_info("gpt2-small")
    with pytest.raises(
        ModelError, match=r"'nobody/nothing' \(not on this machine, which has demo, someone/own, and HF"
    ):
        model_info("nobody/nothing")


def test_a_configuration_alone_is_not_a_model_where_no_network_is(tmp_path, monkeypatch):
    made_hub(tmp_path, monkeypatch, weights=False)
    assert model_info("someone/own").n_layers == 4
    problems = check_spec(ActivationSpec("someone/own"), layer_idx=0)
    assert (
        "someone/own's weights are not on this machine, and HF_HUB_OFFLINE is set" in problems["model_name"]
    )


def test_a_revision_may_stand_behind_the_name(tmp_path, monkeypatch):
    folder = made_hub(tmp_path, monkeypatch)
    assert model_folder("someone/own@step3000") == model_folder("someone/own", revision="step3000") == folder
    with_at = Path(shutil.copytree(TINY, tmp_path / "at@home"))
    assert model_folder(str(with_at)) == with_at
    with pytest.raises(ModelError, match="own@step9"):
        model_info("someone/own@step9")


def test_the_bundled_model_lacks_nothing():
    assert models.files_problem(model_info("demo")) is None


def test_the_revision_that_is_asked_for_is_read(tmp_path, monkeypatch):
    folder, commit = made_hub(tmp_path, monkeypatch), 40 * "1"
    other = Path(shutil.copytree(folder, folder.parent / commit))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 0.5}))
    (tmp_path / "models--someone--own" / "refs" / "step3000").write_text(commit)
    spec = ActivationSpec("someone/own", lookback=8)
    main = layer_activations(WORDS, spec, layer_idx=2)
    step = layer_activations(WORDS, replace(spec, revision="step3000"), layer_idx=2)
    np.testing.assert_array_equal(main, features(folder))
    np.testing.assert_array_equal(step, features(other))
    assert not np.allclose(main, step)
