"""What panels show in tests: a small project, and a store with something of everything."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path
from typing import Any

from notebook_projects import write_experiment, write_notebook
from report_results import ledger_rows, make_run
from risk_fakes import make_risk, make_risks
from workbench.campaign import testsets, triage
from workbench.campaign.conduct import ExecuteOptions, conduct
from workbench.campaign.generate import GenerateConfig, preview
from workbench.campaign.rehearsal import Rehearsal
from workbench.data.build import build_pairs, load_pairs
from workbench.data.config import BuildConfig
from workbench.diffusion.phase_run import train_phase
from workbench.diffusion.phases import phase
from workbench.embedding.vectors import open_encoder
from workbench.risk.register import recorded, save_assessment
from workbench.store.database import Store
from workbench.store.findings import add_findings
from workbench.store.risks import record

__all__ = ["FEW", "Shop", "fill", "write_project"]

CASES, FEW, QUICK = 60, 12, 10
"""Most of the large test set, those of the small one, and answers that the shop gives at once."""
SHORTEST = 40
"""Pairs that the sanitizer is trained on: texts take long to read."""


class Shop(Rehearsal):
    """A bookshop that answers some at once and lets others wait until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.is_open = 0, False

    async def _answer(self, *request: Any) -> Any:
        self.asked += 1
        while self.asked > QUICK and not self.is_open:
            await asyncio.sleep(0.05)
        return await super()._answer(*request)


def write_project(root: Path) -> None:
    """Write an experiment of three runs, make → square (matrix of 2)."""
    write_notebook(root, "make")
    write_notebook(root, "square", parameters="factor: int = 1  # times")
    steps = {
        "make": {"notebook": "make"},
        "square": {"notebook": "square", "needs": ["make"], "matrix": {"factor": [1, 2]}},
    }
    write_experiment(root, steps)


def fill(store: Store) -> None:
    """Build two pair sets, generate test sets, execute one on a bookshop and find what got by."""
    for pairs in (120, 240):
        build_pairs(store, BuildConfig(target_pairs=pairs))
    train(store)
    fill_runs(store)
    fill_register(store)
    config = GenerateConfig(
        plugins=("pii", "harm-violence"), strategies=("plain", "base64"), max_tests=CASES
    )
    testsets.save(store, preview(store, config).test_set)
    small = GenerateConfig(
        plugins=("prompt-injection-direct",), strategies=("plain",), max_tests=FEW
    )
    cases = preview(store, small).test_set
    saved = testsets.save(store, cases)
    with Rehearsal().serve_in_thread() as shop:
        options = ExecuteOptions(targets=(f"{shop.base_url}/ask",), judges="rules")
        done = asyncio.run(conduct(store, cases, options, tell=lambda _: None))
    assert saved == done.test_set
    found = triage.find(done, cases)
    assert len(found) >= 3, "the bookshop has holes"
    add_findings(store.engine, found)


def train(store: Store) -> None:
    """Train the smallest sanitizer there is, on short texts; it need not be good."""
    data = load_pairs(store, "")
    rows = data.part("train")
    rows = rows.iloc[rows["adversarial"].str.len().argsort()[:SHORTEST]]
    config = phase("quickstart", hidden=32, tuned_layers=0, steps=20, rounds=1, seed=0)
    trained = train_phase(
        config, rows, validation=data.part("validation"), encoder=open_encoder(store),
        pair_set=data.version, home=store.home,
    )  # fmt: skip
    trained.keep(store.artifacts, kind="sanitizer")
    trained.forget()


def fill_runs(store: Store) -> None:
    """Add a sweep of training runs, and what they would have cost."""
    made = []
    for size in (3, 6, 12, 20):
        for seed in (0, 1):
            loss = 0.2 + 0.2 * size**-0.6 + 0.0005 * seed
            result = {
                "kind": "training", "model": f"m{size}", "pair_set": "p", "encoder": "words",
                "seed": seed, "loss": loss, "validation_loss": loss, "train_s": 5.0,
                "axes": {"wrapper_families": size, "pairs": 50 * size, "parameters": 500_000},
                "baselines": {"identity": 0.33, "ridge": 0.26 + 0.0002 * seed},
                "samples_per_s": 1000.0, "steps": 50, "flops": 3e9,
            }  # fmt: skip
            made.append(f"sweep-{size}-{seed}")
            store.runs.add(make_run(made[-1], "sweep", "train", result=result, owner="owner"))
            store.ledger.add(ledger_rows(made[-1], "sweep"))
    store.runs.set_experiment(
        "sweep", file="gone", members={"train": made}, state="succeeded", owner="owner"
    )


def fill_register(store: Store) -> None:
    """Put some risks into the register, half of them of one asset."""
    rows = [make_risk(n, asset="shop" if n % 2 else "bank", due="2099-01-15") for n in range(20)]
    table = make_risks(*rows)
    save_assessment(store, table, {"assessment": "a" * 64, "today": "2026-01-01"})
    today = date(2026, 1, 1)
    record(store.engine, recorded(table), assessment="a" * 64, today=today, who="owner")
