"""From features at words to design matrices: downsampling to TRs, FIR delays, trimming, z-scores."""

from .downsampling import DOWNSAMPLERS, downsample, words_to_trs
from .matrix import TRIMMINGS, Trimming, add_delays, high_pass, slow_share, slow_waves, standardize

__all__ = [
    "DOWNSAMPLERS",
    "TRIMMINGS",
    "Trimming",
    "add_delays",
    "downsample",
    "high_pass",
    "slow_share",
    "slow_waves",
    "standardize",
    "words_to_trs",
]
