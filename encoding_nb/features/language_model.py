"""A language model's residual streams: load the model, and pass it over context windows.

A model is loaded from a folder (`models.model_folder`), without asking the Hub. torch, transformers and
transformer_lens are imported by the functions that need them; `trust_remote_code` is always False.

Windows that begin together are read in one pass, which is exact for causal models; other models read every
window by itself.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import _machine, _progress
from .._validation import error_text
from .models import ModelError, ModelInfo, identity, read_json
from .tokens import TokenWindows

Array = np.ndarray

HALF_PRECISION = ("float16", "bfloat16")
DTYPES = ("float32", *HALF_PRECISION)

# At most this long between two calls of `progress`, where a single window does not take longer: short enough to see
# progress and to cancel, and long enough that the weights are read from memory for several windows at a time.
STEP_SECONDS = 1.0

# transformers completes its modules while they are first used; a second thread (another panel, or a cell) would find
# them incomplete.
_LOADING = threading.Lock()


@dataclass(eq=False)
class LoadedModel:
    """A model in memory.

    Attributes
    ----------
    model : Hugging Face model
    blocks : list of its transformer blocks, in order
    d_model : int
    device : str
    lock : held while the model has hooks
    causal : bool
        Whether a token depends on earlier tokens only.
    last_mlp : the last block's MLP, if it may read the words' positions alone, else None
    """

    model: Any
    blocks: list[Any]
    d_model: int
    device: str
    lock: threading.Lock
    causal: bool = False
    last_mlp: Any = None


_LOADED: dict[tuple, LoadedModel] = {}  # the one used last at the end
_KEPT_MODELS = 2


def load_model(info: ModelInfo, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
    """A model through TransformerLens, kept in memory for the next call (the last two).

    Raises
    ------
    ModelError
        Half precision on a CPU, weights that need more memory than is free, or files that cannot be loaded.
    """
    if dtype in HALF_PRECISION and device == "cpu":
        raise ModelError(f"{info.name}: {dtype} needs a GPU (it can crash on a CPU); use dtype='float32'.")
    key = (identity(info.folder), dtype, device)
    with _LOADING:
        loaded = _LOADED.pop(key, None)
        if loaded is None:
            while len(_LOADED) >= _KEPT_MODELS:
                del _LOADED[next(iter(_LOADED))]
            n_bytes = (info.n_parameters or 0) * (2 if dtype in HALF_PRECISION else 4)
            check_memory(1.35 * n_bytes, device, f"{info.name} needs about")
            loaded = _load(info, dtype, device)
        _LOADED[key] = loaded
        return loaded


def check_memory(needed: float, device: str, what: str) -> None:
    """A ModelError where a device has fewer bytes free than needed; `what` starts it, such as "gpt2 needs"."""
    free = _free_bytes(device)
    if free is not None and needed > free:
        raise ModelError(
            f"{what} {needed / 1e9:.1f} GB of memory on {device} and {free / 1e9:.1f} GB are free; choose a smaller "
            f"model, or restart other kernels."
        )


def _free_bytes(device: str) -> int | None:
    """Free memory of the GPU, or of this machine or container; None where unknown."""
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else None
    return _machine.free_memory()


def check_device(device: Any) -> None:
    """A ModelError for anything that does not name a kind of device; whether it exists is not checked."""
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", device):
        raise ModelError(
            f"device: expected 'auto', 'cpu', 'cuda', 'cuda:1' (and so on) or 'mps', got {device!r}; 'auto' uses a GPU "
            f"if there is one."
        )


def choose_device(device: str) -> str:
    """The device to compute on: for "auto" CUDA where it is available, else the CPU; any other name as it is.

    Raises
    ------
    ModelError
        An unknown device, or a GPU that does not exist.
    """
    check_device(device)
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    number = int(device.partition(":")[2] or 0)
    mps = int(torch.backends.mps.is_available())
    n_devices = mps if device == "mps" else torch.cuda.device_count()
    if number >= n_devices:
        found = f"only {n_devices} such GPUs" if n_devices else "no GPU"
        raise ModelError(f"device: expected 'auto' or 'cpu', got {device!r}, but torch finds {found} here.")
    return device


@lru_cache(maxsize=8)
def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises
    ------
    ModelError
        Its files are damaged, or it needs code that comes with it, which is never run.
    """
    with _LOADING:
        from transformers import AutoTokenizer

        try:
            # explicit, because transformers would otherwise ask on the terminal
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
    """The token in front of every window: BOS, else CLS, else EOS, else None."""
    candidates = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id)
    return next((token for token in candidates if token is not None), None)


def _load(info: ModelInfo, dtype: str, device: str) -> LoadedModel:
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformers.utils import logging

    config = read_json(info.folder / "config.json", f"the configuration of {info.name}")
    if device == "cpu":
        _keep_to_quota()
    with ExitStack() as after:
        if logging.is_progress_bar_enabled():
            after.callback(logging.enable_progress_bar)
            logging.disable_progress_bar()
        try:
            bridge = TransformerBridge.boot_transformers(
                str(info.folder),
                device=device,
                dtype=getattr(torch, dtype),
                trust_remote_code=False,
                # TransformerLens leaves trust_remote_code out for the weights, and transformers would then ask on the
                # terminal whether to run code that the configuration names
                hf_config_overrides={"auto_map": {}} if "auto_map" in config else {},
            )
            loaded = _without_hooks(bridge, info, device)
            loaded.causal = _is_causal(loaded, getattr(bridge.cfg, "attention_dir", "causal"))
            loaded.last_mlp = _last_mlp(loaded)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            raise ModelError(_cannot_load("model", info.name, info.folder, error)) from error
    return loaded


def _without_hooks(bridge: Any, info: ModelInfo, device: str) -> LoadedModel:
    """The bridge's Hugging Face model with its own modules, which take half the time of TransformerLens's hooked ones.

    Only the residual streams between the blocks are read, and plain forward hooks read those.
    """
    import torch
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent as Hooked

    model = bridge.original_model.eval()
    for parent in [module for module in model.modules() if not isinstance(module, Hooked)]:
        for name, child in list(parent.named_children()):
            while isinstance(child, Hooked):
                child = child.original_component
            if type(child).__name__ == "NewGELUActivation":  # GPT-2's: eight operations for the same values
                child = torch.nn.GELU(approximate="tanh")
            setattr(parent, name, child)
    model.config.use_cache = model.config.output_attentions = False
    with suppress(ValueError):  # a family without fused attention
        model.set_attn_implementation("sdpa")
    return LoadedModel(model, list(bridge.blocks), info.d_model, device, threading.Lock())


def _keep_to_quota() -> None:
    """No more threads than the container may use: more of them only wait for each other (Binder)."""
    import torch

    with suppress(OSError, ValueError):  # not in a container, or "max": no quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = max(1, int(quota) // int(period))
        if allowed < torch.get_num_threads():
            torch.set_num_threads(allowed)


# ---------------------------------------------------------------------- residual streams


class _Read(Exception):
    """Raised in a hook once the last layer asked for was read: the rest of the pass is not needed."""


def _pass(model: LoadedModel, ids: Array, layers: range, take: Callable[[Any], Any]) -> dict[int, Any]:
    """One pass over (n, length) token ids: {layer: `take` of its residual stream, (n, length, d_model)}."""
    import torch

    found: dict[int, Any] = {}

    def read(layer: int, stream: Any) -> None:
        found[layer] = take(stream)
        if layer == layers[-1]:
            raise _Read

    def before(layer: int, block: Any, given: tuple, named: dict) -> None:
        read(layer, given[0] if given else named["hidden_states"])

    def after_the_last(block: Any, given: tuple, values: Any) -> None:
        read(len(model.blocks), values[0] if isinstance(values, tuple) else values)

    with torch.inference_mode(), suppress(_Read), ExitStack() as hooks:
        for layer, block in enumerate(model.blocks):
            if layer in layers:
                hook = partial(before, layer)
                hooks.enter_context(block.register_forward_pre_hook(hook, with_kwargs=True))
        if len(model.blocks) in layers:
            hooks.enter_context(model.blocks[-1].register_forward_hook(after_the_last))
        model.model(torch.as_tensor(ids, device=model.device))
    return found


def _last_stream(model: LoadedModel, length: int) -> Any:
    """(length, d_model): the last block's output for some tokens."""
    tokens = (7 * np.arange(length)[None] + 5) % max(2, model.model.get_input_embeddings().num_embeddings)
    last = len(model.blocks)
    return _pass(model, tokens, range(last, last + 1), lambda stream: stream[0].float().clone())[last]


def _agree(first: Any, second: Any, rounding: float = 1e-4) -> bool:
    return bool((first - second).norm() <= rounding * first.norm())


def _is_causal(model: LoadedModel, direction: str) -> bool:
    """Whether a token depends on earlier tokens only: neither the configuration nor a trial says otherwise.

    The configuration alone is not enough: encoders and diffusion models share class names with decoders.
    """
    if direction != "causal" or getattr(model.model.config, "is_causal", True) is False:
        return False
    rounding = 1e-4 if str(model.model.dtype).endswith("32") else 2e-2
    return _agree(_last_stream(model, 4), _last_stream(model, 8)[:4], rounding)


@contextmanager
def _narrow(mlp: Any, rows: Any, positions: Any) -> Iterator[None]:
    """An MLP reads only (rows, positions) of its (n_rows, length, width) input, and gives 0 elsewhere.

    No block reads the last one's output, so there only the words' positions are needed: this saves two thirds of the
    block's work, a tenth of all work in the demo's six blocks.
    """
    shape: list[int] = []

    def take(module: Any, given: tuple) -> tuple:
        shape[:] = given[0].shape[:-1]
        return (given[0][rows, positions][:, None], *given[1:])

    def put_back(module: Any, given: tuple, values: Any) -> Any:
        whole = values.new_zeros(*shape, values.shape[-1])
        whole[rows, positions] = values[:, 0]
        return whole

    with mlp.register_forward_pre_hook(take), mlp.register_forward_hook(put_back):
        yield


def _last_mlp(model: LoadedModel) -> Any:
    """The last block's MLP, or None where the model has none or `_narrow` changes the words' residuals."""
    import torch

    mlp, positions = getattr(model.blocks[-1], "mlp", None), torch.tensor([23, 2, 11], device=model.device)
    whole = _last_stream(model, 24)[positions]
    # an MLP of another form raises; all of it is computed then
    with suppress(Exception), _narrow(mlp, torch.zeros_like(positions), positions):
        if _agree(whole, _last_stream(model, 24)[positions]):
            return mlp
    return None


# ---------------------------------------------------------------------- passes over windows


def extract(
    model: LoadedModel,
    windows: TokenWindows,
    layers: range,
    *,
    bos: int | None,
    last_token: bool,
    progress: _progress.Count = _progress.ignore,
) -> dict[int, Array]:
    """Activations of all windows, batch by batch.

    Parameters
    ----------
    model : LoadedModel
    windows : TokenWindows, of n_words words
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
    import torch

    windows = windows if model.causal else windows.one_by_one()
    lengths = np.array([len(segment) for segment in windows.segments], dtype=int) + (bos is not None)
    by_segment = np.argsort(windows.segment, kind="stable")
    bounds = np.searchsorted(windows.segment[by_segment], np.arange(len(windows.segments) + 1))
    words_of = np.split(by_segment, bounds)[1:-1]  # without the words that have no window
    arrays = {layer: np.zeros((len(windows), model.d_model), dtype=np.float32) for layer in layers}
    narrow = model.last_mlp is not None and last_token and layers[-1] == len(model.blocks)

    def read(batch: Array) -> None:
        words = np.concatenate([words_of[segment] for segment in batch])
        rows = np.repeat(np.arange(len(batch)), [len(words_of[segment]) for segment in batch])
        ids = _padded([windows.segments[segment] for segment in batch], bos)
        positions = windows.stop[words] - 1 + (bos is not None)
        rows, positions = (torch.as_tensor(array, device=model.device) for array in (rows, positions))
        with model.lock, _narrow(model.last_mlp, rows, positions) if narrow else nullcontext():
            found = _pass(model, ids, layers, lambda stream: _pooled(stream, rows, positions, last_token))
        for layer, values in found.items():
            arrays[layer][words] = values

    # Segments of about the same length together, the longest first, as many as the time of a step allows.
    order = np.argsort(lengths, kind="stable")[::-1]
    tokens, most = int(lengths.max(initial=1)), _most_tokens(model)
    done, total = 0, int(lengths.sum())
    while len(order):
        longest = int(lengths[order[0]])
        batch = order[: max(1, min(tokens, most) // longest)]
        if not model.causal:  # a model that looks ahead would see the padding of a shorter segment
            batch = batch[lengths[batch] == longest]
        started = time.monotonic()
        try:
            read(batch)
        except torch.cuda.OutOfMemoryError:
            if len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            most = max(1, min(tokens, most) // 2)
            continue
        size = len(batch) * longest
        wished = size * STEP_SECONDS / max(time.monotonic() - started, 1e-4)
        tokens = int(np.clip(wished, 1, 4 * max(tokens, size)))
        order = order[len(batch) :]
        done += int(lengths[batch].sum())
        progress(done, total)
    return arrays


def _most_tokens(model: LoadedModel) -> int:
    """Tokens of a batch that should fit in memory; on a CPU more than some thousands gain nothing."""
    free = _free_bytes(model.device) or 1 << 30
    config = model.model.config.get_text_config()
    width = max(getattr(config, "intermediate_size", None) or 0, 4 * model.d_model)
    per_token = 4 * (6 * width + 4 * (getattr(config, "num_attention_heads", None) or 1) * 1024)
    return int(np.clip(0.25 * free // per_token, 1, 4096 if model.device == "cpu" else 1 << 17))


def _padded(segments: Sequence[Array], bos: int | None) -> Array:
    """(n_segments, longest) token ids, `bos` in front; the padding on the right is never used."""
    rows = [segment if bos is None else [bos, *segment] for segment in segments]
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids


def _pooled(value: Any, rows: Any, positions: Any, last_token: bool) -> Array:
    import torch

    if last_token:
        return value[rows, positions].float().cpu().numpy()
    sums = value.cumsum(dim=1, dtype=torch.float64)[rows, positions]
    return (sums / (positions[:, None] + 1)).float().cpu().numpy()
