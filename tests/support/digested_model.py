"""A class with the syntax whose trees differ between versions of Python; its digest is a fixed value of a test."""

from typing import Any

SCALE = 2.5


class Digested:
    """Documentation."""

    def __init__(self, width: int = 3, *, name: str = "x", **rest: Any) -> None:
        self.text = f"{name!r:>{width}} and {width * SCALE:.2f}"
        self.values = [value for value in range(width) if value]
        self.rest = {**rest, "a": lambda x: x**2}

    def forward(self, x: Any) -> Any:
        match x:
            case [first, *_]:
                return first[..., ::2] @ x
            case _:
                return (yield from ())
