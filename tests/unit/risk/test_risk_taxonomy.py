from __future__ import annotations

import re

from shared_data import shared
from workbench.campaign.plugins.taxonomy import TAXONOMY
from workbench.risk.taxonomy import UNMAPPED, known, name_of


def test_names() -> None:
    assert name_of("LLM01:2025") == "Prompt Injection"
    assert name_of("AML.T0051.001") == "LLM Prompt Injection: Indirect"
    assert name_of("AML.T9999") == "unknown id 'AML.T9999'"
    assert name_of(UNMAPPED) == "in no list"


def test_known_keeps_order_and_drops_the_rest() -> None:
    assert known(["AML.T0054", "x", "LLM01:2025", "AML.T0054"]) == ("AML.T0054", "LLM01:2025")


def test_names_are_those_that_campaigns_use() -> None:
    shared_ids = [one for one in TAXONOMY if one.startswith(("LLM", "AML"))]
    assert len(shared_ids) > 30
    assert {one: name_of(one) for one in shared_ids} == {one: TAXONOMY[one] for one in shared_ids}


def test_ids_and_names_are_those_of_atlas() -> None:
    text = shared("risk/atlas/ATLAS.yaml").read_text(encoding="utf-8")
    pairs = re.findall(r"^ +- id: (AML\.T\d{4}(?:\.\d{3})?)\n +name: (.+)$", text, re.MULTILINE)
    assert len(pairs) == 170
    for one, name in pairs:
        assert name_of(one).endswith(name.strip("'\""))
        assert (": " in name_of(one)) == ("." in one.removeprefix("AML."))
