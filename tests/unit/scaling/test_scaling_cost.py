"""Hours, dollars, energy and CO2 of a phase, by hand."""

from datetime import date

import pandas as pd
import pytest

import report_results as made
from workbench.core.errors import ConfigError
from workbench.core.gpus import gpus
from workbench.cost.prices import prices
from workbench.report.evidence import read_evidence
from workbench.report.pages import scaling
from workbench.scaling.claims import PHASES
from workbench.scaling.phase_cost import COST_NOTE, Work, claimed_phases, cost, work

RUNS = pd.DataFrame(
    {"flops": [4e11], "steps": [600.0], "samples": [76_800.0], "pairs": [400], "parameters": [5e5]}
)


def test_every_gpu_has_a_dense_peak_a_source_a_date_and_a_price():
    found = gpus()
    assert set(found) == {"A100", "H100", "H200", "RTX 3090", "L4", "T4"}
    dense = {"A100": 312e12, "H200": 989.4e12, "RTX 3090": 71e12, "L4": 121e12, "T4": 65e12}
    assert {name: found[name].peak_flops for name in dense} == dense
    for gpu in found.values():
        assert "https://" in gpu.source
        assert date.fromisoformat(gpu.checked) >= date(2026, 1, 1)
        assert cost(Work(1e15, 10, 100), gpu, prices())["usd"]["value"] > 0


def test_a_gpu_without_a_price_is_refused_and_one_without_a_spot_price_is_not():
    gpu = gpus()["RTX 3090"]
    assert cost(Work(1e15, 10, 100), gpu, prices())["spot_usd"] is None
    with pytest.raises(ConfigError, match="'gpu_rtx_3090_hour': add it"):
        cost(Work(1e15, 10, 100), gpu, {})


def test_large_steps_cost_their_flops_and_small_ones_their_launches():
    a100 = gpus()["A100"]
    large = cost(Work(flops=312e12 * 3600, steps=10, samples=1), a100, prices())
    assert large["gpu_hours"] == {
        end: pytest.approx(1 / share)
        for end, share in (("value", 0.3), ("low", 0.46), ("high", 0.05))
    }
    assert large["usd"]["value"] == pytest.approx(1.35 / 0.3)
    assert large["spot_usd"]["value"] == pytest.approx(1.08 / 0.3)
    assert large["kwh"]["value"] == pytest.approx(0.4 * 1.135 / 0.3)
    assert large["kgco2"]["value"] == pytest.approx(0.4 * 1.135 * 0.436 / 0.3)
    small = cost(Work(flops=1e9, steps=36_000, samples=1), a100, prices())
    assert small["gpu_hours"] == {
        "value": pytest.approx(0.003), "low": pytest.approx(0.001), "high": pytest.approx(0.01),
    }  # fmt: skip
    assert "assumed" in COST_NOTE


def test_work_grows_with_pairs_parameters_and_models_and_keeps_passes_and_batch():
    same = work(RUNS, pairs=400, parameters=5e5)
    assert same == pytest.approx((4e11, 600, 76_800))
    larger = work(RUNS, pairs=4000, parameters=5e6, models=3)
    assert larger == pytest.approx((4e11 * 300, 600 * 30, 76_800 * 30))


def test_claims_stand_beside_what_is_computed():
    rows = claimed_phases(RUNS, prices())
    first, _, third = rows
    assert (first["gpu"], first["usd_claimed"]) == ("RTX 3090", "50–100")
    assert first["usd_of_its_hours"] == "0.33–0.66"  # 2 to 4 hours of one, at $0.165
    assert third["gpu_hours_claimed"] == "2,688–5,376"
    assert third["kwh_of_its_hours"] == "1,220–2,441"  # hours × 400 W × PUE; it claims 500
    assert (third["kwh_claimed"], third["kgco2_claimed"]) == (500, 200)
    job = work(RUNS, pairs=1_000_000, parameters=5e7, models=5)
    assert third["usd_computed"] == cost(job, gpus()["A100"], prices())["usd"]
    assert {row["kind"] for row in rows} == {"claimed"}
    assert PHASES[-1].hours == (7 * 24, 14 * 24)


def test_results_from_before_the_comparison_are_still_shown(store):
    steps = made.results()
    new = {"comparison", "axes", "allocation", "gpu_costs", "cost_note", "phases", "promised"}
    steps["laws"] = [{name: value for name, value in steps["laws"][0].items() if name not in new}]
    made.fill(store, steps)
    page = scaling.page(read_evidence(store, "quickstart"))
    captions = [getattr(block, "caption", "") for part in page.sections for block in part.blocks]
    assert "The next phase" in captions
    assert not {"Laws compared", "Cost of the next phase on rented GPUs (estimated)"} & set(
        captions
    )


def test_the_page_shows_laws_agreement_allocation_and_costs(store):
    made.fill(store, made.results())
    page = scaling.page(read_evidence(store, "quickstart"))
    tables = {
        block.caption: block
        for part in page.sections
        for block in part.blocks
        if hasattr(block, "caption")
    }
    compared = tables["Laws compared"]
    assert [row[0] for row in compared.rows] == ["constant", "log-linear", "power law", "one break"]
    assert "25 of 25" in [str(cell) for cell in compared.rows[2]]
    hired = tables["Cost of the next phase on rented GPUs (estimated)"]
    assert "checked 2026-11-26" in hired.note
    assert [str(row[3]) for row in hired.rows][1] == "–"  # no spot price
    assert len(tables["Compute-optimal split of parameters and data"].rows) == 3
