"""What was run before: saved in the results folder or done in this session, and two of them compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from .. import plots, records
from ..pipeline import Result
from ..settings import Settings
from .tabs import ResultTab
from .theme import Picture, alert

NOTHING = ("", None)
HEADINGS = ("run (UTC)", "what", "median r", "significant", "record")


def runs_html(table: Any) -> str:
    """The records of a folder as a table, the newest first."""
    if not len(table):
        return "<p>No run is saved in this folder yet: Save keeps the last one.</p>"
    head = "".join(f"<th scope='col'>{name}</th>" for name in HEADINGS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in _described(row)) + "</tr>"
        for _, row in table.iloc[::-1].iterrows()
    )
    return (
        '<div class="enb-scroll"><table><caption>Runs in the results folder, the newest first</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _described(row: Any) -> tuple[Any, ...]:
    """A line of the history: few enough columns for a narrow page."""
    subject = row.get("subject")
    known = ", ".join([*([subject] if isinstance(subject, str) else []), *_what(row)])
    return (str(row["time"])[:16], known, row["median_score"], row["n_significant"], row["status"])


def _what(row: Any) -> list[str]:
    """What a record fitted, as far as the record could be read."""
    modality = row.get("modality")
    if modality == "language_model":
        model = str(row["model_name"]).rstrip("/").split("/")[-1]
        return [model, f"layer {row['layer_idx']:.0f}", f"lookback {row['lookback']:.0f}"]
    return [modality.replace("_", " ")] if isinstance(modality, str) else []


def _cell(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return "" if value != value else f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
    text = "" if value is None else str(value)
    return escape(text if len(text) < 60 else f"\u2026{text[-58:]}")


def comparison_html(table: Any) -> str:
    """What sets two runs apart, a line each: settings that differ, metrics of both."""
    first, second = (table.iloc[i] for i in (0, 1))
    rows = []
    for kind, name in table.columns:
        if kind in ("settings", "metrics", "data"):
            rows.append(
                f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{_cell(first[kind, name])}</td>"
                f"<td>{_cell(second[kind, name])}</td></tr>"
            )
    similar = table["maps", "r_with_first"].iloc[1]
    return (
        '<div class="enb-scroll"><table><thead><tr><th></th><th>first</th><th>second</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f"<p>Over voxels, the two maps correlate with r = {similar:.3f}.</p>"
    )


class RunsTab(ResultTab):
    """The history, and two runs side by side."""

    title = "Runs"

    def __init__(
        self,
        results_dir: Path,
        remembered: Callable[[], Mapping[str, Result]],
        on_take: Callable[[Settings], None],
    ) -> None:
        self._results_dir, self._remembered, self._on_take = results_dir, remembered, on_take
        self._pair: tuple[Any, Any] | None = None
        self._table = widgets.HTML().add_class("enb-runs")
        self.first = self._choice("first", "enb-run-first")
        self.second = self._choice("second", "enb-run-second")
        self.compare = self._button("Compare", "columns", "Compare the two chosen runs", "enb-compare")
        self.take = self._button(
            "Use settings", "sliders", "Put the controls to the first run's settings", "enb-take"
        )
        self.refresh = self._button("Refresh", "refresh", "Look into the results folder again", "enb-refresh")
        self._said = widgets.HTML().add_class("enb-comparison")
        self.difference = Picture("enb-difference")
        self.scatter = Picture("enb-scatter", max_width="560px")
        buttons = widgets.HBox([self.compare, self.take, self.refresh], layout={"flex_flow": "row wrap"})
        super().__init__(
            [self._table, self.first, self.second, buttons, self._said, self.difference, self.scatter], "runs"
        )
        self.compare.on_click(lambda _: self._compare_chosen())
        self.take.on_click(lambda _: self._take())
        self.refresh.on_click(lambda _: self.changed())
        self._stale = True

    @staticmethod
    def _choice(label: str, css_class: str) -> widgets.Dropdown:
        return widgets.Dropdown(
            options=[NOTHING],
            description=label,
            style={"description_width": "60px"},
            layout={"width": "auto", "max_width": "640px"},
            tooltip=f"The {label} run of the comparison: one of this session, or one that was saved.",
        ).add_class(css_class)

    @staticmethod
    def _button(text: str, icon: str, tooltip: str, css_class: str) -> widgets.Button:
        return widgets.Button(
            description=text, icon=icon, tooltip=tooltip, layout={"width": "130px"}
        ).add_class(css_class)

    def _run(self, choice: Any) -> Result:
        return choice if isinstance(choice, Result) else records.load_run(choice)

    def _compare_chosen(self) -> None:
        if self.first.value is None or self.second.value is None:
            self._said.value = alert("Choose two runs above; fit twice with different settings to have two.")
            return
        self._pair = (self.first.value, self.second.value)
        self.changed()

    def _take(self) -> None:
        if self.first.value is None:
            self._said.value = alert("Choose a first run above.")
            return
        try:
            self._on_take(self._run(self.first.value).settings)
            self._said.value = "The controls stand as in the first run."
        except Exception as error:  # noqa: BLE001 - the record may be gone, or not be one
            self._said.value = alert(f"These settings cannot be read: {error or type(error).__name__}")

    def draw(self) -> None:
        """The history as it is now, and the comparison that was asked for."""
        table = records.list_runs(self._results_dir)
        self._table.value = runs_html(table)
        self._offer(table)
        if self._pair is None:
            return
        pair, self._pair = self._pair, None
        self._said.value = "Comparing."
        try:
            one, other = (self._run(choice) for choice in pair)
            self._said.value = comparison_html(records.compare_runs([one, other]))
            if one.surface is not None:
                png = plots.plot_difference_map(one, other)._repr_png_()
                self.difference.show(
                    png, "Flattened cortex: the score of the first run less that of the second."
                )
            png = plots.plot_comparison(one, other)._repr_png_()
            self.scatter.show(png, "Scores of the first run against those of the second, voxel by voxel.")
        except ValueError as error:
            self._said.value = alert(str(error))

    def _offer(self, table: Any) -> None:
        """The choices: this session's runs, the newest first, then those on disk."""
        options: list[tuple[str, Any]] = [NOTHING]
        options += [(f"this session: {label}", run) for label, run in reversed(self._remembered().items())]
        whole = table[table["status"] == "whole"].iloc[::-1] if len(table) else table
        options += [
            (f"saved: {str(row['time'])[:19]} {', '.join(_what(row))}", row["path"])
            for _, row in whole.iterrows()
        ]
        for box in (self.first, self.second):
            if [label for label, _ in box.options] == [label for label, _ in options]:
                continue
            chosen = box.label
            box.options = options
            if chosen in [label for label, _ in options]:
                box.label = chosen
