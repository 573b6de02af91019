"""A record back from its folder: checked first, its big arrays read when they are asked for."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np

from .._validation import describe
from .._version import __version__
from ..assembly import Array, Surface
from ..pipeline import Result
from ..settings import Settings

SCHEMA = 1
DESCRIPTION = "dataset_description.json"
RECORD_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d{6}Z_[0-9a-f]{8}(_\d+)?")
DRAFT_NAME = re.compile(rf"\.{RECORD_NAME.pattern}(\.[0-9a-f]{{8}})?\.part")
TIME_FORMAT = "%Y-%m-%dT%H%M%SZ"
# the Result's fields of shape (n_voxels,), or (n_folds, n_voxels), that are stored under their own names
PER_VOXEL = ("scores", "best_alphas", "pvalues", "significant", "noise_ceiling")
# what a description must hold for the record to be read, and of which kind
_NEEDED = {"Files": dict, "Arrays": dict, "Provenance": dict, "Subject": str, "Simulated": bool}
_NEEDED_FILES = ("settings.json", "metrics.json", "arrays.npz")
_NEEDED_ARRAYS = ("story_scores", "predictions", "measured", "row_times", "rois")
BY_STORY = ("story_scores", "story_noise_ceiling", "predictions", "measured", "row_times")


class RecordError(ValueError):
    """A folder that cannot be read as a record; the message says why."""


def folder_of(path: Any, what: str) -> Path:
    """A folder that may be there or not, its ~ written out; `what` was given the path, for the message.

    Raises
    ------
    RecordError
        No path, or one that cannot be on this machine.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise RecordError(f"{what}: expected the path of a folder, got {describe(path)}.")
    try:
        folder = Path(path).expanduser()
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (
        TypeError,
        ValueError,
        OSError,
        RuntimeError,
    ) as error:  # too long; a null character; nobody's home
        reason = getattr(error, "strerror", None) or error
        raise RecordError(f"{what}: expected the path of a folder, got {path!r} ({reason}).") from None
    return folder


def load_run(path: str | Path) -> Result:
    """The result that a record holds, equal to the one that was saved.

    Predictions and measurements are read when a story is asked for, since they can be gigabytes.

    Raises
    ------
    RecordError
        No path, not a record, a record that is not whole, or one of another version, saying which versions.
    """
    path = folder_of(path, "load_run")
    described = load_description(path)
    if fault := missing_part(path, described):
        raise RecordError(f"{path}: {fault}")
    settings = read_settings(path, described)
    try:
        return _result(path, settings, described)
    except RecordError:
        raise
    except Exception as error:  # whatever its readers raise on a damaged file
        raise RecordError(f"{path}: the record is damaged ({type(error).__name__}: {error}).") from error


def _result(path: Path, settings: Settings, described: Mapping[str, Any]) -> Result:
    index = described["Arrays"]
    arrays = path / "arrays.npz"
    with np.load(arrays, allow_pickle=False) as members:
        fields = {name: members.get(name) for name in PER_VOXEL}
        small = {
            field: {name: members[member] for name, member in index.get(field, {}).items()}
            for field in ("story_scores", "story_noise_ceiling", "row_times", "rois")
        }
        names = tuple(members["voxel_names"].tolist()) if "voxel_names" in members else None
    absent = [name for name in ("scores", "best_alphas", "pvalues", "significant") if fields[name] is None]
    if absent:
        raise RecordError(f"{path}: arrays.npz holds no {', no '.join(absent)}; the record is damaged.")
    return Result(
        settings=settings,
        **fields,
        **small,
        predictions=StoryArrays(arrays, index["predictions"]),
        measured=StoryArrays(arrays, index["measured"]),
        metrics=read_metrics(path),
        provenance=described["Provenance"],
        subject=described["Subject"],
        surface=None if index["surface"] is None else Surface(**index["surface"]),
        voxel_names=names,
        simulated=described["Simulated"],
        notes=tuple(described.get("Notes", ())),
    )


class StoryArrays(Mapping[str, Array]):
    """{story: array} of a record, each read from its file when it is asked for."""

    def __init__(self, path: Path, members: Mapping[str, str]) -> None:
        self._path, self._members = path, dict(members)

    def __getitem__(self, story: str) -> Array:
        member = self._members[story]
        try:
            with np.load(self._path, allow_pickle=False) as arrays:
                return arrays[member]
        except Exception as error:  # the archive holds a checksum of each array
            raise RecordError(
                f"{self._path.parent}: the array of story {story!r} cannot be read ({type(error).__name__}: {error}); "
                f"{self._path.name} is damaged or gone."
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"StoryArrays({', '.join(self)}; read from {self._path.name} when asked for)"


def load_description(path: str | Path) -> dict[str, Any]:
    """What a record says of its making: versions, data digest, seed, machine, seconds by stage, "Extra".

    Raises
    ------
    RecordError
        As `load_run`.
    """
    path = folder_of(path, "load_description")
    if not path.is_dir():
        raise RecordError(
            f"{path}: there is no such folder; list_runs(results_dir) shows the records there are."
        )
    file = path / DESCRIPTION
    if not file.is_file():
        raise RecordError(
            f"{path}: expected {DESCRIPTION}, which every record of this version has, and found none; this is not "
            f"a record, or one from before records had versions."
        )
    described = _json(file)
    schema = described.get("SchemaVersion")
    if not isinstance(schema, int):
        raise RecordError(f"{path}: {DESCRIPTION} names no SchemaVersion; it was not written by encoding_nb.")
    if schema > SCHEMA:
        raise RecordError(
            f"{path}: written in record version {schema} by encoding_nb {_writer(described)}; encoding_nb "
            f"{__version__} reads up to version {SCHEMA}, so update encoding_nb to open it."
        )
    return described


def _writer(described: Mapping[str, Any]) -> str:
    versions = (described.get("Provenance") or {}) if isinstance(described, dict) else {}
    versions = versions.get("versions") if isinstance(versions, dict) else None
    return (versions if isinstance(versions, dict) else {}).get("encoding_nb", "of an unknown version")


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{file.parent}: {file.name} cannot be read ({error}); the record is damaged."
        ) from None
    if not isinstance(value, dict):
        raise RecordError(
            f"{file.parent}: {file.name} holds a {type(value).__name__}, expected names and values."
        )
    return value


def description_digest(described: Mapping[str, Any]) -> str:
    """SHA-256 of what a description says, but for this digest itself."""
    said = {name: value for name, value in described.items() if name != "DescriptionDigest"}
    return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def digest_of_file(file: Path) -> str:
    """SHA-256 of a file, as `sha256sum` gives it."""
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


def missing_part(path: Path, described: Mapping[str, Any], *, every_byte: bool = False) -> str:
    """What is wrong with a record, in one sentence, or nothing.

    The description, the presence and size of all files, and the content of the small ones that are JSON;
    `every_byte` reads all other files too, which may be gigabytes, and compares their SHA-256. Arrays have
    checksums of their own in the archive, which are checked whenever one is read.
    """
    if fault := _description_fault(described):
        return fault
    digests = described.get("Digests", {})  # records of encoding_nb 0.1.0 have none
    for name, size in described["Files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing; the record is not whole."
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes where {size:,} were written; the record is damaged."
        if (
            name in digests
            and (every_byte or name.endswith(".json"))
            and digest_of_file(file) != digests[name]
        ):
            return f"{name} has another content than was written; the record was changed, or is damaged."
    return ""


def _description_fault(described: Mapping[str, Any]) -> str:
    """What a description lacks, in one sentence, or nothing."""
    written = described.get("DescriptionDigest")
    if written is not None and written != description_digest(described):
        return f"{DESCRIPTION} is not as it was written; it was changed by hand, or is damaged."
    for name, kind in _NEEDED.items():
        if not isinstance(described.get(name), kind):
            return f"{DESCRIPTION} holds no {name} as a {kind.__name__}; the record is damaged."
    files, arrays = described["Files"], described["Arrays"]
    absent = [name for name in _NEEDED_FILES if not isinstance(files.get(name), int)]
    absent += [name for name in _NEEDED_ARRAYS if not isinstance(arrays.get(name), dict)]
    if "surface" not in arrays or not isinstance(arrays["surface"], (dict, type(None))):
        absent.append("surface")
    return f"{DESCRIPTION} does not list {', '.join(absent)}; the record is damaged." if absent else ""


def fault_of(path: Path) -> str:
    """What keeps a folder from being a whole record, in one sentence, or nothing."""
    try:
        return missing_part(path, load_description(path))
    except RecordError as error:
        return str(error)


def read_settings(path: Path, described: Mapping[str, Any]) -> Settings:
    """The settings of a record; a RecordError where another version wrote names that this one lacks."""
    try:
        return Settings.from_json((path / "settings.json").read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001 - what another version wrote, or damage
        raise RecordError(
            f"{path}: settings.json was written by encoding_nb {_writer(described)} and cannot be read by "
            f"{__version__}: {error}"
        ) from None


def read_metrics(path: Path) -> dict[str, float]:
    """The summary numbers of a record; those that do not exist are NaN."""
    return {name: math.nan if v is None else v for name, v in _json(path / "metrics.json").items()}
