"""The register as a table: sorted, kept whole, damage named."""

from __future__ import annotations

import json
from datetime import date
from typing import NotRequired, get_origin, get_type_hints

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk_fakes import make_assessment, make_risk, make_risks
from workbench.core.errors import DataError
from workbench.risk.register import (
    RISKS,
    as_risks,
    load_assessment,
    matrix,
    recorded,
    rows_of,
    save_assessment,
)
from workbench.store import schema
from workbench.store.risk_results import RiskRow
from workbench.store.risks import record, settle

MANIFEST = {"assessment": "a" * 64, "today": "2026-01-01", "problems": ["x"]}


def test_columns_are_those_of_a_row_and_of_the_store():
    assert set(RiskRow.__annotations__) <= set(RISKS.names)
    made_by_record = {"status", "first_seen", "last_seen", "assessment", "updated_at"}
    (row,) = recorded(make_risks(make_risk()))
    assert row.keys() == set(schema.risks.c.keys()) - made_by_record


@given(
    rows=st.lists(
        st.tuples(
            st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.1, 0.2]),
            st.sampled_from([1.0, 2.0]), st.integers(1, 3),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_the_worst_come_first_whatever_order_they_came_in(rows):
    made = [
        make_risk(n, score=a, score_known=b, p_exploit=p, annual_loss_usd=usd, subject=f"CVE-{s}")
        for n, (a, b, p, usd, s) in enumerate(rows)
    ]
    table = make_risks(*made)
    keys = [
        (-r["score"], -r["score_known"], -r["p_exploit"], -r["annual_loss_usd"], r["subject"])
        for r in table.to_pylist()
    ]
    assert keys == sorted(keys)
    assert make_risks(*reversed(made)).equals(table)


def test_what_may_be_null_may_be_absent_and_nothing_else():
    optional = [field.name for field in RISKS if field.nullable]
    table = make_risks(make_risk())
    assert as_risks(table.drop_columns(optional))["epss"].null_count == 1
    with pytest.raises(ValueError, match="level"):
        as_risks(table.drop_columns(["level"]))
    broken = table.set_column(0, "id", pa.array([None], pa.string()))
    with pytest.raises(ValueError, match="id"):
        as_risks(broken)


def test_kept_and_read_by_the_beginning_of_its_id(store):
    table = make_risks(make_risk(1), make_risk(2, cvss=None, kev=True, reasons=["a", "b"]))
    for one in ("b" * 64, "a" * 64, "a" * 64):
        save_assessment(store, table, {**MANIFEST, "assessment": one})
    for beginning in ("", "aa", "a" * 64):
        found = load_assessment(store, beginning)
        assert (found.id, found.manifest) == ("a" * 64, MANIFEST)
        assert found.table.equals(table)
    save_assessment(store, table, {**MANIFEST, "assessment": "b" * 64})
    assert load_assessment(store).id == "b" * 64


@pytest.mark.parametrize("damage", ["altered", "gone", "manifest", "half", "format", "columns"])
def test_damage_is_named_with_its_fix_and_mended(store, damage):
    table = make_risks(make_risk())
    save_assessment(store, table, MANIFEST)
    folder = store.artifacts.path("assessment", "a" * 64)
    file, manifest = folder / "risks.parquet", folder / "manifest.json"
    if damage == "altered":
        data = bytearray(file.read_bytes())
        data[40] ^= 1
        file.write_bytes(data)
    elif damage == "gone":
        file.unlink()
    elif damage == "manifest":
        manifest.unlink()
    elif damage == "half":
        manifest.write_bytes(manifest.read_bytes()[:40])
    elif damage == "format":
        manifest.write_text(json.dumps({"format": 2}))
    else:
        save_assessment(store, table.drop_columns(["epss"]), MANIFEST)
    with pytest.raises(DataError, match="workbench risk assess"):
        load_assessment(store)
    save_assessment(store, table, MANIFEST)
    assert load_assessment(store).table.equals(table)


def test_there_may_be_none(store):
    with pytest.raises(DataError, match="workbench risk assess"):
        load_assessment(store)


def test_rows_for_reports_have_no_empty_extras():
    table = make_risks(make_risk(1, score=20, reasons=["why"], techniques=["T1190"]), make_risk(2))
    first, second = rows_of(table)
    assert (first["reasons"], first["techniques"]) == (["why"], ["T1190"])
    hints = get_type_hints(RiskRow, include_extras=True)
    required = {name for name, hint in hints.items() if get_origin(hint) is not NotRequired}
    assert second.keys() == required | {"fixed_in"}
    assert [row["id"] for row in rows_of(table, top=1)] == [first["id"]]


def test_open_risks_by_likelihood_and_impact():
    rows = [make_risk(n, likelihood=n, impact=6 - n) for n in range(1, 6)]
    rows += [make_risk(6, likelihood=5, impact=1), make_risk(7, status="closed")]
    counted = matrix(make_risks(*rows))
    assert [counted[n - 1][5 - n] for n in range(1, 6)] == [1, 1, 1, 1, 2]
    assert sum(map(sum, counted)) == 6


def test_what_it_gives_the_store_takes(store):
    assessment = make_assessment(make_risk(1), make_risk(2, state="fixed", reason="1.3 is in"))
    rows = settle(store.engine, recorded(assessment.table), today=date(2026, 1, 1))
    assert [row["status"] for row in rows] == ["open", "closed"]
    told = record(store.engine, rows, assessment=assessment.id, today=date(2026, 1, 1), who="anna")
    assert told.new == 2
