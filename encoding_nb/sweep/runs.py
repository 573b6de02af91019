"""Many runs: a grid of settings over one subject or several, with what they have in common done once.

    grid = settings_grid(Settings(), layer_idx="all", lookback=[16, 64])
    results = run_sweep(assembly, grid, results_dir="results")
    sweep_table(results)

Activations come first, one pass of the model per context and story for all layers; then each subject's responses
are read and z-scored, once; then the runs, ordered so that those with equal designs follow each other: they share
the design matrix and what follows from it alone, eigenvectors and the folds' operators. Where the runs take place
is for `joblib.parallel_config` to say:

    with joblib.parallel_config("dask"):          # after client = distributed.Client(...)
        run_sweep(assembly, grid, memory=joblib.Memory("/shared/cache"), results_dir="/shared/results")
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import _machine, _progress, features, pipeline
from .._progress import Cancelled
from .._validation import describe
from ..assembly import Assembly, require_assembly
from ..features import store_folder
from ..pipeline import Plan, Result, plan_run
from ..records import check_results_dir
from ..settings import Settings, SettingsError, require_settings
from . import _shared, _stages
from ._engine import Engine
from ._stages import SweepProgress
from .tables import SweepFailure


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
    memory : joblib.Memory, optional
        Where activations are kept, by default `features.default_memory()`. The z-scored responses lie beside
        them until the sweep ends. On a cluster: a folder that all machines share.
    n_jobs : int, optional
        Runs at once. None takes what `joblib.parallel_config` says, and 1 where it says nothing.
    results_dir : folder, optional
        Each run is recorded there when it ends (`records.save_run`), and one that is recorded there already, with
        equal settings on equal data, is not run again: so a sweep that was stopped goes on where it stood.
        Data with a story that cannot be read cannot be recognised, so their runs are done again.
    keep_predictions : bool
        Record predicted and measured time courses too, about 8 bytes per voxel and held-out row for each run;
        the results read them from the record. Needs `results_dir`.
    progress : bool or function
        True shows a bar on standard error, False nothing. A function is called with every `SweepProgress`, in this
        thread: at each step, with each run's result when it ends, and at least once a second while workers have
        nothing new. What it raises stops the sweep and is raised here as it is, such as `Cancelled`: runs in this
        process or in threads end at their next step, those in processes within a second or so. Finished runs stay
        recorded.

    Returns
    -------
    list of Result, or SweepFailure where a run failed
        Subject by subject, each in the order of the grid. A result holds scores, alphas and p-values, about 35
        bytes per voxel; without `keep_predictions` its `predictions` and `measured` are empty.

    Raises
    ------
    ValueError
        Before any work: an empty grid, two assemblies of one subject, more runs at once than memory holds, a
        joblib engine that cannot give results as they end; an `n_jobs` that is no number of runs; a results_dir
        that cannot be written (`records.RecordError`).
    SettingsError
        Before any work: what `check` finds in any of the runs.
    TypeError
        No Assembly, or no mapping of them; a grid that is no sequence of Settings; a progress that is neither a bool
        nor a function.

    Warns
    -----
    UserWarning
        Once at the end, where runs have failed.
    """
    assemblies = _by_subject(assembly)
    grid = _listed(grid)
    engine = Engine(n_jobs)
    if results_dir is not None:
        results_dir = check_results_dir(results_dir).absolute()
    memory = features.default_memory() if memory is None else memory
    plans = _plans(assemblies, grid, memory)
    _refuse_too_large(plans.values(), engine)
    if keep_predictions and results_dir is None:
        raise ValueError(
            "keep_predictions=True needs a results_dir to keep them in: in memory they would add up run by run."
        )
    found: dict[int, Result | SweepFailure] = {}
    raised: list[Exception] = []
    try:
        with _bar() if progress is True else _progress.shown(progress) as show:

            def tell(step: SweepProgress) -> None:
                if step.number is not None:
                    found[step.number] = step.result
                try:
                    show(step)
                except Exception as error:  # noqa: BLE001 - within the sweep it would be a run's failure
                    raised.append(error)
                    raise Cancelled from None

            _sweep(
                assemblies,
                grid,
                plans,
                engine,
                tell,
                memory=memory,
                results_dir=results_dir,
                keep_predictions=keep_predictions,
            )
    except Cancelled:
        if not raised:
            raise
    if raised:
        raise raised[0]
    results = [found[number] for number in sorted(found)]
    failures = [result for result in results if isinstance(result, SweepFailure)]
    if failures:
        warnings.warn(
            f"{len(failures)} of {len(results)} runs failed and stand in the list as SweepFailure; the first, "
            f"{failures[0].subject}: {failures[0].error}",
            stacklevel=2,
        )
    return results


@contextmanager
def _bar() -> Iterator[Callable[[SweepProgress], None]]:
    """A progress function that moves a bar on standard error."""
    from tqdm import tqdm

    with tqdm(total=100, bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}") as bar:

        def show(step: SweepProgress) -> None:
            left = "" if step.seconds_left is None else f", {step.seconds_left:.0f} s left"
            failed = f", {step.n_failed} failed" if step.n_failed else ""
            bar.set_description_str(
                f"{step.stage} {int(step.done)}/{step.total:.0f}{failed}{left}", refresh=False
            )
            bar.update(100 * step.overall - bar.n)

        yield show


def _sweep(
    assemblies: Sequence[Assembly],
    grid: Sequence[Settings],
    plans: Mapping[tuple[str, Settings], Plan],
    engine: Engine,
    tell: Callable[[SweepProgress], None],
    *,
    memory: Any,
    results_dir: Path | None,
    keep_predictions: bool,
) -> None:
    """Every run, each told with its result when it ends. No result is kept, so memory does not grow with the sweep."""
    with ExitStack() as stack:
        if store_folder(memory) is None:  # a Memory that keeps nothing: then for as long as the sweep lasts
            memory = stack.enter_context(tempfile.TemporaryDirectory(prefix="encoding_nb-"))
        root = stack.enter_context(_shared.sweep_folder(memory))
        sweep = _stages.make_sweep(
            assemblies,
            grid,
            plans,
            memory=memory,
            root=root,
            results_dir=results_dir,
            keep_predictions=keep_predictions,
        )
        try:
            _stages.run_stages(sweep, engine, tell)
        except BaseException:
            engine.end_processes()
            raise


def _by_subject(assembly: Assembly | Mapping[str, Assembly]) -> list[Assembly]:
    if isinstance(assembly, (list, tuple)):
        raise TypeError(
            f"run_sweep: expected an Assembly or a mapping of subject to Assembly, got {describe(assembly)}; write "
            "{one.subject: one for one in assemblies}."
        )
    found = list(assembly.values()) if isinstance(assembly, Mapping) else [assembly]
    for one in found:
        require_assembly(one, "run_sweep")
    subjects = [one.subject for one in found]
    twice = sorted({subject for subject in subjects if subjects.count(subject) > 1})
    if not found or twice:
        problem = f"two of {', '.join(twice)}" if twice else "none"
        raise ValueError(
            f"run_sweep: expected one assembly per subject, got {problem}; results are told apart by subject."
        )
    return found


def _listed(grid: Any) -> list[Settings]:
    if not isinstance(grid, Iterable) or isinstance(grid, (str, Mapping)):
        raise TypeError(
            f"run_sweep: expected Settings in a list, got {describe(grid)}; write [settings], or make a grid such as "
            f"settings_grid(settings, layer_idx='all')."
        )
    grid = list(grid)
    for settings in grid:
        require_settings(settings, "run_sweep")
    return grid


def _plans(
    assemblies: Sequence[Assembly], grid: Sequence[Settings], memory: Any
) -> dict[tuple[str, Settings], Plan]:
    """{(subject, settings): what the run does}, without folds, which are large and are made again by each run."""
    if not grid:
        raise ValueError("run_sweep: expected at least one Settings, got none; see settings_grid.")
    plans: dict[tuple[str, Settings], Plan] = {}
    for assembly in assemblies:
        for number, settings in enumerate(grid, 1):
            if (assembly.subject, settings) in plans:
                continue
            try:
                plan = plan_run(assembly, settings, memory=memory)
            except SettingsError as error:
                name = error.field
                where = (
                    f"Run {number} of {len(grid)} on {assembly.subject}, {name}={getattr(settings, name)!r}"
                )
                raise SettingsError(name, f"{where}: {error}") from None
            plan = replace(plan, groups=np.empty(0, int), outer_folds=(), inner_folds=())
            plans[assembly.subject, settings] = plan
    return plans


def _refuse_too_large(plans: Iterable[Plan], engine: Engine) -> None:
    """Refuse more runs at once than memory holds; their responses are mapped from files."""
    if not engine.local or engine.here:
        return
    free = _machine.free_memory()
    largest = max(
        max(pipeline.bytes_needed(plan.settings, plan.shape, {}, free=0).values()) for plan in plans
    )
    if largest * engine.n_jobs > free:
        raise ValueError(
            f"n_jobs: {engine.n_jobs} runs at once need about {largest * engine.n_jobs / 1e9:.1f} GB of memory and "
            f"{free / 1e9:.1f} GB are free; choose n_jobs={max(1, int(free // largest))}."
        )
