"""The training engine: equal batches, resume, stopping, memory, curves, data."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import signal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from workbench.core.errors import ConfigError, DataError
from workbench.diffusion import trainer as trainer_module
from workbench.diffusion.callbacks import Progress
from workbench.diffusion.distributed import WholeDraws, placement
from workbench.diffusion.engine import Engine
from workbench.diffusion.mining import Round, together
from workbench.diffusion.phase_run import taken
from workbench.diffusion.prior import Prior, PriorBatch, PriorConfig
from workbench.diffusion.redirect import bare_prompt
from workbench.diffusion.trainer import TrainingMetrics, train
from workbench.diffusion.training_config import TrainingConfig, learning_rate_at
from workbench.diffusion.training_data import TensorData, tensors_id

DIM = 6


class Columns(NamedTuple):
    given: Tensor
    wanted: Tensor


class Regression(nn.Module):
    """A small network that denoises; what a test wants to happen in a step happens in ``hook``."""

    def __init__(self, hook=None, *, dropout: float = 0.0, noise: float = 0.3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Linear(DIM, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, DIM)
            )
        self.register_buffer("scale", torch.tensor(noise))
        self.hook = hook
        self.calls = 0

    def forward(self, given: Tensor) -> Tensor:
        return self.layers(given)

    def loss(self, batch: Columns, generator: torch.Generator) -> Tensor:
        self.calls += 1
        noise = torch.randn(batch.given.shape, generator=generator)
        levels = torch.randint(1, 4, (len(noise),), generator=generator)
        guess = self(batch.given + self.scale * noise * levels[:, None])
        loss = nn.functional.mse_loss(guess, batch.wanted)
        return loss if self.hook is None else self.hook(self, batch, loss)


def rows(count: int = 64, *, seed: int = 0) -> Columns:
    generator = torch.Generator().manual_seed(seed)
    given = torch.randn(count, DIM, generator=generator)
    return Columns(given, given.flip(1) * 0.5)


DATA = TensorData(rows())
HELD_OUT = rows(32, seed=1)


@torch.no_grad()
def error(model: nn.Module) -> dict[str, float]:
    return {"error": float(nn.functional.mse_loss(model(HELD_OUT.given), HELD_OUT.wanted))}


def config(**changes: object) -> TrainingConfig:
    given = {"steps": 40, "batch_size": 16, "validate_every": 10, "learning_rate": 1e-2}
    return TrainingConfig(**{"accelerator": "cpu", "devices": 1} | given | changes)


def run(model: nn.Module | None = None, **changes: object) -> tuple[TrainingMetrics, nn.Module]:
    model = model or Regression()
    names = ("validate", "metric", "folder", "progress", "start", "run", "checkpoint_every_s")
    given = {name: changes.pop(name) for name in names if name in changes}
    data = changes.pop("data", DATA)
    options = {"validate": error, "metric": "error"} | given
    return train(model, data, config(**changes), **options), model


def untimed(metrics: TrainingMetrics) -> dict[str, object]:
    curve = [
        {name: value for name, value in row.items() if name != "samples_per_s"}
        for row in metrics["curve"]
    ]
    timed = {"train_s", "cpu_s", "samples_per_s", "curve"}
    return {name: value for name, value in metrics.items() if name not in timed} | {"curve": curve}


def same(one: nn.Module, other: nn.Module) -> bool:
    return tensors_id(one.state_dict()) == tensors_id(other.state_dict())


def at(step: int, act):
    """Return a hook that acts in one step, counted over the life of the model."""

    def hook(model: Regression, batch: Columns, loss: Tensor) -> Tensor:
        return act(loss) if model.calls == step else loss

    return hook


# batches


def test_training_learns_and_keeps_the_best_averaged_weights() -> None:
    metrics, model = run(steps=300, validate_every=50, learning_rate=3e-2)
    assert metrics["best"] < 0.3 * metrics["initial"]["error"]
    assert metrics["best"] == error(model)["error"] == min(r["error"] for r in metrics["curve"])
    assert metrics["steps"] == 300
    assert (metrics["stopped"], metrics["notes"]) == ("", [])
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_leaves_global_randomness_alone() -> None:
    before = torch.get_rng_state()
    (one, first), (two, second) = run(Regression(dropout=0.2)), run(Regression(dropout=0.2))
    _, other = run(Regression(dropout=0.2), seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert untimed(one) == untimed(two)
    assert same(first, second)
    assert not same(first, other)


@pytest.mark.parametrize("parts", [2, 3, 16])
def test_accumulation_equals_the_large_batch(parts: int) -> None:
    whole, one = run()
    split, two = run(accumulation=parts)
    for row, other in zip(whole["curve"], split["curve"], strict=True):
        assert other["train_loss"] == pytest.approx(row["train_loss"], rel=1e-4)
    for left, right in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5)
    assert split["flops"] == whole["flops"]


def test_parts_of_a_batch_draw_their_rows_of_its_noise() -> None:
    def draws(generator: torch.Generator, count: int) -> list[Tensor]:
        return [
            torch.randn(count, 3, generator=generator),
            torch.rand((count,), generator=generator),
            torch.randint(2, 9, size=(count, 2), generator=generator),
            torch.randint(9, (count,), generator=generator),
            torch.empty(count, 2).normal_(1, 2, generator=generator),
            torch.zeros(count).uniform_(generator=generator),
        ]

    whole = draws(torch.Generator().manual_seed(5), 7)
    others = []
    for start, stop in ((0, 3), (3, 7)):
        generator = torch.Generator().manual_seed(5)
        with WholeDraws(generator, start=start, stop=stop, whole=7):
            part = draws(generator, stop - start)
            own = torch.randperm(stop - start, generator=generator)
            others.append(torch.rand(50, generator=generator))
        assert all(torch.equal(one[start:stop], two) for one, two in zip(whole, part, strict=True))
        assert sorted(own.tolist()) == list(range(stop - start))
    assert not torch.equal(*others)


@pytest.mark.parametrize("process", ["x0", "bridge"])
def test_a_prior_trains_and_does_not_mind_how_its_batches_are_split(process: str) -> None:
    class Moves(TensorData):
        def batch(self, rows: Tensor) -> PriorBatch:
            sides = super().batch(rows)
            return PriorBatch(bare_prompt(sides.given.numpy()), sides.wanted)

    def prior() -> Prior:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Prior(PriorConfig(network="mlp", process=process, dim=DIM, hidden=16))

    units = Columns(*(nn.functional.normalize(one, dim=1) for one in rows()))
    held_out = Moves(Columns(*(nn.functional.normalize(one, dim=1) for one in HELD_OUT)))

    def measured(model: Prior) -> dict[str, float]:
        batch = held_out.batch(torch.arange(32))
        return {"error": float(model.loss(batch, torch.Generator().manual_seed(0)))}

    options = {"data": Moves(units), "validate": measured, "steps": 60, "validate_every": 30}
    whole, _ = run(prior(), **options)
    split, _ = run(prior(), accumulation=2, **options)
    assert whole["best"] < 0.7 * whole["initial"]["error"]
    assert split["best"] == pytest.approx(whole["best"], rel=1e-3)


# curve, progress, counting


def test_the_curve_has_a_row_per_validation_and_one_for_the_last_step() -> None:
    metrics, _ = run(steps=25, warmup_steps=10)
    assert [row["step"] for row in metrics["curve"]] == [10, 20, 25]
    names = {"step", "train_loss", "error", "learning_rate", "samples_per_s"}
    assert all(set(row) == names for row in metrics["curve"])
    rates = [learning_rate_at(config(steps=25, warmup_steps=10), step=s) for s in (9, 19, 24)]
    assert [row["learning_rate"] for row in metrics["curve"]] == rates
    json.dumps(metrics, allow_nan=False)


def test_the_learning_rate_rises_linearly_and_falls_to_zero_along_a_cosine() -> None:
    plan = config(steps=100, warmup_steps=20, learning_rate=0.4)
    rates = [learning_rate_at(plan, step=step) for step in range(101)]
    np.testing.assert_allclose(rates[:20], 0.4 * np.arange(1, 21) / 20)
    np.testing.assert_allclose(rates[20:], 0.2 * (1 + np.cos(np.pi * np.arange(81) / 80)))


def test_flops_are_those_of_the_matrix_products() -> None:
    metrics, model = run(accumulation=2)
    inner, outer = (one.weight.numel() for one in model.layers if isinstance(one, nn.Linear))
    # forward, gradients of weights, gradients of inputs, which the first layer has no use for
    assert metrics["flops"] == (2 * 2 * inner + 3 * 2 * outer) * 16 * 40


def test_no_share_of_a_peak_is_claimed_of_a_cpu() -> None:
    metrics, _ = run()
    assert (metrics["hardware"], metrics["processes"], metrics["attainable"]) == ("cpu", 1, 0.0)
    took = taken(metrics)
    assert took["utilization"] is None
    assert took["samples_per_s"] == pytest.approx(16 * 40 / took["train_s"])


def test_utilization_is_counted_flops_over_what_the_peak_allows(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("workbench.diffusion.engine.peak_flops", lambda _: 1e9)
    options = {"checkpoint_every_s": 0.0, "folder": tmp_path}
    leave_checkpoint(tmp_path)
    metrics, _ = run(**options)
    took = taken(metrics)
    # the seconds before a kill count too
    assert metrics["attainable"] == pytest.approx(1e9 * metrics["train_s"])
    assert took["utilization"] == pytest.approx(metrics["flops"] / metrics["train_s"] / 1e9)
    rounds = [Round(0, metrics, {}), Round(1, metrics | {"flops": 0.0}, {})]
    half = taken(together(rounds[0], rounds))
    assert half["utilization"] == pytest.approx(took["utilization"] / 2)
    rounds.append(Round(2, metrics | {"attainable": 0.0}, {}))
    assert taken(together(rounds[0], rounds))["utilization"] is None


def test_progress_counts_to_the_end_from_where_training_was_resumed(tmp_path: Path) -> None:
    told: list[Progress] = []
    run(progress=told.append, steps=45, validate_every=15)
    assert [one.step for one in told] == [15, 20, 30, 40, 45]
    assert {one.total for one in told} == {45}
    assert told[-1].eta_s == 0 < told[0].eta_s
    assert all(math.isfinite(one.loss) for one in told)


def test_nothing_is_printed(capfd) -> None:
    run()
    assert capfd.readouterr() == ("", "")


# averages


def test_without_an_average_the_last_weights_are_measured() -> None:
    last = {}

    def hook(model: Regression, batch: Columns, loss: Tensor) -> Tensor:
        last.update({name: one.clone() for name, one in model.state_dict().items()})
        return loss

    _, model = run(Regression(hook), ema_decay=0.0, steps=20, learning_rate=1e-9)
    _, averaged = run(Regression(), ema_decay=0.9, steps=20, learning_rate=1e-2)
    assert all(torch.allclose(last[n], one, atol=1e-7) for n, one in model.state_dict().items())
    _, plain = run(Regression(), ema_decay=0.0, steps=20, learning_rate=1e-2)
    assert not same(plain, averaged)


def test_the_average_follows_its_formula() -> None:
    seen: list[Tensor] = []
    inner: list[Tensor] = []

    def watch(model: nn.Module) -> dict[str, float]:
        seen.append(model.layers[0].bias.clone())
        return {"error": 1.0}

    def hook(model: Regression, batch: Columns, loss: Tensor) -> Tensor:
        inner.append(model.layers[0].bias.detach().clone())
        return loss

    run(Regression(hook), steps=60, validate=watch, ema_decay=0.8)
    expected = inner[0]
    for number, step in enumerate(range(10, 60, 10), start=1):
        decay = min(0.8, (1 + step) / (10 + step)) ** 10
        expected = decay * expected + (1 - decay) * inner[step]
        torch.testing.assert_close(seen[number], expected)


def test_what_a_model_counts_beside_its_weights_is_measured_as_it_is() -> None:
    counts = []

    def hook(model: Regression, batch: Columns, loss: Tensor) -> Tensor:
        model.scale.fill_(model.calls)
        return loss

    run(Regression(hook), validate=lambda one: {"error": counts.append(float(one.scale)) or 1.0})
    assert counts[1:] == [10, 20, 30, 40]


def test_one_steep_batch_does_not_spoil_training() -> None:
    def trained(clip_norm: float) -> float:
        model = Regression(at(5, lambda loss: loss * 1e6))
        return run(model, clip_norm=clip_norm, steps=100)[0]["best"]

    assert trained(1.0) < 0.5 * trained(1e9)


# resume


@pytest.mark.parametrize("stretch", [1, 20])
def test_killed_training_goes_on_bit_by_bit(tmp_path: Path, monkeypatch, stretch: int) -> None:
    monkeypatch.setattr(trainer_module, "_STRETCH", stretch)
    options = {"folder": tmp_path, "checkpoint_every_s": 0.0, "patience": 3}
    expected, whole = run(Regression(dropout=0.1), patience=3)

    def kill(loss: Tensor) -> Tensor:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(Regression(at(18, kill), dropout=0.1), **options)
    assert signal.getsignal(signal.SIGINT) is before
    (checkpoint,) = tmp_path.glob("*.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["step"] == (17 if stretch == 1 else 10)
    resumed = Regression(dropout=0.1)
    metrics, _ = run(resumed, **options)
    assert resumed.calls == 40 - saved["step"]
    assert same(whole, resumed)
    assert untimed(metrics) == untimed(expected)
    assert [one.suffix for one in tmp_path.iterdir()] == [".done"]
    again = Regression(dropout=0.1)
    assert run(again, **options)[0] == metrics
    assert again.calls == 0
    assert same(whole, again)


def test_validations_without_progress_count_over_a_kill(tmp_path: Path) -> None:
    def unlearned(model: nn.Module) -> dict[str, float]:
        return {"error": -error(model)["error"]}

    options = {"validate": unlearned, "validate_every": 5, "patience": 6}
    assert run(**options)[0]["stopped"] == "early at step 30"
    leave_checkpoint(tmp_path, at_step=18, **options)
    metrics, model = run(folder=tmp_path, **options)
    assert (metrics["stopped"], metrics["best_step"], model.calls) == ("early at step 30", 0, 15)


def test_a_loss_that_runs_away_is_noticed_over_a_kill(tmp_path: Path) -> None:
    def hook(model: Regression, batch: Columns, loss: Tensor) -> Tensor:
        if model.calls == 65 and model.dies:
            raise KeyboardInterrupt
        return loss * (1000 if model.calls > 45 else 1)

    model = Regression(hook)
    model.dies = True
    options = {"steps": 200, "validate_every": 100}
    path = leave_checkpoint(tmp_path, model=model, **options)
    model = Regression(hook)
    model.dies = False
    model.calls = torch.load(path, weights_only=True)["step"]
    assert model.calls == 60
    assert run(model, folder=tmp_path, **options)[0]["stopped"] == "diverged at step 46"


def test_a_checkpoint_is_written_when_told_to_terminate(tmp_path: Path) -> None:
    expected, whole = run(validate_every=40)

    def terminate(loss: Tensor) -> Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return loss

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        run(Regression(at(13, terminate)), folder=tmp_path, validate_every=40)
    assert signal.getsignal(signal.SIGTERM) is before
    (checkpoint,) = tmp_path.iterdir()
    assert torch.load(checkpoint, weights_only=True)["step"] == 20
    metrics, resumed = run(folder=tmp_path, validate_every=40)
    assert same(whole, resumed)
    assert untimed(metrics) == untimed(expected)


def leave_checkpoint(folder: Path, **changes: object) -> Path:
    def kill(loss: Tensor) -> Tensor:
        raise KeyboardInterrupt

    before = set(folder.iterdir())
    model = Regression(at(changes.pop("at_step", 30), kill))
    model = changes.pop("model", model)
    with pytest.raises(KeyboardInterrupt):
        run(model, folder=folder, checkpoint_every_s=0.0, **changes)
    (new,) = set(folder.iterdir()) - before
    return new


def test_checkpoints_of_other_runs_have_other_names(tmp_path: Path) -> None:
    def kill(loss: Tensor) -> Tensor:
        raise KeyboardInterrupt

    other = Regression(at(30, kill))
    nn.init.zeros_(other.layers[0].bias)
    leave_checkpoint(tmp_path)
    leave_checkpoint(tmp_path, seed=1)
    leave_checkpoint(tmp_path, data=TensorData(rows(), weights=torch.arange(64) + 1.0))
    leave_checkpoint(tmp_path, model=other)
    leave_checkpoint(tmp_path, run="other loss")
    assert len(list(tmp_path.iterdir())) == 5


def test_a_batch_may_be_split_otherwise_after_a_resume(tmp_path: Path) -> None:
    leave_checkpoint(tmp_path)
    model = Regression()
    run(model, folder=tmp_path, accumulation=2)
    assert model.calls == 2 * 20


def test_a_damaged_checkpoint_is_not_used_and_that_is_said(tmp_path: Path, caplog) -> None:
    leave_checkpoint(tmp_path).write_bytes(b"half a file")
    metrics, _ = run(folder=tmp_path)
    assert metrics["notes"][0].endswith("was damaged: started anew")
    assert metrics["notes"][0] in caplog.text
    assert metrics["curve"][0]["step"] == 10


def test_nan_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = leave_checkpoint(tmp_path)
    saved = torch.load(path, weights_only=True)
    saved["model"]["layers.0.bias"][2] = math.nan
    torch.save(saved, path)
    with pytest.raises(DataError, match=r"layers\.0\.bias holds NaN"):
        run(folder=tmp_path)


# start


def test_training_goes_on_from_earlier_weights_on_new_data() -> None:
    first, earlier = run(steps=100, learning_rate=3e-2)
    weights = {name: one.clone() for name, one in earlier.state_dict().items()}
    more = TensorData(rows(96, seed=7))
    metrics, _ = run(start=weights, data=more)
    assert metrics["initial"]["error"] == first["best"]
    assert metrics["best"] <= first["best"]


def test_starting_weights_that_do_not_fit_or_hold_nan_are_refused() -> None:
    weights = Regression().state_dict()
    with pytest.raises(DataError, match="do not fit"):
        run(start={name: one for name, one in weights.items() if "bias" not in name})
    with pytest.raises(DataError, match="holds NaN"):
        run(start=weights | {"scale": torch.tensor(math.inf)})


# stopping


def scripted(*errors: float):
    remaining = list(errors)
    return lambda model: {"error": remaining.pop(0)}


def test_training_stops_early_and_keeps_the_best_step() -> None:
    seen: list[str] = []
    scores = scripted(5.0, 4.0, 3.0, 3.5, 3.2, 0.0)

    def validate(model: nn.Module) -> dict[str, float]:
        seen.append(tensors_id(model.state_dict()))
        return scores(model)

    metrics, model = run(validate=validate, steps=100, patience=2)
    assert (metrics["stopped"], metrics["steps"]) == ("early at step 40", 40)
    assert (metrics["best"], metrics["best_step"]) == (3.0, 20)
    assert tensors_id(model.state_dict()) == seen[2]


def test_weights_that_never_get_better_are_the_initial_ones() -> None:
    fresh = Regression()
    metrics, model = run(validate=scripted(1.0, 2.0, 2.0, 2.0, 2.0))
    assert (metrics["best_step"], metrics["stopped"]) == (0, "")
    assert same(fresh, model)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_training(bad: float) -> None:
    metrics, model = run(Regression(at(27, lambda loss: loss * bad)))
    assert metrics["stopped"] == "diverged at step 27"
    assert [row["step"] for row in metrics["curve"]] == [10, 20]
    assert metrics["best"] == error(model)["error"]
    assert all(bool(one.isfinite().all()) for one in model.state_dict().values())


def test_a_gradient_that_is_not_finite_stops_training() -> None:
    # the root's value at 0 is fine, its slope is not
    metrics, _ = run(Regression(at(5, lambda loss: loss + (loss - loss.detach()).sqrt())))
    assert metrics["stopped"] == "diverged at step 5"
    assert (metrics["best_step"], metrics["curve"]) == (0, [])


def test_a_loss_that_stays_far_too_high_stops_training() -> None:
    def hook(model: Regression, batch: Columns, loss: Tensor) -> Tensor:
        return loss * (1000 if model.calls > 45 else 1)

    metrics, _ = run(Regression(hook), steps=200)
    assert metrics["stopped"] == "diverged at step 46"
    # a few bad batches are no divergence
    few = Regression(
        lambda model, batch, loss: loss * (1000 if model.calls in range(45, 65) else 1)
    )
    assert run(few, steps=100)[0]["stopped"] == ""


def test_a_metric_that_is_not_finite_stops_training() -> None:
    metrics, _ = run(validate=scripted(1.0, 0.5, math.nan))
    assert (metrics["stopped"], metrics["best"]) == ("diverged at step 20", 0.5)


def test_a_metric_that_nobody_measures_is_refused() -> None:
    with pytest.raises(ConfigError, match="'eror'; validation gives error"):
        run(metric="eror")


# memory


def test_out_of_memory_halves_the_micro_batch_and_says_so(caplog) -> None:
    sizes: list[int] = []

    def hook(model: Regression, batch: Columns, loss: Tensor) -> Tensor:
        sizes.append(len(batch.given))
        # the second time half of the gradient is there already
        if len(batch.given) > 8 or model.calls == 3:
            raise torch.OutOfMemoryError
        return loss

    expected, _ = run()
    with caplog.at_level(logging.WARNING):
        metrics, _ = run(Regression(hook))
    assert sizes[:7] == [16, 8, 8, 4, 4, 4, 4]
    assert set(sizes[3:]) == {4}
    assert metrics["notes"] == [
        "out of memory at step 1 with 16 rows at a time: went on with 8",
        "out of memory at step 1 with 8 rows at a time: went on with 4",
    ]
    assert all(note in caplog.text for note in metrics["notes"])
    assert metrics["flops"] == expected["flops"]
    for row, other in zip(metrics["curve"], expected["curve"], strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)


def test_out_of_memory_in_one_of_several_processes_ends_training_with_advice() -> None:
    engine = Engine(Regression(), DATA, config(accumulation=2), keepers=[])
    engine.configure_optimizers()
    engine._processes, engine._micro = 2, 4
    with pytest.raises(ConfigError, match="set accumulation to 4 or more and run again"):
        engine._halve()


def test_one_row_that_does_not_fit_is_refused() -> None:
    def hook(model: Regression, batch: Columns, loss: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(ConfigError, match="1 rows at a time; choose a smaller model"):
        run(Regression(hook))


# config and data


def test_a_config_survives_json_and_refuses_what_it_does_not_know() -> None:
    whole = config(patience=4, warmup_steps=3)
    assert TrainingConfig.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        TrainingConfig.from_json({"batchsize": 3})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("batch_size", 0), ("accumulation", 17), ("learning_rate", 0.0),
        ("warmup_steps", 41), ("weight_decay", 1.0), ("clip_norm", 0.0), ("ema_decay", 1.0),
        ("precision", "16"), ("accelerator", "tpu"), ("devices", -1), ("validate_every", 0),
        ("patience", -1), ("seed", -1),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value!r}"):
        config(**{name: value})


def test_only_what_spreads_a_batch_leaves_the_outcome_alone() -> None:
    base = config()
    spread = dataclasses.replace(base, devices=2, strategy="ddp", accumulation=4)
    assert spread.decisive == base.decisive != dataclasses.replace(base, seed=1).decisive


def test_a_cpu_trains_in_full_precision_and_refuses_what_it_lacks(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = placement(config(accelerator="auto", devices=0))
    assert (found["accelerator"], found["devices"], found["strategy"]) == ("cpu", 1, "auto")
    assert found["precision"] == "32-true"
    with pytest.raises(ConfigError, match="no GPU is visible"):
        placement(config(accelerator="cuda"))
    with pytest.raises(ConfigError, match="needs a GPU"):
        placement(config(precision="bf16-mixed"))
    with pytest.raises(ConfigError, match="20 processes need"):
        placement(config(devices=20))


def test_every_gpu_is_used_in_bf16_unless_told_otherwise(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = placement(config(accelerator="auto", devices=0))
    assert (found["accelerator"], found["devices"], found["num_nodes"]) == ("cuda", 4, 1)
    assert found["precision"] == "bf16-mixed"
    assert placement(config(accelerator="auto", precision="32-true"))["precision"] == "32-true"


def test_processes_that_were_started_are_spread_over_machines(monkeypatch) -> None:
    environment = "workbench.diffusion.distributed.TorchElasticEnvironment"
    monkeypatch.setattr(f"{environment}.detect", staticmethod(lambda: True))
    monkeypatch.setattr(f"{environment}.world_size", lambda self: 8)
    found = placement(config(devices=4))
    assert (found["devices"], found["num_nodes"], found["strategy"]) == (4, 2, "ddp")
    with pytest.raises(ConfigError, match="8 processes were started"):
        placement(config(devices=3))


def test_rows_are_drawn_by_their_weights() -> None:
    weights = torch.zeros(64)
    weights[[0, 9, 63]] = torch.tensor([1.0, 2.0, 1.0])
    data = TensorData(rows(), weights=weights)
    drawn = data.draw(4000, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=64)
    assert set(counts.nonzero().flatten().tolist()) == {0, 9, 63}
    assert float(counts[9]) == pytest.approx(2000, rel=0.1)
    assert data.id != DATA.id == TensorData(rows()).id
    assert torch.equal(data.batch(drawn).given, rows().given[drawn])


@pytest.mark.parametrize(
    "weights", [torch.ones(3), torch.zeros(64), -torch.ones(64), torch.full((64,), math.nan)]
)
def test_unusable_weights_are_refused(weights: Tensor) -> None:
    with pytest.raises(DataError, match="64 finite numbers"):
        TensorData(rows(), weights=weights)


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[3, 64\]"):
        TensorData(Columns(rows().given, rows(3).wanted))
