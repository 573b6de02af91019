"""What the runs of a sweep have in common, made once: activations, responses and ceilings on disk, one design.

Everything large lies in files that every worker can map into its memory, in a folder of the sweep's own inside
the activation cache: whoever reaches the cache, another process or another machine, reaches them too.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakSet

import numpy as np

from .. import features, pipeline
from .._progress import Count
from ..assembly import Array, Assembly, Story
from ..design import Trimming
from ..features import store_folder
from ..pipeline import Plan
from ..settings import Settings

# a sweep's folder that nothing has touched for so long was left by a killed process
STALE_SECONDS = 2 * 86400


# ---------------------------------------------------------------------- the sweep's folder


@contextmanager
def sweep_folder(memory: Any) -> Iterator[Path]:
    """An empty folder beside the kept activations, until the sweep is over or was stopped.

    Those that killed sweeps left behind are removed.
    """
    home = store_folder(memory).parent / "sweeps"
    home.mkdir(parents=True, exist_ok=True)
    for old in home.iterdir():
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    folder = home / uuid4().hex
    _WATCHED.add(folder)  # designs of this process are freed below
    try:
        folder.mkdir()
        (folder / "running").touch()
        yield folder
    finally:
        stop(folder)
        forget_designs(folder)
        _WATCHED.discard(folder)
        shutil.rmtree(folder, ignore_errors=True)


def still_wanted(folder: Path) -> bool:
    """Whether the sweep goes on; false as soon as it was stopped, in whatever process one asks."""
    return (folder / "running").exists()


def stop(folder: Path) -> None:
    """Tell every worker that the sweep is over."""
    (folder / "running").unlink(missing_ok=True)


def write_array(path: Path, array: Array) -> None:
    """A .npy file that is there whole or not at all, column after column.

    A fit reads responses by columns: so laid out, each tile of voxels is one piece of the file, also where the
    file is larger than the memory that would keep it.
    """
    temporary = path.with_name(f"{uuid4().hex}.part")
    try:
        with open(temporary, "wb") as file:
            np.lib.format.write_array(file, np.asfortranarray(array), allow_pickle=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# ---------------------------------------------------------------------- activations


@dataclass(frozen=True)
class Extraction:
    """Passes of one model, in one context, over one story's words; all layers come of it.

    Attributes
    ----------
    spec : without what only changes how kept numbers are read
    words : (n_words,) texts
    contexts : windows that came with the data, or None
    device : as in `Settings`
    """

    spec: features.ActivationSpec
    words: tuple[str, ...]
    contexts: tuple[str, ...] | None
    device: str = field(compare=False)
    story: str = field(compare=False)

    def missing(self, layers: Iterable[int], memory: Any) -> list[int]:
        """The layers that are not on disk."""
        return [
            layer
            for layer in sorted(layers)
            if not features.activations_cached(self.words, self.spec, layer, memory, contexts=self.contexts)
        ]

    def compute(self, layers: Iterable[int], memory: Any, *, progress: Count) -> None:
        """Compute and keep what is missing of `layers`; `progress` is called with (done, total) tokens."""
        missing = self.missing(layers, memory)
        if missing:
            features.layer_activations(
                self.words,
                self.spec,
                layer_idx=missing[0],
                memory=memory,
                contexts=self.contexts,
                device=self.device,
                progress=progress,
            )


def extractions(plan: Plan) -> dict[Extraction, int]:
    """{extraction: layer} of every story that a run reads through a language model."""
    spec = plan.specs.get("language_model")
    if spec is None:
        return {}
    # processing is applied when kept numbers are read
    kept = replace(spec.activation, processing="raw")
    found = {}
    for story in (*plan.train, *plan.test):
        contexts = (story.contexts or {}).get(kept.context_type) if spec.use_stored_contexts else None
        found[Extraction(kept, story.words.text, contexts, plan.settings.device, story.name)] = spec.layer_idx
    return found


# ---------------------------------------------------------------------- responses


class StackedRows:
    """Stories' rows below each other, each in a file of its own: read by columns, never copied as a whole."""

    def __init__(self, blocks: Sequence[Array]) -> None:
        self._blocks = list(blocks)
        self.shape = (sum(map(len, blocks)), blocks[0].shape[1])
        self.dtype = blocks[0].dtype
        self.ndim = 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Array:
        if isinstance(key, tuple) and len(key) == 2 and key[0] == slice(None):
            parts = [block[:, key[1]] for block in self._blocks]
            # Row by row again, as the fit's products want them: see `write_array`.
            whole = np.empty((len(self), parts[0].shape[1]), self.dtype)
            return np.concatenate(parts, out=whole)
        mask = np.asarray(key)
        if mask.dtype != bool or mask.shape != (len(self),):
            raise TypeError("stacked rows are read by columns, [:, start:stop], or by a mask of all rows.")
        stops = np.cumsum([len(block) for block in self._blocks])
        parts = zip(self._blocks, np.split(mask, stops[:-1]), strict=True)
        return np.concatenate([block[part] for block, part in parts])


class _Last:
    """What a thread worked with last in the sweep of a folder: {name: (key, values)}."""

    def __init__(self, root: Path) -> None:
        self.root, self.named = root, {}


# The runs that share a design come one after the other, so a thread keeps its last and no more.
_HERE = threading.local()
_ALL: WeakSet[_Last] = WeakSet()
_WATCHED: set[Path] = set()
_LOCK = threading.Lock()
WATCH_SECONDS = 1.0


def forget_designs(root: Path) -> None:
    """Free the designs that this process's threads worked with last in the sweep of a folder."""
    with _LOCK:
        for last in _ALL:
            if last.root == root:
                last.named = {}


def forget_when_over(root: Path) -> None:
    """Free them as soon as the sweep is over: a worker outlives it, and is not told by anything but the folder."""
    with _LOCK:
        if root in _WATCHED:
            return
        _WATCHED.add(root)

    def watch() -> None:
        while still_wanted(root):
            time.sleep(WATCH_SECONDS)
        forget_designs(root)
        _WATCHED.discard(root)

    threading.Thread(target=watch, name="encoding_nb sweep", daemon=True).start()


def _kept(root: Path, what: str, key: tuple) -> dict[str, Any]:
    """What this thread keeps under a name for this key; emptied when the key is another."""
    last = getattr(_HERE, "last", None)
    if last is None or last.root != root:
        last = _HERE.last = _Last(root)
        with _LOCK:
            _ALL.add(last)
    known, values = last.named.get(what, (None, None))
    if known != key:
        values = {}
        last.named[what] = (key, values)
    return values


def story_key(story: Story) -> str:
    """Digest of what features are made of: words, their times, TR times and stored windows; not who heard it."""
    digest = sha256()
    windows = [text for name, texts in sorted((story.contexts or {}).items()) for text in (name, *texts)]
    for text in (*story.words.text, "", *windows):
        encoded = text.encode("utf-8", errors="surrogatepass")
        digest.update(f"{len(encoded)}:".encode() + encoded)
    for times in (story.words.onsets, story.words.offsets, story.tr_times):
        digest.update(np.ascontiguousarray(times, dtype=float).tobytes())
    return digest.hexdigest()


def sampling_key(settings: Settings) -> tuple:
    """Runs with equal keys have equal features on the TRs of a story."""
    specs = tuple(settings.feature_specs.items())
    return (specs, settings.downsample_method, settings.downsample_window, settings.cutoff_mult)


def design_key(settings: Settings) -> tuple:
    """Runs of the same stories with equal keys have the same design matrix."""
    return (*sampling_key(settings), settings.fir_delays, settings.trimming)


@dataclass
class _Block:
    """Rows of one story's responses that some runs want; `held_out` where some run predicts them."""

    story: Story
    trimming: Trimming
    test: bool
    held_out: bool = False


@dataclass(frozen=True)
class SharedInputs(pipeline.Inputs):
    """One subject's inputs to all runs of a sweep; `prepare` has written the responses into `folder`.

    What follows from the stories alone is kept for the next run, also for one of another subject who heard them.
    """

    folder: Path
    digest: str | None = None  # of the data, taken once for all runs

    def data_digest(self, assembly: Assembly) -> str | None:
        """The digest that was taken when the sweep began: the BOLD itself is not here."""
        return self.digest

    def sampled(self, plan: Plan, story: Story, progress: Count | None = None) -> features.JoinedFeatures:
        """A story's features on its TRs, kept while the following runs want the same."""
        kept, key = _kept(self.folder.parent, "sampled", sampling_key(plan.settings)), story_key(story)
        if key not in kept:
            kept[key] = pipeline.sample_story(plan, story, progress)
        return kept[key]

    def training_features(self, plan: Plan, sampled: Mapping[str, Array]) -> Array:
        """X, kept while the following runs want the same."""
        heard = tuple(story_key(story) for story in plan.train)
        kept = _kept(self.folder.parent, "X", (heard, design_key(plan.settings)))
        if not kept:
            kept["X"] = pipeline.training_features(plan, sampled)
        return kept["X"]

    def training_responses(self, plan: Plan) -> StackedRows:
        """Y, mapped from files."""
        trimming = plan.settings.trimming
        return StackedRows([self.responses(story, trimming, test=False) for story in plan.train])

    def test_responses(self, plan: Plan, story: Story) -> Array:
        """A test story's responses, mapped from a file."""
        return self.responses(story, plan.settings.trimming, test=True)

    def derived(self, X: Array) -> dict[str, Any]:
        """What follows from this X, kept as long as X is."""
        _, kept = _HERE.last.named.get("X", (None, {}))  # gone where the sweep was stopped meanwhile
        return kept.setdefault("derived", {}) if kept.get("X") is X else {}

    def responses(self, story: Story, trimming: Trimming, *, test: bool) -> Array:
        """(rows, n_voxels) z-scored responses of a story, mapped into memory.

        Raises
        ------
        ValueError
            What kept `prepare` from making them.
        """
        path = self._path("responses", story, trimming.slices(test=test)[1])
        _refuse_unmade(path)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def noise_ceiling(self, story: Story, kept: slice) -> Array | None:
        """(n_voxels,) ceiling of a story, or None where it was heard once; errors as for `responses`."""
        path = self._path("ceiling", story, kept)
        _refuse_unmade(path)
        return np.load(path, allow_pickle=False) if path.exists() else None

    def prepare(self, plans: Sequence[Plan], progress: Callable[[int, int, str], None]) -> None:
        """Read, trim and z-score the responses of all runs once; calls `progress` with (done, total, story).

        An error in reading one story's BOLD or repeats is kept, and raised in the runs that need the story.
        """
        wanted = self._wanted(plans)
        needed, free = _n_bytes(wanted.values()), shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                f"The sweep keeps {needed / 1e9:.1f} GB of responses of {plans[0].assembly.subject} beside the "
                f"activation cache, and {free / 1e9:.1f} GB are free there; free some space or give another `memory`."
            )
        for done, (path, block) in enumerate(wanted.items()):
            progress(done, len(wanted), block.story.name)
            self._write(path, block)

    def n_bytes(self, plans: Sequence[Plan]) -> int:
        """Bytes of the responses that `prepare` writes."""
        return _n_bytes(self._wanted(plans).values())

    def _wanted(self, plans: Sequence[Plan]) -> dict[Path, _Block]:
        wanted: dict[Path, _Block] = {}
        for plan in plans:
            for story in plan.stories:
                test = story in plan.test
                path = self._path("responses", story, plan.bold_rows[story.name])
                block = wanted.setdefault(path, _Block(story, plan.settings.trimming, test))
                block.held_out |= test or not plan.settings.use_train_test_split
        return wanted

    def _write(self, path: Path, block: _Block) -> None:
        story, kept = block.story, block.trimming.slices(test=block.test)[1]
        _write_or_say_why(path, story, lambda: pipeline.response_rows(story, block.trimming, test=block.test))
        if block.held_out and path.exists():
            _write_or_say_why(
                self._path("ceiling", story, kept), story, lambda: pipeline.story_ceiling(story, kept)
            )

    def _path(self, what: str, story: Story, kept: slice) -> Path:
        rows = kept.indices(story.n_rows)
        return self.folder / f"{what}-{sha256(f'{story.name} {rows}'.encode()).hexdigest()[:24]}.npy"


def _n_bytes(blocks: Iterable[_Block]) -> int:
    kept = ((b, range(b.story.n_rows)[b.trimming.slices(test=b.test)[1]]) for b in blocks)
    return sum(4 * len(rows) * b.story.bold.shape[1] for b, rows in kept)


def _write_or_say_why(path: Path, story: Story, make: Callable[[], Array | None]) -> None:
    """Write an array, if there is one; what it fails of goes into a text, and the sweep goes on.

    Data are read here, from whatever file or object they lie in: any error can come of it, and it is the
    business of the runs that need this story.
    """
    try:
        array = make()
        if array is not None:
            write_array(path, array)
    except Exception as error:  # noqa: BLE001
        text = f"its data could not be read, {type(error).__name__}: {error}"
        text = str(error) if isinstance(error, ValueError) else f"{story.name}: {text}"
        with suppress(OSError):  # a full disk takes no text either: then the run misses the array itself
            path.with_suffix(".txt").write_text(text, encoding="utf-8")


def _refuse_unmade(path: Path) -> None:
    reason = path.with_suffix(".txt")
    if reason.exists():
        raise ValueError(reason.read_text(encoding="utf-8"))
