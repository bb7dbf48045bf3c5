"""What the roadmap claims of 10M prompts a day, beside what a plan comes to, with a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from workbench.cost.roi import Assumption, assume, by_hand
from workbench.scaling.energy import GCO2_PER_KWH
from workbench.serving.capacity import Plan, hardware

__all__ = ["CLAIMED", "Claim", "Verdict", "claims", "costs"]

Verdict = Literal["holds", "does not hold", "cannot be known"]

CLAIMED = {
    "least_saving_usd": 36e6, "most_saving_usd": 73e6, "kwh_reduction": 0.99997,
    "their_kwh_per_day": 50_000.0, "training_kwh": 500.0, "kwh_per_prompt_now": 1e-4,
    "kwh_per_prompt_phase_3": 1e-3,
    "training_kgco2": 200.0, "prompt_ms": 10.0, "prompt_ms_phase_3": 50.0,
    "phase_2_usd": 500.0, "phase_3_usd": 10_000.0,
}  # fmt: skip
"""The figures of the roadmap's sections on cost, energy and the long term, word for word."""
_LOAD = 10_000_000
"""Prompts a day that the roadmap's figures are for."""
_DAYS, _HOURS = 365, 8760


class Claim(NamedTuple):
    """A claim and what became of it."""

    claimed: str
    found: str
    """Computed from the plan, or the claim's own arithmetic."""
    rests_on: str
    verdict: Verdict


def costs(plan: Plan) -> dict[str, Assumption]:
    """Return what a year of prompts costs elsewhere and here rests on, by name.

    They are the ROI's, so that the two cannot contradict each other.
    """
    prompts = round(plan.value("prompts_per_day"))
    found = assume(prompts_per_day=prompts, latency=by_hand(1.0), spent_usd=0.0)
    wanted = ("guard_tokens", "guard_usd_per_mtok", "commercial_usd_per_prompt",
              "maintenance_hours", "hourly_wage_usd")  # fmt: skip
    return {one.name: one for one in found if one.name in wanted}


def claims(plan: Plan) -> list[Claim]:
    """Return every claim on serving, in the order of the roadmap."""
    rests_on = costs(plan)
    return [_load(plan), *_money(plan, rests_on), *_speed(plan), *_energy(plan)]


def _load(plan: Plan) -> Claim:
    came = plan.value("prompts_per_day")
    served = plan.meets and came >= _LOAD
    text = (
        f"{plan.machines} machines ({plan.hardware.title}), of which one may be down; with a"
        f" balancer as good as one queue {plan.fewest}; p99 {_ms(plan.day.p99_ms['value'])}"
    )
    verdict: Verdict = "holds" if served else "cannot be known"
    return Claim("10M prompts a day can be served", text, "every assumption above", verdict)


def _money(plan: Plan, rests_on: Mapping[str, Assumption]) -> list[Claim]:
    year = plan.prompts_per_year
    low, high = CLAIMED["least_saving_usd"], CLAIMED["most_saving_usd"]
    guard = rests_on["guard_usd_per_mtok"]
    tokens = rests_on["guard_tokens"]
    guard_usd = year * tokens.value / 1e6 * guard.value
    most_usd = year * tokens.high / 1e6 * guard.high
    people_usd = rests_on["maintenance_hours"].value * rests_on["hourly_wage_usd"].value
    saved_usd = guard_usd - plan.usd_per_year - people_usd
    hours = {name: CLAIMED[name] / (most_usd / _HOURS) for name in ("phase_2_usd", "phase_3_usd")}
    claimed_year = _LOAD * _DAYS
    most_each = tokens.high / 1e6 * guard.high
    return [
        Claim(
            f"saves ${low / 1e6:.0f}–{high / 1e6:.0f}M a year against OpenAI and Anthropic",
            f"it takes an alternative of ${low / claimed_year:.4f} to ${high / claimed_year:.4f} a"
            f" prompt. A guard model comes to"
            f" {_usd(guard_usd)} a year ({_usd(most_usd)} at the high ends), and nobody saves more"
            f" than the alternative costs; against it {_usd(saved_usd)} a year are"
            f" {'saved' if saved_usd > 0 else 'lost'}, machines and people paid",
            f"{tokens.value:g} tokens a prompt ({tokens.source}); ${guard.value:g} a million"
            f" ({guard.source}); some providers' own moderation endpoints are free",
            "does not hold" if most_each < low / claimed_year else "cannot be known",
        ),
        Claim(
            "one-time cost instead of ongoing fees",
            f"machines {_usd(plan.usd_per_year)} a year, people {_usd(people_usd)} a year",
            f"list prices; {rests_on['maintenance_hours'].value:g} hours of a person"
            f" ({rests_on['maintenance_hours'].source})",
            "does not hold",
        ),
        Claim(
            "phase 2 pays for itself in less than an hour, phase 3 in less than a day",
            f"even if all of {_usd(most_usd)} a year were saved, phase 2 took"
            f" {hours['phase_2_usd']:.1f} hours and phase 3 {hours['phase_3_usd'] / 24:.1f} days",
            "the least the roadmap gives: $500 and $10,000; the guard model's high ends",
            "does not hold"
            if hours["phase_2_usd"] > 1 and hours["phase_3_usd"] > 24  # noqa: PLR2004
            else "cannot be known",
        ),
    ]


def _speed(plan: Plan) -> list[Claim]:
    day, gpu, limit_ms = plan.day, hardware("gpu").measured, CLAIMED["prompt_ms"]
    alone = {one.tokens: 1000 * one.seconds for one in gpu.samples if one.texts == 1}
    told = ", ".join(f"{_ms(alone[tokens])} at {tokens} tokens" for tokens in sorted(alone))
    return [
        Claim(
            f"less than {limit_ms:g} ms (GPU optimized), a prompt that comes alone",
            f"median on a GPU: {told}",
            f"{gpu.what}; {gpu.machine}, {gpu.date}; the network of phase 1",
            "holds" if max(alone.values()) < limit_ms else "does not hold",
        ),
        Claim(
            f"less than {limit_ms:g} ms, under this load and as planned here",
            f"{_ms(day.p50_ms['value'])} median, {_ms(day.p95_ms['value'])} p95,"
            f" {_ms(day.p99_ms['value'])} p99 on {plan.hardware.title}, network left out",
            "every assumption above; prompts are of all lengths",
            "holds" if day.p99_ms["value"] < limit_ms else "does not hold",
        ),
        Claim(
            f"less than {CLAIMED['prompt_ms_phase_3']:g} ms with GPU inference (phase 3)",
            "nobody has trained a network of 50M parameters here",
            "nothing that was measured",
            "cannot be known",
        ),
    ]


def _energy(plan: Plan) -> list[Claim]:
    year, theirs = _LOAD * _DAYS, CLAIMED["their_kwh_per_day"] * _DAYS
    ours, own = year * plan.kwh_per_prompt, year * CLAIMED["kwh_per_prompt_phase_3"]
    training_kg = CLAIMED["training_kwh"] * GCO2_PER_KWH / 1000
    return [
        Claim(
            f"{CLAIMED['kwh_reduction']:.3%} less energy, by the roadmap's own figures",
            f"{CLAIMED['training_kwh']:g} kWh of training over {theirs:,.0f} kWh leaves inference"
            f" out; its own {CLAIMED['kwh_per_prompt_phase_3']:g} kWh a prompt makes {own:,.0f} kWh"
            f" a year, {1 - own / theirs:.1%} less",
            "the roadmap's figures alone",
            "does not hold",
        ),
        Claim(
            f"{CLAIMED['kwh_reduction']:.3%} less energy, with inference as planned here",
            f"{ours:,.0f} kWh a year for 10M prompts a day, {1 - ours / theirs:.4%} under the"
            f" {theirs:,.0f} kWh that the roadmap gives the others",
            f"{plan.hardware.watts_source}; no provider publishes what the same work takes there,"
            " and 50,000 kWh a day is the roadmap's word",
            "cannot be known",
        ),
        Claim(
            f"at most {CLAIMED['kwh_per_prompt_now']:g} kWh a prompt (the roadmap: about)",
            f"{plan.kwh_per_prompt:.2g} kWh a prompt, idle time included",
            f"estimated watts, not metered; {plan.hardware.measured.what}",
            "holds" if plan.kwh_per_prompt <= CLAIMED["kwh_per_prompt_now"] else "does not hold",
        ),
        Claim(
            f"about {CLAIMED['training_kgco2']:g} kg CO2 for"
            f" {CLAIMED['training_kwh']:g} kWh of training",
            f"{training_kg:,.0f} kg at {GCO2_PER_KWH:g} g/kWh; but its own GPUs and hours come to"
            " 1,220 to 2,441 kWh, see docs/scaling.md",
            "world average of 2022; countries differ twentyfold",
            "does not hold",
        ),
    ]


def _ms(value: float) -> str:
    return f"{value:.3g} ms"


def _usd(value: float) -> str:
    return f"${abs(value):,.0f}"
