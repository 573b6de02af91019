"""Language models by name: their folders, sizes and identity, and downloads from the Hugging Face hub.

A name is looked up on this machine first. The hub is asked only when that fails and there is a network, so that
nobody waits for a network that is not there.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .._files import cache_folder, new_file
from .._validation import error_text, shorten

_LARGE_FILES = 1 << 27
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)


class ModelError(ValueError):
    """A model that cannot be had: unknown, not on this machine, damaged, or too large for it."""


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for what cannot be a path."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a path can be
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; False for what cannot be a path."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weight files."""
    return bool(weight_files(folder))


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights; none when one of several is missing (a download that stopped)."""
    # a link whose target was removed from the hub's cache is no file
    found = sorted(filter(is_file, folder.glob("*.safetensors")))
    found = found or sorted(filter(is_file, folder.glob("pytorch_model*.bin")))
    kind = "model.safetensors" if found and found[0].suffix == ".safetensors" else "pytorch_model.bin"
    index = folder / f"{kind}.index.json"
    if index.is_file():
        try:
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{index}: expected the list of a model's weight files, and it cannot be read ({error_text(error)}); "
                f"copy or download the model again."
            ) from error
        if not parts <= {file.name for file in found}:
            return []
    return found


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds any tokenizer file; without one transformers makes a tokenizer without tokens."""
    return any(is_file(path) for pattern in _TOKENIZER_FILES for path in folder.glob(pattern))


def is_on_hub(folder: Path) -> bool:
    """Whether a folder is one of the hub's cache, which the hub can complete."""
    parts = folder.absolute().parts
    return len(parts) > 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--")


# ---------------------------------------------------------------------- identity


def identity(folder: Path) -> str:
    """What sets a model's values apart: a hub model's name and commit, else a digest of its files."""
    parts = folder.absolute().parts
    if is_on_hub(folder):
        return f"{parts[-3].removeprefix('models--').replace('--', '/')}@{parts[-1]}"
    return f"sha256:{_digest(stamps_of(folder))}"


# path, size, and what changes when a file does: times of writing and of any change, and its number on the disk.
# The time of writing alone can be set back by whoever writes (a copy that keeps times does); that of any change not.
Stamp = tuple[str, int, int, int, int]


def stamps_of(folder: Path) -> tuple[Stamp, ...]:
    """Stamps of a model's files: the same as long as nobody wrote to them."""
    found = []
    for file in (folder / "config.json", *weight_files(folder)):
        status = file.stat()
        found.append(
            (
                str(file.absolute()),
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
            )
        )
    return tuple(found)


@lru_cache(maxsize=64)
def _digest(stamps: tuple[Stamp, ...]) -> str:
    """Digest of the files' names and contents; of large files it is remembered from kernel to kernel."""
    large = sum(size for _, size, *_ in stamps) > _LARGE_FILES
    stamp = sha256(json.dumps(stamps).encode()).hexdigest()
    noted = cache_folder() / "digests" / stamp
    if large and noted.is_file():
        return noted.read_text()
    hashed = sha256()
    for path, size, *_ in stamps:
        hashed.update(f"{Path(path).name} {size}\n".encode())
        with open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                hashed.update(chunk)
    if large:
        with suppress(OSError), new_file(noted) as draft:  # else it is worked out again next time
            draft.write_text(hashed.hexdigest())
    return hashed.hexdigest()


# shown first: the names the tutorial uses and one of each common family
SUGGESTED = (
    "demo",
    "gpt2-small",
    "gpt2-medium",
    "facebook/opt-125m",
    "EleutherAI/pythia-70m",
    "EleutherAI/pythia-160m",
    "Qwen/Qwen2.5-0.5B",
    "meta-llama/Llama-3.2-1B",
)
# the hub moved its oldest models from bare names to these owners; a cache may hold either
_OWNERS = ("openai-community", "google-bert", "FacebookAI", "distilbert")
# seconds the hub has to answer before this machine counts as offline
_PATIENCE = 3.0


@lru_cache(maxsize=1)
def registry() -> tuple[dict[str, str], dict[str, str]]:
    """TransformerLens's {name: architecture} and {alias: name}, read from its files, not by importing it."""
    spec = find_spec("transformer_lens")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("transformer_lens is not installed; try `pip install 'transformer-lens>=4.3'`.")
    data = Path(spec.submodule_search_locations[0]) / "tools" / "model_registry" / "data"
    models = json.loads((data / "supported_models.json").read_text(encoding="utf-8"))["models"]
    aliases = json.loads((data / "model_aliases.json").read_text(encoding="utf-8"))["aliases"]
    return (
        {model["model_id"]: model["architecture_id"] for model in models},
        {alias: name for name, short in aliases.items() for alias in short},
    )


def full_name(name: str) -> str:
    """The hub's name for a short one such as gpt2-small; any other name as it is."""
    return registry()[1].get(name, name)


def spellings(hub_name: str) -> list[str]:
    """The names under which a cache may hold a model."""
    return [hub_name, *(f"{owner}/{hub_name}" for owner in _OWNERS if "/" not in hub_name)]


def _nearest(name: str) -> str:
    models, aliases = registry()
    known = {known.lower(): known for known in (*SUGGESTED, *aliases, *models)}
    tails = {full.split("/")[-1]: spelled for full, spelled in reversed(known.items())}
    wanted = name.lower().split("/")[-1]
    found = get_close_matches(name.lower(), known, n=3, cutoff=0.7)
    found = [known[f] for f in found] + [tails[f] for f in get_close_matches(wanted, tails, n=3, cutoff=0.7)]
    return ", ".join(dict.fromkeys(found)) or ", ".join(SUGGESTED[:4])


# ---------------------------------------------------------------------- fetching


def fetch(name: str, revision: str | None, *, weights: bool) -> Path:
    """The folder of a model from the hub: its configuration, and with `weights` all that is needed to load it.

    Raises
    ------
    ModelError
        No network, an unknown name or revision, or a model that the hub keeps back; says what to try.
    """
    hub_name = full_name(name)
    known = any(spelling in registry()[0] or _is_cached(spelling) for spelling in spellings(hub_name))
    name = name if revision is None else f"{name}@{revision}"
    _refuse_offline(name, known)
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        if not weights:
            return Path(hf_hub_download(hub_name, "config.json", revision=revision)).parent
        return Path(
            snapshot_download(hub_name, revision=revision, allow_patterns=_wanted_files(hub_name, revision))
        )
    except Exception as error:  # the hub's client lets its transport's errors through
        raise ModelError(_refusal(name, hub_name, error)) from error


def _refusal(name: str, hub_name: str, error: Exception) -> str:
    """What the hub's refusal of a model means, and what to try."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return (
            f"{name} is on the hub, which gives it only with a token of somebody who accepted its terms (see "
            f"huggingface.co/{hub_name}, then `hf auth login`); gpt2-small, EleutherAI/pythia-70m and the "
            f"bundled model 'demo' need none."
        )
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return f"Unknown model {shorten(name)!r}; did you mean one of {_nearest(hub_name)}?"
    if isinstance(error, RevisionNotFoundError):
        return f"{name}: the hub has {hub_name} but not this revision; leave it out, or give a branch, tag or commit."
    if isinstance(error, LocalEntryNotFoundError):
        return not_here(f"{name} is", "the hub cannot be reached")
    if isinstance(error, EntryNotFoundError):
        return f"{name}: the hub has it without a config.json, so it is no model of transformers; choose another."
    return (
        f"{name}: the hub did not give it ({error_text(error)}); try again later, give a local folder, or take a model "
        f"that is on this machine ({_here()})."
    )


def _wanted_files(hub_name: str, revision: str | None) -> list[str]:
    from huggingface_hub import list_repo_files

    files = list_repo_files(hub_name, revision=revision)
    weights = "*.safetensors" if any(f.endswith(".safetensors") for f in files) else "pytorch_model*.bin"
    return [weights, "*.json", "*.txt", "*.model"]


def _refuse_offline(name: str, known: bool) -> None:
    reason = offline_reason()
    if reason is None:
        return
    if not known:
        raise ModelError(
            f"Unknown model {shorten(name)!r} (not on this machine, which has {_here()}, and {reason}); did you mean "
            f"one of {_nearest(name)}?"
        )
    raise ModelError(not_here(f"{name} is", reason))


def not_here(what: str, reason: str) -> str:
    """A sentence on what is not on this machine and cannot be fetched: why, and what works instead."""
    return (
        f"{what} not on this machine, and {reason}: fetch it where there is a network, give a local folder, or take "
        f"a model that is here ({_here()})."
    )


def _here() -> str:
    """Names of models on this machine, a few of them; the bundled one first."""
    names = ["demo"]
    for folder in snapshots():
        with suppress(ModelError, OSError):
            if has_weights(folder):
                names.append(folder.parents[1].name.removeprefix("models--").replace("--", "/"))
    return ", ".join(list(dict.fromkeys(names))[:4])


def _is_cached(hub_name: str) -> bool:
    """Whether any revision of a model is on this machine."""
    return any(folder.parents[1].name == f"models--{hub_name.replace('/', '--')}" for folder in snapshots())


def snapshots() -> list[Path]:
    """The folders of the hub's cache on this machine, one for each revision of a model."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return sorted(Path(HF_HUB_CACHE).glob("models--*/snapshots/*"))


def offline_reason() -> str | None:
    """Why the hub cannot be asked, found out in seconds rather than after its client's retries."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}:
            return f"{variable} is set"
    if any(os.environ.get(v) for v in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return None  # a proxy resolves names; only trying can tell
    endpoint = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    answered = threading.Event()

    def knock() -> None:
        with suppress(OSError):
            socket.create_connection((endpoint.hostname, endpoint.port or 443), timeout=_PATIENCE).close()
            answered.set()

    # in a thread, because looking up a name has no time limit of its own
    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    knocking.join(_PATIENCE)
    return None if answered.is_set() else f"{endpoint.hostname} cannot be reached"


DEMO = Path(__file__).parent.parent / "datasets" / "demo_data" / "model"


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
            f"{name}: {path} cannot be read ({error_text(error)}); copy or download the model again."
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
