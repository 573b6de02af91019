"""The control panel: controls, Fit and Cancel, progress, and the last result in tabs.

`session.Session` does the work in a thread, which only sets traits of existing widgets. All state is in the kernel, so
a page that is loaded again, or a cell that runs again, shows the current run.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import IPython
import ipywidgets as widgets

from .. import plots
from .._figures import figure_png
from .._validation import error_text
from ..assembly import Assembly, check_assembly
from ..datasets import load_assembly
from ..features import store_folder
from ..pipeline import Result
from ..records import check_results_dir
from ..settings import Settings, SettingsError, check_settings
from ._threads import Latest
from .brain_tab import BrainTab
from .controls import SPLIT, Controls, ModelLookup
from .page import PageLink, tooltips
from .runs_tab import RunsTab
from .session import Session, features_label, session_named
from .status import NO_SWEEP, FitStatus, ProgressView
from .tabs import CodeTab, LayersTab, ResultTab, StoriesTab, SummaryTab, sentence
from .theme import button, style_sheet, warned

COMPACT_HEIGHT, HEIGHT = 384, 512  # pixels of the map's picture
BUSY = "Something is running already; cancel it or wait until it ends."
FAILED = {
    "fit": "The fit stopped with an error; change a setting and press Fit again.",
    "sweep": "The sweep stopped with an error; change a setting and try again.",
    "open": "The data could not be opened; the previous data stay open.",
    "check": "The split could not be checked; change a setting and try again.",
}


class ResultsView(widgets.VBox):
    """The tabs; the map is in front at first, and each tab is drawn when it comes to the front."""

    def __init__(
        self, session: Session, results_dir: Path, on_use: Callable[[Settings], None], compact: bool
    ) -> None:
        self.line = widgets.HTML().add_class("enb-summary")
        self.shown = widgets.HTML().add_class("enb-shown")
        self.summary = SummaryTab(session)
        self.brain = BrainTab(session, height=COMPACT_HEIGHT if compact else HEIGHT)
        self.stories = StoriesTab(session)
        self.layers = LayersTab(session)
        self.runs = RunsTab(session, results_dir, on_use)
        self.code = CodeTab(session)
        self.tabs = (self.summary, self.brain, self.stories, self.layers, self.runs, self.code)
        self.box = widgets.Tab(self.tabs, titles=[tab.title for tab in self.tabs]).add_class("enb-tabs")
        super().__init__([self.line, self.shown, self.box])
        self.add_class("enb-right")
        self.box.observe(lambda _: self._chosen(), "selected_index")
        self.bring_to_front(self.brain)
        self.brain.view.observe(lambda change: self.stories.select(change["new"]), "selected")

    def show(self, result: Result, assembly: Assembly) -> None:
        """Show another run on its data, its map first."""
        self.brain.show(result)
        self.line.value = sentence(result)
        self.summary.changed()
        self.stories.show(result)
        self.code.show(result, assembly)
        self.runs.changed()

    def show_what(self, text: str, outdated: str) -> None:
        """Name the run that is shown, and in what it is outdated."""
        text = f"{text} {outdated}".strip()
        self.shown.value = warned(text) if outdated else escape(text)

    def bring_to_front(self, tab: ResultTab) -> None:
        """Show a tab, which draws it."""
        self.box.selected_index = self.tabs.index(tab)

    def drawn(self, timeout: float | None = None) -> bool:
        """Wait until all tabs are drawn, each at most `timeout` seconds; True when they are."""
        return all([tab.drawn(timeout) for tab in self.tabs])

    def _chosen(self) -> None:
        for number, tab in enumerate(self.tabs):
            tab.look(number == self.box.selected_index)


class ControlPanel(widgets.VBox):
    """Choose, fit, look. Made by `control_panel`.

    Attributes
    ----------
    assembly : the open data
    settings : Settings of the controls; set it to change the controls
    result : the last finished `Result`, or None
    running : whether a fit, a sweep, or the opening of data is in progress
    status : the text of the status line
    controls, results, session
        The parts of the panel: the controls by setting (`controls.fields`), the tabs, and what runs.
    """

    def __init__(
        self,
        assembly: Assembly,
        *,
        memory: Any,
        results_dir: str | Path,
        settings: Settings,
        compact: bool = False,
        session: Session | None = None,
    ) -> None:
        self.session = Session(assembly, memory) if session is None else session
        self.asked: Any = None
        self.results_dir = Path(results_dir)
        self._display: Any = None  # the panel in its cell
        self.lookup = ModelLookup(lambda: self.fit_status.check())
        self.controls = Controls(
            self.assembly, settings, lambda: self.fit_status.check(), self.open_data, self.lookup
        )
        wide = {"width": "auto", "flex": "1 1 0%", "min_width": "0"}
        self.fit_button = button("Fit", "play", "Fit with the settings above", "enb-fit", **wide)
        tip = "Stop the run; finished stories stay cached"
        self.cancel_button = button("Cancel", "stop", tip, "enb-cancel", **wide)
        tip = "Write the last fit's record, pictures and table of voxels"
        self.save_button = button("Save", "save", tip, "enb-save", **wide)
        self.fit_button.button_style = "primary"
        self.cancel_button.disabled = self.save_button.disabled = True
        self.page = PageLink(self._pack)
        self.progress = ProgressView()
        self.notes = widgets.HTML().add_class("enb-notes")
        self._data = widgets.HTML().add_class("enb-data")
        self.results = ResultsView(self.session, self.results_dir, self.controls.show, compact)
        layers, split = self.results.layers, self.controls.split
        run_buttons = (self.fit_button, self.cancel_button, split.button)
        self.fit_status = FitStatus(self.session, self.controls, layers, run_buttons)
        buttons = widgets.HBox([self.fit_button, self.cancel_button, self.save_button])
        lines = [self.fit_status, self.progress, self.notes, self.fit_status.error, self.page]
        left = widgets.VBox([self.controls, buttons, *lines]).add_class("enb-left")
        body = widgets.HBox([left, self.results], layout={"flex_flow": "row wrap", "grid_gap": "16px"})
        super().__init__([style_sheet(), self._data, body])
        self.page.tips = tooltips(self)
        self.add_class("enb-panel")
        if compact:
            self.add_class("enb-compact")
        self.saving = Latest(self._save_quietly)
        self.fit_button.on_click(lambda _: self.fit())
        self.cancel_button.on_click(lambda _: self.cancel())
        layers.button.on_click(lambda _: self.sweep_layers())
        split.button.on_click(lambda _: self.check_split())
        self.save_button.on_click(lambda _: self.saving.ask())
        self.session.watch(self._news)
        self._show_data()
        if self.result is not None:  # the panel may be made after a run, or during one
            self._show_result()
        if self.running:
            self.progress.begin("Running.")
            if self.session.step is not None:
                self._news("progress", self.session.step)
        self._show_notes()
        self.fit_status.on_checked = self._show_age
        self.fit_status.check()
        self.fit_status.warm_up()

    # ------------------------------------------------------------------ what a user does

    @property
    def assembly(self) -> Assembly:
        """The open data."""
        return self.session.assembly

    @property
    def result(self) -> Result | None:
        """The last finished fit."""
        return self.session.result

    @property
    def settings(self) -> Settings:
        """The settings of the controls; raises SettingsError if a control has no valid value."""
        return self.controls.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self.controls.show(settings)

    @property
    def running(self) -> bool:
        """Whether a fit, a sweep, or the opening of data is in progress."""
        return self.session.running

    @property
    def status(self) -> str:
        """The text of the status line."""
        return self.progress.status.value

    def fit(self) -> None:
        """Start a fit in a thread and return; `join` waits for it. Refused while something is running."""
        self._start(self.session.fit)

    def sweep_layers(self) -> None:
        """Start a fit of every layer, with the other settings of the controls."""
        settings, _ = self.controls.read()
        if "language_model" not in (settings.modality, *settings.joined_with):
            self.progress.write(NO_SWEEP, answer=True)
        else:
            self._start(self.session.sweep_layers)
            self.results.layers.changed()

    def check_split(self) -> None:
        """Start to check whether the folds of the controls leak."""
        self._start(self.session.check_split)

    def open_data(self, source: str, options: dict[str, Any]) -> None:
        """Load another data set in a thread; refused while something is running."""
        if self.running:
            self.controls.data.show_problem(BUSY)
            return
        self.progress.begin(f"Opening {source}.")
        self.session.open_data(source, options)
        self.fit_status.allow()

    def cancel(self) -> None:
        """Stop what is running at its next step; the panel is ready again within a second."""
        if self.running:
            self.progress.write("Stopping.", answer=True)
            self.session.cancel()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for what is running, at most `timeout` seconds; True when nothing is running any more.

        The error of a failed run is raised here too, so that a notebook that runs by itself stops. If no browser has
        shown the panel, its cell then gets a picture of the result next to the widget.
        """
        over = self.session.join(timeout)
        if over and self.session.error is not None:
            raise self.session.error
        if over:
            self.results.drawn(timeout)
            if self._display is not None and self.result is not None and not self.page.seen:
                self._display.update(self._repr_mimebundle_(), raw=True)  # a visible panel would flicker
        return over

    def save(self) -> Path:
        """Write the last fit's record, pictures (PNG, SVG) and table of voxels (CSV); returns the folder."""
        folder = self.session.save(self.results_dir)
        names = ", ".join(sorted(file.name for file in folder.iterdir()))
        self.progress.write(f"Saved in {os.path.relpath(folder)}: {names}.", answer=True)
        self.results.runs.changed()
        return folder

    def retire(self) -> None:
        """Stop following the session: another panel of the same name shows it now."""
        self.session.unwatch(self._news)
        self.progress.write("A newer panel of this name has replaced this one.")
        self.fit_status.retire()

    # ------------------------------------------------------------------ running

    def _start(self, start: Callable[[Settings], bool]) -> None:
        if self.running:
            self.progress.write(BUSY, answer=True)
            return
        try:
            settings = self.settings
        except SettingsError as error:
            self.progress.write(str(error), answer=True)
            return
        self.lookup.forget(settings.model_name)
        self.fit_status.show_failure("")
        self.progress.begin("Starting.")  # before the run, which may end at once
        start(settings)
        self._show_notes()
        self.fit_status.allow()

    def _news(self, news: str, value: Any) -> None:
        """Show news of the session, in the thread of the run."""
        try:
            if news == "note":
                self._show_notes()
            elif news == "over":
                self._ended(value)
            elif news == "idle":
                self.fit_status.check()  # more is cached now
            elif isinstance(value, Result):
                self.results.layers.changed()
            else:
                self.progress.show(value)
                if value.scores is not None and self.session.fitted_on is self.session.run_assembly:
                    self.results.brain.preview(value)
                    self._show_age()
        except Exception as error:  # noqa: BLE001 - an error of showing must be shown too
            if news == "over":
                self.progress.end("danger", "The run has ended, but the panel could not show its result.")
            text = f"The panel could not show the run's state ({error_text(error)}); report the traceback."
            self.fit_status.show_failure(text, error)

    def _ended(self, value: Any) -> None:
        session, kind = self.session, self.session.kind
        if session.outcome != "done":
            self.results.brain.preview(None)
        if session.outcome == "failed":
            self.progress.end("danger", FAILED[kind])
            text = session.explanation()
            if kind == "open":
                self.controls.data.show_problem(text)
            self.fit_status.show_failure(text, session.error)
        elif session.outcome == "cancelled":
            self.progress.end("warning", "Cancelled. Finished stories stay cached.")
        elif kind == "fit":
            self._show_result()
            seconds = sum(value.provenance["seconds"].values())
            self.progress.end("success", f"Done in {seconds:.1f} s.", fitted=True)
        elif kind == "sweep":
            self.results.brain.swept()
            self.progress.end("success", f"Done: {len(value)} layers.", fitted=True)
        elif kind == "check":
            self.progress.end("success", "The split is checked.")
        else:
            self._show_data()
            self._show_notes()
            self.controls.use(value)
            self.progress.end("success", f"Opened {value.subject}: {len(value)} stories.")
        if kind == "sweep":
            self.results.layers.changed()
            self.results.runs.changed()  # finished layers can be compared in any case
        self._show_age()

    # ------------------------------------------------------------------ results

    def _show_result(self) -> None:
        self.results.show(self.session.result, self.session.fitted_on)
        self.save_button.disabled = False
        self.page.enabled = True

    def _show_age(self) -> None:
        """Name the run on the map, and whether the controls still show its settings and its data are still open."""
        session, result = self.session, self.session.result
        self._show_split()
        if (
            session.kind in ("fit", "sweep")
            and session.outcome == "done"
            and session.run_settings is not None
        ):
            but = "layer_idx" if session.kind == "sweep" else ""
            self.progress.show_age(self._outdated(session.run_settings, session.run_assembly, but=but))
        if result is None:
            return
        if session.running and self.results.brain.previews and session.run_settings is not None:
            running = features_label(vars(session.run_settings))
            self.results.show_what(f"Shown: {running}, before its test of significance.", "")
            return
        shown = features_label(vars(result.settings))
        if session.fitted_on is not session.assembly:
            shown = f"{plots.whose(result)}, {shown}"
        self.results.show_what(f"Shown: {shown}.", self._outdated(result.settings, session.fitted_on))

    def _show_split(self) -> None:
        """Show the last check of the split, and whether the controls still hold that split."""
        checked = self.session.split
        if checked is None or checked.assembly is not self.assembly:
            self.controls.split.show("")
            return
        changed = [name for name in self.controls.changed_since(checked.settings) if name in SPLIT]
        labels = ", ".join(dict.fromkeys(map(self.controls.label_of, changed)))
        outdated = f"The split has changed since ({labels}): check it again." if changed else ""
        self.controls.split.show(checked.sentence, outdated)

    def _outdated(self, settings: Settings, assembly: Assembly | None, *, but: str = "") -> str:
        """In what a run with these settings on these data is outdated; "" if in nothing."""
        fitting = self.session.kind == "fit" and not self.session.outcome
        then = "a fit is running." if fitting else "press Fit to update."
        if assembly is not self.assembly:
            return f"Other data are open now: {then}"
        names = [name for name in self.controls.changed_since(settings) if name != but]
        labels = list(dict.fromkeys(self.controls.label_of(name) for name in names))
        more = f" and {len(labels) - 3} more" if len(labels) > 4 else ""
        named = ", ".join(labels[:3] if more else labels)
        return f"The settings have changed ({named}{more}): {then}" if labels else ""

    def _show_data(self) -> None:
        self._data.value = f"<b>{escape(repr(self.assembly).removeprefix('Assembly(').removesuffix(')'))}</b>"

    def _show_notes(self) -> None:
        """Warnings of the data and of the last run, under a line that counts them."""
        notes = list(dict.fromkeys([*self.session.data_notes, *self.session.notes]))
        count = "1 note" if len(notes) == 1 else f"{len(notes)} notes"
        items = "".join(f"<li>{escape(note)}</li>" for note in notes)
        folded = f"<details><summary>{count} about this run</summary><ul>{items}</ul></details>"
        self.notes.value = folded if notes else ""

    def _save_quietly(self) -> None:
        self.progress.write("Saving.", answer=True)
        try:
            self.save()
        except Exception as error:  # noqa: BLE001 - the user who pressed Save must see it
            self.progress.write("Nothing was saved.", answer=True)
            self.fit_status.show_failure(str(error) or type(error).__name__, error)
        else:
            if self.session.outcome != "failed":  # the error of a run stays visible
                self.fit_status.show_failure("")

    def _pack(self) -> tuple[str, bytes | None, str]:
        packed = self.session.pack(self.results_dir)
        self.results.runs.changed()
        return packed

    # ------------------------------------------------------------------ display

    def __repr__(self) -> str:
        return f"ControlPanel({self.assembly!r}, {'running' if self.running else 'last result'}: {self.result!r})"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live panel, and a picture of the last result for viewers without a kernel."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if result := self.result:
            draw = plots.plot_flatmap if result.surface is not None else plots.plot_stories
            bundle["image/png"] = base64.b64encode(figure_png(draw(result))).decode()
        return bundle

    def _ipython_display_(self, **_: Any) -> None:
        self._display = IPython.display.display(self._repr_mimebundle_(), raw=True, display_id=True)


def control_panel(
    assembly: Assembly | None = None,
    *,
    memory: Any = None,
    results_dir: str | Path | None = None,
    settings: Settings | None = None,
    name: str | None = None,
    compact: bool = False,
) -> ControlPanel:
    """A panel for one data set.

    Parameters
    ----------
    assembly : Assembly, optional
        None opens the built-in demo.
    memory : joblib.Memory or path, optional
        Where activations are kept; None uses the user's cache folder.
    results_dir : folder, optional
        Results are saved under it. None uses `results` in the working directory, which is checked only when something
        is saved, so a panel opens in a read-only folder too.
    settings : Settings, optional
        What the controls start with.
    name : str, optional
        Tells panels apart: the same name on the same data returns the same panel again, with its run in progress.
        By default the name is that of the notebook cell, so a cell that runs again finds its panel, and two cells
        have two panels. Outside JupyterLab, where cells have no names, every call makes a new panel.
    compact : bool
        Narrower controls and a smaller map, for small screens and small servers such as Binder's.

    Returns
    -------
    ControlPanel

    Raises
    ------
    TypeError
        `assembly` is not an Assembly, or `settings` is not a Settings.
    ValueError
        `memory` is neither a Memory nor a folder; results_dir cannot be written (`records.RecordError`).
    """
    if assembly is not None:
        check_assembly(assembly, "control_panel")
    if settings is not None:
        check_settings(settings, "control_panel")
    store_folder(memory)  # raises for what is neither a Memory nor a folder
    results_dir = Path("results") if results_dir is None else check_results_dir(results_dir)
    session = session_named(name, load_assembly("demo") if assembly is None else assembly, memory)
    asked = (str(results_dir), settings, compact)
    last = session.panel
    if last is not None:
        if last.asked == asked and last.comm is not None:
            return last
        last.retire()
    shown = settings or session.settings or Settings()
    options = {"memory": session.memory, "session": session, "results_dir": results_dir, "compact": compact}
    session.panel = ControlPanel(session.assembly, settings=shown, **options)
    session.panel.asked = asked
    return session.panel
