"""The main job in a fresh store, and again unchanged: wall, CPU, memory of the whole tree."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from measure import ROOT, WORKBENCH, call, publish

COMMAND = [WORKBENCH, "run", "experiments/quickstart.yaml"]


def main() -> None:
    """Measure and publish."""
    with TemporaryDirectory() as folder:
        # a copy of what a clone has, so that the report of the checkout stays as it is
        root = Path(folder) / "project"
        root.mkdir()
        for name in ("experiments", "notebooks"):
            (root / name).mkdir()
            for file in (ROOT / name).iterdir():
                if file.is_file():
                    (root / name / file.name).write_bytes(file.read_bytes())
        variables = {"WORKBENCH_HOME": str(Path(folder) / "home")}
        first = call(COMMAND, cwd=root, variables=variables, sample_memory=True)
        second = call(COMMAND, cwd=root, variables=variables, sample_memory=True)
        rows = []
        for name, used, limit_s in (("fresh", first, 300), ("unchanged", second, 5)):
            rows.append(
                {
                    "run": name,
                    "wall_s": used.wall_s,
                    "limit_wall_s": limit_s,
                    "cpu_s": used.cpu_s,
                    "peak_rss_mb": used.peak_rss_mb,
                    "peak_pss_mb": used.peak_pss_mb,
                    "ran": used.output.count(" succeeded "),
                    "skipped": used.output.count(" skipped"),
                }
            )
    publish("quickstart", rows)


if __name__ == "__main__":
    main()
