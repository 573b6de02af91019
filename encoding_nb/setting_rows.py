"""What settings make of an assembly: which stories are fitted and predicted, their rows, and the folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import folds
from .assembly import Array, Assembly, Story
from .design import Trimming

if TYPE_CHECKING:
    from .settings import Settings


class SettingsError(ValueError):
    """A setting that cannot be, found before any work; `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Split:
    """Names of the stories that are fitted and of those that are predicted."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def split_stories(assembly: Assembly, settings: Settings) -> Split:
    """The stories of each part, in the assembly's order; in nested cross-validation all are in `train`.

    Raises
    ------
    SettingsError
        A name that the assembly does not have, a part that is empty.
    """
    chosen = assembly.stories if settings.stories is None else settings.stories
    test = assembly.test_stories if settings.test_stories is None else settings.test_stories
    for name, given in (("stories", chosen), ("test_stories", test)):
        for story in given:
            if story not in assembly.stories:
                known = ", ".join(assembly.stories)
                raise SettingsError(name, f"Story {story!r} is not in this assembly; it has {known}.")
    if not settings.use_train_test_split:
        if not chosen:
            raise SettingsError("stories", "There is no story to fit: choose at least one.")
        return Split(tuple(s for s in assembly.stories if s in chosen), ())
    train = tuple(s for s in assembly.stories if s in chosen and s not in test)
    if not train:
        raise SettingsError(
            "stories", "No training story is left beside the test stories; choose at least one more."
        )
    if not test:
        raise SettingsError(
            "test_stories",
            "There is no test story: name one in test_stories, or set use_train_test_split=False.",
        )
    return Split(train, tuple(s for s in assembly.stories if s in test))


def n_kept_rows(story: Story, trimming: Trimming, *, test: bool) -> int:
    """Rows of a story that trimming keeps.

    Raises
    ------
    SettingsError
        Features and targets that do not meet, or fewer than two rows left.
    """
    try:
        n_rows = trimming.check(story.name, story.n_trs, story.n_rows, test=test)
    except ValueError as error:
        raise SettingsError("trimming", str(error)) from None
    if n_rows < 2:
        part = "test" if test else "training"
        raise SettingsError(
            "trimming",
            f"{story.name} ({part} story): trimming keeps {n_rows} of {story.n_rows} rows, and a story needs "
            f"2 or more; keep more rows or leave the story out.",
        )
    return n_rows


def story_numbers(assembly: Assembly, stories: Sequence[str], settings: Settings) -> Array:
    """(n_rows,) the number of the story that each training row comes from."""
    counts = [n_kept_rows(assembly.stories[s], settings.trimming, test=False) for s in stories]
    return np.repeat(np.arange(len(counts)), counts)


def inner_folds(groups: Array, settings: Settings) -> list[folds.Fold]:
    """The folds over which alphas are chosen; `groups` is the story number of each training row."""
    return _folds(groups, settings, settings.n_inner_folds)


def outer_folds(groups: Array, settings: Settings) -> list[folds.Fold]:
    """The folds that nested cross-validation scores; `groups` is the story number of each row."""
    return _folds(groups, settings, settings.n_outer_folds)


def _folds(groups: Array, settings: Settings, n_folds: int) -> list[folds.Fold]:
    return folds.make_folds(
        len(groups),
        folding_type=settings.folding_type,
        n_folds=n_folds,
        chunk_length=settings.chunk_length,
        groups=groups,
        seed=settings.seed,
    )
