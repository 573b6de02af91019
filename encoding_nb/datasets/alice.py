"""Alice in Wonderland: fMRI of six regions of listeners who heard its first 12 minutes.

Brennan, Stabler, Van Wagenen, Luh and Hale (2016), Brain and Language 157-158, 81-94; CC BY 4.0. The published
folder holds the time courses of six regions, as `10mm/s18-timecourses.txt` (362 rows, TR 2 s) and the same for
spheres of 6 mm, and a hand-corrected TextGrid of the words. There are no voxels and no surface: columns are regions,
by name (`Assembly.voxel_names`).

The recording begins with 20 s of silence, and ten volumes were discarded, so that row i was taken at 20 + 2i seconds
of the TextGrid's time. Time courses come raw; they are freed of slow drifts by Legendre polynomials and z-scored.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.polynomial import legendre

from ..assembly import Array, Assembly, Story, check_words_in_run
from ..design import Trimming
from .textgrid import read_textgrid

TR = 2.0  # seconds
FIRST_ROW = 20.0  # seconds, in the TextGrid's time
REGIONS = ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")
STORY = "alice"
# for delays up to 4 TRs
TRIMMING = Trimming(
    train_features_start=4, train_targets_start=4, test_features_start=4, test_targets_start=4
)
_FILE = re.compile(r"(s\d+)-timecourses\.txt$")


def recognises(source: Path) -> bool:
    """Whether a folder is for `load`."""
    return source.is_dir() and any(source.glob("*mm/s*-timecourses.txt"))


def listeners(source: str | Path, *, radius_mm: int = 10) -> tuple[str, ...]:
    """Names of the listeners whose time courses are there: "s18", ..."""
    found = Path(source).glob(f"{radius_mm}mm/s*-timecourses.txt")
    return tuple(sorted(match[1] for path in found if (match := _FILE.search(path.name))))


def load(
    source: Path,
    *,
    subject: str | None = None,
    stories: Iterable[str] | None = None,
    radius_mm: int = 10,
    detrend: int | None = 4,
    textgrid: str | Path | None = None,
) -> Assembly:
    """Region time courses of one listener, of all, or their mean.

    All heard the same recording, so that one fit of "all" is a fit for each listener; `over_listeners` gives mean
    and standard error of its scores. There is one story and no test story: score by nested cross-validation
    (``use_train_test_split=False``). Rows and TRs are the same, and speech begins with the first of them, so leave
    out as many rows at the start as the longest delay (`TRIMMING`): a delayed feature is 0 there because nothing
    was sampled before, not because nothing was heard.

    Parameters
    ----------
    source : folder
    subject : "mean" (None), "all", or a listener such as "s18"
        "mean": the mean over listeners of their z-scored time courses, six columns. "all": six columns a
        listener, named "s18 LATL". Listeners with a time course that does not vary are left out of both, with a
        warning.
    stories : names, optional
        There is only "alice".
    radius_mm : 10 or 6
    detrend : int, optional
        Highest order of the Legendre polynomials that are taken out; None takes out the mean alone.
    textgrid : file, optional
        Where the transcript lies; None takes the folder's only one.

    Raises
    ------
    ValueError
        A listener, story or radius that is not there (what is, is listed), or a file that is no table of six
        columns.
    """
    if stories is not None and set(stories) != {STORY}:
        raise ValueError(f"{source}: stories: expected {[STORY]}, got {list(stories)}; there is one story.")
    there = listeners(source, radius_mm=radius_mm)
    if not there:
        radii = ", ".join(sorted(path.name for path in source.glob("*mm")))
        raise ValueError(f"{source}: no time courses for radius_mm={radius_mm}; there are {radii}.")
    subject = subject or "mean"
    if subject not in ("mean", "all", *there):
        raise ValueError(f"{source}: no listener {subject!r}; there are mean, all, {', '.join(there)}.")
    names = there if subject in ("mean", "all") else (subject,)
    courses = {name: _timecourses(source / f"{radius_mm}mm" / f"{name}-timecourses.txt") for name in names}
    courses = _same_length(_that_vary(courses, source, must=subject if len(names) == 1 else None), source)
    bold, columns = _joined({name: _clean(values, detrend) for name, values in courses.items()}, subject)
    story = Story(
        name=STORY,
        words=_words(source, textgrid),
        tr_times=FIRST_ROW + TR * np.arange(len(bold)),
        bold=bold,
    )
    check_words_in_run(story, TR, where=str(source))
    regions = {region: np.array([column.split()[-1] == region for column in columns]) for region in REGIONS}
    return Assembly(
        subject=f"Alice, {subject if len(names) == 1 else f'{subject} of {len(courses)} listeners'}",
        tr=TR,
        stories={STORY: story},
        rois=regions if subject == "all" else {},
        voxel_names=columns,
    )


def _words(source: Path, textgrid: str | Path | None):
    found = [Path(textgrid)] if textgrid is not None else sorted(source.glob("*.TextGrid"))
    if len(found) != 1:
        raise ValueError(
            f"{source}: expected one TextGrid beside the time courses, got {len(found)}; pass textgrid=its path."
        )
    # the published file is cut off 8 s before its end; `partial` says so in a warning
    return read_textgrid(found[0], tier="word", partial=True)


def _timecourses(path: Path) -> Array:
    """(rows, 6)"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # numpy's, of a file without rows
            values = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a table of numbers ({error}).") from error
    if values.shape[1:] != (len(REGIONS),) or len(values) < 10 or not np.isfinite(values).all():
        raise ValueError(
            f"{path}: expected finite numbers in {len(REGIONS)} columns ({' '.join(REGIONS)}), got shape "
            f"{values.shape}."
        )
    return values


def _that_vary(courses: Mapping[str, Array], source: Path, *, must: str | None) -> dict[str, Array]:
    """Without the listeners of whom a region does not vary (s33's published file holds zeros)."""
    still = [name for name, values in courses.items() if (np.ptp(values, axis=0) == 0).any()]
    if must in still or len(still) == len(courses):
        raise ValueError(
            f"{source}: the time courses of {', '.join(still)} do not vary; choose another listener."
        )
    if still:
        warnings.warn(
            f"{source}: {', '.join(still)} left out, the time courses do not vary; {len(courses) - len(still)} "
            f"listeners remain.",
            stacklevel=3,
        )
    return {name: values for name, values in courses.items() if name not in still}


def _same_length(courses: dict[str, Array], source: Path) -> dict[str, Array]:
    lengths = {name: len(values) for name, values in courses.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise ValueError(f"{source}: expected as many rows from every listener, got {listed}.")
    return courses


def _clean(values: Array, order: int | None) -> Array:
    """(rows, regions): without drifts, z-scored."""
    drifts = legendre.legvander(np.linspace(-1, 1, len(values)), order or 0)
    rest = values - drifts @ np.linalg.lstsq(drifts, values, rcond=None)[0]
    return (rest / rest.std(axis=0)).astype(np.float32)


def _joined(courses: Mapping[str, Array], subject: str) -> tuple[Array, tuple[str, ...]]:
    if subject == "all":
        return np.hstack(list(courses.values())), tuple(f"{name} {r}" for name in courses for r in REGIONS)
    return np.mean(list(courses.values()), axis=0), REGIONS


# ---------------------------------------------------------------------- over listeners


@dataclass(frozen=True)
class OverListeners:
    """Mean and standard error over listeners, and how many had a value."""

    mean: float
    standard_error: float
    n: int


def over_listeners(values: Array, columns: Sequence[str] | None) -> dict[str, OverListeners]:
    """{region: mean and standard error over listeners} of a fit to subject "all".

    Parameters
    ----------
    values : array, (n_columns,)
        Such as `Result.scores`; NaN is left out and not counted.
    columns : names of the columns
        `Result.voxel_names`, "s18 LATL" each.

    Returns
    -------
    dict; the standard error is s / sqrt(n), with n - 1 in s, and NaN for a single listener
    """
    if columns is None or len(values) != len(columns) or not all(len(name.split()) == 2 for name in columns):
        raise ValueError(
            f"over_listeners: expected a value for each of the columns of subject='all', got {np.shape(values)} for "
            f"{None if columns is None else len(columns)} names."
        )
    values = np.asarray(values, dtype=float)
    found = {}
    for region in dict.fromkeys(name.split()[1] for name in columns):
        here = values[[name.split()[1] == region for name in columns]]
        here = here[np.isfinite(here)]
        spread = here.std(ddof=1) / np.sqrt(len(here)) if len(here) > 1 else np.nan
        found[region] = OverListeners(float(here.mean()) if len(here) else np.nan, float(spread), len(here))
    return found
