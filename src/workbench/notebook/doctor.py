"""Checks of the machine, for ``workbench doctor``."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from functools import partial
from typing import TypedDict

from workbench.core.errors import ConfigError, WorkbenchError
from workbench.core.provenance import library_versions
from workbench.core.redact import hide_password
from workbench.core.settings import read_keys, read_settings, seeds_folder
from workbench.store.database import open_store

__all__ = ["Check", "run_checks"]

_DISK_NEEDED_GB = 2.0


class Check(TypedDict):
    """One thing that was looked at."""

    name: str
    ok: bool
    optional: bool
    """Whether everything but a named extra works without it."""
    detail: str


def run_checks() -> list[Check]:
    """Return the checks of this machine, in the order in which things are needed."""
    needed = {
        "libraries": _libraries,
        "seeds": lambda: str(seeds_folder()),
        "encoder weights": _encoder,
        "store": _store,
        "disk": _disk,
        "kernel": _kernel,
        "model prices": _prices,
    }
    wanted: dict[str, Callable[[], str]] = {
        "network": _network,
        "anthropic key": _anthropic_key,
        "openai key": _openai_key,
        "shared cache": _cache,
        "browser": partial(_program, "chromium", "chromium-browser", "google-chrome"),
        "git": partial(_program, "git"),
    }
    return [
        *(_check(name, look) for name, look in needed.items()),
        *(_check(name, look, optional=True) for name, look in wanted.items()),
    ]


def _check(name: str, look: Callable[[], str], *, optional: bool = False) -> Check:
    try:
        return Check(name=name, ok=True, optional=optional, detail=look())
    except (WorkbenchError, ImportError, OSError) as error:
        return Check(name=name, ok=False, optional=optional, detail=str(error))


def _libraries() -> str:
    versions = library_versions()
    if absent := [name for name, version in versions.items() if version == "absent"]:
        raise ImportError(f"not installed: {', '.join(absent)}; run `make setup`")
    return " ".join(f"{name} {version}" for name, version in versions.items())


def _encoder() -> str:
    from workbench.embedding.encoder import load_encoder

    return load_encoder().id


def _store() -> str:
    store = open_store(read_settings())
    return f"{store.engine.url!r}, {len(store.runs.experiments())} experiments"


def _disk() -> str:
    home = read_settings().home
    free_gb = shutil.disk_usage(home if home.exists() else home.anchor).free / 1e9
    if free_gb < _DISK_NEEDED_GB:
        raise OSError(f"{free_gb:.1f} GB free for {home}; a run wants {_DISK_NEEDED_GB} GB")
    return f"{free_gb:.0f} GB free"


def _kernel() -> str:
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("python3")
    return " ".join(spec.argv)


def _prices() -> str:
    from workbench.llm.prices import Prices

    return Prices(None).price_version()


def _network() -> str:
    if read_settings().offline:
        return "offline: no connection beyond this machine (WORKBENCH_OFFLINE=0 allows them)"
    return "online: connections are allowed (WORKBENCH_OFFLINE=0)"


def _anthropic_key() -> str:
    try:
        return f"{len(read_keys('anthropic'))} present"
    except ConfigError as error:
        if str(error).startswith("no API key"):
            raise ConfigError(
                "absent (only needed for model calls); set ANTHROPIC_API_KEY, or"
                " WORKBENCH_ANTHROPIC_KEYS for several"
            ) from None
        raise


def _openai_key() -> str:
    count = sum(bool(key.reveal()) for key in read_keys("openai"))
    if not count:
        raise ConfigError(
            "absent (only needed for OpenAI-compatible services, not for servers on this machine);"
            " set OPENAI_API_KEY"
        )
    return f"{count} present"


def _cache() -> str:
    from workbench.llm.cache import open_cache

    settings = read_settings()
    if not settings.cache_url:
        return "none: answers are kept in the store (WORKBENCH_CACHE_URL names a Redis to share)"
    shown = hide_password(settings.cache_url)
    if (cache := open_cache(settings)) is None:
        return f"{shown}: left out while offline"

    async def look() -> bool:
        try:
            return await cache.is_reachable()
        finally:
            await cache.close()

    if not asyncio.run(look()):
        raise ConfigError(f"{shown} does not answer; start it, or unset WORKBENCH_CACHE_URL")
    return shown


def _program(*commands: str) -> str:
    for path in filter(None, map(shutil.which, commands)):
        return path
    raise OSError(f"absent (only needed for tests and provenance): {', '.join(commands)}")
