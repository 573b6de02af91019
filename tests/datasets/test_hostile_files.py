"""Files that change while they are open, lie about what they hold, or are of another kind: named, in bounded time."""

import gzip
import http.server
import os
import resource
import struct
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest

from encoding_nb import (
    Assembly,
    Settings,
    fetch_lebel,
    list_runs,
    load_assembly,
    load_run,
    read_textgrid,
    read_word_table,
    save_assembly,
)
from encoding_nb.brain import SHIPPED
from encoding_nb.brain.regions import read_masks
from encoding_nb.features.word_vectors import read_word_vectors
from encoding_nb.records import RecordError

from ..made_lebel import make_lebel

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 123456\n"
ANNEX = "/annex/objects/MD5E-s123--0123456789abcdef0123456789abcdef.h5\n"


def small():
    """Two stories in memory."""
    rng = np.random.default_rng(0)
    words = {"words": [f"w{i % 9}" for i in range(60)], "onsets": np.arange(60) * 0.6}
    stories = {name: {**words, "bold": rng.standard_normal((20, 5)).astype("f4")} for name in ("a", "b")}
    return Assembly.from_arrays(stories, subject="s", tr=2.0, test_stories=["b"])


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.pkl", load_assembly),
        ("a.h5", load_assembly),
        ("a.TextGrid", read_textgrid),
        ("a.tsv", read_word_table),
        ("a.vec", lambda path: read_word_vectors(path, ["boat"])),
    ],
)
def test_a_pointer_of_git_lfs_says_how_its_content_is_had(tmp_path, name, read):
    (tmp_path / name).write_text(LFS)
    with pytest.raises((FileNotFoundError, ValueError), match=r"only a Git LFS pointer.*run `git lfs pull`"):
        read(tmp_path / name)
    if name != "a.vec":
        (tmp_path / name).write_text(ANNEX)
        with pytest.raises(FileNotFoundError, match="only a git-annex pointer"):
            read(tmp_path / name)


def replaced(path, other):
    """Put a file in the place of another, of the same size and time."""
    status = os.stat(path)
    assert other.stat().st_size == status.st_size
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, path)


def test_a_file_of_the_same_size_and_time_in_its_place_is_noticed(tmp_path):
    path = save_assembly(small(), tmp_path / "a.h5")
    bold = load_assembly(path).stories["a"].bold
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    replaced(path, copy)
    with pytest.raises(
        ValueError, match=r"a\.h5: the file changed after it was opened; call load_assembly again"
    ):
        bold[:]
    folder = make_lebel(tmp_path / "ds003020")
    story = next(iter(load_assembly(folder, subject="UTS03").stories.values()))
    path = folder / "derivative" / "preprocessed_data" / "UTS03" / f"{story.name}.hf5"
    copy.write_bytes(path.read_bytes())
    replaced(path, copy)
    with pytest.raises(ValueError, match=rf"{story.name}\.hf5: the file changed after it was opened"):
        story.bold[:]


def elsewhere(kind, path, secret):
    """Put the BOLD of a LeBel file elsewhere."""
    with h5py.File(path, "r+") as file:
        shape = file["data"].shape
        del file["data"]
        if kind == "external storage":
            file.create_dataset("data", shape, "f8", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        elif kind == "a link":
            file["data"] = h5py.ExternalLink(str(secret), "data")
        else:
            layout = h5py.VirtualLayout(shape, "f8")
            layout[:] = h5py.VirtualSource(str(secret), "data", shape)
            file.create_virtual_dataset("data", layout)


@pytest.mark.parametrize("kind", ["external storage", "a link", "a virtual data set"])
def test_responses_that_are_in_another_file_are_not_read(tmp_path, kind):
    folder = make_lebel(tmp_path / "ds003020")
    path = sorted((folder / "derivative" / "preprocessed_data" / "UTS03").glob("*.hf5"))[0]
    secret = tmp_path / "secret"
    if kind == "external storage":
        secret.write_bytes(b"private " * 100_000)
    else:
        with h5py.File(path) as file, h5py.File(secret, "w") as other:
            other["data"] = file["data"][:]
    elsewhere(kind, path, secret)
    with pytest.raises(ValueError, match=r"\.hf5.*(the values of data are not in the file|cannot be read)"):
        load_assembly(folder, subject="UTS03")


# ---------------------------------------------------------------------- word vectors

VECTORS = np.arange(6, dtype="<f4").reshape(2, 3) - 2.5
BINARY = b"2 3\n" + b"".join(
    w + b" " + v.tobytes() + b"\n" for w, v in zip((b"the", b"boat"), VECTORS, strict=True)
)
TEXT = b"the\t-2.5\t-1.5\t-0.5\nboat\t0.5\t1.5\t2.5\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vectors-negative300", BINARY),
        ("vectors.bin", BINARY),
        ("vectors.gz", gzip.compress(BINARY, mtime=0)),
        ("tabs.txt", TEXT),
        ("tabs-with-counts.txt", b"2 3\n" + TEXT),
        ("blanks.vec", TEXT.replace(b"\t", b" ")),
        ("twice.vec", TEXT.replace(b"\t", b" ") + b"the 9 9 9\n"),
    ],
)
def test_vectors_in_the_forms_that_people_have(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    found = read_word_vectors(tmp_path / name, ["the", "boat"])
    assert found["the"].tolist() == VECTORS[0].tolist() and found["boat"].tolist() == VECTORS[1].tolist()


LONG = gzip.compress("".join(f"w{i} 1.25 2.5 {i}\n" for i in range(5000)).encode(), mtime=0)
MIDDLE = bytearray(LONG)
MIDDLE[len(LONG) // 2] ^= 0xFF


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cc.en.300.bin", struct.pack("<ii", 793712314, 12) + bytes(200), "a model of fastText"),
        ("english1000sm.hf5", b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, such as english1000sm"),
        ("glove.zip", b"PK\x03\x04" + bytes(100), "a zip archive; unzip it"),
        ("cut.gz", LONG[:-2000], "the gzip file is cut off or damaged"),
        ("damaged.gz", bytes(MIDDLE), "the gzip file is cut off or damaged|expected a word and 3 numbers"),
        ("head.gz", b"\x1f\x8b\x08\x00" + b"\0" * 20, "the gzip file is cut off or damaged"),
        ("bomb.gz", gzip.compress(bytes(50_000_000), mtime=0), "without an end of the line"),
        ("wide.txt", b"2 99999999999\nthe 1 2\n", "expected at most 65,536 columns"),
        ("wide.bin", b"2 99999999999\nthe 1 2\n", "expected at most 65,536 columns"),
        ("digits.txt", b"9" * 5000 + b" 3\nthe 1 2 3\n", "expected a word and"),
        ("fewer.txt", b"the 1 2 3\nboat 1 2\n", "line 2: expected a word and 3 numbers"),
    ],
)
def test_files_that_are_not_vectors_are_named_for_what_they_are(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as raised:
        read_word_vectors(tmp_path / name, ["w1", "w4999", "the", "boat"])
    assert name in str(raised.value)


# ---------------------------------------------------------------------- servers


class Endless(http.server.BaseHTTPRequestHandler):
    """Answers every request with a listing that says that more follows, or with an answer that has no end."""

    endless = False

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        body = b"<R><C><Key>ds003020/derivative/preprocessed_data/UTS03/a.hf5</Key></C>"
        body += b"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></R>"
        if not self.endless:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body if not self.endless else b"<R>")
            while self.endless:
                self.wfile.write(b"<C/>" * 50_000)
        except OSError:
            pass


@pytest.mark.parametrize(
    ("endless", "says"),
    [(False, "the listing of .* does not end"), (True, "expected a small answer, got .* no end")],
)
def test_a_listing_without_an_end_is_given_up(tmp_path, endless, says):
    handler = type("Handler", (Endless,), {"endless": endless})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with pytest.raises(OSError, match=says):
            fetch_lebel(tmp_path, subject="UTS03", stories=["a"], progress=False, base_url=base, key_url=base)
    finally:
        server.shutdown()
        server.server_close()
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- sizes that no file of that length can hold

LOAD = """
import resource, sys
from encoding_nb import load_assembly
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
try: load_assembly(sys.argv[1])
except ValueError as error: print("refused:", error)
"""


def test_an_h5_of_some_kilobytes_with_billions_of_numbers_is_refused_within_a_bound(tmp_path):
    path = save_assembly(small(), tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        name = next(iter(file["arrays"]))
        del file["arrays"][name]
        file["arrays"].create_dataset(name, (2_000_000_000,), "f8", chunks=(1 << 20,))
    assert path.stat().st_size < 2**20
    limit = str(resource.getrlimit(resource.RLIMIT_AS)[1] if sys.platform == "darwin" else 4 << 30)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path), limit],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("refused:"), done.stdout + done.stderr[-500:]


def test_json_that_is_nested_deeply_is_a_damaged_file(tmp_path):
    deep = "[" * 200_000
    with pytest.raises(ValueError, match="nested too deeply"):
        Settings.from_json(deep)
    (tmp_path / "atlas.json").write_text(deep)
    with pytest.raises(
        ValueError, match=r"atlas\.json: cannot be read as JSON \(its JSON is nested too deeply\)"
    ):
        read_masks(tmp_path / "atlas.json", SHIPPED)
    folder = make_lebel(tmp_path / "ds003020")
    (folder / "derivative" / "respdict.json").write_text(deep)
    with pytest.raises(ValueError, match=r"respdict\.json: expected JSON with the number of TRs"):
        load_assembly(folder, subject="UTS03")
    path = save_assembly(small(), tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["meta"]
        file.create_dataset("meta", data=np.frombuffer(deep.encode(), np.uint8), fletcher32=True, chunks=True)
    with pytest.raises(ValueError, match=r"a\.h5: cannot be read as HDF5"):
        load_assembly(path)
    record = tmp_path / "runs" / "2026-01-31T120000Z_0123abcd"
    record.mkdir(parents=True)
    (record / "dataset_description.json").write_text(deep)
    with pytest.raises(RecordError, match="nested too deeply"):
        load_run(record)
    assert list_runs(record.parent)["status"][0].startswith("broken: ")
