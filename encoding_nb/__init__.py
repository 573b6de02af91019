"""Voxelwise encoding models with language-model features, for notebooks.

    from encoding_nb import Settings, load_assembly, run

    assembly = load_assembly("demo")
    result = run(assembly, Settings(layer_idx=3))

Importing this package is quick: a name's module is imported when the name is first used, and torch, pycortex and
ipywidgets are imported by the functions that need them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ._version import __version__ as __version__

# {folder or file: names}
_HOME = {
    "assembly": "Assembly Story Surface Words",
    "settings": "Settings",
    "_progress": "Cancelled Progress",
    "datasets": "convert fetch_lebel load_assembly read_textgrid read_word_table save_assembly",
    "features": """
        ActivationSpec available_models context_windows layer_activations model_info
        tokenize_words word_rate
    """,
    "design": "TRIMMINGS Trimming add_delays downsample high_pass standardize",
    # files that their folders do not import, since scikit-learn takes 115 MB
    "design.estimators": "Delayer",
    "ridge.estimators": "RidgeCV",
    "ridge": "huth_alphas make_folds nested_cv ridge_cv",
    "scoring": """
        correlation correlation_pvalues fdr noise_ceiling normalized_correlation
        permutation_pvalues
    """,
    "pipeline": """
        Result check design_matrices estimate partition run shift_test split_check to_code
    """,
    "brain": "export_webgl flatmap roi_table serve_folder vertex_surface voxel_order",
    "plots": """
        new_axes new_figure plot_best_layer plot_comparison plot_delays plot_difference_map
        plot_flatmap plot_layers plot_partition plot_rois plot_shift_test plot_stories
        plot_timeline plot_trimming plot_voxel
    """,
    "records": "compare_runs list_runs load_run save_run",
    "sweep": """
        curve_table plot_layer_profiles plot_learning_curve plot_lookback
        plot_model_comparison plot_sweep run_sweep settings_grid story_subsets sweep_table
    """,
    "panel": "brain_view control_panel",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
