"""PyRIT's converters as strategies, where the extra ``pyrit`` is installed."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from types import ModuleType
from typing import Any

from workbench.campaign.strategies.base import Strategy
from workbench.core.errors import ConfigError

__all__ = ["pyrit_strategies"]


def pyrit_strategies() -> list[Strategy]:
    """Return a strategy ``pyrit-<name>`` per converter of PyRIT that turns text into text alone.

    Converters that need a model, a file or any other argument are left out. Loads PyRIT.

    Raises:
        ConfigError: If PyRIT is not installed.
    """
    try:
        module = importlib.import_module("pyrit.converter")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; pip install 'prompt-safety-workbench[pyrit]', or "
            "leave its strategies out"
        ) from None
    names = (name for name in sorted(dir(module)) if name.endswith("Converter"))
    return [
        _strategy(name, converter)
        for name in names
        if name != "PromptConverter" and _is_plain(converter := _load(module, name))
    ]


def _load(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except ImportError:  # it needs an extra of PyRIT
        return None


def _is_plain(converter: Any) -> bool:
    """Return whether a converter turns text into text and can be made without arguments."""
    if (
        not inspect.isclass(converter)
        or inspect.isabstract(converter)
        or tuple(getattr(converter, "SUPPORTED_OUTPUT_TYPES", ())) != ("text",)
        or "text" not in getattr(converter, "SUPPORTED_INPUT_TYPES", ())
    ):
        return False
    return not any(
        "target" in one.name
        or (one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD))
        for one in inspect.signature(converter).parameters.values()
    )


def _strategy(name: str, converter: Callable[..., Any]) -> Strategy:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name.removesuffix("Converter")).lower()
    about = (inspect.getdoc(converter) or "").partition("\n")[0].strip()
    return Strategy(
        name=f"pyrit-{words}", kind="encoding", taxonomy=("AML.T0068",),
        description=about or f"PyRIT's {name}.", disguise=partial(_disguise, converter=converter),
    )  # fmt: skip


def _disguise(text: str, *, seed: int, converter: Callable[..., Any]) -> str:
    # Some draw their alphabet when they are made, from a seed of their own.
    own = {"seed": seed} if "seed" in inspect.signature(converter).parameters else {}

    def convert() -> Any:
        return asyncio.run(converter(**own).convert_async(prompt=text, input_type="text"))

    # In a thread of its own, since a notebook's event loop may run in this one.
    with _seeded(seed), ThreadPoolExecutor(max_workers=1) as pool:
        return str(pool.submit(copy_context().run, convert).result().output_text)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed PyRIT's draws, and those of the converters that use Python's; undo both afterwards."""
    context: Any = importlib.import_module("pyrit.common.random_context")
    state, before = random.getstate(), context.get_configured_random_seed()
    random.seed(seed)
    context.configure_random_seed(seed=seed)
    try:
        yield
    finally:
        random.setstate(state)
        context.configure_random_seed(seed=before)
