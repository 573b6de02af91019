"""One fit, from an assembly and settings to a `Result`."""

from .clock import STAGES
from .estimates import Estimate, bytes_needed, estimate, estimate_plan, file_bytes, no_room
from .matrices import (
    DesignMatrices,
    design_matrices,
    response_rows,
    sample_story,
    story_ceiling,
    story_rows,
)
from .partitioning import PartitionResult, partition
from .plan import FitShape, Plan, Split, check, plan_run, split_stories
from .result import IN_MEMORY, Result, to_code
from .runs import prepare, run

__all__ = [
    "IN_MEMORY",
    "STAGES",
    "DesignMatrices",
    "Estimate",
    "FitShape",
    "PartitionResult",
    "Plan",
    "Result",
    "Split",
    "bytes_needed",
    "check",
    "design_matrices",
    "estimate",
    "estimate_plan",
    "file_bytes",
    "no_room",
    "partition",
    "plan_run",
    "prepare",
    "response_rows",
    "run",
    "sample_story",
    "split_stories",
    "story_ceiling",
    "story_rows",
    "to_code",
]
