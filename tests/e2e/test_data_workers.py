"""A pair set built by workers of a scheduler, one of which is killed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dask_processes import open_site, wait_until
from workbench.core.settings import read_settings
from workbench.data.build import build_pairs
from workbench.data.config import read_config
from workbench.store.database import open_store

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

FILE = """\
name: dealt
description: Many shards
target_pairs: 60000
sources:
  - {adapter: seeds, dialogues: true, encodings: true, languages: all}
"""


def test_a_killed_workers_shards_are_grown_by_another_and_the_version_is_the_same(tmp_path: Path):
    (tmp_path / "dealt.yaml").write_text(FILE)
    (tmp_path / "experiments").mkdir()
    home = tmp_path / "experiments" / "runs"
    with open_site(tmp_path, workers=2) as site:
        building = site.workbench(
            "data", "build", "dealt.yaml", "--executor", site.spec, "--json",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_until(
            lambda: building.poll() is not None or list(home.glob("builds/*/00000.json")),
            seconds=300, what="a first shard",
        )  # fmt: skip
        assert building.poll() is None, building.communicate()
        site.kill_worker(site.workers[0])
        out, errors = building.communicate(timeout=600)
    assert building.returncode == 0, errors.decode()
    store = open_store(
        read_settings({"WORKBENCH_HOME": str(tmp_path / "o"), "WORKBENCH_USER": "tester"})
    )
    alone = build_pairs(store, read_config(tmp_path / "dealt.yaml"))
    store.engine.dispose()
    assert json.loads(out.splitlines()[-1])["version"] == alone.version
