"""The built-in demo: real stories, a real language model, a real cortex, and simulated BOLD.

What the simulated subject does is known, and kept in `Assembly.truth`:

- voxels of the auditory cortex (AC) follow word rate;
- voxels of Broca's area, sPMv and a belt around AC follow one layer of the demo model at one
  lookback, each by its own direction in that layer's space;
- some voxels of AC and its belt follow both;
- all others hold autocorrelated noise only.

Signals pass through a hemodynamic response; the share of signal differs from voxel to voxel; the
test story is heard `N_REPEATS` times. Everything follows from `SEED`.

The language signal is stored in demo_data/truth.npz (made by tools/demo/truth.py from the model
itself), so that loading the demo does not run the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, reduce
from operator import iadd
from pathlib import Path
from types import MappingProxyType

import numpy as np

from .. import brain
from ..assembly import Array, Assembly, Story, Words
from ..design import standardize
from . import textgrid
from ._checks import chosen
from .marks import BAD_WORDS

DATA = Path(__file__).resolve().parent / "demo_data"
SURFACE = brain.SHIPPED
VOXEL_MM = (4.13, 2.24, 2.24)  # z, y, x of S1's transform "fullhead"
SUBJECT = "S1 (simulated BOLD)"
SEED = 20261123
TR = 2.0  # seconds
TEST_STORY = "lasttrainhome"
N_REPEATS = 5
LAYER_IDX, LOOKBACK, CONTEXT_TYPE = 4, 64, "fullcontext"
LANGUAGE_ROIS = ("Broca", "sPMv")
BELT_MM = 9.0  # voxels this near to AC, outside it, follow language
NOISE_AR = 0.45  # lag-one autocorrelation of the noise
STRENGTH = (0.25, 0.75)  # share of signal in a voxel's standard deviation, lowest and highest

# Scans start 10 s before the sound and end after it; the outer 10 volumes at each side are not in
# the responses (as in LeBel's data), and the feature grid is that of `Trimming` "lebel".
SECONDS_BEFORE, SILENT_TRS_AFTER = 10.0, 10
TRIMMED_TRS = 10


def read_story_words(name: str) -> Words:
    """Words of a demo story."""
    return textgrid.read_textgrid(DATA / "stories" / f"{name}.TextGrid", tier="word", bad_words=BAD_WORDS)


def story_names() -> tuple[str, ...]:
    """Training stories in alphabetical order, the test story last."""
    names = sorted(path.stem for path in (DATA / "stories").glob("*.TextGrid"))
    return (*(n for n in names if n != TEST_STORY), TEST_STORY)


def n_volumes(words: Words) -> int:
    """Volumes scanned while the story was heard, silence at both ends included."""
    return int(SECONDS_BEFORE / TR) + int(np.ceil(words.offsets[-1] / TR)) + SILENT_TRS_AFTER


def tr_times(words: Words) -> Array:
    """(n_volumes - 5,) seconds: the grid on which features are sampled."""
    return TR * np.arange(n_volumes(words) - 5) - SECONDS_BEFORE


def hemodynamic_response(n_lags: int = 15) -> Array:
    """(n_lags,) double-gamma response at lags 0, TR, 2 TR, ..., unit sum of squares.

    Peak near 5 s, undershoot near 15 s at a sixth of it: Glover (1999), NeuroImage 9, 416-429, with
    the shapes of SPM's canonical response.
    """
    from scipy.stats import gamma  # takes longer to import than other data to open

    t = TR * np.arange(n_lags)
    response = gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6
    return response / np.linalg.norm(response)


def _through_hrf(signal: Array) -> Array:
    """The response to a signal on the feature grid, z-scored, in the rows for which there are responses."""
    from scipy.signal import lfilter

    response = lfilter(hemodynamic_response(), 1.0, signal, axis=0)
    return standardize(response[TRIMMED_TRS : len(signal) - 5]).astype(np.float32)


@cache
def areas() -> dict[str, Array]:
    """{"wordrate", "language", "both", "noise": (n_voxels,) bool}: what each voxel follows."""
    from scipy.spatial import cKDTree

    rois = brain.roi_masks(SURFACE)
    core = rois["AC"]
    positions = np.argwhere(brain.surface_mask(SURFACE)) * VOXEL_MM
    belt = (cKDTree(positions[core]).query(positions)[0] <= BELT_MM) & ~core
    rng = np.random.default_rng([SEED, 1])
    both = (core | belt) & (rng.random(core.size) < 0.25)
    language = (belt | np.any([rois[name] for name in LANGUAGE_ROIS], axis=0)) & ~both & ~core
    wordrate = core & ~both
    return {"wordrate": wordrate, "language": language, "both": both, "noise": ~(wordrate | language | both)}


@cache
def _mixing() -> dict[str, Array]:
    """Per voxel: weights of the language components and of word rate, and the share of signal."""
    truth = areas()
    n_voxels = truth["noise"].size
    n_components = int(_stored_truth()["n_components"])
    rng = np.random.default_rng([SEED, 2])
    language = rng.standard_normal((n_components, n_voxels)).astype(np.float32) / np.sqrt(n_components)
    language[:, ~(truth["language"] | truth["both"])] = 0
    wordrate = (truth["wordrate"] | truth["both"]).astype(np.float32)
    strength = rng.uniform(*STRENGTH, n_voxels).astype(np.float32)
    strength[truth["noise"]] = 0
    return {"language": language, "wordrate": wordrate, "strength": strength}


def _words_by_tr(words: Words) -> Array:
    """(n_trs, 1): words from each TR's time to the next one's: the truth was made with this count, so it remains."""
    edges = np.append(tr_times(words), tr_times(words)[-1] + TR)
    return np.histogram(words.times, edges)[0][:, None].astype(np.float32)


def _stored_truth() -> dict[str, Array]:
    with np.load(DATA / "truth.npz", allow_pickle=False) as stored:
        return dict(stored)


def signal(name: str, words: Words) -> Array:
    """(n_rows, n_voxels) float32: what a story evokes, unit variance in voxels that follow something."""
    mixing = _mixing()
    mixed = _through_hrf(_stored_truth()[name]) @ mixing["language"]
    mixed += _through_hrf(_words_by_tr(words)) * mixing["wordrate"]
    spread = mixed.std(axis=0)
    return mixed / np.where(spread > 0, spread, 1)


def noise(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Unit-variance noise, autocorrelated over rows (first order)."""
    from scipy.signal import lfilter

    white = rng.standard_normal(shape, dtype=np.float32)
    white[0] /= np.sqrt(1 - NOISE_AR**2)
    white *= np.float32(np.sqrt(1 - NOISE_AR**2))
    return lfilter(np.array([1], np.float32), np.array([1, -NOISE_AR], np.float32), white, axis=0)


class SimulatedRepeats:
    """(n_repeats, n_rows, n_voxels) presentations of one story, made anew whenever they are read."""

    def __init__(self, name: str, words: Words, n_repeats: int) -> None:
        self._name, self._words = name, words
        self.shape = (n_repeats, len(tr_times(words)) - TRIMMED_TRS - 5, brain.voxel_count(SURFACE))
        self.dtype = np.dtype(np.float32)

    def presentations(self, repeats: Iterable[int]) -> Iterator[Array]:
        """(n_rows, n_voxels) of each of the given presentations: the same signal, other noise."""
        strength = _mixing()["strength"]
        evoked = strength * signal(self._name, self._words)
        for repeat in repeats:
            rng = np.random.default_rng([SEED, 3, repeat, *self._name.encode()])
            bold = noise(self.shape[1:], rng)
            bold *= np.sqrt(1 - strength**2)
            bold += evoked
            yield bold

    def mean(self) -> Array:
        """(n_rows, n_voxels) average over the presentations."""
        total = reduce(iadd, self.presentations(range(len(self))))
        total /= np.float32(len(self))
        return total

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key):
        repeats, *rest = key if isinstance(key, tuple) else (key,)
        chosen = np.arange(self.shape[0])[repeats]
        found = [bold[tuple(rest)] for bold in self.presentations(np.atleast_1d(chosen).tolist())]
        return np.stack(found) if np.ndim(chosen) else found[0]


def _story(name: str) -> Story:
    words = read_story_words(name)
    heard = SimulatedRepeats(name, words, N_REPEATS if name == TEST_STORY else 1)
    repeats = heard if len(heard) > 1 else None
    return Story(name=name, words=words, tr_times=tr_times(words), bold=heard.mean(), repeats=repeats)


def load(*, stories: Iterable[str] | None = None) -> Assembly:
    """The demo as an `Assembly`; takes about four seconds and gives the same numbers every time.

    Parameters
    ----------
    stories : names, optional
        Keep only these.
    """
    names = chosen(stories, story_names(), "demo")
    truth = {"areas": areas(), "strength": _mixing()["strength"], "model_name": "demo", "seed": SEED}
    truth |= {"layer_idx": LAYER_IDX, "lookback": LOOKBACK, "context_type": CONTEXT_TYPE}
    return Assembly(
        subject=SUBJECT,
        tr=TR,
        stories={name: _story(name) for name in names},
        test_stories=(TEST_STORY,) if TEST_STORY in names else (),
        surface=SURFACE,
        rois=dict(sorted(brain.roi_masks(SURFACE).items())),
        truth=MappingProxyType(truth),
    )
