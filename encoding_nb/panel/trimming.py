"""The trimming editor: a preset, the eight numbers behind it, and a picture of one story's timeline."""

from __future__ import annotations

from dataclasses import fields
from types import MappingProxyType
from typing import Any

import ipywidgets as widgets

from .. import design, plots
from .._figures import figure_png, new_axes
from ..assembly import Assembly, Story
from ..design import Trimming
from ..settings import Settings, SettingsError
from ._threads import Flag, Latest
from .fields import KINDS, Entry, Notify, Section
from .theme import Picture, labelled, note

PICTURE_INCHES = (5.4, 2.9)  # readable in the narrow column
PARTS = {
    "train_features": "training features",
    "train_targets": "training BOLD",
    "test_features": "test features",
    "test_targets": "test BOLD",
}


class TrimmingField(Entry):
    """Which TRs are kept of features and BOLD, for training and for testing."""

    labels = MappingProxyType({"trimming": "trimming"})

    def __init__(self) -> None:
        self._changed: Notify = lambda: None
        self._quiet = Flag()
        self._story: Story | None = None
        tip = "Which TRs are kept. 'lebel' is used in the LeBel tutorial and suits the demo too."
        presets = [*design.TRIMMINGS, "custom"]
        self.preset = labelled(
            widgets.Dropdown, "trimming", tip, "enb-trimming", options=presets, value="lebel"
        )
        self.numbers = {f.name: self._number(f.name) for f in fields(Trimming)}
        hint = widgets.HTML("Each part keeps the TRs [from:to], as in a Python slice; empty: to the end.")
        rows: list[widgets.Widget] = []
        for part, label in PARTS.items():
            pair = [self.numbers[f"{part}_{end}"] for end in ("start", "end")]
            rows += [widgets.VBox([widgets.HTML(label), widgets.HBox(pair)])]
        self.picture = Picture("enb-trimming-picture")
        self.details = Section("trimming, TR by TR", [hint, *rows, self.picture], "trimming-details")
        self.drawing = Latest(self._draw, wait=0.15)
        super().__init__("trimming-controls", [self.preset], [self.details])
        self.add_class("enb-trimming-controls")
        self.preset.observe(lambda _: self._edited(preset=self.preset.value), "value")
        self.details.button.observe(lambda _: self._draw_soon(), "value")

    def _number(self, name: str) -> widgets.Text:
        part, _, end = name.rpartition("_")
        label, empty, what = {
            "start": ("from", "0", "first TR that is kept"),
            "end": ("to", "the end", "the TR to stop before (negative: counted from the end)"),
        }[end]
        style, css = {"description_width": "34px"}, f"enb-{name.replace('_', '-')}"
        options = {"continuous_update": False, "placeholder": empty, "style": style}
        box = labelled(widgets.Text, label, f"{PARTS[part]}: {what}", css, width="130px", **options)
        box.observe(lambda _: self._edited(), "value")
        return box

    def use(self, assembly: Assembly) -> None:
        """Draw the timeline of the first story of these data."""
        self._story = next(iter(assembly.stories.values()))
        self._draw_soon()

    def watch(self, on_change: Notify) -> None:
        """Call `on_change` when the preset or a number changes."""
        self._changed = on_change

    def _edited(self, preset: str | None = None) -> None:
        """The user chose a preset, which sets the numbers, or changed a number, which sets the preset's name."""
        if self._quiet.on:
            return
        if preset is None:
            self._name_preset()
        elif preset != "custom":
            self._write(design.TRIMMINGS[preset])
        self._changed()
        self._draw_soon()

    def _write(self, trimming: Trimming) -> None:
        with self._quiet:
            for name, box in self.numbers.items():
                box.value = KINDS["whole or empty"].write(getattr(trimming, name))

    def _name_preset(self) -> None:
        try:
            known = [name for name, value in design.TRIMMINGS.items() if value == self.value]
        except SettingsError:
            known = []
        with self._quiet:
            self.preset.value = known[0] if known else "custom"

    def show(self, settings: Settings) -> None:
        """Set the boxes to the settings' trimming."""
        self._write(settings.trimming)
        self._name_preset()
        self._draw_soon()

    @property
    def value(self) -> Trimming:
        """The trimming as typed; raises SettingsError for a box without a whole number."""
        parsed: dict[str, int | None] = {}
        for name, box in self.numbers.items():
            part, _, end = name.rpartition("_")
            kind = KINDS["whole or empty" if end == "end" else "whole"]
            try:
                parsed[name] = kind.parse(box.value, f"the {end} of {PARTS[part]}")
            except ValueError as error:
                raise SettingsError("trimming", str(error)) from None
        return Trimming(**parsed)

    def read(self) -> dict[str, Any]:
        """{"trimming": ...}."""
        return {"trimming": self.value}

    def _draw_soon(self) -> None:
        if self.details.unfolded and self._story is not None:
            self.drawing.ask()

    def _draw(self) -> None:
        story = self._story
        text = f"Timeline of {story.name}: the rows of features and BOLD that are kept for training and for testing."
        try:
            png = figure_png(plots.plot_trimming(story, self.value, ax=new_axes(PICTURE_INCHES)))
        except SettingsError:  # shown at the boxes
            self.picture.clear()
        except Exception as error:  # noqa: BLE001 - the picture of other numbers must not remain
            self.picture.clear()
            self.picture.value = note(f"No picture of this trimming: {error or type(error).__name__}")
            self.picture.layout.display = None
        else:
            self.picture.show(png, text)
