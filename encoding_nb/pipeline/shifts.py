"""The shift test: is a score more than BOLD that was shifted in time gives? Each shift is fitted anew.

A prediction of nested cross-validation is made from the BOLD of the other folds, so that it is tied to the measurement
even without any knowledge of the story, and slow waves of BOLD and of features tie them further. Permuting a finished
prediction does not show this; another fit with BOLD that is shifted along each story does. Shifted BOLD has the
autocorrelation of BOLD, and no relation to the words. For a fit, it is more columns of Y: the operators are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy import fft, stats

from .. import _progress, design, ridge, scoring
from .._progress import Count, Progress, ignore
from .._validation import check_choice, check_whole
from ..assembly import Array, Assembly, check_assembly
from ..settings import LEAST_SHIFTS, Settings, SettingsError, check_settings
from .clock import Clock
from .estimates import SHIFTED_COLUMNS, refuse_too_large
from .matrices import SAMPLED_VOXELS, DesignMatrices, design_matrices, story_features
from .partitioning import banded_scores
from .plan import Plan, plan_run
from .result import Result

SHIFTED = ("bold", "features")
STATISTICS = ("r", "r2")
SHORTEST_SHIFT = 40.0  # seconds
CORRELATED = 0.1  # autocorrelation above which rows count as similar
STORIES_LOOKED_AT = 3  # for the autocorrelation

SPLIT_VOXELS = 2000  # of a split check, whose score is a mean over voxels
LEAST_INNER = 3  # inner folds of a split check
LEAKS = 0.05  # r of a model that knows only time
# What `settings` and `against` must have in common: the data and the rows that are held out.
SHARED = ("trimming", "high_pass", "use_train_test_split")


@dataclass(frozen=True, eq=False)
class ShiftTest:
    """A score, or the gain of one model over another, against its values with shifted data.

    Arrays have an entry for each voxel, tested voxel or region; NaN where there is no score.

    Attributes
    ----------
    settings, against : Settings; against is None for the score of one model
    statistic : "r" or "r2"
    shift : "bold" or "features"
    names : what the entries are: regions, the data's names of voxels, or "voxel 5"
    voxels : (n,) numbers of the voxels, or None for regions
    observed : (n,)
    nulls : (n_shifts, n), the same with shifted data
    amounts : (n_shifts, n_stories), rows by which each story was shifted
    """

    settings: Settings
    against: Settings | None
    statistic: str
    shift: str
    names: tuple[str, ...]
    voxels: Array | None
    observed: Array
    nulls: Array
    amounts: Array

    @property
    def null_mean(self) -> Array:
        """(n,) mean over the shifts."""
        return self.nulls.mean(axis=0)

    @property
    def null_sd(self) -> Array:
        """(n,) standard deviation over the shifts."""
        return self.nulls.std(axis=0, ddof=1)

    @property
    def least_p(self) -> float:
        """The least p-value that this number of shifts can give."""
        return 1 / (1 + len(self.nulls))

    @property
    def pvalues(self) -> Array:
        """(n,) counted: (1 + shifts that reach the observed value) / (1 + shifts) (Phipson and Smyth 2010)."""
        return counted_pvalues(self.observed, self.nulls, self.settings.alternative)

    @property
    def tail_pvalues(self) -> Array:
        """(n,) by a t distribution fitted to the shifts, see `tail_pvalues`."""
        return tail_pvalues(self.observed, self.nulls, self.settings.alternative)

    @property
    def corrected(self) -> Array:
        """(n,) p-values for the largest of all entries: the chance that any of them is as far from its null."""
        return corrected_pvalues(self.observed, self.nulls, self.settings.alternative)

    @property
    def significant(self) -> Array:
        """(n,) bool: voxels by the FDR of `tail_pvalues` of r; regions, and R2, by `corrected` at 0.05.

        The tails of R2 are longer than those of a t distribution, so that its FDR would find voxels in noise.
        """
        if self.voxels is None or self.statistic == "r2":
            return self.corrected <= 0.05
        return scoring.fdr(self.tail_pvalues, q=self.settings.fdr_q)[0]

    @property
    def mean(self) -> tuple[float, float, float, float]:
        """The mean over all entries: observed, its mean and standard deviation over shifts, and counted p-value."""
        observed, nulls = np.nanmean(self.observed), np.nanmean(self.nulls, axis=1)
        p = counted_pvalues(np.array([observed]), nulls[:, None], self.settings.alternative)[0]
        return float(observed), float(nulls.mean()), float(nulls.std(ddof=1)), float(p)

    def __repr__(self) -> str:
        what = "gain in " if self.against is not None else ""
        what += "R2" if self.statistic == "r2" else "r"
        observed, mean, sd, p = self.mean
        return (
            f"ShiftTest({what}, mean of {len(self.observed)} {'regions' if self.voxels is None else 'voxels'}: "
            f"{observed:+.3f}; with shifted {'BOLD' if self.shift == 'bold' else 'features'} {mean:+.3f} ± {sd:.3f}, "
            f"p = {p:.3f}; {int(self.significant.sum())} significant; {len(self.nulls)} shifts, least p "
            f"{self.least_p:.3f})"
        )


# ---------------------------------------------------------------------- p-values


def counted_pvalues(observed: Array, nulls: Array, alternative: str) -> Array:
    """(n,) share of observed (n,) and nulls (n_shifts, n) that are as far from their mean as the observed value."""
    z = _standardized(observed, nulls, alternative)
    with np.errstate(invalid="ignore"):
        p = (z >= z[0] - 1e-9).mean(axis=0)
    return np.where(np.isfinite(z[0]), p, np.nan)


def corrected_pvalues(observed: Array, nulls: Array, alternative: str) -> Array:
    """(n,) as `counted_pvalues`, against the largest of all n in each shift (Westfall and Young 1993, maximum).

    Each entry is first z-scored over the observed value and the shifts, so that all count on one scale.
    """
    z = _standardized(observed, nulls, alternative)
    defined = np.isfinite(z).all(axis=0)
    if not defined.any():
        return np.full(len(observed), np.nan)
    largest = z[:, defined].max(axis=1)
    p = np.full(len(observed), np.nan)
    p[defined] = (largest[:, None] >= z[0, defined] - 1e-9).mean(axis=0)
    return p


def tail_pvalues(observed: Array, nulls: Array, alternative: str) -> Array:
    """(n,) from a t distribution with n_shifts - 1 degrees of freedom that is fitted to the shifts.

    t = (observed - mean) / (sd sqrt(1 + 1 / n_shifts)) is the prediction interval of one more normal value. It gives
    the small p-values that a false discovery rate over thousands of voxels needs, and that a count of few shifts lacks.
    """
    n = len(nulls)
    sd = nulls.std(axis=0, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = (observed - nulls.mean(axis=0)) / np.where(sd > 0, sd * np.sqrt(1 + 1 / n), np.nan)
    if alternative == "two-sided":
        return 2 * stats.t.sf(np.abs(t), n - 1)
    return stats.t.sf(t, n - 1)


def _standardized(observed: Array, nulls: Array, alternative: str) -> Array:
    """(1 + n_shifts, n): the observed value and the shifts, z-scored together; sizes for "two-sided"."""
    values = np.vstack([observed, nulls]).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (values - values.mean(axis=0)) / values.std(axis=0)
    return np.abs(z) if alternative == "two-sided" else z


# ---------------------------------------------------------------------- by how much


def _shifting(settings: Settings) -> dict[str, Any]:
    """What makes a run one with shifts."""
    return {"significance": "shift", "n_shifts": settings.n_shifts, "least_shift": settings.least_shift}


def plan_shifts(plan: Plan) -> Array:
    """(n_shifts, n_stories) rows by which each story's BOLD moves, its end returning at its beginning.

    Shifts of one story are spread evenly over all that are possible; those of several stories are drawn from the random
    seed, for each story by itself. The least shift is 40 s, or as long as the rows of BOLD are correlated (median
    autocorrelation above 0.1) and the longest delay on top, if that is longer. Reads BOLD of some voxels.

    Raises
    ------
    SettingsError
        A given least shift that is shorter than BOLD's autocorrelation; stories too short, or too few shifts.
    """
    settings, tr = plan.settings, plan.assembly.tr
    n_shifts, given = settings.n_shifts, settings.least_shift
    similar = correlated_rows(plan)
    if given is None:
        least = max(int(np.ceil(SHORTEST_SHIFT / tr)), similar + max(map(abs, settings.fir_delays)))
    else:
        least = int(np.ceil(given / tr - 1e-9))
        if least < similar:
            raise SettingsError(
                "least_shift",
                f"Expected shifts longer than BOLD's autocorrelation, which is above {CORRELATED:g} for "
                f"{similar * tr:g} s, got {given:g} s; set least_shift to that or more, or remove slow waves with "
                f"high_pass=128.",
            )
    lengths = {story.name: plan.n_kept[story.name] for story in plan.stories}
    possible = {name: max(0, n - 2 * least + 1) for name, n in lengths.items()}
    name, fewest = min(possible.items(), key=lambda pair: pair[1])
    if np.prod([float(n) for n in possible.values()]) < n_shifts:
        longest = "is too short for any" if not fewest else f"has {fewest}"
        raise SettingsError(
            "n_shifts",
            f"Expected {n_shifts} shifts, but story {name} ({lengths[name]} rows, {lengths[name] * tr:g} s) {longest}, "
            f"with shifts of {least * tr:g} s or more; set fewer n_shifts, remove slow waves with high_pass=128, or "
            f"take longer stories.",
        )
    if len(lengths) == 1:
        return np.linspace(least, lengths[name] - least, n_shifts).round().astype(int)[:, None]
    rng = np.random.default_rng(settings.seed)
    return np.column_stack([rng.integers(least, n - least + 1, n_shifts) for n in lengths.values()])


def correlated_rows(plan: Plan) -> int:
    """Rows after which the autocorrelation of BOLD is below 0.1, in the median of some voxels and stories."""
    found = []
    for story in plan.stories[:STORIES_LOOKED_AT]:
        step = max(1, plan.assembly.n_voxels // SAMPLED_VOXELS)
        bold = np.asarray(story.bold[plan.bold_rows[story.name]])[:, ::step].astype(float)
        if plan.settings.high_pass is not None:
            bold = design.high_pass(bold, tr=plan.assembly.tr, period=plan.settings.high_pass)
        z = design.standardize(bold[:, np.isfinite(bold).all(axis=0)], quiet=True)
        if not z.any():
            continue
        power = np.square(np.abs(fft.rfft(z, 2 * len(z), axis=0)))
        autocorrelation = fft.irfft(power, axis=0)[: len(z)] / len(z)
        typical = np.median(autocorrelation[:, z.any(axis=0)], axis=1)
        found.append(int(np.argmax(typical < CORRELATED)) if (typical < CORRELATED).any() else len(z))
    return int(np.median(found)) if found else 0  # the design matrices refuse BOLD that is not finite


class Shifted:
    """Responses of some voxels, unshifted and shifted, side by side; computed when they are read.

    Column s * n_voxels + v is voxel v under `orders[s]`.
    """

    def __init__(self, Y: Any, orders: Array, voxels: Array) -> None:
        """Take responses (n_rows, all voxels), the order of rows in each shift (n, n_rows), and voxel numbers."""
        self.Y, self.orders, self.voxels = Y, orders, voxels
        self.shape = (Y.shape[0], len(orders) * len(voxels))
        self.dtype = Y.dtype

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        """All rows, in a slice of columns."""
        start, stop, _ = index[1].indices(self.shape[1])
        n = len(self.voxels)
        parts = []
        while start < stop:
            number, first = divmod(start, n)
            last = min(n, first + stop - start)
            own = self.voxels[first:last]
            in_a_row = own[-1] - own[0] + 1 == len(own)  # a slice is read faster
            parts.append(self.Y[:, slice(own[0], own[-1] + 1) if in_a_row else own][self.orders[number]])
            start += last - first
        return np.hstack(parts)


def row_orders(n_rows: Sequence[int], amounts: Array) -> Array:
    """(n_shifts, sum of n_rows): the row that moves to each place when each story is shifted by its amount."""
    starts = np.concatenate([[0], np.cumsum(n_rows)[:-1]])
    parts = [
        start + (np.arange(n) - shift[:, None]) % n
        for start, n, shift in zip(starts, n_rows, amounts.T, strict=True)
    ]
    return np.concatenate(parts, axis=1)


# ---------------------------------------------------------------------- scores of shifted data


@dataclass(frozen=True, eq=False)
class _Moves:
    """Orders of training and of test rows, (1 + n_shifts, n_rows) and (1 + n_shifts, n_test_rows), unshifted first."""

    train: Array
    test: Array | None


def _moves(plan: Plan, amounts: Array) -> _Moves:
    amounts = np.vstack([np.zeros(amounts.shape[1], int), amounts])
    n_train = len(plan.train)
    rows = [plan.n_kept[story.name] for story in plan.stories]
    test = row_orders(rows[n_train:], amounts[:, n_train:]) if plan.test else None
    return _Moves(row_orders(rows[:n_train], amounts[:, :n_train]), test)


def _scores(
    plan: Plan, data: DesignMatrices, Y: Any, Y_test: Any, statistic: str, progress: Count = ignore
) -> Array:
    """(n_columns of Y,) r or R2 of held-out rows."""
    if statistic == "r2":
        bands = [data.columns[name] for name in plan.specs]
        return banded_scores(
            plan,
            data.X,
            Y,
            data.X_test,
            Y_test,
            bands,
            seed=plan.settings.seed,
            progress=progress,
        )
    options: dict[str, Any] = {"return_predictions": False, "progress": progress}
    if not plan.test:
        return fit_nested(plan, data.X, Y, **options).correlations
    options |= ridge_options(plan.settings)
    fitted = ridge.ridge_cv(
        data.X, Y, X_test=data.X_test, Y_test=Y_test, folds=plan.inner_folds[0], **options
    )
    return fitted.correlations


def fit_nested(plan: Plan, X: Array, Y: Any, **options: Any) -> ridge.NestedResult:
    """Nested cross-validation of a plan, as in a run: each outer fold z-scores by the rows that it trains on."""
    return ridge.nested_cv(
        X,
        Y,
        outer_folds=plan.outer_folds,
        inner_folds=plan.inner_folds,
        groups=plan.groups,
        standardize_X="center",
        standardize_Y=True,
        **ridge_options(plan.settings),
        **options,
    )


def ridge_options(settings: Settings) -> dict[str, Any]:
    """The options of `ridge_cv` that settings decide."""
    return {
        "alphas": settings.alpha_grid,
        "single_alpha": settings.single_alpha,
        "use_corr": settings.use_corr,
        "normalpha": settings.normalpha,
        "prediction_floor": settings.prediction_floor,
        "device": "cuda" if settings.device == "cuda" else "cpu",
    }


def _bold_scores(
    plan: Plan, data: DesignMatrices, moves: _Moves, voxels: Array, statistic: str, progress: Count
) -> Array:
    """(1 + n_shifts, n_voxels) scores of unshifted and of shifted BOLD."""
    n = len(moves.train)
    # the one alpha for all voxels is that of all voxels of the data, in each shift by itself
    each = plan.settings.single_alpha and statistic == "r"
    if each and len(voxels) < data.Y.shape[1]:
        everywhere = np.arange(data.Y.shape[1])
        return _bold_scores(plan, data, moves, everywhere, statistic, progress)[:, voxels]
    if each:
        steps = [(voxels, [number]) for number in range(n)]
    else:
        width = max(1, SHIFTED_COLUMNS // n)
        steps = [(voxels[a : a + width], list(range(n))) for a in range(0, len(voxels), width)]
    out = np.full((n, len(voxels)), np.nan)
    for done, (some, numbers) in enumerate(steps):

        def tell(part: float, total: float, done: int = done) -> None:
            progress(done * total + part, len(steps) * total)

        Y = Shifted(data.Y, moves.train[numbers], some)
        Y_test = None if moves.test is None else Shifted(data.Y_test, moves.test[numbers], some)
        first = int(np.searchsorted(voxels, some[0]))
        found = _scores(plan, data, Y, Y_test, statistic, tell).reshape(len(numbers), -1)
        out[numbers, first : first + len(some)] = found
    return out


def _feature_scores(
    plan: Plan,
    data: DesignMatrices,
    moves: _Moves,
    voxels: Array,
    columns: Array,
    statistic: str,
    progress: Count,
) -> Array:
    """(1 + n_shifts, n_voxels) scores with some columns of the features unshifted and shifted."""
    if plan.settings.single_alpha and statistic == "r" and len(voxels) < data.Y.shape[1]:
        everywhere = np.arange(data.Y.shape[1])
        return _feature_scores(plan, data, moves, everywhere, columns, statistic, progress)[:, voxels]
    Y = np.ascontiguousarray(data.Y[:, voxels])
    Y_test = None if data.Y_test is None else np.ascontiguousarray(data.Y_test[:, voxels])
    found = []
    for number, order in enumerate(moves.train):
        progress(number, len(moves.train))
        X, X_test = data.X.copy(), None if data.X_test is None else data.X_test.copy()
        X[:, columns] = data.X[order][:, columns]
        if X_test is not None:
            X_test[:, columns] = data.X_test[moves.test[number]][:, columns]
        found.append(_scores(plan, replace(data, X=X, X_test=X_test), Y, Y_test, statistic))
    return np.stack(found)


# ---------------------------------------------------------------------- the test


def shift_test(
    assembly: Assembly,
    settings: Settings,
    *,
    against: Settings | None = None,
    shift: str = "bold",
    statistic: str = "r",
    where: str | Array = "voxels",
    n_shifts: int | None = None,
    least_shift: float | None = None,
    memory: Any = None,
    progress: bool | Callable[[Progress], None] = True,
) -> ShiftTest:
    """Score a model, or its gain over another, and the same with data shifted in time, each fitted anew.

    The mean over shifts is what a model scores that does not depend on the words. For the gain in r of a wide space
    over a narrow one it can lie above 0, so that a gain means little without it; for that in R2 of
    banded ridge it lies at 0 or a little below: prefer `statistic="r2"` for gains. With several feature spaces in
    `settings` and all but one of them in `against`, it is the unique R2 of `partition`.

    Parameters
    ----------
    assembly
    settings : Settings
        With test stories or nested cross-validation.
    against : Settings, optional
        Another model on the same rows: the statistic is the score of `settings` minus its score. Only the features and
        the ridge may differ.
    shift : "bold" or "features"
        What is shifted. "features" shifts the spaces of `settings` that `against` does not have in the same way (all
        without `against`), so that the others keep what they explain; each shift is then a fit of its own.
    statistic : "r" or "r2"
        Correlation by ridge, as in `run`; or R2 by banded ridge, with a penalty for each feature space.
    where : "voxels", "regions" or voxels
        All voxels; the mean over the voxels of each region (`assembly.rois`); or a bool array (n_voxels,) or voxel
        numbers.
    n_shifts, least_shift : int, seconds; optional
        None takes the settings'. The least p-value is 1 / (1 + n_shifts).
    memory : joblib.Memory or path, optional
        As for `run`.
    progress : bool or function
        As for `run`.

    Returns
    -------
    ShiftTest

    Raises
    ------
    SettingsError
        Before any work: a problem that `check` finds; shifts that are shorter than BOLD's autocorrelation; stories that
        are too short for the shifts; more memory than is free.
    ValueError
        Before any work: unknown options; `against` with other rows; no regions or voxels; nothing to shift.
    TypeError
        `assembly` is not an Assembly, or settings are not Settings.

    See Also
    --------
    Settings.significance : "shift" tests each voxel of a run in this way.
    """
    check_assembly(assembly, "shift_test")
    check_settings(settings, "shift_test")
    if against is not None:
        check_settings(against, "shift_test")
    check_choice(shift, "shift", SHIFTED)
    check_choice(statistic, "statistic", STATISTICS)
    if n_shifts is not None:
        check_whole(n_shifts, "n_shifts", least=LEAST_SHIFTS)
    names, masks = tested_parts(assembly, where)
    if settings == against:
        raise ValueError(
            "against: expected other features or another ridge than settings, got equal settings."
        )
    # as those of a run with this test, which `plan_run` checks
    wanted: dict[str, Any] = {"n_shifts": n_shifts, "least_shift": least_shift}
    settings = replace(settings, significance="shift", **{k: v for k, v in wanted.items() if v is not None})
    with _progress.shown(progress) as tell:
        plans = [plan_run(assembly, settings, memory=memory)]
        if against is not None:
            plans.append(plan_run(assembly, against, memory=memory))
            _refuse_other_rows(*plans)
        moved = _moved_spaces(plans) if shift == "features" else []
        for plan in plans:
            refuse_too_large(replace(plan, settings=replace(plan.settings, **_shifting(settings))))
        amounts = plan_shifts(plans[0])
        voxels = np.flatnonzero(np.any(masks, axis=0)) if masks is not None else _numbers(assembly, where)
        found = []
        for number, plan in enumerate(plans):
            clock = Clock(
                partial(_of_several, tell, number, len(plans)), {"features": 1, "design": 0.1, "ridge": 3}
            )
            sampled = story_features(plan, clock)
            with clock.stage("design"):
                data = design_matrices(plan, sampled)
            with clock.stage("ridge"):
                count = clock.count(f"{len(amounts)} shifts")
                moves = _moves(plan, amounts)
                if shift == "bold":
                    scores = _bold_scores(plan, data, moves, voxels, statistic, count)
                elif number == 0:
                    columns = np.concatenate([data.columns[name] for name in moved])
                    scores = _feature_scores(plan, data, moves, voxels, columns, statistic, count)
                else:  # what is shifted is not among its features
                    still = _Moves(moves.train[:1], None if moves.test is None else moves.test[:1])
                    scores = _bold_scores(plan, data, still, voxels, statistic, count)
            found.append(scores if masks is None else _by_region(scores, voxels, masks))
    values = found[0] if against is None else found[0] - found[1]
    return ShiftTest(
        settings=settings,
        against=against,
        statistic=statistic,
        shift=shift,
        names=names if masks is not None else _voxel_names(assembly, voxels),
        voxels=None if masks is not None else voxels,
        observed=values[0],
        nulls=values[1:],
        amounts=amounts,
    )


def tested_parts(assembly: Assembly, where: str | Array) -> tuple[tuple[str, ...], Array | None]:
    """Names and masks (n_regions, n_voxels) of the regions to test; () and None for voxels.

    Raises
    ------
    ValueError
        Regions of data that have none; an unknown name.
    """
    if not isinstance(where, str):
        _numbers(assembly, where)
        return (), None
    if check_choice(where, "where", ("voxels", "regions")) == "voxels":
        return (), None
    if empty := [name for name, mask in assembly.rois.items() if not np.any(mask)]:
        raise ValueError(
            f"where: expected voxels in every region, got none in {', '.join(empty)}; leave it out of rois."
        )
    if assembly.rois:
        return tuple(assembly.rois), np.stack([np.asarray(mask, bool) for mask in assembly.rois.values()])
    raise ValueError(
        f"where: expected regions in the data, got none ({assembly.subject}); give rois to the assembly, or test "
        f'where="voxels".'
    )


def _numbers(assembly: Assembly, where: Any) -> Array:
    """Voxel numbers, in order, each once."""
    if isinstance(where, str):
        return np.arange(assembly.n_voxels)
    given, n = np.asarray(where), assembly.n_voxels
    expected = (
        f'where: expected "voxels", "regions", a mask of {n} voxels, or voxel numbers from 0 to {n - 1}'
    )
    if given.dtype == bool and given.shape == (n,) and given.any():
        return np.flatnonzero(given)
    if (
        given.dtype.kind not in "iu"
        or given.ndim != 1
        or not given.size
        or given.min() < 0
        or given.max() >= n
    ):
        raise ValueError(f"{expected}; got {given.dtype} of shape {given.shape}.")
    return np.unique(given)


def _voxel_names(assembly: Assembly, voxels: Array) -> tuple[str, ...]:
    named = assembly.voxel_names
    return tuple(f"voxel {v}" if named is None else named[v] for v in voxels)


def _refuse_other_rows(one: Plan, other: Plan) -> None:
    """Refuse plans that do not hold out the same rows of the same BOLD."""
    differ = [name for name in SHARED if getattr(one.settings, name) != getattr(other.settings, name)]
    differ += [] if (one.train, one.test) == (other.train, other.test) else ["stories"]
    folds = [
        tuple(
            np.concatenate(fold).tobytes()
            for folds in (plan.outer_folds, *plan.inner_folds)
            for fold in folds
        )
        for plan in (one, other)
    ]
    if not differ and folds[0] != folds[1]:
        differ = ["folds"]
    if differ:
        raise ValueError(
            f"against: expected settings with the same rows, where only features and ridge differ, got another "
            f"{', '.join(differ)}."
        )


def _moved_spaces(plans: Sequence[Plan]) -> list[str]:
    """The spaces of the first plan that the second does not have, or not in the same way."""
    specs = plans[0].specs
    others = plans[1].specs if len(plans) > 1 else {}
    moved = [name for name, spec in specs.items() if others.get(name) != spec]
    if not moved:
        raise ValueError(
            'shift="features": expected a feature space of settings that against does not have, got the same spaces.'
        )
    return moved


def _of_several(tell: Callable[[Progress], None], number: int, of: int, step: Progress) -> None:
    """Report the progress of one of several models as that of all."""
    tell(replace(step, overall=(number + step.overall) / of))


def _by_region(scores: Array, voxels: Array, masks: Array) -> Array:
    """(n, n_regions): mean over the voxels of each region of (n, len(voxels)) scores."""
    parts = [scores[:, mask[voxels]] for mask in masks]
    return np.column_stack([np.nanmean(part, axis=1) for part in parts])


# ---------------------------------------------------------------------- in a run


def add_shift_test(plan: Plan, result: Result, data: DesignMatrices, amounts: Array, clock: Clock) -> Result:
    """The result with p-values of a shift test of each voxel, see `Settings.significance`."""
    clock.tell(0, 1, "shift test", scores=result.scores)
    voxels = np.arange(plan.assembly.n_voxels)
    count = clock.count(f"shift test, {len(amounts)} shifts")
    nulls = _bold_scores(plan, data, _moves(plan, amounts), voxels, "r", count)[1:]
    pvalues = tail_pvalues(result.scores, nulls, plan.settings.alternative)
    significant = scoring.fdr(pvalues, q=plan.settings.fdr_q)[0]
    mean = nulls.mean(axis=0)
    _progress.warn(
        f"With BOLD shifted in time, the score is {np.nanmean(mean):+.3f} in the mean voxel, where it is "
        f"{np.nanmean(result.scores):+.3f} without; p-values are those of a t distribution fitted to {len(nulls)} "
        f"shifts (counted, the least would be {1 / (1 + len(nulls)):.3g}).",
        stacklevel=3,
    )
    return replace(
        result,
        pvalues=pvalues,
        significant=significant,
        null_mean=mean,
        null_sd=nulls.std(axis=0, ddof=1),
        metrics={
            **scoring.summarise(result.scores, significant),
            **scoring.region_metrics(result.scores, significant, plan.assembly.rois),
        },
        provenance={**result.provenance, "seconds": {k: round(s, 3) for k, s in clock.so_far().items()}},
    )


# ---------------------------------------------------------------------- do the folds leak?


@dataclass(frozen=True)
class SplitCheck:
    """What a model that knows only time scores with the folds of a run.

    Attributes
    ----------
    score, error : mean r over voxels, and its standard error: over folds that cut stories; for held-out stories the
        standard deviation with their BOLD shifted in time
    leaks : whether the score is above 0.05 and two standard errors
    sentence : the same in words
    """

    score: float
    error: float
    leaks: bool
    sentence: str


def split_check(
    assembly: Assembly, settings: Settings, *, progress: bool | Callable[[Progress], None] = True
) -> SplitCheck:
    """Check whether the folds of a run leak: fit the feature space "time", which knows nothing of the words.

    Held-out rows that a model of time alone predicts are predicted from rows next to them, or from a drift that all
    stories share, and so are rows that any other model predicts.

    Parameters
    ----------
    assembly, settings
        Of the run: its rows, folds and high-pass are used, not its features.
    progress : bool or function
        As for `run`.

    Returns
    -------
    SplitCheck

    Raises
    ------
    SettingsError, TypeError
        As `run`, before any work.
    """
    check_assembly(assembly, "split_check")
    check_settings(settings, "split_check")
    only_time = replace(
        settings,
        modality="time",
        joined_with=(),
        alphas=None,
        single_alpha=False,
        normalpha=False,
        prediction_floor=0.0,
        significance="parametric",
    )
    with _progress.shown(progress) as tell:
        plan = plan_run(assembly, only_time)
        clock = Clock(tell, {"features": 0.1, "design": 0.1, "ridge": 1})
        sampled = story_features(plan, clock)
        with clock.stage("design"):
            data = design_matrices(plan, sampled)
        with clock.stage("ridge"):
            some = slice(None, None, max(1, assembly.n_voxels // SPLIT_VOXELS))
            score, error = _time_score(plan, _some_voxels(data, some), clock.count("time alone"))
    leaks = score > max(LEAKS, 2 * error)
    in_words = _in_words(score, error, leaks, settings, nested=not plan.test, whole=_holds_out_stories(plan))
    return SplitCheck(score, error, leaks, in_words)


def _some_voxels(data: DesignMatrices, some: slice) -> DesignMatrices:
    """The matrices with some of the voxels."""
    Y_test = None if data.Y_test is None else data.Y_test[:, some]
    return replace(data, Y=np.ascontiguousarray(data.Y[:, some]), Y_test=Y_test)


def _time_score(plan: Plan, data: DesignMatrices, progress: Count) -> tuple[float, float]:
    """Mean score over voxels, and its standard error.

    Held-out stories: the error is the standard deviation over circular shifts of their BOLD against the finished
    prediction, which was not made from it; that over voxels would be too small, since they share signals.

    Where folds cut stories, each story is fitted by itself: rows leak within a story, and columns that all stories
    share would show it the less, the more stories there are. The error is then that over the folds.
    """
    options: dict[str, Any] = ridge_options(plan.settings) | {"progress": progress}
    if plan.test:
        fitted = ridge.ridge_cv(data.X, data.Y, X_test=data.X_test, folds=plan.inner_folds[0], **options)
        stops = np.cumsum([plan.n_kept[story.name] for story in plan.test])[:-1]
        return _shifted_error(np.split(data.Y_test, stops), np.split(fitted.predictions, stops))
    stories = [np.flatnonzero(plan.groups == number) for number in range(len(plan.train))]
    if _holds_out_stories(plan):
        predicted = fit_nested(plan, data.X, data.Y, progress=progress).predictions
        return _shifted_error([data.Y[own] for own in stories], [predicted[own] for own in stories])
    found = []
    cut = [(rows, folds) for rows in stories if (folds := _folds_within(plan, rows))]
    for rows, folds in cut[:STORIES_LOOKED_AT]:
        nested = ridge.nested_cv(
            data.X[rows],
            data.Y[rows],
            outer_folds=folds,
            folding_type="kfold",
            n_inner_folds=LEAST_INNER,
            standardize_X="center",
            standardize_Y=True,
            return_predictions=False,
            **options,
        )
        scores = np.nan_to_num(nested.fold_correlations)  # a prediction that does not vary scores 0
        found.append(np.delete(scores, nested.constant_test_voxels, axis=1).mean(axis=1))
    means = np.concatenate(found)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))


def _shifted_error(measured: Sequence[Array], predicted: Sequence[Array]) -> tuple[float, float]:
    """Mean r over voxels and held-out stories, and its standard deviation with shifted BOLD."""

    def mean_r(share: float) -> float:
        parts = []
        for y, p in zip(measured, predicted, strict=True):
            r = scoring.correlation(np.roll(y, int(share * len(y)), axis=0), p)
            parts.append(r[np.isfinite(r)].mean() if np.isfinite(r).any() else 0.0)
        return float(np.mean(parts))

    shifted = [mean_r((k + 1) / (LEAST_SHIFTS + 1)) for k in range(LEAST_SHIFTS)]
    return mean_r(0.0), float(np.std(shifted, ddof=1))


def _folds_within(plan: Plan, rows: Array) -> list[ridge.Fold]:
    """The outer folds on some rows alone, numbered from 0, with rows enough to fit and to score."""
    place = np.full(len(plan.groups), -1)
    place[rows] = np.arange(len(rows))
    parts = [ridge.Fold(*(place[part][place[part] >= 0] for part in fold)) for fold in plan.outer_folds]
    return [fold for fold in parts if len(fold.train) >= 2 * LEAST_INNER and len(fold.test) > 2]


def _holds_out_stories(plan: Plan) -> bool:
    """Whether no story has rows in both parts of an outer fold."""
    stories = [(set(plan.groups[fold.train]), set(plan.groups[fold.test])) for fold in plan.outer_folds]
    return not any(train & test for train, test in stories)


def _in_words(
    score: float, error: float, leaks: bool, settings: Settings, *, nested: bool, whole: bool
) -> str:
    rounded = round(score, 2) + 0.0  # not -0.00
    found = f"A model that knows only time scores r = {rounded:.2f} ± {error:.2f} with these folds"
    if not leaks:
        cut = not whole and settings.high_pass is None
        drifts = (
            " Slow drifts are not tested by stretches of one recording: high_pass=128 removes them."
            if cut
            else ""
        )
        return f"{found}: they do not leak.{drifts}"
    advice = [] if settings.high_pass is not None else ["remove slow drifts (high_pass=128)"]
    if nested:
        advice.insert(
            0, "hold out whole stories, or stretches with a gap of 80 s around them (the default folds)"
        )
    else:
        advice.append("look at what all stories have in common along time, such as their beginning")
    return f"{found}: they leak, and any model scores from it; {', or '.join(advice)}."
