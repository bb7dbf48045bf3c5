"""The register for other programs: spreadsheets, documents, scanners and trackers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.core.errors import ConfigError
from workbench.store.artifacts import write_atomic

if TYPE_CHECKING:
    from workbench.risk.register import Assessment

__all__ = ["ENDINGS", "export", "format_of"]

ENDINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "csv": (".csv",),
    "docx": (".docx",),
    "cyclonedx": (".cdx.json", ".bom.json"),
    "vex": (".vex.json",),
    "openvex": (".openvex.json",),
}
"""Format → endings of file names. ``cyclonedx``: a vulnerability disclosure report; ``vex``: the
states alone, as CycloneDX."""


def export(assessment: Assessment, path: Path, *, form: str = "") -> str:
    """Write an assessment to a file, whole or not at all, and return the format.

    The same assessment gives the same bytes.

    Args:
        assessment: From ``risk.register``.
        path: The file; its ending tells the format.
        form: One of :data:`ENDINGS` instead.

    Raises:
        ConfigError: If there is no such format, or python-docx is not installed.
        StoreError: If the disk is full or read-only.
    """
    form = form or format_of(path)
    if form == "csv":
        from workbench.risk.export.table import to_csv

        data = to_csv(assessment.table).encode()
    elif form == "docx":
        from workbench.risk.export.word import to_docx

        data = to_docx(assessment)
    elif form in {"cyclonedx", "vex"}:
        from workbench.risk.export.cyclonedx import to_cyclonedx

        data = _json(to_cyclonedx(assessment, states_only=form == "vex"))
    elif form == "openvex":
        from workbench.risk.export.openvex import to_openvex

        data = _json(to_openvex(assessment))
    else:
        raise ConfigError(f"format {form!r}; {_known()}")
    write_atomic(path, data)
    return form


def format_of(path: Path) -> str:
    """Return the format that the name of a file asks for.

    Raises:
        ConfigError: If its ending is none that is known.
    """
    name = f".{path.name.lower()}"
    for form, endings in ENDINGS.items():
        if name.endswith(endings):
            return form
    raise ConfigError(f"{path}: ending of no known format; {_known()}")


def _known() -> str:
    told = ", ".join(f"{form} ({' '.join(endings)})" for form, endings in ENDINGS.items())
    return f"known: {told}"


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()
