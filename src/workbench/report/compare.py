"""Two experiments side by side: every difference with its interval, no verdict without one.

What only one of them has is said, never filled in. The sections are those of
:mod:`workbench.report.pages.compare`.
"""

from __future__ import annotations

from pathlib import Path

from workbench.core.errors import ConfigError
from workbench.core.identity import text_id
from workbench.report.document import Frame, document
from workbench.report.evidence import Evidence, read_evidence
from workbench.report.index import report_folder
from workbench.report.pages import compare
from workbench.store.artifacts import write_atomic
from workbench.store.database import Store

__all__ = ["compare_file", "render_compare"]


def compare_file(other: str) -> str:
    """Return the name of the page that compares with another experiment."""
    is_name = report_folder(Path(), other) is not None
    return f"compare-{other if is_name else text_id(other)[:12]}.html"


def render_compare(store: Store, first: str, second: str, folder: Path) -> Path:
    """Return the page that sets a second experiment beside the first.

    Raises:
        ConfigError: If one of them never ran, or both are the same.
        StoreError: If the page cannot be written.
    """
    if first == second:
        raise ConfigError(f"{first!r} is to be compared with itself; name another experiment")
    sides: tuple[Evidence, Evidence] = (read_evidence(store, first), read_evidence(store, second))
    page = compare.page(*sides)
    frame = Frame(
        title=f"{first} and {second}",
        heading="{}",
        footer=["differences are the second experiment minus the first", "95 % intervals"],
    )
    file = folder / compare_file(second)
    write_atomic(file, document(page.name, [page], frame))
    return file
