"""Which trainings of an experiment are due, and with which parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.core.errors import ConfigError
from workbench.notebook.experiment import load_experiment
from workbench.notebook.training import trainings

PHASE2 = Path(__file__).resolve().parents[3] / "experiments" / "phase2.yaml"


def due(store, *, steps=(), overrides=(), rehearsal=False):
    experiment = load_experiment(PHASE2, overrides=overrides, rehearsal=rehearsal)
    return trainings(experiment, store, steps=steps)


def test_members_have_the_defaults_of_the_notebook_and_what_the_file_says(store):
    found = due(store, steps=("train",), overrides=("train.pair_set=3f9a",))
    assert [one.label for one in found] == ["seed=0", "seed=1", "seed=2"]
    for seed, one in enumerate(found):
        told = one.parameters
        assert (told["pair_set"], told["preset"], told["seed"]) == ("3f9a", "phase-2", seed)
        assert (told["rounds"], told["smallest_families"]) == (0, 3)


def test_all_steps_that_train_are_taken_unless_some_are_named(store):
    overrides = ("train.pair_set=a", "sweep.pair_set=a")
    assert {one.step for one in due(store, overrides=overrides)} == {"train", "sweep"}
    assert {one.step for one in due(store, overrides=overrides, steps=("sweep",))} == {"sweep"}


def test_what_cannot_be_trained_yet_is_refused_with_a_way_out(store):
    with pytest.raises(ConfigError, match=r"give --set train\.pair_set=VERSION"):
        due(store, steps=("train",))
    with pytest.raises(ConfigError, match="'pairs' trains nothing"):
        due(store, steps=("pairs",))
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        due(store, steps=("trian",))
