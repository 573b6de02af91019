"""Runs of a sweep on whatever joblib runs them on: this process, threads, processes, or a cluster.

Which it is stands nowhere here: `joblib.parallel_config` and `n_jobs` decide. A run never raises: what goes
wrong in it comes back as a `SweepFailure`, so that the engine only ever breaks by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .._validation import describe
from ..assembly import Array
from ..pipeline import Result
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
    traceback : where, for whoever looks for the cause; empty where a worker was lost
    """

    settings: Settings
    subject: str
    error: str
    traceback: str = field(default="", repr=False)


def sweep_table(results: Sequence[Result | SweepFailure]) -> DataFrame:
    """A row per run: subject, the settings that vary, the summary metrics, and what went wrong, if anything did.

    Settings that hold several values are texts; where the stories vary, `n_stories` counts those trained on. A
    column `record` names the run's folder, where there is one.

    Raises
    ------
    TypeError
        No list of results.
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
        row["seconds"] = sum(result.provenance.get("seconds", {}).values())
        rows.append(row | {"record": result.provenance.get("record", ""), "problem": ""})
    frame = DataFrame(rows)
    return frame.drop(columns=[c for c in ("record", "problem") if c in frame and not frame[c].any()])


def listed_results(results: Any, caller: str) -> list[Result | SweepFailure]:
    """The results of a sweep in a list, where `caller` is the function that was called.

    Raises
    ------
    TypeError
        One result in place of a list, or something else.
    """
    kinds = (Result, SweepFailure)
    listed = isinstance(results, Iterable) and not isinstance(results, (str, Mapping))
    found = list(results) if listed else [results]
    wrong = [result for result in found if not isinstance(result, kinds)] if listed else found
    if wrong:
        raise TypeError(f"{caller}: expected results of run_sweep in a list, got {describe(wrong[0])}.")
    return found


def varying_settings(results: Sequence[Result | SweepFailure]) -> list[str]:
    """Names of the settings in which some of the results differ."""
    return [f.name for f in fields(Settings) if len({getattr(r.settings, f.name) for r in results}) > 1]


def n_training_stories(result: Result) -> int | None:
    """How many stories a run was fitted on; None where its settings take all and so do not say."""
    chosen = result.settings.stories
    if chosen is None:
        return None
    if not result.settings.use_train_test_split:
        return len(chosen)
    return len([story for story in chosen if story not in result.story_scores])


SPREAD = ("median", "first_quartile", "third_quartile", "percentile_5", "percentile_95")
N_STORIES = "n_stories"  # an x that is no setting: how many stories a run was trained on


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
    by : the setting that tells lines apart, or None for a single line
    voxels : bool array (n_voxels,), or {subject: array}; by default the voxels of each subject that are
        significant in at least one of its results, which favours no run

    Returns
    -------
    DataFrame with subject, `by`, `x`, median, first and third quartile, 5th and 95th percentile over the voxels,
    n_voxels and n_runs. With x="n_stories" runs on equally many stories are averaged, and only those.

    Raises
    ------
    ValueError
        No results; an x or `by` that is no setting, or an x that does not vary; several runs at one point; no voxels
        to show.
    TypeError
        No list of results.
    """
    from pandas import DataFrame

    results = listed_results(results, "curve_table")
    runs = [result for result in results if isinstance(result, Result)]
    if not runs:
        raise ValueError(
            f"Expected results of a sweep along {x}, got {'only failures' if results else 'none'}."
        )
    refuse_unknown("x", x, runs, also=N_STORIES)
    if by is not None:
        refuse_unknown("by", by, runs)
    points: dict[tuple, list[Array]] = {}
    chosen = {
        subject: shown_voxels(runs, subject, voxels) for subject in dict.fromkeys(r.subject for r in runs)
    }
    for run in runs:
        key = (run.subject, getattr(run.settings, by) if by else "", _place(run, x))
        points.setdefault(key, []).append(spread(run.scores[chosen[run.subject]]))
    if len({key[2] for key in points}) < 2:
        raise ValueError(f"Expected results that differ in {x}, got {next(iter(points))[2]!r} only.")
    crowded = next((key for key, found in points.items() if len(found) > 1), None)
    if crowded and x != N_STORIES:
        others = [name for name in varying_settings(runs) if name not in (x, by)]
        raise ValueError(
            f"Expected one run of {crowded[0]} with {x}={crowded[2]!r}"
            + (f" and {by}={crowded[1]!r}" if by else "")
            + f", got {len(points[crowded])}, which differ in {', '.join(others) or 'nothing'}; take some of the "
            f"results, or another `by`."
        )
    rows = []
    for (subject, line, place), found in points.items():
        row = {"subject": subject, by or "line": line, x: place}
        row |= dict(zip(SPREAD, np.mean(found, axis=0).tolist(), strict=True))
        rows.append(row | {"n_voxels": int(chosen[subject].sum()), "n_runs": len(found)})
    return DataFrame(rows).sort_values(["subject", by or "line", x], kind="stable", ignore_index=True)


def refuse_unknown(argument: str, name: Any, runs: Sequence[Result], *, also: str = "") -> None:
    """A ValueError for a name that is no setting, with those in which the runs differ."""
    if name in [f.name for f in fields(Settings)] or (also and name == also):
        return
    varying = ", ".join(varying_settings(runs)) or "none"
    or_also = f" or {also!r}" if also else ""
    raise ValueError(
        f"{argument}: expected the name of a setting{or_also}, got {describe(name)}; these results differ in {varying}."
    )


def spread(scores: Array) -> Array:
    """Median, quartiles, 5th and 95th percentile of the scores that are numbers, as `SPREAD` names them."""
    scores = scores[np.isfinite(scores)]
    return np.percentile(scores, [50, 25, 75, 5, 95]) if len(scores) else np.full(len(SPREAD), np.nan)


def _place(run: Result, x: str) -> Any:
    if x != N_STORIES:
        return getattr(run.settings, x)
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
    mask = np.any([run.significant for run in own], axis=0) if voxels is None else np.asarray(voxels)
    if mask.dtype != bool or mask.shape != (sizes[0],) or not mask.any():
        raise ValueError(
            f"Expected a mask of the {sizes[0]} voxels of {subject} with at least one chosen, got "
            f"{int(mask.sum())} chosen of {mask.size}; pass `voxels`, such as a result's rois['AC']."
        )
    return mask
