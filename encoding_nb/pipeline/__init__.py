"""One fit, from an assembly and settings to a `Result`."""

from .clock import STAGES
from .estimates import Estimate, bytes_needed, estimate
from .kept_inputs import KeptInputs
from .matrices import Inputs, feature_rows, response_rows, sampled_steps, stack_features, story_ceiling
from .partitioning import design_matrices, partition
from .plan import check, fit_shape, split_stories
from .preparing import prepare, prepare_steps
from .result import IN_MEMORY, Result, to_code
from .runs import run, run_steps

__all__ = [
    "IN_MEMORY",
    "STAGES",
    "Estimate",
    "Inputs",
    "KeptInputs",
    "Result",
    "bytes_needed",
    "check",
    "design_matrices",
    "estimate",
    "feature_rows",
    "fit_shape",
    "partition",
    "prepare",
    "prepare_steps",
    "response_rows",
    "run",
    "run_steps",
    "sampled_steps",
    "split_stories",
    "stack_features",
    "story_ceiling",
    "to_code",
]
