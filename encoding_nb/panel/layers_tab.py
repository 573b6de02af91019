"""All layers of a model, one after the other: the profile as it fills, and the best layer of each voxel."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets as widgets

from .. import plots
from ..pipeline import Result
from .tabs import ResultTab
from .theme import Picture


class LayersTab(ResultTab):
    """The button that sweeps, the profile, and the map of best layers."""

    title = "Layers"

    def __init__(self, on_sweep: Callable[[], None]) -> None:
        self._results: dict[int, Result] = {}
        self._complete = False
        self.button = widgets.Button(
            description="Sweep all layers",
            icon="bars",
            tooltip="Fit every layer of the model with the settings as they stand; Cancel stops it",
            layout={"width": "160px"},
        ).add_class("enb-sweep")
        self._needs = widgets.HTML().add_class("enb-sweep-estimate")
        self._said = widgets.HTML(
            "Fits every layer of the model, one after the other. Words and responses are read once for "
            "all of them; each layer then takes less than a fit by itself."
        ).add_class("enb-sweep-note")
        self.profile = Picture("enb-profile", max_width="760px")
        self.map = Picture("enb-best-layer")
        super().__init__([self.button, self._needs, self._said, self.profile, self.map], "layers")
        self.button.on_click(lambda _: on_sweep())

    def show_needs(self, sentence: str) -> None:
        """Say beforehand what a sweep will take, or why there can be none."""
        self._needs.value = escape(sentence)

    def begin(self) -> None:
        """A sweep begins: what an earlier one left is cleared."""
        self._results, self._complete = {}, False
        self._said.value = "The profile fills as layers are done."
        self.profile.clear()
        self.map.clear()

    def add(self, layer: int, result: Result) -> None:
        """A layer is done."""
        self._results = {**self._results, layer: result}
        self._said.value = f"{len(self._results)} layers done, the last is layer {layer}."
        self.changed()

    def end(self, complete: bool) -> None:
        """The sweep is over; the map of best layers is drawn when all layers are there."""
        self._complete = complete
        if self._results:
            self._said.value += " The sweep is complete." if complete else " The sweep ended early."
        self.changed()

    def draw(self) -> None:
        """The profile of what is done; the map at the end."""
        results, complete = dict(self._results), self._complete
        if not results:
            return
        try:
            png = plots.plot_layers(list(results.values()))._repr_png_()
            self.profile.show(
                png, "Scores by layer: median voxel, middle half and middle 90 percent of them."
            )
        except ValueError as error:  # no voxel is significant yet
            self._said.value = str(error)
            return
        first = next(iter(results.values()))
        if complete and len(results) > 1 and first.surface is not None:
            png = plots.plot_best_layer(list(results.values()))._repr_png_()
            self.map.show(
                png, "Flattened cortex, each voxel in the colour of the layer that predicts it best."
            )
