"""The ridge fit and what counts as significant."""

from __future__ import annotations

from ..ridge import FOLDING_TYPES
from ..settings import ALTERNATIVES, SIGNIFICANCE
from .data_controls import scheme_field
from .fields import Field, dropdown, number, parse_alphas, parse_whole, text, tick, whole_number, write_alphas

FOLDING = {
    "chunked": "runs of TRs, at random",
    "chunked_contiguous": "runs of TRs, in order",
    "chunked_trimmed": "runs of TRs, ends not scored",
    "kfold": "stretches of the recording",
    "kfold_trimmed": "stretches, ends not scored",
    "timeseries": "the past predicts what follows",
    "group": "whole stories",
}
TESTS = {"parametric": "parametric (quick)", "permutation": "permutation (slower, honest)"}
SIDES = {"greater": "predicted above chance", "two-sided": "above or below chance"}


class FitControls:
    """The fields of folds, alphas and significance."""

    def __init__(self) -> None:
        self.scheme = scheme_field()
        self.folding = dropdown(
            "folding_type",
            "folding",
            "folds",
            {FOLDING.get(name, name): name for name in FOLDING_TYPES},
            "How the rows are dealt to the folds that choose alpha. Neighbouring TRs resemble each other, so none is "
            "held out alone.",
        )
        self.n_inner = whole_number(
            "n_inner_folds", "inner-folds", "inner folds", "In how many folds alpha is chosen."
        )
        self.n_outer = whole_number(
            "n_outer_folds",
            "outer-folds",
            "outer folds",
            "For nested cross-validation: in how many folds rows are scored.",
        )
        self.chunk = whole_number(
            "chunk_length", "chunk-length", "run length", "TRs in a run that is held out as one."
        )
        self.alphas = text(
            "alphas",
            "alphas",
            "alphas",
            "Strengths of the penalty to choose among, as scikit-learn counts: '1e2 to 1e6 in 7 steps', or a list.",
            placeholder="1e2 to 1e6 in 7 steps",
            parse=parse_alphas,
            write=write_alphas,
        )
        self.single = tick(
            "single_alpha", "single-alpha", "one for all", "One alpha for all voxels instead of one for each."
        )
        self.criterion = dropdown(
            "use_corr",
            "criterion",
            "chosen by",
            {"correlation": True, "explained variance (R2)": False},
            "What a good alpha makes large on the rows that are held out.",
        )
        self.normalpha = tick(
            "normalpha",
            "normalpha",
            "scaled alphas",
            "Multiply each alpha by the square of the features' largest singular value, as the Huth lab does.",
        )
        self.floor = number(
            "prediction_floor",
            "prediction-floor",
            "floor",
            "Added to the spread of a prediction when alpha is chosen; LITcoder takes 1e-8, 0 is exact.",
        )
        self.seed = whole_number(
            "seed", "seed", "seed", "Of what is dealt at random; the same seed gives the same result."
        )
        self.device = dropdown(
            "device",
            "device",
            "computed on",
            ("auto", "cpu", "cuda"),
            "Where to compute; the result is the same.",
        )
        self.test = dropdown(
            "significance",
            "significance",
            "test",
            {TESTS.get(name, name): name for name in SIGNIFICANCE},
            "How it is told from chance. The quick test takes TRs for independent and finds too many voxels.",
        )
        self.n_permutations = whole_number(
            "n_permutations", "permutations", "permutations", "Of the permutation test: how many."
        )
        self.block = text(
            "block_trs",
            "block",
            "block (TR)",
            "Of the permutation test: how many TRs stay together; empty: phases are shuffled, which keeps all.",
            placeholder="empty: phases",
            parse=lambda typed: parse_whole(typed, "block (TR)") if typed.strip() else None,
            write=lambda block: "" if block is None else str(block),
        )
        self.fdr = number(
            "fdr_q",
            "fdr",
            "FDR",
            "Which share of the voxels called significant may be so by chance (false discovery rate).",
        )
        self.side = dropdown(
            "alternative",
            "alternative",
            "counts",
            {SIDES.get(name, name): name for name in ALTERNATIVES},
            "Whether only voxels that are predicted count, or also those predicted upside down.",
        )
        self.fit_fields: tuple[Field, ...] = (
            self.scheme,
            self.folding,
            self.n_inner,
            self.n_outer,
            self.chunk,
            self.alphas,
            self.single,
            self.criterion,
            self.normalpha,
            self.floor,
            self.seed,
            self.device,
        )
        self.test_fields: tuple[Field, ...] = (
            self.test,
            self.n_permutations,
            self.block,
            self.fdr,
            self.side,
        )

    def adapt(self) -> None:
        """Grey out what has no effect."""
        self.n_outer.switch(not self.scheme.control.value)
        self.chunk.switch(str(self.folding.control.value).startswith("chunked"))
        permuted = self.test.control.value == "permutation"
        self.n_permutations.switch(permuted)
        self.block.switch(permuted)
