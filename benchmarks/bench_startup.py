"""How long `workbench --help` and `import workbench` take: the median of ten processes each."""

from __future__ import annotations

import statistics
import sys

from measure import ROOT, WORKBENCH, call, publish

TIMES = 10
COMMANDS = {
    "bare python": ([sys.executable, "-c", "pass"], None),
    "import workbench": ([sys.executable, "-c", "import workbench"], 0.15),
    "workbench --help": ([WORKBENCH, "--help"], 0.4),
}


def main() -> None:
    """Measure and publish."""
    rows = []
    for name, (command, limit) in COMMANDS.items():
        call(command, cwd=ROOT)  # the first one fills caches of files
        uses = [call(command, cwd=ROOT) for _ in range(TIMES)]
        cpu_s = [use.cpu_s for use in uses]
        rows.append(
            {
                "command": name,
                "cpu_s": statistics.median(cpu_s),
                "cpu_s_max": max(cpu_s),
                "wall_s": statistics.median(use.wall_s for use in uses),
                "limit_cpu_s": limit or "",
            }
        )
    publish("startup", rows)


if __name__ == "__main__":
    main()
