"""Figures of results, designs and time courses."""

from .._figures import new_axes
from ._style import (
    CHOSEN,
    MEASURED,
    PREDICTED,
    SCORE,
    axes_or_new,
    beside,
    known_story,
    tidy,
    unit,
    voxel_words,
    whose,
)
from .comparison import plot_best_layer, plot_comparison, plot_difference_map, plot_partition
from .design import plot_delays, plot_timeline, plot_trimming
from .regions import plot_rois, region_picture
from .results import plot_alphas, plot_flatmap, plot_layers, plot_stories
from .voxel import plot_voxel

__all__ = [
    "CHOSEN",
    "MEASURED",
    "PREDICTED",
    "SCORE",
    "axes_or_new",
    "beside",
    "known_story",
    "new_axes",
    "plot_alphas",
    "plot_best_layer",
    "plot_comparison",
    "plot_delays",
    "plot_difference_map",
    "plot_flatmap",
    "plot_layers",
    "plot_partition",
    "plot_rois",
    "plot_stories",
    "plot_timeline",
    "plot_trimming",
    "plot_voxel",
    "region_picture",
    "tidy",
    "unit",
    "voxel_words",
    "whose",
]
