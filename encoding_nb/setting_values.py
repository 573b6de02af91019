"""What each setting may hold, whatever the data: {setting: one sentence} for those that hold something else.

A control that has no effect is greyed out in the panel and cannot be mended there, so a number's range is
looked at only where the number is used; its kind is looked at always.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import design, features, folds
from .activations import CONTEXT_TYPES, PROCESSINGS
from .design import Trimming

if TYPE_CHECKING:
    from .settings import Settings

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
    "folding_type": folds.FOLDING_TYPES,
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
