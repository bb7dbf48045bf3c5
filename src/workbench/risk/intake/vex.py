"""What suppliers say of vulnerabilities in their products: OpenVEX, and CSAF with that profile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from workbench.risk.intake.reading import Reading, mapping, text_of
from workbench.risk.records import STATES, State

__all__ = ["read_csaf", "read_openvex"]

_STATES: Final[dict[str, State]] = {state: state for state in STATES}
_PRODUCT_STATUS: Final[dict[str, State]] = {
    "first_affected": "affected", "known_affected": "affected", "last_affected": "affected",
    "under_investigation": "under_investigation",
    "first_fixed": "fixed", "fixed": "fixed",
    "known_not_affected": "not_affected",
}  # fmt: skip


def read_openvex(document: dict[str, Any], reading: Reading) -> None:
    """Take the statements of an OpenVEX document; a later one takes the place of an earlier one.

    Source:
        https://github.com/openvex/spec, "Updating statements with inherited data".
    """
    reading.format = "OpenVEX"
    newest: dict[tuple[str, str, str], tuple[float, State, list[Any]]] = {}
    for place, one in reading.objects(document.get("statements"), place="statements"):
        state = _STATES.get(text_of(one.get("status")))
        if not state:
            said = text_of(one.get("status"))[:40]
            reading.note(f"status {said!r} is unknown; taken as affected", place=place)
        why = [one.get(name) for name in ("justification", "impact_statement", "status_notes")]
        made = _seconds(one.get("timestamp") or document.get("timestamp"))
        for key in _openvex_keys(one, reading, place=place):
            said_before = newest.get(key)
            value = (made, state or "affected", why)
            if not said_before or made > said_before[0]:
                newest[key] = value
            elif made == said_before[0]:  # of two at once both stand, and contradict
                _say(reading, key, said_before)
                newest[key] = value
    for key, value in newest.items():
        _say(reading, key, value)


def _openvex_keys(
    one: dict[str, Any], reading: Reading, *, place: str
) -> Iterator[tuple[str, str, str]]:
    """Yield id, product and part of a statement."""
    meant = one.get("vulnerability")
    named = mapping(meant) or {"name": meant}
    aliases = named.get("aliases")
    subjects = reading.subjects(
        named.get("name") or named.get("@id"),
        aliases if isinstance(aliases, list) else (), place=place,
    )  # fmt: skip
    products = _openvex_products(one.get("products"), reading, place=f"{place}.products")
    if not products:
        reading.note("names no product; left out", place=place)
    for subject in subjects:
        for product, part in products:
            yield subject, product, part


def _openvex_products(value: Any, reading: Reading, *, place: str) -> list[tuple[str, str]]:
    """Return products and their parts; the first version had plain texts."""
    listed = value if isinstance(value, list) else []
    as_objects = [{"@id": one} if isinstance(one, str) else one for one in listed]
    pairs: list[tuple[str, str]] = []
    for where, product in reading.objects(as_objects, place=place):
        name = _identity(product)
        given = product.get("subcomponents")
        parts = [{"@id": one} if isinstance(one, str) else one for one in given or ()] if (
            isinstance(given, list)
        ) else []  # fmt: skip
        named = [_identity(part) for _, part in reading.objects(parts, place=where)]
        if not name or (given and not any(named)):
            reading.note("has no id that can be read; left out", place=where)
            continue
        pairs += [(name, part) for part in filter(None, named)] or [(name, "")]
    return pairs


def _identity(one: dict[str, Any]) -> str:
    purl = mapping(one.get("identifiers")).get("purl")
    return text_of(purl, 500) or text_of(one.get("@id"), 500)


def _say(
    reading: Reading, key: tuple[str, str, str], value: tuple[float, State, list[Any]]
) -> None:
    subject, product, part = key
    _, state, why = value
    parts = [part] if part else ()
    reading.add_statement(subject, state=state, why=why, products=[product], parts=parts)


def _seconds(value: Any) -> float:
    try:
        return datetime.fromisoformat(text_of(value)).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def read_csaf(document: dict[str, Any], reading: Reading) -> None:
    """Take the product statuses of a CSAF 2 document.

    Source:
        OASIS CSAF 2.0, sections 3.2.2 (product tree) and 3.2.3.9 (product status), profile 4.5.
    """
    reading.format = "CSAF VEX"
    names = _products(mapping(document.get("product_tree")), reading)
    for place, one in reading.objects(document.get("vulnerabilities"), place="vulnerabilities"):
        ids = [also.get("text") for _, also in reading.objects(one.get("ids"), place=place)]
        reasons = _reasons(one, reading, place=place)
        for subject in reading.subjects(one.get("cve") or next(iter(ids), ""), ids, place=place):
            for name, products in mapping(one.get("product_status")).items():
                state = _PRODUCT_STATUS.get(name)
                for product in products if state and isinstance(products, list) else ():
                    whole, part = names.get(text_of(product), (text_of(product), ""))
                    reading.add_statement(
                        subject, state=state or "affected", why=reasons.get(product, ())
                        if isinstance(product, str) else (), products=[whole],
                        parts=[part] if part else (),
                    )  # fmt: skip


def _products(tree: dict[str, Any], reading: Reading) -> dict[str, tuple[str, str]]:
    """Return product id → product and, where it is a component of it, that one."""
    names: dict[str, tuple[str, str]] = {}
    levels = deque([tree.get("branches")])
    named = [one for _, one in reading.objects(tree.get("full_product_names"), place="products")]
    while levels:
        for _, branch in reading.objects(levels.popleft(), place="branches"):
            levels.append(branch.get("branches"))
            named.append(mapping(branch.get("product")))
    for one in named:
        helper = mapping(one.get("product_identification_helper"))
        name = text_of(helper.get("purl"), 500) or text_of(one.get("name"), 500)
        if (known_as := text_of(one.get("product_id"))) and name:
            names[known_as] = (name, "")
    for _, one in reading.objects(tree.get("relationships"), place="relationships"):
        known_as = text_of(mapping(one.get("full_product_name")).get("product_id"))
        whole, part = (
            names.get(text_of(one.get(name)), ("", ""))[0]
            for name in ("relates_to_product_reference", "product_reference")
        )
        if known_as and whole and part:
            names[known_as] = (whole, part)
    return names


def _reasons(one: dict[str, Any], reading: Reading, *, place: str) -> dict[str, list[Any]]:
    """Return product id → why: labels of flags, then details of threats."""
    reasons: dict[str, list[Any]] = {}
    for field, name in (("flags", "label"), ("threats", "details")):
        for _, told in reading.objects(one.get(field), place=f"{place}.{field}"):
            products = told.get("product_ids")
            for product in products if isinstance(products, list) else ():
                if isinstance(product, str):
                    reasons.setdefault(product, []).append(told.get(name))
    return reasons
