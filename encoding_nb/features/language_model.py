"""A language model's residual streams: load the model, and pass it over context windows.

A model is loaded from a folder (`models.model_folder`), so that no hub is asked. torch, transformers and
transformer_lens are imported by the functions that need them; `trust_remote_code` is always False.

Windows that begin together are read in one pass, which is exact for causal models; other models read every
window by itself.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .. import _machine, _progress
from .._validation import error_text
from .models import ModelError, ModelInfo, identity
from .tokens import Windows

Array = np.ndarray

HALF_PRECISION = ("float16", "bfloat16")
DTYPES = ("float32", *HALF_PRECISION)

# At most this long between two calls of `progress`, where a single window does not take longer: short enough to see
# progress and to cancel, and long enough that the weights are read from memory for several windows at a time.
STEP_SECONDS = 1.0

# transformers fills its modules while they are first used, and a second thread that comes by meanwhile
# finds them half made (two panels, or a panel and a cell).
_ONE_AT_A_TIME = threading.RLock()


@dataclass(eq=False)
class LoadedModel:
    """A model in memory, and the lock under which its hooks are used.

    `last_mlp` is the last block's MLP where `narrowed` may be used on it, else None.
    """

    bridge: Any
    causal: bool
    device: str
    lock: threading.Lock
    last_mlp: Any = None


_LOADED: OrderedDict[tuple, LoadedModel] = OrderedDict()
_LOADING = threading.Lock()
_KEPT_MODELS = 2


def load_model(info: ModelInfo, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
    """A model through TransformerLens, kept in memory for the next call (the last two).

    Raises
    ------
    ModelError
        Half precision on a CPU, more weights than memory is free, or files that cannot be loaded.
    """
    if dtype in HALF_PRECISION and device == "cpu":
        raise ModelError(
            f"{info.name}: {dtype} needs a GPU (some CPUs end the process on it); use dtype='float32'."
        )
    key = (identity(info.folder), dtype, device)
    with _LOADING:
        if key not in _LOADED:
            while len(_LOADED) >= _KEPT_MODELS:
                _LOADED.popitem(last=False)
            _refuse_too_large(info, dtype, device)
            _LOADED[key] = _load(info, dtype, device)
        _LOADED.move_to_end(key)
        return _LOADED[key]


def forget_models() -> None:
    """Free the memory of the models that are kept loaded."""
    with _LOADING:
        _LOADED.clear()


def _refuse_too_large(info: ModelInfo, dtype: str, device: str) -> None:
    free = _free_bytes(device)
    needed = int((info.n_parameters or 0) * (2 if dtype in HALF_PRECISION else 4) * 1.35)
    if free is not None and needed > free:
        raise ModelError(
            f"{info.name} needs about {needed / 1e9:.1f} GB of memory on {device} and {free / 1e9:.1f} GB "
            f"are free; choose a smaller model, or restart other kernels."
        )


def _free_bytes(device: str) -> int | None:
    """Free memory of the GPU, or of this machine or container; None where unknown."""
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else None
    return _machine.free_memory()


def refuse_unknown_device(device: Any) -> None:
    """A ModelError for what names no kind of device; whether it is there is not looked at."""
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", device):
        raise ModelError(
            f"device: expected 'auto', 'cpu', 'cuda', 'cuda:1' (and so on) or 'mps', got {device!r}; 'auto' takes a "
            f"GPU where there is one."
        )


def choose_device(device: str) -> str:
    """ "auto" is CUDA where there is one, else the CPU; anything else as it is given.

    Raises
    ------
    ModelError
        An unknown device, or a GPU that is not there.
    """
    refuse_unknown_device(device)
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = torch.backends.mps.is_available() if device == "mps" else torch.cuda.is_available()
    if not there:
        raise ModelError(f"device: expected 'auto' or 'cpu', got {device!r}, and torch finds no GPU here.")
    number, n_gpus = int(device.partition(":")[2] or 0), torch.cuda.device_count()
    if device.startswith("cuda") and number >= n_gpus:
        raise ModelError(
            f"device: expected a GPU from cuda:0 to cuda:{n_gpus - 1}, got {device!r}; 'auto' takes the first."
        )
    return device


@lru_cache(maxsize=8)
def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises
    ------
    ModelError
        Its files are damaged, or it needs code of its own, which is never run.
    """
    with _ONE_AT_A_TIME:
        from transformers import AutoTokenizer

        try:
            # said, because transformers would ask on the terminal where nothing is
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:
            raise ModelError(_cannot_load("tokenizer", str(folder), folder, error)) from error


def _cannot_load(what: str, name: str, folder: Path | None, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"{name}: its {what} needs code that comes with it (auto_map), which is never run here; choose a model "
            f"that transformers knows, such as gpt2-small or 'demo'."
        )
    where = "" if str(folder) == name else f" in {folder}"
    return (
        f"{name}: its {what}{where} cannot be loaded ({error_text(error)}); copy or download the model again, or "
        f"choose another."
    )


def first_token(tokenizer: Any) -> int | None:
    """The token in front of every window: BOS, or what takes its place (CLS, EOS), or None."""
    candidates = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id)
    return next((token for token in candidates if token is not None), None)


def _load(info: ModelInfo, dtype: str, device: str) -> LoadedModel:
    with _ONE_AT_A_TIME:
        import torch
        from transformer_lens.model_bridge import TransformerBridge

    if device == "cpu":
        _keep_to_quota()
    with _ONE_AT_A_TIME, _without_progress_bars():
        try:
            bridge = TransformerBridge.boot_transformers(
                str(info.folder),
                device=device,
                dtype=getattr(torch, dtype),
                trust_remote_code=False,
                hf_config_overrides=_without_own_code(info.folder),
            )
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            raise ModelError(_cannot_load("model", info.name, info.folder, error)) from error
    bridge.eval()
    bridge.original_model.config.use_cache = False
    _lighten(bridge, device)
    causal, last_mlp = _is_causal(bridge, device), _last_mlp(bridge, device)
    return LoadedModel(bridge, causal, device, threading.Lock(), last_mlp)


def _without_own_code(folder: Path) -> dict[str, Any]:
    """What to put over a configuration that names code of its own, so that nobody is asked whether to run it.

    TransformerLens hands its `trust_remote_code=False` to the configuration and the tokenizer, but leaves it
    out for the weights, where transformers would then ask on the terminal.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {"auto_map": {}} if "auto_map" in config else {}


def _keep_to_quota() -> None:
    """No more threads than the container may use: more of them only wait for each other (Binder)."""
    import torch

    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return  # not in a container, or "max": no quota
    if allowed < torch.get_num_threads():
        torch.set_num_threads(allowed)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


# ---------------------------------------------------------------------- speed without other values


def _lighten(bridge: Any, device: str) -> None:
    """Take out what only serves hooks inside the blocks, which features never use; half the time of a pass.

    The blocks stay TransformerLens's, with their hooks. Within them the model's own attention (fused) and norms
    come back in the place of the hooked ones, and GPT-2's GELU becomes one operation in place of eight. Should
    a model not give the same residuals after that, everything is put back.
    """
    ids = _probe(bridge, 24, device)
    before = _residuals(bridge, ids)
    config = bridge.original_model.config
    was = {name: getattr(config, name, None) for name in ("_attn_implementation", "output_attentions")}
    swapped = _swap_in_plain_modules(bridge)
    try:
        bridge.original_model.set_attn_implementation("sdpa")
        config.output_attentions = False
        same = _agree(before, _residuals(bridge, ids))
    except Exception:  # noqa: BLE001 - whatever a family's own code raises, the hooked modules are there
        same = False
    if not same:
        for parent, name, hooked in reversed(swapped):
            setattr(parent, name, hooked)
        for name, value in was.items():
            setattr(config, name, value)


def _swap_in_plain_modules(bridge: Any) -> list[tuple[Any, str, Any]]:
    """Swap, in every block; returns (parent, name, what was there)."""
    import torch
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    swapped = []
    for block in bridge.blocks:
        for parent in list(block.original_component.modules()):
            if isinstance(parent, GeneralizedComponent):
                continue
            for name, child in list(parent.named_children()):
                plain = _plain(child, GeneralizedComponent, torch)
                if plain is not child:
                    swapped.append((parent, name, child))
                    setattr(parent, name, plain)
    return swapped


def _plain(module: Any, hooked: type, torch: Any) -> Any:
    while isinstance(module, hooked):
        module = module.original_component
    if type(module).__name__ == "NewGELUActivation":
        return torch.nn.GELU(approximate="tanh")
    return module


@contextmanager
def narrowed(mlp: Any, rows: Any, positions: Any) -> Iterator[None]:
    """An MLP that reads only (rows, positions) of its (n_rows, length, width) input, and is 0 elsewhere.

    No block reads the last one's output, so only the words' positions of it are needed there: two thirds of
    the block's work are saved. `mlp` may be None, and nothing is changed then.
    """
    shape: list[int] = []

    def take(module: Any, given: tuple) -> tuple:
        shape[:] = given[0].shape[:-1]
        return (given[0][rows, positions][:, None], *given[1:])

    def put_back(module: Any, given: tuple, values: Any) -> Any:
        whole = values.new_zeros(*shape, values.shape[-1])
        whole[rows, positions] = values[:, 0]
        return whole

    handles = []
    if mlp is not None:
        handles = [mlp.register_forward_pre_hook(take), mlp.register_forward_hook(put_back)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _last_mlp(bridge: Any, device: str) -> Any:
    """The last block's MLP, or None where the model has none or `narrowed` changes the words' residuals."""
    import torch

    mlp = getattr(getattr(bridge.blocks[-1], "mlp", None), "original_component", None)
    if mlp is None:
        return None
    ids = _probe(bridge, 24, device)
    positions = torch.tensor([23, 2, 11], device=device)
    whole = _residuals(bridge, ids)[-1][positions]
    try:
        with narrowed(mlp, torch.zeros_like(positions), positions):
            same = _agree([whole], [_residuals(bridge, ids)[-1][positions]])
    except Exception:  # noqa: BLE001 - an MLP of another form; the whole of it is computed then
        same = False
    return mlp if same else None


def _probe(bridge: Any, length: int, device: str) -> Any:
    import torch

    return (7 * torch.arange(length, device=device)[None] + 5) % max(2, int(bridge.cfg.d_vocab))


def _residuals(bridge: Any, ids: Any) -> list[Any]:
    """The residual stream into every block and out of the last, each (length, d_model)."""
    import torch

    seen: list[Any] = []
    names = [f"blocks.{i}.hook_resid_pre" for i in range(bridge.cfg.n_layers)]
    names.append(f"blocks.{bridge.cfg.n_layers - 1}.hook_resid_post")
    hooks = [(name, lambda value, hook: seen.append(value[0].float())) for name in names]
    with torch.inference_mode(), bridge.hooks(fwd_hooks=hooks):
        bridge(ids, return_type=None)
    return seen


def _agree(first: list[Any], second: list[Any]) -> bool:
    if len(first) != len(second):
        return False
    return all(bool((a - b).norm() <= 1e-4 * a.norm()) for a, b in zip(first, second, strict=True))


def _is_causal(bridge: Any, device: str) -> bool:
    """Whether what a token sees ends with it: the configuration says no, or the model shows it.

    The configuration alone is not enough: encoders and diffusion models share class names with decoders.
    """
    config = bridge.original_model.config
    if (
        getattr(bridge.cfg, "attention_dir", "causal") != "causal"
        or getattr(config, "is_causal", True) is False
    ):
        return False
    ids = _probe(bridge, 8, device)
    short, long = _residuals(bridge, ids[:, :4])[-1], _residuals(bridge, ids)[-1][:4]
    rounding = 1e-4 if str(bridge.cfg.dtype).endswith("32") else 2e-2
    return bool((short - long).norm() <= rounding * short.norm())


# ---------------------------------------------------------------------- passes over windows


def extract(
    model: LoadedModel,
    windows: Windows,
    layers: range,
    *,
    bos: int | None,
    last_token: bool,
    progress: _progress.Count | None = None,
) -> dict[int, Array]:
    """Activations of all windows, batch by batch.

    Parameters
    ----------
    model : LoadedModel
    windows : Windows, of n_words words
    layers : range
        Residual streams; nothing after the last of them is computed.
    bos : int or None
        Token put in front of every window.
    last_token : bool
        The window's last token, else the mean over the window and `bos`.
    progress : function, optional
        Called with (done, total) tokens after every batch, while the model has no hooks.

    Returns
    -------
    {layer: array (n_words, d_model)}, float32; 0 for words without a window
    """
    progress = _progress.ignore if progress is None else progress
    windows = windows if model.causal else windows.one_by_one()
    lengths = np.array([len(segment) for segment in windows.segments], dtype=int) + (bos is not None)
    words_of = _words_by_segment(windows)
    shape = (len(windows), int(model.bridge.cfg.d_model))
    arrays = {layer: np.zeros(shape, dtype=np.float32) for layer in layers}

    def read(batch: Array) -> None:
        words = np.concatenate([words_of[segment] for segment in batch])
        rows = np.repeat(np.arange(len(batch)), [len(words_of[segment]) for segment in batch])
        ids = _padded([windows.segments[segment] for segment in batch], bos)
        positions = windows.stop[words] - 1 + (bos is not None)
        for layer, values in _pass(model, ids, layers, rows, positions, last_token).items():
            arrays[layer][words] = values

    done, total = 0, int(lengths.sum())
    batches = _Batches(lengths, equal=not model.causal, most=_most_tokens(model))
    while (batch := batches.next()) is not None:
        started = time.monotonic()
        if not _fits(read, batch):
            batches.smaller()
            continue
        batches.took(batch, time.monotonic() - started)
        done += int(lengths[batch].sum())
        progress(done, total)
    return arrays


def _words_by_segment(windows: Windows) -> list[Array]:
    order = np.argsort(windows.segment, kind="stable")
    bounds = np.searchsorted(windows.segment[order], np.arange(len(windows.segments) + 1))
    return [order[start:end] for start, end in pairwise(bounds)]


class _Batches:
    """Segments of like length together, the longest first, as many as the time of a step allows."""

    def __init__(self, lengths: Array, *, equal: bool, most: int) -> None:
        self._lengths = lengths
        self._order = np.argsort(lengths, kind="stable")[::-1]
        self._equal = equal
        self._most = most
        self._tokens = int(lengths.max(initial=1))
        self._at = 0

    def next(self) -> Array | None:
        """The next batch; the same again until `took` is called."""
        if self._at >= len(self._order):
            return None
        longest = int(self._lengths[self._order[self._at]])
        n_segments = max(1, min(self._tokens, self._most) // longest)
        batch = self._order[self._at : self._at + n_segments]
        # a model that looks ahead would see what fills a shorter window up
        return batch[self._lengths[batch] == longest] if self._equal else batch

    def took(self, batch: Array, seconds: float) -> None:
        tokens = len(batch) * int(self._lengths[batch[0]])
        wished = tokens * STEP_SECONDS / max(seconds, 1e-4)
        self._tokens = int(np.clip(wished, 1, 4 * max(self._tokens, tokens)))
        self._at += len(batch)

    def smaller(self) -> None:
        self._most = max(1, min(self._tokens, self._most) // 2)


def _fits(read: Callable[[Array], None], batch: Array) -> bool:
    """Whether a batch could be read; a GPU's memory may be too small for more than one segment."""
    import torch

    try:
        read(batch)
        return True
    except torch.cuda.OutOfMemoryError:
        if len(batch) == 1:
            raise
        torch.cuda.empty_cache()
        return False


def _most_tokens(model: LoadedModel) -> int:
    """Tokens of a batch that should fit in memory: beyond some thousands nothing is gained on a CPU."""
    free = _free_bytes(model.device) or 1 << 30
    config = model.bridge.cfg
    width = max(int(getattr(config, "d_mlp", 0) or 0), 4 * int(config.d_model))
    per_token = 4 * (6 * width + 4 * int(getattr(config, "n_heads", 1) or 1) * 1024)
    return int(np.clip(0.25 * free // per_token, 1, 4096 if model.device == "cpu" else 1 << 17))


def _padded(segments: Sequence[Array], bos: int | None) -> Array:
    """(n_segments, longest) token ids, `bos` in front; what fills the right is never looked at."""
    front = int(bos is not None)
    ids = np.zeros((len(segments), front + max(len(segment) for segment in segments)), dtype=np.int64)
    if front:
        ids[:, 0] = bos
    for row, segment in zip(ids, segments, strict=True):
        row[front : front + len(segment)] = segment
    return ids


class _Seen(Exception):
    """Raised in a hook once the last layer asked for was seen: what would follow is not computed."""


def _pass(
    model: LoadedModel, ids: Array, layers: range, rows: Array, positions: Array, last_token: bool
) -> dict[int, Array]:
    """One pass: {layer: (n_words, d_model)} at (rows, positions) of `ids`, or the mean up to there."""
    import torch

    found: dict[int, Array] = {}
    rows_on, positions_on = (torch.as_tensor(a, device=model.device) for a in (rows, positions))
    n_layers = int(model.bridge.cfg.n_layers)

    def watch(layer: int) -> tuple[str, Callable]:
        def hook(value: Any, hook: Any) -> None:
            found[layer] = _pooled(value, rows_on, positions_on, last_token)
            if layer == layers[-1]:
                raise _Seen

        block, where = (layer, "resid_pre") if layer < n_layers else (n_layers - 1, "resid_post")
        return f"blocks.{block}.hook_{where}", hook

    hooks = [watch(layer) for layer in layers]
    mlp = model.last_mlp if last_token and layers[-1] == n_layers else None
    with (
        model.lock,
        torch.inference_mode(),
        model.bridge.hooks(fwd_hooks=hooks),
        narrowed(mlp, rows_on, positions_on),
        suppress(_Seen),
    ):
        model.bridge(torch.as_tensor(ids, device=model.device), return_type=None)
    return found


def _pooled(value: Any, rows: Any, positions: Any, last_token: bool) -> Array:
    import torch

    if last_token:
        return value[rows, positions].float().cpu().numpy()
    sums = value.cumsum(dim=1, dtype=torch.float64)[rows, positions]
    return (sums / (positions[:, None] + 1)).float().cpu().numpy()
