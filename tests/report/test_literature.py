"""The results of others on ESC-10, and the works that are cited."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pypandoc
import pytest

from audioclf_lib._support.paths import PUBLISHED_DIR
from audioclf_lib.report.prose import DEFAULTS, Prose, references

RESULTS = pd.read_csv(DEFAULTS / "literature.csv")
WORKS = json.loads(pypandoc.convert_file(str(DEFAULTS / "literature.bib"), "csljson", format="bibtex"))
ORIGINAL = "anonymous-original"  # unpublished: it names neither its author nor its date


def test_every_result_has_its_work_a_method_a_protocol_and_a_share_of_the_clips() -> None:
    assert list(RESULTS) == ["key", "what", "accuracy", "protocol", "remark"]
    assert set(RESULTS["key"]) <= {work["id"] for work in WORKS}
    assert RESULTS["accuracy"].between(0, 1, inclusive="right").all()
    assert RESULTS[["key", "what", "accuracy", "protocol"]].notna().all(axis=None)
    assert not RESULTS.duplicated(["key", "what"]).any()


def test_every_work_is_there_once_with_authors_title_and_year() -> None:
    text = (DEFAULTS / "literature.bib").read_text(encoding="utf-8")
    keys = [work["id"] for work in WORKS]
    assert len(keys) == len(set(keys)) == text.count("\n@")
    for work in WORKS:
        assert work["author"], work["id"]
        assert work["title"], work["id"]
        assert ("issued" in work) == (work["id"] != ORIGINAL), work["id"]
        assert work["id"] == ORIGINAL or 1900 < work["issued"]["date-parts"][0][0] < 2100, work["id"]


@pytest.mark.parametrize(
    ("text", "author"),
    [
        ("(BCa, Efron 1987)", "Efron, Bradley"),
        ("Holm's correction (1979)", "Holm, Sture"),
        ("in the way of Guo et al. (2017)", "Guo, Chuan"),
        ("the original course report (Anonymous n.d.)", "Anonymous. n.d."),
    ],
)
def test_a_work_is_listed_where_its_author_stands_beside_its_year(text: str, author: str) -> None:
    listed = references(text)
    assert listed.startswith(f"- {author}") and listed.count("\n") == 0


@pytest.mark.parametrize("text", ["**Limits.** Of 2019.", "Guo said so.", "Efron 1979", "Holmes 1979", ""])
def test_an_author_alone_another_year_and_a_part_of_a_word_are_no_citation(text: str) -> None:
    assert references(text) == ""


def test_of_two_works_of_an_author_the_one_that_is_named_is_listed() -> None:
    listed = references("EnvNet (Tokozume and Harada 2017)")
    assert "End-to-End" in listed and "Between-Class" not in listed
    assert "Between-Class" in references("", ["Tokozume 2018"])


def test_a_text_counts_as_read_however_it_is_shown(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "transformer.md").write_text("An encoder (Vaswani et al. 2017).")
    prose = Prose({}, tmp_path)
    prose.text("transformer")
    assert "Attention Is All You Need" in references(prose.read)


def test_every_work_that_the_texts_cite_is_in_the_bibliography() -> None:
    texts = [
        path.read_text(encoding="utf-8") for path in (*DEFAULTS.glob("*.md"), *(PUBLISHED_DIR / "text").glob("*.md"))
    ]
    cited = re.findall(r"([A-Z][a-z]+)(?: et al\.| and [A-Z]\w+)? \(?((?:19|20)\d\d)\)?", "\n".join(texts))
    assert len(cited) >= 5
    for author, year in cited:
        assert references(f"{author} {year}"), f"{author} {year}"
