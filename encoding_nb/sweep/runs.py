"""A sweep: every run of a grid of settings, on one subject or several, here or in workers of joblib.

    grid = settings_grid(Settings(), layer_idx="all", lookback=[16, 64])
    results = run_sweep(assembly, grid, results_dir="results")
    sweep_table(results)

All settings are checked first. Then come the activations, in this process: one pass of the model per context and
story gives all layers. Then come the runs: one after the other, or `n_jobs` at once in whatever workers
`joblib.parallel_config` chooses (processes of this machine by default):

    with joblib.parallel_config("dask"):          # after client = distributed.Client(...)
        run_sweep(assembly, grid, memory=joblib.Memory("/shared/cache"), results_dir="/shared/results")
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np

from .. import _files, _machine, _progress, features, pipeline, records
from .._progress import Cancelled, Progress
from .._validation import as_whole, describe, error_text
from ..assembly import Assembly, assembly_digest, check_assembly
from ..pipeline import Result, plan_shifts
from ..settings import Settings, SettingsError, check_settings
from .grid import without_effect
from .tables import SweepFailure

MOST_PROBLEMS = 10  # problems of settings that one error lists
# settings on which it depends whether BOLD can be shifted
OF_SHIFTS = ("n_shifts", "least_shift", "fir_delays", "trimming", "high_pass")
OF_SHIFTS += ("use_train_test_split", "stories", "test_stories")
_Run = tuple[Assembly, Settings]


@dataclass(frozen=True, eq=False)
class SweepProgress(Progress):
    """One step of a sweep.

    Attributes
    ----------
    stage : "activations" or "fits"
    done, total : stories or runs of this stage
    overall : share of the whole sweep that is done, 0 to 1
    detail : what is being worked on or has just ended
    seconds_left : an estimate for this stage; None until there is one
    rate, scores, significant : None in a sweep
    n_failed : runs that have failed so far
    number : place in the returned list of the run that has just ended, or None
    result : its `Result` or `SweepFailure`, or None
    """

    n_failed: int = 0
    number: int | None = None
    result: Result | SweepFailure | None = None


def run_sweep(
    assembly: Assembly | Mapping[str, Assembly],
    grid: Sequence[Settings],
    *,
    memory: Any = None,
    n_jobs: int | None = None,
    results_dir: str | Path | None = None,
    keep_predictions: bool = False,
    progress: bool | Callable[[SweepProgress], None] = True,
) -> list[Result | SweepFailure]:
    """Run every one of `grid` on every subject.

    Parameters
    ----------
    assembly : Assembly, or mapping of subject to Assembly
    grid : sequence of Settings, as from `settings_grid`
    memory : joblib.Memory or path, optional
        Where activations are kept, by default `features.default_memory()`. On a cluster: a folder that all machines
        share.
    n_jobs : int, optional
        Runs at once. None takes the number that `joblib.parallel_config` sets, else 1. With 1 the runs take place in
        this process. With more they take place in joblib's workers, by default processes, to which joblib passes
        large arrays as memory maps of files in its temporary folder.
    results_dir : folder, optional
        Each run is recorded there when it ends (`records.save_run`). A run that is recorded there already, with
        equal settings on equal data, is not run again: call `run_sweep` once more to continue a sweep that was
        stopped. Data with a story that cannot be read cannot be recognised, so their runs are run again, as are runs of
        nested cross-validation in records of older versions, whose scores meant something else.
    keep_predictions : bool
        Record predicted and measured time courses too, about 8 bytes per voxel and held-out row for each run; the
        results read them from the record. Needs `results_dir`.
    progress : bool or function
        True shows a bar on standard error, False nothing. A function is called with every `SweepProgress`, in this
        thread: with workers, whenever a run ends; without, at each step of a run. Any error that it raises stops
        the sweep and is raised here as it is; raise `Cancelled` to cancel. Processes are then ended; threads end at
        the next step of their run; finished runs stay recorded.

    Returns
    -------
    list of Result, or SweepFailure in the place of a run that failed
        Subject by subject, each in the order of the grid. A result holds scores, alphas and p-values, about 35 bytes
        per voxel (50 with a shift test); without `keep_predictions` its `predictions` and `measured` are empty.

    Raises
    ------
    ValueError
        Before any work: an empty grid, two assemblies of one subject, more runs at once than memory holds, a
        joblib backend that cannot return results as they end, `n_jobs=0`, a results_dir that cannot be written
        (`records.RecordError`).
    SettingsError
        Before any work: the problems that `check` finds in any of the runs.
    TypeError
        Not an Assembly or a mapping of them; not a sequence of Settings; an `n_jobs` that is not a whole number; a
        progress that is neither a bool nor a function.
    RuntimeError
        A worker was killed. Finished runs are in `results_dir`.

    Warns
    -----
    UserWarning
        Once at the end, if runs have failed.
    """
    assemblies, grid = _by_subject(assembly), _listed(grid)
    if results_dir is not None:
        results_dir = records.check_results_dir(results_dir).absolute()
    elif keep_predictions:
        raise ValueError(
            "keep_predictions=True needs a results_dir to keep them in: in memory they would add up run by run."
        )
    memory = features.default_memory() if memory is None else memory
    places: dict[_Run, list[int]] = {}  # in the list of results; equal settings are run once
    for place, run in enumerate(product(assemblies, grid)):
        places.setdefault(run, []).append(place)
    workers = _workers(
        n_jobs, *_check_runs(places, len(grid), memory), max(map(_bytes_in_memory, assemblies))
    )
    with ExitStack() as stack:
        show = stack.enter_context(_shown(progress))
        if features.store_folder(memory) is None:  # a Memory that keeps nothing
            memory = stack.enter_context(_files.temporary_folder())
        tally = _Tally(places, show)
        try:
            ended: dict[_Run, Any] = _recorded(list(places), results_dir, keep_predictions)
            ended |= _extract([run for run in places if run not in ended], memory, tally)
            for run, result in ended.items():
                tally.ended(run, result)
            tally.began.clear()  # these took no time
            fit = partial(_fit, memory=memory, results_dir=results_dir, keep_predictions=keep_predictions)
            left = [run for run in places if run not in ended]
            for one, own in groupby(left, key=lambda run: run[0]):
                _fit_all(one, [settings for _, settings in own], fit, workers, tally)
        except BaseException:
            if not workers[-1]:
                _end_processes()
            if tally.raised is None:
                raise
    if tally.raised is not None:
        raise tally.raised
    results = [tally.found[place] for place in sorted(tally.found)]
    failures = [result for result in results if isinstance(result, SweepFailure)]
    if failures:
        warnings.warn(
            f"{len(failures)} of {len(results)} runs failed and are in the list as SweepFailure; the first, "
            f"{failures[0].subject}: {failures[0].error}",
            stacklevel=2,
        )
    return results


# ---------------------------------------------------------------------- checks


def _by_subject(assembly: Assembly | Mapping[str, Assembly]) -> list[Assembly]:
    if isinstance(assembly, (list, tuple)):
        raise TypeError(
            f"run_sweep: expected an Assembly or a mapping of subject to Assembly, got {describe(assembly)}; write "
            "{one.subject: one for one in assemblies}."
        )
    found = list(assembly.values()) if isinstance(assembly, Mapping) else [assembly]
    for one in found:
        check_assembly(one, "run_sweep")
    subjects = [one.subject for one in found]
    if not found or len(set(subjects)) < len(subjects):
        raise ValueError(
            f"run_sweep: expected one assembly per subject, got {', '.join(subjects) or 'none'}; the subject names "
            f"the results."
        )
    return found


def _listed(grid: Any) -> list[Settings]:
    if not isinstance(grid, Iterable) or isinstance(grid, (str, Mapping)):
        raise TypeError(
            f"run_sweep: expected Settings in a list, got {describe(grid)}; write [settings], or make a grid, for "
            f"example settings_grid(settings, layer_idx='all')."
        )
    grid = list(grid)
    for settings in grid:
        check_settings(settings, "run_sweep")
    if not grid:
        raise ValueError("run_sweep: expected at least one Settings, got none; see settings_grid.")
    return grid


def _check_runs(places: Mapping[_Run, list[int]], n_settings: int, memory: Any) -> tuple[int, int]:
    """Bytes of memory, and of temporary files, of the largest run; one SettingsError lists the problems of all runs."""
    problems: list[tuple[str, str]] = []
    shifts: dict[tuple, SettingsError | None] = {}
    n_bytes, n_filed, free = 0, 0, _machine.free_memory()
    for (assembly, settings), (place, *_) in places.items():
        try:
            plan = pipeline.plan_run(assembly, settings, memory=memory)
            if settings.significance == "shift":
                key = (assembly, *(getattr(settings, name) for name in OF_SHIFTS))
                if key not in shifts:
                    shifts[key] = _problem_of_shifts(plan)
                if shifts[key] is not None:
                    raise shifts[key]
            needed = pipeline.bytes_needed(settings, plan.shape, {}, free=free)
            n_bytes = max(n_bytes, *needed.values())
            n_filed = max(n_filed, pipeline.file_bytes(plan.shape, free=free))
        except SettingsError as error:
            where = f"Run {place % n_settings + 1} of {n_settings} on {assembly.subject}, {error.field}"
            problems.append((error.field, f"{where}={getattr(settings, error.field)!r}: {error}"))
    if problems:
        sentences = [sentence for _, sentence in problems[:MOST_PROBLEMS]]
        if len(problems) > MOST_PROBLEMS:
            sentences.append(f"{len(problems) - MOST_PROBLEMS} more runs have problems.")
        raise SettingsError(problems[0][0], "\n".join(sentences))
    return n_bytes, n_filed


def _problem_of_shifts(plan: pipeline.Plan) -> SettingsError | None:
    """Why BOLD cannot be shifted as the settings say; None where it can, or where it cannot be read."""
    try:
        plan_shifts(plan)
    except SettingsError as error:
        return error
    except Exception:  # noqa: BLE001 - reading the data may raise anything, and the runs report it
        return None
    return None


def _workers(n_jobs: int | None, n_bytes: int, n_filed: int, n_copied: int) -> tuple[Any, int, bool]:
    """Where runs take place: joblib's Parallel, runs at once, and whether in this process.

    Each needs `n_bytes` of memory and `n_filed` of temporary files; processes share one copy of `n_copied` bytes.
    """
    import joblib
    from joblib import parallel

    n_jobs = None if n_jobs is None else as_whole(n_jobs, "n_jobs")
    backend, _ = parallel.get_active_backend()
    at_once = joblib.effective_n_jobs(n_jobs)
    # not a cluster, whose single worker would be another machine
    local = isinstance(backend, (parallel.SequentialBackend, parallel.ThreadingBackend, parallel.LokyBackend))
    how: dict[str, Any] = {"return_as": "generator_unordered", "batch_size": 1}
    if n_jobs == 1 or (local and at_once == 1):
        return joblib.Parallel(1, "sequential", **how), 1, True
    if not backend.supports_return_generator:
        raise ValueError(
            f"run_sweep: joblib's {type(backend).__name__} returns results all at once and a sweep records each as it "
            f'ends; choose "loky", "threading" or "dask" in joblib.parallel_config, or n_jobs=1.'
        )
    free, needed = _machine.free_memory(), at_once * n_bytes
    if local and needed > free:
        raise ValueError(
            f"n_jobs: {at_once} runs at once need about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB "
            f"are free; choose n_jobs={max(1, free // n_bytes)}."
        )
    if local and (problem := pipeline.no_room(at_once * n_filed, 0)):
        raise ValueError(f"n_jobs: {at_once} runs at once need too much. {problem}")
    if isinstance(backend, parallel.LokyBackend):
        how["temp_folder"] = _folder_for_copies(n_copied, free - needed)
    return joblib.Parallel(n_jobs, **how), at_once, isinstance(backend, parallel.ThreadingBackend)


def _bytes_in_memory(assembly: Assembly) -> int:
    """Bytes of the BOLD that is in memory, which joblib copies to a file for its processes."""
    arrays = [each for story in assembly.stories.values() for each in (story.bold, story.repeats)]
    return sum(
        each.nbytes for each in arrays if type(each) is np.ndarray and type(each.base) is not np.memmap
    )


def _folder_for_copies(n_bytes: int, spare: int) -> str | None:
    """A folder with room for joblib's copies of arrays; None for joblib's own choice.

    joblib takes /dev/shm, which is memory, where 2 GB are free there, and does not look at how much is needed. Memory
    has `spare` bytes in addition to the runs.

    Raises
    ------
    ValueError
        There is no folder with room.
    """
    if n_bytes == 0:
        return None
    chosen = os.environ.get("JOBLIB_TEMP_FOLDER")
    folders = [chosen] if chosen else ["/dev/shm", tempfile.gettempdir()]
    said = []
    for folder in filter(os.path.isdir, folders):
        room = _machine.room_in(folder)
        if _machine.is_memory(folder):
            room = min(room, spare)
        if n_bytes <= room:
            return folder
        said.append(f"{folder} has room for {room / 1e9:.2g} GB")
    raise ValueError(
        f"n_jobs: joblib copies the BOLD that is in memory, {n_bytes / 1e9:.2g} GB, to a file for its processes, but "
        f"{' and '.join(said) or f'{chosen} is not a folder'}; set JOBLIB_TEMP_FOLDER to a folder on a larger disk, or "
        f"choose n_jobs=1."
    )


# ---------------------------------------------------------------------- what is on disk, and activations


def _recorded(runs: Sequence[_Run], results_dir: Path | None, keep_predictions: bool) -> dict[_Run, Result]:
    """The results of the runs that are on disk, with equal settings on equal data."""
    folders = [] if results_dir is None else sorted(results_dir.glob("*"))
    folders = [folder for folder in folders if records.RECORD_NAME.fullmatch(folder.name)]
    digests: dict[Assembly, str] = {}
    for assembly in {assembly for assembly, _ in runs} if folders else ():
        with suppress(Exception):  # reading the data may raise anything, and the runs report it
            digests[assembly] = assembly_digest(assembly)
    wanted: dict[tuple[str, str], list[_Run]] = {}
    for run in runs:
        if run[0] in digests:
            wanted.setdefault((_meaning(run[1]), digests[run[0]]), []).append(run)
    found: dict[_Run, Result] = {}
    for folder in folders:
        # of another version, or damaged: then it is run again, and list_runs reports it
        with suppress(records.RecordError):
            described = records.load_description(folder)
            settings = records.read_settings(folder, described)
            if described["SchemaVersion"] < records.FOLD_MEANS and not settings.use_train_test_split:
                continue
            own = wanted.get((_meaning(settings), described.get("DataDigest", "")), [])
            if own:
                result = records.load_run(folder)
                if result.predictions or not keep_predictions:
                    result = _as_recorded(result, folder, keep_predictions)
                    found |= {run: replace(result, settings=run[1]) for run in own}
    return found


def _meaning(settings: Settings) -> str:
    """Settings as JSON, equal for those of equal runs: a default grid written out, defaults for what has no effect."""
    usual = {name: getattr(Settings, name) for name in without_effect(settings)}
    return replace(settings, alphas=settings.alpha_grid, **usual).to_json()


def _as_recorded(result: Result, folder: Path, keep_predictions: bool) -> Result:
    """A result that names its record and is without what is large, but for time courses to keep."""
    if not keep_predictions:
        result = replace(result, predictions={}, measured={})
    return replace(result, rois={}, provenance={**result.provenance, "record": str(folder)})


def _extract(runs: Sequence[_Run], memory: Any, tally: _Tally) -> dict[_Run, SweepFailure]:
    """Compute and keep the activations that runs lack; the failures of runs for which that was not possible."""
    lacking: dict[tuple, list[_Run]] = {}
    for assembly, settings in runs:
        spec = settings.feature_specs.get("language_model")
        split = pipeline.split_stories(assembly, settings)
        for name in () if spec is None else split.train + split.test:
            story = assembly.stories[name]
            if not features.is_cached(story, spec, memory=memory):
                # a pass of the model gives all layers, and processing is applied when activations are read
                activation = replace(spec.activation, processing="raw")
                key = (name, story.words.text, activation, features.stored_contexts(story, spec))
                lacking.setdefault(key, []).append((assembly, settings))
    tally.extracts = bool(lacking)
    failures: dict[_Run, SweepFailure] = {}
    for number, ((name, words, activation, contexts), own) in enumerate(lacking.items()):
        settings = own[0][1]

        def progress(read: int, total: int, number: int = number, name: str = name) -> None:
            tally.at("activations", number + read / max(total, 1), len(lacking), name)

        options = {"memory": memory, "contexts": contexts, "device": settings.device, "progress": progress}
        try:
            features.layer_activations(words, activation, layer_idx=settings.layer_idx, **options)
        except Exception as error:  # noqa: BLE001 - the runs that need this story report it
            text = f"{error_text(error)} (activations of {name})"
            failures |= {run: SweepFailure(run[1], run[0].subject, text) for run in own}
        tally.at("activations", number + 1, len(lacking), name)
    return failures


# ---------------------------------------------------------------------- runs


def _fit_all(
    assembly: Assembly,
    grid: Sequence[Settings],
    fit: Callable[..., Result | SweepFailure],
    workers: tuple[Any, int, bool],
    tally: _Tally,
) -> None:
    """Do the runs of one subject, and count each as it ends.

    Raises
    ------
    RuntimeError
        A worker was killed.
    """
    import joblib

    parallel, at_once, in_process = workers
    subject, stopped = _Subject(assembly), threading.Event()

    def progress(step: Progress) -> None:
        if stopped.is_set():
            raise RuntimeError("The sweep has ended.")  # ends a thread's run, of which the result is not read
        if at_once == 1:
            tally.at("fits", len(tally.found) + step.overall, detail=f"{assembly.subject}, {step.stage}")

    tally.at("fits", len(tally.found), detail=assembly.subject)
    # for threads; joblib limits its processes
    with _machine.blas_limited(max(1, joblib.cpu_count() // at_once)):
        fits = parallel(joblib.delayed(fit)(subject, one, progress if in_process else False) for one in grid)
        try:
            for result in fits:
                tally.ended((assembly, result.settings), result)
        except Exception as error:  # runs return their errors, so this one is of the workers
            raise RuntimeError(
                f"run_sweep: a worker was lost ({error_text(error)}), perhaps because memory ran out; give a "
                f"results_dir, so that finished runs are kept, and call run_sweep again with it for the others."
            ) from error
        finally:
            stopped.set()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # joblib's, about the runs that it ends
                fits.close()


def _end_processes() -> None:
    """End joblib's processes, which it keeps for some minutes after their last work."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


class _Subject:
    """An assembly on its way to workers. Its size makes Dask send it once, and not with every run."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = replace(assembly, truth=None if assembly.truth is None else {})

    def __sizeof__(self) -> int:
        return sum(4 * story.n_rows * story.bold.shape[1] for story in self.assembly.stories.values())


def _fit(
    subject: _Subject,
    settings: Settings,
    progress: bool | Callable[[Progress], None],
    *,
    memory: Any,
    results_dir: Path | None,
    keep_predictions: bool,
) -> Result | SweepFailure:
    """One run, recorded if there is a results_dir. Returns its result without what is large, or its failure."""
    assembly = subject.assembly
    try:
        result = pipeline.run(assembly, settings, memory=memory, progress=progress)
        if results_dir is None:
            return replace(result, predictions={}, measured={}, rois={})
        saved = result if keep_predictions else replace(result, predictions={}, measured={})
        source = {} if assembly.source is None else {"Source": assembly.source}
        extra = {"TimeCourses": keep_predictions, **source}
        folder = records.save_run(saved, results_dir, figures=False, extra=extra)
        if keep_predictions:
            saved = records.load_run(folder)  # reads time courses when they are asked for
        return _as_recorded(saved, folder, keep_predictions)
    except Exception as error:  # noqa: BLE001 - one run's failure is a finding; the others go on
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        return SweepFailure(settings, assembly.subject, text, traceback.format_exc())


# ---------------------------------------------------------------------- results and progress


class _Tally:
    """Keeps results, counts runs and seconds, and reports every step to the caller of the sweep.

    Attributes
    ----------
    found : {place in the list: result}
    extracts : whether activations are computed first, which is then counted as half of the work
    began : {stage: (time, what was done)} at its first step
    raised : the error that the caller's function raised, which ends the sweep as if it were cancelled
    """

    def __init__(self, places: Mapping[_Run, list[int]], show: Callable[[SweepProgress], None]) -> None:
        self.found: dict[int, Result | SweepFailure] = {}
        self.extracts, self.began = False, dict[str, tuple[float, float]]()
        self.raised: Exception | None = None
        self._places, self._show, self._n_failed = places, show, 0
        self._n_runs = sum(map(len, places.values()))
        self._ceilings: dict[tuple, Result] = {}

    def at(self, stage: str, done: float, total: int | None = None, detail: str = "", **ended: Any) -> None:
        """Report a step: `done` of `total` of a stage, by default of all runs; `ended` names the run that has ended."""
        total = self._n_runs if total is None else total
        began, before = self.began.setdefault(stage, (time.monotonic(), done))
        elapsed, overall = time.monotonic() - began, done / total
        left = elapsed * (total - done) / (done - before) if done > before and elapsed > 0.5 else None
        if self.extracts:
            overall = overall / 2 if stage == "activations" else (1 + overall) / 2
        step = SweepProgress(stage, done, total, overall, detail, left, n_failed=self._n_failed, **ended)
        try:
            self._show(step)
        except Exception as error:  # noqa: BLE001 - within a run it would be the run's failure
            self.raised = error
            raise Cancelled from None

    def ended(self, run: _Run, result: Result | SweepFailure) -> None:
        """Keep a result, and report a step for each of its places in the list."""
        assembly = run[0]
        if isinstance(result, Result):
            result = replace(result, rois=assembly.rois)
            if result.noise_ceiling is not None:
                result = self._with_shared_ceilings(assembly, result)
        for place in self._places[run]:
            self.found[place] = result
            self._n_failed += isinstance(result, SweepFailure)
            self.at("fits", len(self.found), detail=assembly.subject, number=place, result=result)

    def _with_shared_ceilings(self, assembly: Assembly, result: Result) -> Result:
        """The result with the noise ceilings of an earlier result that equal its own, so that they are kept once."""
        settings = result.settings
        rows = (settings.trimming, settings.high_pass, settings.use_train_test_split, *result.story_scores)
        known = self._ceilings.setdefault((assembly, *rows), result)
        if not np.array_equal(known.noise_ceiling, result.noise_ceiling, equal_nan=True):
            return result  # that of a record of before, perhaps, which was of repeats that were not z-scored
        ceilings = {name: getattr(known, name) for name in ("noise_ceiling", "story_noise_ceiling")}
        return replace(result, **ceilings)


@contextmanager
def _shown(progress: Any) -> Iterator[Callable[[SweepProgress], None]]:
    """The progress function for a `progress` argument; the bar counts runs and failures."""
    with _progress.shown(progress) as show:

        def counted(step: SweepProgress) -> None:
            left = "" if step.seconds_left is None else f", {step.seconds_left:.0f} s left"
            failed = f", {step.n_failed} failed" if step.n_failed else ""
            show(replace(step, stage=f"{step.stage} {int(step.done)}/{step.total:.0f}{failed}{left}"))

        yield counted if progress is True else show
