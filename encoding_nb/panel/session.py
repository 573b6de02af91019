"""What a panel works on: its data, one run at a time, and what finished runs leave. No widgets.

A session outlives every panel that shows it. Watchers are called in the thread that makes a change.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import IPython
import numpy as np

from .. import datasets, pipeline, plots, records
from .._progress import Cancelled, Progress
from .._validation import error_text
from ..assembly import Array, Assembly
from ..features import ModelError, model_info
from ..pipeline import Result
from ..settings import Settings
from ._threads import warnings_to

LOG = logging.getLogger(__name__)
Tell = Callable[[Any], None]
# A cancelled run is released after this many seconds: its current step ends by itself, and its news are ignored.
RELEASE_SECONDS = 0.6
N_REMEMBERED = 50  # finished runs that can be compared without having been saved; more than a model's layers
MOST_BYTES = 300_000_000  # of one download
COMPRESSED = {".png", ".npz", ".zip"}  # files that are not worth compressing again


class LayerError(ValueError):
    """The fit of one layer failed; its cause is the error of the fit."""


@dataclass(frozen=True, eq=False)
class BestLayer:
    """The best layer of each voxel (n_voxels,), see `best_layers`; the layers, data and test of that sweep."""

    values: Array
    layers: tuple[int, ...]
    settings: Settings
    assembly: Assembly
    test_name: str


@dataclass(frozen=True, eq=False)
class CheckedSplit:
    """Whether the folds of these settings leak on these data, in words."""

    sentence: str
    settings: Settings
    assembly: Assembly


@dataclass(eq=False)
class Session:
    """The data of a panel, its run in progress, and the results of finished runs.

    Attributes
    ----------
    assembly : Assembly, as given to `control_panel` or opened since
    memory : joblib.Memory or path, as given to `control_panel`
    panel : the latest ControlPanel of this session
    settings : Settings, the latest of the controls
    kind : the run in progress, or the last one: "fit", "sweep", "open", "check"
    run_settings, run_assembly : what that run was started with; None and the data before for "open"
    step : its latest Progress
    outcome : "done", "cancelled", "failed", or "" during a run and before the first
    error : the exception that ended it, or None
    notes : its warnings; `data_notes` are those of reading the data
    result : the last fit
    fitted_on : Assembly of the last fit: other data may be open by now
    saved : (result, folder) of the last record; the result is None before the first
    layers : {layer: Result without time courses} of the last sweep
    swept_whole : whether these are all layers
    best : BestLayer of the last whole sweep, until a fit of anything but another layer of it
    remembered : {label: Result without time courses} of this session's fits, the newest last
    split : CheckedSplit, the last check of the split
    """

    assembly: Assembly
    memory: Any = None
    panel: Any = None
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
    saved: tuple[Result | None, Path] = (None, Path())
    layers: dict[int, Result] = field(default_factory=dict)
    swept_whole: bool = False
    best: BestLayer | None = None
    remembered: dict[str, Result] = field(default_factory=dict)
    split: CheckedSplit | None = None

    def __post_init__(self) -> None:
        self.released: threading.Thread | None = None  # a cancelled run whose current step has not ended
        self._given = self.assembly
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._cancel, self._over = threading.Event(), threading.Event()
        self._finishing = False
        self._watchers: list[Callable[[str, Any], None]] = []

    @property
    def running(self) -> bool:
        """Whether a run is in progress."""
        return self._thread is not None

    @property
    def best_layer(self) -> BestLayer | None:
        """The best layers of the last whole sweep, if the last fit is on the same data."""
        return self.best if self.best is not None and self.best.assembly is self.fitted_on else None

    # ------------------------------------------------------------------ news

    def watch(self, watcher: Callable[[str, Any], None]) -> None:
        """Call `watcher(news, value)` from now on.

        The news: "progress" a step or the result of a layer, "note" a sentence, "over" the value of the run, "idle"
        when the next run can begin.
        """
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[str, Any], None]) -> None:
        """Call `watcher` no longer."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def note(self, sentence: str, notes: list[str] | None = None) -> None:
        """Keep a warning, once, among those of the last run or among `notes`."""
        notes = self.notes if notes is None else notes
        if sentence not in notes:
            notes.append(sentence)
            self._tell("note", sentence)

    def _tell(self, news: str, value: Any) -> None:
        for watcher in list(self._watchers):
            try:
                watcher(news, value)
            except Exception:  # a view that fails must not keep the run open
                LOG.exception("a view of the session could not show its news")

    # ------------------------------------------------------------------ runs

    def fit(self, settings: Settings) -> bool:
        """Start a fit in a thread; False if a run is in progress."""

        def job(tell: Tell) -> Result:
            result = pipeline.run(self.assembly, settings, memory=self.memory, progress=tell)
            tell(Progress("scores", 1, 1, 0.98, "drawing the map"))  # views draw it when the run ends
            return result

        return self.start("fit", job, settings)

    def sweep_layers(self, settings: Settings) -> bool:
        """Start a fit of every layer of the model in a thread; False if a run is in progress."""

        def job(tell: Tell) -> dict[int, Result]:
            return fit_layers(self.assembly, settings, memory=self.memory, progress=tell)

        return self.start("sweep", job, settings)

    def check_split(self, settings: Settings) -> bool:
        """Start checking in a thread whether the folds leak; False if a run is in progress."""

        def job(tell: Tell) -> CheckedSplit:
            found = pipeline.split_check(self.assembly, settings, progress=tell)
            return CheckedSplit(found.sentence, settings, self.assembly)

        return self.start("check", job, settings)

    def open_data(self, source: str, options: Mapping[str, Any]) -> bool:
        """Start loading another data set in a thread, as `load_assembly` does; False if a run is in progress."""

        def job(tell: Tell) -> Assembly:
            tell(Progress("features", 0, 1, 0.0, f"opening {source}"))
            return datasets.load_assembly(source, **options)

        return self.start("open", job)

    def start(self, kind: str, job: Callable[[Tell], Any], settings: Settings | None = None) -> bool:
        """Start `job(tell)` in a thread; False, without any effect, if a run is in progress.

        The job calls `tell` with each step of its work, which raises `Cancelled` once the run is cancelled.
        """
        with self._lock:
            if self.running:
                return False
            self.kind, self.step, self.outcome, self.error = kind, None, "", None
            self.run_settings, self.run_assembly = settings, self.assembly
            if kind != "check":  # which leaves the last fit as it is
                self.notes = []
            if kind == "sweep":
                self.layers, self.swept_whole = {}, False
            self._cancel, self._over = threading.Event(), threading.Event()
            arguments = (job, self._cancel, self.notes)
            self._thread = threading.Thread(target=self._work, args=arguments, daemon=True)
        self._thread.start()
        return True

    def _work(self, job: Callable[[Tell], Any], cancel: threading.Event, notes: list[str]) -> None:
        thread, value, error, outcome = threading.current_thread(), None, None, "done"

        def tell(step: Any) -> None:
            self._progressed(thread, step)
            if cancel.is_set():
                raise Cancelled

        try:
            while self.released is not None and self.released.is_alive():  # two could fill the memory
                tell(Progress("features", 0, 1, 0.0, "waiting until the cancelled run has ended"))
                self.released.join(0.1)
            self.released = None
            with warnings_to(lambda sentence: self.note(sentence, notes)):
                value = job(tell)
        except Cancelled:
            outcome = "cancelled"
        except BaseException as raised:  # noqa: BLE001 - an error in a thread must reach the user
            outcome, error = "failed", raised
        if self._claim(thread):
            self.error = error
            with warnings_to(self.note):
                self._finish(outcome, value)

    def cancel(self) -> bool:
        """Stop the run at its next step, and stop waiting for it soon; False if none is in progress."""
        with self._lock:
            thread, cancel = self._thread, self._cancel
        if thread is None:
            return False
        cancel.set()
        timer = threading.Timer(RELEASE_SECONDS, self._release, [thread])
        timer.daemon = True
        timer.start()
        return True

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the run and its news, at most `timeout` seconds; True if none is in progress."""
        return not self.running or self._over.wait(timeout)

    def _progressed(self, thread: threading.Thread, step: Any) -> None:
        with self._lock:
            if self._thread is not thread or self._finishing:
                return  # it was released
        if isinstance(step, Result):  # a layer of a sweep
            self.layers = {**self.layers, step.settings.layer_idx: step}
            self._remember(step)
        else:
            self.step = step
        self._tell("progress", step)

    def _release(self, thread: threading.Thread) -> None:
        if self._claim(thread):
            self.released = thread
            self._finish("cancelled", None)

    def _claim(self, thread: threading.Thread) -> bool:
        """Whether the caller may finish this run: its end and its release may coincide."""
        with self._lock:
            claimed = self._thread is thread and not self._finishing
            self._finishing = self._finishing or claimed
            return claimed

    def _finish(self, outcome: str, value: Any) -> None:
        self.outcome = outcome
        if outcome == "done":
            try:
                self._keep(value)
            except Exception as error:  # noqa: BLE001 - a run must end, whatever it returned
                self.outcome, self.error = "failed", error
        self._tell("over", value)
        with self._lock:
            over, self._thread, self._finishing = self._over, None, False
        self._tell("idle", None)
        over.set()

    # ------------------------------------------------------------------ results

    def _keep(self, value: Any) -> None:
        if self.kind == "fit":
            self.result, self.fitted_on = value, self.run_assembly
            self._remember(value)
            if self.best is not None:
                swept = replace(self.best.settings, layer_idx=value.settings.layer_idx)
                if self.best.assembly is not self.fitted_on or swept != value.settings:
                    self.best = None
        elif self.kind == "sweep":
            self.swept_whole, layers = True, tuple(sorted(value))
            test_name = next(iter(value.values())).test_name
            best = best_layers(value)
            self.best = BestLayer(best, layers, self.run_settings, self.run_assembly, test_name)
        elif self.kind == "open":
            self.assembly, self.layers, self.swept_whole, self.split = value, {}, False, None
            self.data_notes, self.notes = self.notes, []
        elif self.kind == "check":
            self.split = value

    def _remember(self, result: Result) -> None:
        """Keep the maps of a finished run, without its time courses, for comparing, and its warnings."""
        for sentence in result.notes:
            self.note(sentence)
        label = name = run_label(result)
        number = 1
        while name in self.remembered:  # two runs of the same second
            number += 1
            name = f"{label} ({number})"
        kept = {**self.remembered, name: without_courses(result)}
        self.remembered = dict(list(kept.items())[-N_REMEMBERED:])  # a new one: a tab may be reading the old

    def save(self, results_dir: Path) -> Path:
        """Write the last fit's record, pictures (PNG, SVG) and table of voxels, unless it is saved; returns the folder.

        Raises
        ------
        RuntimeError
            There is no result yet.
        OSError
            A folder that cannot be written.
        """
        with self._writing:  # Save and the download may come together
            if self.result is None:
                raise RuntimeError("There is no result yet: press Fit first.")
            result, (saved, folder) = self.result, self.saved
            if saved is not result or folder.parent != results_dir or not folder.is_dir():
                options: dict[str, Any] = {"assembly": self.fitted_on, "svg": True, "table": True}
                with warnings_to(self.note):
                    folder = records.save_run(result, results_dir, **options)
                self.saved = (result, folder)
            return folder

    def pack(self, results_dir: Path) -> tuple[str, bytes | None, str]:
        """Save the last fit, if any, and pack all records: (file name, zip or None, sentence for the user)."""
        try:
            if self.result is not None:
                self.save(results_dir)
            return pack_records(results_dir)
        except Exception as error:  # noqa: BLE001 - shown next to the button
            return "", None, f"Nothing was packed: {error or type(error).__name__}"

    def explanation(self) -> str:
        """Why the last run failed: the error's own message, or what was being done and what to try."""
        error, stage = self.error, self.step.stage if self.step is not None else "features"
        text = str(error) or type(error).__name__
        if isinstance(error, ModelError) or isinstance(error.__cause__, ModelError):
            return text if "demo" in text else f"{text} The bundled model 'demo' is always available."
        if isinstance(error, ValueError) or (self.kind == "open" and isinstance(error, OSError)):
            return text
        if self.kind == "open":
            remedy = "choose other data; `load_assembly` lists the formats that can be opened."
            return f"The data could not be read ({error_text(error)}); {remedy}"
        if isinstance(error, MemoryError):
            remedy = "choose a smaller model or fewer stories, or shut down other kernels."
            return f"Not enough memory ({error_text(error)}); {remedy}"
        remedy = "change a setting and try again; if it fails with every setting, report the traceback."
        settings = self.run_settings or Settings()
        if stage == "features" and "language_model" in (settings.modality, *settings.joined_with):
            remedy = f"choose a model other than {settings.model_name}, such as 'demo', or {remedy}"
        return f"The stage {stage!r} failed ({error_text(error)}); {remedy}"


# ---------------------------------------------------------------------- layers


def fit_layers(
    assembly: Assembly,
    settings: Settings,
    *,
    memory: Any,
    progress: Callable[[Progress | Result], None],
) -> dict[int, Result]:
    """Fit every layer of the model, one after the other; the first fit reads the activations of all layers.

    Parameters
    ----------
    assembly, settings
        `settings.layer_idx` has no effect.
    memory : joblib.Memory or path
    progress : called with every step, and with the result of each layer

    Returns
    -------
    {layer: Result without time courses}

    Raises
    ------
    LayerError
        The fit of a layer failed; the message names the layer.
    """
    layers = range(model_info(settings.model_name).n_layers + 1)
    found: dict[int, Result] = {}

    def tell(step: Progress) -> None:
        overall = (len(found) + step.overall) / len(layers)
        detail = f"{len(found)} of {len(layers)} layers done, {step.detail}"
        progress(replace(step, overall=overall, detail=detail, scores=None, significant=None))

    for layer in layers:
        try:
            result = pipeline.run(assembly, replace(settings, layer_idx=layer), memory=memory, progress=tell)
        except Exception as error:
            raise LayerError(f"Layer {layer}: {error_text(error)}") from error
        found[layer] = without_courses(result)
        progress(found[layer])
    return found


def without_courses(result: Result) -> Result:
    """A result without its predictions and measurements, which are nearly all of its memory."""
    return replace(result, predictions={}, measured={}, row_times={})


def best_layers(results: Mapping[int, Result]) -> Array:
    """(n_voxels,) the layer with the highest score, NaN for a voxel that is significant in no layer.

    Where no layer was tested, all voxels with a score have one.
    """
    layers = np.array(sorted(results), float)
    scores = np.array([results[int(layer)].scores for layer in layers])
    tested = [result.significant for result in results.values() if result.tested]
    counts = np.isfinite(scores).any(axis=0) & (np.any(tested, axis=0) if tested else True)
    best = layers[np.where(np.isfinite(scores), scores, -np.inf).argmax(axis=0)]
    return np.where(counts, best, np.nan)


def run_label(result: Result) -> str:
    """A run in a few words: its time and its features."""
    time = str(result.provenance.get("time", ""))[11:19]
    return f"{time} {features_label(vars(result.settings))}".strip()


def features_label(settings: Mapping[str, Any]) -> str:
    """All feature spaces of a run in a few words, from its settings by name; empty if they are not known."""
    modality, joined = settings.get("modality"), settings.get("joined_with")
    if not isinstance(modality, str):
        return ""
    spaces = [modality, *(joined if isinstance(joined, (tuple, list)) else ())]
    return " + ".join(_space_label(space, settings) for space in spaces)


def model_label(model_name: str, weights: str) -> str:
    """A model in a few words: the last part of its name, and whether its weights are random."""
    return PurePath(model_name).name + (" untrained" if weights == "untrained" else "")


def _space_label(space: str, settings: Mapping[str, Any]) -> str:
    if space == "language_model":
        model = model_label(str(settings["model_name"]), str(settings.get("weights", "")))
        return f"{model}, layer {settings['layer_idx']:.0f}, lookback {settings['lookback']:.0f}"
    return plots.space_name(space)


# ---------------------------------------------------------------------- the download


def pack_records(results_dir: Path) -> tuple[str, bytes | None, str]:
    """(file name, zip, sentence) of all whole records of a folder; no zip if there is none, or if it is too large."""
    table = records.list_runs(results_dir)
    folders = [Path(path) for path in table["path"][table["status"] == "whole"]]
    files = [file for folder in folders for file in sorted(folder.iterdir()) if file.is_file()]
    if not files:
        return "", None, f"There is no saved run in {results_dir} to download."
    count = "1 run" if len(folders) == 1 else f"{len(folders)} runs"
    size = sum(file.stat().st_size for file in files)
    if size > MOST_BYTES:
        large = f"{count}, {size / 1e6:.0f} MB: too large for one download"
        return "", None, f"{large}; download single folders of {results_dir} in the file browser."
    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        for file in files:
            how = ZIP_STORED if file.suffix in COMPRESSED else ZIP_DEFLATED
            archive.write(file, f"{results_dir.name}/{file.parent.name}/{file.name}", compress_type=how)
    content = buffer.getvalue()
    return f"{results_dir.name}.zip", content, f"{count}, {len(content) / 1e6:.1f} MB."


# ---------------------------------------------------------------------- finding a session again

_SESSIONS: dict[str, Session] = {}
_CALLS: dict[str, int] = {}


def session_named(name: str | None, assembly: Assembly, memory: Any) -> Session:
    """The session of that name, with its run in progress; a new one for a new name or for other data.

    By default the name is that of the notebook cell that runs. The run of a session that is replaced is cancelled.
    """
    key = name or _place_of_call()
    known = _SESSIONS.get(key)
    if known is not None and same_data(known._given, assembly):
        known.memory = memory if memory is not None else known.memory
        return known
    if known is not None:
        known.cancel()
    session = Session(assembly, memory)
    if key:
        _SESSIONS[key] = session
    return session


def same_data(one: Assembly, other: Assembly) -> bool:
    """Whether two assemblies are the same data, for example when the cell that loads them runs again."""
    sources = [(data.source, data.source_options, tuple(data.stories)) for data in (one, other)]
    return one is other or (one.source is not None and sources[0] == sources[1])


def _place_of_call() -> str | None:
    """The notebook cell that runs and how many panels it has made so far; None outside such a cell."""
    try:
        parent = IPython.get_ipython().kernel.get_parent("shell")
        cell, message = parent["metadata"]["cellId"], parent["header"]["msg_id"]
    except (AttributeError, KeyError, TypeError):
        return None
    number = _CALLS[message] = _CALLS.get(message, 0) + 1
    return f"cell {cell}, panel {number}"
