"""ServiceNow: assets from the table of configuration items, by queries that cannot be injected.

Source:
    docs.servicenow.com, Table API (``/api/now/table/{table}``), encoded query strings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

import pyarrow as pa

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown
from workbench.risk.records import EXPOSURES
from workbench.risk.sources.base import (
    SOURCES,
    Fetched,
    Item,
    Service,
    WebSource,
    json_of,
    table_of,
)
from workbench.risk.tables import SCHEMAS

if TYPE_CHECKING:
    from workbench.risk.sources.web import Web

__all__ = ["ASSET_FIELDS", "Operator", "Query", "ServiceNow", "Values", "parse_assets"]

_SERVICE = Service(
    name="servicenow",
    url="",
    ttl_s=300.0,
    rate=(5, 1.0),
    parallel=1,
    key_variable="SERVICENOW_TOKEN",
    key_header="Authorization",
    key_prefix="Bearer ",
    needs_key=True,
    most_bytes=1 << 26,
)
_NAME = _SERVICE.name
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,79}(\.[a-z][a-z0-9_]{0,79}){0,3}", re.ASCII)
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,79}", re.ASCII)
_SYS_ID = re.compile(r"[0-9a-zA-Z_-]{1,64}", re.ASCII)
_LEVEL = re.compile(r"([1-5])(?!\d)")
_PAGE = 1_000
_MOST_PAGES = 1_000
_LONGEST_VALUE = 500

Operator = Literal[
    "=", "!=", "<", "<=", ">", ">=", "IN", "NOT IN", "STARTSWITH", "ENDSWITH", "LIKE", "NOT LIKE",
    "ISEMPTY", "ISNOTEMPTY",
]  # fmt: skip
Values: TypeAlias = str | list[str] | tuple[str, ...]
_LISTS = ("IN", "NOT IN")
_ALONE = ("ISEMPTY", "ISNOTEMPTY")
_OPERATORS: Final = (
    "=", "!=", "<", "<=", ">", ">=", "STARTSWITH", "ENDSWITH", "LIKE", "NOT LIKE", *_LISTS,
    *_ALONE,
)  # fmt: skip

ASSET_FIELDS: Final[Mapping[str, str]] = {
    "id": "sys_id",
    "name": "name",
    "criticality": "busines_criticality",  # spelled so by ServiceNow
    "owner": "owned_by",
    "environment": "environment",
    "exposure": "u_exposure",
    "incident_usd": "u_incident_usd",
}
"""Column of an asset → field of a configuration item; those with ``u_`` are of one's own making."""


@dataclass(frozen=True, slots=True)
class Query:
    """An encoded query of the Table API, made of conditions; never of text that was put together.

    ``Query().where("operational_status", "=", "1").and_("name", "LIKE", "db").order_by("sys_id")``
    """

    conditions: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()

    def where(self, field: str, operator: Operator, value: Values = "") -> Self:
        """Return the query with a condition, which must hold as well.

        Args:
            field: Of the table; of one that it refers to after a dot.
            operator: One of :data:`Operator`.
            value: Several for ``IN``; none for ``ISEMPTY``.

        Raises:
            ConfigError: If something in it could be read as more than a condition.
        """
        return self._with("^", field, operator, value)

    and_ = where

    def or_(self, field: str, operator: Operator, value: Values = "") -> Self:
        """Return the query with an alternative to the last condition; raises as :meth:`where`."""
        if not self.conditions:
            raise ConfigError("servicenow query: or_ before any condition; begin with where")
        return self._with("^OR", field, operator, value)

    def order_by(self, field: str, *, descending: bool = False) -> Self:
        """Return the query with an order, which pages need; raises as :meth:`where`."""
        order = "^ORDERBYDESC" if descending else "^ORDERBY"
        return replace(self, orders=(*self.orders, order + _checked_field(field)))

    def parameters(self, *, fields: Sequence[str], limit: int, offset: int) -> dict[str, str]:
        """Return the ``sysparm_*`` parameters of one page; raises as :meth:`where`."""
        return {
            "sysparm_query": "".join((*self.conditions, *self.orders)).removeprefix("^"),
            "sysparm_fields": ",".join(map(_checked_field, fields)),
            "sysparm_limit": str(limit),
            "sysparm_offset": str(offset),
            "sysparm_display_value": "true",
            "sysparm_exclude_reference_link": "true",
        }

    def _with(self, joint: str, field: str, operator: str, value: Values) -> Self:
        refuse_unknown([operator], known=_OPERATORS, where="servicenow query")
        values = list(value) if isinstance(value, list | tuple) else [value]
        if operator in _ALONE and values != [""]:
            raise ConfigError(f"servicenow query: {operator} takes no value; leave it out")
        if not values or (operator not in _LISTS and len(values) > 1):
            raise ConfigError(
                f"servicenow query: {operator} is given {len(values)} values; give one, or one and"
                " more to IN"
            )
        is_list = operator in _LISTS
        text = ",".join(_checked_value(one, is_list=is_list) for one in values)
        condition = f"{joint}{_checked_field(field)}{operator}{text}"
        return replace(self, conditions=(*self.conditions, condition))


@SOURCES.register(_NAME)
class ServiceNow(WebSource):
    """Assets of one instance.

    Args:
        web: The one client.
        base_url: ``https://<instance>.service-now.com``; there is no other default.
        query: Which items; those in operation if not given. An order by ``sys_id``, on which
            pages rely, is added where it has none.
        ci_table: Table of configuration items.
        fields: Column of an asset → field, over :data:`ASSET_FIELDS`.
    """

    service = _SERVICE
    table = "assets"

    def __init__(
        self,
        web: Web,
        *,
        base_url: str = "",
        query: Query | None = None,
        ci_table: str = "cmdb_ci_service",
        fields: Mapping[str, str] = ASSET_FIELDS,
    ) -> None:
        super().__init__(web, base_url=base_url)
        refuse_unknown(fields, known=ASSET_FIELDS, where="servicenow fields")
        if not _TABLE.fullmatch(ci_table):
            raise ConfigError(
                f"servicenow: {ci_table!r} is no name of a table; e.g. cmdb_ci_server"
            )
        query = query or Query().where("operational_status", "=", "1")
        self._query = query if query.orders else query.order_by("sys_id")
        self._ci_table = ci_table
        self._fields = {**ASSET_FIELDS, **fields}

    async def fetch(self, ids: Sequence[str] = ()) -> Fetched:
        """Return the assets, those of some ``sys_id`` if any are given; raises as any source."""
        query = self._query
        if ids:
            query = query.where(self._fields["id"], "IN", list(ids))
        url = f"{self.url}/api/now/table/{self._ci_table}"
        names = list(self._fields.values())
        rows: dict[str, dict[str, Any]] = {}
        as_of = ""
        for page in range(_MOST_PAGES):
            got = await self.web.get(
                self.service,
                url,
                query=query.parameters(fields=names, limit=_PAGE, offset=page * _PAGE),
                parse=partial(_rows, fields=self._fields),
            )
            as_of = min(as_of or got.on, got.on)
            known = len(rows)
            rows |= {row["id"]: row for row in got.value}
            if not got.value:  # a short page may lack what its user may not see
                break
            if len(rows) == known:
                Item(None, _NAME, "result").refuse("repeats itself, sysparm_offset is ignored")
        else:
            Item(None, _NAME, "result").refuse(f"goes on after {_MOST_PAGES * _PAGE:,} items")
        return self.fetched(table_of(rows.values(), SCHEMAS["assets"]), as_of=as_of)


def parse_assets(data: bytes, *, fields: Mapping[str, str] = ASSET_FIELDS) -> pa.Table:
    """Return a page of configuration items as assets.

    Raises:
        DataError: If it is none; names the field.
    """
    return table_of(_rows(data, fields=fields), SCHEMAS["assets"])


def _rows(data: bytes, *, fields: Mapping[str, str]) -> list[dict[str, Any]]:
    items = json_of(data, source=_NAME).rows("result", required=True)
    return [_row(item, fields) for item in items]


def _row(item: Item, fields: Mapping[str, str]) -> dict[str, Any]:
    level = _LEVEL.match(item.line(fields["criticality"]))
    exposure = item.line(fields["exposure"]).lower()
    return {
        "id": item.match(fields["id"], _SYS_ID),
        "name": item.line(fields["name"]),
        # There 1 is the most critical; four levels, so the least one is our 2.
        "criticality": 6 - int(level[1]) if level else None,
        "exposure": exposure if exposure in EXPOSURES else None,
        "owner": item.line(fields["owner"]),
        "environment": item.line(fields["environment"]),
        "incident_usd": _dollars(item.line(fields["incident_usd"])),
        "source": _NAME,
    }


def _dollars(text: str) -> float | None:
    """Return an amount as ServiceNow shows it, e.g. ``$12,000.00``; None where there is none."""
    plain = text.strip("$ ").replace(",", "")
    return float(plain) if re.fullmatch(r"\d{1,12}(\.\d{1,4})?", plain, re.ASCII) else None


def _checked_field(field: str) -> str:
    if not _FIELD.fullmatch(field):
        raise ConfigError(f"servicenow query: {field!r} is no name of a field; e.g. sys_id")
    return field


def _checked_value(value: str, *, is_list: bool) -> str:
    """Return a value that means itself: no further condition, no script, no second value."""
    if not isinstance(value, str) or len(value) > _LONGEST_VALUE or not value.isprintable():
        raise ConfigError(
            f"servicenow query: a value is no text, has line ends or over {_LONGEST_VALUE}"
            " characters; correct it"
        )
    if "^" in value or (is_list and "," in value) or "javascript:" in value.lower():
        raise ConfigError(
            f"servicenow query: value {value!r} holds ^, javascript: or, in a list, a comma, which"
            " ServiceNow would obey; leave it out"
        )
    return value
