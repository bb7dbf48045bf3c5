"""What the gate of expansions lets through, on the shipped seeds as if a model had written them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from measure import publish
from workbench.core.settings import read_settings
from workbench.data.gate import ON_TOPIC
from workbench.data.requests import load_requests
from workbench.embedding.vectors import open_encoder
from workbench.judge.probe import train_bench
from workbench.store.database import open_store


def main() -> None:
    """Measure and publish."""
    harmful = load_requests()
    asked = [one.request for one in harmful for _ in one.redirects]
    safe = [text for one in harmful for text in one.redirects]
    others = _of_another(harmful)
    with tempfile.TemporaryDirectory() as home:
        store = open_store(read_settings({"WORKBENCH_HOME": home, "WORKBENCH_USER": "bench"}))
        encoder = open_encoder(store)
        bench = train_bench(store, encoder)
        rows: list[dict[str, Any]] = []
        for judge in bench.judges:
            name = judge.id.partition("@")[0]
            for what, texts in (
                ("safe requests", safe),
                ("requests", [o.request for o in harmful]),
            ):
                share = float((judge.score(texts) >= judge.threshold).mean())
                rows.append({"what": f"{what} judged unsafe by {name}", "share": share})
        own, other = _cosines(encoder, asked, safe), _cosines(encoder, asked, others)
        for least in sorted(set(ON_TOPIC.values())):
            told = f"cosine to the request from {least}"
            rows.append(
                {"what": f"safe requests with {told}", "share": float((own >= least).mean())}
            )
            share = float((other >= least).mean())
            rows.append(
                {"what": f"those of another request of the category with {told}", "share": share}
            )
        store.engine.dispose()
    rows.append({"what": "safe requests, count", "share": float(len(safe))})
    publish("gate", rows)


def _of_another(harmful: Sequence[Any]) -> list[str]:
    """Return, for each safe request, one of the next request of its category."""
    by_category: dict[str, list[Any]] = {}
    for one in harmful:
        by_category.setdefault(one.category, []).append(one)
    texts = []
    for one in harmful:
        same = by_category[one.category]
        after = same[(same.index(one) + 1) % len(same)].redirects
        texts += [after[number % len(after)] for number in range(len(one.redirects))]
    return texts


def _cosines(encoder: Any, left: Sequence[str], right: Sequence[str]) -> Any:
    return np.asarray((encoder.encode(left) * encoder.encode(right)).sum(axis=1))


if __name__ == "__main__":
    main()
