"""A plan in words: what was asked, what it takes, what it rests on, what the roadmap claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

from workbench.core.provenance import git_commit
from workbench.cost.prices import price
from workbench.scaling.energy import GCO2_PER_KWH, PUE
from workbench.serving.capacity import Plan
from workbench.serving.claims import Verdict, claims, costs
from workbench.store.results import Interval

__all__ = ["Part", "made_of", "outcome", "parts_of", "render_plan"]


class Part(NamedTuple):
    """A table under a heading, and what is to be known of it."""

    heading: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: str


def render_plan(plan: Plan) -> str:
    """Return a plan as Markdown that also reads well in a terminal."""
    parts = [f"# Capacity: {plan.value('prompts_per_day'):,.0f} prompts a day", outcome(plan),
             made_of(plan), *map(_markdown, parts_of(plan))]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def parts_of(plan: Plan) -> list[Part]:
    """Return all but the summary, in order."""
    return [_load(plan), _worth(plan), _sensitivity(plan), _assumed(plan), _claims(plan)]


def outcome(plan: Plan) -> str:
    """Return what the load takes, in a few sentences."""
    kept = "" if plan.meets else " **No number of machines tried keeps what was asked for.**"
    return (
        f"**{plan.machines} machines** ({plan.hardware.title}), one of which may be down;"
        f" {plan.fewest} where a balancer came as near to one common queue as any can."
        f" {_usd(plan.usd_per_year)} a year at list prices, {plan.kwh_per_year['value']:,.0f} kWh,"
        f" {plan.kgco2_per_year['value']:,.0f} kg CO2.{kept}"
    )


def made_of(plan: Plan) -> str:
    """Return how the plan was made, and from what."""
    measured = plan.hardware.measured
    return (
        f"Computed by `workbench serve --plan` at commit {git_commit()}, seed {plan.seed}: a"
        f" queueing simulation of {plan.days} days, not a measurement of that many machines."
        f" What a batch takes was measured: {measured.what} (model `{measured.model}`),"
        f" {measured.machine}, {measured.date}."
    )


def _load(plan: Plan) -> Part:
    curve = plan.curve
    formula = (
        f"{1000 * curve.each_s:.3g} ms + texts × {1000 * curve.text_s:.3g} ms +"
        f" tokens × {1e6 * curve.token_s:.3g} µs + squared tokens of a text ×"
        f" {1e9 * curve.square_s:.3g} ns, scattering by {curve.scatter:.0%}"
    )
    rows = [
        (one.name, *map(_range, (one.p50_ms, one.p95_ms, one.p99_ms)), _share(one.rejected))
        for one in [plan.day, *plan.peaks]
    ]
    return Part(
        "Latency", ("", "p50, ms", "p95, ms", "p99, ms", "rejected"), rows,
        "The last three are the busiest hour, bursts included. Median of the simulated days, and"
        " their range. A worker computes"
        f" {plan.utilization['value']:.1%} of the time. Without the network. A batch takes"
        f" {formula}. Asked for: p99 of {plan.asked_p99_ms:,.0f} ms and at most"
        f" {plan.value('rejected_share'):.2%} rejected in the busiest hour with one machine down (a"
        f" prompt that comes alone takes {plan.alone_p99_ms:,.0f} ms at the 99th percentile). A"
        f" machine that fails takes {plan.failed_share:.2g} of all prompts with it before anybody"
        " notices. Simulated are two windows of each hour, one without a burst and one around one,"
        " weighted by what they stand for; prompts go to workers at random, but for the row of one"
        " queue; batches, back-pressure and limits are those of `workbench serve`; rejected prompts"
        " do not come again.",
    )  # fmt: skip


def _worth(plan: Plan) -> Part:
    hardware, listed = plan.hardware, price(plan.hardware.price)
    dollars = (
        f"{hardware.price_units} × ${listed.usd} an hour, all machines all year; {listed.source};"
        f" checked {listed.checked}"
    )
    watts = (
        f"{hardware.watts_idle:g} W idle, {hardware.watts_busy:g} W busy a machine × PUE {PUE};"
        f" {hardware.watts_source}"
    )
    grid = f"{GCO2_PER_KWH:g} g per kWh, world average of 2022; France 56"
    usd_per_million = 1e6 * plan.usd_per_year / plan.prompts_per_year
    rows = [
        ("dollars a year", _usd(plan.usd_per_year), dollars),
        ("dollars per million prompts", f"{usd_per_million:.2f}", "the same"),
        ("kWh a year", _range(plan.kwh_per_year), watts),
        ("kWh per prompt", f"{plan.kwh_per_prompt:.2g}", "the same, idle time included"),
        ("kg CO2 a year", _range(plan.kgco2_per_year), grid),
    ]
    return Part(
        "Dollars, energy, carbon", ("what", "comes to", "rests on"), rows,
        "All estimated. Left out: the balancer, the network, storage, the upstream models, and"
        " people but where the claims name them.",
    )  # fmt: skip


def _sensitivity(plan: Plan) -> Part:
    rows = [
        (one["name"], f"{one['value']:g}", str(one["machines"]) if one["meets"] else "none kept it",
         _usd(one["usd_per_year"])) for one in plan.sensitivity
    ]  # fmt: skip
    head = ("assumption", "if it were", "machines", "dollars a year")
    text = (
        "Sizes are found by simulation and may be off by one machine or two where the p99 hardly"
        " depends on their number."
    )
    return Part("What it hangs on", head, rows, text if rows else "Not computed.")


def _assumed(plan: Plan) -> Part:
    rows = [
        (one.name, f"{one.value:,g}", f"{one.low:,g} to {one.high:,g}", one.unit, one.source)
        for one in [*plan.assumptions, *costs(plan).values()]
    ]
    head = ("assumption", "value", "might be", "unit", "source")
    return Part("Assumptions", head, rows, "")


def _claims(plan: Plan) -> Part:
    head = ("claimed by the roadmap", "verdict", "found", "rests on")
    rows = [(one.claimed, one.verdict, one.found, one.rests_on) for one in claims(plan)]
    return Part("The roadmap's claims", head, rows, "")


def _markdown(part: Part) -> str:
    verdicts = get_args(Verdict)
    rows = [[f"**{one}**" if one in verdicts else one for one in row] for row in part.rows]
    lines = [part.head, ["---"] * len(part.head), *rows] if rows else []
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join(filter(None, (f"## {part.heading}", table, part.text)))


def _range(one: Interval) -> str:
    low, high = f"{one['low']:,.3g}", f"{one['high']:,.3g}"
    return f"{one['value']:,.3g} ({low}–{high})" if low != high else low


def _share(one: Interval) -> str:
    value, low, high = (f"{100 * one[end]:.2g}%" for end in ("value", "low", "high"))
    return f"{value} ({low}–{high})" if one["high"] else "0"


def _usd(value: float) -> str:
    return f"${value:,.0f}"
