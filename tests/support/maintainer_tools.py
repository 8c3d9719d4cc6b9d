"""The programs in ``tools/``, which is no package, as modules."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from conftest import PROJECT_ROOT


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PROJECT_ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
