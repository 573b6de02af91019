"""Design matrices and responses of a plan: sampled, delayed, trimmed, z-scored per story, stacked."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary
from zlib import crc32

import numpy as np

from .. import _machine, _progress, design, features, scoring
from .._progress import Count
from ..assembly import Array, Story
from ..settings import Settings
from .plan import Plan

# Responses above this share of the free memory go to a temporary file: the fit reads them in tiles.
SHARE_IN_MEMORY = 0.4
MORE_ROOM = "set TMPDIR to a folder on a larger disk, choose fewer stories, or a mask with fewer voxels"
LEAST_REPEATED = 0.5  # of BOLD with the mean of its repeats; BOLD that is one of two repeats of noise has 0.7
SAMPLED_VOXELS = 500


@dataclass(frozen=True, eq=False)
class DesignMatrices:
    """Training and test rows of a fit.

    Attributes
    ----------
    X : (n_rows, n_columns) float32
    Y : (n_rows, n_voxels) float32; a memory map where memory is short
    X_test, Y_test : (n_test_rows, n_columns) and (n_test_rows, n_voxels); None with nested cross-validation
    columns : {feature space: (n,) numbers of its columns, over all delays}
    """

    X: Array
    Y: Array
    X_test: Array | None
    Y_test: Array | None
    columns: Mapping[str, Array]


def design_matrices(
    plan: Plan, sampled: Mapping[str, features.JoinedFeatures] | None = None
) -> DesignMatrices:
    """The rows that a run fits and predicts, in the order of the plan's stories.

    Parameters
    ----------
    plan : Plan
    sampled : {story: its features on the whole TR grid}, optional
        None computes them.

    Raises
    ------
    ValueError
        Values that are not finite: how many, in which columns, of which story.
    """
    if sampled is None:
        sampled = {story.name: sample_story(plan, story) for story in plan.stories}
    X = _stacked_features(plan, sampled, plan.train)
    Y = _training_responses(plan)
    X_test = Y_test = None
    if plan.test:
        trimming = plan.settings.trimming
        X_test = _stacked_features(plan, sampled, plan.test)
        Y_test = np.concatenate([response_rows(story, trimming, test=True) for story in plan.test])
    widths = sampled[plan.train[0].name].widths
    return DesignMatrices(X, Y, X_test, Y_test, _space_columns(widths, len(plan.settings.fir_delays)))


def _space_columns(widths: Mapping[str, int], n_delays: int) -> dict[str, Array]:
    """{space: numbers of its columns} in a delayed matrix: all columns of delay 1, then all of delay 2, ..."""
    total, start, found = sum(widths.values()), 0, {}
    for name, width in widths.items():
        own = np.arange(start, start + width)
        found[name] = np.concatenate([delay * total + own for delay in range(n_delays)])
        start += width
    return found


# ---------------------------------------------------------------------- one story


def sample_story(plan: Plan, story: Story, progress: Count | None = None) -> features.JoinedFeatures:
    """Features of a story on its whole TR grid, the columns of all feature spaces next to each other."""
    settings = plan.settings
    options: dict[str, Any] = {
        "window": settings.downsample_window,
        "cutoff_mult": settings.cutoff_mult,
    }
    if plan.split_indices is not None:
        options = {"split_indices": plan.split_indices[story.name]}
    return features.joined_features(
        story,
        plan.specs,
        downsample_method=settings.downsample_method,
        downsample_options=options,
        memory=plan.memory,
        device=settings.device,
        progress=progress,
    )


def story_rows(story: Story, sampled: Array, settings: Settings, *, test: bool) -> Array:
    """(rows, n_features x n_delays) of a story, from its (n_trs, n_features): delayed, trimmed, z-scored.

    Raises
    ------
    ValueError
        Values that are not finite: how many, in which columns.
    """
    _refuse_not_finite(story.name, sampled, "features", "check the words there, or choose another layer")
    delayed = design.add_delays(sampled, settings.fir_delays)
    return _standardized(settings.trimming.features(delayed, test=test), f"{story.name}, features")


def response_rows(story: Story, trimming: design.Trimming, *, test: bool) -> Array:
    """(rows, n_voxels) float32 of a story: trimmed, z-scored. Reads its BOLD.

    Raises
    ------
    ValueError
        Values that are not finite: how many, in which voxels.
    """
    bold = np.asarray(trimming.targets(story.bold, test=test), dtype=np.float32)
    _refuse_not_finite(story.name, bold, "voxels", "replace or mask them first")
    return _standardized(bold, f"{story.name}, voxels")


def _standardized(values: Array, what: str) -> Array:
    """Each column z-scored over its rows; columns without variance are counted in a warning of the run."""
    scores = design.standardize(values, quiet=True)
    constant = ~scores.any(axis=0)  # a column that varies has scores other than 0
    if constant.any():
        _progress.warn(
            f"{what}: {int(constant.sum())} of {constant.size} columns have no variance and are set to 0."
        )
    return scores


def _refuse_not_finite(story: str, values: Array, what: str, advice: str) -> None:
    # The sum is not finite if a value is not; it also overflows, so then each value is checked.
    if np.isfinite(values.sum(dtype=np.float64)):
        return
    bad = ~np.isfinite(values)
    columns = np.flatnonzero(bad.any(axis=0))
    if len(columns):
        first = ", ".join(map(str, columns[:5])) + (", ..." if len(columns) > 5 else "")
        raise ValueError(
            f"{story}: {bad.sum()} NaN or infinite values in {len(columns)} of {bad.shape[1]} {what} "
            f"(numbers {first}); {advice}."
        )


# ---------------------------------------------------------------------- all stories of a part


def _stacked_features(
    plan: Plan, sampled: Mapping[str, features.JoinedFeatures], stories: Sequence[Story]
) -> Array:
    """(n_rows, n_features x n_delays) float32: `story_rows` of the stories, stacked."""
    test = stories is plan.test
    rows = [story_rows(story, sampled[story.name].values, plan.settings, test=test) for story in stories]
    return np.concatenate(rows, dtype=np.float32)


def _training_responses(plan: Plan) -> Array:
    """(n_rows, n_voxels) float32: `response_rows` of all training stories, stacked.

    Filled story by story, without a second copy; in a temporary file (a memory map) where it is large for this
    machine.
    """
    Y = _responses_array((len(plan.groups), plan.assembly.n_voxels))
    start = 0
    for story in plan.train:
        stop = start + plan.n_kept[story.name]
        Y[start:stop] = response_rows(story, plan.settings.trimming, test=False)
        start = stop
    return Y


def in_memory(shape: tuple[int, int], *, free: int | None = None) -> bool:
    """Whether float32 responses of this shape stay in memory rather than in a temporary file.

    They do where temporary files are in memory themselves (a /tmp that is tmpfs).
    """
    free = _machine.free_memory() if free is None else free
    return 4 * shape[0] * shape[1] <= SHARE_IN_MEMORY * free or _machine.is_memory(tempfile.gettempdir())


def _responses_array(shape: tuple[int, int]) -> Array:
    """An empty float32 array for responses; a memory map of a temporary file where memory is short."""
    if in_memory(shape):
        return np.empty(shape, np.float32)
    # column by column: the fit reads tiles of voxels, which are then contiguous on disk
    return _machine.temporary_array(shape, np.float32, "The responses", MORE_ROOM, order="F")


# ---------------------------------------------------------------------- noise ceilings


# The ceiling depends on the data and the kept rows alone, so a new layer does not need a new one. It takes a quarter
# of the demo's fit. An entry is deleted with its story.
_CEILINGS: WeakKeyDictionary[Story, dict[tuple[int, int, int], tuple[Any, Array, int]]] = WeakKeyDictionary()


def story_ceiling(story: Story, kept: slice) -> Array | None:
    """(n_voxels,) noise ceiling over the kept rows of a story; None for a single presentation.

    It is NaN in voxels whose repeats are not finite; these are counted in a warning of the run.
    """
    if story.repeats is None:
        return None
    known = _CEILINGS.setdefault(story, {})
    rows = kept.indices(story.n_rows)
    # The user may change an array in place; a file is taken to be unchanged.
    mark = crc32(np.ascontiguousarray(story.repeats).data) if type(story.repeats) is np.ndarray else None
    if rows not in known or known[rows][0] != mark:
        repeats = story.repeats[:, kept]
        _check_repeats(story, repeats, kept)
        ceiling = scoring.noise_ceiling(repeats)
        known[rows] = (mark, ceiling, _count_not_finite(repeats, np.isnan(ceiling)))
    _, ceiling, n_broken = known[rows]
    if n_broken:
        _progress.warn(
            f"{story.name}: the repeats of {n_broken} of {ceiling.size} voxels have NaN or infinite values, so these "
            f"voxels have no noise ceiling; replace or mask them first."
        )
    return ceiling


def _check_repeats(story: Story, repeats: Array, kept: slice) -> None:
    """Warn where the mean of the repeats is not what BOLD is: it correlates with it at least as one of two repeats.

    A sample of the voxels suffices; those without variance have no correlation.
    """
    some = slice(None, None, max(1, repeats.shape[2] // SAMPLED_VOXELS))
    mean = repeats[:, :, some].mean(axis=0, dtype=float)
    r = scoring.correlation(mean, np.asarray(story.bold[kept], dtype=float)[:, some])
    if np.isfinite(r).any() and np.nanmedian(r) < LEAST_REPEATED:
        _progress.warn(
            f"{story.name}: the mean of the repeats correlates with the BOLD by only {np.nanmedian(r):.2f} (median "
            f"voxel), so the noise ceiling is not that of this BOLD; do both have the same voxels in the same order, "
            f"the same rows and the same cleaning?"
        )


def _count_not_finite(repeats: Array, doubtful: Array) -> int:
    """How many of the voxels without a ceiling have NaN or infinite values in (n_repeats, n_rows, n_voxels)."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        sums = repeats.sum(axis=(0, 1), dtype=np.float64) if doubtful.any() else np.zeros(doubtful.shape)
    return int((~np.isfinite(sums[doubtful])).sum())
