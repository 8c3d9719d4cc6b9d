"""Notebooks as a person uses them: opened in a real JupyterLab, run from the menu, what they show looked at."""

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
from typing import TYPE_CHECKING

import nbformat
import pytest
import soundfile as sf
from small_suite import notebook_path
from standins import wait_until

from audioclf_lib import Experiment, fit, load_dataset

if TYPE_CHECKING:
    from playwright.sync_api import Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `make setup` installs it")

FIGURES = {
    "architecture": 1.0,  # share of the width that it takes
    "curves": 1.0,
    "confusion-clips": 0.57,
    "confusion-windows": 0.57,
    "roc": 1.0,
    "f1": 0.99,
    "reliability": 0.48,
}
SETTINGS = {
    # A notebook of this length is otherwise drawn only as far as it is scrolled into view.
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}
# On the demo set, with the least that there is to train. 11_cnn_split and 50_explore have tests of their own.
NOTEBOOKS: dict[str, dict[str, object]] = {
    "01_dataset": {},
    "02_from_scratch": {"epochs": 1},
    "10_cnn_kfold": {"epochs": 1, "val_folds": [2]},
    "20_transformer_kfold": {"epochs": 1, "val_folds": [2]},
    "21_transformer_split": {"epochs": 1},
    "30_own_model": {"epochs": 1},
    "40_tuning": {"epochs": 1, "trials": 2},
    "60_diagnosis": {"epochs": 1},
}
# Announcements would ask the network.
PAGE_CONFIG = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
BROWSER_OPTIONS = [
    "--no-sandbox",  # which root needs, as in a container
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",
]
OUTPUT = ".jp-OutputArea-output"
ERRORS = f"{OUTPUT}[data-mime-type='application/vnd.jupyter.error']"
STDERR = f"{OUTPUT}[data-mime-type='application/vnd.jupyter.stderr']"  # where errors of widgets' callbacks go, too
MINUTES = 60_000  # milliseconds


@pytest.fixture
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    pytest.skip("chromium is not installed; `make system-packages` installs it")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[str]:
    """Address of a JupyterLab, up to a notebook's name, with folders of its own for settings, runs and figures."""
    (folder / "notebooks").mkdir()
    folders = {name: folder / name.lower() for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR")}
    write_json(folders["JUPYTER_CONFIG_DIR"] / "labconfig" / "page_config.json", PAGE_CONFIG)
    for name, settings in SETTINGS.items():
        write_json(folders["JUPYTERLAB_SETTINGS_DIR"] / name, settings)
    folders |= {"JUPYTER_RUNTIME_DIR": folder / "runtime", "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces"}
    folders |= {"AUDIOCLF_FIGURES": folder / "figures", "IPYTHONDIR": folder / "ipython"}
    token = secrets.token_hex()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'notebooks'}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url="]
    with (folder / "lab.log").open("w") as log:
        environment = os.environ | {name: str(path) for name, path in folders.items()}
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        facts = folder / "runtime" / f"jpserver-{server.pid}.json"
        wait_until(lambda: facts.exists() and facts.read_text().endswith("}"), "JupyterLab to listen")
        yield f"http://127.0.0.1:{json.loads(facts.read_text())['port']}/lab/tree/{{}}.ipynb?reset&token={token}"
    finally:
        server.send_signal(signal.SIGTERM)  # with which it shuts its kernels down
        server.wait(timeout=30)


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=BROWSER_OPTIONS)
        yield browser.new_page(viewport={"width": 1280, "height": 1000})
        browser.close()


def write_copy(name: str, folder: Path, **values: object) -> None:
    """The notebook with these parameters, in JupyterLab's folder."""
    notebook = nbformat.read(notebook_path(name), as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for key, value in values.items():
        parameters.source, changed = re.subn(
            rf"^{key} = .*?(?=  #)", f"{key} = {value!r}", parameters.source, flags=re.M
        )
        assert changed == 1
    nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")


def run_all(page: Page, address: str) -> None:
    """Open a notebook, run all its cells, and find no error, also none on stderr."""
    page.goto(address)
    # Cells run before the kernel is connected are dropped without a word; its name shows before that, its state after.
    idle = page.get_by_role("button", name="Python 3 (ipykernel) | Idle", exact=True)
    playwright.expect(idle).to_be_visible(timeout=MINUTES)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    errors, last = page.locator(ERRORS), page.locator(".jp-CodeCell .jp-InputPrompt").last
    finished = last.filter(has_text=re.compile(r"\[\d+\]:"))
    playwright.expect(finished.or_(errors).first).to_be_attached(timeout=8 * MINUTES)
    assert errors.all_inner_texts() == []
    assert page.locator(STDERR).all_inner_texts() == []


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))


def test_all_cells_run_in_jupyterlab_and_the_figures_are_seen(lab: str, page: Page, folder: Path) -> None:
    write_copy("11_cnn_split", folder, epochs=1, runs_dir=str(folder / "own-runs"))
    run_all(page, lab.format("11_cnn_split"))

    bar = page.locator("progress")
    playwright.expect(bar).to_have_count(1)
    assert bar.evaluate("bar => [bar.value, bar.max]") == [1, 1]
    assert bar.bounding_box()["width"] > 100

    figures = page.locator(f"{OUTPUT} figure")
    assert figures.count() == len(FIGURES)
    for figure, share in zip(figures.all(), FIGURES.values(), strict=True):
        figure.scroll_into_view_if_needed()
        image = figure.locator("img").bounding_box()
        assert image["height"] > 100
        assert image["width"] == pytest.approx(share * figure.bounding_box()["width"], abs=2)
        playwright.expect(figure.locator("figcaption")).to_contain_text("CNN")
    formulas = page.locator(f"{OUTPUT} mjx-container")
    playwright.expect(formulas.first).to_be_visible()
    drawn = {path.stem for path in (folder / "figures" / "demo").glob("cnn-split*/*.svg")}
    assert drawn == set(FIGURES)
    assert len(list((folder / "own-runs" / "demo").glob("cnn-*/metrics.json"))) == 1


def test_a_run_is_explored_by_menus_upload_and_microphone(lab: str, page: Page, folder: Path) -> None:
    data = load_dataset("demo")
    (config,) = Experiment(model="cnn", protocol="split", epochs=1).fits(data)
    trained = fit(config, data, runs_dir=folder / "runs")
    write_copy("50_explore", folder, run=str(trained.path))
    run_all(page, lab.format("50_explore"))
    shown = page.locator(f"{OUTPUT} figure")
    for name in ("frequency responses", "last features", "answer's probability falls", "answer over time"):
        playwright.expect(shown.filter(has_text=name).first).to_be_visible()

    found = page.locator("select[multiple] option, select[size] option")
    wrong = found.all_inner_texts()
    page.get_by_label("right", exact=True).select_option("right")
    playwright.expect(found.first).not_to_have_text(wrong[0], timeout=MINUTES)
    assert not set(wrong) & set(found.all_inner_texts()), "a clip is answered right or wrong"

    answers = page.get_by_text("The answer over time; silent windows stay blank.", exact=True)
    before = answers.count()
    sf.write(folder / "mine.flac", data.waveforms[0], data.sample_rate)
    upload(page, folder / "mine.flac")
    playwright.expect(answers).to_have_count(before + 1, timeout=MINUTES)
    page.get_by_role("button", name="Record two seconds").click()
    playwright.expect(page.get_by_text(re.compile(r"^[12]\.\d s recorded$"))).to_be_visible(timeout=MINUTES)
    playwright.expect(answers.nth(before)).to_be_visible(timeout=MINUTES)
    (folder / "noise.flac").write_text("no sound")
    upload(page, folder / "noise.flac")
    playwright.expect(page.get_by_text(re.compile(r"noise\.flac .*cannot be"))).to_be_visible(timeout=MINUTES)
    assert page.locator(STDERR).all_inner_texts() == []


def upload(page: Page, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload a sound").click()
    chooser.value.set_files(path)


@pytest.mark.faults
def test_the_report_is_read_in_jupyterlab_too(lab: str, page: Page, folder: Path) -> None:
    data = load_dataset("demo")
    (config,) = Experiment(model="cnn", protocol="split", epochs=1).fits(data)
    fit(config, data, runs_dir=folder / "report-runs")
    write_copy("90_report", folder, runs_dir=str(folder / "report-runs"))
    run_all(page, lab.format("90_report"))
    shown = page.locator(OUTPUT).all_inner_texts()
    assert any("classified from the waveform" in text for text in shown)
    assert not any("[@" in text or "{{" in text for text in shown)
    for figure in page.locator(f"{OUTPUT} figure", has=page.locator("img")).all():
        assert figure.locator("img").bounding_box()["height"] > 50
        assert figure.locator("figcaption").inner_text().strip()


@pytest.mark.faults
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_runs_on_the_demo_set(name: str, lab: str, page: Page, folder: Path) -> None:
    runs = {"runs_dir": str(folder / "runs")} if name != "02_from_scratch" else {}
    write_copy(name, folder, **NOTEBOOKS[name] | runs)
    run_all(page, lab.format(name))
    for figure in page.locator(f"{OUTPUT} figure").all():
        assert figure.locator("img").bounding_box()["height"] > 50
        assert figure.locator("figcaption").inner_text().strip()
