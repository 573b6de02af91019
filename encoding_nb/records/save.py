"""Writes a run to disk: each record is a folder, complete or absent, with a description of how it was made.

    results/2026-01-31T120000Z_1a2b3c4d/
        settings.json               the settings, as `Settings.from_json` reads them
        metrics.json                the summary numbers, and those by region ("AC/median_score"); NaN is null
        arrays.npz                  every array of the Result that is not None; no pickles
        flatmap.png, stories.png, alphas.png
        dataset_description.json    provenance in the manner of BIDS derivatives, and the files with their SHA-256

A record is written under a name that starts with a dot and renamed when it is complete. A run that is killed leaves
at most such a dotted folder, which `list_runs` calls unfinished.

The description's keys follow dataset_description.json of BIDS derivatives where BIDS has one (Name, BIDSVersion,
DatasetType, GeneratedBy, SourceDatasets; bids-specification.readthedocs.io, "Modality agnostic files").
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from .. import _files, _progress, plots
from .._validation import check_result
from ..assembly import DIGEST_COVERS, Assembly, assembly_digest, check_assembly
from ..brain import roi_metrics
from ..pipeline import Result
from . import load
from .load import DESCRIPTION, RecordError, folder_of

if TYPE_CHECKING:
    from pandas import DataFrame


BIDS_VERSION = "1.9.0"
PICTURE_DPI = 150


def save_run(
    result: Result,
    results_dir: str | Path = "results",
    *,
    assembly: Assembly | None = None,
    run_name: str | None = None,
    figures: bool = True,
    svg: bool = False,
    table: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a result into a folder of its own and return that folder, whole.

    Its metrics are written with those of every region: of the masks that came with the data or, where there are
    none, of the areas drawn for the subject.

    Parameters
    ----------
    result : Result
    results_dir : folder
        Made if need be. The record is the folder `<UTC time>_<digest>` in it; the digest is of settings,
        data, scores, name and extra, so that saving the same once more finds the same folder and returns it.
    assembly : Assembly, optional
        The data of the run, for its digest (`assembly.assembly_digest`) and for what they were loaded from.
    run_name : str, optional
        A name to find it by.
    figures, svg : bool
        Pictures as PNG, and as SVG too. A picture that cannot be drawn is left out with a warning.
    table : bool
        scores.csv, a row per voxel, see `score_table`.
    extra : mapping, optional
        Anything else that JSON can hold; kept in the description under "Extra".

    Raises
    ------
    ValueError
        Before anything is written: an `extra` that JSON cannot hold, a results_dir that is not a folder, an
        assembly that is not the run's.
    TypeError
        `result` is not a Result, or `assembly` not an Assembly.
    OSError
        A folder that cannot be written; nothing is left behind.
    """
    check_result(result, "save_run")
    described = _description(result, assembly, run_name, extra)
    folder = check_results_dir(results_dir)
    name = _record_name(result, described)
    drawers = {"stories": plots.plot_stories, "alphas": plots.plot_alphas}
    if result.surface is not None:
        drawers["flatmap"] = plots.plot_flatmap
    tables = ["scores.csv"] if table else []
    suffixes = [suffix for suffix, wanted in (("png", figures), ("svg", svg)) if wanted]
    pictures = {f"{name}.{suffix}": draw for suffix in suffixes for name, draw in drawers.items()}
    with suppress(RecordError):
        known = folder / name
        fault = load.missing_part(known, load.load_description(known))
        if not fault and all((known / file).exists() for file in (*pictures, *tables)):
            return known
    draft = folder / f".{name}.{uuid4().hex[:8]}.part"
    draft.mkdir(parents=True)
    try:
        (draft / "settings.json").write_text(result.settings.to_json(), encoding="utf-8")
        metrics = metrics_by_region(result).items()
        numbers = {name: np.asarray(value).item() if np.isfinite(value) else None for name, value in metrics}
        _write_json(draft / "metrics.json", numbers)
        described["Arrays"] = _write_arrays(draft / "arrays.npz", result)
        if tables:
            score_table(result).to_csv(draft / "scores.csv", index=False)
        for picture, draw in pictures.items():
            try:
                draw(result).savefig(draft / picture, dpi=PICTURE_DPI)
            except Exception as error:  # noqa: BLE001 - whatever fails in drawing, the numbers must be kept
                _progress.warn(
                    f"{picture} was not drawn ({error}); the record is saved without.", stacklevel=2
                )
                (draft / picture).unlink(missing_ok=True)
        files = sorted(draft.iterdir())
        described["Files"] = {file.name: file.stat().st_size for file in files}
        described["Digests"] = {file.name: _files.digest_of_file(file) for file in files}
        _write_json(draft / DESCRIPTION, described)
        while True:
            target = free_path(folder, name)
            try:
                return draft.rename(target)
            except OSError:
                if not target.exists():  # else another process has just taken the name
                    raise
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def free_path(folder: Path, name: str) -> Path:
    """The first of folder/name, folder/name_2, folder/name_3, and so on, that does not exist."""
    names = (name if number == 1 else f"{name}_{number}" for number in count(1))
    return next(folder / name for name in names if not (folder / name).exists())


def _description(
    result: Result, assembly: Assembly | None, run_name: str | None, extra: Mapping[str, Any] | None
) -> dict[str, Any]:
    """How a result was made, ready for JSON; refuses an assembly of other data and an `extra` that JSON cannot hold.

    The data's digest is taken from `assembly`, else from `result.provenance["data_digest"]`.
    """
    try:
        extra = json.loads(json.dumps(dict(extra or {})))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"extra: expected numbers, texts, lists and mappings of them, but {error}."
        ) from None
    source, digest = None, result.provenance.get("data_digest")
    if assembly is not None:
        check_assembly(assembly, "save_run")
        source, digest = assembly.source, assembly_digest(assembly)
        own = f"{result.subject} with {len(result.scores)} voxels"
        got = f"{assembly.subject} with {assembly.n_voxels} voxels"
        if own == got and result.provenance.get("data_digest") not in (None, digest):
            got = "others (their digests differ)"
        if own != got:
            raise ValueError(
                f"save_run: expected as assembly the data of this run, of {own}, got {got}; give the assembly that was "
                f"fitted, or leave it out."
            )
    versions = result.provenance.get("versions", {})
    return {
        "SchemaVersion": load.SCHEMA,
        "Name": run_name or f"encoding model of {result.subject}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": name, "Version": version} for name, version in versions.items()],
        "SourceDatasets": [] if source is None else [{"Name": str(source)}],
        "RunName": run_name,
        "Subject": result.subject,
        "Simulated": bool(result.simulated),
        "Test": result.test_name,
        "DataDigest": digest,
        "DataDigestCovers": DIGEST_COVERS,
        "Seed": result.settings.seed,
        "Machine": {"Platform": result.provenance.get("machine"), "Cores": os.cpu_count()},
        "SecondsByStage": dict(result.provenance.get("seconds", {})),
        "Provenance": dict(result.provenance),
        "Extra": extra,
        "Notes": list(result.notes),
    }


def check_results_dir(results_dir: str | Path) -> Path:
    """The folder for records as a path, its ~ written out. It need not exist; nothing is left in it.

    Raises
    ------
    RecordError
        It is not a folder, or it, or the folder in which it would be made, cannot be written.
    """
    folder = folder_of(results_dir, "results_dir")
    there = next(part for part in (folder, *folder.absolute().parents) if os.path.lexists(part))
    try:
        with TemporaryDirectory(prefix=".encoding_nb-", dir=there):
            pass
    except OSError as error:
        raise RecordError(
            f"results_dir: expected a folder for records, but {there} cannot be written ({error.strerror}); name "
            "another."
        ) from None
    return folder


def _record_name(result: Result, described: Mapping[str, Any]) -> str:
    noted = json.dumps([described[key] for key in ("DataDigest", "RunName", "Extra")], default=str)
    scores = np.ascontiguousarray(result.scores, dtype="<f8")
    made = result.provenance.get("time")
    when = datetime.fromisoformat(made).astimezone(UTC) if made else datetime.now(UTC)
    digest = _files.digest([result.settings.to_json(), noted, scores])
    return f"{when.strftime(load.TIME_FORMAT)}_{digest[:8]}"


def metrics_by_region(result: Result) -> dict[str, float]:
    """The metrics of a result, those by region among them ({"AC/median_score": ...}).

    Where the data came without masks, the regions are the areas drawn for the subject; where these are not available,
    a warning says why and the metrics are those of the result.

    Parameters
    ----------
    result : Result
    """
    metrics = dict(result.metrics)
    if any("/" in name for name in metrics) or not (result.rois or result.surface):
        return metrics
    try:
        return metrics | roi_metrics(result)
    except Exception as error:  # noqa: BLE001 - whatever keeps the regions away, the run is to be kept
        _progress.warn(f"The metrics are without regions ({error}).", stacklevel=2)
        return metrics


def _write_arrays(path: Path, result: Result) -> dict[str, Any]:
    """Write all arrays of a result as an npz; returns which member is of which story or region.

    Members are numbered, since names of stories and regions may hold any character.
    """
    members: dict[str, Any] = {
        name: value for name in load.PER_VOXEL if (value := getattr(result, name)) is not None
    }
    surface = result.surface
    index: dict[str, Any] = {"surface": None if surface is None else asdict(surface)}
    index["voxels"] = {name: name for name in members}
    for field in (*load.BY_STORY, "rois"):
        index[field] = {name: f"{field}_{number}" for number, name in enumerate(getattr(result, field))}
        members |= {index[field][name]: array for name, array in getattr(result, field).items()}
    members = {name: np.asarray(value) for name, value in members.items()}
    if objects := [name for name, array in members.items() if array.dtype.hasobject]:
        raise ValueError(f"save_run: expected arrays of numbers, got objects in {', '.join(objects)}.")
    np.savez(path, **members)
    return index


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, default=str), encoding="utf-8")


def score_table(result: Result) -> DataFrame:
    """A row per voxel: its number (and name), score, p-value, test, alpha, noise ceiling, scores by story, regions.

    Voxels that are not tested have no columns `p` and `significant`; the column `test` names the test, or says why
    there is none. After nested cross-validation `alpha` is the median over the outer folds. With a shift test,
    `null_mean` and `null_sd` are the mean and the standard deviation of the scores with shifted BOLD.
    """
    from pandas import DataFrame

    n_voxels = len(result.scores)
    columns: dict[str, Any] = {"voxel": np.arange(n_voxels)}
    if result.voxel_names is not None:
        columns["name"] = list(result.voxel_names)
    found = {"r": result.scores, "p": result.pvalues, "significant": result.significant}
    columns |= found | {"test": result.test_name, "null_mean": result.null_mean, "null_sd": result.null_sd}
    columns = {name: values for name, values in columns.items() if values is not None}
    columns["alpha"] = np.median(np.atleast_2d(result.best_alphas), axis=0)
    if result.noise_ceiling is not None:
        columns["noise_ceiling"] = result.noise_ceiling
    if len(result.story_noise_ceiling) > 1:
        columns |= {f"noise_ceiling in {s}": ceiling for s, ceiling in result.story_noise_ceiling.items()}
    columns |= {f"r in {story}": scores for story, scores in result.story_scores.items()}
    columns |= {f"in {region}": mask for region, mask in result.rois.items()}
    return DataFrame(columns)
