"""The Brain tab: scores and other values of each voxel on the flattened cortex."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import numpy as np

from .._progress import Progress
from ..assembly import Array
from ..pipeline import Result
from ..plots import SCORE
from ..scoring import normalized_correlation
from ._threads import Flag
from .click_map import BrainView, not_significant
from .session import Session, model_label
from .tabs import ResultTab
from .theme import labelled

VOXELS = {"all, the others faded": "fade", "all, the others hatched": "hatch", "significant only": "hide"}
ESTIMATE = "an estimate, single voxels can exceed it"


class BrainTab(ResultTab):
    """The live map of the last run, and the choice of its values."""

    title = "Brain"

    def __init__(self, session: Session, *, height: int) -> None:
        self._preview: Progress | None = None
        self._quiet = Flag()
        self.view = BrainView(height=height).add_class("enb-flatmap")
        size: dict[str, Any] = {"width": "230px", "style": {"description_width": "46px"}}
        tip, css = "The values on the map.", "enb-map-values"
        self.values = labelled(widgets.Dropdown, "show", tip, css, options=["score"], **size)
        tip, css = "How to draw voxels that are not significant.", "enb-map-voxels"
        self.voxels = labelled(widgets.Dropdown, "voxels", tip, css, options=VOXELS, **size)
        tip = "Draw the borders and names of regions over the map."
        label = "outlines of regions"
        self.regions = labelled(widgets.Checkbox, label, tip, "enb-map-regions", value=True, indent=False)
        self._empty = widgets.HTML("No result yet: the map appears here after the first fit.")
        self.view.layout.display = "none"
        bar = widgets.HBox([self.values, self.voxels, self.regions], layout={"flex_flow": "row wrap"})
        super().__init__(session, [bar, self._empty, self.view], "brain")
        self.values.observe(lambda _: self._edited(other_values=True), "value")
        for control in (self.voxels, self.regions):
            control.observe(lambda _: self._edited(), "value")

    @property
    def previews(self) -> bool:
        """Whether the map shows a run that is still in progress."""
        return self._preview is not None

    def show(self, result: Result) -> None:
        """Show another run at once: the map is what a fit is for."""
        self._preview = None
        self.view.show_result(result)
        self._offer(result)
        self._empty.layout.display, self.view.layout.display = "none", None
        if self.values.value != "score" or self.voxels.value != "fade":
            self.draw()

    def preview(self, step: Progress | None) -> None:
        """Put the scores of a run on the map while its test is running; None shows the last result again.

        Only in place of the scores of another run on the same data, if they are visible.
        """
        if (
            step is not None
            and self.view.result is not None
            and self.in_front
            and self.values.value == "score"
        ):
            self._preview = step
            self.draw()
            if self._preview is not step:  # the run was cancelled during the drawing
                self.changed()
        elif step is None and self._preview is not None:
            self._preview = None
            self.changed()

    def swept(self) -> None:
        """Offer the best layer of each voxel, if the session has it."""
        if self.view.result is not None:
            self._offer(self.view.result)
            self.changed()

    def _choices(self, result: Result) -> dict[str, dict[str, Any]]:
        """{label: arguments of `BrainView.show`}."""
        choices = {"score": _shown(result.scores, "r", SCORE)}
        if len(result.story_scores) > 1:
            for story, scores in result.story_scores.items():
                choices[f"score in {story}"] = _shown(scores, f"r in {story}", f"correlation (r) in {story}")
        if result.noise_ceiling is not None:
            least = result.chance_ceiling
            options = {
                "significant": result.noise_ceiling >= least,
                "otherwise": f"below {least:.2f}, not above chance",
            }
            units = f"{SCORE} that a perfect model would reach: {ESTIMATE}"
            choices["noise ceiling"] = _shown(result.noise_ceiling, "noise ceiling", units, **options)
            shares = normalized_correlation(result.scores, result.noise_ceiling, floor=least)
            units = f"r as a share of its noise ceiling, where that is above chance: {ESTIMATE}"
            choices["share of the ceiling"] = _shown(shares, "share of the ceiling", units)
        if result.null_mean is not None:
            name, units = "r over shifted BOLD", "r less its mean with shifted BOLD"
            choices["score over shifted BOLD"] = _shown(result.scores - result.null_mean, name, units)
        with np.errstate(divide="ignore", invalid="ignore"):
            alphas = np.log10(np.median(np.atleast_2d(result.best_alphas), axis=0))
        choices["chosen alpha"] = _shown(alphas, "log10 alpha", "log10 of the chosen alpha", cmap="viridis")
        if best := self.session.best_layer:
            model = model_label(best.settings.model_name, best.settings.weights)
            units = f"layer of {model} with the highest score ({best.test_name})"
            options = {"cmap": "viridis", "categories": best.layers}
            choices["best layer"] = _shown(best.values, "best layer", units, **options)
        return choices

    def _offer(self, result: Result) -> None:
        """Offer the values of this run; the chosen ones stay if it has them."""
        names, chosen = list(self._choices(result)), self.values.value
        if tuple(names) == tuple(self.values.options):
            return
        with self._quiet:
            self.values.options = names
            self.values.value = chosen if chosen in names else "score"
        if self.values.value != chosen:
            self._reset_range()

    def _reset_range(self) -> None:
        """Forget threshold and colour range: they belong to the values that they were chosen for."""
        with self.view.hold_sync():
            self.view.threshold = self.view.vmin = self.view.vmax = None

    def _edited(self, *, other_values: bool = False) -> None:
        if not self._quiet.on:
            if other_values:
                self._reset_range()
            self.changed()

    def draw(self) -> None:
        """Put the chosen values on the map."""
        result, step = self.view.result, self._preview
        if result is None:
            return
        self.view.with_regions = self.regions.value
        choices = self._choices(result)
        chosen = choices.get(self.values.value, choices["score"])
        # the best layer counts voxels that are significant in any layer, not in the layer of this run
        significant = chosen.pop("significant", None if "categories" in chosen else result.significant)
        if step is not None and self.values.value == "score":
            chosen = {**chosen, "values": step.scores, "ahead": True, "otherwise": "not significant"}
            significant = step.significant
        chosen.setdefault("otherwise", not_significant(result))
        self.view.show(**chosen, significant=significant, nonsignificant=self.voxels.value)


def _shown(values: Array, name: str, units: str, **options: Any) -> dict[str, Any]:
    return {"values": values, "name": name, "units": units, **options}
