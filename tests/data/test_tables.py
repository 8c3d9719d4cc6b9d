"""``labels.csv`` as Excel, pandas and other systems write it; what is ambiguous ends in one sentence."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from audio_files import make_folder
from hypothesis import given
from hypothesis import strategies as st

from audioclf_lib._support.errors import InputError
from audioclf_lib.data import dataset_facts
from audioclf_lib.data.tables import clean_label, leaves_folder, number_column, read_table

COLUMNS = {"filename": ("file", "path", "name"), "label": ("class",), "fold": ()}
TEXT = "filename,label,fold\na.wav,Tür,1\nb.wav,Möwe,2\n"
ROWS = [["a.wav", "Tür", "1"], ["b.wav", "Möwe", "2"]]


def read(folder: Path, content: bytes) -> list[list[str]]:
    (folder / "labels.csv").write_bytes(content)
    table = read_table(folder / "labels.csv", COLUMNS)
    assert list(table) == ["filename", "label", "fold"]
    return table.to_numpy().tolist()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", " ; "])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_delimiters_and_ends_of_lines(tmp_path: Path, encoding: str, delimiter: str, newline: str) -> None:
    text = TEXT.replace(",", delimiter).replace("\n", newline)
    assert read(tmp_path, text.encode(encoding)) == ROWS


VARIANTS: dict[str, Callable[[str], str]] = {
    "a first line for Excel": lambda text: "sep=;\n" + text.replace(",", ";"),
    "a first line for Excel with tabs": lambda text: "sep=\t\r\n" + text.replace(",", "\t"),
    "a quoted first line for Excel": lambda text: '"sep=,"\n' + text,
    "quotes around everything": lambda text: "\n".join(
        ",".join(f'"{entry}"' for entry in line.split(",")) for line in text.splitlines()
    ),
    "separators at the end of every line": lambda text: text.replace("\n", ",\n"),
    "separators at the end of the header": lambda text: text.replace("fold\n", "fold,,\n"),
    "separators at the end of the rows": lambda text: text.replace("1\n", "1,,\n").replace("2\n", "2,,\n"),
    "an index of pandas": lambda text: "".join(
        f"{'' if n == 0 else n - 1},{line}\n" for n, line in enumerate(text.splitlines())
    ),
    "headers in capitals, with spaces and underscores": lambda text: text.replace(
        "filename,label,fold", "File Name, LABEL ,_Fold"
    ),
    "other names": lambda text: text.replace("filename,label", "Path,class"),
    "a column of its own beside one that also might be it": lambda text: "".join(
        f"{line},{'name' if n == 0 else 'x'}\n" for n, line in enumerate(text.splitlines())
    ),
    "empty lines": lambda text: "\n" + text.replace("\n", "\n\n,,\n"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_spreadsheets_and_pandas_make_of_a_table(tmp_path: Path, variant: str) -> None:
    assert read(tmp_path, VARIANTS[variant](TEXT).encode()) == ROWS


def test_an_entry_may_hold_the_other_delimiter(tmp_path: Path) -> None:
    assert read(tmp_path, b'filename;label;fold\na, b.wav;"x; y";1\n') == [["a, b.wav", "x; y", "1"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,path,label,fold\n", "two columns for 'filename', 'file' and 'path',"),
        (b"Fold,fold,filename,label\n", "two columns for 'fold', 'Fold' and 'fold',"),
        (b"filename,fold\n", "no column 'label' or 'class'"),
        (b"filename,label,fold,\na.wav,x,1,,y\n", "line 2: there are 5 entries for 4 columns"),
        (b"filename,label,fold,\na.wav,x\n", "line 2: there are 2 entries for 4 columns"),
        ("filename".encode("utf-16"), "no column 'label'"),
        (b"\xff\xfef", "cannot be read"),
    ],
)
def test_what_is_ambiguous_or_incomplete_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("3", 3), ("1.0", 1), ("10.00", 10), ("2,0", 2), ("007", 7)])
def test_whole_numbers_are_read_however_they_are_written(tmp_path: Path, text: str, number: int) -> None:
    (tmp_path / "t.csv").write_text(f'filename,label,fold\na,b,"{text}"\n')
    table = read_table(tmp_path / "t.csv", COLUMNS)
    assert number_column(tmp_path / "t.csv", table["fold"]).tolist() == [number]


@pytest.mark.parametrize("text", ["1.5", "1.05", "1.", ".0", "1e0", "-1", "+1", "1.0.0", "nan", "1000000"])
def test_other_numbers_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(f'filename,label,fold\na,b,"{text}"\n')
    with pytest.raises(InputError, match="line 2: fold"):
        number_column(tmp_path / "t.csv", read_table(tmp_path / "t.csv", COLUMNS)["fold"])


SPOILT = st.text(
    alphabet=" \N{NO-BREAK SPACE}\N{EM SPACE}\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NO-BREAK SPACE}\N{SOFT HYPHEN}"
)


@given(st.sampled_from(["tür", "dog bark", "İstanbul", "鶏"]), SPOILT, SPOILT, st.sampled_from(["NFC", "NFD"]))
def test_labels_that_look_alike_are_alike(label: str, before: str, after: str, form: str) -> None:
    assert clean_label(before + unicodedata.normalize(form, label).replace(" ", "\N{NO-BREAK SPACE}") + after) == label


@given(st.text())
def test_a_clean_label_stays_as_it_is(text: str) -> None:
    assert clean_label(clean_label(text)) == clean_label(text)


# --- file names ------------------------------------------------------------------------------------------------------


def rename_in_table(folder: Path, old: str, new: str) -> None:
    table = folder / "labels.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("resolved", [False, True])
def test_absolute_paths_inside_the_folder_are_files_of_it(tmp_path: Path, resolved: bool) -> None:
    real = make_folder(tmp_path / "real")
    before = dataset_facts(real)
    (tmp_path / "link").symlink_to(real)
    rename_in_table(real, "low-1.wav", str((real if resolved else tmp_path / "link") / "low-1.wav"))
    assert dataset_facts(tmp_path / "link").fingerprint == before.fingerprint


@pytest.mark.parametrize(("disk", "table"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_unicode_form_than_the_disks_are_found(tmp_path: Path, disk: str, table: str) -> None:
    folder = make_folder(tmp_path / "sounds", classes=("low", "hoch"))
    (folder / "low-1.wav").rename(folder / unicodedata.normalize(disk, "tür-1.wav"))
    rename_in_table(folder, "low-1.wav", unicodedata.normalize(table, "tür-1.wav"))
    assert len(dataset_facts(folder).class_names) == 2


@given(st.text(alphabet="ab./\\:~", max_size=12))
def test_no_name_leads_out_of_its_folder_unnoticed(name: str) -> None:
    joined = Path("/folder", name.replace("\\", "/"))
    depth, parts = 0, joined.relative_to("/folder").parts if joined.is_relative_to("/folder") else ("..",)
    for part in parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            assert leaves_folder(name)
