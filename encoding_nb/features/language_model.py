"""A language model's residual streams: load the model, and pass it over context windows.

A model is loaded from a folder (`models.model_folder`), without asking the Hub; its weights are read from there, or are
random. torch, transformers and transformer_lens are imported by the functions that need them; `trust_remote_code` is
always False.

Windows that begin together are read in one pass, which is exact for causal models; other models read every
window by itself.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np

from .. import _machine, _progress
from .._validation import error_text
from .models import (
    LOADING,
    ModelError,
    ModelInfo,
    cannot_load,
    identity,
    read_json,
    untrained_identity,
    weight_files,
)
from .tokens import TokenWindows

Array = np.ndarray

HALF_PRECISION = ("float16", "bfloat16")
DTYPES = ("float32", *HALF_PRECISION)

# At most this long between two calls of `progress`, where a single window does not take longer: short enough to see
# progress and to cancel, and long enough that the weights are read from memory for several windows at a time.
STEP_SECONDS = 1.0


# Seconds of work after which finished segments are kept on disk: little is lost when a kernel is killed, and writing
# takes far less time than that.
PIECE_SECONDS = 30.0


@dataclass(frozen=True)
class Piece:
    """Activations of some of a story's segments, kept until the story is complete.

    Attributes
    ----------
    start, stop : int
        Places of the segments in the order in which they are read.
    tokens : int
        Size of the next batch.
    values : array, (n_layers, n_words, d_model), float32
    """

    start: int
    stop: int
    tokens: int
    values: Array


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
# the largest published mixtures of experts have some 80,000
_MOST_MODULES = 200_000


def load_model(
    info: ModelInfo, *, dtype: str = "float32", device: str = "cpu", seed: int | None = None
) -> LoadedModel:
    """A model through TransformerLens, kept in memory for the next call (the last two).

    Parameters
    ----------
    info : ModelInfo
    dtype : one of `DTYPES`
    device : str
    seed : int, optional
        Of random weights, in place of those in the model's files: the same architecture, initialised as its class in
        transformers does. The same seed gives the same weights on every device; torch's random state is left as it is.

    Raises
    ------
    ModelError
        Half precision on a CPU, weights that need more memory than is free, files that cannot be loaded, weights that
        do not fit the configuration, or an architecture that cannot be built.
    """
    if dtype in HALF_PRECISION and device == "cpu":
        raise ModelError(f"{info.name}: {dtype} needs a GPU (it can crash on a CPU); use dtype='float32'.")
    weights = identity(info.folder) if seed is None else untrained_identity(info.folder, seed)
    key = (weights, dtype, device)
    with LOADING:
        loaded = _LOADED.pop(key, None)
        if loaded is None:
            while len(_LOADED) >= _KEPT_MODELS:
                del _LOADED[next(iter(_LOADED))]
            n_bytes = (info.n_parameters or 0) * (2 if dtype in HALF_PRECISION else 4)
            check_memory(1.35 * n_bytes, device, f"{info.name} needs about")
            loaded = _load(info, dtype, device, seed)
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


def _load(info: ModelInfo, dtype: str, device: str, seed: int | None) -> LoadedModel:
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformers.utils import logging

    config = read_json(info.folder / "config.json", f"the configuration of {info.name}")
    # TransformerLens leaves trust_remote_code out for the weights, and transformers would then ask on the terminal
    # whether to run code that the configuration names
    overrides: dict[str, Any] = {"auto_map": {}} if "auto_map" in config else {}
    if device == "cpu":
        _keep_to_quota()
    with ExitStack() as after:
        # building a model draws random numbers, with trained weights too; the caller's random state stays as it was
        after.enter_context(torch.random.fork_rng(devices=[]))
        if logging.is_progress_bar_enabled():
            after.callback(logging.enable_progress_bar)
            logging.disable_progress_bar()
        try:
            known, quantized = _model_class(info.folder), "quantization_config" in config
            bridge = TransformerBridge.boot_transformers(
                str(info.folder),
                device=device,
                dtype=getattr(torch, dtype),
                trust_remote_code=False,
                hf_config_overrides=overrides,
                model_class=_CheckedWeights(info, known, device, quantized)
                if seed is None
                else _RandomWeights(info, known, seed),
            )
            loaded = _without_hooks(bridge, info, device)
            if len(loaded.blocks) != info.n_layers:  # layers without a block would be 0
                raise ModelError(
                    f"{info.name}: expected {info.n_layers} layers, as config.json says, got {len(loaded.blocks)} "
                    f"blocks; does config.json name the layers twice? Choose another model."
                )
            loaded.causal = _is_causal(loaded, getattr(bridge.cfg, "attention_dir", "causal"))
            loaded.last_mlp = _last_mlp(loaded)
        except (torch.cuda.OutOfMemoryError, ModelError):
            raise
        except Exception as error:
            if seed is None or "trust_remote_code" in str(error):
                raise ModelError(cannot_load("model", info.name, info.folder, error)) from error
            raise ModelError(
                f"{info.name}: a model with random weights cannot be built from {info.folder / 'config.json'} "
                f"({error_text(error)}); choose another model, or weights='trained'."
            ) from error
    return loaded


# ---------------------------------------------------------------------- weights that fit


def _model_class(folder: Path) -> Any:
    """The class of transformers that TransformerLens loads a folder's model with."""
    from transformer_lens.model_bridge.sources import _hf_format
    from transformer_lens.model_bridge.sources.transformers import helpers
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return helpers.get_hf_model_class_for_architecture(
        _hf_format.determine_architecture_from_hf_config(config)
    )


@dataclass(frozen=True)
class _CheckedWeights:
    """In place of a class of transformers: its `from_pretrained`, which refuses weights that do not fit.

    transformers gives random values to what the files lack and only logs it.
    """

    info: ModelInfo
    known: Any
    device: str
    quantized: bool

    def from_pretrained(self, folder: str, **options: Any) -> Any:
        """The model in eval mode, all of its weights read from the files."""
        if not self.quantized:  # its tensors have other shapes in the files
            self._try_names_and_shapes(options)
        model, report = self.known.from_pretrained(folder, **options, output_loading_info=True)
        _refuse_misfit(self.info, model, report)
        return model

    def _try_names_and_shapes(self, options: dict[str, Any]) -> None:
        """Load tensors without values first: in milliseconds and without memory, whatever sizes are asked for."""
        import torch
        from transformers.utils import logging

        tensors = _tensors_without_values(weight_files(self.info.folder))
        level = logging.get_verbosity()
        logging.set_verbosity(logging.CRITICAL)
        try:
            than = f"its weights in {self.info.folder}"
            with _at_most_modules(20 * len(tensors) + 1000, self.info, than):
                with torch.device("meta"):
                    made = self.known.from_config(deepcopy(options["config"]))
                # tables that are computed and not in the files, such as sines of positions
                n_bytes = sum(table.numel() * table.element_size() for table in made.buffers())
                check_memory(n_bytes, self.device, f"The tables of {self.info.name} need")
                model, report = type(made).from_pretrained(
                    None,
                    **options,
                    state_dict=tensors,
                    device_map="meta",
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        finally:
            logging.set_verbosity(level)
        _refuse_misfit(self.info, model, report)
        _refuse_whole_numbers(self.info, model, tensors)


@dataclass(frozen=True)
class _RandomWeights:
    """In place of a class of transformers: its `from_pretrained`, which gives random weights and reads no file.

    They are made in float32 on the CPU, whatever the model runs in, and a quantized model is built with plain layers.
    """

    info: ModelInfo
    known: Any
    seed: int

    def from_pretrained(self, folder: str, *, config: Any, attn_implementation: str, **_: Any) -> Any:
        """The model in eval mode, initialised by its own class."""
        import torch

        options = {"dtype": torch.float32, "attn_implementation": attn_implementation}
        with torch.device("meta"), _at_most_modules(_MOST_MODULES, self.info, "any that is published"):
            made = self.known.from_config(deepcopy(config), **options)
        tensors = {id(tensor): tensor for tensor in (*made.parameters(), *made.buffers())}
        n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        check_memory(1.1 * n_bytes, "cpu", f"{self.info.name} with random weights needs about")
        # `_load` puts its state back; the CPU's generator alone, as `torch.manual_seed` would also seed the GPUs
        torch.default_generator.manual_seed(self.seed)
        with torch.device("cpu"):
            return self.known.from_config(deepcopy(config), **options).eval()


def _tensors_without_values(files: Sequence[Path]) -> dict[str, Any]:
    """{name: tensor of its shape on the meta device, of whole numbers or not}, read from the files' headers."""
    import torch
    from safetensors import safe_open

    found: dict[str, Any] = {}
    for path in files:
        if path.suffix != ".safetensors":
            _refuse_compressed(path)
            found |= torch.load(path, map_location="meta", weights_only=True)
            continue
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                tensor = file.get_slice(name)
                is_whole = tensor.get_dtype().startswith(("I", "U", "BOOL"))
                dtype = torch.int32 if is_whole else torch.float32
                found[name] = torch.empty(tensor.get_shape(), dtype=dtype, device="meta")
    return found


def _refuse_compressed(path: Path) -> None:
    """A ValueError for a file of torch's that unpacks to more than it holds; torch itself does not compress."""
    if is_zipfile(path):
        with ZipFile(path) as file:
            if sum(entry.file_size for entry in file.infolist()) > path.stat().st_size:
                raise ValueError(f"{path.name} is compressed")


@contextmanager
def _at_most_modules(most: int, info: ModelInfo, than: str) -> Iterator[None]:
    """A ModelError as soon as a model with more modules is built; it names what the model is larger `than`."""
    from torch.nn.modules.module import register_module_module_registration_hook

    n_built, own = 0, threading.get_ident()

    def count(*_: Any) -> None:
        nonlocal n_built
        n_built += threading.get_ident() == own
        if n_built > most:
            raise ModelError(
                f"{info.name}: its configuration describes a model that is much larger than {than}; copy or download "
                f"the model again."
            )

    hook = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


# parts of names that a wrapper adds around a model, and how the weights are saved without it
_WRAPPERS = {
    "_orig_mod.": "torch.compile: save `model._orig_mod`",
    "_fsdp_wrapped_module.": "FSDP: save the model's full state",
    "module.": "DataParallel or DDP: save `model.module`",
    "lora_": "PEFT: save `model.merge_and_unload()`",
    "base_layer.": "PEFT: save `model.merge_and_unload()`",
}


def _refuse_misfit(info: ModelInfo, model: Any, report: dict[str, Any]) -> None:
    """A ModelError where the embedding or a block lacks weights, by transformers' report on a loaded model.

    A head that is missing is fine: it is not used.
    """
    prefix = f"{model.base_model_prefix}."
    missing = sorted(report["missing_keys"])
    if model.base_model is not model:
        missing = [name for name in missing if name.startswith(prefix)]
    missing = [name for name in missing if "pooler" not in name.split(".")]
    others = [(name, tuple(found), tuple(needed)) for name, found, needed in report["mismatched_keys"]]
    if not missing and not others:
        return
    unknown, parts = sorted(report["unexpected_keys"]), []
    if missing:
        parts.append(f"{len(missing)} tensors are missing ({_first_of(missing)})")
    if unknown and missing:
        parts.append(f"{len(unknown)} have names that the model does not know ({_first_of(unknown)})")
    if others:
        shapes = [f"{name} {found}, expected {needed}" for name, found, needed in sorted(others)]
        parts.append(f"{len(others)} have another shape ({_first_of(shapes)})")
    cause = next((how for part, how in _WRAPPERS.items() if any(part in name for name in unknown)), None)
    advice = "The files are incomplete, or belong to another config.json; copy or download the model again"
    if cause is not None:
        advice = f"The names are those of {cause} instead"
    where = "" if str(info.folder) == info.name else f" in {info.folder}"
    raise ModelError(
        f"{info.name}: its weights{where} do not fit its config.json: {'; '.join(parts)}. {advice}."
    )


def _refuse_whole_numbers(info: ModelInfo, model: Any, tensors: dict[str, Any]) -> None:
    """A ModelError for weights that are whole numbers: quantized, but config.json does not say how."""
    weights, prefix = dict(model.named_parameters()), f"{model.base_model_prefix}."
    whole = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    whole = [name for name in whole if {name, prefix + name, name.removeprefix(prefix)} & weights.keys()]
    if whole:
        raise ModelError(
            f"{info.name}: {len(whole)} of its weights are whole numbers ({_first_of(sorted(whole))}), so they are "
            f"quantized, and config.json does not say how; choose the model with float weights."
        )


def _first_of(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


# ---------------------------------------------------------------------- a model for reading


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
    pieces: Iterable[Piece] = (),
    keep: Callable[[Piece], None] | None = None,
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
    pieces : iterable of Piece, optional
        What an earlier call gave to `keep`, from the first one on; those that do not follow each other are ignored.
    keep : function, optional
        Called with each next Piece after `PIECE_SECONDS` of work, and with the last one when something is raised.

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

    def words_in(batch: Array) -> Array:
        return np.concatenate([words_of[segment] for segment in batch])

    def read(batch: Array) -> None:
        words = words_in(batch)
        rows = np.repeat(np.arange(len(batch)), [len(words_of[segment]) for segment in batch])
        ids = _padded([windows.segments[segment] for segment in batch], bos)
        positions = windows.stop[words] - 1 + (bos is not None)
        rows, positions = (torch.as_tensor(array, device=model.device) for array in (rows, positions))
        with model.lock, _narrow(model.last_mlp, rows, positions) if narrow else nullcontext():
            found = _pass(model, ids, layers, lambda stream: _pooled(stream, rows, positions, last_token))
        for layer, values in found.items():
            arrays[layer][words] = values

    def piece_of(start: int, stop: int) -> Piece:
        words = words_in(order[start:stop])
        return Piece(start, stop, tokens, np.stack([arrays[layer][words] for layer in layers]))

    # Segments of about the same length together, the longest first, as many as the time of a step allows.
    order = np.argsort(lengths, kind="stable")[::-1]
    tokens, most = int(lengths.max(initial=1)), _most_tokens(model)
    at, total = 0, int(lengths.sum())
    for piece in pieces:
        if not at == piece.start < piece.stop <= len(order):
            break
        words = words_in(order[at : piece.stop])
        if piece.values.shape != (len(layers), len(words), model.d_model):
            break
        for layer, values in zip(layers, piece.values, strict=True):
            arrays[layer][words] = values
        at, tokens = piece.stop, piece.tokens
    kept, kept_at = at, time.monotonic()
    if at:
        progress(int(lengths[order[:at]].sum()), total)
    try:
        while at < len(order):
            longest = int(lengths[order[at]])
            batch = order[at : at + max(1, min(tokens, most) // longest)]
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
            at += len(batch)
            progress(int(lengths[order[:at]].sum()), total)
            if keep and at < len(order) and time.monotonic() - kept_at >= PIECE_SECONDS:
                keep(piece_of(kept, at))
                kept, kept_at = at, time.monotonic()
    except BaseException:
        if keep and kept < at:
            keep(piece_of(kept, at))
        raise
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
