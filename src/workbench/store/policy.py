"""How long what is kept: ``retention.yaml`` at the root of a project.

::

    compress_after_days: 7
    remove_after_days: 90
    usd_per_gb_month: 0.023
    price_source: Amazon S3 Standard, list price
    kinds:
      execution: {remove_after_days: 180}
      model: {remove_after_days: never}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown
from workbench.core.money import usd
from workbench.store.artifacts import KINDS

__all__ = ["RETAINED", "Policy", "Rule", "read_policy"]

RETAINED: tuple[str, ...] = (*KINDS, "run")
"""What has a time: the kinds of artifacts, and the folders of runs."""

_FILE = "retention.yaml"
_DAYS = ("compress_after_days", "remove_after_days")
_TOP = (*_DAYS, "usd_per_gb_month", "price_source", "kinds")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How long one kind is kept; ``inf`` is for ever."""

    compress_after_days: float = 7.0
    """Age from which on it is compressed, where that saves something."""
    remove_after_days: float = 90.0
    """Age from which on it is removed, but for what is said of it elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The rules of a project, and what a gigabyte costs."""

    usual: Rule = field(default_factory=Rule)
    kinds: Mapping[str, Rule] = field(default_factory=dict)
    """Kind → its own rule."""
    usd_per_gb_month: Decimal = Decimal("0.023")
    price_source: str = (
        "Amazon S3 Standard, first 50 TB, list price, 2022-07:"
        " https://gist.github.com/EverettBerry/a37438006529a55f42da6fdbc44a505c"
    )

    def rule(self, kind: str) -> Rule:
        """Return the rule of a kind."""
        return self.kinds.get(kind, self.usual)

    @property
    def price_version(self) -> str:
        """What ledger rows name as their price."""
        return f"${self.usd_per_gb_month} a GB-month: {self.price_source}"[:200]


def read_policy(root: Path) -> Policy:
    """Return the policy of a project; the usual one where it has no ``retention.yaml``.

    Raises:
        ConfigError: If the file cannot be read, or says something unknown.
    """
    import yaml

    file = root / _FILE
    if not file.exists():
        return Policy()
    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{file}: {reason}; correct the file") from None
    fields = _mapping(said or {}, str(file))
    refuse_unknown(fields, known=_TOP, where=str(file))
    usual = _rule(fields, Rule(), where=str(file))
    kinds = _mapping(fields.get("kinds") or {}, f"{file}, kinds")
    refuse_unknown(kinds, known=RETAINED, where=f"{file}, kinds")
    price: dict[str, Any] = {}
    if "usd_per_gb_month" in fields:
        price["usd_per_gb_month"] = amount = usd(fields["usd_per_gb_month"])
        if amount < 0:
            raise ConfigError(f"{file}: usd_per_gb_month {amount} is below 0; write the price")
        price["price_source"] = _FILE  # another price is not that of the usual source
    if "price_source" in fields:
        price["price_source"] = str(fields["price_source"])
    return Policy(
        usual=usual,
        kinds={
            kind: _rule(_own(one, f"{file}, {kind}"), usual, where=f"{file}, {kind}")
            for kind, one in kinds.items()
        },
        **price,
    )


def _own(said: Any, where: str) -> Mapping[str, Any]:
    fields = _mapping(said, where)
    refuse_unknown(fields, known=_DAYS, where=where)
    return fields


def _mapping(said: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where}: {str(said)[:60]!r}; write a mapping of fields")
    return said


def _rule(fields: Mapping[str, Any], usual: Rule, *, where: str) -> Rule:
    days = {name: getattr(usual, name) for name in _DAYS}
    for name in _DAYS:
        if name in fields:
            days[name] = _number(fields[name], f"{where}: {name}")
    return Rule(**days)


def _number(given: Any, where: str) -> float:
    if given == "never":
        return math.inf
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < math.inf:
        raise ConfigError(f"{where} {str(given)[:60]!r} is no number of days from 0 up; or: never")
    return float(given)
