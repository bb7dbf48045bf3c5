"""``workbench store retain``, ``hold`` and ``release``: how long what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import InputError

if TYPE_CHECKING:
    from workbench.core.off_peak import Window
    from workbench.store.policy import Policy
    from workbench.store.retention import Planned

__all__ = ["hold", "release", "retain"]


@click.command(epilog=EXIT_CODES)
@click.option("--dry-run", is_flag=True, help="Show what would be done and why; do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--off-peak", metavar="HOURS",
    help="Work only then, e.g. '22:00-06:00 Europe/Berlin'; refuses outside, stops at its end.",
)  # fmt: skip
@click.option("--wait", is_flag=True, help="Outside those hours wait for them.")
def retain(*, dry_run: bool, as_json: bool, off_peak: str | None, wait: bool) -> None:
    """Compress what is a week old, remove what is 90 days old, and book what storage costs.

    Summaries, what is on legal hold or tagged, the newest of each kind, and whatever something
    refers to that is kept, stay. retention.yaml at the root of the project says otherwise, see
    docs/storage.md. Killed or stopped, the next call does the rest.

    \b
    Examples:
      workbench store retain --dry-run
      workbench store retain --off-peak '22:00-06:00 Europe/Berlin' --wait
    """  # noqa: D301 - \b keeps click from wrapping
    from dataclasses import asdict
    from datetime import UTC, datetime

    from workbench.core.settings import project_root
    from workbench.store.policy import read_policy
    from workbench.store.retention import apply_retention, plan_retention
    from workbench.store.storage_cost import book_storage

    root = project_root()
    policy, store = read_policy(root), open_here(root)
    go_on = _hours(off_peak, wait=wait) if off_peak and not dry_run else lambda: True
    planned = plan_retention(store, policy, now=datetime.now(UTC))
    told = _told(planned, policy)
    if not dry_run:
        told["booked_days"] = book_storage(store, policy, now=datetime.now(UTC))
        told["done"] = asdict(apply_retention(store, policy, planned, go_on=go_on))
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return
    _show(planned, told)


@click.command(epilog=EXIT_CODES)
@click.argument("kind")
@click.argument("id_", metavar="ID")
@click.option("--why", default="", help="Reason or case number, kept beside it.")
def hold(kind: str, id_: str, *, why: str) -> None:
    """Put one artifact, or a run, on legal hold: it and what it refers to stay until released.

    \b
    Examples:
      workbench store hold execution 3f9a --why "case 12/2026"
      workbench store hold run run-0199f3a1b2c-0f1e2d3c4b5a6978
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.store.retention import hold as put_on_hold

    click.echo(f"on hold: {kind} {put_on_hold(open_here(), kind, id_, why=why)}")


@click.command(epilog=EXIT_CODES)
@click.argument("kind")
@click.argument("id_", metavar="ID")
def release(kind: str, id_: str) -> None:
    """Take a legal hold off; the policy counts again.

    \b
    Example:
      workbench store release execution 3f9a
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.store.retention import release as take_off

    click.echo(f"released: {kind} {take_off(open_here(), kind, id_)}")


def _hours(text: str, *, wait: bool) -> Callable[[], bool]:
    """Return a test of whether the hours still last; waits for them, or refuses, first."""
    import time
    from datetime import timedelta

    from workbench.core.off_peak import Window

    window = Window.read(text, name="--off-peak")
    while wait_s := _until(window):
        left = timedelta(seconds=round(wait_s))
        if not wait:
            raise InputError(f"--off-peak {text!r}: opens in {left}; come back, or add --wait")
        click.echo(f"held for {left} until {text} opens", err=True)
        time.sleep(wait_s)
    return lambda: not _until(window)


def _until(window: Window) -> float:
    import time

    return window.seconds_until_open(time.time())


def _told(planned: Sequence[Planned], policy: Policy) -> dict[str, object]:
    from dataclasses import asdict

    from workbench.store.storage_cost import usd_per_month

    before = sum(one.bytes_before for one in planned)
    after = sum(one.bytes_after for one in planned)
    return {
        "rows": [asdict(one) for one in planned],
        "bytes_before": before,
        "bytes_after": after,
        "usd_saved_per_month": float(usd_per_month(before - after, policy)),
        "price": policy.price_version,
    }


def _show(planned: Sequence[Planned], told: dict[str, object]) -> None:
    from workbench.notebook.progress import show_table

    heads = ("action", "kind", "id", "why", "kB before", "kB after")
    cells = [
        [
            one.action, one.kind, one.id[:12] if one.kind != "run" else one.id, one.why,
            f"{one.bytes_before / 1e3:,.1f}", f"{one.bytes_after / 1e3:,.1f}",
        ]
        for one in planned
    ]  # fmt: skip
    if cells:
        show_table(heads, cells, spare=[])
    saved = told["usd_saved_per_month"]
    click.echo(
        f"{len(planned)} rows, {told['bytes_before']:,} bytes to {told['bytes_after']:,}"
        f" (compressed sizes estimated); saves ${saved:.6f} a month at {told['price']}"
    )
    if done := told.get("done"):
        click.echo(f"done: {json.dumps(done)}; days booked: {told['booked_days']}")
