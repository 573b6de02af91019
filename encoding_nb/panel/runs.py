"""The runs of a panel, in an object that outlives every view of it.

At most one run at a time: a fit, a sweep, the opening of data. Knows nothing of widgets; whoever watches is
told in the thread that makes the news. What runs leave is kept here, once, however many views there are.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._progress import Progress
from ..assembly import Array, Assembly
from ..pipeline import KeptResponses, Result
from ..settings import Settings
from .layer_sweep import LayerDone, best_layers, run_label, same_but_layer, without_courses
from .warning_notes import listening
from .worker import Job, Tell, Worker

LOG = logging.getLogger(__name__)
# A cancelled run is let go after this many seconds: what it is in the midst of ends by itself, unheard.
LET_GO_SECONDS = 0.6
N_REMEMBERED = 50  # finished runs that can be compared without having been saved; more than a model's layers


@dataclass(frozen=True, eq=False)
class BestLayer:
    """The best layer of each voxel (n_voxels,), NaN where none counts; of which layers, by which sweep."""

    values: Array
    layers: tuple[int, ...]
    settings: Settings
    assembly: Assembly


@dataclass
class Runs:
    """What a panel works on: its data, the run in progress, and what finished runs left.

    Attributes
    ----------
    assembly : Assembly, as given to `control_panel` or opened in the panel since
    memory : as given to `control_panel`
    inputs : the responses that the last fit on these data used, for the next
    given : Assembly, as given to `control_panel`
    settings : Settings, as the controls stood last
    kind : what is running or ran last: "fit", "sweep", "open"
    run_settings, run_assembly : what that run was started with; None and the data before for "open"
    step : the latest Progress of it
    outcome : "done", "cancelled", "failed", or "" while it runs and before the first
    error : what ended it, or None
    notes : what warnings said in it; `data_notes`, those that belong to the data that are open
    result : the last fit
    fitted_on : Assembly of the last fit: other data may have been opened since
    saved : (result, folder) of the last record, or None
    layers : {layer: Result without time courses} of the last sweep
    swept_whole : whether these are all layers
    best : of the last whole sweep, until a fit of anything but another layer of it
    remembered : {label: Result without time courses} of this kernel's fits, the newest last
    panel : the panel that shows it, which `control_panel` gives again where nothing else was asked for
    asked : what `control_panel` was asked for when it made that panel
    """

    assembly: Assembly
    memory: Any = None
    inputs: KeptResponses = field(default_factory=KeptResponses, repr=False)
    settings: Settings | None = None
    kind: str = ""
    run_settings: Settings | None = None
    run_assembly: Assembly | None = None
    step: Progress | None = None
    outcome: str = ""
    error: BaseException | None = None
    notes: list[str] = field(default_factory=list)
    data_notes: list[str] = field(default_factory=list)
    result: Result | None = None
    fitted_on: Assembly | None = None
    saved: tuple[Result, Path] | None = None
    layers: dict[int, Result] = field(default_factory=dict)
    swept_whole: bool = False
    best: BestLayer | None = None
    remembered: dict[str, Result] = field(default_factory=dict)
    given: Assembly | None = None
    panel: Any = field(default=None, repr=False)
    asked: Any = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _worker: Worker | None = field(default=None, repr=False)
    _finishing: bool = field(default=False, repr=False)
    _leaving: Worker | None = field(default=None, repr=False)
    _over: threading.Event = field(default_factory=threading.Event, repr=False)
    _watchers: list[Callable[[str, Any], None]] = field(default_factory=list, repr=False)

    @property
    def running(self) -> bool:
        """Whether anything is in progress."""
        return self._worker is not None

    @property
    def best_layer(self) -> BestLayer | None:
        """What the last whole sweep found, where the last fit is of the data that were swept."""
        return self.best if self.best is not None and self.best.assembly is self.fitted_on else None

    # ------------------------------------------------------------------ who is told

    def watch(self, watcher: Callable[[str, Any], None]) -> None:
        """Tell `watcher(news, value)` from now on.

        The news: "progress" a step, "note" a sentence, "over" what came out, "idle" when another run may begin.
        """
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[str, Any], None]) -> None:
        """Tell `watcher` nothing any more."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def note(self, sentence: str) -> None:
        """Keep what a warning said about the last run, once."""
        self._note(self.notes, sentence)

    def note_of_data(self, sentence: str) -> None:
        """Keep what a warning said about the data that are open, once."""
        self._note(self.data_notes, sentence)

    def _note(self, notes: list[str], sentence: str) -> None:
        if sentence not in notes:
            notes.append(sentence)
            self._tell("note", sentence)

    def _tell(self, news: str, value: Any) -> None:
        for watcher in list(self._watchers):
            try:
                watcher(news, value)
            except Exception:  # one view that fails must not leave the run open, nor the other views untold
                LOG.exception("a view of the run could not show its news")

    # ------------------------------------------------------------------ one run

    def start(self, kind: str, job: Job, settings: Settings | None = None) -> bool:
        """Begin `job(tell)` in a thread; False, and nothing is begun, while another is in progress."""
        with self._lock:
            if self.running:
                return False
            self.kind, self.step, self.outcome, self.error = kind, None, "", None
            self.run_settings, self.run_assembly = settings, self.assembly
            self.notes = notes = []
            if kind == "sweep":
                self.layers, self.swept_whole = {}, False
            self._over = threading.Event()
            self._worker = worker = Worker(
                lambda tell: self._after_the_last(job, tell, notes),
                on_progress=lambda step: self._progressed(worker, step),
                on_end=self._ended,
            )
        worker.start()
        return True

    def _after_the_last(self, job: Job, tell: Tell, notes: list[str]) -> Any:
        """The job, once a run that was cancelled has truly ended: two at once could fill the memory."""
        while self._leaving is not None and not self._leaving.join(0.1):
            tell(Progress("features", 0, 1, 0.0, "waiting for the end of what was cancelled"))
        self._leaving = None
        with listening(lambda sentence: self._note(notes, sentence)):
            return job(tell)

    def cancel(self) -> bool:
        """Stop the run at its next step, and stop waiting for it soon; False when none is in progress."""
        with self._lock:
            worker = self._worker
        if worker is None:
            return False
        worker.cancel()
        timer = threading.Timer(LET_GO_SECONDS, self._let_go, [worker])
        timer.daemon = True
        timer.start()
        return True

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the run, at most `timeout` seconds; True when none is in progress, its news told."""
        return not self.running or self._over.wait(timeout)

    def _progressed(self, worker: Worker, step: Any) -> None:
        with self._lock:
            if self._worker is not worker or self._finishing:
                return  # it was let go: its last step is nobody's news
        if isinstance(step, LayerDone):
            self.layers = {**self.layers, step.layer: step.result}
            self.remember(step.result)
        else:
            self.step = step
        self._tell("progress", step)

    def _let_go(self, worker: Worker) -> None:
        if self._claim(worker):
            self._leaving = worker
            self._finish("cancelled", None)

    def _ended(self, worker: Worker) -> None:
        if self._claim(worker):
            self.error = worker.error
            outcome = "failed" if worker.error is not None else "cancelled" if worker.cancelled else "done"
            with listening(self.note):
                self._finish(outcome, worker.result)

    def _claim(self, worker: Worker) -> bool:
        """Whether the caller is the one to finish this run: its end and its letting go may come together."""
        with self._lock:
            if self._worker is not worker or self._finishing:
                return False
            self._finishing = True
            return True

    def _finish(self, outcome: str, value: Any) -> None:
        self.outcome = outcome
        if outcome == "done":
            try:
                self._keep(value)
            except Exception as error:  # noqa: BLE001 - a run must end, whatever it returned
                self.outcome, self.error = "failed", error
        self._tell("over", value)
        with self._lock:
            over, self._worker, self._finishing = self._over, None, False
        self._tell("idle", None)
        over.set()

    # ------------------------------------------------------------------ what runs leave

    def _keep(self, value: Any) -> None:
        if self.kind == "fit":
            self.result, self.fitted_on = value, self.run_assembly
            self.remember(value)
            for sentence in value.notes:
                self.note(sentence)
            best = self.best
            if best is not None and not (
                best.assembly is self.fitted_on and same_but_layer(best.settings, value.settings)
            ):
                self.best = None
        elif self.kind == "sweep":
            self.swept_whole, values = True, best_layers(value)
            if values is not None:
                self.best = BestLayer(values, tuple(sorted(value)), self.run_settings, self.run_assembly)
        elif self.kind == "open":
            self.assembly, self.layers, self.swept_whole = value, {}, False
            self.inputs = KeptResponses()
            self.data_notes, self.notes = self.notes, []

    def remember(self, result: Result) -> None:
        """Keep a finished run's maps, without its time courses, for comparing."""
        label = name = run_label(result)
        number = 1
        while name in self.remembered:  # two runs of the same second
            number += 1
            name = f"{label} ({number})"
        kept = {**self.remembered, name: without_courses(result)}
        self.remembered = dict(list(kept.items())[-N_REMEMBERED:])  # a new one: a tab may read the old
