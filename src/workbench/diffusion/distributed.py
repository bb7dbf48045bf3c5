"""Where training runs, and noise that does not depend on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from torch import Tensor
from torch.overrides import TorchFunctionMode

from workbench.core.errors import ConfigError
from workbench.diffusion.training_config import TrainingConfig

__all__ = ["WholeDraws", "placement", "rank"]

_FRESH: tuple[Callable[..., Any], ...] = (torch.rand, torch.randn, torch.randint)
_IN_PLACE = (Tensor.normal_, Tensor.uniform_, Tensor.bernoulli_, Tensor.exponential_)


def placement(config: TrainingConfig) -> dict[str, Any]:
    """Return Lightning's arguments for the machines that there are.

    Processes that torchrun or srun started are taken as they are; without them more than one
    device means forked processes of this machine.

    Raises:
        ConfigError: If the config asks for a GPU that is not there, for bf16 without one, or for
            devices that the started processes cannot be spread over.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    accelerator = config.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if gpus else "cpu"
    if accelerator == "cuda" and not gpus:
        raise ConfigError("accelerator is 'cuda', but no GPU is visible; choose cpu or auto")
    precision = config.precision
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "cuda" else "32-true"
    if precision == "bf16-mixed" and accelerator == "cpu":
        raise ConfigError("precision is 'bf16-mixed', which needs a GPU; choose 32-true or auto")
    started = _started()
    world = started.world_size() if started else 0
    devices = config.devices or (gpus if accelerator == "cuda" else max(world, 1))
    if world % devices:
        raise ConfigError(
            f"devices is {devices} per machine, but {world} processes were started; "
            f"start a multiple of {devices} or set devices to the processes per machine"
        )
    processes = world or devices
    if processes > config.batch_size:
        raise ConfigError(
            f"batch_size is {config.batch_size}; {processes} processes need at least a row each"
        )
    strategy = config.strategy
    if strategy == "auto" and processes > 1:
        strategy = "ddp" if world else "ddp_fork"
    return {
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": processes // devices,
        "strategy": strategy,
        "precision": precision,
    }


def rank() -> tuple[int, int]:
    """Return which of the processes this is, from 0, and how many torchrun or srun started."""
    started = _started()
    return (started.global_rank(), started.world_size()) if started else (0, 1)


def _started() -> ClusterEnvironment | None:
    known = (TorchElasticEnvironment, SLURMEnvironment)
    return next((one() for one in known if one.detect()), None)


class WholeDraws(TorchFunctionMode):
    """Random numbers for some rows of a batch are those rows of the numbers for all of it.

    A batch that is split over micro-batches and processes then has the noise of one that is not.
    This holds for what is drawn with ``generator`` and one row per example, up to the first other
    draw, such as a permutation: those are the part's own.

    Args:
        generator: In the state in which the whole batch would find it.
        start: First row of the part.
        stop: Row after its last.
        whole: Rows of the whole batch.
    """

    def __init__(self, generator: torch.Generator, *, start: int, stop: int, whole: int) -> None:
        super().__init__()
        self._generator = generator
        self._own = torch.Generator(generator.device).manual_seed(
            (generator.initial_seed() + start) % 2**63
        )
        self._part = slice(start, stop)
        self._rows = stop - start
        self._whole = whole

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return what a function returns, or its rows of the whole batch's random numbers."""
        options = kwargs or {}
        if options.get("generator") is not self._generator:
            return func(*args, **options)
        if func in _FRESH:
            before, size = _split_size(func, args, options)
            if size and size[0] == self._rows:
                rest = {name: value for name, value in options.items() if name != "size"}
                return func(*before, (self._whole, *size[1:]), **rest)[self._part]
        if func in _IN_PLACE and args[0].ndim and len(args[0]) == self._rows:
            everything = args[0].new_empty((self._whole, *args[0].shape[1:]))
            return args[0].copy_(func(everything, *args[1:], **options)[self._part])
        return func(*args, **{**options, "generator": self._own})


def _split_size(
    func: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], Sequence[int]]:
    """Return the arguments before the size, and the size, of a function that makes tensors."""
    if "size" in options:
        return args, options["size"]
    if func is torch.randint:
        return args[:-1], args[-1]
    return (), args if isinstance(args[0], int) else args[0]
