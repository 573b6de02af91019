"""Runs of a sweep on whatever joblib runs them on: this process, threads, processes, or a cluster.

Which it is stands nowhere here: `joblib.parallel_config` and `n_jobs` decide. A run never raises: what goes
wrong in it comes back as a `SweepFailure`, so that the engine only ever breaks by itself.
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import records
from .._machine import blas_limited
from .._progress import Progress
from ..assembly import Assembly
from ..pipeline import Result, run_steps
from ..settings import Settings
from . import _shared
from ._outline import read_outline
from ._shared import Extraction, SharedInputs
from .tables import SweepFailure

TRIES_ALONE = 2  # a call that breaks the engine so often while nothing else runs is given up


@dataclass(frozen=True)
class Job:
    """One run of a sweep, as it travels to a worker.

    Attributes
    ----------
    number : counts the jobs of a sweep
    settings, subject : what to fit
    root : the sweep's folder
    folder : the subject's folder within it, see `sweep_shared.SharedInputs`
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


def job_steps(job: Job, assembly: Assembly) -> Generator[Progress, None, Result | SweepFailure]:
    """Run and record one job; returns a small result, without time courses and areas, or the failure."""
    try:
        if job.note.exists():
            return slim(records.load_run(job.note.read_text(encoding="utf-8")))
        inputs = SharedInputs(job.folder, job.digest)
        result = yield from run_steps(assembly, job.settings, memory=job.cache, inputs=inputs)
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
    """`job_steps` in a worker, on what lies in the job's folder; None where the sweep was stopped."""
    _shared.forget_when_over(job.root)
    return _until_stopped(job_steps(job, read_outline(job.folder)), job.root)


def run_extractions(
    root: Path, cache: Path, wanted: Sequence[tuple[Extraction, frozenset[int]]]
) -> dict[Extraction, str]:
    """Compute what is missing of some stories' activations, one after the other; {extraction: error}.

    Those of one model and one text come in one call: where two contexts make the same windows of it, the second
    finds what the first has kept.
    """
    problems = {}
    for extraction, layers in wanted:
        try:
            _until_stopped(extraction.steps(layers, cache), root)
        except Exception as error:  # noqa: BLE001 - the runs that need this story report it
            problems[extraction] = error_text(error)
    return problems


def _until_stopped(steps: Generator, root: Path) -> Any:
    try:
        while _shared.still_wanted(root):
            next(steps)
    except StopIteration as end:
        return end.value
    steps.close()
    _shared.forget_designs(root)
    return None


# ---------------------------------------------------------------------- the engine


class Engine:
    """joblib's engine as the caller has chosen it when the sweep began.

    Attributes
    ----------
    n_jobs : runs at once
    here : whether runs are drained step by step in this process
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
        # Taken now, since joblib's choice holds where the caller stands and not where a generator is drained.
        self._backend, self._asked = backend, configured if n_jobs is None else n_jobs

    def _limited(self) -> AbstractContextManager:
        """Within it, threads that run side by side take no more cores together than there are.

        joblib limits processes by itself; see `inner_max_num_threads` there.
        """
        if not self._threads or self.here:
            return nullcontext()
        import joblib

        return blas_limited(max(1, joblib.cpu_count() // self.n_jobs))

    @contextmanager
    def outcomes(
        self,
        function: Callable,
        calls: Mapping[int, tuple],
        lost: Callable[[int, BaseException], Any],
        *,
        root: Path,
    ) -> Iterator[Iterator[tuple[int, Any]]]:
        """An iterator over (number, outcome) of `function(*calls[number])`, in the order in which they end.

        When the engine breaks, as when a worker is killed, the calls that were in flight are made again, one at
        a time; one that breaks it twice more ends as `lost(number, error)`. Leaving early stops the sweep in `root`.
        """
        found = self._outcomes(function, calls, lost)
        with self._limited():
            try:
                yield found
            except BaseException:
                _shared.stop(root)  # before the engine is closed, since that waits for what runs
                raise
            finally:
                with (
                    warnings.catch_warnings()
                ):  # joblib warns that calls were not waited for, as is meant here
                    warnings.simplefilter("ignore")
                    found.close()

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

    def _outcomes(
        self, function: Callable, calls: Mapping[int, tuple], lost: Callable
    ) -> Generator[tuple[int, Any], None, None]:
        waiting, suspects = dict(calls), []
        broke: Counter[int] = Counter()
        while waiting:
            chosen = suspects or list(waiting)
            started: list[int] = []
            found = self._parallel(alone=bool(suspects))(_calls(function, waiting, chosen, started))
            try:
                for number, outcome in found:
                    if number in waiting:  # else it ended while the engine broke, and was made again
                        del waiting[number]
                        yield number, outcome
                suspects = []
            except Exception as error:  # functions return their errors, so this is the engine's
                in_flight = [number for number in started if number in waiting]
                if not in_flight:
                    raise
                if not suspects:
                    suspects = in_flight
                    continue
                # One at a time: the next begins when the one before has ended, so it was the last that began.
                number = in_flight[-1]
                broke[number] += 1
                if broke[number] == TRIES_ALONE:
                    del waiting[number]
                    yield number, lost(number, error)
                suspects = [n for n in suspects if n in waiting]
            finally:
                found.close()


def _calls(function: Callable, waiting: Mapping[int, tuple], chosen: Sequence[int], started: list[int]):
    from joblib import delayed

    for number in chosen:
        started.append(number)
        yield delayed(_numbered)(number, function, waiting[number])


def _numbered(number: int, function: Callable, arguments: tuple) -> tuple[int, Any]:
    return number, function(*arguments)
