"""Feature spaces: which ones, and of a language model which model, layer and context."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from .._validation import shorten
from ..features import FEATURE_SPACES, PROCESSINGS, ModelInfo
from ..settings import Settings, SettingsError
from .data_controls import stored_contexts_field
from .fields import Field, dropdown, parse_whole, text, whole_number
from .model_lookup import ModelLookup, describe
from .theme import LABEL_WIDTH, WIDE, problem

N_SUGGESTED = 200  # models in the drop-down list, those on this machine first; any other may be typed
CONTEXT_TYPES = {
    "every word its own window": "fullcontext",
    "grow, then start afresh": "nocontext",
    "grow, then drop half": "halfcontext",
    "strides (approximate)": "strided",
}
SPACES = {
    "language_model": ("language model", "What a language model makes of the words so far."),
    "wordrate": ("word rate", "How many words are spoken in each TR: a simple rival, or a companion."),
    "embeddings": ("word embedding", "One vector for each word, whatever stands around it."),
}
PROCESSING_NAMES = {"raw": "as published", "litcoder": "folded and centred, as in LITcoder"}


class SpacesField(widgets.VBox):
    """Which feature spaces stand side by side in the fit; the first chosen comes first."""

    settings = ("modality", "joined_with")
    labels = dict.fromkeys(settings, "features")

    def __init__(self) -> None:
        self._order: list[str] = []
        self.boxes = {
            name: widgets.Checkbox(
                description=SPACES.get(name, (name, ""))[0],
                tooltip=SPACES.get(name, ("", f"Feature space {name}."))[1],
                indent=False,
                layout={"width": "auto", "margin": f"0 0 0 {LABEL_WIDTH}"},
            ).add_class(f"enb-space-{name.replace('_', '-')}")
            for name in FEATURE_SPACES
        }
        self._problem = widgets.HTML().add_class("enb-spaces-problem")
        heading = widgets.HTML(f"<b>{self.labels['modality']}</b>, one or more side by side")
        super().__init__([heading, *self.boxes.values(), self._problem])
        for name, box in self.boxes.items():
            box.observe(lambda change, name=name: self._ticked(name, change["new"]), "value")

    def _ticked(self, name: str, on: bool) -> None:
        if on and name not in self._order:
            self._order.append(name)
        elif not on and name in self._order:
            self._order.remove(name)

    def show(self, settings: Settings) -> None:
        """Tick the spaces of the settings, in their order."""
        self._order = [s for s in (settings.modality, *settings.joined_with) if s in self.boxes]
        for name, box in self.boxes.items():
            box.value = name in self._order

    def read(self) -> dict[str, Any]:
        """{"modality": ..., "joined_with": ...}; raises SettingsError where no space is chosen."""
        if not self._order:
            raise SettingsError("modality", "Expected at least one feature space, got none; tick one.")
        return {"modality": self._order[0], "joined_with": tuple(self._order[1:])}

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever a space is chosen or left out."""
        for box in self.boxes.values():
            box.observe(lambda _: on_change(), "value")

    def show_problem(self, sentence: str | None) -> None:
        """Write what is wrong beneath the boxes, or clear it."""
        self._problem.value = problem(sentence)


class ModelControls:
    """The fields of a language model; `main` stand in sight, `more` are folded away."""

    def __init__(self, lookup: ModelLookup) -> None:
        self._lookup = lookup
        self.spaces = SpacesField()
        self.model = Field(
            widgets.Combobox(
                options=[info.name for info in lookup.available[:N_SUGGESTED]],
                ensure_option=False,
                continuous_update=False,
                description="model",
                style=WIDE,
                tooltip="The language model: choose one, or type any Hugging Face name or local model folder.",
            ),
            "model",
            "model_name",
            parse=str.strip,
        )
        self.layer = Field(
            widgets.IntSlider(
                min=0,
                max=1,
                description="layer",
                style=WIDE,
                continuous_update=False,
                tooltip="Which layer's activations are the features: 0 is the embedding, the last the model's output.",
            ),
            "layer",
            "layer_idx",
        )
        self.lookback = whole_number(
            "lookback",
            "lookback",
            "lookback",
            "How many tokens the model reads for each word, the word's own included.",
        )
        self.context = dropdown(
            "context_type",
            "context",
            "context",
            CONTEXT_TYPES,
            "How windows move along the story. The first is exact for every word, the others are faster.",
        )
        self.stride = text(
            "stride",
            "stride",
            "stride",
            "For context in strides: by how many tokens a window moves on; empty: by the lookback.",
            placeholder="tokens",
            parse=_parse_stride,
            write=lambda stride: "" if stride is None else str(stride),
        )
        self.pooling = dropdown(
            "last_token",
            "pooling",
            "take",
            {"the word's last token": True, "the mean over the window": False},
            "Which activations stand for a word: those at its last token, or the mean of all tokens the model reads.",
        )
        self.processing = dropdown(
            "processing",
            "processing",
            "weights",
            {PROCESSING_NAMES.get(name, name): name for name in PROCESSINGS},
            "The model's weights as published, or with the LayerNorms folded in and the stream centred.",
        )
        self.embedding = text(
            "embedding",
            "embedding",
            "vectors",
            "For word embeddings: a file of word vectors; empty: the model's own input embedding.",
            placeholder="file; empty: the model's own",
            parse=_parse_embedding,
            write=lambda path: path or "",
        )
        self.stored = stored_contexts_field()
        self.main = (self.model, self.layer, self.lookback)
        self.more = (
            self.spaces,
            self.context,
            self.stride,
            self.pooling,
            self.processing,
            self.embedding,
            self.stored,
        )

    def adapt(self, *, has_contexts: bool) -> str | None:
        """Let the ranges follow the model, and grey out what has no effect; a problem of the model, or None.

        A layer beyond the model's last moves there, and the note says so.
        """
        spaces = {name for name, box in self.spaces.boxes.items() if box.value}
        own_embedding = "embeddings" in spaces and not self.embedding.control.value.strip()
        reads = "language_model" in spaces
        strides = reads and self.context.control.value == "strided"
        switches = {
            self.model: reads or own_embedding,
            self.layer: reads,
            self.lookback: reads,
            self.context: reads,
            self.stride: strides,
            self.pooling: reads,
            self.processing: reads,
            self.embedding: "embeddings" in spaces,
            self.stored: reads and has_contexts,
        }
        for field, on in switches.items():
            field.switch(on)
        self.stride.layout.display = None if strides else "none"
        self.embedding.layout.display = None if "embeddings" in spaces else "none"
        self.stored.layout.display = None if has_contexts or self.stored.control.value else "none"
        info = self._lookup.info(self.model.control.value.strip())
        if isinstance(info, ModelInfo):
            self._fit_layers(info)
            return None
        self.model.show_note("")
        if not (reads or own_embedding):
            return None
        return info or "Looking this model up; Fit waits for it."

    def _fit_layers(self, info: ModelInfo) -> None:
        said = describe(info)
        slider = self.layer.control
        if slider.value > info.n_layers:
            said += f"; layer {slider.value} does not exist here, so the slider went to {info.n_layers}"
        elif slider.max == info.n_layers and "so the slider went to" in self.model._note.value:
            return  # what was said about the move is still to be read
        slider.max = info.n_layers
        self.model.show_note(said)


def _parse_stride(typed: str) -> int | None:
    return parse_whole(typed, "the stride, where there is one,") if typed.strip() else None


def _parse_embedding(typed: str) -> str | None:
    path = typed.strip() or None
    try:
        Path(path or "").is_file()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"{shorten(path)!r} cannot be a file of word vectors ({reason}); check the path."
        ) from None
    return path
