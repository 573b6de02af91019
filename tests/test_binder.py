"""What Binder builds from, and the check that follows it. The check itself takes minutes: `make binder-check`."""

import ast
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BINDER = ROOT / "binder"


@pytest.fixture(scope="module")
def checker():
    spec = spec_from_file_location("binder_check", ROOT / "benchmarks" / "binder_check.py")
    module = module_from_spec(spec)
    sys.modules["binder_check"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_python_is_one_that_the_package_takes():
    wanted = tuple(
        int(n) for n in (BINDER / "runtime.txt").read_text().strip().removeprefix("python-").split(".")
    )
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted >= tuple(int(n) for n in least.removeprefix(">=").split("."))


def test_requirements_name_what_is_there():
    lines = [
        line for line in (BINDER / "requirements.txt").read_text().splitlines() if line and line[0] != "#"
    ]
    assert "." in lines, "the package itself, from the repository's root"
    constraints = [line.split()[1] for line in lines if line.startswith("-c ")]
    assert constraints and all((BINDER / name).is_file() for name in constraints)
    assert {"torch", "nbgitpuller"} <= {re.split(r"[<>=]", line)[0] for line in lines}
    pinned = (ROOT / "constraints.txt").read_text()
    assert re.search(r"(?m)^torch==[\d.]+$", pinned), "a version without +cpu, so that both builds satisfy it"
    assert "build-essential" in (BINDER / "apt.txt").read_text().split()


def test_post_build_can_run():
    script = BINDER / "postBuild"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)
    for source in re.findall(r"<<'PY'\n(.*?)\nPY\n", script.read_text(), re.DOTALL):
        ast.parse(source)


def test_post_build_compiles_the_installed_package(tmp_path):
    """Not the copy in the repository's root, where the script is started and Python would look first."""
    (line,) = [line for line in (BINDER / "postBuild").read_text().splitlines() if "compileall" in line]
    (tmp_path / "encoding_nb").mkdir()
    (tmp_path / "encoding_nb" / "__init__.py").touch()
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "python").write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\necho "$@"\n')
    (bin_folder / "python").chmod(0o755)
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    compiled = done.stdout.split()[-1]
    assert Path(compiled).name == "encoding_nb" and str(tmp_path) not in compiled


def test_colab_is_one_cell():
    (cell,) = json.loads((BINDER / "colab.ipynb").read_text())["cells"]
    assert cell["cell_type"] == "code" and not cell["outputs"]
    ast.parse("".join(cell["source"]))


def test_links_of_the_readme_open_a_notebook_that_is_there():
    text = (BINDER / "README.md").read_text()
    names = re.findall(r"notebooks(?:/|%252F)(\w+\.ipynb)", text)
    assert names and all((ROOT / "notebooks" / name).is_file() for name in names)


def test_memory_counts_a_process_and_its_children(checker):
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'b = bytearray(150_000_000); input()'])"
    process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            seen = checker.tree(process.pid)
            if len(seen) == 2 and sum(map(checker.high_water, seen)) > 150_000_000:
                break
            time.sleep(0.05)
        assert len(seen) == 2
        assert 150_000_000 < sum(map(checker.high_water, seen)) < 400_000_000
    finally:
        process.communicate(b"\n")
    assert checker.high_water(process.pid) == 0


def test_a_step_over_the_limit_is_ended(checker, tmp_path):
    greedy = [sys.executable, "-c", "import time; b = bytearray(300_000_000); time.sleep(60)"]
    where = {"env": dict(os.environ), "cwd": tmp_path, "log": tmp_path / "log.txt"}
    step = checker.run_step("greedy", greedy, limit=200_000_000, **where)
    assert "0.20 GB" in step.problem and step.peak_bytes > 200_000_000
    failing = checker.run_step("failing", [sys.executable, "-c", "raise SystemExit(3)"], limit=None, **where)
    assert failing.problem == "exit status 3"
    fine = checker.run_step("fine", [sys.executable, "-c", "print(1)"], limit=200_000_000, **where)
    assert fine.problem == "" and "===== fine" in (tmp_path / "log.txt").read_text()


def test_environment_is_a_new_users(checker, tmp_path, monkeypatch):
    for name in ("PYTHONPATH", "JUPYTER_CONFIG_DIR", "ENCODING_NB_CACHE", "HF_HOME"):
        monkeypatch.setenv(name, "/somewhere/of/mine")
    env = checker.fresh_environment(tmp_path / "new")
    assert "/somewhere/of/mine" not in env.values()
    assert env["HOME"].startswith(str(tmp_path)) and env["PATH"].startswith(str(tmp_path))


def test_indexes_that_do_not_answer_are_left_out_and_named(checker, tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("--extra-index-url http://127.0.0.1:9/simple\ntorch\n")
    assert checker.leave_out_silent_indexes(file) == ["http://127.0.0.1:9/simple"]
    assert file.read_text() == "# --extra-index-url http://127.0.0.1:9/simple\ntorch\n"


def test_the_copy_is_what_a_clone_would_have(checker, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    for name, text in (("kept.txt", "a"), (".gitignore", "*.log\n"), ("noise.log", "b")):
        (source / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(source)], check=True)
    monkeypatch.setattr(checker, "ROOT", source)
    repo = checker.copy_tree(tmp_path)
    assert sorted(path.name for path in repo.iterdir()) == [".gitignore", "kept.txt"]
