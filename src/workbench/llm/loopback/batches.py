"""The loopback server's message batches: half the price, results once the batch has ended."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from workbench.llm.loopback.faults import RefusalError

__all__ = ["BATCHES", "Batches"]

BATCHES = "/v1/messages/batches"
_CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OUTCOMES = ("processing", "succeeded", "errored", "canceled", "expired")
_Json = dict[str, Any]


class Batches:
    """Create, list, retrieve and results, without the HTTP; each API key sees its own.

    Args:
        process: Gives the result of one request of a key, billed.
        delay_s: Seconds until a batch has ended.
    """

    def __init__(self, process: Callable[[_Json, str], _Json], *, delay_s: float) -> None:
        self._process, self._delay_s = process, delay_s
        self._batches: dict[tuple[str, str], _Json] = {}
        self._results: dict[str, str] = {}

    def create(self, body: Any, *, key: str, base_url: str) -> str:
        """Return a new batch as JSON; refuses requests that cannot be told apart."""
        try:
            names = [entry["custom_id"] for entry in body["requests"] if entry["params"]]
        except (KeyError, TypeError):
            raise RefusalError(400, "requests: each needs custom_id and params") from None
        if not names or len(set(names)) < len(names) or not all(map(_CUSTOM_ID.fullmatch, names)):
            raise RefusalError(400, "custom_id: must be unique and match [A-Za-z0-9_-]{1,64}")
        name = f"msgbatch_{len(self._batches) + 1:08d}"
        batch = self._batches[key, name] = {
            "id": name, "type": "message_batch", "processing_status": "in_progress",
            "request_counts": dict.fromkeys(_OUTCOMES, 0) | {"processing": len(names)},
            "created_at": _iso(time.time()), "expires_at": _iso(time.time() + 86_400),
            "ended_at": None, "results_url": None,
        }  # fmt: skip
        url = f"{base_url}{BATCHES}/{name}/results"
        asyncio.get_running_loop().call_later(self._delay_s, self._end, batch, body, key, url)
        return json.dumps(batch)

    def _end(self, batch: _Json, body: _Json, key: str, url: str) -> None:
        counts = Counter[str]()
        lines = []
        for entry in reversed(body["requests"]):  # no client may rely on the order
            result = self._process(entry, key)
            counts[result["type"]] += 1
            lines.append(json.dumps({"custom_id": entry["custom_id"], "result": result}))
        self._results[batch["id"]] = "\n".join(lines)
        batch["request_counts"] = {outcome: counts[outcome] for outcome in _OUTCOMES}
        batch |= {"processing_status": "ended", "ended_at": _iso(time.time()), "results_url": url}

    def look(self, path: str, *, key: str) -> str:
        """Return the key's batches as JSON, newest first, one of them, or lines of its results."""
        name, _, action = path.partition("/")
        mine = [batch for (owner, _), batch in self._batches.items() if owner == key]
        if not name:
            page = {"data": mine[::-1], "has_more": False, "first_id": None, "last_id": None}
            return json.dumps(page)
        if (key, name) not in self._batches or (action and name not in self._results):
            raise RefusalError(404, "no such batch, or it has not ended")
        return self._results[name] if action else json.dumps(self._batches[key, name])


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
