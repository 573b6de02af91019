"""Save and the download: of the right data, once, one at a time."""

import json
import threading
from dataclasses import replace
from io import BytesIO
from zipfile import ZipFile

import pytest

from encoding_nb import records
from encoding_nb.assembly import assembly_digest
from encoding_nb.panel.page import PageLink
from encoding_nb.panel.session import Session

from ..pipeline.test_runs import assembly, result  # noqa: F401 - fixtures


@pytest.fixture
def session(assembly, result):  # noqa: F811
    """A fit, after which other data were opened."""
    made = Session(assembly)
    for kind, value in (("fit", result), ("open", replace(assembly, subject="T"))):
        made.start(kind, lambda tell, value=value: value)
        assert made.join(10)
    return made


def test_the_record_names_the_data_of_the_result(session, assembly, tmp_path):  # noqa: F811
    folder = session.save(tmp_path)
    described = json.loads((folder / "dataset_description.json").read_text())
    assert described["DataDigest"] == assembly_digest(assembly) != assembly_digest(session.assembly)


def test_what_is_saved_is_not_saved_again(session, tmp_path, monkeypatch):
    calls, truly = [], records.save_run
    monkeypatch.setattr(records, "save_run", lambda *a, **k: calls.append(1) or truly(*a, **k))
    folder = session.save(tmp_path)
    assert session.save(tmp_path) == folder and session.pack(tmp_path)[1]
    assert len(calls) == 1
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert session.save(tmp_path).is_dir() and len(calls) == 2, "what was deleted is written again"


def test_save_and_download_at_once_leave_one_record(session, tmp_path, monkeypatch):
    truly, begun, go = records.save_run, threading.Event(), threading.Event()

    def slow(*arguments, **options):
        begun.set()
        go.wait(10)
        return truly(*arguments, **options)

    monkeypatch.setattr(records, "save_run", slow)
    packed = []
    threads = [
        threading.Thread(target=lambda: session.save(tmp_path)),
        threading.Thread(target=lambda: packed.append(session.pack(tmp_path))),
    ]
    threads[0].start()
    begun.wait(10)
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join(60)
    assert len(list(tmp_path.iterdir())) == 1
    assert len({name.split("/")[1] for name in ZipFile(BytesIO(packed[0][1])).namelist()}) == 1


def test_a_record_that_cannot_be_packed_is_said(session, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "list_runs", lambda folder: 1 / 0)
    assert session.pack(tmp_path) == ("", None, "Nothing was packed: division by zero")


def test_the_download_leaves_the_kernel_free():
    release, sent = threading.Event(), []

    def pack():
        release.wait(10)
        return "results.zip", b"PK", "1 run"

    link = PageLink(pack)
    link.send = lambda content, buffers=None: sent.append((content, buffers))
    link._handle_custom_msg({"kind": "zip"}, [])
    assert not sent, "the message is answered while it is packed"
    release.set()
    assert link.packing.join(10)
    assert sent == [({"name": "results.zip", "status": "1 run"}, [b"PK"])]
    link._handle_custom_msg({"kind": "something else"}, [])
    assert link.packing.join(10) and len(sent) == 1
