"""How far an execution is, said in a notebook: a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from workbench.campaign.runner import Progress
from workbench.core.money import show_usd

__all__ = ["tell_attempts"]


def tell_attempts(
    *,
    every_s: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = print,
) -> Callable[[Progress], None]:
    """Return what to give ``conduct`` as ``progress``: it tells the first, some, and the last.

    Args:
        every_s: Seconds between lines.
        clock: Seconds that only grow.
        tell: Called with each line.
    """
    first: tuple[float, int] | None = None
    said = 0.0

    def show(at: Progress) -> None:
        nonlocal first, said
        now = clock()
        if first and at.done < at.total and now - said < every_s:
            return
        # What was done before this process began took none of its time.
        began, before = first = first or (now, at.done)
        said = now
        line = f"{at.done:,} of {at.total:,} attempts, now on {at.target}: {at.errors:,} errors, "
        line += f"{at.successes:,} attacks past a defense, {show_usd(at.usd)} spent"
        if before < at.done < at.total:
            left_s = (now - began) / (at.done - before) * (at.total - at.done)
            line += f", about {left_s:,.0f} s left"
        tell(line)

    return show
