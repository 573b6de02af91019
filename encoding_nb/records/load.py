"""Loads a record: checks its files first, and reads its large arrays when they are asked for."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import _progress
from .._files import digest_of_file
from .._validation import describe, parse_json
from .._version import __version__
from ..assembly import Array, Surface
from ..pipeline import Result
from ..settings import Settings

SCHEMA = 3  # records of 1 and 2 are read as well; some of their numbers had another meaning, see `earlier_meanings`
FOLD_MEANS = 3  # since this version the scores of nested cross-validation are means over its outer folds
DESCRIPTION = "dataset_description.json"
RECORD_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d{6}Z_[0-9a-f]{8}(_\d+)?")
DRAFT_NAME = re.compile(rf"\.{RECORD_NAME.pattern}(\.[0-9a-f]{{8}})?\.part")
TIME_FORMAT = "%Y-%m-%dT%H%M%SZ"
# the Result's fields of shape (n_voxels,), or (n_folds, n_voxels); a record lists those that it holds
PER_VOXEL = (
    "scores",
    "best_alphas",
    "pvalues",
    "significant",
    "noise_ceiling",
    "null_mean",
    "null_sd",
    "voxel_names",
)
_ALWAYS = ("scores", "best_alphas")
# in records of versions 1 and 2, which do not list them
_ALWAYS_BEFORE = (*_ALWAYS, "pvalues", "significant")
# what a description must hold for the record to be read, and of which kind
_NEEDED = {"Files": dict, "Arrays": dict, "Provenance": dict, "Subject": str, "Simulated": bool}
NEEDED_FILES = ("settings.json", "metrics.json", "arrays.npz")
_NEEDED_ARRAYS = ("story_scores", "predictions", "measured", "row_times", "rois")
_SMALL = ("story_scores", "story_noise_ceiling", "story_chance_ceiling", "row_times", "row_folds")
BY_STORY = (*_SMALL, "predictions", "measured")


class RecordError(ValueError):
    """A folder that cannot be read as a record; the message says why."""


def folder_of(path: Any, what: str) -> Path:
    """A folder, which need not exist, its ~ written out; `what` names the argument in the message.

    Raises
    ------
    RecordError
        Not a path, or one that this machine cannot have.
    """
    try:
        folder = Path(path).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.lstat(folder)
        return folder
    except (TypeError, ValueError, OSError, RuntimeError) as error:  # also too long, or of an unknown user
        raise RecordError(f"{what}: expected the path of a folder, got {describe(path)} ({error}).") from None


def load_run(path: str | Path) -> Result:
    """The result that a record holds, equal to the one that was saved.

    Predictions and measurements are read when a story is asked for, since they can be gigabytes. A record of an older
    version whose numbers had another meaning is loaded with a warning that names them, which is also among its notes.

    Raises
    ------
    RecordError
        Not a path, not a record, a record that is not whole, or one of another version, saying which versions.
    """
    path = folder_of(path, "load_run")
    described = load_description(path)
    if fault := missing_part(path, described):
        raise RecordError(f"{path}: {fault}")
    settings = read_settings(path, described)
    index, arrays = described["Arrays"], path / "arrays.npz"
    metrics = read_metrics(path)
    try:
        with np.load(arrays, allow_pickle=False) as members:
            listed = index.get("voxels") or {name: name for name in PER_VOXEL if name in members}
            needed = _ALWAYS if "voxels" in index else _ALWAYS_BEFORE
            fields: dict[str, Any] = {
                name: members[listed[name]] if name in listed or name in needed else None
                for name in PER_VOXEL
            }
            for name in (*_SMALL, "rois"):
                fields[name] = {key: members[member] for key, member in index.get(name, {}).items()}
        if fields["voxel_names"] is not None:
            fields["voxel_names"] = tuple(fields["voxel_names"].tolist())
        notes = tuple(described.get("Notes", ()))
        meanings = earlier_meanings(described, settings, has_ceiling=fields["noise_ceiling"] is not None)
        if meanings:
            notes += (
                f"made with earlier meanings by encoding_nb {_writer(described)}: {'; '.join(meanings)}",
            )
            _progress.warn(f"{path}: {notes[-1]}.", stacklevel=2)
        return Result(
            settings=settings,
            **fields,
            predictions=StoryArrays(arrays, index["predictions"]),
            measured=StoryArrays(arrays, index["measured"]),
            metrics=metrics,
            provenance=described["Provenance"],
            subject=described["Subject"],
            surface=None if index["surface"] is None else Surface(**index["surface"]),
            simulated=described["Simulated"],
            notes=notes,
        )
    except Exception as error:  # whatever its readers raise on a damaged file
        raise RecordError(f"{path}: the record is damaged ({type(error).__name__}: {error}).") from error


def earlier_meanings(described: Mapping[str, Any], settings: Settings, *, has_ceiling: bool) -> list[str]:
    """What the numbers of a record meant otherwise than those of a run today, a clause each; empty for new records."""
    version, meanings = described["SchemaVersion"], []
    if version < FOLD_MEANS and not settings.use_train_test_split:
        found = "10 to 57 %" if settings.significance == "parametric" else "11 to 29 %"
        meanings.append(
            "scores are correlations over all held-out rows at once, not means over the outer folds, and p-values find "
            f"too many voxels ({found} where nothing is predicted, at a nominal 5 %), so fit again with "
            "significance='shift' (its settings name the outer folds that it was made with, outer_folding_type="
            f"{settings.outer_folding_type!r} and outer_gap=0.0)"
        )
    if version >= 2:
        return meanings
    if "wordrate" in settings.spaces:
        meanings.append(
            "word rate counted words from each TR's time to the next one's, half a TR later than now (its settings say "
            "word_rate_bins='litcoder')"
        )
    if settings.downsample_method == "sinc":
        meanings.append("'sinc' divided by sums of weights near 0, which now count as missing data")
    if has_ceiling:
        meanings.append("noise ceilings are of repeats that were not z-scored")
    return meanings


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
    if not (path / DESCRIPTION).is_file():
        fault = f"holds no {DESCRIPTION}, which every record has" if path.is_dir() else "no such folder"
        raise RecordError(f"{path}: {fault}; list_runs(results_dir) lists the records that exist.")
    described = _json(path / DESCRIPTION)
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
    """The version of encoding_nb that wrote a record."""
    with suppress(KeyError, TypeError):
        return described["Provenance"]["versions"]["encoding_nb"]
    return "of an unknown version"


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(parse_json(file.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:  # also a number or a text in place of names with values
        message = f"{file.parent}: {file.name} cannot be read ({error}); the record is damaged."
        raise RecordError(message) from None


def missing_part(path: Path, described: Mapping[str, Any], *, every_byte: bool = False) -> str:
    """What is wrong with a record, in one sentence, or an empty text.

    Checks the description, the presence and size of all files, and the SHA-256 of the small ones that are JSON;
    `every_byte` reads all other files too, which may be gigabytes, and compares their SHA-256. Each array has a
    checksum in the archive, which is checked whenever it is read.
    """
    for name, kind in _NEEDED.items():
        if not isinstance(described.get(name), kind):
            return f"{DESCRIPTION} holds no {name} as a {kind.__name__}; the record is damaged."
    files, arrays = described["Files"], described["Arrays"]
    absent = [name for name in NEEDED_FILES if not isinstance(files.get(name), int)]
    absent += [name for name in _NEEDED_ARRAYS if not isinstance(arrays.get(name), dict)]
    absent += [] if isinstance(arrays.get("surface", ""), (dict, type(None))) else ["surface"]
    if absent:
        return f"{DESCRIPTION} does not list {', '.join(absent)}; the record is damaged."
    indices = [index for name, index in arrays.items() if name != "surface" and isinstance(index, dict)]
    members = [str(member) for index in indices for member in index.values()]
    if len(set(members)) < len(members):
        return f"{DESCRIPTION} lists one array for two stories or regions; the record is damaged."
    digests = described.get("Digests", {})  # records of encoding_nb 0.1.0 have none
    for name, size in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing; the record is not whole."
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes where {size:,} were written; the record is damaged."
        compared = name in digests and (every_byte or name.endswith(".json"))
        if compared and digest_of_file(file) != digests[name]:
            return f"{name} has another content than was written; the record was changed, or is damaged."
    return ""


def read_settings(path: Path, described: Mapping[str, Any]) -> Settings:
    """The settings of a record, with which a run today has the same features and folds as the recorded one.

    Raises
    ------
    RecordError
        Another version wrote names that this one lacks.
    """
    try:
        settings = Settings.from_json((path / "settings.json").read_text(encoding="utf-8"))
        if described["SchemaVersion"] < 2:
            settings = replace(settings, word_rate_bins="litcoder")
        if described["SchemaVersion"] < FOLD_MEANS and not settings.use_train_test_split:
            settings = replace(settings, outer_folding_type=settings.folding_type, outer_gap=0.0)
        return settings
    except Exception as error:  # noqa: BLE001 - what another version wrote, or damage
        raise RecordError(
            f"{path}: settings.json was written by encoding_nb {_writer(described)} and cannot be read by "
            f"{__version__}: {error}"
        ) from None


def read_metrics(path: Path) -> dict[str, float]:
    """The summary numbers of a record; those that do not exist are NaN."""
    return {name: math.nan if v is None else v for name, v in _json(path / "metrics.json").items()}


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"trimming": {"a": 1}} as {"trimming.a": 1}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= (
            flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        )
    return flat
