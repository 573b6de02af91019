"""Runs of a sweep on whatever joblib runs them on: this process, threads, processes, or a cluster.

`joblib.parallel_config` and `n_jobs` decide which it is. A run never raises an `Exception`: its error comes back as
a `SweepFailure`, so that the engine only ever breaks by itself.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import pipeline, records
from .._machine import blas_limited
from .._progress import Cancelled, Progress
from ..assembly import Assembly
from ..pipeline import Result
from ..settings import Settings
from . import _shared
from ._outline import read_outline
from ._shared import Extraction, SharedInputs
from .tables import SweepFailure

TRIES_ALONE = 2  # a call that breaks the engine so often while nothing else runs is given up
WAKE_SECONDS = 0.5  # while no worker has a result, the caller's progress function is called this often
GRACE_SECONDS = 1.0  # a cancelled sweep waits so long for its workers' next steps before it ends them


@dataclass(frozen=True)
class Job:
    """One run of a sweep, as it travels to a worker.

    Attributes
    ----------
    number : counts the jobs of a sweep
    settings, subject : what to fit
    root : the sweep's folder
    folder : the subject's folder within it, see `_shared.SharedInputs`
    cache : where activations are kept
    digest : of the data, for result and record; None where they cannot all be read
    source : what the data were loaded from, for the record
    results_dir : where to record, or None
    keep_predictions : whether time courses are recorded too
    """

    number: int
    settings: Settings
    subject: str
    root: Path
    folder: Path
    cache: Path
    digest: str | None
    source: str | None
    results_dir: Path | None
    keep_predictions: bool

    @property
    def note(self) -> Path:
        """Holds the record's path once there is one: a job that is done again need not be."""
        return self.root / f"recorded-{self.number}"


def fit(job: Job, assembly: Assembly, progress: Callable[[Progress], None]) -> Result | SweepFailure:
    """Run and record one job; returns a small result, without time courses and areas, or the failure.

    To end it, raise `Cancelled` from `progress`: an `Exception` would be taken for the run's failure.
    """
    try:
        if job.note.exists():
            return slim(records.load_run(job.note.read_text(encoding="utf-8")))
        inputs = SharedInputs(job.folder, job.digest)
        result = pipeline.run(assembly, job.settings, memory=job.cache, inputs=inputs, progress=progress)
        return slim(_recorded(result, job))
    except Exception as error:  # noqa: BLE001 - one run's failure is a finding; the others go on
        return SweepFailure(job.settings, job.subject, error_text(error), traceback.format_exc())


def _recorded(result: Result, job: Job) -> Result:
    if not job.keep_predictions:
        result = replace(result, predictions={}, measured={})
    if job.results_dir is None:
        return result
    extra = {"TimeCourses": job.keep_predictions} | ({} if job.source is None else {"Source": job.source})
    path = records.save_run(result, job.results_dir, figures=False, extra=extra)
    job.note.write_text(str(path), encoding="utf-8")
    return replace(result, provenance={**result.provenance, "record": str(path)})


def slim(result: Result) -> Result:
    """A result without what is large and can be had again: time courses and the assembly's areas."""
    return replace(result, predictions={}, measured={}, rois={})


def error_text(error: BaseException) -> str:
    """An exception's type and message in one line."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# ---------------------------------------------------------------------- what a worker is given


def run_job(job: Job) -> Result | SweepFailure | None:
    """`fit` in a worker, on the files in the job's folder; None where the sweep was stopped."""
    _shared.forget_when_over(job.root)
    cancel = _cancel_when_stopped(job.root)
    try:
        cancel()
        return fit(job, read_outline(job.folder), cancel)
    except Cancelled:
        _shared.forget_designs(job.root)
        return None


def run_extractions(
    root: Path, cache: Path, wanted: Sequence[tuple[Extraction, frozenset[int]]]
) -> dict[Extraction, str] | None:
    """Compute what is missing of some stories' activations, one after the other; {extraction: error}.

    Those of one model and one text come in one call: where two contexts make the same windows of it, the second
    finds what the first has kept. None where the sweep was stopped.
    """
    cancel = _cancel_when_stopped(root)
    problems = {}
    for extraction, layers in wanted:
        try:
            cancel()
            extraction.compute(layers, cache, progress=cancel)
        except Cancelled:
            return None
        except Exception as error:  # noqa: BLE001 - the runs that need this story report it
            problems[extraction] = error_text(error)
    return problems


def _cancel_when_stopped(root: Path) -> Callable[..., None]:
    """A progress function that raises `Cancelled` once the sweep in `root` was stopped."""

    def cancel(*_: Any) -> None:
        if not _shared.still_wanted(root):
            raise Cancelled

    return cancel


# ---------------------------------------------------------------------- the engine


class Engine:
    """joblib's engine as the caller has chosen it when the sweep began.

    Attributes
    ----------
    n_jobs : runs at once
    here : whether runs take place in this process and thread
    local : whether workers share this machine, its cores and its memory
    """

    def __init__(self, n_jobs: int | None) -> None:
        """Take the active engine of `joblib.parallel_config`, with `n_jobs` where it is given.

        Raises
        ------
        ValueError
            An engine that gives no result before it has all, such as joblib's "multiprocessing"; an `n_jobs` that is
            no number of runs.
        """
        whole = isinstance(n_jobs, (int, np.integer)) and not isinstance(n_jobs, bool)
        if n_jobs is not None and (not whole or n_jobs == 0):
            raise ValueError(
                f"n_jobs: expected a whole number of runs at once, or -1 for one on each core, got {n_jobs!r}."
            )
        import joblib
        from joblib import parallel

        backend, configured = parallel.get_active_backend()
        own = (
            parallel.SequentialBackend,
            parallel.ThreadingBackend,
            parallel.LokyBackend,
            parallel.MultiprocessingBackend,
        )
        self.n_jobs = joblib.effective_n_jobs(n_jobs)
        self.local = isinstance(backend, own)
        self.here = self.local and self.n_jobs == 1
        if not self.here and not backend.supports_return_generator:
            raise ValueError(
                f"run_sweep: joblib's engine {type(backend).__name__} gives results all at once and a sweep records "
                f'each as it ends; choose "loky", "threading" or "dask" in joblib.parallel_config, or n_jobs=1.'
            )
        self._threads = isinstance(backend, parallel.ThreadingBackend)
        self._processes, self._used = isinstance(backend, parallel.LokyBackend), False
        self._backend, self._asked = backend, configured if n_jobs is None else n_jobs

    def _limited(self) -> AbstractContextManager:
        """Within it, threads that run side by side take no more cores together than there are.

        joblib limits processes by itself; see `inner_max_num_threads` there.
        """
        if not self._threads or self.here:
            return nullcontext()
        import joblib

        return blas_limited(max(1, joblib.cpu_count() // self.n_jobs))

    def run(
        self,
        function: Callable,
        calls: Mapping[int, tuple],
        ended: Callable[[int, Any], None],
        *,
        lost: Callable[[int, BaseException], Any],
        waiting: Callable[[], None],
        root: Path,
    ) -> None:
        """Call `function(*calls[number])` for every number in the workers.

        When the engine breaks, as when a worker is killed, the calls that were in flight are made again, one at
        a time; one that breaks it twice more ends as `lost(number, error)`.

        Parameters
        ----------
        function : returns its errors, and returns early once the sweep in `root` was stopped
        calls : {number: arguments}
        ended : called in this thread with (number, outcome), in the order in which calls end
        lost : makes the outcome of a call that was given up
        waiting : called in this thread, at least once a second, while no call ends
        root : the sweep's folder. What `ended` or `waiting` raises stops the sweep there, and passes on when the
            workers have ended.
        """
        todo, suspects = dict(calls), []
        broke: Counter[int] = Counter()

        def keep(number: int, outcome: Any) -> None:
            if number in todo:  # else it ended while the engine broke, and was made again
                del todo[number]
                ended(number, outcome)

        with self._limited():
            while todo:
                started: list[int] = []
                chosen = {number: todo[number] for number in suspects or list(todo)}
                error = self._round(
                    function, chosen, started, keep, waiting=waiting, root=root, alone=bool(suspects)
                )
                if error is None:
                    suspects = []
                    continue
                in_flight = [number for number in started if number in todo]
                if not in_flight or not isinstance(error, Exception):
                    raise error
                if not suspects:
                    suspects = in_flight
                    continue
                # One at a time: the next begins when the one before has ended, so it was the last that began.
                number = in_flight[-1]
                broke[number] += 1
                if broke[number] == TRIES_ALONE:
                    keep(number, lost(number, error))
                suspects = [number for number in suspects if number in todo]

    def _round(
        self,
        function: Callable,
        calls: Mapping[int, tuple],
        started: list[int],
        keep: Callable[[int, Any], None],
        *,
        waiting: Callable[[], None],
        root: Path,
        alone: bool,
    ) -> BaseException | None:
        """One joblib.Parallel over `calls`; returns the error that broke it, or None.

        Functions return their errors, so an error is the engine's. joblib waits for the next result without a
        timeout, so another thread takes the results from it, and this one calls `waiting` meanwhile.
        """
        self._used = True
        parallel = self._parallel(alone=alone)  # here, as joblib's configuration holds in this thread
        arrived: queue.SimpleQueue = queue.SimpleQueue()
        over, threads = threading.Event(), set()
        tasks = _tasks(function, calls, started, over, threads if self._threads else None)
        puller = threading.Thread(target=_pull, args=(parallel, tasks, arrived, over), daemon=True)
        try:
            puller.start()
            while True:
                try:
                    number, outcome = arrived.get(timeout=WAKE_SECONDS)
                except queue.Empty:
                    waiting()
                    continue
                if number is None:
                    puller.join()
                    return outcome
                keep(number, outcome)
        except BaseException:
            _shared.stop(root)
            over.set()
            self._end(parallel, puller, threads)
            raise

    def _parallel(self, *, alone: bool) -> Any:
        """joblib.Parallel for one round; anew each time, since one that broke may hold what it had begun."""
        from joblib import Parallel

        return Parallel(
            n_jobs=self._asked,
            backend=self._backend,
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch=1 if alone else "2 * n_jobs",
        )

    def _end(self, parallel: Any, puller: threading.Thread, threads: set[threading.Thread]) -> None:
        """End the workers of a sweep that was stopped: at their next step, or processes where that takes long."""
        if puller.is_alive():
            puller.join(GRACE_SECONDS)
            parallel.timeout = 0  # joblib then gives up the calls that still run
            puller.join()
        while threads:
            threads.pop().join()

    def end_processes(self) -> None:
        """End the processes that the sweep began, which joblib keeps for some minutes for whoever wants them next."""
        if self._processes and self._used:
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


def _tasks(
    function: Callable,
    calls: Mapping[int, tuple],
    started: list[int],
    over: threading.Event,
    threads: set[threading.Thread] | None,
) -> Iterator[tuple]:
    """joblib's tasks of these calls, until the sweep is over; threads that make them are added to `threads`."""
    from joblib import delayed

    for number, arguments in calls.items():
        if over.is_set():
            return
        started.append(number)
        yield delayed(_numbered)(number, function, arguments, threads)


def _numbered(
    number: int, function: Callable, arguments: tuple, threads: set[threading.Thread] | None
) -> tuple[int, Any]:
    if threads is not None:
        threads.add(threading.current_thread())
    return number, function(*arguments)


def _pull(parallel: Any, tasks: Iterator[tuple], arrived: queue.SimpleQueue, over: threading.Event) -> None:
    """Put (number, outcome) of each task into `arrived`, in the end (None, what broke the engine or None)."""
    error = None
    try:
        with closing(parallel(tasks)) as outcomes:
            for outcome in outcomes:
                if not over.is_set():
                    arrived.put(outcome)
    except BaseException as raised:  # noqa: BLE001 - it is raised again in the thread that waits
        error = raised
    arrived.put((None, error))
