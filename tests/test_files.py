"""Files that are written at once or not at all, and what is left of a process that is killed while it writes them."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from encoding_nb import _files

WRITE = """
import sys, time
from pathlib import Path
from encoding_nb import _files
folder = Path(sys.argv[1])
tempfile = _files.tempfile
tempfile.tempdir = str(folder)
with _files.new_file(folder / "entry.npz") as draft, _files.temporary_folder() as temporary:
    draft.write_bytes(b"half")
    (temporary / "more").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is writing a file in a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()


def put(folder, name="other.txt"):
    """What another process does there: `new_file` in a folder that it has not used."""
    _files.remove_abandoned.cache_clear()
    with _files.new_file(folder / name) as draft:
        draft.write_text("whole")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process")
def test_the_next_start_removes_what_a_killed_process_leaves_and_nothing_of_a_live_one(tmp_path, writer):
    drafts = names(tmp_path)
    assert len(drafts) == 2 and all(name.startswith(".") for name in drafts)
    put(tmp_path)
    assert names(tmp_path) == [*drafts, "other.txt"]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert names(tmp_path) == [*drafts, "other.txt"]
    put(tmp_path)
    assert names(tmp_path) == ["other.txt"]


def test_drafts_of_other_machines_are_removed_when_nothing_was_written_for_a_week(tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(_files.socket, "gethostname", lambda: "elsewhere")
        draft = tmp_path / f"{_files._draft_prefix('entry')}abcdefgh.npz"
    draft.write_bytes(b"half")
    for days, there in ((0, True), (6, True), (8, False)):
        then = time.time() - 86400 * days
        os.utime(draft, (then, then))
        put(tmp_path)
        assert draft.exists() == there, days


def test_other_files_are_not_touched_however_old(tmp_path):
    here, gone = _files._machine_digest(), 2**22 + 5  # above the largest number of a process
    kept = [
        ".entry-abcdefgh.npz",
        f"entry-enb{here}-{gone}-abcdefgh.npz",
        f".a-enb{here}-{gone}-abc.npz",
        ".git",
    ]
    for name in kept:
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (0, 0))
    put(tmp_path)
    assert names(tmp_path) == sorted([*kept, "other.txt"])


def test_a_link_in_place_of_a_draft_is_removed_and_not_what_it_points_to(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "values").write_text("mine")
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / f".a-enb{_files._machine_digest()}-{2**22 + 5}-abcdefgh").symlink_to(tmp_path / "data")
    put(folder)
    assert names(folder) == ["other.txt"] and (tmp_path / "data" / "values").read_text() == "mine"


@pytest.mark.parametrize(
    "stem", ["a" * 200, "ä" * 60, "with space", "two\nlines", "x-enb01234567-1-abcdefgh"]
)
def test_a_draft_is_known_by_its_name_whatever_the_target_is_called(tmp_path, stem):
    with _files.new_file(tmp_path / f"{stem[:120]}.npz") as draft:
        found = _files._DRAFT.fullmatch(draft.name)
        assert (found[1], int(found[2])) == (_files._machine_digest(), os.getpid())
        draft.write_bytes(b"whole")
    assert names(tmp_path) == [f"{stem[:120]}.npz"]


def test_a_temporary_folder_is_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KeyError), _files.temporary_folder() as folder:
        assert Path(folder).parent == tmp_path
        raise KeyError
    assert names(tmp_path) == []
