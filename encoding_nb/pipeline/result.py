"""The result of a fit, and the code that repeats it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from .._version import __version__
from ..assembly import Array, Surface
from ..scoring import LEAST_CEILING
from ..settings import Settings, check_settings

IN_MEMORY = """# These data were made in memory and cannot be loaded by a name: put your own Assembly here.
assembly = assembly"""


TEST_NAMES = {
    "permutation": "permutation test",
    "shift": "shift test",
    "parametric": "parametric test, assumes white noise",
}
NOT_TESTED = 'not tested: nested cross-validation needs significance="shift"'


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a fit, voxel by voxel.

    Attributes
    ----------
    settings : Settings
    scores : (n_voxels,), correlation on held-out rows; NaN for a voxel without variance. With nested cross-validation
        the mean over its outer folds of the correlation in each (of BOLD that is z-scored, story by story, by the rows
        that the fold trains on)
    story_scores : {story: (n_voxels,)}, the same on the rows of each held-out story alone
    best_alphas : (n_voxels,), or (n_outer_folds, n_voxels) after nested cross-validation
    pvalues, significant : (n_voxels,), by `settings.significance`, and which of them pass the FDR; None where they are
        not tested. `test_name` says how, or why not
    noise_ceiling : (n_voxels,), the mean over the held-out stories with repeated presentations; None without any
    story_noise_ceiling : {story: (n_voxels,)} of these stories; empty in records of older versions
    story_chance_ceiling : {story: the ceiling that 1 % of voxels without signal reach, `scoring.ceiling_by_chance`};
        empty in records of older versions. `chance_ceiling` is that of `noise_ceiling`
    predictions, measured : {story: (rows, n_voxels)}, z-scored per story; with nested cross-validation each row as the
        fold that holds it out z-scores it, so that there are small steps between folds
    row_times : {story: (rows,)}, seconds from the start of the sound
    metrics : {"median_score": ..., ...}, see `scoring.summarise`; and by region of the data
        {"AC/median_score": ..., ...}, see `scoring.region_metrics`
    row_folds : {story: (rows,)}, which outer fold of nested cross-validation held out each row; else empty
    null_mean, null_sd : (n_voxels,), mean and standard deviation of the scores with shifted BOLD, for
        `significance="shift"`; else None
    provenance : versions, time, seconds by stage, digest of the data (`assembly_digest`)
    notes : the warnings of the run, such as columns without variance
    subject, surface, rois, voxel_names, simulated : the assembly's
    """

    settings: Settings
    scores: Array
    story_scores: Mapping[str, Array]
    best_alphas: Array
    pvalues: Array | None
    significant: Array | None
    noise_ceiling: Array | None
    predictions: Mapping[str, Array]
    measured: Mapping[str, Array]
    row_times: Mapping[str, Array]
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]
    subject: str
    surface: Surface | None = None
    rois: Mapping[str, Array] = field(default_factory=dict)
    voxel_names: tuple[str, ...] | None = None
    simulated: bool = False
    story_noise_ceiling: Mapping[str, Array] = field(default_factory=dict)
    story_chance_ceiling: Mapping[str, float] = field(default_factory=dict)
    row_folds: Mapping[str, Array] = field(default_factory=dict)
    null_mean: Array | None = None
    null_sd: Array | None = None
    notes: tuple[str, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether there are p-values."""
        return self.pvalues is not None

    @property
    def test_name(self) -> str:
        """Where the p-values come from, for captions; or why there are none."""
        return TEST_NAMES[self.settings.significance] if self.tested else NOT_TESTED

    @property
    def chance_ceiling(self) -> float | None:
        """The least noise ceiling that is above chance, and by which a score can be divided; None without ceilings.

        It is `scoring.LEAST_CEILING` or more. Chance ceilings of several stories are averaged, as their ceilings are.
        """
        if self.noise_ceiling is None:
            return None
        by_story = [float(value) for value in self.story_chance_ceiling.values()]
        return max([LEAST_CEILING, sum(by_story) / len(by_story)] if by_story else [LEAST_CEILING])

    def __repr__(self) -> str:
        kind = "simulated BOLD" if self.simulated else "BOLD"
        kind += ", approximate features (strided)" if self.settings.approximate else ""
        m = self.metrics
        found = (
            f"{m['n_significant']:.0f} significant at FDR {self.settings.fdr_q:g} ({self.test_name})"
            if self.tested
            else self.test_name
        )
        return (
            f"Result({self.subject}, {kind}: {len(self.scores)} voxels, median r {m['median_score']:.3f}, "
            f"best r {m['max_score']:.3f}, {found})"
        )


def provenance(seconds: Mapping[str, float]) -> dict[str, Any]:
    """When and where a run was made, with what versions, and its seconds by stage."""
    packages = ("numpy", "scipy", "torch", "transformer-lens", "pycortex")
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "versions": {"encoding_nb": __version__} | {name: version(name) for name in packages},
        "seconds": {stage: round(s, 3) for stage, s in seconds.items()},
    }


def to_code(settings: Settings, source: str | None, options: Mapping[str, Any] | None = None) -> str:
    """Code of a notebook cell that repeats the run: the data, and the settings that differ from the defaults.

    Parameters
    ----------
    settings : Settings
    source : str or None
        The argument of `load_assembly` (`Assembly.source`); None for data made in memory, for which the cell uses the
        variable `assembly` and a comment explains it.
    options : the keyword arguments of `load_assembly` (`Assembly.source_options`)

    Raises
    ------
    TypeError
        `settings` is not a Settings.
    """
    check_settings(settings, "to_code")
    default = Settings()
    changed = [
        f"    {f.name}={getattr(settings, f.name)!r},"
        for f in fields(settings)
        if getattr(settings, f.name) != getattr(default, f.name)
    ]
    names = ["Settings", "run"]
    names += ["Trimming"] if any("Trimming(" in c for c in changed) else []
    names += [] if source is None else ["load_assembly"]
    imports = ", ".join(sorted(names))
    given = ", ".join([repr(source), *(f"{name}={value!r}" for name, value in (options or {}).items())])
    body = "\n".join(["settings = Settings(", *changed, ")"]) if changed else "settings = Settings()"
    if settings.approximate:
        body = f"# strided windows: the features are approximate\n{body}"
    data = IN_MEMORY if source is None else f"assembly = load_assembly({given})"
    return f"from encoding_nb import {imports}\n\n{data}\n{body}\nresult = run(assembly, settings)\nresult"
