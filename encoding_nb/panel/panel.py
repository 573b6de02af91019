"""The panel: controls, Fit and Cancel, progress, and the last result in tabs.

The work is done by `runs.Runs`, in a thread that only sets traits of widgets that exist already. All state is
in the kernel, so a page that is loaded again, or a cell that is run again, shows the run as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from .. import pipeline
from .._progress import Progress
from ..assembly import Assembly
from ..pipeline import Result
from ..settings import Settings, SettingsError
from .background import Latest
from .controls import Controls
from .data_controls import open_data
from .download import Download
from .gate import Gate
from .layer_sweep import LayerDone, fit_layers
from .model_lookup import ModelLookup
from .page import tooltips
from .progress_view import ENDED, ProgressView, explained
from .readiness import NO_SWEEP
from .results_view import ResultsView
from .runs import Runs
from .saving import Saving, saved_sentence
from .still import Still, with_picture
from .theme import style_sheet
from .warning_notes import notes_html
from .worker import Tell

BUSY = "Something is running already; cancel it or wait for its end."


class ControlPanel(widgets.VBox):
    """Choose, fit, look. Made by `control_panel`.

    Attributes
    ----------
    settings : Settings, as the controls stand
    result : the last finished `Result`, or None
    assembly : the data that are open
    """

    def __init__(
        self,
        assembly: Assembly,
        *,
        memory: Any,
        results_dir: str | Path,
        settings: Settings,
        compact: bool = False,
        runs: Runs | None = None,
    ) -> None:
        self._runs = Runs(assembly, memory, given=assembly) if runs is None else runs
        self._record = Saving(self._runs, Path(results_dir))
        self._made = self._unsaved = False
        self._still = Still(lambda: self._repr_mimebundle_())

        self._lookup = ModelLookup(lambda: self._settings_changed())
        self._controls = Controls(
            self.assembly, settings, self._settings_changed, self.open_data, self._lookup
        )
        self._fit_button = _button("Fit", "play", "Fit with the settings above", "enb-fit")
        self._fit_button.button_style = "primary"
        self._cancel_button = _button("Cancel", "stop", "Stop; finished stories stay cached", "enb-cancel")
        self._save_button = _button(
            "Save", "save", "Write the last run's record, pictures and table of voxels", "enb-save"
        )
        self._cancel_button.disabled = self._save_button.disabled = True
        self._page = Download(self._pack)
        self._progress = ProgressView()
        self._notes = widgets.HTML().add_class("enb-notes")
        self._data = widgets.HTML().add_class("enb-data")
        self._results = ResultsView(
            self._runs, Path(results_dir), on_sweep=self.sweep, on_take=self._controls.show, compact=compact
        )
        self._gate = Gate(
            self._runs,
            self._controls,
            starters=(self._fit_button, self._results.layers.button),
            cancel=self._cancel_button,
            say_sweep=self._results.layers.show_needs,
        )
        super().__init__(self._arranged())
        self._page.tips = tooltips(self)
        self.add_class("enb-panel")
        if compact:
            self.add_class("enb-compact")

        self._fit_button.on_click(lambda _: self.fit())
        self._cancel_button.on_click(lambda _: self.cancel())
        self._save_button.on_click(lambda _: self._saving.ask())
        self._saving = Latest(self._save_quietly)
        self._runs.watch(self._news)
        self._show_data()
        self._made = True
        self._settings_changed()
        self._attach()
        self._gate.readiness.warm_up()

    def _arranged(self) -> list[widgets.Widget]:
        buttons = widgets.HBox([self._fit_button, self._cancel_button, self._save_button])
        left = widgets.VBox(
            [
                self._controls,
                buttons,
                self._gate.readiness,
                self._progress,
                self._notes,
                self._gate.error,
                self._page,
            ]
        ).add_class("enb-left")
        body = widgets.HBox(
            [left, self._results], layout=widgets.Layout(flex_flow="row wrap", grid_gap="16px")
        )
        return [style_sheet(), self._data, body]

    # ------------------------------------------------------------------ what is asked

    @property
    def assembly(self) -> Assembly:
        """The data that are open."""
        return self._runs.assembly

    @property
    def result(self) -> Result | None:
        """The last finished run."""
        return self._runs.result

    @property
    def settings(self) -> Settings:
        """The settings as the controls stand; raises SettingsError where one holds no value."""
        return self._controls.settings

    @property
    def running(self) -> bool:
        """Whether a fit, a sweep, or the opening of data is in progress."""
        return self._runs.running

    def fit(self) -> None:
        """Start a fit in a thread and return; `join` waits for it. Refused while something is running."""
        self._start("fit", self._fit)

    def sweep(self) -> None:
        """Start a fit of every layer, with the settings as they stand otherwise."""
        if "language_model" not in self._spaces():
            self._progress.answer(NO_SWEEP)
            return
        self._start("sweep", self._fit_layers)

    def open_data(self, source: str, options: dict[str, Any]) -> None:
        """Load another data set in a thread; refused while something is running."""
        if self._runs.running:
            self._controls.data.show_problem(BUSY)
            return
        self._progress.begin(f"Opening {source}.")
        if not self._runs.start("open", lambda tell: open_data(source, options, progress=tell)):
            self._controls.data.show_problem(BUSY)
        self._gate.allow()

    def cancel(self) -> None:
        """Ask what is running to stop at its next step; it is let go within a second."""
        if self._runs.running:
            self._progress.answer("Stopping.")
            self._runs.cancel()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for what is running, at most `timeout` seconds; True when nothing is running any more.

        What ended it before its time is raised here too, so that a notebook that runs by itself stops. Where
        no browser has shown the panel, its cell then gets a picture of the result beside the widget.
        """
        over = self._runs.join(timeout)
        if over and self._runs.error is not None:
            raise self._runs.error
        if over:
            self._results.drawn(timeout)
            self._still.update(self.result, seen=self._page.seen > 0)
        return over

    def save(self) -> Path:
        """Write the last run's record, pictures (PNG, SVG) and table of voxels (CSV); returns the folder."""
        folder = self._record.save()
        self._progress.answer(saved_sentence(folder))
        self._results.runs.changed()
        return folder

    def retire(self) -> None:
        """Follow the runs no more: another panel of the same name shows them now."""
        self._runs.unwatch(self._news)
        self._progress.say("A newer panel of this name has taken over; this one shows what it had.")
        self._gate.shut()

    # ------------------------------------------------------------------ settings

    def _spaces(self) -> tuple[str, ...]:
        settings, _ = self._controls.read()
        return (settings.modality, *settings.joined_with)

    def _settings_changed(self) -> None:
        if self._made:  # not while the controls are being made
            self._gate.settings_changed()

    # ------------------------------------------------------------------ running

    def _start(self, kind: str, work: Callable[[Settings, Tell], Any]) -> bool:
        if self._runs.running:
            self._progress.answer(BUSY)
            return False
        try:
            settings = self.settings
        except SettingsError as error:
            self._progress.answer(str(error))
            return False
        self._lookup.forget(settings.model_name)
        self._gate.say_failure("")
        # before the run, which may be over at once and have its own news
        self._progress.begin("Starting.")
        if kind == "sweep":
            self._results.layers.begin()
        if not self._runs.start(kind, lambda tell: work(settings, tell), settings):
            self._progress.answer(BUSY)
            return False
        self._show_notes()
        self._gate.allow()
        return True

    def _fit(self, settings: Settings, tell: Tell) -> Result:
        """The run; its map is drawn when it has ended, which is the last part of what Fit does."""
        runs = self._runs
        result = pipeline.run(runs.assembly, settings, memory=runs.memory, inputs=runs.inputs, progress=tell)
        tell(Progress("scores", 1, 1, 0.98, "drawing the map"))
        return result

    def _fit_layers(self, settings: Settings, tell: Tell) -> dict[int, Result]:
        return fit_layers(self.assembly, settings, memory=self._runs.memory, progress=tell)

    def _attach(self) -> None:
        """Show what the runs hold already: the panel may be made in the midst of one."""
        runs = self._runs
        if runs.result is not None:
            self._show_result(runs.result)
        for layer, result in sorted(runs.layers.items()):
            self._results.layers.add(layer, result)
        if runs.layers and not (runs.running and runs.kind == "sweep"):
            self._results.layers.end(complete=runs.swept_whole)
        if runs.running:
            self._progress.begin("Running.")
            if runs.step is not None:
                self._news("progress", runs.step)
        self._show_notes()
        self._gate.allow()

    def _news(self, news: str, value: Any) -> None:
        """What the runs tell, in their thread."""
        try:
            self._take(news, value)
        except Exception as error:  # noqa: BLE001 - whatever fails in showing must be said in the panel
            if news == "over":
                self._failed(error)
            else:
                what = f"{type(error).__name__}: {error}"
                self._gate.say_failure(
                    f"The panel could not show how the run stands ({what}); it goes on.", error
                )

    def _take(self, news: str, value: Any) -> None:
        if news == "progress":
            self._advanced(value)
        elif news == "note":
            self._show_notes()
        elif news == "idle":
            self._gate.over()
        elif news == "over":
            self._controls.data.give_back()
            self._ended(value)

    def _advanced(self, step: Progress | LayerDone) -> None:
        if isinstance(step, LayerDone):
            self._results.layers.add(step.layer, step.result)
        else:
            self._progress.show(step)
            if step.scores is not None and self._runs.fitted_on is self._runs.run_assembly:
                self._results.brain.show_ahead(step.scores, step.significant)

    def _ended(self, value: Any) -> None:
        if self._runs.outcome != "done":
            self._results.brain.take_back()
        if self._runs.outcome == "failed":
            self._failed(self._runs.error)
        elif self._runs.outcome == "cancelled":
            self._progress.end("warning", "Cancelled. Stories that were finished stay cached.")
        else:
            self._succeeded(value)
        if self._runs.kind == "sweep":
            self._results.layers.end(complete=self._runs.swept_whole)
            self._results.runs.changed()  # layers that were done are there to compare, whatever came then

    def _succeeded(self, value: Any) -> None:
        if self._runs.kind == "fit":
            self._show_result(value)
            seconds = sum(value.provenance["seconds"].values())
            self._progress.end("success", f"Done in {seconds:.1f} s.")
        elif self._runs.kind == "sweep":
            self._results.brain.show_best_layer(self._runs.best_layer)
            self._progress.end("success", f"Done: {len(value)} layers.")
        else:
            self._show_data()
            self._show_notes()
            self._controls.use(value)
            self._progress.end("success", f"Opened {value.subject}: {len(value)} stories.")

    def _failed(self, error: BaseException) -> None:
        self._progress.end("danger", ENDED[self._runs.kind])
        text = explained(error, self._runs)
        if self._runs.kind == "open":
            self._controls.data.show_problem(text)
        self._gate.say_failure(text, error)

    # ------------------------------------------------------------------ results

    def _show_result(self, result: Result) -> None:
        self._results.show(result)
        self._save_button.disabled = False
        self._page.enabled = True

    def _show_data(self) -> None:
        self._data.value = f"<b>{escape(repr(self.assembly).removeprefix('Assembly(').removesuffix(')'))}</b>"

    def _show_notes(self) -> None:
        self._notes.value = notes_html(list(dict.fromkeys([*self._runs.data_notes, *self._runs.notes])))

    def _save_quietly(self) -> None:
        self._progress.answer("Saving.")
        try:
            self.save()
        except Exception as error:  # noqa: BLE001 - whoever pressed Save is to read it
            self._progress.answer("Nothing was saved.")
            self._gate.say_failure(str(error) or type(error).__name__, error)
            self._unsaved = True
        else:
            if self._unsaved:  # what stood against it is mended; the failure of a run stays to be read
                self._gate.say_failure("")
            self._unsaved = False

    def _pack(self) -> tuple[str, bytes | None, str]:
        packed = self._record.pack()
        self._results.runs.changed()
        return packed

    # ------------------------------------------------------------------ display

    def __repr__(self) -> str:
        return f"ControlPanel({self.assembly!r}, {'running' if self.running else 'last result'}: {self.result!r})"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live panel, and for a viewer without a kernel the picture of the last result."""
        return with_picture(super()._repr_mimebundle_(**kwargs), self.result)

    def _ipython_display_(self, **_: Any) -> None:
        self._still.display()


def _button(text: str, icon: str, tooltip: str, css_class: str) -> widgets.Button:
    return widgets.Button(
        description=text,
        icon=icon,
        tooltip=tooltip,
        layout=widgets.Layout(width="auto", flex="1 1 0%", min_width="0"),
    ).add_class(css_class)
