"""Memory and time that a run will need, by stage, before it starts.

Bytes are counted from the shapes that each stage holds at once, seconds from operations and this machine's
measured rates (`_machine.rates`). `benchmarks/estimates.py` compares both with real runs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .. import _machine, features
from ..assembly import Assembly, check_assembly
from ..ridge import OPERATOR_BYTES, PROJECTION_BYTES, SLAB_SIDE, tile_width, workers_for
from ..settings import Settings, SettingsError, check_settings
from .matrices import MORE_ROOM, in_memory
from .plan import FitShape, Plan, plan_run

TOKENS_PER_WORD = 1.3  # of running English in the byte-pair vocabularies of GPT-2 and OPT
# What importing torch, transformers and transformer_lens adds to a process that draws maps already.
LIBRARY_BYTES = 450_000_000
LIBRARY_SECONDS = 5.0
WEIGHT_BYTES = 5.4  # a float32 parameter while the model is read: itself, and part of its file
READ_BYTES_A_SECOND = 3e8
# Columns of shifted BOLD that are fitted together: their scores and alphas take some 100 MB.
SHIFTED_COLUMNS = 400_000
UNCERTAIN = 1.5  # a time is said as a range, from the estimate divided by this to its product with this
# A model's products come near the rate of one large product only where the model is wide.
HALF_RATE_WIDTH = 150


@dataclass(frozen=True)
class Estimate:
    """Memory and time of a run.

    Attributes
    ----------
    bytes : {stage: peak number of bytes}, on top of what the process uses now
    seconds : {stage: seconds}, from this machine's measured rates; right within a factor of about two
    free : bytes that are free on this machine or in its container
    cached : whether no story's features need a language model
    n_words : words that the model must read first (0 when their features are cached)
    on_disk : whether the responses will be in a temporary file
    problem : why memory or the folder for temporary files has no room, and what would fit; or None
    """

    bytes: Mapping[str, int]
    seconds: Mapping[str, float]
    free: int
    cached: bool
    n_words: int
    on_disk: bool
    problem: str | None = None

    @property
    def peak(self) -> int:
        """Bytes of the stage that needs most."""
        return max(self.bytes.values())

    @property
    def total_seconds(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    @property
    def fits(self) -> bool:
        """Whether memory and the folder for temporary files have room."""
        return self.problem is None

    def __str__(self) -> str:
        features = "features are cached"
        if self.n_words:
            features = f"features of {self.n_words:,} words to compute"
        elif not self.cached:
            features = "word embeddings to look up in the model"
        where = "; responses in a temporary file" if self.on_disk else ""
        return (
            f"{time_range(self.total_seconds)} (longer on a busy machine) and {self.peak / 1e9:.1f} GB of memory "
            f"({self.free / 1e9:.1f} GB free); {features}{where}"
        )


def estimate(assembly: Assembly, settings: Settings, *, memory: Any = None) -> Estimate:
    """Bytes and seconds of a run by stage, without reading BOLD or a model's weights.

    Parameters
    ----------
    assembly, settings
    memory : joblib.Memory, optional
        Where activations are looked for; None takes `features.default_memory()`.

    Raises
    ------
    SettingsError
        The first problem that `check` finds.
    TypeError
        `assembly` is not an Assembly, or `settings` not a Settings.
    """
    check_assembly(assembly, "estimate")
    check_settings(settings, "estimate")
    return estimate_plan(plan_run(assembly, settings, memory=memory))


def estimate_plan(plan: Plan) -> Estimate:
    """Bytes and seconds of a planned run by stage."""
    missing, free = plan.missing, _machine.free_memory()
    n_read = sum(missing[name] for name, spaces in plan.lacking.items() if "language_model" in spaces)
    needed = bytes_needed(plan.settings, plan.shape, missing, free=free)
    return Estimate(
        bytes=needed,
        seconds=_seconds(plan.settings, plan.shape, missing, n_read),
        free=free,
        cached=not missing,
        n_words=n_read,
        on_disk=not in_memory((plan.shape.n_rows, plan.shape.n_voxels), free=free),
        problem=_shortage(plan, needed, free),
    )


def refuse_too_large(plan: Plan) -> None:
    """Raise a SettingsError for a run that needs more memory, or room for temporary files, than is free.

    Raises
    ------
    SettingsError
        For `model_name` where the model is too large; else for `stories`.
    """
    free = _machine.free_memory()
    needed = bytes_needed(plan.settings, plan.shape, plan.missing, free=free)
    problem = _shortage(plan, needed, free)
    if problem is None:
        return
    model = max(needed.values()) > free and _largest(needed) == "features"
    raise SettingsError("model_name" if model else "stories", problem)


# ---------------------------------------------------------------------- bytes


def bytes_needed(
    settings: Settings, shape: FitShape, missing: Mapping[str, int], *, free: int
) -> dict[str, int]:
    """{stage: peak number of bytes}, on top of what the process uses now.

    Parameters
    ----------
    settings : Settings
    shape : FitShape
    missing : {story: words} of the stories whose features must be computed first
    free : bytes of memory that are free
    """
    n, t, k, v = shape.n_rows, shape.n_test_rows, shape.n_columns, shape.n_voxels
    held_out = settings.use_train_test_split
    # Pages of a temporary file are the kernel's to take back, so they do not count.
    responses = 4 * n * v - file_bytes(shape, free=free)
    design = 4 * n * k + responses + (4 * t * (k + v) if held_out else 0)
    # BOLD as float32, its float64 differences and the z-scores of one story at a time
    one_story = 20 * shape.longest_story * v
    ridge = design + _ridge_bytes(settings, shape)
    scores = responses + 4 * t * v * (4 if held_out else 3) + 10 * 8 * v
    if settings.significance == "shift":
        # the matrices stay, a fit of shifted columns is added, and the scores of all shifts with a copy
        fit = _ridge_bytes(settings, _shifted(settings, shape), predicts=False)
        scores += design + fit + 3 * 8 * settings.n_shifts * v
    return {
        "features": _feature_bytes(settings, missing),
        "design": design + one_story,
        "ridge": ridge,
        "scores": scores,
    }


def file_bytes(shape: FitShape, *, free: int) -> int:
    """Bytes of the temporary file that holds a run's responses; 0 where they are in memory.

    Parameters
    ----------
    shape : FitShape
    free : bytes of memory that are free
    """
    size = (shape.n_rows, shape.n_voxels)
    return 0 if in_memory(size, free=free) else 4 * shape.n_rows * shape.n_voxels


def _feature_bytes(settings: Settings, missing: Mapping[str, int]) -> int:
    if not missing:
        return 0
    info = features.model_info(settings.model_name)
    layers, width = (info.n_layers or 12) + 1, info.d_model or 768
    activations_bytes = 2 * 4 * layers * width * max(missing.values())
    batch = 4 * 4096 * 6 * 4 * width  # tokens read at once, and the widest thing computed for each
    return int(LIBRARY_BYTES + WEIGHT_BYTES * (info.n_parameters or 0) + activations_bytes + batch)


def _shifted(settings: Settings, shape: FitShape) -> FitShape:
    """Sizes of a fit of shifted BOLD, whose columns are computed as they are read."""
    return replace(shape, n_voxels=min(SHIFTED_COLUMNS, settings.n_shifts * shape.n_voxels))


def _ridge_bytes(settings: Settings, shape: FitShape, *, predicts: bool = True) -> int:
    """Bytes of the solver in addition to X and Y; see `ridge/_fit.py` and `ridge/_solvers.py`."""
    n_folds, n_alphas = settings.n_inner_folds, len(settings.alpha_grid)
    n, t, k, v = shape.n_rows, shape.n_test_rows, shape.n_columns, shape.n_voxels
    copies = 0
    if not settings.use_train_test_split:
        share = 1 - 1 / settings.n_outer_folds
        copies = 4 * n * v * predicts + 8 * n * k  # the predictions, and X in double precision
        n = int(n * share)
        t = shape.n_rows - n
    exact = 8 * n * k + (32 * n**2 if n <= k else 32 * k**2 + 12 * n * k)
    operators = 4 * n_alphas * (n // n_folds) * min(n, k) * n_folds
    operators = min(operators, OPERATOR_BYTES + operators // n_folds)
    # a tile as it is, in the products' dtype, projected, sorted and transposed; and the slabs it is scored in
    n_workers = workers_for(n, v)
    width = tile_width(n, v, n_workers)
    tile = 5 * 4 * n * width + 2 * 4 * SLAB_SIDE**2
    if n > k:  # and its projections by fold
        tile += min(4 * n_folds * k * width, PROJECTION_BYTES)
    return int(copies + exact + operators + n_workers * tile + 16 * n_alphas * v + 4 * t * v * predicts)


# ---------------------------------------------------------------------- seconds


def _seconds(
    settings: Settings, shape: FitShape, missing: Mapping[str, int], n_read: int
) -> dict[str, float]:
    rates = _machine.rates()
    values = shape.n_rows * shape.n_voxels
    tested = shape.n_test_rows * shape.n_voxels
    scores = 12 * tested / rates.elements
    if settings.significance == "permutation" and settings.use_train_test_split:
        scores += _permutation_seconds(settings, shape.n_test_rows, tested, rates)
    if settings.significance == "shift":
        columns = settings.n_shifts * shape.n_voxels
        part = _shifted(settings, shape)
        scores += columns / part.n_voxels * ridge_seconds(settings, part, rates)
        # shifting and z-scoring them, in each pass of each outer fold
        passes = 40 if settings.use_train_test_split else 40 * settings.n_outer_folds
        scores += passes * settings.n_shifts * values / rates.elements
    return {
        "features": feature_seconds(settings, missing, rates, n_read=n_read),
        "design": 12 * values / rates.elements,
        "ridge": ridge_seconds(settings, shape, rates),
        "scores": scores,
    }


def _permutation_seconds(settings: Settings, n_rows: int, tested: int, rates: _machine.Rates) -> float:
    """Phases: a product with half as many waves as rows (`permutation.Phases`); blocks: sums (`permutation.Blocks`)."""
    if settings.block_trs is None:
        return 24 * tested / rates.elements + settings.n_permutations * tested / rates.single
    blocks = n_rows / settings.block_trs
    return (4 * blocks + 2 * settings.n_permutations / settings.block_trs) * tested / rates.elements


def feature_seconds(
    settings: Settings, missing: Mapping[str, int], rates: _machine.Rates, *, n_read: int | None = None
) -> float:
    """Seconds to load the model and to run it on the words of the stories that are not cached.

    Parameters
    ----------
    settings : Settings
    missing : {story: words} whose features are not cached
    rates : _machine.Rates
    n_read : words that the model must read; None for all of `missing`. Input embeddings are looked up without reading
    """
    if not missing:
        return 0.0
    n_words = sum(missing.values()) if n_read is None else n_read
    info = features.model_info(settings.model_name)
    layers, width = info.n_layers or 12, info.d_model or 768
    tokens = TOKENS_PER_WORD * n_words
    window = settings.lookback + 1
    read = {
        "fullcontext": n_words * window,
        "nocontext": tokens,
        "halfcontext": 2 * tokens,
        "strided": tokens * (1 + window / max(settings.stride or window, 1)),
    }[settings.context_type]
    operations = layers * (24 * width**2 + 2 * window * width)  # per token: products, and attention
    rate = rates.single * width / (width + HALF_RATE_WIDTH)
    loading = 4 * (info.n_parameters or 0) / READ_BYTES_A_SECOND
    importing = 0.0 if "transformers" in sys.modules else LIBRARY_SECONDS
    return importing + loading + read * operations / rate


def ridge_seconds(settings: Settings, shape: FitShape, rates: _machine.Rates) -> float:
    """Seconds of the fit: float32 products with Y, float64 decompositions and inverses, passes over Y."""
    n_fits, n, t = 1, shape.n_rows, shape.n_test_rows
    if not settings.use_train_test_split:
        n_fits = settings.n_outer_folds
        n = int(shape.n_rows * (1 - 1 / n_fits))
        t = shape.n_rows - n
    k, v, rank = shape.n_columns, shape.n_voxels, min(n, shape.n_columns)
    n_operators, held_out = settings.n_inner_folds * len(settings.alpha_grid), n // settings.n_inner_folds
    products = 2.0 * v * (len(settings.alpha_grid) * n * min(n - held_out, k) + (n + t) * rank)
    # eigenvectors of X'X or XX', then for each fold and alpha an inverse of the fold's size
    exact = 2.0 * n * k * rank + 9.0 * rank**3
    exact += n_operators * (4.0 * min(held_out, rank) ** 2 * rank + 2.0 * min(held_out, rank) ** 3)
    passes = (2.0 * len(settings.alpha_grid) + 20.0) * n * v
    return n_fits * (products / rates.single + exact / rates.double + passes / rates.elements)


# ---------------------------------------------------------------------- what would fit


def _shortage(plan: Plan, needed: Mapping[str, int], free: int) -> str | None:
    """Why memory or the folder for temporary files has no room for a run, and what would fit; None where they have."""
    stage = _largest(needed)
    if needed[stage] <= free:
        return no_room(file_bytes(plan.shape, free=free), needed[stage])
    problem = f"This run needs about {needed[stage] / 1e9:.1f} GB of memory ({stage}), but {free / 1e9:.1f} GB are free"
    if stage == "features":
        name = plan.settings.model_name
        millions = (features.model_info(name).n_parameters or 0) / 1e6
        return (
            f"{problem}; {name} has {millions:.0f} million parameters: choose a smaller model, or shut down other "
            f"kernels."
        )
    fitting = _stories_that_fit(plan, free)
    if fitting:
        return f"{problem}; the first {fitting} training stories would fit, or a mask with fewer voxels."
    return f"{problem}; choose fewer stories, a mask with fewer voxels, or shut down other kernels."


def _largest(needed: Mapping[str, int]) -> str:
    return max(needed, key=needed.__getitem__)


def no_room(n_bytes: int, memory: int) -> str | None:
    """Why responses cannot be in temporary files, in addition to `memory` bytes of arrays; None where they can."""
    if n_bytes == 0:
        return None
    folder, room, space = tempfile.gettempdir(), _machine.temporary_room(), _machine.address_space()
    if n_bytes > room:
        return (
            f"The responses take {n_bytes / 1e9:.2g} GB, too much for the free memory, and the folder for temporary "
            f"files, {folder}, has {room / 1e9:.2g} GB free; {MORE_ROOM}."
        )
    if n_bytes + memory > space:  # a map takes address space
        return (
            f"This run needs {(n_bytes + memory) / 1e9:.2g} GB of address space, and the limit of this process "
            f"(ulimit -v) leaves {space / 1e9:.2g} GB; choose fewer stories, or a mask with fewer voxels."
        )
    return None


def _stories_that_fit(plan: Plan, free: int) -> int:
    """The largest number of leading training stories whose run would fit; 0 where not even one does."""
    for count in range(len(plan.train) - 1, 0, -1):
        shape = plan.shape_of(count)
        needed = max(bytes_needed(plan.settings, shape, {}, free=free).values())
        if needed <= free and no_room(file_bytes(shape, free=free), needed) is None:
            return count
    return 0


def time_range(seconds: float) -> str:
    """The range in which a time of an idle machine lies, such as "40 to 90 s"."""
    low, high = seconds / UNCERTAIN, seconds * UNCERTAIN
    if high < 2:
        return "1 or 2 s"
    unit, size = next((unit, size) for unit, size in (("h", 3600), ("min", 60), ("s", 1)) if high >= 2 * size)
    first, last = (_rounded(each / size) for each in (low, high))
    return f"{first} to {last} {unit}"


def _rounded(value: float) -> str:
    """A number with one digit below 2, whole below 20, else in steps of 5."""
    if value < 2:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.0f}" if value < 20 else f"{5 * round(value / 5)}"
