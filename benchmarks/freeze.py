"""Record what a version of the package computes, and compare two records to the last bit.

    python benchmarks/freeze.py record FOLDER [--reads OLD_FOLDER]
    python benchmarks/freeze.py compare OLD_FOLDER NEW_FOLDER [--close [WORD ...]]

Use it before and after a change of the code that should change no number. `record` takes the package that Python
finds (set PYTHONPATH to record another version), works in one thread and needs about two minutes. With `--reads`
the new version reads the activation files, the .h5 file and the records of runs that the old version wrote into
OLD_FOLDER; without it, those that it wrote itself.

`compare` prints one line per item and ends with 1 where an item differs. `--close` lets numbers that depend on the
order of a sum differ by 1e-6 (`CLOSE`), or else the items whose name holds one of the WORDs.
"""

from __future__ import annotations

import os

os.environ |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}

import argparse
import inspect
import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any

import h5py
import joblib
import numpy as np

import encoding_nb
from encoding_nb import Settings, Trimming

# What has another address in another version: the first one that is there is taken.
PLACES = {
    "check": ("pipeline.check",),
    "ridge_cv": ("ridge.ridge_steps", "ridge.ridge_cv"),  # the pipeline's way to the ridge
    "nested_cv": ("ridge.nested_steps", "ridge.nested_cv"),
}
CLOSE = ("scores", "pvalues", "predictions", "weights", "metrics", "correlations", "joint", "unique", "split")
GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
FEW = ("deepend", "ferrystrike", "gravy", "pageturner")
WORD_RATE = Settings(modality="wordrate", significance="parametric")
MODEL = Settings(lookback=32, layer_idx=3, stories=FEW, fir_delays=(2, 3))
FITS = {
    "language model": MODEL,
    "joined": replace(MODEL, joined_with=("wordrate",)),
    "nested": replace(MODEL, use_train_test_split=False, n_permutations=200),
    "dual": replace(MODEL, fir_delays=(1, 2, 3, 4)),
}
NESTED = replace(WORD_RATE, use_train_test_split=False, folding_type="kfold_trimmed", n_outer_folds=3)
# On a fortieth of the voxels.
VARIANTS = {
    "word rate": WORD_RATE,
    "nested word rate": NESTED,
    "R2": replace(WORD_RATE, use_corr=False, alternative="two-sided", significance="permutation", block_trs=10),
    "single alpha": replace(MODEL, single_alpha=True, folding_type="kfold", processing="litcoder"),
    "normalpha": replace(MODEL, normalpha=True, prediction_floor=1e-8, alphas=(0.01, 1, 100)),
    "time series": replace(MODEL, folding_type="timeseries", downsample_method="rect", fir_delays=(0, 2)),
    "embeddings": replace(WORD_RATE, modality="embeddings", downsample_method="average"),
    "nested group": replace(MODEL, use_train_test_split=False, folding_type="group", n_inner_folds=2, n_outer_folds=3),
}  # fmt: skip
SWEEP = [WORD_RATE, VARIANTS["single alpha"], NESTED]
WRONG = {
    "layer_idx": (99, 1.5), "lookback": (0, 4000), "model_name": ("no-such/model", ""), "processing": ("cooked",),
    "context_type": ("some", "strided"), "last_token": (1,), "use_stored_contexts": (True,), "modality": ("pictures",),
    "joined_with": (("language_model",), ("pictures",), ("embeddings",)), "downsample_method": ("gabor", "magic"),
    "downsample_window": (0,), "cutoff_mult": (-1.0,), "fir_delays": ((), (1, 1), (1, 500)), "seed": (-1, 2**80),
    "trimming": (None, Trimming(train_features_start=500), Trimming(train_features_start=3)),
    "stories": (("nowhere",), (), ("lasttrainhome",)), "test_stories": ((), ("nowhere",)), "device": ("tpu", "cuda"),
    "use_train_test_split": ("yes",), "folding_type": ("random",), "n_inner_folds": (1, 5000),
    "alphas": ((), (-1.0,), (1.0, float("nan"))), "single_alpha": (1,), "use_corr": (None,), "normalpha": ("no",),
    "prediction_floor": (-1,), "fdr_q": (1.5,), "alternative": ("less",), "significance": ("bootstrap",),
    "n_permutations": (0,), "block_trs": (0, 200), "chunk_length": (0, 9999), "n_outer_folds": (1, 900),
}  # fmt: skip
TRIMMING = {
    "train_features_start": 10, "train_features_end": -5, "train_targets_start": 0, "train_targets_end": None,
    "test_features_start": 50, "test_features_end": -5, "test_targets_start": 40, "test_targets_end": None,
}  # fmt: skip


# --- the record ---------------------------------------------------------------------------------------------


@dataclass
class Record:
    """A folder with `items.json` and the arrays that it names, and what the version wrote for others to read."""

    folder: Path
    items: dict[str, Any] = field(default_factory=dict)

    def put(self, name: str, value: Any, *, keep: bool = True) -> None:
        """Record a value; mappings entry by entry; of arrays without `keep` only the digest."""
        if isinstance(value, Mapping):
            for key, part in value.items():
                self.put(f"{name}/{key}", part, keep=keep)
        elif isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value)
            digest = sha256(f"{array.dtype.str} {array.shape}".encode() + array.tobytes()).hexdigest()
            path = self.folder / "arrays" / f"{digest}.npy"
            if keep and array.dtype != object and not path.exists():
                np.save(path, array)
            self.items[name] = {"array": digest, "shape": list(array.shape), "dtype": array.dtype.str}
        else:
            self.items[name] = json.loads(json.dumps(value, default=_plain))

    def write(self) -> None:
        (self.folder / "items.json").write_text(json.dumps(self.items, indent=0, sort_keys=True))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else str(value)


def place(name: str) -> Any:
    """What `PLACES` names; an AttributeError where this version has none of the addresses."""
    for address in PLACES[name]:
        module, _, attribute = f"encoding_nb.{address}".rpartition(".")
        with suppress(ImportError, AttributeError):
            return getattr(import_module(module), attribute)
    raise AttributeError(f"{name}: none of {', '.join(PLACES[name])} is there")


@contextmanager
def replaced(name: str, make: Callable[[Callable], Callable]) -> Iterator[None]:
    """Put `make(function)` in the place of the package's function of this name, in each module that has it."""
    modules = [module for key, module in sys.modules.items() if key.split(".")[0] == "encoding_nb"]
    homes = [(module, vars(module)[name]) for module in modules if inspect.isfunction(vars(module).get(name))]
    if not homes:
        raise AttributeError(f"no module of the package has a function {name}")
    made = {function: make(function) for _, function in homes}
    for module, function in homes:
        setattr(module, name, made[function])
    try:
        yield
    finally:
        for module, function in homes:
            setattr(module, name, function)


def free_memory(n_bytes: int) -> AbstractContextManager[None]:
    """The package takes this for the memory that the machine has free."""
    return replaced("free_memory", lambda _: lambda *args, **options: n_bytes)


def seeing(see: Callable[[Mapping[str, Any], Any], None]) -> Callable[[Callable], Callable]:
    """For `replaced`: the function itself; `see` is given its arguments and what it returned."""

    def make(function: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            found = function(*args, **options)
            see(inspect.signature(function).bind(*args, **options).arguments, found)
            return found

        return call

    return make


def sentence(call: Callable[[], Any]) -> str:
    """What a call that must fail says."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - any kind is recorded
        return f"{type(error).__name__}: {error}"
    return "no error"


# --- what is recorded ---------------------------------------------------------------------------------------


class Session:
    """The data that the sections share, and the folders that they write to."""

    def __init__(self, record: Record, reads: Path) -> None:
        self.record, self.reads = record, reads
        self.written = record.folder / "written"
        self.memory = joblib.Memory(str(self.written / "cache"), verbose=0)
        self.demo = encoding_nb.load_assembly("demo")
        self.part = self.some_voxels()
        self.results: dict[str, Any] = {}

    def some_voxels(self, step: int = 40) -> Any:
        """Four of the demo's stories with a fortieth of its voxels, in memory."""
        stories = {}
        for name in (*FEW, *self.demo.test_stories):
            story = self.demo.stories[name]
            stories[name] = {"words": story.words, "tr_times": story.tr_times}
            stories[name]["bold"] = np.array(story.bold[:, ::step])
            if story.repeats is not None:
                stories[name]["repeats"] = np.array(story.repeats[:, :, ::step])
        rois = {"first": np.arange(stories[FEW[0]]["bold"].shape[1]) < 100}
        tests = self.demo.test_stories
        return encoding_nb.Assembly.from_arrays(stories, subject="S1", tr=2.0, test_stories=tests, rois=rois)

    def fit(self, assembly: Any, settings: Settings, **options: Any) -> Any:
        return encoding_nb.run(assembly, settings, memory=self.memory, progress=False, **options)

    def sweep(self, runs: Path) -> list[Any]:
        options = {"memory": self.memory, "n_jobs": 1, "progress": False}
        return encoding_nb.run_sweep(self.part, SWEEP, results_dir=runs, **options)

    def put_fit(self, name: str, assembly: Any, settings: Settings, **options: Any) -> Any:
        """Fit, and record what the ridge was given and what was found."""
        seen: list[Mapping[str, Any]] = []
        made: set[str] = set()
        ridge = place("ridge_cv" if settings.use_train_test_split else "nested_cv").__name__
        note_folds = seeing(lambda _, folds: made.add(sha256(_folds_array(folds).tobytes()).hexdigest()))
        with replaced(ridge, seeing(lambda given, _: seen.append(given))), replaced("make_folds", note_folds):
            result = self.fit(assembly, settings, **options)
        self.record.put(f"{name}/ridge/Y is a memory map", isinstance(seen[0]["Y"], np.memmap))
        for key in ("X", "Y", "X_test"):  # responses of the test stories are in `measured`
            if key in seen[0]:
                self.record.put(f"{name}/ridge/{key}", np.asarray(seen[0][key][:, :]), keep=key != "Y")
        folds = seen[0]["folds" if settings.use_train_test_split else "outer_folds"]
        self.record.put(f"{name}/ridge/folds", _folds_array(folds))
        self.record.put(f"{name}/all folds", sorted(made))
        self.put_result(name, result)
        return result

    def put_result(self, name: str, result: Any) -> None:
        for key in ("scores", "best_alphas", "pvalues", "significant", "noise_ceiling", "story_scores"):
            self.record.put(f"{name}/{key}", getattr(result, key))
        for key in ("story_noise_ceiling", "row_times", "metrics"):
            self.record.put(f"{name}/{key}", getattr(result, key))
        for key in ("predictions", "measured"):
            self.record.put(f"{name}/{key}", dict(getattr(result, key)))
        self.record.put(f"{name}/said", [repr(result), list(result.notes), result.settings.to_json()])
        self.record.put(f"{name}/data digest", result.provenance["data_digest"])


def _folds_array(folds: Any) -> np.ndarray:
    """All row numbers of some folds in one array, each part behind its length."""
    parts = [np.asarray(rows, np.int64) for fold in folds for rows in fold]
    return np.concatenate([part for rows in parts for part in ([len(rows)], rows)])


def put_assembly(record: Record, name: str, assembly: Any, *, keep: bool) -> None:
    """Words, times, BOLD, repeats, regions of an assembly."""
    for story in assembly.stories.values():
        record.put(f"{name}/bold/{story.name}", np.asarray(story.bold[:]), keep=keep)
        times = np.concatenate([story.words.onsets, story.words.offsets, story.tr_times])
        record.put(f"{name}/words and times/{story.name}", [list(story.words.text), times.tolist()])
        if story.repeats is not None:
            record.put(f"{name}/repeats/{story.name}", np.asarray(story.repeats[:]), keep=False)
    record.put(f"{name}/rois", {roi: np.asarray(mask) for roi, mask in assembly.rois.items()})
    record.put(f"{name}/said", [repr(assembly), assembly.test_stories, assembly.surface])


def put_data(session: Session) -> None:
    put_assembly(session.record, "demo", session.demo, keep=False)


def put_estimates(session: Session, moment: str = "before the fits") -> None:
    """Bytes and shapes, not seconds, with the free memory set."""
    for name, settings in {**FITS, "word rate": WORD_RATE}.items():
        for free in (8_000_000_000, 100_000_000):
            with free_memory(free):
                found = vars(encoding_nb.estimate(session.demo, settings, memory=session.memory))
            parts = {key: found[key] for key in ("bytes", "cached", "n_words", "on_disk", "problem")}
            session.record.put(f"estimate/{name}, {free / 1e9:g} GB, {moment}", parts)


def put_fits(session: Session) -> None:
    """The fits on all voxels, each with both kinds of p-values."""
    for name, settings in FITS.items():
        session.results[name] = session.put_fit(name, session.demo, settings)
        other = session.fit(session.demo, replace(settings, significance="parametric"))
        session.record.put(f"{name}/parametric", {"pvalues": other.pvalues, "significant": other.significant})
    session.results["layer 1"] = session.put_fit("layer 1", session.demo, replace(MODEL, layer_idx=1))
    put_estimates(session, "after the fits")


def put_variants(session: Session) -> None:
    """Other settings on few voxels; fits one after another; given folds; variance partitioning."""
    for name, settings in VARIANTS.items():
        session.put_fit(f"variant {name}", session.part, settings)
    for number, layer in enumerate((2, 3, 3, 2)):
        result = session.fit(session.part, replace(MODEL, layer_idx=layer))
        session.put_result(f"kept inputs {number}", result)  # the name that older records have for it
    n_rows = sum(len(session.part.stories[name].bold) for name in FEW)
    folds = encoding_nb.make_folds(n_rows, n_folds=3, seed=7)
    session.put_fit("given folds", session.part, WORD_RATE, inner_folds=folds)
    found = encoding_nb.partition(session.part, FITS["joined"], memory=session.memory, n_iter=5)
    for key in ("joint", "split", "alone", "unique"):
        session.record.put(f"partition/{key}", getattr(found, key))


def put_disk(session: Session) -> None:
    """Responses read from a file, responses in a temporary file, weights on disk."""
    path = session.written / "part.h5"
    encoding_nb.save_assembly(session.part, path)
    for name in ("word rate", "single alpha", "nested word rate"):
        session.put_fit(f"read from a file, {name}", encoding_nb.load_assembly(path), VARIANTS[name])
    with free_memory(200_000_000):
        session.put_fit("responses in a temporary file", session.demo, WORD_RATE)
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((120, 30)), rng.standard_normal((120, 300)).astype(np.float32)
    Y[:, :100] += X[:, :5] @ rng.standard_normal((5, 100))
    options = {"folds": encoding_nb.make_folds(120, chunk_length=8), "alphas": np.logspace(0, 4, 9)}
    options |= {"return_all_scores": True, "standardize_X": True, "Y_test": Y[:50], "tile": 77}
    for name, wide in {"primal": X, "dual": np.tile(X, 6)}.items():
        weights = session.written / f"{name}.npy"
        with h5py.File(session.written / f"{name}.h5", "w") as file:
            stored = file.create_dataset("Y", data=Y)
            found = encoding_nb.ridge_cv(wide, stored, X_test=wide[:50], weights_path=weights, **options)
        for key in ("best_alphas", "cv_scores", "all_cv_scores", "weights", "predictions", "correlations"):
            session.record.put(f"weights on disk, {name}/{key}", np.asarray(getattr(found, key)))
        session.record.put(f"weights on disk, {name}/file", sha256(weights.read_bytes()).hexdigest())


def put_sentences(session: Session) -> None:
    """What `check` and failing runs say; notes of runs; source of cells."""
    record, check, part, fit = session.record, place("check"), session.part, session.fit
    for name, values in WRONG.items():
        for number, value in enumerate(values):
            wrong = {"part": (part, MODEL), "nested": (part, NESTED), "demo": (session.demo, MODEL)}
            found = [list(check(a, replace(s, **{name: value})).items()) for a, s in wrong.values()]
            record.put(f"check/{name} {number}", found)
    many = replace(MODEL, lookback=0, alphas="many", seed=0.5, n_inner_folds=1)
    record.put("check/many", list(check(part, many).items()))

    def with_gravy(**arrays: np.ndarray) -> Any:
        return replace(part, stories={**part.stories, "gravy": replace(part.stories["gravy"], **arrays)})

    broken, flat = (np.array(part.stories["gravy"].bold) for _ in range(2))
    broken[3, [5, 6]], flat[:, :4] = (np.nan, np.inf), 1
    repeats = np.stack([flat, broken, broken[::-1]])
    errors = {
        "not finite": lambda: fit(with_gravy(bold=broken), WORD_RATE),
        "folds of other rows": lambda: fit(part, WORD_RATE, inner_folds=[([0, 1], [9999, 3])]),
        "folds of nested fits": lambda: fit(part, NESTED, inner_folds=[([0, 1], [2, 3])]),
        "no settings": lambda: fit(part, {}),
        "no assembly": lambda: fit("demo", WORD_RATE),
        "wrong setting": lambda: fit(part, replace(WORD_RATE, alphas=())),
        "unknown setting": lambda: Settings.from_json('{"layer": 3}'),
    }
    record.put("errors", {name: sentence(call) for name, call in errors.items()})
    with free_memory(1_000_000):
        record.put("errors/memory", sentence(lambda: fit(part, WORD_RATE)))
    unused = replace(NESTED, test_stories=("gravy",))
    strided = replace(MODEL, context_type="strided", stride=8, lookback=8, stories=("gravy",))
    session.put_result("notes, flat", fit(with_gravy(bold=flat, repeats=repeats), unused))
    session.put_result("notes, strided", fit(part, strided))
    for name, settings in {**FITS, **VARIANTS, "unused": unused, "strided": strided}.items():
        record.put(f"to_code/{name}", encoding_nb.to_code(settings, "demo", {"stories": ("gravy",)}))
    record.put("to_code/in memory", encoding_nb.to_code(replace(MODEL, trimming=Trimming()), None))


def put_litcoder(session: Session) -> None:
    """Metrics of LITcoder's trainer on the golden stories."""
    litcoder = import_module("encoding_nb.litcoder")
    features = litcoder.FeatureExtractorFactory.create_extractor
    cache = session.written / "litcoder"
    model = str(GOLDEN / "hf" / "tiny-gpt2")
    spaces = {
        "split": features("language_model", model, {"layer_idx": 2}, cache),
        "nested": features("wordrate", model, {}, cache),
    }
    for name, space in spaces.items():
        trainer = litcoder.AbstractTrainer(
            litcoder.load_assembly(str(GOLDEN / "assembly_lebel_fullcontext.pkl")),
            [space],
            litcoder.Downsampler(),
            litcoder.NestedCVModel(model_name="ridge_regression"),
            fir_delays=[1, 2, 3, 4],
            trimming_config={k: v for k, v in TRIMMING.items() if name == "split" or k.startswith("train")},
            use_train_test_split=name == "split",
            results_dir=session.written / "litcoder runs",
            progress=False,
        )
        metrics = trainer.train(chunk_length=10)
        arrays = {key: np.asarray(v) if isinstance(v, list) else v for key, v in metrics.items()}
        session.record.put(f"litcoder {name}/metrics", arrays)
        session.put_result(f"litcoder {name}", trainer.result)


def put_maps(session: Session) -> None:
    """Pixels of a map of scores, of significant scores alone, and of best layers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    first, other = session.results["language model"], session.results["layer 1"]
    shown = {"significant": first.significant, "nonsignificant": "hide", "vmin": 0.1, "title": "r"}
    figures = {
        "scores": encoding_nb.plot_flatmap(first),
        "significant scores": encoding_nb.flatmap(first.scores, first.surface, **shown),
        "best layer": encoding_nb.plot_best_layer([other, first]),
    }
    for name, figure in figures.items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        session.record.put(f"map/{name}", np.array(canvas.buffer_rgba()))


def put_written(session: Session) -> None:
    """What is on disk: activation files and the .h5 by their bytes, records by the digest in their names."""
    record, runs = session.record, session.written / "runs"
    first = session.results["language model"]
    encoding_nb.save_run(first, runs, assembly=session.demo, run_name="demo", table=True, extra={"a": 1})
    for number, result in enumerate(session.sweep(runs)):
        record.put(f"sweep/{number}", {k: getattr(result, k) for k in ("scores", "pvalues", "best_alphas")})
    files = [path for path in runs.rglob("*") if path.is_file()]
    record.put("written/records", sorted([f.parent.name.split("_")[-1], f.name] for f in files))
    record.put("written/cache", _digests(session.written / "cache"))
    record.put("written/litcoder", _digests(session.written / "litcoder"))
    record.put("written/part.h5", sha256((session.written / "part.h5").read_bytes()).hexdigest())


def _digests(folder: Path) -> list[list[str]]:
    files = sorted(path for path in folder.rglob("*.zip"))
    return [[str(path.relative_to(folder)), sha256(path.read_bytes()).hexdigest()] for path in files]


def put_read(session: Session) -> None:
    """Read activations, .h5 and records that a version wrote, with no model loaded and no ridge fitted."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as refused:
        copy = Path(shutil.copytree(session.reads / "written", Path(folder) / "written"))
        for name in ("load_model", place("ridge_cv").__name__, place("nested_cv").__name__):
            refused.enter_context(replaced(name, lambda _, name=name: partial(refuse, name)))
        read_activations(session, copy / "cache", Path(folder) / "nothing")
        put_assembly(session.record, "read/h5", encoding_nb.load_assembly(copy / "part.h5"), keep=True)
        read_records(session, copy / "runs")


def refuse(name: str, *_: Any, **__: Any) -> Any:
    raise AssertionError(f"{name} was called")


def read_activations(session: Session, cache: Path, nothing: Path) -> None:
    """All layers of a story from the files that are there, and the proof that without them a model is loaded."""
    before, spec = _digests(cache), encoding_nb.ActivationSpec("demo", lookback=32)
    if not before:  # an older version's, in a format that is not read any more
        return
    words = session.demo.stories["gravy"].words.text
    for layer in range(encoding_nb.model_info("demo").n_layers + 1):
        found = encoding_nb.layer_activations(words, spec, layer_idx=layer, memory=str(cache))
        session.record.put(f"read/activations/{layer}", found)
    session.record.put("read/activations/files are as they were", before == _digests(cache))
    failed = sentence(lambda: encoding_nb.layer_activations(words, spec, layer_idx=0, memory=str(nothing)))
    session.record.put("read/activations/without files", failed)


def read_records(session: Session, runs: Path) -> None:
    """The records by name, as a table, and as a sweep that finds its runs done."""
    table = encoding_nb.list_runs(runs)
    table = table.drop(columns=["run", "time", "path", "seconds"]).astype(str)
    session.record.put("read/records/table", sorted(map(list, table.itertuples(index=False))))
    for path in runs.iterdir():
        session.put_result(f"read/records/{path.name.split('_')[-1]}", encoding_nb.load_run(path))
    for number, result in enumerate(session.sweep(runs)):
        session.record.put(f"read/sweep/{number}", getattr(result, "scores", repr(result)))


def put_signatures(session: Session) -> None:
    """Signatures of the public names of the root, and of the public methods of its classes."""
    for name in encoding_nb.__all__:
        thing = getattr(encoding_nb, name)
        session.record.put(f"signature/{name}", _signature(thing))
        for method, function in inspect.getmembers(thing) if inspect.isclass(thing) else ():
            own = str(getattr(function, "__module__", "")).startswith("encoding_nb")
            if own and callable(function) and not method.startswith("_"):
                session.record.put(f"signature/{name}.{method}", _signature(function))


def _signature(thing: Callable) -> str:
    try:
        found = inspect.signature(thing)
    except (ValueError, TypeError):  # an exception without arguments; a constant
        return "no signature"
    # The order of a set differs from process to process.
    sets = [
        p.replace(default=sorted(p.default))
        for p in found.parameters.values()
        if isinstance(p.default, frozenset)
    ]
    return str(found.replace(parameters=[*({**found.parameters, **{p.name: p for p in sets}}).values()]))


def put_wheel(session: Session) -> None:
    """Files of the wheel that is built from this version's tree: modules by path, data by name and digest."""
    tree = Path(encoding_nb.__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        left_out = shutil.ignore_patterns(".*", "results", "build", "*.egg-info", "__pycache__", "tests")
        copy = shutil.copytree(tree, Path(folder) / "tree", ignore=left_out)
        command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, str(copy)]
        subprocess.run([sys.executable, "-m", *command], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            files = {name: sha256(wheel.read(name)).hexdigest() for name in wheel.namelist()}
    own = {name: digest for name, digest in files.items() if name.startswith("encoding_nb/")}
    data = {name for name in own if not name.endswith(".py")}
    session.record.put("info/modules in the wheel", sorted(own.keys() - data))
    session.record.put("info/data in the wheel", sorted(data))
    for base in sorted({Path(name).name for name in data}):
        session.record.put(f"wheel/{base}", sorted(own[name] for name in data if Path(name).name == base))


SECTIONS = (put_data, put_estimates, put_fits, put_variants, put_disk, put_sentences, put_litcoder, put_maps)
SECTIONS += (put_written, put_read, put_signatures, put_wheel)


def record(folder: Path, reads: Path) -> None:
    """Record this version into a folder, in the place of the record that was there."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "items.json").exists():
        raise SystemExit(f"{folder} holds other files than a record; name a new folder.")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "arrays").mkdir(parents=True)
    (folder / "written").mkdir()
    os.environ["ENCODING_NB_CACHE"] = str(folder / "written" / "cache")
    warnings.simplefilter("ignore")
    print(f"recording {Path(encoding_nb.__file__).parent}")
    session = Session(Record(folder), reads)
    for section in SECTIONS:
        started = time.monotonic()
        section(session)
        session.record.write()
        print(f"{section.__name__:<16}{time.monotonic() - started:>6.1f} s", flush=True)
    print(f"{len(session.record.items)} items in {folder}")


# --- the comparison -----------------------------------------------------------------------------------------


def compare(old: Path, new: Path, close: tuple[str, ...]) -> bool:
    """Print a line for each item (values whose names begin alike) and each value that differs; whether none does."""
    sides = [json.loads((folder / "items.json").read_text()) for folder in (old, new)]
    verdicts: dict[str, list[str]] = {}
    for name in sorted(sides[0].keys() | sides[1].keys()):
        verdict, how = _verdict(name, *sides, (old, new), close)
        verdicts.setdefault(name.split("/")[0], []).append(verdict)
        if verdict != "same":
            print(f"{verdict:<9}{name}: {how}")
    for item, found in verdicts.items():
        worst = next(verdict for verdict in ("DIFFERS", "close", "other", "same") if verdict in found)
        print(f"{worst:<9}{item} ({len(found)} values, {found.count('same')} the same)")
    flat = [verdict for found in verdicts.values() for verdict in found]
    print(", ".join(f"{flat.count(verdict)} {verdict}" for verdict in ("same", "close", "other", "DIFFERS")))
    return "DIFFERS" not in flat


def _verdict(
    name: str, old: Mapping, new: Mapping, folders: tuple[Path, Path], close: tuple[str, ...]
) -> tuple[str, str]:
    """("same", "close", "other" (may differ) or "DIFFERS", how) of one value of two records."""
    if name not in old or name not in new:
        return "DIFFERS", f"only in {folders[name in new]}"
    if json.dumps(old[name]) == json.dumps(new[name]):
        return "same", ""
    if name.startswith("info/"):
        return "other", f"{len(old[name])} and {len(new[name])} files"
    verdict, how = _difference(old[name], new[name], folders)
    return (verdict if any(word in name for word in close) else "DIFFERS"), how


def _difference(old: Any, new: Any, folders: tuple[Path, Path]) -> tuple[str, str]:
    """("DIFFERS" or "close", how) of two values that are not equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        if (old["shape"], old["dtype"]) != (new["shape"], new["dtype"]):
            return "DIFFERS", f"{old['dtype']} {old['shape']} and {new['dtype']} {new['shape']}"
        paths = [a / "arrays" / f"{b['array']}.npy" for a, b in zip(folders, (old, new), strict=True)]
        if not all(path.exists() for path in paths):
            return "DIFFERS", "other bytes (the arrays were not kept)"
        return _apart(*map(np.load, paths))
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (old, new)):
        return _apart(np.asarray(old), np.asarray(new))
    if isinstance(old, list) and isinstance(new, list):
        pairs = zip_longest(old, new, fillvalue="nothing")
        old, new = next((a, b) for a, b in pairs if json.dumps(a) != json.dumps(b))
    return "DIFFERS", f"{str(old)[:300]} and {str(new)[:300]}"


def _apart(old: np.ndarray, new: np.ndarray) -> tuple[str, str]:
    """How far two arrays of one shape are apart; NaN equals NaN."""
    if not np.issubdtype(old.dtype, np.number) and old.dtype != bool:
        return "DIFFERS", f"{int((old != new).sum())} of {old.size} values differ"
    a, b = old.astype(float), new.astype(float)
    differ = (a != b) & ~(np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        most = float(np.nan_to_num(np.abs(a - b)[differ], nan=np.inf).max()) if differ.any() else 0.0
    how = f"{int(differ.sum())} of {a.size} values, by up to {most:.2g}"
    return ("close" if most <= 1e-6 else "DIFFERS"), how


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--reads", type=Path, help="read what the version of this record wrote")
    comparing = commands.add_parser("compare")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    comparing.add_argument("--close", nargs="*", metavar="WORD", help="items that may differ by 1e-6")
    given = parser.parse_args()
    if given.command == "record":
        record(given.folder.resolve(), (given.reads or given.folder).resolve())
    elif not compare(given.old, given.new, () if given.close is None else tuple(given.close) or CLOSE):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
