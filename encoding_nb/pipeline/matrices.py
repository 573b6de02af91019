"""The stories of an assembly as design matrix and responses: sampled, delayed, trimmed, z-scored, stacked."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .. import _progress, design, features, scoring
from .._machine import free_memory
from ..assembly import Array, Assembly, Story, assembly_digest, fingerprint
from ..settings import Settings
from .plan import n_kept_rows

# Responses above this share of the free memory are kept in a temporary file: the fit reads them in tiles.
SHARE_IN_MEMORY = 0.4


def sampled_steps(
    story: Story, settings: Settings, *, memory: Any = None
) -> Generator[tuple[int, int], None, features.JoinedFeatures]:
    """Features of a story on its whole TR grid, all spaces side by side; yields (done, total)."""
    return features.joined_steps(
        story,
        settings.feature_specs,
        downsample_method=settings.downsample_method,
        downsample_options={"window": settings.downsample_window, "cutoff_mult": settings.cutoff_mult},
        memory=memory,
        device=settings.device,
    )


def matched_rows(story: Story, sampled: Array, settings: Settings, *, test: bool) -> tuple[Array, Array]:
    """(rows, n_features x n_delays) and (rows, n_voxels) of a story: delayed, trimmed, z-scored.

    Raises
    ------
    ValueError
        Values that are not finite: how many, in which columns, of which story.
    """
    return (
        feature_rows(story, sampled, settings, test=test),
        response_rows(story, settings.trimming, test=test),
    )


def feature_rows(story: Story, sampled: Array, settings: Settings, *, test: bool) -> Array:
    """(rows, n_features x n_delays) of a story, from its (n_trs, n_features): delayed, trimmed, z-scored."""
    _refuse_not_finite(story.name, sampled, "features", "look at the words there, or choose another layer")
    delayed = design.add_delays(sampled, settings.fir_delays)
    return _standardized(settings.trimming.features(delayed, test=test), f"{story.name}, features")


def response_rows(story: Story, trimming: design.Trimming, *, test: bool) -> Array:
    """(rows, n_voxels) float32 of a story: trimmed, z-scored. Reads its BOLD."""
    bold = np.asarray(trimming.targets(story.bold, test=test), dtype=np.float32)
    _refuse_not_finite(story.name, bold, "voxels", "replace or mask them first")
    return _standardized(bold, f"{story.name}, voxels")


def _standardized(values: Array, what: str) -> Array:
    """Each column z-scored over its rows; those without variance are counted in a note of the run."""
    scores = design.standardize(values, quiet=True)
    constant = ~scores.any(axis=0)  # a column that varies has scores other than 0
    if constant.any():
        _progress.warn(
            f"{what}: {int(constant.sum())} of {constant.size} columns have no variance and become 0."
        )
    return scores


def _refuse_not_finite(story: str, values: Array, what: str, advice: str) -> None:
    # A sum is finite when its terms are, but for an overflow: only then is each value looked at.
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


def stack_features(
    assembly: Assembly, names: Sequence[str], sampled: Mapping[str, Array], settings: Settings
) -> Array:
    """(n_rows, n_features x n_delays) float32: `feature_rows` of all training stories below each other."""
    rows = [feature_rows(assembly.stories[name], sampled[name], settings, test=False) for name in names]
    return np.concatenate(rows, dtype=np.float32)


def stack_responses(assembly: Assembly, names: Sequence[str], settings: Settings) -> Array:
    """(n_rows, n_voxels) float32: `response_rows` of all training stories below each other.

    Filled in turn, so that no second copy is held; in a temporary file (a memory map) where it is large for
    this machine.
    """
    counts = [n_kept_rows(assembly.stories[s], settings.trimming, test=False) for s in names]
    Y = responses_array((sum(counts), assembly.n_voxels))
    for name, stop, count in zip(names, np.cumsum(counts), counts, strict=True):
        Y[stop - count : stop] = response_rows(assembly.stories[name], settings.trimming, test=False)
    return Y


def in_memory(shape: tuple[int, int], *, free: int | None = None) -> bool:
    """Whether float32 responses of this shape are held in memory rather than in a temporary file."""
    free = free_memory() if free is None else free
    return 4 * shape[0] * shape[1] <= SHARE_IN_MEMORY * free


def responses_array(shape: tuple[int, int]) -> Array:
    """An empty float32 array for responses; a memory map of a file that goes with it where memory is short."""
    if in_memory(shape):
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(prefix="encoding_nb-") as file:
        # by columns, as the fit reads it: tiles of voxels then lie together on the disk
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape, order="F")


@dataclass(frozen=True, eq=False)
class DesignMatrices:
    """Training and test rows of a fit, and whose columns are whose.

    Attributes
    ----------
    X, X_test : (n_rows, n_columns) and (n_test_rows, n_columns)
    Y, Y_test : (n_rows, n_voxels) and (n_test_rows, n_voxels)
    columns : {feature space: (n,) numbers of its columns, over all delays}
    """

    X: Array
    Y: Array
    X_test: Array
    Y_test: Array
    columns: Mapping[str, Array]


def space_columns(widths: Mapping[str, int], n_delays: int) -> dict[str, Array]:
    """{space: numbers of its columns} in a delayed matrix: all columns of delay 1, then all of delay 2, ..."""
    total, start, found = sum(widths.values()), 0, {}
    for name, width in widths.items():
        own = np.arange(start, start + width)
        found[name] = np.concatenate([delay * total + own for delay in range(n_delays)])
        start += width
    return found


# The ceiling follows from the data and the kept rows alone, so a class that moves the layer's slider does
# not need it again; an entry goes with its story.
_CEILINGS: WeakKeyDictionary[Story, dict[tuple[int, int, int], tuple[Any, Array, int]]] = WeakKeyDictionary()


def story_ceiling(story: Story, kept: slice) -> Array | None:
    """(n_voxels,) noise ceiling over the kept rows of a story; None where it was heard once.

    Voxels whose repeats are not finite have none; they are counted in a note of the run.
    """
    if story.repeats is None:
        return None
    known = _CEILINGS.setdefault(story, {})
    rows = kept.indices(story.n_rows)
    # An array may be changed in place; a file that is read is taken to be as it was.
    mark = fingerprint(story.repeats) if type(story.repeats) is np.ndarray else None
    if rows not in known or known[rows][0] != mark:
        repeats = story.repeats[:, kept]
        ceiling = scoring.noise_ceiling(repeats)
        known[rows] = (mark, ceiling, _count_not_finite(repeats, np.isnan(ceiling)))
    _, ceiling, n_broken = known[rows]
    if n_broken:
        _progress.warn(
            f"{story.name}: the repeats of {n_broken} of {ceiling.size} voxels hold NaN or infinite values, so these "
            f"voxels have no noise ceiling; replace or mask them first."
        )
    return ceiling


def _count_not_finite(repeats: Array, doubtful: Array) -> int:
    """How many of the doubtful voxels hold NaN or infinite values in (n_repeats, n_rows, n_voxels)."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        sums = repeats.sum(axis=(0, 1), dtype=np.float64) if doubtful.any() else np.zeros(doubtful.shape)
    return int((~np.isfinite(sums[doubtful])).sum())


class Inputs:
    """Where a run takes its parts from: here each is made when it is asked for.

    A sweep gives `pipeline.run_steps` one that keeps what its runs have in common.
    """

    def sampled_steps(
        self, story: Story, settings: Settings, *, memory: Any = None
    ) -> Generator[tuple[int, int], None, features.JoinedFeatures]:
        """See the function of this name."""
        return sampled_steps(story, settings, memory=memory)

    def stack_features(
        self, assembly: Assembly, names: Sequence[str], sampled: Mapping[str, Array], settings: Settings
    ) -> Array:
        """See the function of this name."""
        return stack_features(assembly, names, sampled, settings)

    def stack_responses(self, assembly: Assembly, names: Sequence[str], settings: Settings) -> Any:
        """See the function of this name; may be anything with `.shape`, `[:, start:stop]` and `[row mask]`."""
        return stack_responses(assembly, names, settings)

    def matched_rows(
        self, story: Story, sampled: Array, settings: Settings, *, test: bool
    ) -> tuple[Array, Array]:
        """See the function of this name."""
        return matched_rows(story, sampled, settings, test=test)

    def derived(self, X: Array) -> dict[str, Any] | None:
        """What fits of this X, as `stack_features` gave it, leave for each other; see `ridge.ridge_steps`."""
        return None

    def forget(self) -> bool:
        """Let go of what earlier runs have left, where memory is short; False where nothing was."""
        return False

    def data_digest(self, assembly: Assembly) -> str | None:
        """See `provenance.assembly_digest`; None where some data cannot be read, with a note."""
        try:
            return assembly_digest(assembly)
        except Exception as error:  # noqa: BLE001 - of whatever the data lie in, maybe of a story with no part here
            _progress.warn(f"The result is without a digest of its data ({error}).")
            return None

    def noise_ceiling(self, story: Story, kept: slice) -> Array | None:
        """See `story_ceiling`."""
        return story_ceiling(story, kept)

    def noise_ceilings(
        self, assembly: Assembly, settings: Settings, names: Sequence[str], *, test: bool
    ) -> dict[str, Array]:
        """{story: (n_voxels,)} the ceilings of those of the stories that were heard more than once."""
        _, kept = settings.trimming.slices(test=test)
        found = {name: self.noise_ceiling(assembly.stories[name], kept) for name in names}
        return {name: ceiling for name, ceiling in found.items() if ceiling is not None}
