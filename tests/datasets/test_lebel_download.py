"""Downloading from a local server that breaks connections, ignores ranges and serves wrong bytes."""

import subprocess
import sys
import threading
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
import pytest

from encoding_nb import load_assembly
from encoding_nb.datasets import _download, fetch_lebel, lebel_download
from encoding_nb.datasets._checks import is_downloaded
from encoding_nb.datasets._download import RemoteFile, remote_file

from ..made_lebel import make_lebel

STORIES = ("alpha", "beta", "wheretheressmoke")
ALPHA = "derivative/preprocessed_data/UTS03/alpha.hf5"


class Handler(BaseHTTPRequestHandler):
    """`/bucket` lists and serves as S3 does, `/keys/<path>` serves annex pointers."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, url = self.server.made, urlparse(self.path)
        path = unquote(url.path)
        server.requests.append((path, self.headers.get("Range")))
        if path == "/bucket":
            self.answer(200, server.listing(parse_qs(url.query)))
        elif path.startswith("/keys/"):
            content = server.keys.get(path.removeprefix("/keys/"))
            self.answer(404 if content is None else 200, content or b"")
        else:
            self.send_file(path.removeprefix("/bucket/ds003020/"))

    def answer(self, code, content, **headers):
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def send_file(self, path):
        server = self.server.made
        content = server.files.get(path)
        if content is None:
            return self.answer(404, b"")
        server.served[path] = server.served.get(path, 0) + 1
        if path in server.fail and server.served[path] <= server.fail[path]:
            return self.answer(503, b"slow down")
        code, start, headers = 200, 0, {}
        asked = self.headers.get("Range")
        if asked and path not in server.without_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.answer(416, b"")
            code, headers = 206, {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if path in server.breaks and server.served[path] <= server.breaks[path]:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : start + max(1, (len(content) - start) // 3)])
            self.wfile.flush()
            self.connection.close()
            return None
        return self.answer(code, content[start:], **headers)


class MadeServer:
    """What is served, and how badly: `breaks` and `fail` count the first answers of a path that go wrong."""

    def __init__(self, root):
        self.files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        self.keys = {path: self.pointer(path, content) for path, content in self.files.items()}
        self.keys["derivative/respdict.json"] = self.files["derivative/respdict.json"]  # git holds it itself
        self.reset()

    def reset(self):
        self.breaks, self.fail, self.without_ranges, self.served, self.requests = {}, {}, set(), {}, []
        self.page = 1000

    @staticmethod
    def pointer(path, content):
        extension = "." + path.split(".", 1)[1] if "TextGrid" not in path else ""
        key = f"MD5E-s{len(content)}--{md5(content).hexdigest()}{extension}"
        return f"../../.git/annex/objects/vg/Xz/{key}/{key}".encode()

    def listing(self, query):
        prefix = query["prefix"][0]
        assert query["list-type"] == ["2"] and prefix.startswith("ds003020/")
        paths = sorted(p for p in (f"ds003020/{path}" for path in self.files) if p.startswith(prefix))
        start = int(query.get("continuation-token", ["0"])[0])
        found, more = paths[start : start + self.page], len(paths) > start + self.page
        contents = "".join(f"<Contents><Key>{path}</Key><Size>1</Size></Contents>" for path in found)
        token = f"<NextContinuationToken>{start + self.page}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}</ListBucketResult>"
        ).encode()


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    root = make_lebel(
        tmp_path_factory.mktemp("remote"),
        n_trs={"alpha": 60, "beta": 64, "wheretheressmoke": 80, "gamma": 50},
    )
    made = MadeServer(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.made, server.daemon_threads = made, True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(serving, monkeypatch):
    serving.reset()
    before = dict(serving.files), dict(serving.keys)
    monkeypatch.setattr(_download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(_download, "BLOCK_BYTES", 256)  # the made-up files are small
    yield serving
    serving.files, serving.keys = before


def get(server, folder, **options):
    options = {"subject": "UTS03", "stories": STORIES, "progress": False} | options
    return fetch_lebel(folder, base_url=f"{server.url}/bucket", key_url=f"{server.url}/keys", **options)


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def wanted(server, stories=STORIES, surfaces=True):
    return {
        path: content
        for path, content in server.files.items()
        if path.endswith("respdict.json")
        or any(f"/{story}." in path for story in stories)
        or (surfaces and "pycortex-db" in path)
    }


def test_only_what_is_asked_for_comes_and_opens(server, tmp_path):
    folder = get(server, tmp_path / "new" / "ds003020")
    assert files_of(folder) == wanted(server)
    assembly = load_assembly(folder, subject="UTS03")
    assert tuple(assembly.stories) == STORIES and assembly.surface.mask == "thick"
    assert np.isfinite(assembly.stories["alpha"].bold[:]).all()
    other = get(server, tmp_path / "other", stories=["gamma"], surfaces=False)
    assert files_of(other) == wanted(server, ["gamma"], surfaces=False)


def test_a_second_run_downloads_nothing(server, tmp_path):
    get(server, tmp_path)
    server.served.clear()
    get(server, tmp_path)
    assert server.served == {}
    get(server, tmp_path, stories="all")
    assert set(server.served) == set(wanted(server, ["gamma"], surfaces=False)) - {"derivative/respdict.json"}


def test_the_size_is_known_before_and_a_dry_run_does_nothing(server, tmp_path, caplog, capsys):
    with caplog.at_level("INFO", logger="encoding_nb"):
        found = get(server, tmp_path / "d", dry_run=True, progress=True)
    captured = capsys.readouterr()
    assert captured.err.strip() == str(found) and captured.out == ""
    get(server, tmp_path / "d", dry_run=True, progress=False)
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "d").exists() and server.served == {}
    plan = get(server, tmp_path / "d", dry_run=True)
    assert found == plan and repr(plan) == str(plan)
    assert plan.missing_bytes == sum(map(len, wanted(server).values()))
    assert str(plan) in caplog.text and f"in {len(wanted(server))} files" in str(plan)


def test_listings_come_page_by_page(server, tmp_path):
    server.page = 1
    assert files_of(get(server, tmp_path)) == wanted(server)


def test_a_broken_connection_goes_on_where_it_broke(server, tmp_path):
    server.breaks = {ALPHA: 3}
    folder = get(server, tmp_path)
    assert files_of(folder) == wanted(server)
    ranges = [asked for path, asked in server.requests if path.endswith("alpha.hf5") and "/bucket/" in path]
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in ranges[1:]]
    assert ranges[0] is None and len(starts) == 3 and starts == sorted(starts) and starts[0] > 0


def test_an_interrupted_download_is_taken_up_by_the_next_run(server, tmp_path):
    server.breaks = {ALPHA: 10**6}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_download.time, "sleep", lambda seconds: None)

        def stop(step):
            if step.file == ALPHA:
                raise KeyboardInterrupt

        get(server, tmp_path, progress=stop)
    part = tmp_path / f"{ALPHA}.part"
    assert part.is_file() and not (tmp_path / ALPHA).exists()
    have = part.stat().st_size
    server.breaks, server.requests = {}, []
    plan = get(server, tmp_path, dry_run=True)
    assert plan.missing_bytes == sum(f.size for f in plan.missing) - have
    assert files_of(get(server, tmp_path)) == wanted(server)
    assert ("/bucket/ds003020/" + ALPHA, f"bytes={have}-") in server.requests


def test_a_server_that_ignores_ranges_starts_afresh(server, tmp_path):
    server.breaks, server.without_ranges = {ALPHA: 2}, {ALPHA}
    assert files_of(get(server, tmp_path)) == wanted(server)


def test_a_server_that_is_busy_for_a_while(server, tmp_path):
    server.fail = {ALPHA: 3}
    assert files_of(get(server, tmp_path)) == wanted(server)
    server.fail = {"derivative/TextGrids/gamma.TextGrid": 10**6}
    with pytest.raises(
        OSError, match=r"gamma.TextGrid: 0 of \d+ bytes, then no answer from .*; run it again"
    ):
        get(server, tmp_path, stories=["gamma"])


def test_wrong_bytes_are_thrown_away(server, tmp_path):
    content = server.files[ALPHA]
    server.files[ALPHA] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(ValueError, match=rf"alpha.hf5: expected MD5 {md5(content).hexdigest()}, got "):
        get(server, tmp_path)
    assert not (tmp_path / ALPHA).exists() and not (tmp_path / f"{ALPHA}.part").exists()
    server.files[ALPHA] = content
    assert files_of(get(server, tmp_path)) == wanted(server)


def test_more_bytes_than_the_key_says(server, tmp_path):
    server.files[ALPHA] += b"more"
    with pytest.raises(
        ValueError, match=r"alpha.hf5: expected \d+ bytes, but .* sends more; it is another version"
    ):
        get(server, tmp_path)
    assert not list(tmp_path.rglob("alpha.hf5*"))


def test_a_part_that_is_longer_than_the_file_is_no_use(server, tmp_path):
    part = tmp_path / f"{ALPHA}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(server.files[ALPHA] + b"x")
    assert files_of(get(server, tmp_path)) == wanted(server)


def test_pointers_and_links_of_a_clone_are_replaced(server, tmp_path):
    for path in (ALPHA, "derivative/TextGrids/alpha.TextGrid"):
        (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / ALPHA).symlink_to(server.keys[ALPHA].decode())
    (tmp_path / "derivative/TextGrids/alpha.TextGrid").write_bytes(b"/annex/objects/MD5E-s5--d41d8cd98f\n")
    assert files_of(get(server, tmp_path)) == wanted(server)


def test_a_file_that_git_itself_holds_is_verified_by_its_content(server, tmp_path):
    get(server, tmp_path)
    assert (tmp_path / "derivative/respdict.json").read_bytes() == server.keys["derivative/respdict.json"]


def test_progress_says_bytes_rate_and_time_left(server, tmp_path):
    steps = []
    get(server, tmp_path, progress=steps.append)
    assert steps[-1].done == steps[-1].total == sum(map(len, wanted(server).values()))
    assert steps[-1].seconds_left == 0 and all(step.rate > 0 for step in steps)
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_what_is_not_there_is_listed_before_anything_is_downloaded(server, tmp_path):
    for options, says in (
        ({"subject": "UTS10"}, "subject must be one of UTS01, .* UTS09; got 'UTS10'"),
        ({"subject": "UTS01"}, "UTS01: no story alpha, beta, wheretheressmoke; it has none"),
        ({"stories": ["alpha", "souls"]}, "UTS03: no story souls; it has alpha, beta, gamma, where"),
        ({"stories": []}, "expected names of stories, got none"),
        ({"stories": "alpha"}, "one of litcoder, authors, all; got 'alpha'"),
        ({"stories": None}, "UTS03: no story adollshouse, .*"),
    ):
        with pytest.raises(ValueError, match=says):
            get(server, tmp_path, **options)
    assert server.served == {}


def test_too_little_space_is_said_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(lebel_download.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match=r"GB needed, 0\.00 GB free; make room or take fewer stories"):
        get(server, tmp_path)
    assert server.served == {}


def test_a_listing_cannot_lead_out_of_the_folder(server, tmp_path):
    server.files["derivative/pycortex-db/UTS03/../../../../outside"] = b"x"
    with pytest.raises(
        ValueError, match="is outside of derivative/pycortex-db/UTS03/; nothing was downloaded"
    ):
        get(server, tmp_path / "inside")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", [".git/hooks/post-checkout", "derivative/TextGrids/x.TextGrid"])
def test_a_listing_cannot_name_files_that_were_not_asked_for(server, tmp_path, monkeypatch, name):
    listing = server.listing
    extra = f"<Contents><Key>ds003020/{name}</Key></Contents></ListBucketResult>".encode()
    monkeypatch.setattr(
        server, "listing", lambda query: listing(query).replace(b"</ListBucketResult>", extra)
    )
    with pytest.raises(ValueError, match=f"lists '{name}', which is outside of"):
        get(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_listing_without_an_end(server, tmp_path, monkeypatch):
    listing = server.listing
    more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>0</NextContinuationToken>"
    monkeypatch.setattr(
        server,
        "listing",
        lambda query: listing(query).replace(b"<IsTruncated>false</IsTruncated>", more),
    )
    with pytest.raises(OSError, match=r"the listing of .* does not end"):
        get(server, tmp_path)


def test_no_server(tmp_path):
    with pytest.raises(
        OSError,
        match=r"http://127.0.0.1:9/bucket could not be reached \(ConnectionError\); check the network",
    ):
        get(type("Nobody", (), {"url": "http://127.0.0.1:9"}), tmp_path)


def test_pointers():
    md5_of_key = "c905809627b7291b5d031083dc36d56f"
    key = f"MD5E-s296607872--{md5_of_key}.hf5"
    whole = f"../../../.git/annex/objects/vg/Xz/{key}/{key}".encode()
    assert remote_file("a.hf5", whole) == RemoteFile("a.hf5", 296607872, md5_of_key)
    assert remote_file("a", f"/annex/objects/MD5-s5--{md5_of_key}\n".encode()).size == 5
    for content in (b"hello", whole + b"x" * 400):  # files that git itself holds
        assert remote_file("a", content) == RemoteFile("a", len(content), md5(content).hexdigest())


def test_what_counts_as_downloaded(tmp_path):
    path = tmp_path / "a"
    assert not is_downloaded(path)
    path.write_text("short but real")
    assert is_downloaded(path)


def test_the_command_line(server, tmp_path):
    command = [
        sys.executable, "-m", "encoding_nb", "fetch", str(tmp_path / "d"), "--subject", "UTS03", "--stories",
        ",".join(STORIES), "--base-url", f"{server.url}/bucket", "--key-url", f"{server.url}/keys",
    ]  # fmt: skip
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True)
    assert "GB in 9 files to download" in dry.stdout and ALPHA in dry.stdout and not (tmp_path / "d").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "done; open it with load_assembly" in done.stdout and files_of(tmp_path / "d") == wanted(server)
    assert "B/s" in done.stderr  # the bar's rate
    target = tmp_path / "uts03.h5"
    converted = subprocess.run(
        [
            sys.executable,
            "-m",
            "encoding_nb",
            "convert",
            str(tmp_path / "d"),
            str(target),
            "--stories",
            "alpha,beta",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "UTS03: 2 stories" in converted.stdout
    np.testing.assert_array_equal(
        load_assembly(target).stories["alpha"].bold[:], load_assembly(tmp_path / "d").stories["alpha"].bold[:]
    )
    wrong = subprocess.run([*command, "--stories", "souls"], capture_output=True, text=True)
    assert (
        wrong.returncode != 0 and "UTS03: no story souls" in wrong.stderr and "Traceback" not in wrong.stderr
    )
