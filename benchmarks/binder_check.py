"""Follow binder/ step by step, as repo2docker would, in a fresh environment, and say what it takes.

    python benchmarks/binder_check.py                 # `make binder-check`
    python benchmarks/binder_check.py --notebooks 02 03 --keep /tmp/binder

A virtual environment, a HOME and a copy of the working tree, all new; `pip install -r binder/requirements.txt`; an
idle JupyterLab server, as Binder has one; `binder/postBuild`; then notebooks 01 to 05, each in a kernel of its own.
Memory is that of the server, the kernel and what runs the notebook, all together: the sum of each process's
resident high-water mark as Linux keeps it, so no short peak is missed and shared pages count twice. What
passes the limit is ended, as Binder would. Needs Linux and a Python of the version in runtime.txt; nothing else of
this project.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent
LIMIT_BYTES = 1_500_000_000
NOTEBOOKS = ("01", "02", "03", "04", "05")
LONGEST_STEP = 3600  # seconds
RUN_NOTEBOOK = """
import sys, nbformat
from nbclient import NotebookClient
path = sys.argv[1]
NotebookClient(nbformat.read(path, as_version=4), timeout=900, kernel_name="python3").execute()
"""


@dataclass(frozen=True)
class Step:
    """What a step took: seconds, CPU seconds of what has ended, and the highest sum of high-water marks."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    problem: str = ""


def status_of(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status; empty where the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split(":", 1) for line in lines if ":" in line)


def tree(root: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = status_of(int(entry.name)).get("PPid", "0")
            parents.setdefault(int(parent), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        found.append(queue.pop())
        queue += parents.get(found[-1], [])
    return found


def high_water(pid: int) -> int:
    """Highest number of resident bytes that a process has had; 0 where it is gone."""
    return 1024 * int(status_of(pid).get("VmHWM", "0 kB").split()[0])


def run_step(
    name: str,
    command: list[str],
    *,
    env: dict[str, str],
    cwd: Path,
    log: Path,
    limit: int | None,
    beside: tuple = (),
) -> Step:
    """Run a command to its end, watching it and the processes `beside` it."""
    started, before, peak, problem = time.monotonic(), os.times(), 0, ""
    with log.open("ab") as out:
        out.write(f"\n===== {name}: {' '.join(command)[:300]}\n".encode())
        out.flush()
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=out, stderr=out, start_new_session=True)
        while process.poll() is None:
            peak = max(peak, sum(high_water(p) for top in (process.pid, *beside) for p in tree(top)))
            if limit is not None and peak > limit:
                problem = f"more than {limit / 1e9:.2f} GB"
            elif time.monotonic() - started > LONGEST_STEP:
                problem = f"more than {LONGEST_STEP} s"
            if problem:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            time.sleep(0.1)
    if process.returncode and not problem:
        problem = f"exit status {process.returncode}"
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Step(name, time.monotonic() - started, cpu, peak, problem)


def fresh_environment(where: Path) -> dict[str, str]:
    """Variables of a new user: own HOME and caches, nothing of Python's or Jupyter's from outside."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k in ("PATH", "LANG", "LC_ALL", "TZ") or k.startswith(("PIP_", "SSL_"))
    }
    kept |= {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
    home, bin_folder = where / "home", where / "venv" / "bin"
    home.mkdir(parents=True)
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PATH": f"{bin_folder}:{kept.get('PATH', '')}",
        "VIRTUAL_ENV": str(where / "venv"),
    }


def copy_tree(where: Path) -> Path:
    """The files that a clone would have, with those not yet committed; ignored ones stay behind."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    repo = where / "repo"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (repo / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, repo / name)
    return repo


def reachable(url: str) -> bool:
    """Whether an index of packages answers."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=10):
            return True
    except (URLError, OSError):
        return False


def leave_out_silent_indexes(requirements: Path) -> list[str]:
    """Comment out indexes that do not answer, since pip asks each for every package; returns them."""
    lines, silent = requirements.read_text().splitlines(), []
    for i, line in enumerate(lines):
        if line.startswith("--extra-index-url") and not reachable(line.split()[1]):
            silent.append(line.split()[1])
            lines[i] = f"# {line}"
    requirements.write_text("\n".join(lines) + "\n")
    return silent


def python_of(runtime: Path) -> str:
    """The interpreter that runtime.txt asks for."""
    wanted = runtime.read_text().strip().removeprefix("python-")
    if sys.version_info[:2] == tuple(int(part) for part in wanted.split(".")[:2]):
        return sys.executable
    found = shutil.which(f"python{wanted}")
    if found is None:
        raise SystemExit(
            f"runtime.txt asks for Python {wanted}, which is not here; install it, or run this with it."
        )
    return found


def start_server(env: dict[str, str], repo: Path, log: Path) -> subprocess.Popen:
    """An idle JupyterLab, as Binder runs one beside the kernel."""
    command = [
        str(Path(env["VIRTUAL_ENV"]) / "bin" / "python"),
        "-m",
        "jupyterlab",
        "--no-browser",
        "--port=0",
    ]
    command += [
        "--ip=127.0.0.1",
        "--IdentityProvider.token=check",
        *(["--allow-root"] if os.geteuid() == 0 else []),
    ]
    with log.open("ab") as out:
        server = subprocess.Popen(command, cwd=repo, env=env, stdout=out, stderr=out, start_new_session=True)
    time.sleep(10)
    if server.poll() is not None:
        raise SystemExit(f"JupyterLab ended at once; see {log}.")
    return server


def check(where: Path, notebooks: list[str], limit: int) -> list[Step]:
    """All steps, up to the first that fails."""
    env, repo, log = fresh_environment(where), copy_tree(where), where / "log.txt"
    binder = repo / "binder"
    for package in (binder / "apt.txt").read_text().split():
        print(f"apt.txt: {package} is {'here' if shutil.which('cc') else 'missing (no C compiler)'}")
    for url in leave_out_silent_indexes(binder / "requirements.txt"):
        print(
            f"requirements.txt: {url} does not answer and is left out; torch comes from where pip looks by itself"
        )
    python = str(where / "venv" / "bin" / "python")
    common = {"env": env, "cwd": repo, "log": log}
    install = [python, "-m", "pip", "install", "--no-cache-dir", "-r", str(binder / "requirements.txt")]
    steps = [("environment", [python_of(binder / "runtime.txt"), "-m", "venv", str(where / "venv")], None)]
    steps += [("install", install, None), ("postBuild", [str(binder / "postBuild")], None)]
    done: list[Step] = []
    for name, command, most in steps:
        done.append(report(run_step(name, command, limit=most, **common)))
        if done[-1].problem:
            return done
    server = start_server(env, repo, log)
    try:
        for path in sorted(p for p in (repo / "notebooks").glob("*.ipynb") if p.name[:2] in notebooks):
            command, where_run = [python, "-c", RUN_NOTEBOOK, path.name], {**common, "cwd": path.parent}
            done.append(report(run_step(path.stem, command, limit=limit, beside=(server.pid,), **where_run)))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
    return done


def report(step: Step) -> Step:
    memory = f"{step.peak_bytes / 1e9:5.2f} GB" if step.peak_bytes else ""
    print(
        f"{step.name:32}{step.seconds:7.0f} s{step.cpu_seconds:7.0f} CPU s  {memory}  {step.problem}",
        flush=True,
    )
    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--notebooks", nargs="+", default=list(NOTEBOOKS), help="their numbers")
    parser.add_argument("--limit", type=float, default=LIMIT_BYTES / 1e9, help="GB of memory for a notebook")
    parser.add_argument("--keep", help="work in this new folder and leave it there")
    arguments = parser.parse_args()
    if not Path("/proc/self/status").exists():
        raise SystemExit("This check reads memory from /proc, so it needs Linux.")
    where = Path(arguments.keep or tempfile.mkdtemp(prefix="binder-check-")).absolute()
    try:
        done = check(where, arguments.notebooks, int(arguments.limit * 1e9))
        failed = [step for step in done if step.problem]
        if failed:
            print("".join((where / "log.txt").read_text(errors="replace")[-4000:]))
            raise SystemExit(f"binder-check failed: {', '.join(f'{s.name} ({s.problem})' for s in failed)}.")
        ran = done[3:]
        peak = max(step.peak_bytes for step in ran)
        print(
            f"binder-check passed: install {done[1].seconds:.0f} s, postBuild {done[2].seconds:.0f} s, {len(ran)} "
            f"notebooks {sum(step.seconds for step in ran):.0f} s, peak {peak / 1e9:.2f} GB of {arguments.limit:g} GB."
        )
    finally:
        if not arguments.keep:
            shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main()
