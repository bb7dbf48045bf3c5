"""Names of what model risks are called: OWASP's list of 2025 and MITRE ATLAS, ids and names only.

Source:
    OWASP Top 10 for LLM Applications 2025, genai.owasp.org; MITRE ATLAS 5.6.0, atlas.mitre.org.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from workbench.core.errors import DataError
from workbench.core.files import read_object
from workbench.core.settings import seeds_folder

__all__ = ["UNMAPPED", "known", "name_of", "owasp_llm", "said_by", "techniques_of"]

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


def techniques_of(llm_id: str) -> tuple[str, ...]:
    """Return the ATLAS ids that go with an id of OWASP's list, those that OWASP names first.

    Raises:
        DataError: If the id is not in the list.
    """
    if llm_id not in owasp_llm():
        listed = ", ".join(owasp_llm())
        raise DataError(f"{llm_id!r} is not in OWASP's list of 2025; give one of {listed}")
    related = _seeds()["related"].values()
    return tuple(dict.fromkeys(one for by_id in related for one in by_id.get(llm_id, ())))


def said_by(llm_id: str, technique: str) -> str:
    """Return who relates the two: ``owasp``, ``workbench`` where it is our reading, or nobody."""
    related: Mapping[str, Mapping[str, list[str]]] = _seeds()["related"]
    return next((who for who, of in related.items() if technique in of.get(llm_id, ())), "")


@cache
def _names() -> dict[str, str]:
    return {**owasp_llm(), **_seeds()["atlas"]}


@cache
def _seeds() -> dict[str, Any]:
    return read_object(seeds_folder() / "risk" / "taxonomy.json")
