"""Many runs: grids of settings, their runs, tables and plots."""

from .grid import settings_grid, story_subsets
from .plots import plot_layer_profiles, plot_learning_curve, plot_lookback, plot_model_comparison, plot_sweep
from .runs import SweepProgress, run_sweep
from .tables import SweepFailure, curve_table, sweep_table

__all__ = [
    "SweepFailure",
    "SweepProgress",
    "curve_table",
    "plot_layer_profiles",
    "plot_learning_curve",
    "plot_lookback",
    "plot_model_comparison",
    "plot_sweep",
    "run_sweep",
    "settings_grid",
    "story_subsets",
    "sweep_table",
]
