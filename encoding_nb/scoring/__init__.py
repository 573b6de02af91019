"""Correlation of predictions with BOLD, p-values, false discovery rate, noise ceiling."""

from .correlations import (
    LEAST_CEILING,
    autocorrelation,
    ceiling_by_chance,
    combine_pvalues,
    correlation,
    correlation_pvalues,
    fdr,
    fold_correlation,
    noise_ceiling,
    normalized_correlation,
    r2,
    region_metrics,
    summarise,
)
from .permutation import LEAST_BLOCKS, LEAST_PERMUTATIONS, LEAST_ROWS, permutation_pvalues

__all__ = [
    "LEAST_BLOCKS",
    "LEAST_CEILING",
    "LEAST_PERMUTATIONS",
    "LEAST_ROWS",
    "autocorrelation",
    "ceiling_by_chance",
    "combine_pvalues",
    "correlation",
    "correlation_pvalues",
    "fdr",
    "fold_correlation",
    "noise_ceiling",
    "normalized_correlation",
    "permutation_pvalues",
    "r2",
    "region_metrics",
    "summarise",
]
