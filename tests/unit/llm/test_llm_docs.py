"""docs/gateway.md says every field of the configuration and every saving of the ablation."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from workbench.cost import optimize
from workbench.llm.config import GatewayConfig, Rates, Savings
from workbench.store.budgets import Budgets

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "gateway.md").read_text("utf-8")
ROWS = {line.split("|")[1].strip() for line in TEXT.splitlines() if line.startswith("| ")}
PARTS = (("savings", Savings), ("rates", Rates), ("budgets", Budgets))
NAMES = [field.name for field in fields(GatewayConfig) if field.name not in dict(PARTS)]
NAMES += [f"{part}.{field.name}" for part, kind in PARTS for field in fields(kind)]


@pytest.mark.parametrize("name", NAMES)
def test_every_field_has_a_row(name):
    assert f"`{name}`" in ROWS


def test_no_row_is_left_of_a_field_that_is_gone():
    told = {row.strip("`") for row in ROWS if row.startswith(("`savings.", "`rates.", "`budgets."))}
    assert told <= set(NAMES)


def test_every_saving_of_the_ablation_has_a_row():
    told = json.loads(Path(optimize.__file__).with_name("savings.json").read_text("utf-8"))
    assert {saving["title"] for saving in told["savings"].values()} <= ROWS
