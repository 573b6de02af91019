"""The stages of a sweep, in order: what is recorded, activations, then subjects' responses and runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import _machine, records
from ..assembly import Array, Assembly, assembly_digest
from ..features import store_folder
from ..pipeline import Result, split_stories
from ..settings import Settings
from . import _shared
from ._engine import Engine, Job, error_text, job_steps, run_extractions, run_job, slim
from ._outline import write_outline
from ._shared import Extraction, SharedInputs
from .grid import in_order_of_sharing
from .tables import SweepFailure

Steps = Iterator["SweepProgress"]
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


class Tally:
    """Counts runs and seconds for `SweepProgress`."""

    def __init__(self, n_runs: int, *, extracts: bool) -> None:
        self.n_runs, self.n_ended, self.n_failed, self.n_fitted = n_runs, 0, 0, 0
        self._started: dict[str, float] = {}
        self._skip = 0.0 if extracts else 0.5
        self._furthest = 0.0

    def at(self, stage: str, done: float, total: float, detail: str = "", **ended: Any) -> SweepProgress:
        """A step: `done` of `total` of a stage; `ended` names the run that has just ended."""
        elapsed = time.monotonic() - self._started.setdefault(stage, time.monotonic())
        # Runs that were found on disk took no time, so the rest is not reckoned from them.
        worked = self.n_fitted + (done - self.n_ended) if stage == "fits" else done
        left = elapsed * (total - done) / worked if worked > 0 and elapsed > 0.5 else None
        before, share = _SHARES[stage]
        overall = before + share * done / max(total, 1)
        overall = max(0.0, overall - self._skip) / (1 - self._skip)
        # each subject's responses come between the fits, and progress never runs backwards
        self._furthest = max(self._furthest, overall)
        return SweepProgress(stage, done, total, self._furthest, detail, left, self.n_failed, **ended)


# ---------------------------------------------------------------------- the plan


@dataclass(frozen=True, eq=False)
class Plan:
    """What a sweep is going to do.

    Attributes
    ----------
    assemblies : one per subject
    jobs : for each subject its jobs, in an order that lets neighbours share
    positions : {number of a job: where its result goes}; equal settings are one job
    recorded : {number of a job: the record it was found in}
    root : the sweep's folder
    cache : where activations are kept
    """

    assemblies: Sequence[Assembly]
    jobs: Sequence[Sequence[Job]]
    positions: Mapping[int, Sequence[int]]
    recorded: Mapping[int, Path]
    root: Path
    cache: Path


def make_plan(
    assemblies: Sequence[Assembly],
    grid: Sequence[Settings],
    *,
    memory: Any,
    root: Path,
    results_dir: Path | None,
    keep_predictions: bool,
) -> Plan:
    """Jobs for every subject and every distinct settings; looks up what is recorded."""
    known = recorded_runs(results_dir, predictions=keep_predictions) if results_dir else {}
    cache = store_folder(memory).parents[1]  # of .../joblib/encoding_nb/activations
    jobs, positions, recorded = [], {}, {}
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
    return Plan(assemblies, jobs, positions, recorded, root, cache)


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


def stages(plan: Plan, engine: Engine) -> Steps:
    """Every stage of a sweep, step by step."""
    left = [[job for job in own if job.number not in plan.recorded] for own in plan.jobs]
    needs = {
        job.number: _shared.extractions(assembly, job.settings)
        for assembly, own in zip(plan.assemblies, left, strict=True)
        for job in own
    }
    missing = _missing(needs.values(), plan.cache)
    tally = Tally(sum(map(len, plan.positions.values())), extracts=bool(missing))
    ends = Ends(plan, tally)
    for own in plan.jobs:
        for job in own:
            if job.number in plan.recorded:
                yield from ends.of(job, _loaded(job, plan.recorded[job.number]))
    extract = _extract_here if engine.local else _extract_there
    problems = yield from extract(plan, engine, missing, tally)
    blocked = {
        number: problems[extraction]
        for number, of_job in needs.items()
        for extraction in of_job
        if extraction in problems
    }
    fits = []
    for assembly, own in zip(plan.assemblies, left, strict=True):
        for job in own:
            if job.number in blocked:
                yield from ends.of(job, SweepFailure(job.settings, job.subject, blocked[job.number]))
        if able := [job for job in own if job.number not in blocked]:
            fits.append((assembly, able))
    for group in _together(plan, fits, engine):
        yield from _fit_group(group, engine, tally, ends)


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
    plan: Plan, engine: Engine, missing: Mapping[Extraction, frozenset[int]], tally: Tally
) -> Generator[SweepProgress, None, dict[Extraction, str]]:
    """Compute activations in this process, with all its cores and one model at a time; {extraction: error}."""
    problems: dict[Extraction, str] = {}
    for number, (extraction, layers) in enumerate(missing.items()):
        try:
            for read, total in extraction.steps(layers, plan.cache):
                yield tally.at("activations", number + read / max(total, 1), len(missing), extraction.story)
        except Exception as error:  # noqa: BLE001 - the runs that need this story report it
            problems[extraction] = error_text(error)
        yield tally.at("activations", number + 1, len(missing), extraction.story)
    return problems


def _extract_there(
    plan: Plan, engine: Engine, missing: Mapping[Extraction, frozenset[int]], tally: Tally
) -> Generator[SweepProgress, None, dict[Extraction, str]]:
    """Compute activations on the cluster, a task for each model and story; {extraction: error}."""
    groups: dict[tuple, list] = {}
    for extraction, layers in missing.items():
        groups.setdefault((extraction.spec.model_name, extraction.words), []).append((extraction, layers))
    calls = {number: (plan.root, plan.cache, group) for number, group in enumerate(groups.values())}
    problems: dict[Extraction, str] = {}
    done = 0
    if calls:
        yield tally.at("activations", 0, len(missing))

    def lost(number: int, error: BaseException) -> dict[Extraction, str]:
        return {extraction: error_text(error) for extraction, _ in calls[number][2]}

    with engine.outcomes(run_extractions, calls, lost, root=plan.root) as outcomes:
        for number, found in outcomes:
            problems |= found
            done += len(calls[number][2])
            yield tally.at("activations", done, len(missing), calls[number][2][0][0].story)
    return problems


Group = Sequence[tuple[Assembly, Sequence[Job]]]


def _together(plan: Plan, fits: Group, engine: Engine) -> list[Group]:
    """Subjects whose runs take turns, design by design, as they heard the same stories; else each by itself.

    Only as far as disk and memory hold the responses of all of them at once, since each run reads its
    subject's; and not on a cluster, where neighbours go to different machines.
    """
    free = min(shutil.disk_usage(plan.root).free, _machine.free_memory())
    groups: list[tuple[Any, int, list]] = []
    for assembly, jobs in fits:
        settings = [job.settings for job in jobs]
        splits = [split_stories(assembly, s) for s in settings]
        names = {name for split in splits for name in (*split.train, *split.test)}
        heard = {name: _shared.story_key(assembly.stories[name]) for name in names}
        n_bytes = SharedInputs(jobs[0].folder).n_bytes(assembly, settings)
        if engine.local and groups and groups[-1][0] == heard and groups[-1][1] + n_bytes <= free:
            groups[-1] = (heard, groups[-1][1] + n_bytes, [*groups[-1][2], (assembly, jobs)])
        else:
            groups.append((heard, n_bytes, [(assembly, jobs)]))
    return [group for _, _, group in groups]


def _fit_group(group: Group, engine: Engine, tally: Tally, ends: Ends) -> Steps:
    """Subjects' responses, then their runs; the files go when these have ended."""
    for assembly, jobs in group:
        for done, total, story in SharedInputs(jobs[0].folder).prepare(
            assembly, [job.settings for job in jobs]
        ):
            yield tally.at("responses", done, total, f"{assembly.subject}, {story}")
    assemblies = {assembly.subject: assembly for assembly, _ in group}
    yield tally.at("fits", tally.n_ended, tally.n_runs, ", ".join(assemblies))
    every = [job for _, jobs in group for job in jobs]
    places: dict[Settings, int] = {}
    for job in every:
        places.setdefault(job.settings, len(places))
    in_turn = sorted(every, key=lambda job: places[job.settings])
    yield from (_fit_here if engine.here else _fit_there)(assemblies, in_turn, engine, tally, ends)
    for _, jobs in group:
        shutil.rmtree(jobs[0].folder, ignore_errors=True)


def _fit_here(
    assemblies: Mapping[str, Assembly], jobs: Sequence[Job], engine: Engine, tally: Tally, ends: Ends
) -> Steps:
    for job in jobs:
        steps = job_steps(job, assemblies[job.subject])
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                yield from ends.of(job, stop.value)
                break
            yield tally.at("fits", tally.n_ended + step.overall, tally.n_runs, f"{job.subject}, {step.stage}")


def _fit_there(
    assemblies: Mapping[str, Assembly], jobs: Sequence[Job], engine: Engine, tally: Tally, ends: Ends
) -> Steps:
    for folder, subject in {job.folder: job.subject for job in jobs}.items():
        write_outline(assemblies[subject], folder)
    by_number = {job.number: job for job in jobs}

    def lost(number: int, error: BaseException) -> SweepFailure:
        job = by_number[number]
        return SweepFailure(job.settings, job.subject, error_text(error))

    calls = {job.number: (job,) for job in jobs}
    with engine.outcomes(run_job, calls, lost, root=jobs[0].root) as outcomes:
        for number, result in outcomes:
            yield from ends.of(by_number[number], result)


class Ends:
    """Ends of runs, as they are told; what all results of a subject have in common is held once."""

    def __init__(self, plan: Plan, tally: Tally) -> None:
        self._plan, self._tally = plan, tally
        self._assemblies = {assembly.subject: assembly for assembly in plan.assemblies}
        self._ceilings: dict[tuple, tuple[Array, Mapping[str, Array]]] = {}

    def of(self, job: Job, result: Result | SweepFailure) -> Steps:
        """A step for each place that the job's result goes to."""
        if isinstance(result, Result):
            result = self._complete(job, result)
        tally = self._tally
        for place in self._plan.positions[job.number]:
            tally.n_ended += 1
            tally.n_failed += isinstance(result, SweepFailure)
            tally.n_fitted += job.number not in self._plan.recorded
            yield tally.at("fits", tally.n_ended, tally.n_runs, job.subject, number=place, result=result)

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
        return replace(result, rois=self._assemblies[job.subject].rois)


def _loaded(job: Job, path: Path) -> Result | SweepFailure:
    """A recorded job's result without what is large, or why its record cannot be read."""
    try:
        result = slim(records.load_run(path))
    except records.RecordError as error:
        return SweepFailure(job.settings, job.subject, error_text(error))
    return replace(result, provenance={**result.provenance, "record": str(path)})
