"""Ledger rows of serving: gathered per key and second, so a kill loses a second of them at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from workbench.core.identity import new_id
from workbench.cost.usage import compute_rows
from workbench.serving.keys import Key
from workbench.store.database import Store
from workbench.store.isolation import everybody
from workbench.store.ledger import Ledger
from workbench.store.records import LedgerRow

__all__ = ["Books"]

_EXPERIMENT = "service"


@dataclass
class _Use:
    texts: int = 0
    tokens: int = 0
    units: float = 0.0


class Books:
    """Shares out the process's CPU time among the keys that had texts sanitized.

    Args:
        store: With the ledger.
        cpu: CPU seconds of this process so far.
    """

    def __init__(self, store: Store, *, cpu: Callable[[], float] = time.process_time) -> None:
        self._ledger = Ledger(everybody(store.engine))
        self._cpu = cpu
        self._cpu_s = cpu()
        self._used: dict[tuple[str, str, str], _Use] = {}
        self._unwritten: list[LedgerRow] = []
        self._page = ("", 0)

    def add(self, key: Key, *, model: str, tokens: int, units: float) -> None:
        """Count a text."""
        use = self._used.setdefault((key.owner, key.id, model), _Use())
        use.texts += 1
        use.tokens += tokens
        use.units += units

    def close_page(self) -> None:
        """Turn what was counted since the last time into rows; in the thread that counts."""
        used, self._used = self._used, {}
        before, self._cpu_s = self._cpu_s, self._cpu()
        whole = sum(use.units for use in used.values())
        for (owner, key_id, model), use in used.items():
            cpu_s = (self._cpu_s - before) * use.units / whole
            told = {"texts": use.texts, "tokens": use.tokens, "model": model}
            rows = compute_rows(
                cpu_s=cpu_s, who=owner, job=key_id, experiment=_EXPERIMENT, phase="serving"
            )
            self.enter([replace(rows[0], details=told), *rows[1:]])

    def enter(self, rows: Iterable[LedgerRow]) -> None:
        """Keep rows to be written."""
        self._unwritten += rows

    def write(self) -> None:
        """Write the rows; those that cannot be written are kept for the next time.

        Raises:
            StoreError: If they cannot.
        """
        if not self._page[1]:
            self._page = (new_id("page"), len(self._unwritten))
        mark, rows = self._page
        if rows:  # nobody may know whether a try was kept: the same page has the same mark
            self._ledger.add(self._unwritten[:rows], mark=mark)
            del self._unwritten[:rows]
        self._page = ("", 0)
