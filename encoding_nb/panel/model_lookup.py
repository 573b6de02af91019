"""A model's size without making the kernel wait: what is not on this machine is looked up in a thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .. import features
from .._validation import shorten
from ..features import ModelInfo
from .background import Latest


class ModelLookup:
    """Answers at once for models on this machine, and for others once they have been looked up.

    Parameters
    ----------
    on_found : called in another thread when a name that was asked for is known, or known to be wrong
    """

    def __init__(self, on_found: Callable[[], None]) -> None:
        self._on_found = on_found
        self.available = features.available_models()
        self._here = {"demo", *(info.name for info in self.available if info.on_this_machine)}
        self._found: dict[str, ModelInfo | str] = {}
        self._seeking = Latest(self._seek)

    def info(self, name: str) -> ModelInfo | str | None:
        """The model's size, a sentence that says why there is none, or None while it is being looked up."""
        if name in self._here or not name.strip() or _is_folder(name):
            return _ask(name)
        if name not in self._found:
            self._seeking.ask(name)
        return self._found.get(name)

    def forget(self, name: str) -> None:
        """Look a name up anew when it is asked for next, as after a network came back."""
        if isinstance(self._found.get(name), str):
            del self._found[name]

    def _seek(self, name: str) -> None:
        self._found[name] = _ask(name)
        self._on_found()


def _ask(name: str) -> ModelInfo | str:
    if not name.strip():
        return "Expected a model's name or folder, got nothing; choose one from the list, such as demo."
    try:
        return features.model_info(name)
    except ValueError as error:
        return str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001 - whatever a configuration holds, it is said, and Fit stays off
        return (
            f"{shorten(name)} cannot be read as a language model ({type(error).__name__}: {shorten(str(error))}); "
            f"choose another, such as demo."
        )


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # a name longer than a path can be
        return False


def describe(info: ModelInfo) -> str:
    """Layers, width, context and memory in one line."""
    reads = "any number of" if info.n_ctx is None else f"up to {info.n_ctx - 1}"
    parts = [f"{info.n_layers} layers of {info.d_model} features, reads {reads} tokens"]
    if info.n_bytes:
        parts.append(f"{_size(info.n_bytes)} of memory")
    if not info.on_this_machine:
        parts.append("not on this machine: fetched when it is first used")
    return ", ".join(parts)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{max(n_bytes / 1e6, 1):.0f} MB"
