"""The whole way from snapshot to row: what a lost source does to scores and due dates."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from itertools import combinations

import pytest

from workbench.risk.assemble import assemble
from workbench.risk.decide import POLICIES
from workbench.risk.evidence import gather
from workbench.risk.records import Asset, Intake, ModelRisk, Occurrence
from workbench.risk.snapshot import in_memory
from workbench.risk.snapshot_files import sample_tables

TODAY = date(2024, 11, 1)
MADE_AT, TABLES = sample_tables()
FEEDS = ("cve", "kev", "epss", "techniques")
LOST = [part for size in range(len(FEEDS) + 1) for part in combinations(FEEDS, size)]
ASSETS = {
    "shop": Asset(id="shop", criticality=4, exposure="open", incident_usd=1e5),
    "vault": Asset(id="vault", criticality=5, exposure="small"),
    "toy": Asset(id="toy", criticality=1, exposure="controlled"),
}
CVES = [*TABLES["cve"].table["cve"].to_pylist(), "CVE-2099-1234", "GHSA-abcd-efgh-ijkl"]
OCCURRENCES = tuple(Occurrence(subject=cve, asset=one) for cve in CVES for one in ASSETS)
MODELS = tuple(
    ModelRisk(
        subject=f"LLM0{number}:2025", asset=one, target="bot", techniques=(), successes=successes,
        attempts=attempts, severity=severity, findings=successes, confirmed=0, execution="e",
    )
    for number, (successes, attempts, severity) in enumerate(
        [(0, 40, "low"), (1, 40, "high"), (40, 40, "medium"), (0, 0, ""), (3, 9, "critical")], 1
    )
    for one in ASSETS
)  # fmt: skip


def judged(
    lost: tuple[str, ...], policy: str, assets: dict[str, Asset], *, kev_of: str = "2025-08-25"
) -> dict:
    tables = TABLES | {"kev": replace(TABLES["kev"], as_of=kev_of)}
    tables = {name: one for name, one in tables.items() if name not in lost}
    snapshot = in_memory("some", tables, made_at=MADE_AT)
    evidence = gather(CVES, snapshot, today=TODAY)
    intake = Intake(assets=assets, occurrences=OCCURRENCES, model_risks=MODELS)
    done = assemble(intake, evidence, policy=policy, years=10)
    days = [9_999 if one < 0 else one for one in done.days.tolist()]
    columns = (list(map(int, done.columns["score"])), days, done.columns["decision"].to_pylist())
    return dict(zip(done.columns["id"].to_pylist(), zip(*columns, strict=True), strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_no_loss_of_sources_lowers_a_score_or_lengthens_a_due_date(policy):
    whole = judged((), policy, ASSETS)
    assert len(whole) == len(OCCURRENCES) + len(MODELS)
    for lost in LOST:
        for one, (score, days, decision) in judged(lost, policy, ASSETS).items():
            assert score >= whole[one][0], (lost, one)
            assert days <= whole[one][1], (lost, one, decision, whole[one])


@pytest.mark.parametrize("kev_of", ["2025-08-25", "2024-05-20"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_second_loss_lowers_nothing_either(policy, kev_of):
    judgements = {lost: judged(lost, policy, ASSETS, kev_of=kev_of) for lost in LOST}
    for fewer, more in ((a, b) for a in LOST for b in LOST if {*a} < {*b}):
        for one, (score, days, _) in judgements[more].items():
            assert score >= judgements[fewer][one][0], (fewer, more, one)
            assert days <= judgements[fewer][one][1], (fewer, more, one)


@pytest.mark.parametrize("policy", POLICIES)
def test_without_the_inventory_nothing_is_lower_or_later(policy):
    whole = judged((), policy, ASSETS)
    for one, (score, days, _) in judged((), policy, {}).items():
        assert score >= whole[one][0]
        assert days <= whole[one][1]
