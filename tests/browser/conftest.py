"""A real JupyterLab server and a real Chromium page for the browser tests."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "screenshots"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
]
TOKEN = "browser-test"


@dataclass
class Lab:
    """A running JupyterLab."""

    url: str
    folder: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def jupyter_environment(home: Path, cache: Path) -> dict[str, str]:
    """Settings of nobody else: own configuration folders, the tests' activation cache, no news pop-up."""
    folders = {
        name: str(home / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "IPYTHONDIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
        )
    }
    news = Path(folders["JUPYTERLAB_SETTINGS_DIR"]) / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True, exist_ok=True)
    (news / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    return os.environ | folders | {"ENCODING_NB_CACHE": str(cache), "OMP_NUM_THREADS": "2"}


def wait_for(url: str, process: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not answer at {url}; its log ends:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def running_lab(home: Path, folder: Path, cache: Path) -> Iterator[Lab]:
    """JupyterLab on `folder`, with its settings under `home`; ended with all its kernels."""
    port, log = free_port(), home / "server.log"
    options = [
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={folder}",
        "--allow-root",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
    ]
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=jupyter_environment(home, cache),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", server, log)
            yield Lab(f"http://127.0.0.1:{port}", folder)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


@contextlib.contextmanager
def running_browser() -> Iterator:
    """Chromium, headless; RuntimeError where there is none."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # ms; five seconds are little for an answer of a kernel that is busy
    found = next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeError("No Chromium on the path; run: sh tests/browser/get_chromium.sh")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=CHROMIUM_ARGS)
        try:
            yield running
        finally:
            running.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory, activation_folder):
    """JupyterLab on a copy of notebooks/, ended with all its kernels after the tests."""
    home = tmp_path_factory.mktemp("jupyter")
    folder = home / "work"
    shutil.copytree(ROOT / "notebooks", folder)
    with running_lab(home, folder, activation_folder) as running:
        yield running


@pytest.fixture(scope="session")
def browser():
    with running_browser() as running:
        yield running


copies = itertools.count()
# Three short stories of the demo and the tiny model: a fit of seconds, with all that a fit does.
SMALL_PANEL = """
from encoding_nb import Settings, control_panel, load_assembly
assembly = load_assembly("demo", stories={stories!r})
settings = Settings(model_name={model!r}, layer_idx=2, lookback=16)
panel = control_panel(assembly, results_dir={results!r}, settings=settings)
panel
"""
STORIES = ("deepend", "gravy", "lasttrainhome")
KERNEL_READY = """async () => {
    const app = window.jupyterapp;
    if (!app) return false;
    await app.restored;
    const view = app.shell.currentWidget;
    if (!view || !view.context || !view.sessionContext) return false;
    await view.context.ready;
    await view.sessionContext.ready;
    const kernel = view.sessionContext.session && view.sessionContext.session.kernel;
    const connected = !!kernel && kernel.status === 'idle' && kernel.connectionStatus === 'connected';
    return connected && app.commands.isEnabled('notebook:run-all-cells');
}"""


def wait_until(is_so, page, what: str, seconds: float = 90) -> None:
    """Ask again every fifth of a second, in the page's own time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            page.screenshot(path=SCREENSHOTS / "timeout.png")
            pytest.fail(f"Waited {seconds:.0f} s in vain until {what}; see screenshots/timeout.png")
        page.wait_for_timeout(200)


@pytest.fixture
def open_notebook(lab, browser):
    """A function that opens a notebook of the lab and waits for its kernel; pages close after the test."""
    contexts = []

    def opened(
        name: str = "cells.ipynb",
        *,
        cells: Sequence[str] | None = None,
        width: int = 1280,
        height: int = 900,
    ):
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=lab.url)
        contexts.append(context)
        page = context.new_page()
        # A copy and a workspace of its own: another test's kernel or layout must not be found again.
        copy = f"copy{next(copies)}_{name}"
        if cells is None:
            shutil.copy(lab.folder / name, lab.folder / copy)
        else:
            (lab.folder / copy).write_text(json.dumps(notebook_of(cells)))
        page.enb_address = f"{lab.url}/lab/workspaces/{copy.partition('_')[0]}/tree/{copy}?token={TOKEN}"
        page.goto(page.enb_address)
        wait_until(lambda: page.evaluate(KERNEL_READY), page, "the notebook's kernel is ready")
        return page

    SCREENSHOTS.mkdir(exist_ok=True)
    yield opened
    for context in contexts:
        context.close()
    end_kernels(lab)


def end_kernels(lab: Lab) -> None:
    """End what the notebooks left running: their kernels hold models, and their threads take time."""
    listed = f"{lab.url}/api/sessions?token={TOKEN}"
    with urllib.request.urlopen(listed, timeout=30) as answer:
        sessions = json.load(answer)
    for session in sessions:
        address = f"{lab.url}/api/sessions/{session['id']}?token={TOKEN}"
        urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=30).close()


def notebook_of(cells: Sequence[str]) -> dict:
    """A notebook with these code cells."""
    blank = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return {
        "cells": [{**blank, "id": f"cell-{i}", "source": source.strip()} for i, source in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


EXECUTE = """async (code) => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const future = kernel.requestExecute({code, silent: false, store_history: false});
    let text = '';
    future.onIOPub = (message) => {
        if (message.header.msg_type === 'stream') text += message.content.text;
        if (message.header.msg_type === 'error') text += message.content.evalue;
    };
    await future.done;
    return text;
}"""


def in_kernel(page, code: str) -> str:
    """What the kernel prints when it runs this code."""
    return page.evaluate(EXECUTE, code).strip()


def run_all(page) -> None:
    """Start all cells; does not wait for them."""
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
