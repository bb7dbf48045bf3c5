"""The states of a register as OpenVEX 0.2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from workbench.core.plain import one_line
from workbench.risk.export.cyclonedx import JUSTIFICATIONS

if TYPE_CHECKING:
    from workbench.risk.register import Assessment

__all__ = ["to_openvex"]

_Product = tuple[str, bool]
_JUSTIFICATIONS: Final = frozenset({
    "component_not_present", "vulnerable_code_not_present", "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary", "inline_mitigations_already_exist",
})  # fmt: skip


def to_openvex(assessment: Assessment) -> dict[str, Any]:
    """Return the JSON of what is said of vulnerabilities: assets are products, with components.

    Source:
        OpenVEX specification 0.2.0: what is affected has an action, what is not has a reason.
    """
    from workbench import __version__

    name = f"prompt-safety-workbench:{assessment.id}:openvex"
    # Of one asset a component may be meant here and the whole there: two products.
    statements: dict[tuple[tuple[str, str], ...], dict[_Product, list[dict[str, str]]]] = {}
    for row in assessment.table.to_pylist():
        if row["kind"] == "cve":
            products = statements.setdefault(tuple(_said(row).items()), {})
            product = _iri(row["asset"]) or "asset", bool(row["component"])
            inside = products.setdefault(product, [])
            if row["component"]:
                inside.append({"@id": _component(row["component"])})
    return {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": f"urn:uuid:{uuid5(NAMESPACE_URL, name)}",
        "author": "prompt-safety-workbench",
        "timestamp": f"{assessment.manifest['today']}T00:00:00Z",
        "version": 1,
        "tooling": f"prompt-safety-workbench {__version__}",
        "statements": [_statement(dict(said), found) for said, found in statements.items()],
    }


def _statement(
    said: Mapping[str, str], products: Mapping[_Product, list[dict[str, str]]]
) -> dict[str, Any]:
    told = [
        {"@id": product, **({"subcomponents": inside} if inside else {})}
        for (product, _), inside in products.items()
    ]
    rest = {name: value for name, value in said.items() if name != "name"}
    return {"vulnerability": {"name": said["name"]}, "products": told, **rest}


def _said(row: Mapping[str, Any]) -> dict[str, str]:
    """Return what is said, the same for all products of one statement."""
    state, reason = row["state"], one_line(row["reason"])
    said = {"name": one_line(row["subject"]), "status": state}
    if state == "not_affected":
        word = JUSTIFICATIONS.get(reason) or reason
        if word in _JUSTIFICATIONS:
            return said | {"justification": word}
        return said | {"impact_statement": reason or "not affected"}
    if state == "affected":
        said["action_statement"] = _action(row)
    return said | ({"status_notes": reason} if reason else {})


def _action(row: Mapping[str, Any]) -> str:
    if row["status"] != "open":
        return f"None: {row['status']} by a person."
    fixed = one_line(row["fixed_in"])
    what = f"Update to {fixed} or later" if fixed else "Mitigate or update"
    return f"{what} {'by ' + row['due'] if row['due'] else 'with the next upgrade'}."


def _component(component: str) -> str:
    text = one_line(component)
    is_purl = text.startswith("pkg:") and " " not in text
    return text if is_purl else _iri(component)


def _iri(name: str) -> str:
    """Return a name as a relative IRI: plain names stay what they are."""
    return quote(name, safe="!$&'()*+,;=:@/~")
