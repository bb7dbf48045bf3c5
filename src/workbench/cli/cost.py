"""``workbench cost``: what model calls cost, what they may cost, what they would cost today."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from workbench.cli.opening import EXIT_CODES, open_here

if TYPE_CHECKING:
    from workbench.cost.calls import By
    from workbench.store.database import Store
    from workbench.store.records import LedgerRow

__all__ = ["ablate", "alerts", "cost", "reprice", "show"]

_CALLS = {
    "group": "group", "usd": "usd", "calls": "calls", "hits": "hits", "saved": "saved_usd",
    "hit share": "hit_share", "lost": "lost", "tokens in": "input_tokens",
    "cached": "cached_tokens", "tokens out": "output_tokens", "bytes out": "bytes_sent",
    "bytes in": "bytes_received",
}  # fmt: skip
_ESTIMATES = {
    "verdict": "verdict", "billed": "usd", "least": "low_usd", "expected": "expected_usd",
    "worst": "worst_usd", "calls": "calls", "planned": "expected_calls", "phase": "phase",
    "work": "work",
}  # fmt: skip
_ABLATION = {
    "saving": "saving", "usd": "usd", "usd claim": "claimed_usd",
    "usd alone": "usd_alone_reduction", "usd without": "usd_without_increase",
    "seconds": "seconds", "time claim": "claimed_latency", "time alone": "latency_reduction",
    "time without": "latency_without_increase", "verdict": "verdict",
}  # fmt: skip
_SPARE = (
    "bytes in", "bytes out", "cached", "work", "phase", "time claim", "time without", "hit share",
    "seconds", "usd without", "tokens out", "tokens in",
)  # fmt: skip
"""What a narrow terminal does without, the first one first."""


@click.group(epilog=EXIT_CODES)
def cost() -> None:
    """See what model calls cost, watch thresholds, price anew.

    \b
    Examples:
      workbench cost show quickstart --by model
      workbench cost alerts
      workbench cost reprice quickstart
    """  # noqa: D301 - \b keeps click from wrapping


@cost.command(epilog=EXIT_CODES)
@click.argument("experiment", required=False)
@click.option(
    "--by",
    type=click.Choice(["phase", "model", "task", "person", "day"]),
    default="phase",
    show_default=True,
    help="What to group calls by.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--prometheus",
    "metrics_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write metrics of the whole store, for node_exporter's textfile collector.",
)
def show(experiment: str | None, *, by: By, as_json: bool, metrics_file: Path | None) -> None:
    """Show what model calls took, cost and saved.

    Those of EXPERIMENT, or all of them. Rehearsals, which nobody is billed for, are shown apart.

    \b
    Examples:
      workbench cost show
      workbench cost show quickstart --by task --json
      workbench cost show --prometheus /var/lib/node_exporter/workbench.prom
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.cost.calls import estimate_vs_truth, is_rehearsal, summarize, summary

    store = open_here()
    rows, rehearsed = _ledger(store, experiment)
    groups, total = summarize(rows, by=by), summary("total", rows)
    estimates = estimate_vs_truth(store, experiment) if experiment else []
    rehearsal = summary("rehearsal, not billed", rehearsed)
    other_usd = float(sum(row.usd for row in rows)) - total["usd"]
    if metrics_file:
        from workbench.cost.metrics import write_textfile

        write_textfile(store, metrics_file)
    if as_json:
        figures = {"groups": groups, "total": total, "estimates": estimates, "other_usd": other_usd}
        figures["rehearsal"] = rehearsal
        click.echo(json.dumps(figures, ensure_ascii=False, indent=1))
        return
    _print_table(_CALLS, [*groups, total])
    _print_rehearsals(rehearsal["calls"], rehearsal["usd"])
    if any(map(is_rehearsal, rows)):
        click.echo("a rehearsal: nobody was billed for its calls")
    reasons = ", ".join(f"{reason} {count}" for reason, count in total["misses"].items())
    if reasons:
        click.echo(f"not at hand: {reasons}")
    click.echo(f"everything else (CPU time, energy; estimated): {_cell('usd', other_usd)}")
    if estimates:
        click.echo("\nestimated before, beside what was billed:")
        _print_table(_ESTIMATES, estimates)


@cost.command(epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print the thresholds as JSON.")
def alerts(*, as_json: bool) -> None:
    """Show how what is used stands with its thresholds.

    They come from alerts.yaml at the root of the project, see docs/metrics.md; without it some are
    shipped. An exceeded one with action abort exits 3, and neither a run nor an ask starts.

    \b
    Examples:
      workbench cost alerts
      workbench cost alerts --json
    """  # noqa: D301 - \b keeps click from wrapping
    import time
    from dataclasses import asdict

    from workbench.core.settings import project_root
    from workbench.cost.alerts import check, read_thresholds, refuse_exceeded
    from workbench.cost.calls import BILLED

    root = project_root()
    store = open_here(root)
    found = check(store, read_thresholds(root), now=time.time())
    states = [{**asdict(one.threshold), "value": one.value, "state": one.state} for one in found]
    if as_json:
        click.echo(json.dumps(states, indent=1))
    else:
        names = ("metric", "window", "value", "limit", "action", "state")
        _print_table({name: name for name in names}, states)
        rehearsed = [one for one in store.ledger.totals(since="") if one["is_rehearsal"]]
        calls = sum(one["calls"] for one in rehearsed if one["outcome"] in BILLED)
        _print_rehearsals(calls, sum(one["usd"] for one in rehearsed))
    for one in refuse_exceeded(found, root):
        click.secho(f"warning: {one}", fg="yellow", err=True)


@cost.command(epilog=EXIT_CODES)
@click.argument("experiment", required=False)
@click.option(
    "--price-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Prices that go before the shipped ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def reprice(experiment: str | None, *, price_file: Path | None, as_json: bool) -> None:
    """Show what old model calls would cost today.

    Those of EXPERIMENT, or all of them. The ledger is left as it is.

    \b
    Examples:
      workbench cost reprice quickstart
      workbench cost reprice --price-file prices.json --json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.cost.calls import reprice as priced_anew
    from workbench.cost.calls import summarize, summary
    from workbench.llm.prices import Prices

    rows, _ = _ledger(open_here(), experiment)
    prices = Prices(price_file)
    today = priced_anew(rows, prices)
    old = [*summarize(rows, by="model"), summary("total", rows)]
    new = {row["group"]: row["usd"] for row in summarize(today, by="model")}
    new["total"] = summary("total", today)["usd"]
    table = [
        {
            "model": row["group"],
            "calls": row["calls"],
            "booked_usd": row["usd"],
            "today_usd": new[row["group"]],
        }
        for row in old
    ]
    if as_json:
        click.echo(json.dumps({"prices": prices.price_version(), "models": table}, indent=1))
        return
    _print_table({name: name for name in table[0]}, table)
    click.echo(f"prices of today: {prices.price_version()}")


@cost.command(epilog=EXIT_CODES)
@click.option("--size", default=1000, show_default=True, help="Items, half of them mutations.")
@click.option(
    "--latency-ms",
    type=click.FloatRange(min=0),
    default=10,
    show_default=True,
    help="Until the server begins an answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--out", type=click.File("w", encoding="utf-8", lazy=False), help="Also write it here."
)
def ablate(*, size: int, latency_ms: float, as_json: bool, out: IO[str] | None) -> None:
    """Measure what each saving saves, on a fixed workload.

    Its server is on this machine: nothing is spent. The result is kept as the experiment
    "ablation", for reports to show.

    \b
    Examples:
      workbench cost ablate
      workbench cost ablate --size 100 --json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.notebook.ablation import ablate as measure

    found = measure(
        open_here(), size=size, latency_ms=latency_ms, tell=lambda line: click.echo(line, err=True)
    )
    text = json.dumps(found, ensure_ascii=False, indent=1)
    if out:
        out.write(text + "\n")
    if as_json:
        click.echo(text)
        return
    rows = [*found["rows"], found["combined"]]
    base = found["baseline"]
    click.echo(f"{found['workload']}; with all savings off ${base['usd']:.2f}, {base['seconds']} s")
    _print_table(_ABLATION, rows)
    for row in rows:
        click.echo(f"{row['saving']}: {row['note']}")


def _ledger(store: Store, experiment: str | None) -> tuple[list[LedgerRow], list[LedgerRow]]:
    """Return the rows to be shown, and rehearsals beside them.

    What an experiment rehearsed is shown where it did nothing else.
    """
    rows = store.ledger.rows(experiment=experiment)
    if experiment is None:
        return _split(rows)
    if not rows:
        store.runs.experiment(experiment)  # refuses a name that never ran
    billed, rehearsed = _split(rows)
    has_calls = any(row.unit == "token" for row in billed)
    return (billed, rehearsed) if has_calls or not rehearsed else (rows, [])


def _split(rows: Sequence[LedgerRow]) -> tuple[list[LedgerRow], list[LedgerRow]]:
    from workbench.cost.calls import is_rehearsal

    return [row for row in rows if not is_rehearsal(row)], [*filter(is_rehearsal, rows)]


def _print_rehearsals(calls: int, dollars: float) -> None:
    if calls:
        click.echo(
            f"rehearsal, not billed: {calls} calls, {_cell('usd', dollars)};"
            " see `workbench cost show rehearsal`"
        )


def _print_table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print fields of rows, heading → field."""
    from workbench.notebook.progress import show_table

    cells = [[_cell(name, row[name]) for name in columns.values()] for row in rows]
    show_table(tuple(columns), cells, spare=[name for name in _SPARE if name in columns])


def _cell(name: str, value: Any) -> str:
    from workbench.core.money import show_usd, usd

    if name.startswith("claimed"):
        return "–".join(f"{share:.0%}" for share in dict.fromkeys(value))
    if name.endswith("usd"):
        return show_usd(usd(value))
    if name.endswith(("share", "reduction", "increase")):
        return f"{value:.0%}"
    return f"{value:,.12g}" if isinstance(value, int | float) else str(value)[:60]
