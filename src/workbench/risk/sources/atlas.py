"""ATLAS: techniques against AI systems, the ``AML.T`` ids of model risks.

Source:
    github.com/mitre-atlas/atlas-data, dist/ATLAS.yaml, Apache-2.0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from workbench.core.plain import one_line
from workbench.risk.sources.base import DAY_S, SOURCES, Fetched, Item, Service, WebSource, table_of

__all__ = ["Atlas", "parse_atlas"]

_SERVICE = Service(
    name="atlas",
    url="https://raw.githubusercontent.com/mitre-atlas/atlas-data/main/dist/ATLAS.yaml",
    ttl_s=7 * DAY_S,
    media=("text/plain", "application/yaml", "text/yaml", "application/octet-stream"),
)
_NAME = _SERVICE.name
_TECHNIQUE = re.compile(r"AML\.T\d{4}(\.\d{3})?", re.ASCII)
_MOST_EVENTS = 500_000
_MOST_DEPTH = 30
_SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()), ("name", pa.string()), ("tactics", pa.list_(pa.string())),
        ("attack", pa.string()),
    ]
)  # fmt: skip


@SOURCES.register(_NAME)
class Atlas(WebSource):
    """The whole list of techniques."""

    service = _SERVICE
    table = "atlas"

    async def fetch(self, ids: Sequence[str] = ()) -> Fetched:  # noqa: ARG002 - one of all
        """Return id, name, tactics and ATT&CK id of every technique; raises as any source."""
        got = await self.web.get(self.service, self.url, parse=parse_atlas)
        return self.fetched(got.value, as_of=got.on)


def parse_atlas(data: bytes) -> pa.Table:
    """Return the techniques of ``ATLAS.yaml`` as a table.

    Raises:
        DataError: If it is none; names the field.
    """
    rows = []
    for matrix in _yaml(data).rows("matrices", required=True):
        for one in matrix.rows("techniques", required=True):
            attack = one.field("ATT&CK-reference")
            rows.append(
                {
                    "id": one.match("id", _TECHNIQUE),
                    "name": one.line("name"),
                    "tactics": one.texts("tactics", most=20),
                    "attack": attack.text("id", most=20) if attack.value is not None else None,
                }
            )
    return table_of(rows, _SCHEMA)


def _yaml(data: bytes) -> Item:
    """Return a YAML document, every value of it a text; bounded before anything is built."""
    import yaml

    whole = Item(None, _NAME)
    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    depth = 0
    try:
        for count, event in enumerate(yaml.parse(data, Loader=loader)):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _MOST_DEPTH or count > _MOST_EVENTS:
                whole.refuse("has aliases, or is nested or long beyond measure")
        return Item(yaml.load(data, loader), _NAME)  # noqa: S506 - builds texts alone
    except (yaml.YAMLError, ValueError, TypeError) as error:
        whole.refuse(f"is not YAML ({one_line(str(error))[:100]})")
