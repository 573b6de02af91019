"""Features averaged, summed or picked between the TR boundaries that came with the data, as LITcoder does it.

A fit's settings place a word at the TR that its middle is nearest to. LITcoder's pickles hold boundaries made from
the onsets of words, which they do not hold; its trainer uses these for the methods that begin with legacy_.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from .. import features, matrices
from ..assembly import Array, Assembly, Story
from ..design import words_to_trs
from ..settings import Settings
from .downsampling import boundaries


class StoredBoundaries(matrices.Inputs):
    """What a run reads when words belong to TRs by `Story.extras["split_indices"]`."""

    def sampled_steps(
        self, story: Story, settings: Settings, *, memory: Any = None
    ) -> Generator[tuple[int, int], None, features.JoinedFeatures]:
        """As `matrices.sampled_steps`, with the story's own boundaries."""
        return features.joined_steps(
            story,
            settings.feature_specs,
            downsample_method=settings.downsample_method,
            downsample_options={"split_indices": stored_boundaries(story)},
            memory=memory,
            device=settings.device,
        )


def stored_boundaries(story: Story) -> Array:
    """(n_trs - 1,) first words of all TRs but the first; a ValueError, naming the story, where they do not fit."""
    try:
        found = boundaries(story.extras["split_indices"], len(story.words), story.n_trs, legacy=True)
        words_to_trs(story.words.times, story.tr_times, split_indices=found)  # refuses what runs backwards
    except ValueError as error:
        raise ValueError(f"{story.name}: {error}") from error
    return found


def stories_without(assembly: Assembly, names: Sequence[str] | None) -> list[str]:
    """The stories, of those named or of all, that came without boundaries."""
    names = list(assembly.stories) if names is None else names
    return [name for name in names if "split_indices" not in assembly.stories[name].extras]
