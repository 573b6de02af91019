"""Scores by story, and what the selected voxel did while which words were spoken."""

from __future__ import annotations

from html import escape

import ipywidgets as widgets
import numpy as np

from .. import plots
from ..assembly import Assembly
from ..pipeline import Result
from .fields import parse_whole
from .tabs import ResultTab
from .theme import WIDE, Picture, problem

SECONDS = 30.0  # of a story that are seen at once, so that its words can be read
COURSE_INCHES = (5.4, 3.0)  # small, so that it can be read in the column of results


class StoriesTab(ResultTab):
    """The distribution of scores in every held-out story, and one voxel's time course with the words."""

    title = "Stories"

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._result: Result | None = None
        self._drawn: Result | None = None
        self._setting = False
        self.scores = Picture("enb-stories")
        self.course = Picture("enb-course")
        self.story = widgets.Dropdown(
            options=[],
            description="story",
            style=WIDE,
            layout={"width": "280px"},
            tooltip="Which held-out story.",
        ).add_class("enb-course-story")
        self.voxel = widgets.Text(
            "0",
            description="voxel",
            style=WIDE,
            continuous_update=False,
            layout={"width": "200px"},
            tooltip="The voxel whose time course is shown: its number, or click it on the map of the Brain tab.",
        ).add_class("enb-course-voxel")
        self.start = widgets.FloatSlider(
            min=0,
            max=SECONDS,
            step=10,
            description="from (s)",
            style=WIDE,
            continuous_update=False,
            readout_format=".0f",
            layout={"width": "420px"},
            tooltip="Where in the story the stretch that is shown begins.",
        ).add_class("enb-course-start")
        self._voxel_problem = widgets.HTML().add_class("enb-course-voxel-problem")
        self._words = widgets.HTML().add_class("enb-words")
        bar = widgets.HBox([self.story, self.voxel, self.start], layout={"flex_flow": "row wrap"})
        super().__init__([self.scores, bar, self._voxel_problem, self.course, self._words], "stories")
        self.story.observe(lambda _: self._story_chosen(), "value")
        for control in (self.voxel, self.start):
            control.observe(lambda _: self._redraw(), "value")

    def show(self, result: Result, assembly: Assembly) -> None:
        """Show another run; the voxel stays where it still is one, else the best predicted is taken."""
        known = self._result
        self._result, self._assembly = result, assembly
        stories = list(result.predictions)
        self._setting = True
        self.story.options = stories
        if self.story.value is None and stories:
            self.story.value = stories[0]
        if known is None or len(known.scores) != len(result.scores):
            self.voxel.value = str(np.nan_to_num(result.scores, nan=-2).argmax())
        self._range_of_story()
        self._setting = False
        self.changed()

    def select(self, voxel: int) -> None:
        """Show another voxel."""
        if self._result is not None and 0 <= voxel < len(self._result.scores):
            self.voxel.value = str(voxel)

    def _chosen_voxel(self, result: Result) -> int:
        """The number in the box; raises ValueError with a sentence where it is no voxel of the result."""
        voxel = parse_whole(self.voxel.value, "a voxel")
        if not 0 <= voxel < len(result.scores):
            raise ValueError(f"Expected a voxel from 0 to {len(result.scores) - 1}, got {voxel}.")
        return voxel

    def _story_chosen(self) -> None:
        if self._setting or self._result is None:
            return
        self._setting = True
        self._range_of_story()
        self._setting = False
        self._redraw()

    def _range_of_story(self) -> None:
        if self._result is None or self.story.value not in self._result.row_times:
            return
        times = self._result.row_times[self.story.value]
        first = float(times[0])
        last = max(first, float(times[-1]) - SECONDS)
        self.start.max = max(self.start.max, last)
        self.start.min = first
        self.start.max = last if last > first else first + 1
        self.start.value = first

    def _redraw(self) -> None:
        if self._result is not None and not self._setting:
            self.changed()

    def draw(self) -> None:
        """The distribution when the run is new, then the time course."""
        result, story = self._result, self.story.value
        if result is None:
            return
        if self._drawn is not result:
            text = (
                "Distribution of scores over voxels for each held-out story, all voxels and significant ones."
            )
            self.scores.show(plots.plot_stories(result)._repr_png_(), text)
            self._drawn = result
        if story is None:
            return
        try:
            voxel, start = self._chosen_voxel(result), self.start.value
        except ValueError as error:
            self._voxel_problem.value = problem(str(error))
            self.course.clear()
            self._words.value = ""
            return
        self._voxel_problem.value = ""
        text = (
            f"Measured and predicted BOLD of voxel {voxel} in {story} from {start:.0f} s, the words beneath."
        )
        course = plots.plot_voxel(
            result,
            voxel,
            story=story,
            start=start,
            stop=start + SECONDS,
            assembly=self._assembly,
            size=COURSE_INCHES,
        )
        self.course.show(course._repr_png_(), text)
        words = self._assembly.stories[story].words
        heard = np.flatnonzero((words.times >= start) & (words.times <= start + SECONDS))
        self._words.value = "<b>Words of this stretch:</b> " + escape(" ".join(words.text[i] for i in heard))
