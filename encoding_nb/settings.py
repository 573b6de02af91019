"""What a fit is asked to do, and what stands against it.

`Settings` is frozen and typed; `check` finds every problem before any work begins: it reads a model's
configuration but not its weights, and the shapes of the BOLD but not its values. What settings make of an assembly,
and what they may hold, have their own files; the former is to be had from here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from typing import Any

import numpy as np

from . import activations, design, features, folds
from .assembly import Array, Assembly, require_assembly
from .assembly_checks import shown
from .design import Trimming
from .permutation import LEAST_BLOCKS, LEAST_ROWS
from .setting_rows import (
    SettingsError,
    Split,
    inner_folds,
    n_kept_rows,
    outer_folds,
    split_stories,
    story_numbers,
)
from .setting_values import ALTERNATIVES, SIGNIFICANCE, check_values

# the permutation test shuffles blocks: with fewer there are too few orders to tell anything apart
# of nested cross-validation: inner folds are looked at in the outer folds that train on fewest rows
_OUTER_FOLDS_LOOKED_AT = 50
_FOLD_FIELDS = ("folding_type", "n_inner_folds", "chunk_length", "seed")
_MODEL_FIELDS = ("modality", "joined_with", "model_name", "layer_idx", "lookback", "context_type", "stride")
_MODEL_FIELDS += ("processing", "last_token", "use_stored_contexts", "embedding")
_LEAST_PARAMETRIC = 3  # rows, see `scoring.correlation_pvalues`


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
    normalpha, prediction_floor : see `ridge.ridge_steps`; with `alphas=ridge.huth_alphas(a)`, normalpha=True
        and prediction_floor=1e-8 a fit is LITcoder's
    fdr_q : false discovery rate at which a voxel counts as significant
    alternative : "greater" (a voxel is predicted) or "two-sided", for the p-values
    significance : "permutation" of predictions that keep their autocorrelation, or "parametric" p-values, which
        are LITcoder's: they take TRs for independent, and so find too many voxels where BOLD is autocorrelated
    n_permutations, block_trs : of the permutation test, see `scoring.permutation_steps`; None for block_trs
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
        """What `features.joined_steps` needs to know: {modality: its specification}, in the order of columns."""
        return {name: self._spec_of(name) for name in (self.modality, *self.joined_with)}

    @property
    def approximate(self) -> bool:
        """Whether features come of windows that are only near the lookback; to be said wherever results are shown."""
        spec = self.feature_specs.get("language_model")
        return spec is not None and spec.activation.approximate and not self.use_stored_contexts

    def _spec_of(self, modality: str) -> features.FeatureSpec:
        if modality != "language_model":
            return features.FeatureSpec(modality=modality, embedding=self.embedding or self.model_name)
        spec = activations.ActivationSpec(
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


def check(assembly: Assembly, settings: Settings) -> dict[str, str]:
    """What stands against this fit: {setting: one sentence}, empty when it can start.

    Reads a model's configuration, not its weights, and no BOLD. Raises nothing, whatever the settings hold.

    Raises
    ------
    TypeError
        No Assembly, or no Settings, such as a mapping of them.
    """
    require_assembly(assembly, "check")
    require_settings(settings, "check")
    problems = check_values(settings)
    if not problems.keys() & set(_MODEL_FIELDS):
        problems |= _check_features(settings)
    if settings.device == "cuda" and (problem := activations.device_problem("cuda")):
        problems["device"] = problem
    if problems.keys() & {"stories", "test_stories", "use_train_test_split"}:
        return problems
    try:
        split = split_stories(assembly, settings)
    except SettingsError as error:
        return problems | {error.field: str(error)}
    problems |= _check_contexts(assembly, settings, split, problems)
    return problems if "trimming" in problems else problems | _check_rows(assembly, settings, split, problems)


def _check_features(settings: Settings) -> dict[str, str]:
    """Problems of the feature spaces: their model, layer, lookback and file."""
    problems = {}
    spaces = (settings.modality, *settings.joined_with)
    if "embeddings" in spaces:
        problems |= _check_embedding(settings)
    if "language_model" in spaces:
        spec = settings.feature_specs["language_model"].activation
        problems |= activations.check_spec(
            spec, layer_idx=settings.layer_idx, stored=settings.use_stored_contexts
        )
    return problems


def _check_embedding(settings: Settings) -> dict[str, str]:
    """Problems of static embeddings: a file that is not there, a model that is not known."""
    if settings.embedding is None:
        spec = activations.ActivationSpec(settings.model_name, lookback=1)
        found = activations.check_spec(spec, layer_idx=0)
        return {name: sentence for name, sentence in found.items() if name == "model_name"}
    if features.is_vector_file(settings.embedding):
        return {}
    return {
        "embedding": f"There is no file of word vectors at {settings.embedding!r}; check the path, or leave "
        f"embedding=None, which takes the input embedding of model_name."
    }


def _check_contexts(
    assembly: Assembly, settings: Settings, split: Split, problems: Mapping[str, str]
) -> dict[str, str]:
    """Stored windows that are asked for and that a story does not have."""
    if settings.use_stored_contexts is not True or problems.keys() & set(_MODEL_FIELDS):
        return {}
    spec = settings.feature_specs.get("language_model")
    if spec is None:
        return {}
    for name in (*split.train, *split.test):
        try:
            features.stored_contexts(assembly.stories[name], spec)
        except ValueError as error:
            return {"use_stored_contexts": str(error)}
    return {}


def _check_rows(
    assembly: Assembly, settings: Settings, split: Split, problems: Mapping[str, str]
) -> dict[str, str]:
    """Problems of the rows that are left: trimming, delays, folds, and the permutation test's blocks."""
    try:
        train = {s: n_kept_rows(assembly.stories[s], settings.trimming, test=False) for s in split.train}
        test = {s: n_kept_rows(assembly.stories[s], settings.trimming, test=True) for s in split.test}
    except SettingsError as error:
        return {error.field: str(error)}
    found = {}
    if "fir_delays" not in problems:
        found |= _check_delays(settings, [*train.items(), *test.items()])
    fold_fields = _FOLD_FIELDS if split.test else (*_FOLD_FIELDS, "n_outer_folds")
    if problems.keys() & set(fold_fields):
        return found
    try:
        scored = _held_out_rows(np.repeat(np.arange(len(train)), list(train.values())), settings)
    except SettingsError as error:
        return found | {error.field: str(error)}
    n_rows = sum(test.values()) if split.test else scored
    if settings.significance == "permutation" and "block_trs" not in problems:
        found |= _check_blocks(settings, n_rows)
    if settings.significance == "parametric" and n_rows < _LEAST_PARAMETRIC:
        found["trimming"] = (
            f"{', '.join(split.test)} (test story): trimming keeps {n_rows} rows, and p-values need "
            f"{_LEAST_PARAMETRIC} or more; keep more rows or hold out more stories."
        )
    return found


def _check_delays(settings: Settings, n_rows: Sequence[tuple[str, int]]) -> dict[str, str]:
    """A delay that carries every word of a story out of its rows leaves columns of nothing but zeros."""
    story, shortest = min(n_rows, key=lambda pair: pair[1])
    furthest = max(settings.fir_delays, key=abs)
    if abs(furthest) < shortest:
        return {}
    return {
        "fir_delays": f"Expected delays shorter than every story, got {furthest} TRs where {story} keeps {shortest}; "
        f"try (1, 2, 3, 4)."
    }


def _held_out_rows(groups: Array, settings: Settings) -> int:
    """Make the folds that the fit will make; how many rows nested cross-validation scores, else 0."""
    if settings.use_train_test_split:
        _made(lambda: inner_folds(groups, settings), "n_inner_folds")
        return 0
    outer = _made(lambda: outer_folds(groups, settings), "n_outer_folds")
    numbers = sorted(range(len(outer)), key=lambda number: len(outer[number].train))
    for number in numbers[:_OUTER_FOLDS_LOOKED_AT]:
        labels = groups[outer[number].train]
        _made(
            lambda labels=labels: inner_folds(labels, settings),
            "n_inner_folds",
            where=f"Inner folds within outer fold {number + 1} of {len(outer)}: ",
        )
    return len(np.unique(np.concatenate([fold.test for fold in outer])))


def _made(make: Callable[[], list[folds.Fold]], n_folds: str, *, where: str = "") -> list[folds.Fold]:
    """Folds, or a SettingsError that names the setting which `make_folds` objects to."""
    try:
        return make()
    except folds.FoldError as error:
        field = {"n_folds": n_folds, "groups": "folding_type", "trim_size": "folding_type"}
        raise SettingsError(field.get(error.argument, error.argument), f"{where}{error}") from None


def _check_blocks(settings: Settings, n_rows: int) -> dict[str, str]:
    """Held-out rows that are too few to permute, or make too few blocks."""
    if settings.block_trs is None:
        if n_rows >= LEAST_ROWS:
            return {}
        return {
            "significance": f"The permutation test needs {LEAST_ROWS} held-out rows or more, got {n_rows}; hold out "
            f"more stories, trim less, or choose significance='parametric'."
        }
    n_blocks = -(-n_rows // settings.block_trs)
    if n_blocks >= LEAST_BLOCKS:
        return {}
    most = (n_rows - 1) // (LEAST_BLOCKS - 1)
    advice = f"choose a block of at most {most} TRs" if most else "choose significance='parametric'"
    advice += ", None, which shuffles phases,"
    return {
        "block_trs": f"The permutation test needs {LEAST_BLOCKS} blocks or more, and {n_rows} held-out rows in blocks "
        f"of {settings.block_trs} TRs make {n_blocks}; {advice} or hold out more stories."
    }


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
        f"{caller}: expected a Settings, got {shown(value)}; Settings(layer_idx=4), for one, makes it."
    )


def refuse(assembly: Assembly, settings: Settings) -> None:
    """Raise the first of `check`'s problems as a `SettingsError`."""
    for name, message in check(assembly, settings).items():
        raise SettingsError(name, message)


__all__ = [
    "ALTERNATIVES",
    "SIGNIFICANCE",
    "Settings",
    "SettingsError",
    "Split",
    "check",
    "inner_folds",
    "n_kept_rows",
    "outer_folds",
    "refuse",
    "require_settings",
    "split_stories",
    "story_numbers",
]
