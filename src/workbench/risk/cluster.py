"""Where workers run: here, or on a Dask cluster behind the face of ``concurrent.futures``."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from workbench.core.errors import ConfigError

__all__ = ["open_cluster"]


@contextmanager
def open_cluster(address: str | None, *, seconds: float = 10) -> Iterator[Executor | None]:
    """Give the executor of a Dask scheduler, or None for this process.

    Args:
        address: E.g. ``tcp://127.0.0.1:8786``; snapshots must be readable on its workers.
        seconds: To wait for the scheduler, and for its first worker.

    Raises:
        ConfigError: If Dask is not installed, nobody answers there, or nobody works for it.
    """
    if not address:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError(
            "--dask needs Dask; run: pip install 'prompt-safety-workbench[dask]'"
        ) from None
    try:
        client = Client(address, timeout=seconds)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"--dask {address}: no scheduler answers there ({type(error).__name__}); start one with"
            " `dask scheduler`"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=seconds)
        except TimeoutError:
            raise ConfigError(
                f"--dask {address}: the scheduler has no worker; start one with `dask worker`"
            ) from None
        yield client.get_executor()
