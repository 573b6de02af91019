"""Figures of results, designs and time courses."""

from .._figures import new_axes, new_figure
from ._style import (
    CHOSEN,
    ESTIMATE,
    MEASURED,
    PREDICTED,
    SCORE,
    axes_or_new,
    beside,
    chosen_voxels,
    found_in_any,
    known_story,
    model_words,
    space_name,
    tidy,
    unit,
    voxel_words,
    whose,
)
from .comparison import (
    plot_best_layer,
    plot_comparison,
    plot_difference_map,
    plot_pair_map,
    plot_partition,
)
from .design import plot_delays, plot_timeline, plot_trimming
from .regions import plot_regions, plot_rois, region_picture
from .results import plot_alphas, plot_flatmap, plot_layers, plot_profile, plot_shift_test, plot_stories
from .voxel import plot_voxel

__all__ = [
    "CHOSEN",
    "ESTIMATE",
    "MEASURED",
    "PREDICTED",
    "SCORE",
    "axes_or_new",
    "beside",
    "chosen_voxels",
    "found_in_any",
    "known_story",
    "model_words",
    "new_axes",
    "new_figure",
    "plot_alphas",
    "plot_best_layer",
    "plot_comparison",
    "plot_delays",
    "plot_difference_map",
    "plot_flatmap",
    "plot_layers",
    "plot_pair_map",
    "plot_partition",
    "plot_profile",
    "plot_regions",
    "plot_rois",
    "plot_shift_test",
    "plot_stories",
    "plot_timeline",
    "plot_trimming",
    "plot_voxel",
    "region_picture",
    "space_name",
    "tidy",
    "unit",
    "voxel_words",
    "whose",
]
