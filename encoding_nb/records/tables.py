"""Lists the records of a folder, and compares runs."""

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
from ..pipeline import TEST_NAMES, Result
from ..settings import Settings
from . import load
from .load import folder_of, load_description, load_run, missing_part, read_metrics, read_settings

if TYPE_CHECKING:
    from pandas import DataFrame


LISTED_SETTINGS = (
    "modality",
    "joined_with",
    "model_name",
    "weights",
    "layer_idx",
    "lookback",
    "significance",
)
LISTED_METRICS = ("median_score", "max_score", "n_significant")


def list_runs(results_dir: str | Path = "results", *, every_byte: bool = False) -> DataFrame:
    """The records of a folder, a row each, the oldest first.

    Columns: run (the folder's name), time (UTC), name, subject, some settings, some metrics, test (by what voxels count
    as significant, or why they are not tested; n_significant is NaN then), seconds, status, path. A status is "whole";
    "broken: " and why, for a folder that has a record's name but cannot be read; or "unfinished: ", for one that is
    being written or was left by a run that was killed. All other folders are left out. A folder that does not exist
    gives an empty table.

    Parameters
    ----------
    results_dir : folder
    every_byte : bool
        Read all files, which may be gigabytes, and compare their SHA-256; without it only descriptions,
        settings and metrics are read, and of other files the sizes compared.

    Raises
    ------
    RecordError
        results_dir is not a path.
    """
    from pandas import DataFrame

    folder = folder_of(results_dir, "list_runs")
    there = folder.iterdir() if folder.is_dir() else ()
    found = [p for p in there if load.RECORD_NAME.fullmatch(p.name) or load.DRAFT_NAME.fullmatch(p.name)]
    found.sort(key=_age)
    settings, metrics = list(LISTED_SETTINGS), list(LISTED_METRICS)
    columns = ["run", "time", "name", "subject", *settings, *metrics, "test", "seconds", "status", "path"]
    return DataFrame([_row(path, every_byte=every_byte) for path in found], columns=columns)


def _age(path: Path) -> tuple[str, int, str]:
    """For sorting: the second, which the name holds, then the time at which the folder was written."""
    name = path.name.removeprefix(".")
    try:
        written = path.stat().st_mtime_ns
    except OSError:  # just moved into place, or removed
        written = 0
    return name.split("_")[0], written, name


def _row(path: Path, *, every_byte: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"run": path.name, "path": str(path)}
    try:
        when = path.name.removeprefix(".").split("_")[0]
        row["time"] = datetime.strptime(when, load.TIME_FORMAT).replace(tzinfo=UTC)
        if load.DRAFT_NAME.fullmatch(path.name):
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
        row["test"] = _test(described, settings)
        row["seconds"] = sum(described["SecondsByStage"].values())
        fault = missing_part(path, described, every_byte=every_byte)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one record, the others are listed
        fault = str(error) or type(error).__name__
    return row | {"status": f"broken: {fault.removeprefix(f'{path}: ')}" if fault else "whole"}


def _test(described: Mapping[str, Any], settings: Settings) -> str:
    """By what a record's voxels count as significant; earlier versions tested all runs, and did not name the test."""
    if "Test" in described:
        return described["Test"]
    found = TEST_NAMES[settings.significance]
    return (
        found
        if settings.use_train_test_split
        else f"{found}, finds too many voxels; see the note of load_run"
    )


def compare_runs(runs: Sequence[Result | str | Path] | DataFrame, *, regions: bool = False) -> DataFrame:
    """What sets runs apart: a row per run, two levels of columns.

    Under "settings" the settings that differ, "data" the data's digest where records differ in it, under
    "metrics" the summary metrics (NaN for a run that lacks one, such as the number of significant voxels of a run that
    is not tested), under "difference" each metric less the first run's, under "test" by what voxels count as
    significant, and under "maps" the correlation of each run's scores with the first run's over voxels (NaN where they
    have other voxels).

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
    from pandas import DataFrame, concat

    runs = _listed(runs)
    described = [{} if isinstance(run, Result) else load_description(run) for run in runs]
    results = [run if isinstance(run, Result) else load_run(run) for run in runs]
    names = [each.get("RunName") for each in described]
    if not all(names) or len(set(names)) < len(names):
        names = [f"run {i}" if isinstance(run, Result) else Path(run).name for i, run in enumerate(runs)]
    digests = [
        each.get("DataDigest", result.provenance.get("data_digest"))
        for each, result in zip(described, results, strict=True)
    ]
    flat = [load.flattened(json.loads(result.settings.to_json())) for result in results]
    differing = [name for name in flat[0] if any(each[name] != flat[0][name] for each in flat)]
    known = dict.fromkeys(name for result in results for name in result.metrics)
    shown = [name for name in known if regions or "/" not in name]
    metrics = DataFrame([result.metrics for result in results], index=names, columns=shown)
    maps = [_correlation(results[0], result) for result in results]
    parts = {
        "settings": DataFrame(flat, index=names, columns=differing),
        "data": DataFrame({"digest": [(digest or "")[:12] for digest in digests]}, index=names),
        "metrics": metrics,
        "difference": metrics.apply(lambda column: column - column.iloc[0]),
        "test": DataFrame({"name": [result.test_name for result in results]}, index=names),
        "maps": DataFrame({"r_with_first": maps}, index=names),
    }
    if len(set(digests)) == 1:
        del parts["data"]
    return concat(parts, axis=1)


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


def _correlation(first: Result, other: Result) -> float:
    """Pearson correlation of two maps over the voxels that both have; NaN where they are of other voxels."""
    from pandas import Series

    if first.scores.shape != other.scores.shape:
        return math.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return Series(first.scores).corr(Series(other.scores), min_periods=2)
