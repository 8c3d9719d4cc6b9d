"""A button in a notebook that records with the browser's microphone."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

PAGE = Path(__file__).with_name("recorder.html")


def show_recorder(on_sound: Callable[[NDArray[np.int16]], object]) -> None:
    """Show the button; two seconds of sound at 16 kHz are handed to ``on_sound`` whenever it is pressed.

    The page records by itself and writes the samples into a hidden text field, which ipywidgets sends to the kernel. It
    works where a notebook's page may run scripts, as in JupyterLab.
    """
    from IPython.display import HTML, display
    from ipywidgets import Textarea

    def take(change: dict[str, Any]) -> None:
        on_sound(np.frombuffer(base64.b64decode(change["new"]), dtype=np.int16))

    field, name = Textarea(layout={"display": "none"}), f"audioclf-{uuid4().hex}"
    field.add_class(name)
    field.observe(take, "value")
    page = HTML(PAGE.read_text(encoding="utf-8").replace("NAME", name))  # type: ignore[no-untyped-call]
    display(page, field)  # type: ignore[no-untyped-call]
