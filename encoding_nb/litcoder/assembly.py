"""A data set under LITcoder's accessors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .. import datasets
from ..assembly import Array, Assembly, Story
from ..features import word_rate


def load_assembly(path: str | Path, **options: Any) -> LitcoderAssembly:
    """A data set by LITcoder's accessors: a LITcoder pickle, "demo", or anything `encoding_nb.load_assembly` opens.

    `options` are those of `encoding_nb.load_assembly`, such as `subject` and `stories`; so are the errors.
    A pickle is read without running any code in it.
    """
    return LitcoderAssembly(datasets.load_assembly(str(path), **options))


class LitcoderAssembly:
    """An `Assembly` as LITcoder's SimpleNeuroidAssembly shows it: lists, one entry per story.

    Attributes
    ----------
    assembly : Assembly
    stories : list of str
    story_data : {story: StoryData}
    """

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly
        self.stories = list(assembly.stories)
        self.story_data = {name: StoryData(story) for name, story in assembly.stories.items()}

    @property
    def shape(self) -> tuple[int, int]:
        """(rows of BOLD over all stories, voxels)."""
        return sum(story.n_rows for story in self.assembly.stories.values()), self.assembly.n_voxels

    @property
    def data(self) -> Array:
        """(rows, voxels) BOLD of all stories below each other, read now."""
        return np.vstack(self.get_brain_data())

    def get_stimuli(self) -> list[list[str]]:
        """The texts of each story: the windows stored with the data, or the words where there are none."""
        return [data.stimuli for data in self.story_data.values()]

    def get_brain_data(self) -> list[Array]:
        """(rows, voxels) BOLD of each story, read now."""
        return [data.brain_data for data in self.story_data.values()]

    def get_split_indices(self) -> list[list[int]]:
        """For each story the (n_trs - 1) first words of all TRs but the first, as for `numpy.split`."""
        return [data.split_indices for data in self.story_data.values()]

    def get_tr_times(self) -> list[Array]:
        """(n_trs,) seconds of each story."""
        return [data.tr_times for data in self.story_data.values()]

    def get_data_times(self) -> list[Array]:
        """(n_words,) seconds of each story: the middle of each word."""
        return [data.data_times for data in self.story_data.values()]

    def get_words(self) -> list[list[str]]:
        """The words of each story."""
        return [data.words for data in self.story_data.values()]

    def get_word_rates(self) -> list[Array]:
        """(n_trs, 1) words per TR of each story."""
        return [data.word_rates for data in self.story_data.values()]

    def get_audio_path(self) -> list[str | None]:
        """The sound file of each story, where the data name one."""
        return [data.audio_path for data in self.story_data.values()]

    def get_temporal_baseline(self, story_name: str) -> Array | None:
        """The temporal baseline stored with a story, or None."""
        if story_name not in self.story_data:
            raise ValueError(f"No story {story_name!r} in this assembly; it has {', '.join(self.stories)}.")
        return self.story_data[story_name].temporal_baseline

    def get_validation_method(self) -> str:
        """ "outer" where the data name test stories, "inner" (cross-validation) where they do not."""
        return "outer" if self.assembly.test_stories else "inner"

    def __getitem__(self, rows: Any) -> Array:
        return self.data[rows]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LitcoderAssembly{self.shape} of {self.assembly!r}"

    def _repr_html_(self) -> str:
        return self.assembly._repr_html_()


class StoryData:
    """One story by LITcoder's names; BOLD is read when `brain_data` is asked for.

    Attributes
    ----------
    story : Story
    name : str
    words : list of str
    data_times, tr_times : (n_words,) and (n_trs,) seconds
    extras : fields that came with the data and that the package itself does not use
    temporal_baseline, mask_indices, audio_path : of these fields, None where the data came without
    """

    def __init__(self, story: Story) -> None:
        self.story = story
        self.name = story.name
        self.words = list(story.words.text)
        self.data_times = story.words.times
        self.tr_times = story.tr_times
        self.extras = story.extras
        self.temporal_baseline = story.extras.get("temporal_baseline")
        self.mask_indices = story.extras.get("mask_indices")
        self.audio_path = story.extras.get("audio_path")

    @property
    def brain_data(self) -> Array:
        """(rows, voxels) BOLD, read now."""
        return np.asarray(self.story.bold[:])

    @property
    def stimuli(self) -> list[str]:
        """(n_words,) stored windows, or the words where the data came without."""
        stored = self.story.contexts or {}
        return list(next(iter(stored.values()))) if stored else self.words

    @property
    def split_indices(self) -> list[int]:
        """(n_trs - 1,) first words of all TRs but the first, as stored.

        Where none are stored, a word belongs to the TR that its middle is nearest to, as `downsample` has it.
        """
        if "split_indices" in self.extras:
            return [int(i) for i in self.extras["split_indices"]]
        bounds = (self.tr_times[1:] + self.tr_times[:-1]) / 2
        # a word without a time goes with the word before it
        times = np.fmax.accumulate(np.concatenate([[-np.inf], self.data_times]))[1:]
        return np.searchsorted(times, bounds, side="left").tolist()

    @property
    def word_rates(self) -> Array:
        """(n_trs, 1) words per TR, in LITcoder's bins."""
        stored = self.extras.get("word_rates")
        return (
            word_rate(self.story.words, self.tr_times, bins="litcoder")
            if stored is None
            else np.asarray(stored)
        )

    def __repr__(self) -> str:
        return f"StoryData({self.name}: {len(self.words)} words, {self.story.n_trs} TRs, {self.story.n_rows} rows)"
