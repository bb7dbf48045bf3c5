"""What parameters of notebook 07 mean for what is assessed."""

from __future__ import annotations

import pytest

from workbench.core.errors import ConfigError
from workbench.notebook.assessing import options_of
from workbench.risk.inputs import sample_inputs

CHOICES = {"draw_cves": 0, "campaigns": (), "target_assets": {}}


def chosen(store, **more):
    given = {"files": [], "assets": "", "folder": "", "snapshot": "sample", "today": ""}
    return options_of(store, **(given | CHOICES | more), budget_usd=0.0)


@pytest.mark.parametrize(
    ("more", "is_sample"),
    [
        ({}, True),
        ({"folder": "absent"}, True),
        ({"folder": "absent", "campaigns": ("3f9a",), "draw_cves": 500}, True),
        ({"campaigns": ("3f9a",)}, False),
        ({"draw_cves": 5}, False),
        ({"files": ["sbom.json"]}, False),
        ({"files": [{"path": "sbom.json"}], "folder": "absent"}, False),
    ],
)
def test_the_sample_is_assessed_where_nothing_of_ones_own_is(store, more, is_sample):
    shipped, inventory = sample_inputs()
    options = chosen(store, **more)
    assert set(shipped).issubset(options.files) == is_sample
    assert (options.assets == inventory) == is_sample


def test_a_day_that_is_none_is_named(store):
    with pytest.raises(ConfigError, match="today is 'soon'"):
        chosen(store, today="soon")
