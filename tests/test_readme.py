"""What the README tells a newcomer to type is there and does what it says."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESSED = ("README.md", "binder/README.md", "binder/colab.ipynb")


def blocks(language):
    """The README's fenced blocks of a language; "" for those that name none."""
    return [text for named, text in re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", README) if named == language]


def test_code_runs_as_a_script(tmp_path, activation_folder, monkeypatch, capsys):
    (code,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENCODING_NB_CACHE", str(activation_folder))
    exec(compile(code, "README.md", "exec"), {})
    assert re.search(r"(?m)^-?\d\.\d+$", capsys.readouterr().out), "the median score is printed"
    for name in ("map.png", "stories.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_commands_are_there():
    typed = " \n".join(blocks(""))
    targets = re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text())
    assert {"demo", "lab"} <= set(re.findall(r"make (\w+)", typed)) <= {*targets, "gcc"}
    order = [
        "apt-get install",
        "git clone",
        "cd encoding_nb",
        "make demo",
        "make lab",
        ".venv/bin/activate",
        "fetch",
    ]
    places = [typed.index(step) for step in order]
    assert places == sorted(places)
    assert {"gcc", "make", "git", "python3-dev", "python3-venv"} <= set(typed.split())
    assert "Run All Cells" in README


def test_account_is_filled_in_everywhere_by_one_command(tmp_path):
    for name in (*ADDRESSED, "Makefile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    if "OWNER/encoding_nb" not in README:
        pytest.skip("this copy knows its address")
    env = {k: v for k, v in os.environ.items() if k != "OWNER"}
    subprocess.run(["make", "-s", "address", "OWNER=someone"], cwd=tmp_path, env=env, check=True)
    for name in ADDRESSED:
        text = (tmp_path / name).read_text()
        assert "OWNER/" not in text and "OWNER%" not in text, name
        assert "someone/encoding_nb" in text or "someone%" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile", "README.md", "binder"]
    refused = subprocess.run(["make", "-s", "address"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert refused.returncode and "make address OWNER=account" in refused.stdout


def test_nothing_else_needs_the_address():
    listed = subprocess.run(
        ["git", "grep", "-l", "OWNER/encoding_nb"], cwd=ROOT, capture_output=True, text=True
    )
    assert set(listed.stdout.split()) <= {*ADDRESSED, "Makefile", "tests/test_readme.py"}
