"""Language models by name: where their files are, their sizes and tokenizers, and downloads from the Hugging Face Hub.

A name is looked up on this machine first. The Hub is asked only when that fails and there is a network, so that nothing
waits for a network that is missing.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .._files import cache_folder, digest, digest_of_file, new_file
from .._validation import error_text, shorten

DEMO = Path(__file__).parent.parent / "datasets" / "demo_data" / "model"
# shown first: the names the tutorial uses and one of each common family
SUGGESTED = (
    "demo gpt2-small gpt2-medium facebook/opt-125m EleutherAI/pythia-70m EleutherAI/pythia-160m Qwen/Qwen2.5-0.5B "
    "meta-llama/Llama-3.2-1B"
).split()
# the Hub moved its oldest models from bare names to these owners; a cache may hold either
_OWNERS = ("openai-community", "google-bert", "FacebookAI", "distilbert")
_TOKENIZER_FILES = "tokenizer.json tokenizer_config.json vocab* merges.txt *.model *.spm *.tiktoken".split()
# tokens that may be put in front of every window
FIRST_TOKENS = ("bos", "eos", "none")
# the deepest models that are published have some hundred layers
_MOST_LAYERS = 1000
_LARGEST = 2**31 - 1  # of a configuration's sizes

# transformers completes its modules while they are first used; a second thread (another panel, or a cell) would find
# them incomplete.
LOADING = threading.Lock()
# seconds the Hub has to answer before this machine counts as offline
_PATIENCE = 3.0


class ModelError(ValueError):
    """A model that cannot be used: unknown, not on this machine, damaged, or too large for it."""


@dataclass(frozen=True)
class FirstToken:
    """The token that is read in front of every window where `first_token="bos"`.

    Attributes
    ----------
    id : int
    text : str
    note : str
        What is unusual about it; empty for a BOS that only begins a text.
    """

    id: int
    text: str
    note: str = ""


@dataclass(frozen=True)
class ModelInfo:
    """A model's size, as far as it is known without loading its weights.

    Attributes
    ----------
    name : str
        As it was asked for.
    n_layers, d_model, n_ctx : int or None
        None where only the name is known (`available_models` of a model that is not on this machine); `n_ctx` is also
        None for models without a limit.
    n_parameters : int or None
        Counted in the weight files' headers; where there are none, an estimate from the sizes.
    architecture : str
        The Hugging Face class.
    on_this_machine : bool
    folder : Path or None
    centred : bool
        Whether LITcoder's processing subtracts the mean over d_model from the residual stream (LayerNorm models).
    n_embeddings : int or None
        Token ids that the model knows; None where the configuration does not say it.
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
    n_embeddings: int | None = None

    @property
    def first_token(self) -> FirstToken | None:
        """The token in front of every window, unless another is chosen; None without one, or without a tokenizer here.

        Raises
        ------
        ModelError
            As `load_tokenizer`.
        """
        if self.folder is None or not _has_tokenizer(self.folder):
            return None
        tokenizer = load_tokenizer(self.folder)
        token = first_token(tokenizer)
        return None if token is None else _described(tokenizer, token)

    @property
    def n_bytes(self) -> int | None:
        """Memory for the weights in float32."""
        return None if self.n_parameters is None else 4 * self.n_parameters


# ---------------------------------------------------------------------- names


@lru_cache(maxsize=1)
def registry() -> tuple[dict[str, str], dict[str, str]]:
    """TransformerLens's {name: architecture} and {alias: name}, read from its files, without importing it."""
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
    """The Hub's name for a short one such as gpt2-small; any other name as it is."""
    return registry()[1].get(name, name)


def _names_a_folder(name: str) -> bool:
    return Path(name).is_absolute() or name.startswith((".", "~")) or os.path.isdir(name)


def _spellings(hub_name: str) -> list[str]:
    """The names under which the Hub's cache may hold a model."""
    return [hub_name, *(f"{owner}/{hub_name}" for owner in _OWNERS if "/" not in hub_name)]


def _unknown(asked: str, name: str, why: str) -> str:
    """The sentence on an unknown model, with the nearest names that are known."""
    models, aliases = registry()
    known = {known.lower(): known for known in (*SUGGESTED, *aliases, *models)}
    tails = {full.split("/")[-1]: spelled for full, spelled in reversed(known.items())}
    wanted = name.lower().split("/")[-1]
    found = [known[match] for match in get_close_matches(name.lower(), known, n=3, cutoff=0.7)]
    found += [tails[match] for match in get_close_matches(wanted, tails, n=3, cutoff=0.7)]
    nearest = ", ".join(dict.fromkeys(found)) or ", ".join(SUGGESTED[:4])
    return f"Unknown model {shorten(asked)!r}{why}; did you mean one of {nearest}?"


def available_models() -> list[ModelInfo]:
    """Models to choose from: those on this machine first, with sizes, then all that TransformerLens supports."""
    found: dict[str, ModelInfo] = {}
    for name in dict.fromkeys(["demo", *(name for name, _ in _cached_models())]):
        with suppress(ModelError, OSError, ValueError):
            info = model_info(name)
            if info.on_this_machine:
                found[full_name(name)] = info
    models, _ = registry()
    for name in (*SUGGESTED, *models):
        full = full_name(name)
        found.setdefault(full, ModelInfo(name, architecture=models.get(full, "")))
    return list(found.values())


# ---------------------------------------------------------------------- folders and downloads


def model_folder(
    name: str, *, revision: str | None = None, download: bool = False, weights: bool = True
) -> Path:
    """The folder that holds a model's files.

    Parameters
    ----------
    name : str
        "demo", a folder, or a name on the Hugging Face Hub (short TransformerLens names included), optionally with a
        revision: "EleutherAI/pythia-70m@step3000".
    revision : str, optional
        A branch, tag or commit on the Hub, where the name holds none.
    download : bool
        Download a Hub model's tokenizer and weights when they are not on this machine.
    weights : bool
        False downloads no weights, only the tokenizer.

    Raises
    ------
    ModelError
        Unknown (with the nearest names), or not on this machine and not available for download; raised at once.
    """
    if not isinstance(name, str) or not name.strip():
        raise ModelError(
            f"model_name must be a Hugging Face name or a local folder, got {name!r}. The bundled model 'demo' is "
            f"always available."
        )
    name = os.path.expanduser(name)
    if revision is None and "@" in name and not _names_a_folder(name):
        name, _, revision = name.partition("@")
    revision = revision or None
    folder = DEMO if name == "demo" else Path(name)
    if os.path.isfile(folder / "config.json"):
        if revision is not None:
            raise ModelError(f"{name} is a local folder, which has no revisions; leave revision out.")
        return folder
    if os.path.isdir(folder):
        raise ModelError(f"{name}: expected a Hugging Face model folder, but it has no config.json.")
    if _names_a_folder(name):
        raise ModelError(f"{name}: this folder does not exist; check the path, or use the model 'demo'.")

    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):  # the Hub says below what is wrong with the name
        for spelling in _spellings(full_name(name)):
            config = try_to_load_from_cache(spelling, "config.json", revision=revision)
            if isinstance(config, str) and (not download or _is_complete(Path(config).parent, weights)):
                return Path(config).parent
    return fetch(name, revision, weights=download and weights, tokenizer=download)


def _is_complete(folder: Path, weights: bool) -> bool:
    return bool(weight_files(folder)) if weights else _has_tokenizer(folder)


def fetch(name: str, revision: str | None, *, weights: bool, tokenizer: bool = False) -> Path:
    """Download a model from the Hub: its configuration, with `tokenizer` what reads words, with `weights` all of it.

    Raises
    ------
    ModelError
        No network, an unknown name or revision, or a gated model; says what to try.
    """
    from huggingface_hub import hf_hub_download, list_repo_files, snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    hub_name = full_name(name)
    asked = name if revision is None else f"{name}@{revision}"
    try:
        if reason := offline_reason():
            raise OfflineModeIsEnabled(reason)
        if not weights and not tokenizer:
            return Path(hf_hub_download(hub_name, "config.json", revision=revision)).parent
        wanted = ["*.json", "*.txt", "*.model"]
        if weights:
            files = list_repo_files(hub_name, revision=revision)
            safe = any(file.endswith(".safetensors") for file in files)
            wanted.append("*.safetensors" if safe else "pytorch_model*.bin")
        return Path(snapshot_download(hub_name, revision=revision, allow_patterns=wanted))
    except Exception as error:  # the Hub's client lets its transport's errors through
        raise ModelError(_hub_problem(asked, hub_name, error)) from error


def _hub_problem(name: str, hub_name: str, error: Exception) -> str:
    """What the Hub's answer means, and what to try."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name} is a gated model: accept its terms at huggingface.co/{hub_name}, then run `hf auth login`. "
            f"gpt2-small and 'demo' need no login."
        )
    if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)):
        return _unknown(name, hub_name, "")
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name}: {hub_name} has no such revision; leave it out, or give a branch, tag or commit."
    if isinstance(error, errors.LocalEntryNotFoundError):
        return _not_here(f"{name} is", "the Hub cannot be reached")
    if isinstance(error, errors.OfflineModeIsEnabled):
        cached = {name for name, _ in _cached_models()}
        if any(spelling in registry()[0] or spelling in cached for spelling in _spellings(hub_name)):
            return _not_here(f"{name} is", str(error))
        return _unknown(name, hub_name, f" (not on this machine, which has {_here()}, and {error})")
    if isinstance(error, errors.EntryNotFoundError):
        return f"{name}: it has no config.json on the Hub and cannot be loaded; choose another model."
    return (
        f"Could not download {name} from the Hugging Face Hub ({error_text(error)}). Try again later, or use a local "
        f"folder or one of: {_here()}."
    )


def _not_here(what: str, reason: str) -> str:
    return (
        f"{what} not on this machine, and {reason}. Download it where there is a network, give a local folder, or use "
        f"a model that is here ({_here()})."
    )


def _here() -> str:
    """Names of some models on this machine, the bundled one first."""
    names = ["demo"]
    for name, folder in _cached_models():
        with suppress(ModelError, OSError):
            if weight_files(folder):
                names.append(name)
    return ", ".join(list(dict.fromkeys(names))[:4])


def _cached_models() -> list[tuple[str, Path]]:
    """(name, folder) of each revision of a model in the Hub's cache on this machine."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = sorted(Path(HF_HUB_CACHE).glob("models--*/snapshots/*"))
    return [(_hub_name(folder), folder) for folder in folders]


def _hub_name(folder: Path) -> str:
    """The name of the model that a folder of the Hub's cache holds; empty for another folder."""
    repository, kind, _ = ("", "", *folder.absolute().parts)[-3:]
    found = kind == "snapshots" and repository.startswith("models--")
    return repository.removeprefix("models--").replace("--", "/") if found else ""


def offline_reason() -> str | None:
    """Why the Hub cannot be asked, found out in seconds, where its client would retry for half a minute."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}:
            return f"{variable} is set"
    if any(os.environ.get(v) for v in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return None  # a proxy resolves names; only trying can tell
    endpoint = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    answered = threading.Event()

    def connect() -> None:
        with suppress(OSError):
            socket.create_connection((endpoint.hostname, endpoint.port or 443), timeout=_PATIENCE).close()
            answered.set()

    # in a thread, because looking up a name has no time limit of its own
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return None if answered.is_set() else f"{endpoint.hostname} cannot be reached"


# ---------------------------------------------------------------------- files and identity


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights; empty when one of several is missing (a download that stopped)."""
    # a link whose target was removed from the Hub's cache is not a file
    found = [path for path in sorted(folder.glob("*.safetensors")) if path.is_file()]
    index = folder / "model.safetensors.index.json"
    if not found:
        found = [path for path in sorted(folder.glob("pytorch_model*.bin")) if path.is_file()]
        index = folder / "pytorch_model.bin.index.json"
    if not found or not index.is_file():
        return found
    parts = read_json(index, "the list of a model's weight files", "weight_map")["weight_map"].values()
    return found if {str(part) for part in parts} <= {file.name for file in found} else []


def read_json(path: Path, what: str, *parts: str) -> dict[str, Any]:
    """A JSON object from one of a model's files; a ModelError if it is damaged or one of `parts` is not an object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(found.get(part), dict) for part in parts):
            return found
        problem = f"got {shorten(repr(found), 40)}"
    except (OSError, ValueError, RecursionError) as error:
        problem = error_text(error)
    raise ModelError(
        f"{path}: expected {what}, but it cannot be read ({problem}); copy or download the model again."
    )


def is_here(info: ModelInfo, *, weights: bool = True) -> bool:
    """Whether nothing has to be downloaded to use a model: its weights are here, or its tokenizer where they suffice.

    Parameters
    ----------
    info : ModelInfo
    weights : bool
        Whether the model's weights are read; False for random weights.
    """
    return info.folder is not None and _is_complete(info.folder, weights)


def files_problem(info: ModelInfo, *, weights: bool = True) -> str | None:
    """One sentence on files that a model lacks and that cannot be downloaded, or None; loads nothing.

    Without `weights` only the configuration and the tokenizer are needed.
    """
    if not is_here(info, weights=weights) and (weights or _hub_name(info.folder)):
        if not _hub_name(info.folder):
            return (
                f"{info.name}: expected weights (*.safetensors or pytorch_model*.bin, all that its index names) in "
                f"{info.folder}, got none; copy or save the model again."
            )
        reason = offline_reason()
        lacking = "weights are" if weights else "tokenizer is"
        return None if reason is None else _not_here(f"{info.name}'s {lacking}", reason)
    # without a tokenizer's files transformers makes a tokenizer that knows no token
    if not _has_tokenizer(info.folder):
        return (
            f"{info.name}: expected a tokenizer's files (such as tokenizer.json) in {info.folder}, got none; save the "
            f"tokenizer there too (`tokenizer.save_pretrained(folder)`)."
        )
    token, text = _largest_token(_stamps([info.folder / "tokenizer.json"]))
    return token_problem(info.name, token, text, info.n_embeddings)


def token_problem(name: str, token: int, text: str, n_embeddings: int | None) -> str | None:
    """One sentence on a token id for which the embedding has no row; None where it has, or where that is unknown."""
    if n_embeddings is None or token < n_embeddings:
        return None
    return (
        f"{name}: its tokenizer has a token that the model does not know: {shorten(repr(text), 40)} has id {token}, "
        f"and the embedding has {n_embeddings} rows (ids 0 to {n_embeddings - 1}). Tokens were added without a larger "
        f"embedding, or the tokenizer belongs to another model; save the model's own tokenizer there."
    )


# ---------------------------------------------------------------------- tokenizers


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, kept in memory until one of its files changes.

    Raises
    ------
    ModelError
        Its files are damaged, or it needs code that comes with it, which is never run.
    """
    folder = Path(folder)
    files = {path for pattern in ("*.json", "*.jinja", *_TOKENIZER_FILES) for path in folder.glob(pattern)}
    return _load_tokenizer(folder, _stamps(sorted(files)))


@lru_cache(maxsize=8)
def _load_tokenizer(folder: Path, stamps: tuple[Stamp, ...]) -> Any:
    with LOADING:
        from transformers import AutoTokenizer

        try:
            # explicit, because transformers would otherwise ask on the terminal
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:
            raise ModelError(cannot_load("tokenizer", str(folder), folder, error)) from error


def cannot_load(what: str, name: str, folder: Path | None, error: Exception) -> str:
    """A sentence on a model or tokenizer that transformers cannot load."""
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


def first_token(tokenizer: Any, choice: str = "bos") -> int | None:
    """The id of the token in front of every window.

    Parameters
    ----------
    tokenizer : from `load_tokenizer`
    choice : one of `FIRST_TOKENS`
        "bos": BOS, else CLS, else EOS, else None. "eos": EOS, or None. "none": None.
    """
    names = {"bos": ("bos", "cls", "eos"), "eos": ("eos",), "none": ()}[choice]
    candidates = (getattr(tokenizer, f"{name}_token_id") for name in names)
    return next((token for token in candidates if token is not None), None)


def _described(tokenizer: Any, token: int) -> FirstToken:
    """A first token with its text, and a note where it is an EOS or a marker of a chat."""
    text, notes = str(tokenizer.convert_ids_to_tokens(token)), []
    if token not in (tokenizer.bos_token_id, tokenizer.cls_token_id):
        notes.append(
            "The tokenizer has no BOS, so the token that ends a text (EOS) is read in front of every window."
        )
    # a template writes the markers of turns several times, and a BOS that only begins a text once or as a variable
    if str(getattr(tokenizer, "chat_template", None) or "").count(text) > 1:
        notes.append(
            f"{text} is a marker of turns in this model's chats, not the beginning of a plain text; first_token='none' "
            f"reads windows without it."
        )
    return FirstToken(token, text, " ".join(notes))


def _has_tokenizer(folder: Path) -> bool:
    return any(path.is_file() for pattern in _TOKENIZER_FILES for path in folder.glob(pattern))


@lru_cache(maxsize=64)
def _largest_token(stamps: tuple[Stamp, ...]) -> tuple[int, str]:
    """(id, text) of the largest token that text can give, read from tokenizer.json; (-1, "") without that file.

    Special tokens (padding, images) do not count: published models have some without a row (Gemma 3), and text does not
    give them.
    """
    if not stamps:
        return -1, ""
    with suppress(OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        # a damaged file is reported when it is loaded
        tokenizer = json.loads(Path(stamps[0][0]).read_text(encoding="utf-8"))
        vocabulary, added = tokenizer["model"]["vocab"], tokenizer.get("added_tokens") or []
        if isinstance(vocabulary, list):  # Unigram: (piece, score), by id
            vocabulary = {str(piece): i for i, (piece, _) in enumerate(vocabulary)}
        special = {entry["id"] for entry in added if entry.get("special")}
        found = {text: token for text, token in vocabulary.items() if token not in special}
        found |= {entry["content"]: entry["id"] for entry in added if not entry.get("special")}
        if found:
            text = max(found, key=found.__getitem__)
            return int(found[text]), text
    return -1, ""


# ---------------------------------------------------------------------- identity

# Path, size, and what changes when a file does: times of writing and of any change, and its number on the disk. The
# time of writing alone can be set back (by a copy that keeps times, for example); the time of any change cannot.
Stamp = tuple[str, int, int, int, int]


def stamps_of(folder: Path) -> tuple[Stamp, ...]:
    """Stamps of a model's configuration and weights, which stay the same until a file is written to."""
    return _stamps([folder / "config.json", *weight_files(folder)])


def _stamps(files: Sequence[Path]) -> tuple[Stamp, ...]:
    found = [(file.absolute(), file.stat()) for file in files if file.is_file()]
    return tuple((str(f), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for f, s in found)


def identity(folder: Path) -> str:
    """What tells a model's values apart: a Hub model's name and commit, else a digest of its files."""
    name = _hub_name(folder)
    return f"{name}@{folder.absolute().name}" if name else f"sha256:{_digest(stamps_of(folder))}"


def untrained_identity(folder: Path, seed: int) -> str:
    """What tells the random weights of a model apart: seed, architecture, and the libraries that initialise it.

    Versions count because another one may draw other weights, and the stories of a run must not mix two models.
    """
    versions = [version(name).partition("+")[0] for name in ("torch", "transformers")]
    return f"untrained {seed} {' '.join(versions)} sha256:{digest_of_file(folder / 'config.json')}"


@lru_cache(maxsize=64)
def _digest(stamps: tuple[Stamp, ...]) -> str:
    """Digest of the files' names and contents, kept on disk, because reading gigabytes takes many seconds."""
    note = cache_folder() / "digests" / digest([repr(stamps)])
    with suppress(OSError):
        return note.read_text()
    found = digest(f"{Path(path).name} {digest_of_file(Path(path))}\n" for path, *_ in stamps)
    with suppress(OSError), new_file(note) as draft:
        draft.write_text(found)
    return found


# ---------------------------------------------------------------------- sizes

# the same thing has other names in other families
_N_LAYERS = "num_hidden_layers n_layer n_layers num_layers".split()
_D_MODEL = "hidden_size n_embd d_model dim".split()
_N_CTX = "n_positions max_position_embeddings n_ctx max_seq_len max_sequence_length seq_length".split()
_RMS_NORM = "rms_norm_eps rms_norm_epsilon layer_norm_rms_epsilon".split()


def model_info(model_name: str, *, revision: str | None = None) -> ModelInfo:
    """A model's layers, width, context length and parameters, without loading its weights.

    Reads config.json: of the bundled model, of a local folder, from the Hub's cache on this machine, and only then from
    the Hub.

    Raises
    ------
    ModelError
        As `model_folder`; or a configuration that names no layers or width.
    """
    folder = model_folder(model_name, revision=revision)
    return _info(model_name, folder, stamps_of(folder))


@lru_cache(maxsize=256)
def _info(name: str, folder: Path, stamps: tuple[Stamp, ...]) -> ModelInfo:
    # the stamps make this run again when a file is added or changed
    # not transformers' AutoConfig: importing it takes seconds, and a list of models is shown before anything is loaded
    config = read_json(folder / "config.json", f"the configuration of {name}")
    inner = config.get("text_config")
    text = {**config, **(inner if isinstance(inner, dict) else {})}
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"{name}: encoder-decoder models have no single stream of layers; choose a decoder or encoder."
        )
    n_layers, d_model = _first(text, _N_LAYERS), _first(text, _D_MODEL)
    # each layer is built, whether there are weights for it or not
    for key, value in text.items():
        if re.search("layers?$", key) and _is_size(value) and value > _MOST_LAYERS:
            raise ModelError(
                f"{name}: expected at most {_MOST_LAYERS:,} layers in {folder / 'config.json'}, got "
                f"{shorten(str(value), 20)} ({key}); copy or download the model again."
            )
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
        on_this_machine=bool(weight_files(folder)),
        folder=folder,
        centred=not any(key in text for key in _RMS_NORM) and "mamba" not in str(config.get("model_type")),
        n_embeddings=_first(text, ("vocab_size",)),
    )


def _first(config: Mapping[str, Any], names: Sequence[str]) -> int | None:
    return next((n for n in map(config.get, names) if _is_size(n) and n <= _LARGEST), None)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _context_length(config: Mapping[str, Any]) -> int | None:
    n_ctx = _first(config, _N_CTX)
    # RoBERTa-like models keep the first places of their table for padding
    if n_ctx is not None and "roberta" in str(config.get("model_type")):
        padding = config.get("pad_token_id", 1)
        return n_ctx - (padding if isinstance(padding, int) else 1) - 1
    return n_ctx


def _n_parameters(folder: Path) -> int:
    from safetensors import SafetensorError, safe_open

    total = 0
    try:
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "numpy") as file:
                total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return 0  # damaged weights are reported when they are loaded
    return total


def _estimate(config: Mapping[str, Any], n_layers: int, d_model: int) -> int:
    width = _first(config, ("intermediate_size", "ffn_dim", "n_inner")) or 4 * d_model
    vocabulary = _first(config, ("vocab_size",)) or 50_000
    return n_layers * (4 * d_model**2 + 2 * d_model * width) + vocabulary * d_model
