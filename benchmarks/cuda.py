"""What a CUDA GPU changes: speed, and how near its numbers stay to the CPU's. For a machine that has one.

    python benchmarks/cuda.py [--only features|ridge|plan] [--shape ROWS COLUMNS VOXELS]

Features are extracted at GPT-2 small's shape (random weights) in float32 on both and in half precision on the GPU.
Ridge runs the shapes of `benchmarks/ridge.py` and a whole LeBel subject's on both, and himalaya on the GPU beside
them. `--only plan` measures what docs/scaling.md reckons with: extraction at GPT-2 XL's shape, and one fit of 84
stories. Every time is of a second run: the first warms the libraries. The exit status is 1 where a float32 number of
the GPU is further from the CPU's than the goals of the CPU allow.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import features as feature_benchmark
import ridge as ridge_benchmark

EXACT = 1e-5
N_WORDS, LOOKBACK = 600, 256
met: list[bool] = []


def second(run):
    """What `run` gives, and the seconds of its second call."""
    import torch

    run()
    torch.cuda.synchronize()
    started = time.perf_counter()
    found = run()
    torch.cuda.synchronize()
    return found, time.perf_counter() - started


def judge(is_so: bool, sentence: str) -> None:
    met.append(bool(is_so))
    print(f"  {'met   ' if is_so else 'MISSED'} {sentence}", flush=True)


def bench_golden() -> None:
    """LITcoder's features through the GPU."""
    from encoding_nb.features import ActivationSpec, layer_activations

    golden, tiny = feature_benchmark.GOLDEN, feature_benchmark.TINY
    stimuli, worst = np.load(golden / "stimuli.npz"), 0.0
    for processing, name in (("raw", "noproc"), ("litcoder", "default")):
        stored = np.load(golden / f"features_tiny-gpt2_{name}_fullcontext_last.npz")
        for story in feature_benchmark.STORIES:
            with tempfile.TemporaryDirectory() as cache:
                for layer in range(4):
                    found = layer_activations(
                        stimuli[f"{story}/words"].tolist(),
                        ActivationSpec(str(tiny), processing=processing),
                        layer_idx=layer,
                        memory=cache,
                        contexts=stimuli[f"{story}/stimuli_fullcontext"].tolist(),
                        device="cuda",
                    )
                    worst = max(worst, float(np.abs(found - stored[f"{story}/L{layer}"]).max()))
    judge(worst <= EXACT, f"LITcoder's features to {worst:.0e}; goal {EXACT:.0e}")


def bench_features() -> None:
    from encoding_nb.features import context_windows, model_info
    from encoding_nb.features.language_model import extract, load_model
    from encoding_nb.features.models import first_token, load_tokenizer

    words = feature_benchmark.story_words(N_WORDS)
    print(f"\nGPT-2 small's shape, {N_WORDS} words, lookback {LOOKBACK}, all layers")
    with tempfile.TemporaryDirectory() as temporary:
        folder = feature_benchmark.gpt2_small_shape(Path(temporary))
        info, tokenizer = model_info(str(folder)), load_tokenizer(folder)
        for context_type in ("fullcontext", "halfcontext", "nocontext"):
            windows = context_windows(words, tokenizer, lookback=LOOKBACK, context_type=context_type)
            exact = None
            for device, dtype in (
                ("cpu", "float32"),
                *(("cuda", d) for d in ("float32", "float16", "bfloat16")),
            ):
                model = load_model(info, dtype=dtype, device=device)

                def run(model=model, windows=windows):
                    return extract(
                        model,
                        windows,
                        range(info.n_layers + 1),
                        bos=first_token(tokenizer),
                        last_token=True,
                    )

                if device == "cpu":
                    started = time.perf_counter()
                    found, took = run(), time.perf_counter() - started
                    exact = found
                else:
                    found, took = second(run)
                off = max(np.abs(found[i] - exact[i]).max() / exact[i].std() for i in found)
                print(f"{context_type:<12} {device:<5} {dtype:<9} {took:8.3f} s {N_WORDS / took:9.0f} words/s"
                      f"   largest difference {off:.0e} standard deviations", flush=True)  # fmt: skip
                if (device, dtype) == ("cuda", "float32"):
                    judge(off <= 1e-4, f"{context_type}: float32 to {off:.0e} standard deviations; goal 1e-4")


def himalaya_on_gpu(X, Y, X_test, Y_test):
    """The better of himalaya's two, on the GPU."""
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.ridge import RidgeCV
    from himalaya.scoring import correlation_score

    backend = set_backend("torch_cuda")
    options = {"alphas": ridge_benchmark.ALPHAS, "cv": ridge_benchmark.contiguous_folds(len(X))}
    solver = {"score_func": correlation_score}
    if len(X) > X.shape[1]:
        model = RidgeCV(**options, solver_params={**solver, "warn": False})
    else:
        model = KernelRidgeCV(**options, solver_params=solver, warn=False)
    X, Y, X_test, Y_test = (backend.asarray(a, dtype="float32") for a in (X, Y, X_test, Y_test))
    model.fit(X, Y)
    return backend.to_numpy(model.best_alphas_), backend.to_numpy(
        correlation_score(Y_test, model.predict(X_test))
    )


def bench_ridge(shape: tuple[int, int, int]) -> None:
    import torch

    from encoding_nb import ridge

    print("\n{:,} rows x {:,} columns x {:,} voxels, 5 folds, 10 alphas".format(*shape))
    with tempfile.TemporaryDirectory() as folder:
        ridge_benchmark.make_data(shape, Path(folder))
        X, Y, X_test, Y_test = (np.load(f"{folder}/{name}.npy") for name in ("X", "Y", "X_test", "Y_test"))
    folds = [ridge.Fold(*fold) for fold in ridge_benchmark.contiguous_folds(len(X))]

    def ours(device):
        found = ridge.ridge_cv(
            X, Y, X_test=X_test, Y_test=Y_test, alphas=ridge_benchmark.ALPHAS, folds=folds,
            return_predictions=False, device=device,
        )  # fmt: skip
        return found.best_alphas, found.correlations

    started = time.perf_counter()
    exact = ours("cpu")
    print(f"{'CPU':<22} {time.perf_counter() - started:8.2f} s (one run)", flush=True)
    for name, run in (
        ("CUDA", lambda: ours("cuda")),
        ("himalaya on CUDA", lambda: himalaya_on_gpu(X, Y, X_test, Y_test)),
    ):
        torch.cuda.reset_peak_memory_stats()
        try:
            (alphas, r), took = second(run)
        except torch.cuda.OutOfMemoryError as error:
            print(f"{name:<22} out of the GPU's memory: {str(error)[:80]}")
            continue
        same = np.isclose(alphas, exact[0], rtol=1e-3)
        off = np.abs(r - exact[1])[same].max()
        peak = torch.cuda.max_memory_allocated() / 1e9
        print(f"{name:<22} {took:8.2f} s, {peak:.1f} GB of the GPU's memory, same alpha {100 * same.mean():.2f}%, "
              f"there |r - r| up to {off:.0e}", flush=True)  # fmt: skip
        if name == "CUDA":
            judge(same.mean() >= 0.999 and off <= EXACT, f"alphas of 99.9 % and correlations to {EXACT:.0e}")
        torch.cuda.empty_cache()


def bench_plan(n_windows: int = 256, shape: tuple[int, int, int] = (28_800, 6_400, 95_556)) -> None:
    """One word's cost at GPT-2 XL's shape, and one fit of all stories with seven alphas, on the GPU."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from encoding_nb import ridge
    from encoding_nb.features import model_info
    from encoding_nb.features.language_model import extract, load_model
    from encoding_nb.features.tokens import TokenWindows

    with tempfile.TemporaryDirectory() as temporary:
        folder = feature_benchmark.gpt2_small_shape(Path(temporary))
        config = GPT2Config(n_embd=1600, n_layer=48, n_head=25)
        GPT2LMHeadModel(config).save_pretrained(folder)
        info, rng = model_info(str(folder)), np.random.default_rng(0)
        segments = tuple(rng.integers(0, 1000, LOOKBACK, dtype=np.int32) for _ in range(n_windows))
        windows = TokenWindows(segments, np.arange(n_windows), np.full(n_windows, LOOKBACK), "fullcontext")
        for dtype in ("float32", "float16", "bfloat16"):
            model = load_model(info, dtype=dtype, device="cuda")

            def run(model=model):
                return extract(model, windows, range(info.n_layers + 1), bos=0, last_token=True)

            _, took = second(run)
            print(
                f"GPT-2 XL's shape, {LOOKBACK + 1} tokens a word, {dtype:<9} {n_windows / took:8.1f} words/s",
                flush=True,
            )
    X, Y = (np.empty((shape[0], n), np.float32) for n in shape[1:])
    for array in (X, Y):
        for start in range(0, len(array), 1000):
            rng.standard_normal(dtype=np.float32, out=array[start : start + 1000])
    Y += 0.5 * X[:, rng.integers(0, X.shape[1], shape[2])]
    folds = ridge.make_folds(len(X), folding_type="chunked", n_folds=5, chunk_length=20)
    for name in ("first", "second"):
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        ridge.ridge_cv(
            X, Y, alphas=np.logspace(2, 6, 7), folds=folds, X_test=X[:251], Y_test=Y[:251], device="cuda"
        )
        torch.cuda.synchronize()
        took, peak = time.perf_counter() - started, torch.cuda.max_memory_allocated() / 1e9
        print(
            "{:,} x {:,} x {:,}, 7 alphas, 5 folds, {} fit: {:.1f} s, {:.1f} GB of the GPU's memory".format(
                *shape, name, took, peak
            ),
            flush=True,
        )


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["features", "ridge", "plan"])
    parser.add_argument("--shape", nargs=3, type=int, action="append", metavar=("ROWS", "COLUMNS", "VOXELS"))
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device here.")
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads on the CPU"
    )
    if given.only == "plan":
        bench_plan()
        return
    if given.only != "ridge":
        bench_golden()
        bench_features()
    if given.only != "features":
        for shape in given.shape or [*ridge_benchmark.SHAPES, ridge_benchmark.LEBEL]:
            bench_ridge(tuple(shape))
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
