"""The mirror in W&B: complete, offline, in time, and harmless when it fails."""

import time

from workbench.store import tracking
from workbench.store.records import Run


def training_run(number):
    curve = [{"step": 10 * k, "train_loss": 1 / (k + 1), "validation_loss": 1.0} for k in range(30)]
    result = {
        "kind": "training",
        "axes": {"pairs": 7},
        "loss": 0.25,
        "curve": curve,
        "seed": number,
    }
    return Run(
        id=f"run-{number}",
        experiment="sweep",
        step="train",
        member=f"seed={number}",
        notebook="02",
        phase="training",
        fingerprint="f",
        parameters={"seed": number},
        state="succeeded",
        owner="tester",
        folder="",
        started_at="2026-01-01T00:00:00Z",
        result=result,
    )


def test_twelve_runs_are_mirrored_offline_in_time(tmp_path):
    began = time.monotonic()
    told = tracking.mirror(
        map(training_run, range(12)), experiment="sweep", folder=tmp_path / "run", home=tmp_path
    )
    assert told == {"mode": "offline", "folder": "run", "runs": 12, "error": ""}
    assert time.monotonic() - began < 15
    files = {
        file.stem: file for file in (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    }
    assert set(files) == {f"run-run-{number}" for number in range(12)}
    written = files["run-run-3"].read_bytes()
    assert all(word in written for word in (b"train_loss", b"pairs", b"sweep", b"0.25"))


def test_a_slow_mirror_is_given_up(tmp_path):
    told = tracking.mirror(
        [training_run(0)], experiment="s", folder=tmp_path / "run", home=tmp_path, timeout_s=0.01
    )
    assert told["runs"] == 0
    assert "longer than 0.01 s" in told["error"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    told = tracking.mirror([training_run(0)], experiment="s", folder=file, home=tmp_path)
    assert told["runs"] == 0
    assert told["error"].startswith("W&B could not write to file: ")


def test_what_fails_inside_wandb_is_told_in_one_line(tmp_path):
    bad = training_run(0)
    bad.result["curve"] = [{"step": "soon"}]
    told = tracking.mirror([bad], experiment="s", folder=tmp_path / "run", home=tmp_path)
    assert told["runs"] == 0
    assert told["error"].startswith("W&B failed: ")
    assert "\n" not in told["error"]


def test_disabled_and_empty_mirrors_write_nothing(tmp_path):
    assert (
        tracking.mirror(
            [training_run(0)],
            experiment="s",
            folder=tmp_path / "run",
            home=tmp_path,
            mode="disabled",
        )["runs"]
        == 0
    )
    assert (
        tracking.mirror([], experiment="s", folder=tmp_path / "run", home=tmp_path)["error"] == ""
    )
    assert list(tmp_path.iterdir()) == []
