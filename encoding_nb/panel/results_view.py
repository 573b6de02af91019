"""The last result: a line of numbers, and everything else in tabs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets

from ..pipeline import Result
from ..settings import Settings
from .brain_tab import BrainTab
from .code_tab import CodeTab
from .layers_tab import LayersTab
from .runs import Runs
from .runs_tab import RunsTab
from .stories_tab import StoriesTab
from .summary_tab import SummaryTab, sentence
from .tabs import ResultTab

COMPACT_HEIGHT, HEIGHT = 384, 512  # pixels of the map's picture


class ResultsView(widgets.VBox):
    """The tabs; the map is in front at first, and a tab is drawn when it is looked at."""

    def __init__(
        self,
        runs: Runs,
        results_dir: Path,
        *,
        on_sweep: Callable[[], None],
        on_take: Callable[[Settings], None],
        compact: bool,
    ) -> None:
        self._runs = runs
        self.line = widgets.HTML().add_class("enb-summary")
        self.summary = SummaryTab()
        self.brain = BrainTab(height=COMPACT_HEIGHT if compact else HEIGHT)
        self.stories = StoriesTab(runs.assembly)
        self.layers = LayersTab(on_sweep)
        self.runs = RunsTab(results_dir, lambda: runs.remembered, on_take)
        self.code = CodeTab()
        self.tabs: tuple[ResultTab, ...] = (
            self.summary,
            self.brain,
            self.stories,
            self.layers,
            self.runs,
            self.code,
        )
        for tab in self.tabs:
            tab.note = runs.note
        self.box = widgets.Tab(self.tabs, titles=[tab.title for tab in self.tabs]).add_class("enb-tabs")
        super().__init__([self.line, self.box])
        self.add_class("enb-right")
        self.box.observe(lambda _: self._chosen(), "selected_index")
        self.box.selected_index = self.tabs.index(self.brain)
        self.brain.view.observe(lambda change: self.stories.select(change["new"]), "selected")

    def show(self, result: Result) -> None:
        """Show another run, its map first."""
        assembly = self._runs.fitted_on  # other data may be open by now
        self.brain.show(result, best=self._runs.best_layer)
        self.line.value = sentence(result)
        self.summary.show(result)
        self.stories.show(result, assembly)
        self.code.show(result, assembly)
        self.runs.changed()

    def drawn(self, timeout: float | None = None) -> None:
        """Wait until the tab in front is drawn, at most `timeout` seconds."""
        for tab in self.tabs:
            tab.drawn(timeout)

    def _chosen(self) -> None:
        for number, tab in enumerate(self.tabs):
            tab.look(number == self.box.selected_index)
