"""Features: speed against the plain way, agreement with the golden cases, the cache, and downsampling.

    python benchmarks/features.py [--quick] [--model FOLDER] [--only storage]

Everything is measured in this one run, on this machine, with the threads torch has. The plain way is what
LITcoder does: one full `run_with_cache` of 257 tokens per word. It and fullcontext are timed on a sample of
words and scaled to the story; the other context types are run whole, all layers, and written to the cache. What
float16 storage and strided windows do to scores and features is measured on the demo.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from encoding_nb import Settings, load_assembly, run
from encoding_nb.design import add_delays, downsample
from encoding_nb.features import (
    ActivationSpec,
    cache_info,
    context_windows,
    joined_features,
    layer_activations,
    model_info,
)
from encoding_nb.features.cache import entry_path, read_array, write_array
from encoding_nb.features.language_model import extract, load_model
from encoding_nb.features.models import first_token, load_tokenizer
from encoding_nb.pipeline import runs

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
TINY = GOLDEN / "hf" / "tiny-gpt2"
STORIES = ("storya", "storyb", "storyc", "storyd", "storyz_test")
LOOKBACK, STRIDE, N_WORDS = 256, 256, 1500


def row(what: str, measured: str, wanted: str = "", held: bool | None = None) -> None:
    mark = {None: "", True: "yes", False: "NO"}[held]
    print(f"{what:<58} {measured:>22}   {wanted:<22} {mark}")


def seconds(run, repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def gpt2_small_shape(folder: Path) -> Path:
    """A local folder of GPT-2 small's shape with random weights, and the golden cases' tokenizer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    for file in TINY.iterdir():
        if file.name not in ("config.json", "generation_config.json", "model.safetensors"):
            shutil.copy(file, folder)
    return folder


def story_words(n_words: int) -> list[str]:
    stimuli = np.load(GOLDEN / "stimuli.npz")
    words = [w for story in STORIES for w in stimuli[f"{story}/words"].tolist() if w]
    return [words[i % len(words)] for i in range(n_words)]


def bench_extraction(folder: Path, n_words: int, sample: int) -> Path:
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    info = model_info(str(folder))
    tokenizer = load_tokenizer(folder)
    bos = first_token(tokenizer)
    model = load_model(info)
    words = story_words(n_words)
    print(f"\n{n_words} words, lookback {LOOKBACK}, {info.n_layers} layers of {info.d_model}, "
          f"{torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f}")  # fmt: skip

    ids = torch.randint(0, 1500, (1, LOOKBACK + 1))
    as_it_comes = TransformerBridge.boot_transformers(str(folder))
    with torch.inference_mode():
        plain = seconds(lambda: as_it_comes.run_with_cache(ids), sample)
    row("plain way, one run_with_cache of 257 tokens", f"{plain * 1000:.0f} ms a word")
    row("  for the story", f"{plain * n_words:.0f} s")

    cache = Path(tempfile.mkdtemp(prefix="enb-bench-"))
    for context_type, least in (("nocontext", 200), ("halfcontext", 100), ("strided", 100)):
        spec = ActivationSpec(str(folder), lookback=LOOKBACK, context_type=context_type, stride=STRIDE)
        started = time.perf_counter()
        layer_activations(words, spec, layer_idx=info.n_layers, memory=cache)
        took = time.perf_counter() - started
        times = plain * n_words / took
        approximate = ", approximate" if spec.approximate else ""
        row(f"{context_type}{approximate}, all layers, kept: {took:.1f} s", f"{times:.0f} times faster",
            f">= {least} (1,500 words)", times >= least)  # fmt: skip

    windows = context_windows(words, tokenizer, lookback=LOOKBACK, context_type="fullcontext")
    late = np.flatnonzero(windows.stop == LOOKBACK)[-sample * 4 :]
    some = type(windows)(tuple(windows.ids(w) for w in late), np.arange(len(late)),
                         windows.stop[late], "fullcontext")  # fmt: skip
    started = time.perf_counter()
    extract(model, some, range(info.n_layers + 1), bos=bos, last_token=True)
    full = (time.perf_counter() - started) / len(late)
    row(f"fullcontext, all layers, {len(late)} full windows: {full * 1000:.0f} ms a word",
        f"{plain / full:.2f} times faster", ">= 2", plain >= 2 * full)  # fmt: skip
    a, b = torch.randn(LOOKBACK + 1, info.d_model), torch.randn(info.d_model, 4 * info.d_model)
    rate = 2 * a.numel() * b.shape[1] / seconds(lambda: a @ b, 20)
    n_blocks = 12 * info.d_model**2 * info.n_layers
    floor = 2 * (LOOKBACK + 1) * n_blocks / rate
    row(
        f"  its floor at {rate / 1e9:.0f} GFLOPS, the blocks' products alone", f"{floor * 1000:.0f} ms a word"
    )
    return cache


def bench_cache(d_model: int = 768, n_words: int = 2000, n_layers: int = 13) -> None:
    print(f"\ncache: {n_words} words, {n_layers} layers of {d_model}")
    rng = np.random.default_rng(0)
    folder = Path(tempfile.mkdtemp(prefix="enb-cache-"))
    arrays = [rng.normal(0, 1 + layer, (n_words, d_model)).astype(np.float32) for layer in range(n_layers)]
    started = time.perf_counter()
    for layer, array in enumerate(arrays):
        write_array(folder, f"k{layer}", array, {"model": "bench"})
    row("writing the story", f"{time.perf_counter() - started:.2f} s")
    sizes = [entry_path(folder, f"k{layer}").stat().st_size for layer in range(n_layers)]
    row("entry / arrays", f"{sum(sizes) / sum(a.nbytes for a in arrays):.3f}", "< 1",
        sum(sizes) < sum(a.nbytes for a in arrays))  # fmt: skip
    row("bytes of one layer / bytes of the entry", f"{sizes[9] / sum(sizes):.4f}",
        f"<= {1.3 / n_layers:.4f}", sizes[9] <= 1.3 / n_layers * sum(sizes))  # fmt: skip
    took = seconds(lambda: read_array(folder, "k9"), 9)
    row("reading one layer", f"{took * 1000:.0f} ms", "< 60 ms", took < 0.06)
    write_array(folder, "half", arrays[0].astype(np.float16), {})
    half = entry_path(folder, "half").stat().st_size
    row("float16 storage / float32 arrays", f"{half / arrays[0].nbytes:.3f}")
    error = np.abs(arrays[0].astype(np.float16).astype(np.float32) - arrays[0]).max() / arrays[0].std()
    row("  largest rounding, in standard deviations", f"{error:.1e}")
    shutil.rmtree(folder)


def dense_lanczos(data, data_times, tr_times, window=3.0):
    """One row of weights after the other over all words, then one dense product."""
    cutoff = 1 / np.mean(np.diff(tr_times))
    weights = np.zeros((len(tr_times), len(data_times)))
    for i, tr in enumerate(tr_times):
        t = (tr - data_times) * cutoff
        with np.errstate(divide="ignore", invalid="ignore"):
            values = window * np.sin(np.pi * t) * np.sin(np.pi * t / window) / (np.pi**2 * t**2)
        values[t == 0] = 1
        values[np.abs(t) > window] = 0
        weights[i] = values
    return weights @ data


def bench_downsampling(repeats: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 768))
    times, trs = np.sort(rng.uniform(0, 800, 2000)), np.arange(400) * 2.0 + 1
    print("\nLanczos, 2,000 words x 768 to 400 TRs")
    dense = seconds(lambda: dense_lanczos(features, times, trs), repeats)
    sparse = seconds(lambda: downsample(features, times, trs), repeats)
    row(f"dense loop {dense * 1000:.0f} ms, sparse {sparse * 1000:.1f} ms", f"{dense / sparse:.1f} times faster",
        ">= 9", dense >= 9 * sparse)  # fmt: skip
    difference = np.abs(downsample(features, times, trs) - dense_lanczos(features, times, trs)).max()
    row("  largest difference", f"{difference:.1e}", "<= 1e-12", difference <= 1e-12)


def bench_golden() -> None:
    print("\nagreement with the golden cases (LITcoder), largest difference")
    stimuli, sampled = np.load(GOLDEN / "stimuli.npz"), np.load(GOLDEN / "downsampled.npz")
    delayed, cache = np.load(GOLDEN / "delayed.npz"), tempfile.mkdtemp(prefix="enb-golden-")
    for processing, golden in (("raw", "noproc"), ("litcoder", "default")):
        stored = np.load(GOLDEN / f"features_tiny-gpt2_{golden}_fullcontext_last.npz")
        worst = 0.0
        for story in STORIES:
            words = stimuli[f"{story}/words"].tolist()
            windows = stimuli[f"{story}/stimuli_fullcontext"].tolist()
            for layer in range(4):
                found = layer_activations(words, ActivationSpec(str(TINY), processing=processing),
                                          layer_idx=layer, memory=cache, contexts=windows)  # fmt: skip
                worst = max(worst, float(np.abs(found - stored[f"{story}/L{layer}"]).max()))
        row(f"features, {processing}", f"{worst:.1e}", "<= 1e-5", worst <= 1e-5)
    features = np.load(GOLDEN / "features_tiny-gpt2_default_fullcontext_last.npz")
    lanczos = max(
        float(np.abs(downsample(features[f"{s}/L2"].astype(float), stimuli[f"{s}/data_times"],
                                stimuli[f"{s}/tr_times"]) - sampled[f"{s}/lanczos_w3_c1"]).max())
        for s in STORIES
    )  # fmt: skip
    row("downsampling, lanczos", f"{lanczos:.1e}", "<= 1e-10", lanczos <= 1e-10)
    delays = max(float(np.abs(add_delays(sampled[f"{s}/rect"], [1, 2, 3, 4]) - delayed[f"{s}/rect"]).max())
                 for s in STORIES)  # fmt: skip
    row("delays", f"{delays:.1e}", "<= 1e-10", delays <= 1e-10)
    shutil.rmtree(cache)


def half_stored(plan, story, progress=None):
    """`pipeline.sample_story` with features that went through the cache in float16."""
    settings = plan.settings
    specs = {
        name: replace(spec, activation=replace(spec.activation, storage="float16"))
        for name, spec in settings.feature_specs.items()
    }
    options = {"window": settings.downsample_window, "cutoff_mult": settings.cutoff_mult}
    return joined_features(
        story,
        specs,
        downsample_options=options,
        memory=plan.memory,
        device=settings.device,
        progress=progress,
    )


def bench_storage() -> None:
    """The same fit of the demo twice: what is kept loses nothing, or is rounded to float16."""
    demo = load_assembly("demo")
    settings = Settings(context_type="halfcontext", significance="parametric")
    print(
        f"\nstorage: fits of the demo, layer {settings.layer_idx}, {settings.context_type}, {demo.n_voxels} voxels"
    )
    with tempfile.TemporaryDirectory(prefix="enb-storage-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lossless = run(demo, settings, memory=f"{folder}/lossless", progress=False)
        with patch.object(runs, "sample_story", half_stored):
            half = run(demo, settings, memory=f"{folder}/half", progress=False)
        sizes = [cache_info(f"{folder}/{name}").n_bytes for name in ("half", "lossless")]
    change = np.abs(half.scores - lossless.scores)
    row("float16 entries / lossless entries", f"{sizes[0] / sizes[1]:.2f}")
    row("largest |delta r| of a voxel", f"{np.nanmax(change):.1e}")
    same = half.best_alphas == lossless.best_alphas
    row("  among voxels that keep their alpha", f"{np.nanmax(change[same]):.1e}")
    row("  voxels that do not", f"{int((~same).sum())} of {len(same)}")
    row("  mean |delta r|, median r of the lossless fit",
        f"{np.nanmean(change):.1e}, {lossless.metrics['median_score']:.3f}")  # fmt: skip
    row(
        "voxels of which float16 changes the verdict",
        str(int((half.significant != lossless.significant).sum())),
    )


def bench_strided() -> None:
    """How alike strided windows' features are to the exact ones, dimension by dimension over a story's words."""
    demo = load_assembly("demo")
    story = demo.stories[demo.test_stories[0]]
    settings = Settings()
    print(f"\nstrided, approximate: {story.name}, {len(story.words)} words, lookback {settings.lookback}")
    with tempfile.TemporaryDirectory(prefix="enb-strided-") as folder:
        found = {}
        for context_type, stride in (("fullcontext", None), ("strided", 16), ("strided", 64)):
            spec = ActivationSpec(
                "demo", lookback=settings.lookback, context_type=context_type, stride=stride
            )
            found[stride] = layer_activations(
                story.words.text, spec, layer_idx=settings.layer_idx, memory=folder
            )
    exact = found.pop(None)
    for stride, approximate in found.items():
        alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(exact.T, approximate.T, strict=True)]
        row(
            f"stride {stride}: r with the exact features, median and least",
            f"{np.median(alike):.4f}, {min(alike):.4f}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a shorter story and fewer repeats")
    parser.add_argument(
        "--model", type=Path, help="a model folder, in place of random weights of GPT-2 small's shape"
    )
    parser.add_argument("--only", choices=["storage"], help="this part alone")
    given = parser.parse_args()
    sample = 3 if given.quick else 15
    row("", "measured", "wanted", None)
    if given.only == "storage":
        bench_storage()
        bench_strided()
        return
    # First: after a model was loaded, arrays lie in smaller pages and the sparse product is a fifth slower.
    bench_downsampling(3 if given.quick else 9)
    bench_golden()
    bench_cache()
    bench_storage()
    bench_strided()
    with tempfile.TemporaryDirectory(prefix="enb-model-") as temporary:
        folder = given.model or gpt2_small_shape(Path(temporary))
        cache = bench_extraction(folder, 600 if given.quick else N_WORDS, sample)
        info = cache_info(cache)
        row("cache of three context types", f"{info.n_entries} files, {info.n_bytes / 1e6:.0f} MB")
        shutil.rmtree(cache)


if __name__ == "__main__":
    main()
