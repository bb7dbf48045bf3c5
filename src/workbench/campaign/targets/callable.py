"""A Python function as the target."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial, reduce
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from workbench.campaign.targets.chat import ChatTarget, Said
from workbench.campaign.targets.config import TargetSpec
from workbench.campaign.targets.pacing import TargetError
from workbench.campaign.targets.template import Asked
from workbench.core.errors import BudgetError, ConfigError, StoreError
from workbench.core.identity import file_sha256, text_id
from workbench.core.plain import one_line
from workbench.llm.timing import Timing

__all__ = ["CallableTarget"]

_MOST_HANGING = 64
"""Threads cannot be stopped; so many calls that never ended are enough."""


class CallableTarget(ChatTarget):
    """Calls ``answer(prompt, messages)``, with either parameter or both; runs somebody's code.

    A parameter ``messages`` gets the conversation as a list of ``{"role", "content"}``; ``prompt``,
    or a single parameter of any other name, what is said now. Functions that are not ``async`` run
    in threads.

    Args:
        spec: What somebody wrote; ``function`` is ``package.module:name`` or ``file.py:name``.
        timing: Clocks and sleep.
        tell: Called with a line when quiet hours hold it.

    Raises:
        ConfigError: If there is no such function, or it takes other parameters.
    """

    def __init__(
        self,
        spec: TargetSpec,
        *,
        timing: Timing | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._function, source = _loaded(spec.function, folder=spec.folder)
        name = spec.function.rpartition(":")[2]
        super().__init__(
            spec, name=f"python:{name}", identity=text_id("python", source, name), timing=timing,
            tell=tell,
        )  # fmt: skip
        self._takes = _parameters(self._function, where=spec.function)
        self._is_async = inspect.iscoroutinefunction(self._function)
        self._hanging = 0

    async def _say(self, asked: Asked, line: Any) -> Said:  # noqa: ARG002
        given = {"prompt": asked.prompt, "messages": [dict(one) for one in asked.messages]}
        call = (
            partial(self._function, **{name: given[name] for name in self._takes})
            if self._takes
            else partial(self._function, asked.prompt)
        )
        started = time.perf_counter()
        timeout_s = self._spec.timeout_s
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                text = await (call() if self._is_async else self._in_thread(call))
        except (BudgetError, StoreError):  # ours to stop at, should it use the gateway
            raise
        except TargetError:
            raise
        except (Exception, SystemExit) as error:
            if limit.expired():
                raise TargetError(f"no answer within {timeout_s:g} s; raise timeout_s") from None
            shown = one_line(f"{type(error).__name__}: {error}"[:1000])[:300]
            raise TargetError(f"raised {shown}") from error
        latency_ms = 1000 * (time.perf_counter() - started)
        if not isinstance(text, str):
            raise TargetError(f"returned {type(text).__name__}; return text")
        return Said(text, latency_ms, self.usd_per_call)

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        """Return what a call gives; a thread that never ends does not hold up the process's end."""
        if self._hanging >= _MOST_HANGING:
            raise TargetError(f"{self._hanging} earlier calls still hang; mend the function")
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[Any] = loop.create_future()

        def land(value: Any, error: Exception | None) -> None:
            self._hanging -= 1
            if landed.done():  # given up
                return
            if error:
                landed.set_exception(error)
            else:
                landed.set_result(value)

        def run() -> None:
            value: Any = None
            failure: Exception | None = None
            try:
                value = call()
            except (StopIteration, SystemExit) as error:  # no future takes the one, ends the other
                failure = TargetError(f"raised {type(error).__name__}")
            except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
                failure = error
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(land, value, failure)

        self._hanging += 1
        threading.Thread(target=run, daemon=True, name=self.name).start()
        return await landed


def _loaded(function: str, *, folder: Path) -> tuple[Callable[..., Any], str]:
    """Return a function and the hash of the file that holds it."""
    where, _, name = function.rpartition(":")
    if not where or not name:
        raise ConfigError(f"python:{function}: write python:package.module:function")
    try:
        module = _module_of(folder / where) if where.endswith(".py") else import_module(where)
        found = reduce(getattr, name.split("."), module)
    except Exception as error:
        shown = one_line(f"{type(error).__name__}: {error}"[:1000])[:300]
        raise ConfigError(f"python:{function}: cannot be loaded ({shown}); correct it") from error
    if not callable(found):
        raise ConfigError(f"python:{function}: {name} is no function")
    file = getattr(module, "__file__", None)
    return found, file_sha256(Path(file)) if file else where


def _module_of(path: Path) -> ModuleType:
    """Return the module in a file, under a name that no other module has."""
    name = f"_target_{text_id(str(path.resolve()))[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def _parameters(function: Callable[..., Any], *, where: str) -> tuple[str, ...]:
    """Return which of prompt and messages it takes by name; none where it takes a value."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # built in
        return ()
    named = tuple(name for name in ("prompt", "messages") if name in parameters)
    needed = {
        name
        for name, one in parameters.items()
        if one.default is one.empty and one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD}
    }
    if needed <= set(named) and named:
        return named
    if len(needed) == 1 and not named:
        return ()
    raise ConfigError(
        f"python:{where}: takes {', '.join(parameters) or 'nothing'}; write"
        " def answer(prompt: str, messages: list[dict]) -> str, or one parameter"
    )
