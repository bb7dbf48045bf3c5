"""A megabyte of the worst text for each pattern: no input may make redaction slow."""

from __future__ import annotations

import time

from measure import publish
from workbench.core.redact import PATTERNS

MEGABYTE = 1_000_000
LIMIT_S = 1.0
UNITS = (
    "a", "1", "1 ", "1.", "a.", "a@", "A", "AA00 ", "-", "+1 ", "eyJ", "eyJaaaaaaaa.", "a-", "1-",
    "sk-", "-----BEGIN PRIVATE KEY-----",
)  # fmt: skip


def main() -> None:
    """Measure and publish."""
    rows = []
    for name, pattern in PATTERNS.items():
        found = []
        for unit in UNITS:
            text = unit * (MEGABYTE // len(unit))
            started = time.process_time()
            pattern.sub("", text)
            found.append((time.process_time() - started, unit))
        seconds, unit = max(found)
        rows.append(
            {"pattern": name, "cpu_s": seconds, "limit_cpu_s": LIMIT_S, "worst text": repr(unit)}
        )
    publish("redact", rows)


if __name__ == "__main__":
    main()
