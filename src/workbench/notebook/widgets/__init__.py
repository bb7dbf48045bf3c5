"""Panels for notebooks: each reads the store, keeps nothing of it, and has a static twin.

``from workbench.notebook.widgets import monitor``, then ``monitor()`` at the end of a cell.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = [
    "cost", "experiments", "monitor", "pair_sets", "playground", "register", "scaling", "test_sets",
    "triage",
]  # fmt: skip


class _Panels(ModuleType):
    """Keeps the function of a panel where importing its module of the same name would hide it."""

    def __setattr__(self, name: str, value: Any) -> None:
        is_panel = name in __all__ and isinstance(value, ModuleType)
        super().__setattr__(name, getattr(value, name) if is_panel else value)


sys.modules[__name__].__class__ = _Panels


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{name}"), name)
