"""Correlation of predictions with BOLD, p-values, false discovery rate, noise ceiling."""

from .correlations import (
    combine_pvalues,
    correlation,
    correlation_pvalues,
    fdr,
    noise_ceiling,
    normalized_correlation,
    r2,
    region_metrics,
    summarise,
)
from .permutation import LEAST_BLOCKS, LEAST_ROWS, permutation_pvalues

__all__ = [
    "LEAST_BLOCKS",
    "LEAST_ROWS",
    "combine_pvalues",
    "correlation",
    "correlation_pvalues",
    "fdr",
    "noise_ceiling",
    "normalized_correlation",
    "permutation_pvalues",
    "r2",
    "region_metrics",
    "summarise",
]
