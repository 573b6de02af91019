"""Small files that would fill the memory, hang or give wrong numbers: refused in one sentence, in bounded time."""

import contextlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
import zlib

import h5py
import numpy as np
import pytest

from encoding_nb import Assembly, fetch_lebel, load_assembly, save_assembly
from encoding_nb.brain import outlines
from encoding_nb.datasets import lebel_download
from encoding_nb.features.word_vectors import read_word_vectors

from ..made_lebel import make_lebel

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape" width="100" '
    'height="100"><g inkscape:label="rois"><g inkscape:label="shapes"><g inkscape:label="V1">{}</g></g></g></svg>'
)


@pytest.fixture
def saved(tmp_path):
    """A saved assembly of two stories."""
    rng = np.random.default_rng(0)
    words = {"words": [f"w{i % 9}" for i in range(60)], "onsets": np.arange(60) * 0.6}
    stories = {name: {**words, "bold": rng.standard_normal((20, 5)).astype("f4")} for name in ("a", "b")}
    made = Assembly.from_arrays(stories, subject="s", tr=2.0, test_stories=["b"])
    return save_assembly(made, tmp_path / "a.h5")


def change_meta(file, change):
    meta = change(file["meta"][:].tobytes().decode())
    del file["meta"]
    data = np.frombuffer(meta.encode(), np.uint8)
    file.create_dataset("meta", data=data, compression="gzip", compression_opts=9)


# ---------------------------------------------------------------------- HDF5


def large_chunk(file):
    shape = file["arrays/0"].shape
    del file["arrays/0"]
    made = file.create_dataset("arrays/0", shape, "f8", maxshape=(None,), chunks=(2**28,), compression="gzip")
    made.id.write_direct_chunk((0,), zlib.compress(bytes(2**24)))


def many_values(file):
    change_meta(
        file, lambda meta: meta.replace('"subject": "s"', '"subject": [' + "[]," * 20_000_000 + "[]]")
    )


def unknown_filter(file):
    values = file["bold/0/bold"][:]
    del file["bold/0/bold"]
    pack = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    pack.set_chunk(values.shape)
    pack.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple(values.shape)
    made = h5py.h5d.create(file.id, b"bold/0/bold", h5py.h5t.NATIVE_FLOAT, space, pack)
    made.write_direct_chunk((0, 0), values.tobytes(), 0)


def other_bold(**options):
    def change(file):
        del file["bold/0/bold"]
        file.create_dataset("bold/0/bold", **options)

    return change


def soft_link(file):
    del file["bold/0"]
    file["bold/0"] = h5py.SoftLink("/bold/1")


def name_of_a_million(file):
    change_meta(
        file,
        lambda meta: meta.replace(
            '"onsets": {"array in data set": "0"', '"onsets": {"array in data set": "' + "y" * 10**6 + '"'
        ),
    )


# a process of its own, whose memory has a limit above what importing takes
LOAD = """
import resource, sys
from encoding_nb import load_assembly
resource.setrlimit(resource.RLIMIT_AS, (3 << 30,) * 2)
try: load_assembly(sys.argv[1], **({"subject": "UTS03"} if sys.argv[1].endswith("ds003020") else {}))
except ValueError as error: print("refused:", error)
"""


def loaded_apart(path):
    """What a process of its own prints that loads a path; it is given 60 s."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, str(path)], capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr[-500:]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (large_chunk, "arrays/0 has 480 bytes in chunks of 2,147,483,648"),
        (many_values, "meta has .* more than an assembly has"),
    ],
)
def test_a_small_h5_that_would_fill_the_memory_is_refused_within_a_bound(saved, change, says):
    with h5py.File(saved, "r+") as file:
        change(file)
    assert saved.stat().st_size < 2**20
    assert re.search(f"refused: .*{says}", printed := loaded_apart(saved)), printed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (unknown_filter, r"bold/0/bold is packed by the HDF5 filter 32001 .*hdf5plugin"),
        (soft_link, "the values of bold/0/bold are not in the file: it is a link"),
        (
            other_bold(shape=(20, 5), dtype=h5py.vlen_dtype("f4")),
            "expected numbers as bold/0/bold, got object",
        ),
        (other_bold(data=np.full((20, 5), b"1.0")), "expected numbers as bold/0/bold"),
        (other_bold(data=np.ones((20, 5), complex)), "expected numbers as bold/0/bold, got complex128"),
        (name_of_a_million, "cannot be read as HDF5"),
    ],
)
def test_an_h5_of_another_kind_is_refused_when_it_is_opened(saved, change, says):
    with h5py.File(saved, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=says) as raised:
        load_assembly(saved)
    assert len(str(raised.value)) < 1000


def test_an_array_that_is_named_often_is_in_memory_once(saved):
    with h5py.File(saved, "r+") as file:
        file["arrays"].create_dataset("big", data=np.zeros(10**6), compression="gzip")
        often = json.dumps({str(i): {"array in data set": "big"} for i in range(500)})
        change_meta(file, lambda meta: json.dumps(json.loads(meta) | {"truth": json.loads(often)}))
    truth = load_assembly(saved).truth
    assert len(truth) == 500 and len({id(values) for values in truth.values()}) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of Unix")
@pytest.mark.parametrize("kind", ["h5", "lebel"])
def test_a_link_to_a_named_pipe_does_not_hang(tmp_path, saved, kind):
    os.mkfifo(tmp_path / "pipe")
    link = h5py.ExternalLink(str(tmp_path / "pipe"), "/x")
    source = saved if kind == "h5" else make_lebel(tmp_path / "ds003020")
    path = saved if kind == "h5" else sorted((source / "derivative/preprocessed_data/UTS03").glob("*.hf5"))[0]
    name = "bold/0/bold" if kind == "h5" else "data"
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = link
        file["another"] = link  # no entry but the one that is asked for is opened
    assert "not in the file: it is a link" in loaded_apart(source)


# ---------------------------------------------------------------------- outlines


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            '<g transform="' + "scale(1)" * 100 + '">' + '<path d="M0 0L50 1L20 30Z"/>' * 2500 + "</g>",
            "more than 2,000",
        ),
        (
            '<path d="M0 0' + "L1 2" * 200_000 + '"/>' + '<path d="M' + "0" * 2_500_000 + '"/>',
            "paths of more than 3,000,000",
        ),
    ],
)
def test_a_drawing_of_too_many_lines_is_refused(tmp_path, content, fault):
    (tmp_path / "overlays.svg").write_text(SVG.format(content))
    with pytest.warns(UserWarning, match=fault):
        found, reason = outlines.read_drawing(tmp_path / "overlays.svg")
    assert not found and reason == "overlays.svg cannot be read"


def test_transforms_of_deep_groups_are_worked_out_once(tmp_path):
    """1,000 groups around 500 paths took minutes; their product is known."""
    deep = '<g transform="translate(0.01)">' * 1000 + '<path d="M0 0L50 10L20 30Z"/>' * 500 + "</g>" * 1000
    (tmp_path / "overlays.svg").write_text(SVG.format(deep))
    started = time.monotonic()
    found, _ = outlines.read_drawing(tmp_path / "overlays.svg")
    assert time.monotonic() - started < 60
    np.testing.assert_allclose(found[-1].points, [[0.1, 1], [0.6, 0.9], [0.3, 0.7]], atol=1e-9)


@pytest.mark.parametrize("text", ["a" * 9990, "a(" * 4990, "a" + " " * 9900])
def test_a_transform_without_sense_takes_no_time(text):
    started = time.monotonic()
    for _ in range(100):
        assert (outlines.transform_matrix(text) == np.eye(3)).all()
    assert time.monotonic() - started < 20


def test_a_transform_that_overflows_leaves_its_outline_out(tmp_path):
    (tmp_path / "overlays.svg").write_text(
        SVG.format('<path transform="scale(1e308) scale(1e308)" d="M0 0L1 1L2 0Z"/>')
    )
    with pytest.warns(UserWarning, match="'V1' is left out .a number that is too large"):
        assert outlines.read_drawing(tmp_path / "overlays.svg") == ((), "")


# ---------------------------------------------------------------------- word vectors

LINES = b"the 1.25 2.5 3.75\nboat 4.25 5.5 6.75\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.bin", b"2 3\n" + LINES),  # was read as bytes: other numbers without a word
        ("bom.txt", b"\xef\xbb\xbf" + LINES),  # lost its first word
        ("bom-with-counts.txt", b"\xef\xbb\xbf2 3\n" + LINES),
        ("indented.txt", b"".join(b" " + line + b"\n" for line in LINES.splitlines())),  # lost all
        ("aligned.txt", LINES.replace(b" ", b"   ")),
    ],
)
def test_vectors_as_other_programs_write_them(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    found = read_word_vectors(tmp_path / name, ["the", "boat"])
    assert {word: values.tolist() for word, values in found.items()} == {
        "the": [1.25, 2.5, 3.75],
        "boat": [4.25, 5.5, 6.75],
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"the nan 2 3\n", "expected finite numbers, got nan in the vector of 'the'"),
        (b"boat 1 2 3\nthe 4 1e300 6\n", "expected finite numbers, got inf in the vector of 'the'"),
        (b"", "the file is empty"),
        (b"/annex/objects/MD5E-s1--0123456789abcdef0123456789abcdef.vec\n", "only a git-annex pointer"),
        (
            b"99999999999 3\nthe " + np.ones(3, "<f4").tobytes() + b"a" * 200_000,
            "vector 2: expected a word and a blank",
        ),
        (b"\xfd7zXZ\x00\x00 \x04\x01 \x02\x03\n", "line 1: expected a word and"),
    ],
)
def test_vectors_that_would_be_wrong_or_missing_are_refused(tmp_path, content, says):
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_word_vectors(tmp_path / "v.txt", ["the"])


# ---------------------------------------------------------------------- servers


def served(answer):
    """The address of a server that answers every request by `answer(handler, its number)`, and the server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        asked = 0

        def log_message(self, *_):
            pass

        def do_GET(self):
            type(self).asked += 1
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                answer(self.wfile, self.asked)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}", server


def drip(out, _):
    while True:
        out.write(b" ")
        out.flush()
        time.sleep(0.01)


def new_pages(out, number):
    keys = "".join(
        f"<C><Key>ds003020/derivative/preprocessed_data/UTS03/{number}-{i}.hf5</Key></C>" for i in range(100)
    )
    out.write(
        f"<R>{keys}<IsTruncated>true</IsTruncated><NextContinuationToken>{number}</NextContinuationToken></R>".encode()
    )


def entities(out, _):
    out.write(b'<!DOCTYPE a [<!ENTITY x "y">]><R><Key>&x;</Key><IsTruncated>false</IsTruncated></R>')


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (drip, "expected a small answer, got .* and no end"),
        (new_pages, "the listing of .* does not end"),
        (entities, "got another kind of page"),
    ],
)
def test_a_server_that_goes_on_for_ever_is_given_up(tmp_path, monkeypatch, answer, says):
    monkeypatch.setattr(lebel_download, "LONGEST_ANSWER", 1.0)
    monkeypatch.setattr(lebel_download, "MOST_FILES", 500)
    base, server = served(answer)
    started = time.monotonic()
    try:
        with pytest.raises(OSError, match=says):
            fetch_lebel(tmp_path, subject="UTS03", stories=["a"], progress=False, base_url=base, key_url=base)
    finally:
        server.shutdown()
        server.server_close()
    assert time.monotonic() - started < 30 and not list(tmp_path.iterdir())
