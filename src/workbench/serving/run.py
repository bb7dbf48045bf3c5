"""Running the service: signals, loading behind an open port, draining before the end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from decimal import Decimal
from types import FrameType
from typing import Literal

import uvicorn

from workbench.core.errors import WorkbenchError
from workbench.serving.app import make_app
from workbench.serving.config import ServeConfig
from workbench.serving.guard import guard_routes
from workbench.serving.service import Service
from workbench.serving.upstream import Upstream
from workbench.store.database import Store

__all__ = ["serve"]

_LOG = logging.getLogger(__name__)


def serve(
    config: ServeConfig,
    store: Store,
    *,
    credit_usd: Decimal,
    upstream: Upstream | None = None,
    turns: Literal["all", "last"] = "all",
) -> None:
    """Serve until SIGTERM or Ctrl-C, which drains; SIGHUP loads the model again.

    Args:
        config: How.
        store: Models, keys and ledger.
        credit_usd: Dollars that a credit of the keys' quotas is.
        upstream: Model services to guard.
        turns: Of a chat, those that the guard looks at.

    Raises:
        WorkbenchError: If there is no usable model, or the port is taken.
    """
    service = Service(config, store, credit_usd=credit_usd)
    loops = uvicorn.Config("", log_config=None).get_loop_factory()  # uvloop, where there is one
    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(_serve(service, upstream, turns))


async def _serve(
    service: Service, upstream: Upstream | None, turns: Literal["all", "last"]
) -> None:
    config = service.config
    guarded = guard_routes(service, upstream, turns=turns) if upstream else []
    settings = uvicorn.Config(
        make_app(service, more=guarded), host=config.host, port=config.port, log_config=None,
        access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = _Server(settings, service)
    try:
        await server.to_the_end()
    finally:  # the second signal leaves out uvicorn's own end; what is broken off is booked
        begun = list(server.server_state.tasks)
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        await service.close()
        if upstream:
            await upstream.close()


class _Server(uvicorn.Server):
    """Drains at the first signal, ends at the second."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._begun: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    async def to_the_end(self) -> None:
        """Load, serve and end.

        Raises:
            WorkbenchError: If there is no usable model, or the port is taken.
        """
        loading = asyncio.create_task(self._load())
        if hasattr(signal, "SIGHUP"):
            self._loop.add_signal_handler(signal.SIGHUP, self._begin, self._service.reload_quietly)
        try:
            await self.serve()
        except SystemExit:  # uvicorn has logged why
            raise WorkbenchError(
                f"cannot serve on {self.config.host}:{self.config.port}; choose another --port"
            ) from None
        finally:
            loading.cancel()
        if not loading.cancelled() and loading.done():
            loading.result()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """Answer what was begun and refuse the rest, then end."""
        if self._service.is_draining:
            self.should_exit = self.force_exit = True
        else:
            self._loop.call_soon_threadsafe(self._begin, self._drain)

    async def _load(self) -> None:
        try:
            await self._service.load()
        except Exception:
            self.should_exit = True
            raise
        _LOG.info("ready on %s:%s", self.config.host, self.config.port)

    async def _drain(self) -> None:
        _LOG.info("draining")
        await self._service.drain()
        self.should_exit = True

    def _begin(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = asyncio.create_task(work())
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
