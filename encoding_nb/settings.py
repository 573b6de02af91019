"""What a fit is asked to do: `Settings`, and the rules that each of its values keeps.

`Settings` is frozen and typed. Its rules look at the values alone; what they mean for a data set is checked in
`pipeline.plan`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from typing import Any

import numpy as np

from . import design, features, ridge
from ._validation import describe
from .design import Trimming
from .features import CONTEXT_TYPES, PROCESSINGS


class SettingsError(ValueError):
    """A setting that cannot be, found before any work; `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Settings:
    """Everything that decides a fit's result. Frozen; a misspelt name fails at once.

    Numbers and arrays of numpy and paths become plain numbers, tuples and texts; one text where several may stand
    is taken as one. A path that starts with ~ is written out.

    Attributes
    ----------
    modality : "language_model", "wordrate" or "embeddings"
    joined_with : further modalities whose columns stand beside the first one's in the same ridge
    model_name : a name TransformerLens knows, where need be with a revision behind it ("name@revision"), a local
        Hugging Face folder, or "demo"
    layer_idx : residual stream: 0 the embedding, i the input of block i, n_layers the last output
    last_token : the window's last token (True) or the mean over its tokens (False)
    lookback : tokens of context, the word's own included
    context_type : "fullcontext", "nocontext", "halfcontext" or "strided" (approximate)
    stride : tokens, for "strided" only
    processing : "raw" weights or "litcoder" (folded and centred)
    use_stored_contexts : take the windows that came with the data instead of making them
    embedding : for modality "embeddings": a file of word vectors; None takes the model's input embedding
    downsample_method, downsample_window, cutoff_mult : see `design.downsample`
    fir_delays : TRs
    trimming : rows kept of features and targets, see `design.Trimming`
    use_train_test_split : fit on the training stories and score on the test stories; False scores
        every story by nested cross-validation
    stories : names of the stories to use, None takes all of the assembly; those of them that are test stories are
        never trained on, so that the same names may stand in both
    test_stories : names of the stories that are held out, None takes the assembly's own; they are predicted
        whether `stories` names them or not; nested cross-validation holds every story out in turn, and takes no
        notice of them
    folding_type, n_inner_folds, n_outer_folds, chunk_length : see `folds.make_folds`
    alphas : the grid, as scikit-learn counts (penalty alpha * ||w||^2)
    single_alpha : one alpha for all voxels
    use_corr : choose alpha by correlation (True) or R2
    normalpha, prediction_floor : see `ridge.ridge_cv`; with `alphas=ridge.huth_alphas(a)`, normalpha=True
        and prediction_floor=1e-8 a fit is LITcoder's
    fdr_q : false discovery rate at which a voxel counts as significant
    alternative : "greater" (a voxel is predicted) or "two-sided", for the p-values
    significance : "permutation" of predictions that keep their autocorrelation, or "parametric" p-values, which
        are LITcoder's: they take TRs for independent, and so find too many voxels where BOLD is autocorrelated
    n_permutations, block_trs : of the permutation test, see `scoring.permutation_pvalues`; None for block_trs
        shuffles phases, a number blocks of so many TRs
    seed : of the folds and the permutations
    device : "auto", "cpu" or "cuda"; changes the speed, not the result
    """

    modality: str = "language_model"
    joined_with: tuple[str, ...] = ()
    model_name: str = "demo"
    layer_idx: int = 4
    last_token: bool = True
    lookback: int = 64
    context_type: str = "fullcontext"
    stride: int | None = None
    processing: str = "raw"
    use_stored_contexts: bool = False
    embedding: str | None = None
    downsample_method: str = "lanczos"
    downsample_window: int = 3
    cutoff_mult: float = 1.0
    fir_delays: tuple[int, ...] = (1, 2, 3, 4)
    trimming: Trimming = field(default_factory=lambda: design.TRIMMINGS["lebel"])
    use_train_test_split: bool = True
    stories: tuple[str, ...] | None = None
    test_stories: tuple[str, ...] | None = None
    folding_type: str = "chunked"
    n_inner_folds: int = 5
    n_outer_folds: int = 5
    chunk_length: int = 20
    alphas: tuple[float, ...] = tuple(float(a) for a in np.logspace(2, 6, 7))
    single_alpha: bool = False
    use_corr: bool = True
    normalpha: bool = False
    prediction_floor: float = 0.0
    fdr_q: float = 0.05
    alternative: str = "greater"
    significance: str = "permutation"
    n_permutations: int = 1000
    block_trs: int | None = None
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, _plain(getattr(self, each.name)))
        for name in ("joined_with", "fir_delays", "alphas", "stories", "test_stories"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _as_tuple(name, value))
        for name in ("model_name", "embedding"):
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, os.path.expanduser(value))
        if isinstance(self.trimming, Mapping):
            _refuse_unknown("Settings.trimming", self.trimming, Trimming)
            object.__setattr__(self, "trimming", Trimming(**self.trimming))

    def to_json(self) -> str:
        """The settings as JSON; `from_json` gives equal settings back."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Settings from what `to_json` wrote; an unknown name is an error that lists the known ones."""
        values = json.loads(text)
        _refuse_unknown("Settings", values, cls)
        return cls(**values)

    @property
    def feature_specs(self) -> dict[str, features.FeatureSpec]:
        """What `features.joined_features` needs to know: {modality: its specification}, in the order of columns."""
        return {name: self._spec_of(name) for name in (self.modality, *self.joined_with)}

    @property
    def approximate(self) -> bool:
        """Whether features come of windows that are only near the lookback; to be said wherever results are shown."""
        spec = self.feature_specs.get("language_model")
        return spec is not None and spec.activation.approximate and not self.use_stored_contexts

    def _spec_of(self, modality: str) -> features.FeatureSpec:
        if modality != "language_model":
            return features.FeatureSpec(modality=modality, embedding=self.embedding or self.model_name)
        spec = features.ActivationSpec(
            model_name=self.model_name,
            lookback=self.lookback,
            context_type=self.context_type,
            last_token=self.last_token,
            stride=self.stride,
            processing=self.processing,
        )
        return features.FeatureSpec(
            modality=modality,
            activation=spec,
            layer_idx=self.layer_idx,
            use_stored_contexts=self.use_stored_contexts,
        )


def _refuse_unknown(what: str, values: Mapping[Any, Any], made: type) -> None:
    known = [f.name for f in fields(made)]
    unknown = [str(name) for name in values if name not in known]
    if unknown:
        raise ValueError(f"{what}: unknown names {', '.join(sorted(unknown))}; known are {', '.join(known)}.")


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy, fractions, and paths, as what JSON can hold."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Real) and not isinstance(value, (int, float)):
        return float(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _as_tuple(name: str, value: Any) -> tuple:
    if isinstance(value, str):
        return (value,)
    try:
        return tuple(map(_plain, value))
    except TypeError:
        raise TypeError(
            f"Settings: expected {name} as a sequence, got {value!r}; write ({value!r},)."
        ) from None


def require_settings(value: Any, caller: str) -> None:
    """Refuse what is not a Settings, such as a mapping of them, where `caller` is the function that was called.

    Raises
    ------
    TypeError
    """
    if isinstance(value, Settings):
        return
    if isinstance(value, Mapping):
        raise TypeError(f"{caller}: expected a Settings, got a mapping; write Settings(**{dict(value)!r}).")
    raise TypeError(
        f"{caller}: expected a Settings, got {describe(value)}; Settings(layer_idx=4), for one, makes it."
    )


ALTERNATIVES = ("greater", "two-sided")
SIGNIFICANCE = ("parametric", "permutation")
DEVICES = ("auto", "cpu", "cuda")
FILTERS = ("lanczos", "sinc")
# gabor needs frequencies and a width, which a fit's settings do not hold
DOWNSAMPLE_METHODS = tuple(name for name in design.DOWNSAMPLERS if name != "gabor")
MOST = 2**63 - 1  # the largest whole number that arrays can hold

Test = Callable[[Any], bool]
Used = Callable[["Settings"], bool]


@dataclass(frozen=True)
class _Rule:
    """What a setting may hold: its kind, always, and its range, where `used` says that it matters."""

    expected: str
    kind: Test
    range: Test = lambda value: True
    used: Used = lambda settings: True
    advice: str = ""


def check_values(settings: Settings) -> dict[str, str]:
    """Settings that hold what they cannot, each with one sentence: expected, got, and what to try.

    Parameters
    ----------
    settings : Settings
        May hold anything; nothing is raised.
    """
    problems = {}
    for name, rule in _RULES.items():
        value = getattr(settings, name)
        if not rule.kind(value) or (rule.used(settings) and not rule.range(value)):
            problems[name] = f"Expected {rule.expected}, got {_shown(value)}{rule.advice}."
    for name, known in _CHOICES.items():
        value = getattr(settings, name)
        if not (isinstance(value, str) and value in known):
            problems[name] = _unknown(name, value, known)
    return problems | _check_spaces(settings)


def _shown(value: Any) -> str:
    """A value for a sentence; its kind where it cannot be written."""
    if isinstance(value, int) and abs(value) > MOST:
        return "a number too large to count with"
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - whatever a repr may raise, such as that of thousands of digits
        return f"a {type(value).__name__} that cannot be written out"


def _unknown(name: str, value: Any, known: Sequence[str] | Mapping[str, Any]) -> str:
    if name == "downsample_method" and _is(value, "gabor"):
        return (
            f"Downsampling by 'gabor' needs frequencies and a width that a fit's settings do not hold; choose one of "
            f"{', '.join(known)}, or call design.downsample."
        )
    return f"Unknown {name.replace('_', ' ')} {_shown(value)}; choose one of {', '.join(known)}."


def _check_spaces(settings: Settings) -> dict[str, str]:
    problems = {}
    known = ", ".join(features.FEATURE_SPACES)
    joined = settings.joined_with if isinstance(settings.joined_with, tuple) else (settings.joined_with,)
    for name, chosen in (("modality", (settings.modality,)), ("joined_with", joined)):
        for space in chosen:
            if not (isinstance(space, str) and space in features.FEATURE_SPACES):
                problems[name] = f"Unknown feature space {_shown(space)}; choose among {known}."
    spaces = (settings.modality, *joined)
    if not problems and len(set(spaces)) < len(spaces):
        problems["joined_with"] = (
            f"Expected each feature space once, got {', '.join(spaces)}; leave the second one out."
        )
    return problems


# ---------------------------------------------------------------------- kinds and ranges


def _is(value: Any, text: str) -> bool:
    return isinstance(value, str) and value == text


def is_whole(value: Any) -> bool:
    """Whether a value is an int that arrays can hold, and not True or False."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    """Whether a number is finite as a float, which it is computed with."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_none_or(kind: Test) -> Test:
    return lambda value: value is None or kind(value)


def _at_least(least: int) -> Test:
    return lambda value: value >= least


def _are(kind: Test, *, empty: bool = False) -> Test:
    """A tuple of things of one kind, each of them once."""

    def holds(values: Any) -> bool:
        if not isinstance(values, tuple) or not all(map(kind, values)):
            return False
        return len(set(values)) == len(values) and (empty or len(values) > 0)

    return holds


def _is_alpha(value: Any) -> bool:
    return _is_number(value) and _is_finite(value) and value > 0


def _are_alphas(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) > 0 and all(map(_is_alpha, values))


def _uses(space: str) -> Used:
    def used(settings: Settings) -> bool:
        joined = settings.joined_with if isinstance(settings.joined_with, tuple) else ()
        return any(_is(chosen, space) for chosen in (settings.modality, *joined))

    return used


_language_model = _uses("language_model")


def _uses_model(settings: Settings) -> bool:
    return _language_model(settings) or (_uses("embeddings")(settings) and settings.embedding is None)


def _filters(settings: Settings) -> bool:
    return any(_is(settings.downsample_method, method) for method in FILTERS)


def _nested(settings: Settings) -> bool:
    return settings.use_train_test_split is False


def _permutes(settings: Settings) -> bool:
    return _is(settings.significance, "permutation")


def _count(what: str, least: int, used: Used = lambda settings: True, advice: str = "") -> _Rule:
    return _Rule(f"{what} as a whole number of {least} or more", is_whole, _at_least(least), used, advice)


def _flag(name: str) -> _Rule:
    return _Rule(f"{name} as True or False", _is_flag)


def _names(what: str) -> _Rule:
    return _Rule(f"{what} as names, each once", _is_none_or(_are(lambda n: isinstance(n, str), empty=True)))


_CHOICES: dict[str, Sequence[str] | Mapping[str, Any]] = {
    "context_type": CONTEXT_TYPES,
    "processing": PROCESSINGS,
    "downsample_method": DOWNSAMPLE_METHODS,
    "folding_type": ridge.FOLDING_TYPES,
    "alternative": ALTERNATIVES,
    "significance": SIGNIFICANCE,
    "device": DEVICES,
}

_RULES: dict[str, _Rule] = {
    "joined_with": _Rule(
        "joined_with as feature spaces",
        lambda value: isinstance(value, tuple),
        advice="; leave it empty for one",
    ),
    "model_name": _Rule(
        "a model's name or folder",
        lambda value: True,
        _is_text,
        _uses_model,
        advice="; 'demo' is there always",
    ),
    "layer_idx": _count("the layer", 0, _language_model),
    "last_token": _flag("last_token"),
    "lookback": _count("the lookback", 1, lambda s: _language_model(s) and s.use_stored_contexts is not True),
    "stride": _Rule(
        "the stride as a whole number of tokens of 1 or more, or None",
        _is_none_or(is_whole),
        _is_none_or(_at_least(1)),
        lambda s: _language_model(s) and _is(s.context_type, "strided"),
    ),
    "use_stored_contexts": _flag("use_stored_contexts"),
    "embedding": _Rule("a file of word vectors, or None for the model's own", _is_none_or(_is_text)),
    "downsample_window": _count("the filter's window", 1, _filters, "; the usual one is 3"),
    "cutoff_mult": _Rule(
        "the cutoff as a finite multiple of the TR rate above 0",
        _is_number,
        lambda value: _is_finite(value) and value > 0,
        _filters,
        "; the usual one is 1.0",
    ),
    "fir_delays": _Rule(
        "at least one delay, as a whole number of TRs, and each once",
        _are(is_whole),
        advice="; try (1, 2, 3, 4)",
    ),
    "trimming": _Rule(
        "a Trimming",
        lambda value: isinstance(value, Trimming),
        advice='; write from encoding_nb.design import TRIMMINGS, then trimming=TRIMMINGS["lebel"] (there are '
        f"{', '.join(design.TRIMMINGS)})",
    ),
    "use_train_test_split": _flag("use_train_test_split"),
    "stories": _names("stories"),
    "test_stories": _names("test stories"),
    "n_inner_folds": _count("the inner folds", 2),
    "n_outer_folds": _count("the outer folds", 2, _nested),
    "chunk_length": _count("the length of a chunk in TRs", 1),
    "alphas": _Rule("at least one alpha and all of them finite and above 0", _are_alphas),
    "single_alpha": _flag("single_alpha"),
    "use_corr": _flag("use_corr"),
    "normalpha": _flag("normalpha"),
    "prediction_floor": _Rule(
        "a finite prediction floor of 0 or more", _is_number, lambda value: _is_finite(value) and value >= 0
    ),
    "fdr_q": _Rule("a false discovery rate between 0 and 1", _is_number, lambda value: 0 < value < 1),
    "n_permutations": _count("the permutations", 1, _permutes),
    "block_trs": _Rule(
        "the block of the permutation test as a whole number of TRs of 1 or more, or None, which shuffles phases",
        _is_none_or(is_whole),
        _is_none_or(_at_least(1)),
        _permutes,
    ),
    "seed": _count("the seed", 0),
}
