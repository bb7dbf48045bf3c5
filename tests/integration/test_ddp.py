"""Training in two processes, started by torchrun or by ourselves: the same as in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training_program import TORCHRUN, assert_equal, finish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (told,) = finish(tmp_path_factory.mktemp("alone"), devices=1)
    return told


def test_two_processes_of_torchrun_train_as_one_does(tmp_path: Path, alone) -> None:
    told = finish(tmp_path, *TORCHRUN)
    assert len(told) == 2
    assert told[0]["weights"] == told[1]["weights"]
    assert sorted(one["validated"] for one in told) == [False, True]
    for one in told:
        assert_equal(one, alone)
    assert [one.suffix for one in (tmp_path / "checkpoints").iterdir()] == [".done"]


def test_batches_of_fewer_rows_than_processes_train_as_in_one(tmp_path: Path) -> None:
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    (alone,) = finish(tmp_path / "alone", devices=1, uneven=True)
    told = finish(tmp_path / "together", *TORCHRUN, uneven=True)
    assert_equal(told[0], alone, even=False)
    assert told[0]["calls"] != told[1]["calls"]


def test_accumulation_in_two_processes_trains_as_one_batch_does(tmp_path: Path, alone) -> None:
    told = finish(tmp_path, *TORCHRUN, accumulation=3)
    assert [one["calls"] for one in told] == [180, 180]
    assert_equal(told[0], alone)


def test_two_forked_processes_bring_their_results_home(tmp_path: Path, alone) -> None:
    (told,) = finish(tmp_path, devices=2)
    assert_equal(told, alone)


@pytest.mark.parametrize("stop", [{"kill_at": 50}, {"stop_at": 30}])
def test_killed_and_terminated_processes_go_on_from_the_checkpoint(
    tmp_path: Path, alone: dict[str, Any], stop: dict[str, int]
) -> None:
    assert not finish(tmp_path, *TORCHRUN, **stop)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    told = finish(tmp_path, *TORCHRUN)
    assert [one["calls"] for one in told] == [20, 20]
    assert_equal(told[0], alone)
