"""Tables of a sweep: a row per run, or the scores along one setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .._validation import describe
from ..assembly import Array
from ..pipeline import Result
from ..plots import chosen_voxels, found_in_any
from ..settings import Settings

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class SweepFailure:
    """A run that failed, in the place of its `Result`.

    Attributes
    ----------
    settings, subject : of the run
    error : what was raised, with its type
    traceback : the traceback, for finding the cause; empty if the run never started
    """

    settings: Settings
    subject: str
    error: str
    traceback: str = field(default="", repr=False)


def sweep_table(results: Sequence[Result | SweepFailure]) -> DataFrame:
    """A row per run: subject, the settings that vary, the summary metrics, and the error if it failed.

    Settings that hold several values are texts; where the stories vary, `n_stories` counts those trained on. The column
    `test` says by what voxels count as significant, or why a run is not tested: its number of significant voxels is NaN
    then. A column `record` names the run's folder, where there is one.

    Raises
    ------
    TypeError
        Not a list of results.
    """
    from pandas import DataFrame

    results = listed_results(results, "sweep_table")
    varying = varying_settings(results)
    rows = []
    for result in results:
        row: dict[str, Any] = {"subject": result.subject}
        for name in varying:
            value = getattr(result.settings, name)
            row[name] = value if isinstance(value, (str, int, float, type(None))) else str(value)
        if "stories" in varying and isinstance(result, Result):
            row["stories"] = ", ".join(result.settings.stories or ("all",))
            row["n_stories"] = n_training_stories(result)
        if isinstance(result, SweepFailure):
            rows.append(row | {"problem": result.error})
            continue
        row |= {name: value for name, value in result.metrics.items() if "/" not in name}  # not by region
        row["test"] = result.test_name
        row["seconds"] = sum(result.provenance.get("seconds", {}).values())
        rows.append(row | {"record": result.provenance.get("record", ""), "problem": ""})
    frame = DataFrame(rows)
    return frame.drop(columns=[c for c in ("record", "problem") if c in frame and not frame[c].any()])


def listed_results(results: Any, caller: str) -> list[Result | SweepFailure]:
    """The results of a sweep in a list, where `caller` is the function that was called.

    Raises
    ------
    TypeError
        A single result, or anything else that is not a list of results.
    """
    kinds = (Result, SweepFailure)
    listed = isinstance(results, Iterable) and not isinstance(results, (str, Mapping))
    found = list(results) if listed else [results]
    wrong = [result for result in found if not isinstance(result, kinds)] if listed else found
    if wrong:
        raise TypeError(f"{caller}: expected results of run_sweep in a list, got {describe(wrong[0])}.")
    return found


def finished(results: Sequence[Result | SweepFailure]) -> list[Result]:
    """The results without the failures."""
    return [result for result in results if isinstance(result, Result)]


def varying_settings(results: Sequence[Result | SweepFailure]) -> list[str]:
    """Names of the settings in which some of the results differ."""
    return [f.name for f in fields(Settings) if len({getattr(r.settings, f.name) for r in results}) > 1]


def n_training_stories(result: Result) -> int | None:
    """How many stories a run was fitted on; None if its settings take all stories."""
    chosen = result.settings.stories
    if chosen is None:
        return None
    if not result.settings.use_train_test_split:
        return len(chosen)
    return len([story for story in chosen if story not in result.story_scores])


SPREAD = ("median", "first_quartile", "third_quartile", "percentile_5", "percentile_95")
N_STORIES = "n_stories"  # an x that is not a setting: the number of training stories


def curve_table(
    results: Sequence[Result | SweepFailure],
    *,
    x: str,
    by: str | None = None,
    voxels: Array | Mapping[str, Array] | None = None,
) -> DataFrame:
    """Scores along one setting: a row per subject, line and point.

    Parameters
    ----------
    results : of a sweep, in a list; failed runs are left out
    x : a setting, such as "layer_idx", or "n_stories", the number of training stories
    by : the setting with a line for each of its values, or None for a single line
    voxels : bool array (n_voxels,), or {subject: array}; by default the voxels of each subject that are
        significant in at least one of its results, or all if any of them is not tested

    Returns
    -------
    DataFrame with subject, `by`, `x`, median, first and third quartile, 5th and 95th percentile over the voxels,
    n_voxels and n_runs. With x="n_stories" runs on equally many stories are averaged, and only those.

    Raises
    ------
    ValueError
        No results; an x or `by` that is not a setting; an x that does not vary; several runs at one point; no voxels
        to show.
    TypeError
        Not a list of results.
    """
    results = listed_results(results, "curve_table")
    runs = finished(results)
    if not runs:
        raise ValueError(
            f"Expected results of a sweep along {x}, got {'only failures' if results else 'none'}."
        )
    check_known("x", x, runs, also=N_STORIES)
    if by is not None:
        check_known("by", by, runs)
    table = spread_table(runs, {by or "line": by, x: x}, voxels).infer_objects()
    if table[x].nunique(dropna=False) < 2:
        raise ValueError(f"Expected results that differ in {x}, got {_value(runs[0], x)!r} only.")
    points = table.groupby(list(dict.fromkeys(["subject", by or "line", x])), dropna=False)
    n_runs = points["n_voxels"].transform("size")
    if n_runs.max() > 1 and x != N_STORIES:
        run, others = runs[n_runs.argmax()], [n for n in varying_settings(runs) if n not in (x, by)]
        raise ValueError(
            f"Expected one run of {run.subject} with {x}={_value(run, x)!r}"
            + (f" and {by}={_value(run, by)!r}" if by else "")
            + f", got {n_runs.max()}, which differ in {', '.join(others) or 'nothing'}; take some of the results, or "
            f"another `by`."
        )
    scores = points[list(SPREAD)]
    means = scores.mean().where(scores.count().eq(points.size(), axis=0))  # NaN where a run has no scores
    return means.assign(n_voxels=points["n_voxels"].first(), n_runs=points.size()).reset_index()


def spread_table(
    runs: Sequence[Result], columns: Mapping[str, str | None], voxels: Array | Mapping[str, Array] | None
) -> DataFrame:
    """A row per run: subject, settings by the names of their columns, `SPREAD` over the voxels shown, n_voxels."""
    from pandas import DataFrame

    subjects = dict.fromkeys(run.subject for run in runs)
    masks = {subject: shown_voxels(runs, subject, voxels) for subject in subjects}
    rows = []
    for run in runs:
        mask = masks[run.subject]
        scores = run.scores[mask & np.isfinite(run.scores)]
        spread = np.percentile(scores, [50, 25, 75, 5, 95]) if len(scores) else [np.nan] * len(SPREAD)
        row = {"subject": run.subject, **{column: _value(run, name) for column, name in columns.items()}}
        rows.append(row | dict(zip(SPREAD, spread, strict=True)) | {"n_voxels": int(mask.sum())})
    # settings stay objects, else None would be NaN
    return DataFrame(rows, dtype=object).astype(dict.fromkeys(SPREAD, float) | {"n_voxels": int})


def check_known(argument: str, name: Any, runs: Sequence[Result], *, also: str = "") -> None:
    """A ValueError for a name that is not a setting; lists the settings in which the runs differ."""
    if name in [f.name for f in fields(Settings)] or (also and name == also):
        return
    varying = ", ".join(varying_settings(runs)) or "none"
    or_also = f" or {also!r}" if also else ""
    raise ValueError(
        f"{argument}: expected the name of a setting{or_also}, got {describe(name)}; these results differ in {varying}."
    )


def _value(run: Result, name: str | None) -> Any:
    """A run's setting, or its number of training stories; an empty text without a name."""
    if name != N_STORIES:
        return getattr(run.settings, name) if name else ""
    found = n_training_stories(run)
    if found is None:
        raise ValueError(
            "Expected runs whose settings name their stories, got stories=None; make the grid with "
            "stories=story_subsets(assembly, counts)."
        )
    return found


def shown_voxels(runs: Sequence[Result], subject: str, voxels: Array | Mapping[str, Array] | None) -> Array:
    """(n_voxels,) bool: which voxels of a subject are shown."""
    own = [run for run in runs if run.subject == subject]
    sizes = sorted({len(run.scores) for run in own})
    if len(sizes) > 1:
        raise ValueError(
            f"Expected results of the same voxels, got {', '.join(map(str, sizes))} voxels of {subject}."
        )
    if isinstance(voxels, Mapping):
        voxels = voxels.get(subject)
    if voxels is None:
        voxels = found_in_any(own)[0]
    if voxels is None:
        voxels = np.ones(sizes[0], bool)
    return chosen_voxels(voxels, sizes[0], f"such as rois['AC'] of a result of {subject}")
