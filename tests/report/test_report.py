"""The report of finished runs, from run folders to PDF and HTML: what it says, what it must not show, how it looks."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from audioclf_lib.suite.trials import COLUMNS as TRIAL_COLUMNS
from audioclf_lib.suite.trials import RECORD
from bs4 import BeautifulSoup
from pypdf import PdfReader
from small_suite import CLASSES, SmallSuite, small_suite
from synthetic import write_diagnosis, write_runs

from audioclf_lib.report.build import build_report
from audioclf_lib.report.results import ExperimentResult, compare_kfold, gather, gather_diagnosis
from audioclf_lib.report.sections import DEMO_NOTICE
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.plan import Plan, load_plan, save_plan

TITLE = "Sounds & what two networks make of them"
AUTHORS = ["Ada Lovelace", "Grace Hopper"]
FRONT_MATTER = {"title": TITLE, "authors": "; ".join(AUTHORS), "course": "Deep listening", "date": "23 November 2025"}
CODE_AND_MARKUP = ("\\", "$", "[@", "@fig:", "@tbl:", "{#", "```", "**", "sections.", "import ", "<p>", "Traceback")
MILLIMETRE = 72 / 25.4


@dataclass(frozen=True)
class Built:
    """A report and the results that it must show."""

    folder: Path
    results: list[ExperimentResult]

    @property
    def pdf(self) -> Path:
        return self.folder / "report.pdf"

    @property
    def html(self) -> str:
        return (self.folder / "report.html").read_text(encoding="utf-8")

    @property
    def notebook(self) -> Path:
        return self.folder / "runs" / "report.ipynb"


def require(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed; `make system-packages` installs it")


@pytest.fixture(autouse=True, scope="module")
def figures_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Made-up results must not replace the figures in the project's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIOCLF_FIGURES", str(tmp_path_factory.mktemp("figures")))
        yield


def build(folder: Path, plan: Plan, *formats: str) -> Built:
    """The report of what lies in ``folder/runs``."""
    save_plan(plan, folder / "plan.yaml")
    build_report(folder / "plan.yaml", runs_dir=folder / "runs", output_dir=folder, formats=formats, **FRONT_MATTER)
    return Built(folder, gather(plan, folder / "runs"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("report")
    plan = load_plan("demo")
    write_runs(RunStore(folder / "runs"), plan)
    write_diagnosis(RunStore(folder / "runs"), plan)
    return build(folder, plan, "pdf", "html")


@pytest.fixture(scope="module")
def pdf(built: Built) -> Path:
    require("pdftotext", "pdfimages", "pdffonts")
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
    for words in (TITLE, *AUTHORS, FRONT_MATTER["course"], FRONT_MATTER["date"]):
        assert words in text


def test_every_experiment_has_its_heading_and_its_accuracy_written_out(pdf: Path, built: Built) -> None:
    text = text_of(pdf)
    assert len(built.results) == 8
    for result in built.results:
        assert re.search(rf"\d\.\d {re.escape(result.title)}", text)
        scores = result.scores()
        diagonal = [str(scores.confusion[label, label]) for label in range(10)]
        assert "+".join(diagonal) in text.replace(" + ", "+")
        assert f"= {scores.accuracy:.4f}" in text


def test_parameters_and_sizes_are_those_of_the_architectures(pdf: Path) -> None:
    text = text_of(pdf)
    assert "128,682" in text
    assert "2,607,778" in text
    assert "another test fold" not in text, "the plan has no checks"
    for label, megabytes in (
        ("Input size", "0.06"),
        ("Forward and backward pass", "31.19"),
        ("Parameters size", "0.49"),
        ("Estimated total size", "31.74"),
    ):
        assert f"{label} (MB) {megabytes}" in text


def test_the_comparison_holds_every_experiments_mean(pdf: Path, built: Built) -> None:
    text = text_of(pdf)
    for result in built.results:
        values = result.values("clip")
        assert f"{100 * sum(values) / len(values):.1f}" in text


def test_the_comparison_holds_intervals_averages_and_calibration_errors(pdf: Path, built: Built) -> None:
    comparison = text_of(pdf).rpartition("All experiments on the test fold")[2].partition("Figure")[0]
    for result in built.results:
        intervals = [*result.intervals.values(), *([result.averaged_interval] if result.is_averaged else [])]
        for low, high in intervals:
            assert f"({100 * low:.1f} to {100 * high:.1f})" in comparison
        assert f"{result.calibration.ece:.3f}" in comparison
    assert sum(result.is_averaged for result in built.results) == 4


def test_all_pairs_of_cross_validations_are_tested_and_no_split_is(pdf: Path, built: Built) -> None:
    text = text_of(pdf).rpartition("Cross-validated experiments in pairs")[2].partition("By McNemar")[0]
    tests = compare_kfold(built.results)
    assert len(tests) == 6
    for test in tests:
        counts = rf"{test.right[0]} ?: ?{test.right[1]} {test.only[0]} ?: ?{test.only[1]}"
        assert re.search(rf"{counts} {test.p:.3f} {test.p_holm:.3f}", text)
    assert "split" not in text
    assert "k-fold" not in text, "the pairs are architectures and head counts"


def test_every_page_says_that_the_data_is_the_demo_set_and_has_its_number(pdf: Path) -> None:
    pages = len(PdfReader(pdf).pages)
    for page in range(1, pages + 1):
        text = text_of(pdf, "-f", str(page), "-l", str(page))
        assert DEMO_NOTICE in text
        assert page == 1 or re.search(rf"\b{page} ?/ ?{pages}\b", text)


def test_why_the_original_failed_has_a_section_with_its_scores(pdf: Path, built: Built) -> None:
    text = text_of(pdf)
    section = text[text.rindex("Why the original failed") :]
    cases = gather_diagnosis(load_plan("demo"), built.folder / "runs")
    assert cases is not None
    assert len(cases) == 15
    for case in cases:
        assert case.run is not None
        assert case.variant.name in section
        assert f"{100 * case.run.metrics['scores']['test']['window']['accuracy']:.1f}" in section
    assert "Missing:" not in text


# ------------------------------------------------------------------------------------------------------ how it looks


def test_no_code_and_no_markup_is_seen(pdf: Path) -> None:
    text = text_of(pdf)
    assert [trace for trace in CODE_AND_MARKUP if trace in text] == []


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
    notebook = nbformat.read(built.notebook, as_version=4)
    kinds = [
        output.metadata["report"]["kind"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "report" in output.get("metadata", {})
    ]
    text = text_of(pdf)
    for name, kind in (("Figure", "figure"), ("Table", "table")):
        numbers = [int(number) for number in re.findall(rf"{name} (\d+)\. [A-Z]", text)]
        assert numbers == list(range(1, kinds.count(kind) + 1))
    drawn = "two architectures, four for each experiment, the comparison, reliability, and two of the diagnosis"
    assert kinds.count("figure") == 2 + 4 * 8 + 2 + 2, drawn


# --------------------------------------------------------------------------------------------------------------- HTML


def test_html_is_one_file_that_asks_for_nothing(built: Built) -> None:
    page = BeautifulSoup(built.html, "html.parser")
    links = [tag[name] for name in ("src", "href", "data", "poster") for tag in page.select(f"[{name}]")]
    assert len(links) > 20
    assert [link[:80] for link in links if not link.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\((?!['\"]?(data:|#))", built.html)
    for link in page.select("main a[href^='#']"):
        assert page.find(id=link["href"][1:]) is not None


def test_html_shows_mathematics_headings_and_every_figure(built: Built) -> None:
    page = BeautifulSoup(built.html, "html.parser")
    assert len(page.find_all("math")) > 50
    assert len(page.find_all("figure")) == len(page.select("figure img, figure svg, figure object"))
    headings = [heading for heading in page.select("main h1, main h2") if "unnumbered" not in heading.get("class", [])]
    assert all(heading.select(".header-section-number") for heading in headings)
    text = page.get_text(" ")
    for result in built.results:
        assert result.title in text
    assert DEMO_NOTICE in text
    for annotation in page.find_all("annotation"):
        annotation.decompose()
    assert [trace for trace in CODE_AND_MARKUP if trace in page.main.get_text()] == []


# --------------------------------------------------------------------------------------------------------- what lacks


@pytest.fixture(scope="module")
def incomplete(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All that is left are two fits of one experiment."""
    folder = tmp_path_factory.mktemp("incomplete")
    for val_fold in (3, 4):
        (found,) = RunStore(built.folder / "runs").find(num_heads=2, val_fold=val_fold)
        shutil.copytree(found.path, folder / "runs" / "demo" / found.path.name)
    return build(folder, load_plan("demo"), "pdf")


def test_missing_experiments_and_fits_are_named(incomplete: Built) -> None:
    require("pdftotext")
    text = text_of(incomplete.pdf)
    assert text.count("Missing:") == 8 + 1, "all experiments, and the diagnosis as a whole"
    assert "no fit of the diagnosis has been trained yet" in text
    for result in incomplete.results:
        assert re.search(rf"\d\.\d {re.escape(result.title)}", text)
    partly = r"Missing: of Transformer, 2 heads: 4-fold cross-validation, .{,40} validation folds? 2 and 5"
    assert re.search(partly, text)
    comparison = text.rpartition("All experiments on the test fold")[2]
    assert comparison.count("missing") >= 7


def test_same_runs_make_the_same_pdf(incomplete: Built) -> None:
    before = incomplete.pdf.read_bytes()
    build(incomplete.folder, load_plan("demo"), "pdf")
    assert incomplete.pdf.read_bytes() == before


def test_without_any_run_there_is_a_report_of_the_method(tmp_path: Path) -> None:
    text = BeautifulSoup(build(tmp_path, load_plan("demo"), "html").html, "html.parser").get_text(" ")
    assert "No fit has been trained yet" in " ".join(text.split())
    assert text.count("Missing:") == 8 + 1
    assert "no fit of the diagnosis has been trained yet" in " ".join(text.split())
    assert "128,682" in text


def test_a_plan_of_one_experiment_with_another_seed_has_a_report(tmp_path: Path) -> None:
    plan = Plan(name="one", epochs=3, seeds=(1,), experiments=({"model": "cnn", "protocol": "split"},))
    write_runs(RunStore(tmp_path / "runs"), plan)
    text = BeautifulSoup(build(tmp_path, plan, "html").html, "html.parser").get_text(" ")
    assert "CNN: train-test split (seed 1)" in text
    assert "Missing:" not in text
    assert "eight experiments" not in text
    assert "tuning trials" not in text
    assert "Why the original failed" not in text, "the plan has no diagnosis"


def test_checks_and_trials_are_shown_apart(tmp_path: Path) -> None:
    split = {"model": "cnn", "protocol": "split"}
    plan = Plan(name="one", epochs=3, experiments=(split,), checks=(split | {"test_fold": 3},))
    write_runs(RunStore(tmp_path / "runs"), plan)
    trial = {"trial": "relu-first", "why": "does it help?", "model": "cnn", "epochs": 4, "val_fold": 2, "kept_epoch": 3}
    record = pd.DataFrame(
        [dict.fromkeys(TRIAL_COLUMNS, 0.25) | trial | {"num_heads": None, "settings": "{}", "fit": "cnn-val2"}]
    )
    RunStore(tmp_path / "runs").write_table(RECORD, record)
    missing = plan.changed(checks=[*plan.model_dump()["checks"], split | {"test_fold": 4}])
    text = " ".join(BeautifulSoup(build(tmp_path, missing, "html").html, "html.parser").get_text(" ").split())
    assert re.search(r"5.2 The same recipe on another test fold", text)
    assert re.search(r"The CNN under the train-test split classifies .* of the clips of test fold 3 correctly", text)
    assert "Missing: of CNN: train-test split (test fold 4) , the fit with validation fold 5 has not" in text
    assert "1 experiment with 1 fit" in text, "checks are not counted"
    assert re.search(r"Appendix: tuning trials .* relu-first: does it help\? cnn 4 25.0 % 25.0 % 0.25 2", text)


# ------------------------------------------------------------------------------------------------- make report, small


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> SmallSuite:
    return small_suite(tmp_path_factory.getbasetemp() / "small-suite")


def test_make_reports_path_ends_well_and_says_what_was_made(suite: SmallSuite) -> None:
    assert (suite.suite.returncode, suite.report.returncode) == (0, 0), suite.suite.stderr + suite.report.stderr
    assert suite.report.stdout.splitlines() == ["report: report/report.pdf", "report: report/report.html"]
    for name, magic in (("report.pdf", b"%PDF"), ("report.html", b"<!DOCTYPE html>")):
        assert (suite.folder / "report" / name).read_bytes().startswith(magic)


@pytest.mark.parametrize(
    ("experiment", "fits"),
    [("cnn-kfold", "2/2"), ("cnn-split", "1/1"), ("transformer-h4-split", "1/1")],
)
def test_make_reports_path_shows_a_table_of_the_experiments(suite: SmallSuite, experiment: str, fits: str) -> None:
    scores = r"\d+\.\d( ± \d+\.\d)? %"
    row = rf"^ +{experiment} +done +(\d+ min )?\d+ s +{fits} +{scores} +{scores}"
    assert re.search(row, suite.suite.stdout, re.MULTILINE)


def test_the_users_own_sounds_are_reported_under_their_names_and_not_as_demo(suite: SmallSuite) -> None:
    require("pdftotext", "pdfimages")
    text = text_of(suite.folder / "report" / "report.pdf")
    assert "9 clips of 3 classes in 3 folds" in text
    assert "my-sounds" in text
    for name in CLASSES:
        assert name in text
    assert DEMO_NOTICE not in text
    assert "2-fold cross-validation" in text
