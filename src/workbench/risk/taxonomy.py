"""Names of what model risks are called: OWASP's list of 2025 and MITRE ATLAS, ids and names only.

Source:
    OWASP Top 10 for LLM Applications 2025, genai.owasp.org; MITRE ATLAS 5.6.0, atlas.mitre.org.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from workbench.core.files import read_object
from workbench.core.settings import seeds_folder

__all__ = ["UNMAPPED", "known", "name_of", "owasp_llm"]

UNMAPPED: Final = "unmapped"
"""Subject of a model risk that fits neither list."""


def name_of(taxonomy_id: str) -> str:
    """Return the name of an id of OWASP or ATLAS; of another that it is unknown, never a guess."""
    if taxonomy_id == UNMAPPED:
        return "in no list"
    return _names().get(taxonomy_id, f"unknown id {taxonomy_id!r}")


def known(ids: Iterable[str]) -> tuple[str, ...]:
    """Return those ids that one of the lists has, in their order, each once."""
    return tuple(one for one in dict.fromkeys(ids) if one in _names())


def owasp_llm() -> Mapping[str, str]:
    """Return OWASP's list: id → name."""
    listed: Mapping[str, str] = _seeds()["owasp_llm"]
    return listed


@cache
def _names() -> dict[str, str]:
    return {**owasp_llm(), **_seeds()["atlas"]}


@cache
def _seeds() -> dict[str, Any]:
    return read_object(seeds_folder() / "risk" / "taxonomy.json")
