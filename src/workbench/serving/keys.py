"""Keys of callers: made once, known by their hash, limited by the minute and by the day."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from workbench.core.errors import ConfigError
from workbench.core.money import ZERO
from workbench.core.settings import Secret
from workbench.serving.refusal import Overloaded, Refusal
from workbench.store.records import now
from workbench.store.service_keys import Key

__all__ = ["ANYBODY", "Key", "KeyRing", "new_key"]

_PREFIX = "wbk"
_MINUTE_S = 60.0
_NOBODY = Key(id="", owner="", digest="0" * 64)
ANYBODY = Key(id="open", owner="anybody")
"""Whoever calls a service that asks for no key."""


def new_key(
    *, owner: str, name: str, quota_credits_per_day: float | None, requests_per_minute: int | None
) -> tuple[Key, Secret]:
    """Return a new key's record, and the key itself: to be shown once and kept by its holder.

    Raises:
        ConfigError: If the quota is no number.
    """
    if not 0 <= (quota_credits_per_day or 0) < math.inf:
        raise ConfigError(f"{quota_credits_per_day} credits a day; it must be a number from 0 up")
    key_id = secrets.token_hex(6)
    secret = f"{_PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
    key = Key(
        id=key_id,
        owner=owner,
        name=name,
        digest=_digest(secret),
        created_at=now(),
        quota_credits_per_day=quota_credits_per_day,
        requests_per_minute=requests_per_minute,
    )
    return key, Secret(secret)


class KeyRing:
    """Knows keys, and what each has asked and used; of one event loop.

    Args:
        credit_usd: Dollars that a credit is.
        clock: Seconds that only rise.
    """

    def __init__(self, *, credit_usd: Decimal, clock: Callable[[], float] = time.monotonic) -> None:
        self._credit_usd, self._clock = credit_usd, clock
        self._keys: dict[str, Key] = {}
        self._used: Mapping[str, Decimal] = {}
        self._asked: dict[str, deque[float]] = {}

    def update(self, keys: list[Key], used_usd: Mapping[str, Decimal]) -> None:
        """Know these keys from now on, and the dollars of the day that each used."""
        self._keys = {key.id: key for key in keys if not key.revoked_at}
        self._used = used_usd
        self._asked = {name: times for name, times in self._asked.items() if name in self._keys}

    def find(self, headers: Mapping[str, str]) -> Key:
        """Return the key of a request, by ``Authorization: Bearer …`` or ``x-api-key: …``.

        Raises:
            Refusal: 401, if there is none, or one that opens nothing.
        """
        kind, _, given = headers.get("authorization", "").partition(" ")
        secret = headers.get("x-api-key", "") or (given.strip() if kind.lower() == "bearer" else "")
        parts = secret.split("_", 2)
        key = self._keys.get(parts[1], _NOBODY) if len(parts) == 3 else _NOBODY  # noqa: PLR2004
        if not hmac.compare_digest(key.digest, _digest(secret)):
            raise Refusal(
                401,
                "no key that is known here; send Authorization: Bearer KEY, as"
                " `workbench serve keys add` shows it",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return replace(key, digest="")

    def count(self, key: Key) -> None:
        """Count a request against the limits of its key.

        Raises:
            Overloaded: If it asked too often in the last minute, or the day's credits are used up.
        """
        limit = key.quota_credits_per_day
        used = self._used.get(key.id, ZERO) / self._credit_usd
        if limit is not None and used >= Decimal(str(limit)):
            tomorrow = datetime.now(UTC).date() + timedelta(days=1)
            midnight = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=UTC)
            left_s = (midnight - datetime.now(UTC)).total_seconds()
            raise Overloaded(
                left_s, f"the key's {limit:g} credits of the day are used up; a new day begins at"
                " midnight UTC", reason="quota",
            )  # fmt: skip
        if key.requests_per_minute is None:
            return
        times = self._asked.setdefault(key.id, deque(maxlen=key.requests_per_minute))
        now_s = self._clock()
        if len(times) == times.maxlen and (not times or now_s - times[0] < _MINUTE_S):
            left_s = times[0] + _MINUTE_S - now_s if times else _MINUTE_S
            raise Overloaded(
                left_s, f"the key may ask {key.requests_per_minute} times a minute", reason="rate"
            )
        times.append(now_s)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
