"""Language models into memory, through TransformerLens, and what has to be known of the machine for it.

A model is loaded from a folder (`models.model_folder`), so that no hub is asked. torch, transformers and
transformer_lens are imported by the functions that need them; `trust_remote_code` is always False.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .machine import free_memory
from .model_files import ModelError, identity, said
from .models import ModelInfo

HALF_PRECISION = ("float16", "bfloat16")
DTYPES = ("float32", *HALF_PRECISION)

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
    free = free_bytes(device)
    needed = int((info.n_parameters or 0) * (2 if dtype in HALF_PRECISION else 4) * 1.35)
    if free is not None and needed > free:
        raise ModelError(
            f"{info.name} needs about {needed / 1e9:.1f} GB of memory on {device} and {free / 1e9:.1f} GB "
            f"are free; choose a smaller model, or restart other kernels."
        )


def free_bytes(device: str = "cpu") -> int | None:
    """Memory that can still be taken: of the GPU, or of this machine or container; None where unknown."""
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else None
    return free_memory()


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
        f"{name}: its {what}{where} cannot be loaded ({said(error)}); copy or download the model again, or choose "
        f"another."
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
