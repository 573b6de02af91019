"""The names of LITcoder's tutorials, as thin objects over this package's functions.

    from encoding_nb.litcoder import (
        AbstractTrainer, Downsampler, FeatureExtractorFactory, NestedCVModel, load_assembly,
    )

A script written for LITcoder (litcoder_core, commit 744382b; arXiv:2509.09152) runs with these imports in
place of its own. What is computed is what `encoding_nb.run` computes; the docstrings say what differs from
LITcoder: a misspelt key is an error, a voxel without variance is counted, a lookback makes the windows.
"""

from .assembly import LitcoderAssembly, StoryData, load_assembly
from .features import FIR, Downsampler, FeatureExtractor, FeatureExtractorFactory
from .model import NestedCVModel
from .trainer import AbstractTrainer

__all__ = [
    "FIR",
    "AbstractTrainer",
    "Downsampler",
    "FeatureExtractor",
    "FeatureExtractorFactory",
    "LitcoderAssembly",
    "NestedCVModel",
    "StoryData",
    "load_assembly",
]
