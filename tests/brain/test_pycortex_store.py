import ctypes
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from encoding_nb import Surface
from encoding_nb._files import CACHE_VARIABLE, cache_folder, new_file
from encoding_nb.brain import _pycortex, voxel_count

from ..tiny_subject import make_store

USE = """
from encoding_nb import brain, Surface
from encoding_nb import Surface
from encoding_nb.brain import _pycortex, voxel_count

folder = _pycortex.open_store({subject!r})
import cortex
assert cortex.db.filestore == str(folder), cortex.db.filestore
assert {subject!r} in cortex.db.subjects
assert brain.voxel_count(Surface({subject!r}, {transform!r}, "thin")) > 0
print(folder)
"""


def use(home: Path, *, subject="S1", transform="retinotopy", **variables) -> Path:
    """Open the store in a new process with this home folder; returns the store it used."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ENCODING_NB_"))}
    environment |= {"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    environment |= {"MPLCONFIGDIR": matplotlib.get_cachedir()}  # or it lists all fonts anew
    # pycortex asks an installed Inkscape for its version, which then writes its preferences at home
    environment |= {"INKSCAPE_PROFILE_DIR": str(home.parent / "inkscape"), **variables}
    done = subprocess.run(
        [sys.executable, "-c", USE.format(subject=subject, transform=transform)],
        env=environment, capture_output=True, text=True, cwd="/", preexec_fn=obey_permissions,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip().splitlines()[-1])


def obey_permissions() -> None:
    """Let root, too, write only where permissions allow it: drop the capability to override them."""
    if sys.platform == "linux" and os.getuid() == 0:
        pr_capbset_drop, cap_dac_override = 24, 1
        ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override, 0, 0, 0)


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_home_without_configuration_stays_without(tmp_path):
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    used = use(home, ENCODING_NB_CACHE=str(cache))
    assert files_below(home) == []
    assert used.is_relative_to(cache)


def test_a_stale_filestore_in_the_options_does_no_harm(tmp_path):
    options = tmp_path / "home" / ".config" / "pycortex" / "options.cfg"
    options.parent.mkdir(parents=True)
    text = "[basic]\nfilestore = /tmp/build-env-gone/db\n[webgl]\ncolormaps = /tmp/build-env-gone/colormaps\n"
    options.write_text(text)
    before = options.stat().st_mtime_ns
    use(tmp_path / "home", ENCODING_NB_CACHE=str(tmp_path / "cache"))
    assert options.read_text() == text and options.stat().st_mtime_ns == before
    assert files_below(tmp_path / "home") == [options]


def test_a_store_named_by_the_user_comes_first_and_is_used_as_it_is(tmp_path):
    mine = make_store(tmp_path / "mine")
    cache = str(tmp_path / "cache")
    used = use(
        tmp_path,
        subject="tiny",
        transform="near",
        ENCODING_NB_PYCORTEX_STORE=str(mine),
        ENCODING_NB_CACHE=cache,
    )
    assert used == mine


def test_the_configured_store_is_used_when_it_holds_the_subject(tmp_path):
    mine = make_store(tmp_path / "mine")
    options = tmp_path / "home" / ".config" / "pycortex" / "options.cfg"
    options.parent.mkdir(parents=True)
    options.write_text(f"[basic]\nfilestore = {mine}\n")
    cache = str(tmp_path / "cache")
    assert use(tmp_path / "home", subject="tiny", transform="far", ENCODING_NB_CACHE=cache) == mine


def test_another_environments_installation_is_not_written_to(tmp_path):
    other = make_store(tmp_path / "venv" / "share" / "pycortex" / "db")
    options = tmp_path / "home" / ".config" / "pycortex" / "options.cfg"
    options.parent.mkdir(parents=True)
    options.write_text(f"[basic]\nfilestore = {other}\n")
    cache = tmp_path / "cache"
    before = files_below(other)
    used = use(tmp_path / "home", subject="tiny", transform="near", ENCODING_NB_CACHE=str(cache))
    assert used.is_relative_to(cache)
    assert files_below(other) == before


def test_a_read_only_store_and_home(tmp_path):
    mine = make_store(tmp_path / "mine")
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    read_only = [home, mine, *(path for path in mine.rglob("*") if path.is_dir())]
    before = files_below(mine)
    for folder in read_only:
        folder.chmod(0o555)
    try:
        used = use(
            home,
            subject="tiny",
            transform="near",
            ENCODING_NB_PYCORTEX_STORE=str(mine),
            ENCODING_NB_CACHE=str(cache),
        )
    finally:
        for folder in read_only:
            folder.chmod(0o755)
    assert used.is_relative_to(cache) and used != mine
    assert (used / "tiny" / "surfaces" / "flat_lh.gii").is_symlink()
    assert files_below(mine) == before and files_below(home) == []


DRAW = """
import numpy as np
from encoding_nb import Surface, brain
import cortex
assert cortex.testing_utils.INKSCAPE_VERSION is None, cortex.testing_utils.INKSCAPE_VERSION
for surface in (Surface("tiny", "near", "thin"), brain.vertex_surface("tiny")):
    values = np.linspace(0, 1, brain.voxel_count(surface))
    bare = brain.flat_image(values, surface, height=90, with_rois=False)
    drawn = brain.flat_image(values, surface, height=90, with_rois=["box"], with_sulci=True)
    assert (bare != drawn).any()
    assert set(brain.roi_masks(surface, height=90)) == {"box", "blob"}
print("drawn")
"""


def test_without_inkscape_everything_is_drawn(tmp_path):
    (tmp_path / "empty").mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ENCODING_NB_"))}
    environment |= {"HOME": str(tmp_path), "PATH": str(tmp_path / "empty")}
    environment |= {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),
    }
    environment |= {"ENCODING_NB_PYCORTEX_STORE": str(make_store(tmp_path / "mine"))}
    environment |= {"ENCODING_NB_CACHE": str(tmp_path / "cache")}
    # whatever is drawn, and from whichever store: the user's own file keeps every byte and its time
    options = tmp_path / ".config" / "pycortex" / "options.cfg"
    options.parent.mkdir(parents=True)
    text = b"# mine\r\n[basic]\r\nfilestore = /tmp/build-env-gone/db\r\n"
    options.write_bytes(text)
    before = options.stat()
    done = subprocess.run([sys.executable, "-c", DRAW], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "drawn"
    after = options.stat()
    assert options.read_bytes() == text
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino), "nor written anew"
    assert files_below(options.parent) == [options]


def test_files_that_are_only_links_are_named(tmp_path, monkeypatch):
    """As in a data set under git-annex whose files have not been fetched."""
    mine = make_store(tmp_path / "mine")
    monkeypatch.setenv(_pycortex.STORE_VARIABLE, str(mine))
    lost = mine / "tiny" / "surfaces" / "flat_lh.gii"
    lost.unlink()
    lost.symlink_to(tmp_path / "annex" / "flat_lh.gii")
    with pytest.raises(
        ValueError, match=r"1 surface files of .*flat_lh\.gii.* are links to files .*datalad get"
    ):
        _pycortex.find_store("tiny")
    (mine / "tiny" / "overlays.svg").unlink()
    (mine / "tiny" / "overlays.svg").symlink_to(tmp_path / "annex" / "overlays.svg")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    links = _pycortex._linked_store(mine)
    assert not (links / "tiny" / "overlays.svg").exists() and (links / "tiny" / "surfaces").is_dir()


def test_a_store_that_is_given_is_taken_and_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    given = make_store(tmp_path / "pycortex-db", subject="UTS08")
    assert _pycortex.find_store("UTS08", store=given) == given
    used = _pycortex.open_store("UTS08", store=str(given))
    assert used.is_relative_to(tmp_path / "cache")
    with pytest.raises(ValueError, match=r"subject 'S1'; known subjects: UTS08 \(searched .*pycortex-db\)"):
        _pycortex.find_store("S1", store=given)


def test_unknown_subject_lists_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.setenv(_pycortex.STORE_VARIABLE, str(make_store(tmp_path / "mine")))
    with pytest.raises(
        ValueError, match=rf"'Fred'; known subjects: .*S1.*tiny.*set {_pycortex.STORE_VARIABLE}"
    ):
        _pycortex.find_store("Fred")


def test_a_named_store_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(_pycortex.STORE_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(
        ValueError, match=rf"{_pycortex.STORE_VARIABLE} is set to .*gone, which is not a folder"
    ):
        _pycortex.find_store("S1")
    given = make_store(tmp_path / "given")
    assert _pycortex.find_store("tiny", store=given) == given, "a data set's own store needs no other"


def test_a_named_store_without_the_subject_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv(_pycortex.STORE_VARIABLE, str(make_store(tmp_path / "mine")))
    assert _pycortex.find_store("tiny") == tmp_path / "mine"
    assert _pycortex.find_store("S1") != tmp_path / "mine"


def test_linked_store_is_mended_and_keeps_what_pycortex_made(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    links = _pycortex._linked_store(make_store(tmp_path / "mine"))
    made = links / "tiny" / "cache" / "flatmask_512.npz"
    made.parent.mkdir()
    made.write_bytes(b"made by pycortex")
    lost = links / "tiny" / "surfaces" / "pia_lh.gii"
    lost.unlink()
    lost.symlink_to(tmp_path / "gone")
    assert _pycortex._linked_store(tmp_path / "mine") == links
    assert lost.exists() and made.read_bytes() == b"made by pycortex"
    assert not (links / "tiny" / "overlays.svg").is_symlink(), "pycortex edits drawings in place"


def test_what_pycortex_prints_goes_to_the_log(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    store = str(make_store(tmp_path / "pycortex-db", subject="UTS07"))
    with caplog.at_level("DEBUG", logger=_pycortex.__name__):
        assert voxel_count(Surface("UTS07", "near", "thick", store=store)) > 0
    print("mine")
    assert capsys.readouterr().out == "mine\n"
    assert "Mask not found, generating" in caplog.text


def test_new_file_moves_only_what_was_finished(tmp_path):
    target = tmp_path / "sub" / "map.npz"
    with pytest.raises(RuntimeError), new_file(target) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    with new_file(target) as draft:
        draft.write_text("whole")
    assert target.read_text() == "whole" and list(target.parent.iterdir()) == [target]


def test_a_cache_folder_that_cannot_be_made_is_replaced(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(_pycortex.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = cache_folder()
    assert folder.is_dir() and folder.parent == tmp_path
    assert "cannot be used" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_new_file_can_be_read_by_others(tmp_path):
    """A temporary file cannot, and records and caches are shared."""
    with new_file(tmp_path / "map.npz") as draft:
        draft.write_text("whole")
    assert (tmp_path / "map.npz").stat().st_mode & 0o777 == 0o644
