"""A notebook as a person uses it: opened in a real JupyterLab, all cells run from the menu, the figures looked at."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from small_suite import notebook_path
from standins import wait_until

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `make setup` installs it")

NOTEBOOK = "11_cnn_split"
FIGURES = {
    "architecture": 1.0,  # share of the width that it takes
    "curves": 1.0,
    "confusion-clips": 0.57,
    "confusion-windows": 0.57,
    "roc": 0.8,
    "f1": 0.8,
    "reliability": 0.48,
}
SETTINGS = {
    # A notebook of this length is otherwise drawn only as far as it is scrolled into view.
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}
# Announcements would ask the network.
PAGE_CONFIG = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
BROWSER_OPTIONS = [
    "--no-sandbox",  # which root needs, as in a container
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
ERRORS = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']"
MINUTES = 60_000  # milliseconds


@pytest.fixture
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    pytest.skip("chromium is not installed; `make system-packages` installs it")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """Address of a JupyterLab on a copy of the notebook with one epoch and a folder of its own for runs."""
    write_copy(tmp_path / "notebooks" / f"{NOTEBOOK}.ipynb", runs_dir=tmp_path / "runs")
    folders = {name: tmp_path / name.lower() for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR")}
    write_json(folders["JUPYTER_CONFIG_DIR"] / "labconfig" / "page_config.json", PAGE_CONFIG)
    for name, settings in SETTINGS.items():
        write_json(folders["JUPYTERLAB_SETTINGS_DIR"] / name, settings)
    folders |= {"JUPYTER_RUNTIME_DIR": tmp_path / "runtime", "JUPYTERLAB_WORKSPACES_DIR": tmp_path / "workspaces"}
    folders |= {"AUDIOCLF_FIGURES": tmp_path / "figures", "IPYTHONDIR": tmp_path / "ipython"}
    token = secrets.token_hex()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={tmp_path / 'notebooks'}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url="]
    with (tmp_path / "lab.log").open("w") as log:
        environment = os.environ | {name: str(path) for name, path in folders.items()}
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        facts = tmp_path / "runtime" / f"jpserver-{server.pid}.json"
        wait_until(lambda: facts.exists() and facts.read_text().endswith("}"), "JupyterLab to listen")
        yield f"http://127.0.0.1:{json.loads(facts.read_text())['port']}/lab/tree/{NOTEBOOK}.ipynb?token={token}"
    finally:
        server.send_signal(signal.SIGTERM)  # with which it shuts its kernels down
        server.wait(timeout=30)


def write_copy(path: Path, runs_dir: Path) -> None:
    notebook = nbformat.read(notebook_path(NOTEBOOK), as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in {"epochs": 1, "runs_dir": str(runs_dir)}.items():
        parameters.source, changed = re.subn(rf"^{name} = \S+", f"{name} = {value!r}", parameters.source, flags=re.M)
        assert changed == 1
    path.parent.mkdir()
    nbformat.write(notebook, path)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))


def test_all_cells_run_in_jupyterlab_and_the_figures_are_seen(lab: str, chromium: str, tmp_path: Path) -> None:
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=BROWSER_OPTIONS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(lab)
        kernel = page.locator(".jp-Toolbar-kernelName")
        playwright.expect(kernel).to_have_text("Python 3 (ipykernel)", timeout=MINUTES)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

        errors, last = page.locator(ERRORS), page.locator(".jp-CodeCell .jp-InputPrompt").last
        finished = last.filter(has_text=re.compile(r"\[\d+\]:"))
        playwright.expect(finished.or_(errors).first).to_be_attached(timeout=3 * MINUTES)
        assert errors.all_inner_texts() == []

        bar = page.locator("progress")
        playwright.expect(bar).to_have_count(1)
        assert bar.evaluate("bar => [bar.value, bar.max]") == [1, 1]
        assert bar.bounding_box()["width"] > 100

        figures = page.locator(".jp-OutputArea-output figure")
        assert figures.count() == len(FIGURES)
        for figure, share in zip(figures.all(), FIGURES.values(), strict=True):
            figure.scroll_into_view_if_needed()
            image = figure.locator("img").bounding_box()
            assert image["height"] > 100
            assert image["width"] == pytest.approx(share * figure.bounding_box()["width"], abs=2)
            playwright.expect(figure.locator("figcaption")).to_contain_text("CNN")
        formulas = page.locator(".jp-OutputArea-output mjx-container")
        playwright.expect(formulas.first).to_be_visible()

        page.screenshot(path=tmp_path / "last.png")
        bar.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / "training.png")
        browser.close()
    assert {path.stem for path in (tmp_path / "figures").rglob("*.svg")} == set(FIGURES)
    assert len(list((tmp_path / "runs" / "demo").glob("cnn-*/metrics.json"))) == 1
