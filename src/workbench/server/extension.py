"""The extension as Jupyter Server loads it: store, jobs, and where everything is mounted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jupyter_server.extension.application import ExtensionApp

from workbench.core.settings import read_settings
from workbench.server.feed import Feeds
from workbench.server.handlers import NotFoundHandler, RouteHandler
from workbench.server.identity import name_of
from workbench.server.pages import PAGES
from workbench.server.routes import Route
from workbench.server.stream import StreamHandler
from workbench.server.table import ROUTES
from workbench.store.database import Store, as_user, open_store

if TYPE_CHECKING:
    from workbench.server.service import JobService

__all__ = ["WorkbenchApp", "mounted"]


class WorkbenchApp(ExtensionApp):
    """Routes under ``/workbench/``; one store, seen by each user as their own."""

    name = "workbench"
    extension_url = "/workbench/"
    load_other_extensions = True

    @cached_property
    def store(self) -> Store:
        """The store of everybody, opened with the settings of who runs the server."""
        return open_store(read_settings(), patience_s=5.0)  # somebody sits and waits

    @cached_property
    def service(self) -> JobService:
        """What runs the jobs of all users."""
        from workbench.server.service import JobService

        return JobService(self.store_of)

    @cached_property
    def feeds(self) -> Feeds:
        """What the sockets of all users are told from."""
        return Feeds(self.store_of)

    def store_of(self, username: str) -> Store:
        """Return the store for one user alone.

        Args:
            username: As the server's identity provider says.

        Raises:
            ConfigError: If it is no name that records can carry.
        """
        assert self.serverapp is not None
        owner = self.store.settings.user
        name = name_of(username, self.serverapp.identity_provider, owner=owner)
        if name not in self._stores:
            self._stores[name] = as_user(self.store, name)
        return self._stores[name]

    @cached_property
    def _stores(self) -> dict[str, Store]:
        return {}

    def initialize_settings(self) -> None:
        """Open the store and go on with jobs left waiting; a server that cannot work ends here."""
        self.service.recover(self.store.settings.user)

    def initialize_handlers(self) -> None:
        """Mount routes, pages and stream; what is below them and nothing of these is a 404."""
        self.handlers.extend(mounted(ROUTES))
        self.handlers.extend(PAGES)
        self.handlers.append((r"workbench/api/stream", StreamHandler, {"feeds": self.feeds}))
        self.handlers.append((r"workbench/api(?:/.*)?", NotFoundHandler))

    async def stop_extension(self) -> None:
        """Stop the jobs, which can be resumed when the server runs again, and the sockets."""
        await asyncio.to_thread(self.service.close)
        await self.feeds.close()
        self.store.engine.dispose()


def mounted(routes: Sequence[Route]) -> list[tuple[str, type[Any], dict[str, Any]]]:
    """Return the handlers of routes, one per path; names in the path take anything but a slash."""
    paths: dict[str, dict[str, Route]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = route
    return [(_pattern(path), RouteHandler, {"routes": found}) for path, found in paths.items()]


def _pattern(path: str) -> str:
    named: Callable[[re.Match[str]], str] = lambda name: f"(?P<{name[1]}>[^/]+)"  # noqa: E731
    return re.sub(r"{(\w+)}", named, re.escape(path).replace(r"\{", "{").replace(r"\}", "}"))
