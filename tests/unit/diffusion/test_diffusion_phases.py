"""Every phase can be trained, here at a tiny size."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from itertools import pairwise

import pytest

from workbench.core.errors import ConfigError
from workbench.diffusion.assemble import RedirectData, train_redirects
from workbench.diffusion.phases import PHASES, phase
from workbench.diffusion.tagged import TaggedData, tagged_texts
from workbench.diffusion.tagging import train_tagger


@pytest.mark.parametrize("name", PHASES)
def test_it_trains(name: str, halves, cache, minilm) -> None:
    chosen = phase(name, hidden=16, tuned_layers=0, steps=2)
    chosen = replace(chosen, prior=replace(chosen.prior, dim=minilm.dim))
    rows = halves[0].iloc[::12]
    data = TaggedData(tagged_texts(rows), cache=cache, encoder=minilm)
    metrics, tagger = train_tagger(chosen.tagger, chosen.training, data=data, validation=data)
    assert metrics["steps"] == 2
    assert tagger.config == chosen.tagger
    led = RedirectData(rows, encoder=minilm)
    prior, metrics = train_redirects(chosen.prior, chosen.prior_training, data=led, validation=led)
    assert metrics["steps"] == 2
    assert math.isfinite(metrics["best"])
    assert prior.config == chosen.prior


@pytest.mark.parametrize("name", PHASES)
def test_it_is_plain_json_and_left_alone_unless_told(name: str) -> None:
    assert phase(name) == PHASES[name]
    values = json.loads(json.dumps(PHASES[name].to_json()))
    assert values["tagger"]["hidden"] == PHASES[name].tagger.hidden
    assert set(values) == {one.name for one in fields(PHASES[name])}


@pytest.mark.parametrize("name", PHASES)
def test_a_setting_changes_what_it_says_and_nothing_else(name: str) -> None:
    base = PHASES[name]
    wide = phase(name, hidden=64)
    assert wide == replace(
        base, tagger=replace(base.tagger, hidden=64), prior=replace(base.prior, hidden=64)
    )
    frozen = phase(name, tuned_layers=0)
    assert frozen == replace(base, tagger=replace(base.tagger, tuned_layers=0))
    seeded = phase(name, seed=4)
    assert {seeded.training.seed, seeded.prior_training.seed} == {4}
    for steps in (3, 10**6):
        run = phase(name, steps=steps)
        for kind in ("training", "prior_training"):
            own, asked = getattr(base, kind), getattr(run, kind)
            warm = min(own.warmup_steps, steps)
            assert asked == replace(own, steps=steps, warmup_steps=warm)


def test_later_phases_are_larger() -> None:
    roadmap = [PHASES[f"phase-{number}"] for number in range(4)]
    for smaller, larger in pairwise(roadmap):
        assert smaller.prior.hidden <= larger.prior.hidden
        assert smaller.training.steps < larger.training.steps
        assert smaller.prior.levels <= larger.prior.levels


def test_an_unknown_phase_or_a_setting_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="'phase-9'; known: quickstart"):
        phase("phase-9")
    for changes in ({"hidden": 7}, {"tuned_layers": 7}, {"seed": -1}, {"steps": -3}):
        ((name, value),) = changes.items()
        with pytest.raises(ConfigError, match=f"{name} is {value}"):
            phase("phase-2", **changes)
