"""Time, peak memory and agreement of `encoding_nb.ridge` beside scikit-learn and himalaya, in one run.

    python benchmarks/ridge.py                     # the three shapes of the project's goals (long)
    python benchmarks/ridge.py --quick             # a small shape, under a minute
    python benchmarks/ridge.py --lebel             # 8,673 x 3,072 x 95,556 with Y on disk: this solver alone
    python benchmarks/ridge.py --shape 3000 3072 10000 --threads 1

Every solver runs in a process of its own, so that peak memory is its own and no library warms another's
caches. The task is the same: contiguous folds, one alpha per voxel by mean held-out correlation, refit, and
correlations with a test set. The floor is the time of this solver's own float32 products at the machine's pace
while it ran: the mean rate of one large product, taken before, after and every ten seconds of the solver, which
then stands still (the pace of a shared machine can change threefold within a run). Solvers of a shape whose floor is
below two seconds run three times in turn, and the fastest time of each counts.

Each goal of the project is printed as met or missed, and the exit status is 1 where one is missed: speed and
memory against the better of himalaya's two solvers; agreement with a float64 brute force on some of the
voxels, and with LITcoder's stored runs; correlation with p-values; and with --lebel peak memory and the time
against the floor. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

SHAPES = [(1000, 1024, 10_000), (3000, 3072, 10_000), (9000, 3072, 20_000)]
QUICK = [(600, 400, 2_000), (400, 600, 2_000)]
LEBEL = (8673, 3072, 95_556)
# Times as fast as the better of himalaya's solvers; bytes; times the floor; seconds.
SPEED_GOALS = dict(zip(SHAPES, (3.0, 2.0, 3.5), strict=True))
LEBEL_BYTES, LEBEL_FLOORS = 8e9, 1.6
SHORT_SECONDS = 2.0
PVALUES_SECONDS = 0.5
# Rows and columns of the product that tells the machine's pace, and the seconds of a solver between two of them.
PACE_SIDE = 3000
PACE_EVERY = 10.0
EXACT = 1e-5
N_CHECKED = 200
OURS, PEERS = "encoding_nb", ("himalaya RidgeCV", "himalaya KernelRidgeCV")
GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
ALPHAS = np.logspace(1, 7, 10)
N_FOLDS, N_TEST = 5, 291


def make_data(shape: tuple[int, int, int], folder: Path) -> None:
    """X, Y and test rows as float32 .npy files: correlated columns, signal of falling strength."""
    n_rows, n_columns, n_voxels = shape
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((32, n_columns), dtype=np.float32)
    total = n_rows + N_TEST
    X = rng.standard_normal((total, 32), dtype=np.float32) @ mix / 4
    X += rng.standard_normal((total, n_columns), dtype=np.float32)
    X = (X - X.mean(0)) / X.std(0)
    np.save(folder / "X.npy", X[:n_rows])
    np.save(folder / "X_test.npy", X[n_rows:])
    opened = [
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(rows, n_voxels))
        for name, rows in (("Y", n_rows), ("Y_test", N_TEST))
    ]
    for start in range(0, n_voxels, 2000):
        part = slice(start, min(start + 2000, n_voxels))
        strength = np.linspace(2.0, 0.0, n_voxels, dtype=np.float32)[part]
        w = rng.standard_normal((n_columns, len(strength)), dtype=np.float32) * strength / np.sqrt(n_columns)
        Y = X @ w + rng.standard_normal((total, len(strength)), dtype=np.float32)
        opened[0][:, part], opened[1][:, part] = Y[:n_rows], Y[n_rows:]


def contiguous_folds(n_rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Contiguous folds as (train, test) row numbers."""
    parts = np.array_split(np.arange(n_rows), N_FOLDS)
    return [(np.setdiff1d(np.arange(n_rows), part), part) for part in parts]


def columns_correlation(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Correlation of matching columns."""
    A, B = A - A.mean(0), B - B.mean(0)
    return (A * B).sum(0) / np.sqrt((A**2).sum(0) * (B**2).sum(0))


def solve_ours(X, Y, X_test, Y_test):
    """This package."""
    from encoding_nb import ridge

    folds = [ridge.Fold(*fold) for fold in contiguous_folds(len(X))]
    result = ridge.ridge_cv(
        X, Y, X_test=X_test, Y_test=Y_test, alphas=ALPHAS, folds=folds, return_predictions=False
    )
    return result.best_alphas, result.correlations


def solve_sklearn(X, Y, X_test, Y_test):
    """scikit-learn's Ridge, one fit per fold and alpha: its RidgeCV cannot score by correlation per voxel."""
    from sklearn.linear_model import Ridge

    scores = np.zeros((len(ALPHAS), Y.shape[1]), np.float32)
    for train, test in contiguous_folds(len(X)):
        for j, alpha in enumerate(ALPHAS):
            model = Ridge(alpha=alpha, fit_intercept=False).fit(X[train], Y[train])
            scores[j] += columns_correlation(model.predict(X[test]), Y[test]) / N_FOLDS
    best = ALPHAS[scores.argmax(0)]
    model = Ridge(alpha=best, fit_intercept=False).fit(X, Y)
    return best, columns_correlation(model.predict(X_test), Y_test)


def _solve_himalaya(model, X, Y, X_test, Y_test):
    model.fit(X, Y)
    return model.best_alphas_, columns_correlation(model.predict(X_test), Y_test)


def solve_himalaya_ridge(X, Y, X_test, Y_test):
    """himalaya RidgeCV."""
    from himalaya.ridge import RidgeCV
    from himalaya.scoring import correlation_score

    model = RidgeCV(
        alphas=ALPHAS,
        cv=contiguous_folds(len(X)),
        solver_params={"score_func": correlation_score, "warn": False},
    )
    return _solve_himalaya(model, X, Y, X_test, Y_test)


def solve_himalaya_kernel(X, Y, X_test, Y_test):
    """himalaya KernelRidgeCV with a linear kernel."""
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.scoring import correlation_score

    model = KernelRidgeCV(
        alphas=ALPHAS,
        cv=contiguous_folds(len(X)),
        solver_params={"score_func": correlation_score},
        warn=False,
    )
    return _solve_himalaya(model, X, Y, X_test, Y_test)


def float64_weights(X, Y):
    """For each alpha, ridge weights by Cholesky in float64 from the smaller of the two Gram matrices."""
    from scipy.linalg import solve

    X, Y = X.astype(float), Y.astype(float)
    dual = len(X) <= X.shape[1]
    gram, target = (X @ X.T, Y) if dual else (X.T @ X, X.T @ Y)
    for alpha in ALPHAS:
        found = solve(gram + alpha * np.eye(len(gram)), target, assume_a="pos")
        yield X.T @ found if dual else found


def float64_scores(X, Y, X_test, Y_test):
    """Mean held-out correlation (n_alphas, n_voxels), and the test correlation of a refit with each alpha."""
    cv = np.zeros((len(ALPHAS), Y.shape[1]))
    for train, test in contiguous_folds(len(X)):
        for j, weights in enumerate(float64_weights(X[train], Y[train])):
            cv[j] += columns_correlation(X[test] @ weights, Y[test].astype(float)) / N_FOLDS
    refits = [columns_correlation(X_test @ w, Y_test.astype(float)) for w in float64_weights(X, Y)]
    return cv, np.stack(refits)


def checked_voxels(n_voxels: int) -> np.ndarray:
    """Numbers of the voxels that the brute force fits."""
    return np.unique(np.linspace(0, n_voxels - 1, min(n_voxels, N_CHECKED)).astype(int))


SOLVERS = {
    OURS: solve_ours,
    "himalaya RidgeCV": solve_himalaya_ridge,
    "himalaya KernelRidgeCV": solve_himalaya_kernel,
    "scikit-learn Ridge": solve_sklearn,
}


def import_solver(name: str) -> None:
    """Import a solver's library, so that the time of the import is not counted."""
    tiny = np.random.default_rng(0).standard_normal((4, 30, 3))
    SOLVERS[name](*tiny)


# --- what must hold -------------------------------------------------------------------------------------


class Verdicts:
    """Prints each goal as met or missed, and remembers."""

    def __init__(self) -> None:
        self.met: list[bool] = []

    def add(self, met: bool, sentence: str) -> None:
        """One goal."""
        self.met.append(bool(met))
        print(f"  {'met   ' if met else 'MISSED'} {sentence}", flush=True)


def judge_peers(figures: dict[str, dict], goal: float | None, verdicts: Verdicts) -> None:
    """Speed and memory of this solver against the better of himalaya's in each."""
    peers = [figures[name] for name in PEERS if name in figures]
    if OURS not in figures or not peers:
        print("  not judged against himalaya: this solver or both of its solvers did not run")
        return
    ours, wall, peak = figures[OURS], min(p["wall"] for p in peers), min(p["peak"] for p in peers)
    ratio = wall / ours["wall"]
    if goal is None:
        print(f"  {ratio:.2f} times as fast as the better of himalaya's; no goal for this shape")
    else:
        verdicts.add(
            ratio >= goal, f"{ratio:.2f} times as fast as the better of himalaya's; goal {goal:g} or more"
        )
    verdicts.add(
        ours["peak"] <= peak,
        f"peak memory {ours['peak'] / 1e6:.0f} MB; goal no more than the {peak / 1e6:.0f} MB of the thriftier",
    )


def judge_exactness(folder: Path, verdicts: Verdicts) -> None:
    """This solver against the float64 brute force, on some of the voxels."""
    X, Y, X_test, Y_test = (
        np.load(folder / f"{k}.npy", mmap_mode="r") for k in ("X", "Y", "X_test", "Y_test")
    )
    voxels = checked_voxels(Y.shape[1])
    Y, Y_test = np.asarray(Y[:, voxels]), np.asarray(Y_test[:, voxels])
    cv, refit = float64_scores(np.asarray(X), Y, np.asarray(X_test), Y_test)
    found = np.load(folder / f"{OURS}.npz")
    chosen = np.abs(np.log(found["best"][voxels] / ALPHAS[:, None])).argmin(axis=0)
    each = np.arange(len(voxels))
    lost = (cv.max(axis=0) - cv[chosen, each]).max()
    same = (chosen == cv.argmax(axis=0)).sum()
    verdicts.add(
        lost <= 1e-6,
        f"alphas of {same} of {len(voxels)} voxels equal the float64 brute force's, others tie to {max(lost, 0):.0e}; "
        "goal all, or ties to 1e-6",
    )
    off = np.abs(found["r"][voxels] - refit[chosen, each]).max()
    verdicts.add(off <= EXACT, f"correlations equal the float64 brute force's to {off:.0e}; goal {EXACT:.0e}")


def judge_golden(verdicts: Verdicts) -> None:
    """This solver on the arrays and folds of LITcoder's stored runs."""
    from encoding_nb import ridge, scoring

    print("\nLITcoder's stored runs")
    for tag in ("tt_default_rect", "tt_default_lanczos"):
        run = np.load(GOLDEN / f"run_{tag}.npz")
        result = ridge.ridge_cv(
            run["X_train"],
            run["Y_train"],
            X_test=run["X_test"],
            Y_test=run["Y_test"],
            alphas=ridge.huth_alphas(np.logspace(-1, 8, 10)),
            folds=[ridge.Fold(run[f"folds/0/{i}/train"], run[f"folds/0/{i}/test"]) for i in range(5)],
            normalpha=True,
            prediction_floor=1e-8,
            return_weights=True,
        )
        scored = np.isfinite(result.correlations)
        alphas = np.isclose(np.sqrt(result.best_alphas), run["best_alphas"], rtol=1e-6)[scored]
        pvalues = scoring.correlation_pvalues(result.correlations, len(run["X_test"]))
        pairs = {"r": (result.correlations, run["correlations"]), "p": (pvalues, run["p_values"])}
        if "weights" in run:
            pairs["weights"] = (result.weights.T, run["weights"].T)
        off = {name: np.abs(ours - theirs)[scored].max() for name, (ours, theirs) in pairs.items()}
        verdicts.add(
            alphas.all() and max(off.values()) <= EXACT,
            f"{tag}: {alphas.sum()} of {scored.sum()} alphas equal, "
            + ", ".join(f"{name} to {value:.0e}" for name, value in off.items())
            + f"; goal all, {EXACT:.0e}",
        )


def judge_pvalues(verdicts: Verdicts) -> None:
    """Seconds for correlations with p-values of a whole cortex."""
    from encoding_nb import scoring

    print(f"\ncorrelation and p-values, {N_TEST} rows x {LEBEL[2]:,} voxels")
    rng = np.random.default_rng(0)
    Y, Y_hat = (rng.standard_normal((N_TEST, LEBEL[2]), dtype=np.float32) for _ in range(2))
    times = []
    for _ in range(4):
        started = time.perf_counter()
        scoring.correlation_pvalues(scoring.correlation(Y, Y_hat), N_TEST)
        times.append(time.perf_counter() - started)
    best = min(times[1:])
    verdicts.add(best <= PVALUES_SECONDS, f"{best:.2f} s, best of three; goal {PVALUES_SECONDS} s or less")


class PeakMemory:
    """Largest private memory of this process while it is watched; pages of mapped files are not counted."""

    def __enter__(self) -> PeakMemory:
        import threading

        self.stop, self.peak, process = threading.Event(), 0, psutil.Process()

        def watch() -> None:
            while not self.stop.wait(0.02):
                memory = process.memory_info()
                self.peak = max(self.peak, memory.rss - memory.shared)

        self.thread = threading.Thread(target=watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def child(name: str, folder: Path, on_disk: bool) -> None:
    """Run one solver on the data in `folder`; leave its results there and print its figures as JSON."""
    import_solver(name)
    mode = "r" if on_disk else None
    data = [np.load(folder / f"{key}.npy", mmap_mode=mode) for key in ("X", "Y", "X_test", "Y_test")]
    with PeakMemory() as memory:
        started, cpu = time.perf_counter(), time.process_time()
        best, correlations = SOLVERS[name](*data)
        ended, cpu = time.perf_counter(), time.process_time() - cpu
    np.savez(folder / f"{name}.npz", best=np.asarray(best), r=np.asarray(correlations))
    print(json.dumps({"started": started, "ended": ended, "cpu": cpu, "peak": memory.peak}))


def limited(threads: int) -> dict[str, str]:
    """Environment of a process whose linear algebra takes this many threads."""
    return {**os.environ, **{f"{x}_NUM_THREADS": str(threads) for x in ("OPENBLAS", "OMP", "MKL")}}


def run_child(name: str, folder: Path, threads: int, on_disk: bool, pace: Pace) -> dict | None:
    """Figures of one solver, or None when it cannot run here.

    The solver stands still while the machine's pace is taken, and that time is not counted as its own.
    """
    environment = limited(threads)
    root = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
    rates, pauses = [pace.rate()], []
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaint:
        running = psutil.Popen(
            command + ["--on-disk"] * on_disk, env=environment, stdout=said, stderr=complaint
        )
        try:
            while True:
                try:
                    running.wait(PACE_EVERY)
                    break
                except psutil.TimeoutExpired:
                    paused = time.perf_counter()
                    running.suspend()
                    rates.append(pace.rate())
                    running.resume()
                    pauses.append((paused, time.perf_counter()))
        except BaseException:  # such as Ctrl-C: a solver that stands still would stay, with all its memory
            running.kill()
            raise
        rates.append(pace.rate())
        said.seek(0)
        complaint.seek(0)
        if running.returncode:
            print(
                f"{name:24s} did not run: {(complaint.read().strip().splitlines() or ['killed'])[-1][:120]}"
            )
            return None
        found = json.loads(said.read().strip().splitlines()[-1])
    # One clock for all processes: perf_counter counts from the machine's start.
    started, ended = found["started"], found["ended"]
    stood_still = sum(max(0.0, min(ended, resumed) - max(started, paused)) for paused, resumed in pauses)
    return {**found, "wall": ended - started - stood_still, "rates": rates}


class Pace:
    """The rate of one large float32 product at the moment, in a process of its own."""

    def __init__(self, threads: int) -> None:
        code = (
            "import numpy as np, sys, time\n"
            f"a = np.random.default_rng(0).standard_normal(({PACE_SIDE}, {PACE_SIDE}), dtype=np.float32)\n"
            "out = np.empty_like(a)\n"
            "for line in sys.stdin:\n"
            "    t = []\n"
            "    for _ in range(4):\n"
            "        s = time.perf_counter(); np.matmul(a, a, out=out); t.append(time.perf_counter() - s)\n"
            "    print(min(t[1:]), flush=True)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=limited(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def rate(self) -> float:
        """Operations per second of the fastest of three products."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return 2 * PACE_SIDE**3 / float(self.process.stdout.readline())


def product_work(shape: tuple[int, int, int]) -> float:
    """Operations of the float32 products with Y that the scheme cannot do without."""
    n_rows, n_columns, n_voxels = shape
    n_train = n_rows * (N_FOLDS - 1) // N_FOLDS
    if n_train <= n_columns:
        return 2.0 * n_voxels * (len(ALPHAS) * n_rows * n_train + N_TEST * n_rows)
    # Projection of every row once, all alphas, and the test rows.
    return 2.0 * n_voxels * n_columns * (n_rows + len(ALPHAS) * n_rows + N_TEST)


def compare(
    shape: tuple[int, int, int],
    names: list[str],
    threads: int,
    on_disk: bool,
    folder: Path,
    verdicts: Verdicts,
) -> None:
    """Run the solvers on one shape; print a table, and what it says of the goals."""
    print(
        f"\n{shape[0]:,} rows x {shape[1]:,} columns x {shape[2]:,} voxels, "
        f"{N_FOLDS} folds, {len(ALPHAS)} alphas, {threads} threads"
    )
    make_data(shape, folder)
    print(f"{'':24s} {'wall s':>8s} {'cpu s':>8s} {'peak MB':>8s} {'times ours':>10s}  agreement with ours")
    # What takes seconds is taken three times, the solvers in turn, and the fastest counts: one hiccup of the
    # machine would be a third of it.
    taken: dict[str, list[dict]] = {name: [] for name in names}
    with Pace(threads) as pace:
        rounds = 3 if product_work(shape) / pace.rate() < SHORT_SECONDS else 1
        for _ in range(rounds):
            for name in names:
                if found := run_child(name, folder, threads, on_disk, pace):
                    taken[name].append(found)
    figures = {name: fastest(found) for name, found in taken.items() if found}
    first = next(iter(figures), None)
    for name, found in figures.items():
        ratio = found["wall"] / figures[first]["wall"]
        print(
            f"{name:24s} {found['wall']:8.2f} {found['cpu']:8.2f} {found['peak'] / 1e6:8.0f} "
            f"{ratio:10.2f}  {agreement(folder, name, first)}",
            flush=True,
        )
    if OURS in figures:
        # The mean of the rates, not of the times: times this solver's seconds it is what the machine could have done.
        rates = np.array(figures[OURS]["rates"])
        floor = product_work(shape) / rates.mean()
        least, mean, most = (f"{rate / 1e9:.0f}" for rate in (rates.min(), rates.mean(), rates.max()))
        print(
            f"floor of the products: {floor:.2f} s at {mean} GFLOPS, the mean of {len(rates)} from {least} to {most}"
        )
        floors = figures[OURS]["wall"] / floor
        if shape == LEBEL:
            peak = figures[OURS]["peak"]
            verdicts.add(floors <= LEBEL_FLOORS, f"{floors:.2f} times the floor; goal {LEBEL_FLOORS} or less")
            verdicts.add(
                peak <= LEBEL_BYTES, f"peak memory {peak / 1e9:.2f} GB; goal {LEBEL_BYTES / 1e9:g} GB or less"
            )
        else:
            print(f"  {floors:.2f} times the floor")
        judge_exactness(folder, verdicts)
    if len(names) > 1:
        judge_peers(figures, SPEED_GOALS.get(shape), verdicts)


def fastest(found: list[dict]) -> dict:
    """The figures of the fastest run, with the largest of the peaks."""
    return {**min(found, key=lambda one: one["wall"]), "peak": max(one["peak"] for one in found)}


def agreement(folder: Path, name: str, first: str) -> str:
    """How a solver's alphas and correlations differ from those of the first."""
    if name == first:
        return ""
    found, reference = (np.load(folder / f"{n}.npz") for n in (name, first))
    same = np.isclose(found["best"], reference["best"], rtol=1e-3)
    off = np.abs(found["r"] - reference["r"])[same].max() if same.any() else np.nan
    return f"same alpha {100 * same.mean():.2f}%, there |r - r| up to {off:.0e}"


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two small shapes")
    parser.add_argument("--lebel", action="store_true", help="a whole LeBel subject's shape, Y on disk")
    parser.add_argument("--shape", nargs=3, type=int, action="append", metavar=("ROWS", "COLUMNS", "VOXELS"))
    parser.add_argument("--solver", action="append", choices=list(SOLVERS), help="only these (repeatable)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, help="where the made data goes (default: a temporary folder)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--on-disk", action="store_true", help="leave Y in its file")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.folder, options.on_disk)
        return
    shapes = [tuple(shape) for shape in options.shape or []] or (
        [LEBEL] if options.lebel else QUICK if options.quick else SHAPES
    )
    names = options.solver or ([OURS] if options.lebel else list(SOLVERS))
    verdicts = Verdicts()
    for shape in shapes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            on_disk = options.on_disk or options.lebel
            compare(shape, names, options.threads, on_disk, Path(folder), verdicts)
    judge_golden(verdicts)
    judge_pvalues(verdicts)
    print(f"\n{sum(verdicts.met)} of {len(verdicts.met)} goals met")
    sys.exit(not all(verdicts.met))


if __name__ == "__main__":
    main()
