"""The loopback server's message batches: half the price, results once the batch has ended."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from workbench.llm.loopback_faults import Refusal

__all__ = ["Batches", "Sender"]

_CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Sender(NamedTuple):
    """Who asks."""

    key: str
    """Fingerprint of the API key."""
    organization: str


@dataclass(kw_only=True)
class _Batch:
    id: str
    sender: Sender
    requests: list[dict[str, Any]]
    created: float = field(default_factory=time.time)
    ended: float | None = None
    is_canceled: bool = False
    results: list[dict[str, Any]] = field(default_factory=list)


class Batches:
    """Create, retrieve, list, cancel and results, without the HTTP.

    Args:
        process: Gives the result of one request, billed.
        delay_s: Seconds until a batch has ended.
    """

    def __init__(
        self, process: Callable[[dict[str, Any], Sender], dict[str, Any]], *, delay_s: float
    ) -> None:
        self._process, self._delay_s = process, delay_s
        self._batches: dict[str, _Batch] = {}

    def handle(
        self, path: str, *, body: Any, query: Mapping[str, str], sender: Sender, base_url: str
    ) -> dict[str, Any] | str | Refusal:
        """Return the JSON, or lines of JSON, of what is at a path below ``…/batches``.

        ``body`` is None for a GET.
        """
        address = f"{base_url}/v1/messages/batches"
        if not path:
            return (
                self._list(query, sender, address)
                if body is None
                else self._create(body, sender, address)
            )
        name, _, action = path.partition("/")
        batch = self._batches.get(name)
        if batch is None or batch.sender.organization != sender.organization:
            return Refusal(404, "no such batch")
        if action == "results":
            if batch.ended is None:
                return Refusal(404, "the batch has not ended")
            return "".join(json.dumps(result) + "\n" for result in batch.results)
        if action == "cancel" and not batch.ended:
            batch.is_canceled = True
            asyncio.get_running_loop().call_soon(self._end, batch)
        return _shown(batch, address)

    def _create(self, body: Any, sender: Sender, address: str) -> dict[str, Any] | Refusal:
        try:
            names = [entry["custom_id"] for entry in body["requests"] if entry["params"]]
        except (KeyError, TypeError):
            return Refusal(400, "requests: each needs custom_id and params")
        if not names or len(set(names)) < len(names) or not all(map(_CUSTOM_ID.fullmatch, names)):
            return Refusal(400, "custom_id: must be unique and match [A-Za-z0-9_-]{1,64}")
        name = f"msgbatch_{len(self._batches) + 1:08d}"
        batch = self._batches[name] = _Batch(id=name, sender=sender, requests=body["requests"])
        asyncio.get_running_loop().call_later(self._delay_s, self._end, batch)
        return _shown(batch, address)

    def _end(self, batch: _Batch) -> None:
        if batch.ended:
            return
        for entry in reversed(batch.requests):  # no client may rely on the order
            result = (
                {"type": "canceled"} if batch.is_canceled else self._process(entry, batch.sender)
            )
            batch.results.append({"custom_id": entry["custom_id"], "result": result})
        batch.ended = time.time()

    def _list(self, query: Mapping[str, str], sender: Sender, address: str) -> dict[str, Any]:
        mine = [
            batch for batch in self._batches.values()
            if batch.sender.organization == sender.organization
            and batch.id < query.get("after_id", "n")
        ][::-1]  # fmt: skip
        page = mine[: int(query.get("limit", "20"))]
        return {
            "data": [_shown(batch, address) for batch in page],
            "has_more": len(mine) > len(page),
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }


def _shown(batch: _Batch, address: str) -> dict[str, Any]:
    counts = Counter(result["result"]["type"] for result in batch.results)
    counts["processing"] = 0 if batch.ended else len(batch.requests)
    outcomes = ("processing", "succeeded", "errored", "canceled", "expired")
    status = "canceling" if batch.is_canceled else "in_progress"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if batch.ended else status,
        "request_counts": {outcome: counts[outcome] for outcome in outcomes},
        "created_at": _iso(batch.created),
        "ended_at": _iso(batch.ended) if batch.ended else None,
        "expires_at": _iso(batch.created + 86_400),
        "results_url": f"{address}/{batch.id}/results" if batch.ended else None,
    }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
