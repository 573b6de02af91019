"""The map: scores and what else is known of each voxel, on the flattened cortex."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import ipywidgets as widgets
import numpy as np

from ..assembly import Array
from ..pipeline import Result
from ..plots import SCORE
from .click_map import BrainView
from .runs import BestLayer
from .tabs import ResultTab
from .theme import WIDE

VOXELS = {"all, the others faded": "fade", "all, the others hatched": "hatch", "significant only": "hide"}


class BrainTab(ResultTab):
    """The live map of the last run, and which of its values it shows."""

    title = "Brain"

    def __init__(self, *, height: int = 512) -> None:
        self._result: Result | None = None
        self._best: BestLayer | None = None
        self._setting = self._ahead = False
        self.view = BrainView(height=height).add_class("enb-flatmap")
        self.values = widgets.Dropdown(
            options=["score"],
            description="show",
            style={"description_width": "46px"},
            layout={"width": "230px"},
            tooltip="Which of the numbers of each voxel the map shows.",
        ).add_class("enb-map-values")
        self.voxels = widgets.Dropdown(
            options=VOXELS,
            description="voxels",
            style={"description_width": "46px"},
            layout={"width": "230px"},
            tooltip="What becomes of voxels that are not significant.",
        ).add_class("enb-map-voxels")
        self.regions = widgets.Checkbox(
            value=True,
            description="outlines of regions",
            indent=False,
            style=WIDE,
            layout={"width": "auto"},
            tooltip="Draw the borders and names of regions over the map.",
        ).add_class("enb-map-regions")
        self._empty = widgets.HTML("No result yet: the map appears here after the first fit.")
        self.view.layout.display = "none"
        bar = widgets.HBox([self.values, self.voxels, self.regions], layout={"flex_flow": "row wrap"})
        super().__init__([bar, self._empty, self.view], "brain")
        self.values.observe(lambda _: self._chosen(other_values=True), "value")
        for control in (self.voxels, self.regions):
            control.observe(lambda _: self._chosen(), "value")

    def show(self, result: Result, *, best: BestLayer | None = None) -> None:
        """Show another run at once: the map is what a fit is for; `best` as in `show_best_layer`."""
        self._result, self._best, self._ahead = result, best, False
        self._offer()
        self.view.show_result(result)
        self._empty.layout.display, self.view.layout.display = "none", None
        if self._choices()[self.values.value] is not None or self.voxels.value != "fade":
            self.draw()

    def show_ahead(self, scores: Array, significant: Array) -> None:
        """Put the scores of another run of the same data on the map, while their permutation test is running.

        Not where the map is out of sight or shows other numbers.
        """
        if self._result is None or not self._in_sight or self.values.value != "score":
            return
        self._ahead = True
        how = {"significant": significant, "nonsignificant": self.voxels.value}
        self.view.show(scores, name="r", units=SCORE, ahead=True, **how)
        if not self._ahead:  # cancelled meanwhile
            self.changed()

    def take_back(self) -> None:
        """Show the last run again, where the one whose scores are on the map did not come to its end."""
        if self._ahead:
            self._ahead = False
            self.changed()

    def show_best_layer(self, best: BestLayer | None) -> None:
        """Offer the best layer of each voxel; None takes it back."""
        self._best = best
        if self._result is not None:
            shown = self.values.value
            self._offer()
            if "best layer" in (shown, self.values.value):
                self.changed()

    def _choices(self) -> dict[str, dict[str, Any] | None]:
        """{what it is called: arguments of `BrainView.show`}; None for the scores as they came."""
        result = self._result
        choices: dict[str, dict[str, Any] | None] = {"score": None}
        if result is None:
            return choices
        if len(result.story_scores) > 1:
            choices |= {
                f"score in {story}": {
                    "values": scores,
                    "name": f"r in {story}",
                    "units": f"correlation (r) in {story}",
                }
                for story, scores in result.story_scores.items()
            }
        if result.noise_ceiling is not None:
            choices["noise ceiling"] = {
                "values": result.noise_ceiling,
                "name": "noise ceiling",
                "units": "correlation (r) that a perfect model would reach",
            }
        alphas = np.median(np.atleast_2d(result.best_alphas), axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log10(alphas)
        choices["chosen alpha"] = {
            "values": logs,
            "name": "log10 alpha",
            "units": "log10 of the chosen alpha",
            "cmap": "viridis",
        }
        best = self._best
        if best is not None and best.values.shape == result.scores.shape:
            model = PurePath(best.settings.model_name).name
            choices["best layer"] = {
                "values": best.values,
                "name": "best layer",
                "units": f"layer of {model} with the highest score",
                "cmap": "viridis",
                "categories": best.layers,
            }
        return choices

    def _offer(self) -> None:
        """Offer what this run has, keeping the choice where it still is there."""
        names, chosen = list(self._choices()), self.values.value
        if tuple(names) == tuple(self.values.options):
            return
        self._setting = True
        self.values.options = names
        self.values.value = chosen if chosen in names else "score"
        self._setting = False
        if self.values.value != chosen:
            self._forget_range()

    def _forget_range(self) -> None:
        """A threshold and a colour range are of the numbers that they were chosen for."""
        with self.view.hold_sync():
            self.view.threshold = self.view.vmin = self.view.vmax = None

    def _chosen(self, *, other_values: bool = False) -> None:
        if self._result is not None and not self._setting:
            if other_values:
                self._forget_range()
            self.changed()

    def draw(self) -> None:
        """Put the chosen values on the map."""
        result = self._result
        if result is None:
            return
        self.view.with_regions = self.regions.value
        chosen: Mapping[str, Any] = self._choices().get(self.values.value) or {
            "values": result.scores,
            "name": "r",
            "units": "correlation (r)",
        }
        # the best layer is of voxels that count in any of the layers, whatever they do in this one
        significant = None if "categories" in chosen else result.significant
        self.view.show(**chosen, significant=significant, nonsignificant=self.voxels.value)
