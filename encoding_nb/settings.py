"""What a fit is asked to do: `Settings`, each with the constraint that its value must meet.

A constraint looks at the values alone; whether they fit a data set is checked in `pipeline.plan`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from typing import Any

import numpy as np

from . import design, features, ridge, scoring
from ._validation import describe, parse_json
from .design import Trimming
from .features import CONTEXT_TYPES, FEATURE_SPACES, FIRST_TOKENS, PROCESSINGS, WEIGHTS

ALTERNATIVES = ("greater", "two-sided")
SIGNIFICANCE = ("parametric", "permutation", "shift")
DEVICES = ("auto", "cpu", "cuda")
# gabor needs frequencies and a width, which a fit's settings do not hold
DOWNSAMPLE_METHODS = tuple(name for name in design.DOWNSAMPLERS if name != "gabor")
# The default grid of alphas by feature space. A space with a few columns needs less penalty than one with hundreds: in
# the demo 98 % of the voxels that follow word rate take the smallest alpha of the grid for wide spaces, and 1 % of
# those with its own.
DEFAULT_ALPHAS = {
    "language_model": tuple(float(a) for a in np.logspace(2, 6, 7)),
    "embeddings": tuple(float(a) for a in np.logspace(2, 6, 7)),
    "wordrate": tuple(float(a) for a in np.logspace(-2, 4, 7)),
    "position": tuple(float(a) for a in np.logspace(-2, 4, 7)),
    "time": tuple(float(a) for a in np.logspace(0, 4, 7)),
    "extras": tuple(float(a) for a in np.logspace(-2, 4, 7)),
}
NARROW = ("wordrate", "position", "extras")  # spaces of a few columns
# Folding types whose folds are stretches of a recording, with a gap around them by default
CONTIGUOUS = ("kfold", "kfold_trimmed", "chunked_contiguous", "timeseries")
DEFAULT_GAP = 80.0  # seconds; with 40 s, shifted BOLD of Alice still scores .03, with 80 s .015
LEAST_SHIFTS = 19  # give p-values of 0.05 and more
MOST = 2**63 - 1  # the largest whole number that arrays can hold

Test = Callable[[Any], bool]
Used = Callable[["Settings"], bool]


class SettingsError(ValueError):
    """An invalid setting, found before any work; `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


# ---------------------------------------------------------------------- constraints


@dataclass(frozen=True)
class _Constraint:
    """What a setting may hold: `kind` always; `allowed` only where `used` says that the setting matters."""

    expected: str
    kind: Test
    allowed: Test
    used: Used
    advice: str

    def problem(self, name: str, settings: Settings) -> str | None:
        """A sentence: expected, got, and what to try; None where the value is fine."""
        value = getattr(settings, name)
        if self.kind(value) and (not self.used(settings) or self.allowed(value)):
            return None
        return f"{name} must be {self.expected}, got {_written(value)}{self.advice}."


def _setting(
    default: Any,
    expected: str,
    kind: Test,
    allowed: Test = lambda value: True,
    used: Used = lambda settings: True,
    *,
    advice: str = "",
) -> Any:
    """A field with its constraint; see `_Constraint`."""
    return field(default=default, metadata={"constraint": _Constraint(expected, kind, allowed, used, advice)})


def _choice(default: str, known: Iterable[str], *, advice: str = "") -> Any:
    names = tuple(known)
    return _setting(
        default, f"one of {', '.join(names)}", lambda value: _is_text(value) and value in names, advice=advice
    )


def _flag(default: bool) -> Any:
    return _setting(default, "True or False", lambda value: isinstance(value, bool))


def _whole(default: int, least: int, used: Used = lambda settings: True, advice: str = "") -> Any:
    expected = f"a whole number of {least} or more"
    return _setting(default, expected, _is_whole, lambda value: value >= least, used, advice=advice)


def _whole_or_none(expected: str, used: Used) -> Any:
    return _setting(
        None,
        expected,
        lambda value: value is None or _is_whole(value),
        lambda value: value is None or value >= 1,
        used,
    )


def _story_names() -> Any:
    return _setting(
        None, "story names, each once, or None", lambda value: value is None or _each_once(value, str)
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    """Whether a value is a number that is finite as a float, which it is computed with."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _each_once(values: Any, kind: type) -> bool:
    return (
        isinstance(values, tuple)
        and all(isinstance(value, kind) for value in values)
        and len(set(values)) == len(values)
    )


def _are_alphas(values: Any) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) > 0
        and all(_is_finite(value) and value > 0 for value in values)
    )


def _uses(space: str) -> Used:
    return lambda settings: space in settings.spaces


def _uses_model(settings: Settings) -> bool:
    return "language_model" in settings.spaces or (
        "embeddings" in settings.spaces and settings.embedding is None
    )


def _filters(settings: Settings) -> bool:
    return settings.downsample_method in ("lanczos", "sinc")


def _permutes(settings: Settings) -> bool:
    return settings.significance == "permutation" and not _is_nested(settings)


def _shifts(settings: Settings) -> bool:
    return settings.significance == "shift"


def _is_nested(settings: Settings) -> bool:
    return settings.use_train_test_split is False


def _written(value: Any) -> str:
    """A value for a message; its type where it cannot be written out."""
    if isinstance(value, int) and abs(value) > MOST:
        return "a number that is too large"
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - whatever a repr may raise, such as that of thousands of digits
        return f"a {type(value).__name__} that cannot be written out"


# ---------------------------------------------------------------------- the settings


@dataclass(frozen=True)
class Settings:
    """All settings of a fit that decide its result. Frozen; a misspelt name fails at once.

    Numpy numbers and arrays, and paths, become plain numbers, tuples and strings; where several names are expected,
    one string is one name. A path that starts with ~ is expanded.

    Attributes
    ----------
    modality : "language_model", "wordrate" or "embeddings"
    joined_with : further modalities, whose columns join the first one's in the same ridge
    model_name : a name that TransformerLens knows, with "@revision" to choose one, a local Hugging Face folder, or
        "demo"
    weights : "trained", or "untrained": the same architecture with random weights, drawn from `seed`. What an untrained
        model predicts as well is not due to what the model learned
    layer_idx : residual stream: 0 the embedding, i the input of block i, n_layers the last output
    last_token : the window's last token (True) or the mean over its tokens (False)
    lookback : tokens of context, including the word's
    context_type : "fullcontext", "nocontext", "halfcontext" or "strided" (approximate)
    stride : tokens, for "strided" only
    first_token : what the model reads in front of every window: "bos" (or what takes its place, see
        `model_info(name).first_token`), "eos" or "none"
    processing : "raw" weights or "litcoder" (folded and centred)
    use_stored_contexts : use the context windows that came with the data
    word_rate_bins : for modality "wordrate": "centred" on the TR's time, or "litcoder", half a TR later; see
        `features.word_rate`
    time_sigma : for modality "time": TRs, see `features.time_features`
    extras : for modality "extras": names of arrays in every story's `Story.extras`, such as head motion
    delay_extras : whether `fir_delays` apply to them; they never apply to "time" and "position"
    embedding : for modality "embeddings": a file of word vectors; None takes the model's input embedding
    downsample_method, downsample_window, cutoff_mult : see `design.downsample`
    fir_delays : TRs
    trimming : rows kept of features and targets, see `design.Trimming`
    high_pass : seconds, for example 128; slower waves of BOLD are removed in each story, after trimming and before
        z-scoring, and those of repeats as well, see `design.high_pass`. None removes nothing
    use_train_test_split : fit on the training stories and score on the test stories; False scores
        every story by nested cross-validation, for data without a story to spare
    stories : names of the stories to use; None takes all. Test stories among them are never trained on
    test_stories : names of the held-out stories; None takes the assembly's. They are predicted whether `stories`
        names them or not. Nested cross-validation ignores them
    folding_type, n_inner_folds, chunk_length : inner folds, which choose alphas, see `folds.make_folds`
    outer_folding_type, n_outer_folds : for nested cross-validation, what is held out: see `folds.make_folds`. None
        holds out whole stories ("group") where there are several, in at most as many folds as there are stories, else
        contiguous stretches of the recording ("kfold")
    outer_gap : seconds on both sides of a held-out stretch that this fold does not train on, since neighbouring TRs are
        similar. None takes 80 for contiguous stretches and 0 for other folds
    alphas : the grid, in scikit-learn's convention (penalty alpha * ||w||^2); None takes `DEFAULT_ALPHAS` of the
        feature space. Of alphas whose scores are equal within rounding, the largest is chosen
    single_alpha : one alpha for all voxels
    use_corr : choose alpha by correlation (True) or R2
    normalpha, prediction_floor : see `ridge.ridge_cv`; with `alphas=ridge.huth_alphas(a)`, normalpha=True
        and prediction_floor=1e-8 a fit equals LITcoder's
    fdr_q : false discovery rate at which a voxel counts as significant
    alternative : "greater" (a voxel is predicted) or "two-sided", for the p-values
    significance : "permutation" p-values, which keep the autocorrelation of the predictions; "shift": the fit is
        repeated with BOLD shifted in time, the only valid test of nested cross-validation, which has no p-values
        otherwise, see `shift_test`; or "parametric" ones, as in LITcoder: these assume white noise, and so find too
        many voxels where BOLD is autocorrelated
    n_permutations, block_trs : see `scoring.permutation_pvalues`; block_trs=None shuffles phases, a number shuffles
        blocks of that many TRs
    n_shifts, least_shift : for significance="shift", see `shift_test`
    seed : random seed of the folds, the permutations, the shifts and untrained weights
    device : "auto", "cpu" or "cuda"; changes the speed, not the result
    """

    modality: str = _choice("language_model", FEATURE_SPACES)
    joined_with: tuple[str, ...] = _setting(
        (),
        f"feature spaces among {', '.join(FEATURE_SPACES)}, each once and other than modality",
        lambda value: _each_once(value, str) and set(value) <= set(FEATURE_SPACES),
        advice="; leave it empty for one space",
    )
    model_name: str = _setting(
        "demo",
        "a Hugging Face name or a local folder",
        lambda value: True,
        _is_text,
        _uses_model,
        advice="; the bundled model 'demo' is always available",
    )
    weights: str = _choice("trained", WEIGHTS)
    layer_idx: int = _whole(4, 0, _uses("language_model"))
    last_token: bool = _flag(True)
    lookback: int = _whole(
        64, 1, lambda s: "language_model" in s.spaces and s.use_stored_contexts is not True
    )
    context_type: str = _choice("fullcontext", CONTEXT_TYPES)
    stride: int | None = _whole_or_none(
        "a whole number of tokens of 1 or more, or None",
        lambda s: "language_model" in s.spaces and s.context_type == "strided",
    )
    first_token: str = _choice("bos", FIRST_TOKENS)
    processing: str = _choice("raw", PROCESSINGS)
    use_stored_contexts: bool = _flag(False)
    word_rate_bins: str = _choice("centred", features.WORD_RATE_BINS)
    time_sigma: float = _setting(
        2.0,
        "a number of TRs above 0",
        _is_number,
        lambda value: _is_finite(value) and value > 0,
        _uses("time"),
        advice="; the usual value is 2.0",
    )
    extras: tuple[str, ...] = _setting(
        (),
        "names of arrays in Story.extras, each once",
        lambda value: _each_once(value, str),
        lambda value: len(value) > 0,
        _uses("extras"),
        advice="; for example ('motion',)",
    )
    delay_extras: bool = _flag(False)
    embedding: str | None = _setting(
        None,
        "a file of word vectors, or None for the model's input embedding",
        lambda value: value is None or _is_text(value),
    )
    downsample_method: str = _choice(
        "lanczos",
        DOWNSAMPLE_METHODS,
        advice="; 'gabor' needs frequencies and a width: call design.downsample for it",
    )
    downsample_window: int = _whole(3, 1, _filters, "; the usual value is 3")
    cutoff_mult: float = _setting(
        1.0,
        "a finite multiple of the TR rate above 0",
        _is_number,
        lambda value: _is_finite(value) and value > 0,
        _filters,
        advice="; the usual value is 1.0",
    )
    fir_delays: tuple[int, ...] = _setting(
        (1, 2, 3, 4),
        "one or more delays in TRs, whole numbers, each once",
        lambda value: _each_once(value, int) and len(value) > 0 and all(map(_is_whole, value)),
        advice="; try (1, 2, 3, 4)",
    )
    trimming: Trimming = _setting(  # noqa: RUF009 - a Trimming is frozen
        design.TRIMMINGS["lebel"],
        "a Trimming",
        lambda value: isinstance(value, Trimming),
        advice='; for example trimming=TRIMMINGS["lebel"], from encoding_nb.design import TRIMMINGS, which has '
        f"{', '.join(design.TRIMMINGS)}",
    )
    high_pass: float | None = _setting(
        None,
        "a period in seconds above 0, or None",
        lambda value: value is None or (_is_finite(value) and value > 0),
        advice="; the usual value is 128",
    )
    use_train_test_split: bool = _flag(True)
    stories: tuple[str, ...] | None = _story_names()
    test_stories: tuple[str, ...] | None = _story_names()
    folding_type: str = _choice("chunked", ridge.FOLDING_TYPES)
    n_inner_folds: int = _whole(5, 2)
    outer_folding_type: str | None = _setting(
        None,
        f"None or one of {', '.join(ridge.FOLDING_TYPES)}",
        lambda value: value is None or (_is_text(value) and value in ridge.FOLDING_TYPES),
    )
    n_outer_folds: int = _whole(5, 2, _is_nested)
    outer_gap: float | None = _setting(
        None,
        "a number of seconds of 0 or more, or None",
        lambda value: value is None or _is_finite(value),
        lambda value: value is None or value >= 0,
        _is_nested,
    )
    chunk_length: int = _whole(20, 1)
    alphas: tuple[float, ...] | None = _setting(
        None,
        "None (the default grid) or one or more finite numbers above 0",
        lambda value: value is None or _are_alphas(value),
    )
    single_alpha: bool = _flag(False)
    use_corr: bool = _flag(True)
    normalpha: bool = _flag(False)
    prediction_floor: float = _setting(
        0.0, "a finite number of 0 or more", lambda value: _is_finite(value) and value >= 0
    )
    fdr_q: float = _setting(
        0.05, "a number between 0 and 1", lambda value: _is_finite(value) and 0 < value < 1
    )
    alternative: str = _choice("greater", ALTERNATIVES)
    significance: str = _choice("permutation", SIGNIFICANCE)
    n_permutations: int = _whole(1000, scoring.LEAST_PERMUTATIONS, _permutes, "; the usual value is 1000")
    block_trs: int | None = _whole_or_none(
        "a whole number of TRs of 1 or more, or None to shuffle phases", _permutes
    )
    n_shifts: int = _whole(99, LEAST_SHIFTS, _shifts, "; the usual value is 99")
    least_shift: float | None = _setting(
        None,
        "a number of seconds above 0, or None",
        lambda value: value is None or _is_finite(value),
        lambda value: value is None or value > 0,
        _shifts,
    )
    seed: int = _whole(0, 0)
    device: str = _choice("auto", DEVICES)

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, _plain(getattr(self, each.name)))
        for name in ("joined_with", "extras", "fir_delays", "alphas", "stories", "test_stories"):
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
        """Settings from the output of `to_json`; an unknown name is an error that lists the known names."""
        values = parse_json(text)
        _refuse_unknown("Settings", values, cls)
        return cls(**values)

    @property
    def spaces(self) -> tuple[Any, ...]:
        """`modality` and the spaces joined with it, in the order of columns."""
        return (self.modality, *(self.joined_with if isinstance(self.joined_with, tuple) else ()))

    @property
    def alpha_grid(self) -> tuple[float, ...]:
        """`alphas`, or where they are None the default grid of the first wide space, else of `modality`."""
        if self.alphas is not None:
            return self.alphas
        return DEFAULT_ALPHAS[next((space for space in self.spaces if space not in NARROW), self.modality)]

    @property
    def feature_specs(self) -> dict[str, features.FeatureSpec]:
        """{modality: its specification}, in the order of columns, for `features.joined_features`."""
        return {name: self._spec_of(name) for name in self.spaces}

    def outer_folds_of(self, n_stories: int) -> tuple[str, int, float]:
        """Type, number and gap (seconds) of the outer folds of nested cross-validation, for that many stories."""
        whole = self.outer_folding_type is None and n_stories > 1
        kind = self.outer_folding_type or ("group" if whole else "kfold")
        gap = self.outer_gap
        if gap is None:
            gap = DEFAULT_GAP if kind in CONTIGUOUS else 0.0
        return kind, min(self.n_outer_folds, n_stories) if whole else self.n_outer_folds, gap

    @property
    def approximate(self) -> bool:
        """Whether windows only approximate the lookback ("strided"); results show it."""
        spec = self.feature_specs.get("language_model")
        if spec is None or spec.activation is None or self.use_stored_contexts:
            return False
        return spec.activation.approximate

    def _spec_of(self, modality: str) -> features.FeatureSpec:
        seed = self.seed if self.weights == "untrained" else 0
        drawn: dict[str, Any] = {"weights": self.weights, "weights_seed": seed}
        own: dict[str, dict[str, Any]] = {
            "wordrate": {"word_rate_bins": self.word_rate_bins},
            "embeddings": {
                "embedding": self.embedding or self.model_name,
                **({} if self.embedding else drawn),
            },
            "position": {"delayed": False},
            "time": {"time_sigma": self.time_sigma, "delayed": False},
            "extras": {"extras": self.extras, "delayed": self.delay_extras},
        }
        if modality != "language_model":
            return features.FeatureSpec(modality=modality, **own.get(modality, {}))
        spec = features.ActivationSpec(
            model_name=self.model_name,
            lookback=self.lookback,
            context_type=self.context_type,
            last_token=self.last_token,
            stride=self.stride,
            processing=self.processing,
            first_token=self.first_token,
            **drawn,
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
        raise ValueError(
            f"{what}: unknown names {', '.join(sorted(unknown))}; the known names are {', '.join(known)}."
        )


def _plain(value: Any) -> Any:
    """Numpy numbers and arrays, fractions and paths as values that JSON can hold."""
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
        raise TypeError(f"Settings: {name} must be a sequence, got {value!r}; write ({value!r},).") from None


def check_settings(value: Any, caller: str) -> None:
    """Refuse anything but a Settings, such as a mapping; `caller` is the function that was called.

    Raises
    ------
    TypeError
    """
    if isinstance(value, Settings):
        return
    if isinstance(value, Mapping):
        raise TypeError(
            f"{caller} needs a Settings object, got a mapping; write Settings(**{dict(value)!r})."
        )
    raise TypeError(
        f"{caller} needs a Settings object, got {describe(value)}. For example: Settings(layer_idx=4)."
    )


def check_values(settings: Settings) -> dict[str, str]:
    """{setting: one sentence} for each value that does not meet its constraint.

    Parameters
    ----------
    settings : Settings
        May hold anything; nothing is raised.
    """
    problems = {}
    for each in fields(settings):
        if problem := each.metadata["constraint"].problem(each.name, settings):
            problems[each.name] = problem
    if not problems.keys() & {"modality", "joined_with"} and settings.modality in settings.joined_with:
        problems["joined_with"] = (
            f"joined_with must name other feature spaces than modality, got {settings.modality} in both; leave it out "
            f"of joined_with."
        )
    return problems
