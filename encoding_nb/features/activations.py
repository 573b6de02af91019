"""A language model's activations for the words of a story, kept on disk for the next time.

Token windows (`tokens`) go through a model (`models`, `language_model`), and the activations are kept layer by
layer (`cache`): the first call for a story costs passes through the model, every other layer of it and every
later call only reads a file.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from tempfile import mkdtemp
from typing import Any

import numpy as np

from .. import _machine, _progress
from .._files import cache_folder
from .cache import STORAGES, entry_path, read_layer, store_folder, write_layer
from .language_model import (
    DTYPES,
    choose_device,
    extract,
    first_token,
    load_model,
    load_tokenizer,
    refuse_unknown_device,
)
from .models import ModelError, ModelInfo, files_problem, identity, model_folder, model_info
from .tokens import CONTEXT_TYPES, Windows, check_context, context_windows, stored_windows, tokenize_words

Array = np.ndarray

# raised by hand whenever the meaning of a kept number changes
CACHE_VERSION = 1


@dataclass(frozen=True)
class ActivationSpec:
    """Which numbers of which model: everything that changes a word's activations, except the layer.

    Attributes
    ----------
    model_name : a TransformerLens or hub name, a local Hugging Face folder, or "demo"
    lookback : tokens of context, the word's own included and BOS not
    context_type : one of `tokens.CONTEXT_TYPES`
    last_token : the window's last token (True) or the mean over the window, BOS included (False)
    stride : tokens, for context_type "strided"
    processing : "raw", the published weights; "litcoder", what LITcoder's folded and centred model gives
    dtype : precision of the model; "float16" and "bfloat16" on a GPU only
    revision : a hub model's branch, tag or commit
    storage : precision of what is kept on disk; "float16" halves it and rounds. On the demo (`benchmarks/features.py`)
        no voxel's r moves by more than 2.2e-4, but for 7 of 21,229 whose alpha falls otherwise (up to 0.06)
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

    @property
    def approximate(self) -> bool:
        """Whether windows differ from the lookback asked for; to be said wherever results are shown."""
        return self.context_type == "strided"


# ---------------------------------------------------------------------- checks


def check_spec(spec: ActivationSpec, *, layer_idx: int, stored: bool = False) -> dict[str, str]:
    """Problems of these activations: {field: one sentence}, empty where there are none.

    Reads the model's configuration, not its weights.

    Parameters
    ----------
    spec : ActivationSpec
    layer_idx : int
    stored : bool
        Whether windows that came with the data are read: lookback and stride are then not used, nor looked at.

    Raises
    ------
    TypeError
        No ActivationSpec, such as a model's name.
    """
    if not isinstance(spec, ActivationSpec):
        raise TypeError(
            f"Expected an ActivationSpec, got {spec!r}; write ActivationSpec('demo', lookback=64), for one."
        )
    problems = {}
    choices = {"processing": PROCESSINGS, "dtype": DTYPES, "context_type": CONTEXT_TYPES, "storage": STORAGES}
    for name, known in choices.items():
        value = getattr(spec, name)
        if not isinstance(value, str) or value not in known:
            problems[name] = f"Unknown {name.replace('_', ' ')} {value!r}; choose one of {', '.join(known)}."
    try:
        info = model_info(spec.model_name, revision=spec.revision)
    except ModelError as error:
        return problems | {"model_name": str(error)}
    if problem := files_problem(info):
        problems["model_name"] = problem
    layers = f"{spec.model_name} has layers 0 (the embedding) to {info.n_layers} (the last block's output)"
    if not isinstance(layer_idx, (int, np.integer)) or isinstance(layer_idx, bool):
        problems["layer_idx"] = f"Expected the layer as a whole number, got {layer_idx!r}; {layers}."
    elif not 0 <= layer_idx <= info.n_layers:
        problems["layer_idx"] = f"Layer {layer_idx} is out of range: {layers}."
    if not isinstance(spec.last_token, bool):
        problems["last_token"] = (
            f"Expected last_token as True (the window's last token) or False (the mean), got {spec.last_token!r}."
        )
    if spec.processing == "litcoder" and "MaskedLM" in info.architecture:
        problems["processing"] = (
            f"Processing 'litcoder' is for models that read from left to right, and {spec.model_name} "
            f"({info.architecture}) is not; choose 'raw'."
        )
    return problems if stored or "context_type" in problems else problems | _check_window(spec, info)


def _check_window(spec: ActivationSpec, info: ModelInfo) -> dict[str, str]:
    try:
        lookback, stride = check_context(
            lookback=spec.lookback, context_type=spec.context_type, stride=spec.stride
        )
    except ValueError as error:
        return {str(error).split(":")[0]: str(error)}
    if info.n_ctx is None or lookback + stride + 1 <= info.n_ctx:
        return {}
    name = "stride" if spec.stride is not None and lookback + 1 < info.n_ctx else "lookback"
    most = (
        info.n_ctx - 1 - lookback
        if name == "stride"
        else (info.n_ctx - 1) // (2 if stride == lookback else 1)
    )
    what = f"A lookback of {lookback}" + (f" with a stride of {stride}" if stride else "")
    return {
        name: f"{what} does not fit {spec.model_name}, whose context holds {info.n_ctx} tokens, one of them "
        f"BOS; choose a {name} from 1 to {max(most, 1)}."
    }


def device_problem(device: str) -> str | None:
    """One sentence on a device that is unknown or not there; None where it can be used."""
    try:
        choose_device(device)
    except ModelError as error:
        return str(error)
    return None


def _refuse(spec: ActivationSpec, layer_idx: int, *, stored: bool = False, device: str = "auto") -> None:
    for field, problem in check_spec(spec, layer_idx=layer_idx, stored=stored).items():
        raise ModelError(problem) if field == "model_name" else ValueError(problem)
    refuse_unknown_device(device)


# ---------------------------------------------------------------------- windows and keys


@dataclass(frozen=True, eq=False)
class _Asked:
    """A spec and a story turned into what the model reads, and the key it is kept under."""

    info: ModelInfo
    windows: Windows
    bos: int | None
    key: str


def _ask(words: Sequence[str], spec: ActivationSpec, contexts: Sequence[str] | None) -> _Asked:
    _refuse_no_words(words)
    info = model_info(spec.model_name, revision=spec.revision)
    if not info.on_this_machine:
        model_folder(spec.model_name, revision=spec.revision, download=True)
        info = model_info(spec.model_name, revision=spec.revision)
    windows = _windows(words, spec, info, contexts)
    _refuse_wordless(words, windows, info)
    bos = first_token(load_tokenizer(info.folder))
    return _Asked(info, windows, bos, _key(windows, spec, info, bos))


def _refuse_no_words(words: Any) -> None:
    if isinstance(words, str):
        raise ValueError(
            f"words: expected a sequence of words, got one text ({words[:40]!r}); split it first."
        )
    if not isinstance(words, Collection):
        hint = "pass its texts, words.text" if hasattr(words, "text") else "a story's are story.words.text"
        raise ValueError(f"words: expected a sequence of words, got a {type(words).__name__}; {hint}.")
    if len(words) == 0:
        raise ValueError("words: expected a story with words, got none; leave it out.")


def _windows(
    words: Sequence[str], spec: ActivationSpec, info: ModelInfo, contexts: Sequence[str] | None
) -> Windows:
    tokenizer = load_tokenizer(info.folder)
    if contexts is None:
        context = {"lookback": spec.lookback, "context_type": spec.context_type, "stride": spec.stride}
        if all(isinstance(word, str) for word in words):
            return _kept_windows(tuple(words), tokenizer, **context)
        return context_windows(words, tokenizer, **context)  # which says what is wrong with them
    if len(contexts) != len(words):
        raise ValueError(
            f"contexts: expected one text per word, got {len(contexts)} texts for {len(words)} words; "
            f"do they come from the same story?"
        )
    return stored_windows(contexts, tokenizer, longest=None if info.n_ctx is None else info.n_ctx - 1)


# A run asks for the windows of each story twice, and so does every estimate as a slider moves. A tokenizer that
# is loaded anew is another one, so what its folder held before does not count any more.
_kept_windows = lru_cache(maxsize=256, typed=True)(context_windows)


def _refuse_wordless(words: Sequence[str], windows: Windows, info: ModelInfo) -> None:
    """Features of nothing but zeros: a tokenizer that knows no word, or stored windows without text."""
    if (windows.segment >= 0).any() or not any(str(word).strip() for word in words):
        return
    if windows.context_type == "stored":
        raise ValueError(f"contexts: expected text in them, got {len(words)} windows without any token.")
    raise ModelError(
        f"{info.name}: none of {len(words)} words has a token to read, so its tokenizer in {info.folder} is damaged or "
        f"lacks files; save the tokenizer there again (`tokenizer.save_pretrained(folder)`)."
    )


def _key(windows: Windows, spec: ActivationSpec, info: ModelInfo, bos: int | None) -> str:
    """Digest of all that decides the numbers kept, and of nothing else.

    Lookback, context type and stride are in it by the windows they make; "litcoder" is made from the raw
    numbers when they are read; device and batch size change nothing but the last digit.
    """
    parts = {
        "version": CACHE_VERSION,
        "model": identity(info.folder),
        "dtype": spec.dtype,
        "last_token": spec.last_token,
        "storage": spec.storage,
        "windows": windows.digest,
        "bos": bos,
    }
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def default_memory() -> Any:
    """The joblib.Memory used where none is given: $ENCODING_NB_CACHE, else a folder in the user's cache."""
    from joblib import Memory

    try:
        return Memory(str(cache_folder()), verbose=0)
    except OSError as error:
        warnings.warn(
            f"{cache_folder()} cannot be used ({error}); activations last until a restart.", stacklevel=2
        )
        return Memory(mkdtemp(prefix="encoding_nb-"), verbose=0)


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
    if folder is None or not folder.is_dir():
        return False
    if check_spec(spec, layer_idx=layer_idx, stored=contexts is not None):
        return False
    if not model_info(spec.model_name, revision=spec.revision).on_this_machine:
        return False
    return entry_path(folder, _ask(words, spec, contexts).key, layer_idx).is_file()


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
        With it all layers are computed and kept; without, only the blocks up to `layer_idx` run.
    contexts : (n_words,) str, optional
        Windows that came with the data, in place of `spec`'s lookback and context type.
    device : "auto", "cpu", "cuda", "cuda:1", ... or "mps"
    progress : function, optional
        Called with (done, total) tokens after every batch, at least once a second or window. What it raises ends
        the work, and this call then writes nothing to `memory`.

    Returns
    -------
    array, (n_words, d_model), float32; 0 for a word without text or without a stored window

    Raises
    ------
    ValueError
        Before any work: words that are no sequence of texts, an unknown model, layer or context type, or a window
        that the model cannot hold.
    TypeError
        No ActivationSpec.
    """
    progress = _progress.ignore if progress is None else progress
    _refuse(spec, layer_idx, stored=contexts is not None, device=device)
    asked, folder = _ask(words, spec, contexts), store_folder(memory)
    _warn_without_window(words, asked.windows)
    kept = read_layer(folder, asked.key, layer_idx) if folder else None
    if kept is not None:
        progress(1, 1)
        return _processed(kept, spec, asked.info)
    progress(0, 1)
    layers = range(asked.info.n_layers + 1) if folder else range(layer_idx, layer_idx + 1)
    _refuse_too_many(len(words), layers, asked.info)
    model = load_model(asked.info, dtype=spec.dtype, device=choose_device(device))
    arrays = extract(
        model, asked.windows, layers, bos=asked.bos, last_token=spec.last_token, progress=progress
    )
    arrays = {
        layer: _stored(array, spec, layer) for layer, array in arrays.items() if np.isfinite(array).all()
    }
    if folder:
        _keep(folder, asked, arrays, spec)
    if layer_idx not in arrays:
        raise ValueError(
            f"{spec.model_name}, layer {layer_idx}: expected numbers, got some that are not finite in {spec.dtype}; "
            f"choose dtype 'float32' or another layer."
        )
    return _processed(arrays[layer_idx], spec, asked.info)


def _warn_without_window(words: Sequence[str], windows: Windows) -> None:
    lost = [i for i in np.flatnonzero(windows.segment < 0) if str(words[i]).strip()]
    if lost:
        _progress.warn(
            f"{len(lost)} of {len(words)} words have no tokens to read (first: word {lost[0]}, "
            f"{words[lost[0]]!r}); their features are 0.",
            stacklevel=3,
        )


def _refuse_too_many(n_words: int, layers: range, info: ModelInfo) -> None:
    needed, free = 2 * len(layers) * n_words * info.d_model * 4, _machine.free_memory()
    if needed > free:
        raise ModelError(
            f"{len(layers)} layers of {n_words} words at width {info.d_model} need {needed / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB of memory are free; restart other kernels or take a smaller model."
        )


def _stored(array: Array, spec: ActivationSpec, layer: int) -> Array:
    """The array in the precision it is kept in, unless its numbers do not fit in that."""
    with np.errstate(over="ignore"):
        stored = array.astype(STORAGES[spec.storage])
    overflown = int(np.isinf(stored).sum() - np.isinf(array).sum())
    if not overflown:
        return stored
    _progress.warn(
        f"{spec.model_name}, layer {layer}: {overflown} numbers are too large for storage={spec.storage!r}; "
        f"the layer is kept in float32.",
        stacklevel=3,
    )
    return array


def _keep(folder: Any, asked: _Asked, arrays: dict[int, Array], spec: ActivationSpec) -> None:
    header = {
        "model": spec.model_name,
        "context_type": asked.windows.context_type,
        "lookback": spec.lookback,
        "n_words": len(asked.windows),
        "n_layers": asked.info.n_layers,
    }
    for layer, array in arrays.items():
        if not write_layer(folder, asked.key, layer, array, header):
            return  # the disk is full for the other layers too


def token_embeddings(words: Sequence[str], model_name: str, *, device: str = "auto") -> Array:
    """A model's input embedding of every word alone: the mean over the word's own tokens.

    Returns
    -------
    array, (n_words, d_model), float32; 0 for a word without tokens of its own
    """
    spec = ActivationSpec(model_name, lookback=1)
    _refuse(spec, 0, device=device)
    info = _ask(words, spec, None).info
    table = load_model(info, device=choose_device(device)).bridge.W_E
    tokens = tokenize_words(words, load_tokenizer(info.folder))
    ends = np.maximum.accumulate(np.maximum(tokens.ends, 0))
    values = table[tokens.ids.astype(np.int64)].detach().float().cpu().numpy()
    sums = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(axis=0, dtype=np.float64)])[ends]
    counts = np.diff(ends, prepend=0)
    return (np.diff(sums, axis=0, prepend=0.0) / np.maximum(counts, 1)[:, None]).astype(np.float32)


# ---------------------------------------------------------------------- processing


def _processed(array: Array, spec: ActivationSpec, info: ModelInfo) -> Array:
    return PROCESSINGS[spec.processing](array.astype(np.float32, copy=False), info)


def _raw(array: Array, info: ModelInfo) -> Array:
    return array


def _litcoder(array: Array, info: ModelInfo) -> Array:
    """LITcoder folds LayerNorm into the weights and centres what writes to the stream.

    Folding leaves the residual stream as it is; centring takes the mean over d_model off it, and is done only
    for models with LayerNorm.
    """
    return array - array.mean(axis=1, keepdims=True) if info.centred else array


PROCESSINGS: dict[str, Callable[[Array, ModelInfo], Array]] = {"raw": _raw, "litcoder": _litcoder}
