"""Ridge regression with one alpha per voxel, and the folds over which it is chosen."""

from ._fit import OPERATOR_BYTES
from ._problem import PROJECTION_BYTES, tile_width, workers_for
from ._solvers import SLAB_SIDE
from .cv import NestedResult, RowsOf, fold_parts, huth_alphas, nested_cv, ridge_cv, z_scored
from .folds import FOLDING_TYPES, Fold, FoldError, check_folds, make_folds

__all__ = [
    "FOLDING_TYPES",
    "OPERATOR_BYTES",
    "PROJECTION_BYTES",
    "SLAB_SIDE",
    "Fold",
    "FoldError",
    "NestedResult",
    "RowsOf",
    "check_folds",
    "fold_parts",
    "huth_alphas",
    "make_folds",
    "nested_cv",
    "ridge_cv",
    "tile_width",
    "workers_for",
    "z_scored",
]
