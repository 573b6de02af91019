"""Names of models, and the hub that has them.

The hub is asked only where a network is there: nobody waits for one that is not.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import suppress
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlparse

from .model_files import ModelError, has_weights, said, short

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
        return f"Unknown model {short(name)!r}; did you mean one of {_nearest(hub_name)}?"
    if isinstance(error, RevisionNotFoundError):
        return f"{name}: the hub has {hub_name} but not this revision; leave it out, or give a branch, tag or commit."
    if isinstance(error, LocalEntryNotFoundError):
        return not_here(f"{name} is", "the hub cannot be reached")
    if isinstance(error, EntryNotFoundError):
        return f"{name}: the hub has it without a config.json, so it is no model of transformers; choose another."
    return (
        f"{name}: the hub did not give it ({said(error)}); try again later, give a local folder, or take a model "
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
            f"Unknown model {short(name)!r} (not on this machine, which has {_here()}, and {reason}); did you mean one "
            f"of {_nearest(name)}?"
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
