"""The report of finished runs, from run folders to PDF and HTML: what it says, what it must not show, how it looks."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat import NotebookNode
from own_models import write_model
from pypdf import PdfReader
from shown import plain_text
from synthetic import DEMO, write_run, write_runs

from audioclf_lib._support.errors import InputError
from audioclf_lib.metrics.baselines import TITLES
from audioclf_lib.report.build import build_report
from audioclf_lib.report.exporters import read_report
from audioclf_lib.report.gather import Gathered, gather
from audioclf_lib.report.tables import DEMO_NOTICE, p_value
from audioclf_lib.report.values import key_result
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.ablation import CHANGES, ablation_experiments
from audioclf_lib.suite.plan import Plan, save_plan

TITLE = "Sounds & what two networks make of them"
FRONT_MATTER = {
    "title": TITLE,
    "authors": "Ada Lovelace; Grace Hopper",
    "roll_numbers": "17; 23",
    "submitted_to": "Prof. Noether",
    "course": "Deep listening",
    "date": "23 November 2025",
    "motto": "Listen first.",
}
CODE_AND_MARKUP = ("\\", "$", "[@", "@fig:", "@tbl:", "{#", "{{", "```", "**", "import ", "<p>", "Traceback")
MILLIMETRE = 72 / 25.4
HOSTILE = ("low_hum", "mid * tone", "high | $x$ [@fig:no] {{best}}")  # users' names hold what Markdown takes for markup


@dataclass(frozen=True)
class Built:
    """A report, what it must show, and what the terminal was told."""

    folder: Path
    found: Gathered
    said: list[str]

    @property
    def pdf(self) -> Path:
        return self.folder / "report.pdf"

    @property
    def page(self) -> BeautifulSoup:
        return BeautifulSoup((self.folder / "report.html").read_text(encoding="utf-8"), "html.parser")

    @property
    def text(self) -> str:
        return " ".join(self.page.get_text(" ").replace("\N{NO-BREAK SPACE}", " ").split())


@pytest.fixture(autouse=True, scope="module")
def figures_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Made-up results must not replace the figures in the project's folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("figures")
        patch.setenv("AUDIOCLF_FIGURES", str(folder))
        yield folder


def build(folder: Path, *formats: str, plan: Path | str = "", **front_matter: str) -> Built:
    """The report of what lies in ``folder/runs``."""
    said: list[str] = []
    runs_dir = folder / "runs"
    build_report(plan, runs_dir=runs_dir, output_dir=folder, formats=formats, say=said.append, **front_matter)
    return Built(folder, gather(str(plan), runs_dir), said)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A plan with everything: the assigned architectures and an own one, a check, and an ablation."""
    folder = tmp_path_factory.mktemp("report")
    split = {"protocol": "split"}
    plan = Plan(
        name="everything",
        epochs=3,
        ablation={"epochs": 2},
        experiments=(
            {"model": "cnn", "protocol": ["kfold", "split"]},
            {"model": "transformer", "num_heads": [1, 4], "protocol": "kfold"},
            {"model": str(write_model(folder)), "width": 4} | split,
            {"model": "cnn", "test_fold": 3} | split,
        ),
        contrasts=(("cnn", "transformer-h1"),),
    )
    store = RunStore(folder / "runs")
    write_runs(store, plan)
    for experiment in ablation_experiments(plan, runs_dir=store.runs_dir):
        write_run(store, experiment.fits(DEMO)[0])
    store.save_baselines(DEMO, draw_baselines())
    save_plan(plan, folder / "plan.yaml")
    return build(folder, "pdf", "html", plan=folder / "plan.yaml", **FRONT_MATTER)


def draw_baselines() -> pd.DataFrame:
    """Answers to every clip of made-up runs, for each pair of folds."""
    random, n_classes = np.random.default_rng(0), len(DEMO.class_names)
    rows = pd.DataFrame(
        {
            "baseline": baseline,
            "val_fold": val_fold,
            "test_fold": test_fold,
            "clip_id": f"{test_fold}-{label}-0.wav",
            "source": f"{test_fold}-{label}-0",
            "fold": test_fold,
            "y_true": label,
        }
        for baseline in TITLES
        for val_fold, test_fold in permutations(DEMO.folds, 2)
        for label in range(n_classes)
    )
    shares = random.dirichlet(np.ones(n_classes), len(rows))
    return rows.join(pd.DataFrame(shares, columns=[f"p_{label}" for label in range(n_classes)]))


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Half of the fits of the last suite, on a data set called esc10, with classes named by somebody who means ill."""
    folder = tmp_path_factory.mktemp("incomplete")
    plan = Plan(name="part", dataset="esc10", epochs=2, experiments=({"model": "cnn", "protocol": ["kfold", "split"]},))
    sounds = replace(DEMO, name="esc10", class_names=(*HOSTILE, *DEMO.class_names[3:]))
    for run in write_runs(RunStore(folder / "runs"), plan, sounds):
        if run.config.val_fold in (2, 5):
            shutil.rmtree(run.path)
    save_plan(plan, folder / "runs" / "plan.yaml")
    return build(folder, "pdf", "html")


@pytest.fixture(scope="module")
def pdf(built: Built) -> Path:
    for program in ("pdftotext", "pdfimages", "pdffonts", "pdftoppm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed; `make system-packages` installs it")
    return built.pdf


def poppler(program: str, *arguments: str | Path) -> str:
    return subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def text_of(pdf: Path, *options: str) -> str:
    """Text with single spaces; without soft hyphens, and with words joined that were divided at a line's end."""
    text = poppler("pdftotext", "-layout", *options, pdf, "-").replace("\N{SOFT HYPHEN}", "").replace("\u200b", "")
    return " ".join(text.split())


# ------------------------------------------------------------------------------------------------------ what it says


def test_title_page(pdf: Path) -> None:
    text = text_of(pdf, "-l", "1")
    for words in (TITLE, "Ada Lovelace", "17", "Prof. Noether", "Deep listening", "23 November 2025", "Listen first."):
        assert words in text


def test_the_first_page_has_the_result_as_one_figure_abstract_and_findings(pdf: Path, built: Built) -> None:
    best = key_result(built.found.results)
    first = text_of(pdf, "-l", "1").replace("\N{NO-BREAK SPACE}", " ")
    assert f"{best.title} classifies {100 * best.mean('clip'):.1f} %" in first
    assert "5 experiments with 13 fits of 3 epochs" in first, "checks are not counted"
    assert re.findall(r"Figure (\d+)\. ", first) == ["1"]
    for number in ("1. Result.", "2. Generalisation.", "3. Silence."):
        assert number in first
    described = built.page.find("figure", id="fig:result").find("img")["alt"]
    for result in built.found.results:
        if result.experiment.protocol == "kfold":
            assert f"{result.architecture} {100 * result.mean('clip'):.1f}" in described
    assert all(title in described for title in TITLES.values())


@pytest.mark.parametrize("name", ["abstract", "findings", "discussion", "conclusion"])
def test_words_that_are_not_the_authors_are_marked(pdf: Path, name: str) -> None:
    assert f"write your own in report/text/{name}.md" in text_of(pdf)


def counterparts(name: str) -> dict[str, str]:
    """What the original report shows of an experiment, and the label of what stands in its place."""
    curves = {
        f"{split} {what}": f"fig:{name}-{what}" for split in ("training", "validation", "test") for what in CURVES
    }
    return curves | {"confusion matrix and F1": f"fig:{name}-confusion", "ROC and AUC": f"fig:{name}-roc"}


CURVES = ("loss", "accuracy")


def test_everything_that_the_original_showed_has_its_counterpart(pdf: Path, built: Built) -> None:
    anchors = {tag["id"] for tag in built.page.select("[id]")}
    text = text_of(pdf).replace("\N{NO-BREAK SPACE}", " ")
    assert len(built.found.experiments) == 5
    for result in built.found.experiments:
        assert set(counterparts(result.name).values()) <= anchors
        scores = result.scores("clip")
        assert "+".join(str(count) for count in scores.confusion.diagonal()) in text.replace(" + ", "+")
        assert f"= {scores.accuracy:.4f}" in text
    for label in (
        "tbl:cnn-layers",
        "tbl:transformer-layers",
        "fig:cnn-architecture",
        "tbl:cnn-kfold-fits",
        "sec:discussion",
    ):
        assert label in anchors, "layer tables, diagrams, best accuracies and losses, discussion"
    for words in ("16,000", "forward and backward pass 31.19 MB", "all 31.74 MB", "One window", "17", "Prof. Noether"):
        assert words.lower() in text.lower(), "window, sizes as torchsummary has them, cover"


def test_training_validation_and_test_of_every_fit_are_shown(built: Built) -> None:
    rows = table_rows(built, "Every fit: clip accuracies")
    shown = {tuple(row[:5]) for row in rows}
    for result in [*built.found.experiments, *built.found.checks]:
        for run in result.runs:
            scores, config = run.metrics["scores"], run.config
            shares = (f"{100 * scores[split]['clip']['accuracy']:.1f} %" for split in ("train", "validation", "test"))
            fit = ", ".join([result.architecture, *result.differences])
            assert (fit, f"folds {config.val_fold}, {config.test_fold}", *shares) in shown


def test_every_architecture_has_its_derivation_under_its_own_title(built: Built) -> None:
    text = built.text
    for words in ("128,682", "2,607,778", "One convolution, batch norm and a mean over time."):
        assert words in text
    architectures = next(tag for tag in built.page.select("main h1") if tag.get_text().endswith("Architectures"))
    titles = [heading.get_text(" ", strip=True) for heading in architectures.find_parent().select("h2")]
    assert [title.split(" ", 1)[1] for title in titles] == ["CNN", "Transformer", "My net"]
    listing = [block.get_text() for block in built.page.select("main pre")]
    assert [block.split("(")[0] for block in listing] == ["CNN", "ConvTransformer", "MyNet"]


def test_the_comparison_holds_means_intervals_and_where_more_is_shown(built: Built) -> None:
    text = built.text.partition("Test scores: clip accuracy")[2]
    for result in built.found.experiments:
        for level in ("window", "clip"):
            low, high = result.intervals[level]
            assert f"{100 * result.mean(level):.1f}" in text
            assert f"({100 * low:.1f} to {100 * high:.1f})" in text
    table = built.page.find(id="tbl:comparison")
    linked = {link["href"] for link in table.select("a")}
    assert linked == {f"#sec:{result.name}" for result in built.found.experiments}


def test_the_declared_contrasts_are_tested_and_no_others(built: Built) -> None:
    rows = table_rows(built, "Declared contrasts")
    tests = built.found.contrasts
    assert [row[:2] for row in rows] == [list(test.names) for test in tests]
    assert [row[3:5] for row in rows] == [[p_value(test.p), p_value(test.p_holm)] for test in tests]
    assert len(tests) == 1


def test_choices_errors_and_references_have_their_sections(built: Built) -> None:
    rows = table_rows(built, "What stands behind each architecture")
    assert [row[:2] for row in rows][:2] == [["CNN", "128,682"], ["Transformer, 1 head", "2,607,778"]]
    rotations = [result for result in built.found.results if result.is_rotation and result.is_complete]
    tested: dict[str, set[str]] = {}
    for result in rotations or built.found.results:
        clips = (run.predictions.query("split == 'test'")["clip_id"] for run in result.runs)
        tested.setdefault(result.architecture, set()).update(*clips)
    shared = len(set.intersection(*tested.values()))
    assert f"over the {shared} clips that all of these architectures are tested on" in built.text
    headings = [heading.get_text() for heading in built.page.select("h1, h2")]
    assert any(heading.endswith("References") for heading in headings)
    listed = built.text.rpartition("References")[2]
    assert "Efron, Bradley. 1987" in listed
    assert "Polyak" not in listed, "only works that the texts cite"


def table_rows(built: Built, caption: str) -> list[list[str]]:
    """Cells of the table with this caption, without the head."""
    (table,) = [
        table for table in built.page.find_all("table") if caption in table.find_parent(class_="table").get_text(" ")
    ]
    rows = [[cell.get_text(" ", strip=True) for cell in row.find_all("td")] for row in table.select("tbody tr")]
    return [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in rows]


def test_checks_and_baselines_stand_in_the_comparison_and_the_ablation_has_a_section(built: Built) -> None:
    *_, check, majority, forest = table_rows(built, "Test scores: clip")
    assert check[0] == "CNN, split, test fold 3"
    assert [row[:2] for row in (majority, forest)] == [[f"{title}, k-fold", "4"] for title in TITLES.values()]
    answers = draw_baselines().query("baseline == 'forest' and test_fold == 1")
    right = answers.filter(regex=r"^p_\d+$").to_numpy().argmax(1) == answers["y_true"]
    spread = right.groupby(answers["val_fold"]).mean().std()
    assert forest[2].startswith(f"{100 * right.mean():.1f} ± {100 * spread:.1f} % (")


def test_confidence_is_drawn_for_each_architecture(built: Built) -> None:
    drawn = built.page.find(id="fig:reliability").get_text(" ")
    assert "confidence" in drawn and "no class" not in drawn
    assert built.page.find(id="tbl:literature") is None, "others state nothing about the demo set"
    assert {row[1] for row in table_rows(built, "Clip accuracy; training and validation")} == set(CHANGES)


def test_the_original_is_compared_on_its_data_set_alone(built: Built, incomplete: Built) -> None:
    assert "as the original states them" not in built.text
    assert table_rows(incomplete, "as the original states them")[0][1] == "42.4 %"
    assert len(table_rows(incomplete, "F1 of windows per class")) == 10
    assert "Piczak, Karol J. 2015" in incomplete.text.rpartition("References")[2]


# --------------------------------------------------------------------------------------------------- what it must not


def test_every_page_says_that_the_data_is_the_demo_set(pdf: Path) -> None:
    for page in range(1, len(PdfReader(pdf).pages) + 1):
        assert DEMO_NOTICE in text_of(pdf, "-f", str(page), "-l", str(page))


def test_no_code_and_no_markup_is_seen(pdf: Path) -> None:
    text = text_of(pdf)
    assert [trace for trace in CODE_AND_MARKUP if trace in text] == []


def test_names_of_users_are_shown_as_they_are(incomplete: Built) -> None:
    for name in HOSTILE:
        assert name in incomplete.text


def test_other_data_is_not_called_the_demo_set(incomplete: Built) -> None:
    assert "50 clips from 50 source recordings" in incomplete.text
    assert DEMO_NOTICE not in incomplete.text


# ------------------------------------------------------------------------------------------------------ how it looks


def test_figures_are_vectors_and_fonts_are_embedded(pdf: Path) -> None:
    assert len(poppler("pdfimages", "-list", pdf).splitlines()) == 2, "nothing but the list's two head lines"
    fonts = poppler("pdffonts", pdf).splitlines()[2:]
    assert fonts
    assert [font for font in fonts if not re.search(r" yes (yes|no )\s+(yes|no )\s+\d+ +\d+$", font)] == []


def test_every_word_is_inside_the_margins(pdf: Path) -> None:
    words = re.findall(
        r'<word xMin="(.*?)" yMin="(.*?)" xMax="(.*?)" yMax="(.*?)">(.*?)</word>',
        poppler("pdftotext", "-bbox", pdf, "-"),
    )
    assert len(words) > 3000
    # A sign at a line's start or a full stop at its end hangs over by less than a millimetre; page numbers stand below.
    left, right, bottom = (25 - 0.9) * MILLIMETRE, (185 + 0.9) * MILLIMETRE, 290 * MILLIMETRE
    outside = [w for x0, _, x1, y1, w in words if float(x0) < left or float(x1) > right or float(y1) > bottom]
    assert outside == []


def test_captions_count_from_one_without_a_gap(pdf: Path, built: Built) -> None:
    notebook = nbformat.read(built.folder / "runs" / "report.ipynb", as_version=4)
    kinds = [
        output.metadata["report"]["kind"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "report" in output.get("metadata", {})
    ]
    text = text_of(pdf)
    for name, kind in (("Figure", "figure"), ("Table", "table")):
        numbers = [int(number) for number in re.findall(rf"{name} (\d+)\. [A-Z]", text)]
        assert sorted(set(numbers)) == list(range(1, kinds.count(kind) + 1))
    drawn = "the result, folds, confidence, recall, filters, three architectures, four of each experiment, the ablation"
    assert kinds.count("figure") == 5 + 3 + 4 * 5 + 1, drawn


def test_html_is_one_file_that_asks_for_nothing(built: Built) -> None:
    links = [tag[name] for name in ("src", "href", "data", "poster") for tag in built.page.select(f"[{name}]")]
    assert len(links) > 20
    clicked = [link for link in links if link.startswith(("https://doi.org/", "https://arxiv.org/abs/"))]
    assert clicked == [tag["href"] for tag in built.page.select("a[href^=https]")], "opened by a click alone"
    links = [link for link in links if link not in clicked]
    assert [link[:80] for link in links if not link.startswith(("#", "data:"))] == []
    assert len(built.page.find_all("math")) > 50
    targets = {tag["id"] for tag in built.page.select("[id]")}
    assert {link["href"][1:] for link in built.page.select("main a[href^='#']")} <= targets


def pages_of(pdf: Path) -> list[np.ndarray]:
    """Every page as grey values, two pixels for a millimetre."""
    images = []
    with TemporaryDirectory() as folder:
        poppler("pdftoppm", "-gray", "-r", "50.8", pdf, f"{folder}/page")
        for file in sorted(Path(folder).iterdir()):
            header, content = file.read_bytes().split(b"255\n", 1)
            width, height = map(int, header.split()[1:3])
            images.append(np.frombuffer(content, np.uint8).reshape(height, width))
    return images


def test_no_page_but_a_chapters_last_is_blank_for_more_than_a_quarter(pdf: Path) -> None:
    pages = pages_of(pdf)
    assert len(pages) <= 30
    for number, page in enumerate(pages[:-1], start=1):
        following = text_of(pdf, "-f", str(number + 1), "-l", str(number + 1)).replace(DEMO_NOTICE, "")
        if re.match(r"\s*\d+ [A-Z]", following):
            continue  # a chapter begins
        body = page[48:-48]  # without head, number and margins of 24 mm
        last = np.flatnonzero((body < 200).any(axis=1)).max()
        assert last > 0.75 * len(body), f"page {number}"


def test_no_type_is_smaller_than_seven_points(pdf: Path) -> None:
    sizes = []
    for page in PdfReader(pdf).pages:
        fonts = {name: str(font["/BaseFont"]) for name, font in page["/Resources"]["/Font"].items()}
        for name, size in re.findall(r"(/\S+) ([\d.]+) Tf", page.get_contents().get_data().decode("latin-1")):
            sizes += [float(size)] if "STIX" in fonts[name] else []  # indices of formulas may be smaller
    assert len(sizes) > 100
    assert min(sizes) >= 7


def test_figures_of_the_report_itself_are_files(built: Built, figures_elsewhere: Path) -> None:
    drawn = {path.name for path in (figures_elsewhere / built.found.folder).iterdir()}
    assert drawn >= {f"{name}.{kind}" for name in ("result", "folds", "recall") for kind in ("svg", "pdf", "png")}


def test_any_section_can_be_left_out_and_references_still_hold(built: Built) -> None:
    notebook = nbformat.read(built.folder / "runs" / "report.ipynb", as_version=4)
    cells = enumerate(notebook.cells)
    heads = [number for number, cell in cells if number and cell.cell_type == "markdown" and cell.source[0] == "#"]
    for first, end in pairwise([*heads, len(notebook.cells)]):
        title = notebook.cells[first].source
        if title in ("# Data and method", "# Results", "## Comparison", "# References"):
            continue  # other sections refer to their tables, or to what follows them
        rest = NotebookNode(notebook | {"cells": [*notebook.cells[:first], *notebook.cells[end:]]})
        shown = read_report(rest, "html").blocks
        assert title.strip("# ") not in [plain_text(block) for block in shown if block["t"] == "Header"]


# -------------------------------------------------------------------------------------------------------- what lacks


def test_missing_fits_are_named_in_the_report_and_on_the_terminal(incomplete: Built) -> None:
    missing = [
        "missing of CNN: 4-fold cross-validation: validation folds 2, 5",
        "missing of CNN: train-test split: validation fold 2",
    ]
    assert incomplete.said == ["plan part on esc10: 2 of 4 fits are there", *missing]
    assert all(line in incomplete.text for line in missing)
    assert ["CNN, split", "0", "missing"] in [row[:3] for row in table_rows(incomplete, "Test scores: clip")]
    assert "Differences are tested between the complete rotations" in incomplete.text


def test_same_runs_make_the_same_pdf(incomplete: Built) -> None:
    before = incomplete.pdf.read_bytes()
    assert build(incomplete.folder, "pdf").pdf.read_bytes() == before


def test_without_any_run_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no finished fit"):
        build_report(runs_dir=tmp_path / "runs", output_dir=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
