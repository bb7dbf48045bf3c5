"""``python -m workbench.llm.loopback``: prints its URL, serves until stopped."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench.core.errors import InputError
from workbench.llm.loopback import LoopbackServer, parse_faults

__all__ = ["main"]


async def _serve(**options: Any) -> None:
    async with LoopbackServer(**options) as server:
        print(server.base_url, flush=True)  # noqa: T201 - for whoever started it
        await asyncio.Event().wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m workbench.llm.loopback")
    parser.add_argument("--ledger", type=Path, dest="ledger_file", help="file of JSON lines")
    parser.add_argument("--faults", default="", help="e.g. 429=0.05,drop=0.02,retry_after_s=0.1")
    for name in ("port", "seed"):
        parser.add_argument(f"--{name}", type=int, default=0)
    for name in ("latency-s", "batch-delay-s", "requests-per-minute", "tokens-per-minute"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    options = vars(parser.parse_args())
    try:
        options["faults"] = parse_faults(options["faults"])
    except InputError as error:
        parser.error(str(error))
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(**options))


if __name__ == "__main__":
    main()
