"""A fit of every layer of a model, and which layer predicts each voxel best. No widgets here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._progress import Progress
from ..assembly import Array, Assembly
from ..features import model_info
from ..pipeline import Result
from ..settings import Settings
from ..sweep import SweepFailure, SweepProgress, run_sweep

# a sweep's stages, by the names that a fit's stages have in the panel
STAGE_OF = {"activations": "features", "responses": "design", "fits": "ridge"}


class LayerError(ValueError):
    """A layer whose fit failed, with its own message."""


@dataclass(frozen=True, eq=False)
class LayerDone:
    """A layer of a sweep that is finished; its result without time courses."""

    layer: int
    result: Result
    overall: float


def fit_layers(
    assembly: Assembly,
    settings: Settings,
    *,
    memory: Any,
    progress: Callable[[Progress | LayerDone], None],
) -> dict[int, Result]:
    """Fit every layer of the model; what they share is done once.

    Parameters
    ----------
    assembly, settings
        `settings.layer_idx` has no effect.
    memory : joblib.Memory
    progress : called with every step, and with a `LayerDone` when a layer is done

    Returns
    -------
    {layer: Result without time courses}

    Raises
    ------
    LayerError
        A layer whose fit failed, with its own message.
    """
    layers = range(model_info(settings.model_name).n_layers + 1)
    found: dict[int, Result] = {}

    def tell(step: SweepProgress) -> None:
        if isinstance(step.result, SweepFailure):
            raise LayerError(f"Layer {layers[step.number]}: {step.result.error}")
        if step.result is not None:
            layer = layers[step.number]
            found[layer] = without_courses(step.result)
            progress(LayerDone(layer, found[layer], step.overall))
        progress(
            Progress(
                STAGE_OF[step.stage],
                step.done,
                step.total,
                step.overall,
                f"{len(found)} of {len(layers)} layers done, {step.detail}",
                step.seconds_left,
            )
        )

    grid = [replace(settings, layer_idx=layer) for layer in layers]
    run_sweep(assembly, grid, memory=memory, n_jobs=1, progress=tell)
    return found


def without_courses(result: Result) -> Result:
    """A result without its predictions and measurements, which are nearly all of its memory."""
    return replace(result, predictions={}, measured={}, row_times={})


def best_layers(results: Mapping[int, Result]) -> Array | None:
    """(n_voxels,) the layer with the highest score, NaN for a voxel that is significant in none; None below two."""
    if len(results) < 2:
        return None
    layers = np.array(sorted(results), float)
    scores = np.array([results[int(layer)].scores for layer in layers])
    counts = np.any([result.significant for result in results.values()], axis=0) & np.isfinite(scores).any(
        axis=0
    )
    best = layers[np.where(np.isfinite(scores), scores, -np.inf).argmax(axis=0)]
    return np.where(counts, best, np.nan)


def same_but_layer(one: Settings, other: Settings) -> bool:
    """Whether two settings differ in nothing but the layer."""
    return replace(one, layer_idx=0) == replace(other, layer_idx=0)


def run_label(result: Result) -> str:
    """A run in a few words: when, and by what."""
    settings = result.settings
    when = str(result.provenance.get("time", ""))[11:19]
    if settings.modality == "language_model":
        model = settings.model_name.rstrip("/").split("/")[-1]
        what = f"{model}, layer {settings.layer_idx}, lookback {settings.lookback}"
    else:
        what = settings.modality.replace("_", " ")
    return f"{when} {' + '.join([what, *settings.joined_with])}".strip()
