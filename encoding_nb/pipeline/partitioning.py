"""Variance partitioning: what each feature space explains, by banded ridge (himalaya).

Banded ridge gives every feature space its own penalty, so that a space of hundreds of columns does not dominate
one of four (Nunez-Elizalde, Huth and Gallant 2019, NeuroImage 197:482). Held-out rows answer two questions. How much
of the joint R2 is due to each space: the product measure, whose shares sum to the joint R2 (Pratt 1987; Dupre la Tour
et al. 2022, NeuroImage 264:119728). And what does a space explain that no other space does: joint R2 minus the R2 of
a model without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import ridge, scoring
from ..assembly import Array, Assembly, Surface, check_assembly
from ..settings import Settings, SettingsError, check_settings
from .matrices import DesignMatrices, design_matrices
from .plan import plan_run


@dataclass(frozen=True, eq=False)
class PartitionResult:
    """Variance of the held-out rows by feature space; arrays are (n_voxels,), NaN where not fitted.

    Attributes
    ----------
    names : the feature spaces
    joint : R2 of banded ridge on all spaces
    split : {space: share of the joint R2}, by the product measure; they sum to `joint`
    alone : {space: R2 of a model of this space only}
    unique : {space: joint R2 minus the R2 of a model without this space}
    significant : voxels whose joint prediction is significant, by `settings.significance` (FDR over the fitted
        voxels)
    subject, surface, rois, voxel_names, simulated : the assembly's
    """

    settings: Settings
    names: tuple[str, ...]
    joint: Array
    split: Mapping[str, Array]
    alone: Mapping[str, Array]
    unique: Mapping[str, Array]
    significant: Array
    subject: str
    surface: Surface | None = None
    rois: Mapping[str, Array] = field(default_factory=dict)
    voxel_names: tuple[str, ...] | None = None
    simulated: bool = False

    def __repr__(self) -> str:
        shown = self.significant
        parts = ", ".join(
            f"{name} {np.nanmedian(self.unique[name][shown]) if shown.any() else np.nan:.3f}"
            for name in self.names
        )
        return (
            f"PartitionResult({self.subject}: {int(np.isfinite(self.joint).sum())} voxels fitted, "
            f"{int(shown.sum())} significant; median unique R2 in those: {parts})"
        )


def partition(
    assembly: Assembly,
    settings: Settings,
    *,
    voxels: Array | None = None,
    n_iter: int = 20,
    memory: Any = None,
) -> PartitionResult:
    """Partition the variance of held-out rows between the feature spaces of `settings`.

    Parameters
    ----------
    assembly
    settings : Settings
        With `joined_with`, e.g. `Settings(joined_with=("wordrate",))`, and a train/test split.
    voxels : bool array (n_voxels,) or voxel numbers, optional
        Which to fit; by default those that ridge with one penalty for all spaces predicts significantly, since a
        voxel that nothing predicts has no variance to partition.
    n_iter : int
        How many ratios of the bands' penalties banded ridge tries; the first are the single bands, then random ones.
    memory : joblib.Memory, optional
        As for `run`.

    Raises
    ------
    SettingsError
        Fewer than two spaces, nested cross-validation, or the first problem that `check` finds.
    ValueError
        Before any work: voxels that are neither a mask nor numbers, an `n_iter` below 1. Later: no voxel to fit.
    TypeError
        `assembly` is not an Assembly, or `settings` not a Settings.
    """
    check_assembly(assembly, "partition")
    check_settings(settings, "partition")
    plan = plan_run(assembly, settings, memory=memory)
    if not settings.joined_with:
        raise SettingsError(
            "joined_with",
            f'Variance partitioning needs at least two feature spaces, got "{settings.modality}" alone; '
            f'try joined_with=("wordrate",).',
        )
    if not settings.use_train_test_split:
        raise SettingsError(
            "use_train_test_split", "Variance partitioning needs test stories; set use_train_test_split=True."
        )
    if not isinstance(n_iter, (int, np.integer)) or isinstance(n_iter, bool) or n_iter < 1:
        raise ValueError(
            f"n_iter must be a whole number of 1 or more, got {n_iter!r}; the usual value is 20."
        )
    chosen = None if voxels is None else _numbers(voxels, assembly)
    data = design_matrices(plan)
    inner = plan.inner_folds[0]
    if chosen is None:
        chosen = _predicted_voxels(data, inner, settings)
    if not len(chosen):
        raise ValueError(
            f"{assembly.subject}: no voxel is predicted significantly, so there is no variance to partition; "
            f"choose voxels with voxels=..., or try another layer."
        )
    names = tuple(data.columns)
    Y, Y_test = np.ascontiguousarray(data.Y[:, chosen]), data.Y_test[:, chosen]

    def parts_of(spaces: Sequence[str]) -> list[Array]:
        bands = [data.columns[name] for name in spaces]
        return banded_predictions(
            [data.X[:, band] for band in bands],
            Y,
            [data.X_test[:, band] for band in bands],
            alphas=settings.alpha_grid,
            inner=inner,
            n_iter=n_iter,
            seed=settings.seed,
        )

    def everywhere(values: Array) -> Array:
        out = np.full(assembly.n_voxels, np.nan)
        out[chosen] = values
        return out

    together = parts_of(names)
    total = np.sum(together, axis=0)
    joint = scoring.r2(Y_test, total)
    alone = {name: scoring.r2(Y_test, parts_of([name])[0]) for name in names}
    without = {}
    for name in names:
        others = [other for other in names if other != name]
        rest = alone[others[0]] if len(others) == 1 else scoring.r2(Y_test, np.sum(parts_of(others), axis=0))
        without[name] = rest
    significant = np.zeros(assembly.n_voxels, bool)
    significant[chosen] = _significant(Y_test, total, settings)
    shares = dict(zip(names, product_measure(Y_test, together), strict=True))
    return PartitionResult(
        settings=settings,
        names=names,
        joint=everywhere(joint),
        split={name: everywhere(share) for name, share in shares.items()},
        alone={name: everywhere(values) for name, values in alone.items()},
        unique={name: everywhere(joint - without[name]) for name in names},
        significant=significant,
        subject=assembly.subject,
        surface=assembly.surface,
        rois=assembly.rois,
        voxel_names=assembly.voxel_names,
        simulated=assembly.simulated,
    )


def _numbers(voxels: Array, assembly: Assembly) -> Array:
    """Voxel numbers, each once, from a mask or from numbers; at least one."""
    voxels = np.asarray(voxels)
    if not voxels.size or (voxels.dtype == bool and not voxels.any()):
        raise ValueError(
            "voxels: expected at least one voxel, got none; leave voxels out to take those that are significant."
        )
    if voxels.dtype == bool:
        if voxels.shape != (assembly.n_voxels,):
            raise ValueError(
                f"voxels: expected a mask of {assembly.n_voxels} voxels, got shape {voxels.shape}."
            )
        return np.flatnonzero(voxels)
    if voxels.ndim != 1 or not np.issubdtype(voxels.dtype, np.integer):
        raise ValueError(
            f"voxels: expected a mask of {assembly.n_voxels} voxels or whole numbers in a list, got an array of "
            f"{voxels.dtype} of shape {voxels.shape}."
        )
    if not (voxels.min() >= 0 and voxels.max() < assembly.n_voxels):
        raise ValueError(
            f"voxels: expected numbers from 0 to {assembly.n_voxels - 1}, got {voxels.min()} to {voxels.max()}."
        )
    return np.unique(voxels)


def _predicted_voxels(data: DesignMatrices, inner: Sequence[ridge.Fold], settings: Settings) -> Array:
    """Numbers of the voxels that ridge with one penalty for all spaces predicts significantly."""
    fitted = ridge.ridge_cv(
        data.X,
        data.Y,
        X_test=data.X_test,
        Y_test=data.Y_test,
        alphas=settings.alpha_grid,
        folds=inner,
    )
    return np.flatnonzero(_significant(data.Y_test, fitted.predictions, settings))


def _significant(Y: Array, Y_hat: Array, settings: Settings) -> Array:
    """(n_voxels,) whether predictions (n_rows, n_voxels) are significant, by the same test as in a run."""
    if settings.significance == "permutation":
        pvalues = scoring.permutation_pvalues(
            Y,
            Y_hat,
            block_trs=settings.block_trs,
            n_permutations=settings.n_permutations,
            seed=settings.seed,
            alternative=settings.alternative,
            tail="normal",
        )
    else:
        r = scoring.correlation(Y, Y_hat)
        pvalues = scoring.correlation_pvalues(r, len(Y), alternative=settings.alternative)
    return scoring.fdr(pvalues, q=settings.fdr_q)[0]


def banded_predictions(
    bands: Sequence[Array],
    Y: Array,
    bands_test: Sequence[Array],
    *,
    alphas: Sequence[float],
    inner: Sequence[ridge.Fold],
    n_iter: int = 20,
    seed: int = 0,
) -> list[Array]:
    """Each band's part of the prediction of banded ridge: arrays (n_test_rows, n_voxels) that sum to it.

    Parameters
    ----------
    bands, bands_test : arrays, (n_rows, n_columns of the band) and (n_test_rows, n_columns of the band)
    Y : array, (n_rows, n_voxels)
    alphas : the grid of penalties, in scikit-learn's convention
    inner : folds that choose penalties and their ratios, by R2
    n_iter, seed : number and random seed of the ratios to try, see `band_weights`
    """
    from himalaya.ridge import GroupRidgeCV
    from himalaya.scoring import r2_score

    model = GroupRidgeCV(
        groups="input",
        solver="random_search",
        solver_params={
            "alphas": np.asarray(alphas, dtype=np.float32),
            "n_iter": band_weights(len(bands), n_iter, seed=seed),
            "score_func": r2_score,
            "n_targets_batch": 2000,
            "n_targets_batch_refit": 500,
            "progress_bar": False,
            "warn": False,
        },
        cv=[(fold.train, fold.test) for fold in inner],
        fit_intercept=False,
    )
    model.fit([band.astype(np.float32) for band in bands], np.asarray(Y, np.float32))
    parts = model.predict([band.astype(np.float32) for band in bands_test], split=True)
    return list(np.asarray(parts))


def band_weights(n_bands: int, n_iter: int, *, seed: int = 0) -> Array:
    """Ratios of the bands' variances to try: (n_iter, n_bands) float32, each row summing to 1.

    First each band (almost) by itself, then all bands equally, then random points of Dirichlet distributions that
    favour the corners and the middle in turn, as himalaya draws them.
    """
    if n_bands == 1:
        return np.ones((1, 1), np.float32)
    fixed = np.vstack([np.eye(n_bands), np.full(n_bands, 1 / n_bands)])
    rng = np.random.default_rng(seed)
    drawn = [rng.dirichlet(np.full(n_bands, (0.1, 1.0)[i % 2])) for i in range(max(0, n_iter - len(fixed)))]
    # A weight of 0 has no logarithm; 1e-6 has the same effect.
    weights = np.maximum(np.vstack([fixed, *drawn])[: max(n_iter, len(fixed))], 1e-6)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def product_measure(Y: Array, parts: Sequence[Array]) -> list[Array]:
    """Shares of the parts of a prediction in its R2: arrays (n_voxels,) that sum to the R2 of their sum.

    For centred y and y_hat = sum of p_k: R2 = sum_k <p_k, 2 y - y_hat> / <y, y> (the product measure; formula
    of Dupre la Tour et al. 2022, NeuroImage 264:119728, there through himalaya's r2_score_split).
    """
    from himalaya.scoring import r2_score_split

    return list(np.asarray(r2_score_split(np.asarray(Y, np.float32), np.stack(parts).astype(np.float32))))
