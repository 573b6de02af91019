"""Language models by name: where their files are and what size they have, without loading them.

A name is resolved to a folder on this machine first, and the hub is asked only when that fails and a network
is there: nobody waits for one that is not.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .hub import SUGGESTED, fetch, full_name, not_here, offline_reason, registry, spellings
from .model_files import (
    ModelError,
    Stamp,
    has_tokenizer,
    has_weights,
    is_file,
    is_folder,
    is_on_hub,
    said,
    stamps_of,
)

__all__ = [
    "ModelError",
    "ModelInfo",
    "available_models",
    "files_problem",
    "full_name",
    "model_folder",
    "model_info",
    "split_revision",
]

DEMO = Path(__file__).parent / "datasets" / "demo_data" / "model"


@dataclass(frozen=True)
class ModelInfo:
    """A model's size, as far as it is known without loading its weights.

    Attributes
    ----------
    name : as it was asked for
    n_layers, d_model, n_ctx : int or None
        None where only the name is known (`available_models` of a model that is not on this machine); `n_ctx`
        is None too for models without a limit of their own.
    n_parameters : int or None
        Counted in the weight files' headers; an estimate from the sizes where there are none.
    architecture : str
        The Hugging Face class.
    on_this_machine : bool
    folder : Path or None
    centred : bool
        Whether LITcoder's processing takes the mean over d_model off the residual stream (LayerNorm models).
    """

    name: str
    n_layers: int | None = None
    d_model: int | None = None
    n_ctx: int | None = None
    n_parameters: int | None = None
    architecture: str = ""
    on_this_machine: bool = False
    folder: Path | None = None
    centred: bool = True

    @property
    def n_bytes(self) -> int | None:
        """Memory for the weights in float32."""
        return None if self.n_parameters is None else 4 * self.n_parameters


# ---------------------------------------------------------------------- folders


def split_revision(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """A hub model's name and revision from "name@revision"; a folder's name, or one without "@", as it is."""
    if revision is None and "@" in name and not _names_a_folder(name):
        name, _, revision = name.partition("@")
    return name, revision or None


def _names_a_folder(name: str) -> bool:
    return Path(name).is_absolute() or name.startswith((".", "~")) or is_folder(Path(name))


def model_folder(name: str, *, revision: str | None = None, download: bool = False) -> Path:
    """The folder that holds a model's files.

    Parameters
    ----------
    name : str
        "demo", a folder, or a name on the Hugging Face hub (short TransformerLens names included), where need be
        with a revision behind it: "EleutherAI/pythia-70m@step3000".
    revision : str, optional
        A branch, tag or commit on the hub, where the name holds none.
    download : bool
        Fetch a hub model's weights when they are not here.

    Raises
    ------
    ModelError
        Unknown (with the nearest names), or not on this machine and no way to get it, said at once.
    """
    if not isinstance(name, str) or not name.strip():
        raise ModelError(f"Expected a model's name or folder, got {name!r}; 'demo' is there always.")
    name, revision = split_revision(os.path.expanduser(name), revision)
    if name == "demo":
        name = str(DEMO)
    if is_file(Path(name) / "config.json"):
        if revision is not None:
            raise ModelError(f"{name} is a local folder, which has no revisions; leave revision out.")
        return Path(name)
    if is_folder(Path(name)):
        raise ModelError(f"{name}: expected a Hugging Face model folder, but there is no config.json in it.")
    if _names_a_folder(name):
        raise ModelError(
            f"{name}: there is no such folder; check the path, or take the bundled model 'demo'."
        )
    folder = _cached_folder(full_name(name), revision)
    if folder is not None and (not download or has_weights(folder)):
        return folder
    return fetch(name, revision, weights=download)


def _cached_folder(hub_name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for candidate in spellings(hub_name):
        try:
            config = try_to_load_from_cache(candidate, "config.json", revision=revision)
        except HFValidationError:
            return None
        if isinstance(config, str):
            return Path(config).parent
    return None


def files_problem(info: ModelInfo) -> str | None:
    """One sentence on files that a model lacks and that cannot be fetched, or None; looks, and loads nothing."""
    name, folder = info.name, info.folder
    on_hub = is_on_hub(folder)
    if not info.on_this_machine:
        if not on_hub:
            return (
                f"{name}: expected weights (*.safetensors or pytorch_model*.bin, all that its index names) in "
                f"{folder}, got none; copy or save the model again."
            )
        reason = offline_reason()
        return None if reason is None else not_here(f"{name}'s weights are", reason)
    if not has_tokenizer(folder):
        return (
            f"{name}: expected a tokenizer's files (such as tokenizer.json) in {folder}, got none; save the tokenizer "
            f"there too (`tokenizer.save_pretrained(folder)`)."
        )
    return None


# ---------------------------------------------------------------------- sizes

# the same thing has other names in other families
_N_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_D_MODEL = ("hidden_size", "n_embd", "d_model", "dim")
_N_CTX = (
    "n_positions",
    "max_position_embeddings",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
)
_RMS_NORM = ("rms_norm_eps", "rms_norm_epsilon", "layer_norm_rms_epsilon")


def model_info(model_name: str, *, revision: str | None = None) -> ModelInfo:
    """A model's layers, width, context length and parameters, without loading its weights.

    Reads config.json: of the bundled model, of a local folder, from the hub's cache on this machine, and only
    then from the hub.

    Raises
    ------
    ModelError
        As `model_folder`; or a configuration that names no layers or width.
    """
    folder = model_folder(model_name, revision=revision)
    return _info(model_name, folder, stamps_of(folder))


@lru_cache(maxsize=256)
def _info(name: str, folder: Path, stamps: tuple[Stamp, ...]) -> ModelInfo:
    # the stamps make this run again when a file comes or changes
    config = _read_config(name, folder)
    inner = config.get("text_config")
    text = {**config, **(inner if isinstance(inner, dict) else {})}
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"{name}: encoder-decoder models have no single stream of layers; choose a decoder or encoder."
        )
    n_layers, d_model = _first(text, _N_LAYERS), _first(text, _D_MODEL)
    if n_layers is None or d_model is None:
        raise ModelError(
            f"{name}: expected layers and a width in {folder / 'config.json'}, got none; is it a language model?"
        )
    architectures = config.get("architectures")
    return ModelInfo(
        name=name,
        n_layers=n_layers,
        d_model=d_model,
        n_ctx=_context_length(text),
        n_parameters=_n_parameters(folder) or _estimate(text, n_layers, d_model),
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        on_this_machine=has_weights(folder),
        folder=folder,
        centred=not any(key in text for key in _RMS_NORM) and "mamba" not in str(config.get("model_type")),
    )


def _read_config(name: str, folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{name}: {path} cannot be read ({said(error)}); copy or download the model again."
        ) from error
    if not isinstance(config, dict):
        raise ModelError(
            f"{name}: expected {path} to hold a model's configuration, got a {type(config).__name__}; copy or download "
            f"the model again."
        )
    return config


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    found = (config.get(name) for name in names)
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0), None)


def _context_length(config: Mapping[str, Any]) -> int | None:
    n_ctx = _first(config, _N_CTX)
    # RoBERTa-like models keep the first places of their table for padding
    if n_ctx is not None and "roberta" in str(config.get("model_type")):
        padding = config.get("pad_token_id", 1)
        return n_ctx - (padding if isinstance(padding, int) else 1) - 1
    return n_ctx


def _n_parameters(folder: Path) -> int | None:
    files = sorted(folder.glob("*.safetensors"))
    try:
        return sum(_count_safetensors(file) for file in files) or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return None  # damaged weights are reported when they are loaded


def _count_safetensors(file: Path) -> int:
    with open(file, "rb") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        if length > 1 << 27:
            raise ValueError(f"{file}: not a safetensors file")
        header = json.loads(handle.read(length))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            size = 1
            for extent in tensor["shape"]:
                size *= extent
            total += size
    return total


def _estimate(config: Mapping[str, Any], n_layers: int, d_model: int) -> int:
    width = _first(config, ("intermediate_size", "ffn_dim", "n_inner")) or 4 * d_model
    vocabulary = _first(config, ("vocab_size",)) or 50_000
    return n_layers * (4 * d_model**2 + 2 * d_model * width) + vocabulary * d_model


def available_models() -> list[ModelInfo]:
    """Models to choose from: those on this machine first, with sizes, then all that TransformerLens supports."""
    here = {}
    for name in ("demo", *_names_in_cache()):
        try:
            info = model_info(name)
        except (ModelError, OSError, ValueError):
            continue
        if info.on_this_machine:
            here[full_name(name)] = info
    models, _ = registry()
    order = [*(s for s in SUGGESTED if s != "demo"), *models]
    rest = {
        full_name(name): ModelInfo(name, architecture=models.get(full_name(name), ""))
        for name in reversed(order)
    }
    listed = dict.fromkeys(full_name(name) for name in order)
    return [*here.values(), *(rest[name] for name in listed if name not in here)]


def _names_in_cache() -> list[str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = sorted(Path(HF_HUB_CACHE).glob("models--*/snapshots"))
    return [folder.parent.name.removeprefix("models--").replace("--", "/") for folder in folders]
