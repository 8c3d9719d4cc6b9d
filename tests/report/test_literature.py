"""The results of others on ESC-10, and the works that are cited."""

from __future__ import annotations

import json

import pandas as pd
import pypandoc

from audioclf_lib.report.prose import DEFAULTS

RESULTS = pd.read_csv(DEFAULTS / "literature.csv")
WORKS = json.loads(pypandoc.convert_file(str(DEFAULTS / "literature.bib"), "csljson", format="bibtex"))


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
        assert 1900 < work["issued"]["date-parts"][0][0] < 2100, work["id"]
