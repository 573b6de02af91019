"""The stages of a sweep, in order: what is recorded, activations, then subjects' responses and runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import _machine, records
from .._progress import Progress
from ..assembly import Array, Assembly, assembly_digest
from ..features import store_folder
from ..pipeline import Plan, Result
from ..settings import Settings
from . import _shared
from ._engine import Engine, Job, error_text, fit, run_extractions, run_job, slim
from ._outline import write_outline
from ._shared import Extraction, SharedInputs
from .grid import in_order_of_sharing
from .tables import SweepFailure

# where each stage begins and how much of the whole it is
_SHARES = {"activations": (0.0, 0.5), "responses": (0.5, 0.0), "fits": (0.5, 0.5)}


@dataclass(frozen=True, eq=False)
class SweepProgress:
    """One step of a sweep.

    Attributes
    ----------
    stage : "activations", "responses" or "fits"
    done, total : stories, stories or runs of this stage
    overall : share of the whole sweep that is done, 0 to 1
    detail : what is being worked on or has just ended
    seconds_left : of this stage, or None while there is nothing to go by
    n_failed : runs that have failed so far
    number : place in the returned list of the run that has just ended, or None
    result : its `Result` or `SweepFailure`, or None
    """

    stage: str
    done: float
    total: float
    overall: float
    detail: str = ""
    seconds_left: float | None = None
    n_failed: int = 0
    number: int | None = None
    result: Result | SweepFailure | None = None


Tell = Callable[[SweepProgress], None]


class Tally:
    """Counts runs and seconds, and tells every step to the sweep's caller."""

    def __init__(self, n_runs: int, tell: Tell, *, extracts: bool) -> None:
        self.n_runs, self.n_ended, self.n_failed, self.n_fitted = n_runs, 0, 0, 0
        self._tell = tell
        self._started: dict[str, float] = {}
        self._skip = 0.0 if extracts else 0.5
        self._furthest = 0.0
        self._latest: SweepProgress | None = None

    def at(self, stage: str, done: float, total: float, detail: str = "", **ended: Any) -> None:
        """Tell a step: `done` of `total` of a stage; `ended` names the run that has just ended."""
        elapsed = time.monotonic() - self._started.setdefault(stage, time.monotonic())
        # Runs that were found on disk took no time, so the rest is not reckoned from them.
        worked = self.n_fitted + (done - self.n_ended) if stage == "fits" else done
        left = elapsed * (total - done) / worked if worked > 0 and elapsed > 0.5 else None
        before, share = _SHARES[stage]
        overall = before + share * done / max(total, 1)
        overall = max(0.0, overall - self._skip) / (1 - self._skip)
        # each subject's responses come between the fits, and progress never runs backwards
        self._furthest = max(self._furthest, overall)
        self._latest = SweepProgress(stage, done, total, self._furthest, detail, left, self.n_failed)
        self._tell(replace(self._latest, **ended) if ended else self._latest)

    def again(self) -> None:
        """Tell the latest step once more, so that a caller who wants to cancel can; no run ends with it."""
        if self._latest is not None:
            self._tell(self._latest)


# ---------------------------------------------------------------------- the plan


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep, worked out before any work.

    Attributes
    ----------
    jobs : for each subject its jobs, in an order that lets neighbours share
    plans : {number of a job: what its run does}
    positions : {number of a job: where its result goes}; equal settings are one job
    recorded : {number of a job: the record it was found in}
    root : the sweep's folder
    cache : where activations are kept
    """

    jobs: Sequence[Sequence[Job]]
    plans: Mapping[int, Plan]
    positions: Mapping[int, Sequence[int]]
    recorded: Mapping[int, Path]
    root: Path
    cache: Path


def make_sweep(
    assemblies: Sequence[Assembly],
    grid: Sequence[Settings],
    plans: Mapping[tuple[str, Settings], Plan],
    *,
    memory: Any,
    root: Path,
    results_dir: Path | None,
    keep_predictions: bool,
) -> Sweep:
    """Jobs for every subject and every distinct settings; looks up what is recorded."""
    known = recorded_runs(results_dir, predictions=keep_predictions) if results_dir else {}
    cache = store_folder(memory).parents[1]  # of .../joblib/encoding_nb/activations
    jobs, numbered, positions, recorded = [], {}, {}, {}
    for place, assembly in enumerate(assemblies):
        digest = _digest(assembly)
        folder = root / f"subject-{place}"
        folder.mkdir()
        places: dict[Settings, list[int]] = {}
        for i, settings in enumerate(grid):
            places.setdefault(settings, []).append(place * len(grid) + i)
        own = []
        for settings in sorted(places, key=in_order_of_sharing(grid)):
            number = len(positions)
            positions[number] = places[settings]
            numbered[number] = plans[assembly.subject, settings]
            if digest is not None and (settings.to_json(), digest) in known:
                recorded[number] = known[settings.to_json(), digest]
            own.append(
                Job(
                    number=number,
                    settings=settings,
                    subject=assembly.subject,
                    root=root,
                    folder=folder,
                    cache=cache,
                    digest=digest,
                    source=assembly.source,
                    results_dir=results_dir,
                    keep_predictions=keep_predictions,
                )
            )
        jobs.append(own)
    return Sweep(jobs, numbered, positions, recorded, root, cache)


def _digest(assembly: Assembly) -> str | None:
    """The data's digest; None where rows that it needs cannot be read, which is for the runs to report."""
    try:
        return assembly_digest(assembly)
    except Exception:  # noqa: BLE001 - whatever the data lie in may raise
        return None


def recorded_runs(results_dir: str | Path, *, predictions: bool = False) -> dict[tuple[str, str], Path]:
    """{(settings as JSON, digest of the data): folder} of the whole records in a folder; the newest of equals.

    With `predictions`, only of records that hold time courses.
    """
    folder, found = Path(results_dir), {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not records.RECORD_NAME.fullmatch(path.name):
            continue
        try:
            described = records.load_description(path)
            settings = records.read_settings(path, described)
        except records.RecordError:
            continue  # of another version, or damaged: it is run again, and list_runs tells of it
        kept = bool(described.get("Arrays", {}).get("predictions"))
        if not records.missing_part(path, described) and (kept or not predictions):
            found[settings.to_json(), described.get("DataDigest")] = path
    return found


# ---------------------------------------------------------------------- the stages


def run_stages(sweep: Sweep, engine: Engine, tell: Tell) -> None:
    """Every stage of a sweep; `tell` is called with every step."""
    left = [[job for job in own if job.number not in sweep.recorded] for own in sweep.jobs]
    needs = {job.number: _shared.extractions(sweep.plans[job.number]) for own in left for job in own}
    missing = _missing(needs.values(), sweep.cache)
    tally = Tally(sum(map(len, sweep.positions.values())), tell, extracts=bool(missing))
    ends = Ends(sweep, tally)
    for own in sweep.jobs:
        for job in own:
            if job.number in sweep.recorded:
                ends.of(job, _loaded(job, sweep.recorded[job.number]))
    extract = _extract_here if engine.local else _extract_there
    problems = extract(sweep, engine, missing, tally)
    blocked = {
        number: problems[extraction]
        for number, of_job in needs.items()
        for extraction in of_job
        if extraction in problems
    }
    fits = []
    for own in left:
        for job in own:
            if job.number in blocked:
                ends.of(job, SweepFailure(job.settings, job.subject, blocked[job.number]))
        if able := [job for job in own if job.number not in blocked]:
            fits.append(able)
    for group in _together(sweep, fits, engine):
        _fit_group(sweep, group, engine, tally, ends)


def _missing(needs: Iterable[Mapping[Extraction, int]], cache: Path) -> dict[Extraction, frozenset[int]]:
    """{extraction: layers} of what is wanted and not on disk."""
    wanted: dict[Extraction, set[int]] = {}
    for of_job in needs:
        for extraction, layer in of_job.items():
            wanted.setdefault(extraction, set()).add(layer)
    missing = {
        extraction: frozenset(extraction.missing(layers, cache)) for extraction, layers in wanted.items()
    }
    return {extraction: layers for extraction, layers in missing.items() if layers}


def _extract_here(
    sweep: Sweep, engine: Engine, missing: Mapping[Extraction, frozenset[int]], tally: Tally
) -> dict[Extraction, str]:
    """Compute activations in this process, with all its cores and one model at a time; {extraction: error}."""
    problems: dict[Extraction, str] = {}
    for number, (extraction, layers) in enumerate(missing.items()):

        def progress(read: int, total: int, number: int = number, story: str = extraction.story) -> None:
            tally.at("activations", number + read / max(total, 1), len(missing), story)

        try:
            extraction.compute(layers, sweep.cache, progress=progress)
        except Exception as error:  # noqa: BLE001 - the runs that need this story report it
            problems[extraction] = error_text(error)
        tally.at("activations", number + 1, len(missing), extraction.story)
    return problems


def _extract_there(
    sweep: Sweep, engine: Engine, missing: Mapping[Extraction, frozenset[int]], tally: Tally
) -> dict[Extraction, str]:
    """Compute activations on the cluster, a task for each model and story; {extraction: error}."""
    groups: dict[tuple, list] = {}
    for extraction, layers in missing.items():
        groups.setdefault((extraction.spec.model_name, extraction.words), []).append((extraction, layers))
    calls = {number: (sweep.root, sweep.cache, group) for number, group in enumerate(groups.values())}
    problems: dict[Extraction, str] = {}
    done = 0

    def ended(number: int, found: Mapping[Extraction, str]) -> None:
        nonlocal done
        problems.update(found)
        group = calls[number][2]
        done += len(group)
        tally.at("activations", done, len(missing), group[0][0].story)

    def lost(number: int, error: BaseException) -> dict[Extraction, str]:
        return {extraction: error_text(error) for extraction, _ in calls[number][2]}

    if calls:
        tally.at("activations", 0, len(missing))
        engine.run(run_extractions, calls, ended, lost=lost, waiting=tally.again, root=sweep.root)
    return problems


Group = Sequence[Sequence[Job]]


def _together(sweep: Sweep, fits: Group, engine: Engine) -> list[Group]:
    """Subjects whose runs take turns, design by design, as they heard the same stories; else each by itself.

    Only as far as disk and memory hold the responses of all of them at once, since each run reads its
    subject's; and not on a cluster, where neighbours go to different machines.
    """
    free = min(shutil.disk_usage(sweep.root).free, _machine.free_memory())
    groups: list[tuple[Any, int, list]] = []
    for jobs in fits:
        plans = [sweep.plans[job.number] for job in jobs]
        stories = {story.name: story for plan in plans for story in plan.stories}
        heard = {name: _shared.story_key(story) for name, story in stories.items()}
        n_bytes = SharedInputs(jobs[0].folder).n_bytes(plans)
        if engine.local and groups and groups[-1][0] == heard and groups[-1][1] + n_bytes <= free:
            groups[-1] = (heard, groups[-1][1] + n_bytes, [*groups[-1][2], jobs])
        else:
            groups.append((heard, n_bytes, [jobs]))
    return [group for _, _, group in groups]


def _fit_group(sweep: Sweep, group: Group, engine: Engine, tally: Tally, ends: Ends) -> None:
    """Subjects' responses, then their runs; the files go when these have ended."""
    for jobs in group:

        def progress(done: int, total: int, story: str, subject: str = jobs[0].subject) -> None:
            tally.at("responses", done, total, f"{subject}, {story}")

        SharedInputs(jobs[0].folder).prepare([sweep.plans[job.number] for job in jobs], progress)
    tally.at("fits", tally.n_ended, tally.n_runs, ", ".join(jobs[0].subject for jobs in group))
    every = [job for jobs in group for job in jobs]
    places: dict[Settings, int] = {}
    for job in every:
        places.setdefault(job.settings, len(places))
    in_turn = sorted(every, key=lambda job: places[job.settings])
    (_fit_here if engine.here else _fit_there)(sweep, in_turn, engine, tally, ends)
    for jobs in group:
        shutil.rmtree(jobs[0].folder, ignore_errors=True)


def _fit_here(sweep: Sweep, jobs: Sequence[Job], engine: Engine, tally: Tally, ends: Ends) -> None:
    for job in jobs:

        def progress(step: Progress, subject: str = job.subject) -> None:
            tally.at("fits", tally.n_ended + step.overall, tally.n_runs, f"{subject}, {step.stage}")

        ends.of(job, fit(job, sweep.plans[job.number].assembly, progress))


def _fit_there(sweep: Sweep, jobs: Sequence[Job], engine: Engine, tally: Tally, ends: Ends) -> None:
    for job in {job.folder: job for job in jobs}.values():
        write_outline(sweep.plans[job.number].assembly, job.folder)
    by_number = {job.number: job for job in jobs}

    def ended(number: int, result: Result | SweepFailure) -> None:
        ends.of(by_number[number], result)

    def lost(number: int, error: BaseException) -> SweepFailure:
        job = by_number[number]
        return SweepFailure(job.settings, job.subject, error_text(error))

    calls = {job.number: (job,) for job in jobs}
    engine.run(run_job, calls, ended, lost=lost, waiting=tally.again, root=sweep.root)


class Ends:
    """Ends of runs, as they are told; what all results of a subject have in common is held once."""

    def __init__(self, sweep: Sweep, tally: Tally) -> None:
        self._sweep, self._tally = sweep, tally
        self._ceilings: dict[tuple, tuple[Array, Mapping[str, Array]]] = {}

    def of(self, job: Job, result: Result | SweepFailure) -> None:
        """Tell a step for each place that the job's result goes to."""
        if isinstance(result, Result):
            result = self._complete(job, result)
        tally = self._tally
        for place in self._sweep.positions[job.number]:
            tally.n_ended += 1
            tally.n_failed += isinstance(result, SweepFailure)
            tally.n_fitted += job.number not in self._sweep.recorded
            tally.at("fits", tally.n_ended, tally.n_runs, job.subject, number=place, result=result)

    def _complete(self, job: Job, result: Result) -> Result:
        if result.noise_ceiling is not None:
            settings = job.settings
            same = (job.subject, settings.trimming, settings.use_train_test_split, tuple(result.story_scores))
            ceilings = (result.noise_ceiling, result.story_noise_ceiling)
            whole, by_story = self._ceilings.setdefault(same, ceilings)
            result = replace(result, noise_ceiling=whole, story_noise_ceiling=by_story)
        if job.keep_predictions:
            lazy = records.load_run(result.provenance["record"])
            result = replace(result, predictions=lazy.predictions, measured=lazy.measured)
        return replace(result, rois=self._sweep.plans[job.number].assembly.rois)


def _loaded(job: Job, path: Path) -> Result | SweepFailure:
    """A recorded job's result without what is large, or why its record cannot be read."""
    try:
        result = slim(records.load_run(path))
    except records.RecordError as error:
        return SweepFailure(job.settings, job.subject, error_text(error))
    return replace(result, provenance={**result.provenance, "record": str(path)})
