"""Inventories: what is not understood of an asset is missing, never low."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk_documents import written
from workbench.risk.intake.inventory import careful, criticality_of
from workbench.risk.intake.read import read_all
from workbench.risk.records import EXPOSURES, Asset


def read(tmp_path, text):
    return read_all([], assets=written(tmp_path, "assets", text))


@pytest.mark.parametrize(
    ("word", "want"),
    [
        ("1", 1), ("5", 5), ("Low", 2), ("MEDIUM", 3), ("high", 4), ("Critical", 5),
        ("1 - most critical", 5), ("2 - somewhat critical", 4), ("3 - less critical", 3),
        ("4 - not critical", 2), ("mission_critical", 5), ("very low", 1),
        ("0", None), ("6", None), ("", None), ("unknown", None), ("１", None),
    ],
)  # fmt: skip
def test_words_for_criticality(word, want):
    assert criticality_of(word) == want


def test_an_inventory_is_read(tmp_path):
    intake = read(
        tmp_path,
        "sys_id\tName\tBusiness criticality\texposure\towned_by\tused_for\tincident_usd\n"
        'a\tWeb\t1 - most critical\tinternet\tanna\tprod\t"$1,250,000"\n'
        "b\t\t\t\t\t\t\n"
        "\t\tlow\t\t\t\t\n"
        "c\t\todd\tsideways\t\t\t-5\n"
        "d\t\t2\tair-gapped\t\t\tnan\n",
    )
    web, bare, odd, cut = intake.assets.values()
    assert web == Asset(
        id="a", name="Web", criticality=5, exposure="open", owner="anna", environment="prod",
        incident_usd=1_250_000, source="assets: row 1",
    )  # fmt: skip
    assert (bare.criticality, bare.exposure, bare.incident_usd) == (None, None, None)
    assert (odd.criticality, odd.exposure, odd.incident_usd) == (None, None, None)
    assert (cut.criticality, cut.exposure, cut.incident_usd) == (2, "small", None)
    told = "\n".join(intake.problems)
    for words in ("row 3: has no id", "criticality 'odd'", "exposure 'sideways'",
                  "incident_usd '-5'", "incident_usd 'nan'"):  # fmt: skip
        assert words in told
    assert len(intake.problems) == 5


def test_an_asset_told_twice_is_as_critical_as_the_worse_says(tmp_path):
    intake = read(tmp_path, "id,criticality,exposure\na,low,open\na,high,\n")
    assert (intake.assets["a"].criticality, intake.assets["a"].exposure) == (4, "open")
    assert "row 2: tells of an asset again" in intake.problems[0]


assets = st.builds(
    Asset, id=st.just("a"), criticality=st.none() | st.integers(1, 5),
    exposure=st.none() | st.sampled_from(EXPOSURES), incident_usd=st.none() | st.floats(0, 1e9),
)  # fmt: skip


@given(assets, assets)
def test_two_sources_never_make_an_asset_less_critical(one, other):
    both = careful(one, other)
    ranks = {"criticality": int, "incident_usd": float, "exposure": EXPOSURES.index}
    for name, rank in ranks.items():
        told = [rank(value) for each in (one, other) if (value := getattr(each, name)) is not None]
        value = getattr(both, name)
        assert (value is None) == (not told)
        assert not told or rank(value) == max(told)
