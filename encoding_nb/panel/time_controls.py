"""From words to rows: downsampling, delays, and which rows are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields as dataclass_fields
from types import MappingProxyType
from typing import Any

import ipywidgets as widgets

from .. import design, plots
from .._figures import new_axes
from ..assembly import Assembly, Story
from ..design import Trimming
from ..settings import Settings, SettingsError
from .background import Latest
from .fields import Section, dropdown, number, parse_delays, parse_whole, text, whole_number, write_delays
from .theme import WIDE, Picture, note, problem

DOWNSAMPLING = {
    "lanczos": "Lanczos filter",
    "sinc": "sinc filter",
    "rect": "mean of a TR's words (rect)",
    "average": "mean of a TR's words (average)",
    "sum": "sum of a TR's words",
    "last": "the TR's last word",
}
FILTERS = ("lanczos", "sinc")
PICTURE_INCHES = (5.4, 2.9)  # small, so that it can be read in the narrow column
TRIMMING_PARTS = {
    "train_features": "training features",
    "train_targets": "training BOLD",
    "test_features": "test features",
    "test_targets": "test BOLD",
}


class TimeControls:
    """The fields of downsampling and delays."""

    def __init__(self) -> None:
        self.method = dropdown(
            "downsample_method",
            "downsample",
            "downsampling",
            {label: name for name, label in DOWNSAMPLING.items() if name in design.DOWNSAMPLERS},
            "How one value per word becomes one value per TR.",
        )
        self.window = whole_number(
            "downsample_window", "downsample-window", "lobes", "Of the filter: how many lobes on each side."
        )
        self.cutoff = number(
            "cutoff_mult", "cutoff", "cutoff", "Of the filter: its cutoff, as a multiple of the TR rate."
        )
        self.delays = text(
            "fir_delays",
            "delays",
            "delays (TR)",
            "Blood flow follows the words by seconds: the fit sees the features of these many TRs ago.",
            placeholder="1, 2, 3, 4",
            parse=parse_delays,
            write=write_delays,
        )
        self.fields = (self.method, self.window, self.cutoff, self.delays)

    def adapt(self, tr: float) -> None:
        """Show delays in seconds, and grey out what the method does not use."""
        for field in (self.window, self.cutoff):
            field.switch(self.method.control.value in FILTERS)
        try:
            seconds = [f"{delay * tr:g}" for delay in self.delays.read()["fir_delays"]]
        except SettingsError:
            self.delays.show_note("")
            return
        self.delays.show_note(f"that is {', '.join(seconds)} s at a TR of {tr:g} s" if seconds else "")


def _parse_row(typed: str, *, may_be_empty: bool) -> int | None:
    if not typed.strip() and may_be_empty:
        return None
    return parse_whole(typed, "a row")


class TrimmingControls(widgets.VBox):
    """A preset, the eight numbers behind it, and a picture of one story's timeline."""

    settings = ("trimming",)
    labels = MappingProxyType({"trimming": "trimming"})

    def __init__(self) -> None:
        self._changed: Callable[[], None] = lambda: None
        self._setting = False
        self._story: Story | None = None
        self.preset = widgets.Dropdown(
            options=[*design.TRIMMINGS, "custom"],
            value="lebel",
            description=self.labels["trimming"],
            style=WIDE,
            layout={"width": "auto"},
            tooltip="Which TRs are kept. 'lebel' is the tutorial's choice for the LeBel data and for the demo.",
        ).add_class("enb-trimming")
        self.numbers = {f.name: self._number(f.name) for f in dataclass_fields(Trimming)}
        rows = [
            widgets.VBox(
                [
                    widgets.HTML(label),
                    widgets.HBox([self.numbers[f"{part}_start"], self.numbers[f"{part}_end"]]),
                ]
            )
            for part, label in TRIMMING_PARTS.items()
        ]
        hint = widgets.HTML(
            "First TR kept, and where to stop, counted as a Python slice does; empty: to the end."
        )
        self.picture = Picture("enb-trimming-picture")
        self.details = Section("trimming, TR by TR", [hint, *rows, self.picture], "trimming-details")
        self._problem = widgets.HTML().add_class("enb-trimming-controls-problem")
        self._drawing = Latest(self._draw, wait=0.15)
        super().__init__([self.preset, self._problem, self.details])
        self.add_class("enb-trimming-controls")
        self._write(design.TRIMMINGS["lebel"])
        self.preset.observe(self._preset_chosen, "value")
        self.details.watch(self._picture_wanted)

    def _number(self, name: str) -> widgets.Text:
        part, _, edge = name.rpartition("_")
        what = "first TR that is kept" if edge == "start" else "where to stop (negative: from the end)"
        box = widgets.Text(
            continuous_update=False,
            description="from" if edge == "start" else "to",
            style={"description_width": "34px"},
            layout=widgets.Layout(width="130px"),
            placeholder="the end" if edge == "end" else "0",
            tooltip=f"{TRIMMING_PARTS[part]}: {what}",
        ).add_class(f"enb-{name.replace('_', '-')}")
        box.observe(self._number_changed, "value")
        return box

    def use(self, assembly: Assembly) -> None:
        """Draw the timeline of these data's first story."""
        self._story = next(iter(assembly.stories.values()))
        self._picture_wanted()

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever a number changes, or the preset."""
        self._changed = on_change

    def _preset_chosen(self, change: dict) -> None:
        if self._setting:
            return
        if change["new"] != "custom":
            self._write(design.TRIMMINGS[change["new"]])
        self._changed()
        self._picture_wanted()

    def _number_changed(self, _: dict) -> None:
        if self._setting:
            return
        self._name_preset()
        self._changed()
        self._picture_wanted()

    def _name_preset(self) -> None:
        try:
            known = [name for name, value in design.TRIMMINGS.items() if value == self.value]
        except SettingsError:
            known = []
        self._setting = True
        self.preset.value = known[0] if known else "custom"
        self._setting = False

    def show(self, settings: Settings) -> None:
        """Write the settings' trimming into the eight boxes."""
        self._write(settings.trimming)
        self._name_preset()
        self._picture_wanted()

    def _write(self, trimming: Trimming) -> None:
        self._setting = True
        for name, box in self.numbers.items():
            value = getattr(trimming, name)
            box.value = "" if value is None else str(value)
        self._setting = False

    @property
    def value(self) -> Trimming:
        """The trimming as typed; raises SettingsError naming a box that holds no whole number."""
        parsed = {}
        for name, box in self.numbers.items():
            try:
                parsed[name] = _parse_row(box.value, may_be_empty=name.endswith("_end"))
            except ValueError:
                part, _, edge = name.rpartition("_")
                raise SettingsError(
                    "trimming",
                    f"Trimming: {edge} of {TRIMMING_PARTS[part]} must be a whole number of TRs, got {box.value!r}.",
                ) from None
        return Trimming(**parsed)

    def read(self) -> dict[str, Any]:
        """{"trimming": ...}."""
        return {"trimming": self.value}

    def show_problem(self, sentence: str | None) -> None:
        """Write what is wrong beneath the preset, or clear it."""
        self._problem.value = problem(sentence)

    def _picture_wanted(self) -> None:
        if self.details.unfolded and self._story is not None:
            self._drawing.ask()

    def _draw(self) -> None:
        try:
            trimming = self.value
        except SettingsError:
            self.picture.clear()
            return
        story = self._story
        text = f"Timeline of {story.name}: which rows of features and BOLD trimming keeps for training and for testing."
        try:
            png = plots.plot_trimming(story, trimming, ax=new_axes(PICTURE_INCHES))._repr_png_()
        except Exception as error:  # noqa: BLE001 - the picture of other numbers must not stay
            self.picture.clear()
            self.picture.value = note(f"No picture of this trimming: {error or type(error).__name__}")
            self.picture.layout.display = None
            return
        self.picture.show(png, text)
