"""The Runs tab: the saved runs of the results folder and the runs of this session, two of them compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from .. import plots, records
from .._figures import figure_png
from ..pipeline import Result
from ..settings import Settings
from .session import Session, features_label
from .tabs import ResultTab, number_text
from .theme import Picture, alert, button, labelled, table

NOTHING = ("", None)
HEADINGS = ("run (UTC)", "what", "median r", "significant", "record")


def runs_html(runs: Any) -> str:
    """The records of a folder as a table, the newest first."""
    if not len(runs):
        return "<p>No run is saved in this folder yet; Save writes the last fit.</p>"
    rows = [[_cell(value) for value in _described(row)] for _, row in runs.iloc[::-1].iterrows()]
    return table("Runs in the results folder, the newest first", HEADINGS, rows)


def _described(row: Any) -> tuple[Any, ...]:
    """One row of the table, with few enough columns for a narrow page."""
    subject = row.get("subject")
    what = features_label(row)
    known = f"{subject}, {what}" if isinstance(subject, str) and what else what or subject
    significant, test = row["n_significant"], str(row.get("test"))
    if test.startswith("not tested"):
        significant = "not tested"
    elif caution := test.partition(", ")[2]:
        significant = f"{_cell(significant)} ({caution})"
    return (str(row["time"])[:16], known, row["median_score"], significant, row["status"])


def _cell(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else number_text(float(value))
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value)) or "none"
    text = "" if value is None else str(value)
    return text if len(text) < 60 else f"\u2026{text[-58:]}"


def comparison_html(compared: Any) -> str:
    """How two runs differ: settings that differ, metrics of both, and by what their voxels count as significant."""
    first, second = (compared.iloc[i] for i in (0, 1))
    rows = [
        (
            name.replace("_", " "),
            _cell(first[kind, name]),
            _cell(second[kind, name]),
        )
        for kind, name in compared.columns
        if kind in ("settings", "metrics", "data")
    ]
    rows.append(("significance", first["test", "name"], second["test", "name"]))
    similar = compared["maps", "r_with_first"].iloc[1]
    comparison = table("Differences of the two runs", ("", "first", "second"), rows)
    return f"{comparison}<p>The two maps correlate with r = {similar:.3f} over voxels.</p>"


class RunsTab(ResultTab):
    """The saved runs, and two runs side by side."""

    title = "Runs"

    def __init__(self, session: Session, results_dir: Path, on_use: Callable[[Settings], None]) -> None:
        self._results_dir, self._on_use = results_dir, on_use
        self._pair: tuple[Any, Any] | None = None
        self._table = widgets.HTML().add_class("enb-runs")
        options: dict[str, Any] = {"options": [NOTHING], "style": {"description_width": "60px"}}
        options["layout"] = {"width": "auto", "max_width": "640px"}
        tip = "The {} run of the comparison: one of this session, or a saved one."
        self.first, self.second = (
            labelled(widgets.Dropdown, label, tip.format(label), f"enb-run-{label}", **options)
            for label in ("first", "second")
        )
        size = {"width": "130px"}
        self.compare = button("Compare", "columns", "Compare the two chosen runs", "enb-compare", **size)
        tip = "Set the controls to the settings of the first run"
        self.take = button("Use settings", "sliders", tip, "enb-take", **size)
        self.refresh = button("Refresh", "refresh", "Read the results folder again", "enb-refresh", **size)
        self._comparison = widgets.HTML().add_class("enb-comparison")
        self.difference = Picture("enb-difference")
        self.scatter = Picture("enb-scatter", max_width="560px")
        buttons = widgets.HBox([self.compare, self.take, self.refresh], layout={"flex_flow": "row wrap"})
        below = [self._comparison, self.difference, self.scatter]
        super().__init__(session, [self._table, self.first, self.second, buttons, *below], "runs")
        self.compare.on_click(lambda _: self._compare_chosen())
        self.take.on_click(lambda _: self._use_first())
        self.refresh.on_click(lambda _: self.changed())

    def _run(self, choice: Any) -> Result:
        return choice if isinstance(choice, Result) else records.load_run(choice)

    def _compare_chosen(self) -> None:
        if self.first.value is None or self.second.value is None:
            text = "Choose two runs above; if there is only one, fit again with other settings."
            self._comparison.value = alert(text)
        else:
            self._pair = (self.first.value, self.second.value)
            self.changed()

    def _use_first(self) -> None:
        if self.first.value is None:
            self._comparison.value = alert("Choose a first run above.")
            return
        try:
            self._on_use(self._run(self.first.value).settings)
            self._comparison.value = "The controls now show the settings of the first run."
        except Exception as error:  # noqa: BLE001 - the record may be gone or damaged
            self._comparison.value = alert(f"These settings cannot be read: {error or type(error).__name__}")

    def draw(self) -> None:
        """Show the current table, and the comparison if one was asked for."""
        runs = records.list_runs(self._results_dir)
        self._table.value = runs_html(runs)
        self._offer(runs)
        if self._pair is None:
            return
        pair, self._pair = self._pair, None
        self._comparison.value = "Comparing."
        try:
            one, other = (self._run(choice) for choice in pair)
            self._comparison.value = comparison_html(records.compare_runs([one, other]))
            if one.surface is not None:
                png = figure_png(plots.plot_difference_map(one, other))
                text = "Flattened cortex: the score of the first run minus that of the second."
                self.difference.show(png, text)
            png = figure_png(plots.plot_comparison(one, other))
            self.scatter.show(png, "Scores of the first run against those of the second, voxel by voxel.")
        except ValueError as error:
            self._comparison.value = alert(str(error))

    def _offer(self, runs: Any) -> None:
        """Offer this session's runs, the newest first, then the saved ones."""
        options: list[tuple[str, Any]] = [NOTHING]
        remembered = reversed(list(self.session.remembered.items()))
        options += [(f"this session: {label}", run) for label, run in remembered]
        whole = runs[runs["status"] == "whole"].iloc[::-1] if len(runs) else runs
        options += [
            (f"saved: {str(row['time'])[:19]} {features_label(row)}", row["path"])
            for _, row in whole.iterrows()
        ]
        for box in (self.first, self.second):
            chosen = box.label
            box.options = options
            if chosen in [label for label, _ in options]:
                box.label = chosen
