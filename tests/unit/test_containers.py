"""What the container files name exists: sources, commands, options, variables, extras."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from dataclasses import fields

import click
import pytest
import yaml

from machine import ROOT
from workbench.cli import main
from workbench.core.settings import Settings, read_settings

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
EXAMPLES = sorted((ROOT / "deploy").glob("*.env.example"))
SETTINGS = read_settings({}).to_environment().keys()
OTHERS = re.compile(r"POSTGRES_(USER|DB|PASSWORD)|JUPYTER_TOKEN|AWS_\w+|(ANTHROPIC|OPENAI)_API_KEY"
                    r"|OMP_NUM_THREADS|PATH|PYTHONUNBUFFERED|PIP_\w+")  # fmt: skip
OURS = {name: one for name, one in COMPOSE["services"].items()
        if one.get("image", "").startswith("workbench:")}  # fmt: skip


def instructions(name):
    return [line.split(maxsplit=1)[1] for line in DOCKERFILE.splitlines()
            if line.startswith(f"{name} ")]  # fmt: skip


def check_command(words):
    """Resolve words of a ``workbench`` command line with click itself, to the last option."""
    command, rest = main, list(words)
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    assert command is not main, f"no command {words}"
    if command.name != "lab":  # passes everything on
        command.make_parser(click.Context(command)).parse_args(rest)


def test_what_is_copied_exists_and_is_not_ignored():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines()
            if line.startswith("!")}  # fmt: skip
    copied = [one.split() for one in instructions("COPY") if not one.startswith("--from")]
    assert copied
    for *sources, _ in copied:
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source in kept, source


def test_extras_and_pins_are_known():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.search(r"ARG EXTRAS=(\S+)", DOCKERFILE)[1].split(",")
    assert set(extras) <= project["optional-dependencies"].keys()
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in one for one in installs)
    assert "ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu" in DOCKERFILE


def test_images_have_versions_and_nobody_is_root():
    images = [one["image"] for one in COMPOSE["services"].values()]
    images += re.findall(r"ARG PYTHON=(\S+)", DOCKERFILE)
    assert all(re.search(r"(:|^)\d+\.\d+", one) and "latest" not in one for one in images), images
    last_stage = DOCKERFILE.rpartition("FROM ")[2]
    assert "USER workbench" in last_stage
    assert "HEALTHCHECK" in last_stage
    assert DOCKERFILE.count("FROM ") == 2


def test_commands_are_those_that_there_are():
    (entry,) = map(json.loads, instructions("ENTRYPOINT"))
    (command,) = map(json.loads, instructions("CMD"))
    assert entry == ["workbench"]
    check_command(command)
    dask = {name for name, one in OURS.items() if one.get("entrypoint") == ["dask"]}
    assert dask == {"scheduler", "worker"}
    for name in OURS.keys() - dask:
        check_command(OURS[name]["command"])
    for file in ("compose.yaml", "docs/cluster.md"):
        text = (ROOT / file).read_text(encoding="utf-8")
        for line in re.findall(r"docker compose run --rm service (.+)", text):
            check_command(shlex.split(line, comments=True))


def test_dask_commands_take_their_options():
    from distributed.cli import dask_scheduler, dask_worker

    for name, program in (("scheduler", dask_scheduler.main), ("worker", dask_worker.main)):
        _, *words = OURS[name]["command"]
        program.make_parser(click.Context(program)).parse_args(words)


def variables():
    for file in EXAMPLES:
        for line in file.read_text(encoding="utf-8").splitlines():
            if found := re.match(r"#?([A-Z_]+)=(.*)", line):
                yield found[1], found[2]
    for line in instructions("ENV"):
        for found in re.finditer(r"(\w+)=(\S+)", line):
            yield found[1], found[2]


def test_variables_are_ones_that_are_read():
    found = dict(variables())
    assert found
    assert all(name in SETTINGS or OTHERS.fullmatch(name) for name in found), found
    made = read_settings({name: value for name, value in found.items() if name in SETTINGS})
    assert {one.name for one in fields(Settings)} >= {"database_url"}
    assert made.database_url.startswith("postgresql+psycopg://")
    assert made.may_connect(made.cache_url)


def test_no_secret_is_in_any_of_them():
    secret = re.compile(r"(PASSWORD|TOKEN|SECRET\w*|API_KEY|ACCESS_KEY_ID)=(\S+)")
    for file in (*EXAMPLES, ROOT / "compose.yaml", ROOT / "Dockerfile"):
        assert not secret.search(file.read_text(encoding="utf-8")), file
    assert all("environment" not in one for one in COMPOSE["services"].values())
    used = {one["env_file"] for one in COMPOSE["services"].values() if "env_file" in one}
    assert used == {str(one.relative_to(ROOT))[: -len(".example")] for one in EXAMPLES}


def test_everything_is_watched_and_only_this_machine_reaches_it():
    services = COMPOSE["services"]
    for name, one in services.items():
        assert one.get("healthcheck") or name == "service", name
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", ())), name
        for volume in one.get("volumes", ()):
            assert volume.split(":")[0] in COMPOSE["volumes"], volume
        for other, how in one.get("depends_on", {}).items():
            assert services[other].get("healthcheck")
            assert how == {"condition": "service_healthy"}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_real_environment_files_would_be_ignored_by_git(file):
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "deploy/*.env" in ignored
