"""One fit, from an assembly and settings to a `Result`."""

from .clock import STAGES
from .estimates import Estimate, bytes_needed, estimate, estimate_plan, file_bytes, no_room
from .matrices import (
    DesignMatrices,
    design_matrices,
    response_rows,
    sample_story,
    story_ceiling,
    story_features,
    story_rows,
)
from .partitioning import PartitionResult, partition
from .plan import FitShape, Plan, Split, check, plan_run, split_stories
from .result import IN_MEMORY, NOT_TESTED, TEST_NAMES, Result, to_code
from .runs import prepare, run
from .shifts import ShiftTest, SplitCheck, plan_shifts, shift_test, split_check

__all__ = [
    "IN_MEMORY",
    "NOT_TESTED",
    "STAGES",
    "TEST_NAMES",
    "DesignMatrices",
    "Estimate",
    "FitShape",
    "PartitionResult",
    "Plan",
    "Result",
    "ShiftTest",
    "Split",
    "SplitCheck",
    "bytes_needed",
    "check",
    "design_matrices",
    "estimate",
    "estimate_plan",
    "file_bytes",
    "no_room",
    "partition",
    "plan_run",
    "plan_shifts",
    "prepare",
    "response_rows",
    "run",
    "sample_story",
    "shift_test",
    "split_check",
    "split_stories",
    "story_ceiling",
    "story_features",
    "story_rows",
    "to_code",
]
