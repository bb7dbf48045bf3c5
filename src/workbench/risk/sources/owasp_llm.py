"""OWASP's list of risks of applications with language models: ids and names, no service.

Source:
    OWASP Top 10 for LLM Applications 2025, genai.owasp.org/llm-top-10, read 2026-08-22.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from workbench.risk.sources.base import SOURCES, Fetched, Service, WebSource
from workbench.risk.taxonomy import owasp_llm

if TYPE_CHECKING:
    from workbench.risk.sources.web import Web

__all__ = ["OwaspLlm"]

_AS_OF = "2024-11-18"
"""When the list was published."""


@SOURCES.register("owasp_llm")
class OwaspLlm(WebSource):
    """The list as this version knows it; nothing is asked."""

    service = Service(name="owasp_llm", url="https://genai.owasp.org/llm-top-10", ttl_s=0)
    table = "owasp_llm"

    def __init__(self, web: Web | None = None, *, base_url: str = "") -> None:
        del web
        self.url = base_url or self.service.url

    def requests(self, count: int) -> int:  # noqa: ARG002 - none whatever is asked
        """Return how many requests it takes: none."""
        return 0

    async def fetch(self, ids: Sequence[str] = ()) -> Fetched:  # noqa: ARG002 - one of all
        """Return id and name of every entry."""
        listed = owasp_llm()
        table = pa.table({"id": list(listed), "name": list(listed.values())})
        return self.fetched(table, as_of=_AS_OF)
