"""The tabs of a result: what they have in common, and the four small ones (Summary, Stories, Layers, Code)."""

from __future__ import annotations

from html import escape
from typing import Any

import IPython
import ipywidgets as widgets
import numpy as np

from .. import plots
from .._figures import figure_png
from ..assembly import Assembly
from ..brain import roi_table
from ..pipeline import Result, to_code
from ._threads import Flag, Latest, warnings_to
from .fields import parse_whole
from .page import CodeView
from .session import Session, model_label
from .theme import Picture, alert, button, labelled, problem, table

SECONDS = 30.0  # of a story that are visible at once, so that its words can be read
SWEEP_HINT = (
    "Fits every layer of the model, one after the other. The model reads the words once for all layers."
)
COURSE_INCHES = (5.4, 3.0)  # readable in the column of results


class ResultTab(widgets.VBox):
    """A tab that is drawn in a thread, when it is in front and its content has changed.

    A subclass has a `title` and a `draw`, which sets traits of existing widgets to what the session holds.
    """

    title = ""

    def __init__(self, session: Session, children: list[widgets.Widget], css: str) -> None:
        self.session = session
        self.in_front, self._stale = False, True
        self.trouble = widgets.HTML()
        self._drawing = Latest(self._draw)
        super().__init__([*children, self.trouble])
        self.add_class(f"enb-tab-{css}")

    def changed(self) -> None:
        """Draw again: at once if the tab is in front, otherwise when it comes to the front."""
        self._stale = True
        if self.in_front:
            self._drawing.ask()

    def look(self, in_front: bool) -> None:
        """The tab has come to the front, or has left it."""
        self.in_front = in_front
        if in_front and self._stale:
            self._drawing.ask()

    def drawn(self, timeout: float | None = None) -> bool:
        """Wait until it is drawn, at most `timeout` seconds."""
        return self._drawing.join(timeout)

    def draw(self) -> None:
        """Set the tab's widgets; called in a thread."""

    def _draw(self) -> None:
        self._stale = False
        try:
            with warnings_to(self.session.note):
                self.draw()
            self.trouble.value = ""
        except Exception as error:
            self.trouble.value = alert(f"This tab could not be drawn: {error or type(error).__name__}")
            raise


# ---------------------------------------------------------------------- summary


def sentence(result: Result) -> str:
    """The metrics of a result in a line of HTML."""
    m = result.metrics
    data = "Simulated BOLD" if result.simulated else "BOLD"
    features = ", approximate features (strided)" if result.settings.approximate else ""
    found = escape(result.test_name)
    if result.tested:
        share = f"{m['percent_significant']:.1f} %, {found}"
        found = f"{m['n_significant']:,.0f} voxels significant at FDR {result.settings.fdr_q:g} ({share})"
    return (
        f"<b>{data} of {escape(result.subject)}</b>{features}: {len(result.scores):,} voxels, "
        f"mean r {m['mean_score']:.3f}, median r {m['median_score']:.3f}, best r {m['max_score']:.3f}, {found}"
    )


def region_html(result: Result) -> str:
    """The scores by region as a table, or why there is none."""
    try:
        regions = roi_table(result)
    except ValueError as error:
        return f"<p>{escape(str(error))}</p>"
    heads = {"median": "median r", "mean": "mean r", "significant": "significant", "count": "voxels"}
    if not result.tested:
        del heads["significant"]
    rows = [(name, *map(number_text, row)) for name, row in regions[list(heads)].iterrows()]
    caption = f"Scores by region, best median first ({result.test_name})"
    return table(caption, ("region", *heads.values()), rows)


def metrics_html(result: Result) -> str:
    """The metrics over all voxels as a table; those of regions, named with a slash, have their own table."""
    overall = {name: value for name, value in result.metrics.items() if "/" not in name}
    rows = [(name.replace("_", " "), number_text(value)) for name, value in overall.items()]
    return table(f"Metrics ({result.test_name})", (), rows)


def number_text(value: float) -> str:
    """A number for a table; a whole one with thousands separated."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


class SummaryTab(ResultTab):
    """Metrics, regions, and the chosen alphas."""

    title = "Summary"

    def __init__(self, session: Session) -> None:
        self._metrics = widgets.HTML("No result yet: press Fit.")
        self._regions = widgets.HTML().add_class("enb-regions")
        self.alphas = Picture("enb-alphas", max_width="640px")
        tables = widgets.HBox([self._metrics, self._regions])
        tables.layout = {"flex_flow": "row wrap", "grid_gap": "24px"}
        super().__init__(session, [tables, self.alphas], "summary")

    def draw(self) -> None:
        """Fill the tables, then the picture."""
        result = self.session.result
        if result is None:
            return
        self._metrics.value = metrics_html(result)
        self._regions.value = region_html(result)
        text = "Alphas chosen by cross-validation, in percent of the voxels. Extend the grid if many are at an end."
        self.alphas.show(figure_png(plots.plot_alphas(result)), text)


# ---------------------------------------------------------------------- stories


class StoriesTab(ResultTab):
    """The distribution of scores in every held-out story, and one voxel's time course with the words."""

    title = "Stories"

    def __init__(self, session: Session) -> None:
        self._drawn: Result | None = None
        self._quiet = Flag()
        self.scores = Picture("enb-stories")
        self.course = Picture("enb-course")
        late: dict[str, Any] = {"continuous_update": False}
        tip, css = "The held-out story.", "enb-course-story"
        self.story = labelled(widgets.Dropdown, "story", tip, css, width="280px")
        tip, css = "Type a voxel's number, or click a voxel on the map in the Brain tab.", "enb-course-voxel"
        self.voxel = labelled(widgets.Text, "voxel", tip, css, width="200px", **late)
        tip, css = "Where the time course begins in the story.", "enb-course-start"
        late |= {"min": 0, "max": SECONDS, "step": 10, "readout_format": ".0f"}
        self.start = labelled(widgets.FloatSlider, "from (s)", tip, css, width="420px", **late)
        self._voxel_problem = widgets.HTML().add_class("enb-course-voxel-problem")
        self._words = widgets.HTML().add_class("enb-words")
        bar = widgets.HBox([self.story, self.voxel, self.start], layout={"flex_flow": "row wrap"})
        children = [self.scores, bar, self._voxel_problem, self.course, self._words]
        super().__init__(session, children, "stories")
        self.story.observe(lambda _: self._edited(new_story=True), "value")
        for control in (self.voxel, self.start):
            control.observe(lambda _: self._edited(), "value")

    def show(self, result: Result) -> None:
        """Show another run; a voxel that still exists stays, otherwise the best predicted one is shown."""
        with self._quiet:
            self.story.options = stories = list(result.predictions)
            self.story.value = self.story.value or stories[0]
            try:
                self._chosen_voxel(result)
            except ValueError:
                self.voxel.value = str(np.nan_to_num(result.scores, nan=-2).argmax())
            self._limit_start(result)
        self.changed()

    def select(self, voxel: int) -> None:
        """Show another voxel."""
        if voxel >= 0:
            self.voxel.value = str(voxel)

    def _edited(self, *, new_story: bool = False) -> None:
        result = self.session.result
        if result is None or self._quiet.on:
            return
        if new_story:
            with self._quiet:
                self._limit_start(result)
        self.changed()

    def _limit_start(self, result: Result) -> None:
        """Let the slider cover the chosen story, from its first row to the last stretch."""
        times = result.row_times[self.story.value]
        first = float(times[0])
        last = max(first, float(times[-1]) - SECONDS)
        with self.start.hold_trait_notifications():  # min may be above max in between
            self.start.min, self.start.max = first, last if last > first else first + 1
            self.start.value = first

    def _chosen_voxel(self, result: Result) -> int:
        """The number in the box; raises a ValueError if the result has no such voxel."""
        voxel = parse_whole(self.voxel.value, "a voxel")
        if not 0 <= voxel < len(result.scores):
            raise ValueError(f"Expected a voxel from 0 to {len(result.scores) - 1}, got {voxel}.")
        return voxel

    def draw(self) -> None:
        """Draw the distribution if the run is new, then the time course."""
        result, assembly, story = self.session.result, self.session.fitted_on, self.story.value
        if result is None or assembly is None:
            return
        if self._drawn is not result:
            which = "all voxels, and of the significant ones," if result.tested else "all voxels"
            text = f"Scores of {which} in each held-out story."
            self.scores.show(figure_png(plots.plot_stories(result)), text)
            self._drawn = result
        try:
            voxel, start = self._chosen_voxel(result), self.start.value
        except ValueError as error:
            self._voxel_problem.value = problem(str(error))
            self.course.clear()
            self._words.value = ""
            return
        self._voxel_problem.value = ""
        stop = start + SECONDS
        options = {"start": start, "stop": stop, "size": COURSE_INCHES}
        course = plots.plot_voxel(result, voxel, story=story, assembly=assembly, **options)
        text = f"Measured and predicted BOLD of voxel {voxel} in {story} from {start:.0f} s, with the words below."
        self.course.show(figure_png(course), text)
        words = assembly.stories[story].words
        spoken = np.flatnonzero((words.times >= start) & (words.times <= stop))
        self._words.value = "<b>Words:</b> " + escape(" ".join(words.text[i] for i in spoken))


# ---------------------------------------------------------------------- layers


class LayersTab(ResultTab):
    """The button that fits every layer, the profile of scores over layers, and the map of best layers."""

    title = "Layers"

    def __init__(self, session: Session) -> None:
        tip = "Fit every layer of the model with the current settings; Cancel stops it"
        self.button = button("Sweep all layers", "bars", tip, "enb-sweep", width="160px")
        self.needs = widgets.HTML().add_class("enb-sweep-estimate")
        self._state = widgets.HTML(SWEEP_HINT).add_class("enb-sweep-note")
        self.profile = Picture("enb-profile", max_width="760px")
        self.map = Picture("enb-best-layer")
        super().__init__(session, [self.button, self.needs, self._state, self.profile, self.map], "layers")

    def draw(self) -> None:
        """Draw the profile of the layers so far; the map at the end."""
        complete, results = self.session.swept_whole, list(self.session.layers.values())
        going_on = self.session.kind == "sweep" and not self.session.outcome
        if not complete:
            self.map.clear()
        if not results:
            self._state.value = "The profile grows with each layer." if going_on else SWEEP_HINT
            self.profile.clear()
            return
        end = "" if going_on else " The sweep is complete." if complete else " The sweep ended early."
        last = results[-1].settings.layer_idx
        model = model_label(results[-1].settings.model_name, results[-1].settings.weights)
        done = f"{len(results)} layers done, the last is layer {last}.{end}"
        tested = f" Significance: {results[-1].test_name}."
        self._state.value = escape(f"{model}, lookback {results[-1].settings.lookback}: {done}{tested}")
        try:
            png = figure_png(plots.plot_layers(results))
        except ValueError as error:  # no voxel is significant yet
            self._state.value += f" {error}"
            return
        text = "Scores by layer: the median voxel, and the middle half and 90 percent of the voxels."
        self.profile.show(png, text)
        if complete and results[0].surface is not None:
            png = figure_png(plots.plot_best_layer(results))
            text = "Flattened cortex, each voxel in the colour of the layer that predicts it best."
            self.map.show(png, text)


# ---------------------------------------------------------------------- code


def code_of(result: Result, assembly: Assembly) -> str:
    """Source of a cell that repeats a run on its data.

    Data made in the notebook cannot be loaded by a name: the cell then uses the variable that holds them.
    """
    code = to_code(result.settings, assembly.source, assembly.source_options)
    name = variable_of(assembly) if assembly.source is None else None
    return code if name in (None, "assembly") else f"assembly = {name}  # the data of this run\n{code}"


def variable_of(value: object) -> str | None:
    """The notebook's variable that holds this object."""
    names = getattr(IPython.get_ipython(), "user_ns", {})
    found = [name for name, held in list(names.items()) if held is value and not name.startswith("_")]
    return found[0] if found else None


class CodeTab(ResultTab):
    """The code of the last run, to copy or to insert."""

    title = "Code"

    def __init__(self, session: Session) -> None:
        self.view = CodeView()
        hint = "<b>Insert below</b> works in JupyterLab and Notebook 7; elsewhere use <b>Copy</b>."
        text = f"This cell repeats the last run without the panel. {hint}"
        super().__init__(session, [widgets.HTML(text), self.view], "code")

    def show(self, result: Result, assembly: Assembly) -> None:
        """Show another run's code."""
        self.view.code = code_of(result, assembly)
