"""For maintainers: give every notebook the same kernel and the same first code cell, which finds or installs audioclf.

    python tools/notebook_start.py notebooks/*.ipynb

The cell stands behind the notebook's first Markdown cell. A notebook that has both is not touched, byte for byte.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
FIRST_LINE = (
    "# Finds audioclf, or installs it: a wheel beside this notebook, else by name; torch and numpy stay as they are"
)
CELL = f"""{FIRST_LINE}
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("audioclf_lib") is None:
    kept = [name for name in ("torch", "torchaudio", "numpy") if importlib.util.find_spec(name)]
    pins = [f"{{name}}=={{importlib.metadata.version(name)}}" for name in kept]
    source = max(map(str, Path().glob("audioclf-*.whl")), default="audioclf")
    install = [sys.executable, "-m", "pip", "install", "-q", f"{{source}}[report,tune]", *pins]
    subprocess.run(install, check=True)
    importlib.invalidate_caches()"""


def with_start(notebook: dict[str, Any], stem: str) -> dict[str, Any]:
    """A notebook, as its file's JSON, with the kernel and the cell; its name gives the cell's id."""
    lines = CELL.splitlines(keepends=True)
    cell = {"cell_type": "code", "execution_count": None, "id": f"{stem[:2]}-start", "metadata": {}, "outputs": []}
    cells = [each for each in notebook["cells"] if "".join(each["source"]).partition("\n")[0] != FIRST_LINE]
    changed = [cells[0], cell | {"source": lines}, *cells[1:]]
    return notebook | {"cells": changed, "metadata": notebook["metadata"] | {"kernelspec": KERNEL}}


def main(paths: list[str]) -> None:
    """Change the notebooks that need it, and name them."""
    for path in map(Path, paths):
        before = json.loads(path.read_text(encoding="utf-8"))
        after = with_start(before, path.stem)
        if after != before:
            path.write_text(json.dumps(after, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
