"""From features at words to design matrices: downsampling to TRs, FIR delays, trimming, z-scores."""

from .downsampling import DOWNSAMPLERS, downsample, words_to_trs
from .matrix import TRIMMINGS, Trimming, add_delays, standardize

__all__ = [
    "DOWNSAMPLERS",
    "TRIMMINGS",
    "Trimming",
    "add_delays",
    "downsample",
    "standardize",
    "words_to_trs",
]
