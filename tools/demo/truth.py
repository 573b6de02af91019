"""Write the demo's truth.npz: the language signal of the simulated subject, from the demo's own model.

    python tools/demo/truth.py

Per story the activations of one layer at one lookback, sampled on the TR grid; their principal
components over the training stories, scaled to unit variance, are the directions among which the
simulated voxels choose. Needs the finished model in `encoding_nb/datasets/demo_data/model`.
"""

from __future__ import annotations

import numpy as np

from encoding_nb.datasets import demo
from encoding_nb.design import downsampling
from encoding_nb.features import activations

N_COMPONENTS = 16


def sampled_layer(name: str) -> np.ndarray:
    """(n_trs, d_model) z-scored activations of the true layer on a story's TR grid."""
    words = demo.read_story_words(name)
    spec = activations.ActivationSpec("demo", lookback=demo.LOOKBACK, context_type=demo.CONTEXT_TYPE)
    found = activations.layer_activations(
        words.text, spec, layer_idx=demo.LAYER_IDX, memory=activations.default_memory()
    )
    return downsampling.downsample(found, words.times, demo.tr_times(words), method="lanczos")


def components() -> dict[str, np.ndarray]:
    """{story: (n_trs, N_COMPONENTS)} float32, unit variance over the training stories."""
    sampled = {name: sampled_layer(name) for name in demo.story_names()}
    training = np.concatenate([x for name, x in sampled.items() if name != demo.TEST_STORY])
    mean, scale = training.mean(axis=0), training.std(axis=0)
    _, singular, directions = np.linalg.svd((training - mean) / scale, full_matrices=False)
    whiten = directions[:N_COMPONENTS].T * np.sqrt(len(training)) / singular[:N_COMPONENTS]
    # A component's sign is arbitrary: fix it, so that every machine writes the same file.
    whiten *= np.sign(whiten[np.abs(whiten).argmax(axis=0), np.arange(N_COMPONENTS)])
    return {name: ((x - mean) / scale @ whiten).astype(np.float32) for name, x in sampled.items()}


def main() -> None:
    found = components()
    temporary = demo.DATA / "truth.part.npz"
    np.savez_compressed(temporary, n_components=np.int64(N_COMPONENTS), **found)
    temporary.rename(demo.DATA / "truth.npz")
    print(f"{len(found)} stories, {N_COMPONENTS} components")


if __name__ == "__main__":
    main()
