"""A progress bar with the time that is left; lines where nobody watches."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

__all__ = ["progress_bar"]

_EVERY_S = 10.0


@contextmanager
def progress_bar(unit: str, *, as_json: bool) -> Iterator[Callable[..., None]]:
    """Give a function to call with how many are done, how many there will be, and maybe a note.

    On a terminal it draws a bar on standard error; elsewhere it says a line every ten seconds, as
    JSON if asked.
    """
    if sys.stderr.isatty() and not as_json:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(unit, total=None)

            def draw(done: int, total: int, note: str = "") -> None:
                said = f"{unit} · {note}" if note else unit
                bar.update(task, completed=done, total=total, description=said)

            yield draw
        return
    began, said, first = time.monotonic(), time.monotonic(), -1

    def tell(done: int, total: int, note: str = "") -> None:
        nonlocal said, first
        first = done if first < 0 else first  # what an earlier try did costs no time now
        passed = time.monotonic() - began
        if done < total and time.monotonic() - said < _EVERY_S:
            return
        said = time.monotonic()
        left_s = round(passed / (done - first) * (total - done)) if done > first else None
        if as_json:
            told = {"done": done, "total": total, "left_s": left_s}
            click.echo(json.dumps(told | ({"note": note} if note else {})), err=True)
        else:
            left = "" if left_s is None else f", about {left_s} s left"
            click.echo(f"{done:,} of {total:,} {unit}{left}{note and f'; {note}'}", err=True)

    yield tell
