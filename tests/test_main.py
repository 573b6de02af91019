"""The command line: its table of scores, and a refusal that is one sentence."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from encoding_nb import __main__
from encoding_nb.assembly import Assembly, Story, Words
from encoding_nb.features import cache_info, store_folder
from encoding_nb.features.cache import write_array
from encoding_nb.records import list_runs, load_run

from .records.test_records import make_result


def test_score_table_gives_median_and_share_per_area():
    assembly = SimpleNamespace(
        truth={"areas": {"language": np.array([True, True, False]), "noise": ~np.ones(3, bool)}}
    )
    assembly.truth["areas"]["noise"][2] = True
    made = {"scores": np.array([0.5, 0.7, 0.1]), "test_name": "parametric test, assumes white noise"}
    result = SimpleNamespace(**made, significant=np.array([True, False, False]))
    lines = __main__.score_table(result, assembly).splitlines()
    assert lines[1].split() == ["language", "2", "0.600", "50.0%"]
    assert lines[2].split()[:2] == ["noise", "1"] and lines[3] == "(parametric test, assumes white noise)"
    untested = __main__.score_table(SimpleNamespace(**made, significant=None), assembly).splitlines()
    assert untested[1].split() == ["language", "2", "0.600"] and "significant" not in untested[0]


@pytest.fixture
def small_demo(monkeypatch):
    """The demo's command on a small made-up run: what it leaves is looked at, not the fit."""
    result = make_result(n_voxels=30)
    story = Story("s", Words(("a",), [0.0], [0.5]), 2.0 * np.arange(9), np.zeros((9, 30)))
    truth = {"areas": {"noise": np.ones(30, bool)}}
    assembly = Assembly("S", 2.0, {"s": story}, truth=truth, source="demo")
    monkeypatch.setattr(__main__, "load_assembly", lambda name: assembly)
    monkeypatch.setattr(__main__, "run", lambda assembly, settings: result)
    monkeypatch.setattr(__main__.plots, "plot_flatmap", __main__.plots.plot_alphas)
    monkeypatch.setattr(__main__, "execute_notebook", lambda notebook, out_dir: out_dir / "page.html")
    return result


def test_the_demo_leaves_a_record(small_demo, tmp_path, monkeypatch, capsys):
    notebook = tmp_path / "a.ipynb"
    notebook.write_text("")
    out = tmp_path / "results"
    monkeypatch.setattr(
        sys, "argv", ["encoding_nb", "demo", "--results", str(out), "--notebook", str(notebook)]
    )
    __main__.main()
    table = list_runs(out)
    assert list(table["status"]) == ["whole"] and list(table["name"]) == ["demo"]
    assert f"wrote {table['path'][0]}" in capsys.readouterr().out
    np.testing.assert_array_equal(load_run(table["path"][0]).scores, small_demo.scores)


def test_a_results_folder_that_is_a_file_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "results").write_text("")
    monkeypatch.setattr(sys, "argv", ["encoding_nb", "demo", "--results", str(tmp_path / "results")])
    with pytest.raises(SystemExit, match="expected a folder for records, but"):
        __main__.main()


def test_a_layer_that_cannot_be_is_refused_in_one_line(tmp_path):
    command = [sys.executable, "-m", "encoding_nb", "demo", "--layer", "99", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "Layer 99 is out of range" in last and "0 (the embedding) to 6" in last
    assert "Traceback" not in done.stderr


def test_the_cache_is_told_and_cut_down(tmp_path, monkeypatch, capsys):
    layer = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    for model in ("one", "other"):
        for number in range(2):
            write_array(store_folder(tmp_path), f"{model} {number}", layer, {"model": model})
    asked = ["encoding_nb", "cache", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", asked)
    __main__.main()
    told = capsys.readouterr().out
    assert "4 entries" in told and "one: 2 entries" in told and "other: 2 entries" in told
    monkeypatch.setattr(sys, "argv", [*asked, "--prune", "0"])
    __main__.main()
    assert cache_info(tmp_path).n_entries == 0 and "0 entries, 0.0 MB" in capsys.readouterr().out


def test_a_cache_that_is_not_there_is_no_empty_one(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "nowhere", tmp_path / "file"):
        monkeypatch.setattr(sys, "argv", ["encoding_nb", "cache", "--folder", str(wrong)])
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        assert ended.value.code == 2
        assert f"there is no folder '{wrong}'; check the path" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["-1", "many", "inf"])
def test_a_size_of_the_cache_that_cannot_be(size, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["encoding_nb", "cache", f"--prune={size}"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert f"expected megabytes of 0 or more, got '{size}'" in capsys.readouterr().err
