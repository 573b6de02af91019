"""Alice in Wonderland: fMRI of six regions of listeners who heard its first 12 minutes.

Brennan, Stabler, Van Wagenen, Luh and Hale (2016), Brain and Language 157-158, 81-94; CC BY 4.0. The published
folder holds the time courses of six regions, as `10mm/s18-timecourses.txt` (362 rows, TR 2 s) and the same for
spheres of 6 mm, and a hand-corrected TextGrid of the words. There are no voxels and no surface: columns are regions,
by name (`Assembly.voxel_names`).

The recording begins with 20 s of silence, and ten volumes were discarded, so that row i was taken at 20 + 2i seconds
of the TextGrid's time. Time courses are published raw; slow drifts are removed by Legendre polynomials, and the rest is
z-scored.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.polynomial import legendre

from .. import _progress
from ..assembly import Array, Assembly, Story, check_words_in_run
from ._checks import chosen
from .marks import BAD_WORDS
from .textgrid import read_textgrid

TR = 2.0  # seconds
FIRST_ROW = 20.0  # seconds, in the TextGrid's time
REGIONS = ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")
STORY = "alice"
_ENDING = "-timecourses.txt"


def recognises(source: Path) -> bool:
    """Whether a folder is for `load`."""
    return source.is_dir() and any(source.glob(f"*mm/s*{_ENDING}"))


def listeners(source: str | Path, *, radius_mm: int = 10) -> tuple[str, ...]:
    """Names of the listeners whose time courses are in the folder: "s18", ..."""
    found = Path(source).glob(f"{radius_mm}mm/s*{_ENDING}")
    return tuple(sorted(path.name.removesuffix(_ENDING) for path in found))


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

    All heard the same recording, so one fit of "all" is a fit for each listener; `over_listeners` gives mean
    and standard error of its scores. There is one story and no test story: score by nested cross-validation
    (``use_train_test_split=False``), and test by `shift_test`. Features and BOLD are on the same rows, and speech
    begins with the first of them, so leave out as many rows at the start as the longest delay
    (`TRIMMINGS["alice"]`, for delays up to 4 TRs): a delayed feature is 0 there because nothing was sampled before,
    not because nothing was heard.

    Parameters
    ----------
    source : folder
    subject : "mean" (None), "all", or a listener such as "s18"
        "mean": the mean over listeners of their z-scored time courses, six columns. "all": six columns per
        listener, named "s18 LATL". Listeners with a time course that does not vary are left out of both, with a
        warning.
    stories : names, optional
        The only story is "alice".
    radius_mm : 10 or 6
    detrend : int, optional
        Highest order of the Legendre polynomials that are removed; None removes only the mean.
    textgrid : file, optional
        The transcript; None takes the only TextGrid in the folder.

    Raises
    ------
    ValueError
        An unknown listener, story or radius (the known ones are listed), or a file that is not a table of six
        columns.
    """
    chosen(stories, [STORY], source)
    known = listeners(source, radius_mm=radius_mm)
    if not known:
        radii = ", ".join(sorted(path.name for path in source.glob("*mm")))
        raise ValueError(f"{source}: no time courses for radius_mm={radius_mm}; the folder has {radii}.")
    subject = subject or "mean"
    if subject not in ("mean", "all", *known):
        raise ValueError(f"{source}: no listener {subject!r}; it has mean, all, {', '.join(known)}.")
    names = known if subject in ("mean", "all") else (subject,)
    courses = {name: _timecourses(source / f"{radius_mm}mm" / f"{name}{_ENDING}") for name in names}
    courses = _usable(courses, source)
    cleaned = {name: _clean(values, detrend) for name, values in courses.items()}
    if subject == "all":
        bold, columns = np.hstack(list(cleaned.values())), tuple(f"{n} {r}" for n in cleaned for r in REGIONS)
    else:
        bold, columns = np.mean(list(cleaned.values()), axis=0), REGIONS
    tr_times = FIRST_ROW + TR * np.arange(len(bold))
    transcripts = [Path(textgrid)] if textgrid is not None else sorted(source.glob("*.TextGrid"))
    if len(transcripts) != 1:
        raise ValueError(f"{source}: expected one TextGrid, got {len(transcripts)}; pass textgrid= its path.")
    # the published file is cut off 8 s before its end; `partial` reads it with a warning
    words = read_textgrid(transcripts[0], tier="word", bad_words=BAD_WORDS, partial=True)
    story = Story(name=STORY, words=words, tr_times=tr_times, bold=bold)
    check_words_in_run(story, TR, where=str(source))
    regions = {region: np.array([column.split()[-1] == region for column in columns]) for region in REGIONS}
    return Assembly(
        subject=f"Alice, {subject if len(names) == 1 else f'{subject} of {len(courses)} listeners'}",
        tr=TR,
        stories={STORY: story},
        rois=regions if subject == "all" else {},
        voxel_names=columns,
    )


def _timecourses(path: Path) -> Array:
    """(rows, 6)"""
    try:
        # numpy warns of a file without rows
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            values = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a table of numbers ({error}).") from error
    if values.shape[1:] != (len(REGIONS),) or len(values) < 10 or not np.isfinite(values).all():
        raise ValueError(f"{path}: expected finite numbers in 6 columns, got shape {values.shape}.")
    return values


def _usable(courses: Mapping[str, Array], source: Path) -> dict[str, Array]:
    """Without the listeners who have a region that does not vary (s33's published file has only zeros)."""
    still = [name for name, values in courses.items() if (np.ptp(values, axis=0) == 0).any()]
    kept = {name: values for name, values in courses.items() if name not in still}
    names = ", ".join(still)
    if not kept:
        raise ValueError(f"{source}: the time courses of {names} do not vary; choose another listener.")
    if still:
        left_out = f"{names} left out, the time courses do not vary"
        _progress.warn(f"{source}: {left_out}; {len(kept)} listeners remain.", stacklevel=4)
    if len({len(values) for values in kept.values()}) > 1:
        listed = ", ".join(f"{name} {len(values)}" for name, values in kept.items())
        raise ValueError(f"{source}: expected the same number of rows from every listener, got {listed}.")
    return kept


def _clean(values: Array, order: int | None) -> Array:
    """(rows, regions): without drifts, z-scored."""
    drifts = legendre.legvander(np.linspace(-1, 1, len(values)), order or 0)
    rest = values - drifts @ np.linalg.lstsq(drifts, values, rcond=None)[0]
    return (rest / rest.std(axis=0)).astype(np.float32)


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
        For example `Result.scores`; NaN are left out and not counted.
    columns : names of the columns
        `Result.voxel_names`: "s18 LATL", ...

    Returns
    -------
    dict; the standard error is s / sqrt(n), with n - 1 in s, and NaN for a single listener
    """
    if columns is None or len(values) != len(columns) or not all(len(name.split()) == 2 for name in columns):
        got = f"{np.shape(values)} for {None if columns is None else len(columns)} names"
        raise ValueError(f"over_listeners: expected a value for each column of subject='all', got {got}.")
    values = np.asarray(values, dtype=float)
    found = {}
    for region in dict.fromkeys(name.split()[1] for name in columns):
        here = values[[name.split()[1] == region for name in columns]]
        here = here[np.isfinite(here)]
        spread = here.std(ddof=1) / np.sqrt(len(here)) if len(here) > 1 else np.nan
        found[region] = OverListeners(float(here.mean()) if len(here) else np.nan, float(spread), len(here))
    return found
