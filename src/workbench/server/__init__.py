"""The Jupyter Server extension: REST, pages and a stream of changes, behind Jupyter's own login."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Return what Jupyter Server loads; imports it only then."""
    from workbench.server.extension import WorkbenchApp

    return [{"module": "workbench.server.extension", "app": WorkbenchApp}]
