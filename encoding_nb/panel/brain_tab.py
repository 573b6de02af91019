"""The Brain tab: scores and other values of each voxel on the flattened cortex."""

from __future__ import annotations

from pathlib import PurePath
from statistics import NormalDist
from typing import Any

import ipywidgets as widgets
import numpy as np

from .._progress import Progress
from ..assembly import Array, Assembly
from ..pipeline import Result
from ..plots import SCORE
from ._threads import Flag
from .click_map import BrainView
from .session import Session
from .tabs import ResultTab
from .theme import labelled

VOXELS = {"all, the others faded": "fade", "all, the others hatched": "hatch", "significant only": "hide"}
LEAST_CEILING = (
    0.25  # below it, a score as a share of its ceiling is mostly noise, see `scoring.normalized_correlation`
)
NOISE_SHARE = 0.01  # of voxels of pure noise whose ceiling is taken to be above chance


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
        """Put the scores of a run on the map while its permutation test is running; None shows the last result again.

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
            units = f"{SCORE} that a perfect model would reach: an estimate, single voxels can exceed it"
            least = ceiling_by_chance(result, self.session.fitted_on)
            options = {
                "significant": result.noise_ceiling >= least,
                "otherwise": f"below {least:.2f}, not above chance",
            }
            choices["noise ceiling"] = _shown(result.noise_ceiling, "noise ceiling", units, **options)
        with np.errstate(divide="ignore", invalid="ignore"):
            alphas = np.log10(np.median(np.atleast_2d(result.best_alphas), axis=0))
        choices["chosen alpha"] = _shown(alphas, "log10 alpha", "log10 of the chosen alpha", cmap="viridis")
        if best := self.session.best_layer:
            units = f"layer of {PurePath(best.settings.model_name).name} with the highest score"
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
            chosen = {**chosen, "values": step.scores, "ahead": True}
            significant = step.significant
        self.view.show(**chosen, significant=significant, nonsignificant=self.voxels.value)


def _shown(values: Array, name: str, units: str, **options: Any) -> dict[str, Any]:
    return {"values": values, "name": name, "units": units, **options}


def ceiling_by_chance(result: Result, assembly: Assembly | None) -> float:
    """The noise ceiling that 99 % of voxels without any signal do not reach; at least `LEAST_CEILING`.

    The mean correlation of n independent repeats is about normal around 0, with the variance of one correlation over
    the number of their pairs. That of one correlation is (1 + 2 * sum of r_k^2) / n_rows for series of autocorrelation
    r_k (Bartlett, 1935). Several stories' ceilings are averaged, as they are in the result.
    """
    found = []
    for story in result.story_noise_ceiling:
        repeats = (
            assembly.stories[story].repeats if assembly is not None and story in assembly.stories else None
        )
        measured = result.measured.get(story)
        if repeats is None or measured is None:
            continue
        n_repeats, n_rows = repeats.shape[0], len(measured)
        variance = (1 + 2 * np.sum(autocorrelation(measured) ** 2)) / n_rows
        r = NormalDist().inv_cdf(1 - NOISE_SHARE) * np.sqrt(variance / (n_repeats * (n_repeats - 1) / 2))
        found.append(np.sqrt(n_repeats * r / (1 + (n_repeats - 1) * r)))
    return max(LEAST_CEILING, float(np.mean(found))) if found else LEAST_CEILING


def autocorrelation(rows: Array, *, most_voxels: int = 500) -> Array:
    """(n_lags,) of lags 1 to a tenth of the rows: the median over a sample of the voxels of (n_rows, n_voxels)."""
    some = np.asarray(rows[:, :: max(1, rows.shape[1] // most_voxels)], float)
    some = some - some.mean(axis=0)
    with np.errstate(invalid="ignore"):
        by_voxel = [
            (some[lag:] * some[:-lag]).sum(axis=0) / (some**2).sum(axis=0)
            for lag in range(1, len(some) // 10)
        ]
    return np.median(np.nan_to_num(np.reshape(by_voxel, (-1, some.shape[1]))), axis=1)
