"""The commands of docs/campaign.md and of the README on campaigns, as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doc_scripts import execute, script_of
from machine import ROOT, require

pytestmark = pytest.mark.slow


def test_a_campaign_from_generate_to_feedback(tmp_path: Path) -> None:
    require("curl")
    output = execute(script_of("docs/campaign.md", "# Campaigns", tmp_path), tmp_path)
    assert "controls spoilt" in output
    assert "passed: asr_low(category=pii) > 90%" in output
    assert "attack_run_finished" in output
    # what worked and what was confirmed steers: the last set is another one
    made = re.findall(r"test set ([0-9a-f]{12}) is 200 cases", output)
    assert len(made) == len(set(made)) == 2
    assert " 0 errors" in output
    for name in ("shop.xml", "shop.sarif", "shop-redteam.yaml"):
        assert (tmp_path / name).stat().st_size > 0


def test_the_tour_of_the_readme(tmp_path: Path) -> None:
    script = script_of("README.md", "## Red-team campaigns", tmp_path)
    output = execute(script, tmp_path)
    assert script.count("/workbench campaign ") >= 4
    assert "attacks that succeed" in output


def test_every_command_of_campaigns_is_told_in_the_readme() -> None:
    from workbench.cli.campaign import campaign

    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Red-team campaigns")[2]
    section = section.partition("\n## ")[0]
    assert [name for name in campaign.commands if f"`{name}`" not in section] == []
