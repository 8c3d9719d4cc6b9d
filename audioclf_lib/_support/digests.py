"""Short names for long contents."""

from __future__ import annotations

import hashlib
import json


def digest(content: object, digits: int = 8) -> str:
    """Hexadecimal digits that change with anything in ``content``: a text, or what JSON can write."""
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
