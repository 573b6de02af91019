"""An extraction that stops halfway goes on from there, and gives the same bits as one that did not stop."""

import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoding_nb import Cancelled
from encoding_nb.features import (
    ActivationSpec,
    activations,
    cache_info,
    language_model,
    layer_activations,
    prune_cache,
)
from encoding_nb.features.activations import activations_cached

TINY = Path(__file__).parents[1] / "golden" / "hf" / "tiny-gpt2"
WORDS = (
    "the raise statement is used to generate exceptions and the try suite is executed until an exception occurs "
    "in the handler of the clause that matches it"
).split() * 4
SPEC = ActivationSpec(str(TINY), lookback=8, context_type="halfcontext")
N_LAYERS = 5
BATCH = 27  # tokens


@pytest.fixture(autouse=True)
def batches_of_one_size(monkeypatch):
    """By the time that a batch takes, batches differ from run to run, and with them the last bits."""
    batches(monkeypatch, BATCH)
    monkeypatch.setattr(language_model, "PIECE_SECONDS", 0.0)


def batches(monkeypatch, most):
    monkeypatch.setattr(language_model, "STEP_SECONDS", 1e6)
    monkeypatch.setattr(language_model, "_most_tokens", lambda _: most)


def extract(folder, spec=SPEC, *, stop=None, calls=None, during=None):
    """Layer 2, cancelled at a call of `progress` where asked for."""
    calls = [] if calls is None else calls

    def progress(done, total):
        calls.append((done, total))
        if during is not None and len(calls) == during[0]:
            during[1]()
        if len(calls) == stop:
            raise Cancelled

    return layer_activations(WORDS, spec, layer_idx=2, memory=folder, progress=progress)


def stopped(folder, number, spec=SPEC):
    with pytest.raises(Cancelled):
        extract(folder, spec, stop=number)


def entries(folder):
    """{header's layer or piece: bytes of the array} of a cache."""
    found = {}
    for path in Path(folder).rglob("*.zip"):
        with zipfile.ZipFile(path) as file:
            header = json.loads(file.read("header.json"))
            planes = b"".join(file.read(name) for name in sorted(file.namelist()) if name != "header.json")
        key = ("piece", *header["piece"]) if "piece" in header else ("layer", header["layer"])
        found[key] = planes
    return found


def pieces(folder):
    return sorted(key[1:3] for key in entries(folder) if key[0] == "piece")


@pytest.fixture
def whole(tmp_path):
    """The entries of a story that was read without a stop, and the calls of progress."""
    calls = []
    extract(tmp_path / "whole", calls=calls)
    found = entries(tmp_path / "whole")
    assert found.keys() == {("layer", layer) for layer in range(N_LAYERS)}, "the pieces are gone"
    assert len(calls) == 12
    return found, calls


@pytest.mark.parametrize(
    "change", [{}, {"last_token": False}, {"context_type": "fullcontext"}, {"first_token": "none"}]
)
def test_stopped_at_any_call_it_goes_on_from_there_bit_for_bit(tmp_path, change):
    spec, calls = replace(SPEC, **change), []
    extract(tmp_path / "whole", spec, calls=calls)
    expected = entries(tmp_path / "whole")
    for number in range(2, len(calls) + 1, max(3, len(calls) // 5)):
        folder = tmp_path / f"stopped{number}"
        stopped(folder, number, spec)
        assert not activations_cached(WORDS, spec, 2, folder)
        again = []
        found = extract(folder, spec, calls=again)
        # the first call is made before the model is loaded, the second says what was found
        assert again[1:] == calls[number - 1 :]
        assert entries(folder) == expected
        assert np.array_equal(found, layer_activations(WORDS, spec, layer_idx=2, memory=folder))


def test_stopped_again_and_again(tmp_path, whole):
    for _ in range(3):
        stopped(tmp_path / "cache", 4)
    covered = pieces(tmp_path / "cache")
    assert len(covered) == 7, "three batches, then two after what was found"
    assert [start for start, _ in covered] == [0, *(stop for _, stop in covered[:-1])]
    extract(tmp_path / "cache")
    assert entries(tmp_path / "cache") == whole[0]


@pytest.mark.parametrize("seconds", [0.0, 1e6])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_whatever_stops_it_what_is_finished_is_kept(tmp_path, whole, monkeypatch, error, seconds):
    monkeypatch.setattr(language_model, "PIECE_SECONDS", seconds)
    read, n_batches = language_model._pass, []

    def breaks(*given):
        n_batches.append(1)
        if len(n_batches) == 5:
            raise error
        return read(*given)

    monkeypatch.setattr(language_model, "_pass", breaks)
    with pytest.raises(error):
        extract(tmp_path / "cache")
    monkeypatch.setattr(language_model, "_pass", read)
    assert len(pieces(tmp_path / "cache")) == (4 if seconds == 0 else 1)
    calls = []
    extract(tmp_path / "cache", calls=calls)
    assert calls[1:] == whole[1][4:]
    assert entries(tmp_path / "cache") == whole[0]


KILLED = """
import sys, time
from pathlib import Path
from encoding_nb.features import language_model, layer_activations
sys.path.insert(0, sys.argv[1])
import test_resume as made
language_model.STEP_SECONDS, language_model.PIECE_SECONDS = 1e6, 0.0
language_model._most_tokens = lambda _: made.BATCH
n_calls = 0
def progress(done, total):
    global n_calls
    n_calls += 1
    if n_calls == 8:
        print("halted", flush=True)
        time.sleep(600)
layer_activations(made.WORDS, made.SPEC, layer_idx=2, memory=sys.argv[2], progress=progress)
"""


def test_a_killed_process_loses_only_what_followed_its_last_piece(tmp_path, whole):
    import torch

    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "cache")]
    threads = {name: str(torch.get_num_threads()) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | threads) as process:
        assert process.stdout.readline() == "halted\n"
        process.kill()
    assert len(pieces(tmp_path / "cache")) == 6
    calls = []
    extract(tmp_path / "cache", calls=calls)
    assert calls[1:] == whole[1][6:]
    assert entries(tmp_path / "cache") == whole[0]


def piece_files(folder):
    """Files of the pieces, the first one first."""
    found = {}
    for path in Path(folder).rglob("*.zip"):
        with zipfile.ZipFile(path) as file:
            header = json.loads(file.read("header.json"))
        if "piece" in header:
            found[header["piece"][0]] = path
    return [found[start] for start in sorted(found)]


DAMAGES = {
    "cut": lambda files: files[2].write_bytes(files[2].read_bytes()[:-50]),
    "one bit": lambda files: files[2].write_bytes(
        bytes([*files[2].read_bytes()[:900], files[2].read_bytes()[900] ^ 4, *files[2].read_bytes()[901:]])
    ),
    "another piece": lambda files: shutil.copy(files[3], files[2]),
    "empty": lambda files: files[2].write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_piece_is_ignored_and_no_value_is_wrong(tmp_path, whole, damage):
    stopped(tmp_path / "cache", 7)
    files = piece_files(tmp_path / "cache")
    DAMAGES[damage](files)
    calls = []
    with pytest.warns(UserWarning, match="cannot be read .*computing its features again"):
        extract(tmp_path / "cache", calls=calls)
    assert calls[1:] == whole[1][2:], "two pieces are left"
    assert entries(tmp_path / "cache") == whole[0]


def test_a_piece_that_is_missing_ends_them(tmp_path, whole):
    stopped(tmp_path / "cache", 7)
    piece_files(tmp_path / "cache")[1].unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract(tmp_path / "cache")
    assert entries(tmp_path / "cache") == whole[0]


def test_pieces_of_another_model_or_other_words_are_not_read(tmp_path):
    stopped(tmp_path / "cache", 7)
    for change in ({"lookback": 9}, {"last_token": False}, {"first_token": "none"}):
        calls = []
        extract(tmp_path / "cache", replace(SPEC, **change), calls=calls)
        assert calls[1][0] < calls[-1][0] / 4
    assert len(pieces(tmp_path / "cache")) == 5 + 1, "those of the story that was stopped are still there"


@pytest.mark.parametrize("first", ["finishes", "stops"])
@pytest.mark.parametrize("second", ["finishes", "stops"])
def test_two_at_once_with_other_batches_do_not_mix(tmp_path, whole, monkeypatch, first, second):
    """As two processes: the second one runs in the midst of the first one, with batches of another size."""
    folder = tmp_path / "cache"

    def meanwhile():
        batches(monkeypatch, 20)
        extract(folder) if second == "finishes" else stopped(folder, 6)
        batches(monkeypatch, BATCH)

    # the first one keeps its pieces only later, so that the second one does not go on from them
    monkeypatch.setattr(language_model, "PIECE_SECONDS", 1e6)
    if first == "stops":
        with pytest.raises(Cancelled):
            extract(folder, stop=6, during=(2, meanwhile))
    else:
        extract(folder, during=(2, meanwhile))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = extract(folder)
    np.testing.assert_allclose(found, extract(tmp_path / "whole"), rtol=0, atol=1e-5)
    assert {key for key in entries(folder) if key[0] == "layer"} == whole[0].keys()
    # what a process keeps after another one has finished is for nobody; it is pruned like all else
    assert bool(pieces(folder)) == (first == "stops" and second == "finishes")


def test_overlapping_pieces_of_two_processes_are_told_apart(tmp_path, whole, monkeypatch):
    folder = tmp_path / "cache"
    stopped(folder, 7)  # pieces 0 to 4
    others = tmp_path / "others"
    batches(monkeypatch, 20)
    stopped(others, 7)
    batches(monkeypatch, BATCH)
    mine, theirs = piece_files(folder), piece_files(others)
    for number in (1, 3):  # written over by the other process
        shutil.copy(theirs[number], mine[number])
    found = extract(folder)
    np.testing.assert_allclose(found, extract(tmp_path / "whole"), rtol=0, atol=1e-5)
    assert not pieces(folder)


def test_pieces_are_counted_as_unfinished_and_pruned(tmp_path):
    stopped(tmp_path, 7)
    info = cache_info(tmp_path)
    assert info.by_model == {"unfinished": (info.n_entries, info.n_bytes)} and info.n_entries == 6
    assert prune_cache(tmp_path, max_bytes=0) == info.n_bytes
    assert cache_info(tmp_path).n_entries == 0


def test_without_a_cache_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(activations, "write_array", lambda *_: pytest.fail("a file was written"))
    with pytest.raises(Cancelled):
        extract(None, stop=5)


def test_a_disk_that_is_full_is_said_once_and_the_work_goes_on(tmp_path, whole, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.warns(UserWarning, match="No space left") as said:
        found = extract(tmp_path / "cache")
    assert len(said) == 2, "once for the pieces, and once for the story"
    monkeypatch.undo()
    assert np.array_equal(found, layer_activations(WORDS, SPEC, layer_idx=2, memory=tmp_path / "whole"))


def test_an_encoder_goes_on_too(tmp_path):
    import torch
    import transformers as hf

    torch.manual_seed(0)
    sizes = {"vocab_size": 1500, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    hf.BertForMaskedLM(hf.BertConfig(**sizes, intermediate_size=64)).save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, tmp_path / "model")
    spec, calls = ActivationSpec(str(tmp_path / "model"), lookback=6), []
    extract(tmp_path / "whole", spec, calls=calls)
    for number in (3, len(calls) // 2):
        stopped(tmp_path / f"{number}", number, spec)
        extract(tmp_path / f"{number}", spec)
        assert entries(tmp_path / f"{number}") == entries(tmp_path / "whole")
