"""``workbench risk list``, ``show``, ``decide``, ``diff``, ``export``: the register."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from workbench.cli.campaign_generate import json_option
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import ConfigError
from workbench.core.plain import one_line

__all__ = ["decide", "diff", "export", "list_", "show"]

_LEVELS = ("critical", "high", "medium", "low")
_STATUSES = ("open", "accepted", "closed")
_SORTS = ("score", "level", "due", "annual_loss_usd", "p_exploit", "first_seen", "subject", "asset")
_COLUMNS = ("id", "level", "score", "subject", "asset", "component", "due", "decision", "owner",
            "status")  # fmt: skip
_SPARE = ("owner", "decision", "component", "status")
_ID_CHARS = 12


@click.command(name="list", epilog=EXIT_CODES)
@click.option("--status", default="open", show_default=True, type=click.Choice(["all", *_STATUSES]))
@click.option("--level", default="", type=click.Choice(["", *_LEVELS]), help="Only these.")
@click.option("--asset", default="", metavar="ID", help="Only on this asset.")
@click.option("--subject", default="", metavar="ID", help="Only this CVE or model risk.")
@click.option("--kind", default="", type=click.Choice(["", "cve", "model"]), help="Only these.")
@click.option("--owner", default="", metavar="NAME", help="Only those of this person or team.")
@click.option(
    "--overdue",
    is_flag=True,
    help="Only those past their due date, or past the end of their acceptance.",
)
@click.option("--sort", default="score", show_default=True, type=click.Choice(_SORTS))
@click.option("--ascending", is_flag=True, help="Smallest first.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="Most rows.")
@json_option
def list_(
    *, status: str, overdue: bool, ascending: bool, as_json: bool, limit: int, **choices: Any
) -> None:
    """List the risks of all assessments, worst first.

    \b
    Examples:
      workbench risk list --level critical
      workbench risk list --overdue --sort due --ascending
      workbench risk list --kind model --json > model_risks.jsonl
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.store.risks import counts, risks

    store = open_here()
    today = datetime.now(UTC).date()
    rows = risks(
        store.engine, status="" if status == "all" or overdue else status, descending=not ascending,
        overdue_on=today if overdue else None, limit=limit, **choices,
    )  # fmt: skip
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    from workbench.notebook.progress import show_table

    if rows:
        shown = [[one_line(str(row[name]))[:40] for name in _COLUMNS] for row in rows]
        for cells in shown:
            cells[0] = cells[0][:_ID_CHARS]
        show_table(list(_COLUMNS), shown, spare=_SPARE)
    told = counts(store.engine, today)
    levels = ", ".join(f"{told['by_level'].get(level, 0):,} {level}" for level in _LEVELS)
    click.echo(
        f"{len(rows):,} shown; in the register {told['open']:,} open ({levels}),"
        f" {told['overdue']:,} overdue, {told['accepted']:,} accepted, {told['closed']:,} closed"
    )


@click.command(epilog=EXIT_CODES)
@click.argument("risk")
@json_option
def show(risk: str, *, as_json: bool) -> None:
    """Show all of a RISK: evidence, reasons, explanation, and what was said of it.

    The id may be cut short.

    \b
    Examples:
      workbench risk show 90aa41ce
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.risk.register import row_of
    from workbench.store.risks import resolve_risk, risk_log, risks

    store = open_here()
    one = resolve_risk(store.engine, risk)
    known = risks(store.engine, ids=[one])[0]
    row = {**row_of(store, one, assessment=known["assessment"]), **known}
    log = risk_log(store.engine, [one])
    if as_json:
        click.echo(json.dumps({**row, "history": log}))
        return
    for name, value in row.items():
        if value is None or value in ("", []):
            continue
        lines = value if isinstance(value, list) else [value]
        for line in lines:
            click.echo(f"{click.style(name.replace('_', ' '), fg='cyan')}: {one_line(str(line))}")
    for entry in log:
        changed = ", ".join(f"{name} {a} → {b}" for name, (a, b) in entry["changed"].items())
        click.echo(one_line(f"{entry['at']}  {entry['who']}  {changed}  {entry['note']}"))


@click.command(epilog=EXIT_CODES)
@click.argument("ids", nargs=-1, required=True)
@click.option(
    "--accept", "status", flag_value="accepted", help="Live with it, until --due if said."
)
@click.option("--close", "status", flag_value="closed", help="It is gone.")
@click.option("--reopen", "status", flag_value="open", help="It is not.")
@click.option("--owner", metavar="NAME", help="Who looks after it; '' for nobody.")
@click.option("--due", metavar="DATE", help="By when, or until when it is accepted.")
@click.option("--note", default="", help="Why; needed to accept, close or put off.")
@json_option
def decide(
    ids: tuple[str, ...], *, status: str | None, owner: str | None, due: str | None, note: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Say what to do about risks; IDS may be cut short. Who said it and when is kept.

    \b
    Examples:
      workbench risk decide 90aa41ce --owner platform
      workbench risk decide 90aa41ce 5b1c --accept --due 2027-03-31 --note "isolated until the move"
      workbench risk decide 90aa41ce --close --note "host is gone"
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.core.redact import redact
    from workbench.store.risks import decide as say
    from workbench.store.risks import resolve_risk

    given = {"status": status, "owner": owner, "due": due}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise ConfigError("nothing to say; give --accept, --close, --reopen, --owner or --due")
    store = open_here()
    whole = [resolve_risk(store.engine, one) for one in ids]
    say(store.engine, whole, changes, who=store.settings.user, note=redact(note))
    if as_json:
        click.echo(json.dumps({"risks": whole, **changes}))
    else:
        told = ", ".join(f"{name} {value}" for name, value in changes.items())
        click.echo(f"{len(whole)} risks: {one_line(told)}")


@click.command(epilog=EXIT_CODES)
@click.argument("before")
@click.argument("after", default="")
@json_option
def diff(before: str, after: str, *, as_json: bool) -> None:
    """Show what changed from one assessment to another, by default the newest.

    \b
    Examples:
      workbench risk diff 3f9a
      workbench risk diff 3f9a 77c0 --json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.risk.diff import diff as compare
    from workbench.risk.register import load_assessment

    store = open_here()
    first, second = (load_assessment(store, one) for one in (before, after))
    changes = compare(first.table, second.table)
    if as_json:
        ids = {"before": first.id, "after": second.id}
        click.echo(json.dumps({**ids, "counts": changes.counts, "rows": changes.rows}))
        return
    counts = ", ".join(f"{count:,} {name}" for name, count in changes.counts.items() if count)
    click.echo(f"{first.id[:12]} → {second.id[:12]}: {counts or 'no change'}")
    for row in changes.rows:
        told = " → ".join(filter(None, (row["before"], row["after"])))
        line = f"  {row['change']:<9} {row['subject']:<20} {row['asset']:<20} {told}"
        click.echo(one_line(line) if not line.isprintable() else line)


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--assessment", default="", metavar="ID", help="Which.  [newest]")
@click.option("--format", "format_", default="", help="csv, docx, cyclonedx, vex, openvex."
              "  [by the ending]")  # fmt: skip
def export(file: Path, *, assessment: str, format_: str) -> None:
    """Write an assessment to FILE, for those who do not use this.

    CSV for spreadsheets, DOCX for managers, CycloneDX with ratings or VEX, OpenVEX.

    \b
    Examples:
      workbench risk export register.csv
      workbench risk export register.docx --assessment 3f9a
      workbench risk export closed.vex.json
      workbench risk export register.cdx.json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.risk.export import export as write
    from workbench.risk.register import load_assessment

    found = load_assessment(open_here(), assessment)
    write(found, file, form=format_)
    click.echo(str(file))
