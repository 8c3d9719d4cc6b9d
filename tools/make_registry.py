"""For maintainers: write ``esc10_registry.csv`` anew from a copy of ESC-10.

    python tools/make_registry.py /path/to/ESC-10

Labels come from the folders, folds and source recordings from the file names (``fold-recording-take.ogg``), titles,
authors and licences from the data set's README.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd

from audioclf_lib._support.errors import InputError
from audioclf_lib.data.dataset import hash_files
from audioclf_lib.data.esc import REGISTRY

FOLDER = re.compile(r"\d{3} - (?P<label>.+)")
CLIP = re.compile(r"(?P<fold>\d)-(?P<source>\d+)-[A-Z]\.ogg")
CREDIT = re.compile(
    r"- \*\*\[(?P<clip>[^\]]+)\]\([^)]*\)\*\*:\s+clip derived from \[(?P<title>.*)\]\((?P<url>[^)]*)\)"
    r" by \*(?P<author>.*)\* \(\[(?P<licence>[^\]]+)\]\((?P<licence_url>[^)]*)\)\)"
)


def make_registry(folder: Path) -> pd.DataFrame:
    """One row for each clip: path, sha256, label, fold, source, and its credits.

    Raises:
        InputError: a folder, a file name or a credit does not follow the data set's scheme.
    """
    text = (folder / "README.md").read_text(encoding="utf-8")
    credits = {found["clip"]: found.groupdict() for found in CREDIT.finditer(text)}
    paths = sorted(folder.glob("*/*.ogg"))
    rows = []
    for path, checksum in zip(paths, hash_files(paths), strict=True):
        folder_name, file_name, credit = (
            FOLDER.fullmatch(path.parent.name),
            CLIP.fullmatch(path.name),
            credits.get(path.name),
        )
        if folder_name is None or file_name is None or credit is None:
            raise InputError(
                f"{path} is not named like a clip of ESC-10, or not credited in its README; check the copy"
            )
        rows.append(
            {
                "path": path.relative_to(folder).as_posix(),
                "sha256": checksum,
                "label": folder_name["label"].lower(),
                "fold": file_name["fold"],
                "source": file_name["source"],
                **{name: credit[name] for name in ("licence", "licence_url", "author", "title", "url")},
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/make_registry.py /path/to/ESC-10")
    make_registry(Path(sys.argv[1])).to_csv(REGISTRY, index=False, lineterminator="\n")
    print(f"wrote {REGISTRY}")
