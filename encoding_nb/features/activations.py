"""A language model's activations for the words of a story, kept on disk for the next call.

Token windows (`tokens`) are passed through a model (`models`, `language_model`), and each layer's activations are kept
in a file (`cache`). The first call for a story runs the model; calls for its other layers, and later calls, read a
file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import _progress
from .._files import cache_folder, digest
from .._validation import describe, shorten
from .cache import (
    STORAGES,
    entry_path,
    read_array,
    remove_array,
    store_folder,
    write_array,
)
from .language_model import DTYPES, Piece, check_device, check_memory, choose_device, extract, load_model
from .models import (
    FIRST_TOKENS,
    ModelError,
    ModelInfo,
    files_problem,
    first_token,
    identity,
    is_here,
    load_tokenizer,
    model_folder,
    model_info,
    token_problem,
    untrained_identity,
)
from .tokens import (
    CONTEXT_TYPES,
    TokenWindows,
    check_context,
    context_windows,
    stored_windows,
    tokenize_words,
)

Array = np.ndarray

# to raise by hand whenever the meaning of a kept number, or the form of a file, changes
CACHE_VERSION = 2
PROCESSINGS = ("raw", "litcoder")
WEIGHTS = ("trained", "untrained")
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class ActivationSpec:
    """Everything that decides a word's activations, except the layer.

    Attributes
    ----------
    model_name : a TransformerLens or hub name, a local Hugging Face folder, or "demo"
    lookback : tokens of context, the word's own included and the first token not
    context_type : one of `tokens.CONTEXT_TYPES`
    last_token : the window's last token (True) or the mean over the window and its first token (False)
    stride : tokens, for context_type "strided"
    processing : "raw", the published weights; "litcoder", what LITcoder's folded and centred model gives
    dtype : precision of the model; "float16" and "bfloat16" on a GPU only
    revision : a hub model's branch, tag or commit
    first_token : what is read in front of every window: "bos", the model's BOS (or what takes its place, see
        `model_info(name).first_token`), "eos", or "none"
    storage : precision on disk; "float16" needs half the space and rounds. On the demo (`benchmarks/features.py`) no
        voxel's r changes by more than 2.2e-4, except in 7 of 21,229 voxels that get another alpha (up to 0.06)
    weights : "trained", the published weights, or "untrained": the same architecture with random weights, which it
        initialises itself; no weights are read or downloaded then
    weights_seed : int from 0 to 2**63 - 1; the random weights follow from it. Not used by trained weights
    """

    model_name: str
    lookback: int = 256
    context_type: str = "fullcontext"
    last_token: bool = True
    stride: int | None = None
    processing: str = "raw"
    dtype: str = "float32"
    revision: str | None = None
    storage: str = "float32"
    first_token: str = "bos"
    weights: str = "trained"
    weights_seed: int = 0

    @property
    def approximate(self) -> bool:
        """Whether windows differ from the requested lookback; shown wherever results are shown."""
        return self.context_type == "strided"

    @property
    def untrained(self) -> bool:
        """Whether the model has random weights."""
        return self.weights == "untrained"

    @property
    def seed(self) -> int | None:
        """Seed of the random weights; None with trained ones."""
        return int(self.weights_seed) if self.untrained else None

    @property
    def title(self) -> str:
        """The model's name, with its seed where it is untrained."""
        return f"{self.model_name} (untrained, seed {self.seed})" if self.untrained else self.model_name


# ---------------------------------------------------------------------- checks


def check_spec(spec: ActivationSpec, *, layer_idx: int, stored: bool = False) -> dict[str, str]:
    """Problems of these activations, {field: one sentence}; empty where there are none.

    Reads the model's configuration, not its weights.

    Parameters
    ----------
    spec : ActivationSpec
    layer_idx : int
    stored : bool
        Whether windows that came with the data are read; lookback and stride are then neither used nor checked.

    Raises
    ------
    TypeError
        Not an ActivationSpec (a model's name, for example).
    """
    if not isinstance(spec, ActivationSpec):
        raise TypeError(
            f"Expected an ActivationSpec, got {describe(spec)}; for example ActivationSpec('demo', lookback=64)."
        )
    problems = {}
    choices = {"processing": PROCESSINGS, "dtype": DTYPES, "context_type": CONTEXT_TYPES, "storage": STORAGES}
    choices |= {"first_token": FIRST_TOKENS, "weights": WEIGHTS}
    for name, known in choices.items():
        value = getattr(spec, name)
        if not isinstance(value, str) or value not in known:
            problems[name] = f"Unknown {name.replace('_', ' ')} {value!r}; choose one of {', '.join(known)}."
    seed = spec.weights_seed
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed <= _LARGEST_SEED:
        problems["weights_seed"] = (
            f"weights_seed must be a whole number from 0 to {_LARGEST_SEED}, got {describe(seed)}."
        )
    try:
        info = model_info(spec.model_name, revision=spec.revision)
    except ModelError as error:
        return problems | {"model_name": str(error)}
    if problem := files_problem(info, weights=not spec.untrained):
        problems["model_name"] = problem
    elif spec.first_token == "eos" and is_here(info, weights=not spec.untrained):
        problems |= _check_eos(info)
    layers = f"{spec.model_name} has layers 0 (the embedding) to {info.n_layers} (the last block's output)"
    if not isinstance(layer_idx, (int, np.integer)) or isinstance(layer_idx, bool):
        problems["layer_idx"] = f"Expected the layer as a whole number, got {layer_idx!r}; {layers}."
    elif not 0 <= layer_idx <= info.n_layers:
        problems["layer_idx"] = f"Layer {layer_idx} is out of range: {layers}."
    if not isinstance(spec.last_token, bool):
        problems["last_token"] = f"last_token must be True, or False (the mean), got {spec.last_token!r}."
    if spec.processing == "litcoder" and "MaskedLM" in info.architecture:
        problems["processing"] = (
            f"Processing 'litcoder' is for models that read from left to right, and {spec.model_name} "
            f"({info.architecture}) does not; choose 'raw'."
        )
    return problems if stored or "context_type" in problems else problems | _check_window(spec, info)


def _context(spec: ActivationSpec) -> dict[str, Any]:
    return {"lookback": spec.lookback, "context_type": spec.context_type, "stride": spec.stride}


def _check_eos(info: ModelInfo) -> dict[str, str]:
    try:
        if first_token(load_tokenizer(info.folder), "eos") is not None:
            return {}
    except ModelError as error:
        return {"model_name": str(error)}
    return {
        "first_token": f"first_token='eos' needs a token that ends a text, and the tokenizer of {info.name} has none; "
        f"choose 'bos' or 'none'."
    }


def _longest(spec: ActivationSpec, info: ModelInfo) -> int | None:
    """Tokens of a window that the model can read behind the first token."""
    return None if info.n_ctx is None else info.n_ctx - (spec.first_token != "none")


def _check_window(spec: ActivationSpec, info: ModelInfo) -> dict[str, str]:
    try:
        lookback, stride = check_context(**_context(spec))
    except ValueError as error:
        return {str(error).split()[0]: str(error)}
    longest = _longest(spec, info)
    if longest is None or lookback + stride <= longest:
        return {}
    if spec.stride is not None and lookback < longest:
        name, most = "stride", longest - lookback
    else:
        name, most = "lookback", longest // (2 if stride == lookback else 1)
    what = f"A lookback of {lookback}" + (f" with a stride of {stride}" if stride else "")
    first = {"bos": ", one of them BOS", "eos": ", one of them EOS"}.get(spec.first_token, "")
    return {
        name: f"{what} does not fit {spec.model_name}: its context is {info.n_ctx} tokens{first}; choose a {name} from "
        f"1 to {max(most, 1)}."
    }


def device_problem(device: str) -> str | None:
    """One sentence on a device that is unknown or missing; None where it can be used."""
    try:
        choose_device(device)
    except ModelError as error:
        return str(error)
    return None


# ---------------------------------------------------------------------- windows and keys


class _Input(NamedTuple):
    """What a model reads for a story, and the key of its activations, which a layer's number follows."""

    info: ModelInfo
    windows: TokenWindows
    bos: int | None
    key: str


def _input(words: Sequence[str], spec: ActivationSpec, contexts: Sequence[str] | None) -> _Input:
    if not isinstance(words, Collection) or isinstance(words, str) or len(words) == 0:
        hint = "words.text" if hasattr(words, "text") else "story.words.text"
        what = f"the text {shorten(words, 40)!r}" if isinstance(words, str) else describe(words)
        raise ValueError(f"words: expected a sequence of one or more words, such as {hint}, got {what}.")
    info = model_info(spec.model_name, revision=spec.revision)
    if not is_here(info, weights=not spec.untrained):
        model_folder(spec.model_name, revision=spec.revision, download=True, weights=not spec.untrained)
        info = model_info(spec.model_name, revision=spec.revision)
    windows = _windows(words, spec, info, contexts)
    tokenizer = load_tokenizer(info.folder)
    bos = first_token(tokenizer, spec.first_token)
    _refuse_unknown_tokens(info, tokenizer, windows, bos, info.n_embeddings)
    # All that decides the numbers kept. Lookback, context type and stride are in it through their windows; "litcoder"
    # is computed from the raw numbers when they are read; device and batch size change only the last digit.
    parts = {
        "version": CACHE_VERSION,
        "model": identity(info.folder) if spec.seed is None else untrained_identity(info.folder, spec.seed),
        "dtype": spec.dtype,
        "last_token": spec.last_token,
        "storage": spec.storage,
        "windows": windows.digest,
        "bos": bos,
    }
    return _Input(info, windows, bos, f"{digest([json.dumps(parts, sort_keys=True)])} layer")


def _refuse_unknown_tokens(
    info: ModelInfo, tokenizer: Any, windows: TokenWindows, bos: int | None, n_embeddings: int | None
) -> None:
    """A ModelError for a token of the windows for which the embedding has no row."""
    largest = max(
        [-1 if bos is None else bos, *(int(segment.max(initial=-1)) for segment in windows.segments)]
    )
    if n_embeddings is not None and largest >= n_embeddings:
        text = str(tokenizer.convert_ids_to_tokens(largest))
        raise ModelError(token_problem(info.name, largest, text, n_embeddings))


def _windows(
    words: Sequence[str], spec: ActivationSpec, info: ModelInfo, contexts: Sequence[str] | None
) -> TokenWindows:
    tokenizer = load_tokenizer(info.folder)
    if contexts is None:
        make = _kept_windows if all(isinstance(word, str) for word in words) else context_windows
        windows = make(tuple(words), tokenizer, **_context(spec))
    elif len(contexts) != len(words):
        raise ValueError(
            f"contexts: expected one text per word, got {len(contexts)} texts for {len(words)} words; are they from "
            f"the same story?"
        )
    else:
        windows = stored_windows(contexts, tokenizer, longest=_longest(spec, info))
    if (windows.segment >= 0).any() or not any(str(word).strip() for word in words):
        return windows
    # else all features would be 0
    if contexts is not None:
        raise ValueError(f"contexts: expected text in them, got {len(words)} windows without any token.")
    raise ModelError(
        f"{info.name}: none of {len(words)} words has a token to read, so its tokenizer in {info.folder} is damaged or "
        f"incomplete; save the tokenizer there again (`tokenizer.save_pretrained(folder)`)."
    )


# A run needs the windows of each story twice, and so does every estimate while a slider moves. A tokenizer that is
# loaded again is a new object, so the windows of the former one are not found under it.
_kept_windows = lru_cache(maxsize=256, typed=True)(context_windows)


def default_memory() -> Any:
    """The joblib.Memory used where none is given: in $ENCODING_NB_CACHE, else in the user's cache folder."""
    from joblib import Memory

    return Memory(str(cache_folder()), verbose=0)


def activations_cached(
    words: Sequence[str],
    spec: ActivationSpec,
    layer_idx: int,
    memory: Any,
    *,
    contexts: Sequence[str] | None = None,
) -> bool:
    """Whether a layer of these words is kept in `memory`, so that no model is needed."""
    folder = store_folder(memory)
    problems = check_spec(spec, layer_idx=layer_idx, stored=contexts is not None)
    if problems or folder is None or not folder.is_dir():
        return False
    here = is_here(model_info(spec.model_name, revision=spec.revision), weights=not spec.untrained)
    return here and entry_path(folder, f"{_input(words, spec, contexts).key} {layer_idx}").is_file()


# ---------------------------------------------------------------------- activations


def layer_activations(
    words: Sequence[str],
    spec: ActivationSpec,
    *,
    layer_idx: int,
    memory: Any = None,
    contexts: Sequence[str] | None = None,
    device: str = "auto",
    progress: _progress.Count | None = None,
) -> Array:
    """A layer's activations of every word of a story.

    Parameters
    ----------
    words : (n_words,) str
    spec : ActivationSpec
    layer_idx : int
        Residual stream: 0 the embedding, i the input of block i, n_layers the last block's output.
    memory : joblib.Memory or path, optional
        If given, all layers are computed and kept; else only the blocks up to `layer_idx` run.
    contexts : (n_words,) str, optional
        Windows that came with the data, in place of `spec`'s lookback and context type.
    device : "auto", "cpu", "cuda", "cuda:1", ... or "mps"
    progress : function, optional
        Called with (done, total) tokens after every batch, at least once a second or window. What it raises ends the
        work; the part of the story that is finished is kept in `memory`, and the next call goes on from there.

    Returns
    -------
    array, (n_words, d_model), float32; 0 for a word without text or without a stored window

    Raises
    ------
    ValueError
        Before any work: words that are not a sequence of texts, an unknown model, layer or context type, or a window
        that does not fit the model's context.
    TypeError
        Not an ActivationSpec.
    """
    progress = _progress.ignore if progress is None else progress
    _check(spec, layer_idx, device, stored=contexts is not None)
    info, windows, bos, key = _input(words, spec, contexts)
    folder = store_folder(memory)
    lost = [i for i in np.flatnonzero(windows.segment < 0).tolist() if str(words[i]).strip()]
    if lost:
        _progress.warn(
            f"{len(lost)} of {len(words)} words have no tokens to read (first: word {lost[0]}, {words[lost[0]]!r}); "
            f"their features are 0.",
            stacklevel=2,
        )
    kept = read_array(folder, f"{key} {layer_idx}") if folder else None
    if kept is not None:
        progress(1, 1)
        return _processed(kept[0], spec, info)
    progress(0, 1)
    layers = range(info.n_layers + 1) if folder else range(layer_idx, layer_idx + 1)
    what = f"{len(layers)} layers of {len(words)} words at width {info.d_model} need"
    check_memory(2 * len(layers) * len(words) * info.d_model * 4, "cpu", what)
    model = load_model(info, dtype=spec.dtype, device=choose_device(device), seed=spec.seed)
    rows = model.model.get_input_embeddings().num_embeddings
    _refuse_unknown_tokens(info, load_tokenizer(info.folder), windows, bos, rows)
    pieces = _Pieces(folder, key, spec.title) if folder else None
    arrays = extract(
        model,
        windows,
        layers,
        bos=bos,
        last_token=spec.last_token,
        progress=progress,
        pieces=pieces.read() if pieces else (),
        keep=pieces.write if pieces else None,
    )
    arrays = {i: _stored(array, spec, i) for i, array in arrays.items() if np.isfinite(array).all()}
    if folder:
        header = {"model": spec.title, "context_type": windows.context_type, "lookback": spec.lookback}
        for layer, array in arrays.items():
            if not write_array(folder, f"{key} {layer}", array, header | {"layer": layer}):
                break  # the other layers would not fit on the disk either
        pieces.remove()
    if layer_idx not in arrays:
        raise ValueError(
            f"{spec.title}, layer {layer_idx}: some numbers are not finite in {spec.dtype}; choose dtype "
            f"'float32' or another layer."
        )
    return _processed(arrays[layer_idx], spec, info)


class _Pieces:
    """The finished part of a story on disk, in pieces with numbers; other processes may write and remove them too."""

    def __init__(self, folder: Path, key: str, title: str) -> None:
        self._folder, self._key, self._title = folder, key, title
        self._number, self._fits = 0, True

    def _name(self, number: int) -> str:
        return f"{self._key} piece {number}"

    def read(self) -> Iterator[Piece]:
        """The pieces from the first one on; `write` then goes on with the number of the first one that was not used."""
        while (found := read_array(self._folder, self._name(self._number))) is not None:
            values, header = found
            start, stop, tokens = header["piece"]
            yield Piece(start, stop, tokens, values)
            self._number += 1

    def write(self, piece: Piece) -> None:
        """Keep the next piece, unless one before it could not be written."""
        header = {"model": self._title, "piece": (piece.start, piece.stop, piece.tokens)}
        self._fits = self._fits and write_array(self._folder, self._name(self._number), piece.values, header)
        self._number += 1

    def remove(self) -> None:
        """Remove all pieces."""
        number = 0
        while remove_array(self._folder, self._name(number)) or number < self._number:
            number += 1


def _check(spec: ActivationSpec, layer_idx: int, device: str, *, stored: bool = False) -> None:
    for field, problem in check_spec(spec, layer_idx=layer_idx, stored=stored).items():
        raise ModelError(problem) if field == "model_name" else ValueError(problem)
    check_device(device)


def _stored(array: Array, spec: ActivationSpec, layer: int) -> Array:
    """The array in the precision it is kept in, unless that cannot hold its numbers."""
    with np.errstate(over="ignore"):
        stored = array.astype(STORAGES[spec.storage])
    if overflown := int(np.isinf(stored).sum()):
        _progress.warn(
            f"{spec.title}, layer {layer}: {overflown} numbers are too large for storage={spec.storage!r}; the "
            f"layer is kept in float32.",
            stacklevel=3,
        )
        return array
    return stored


def token_embeddings(
    words: Sequence[str],
    model_name: str,
    *,
    weights: str = "trained",
    weights_seed: int = 0,
    device: str = "auto",
) -> Array:
    """A model's input embedding of every word alone: the mean over the word's tokens.

    Parameters
    ----------
    words : (n_words,) str
    model_name : str
    weights, weights_seed : see `ActivationSpec`
    device : "auto", "cpu", "cuda", "cuda:1", ... or "mps"

    Returns
    -------
    array, (n_words, d_model), float32; 0 for a word without tokens
    """
    spec = ActivationSpec(model_name, lookback=1, weights=weights, weights_seed=weights_seed)
    _check(spec, 0, device)
    info = _input(words, spec, None).info
    model = load_model(info, device=choose_device(device), seed=spec.seed).model
    table = model.get_input_embeddings().weight
    tokens = tokenize_words(words, load_tokenizer(info.folder))
    ends = np.maximum.accumulate(np.maximum(tokens.ends, 0))
    values = table[tokens.ids.astype(np.int64)].detach().float().cpu().numpy()
    sums = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(axis=0, dtype=np.float64)])[ends]
    counts = np.diff(ends, prepend=0)
    return (np.diff(sums, axis=0, prepend=0.0) / np.maximum(counts, 1)[:, None]).astype(np.float32)


def _processed(array: Array, spec: ActivationSpec, info: ModelInfo) -> Array:
    """The array in float32, as published or as LITcoder has it.

    LITcoder folds LayerNorm into the weights and centres what is written to the residual stream. Folding does not
    change the residual stream; centring subtracts the mean over d_model, only in models with LayerNorm.
    """
    array = array.astype(np.float32, copy=False)
    centred = spec.processing == "litcoder" and info.centred
    return array - array.mean(axis=1, keepdims=True) if centred else array
