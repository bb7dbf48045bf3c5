"""Opening what the commands work on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.store.database import Store

__all__ = ["EXIT_CODES", "open_here"]

EXIT_CODES = "Exit status: 0 ok, 1 failed, 2 bad input, 3 budget reached, 4 gate failed."


def open_here(root: Path | None = None) -> Store:
    """Return the store of a project, by default the one around the working folder."""
    from workbench.core.settings import read_settings
    from workbench.store.database import open_store

    return open_store(read_settings(root=root))
