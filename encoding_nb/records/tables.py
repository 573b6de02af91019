"""Records side by side: which there are, and what sets them apart."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._validation import describe
from ..pipeline import Result
from .load import (
    DRAFT_NAME,
    RECORD_NAME,
    TIME_FORMAT,
    folder_of,
    load_description,
    load_run,
    missing_part,
    read_metrics,
    read_settings,
)

if TYPE_CHECKING:
    from pandas import DataFrame


LISTED_SETTINGS = ("modality", "model_name", "layer_idx", "lookback")
LISTED_METRICS = ("median_score", "max_score", "n_significant")


def list_runs(results_dir: str | Path = "results", *, every_byte: bool = False) -> DataFrame:
    """The records of a folder, a row each, the oldest first.

    Columns: run (the folder's name), time (UTC), name, subject, some settings, some metrics, seconds, status,
    path. A status is "whole"; "broken: " and why, for a folder that has a record's name but cannot be read; or
    "unfinished: ", for one that is being written or was left by a run that was killed. All other folders are
    left out. A folder that does not exist gives an empty table.

    Parameters
    ----------
    results_dir : folder
    every_byte : bool
        Read all files, which may be gigabytes, and compare their SHA-256; without it only descriptions,
        settings and metrics are read, and of other files the sizes compared.

    Raises
    ------
    RecordError
        A results_dir that is no path.
    """
    from pandas import DataFrame

    folder = folder_of(results_dir, "list_runs")
    there = folder.iterdir() if folder.is_dir() else ()
    found = [p for p in there if RECORD_NAME.fullmatch(p.name) or DRAFT_NAME.fullmatch(p.name)]
    found.sort(key=_age)
    settings, metrics = list(LISTED_SETTINGS), list(LISTED_METRICS)
    columns = ["run", "time", "name", "subject", *settings, *metrics, "seconds", "status", "path"]
    return DataFrame([_row(path, every_byte=every_byte) for path in found], columns=columns)


def _age(path: Path) -> tuple[str, int, str]:
    """Names tell the second; runs of one second are told apart by when their folders were written."""
    name = path.name.removeprefix(".")
    try:
        written = path.stat().st_mtime_ns
    except OSError:  # just moved into place, or removed
        written = 0
    return name.split("_")[0], written, name


def _row(path: Path, *, every_byte: bool) -> dict[str, Any]:
    row = {"run": path.name, "path": str(path)}
    try:
        when = path.name.removeprefix(".").split("_")[0]
        row["time"] = datetime.strptime(when, TIME_FORMAT).replace(tzinfo=UTC)
        if DRAFT_NAME.fullmatch(path.name):
            return row | {
                "status": "unfinished: being written now, or left by a run that was killed; if none is being saved, "
                "delete the folder"
            }
        described = load_description(path)
        row |= {"name": described.get("RunName") or "", "subject": described["Subject"]}
        settings = read_settings(path, described)
        row |= {name: getattr(settings, name) for name in LISTED_SETTINGS}
        metrics = read_metrics(path)
        row |= {name: metrics.get(name, math.nan) for name in LISTED_METRICS}
        row["seconds"] = sum(described["SecondsByStage"].values())
        fault = missing_part(path, described, every_byte=every_byte)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one record, the others are listed
        fault = str(error) or type(error).__name__
    return row | {"status": f"broken: {fault.removeprefix(f'{path}: ')}" if fault else "whole"}


def compare_runs(runs: Sequence[Result | str | Path] | DataFrame, *, regions: bool = False) -> DataFrame:
    """What sets runs apart: a row per run, two levels of columns.

    Under "settings" the settings that differ, "data" the data's digest where records differ in it, under
    "metrics" the summary metrics, under "difference" each metric less the first run's, and under "maps" the
    correlation of each run's scores with the first run's over voxels (NaN where they have other voxels).

    Parameters
    ----------
    runs : results, or folders of records, or the table of `list_runs`, whole or some rows of it
    regions : bool
        Whether the metrics by region ("AC/median_score") are compared, too.

    Raises
    ------
    ValueError, RecordError
        Something else than runs, or fewer than two; a record that cannot be read.
    """
    from pandas import DataFrame, MultiIndex

    runs = _listed(runs)
    names = _labels(runs)
    results = [run if isinstance(run, Result) else load_run(run) for run in runs]
    columns: dict[tuple[str, str], list[Any]] = {}
    flat = [_flat(json.loads(result.settings.to_json())) for result in results]
    for name in flat[0]:
        values = [settings.get(name) for settings in flat]
        if any(value != values[0] for value in values):
            columns["settings", name] = values
    digests = [_digest(run) for run in runs]
    if len(set(digests)) > 1:
        columns["data", "digest"] = [digest[:12] if digest else "" for digest in digests]
    shared = [
        name
        for name in results[0].metrics
        if (regions or "/" not in name) and all(name in result.metrics for result in results)
    ]
    for name in shared:
        columns["metrics", name] = [result.metrics[name] for result in results]
    for name in shared:
        columns["difference", name] = [r.metrics[name] - results[0].metrics[name] for r in results]
    columns["maps", "r_with_first"] = [_map_correlation(results[0], result) for result in results]
    frame = DataFrame(list(zip(*columns.values(), strict=True)), index=names)
    frame.columns = MultiIndex.from_tuples(columns)
    return frame


def _listed(runs: Any) -> list[Result | str | Path]:
    """Two or more runs: those of a list, or the folders that a table of `list_runs` names."""
    from pandas import DataFrame

    if isinstance(runs, DataFrame) and "path" in runs:
        runs = runs["path"]
    kinds = (Result, str, os.PathLike)
    listed = isinstance(runs, Iterable) and not isinstance(runs, (*kinds, DataFrame))
    found = list(runs) if listed else [runs]
    if len(found) < 2 or not all(isinstance(run, kinds) for run in found):
        raise ValueError(
            f"compare_runs: expected two or more results or folders of records, in a list, got "
            f"{', '.join(map(describe, found)) or 'none'}."
        )
    return found


def _labels(runs: Sequence[Result | str | Path]) -> list[str]:
    """The names that runs were given, or, where one has none or two share one, those of their folders."""
    folders = [
        f"run {number}" if isinstance(run, Result) else Path(run).name for number, run in enumerate(runs)
    ]
    given = [None if isinstance(run, Result) else load_description(run).get("RunName") for run in runs]
    return given if all(given) and len(set(given)) == len(given) else folders


def _digest(run: Result | str | Path) -> str | None:
    if isinstance(run, Result):
        return run.provenance.get("data_digest")
    return load_description(Path(run)).get("DataDigest")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"trimming": {"a": 1}} as {"trimming.a": 1}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _map_correlation(first: Result, other: Result) -> float:
    if first.scores.shape != other.scores.shape:
        return math.nan
    both = np.isfinite(first.scores) & np.isfinite(other.scores)
    if both.sum() < 2:
        return math.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(first.scores[both], other.scores[both])[0, 1])
