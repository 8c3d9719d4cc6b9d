"""A course folder: a project without the library's source, whose notebooks, plans and texts are there to be changed."""

from __future__ import annotations

from pathlib import Path

from audioclf_lib._support.paths import SHIPPED, explained, replace_file

LAID = (
    *("notebooks/*.ipynb", "examples/*.py", "workflow/plans/*.yaml", "workflow/studies/*.yaml"),
    *("workflow/profiles/*/*", "report/README.md", "report/text/*.md", "data/README.md"),
)
RENAMED = {"workflow/course/README.md": "README.md", "workflow/course/gitignore": ".gitignore"}


def lay_course(folder: Path) -> tuple[list[Path], list[Path]]:
    """Lay a course folder, or add to one what it lacks; no file that is there already is changed.

    Args:
        folder: made where it is missing.

    Returns:
        The files that were written, and those that were there.

    Raises:
        InputError: the folder or a file in it cannot be written.
    """
    sources = {folder / path.relative_to(SHIPPED): path for pattern in LAID for path in sorted(SHIPPED.glob(pattern))}
    sources |= {folder / name: SHIPPED / source for source, name in RENAMED.items()}
    there = [path for path in sources if path.exists()]
    missing = [path for path in sources if path not in there]
    with explained(folder, "choose another folder"):
        for path in missing:
            replace_file(path, sources[path].read_bytes())
    return missing, there
