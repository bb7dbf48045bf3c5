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

_CALL_COLUMNS = (
    "group", "calls", "hits", "hit_share", "lost", "input_tokens", "cached_tokens",
    "output_tokens", "usd", "saved_usd", "bytes_sent", "bytes_received",
)  # fmt: skip
_ESTIMATE_COLUMNS = (
    "work", "phase", "expected_calls", "calls", "low_usd", "expected_usd", "worst_usd", "usd",
    "verdict",
)  # fmt: skip
_ABLATION_COLUMNS = {
    "saving": "saving", "usd": "usd", "claimed": "claimed_usd", "alone": "usd_alone_reduction",
    "without it": "usd_without_increase", "seconds": "seconds", "claimed ": "claimed_latency",
    "alone ": "latency_reduction", "without it ": "latency_without_increase", "claim": "verdict",
}  # fmt: skip


@click.group(epilog=EXIT_CODES)
def cost() -> None:
    """See what model calls cost, watch thresholds, price old calls anew.

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
    """Show what the model calls of EXPERIMENT, or all of them, took, cost and saved.

    \b
    Examples:
      workbench cost show
      workbench cost show quickstart --by task --json
      workbench cost show --prometheus /var/lib/node_exporter/workbench.prom
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.cost.calls import estimate_vs_truth, summarize, summary

    store = open_here()
    rows = _ledger(store, experiment)
    groups, total = summarize(rows, by=by), summary("total", rows)
    estimates = estimate_vs_truth(store, experiment) if experiment else []
    other_usd = float(sum(row.usd for row in rows)) - total["usd"]
    if metrics_file:
        from workbench.cost.metrics import write_textfile

        write_textfile(store, metrics_file)
    if as_json:
        figures = {"groups": groups, "total": total, "estimates": estimates, "other_usd": other_usd}
        click.echo(json.dumps(figures, ensure_ascii=False, indent=1))
        return
    _print_table(_CALL_COLUMNS, [*groups, total])
    reasons = ", ".join(f"{reason} {count}" for reason, count in total["misses"].items())
    if reasons:
        click.echo(f"not at hand: {reasons}")
    click.echo(f"everything else (CPU time, energy; estimated): {_cell('usd', other_usd)}")
    if estimates:
        click.echo("\nestimated before, beside what was billed:")
        _print_table(_ESTIMATE_COLUMNS, estimates)


@cost.command(epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print the thresholds as JSON.")
def alerts(*, as_json: bool) -> None:
    """Show how calls, tokens, dollars, bytes, storage and runs stand with their thresholds.

    They come from alerts.yaml at the root of the project; without it some are shipped. An exceeded
    one with action abort exits 3, and no run starts.

    \b
    Examples:
      workbench cost alerts
      workbench cost alerts --json
    """  # noqa: D301 - \b keeps click from wrapping
    import time
    from dataclasses import asdict

    from workbench.core.settings import project_root
    from workbench.cost.alerts import check, read_thresholds, refuse_exceeded

    root = project_root()
    found = check(open_here(root), read_thresholds(root), now=time.time())
    states = [{**asdict(one.threshold), "value": one.value, "state": one.state} for one in found]
    if as_json:
        click.echo(json.dumps(states, indent=1))
    else:
        _print_table(("metric", "window", "value", "limit", "action", "state"), states)
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
    """Show what the model calls of EXPERIMENT, or all of them, would cost today.

    The ledger is left as it is.

    \b
    Examples:
      workbench cost reprice quickstart
      workbench cost reprice --price-file prices.json --json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.cost.calls import reprice as priced_anew
    from workbench.cost.calls import summarize, summary
    from workbench.llm.prices import Prices

    rows = _ledger(open_here(), experiment)
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
    _print_table(("model", "calls", "booked_usd", "today_usd"), table)
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
    """Measure what each saving saves, on a fixed workload and a server on this machine.

    Nothing is spent. The result is kept as the experiment "ablation", for reports to show.

    \b
    Examples:
      workbench cost ablate
      workbench cost ablate --size 100 --json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.notebook.ablation import ablate as measure
    from workbench.notebook.progress import show_table

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
    names = _ABLATION_COLUMNS.values()
    show_table(
        tuple(_ABLATION_COLUMNS), [[_cell(name, row[name]) for name in names] for row in rows]
    )
    for row in rows:
        click.echo(f"{row['saving']}: {row['note']}")


def _ledger(store: Store, experiment: str | None) -> list[LedgerRow]:
    rows = store.ledger.rows(experiment=experiment)
    if experiment is not None and not rows:
        store.runs.experiment(experiment)  # refuses a name that never ran
    return rows


def _print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    from workbench.notebook.progress import show_table

    show_table(columns, [[_cell(name, row[name]) for name in columns] for row in rows])


def _cell(name: str, value: Any) -> str:
    from workbench.core.money import show_usd, usd

    if name.startswith("claimed"):
        return "–".join(f"{share:.0%}" for share in dict.fromkeys(value))
    if name.endswith("usd"):
        return show_usd(usd(value))
    if name.endswith(("share", "reduction", "increase")):
        return f"{value:.0%}"
    return f"{value:,.12g}" if isinstance(value, int | float) else str(value)[:60]
