"""A run on disk: one folder each, whole or not there, and what a record says of its making.

    results/2026-01-31T120000Z_1a2b3c4d/
        settings.json               what was asked, as `Settings.from_json` reads it
        metrics.json                the summary numbers, and those by region ("AC/median_score"); null is a number
                                    that does not exist
        arrays.npz                  every array of the Result; no pickles
        flatmap.png, stories.png, alphas.png
        dataset_description.json    provenance in the manner of BIDS derivatives, and the files with their SHA-256

A record is written under a name that starts with a dot, brought to the disk file by file, and renamed in one
step. A run that is killed leaves at most such a dotted folder, which `list_runs` calls unfinished.

The description's keys follow BIDS' dataset_description.json for derivatives where BIDS has one (Name, BIDSVersion,
DatasetType, GeneratedBy, SourceDatasets; bids-specification.readthedocs.io, "Modality agnostic files").
"""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from .. import plots
from .._validation import require_result
from ..assembly import DIGEST_COVERS, Array, Assembly, assembly_digest, require_assembly
from ..brain import roi_metrics
from ..pipeline import Result
from .load import (
    BY_STORY,
    DESCRIPTION,
    PER_VOXEL,
    SCHEMA,
    TIME_FORMAT,
    RecordError,
    description_digest,
    digest_of_file,
    fault_of,
    folder_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


BIDS_VERSION = "1.9.0"


def describe(
    result: Result,
    *,
    assembly: Assembly | None = None,
    run_name: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a record says of a result's making, ready for JSON.

    The data's digest is taken from `assembly`, else from `result.provenance["data_digest"]`; None where
    neither is there. `extra` is kept as it is.
    """
    versions = dict(result.provenance.get("versions", {}))
    source = None if assembly is None else assembly.source
    known = result.provenance.get("data_digest")
    return {
        "Name": run_name or f"encoding model of {result.subject}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": name, "Version": version} for name, version in versions.items()],
        "SourceDatasets": [] if source is None else [{"Name": str(source)}],
        "RunName": run_name,
        "Subject": result.subject,
        "Simulated": bool(result.simulated),
        "DataDigest": known if assembly is None else assembly_digest(assembly),
        "DataDigestCovers": DIGEST_COVERS,
        "Seed": result.settings.seed,
        "Machine": {"Platform": result.provenance.get("machine"), "Cores": os.cpu_count()},
        "SecondsByStage": dict(result.provenance.get("seconds", {})),
        "Provenance": dict(result.provenance),
        "Extra": dict(extra or {}),
    }


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
        Before anything is written: an `extra` that JSON cannot hold, a results_dir that is no folder, an assembly
        that is not the run's.
    TypeError
        No Result, or an `assembly` that is none.
    OSError
        A folder that cannot be written; nothing is left behind.
    """
    require_result(result, "save_run")
    if assembly is not None:
        require_assembly(assembly, "save_run")
    try:
        json.dumps(dict(extra or {}))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"extra: expected numbers, texts, lists and mappings of them, but {error}."
        ) from None
    folder = _results_folder(results_dir)[0]
    described = describe(result, assembly=assembly, run_name=run_name, extra=extra)
    if assembly is not None:
        _refuse_other_data(result, assembly, described["DataDigest"])
    folder.mkdir(parents=True, exist_ok=True)
    described["Notes"] = list(result.notes)
    name = _record_name(result, described)
    writers = _writers(result, described, figures=figures, svg=svg, table=table)
    known = folder / name
    if known.is_dir() and not fault_of(known) and set(writers) <= {file.name for file in known.iterdir()}:
        return known
    draft = folder / f".{name}.{uuid4().hex[:8]}.part"
    draft.mkdir()
    try:
        sizes = {file: size for file, write in writers.items() if (size := _write(draft / file, write))}
        digests = {file: digest_of_file(draft / file) for file in sizes}
        said = {"SchemaVersion": SCHEMA, **described, "Files": sizes, "Digests": digests}
        said = json.loads(json.dumps(said, default=str))  # as it will be read
        said["DescriptionDigest"] = description_digest(said)
        _write(draft / DESCRIPTION, _json_writer(said))
        _sync_folder(draft)
        return _move(draft, folder, name)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def check_results_dir(results_dir: str | Path) -> Path:
    """The folder for records, which may be yet to be made, as a path, its ~ written out; nothing is left in it.

    Raises
    ------
    RecordError
        It, or what it is to be made in, is no folder, or one that cannot be written.
    """
    folder, there = _results_folder(results_dir)
    try:
        with TemporaryDirectory(prefix=".encoding_nb-", dir=there):
            pass
    except OSError as error:  # a file system on which nothing can be made, whatever its permissions say
        raise RecordError(
            f"results_dir: {there} cannot be written ({error.strerror}); name a folder of your own."
        ) from None
    return folder


def _results_folder(results_dir: str | Path) -> tuple[Path, Path]:
    """The folder for records, and the folder that is there: itself, or that in which it is to be made."""
    folder = folder_of(results_dir, "results_dir")
    there = next(part for part in (folder, *folder.absolute().parents) if os.path.lexists(part))
    if not there.is_dir():
        raise RecordError(
            f"results_dir: expected a folder for records, but {there} is a file; name another one."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise RecordError(f"results_dir: {there} cannot be written; name a folder of your own.")
    return folder, there


def _refuse_other_data(result: Result, assembly: Assembly, digest: str | None) -> None:
    """Refuse an assembly that a result is not of, as far as the result knows its own."""
    own, other = (
        f"{subject} with {n_voxels} voxels"
        for subject, n_voxels in (
            (result.subject, len(result.scores)),
            (assembly.subject, assembly.n_voxels),
        )
    )
    known = result.provenance.get("data_digest")
    if own == other and known in (None, digest):
        return
    got = other if own != other else "others (their digests differ)"
    raise ValueError(
        f"save_run: expected as assembly the data of this run, of {own}, got {got}; give the assembly that was fitted, "
        f"or leave it out."
    )


def _record_name(result: Result, described: Mapping[str, Any]) -> str:
    digest = sha256(result.settings.to_json().encode())
    digest.update(
        json.dumps([described[key] for key in ("DataDigest", "RunName", "Extra")], default=str).encode()
    )
    digest.update(np.ascontiguousarray(result.scores, dtype="<f8").tobytes())
    made = result.provenance.get("time")
    when = datetime.fromisoformat(made).astimezone(UTC) if made else datetime.now(UTC)
    return f"{when.strftime(TIME_FORMAT)}_{digest.hexdigest()[:8]}"


def _writers(
    result: Result, described: dict[str, Any], *, figures: bool, svg: bool, table: bool
) -> dict[str, Callable[[BinaryIO], None]]:
    """{file name: function that writes it into an open file}."""
    arrays, described["Arrays"] = _arrays(result)
    metrics = {name: _or_none(value) for name, value in metrics_by_region(result).items()}
    writers: dict[str, Callable[[BinaryIO], None]] = {
        "settings.json": lambda file: file.write(result.settings.to_json().encode()),
        "metrics.json": _json_writer(metrics),
        "arrays.npz": lambda file: _write_arrays(file, arrays),
    }
    if table:
        writers["scores.csv"] = lambda file: score_table(result).to_csv(file, index=False)
    for name, draw in (_drawers(result) if figures or svg else {}).items():
        for suffix in (["png"] if figures else []) + (["svg"] if svg else []):
            writers[f"{name}.{suffix}"] = _picture_writer(name, draw, suffix)
    return writers


def metrics_by_region(result: Result) -> dict[str, float]:
    """The metrics of a result, those by region among them ({"AC/median_score": ...}).

    Where the data came without masks, the regions are the areas drawn for the subject; where these cannot be had,
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
        warnings.warn(f"The metrics are without regions ({error}).", stacklevel=2)
        return metrics


def _arrays(result: Result) -> tuple[dict[str, Array], dict[str, Any]]:
    """Members of the npz, and which member is which story's or region's: names may hold any character."""
    members = {name: np.asarray(value) for name in PER_VOXEL if (value := getattr(result, name)) is not None}
    index: dict[str, Any] = {}
    for field in (*BY_STORY, "rois"):
        index[field] = {name: f"{field}_{number}" for number, name in enumerate(getattr(result, field))}
        members |= {index[field][name]: np.asarray(a) for name, a in getattr(result, field).items()}
    if result.voxel_names is not None:
        members["voxel_names"] = np.array(result.voxel_names, dtype=np.str_)
    surface = result.surface
    index["surface"] = None if surface is None else asdict(surface)
    return members, index


def _write_arrays(file: BinaryIO, arrays: Mapping[str, Array]) -> None:
    """An npz as `numpy.savez` writes it, without ever pickling (its option for that is newer than numpy 2.0)."""
    with ZipFile(file, "w", ZIP_STORED) as members:
        for name, array in arrays.items():
            with members.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _drawers(result: Result) -> dict[str, Callable[[], Figure]]:
    drawers = {"stories": lambda: plots.plot_stories(result), "alphas": lambda: plots.plot_alphas(result)}
    if result.surface is not None:
        drawers["flatmap"] = lambda: plots.plot_flatmap(result)
    return drawers


def _picture_writer(name: str, draw: Callable[[], Figure], suffix: str) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        try:
            draw().savefig(file, format=suffix, dpi=PICTURE_DPI)
        except Exception as error:  # noqa: BLE001 - whatever fails in drawing, the numbers are to be kept
            warnings.warn(
                f"{name}.{suffix} was not drawn ({error}); the record is saved without.", stacklevel=2
            )
            file.truncate(0)

    return write


def _json_writer(value: Any) -> Callable[[BinaryIO], None]:
    return lambda file: file.write(json.dumps(value, indent=1, default=str).encode())


def _or_none(value: float) -> float | int | None:
    number = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _write(path: Path, write: Callable[[BinaryIO], None]) -> int:
    """Write a file to the disk itself and return its size; one that stays empty is removed, size 0."""
    with open(path, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    size = path.stat().st_size
    if not size:
        path.unlink()
    return size


def _move(draft: Path, folder: Path, name: str) -> Path:
    """Rename the draft to the first free name; never over a folder that is there."""
    number = 1
    while True:
        target = folder / (name if number == 1 else f"{name}_{number}")
        number += 1
        if target.exists():
            continue
        try:
            draft.rename(target)
        except OSError:
            if not target.exists():  # else another process has just taken the name
                raise
        else:
            _sync_folder(folder)
            return target


def _sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk, where the system can (Windows cannot)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def score_table(result: Result) -> DataFrame:
    """A row per voxel: its number (and name), score, p-value, alpha, noise ceiling, scores by story, regions.

    After nested cross-validation `alpha` is the median over the outer folds.
    """
    from pandas import DataFrame

    n_voxels = len(result.scores)
    columns: dict[str, Any] = {"voxel": np.arange(n_voxels)}
    if result.voxel_names is not None:
        columns["name"] = list(result.voxel_names)
    columns |= {"r": result.scores, "p": result.pvalues, "significant": result.significant}
    columns["alpha"] = np.median(np.atleast_2d(result.best_alphas), axis=0)
    if result.noise_ceiling is not None:
        columns["noise_ceiling"] = result.noise_ceiling
    if len(result.story_noise_ceiling) > 1:
        columns |= {f"noise_ceiling in {s}": ceiling for s, ceiling in result.story_noise_ceiling.items()}
    columns |= {f"r in {story}": scores for story, scores in result.story_scores.items()}
    columns |= {f"in {region}": mask for region, mask in result.rois.items()}
    return DataFrame(columns)
