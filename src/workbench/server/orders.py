"""What a job is asked to do: its request, checked and read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.core.errors import ConfigError, InputError
from workbench.core.fields import refuse_unknown
from workbench.core.money import usd

if TYPE_CHECKING:
    from workbench.campaign.conduct import ExecuteOptions
    from workbench.campaign.generate import GenerateConfig

__all__ = [
    "budget_usd", "check_request", "execute_options", "experiment_file", "generate_config",
]  # fmt: skip

_FIELDS = {
    "generate": ("config",),
    "execute": ("datasetId", "providers", "options"),
    "run": ("config", "providers", "options"),
    "experiment": ("experiment", "overrides", "rehearsal"),
}
_OPTIONS = (
    "judges", "grader", "sanitizer", "trials", "label", "budget_usd", "retry_errors",
)  # fmt: skip
_PROVIDER = re.compile(
    r"(guarded(@[\d.]{1,8})?:){0,4}"
    r"(bare|sanitizer(@[\d.]{1,8})?|(http|ws)s?://[!-~]{1,400}"
    r"|(?![!-~]*\.[yY][aA]?[mM][lL]$)(anthropic|openai):[!-~]{1,400})"
)
"""Of all that ``parse_target`` takes, what names no file and no function of the server."""


def check_request(kind: str, request: Mapping[str, Any]) -> None:
    """Refuse a request of which no job can be made, before it waits in a queue.

    Raises:
        InputError: If it makes no sense. The message names the field, the value and the fix.
    """
    if kind not in _FIELDS:
        raise InputError(f"kind {str(kind)[:60]!r} is none of {', '.join(_FIELDS)}")
    refuse_unknown(dict(request), known=_FIELDS[kind], where=f"{kind} request")
    if kind in {"generate", "run"}:
        generate_config(request)
    if kind in {"execute", "run"}:
        execute_options(request)
    if kind == "execute" and not isinstance(request.get("datasetId"), str):
        raise InputError("execute request: datasetId is missing; give the id of a test set")
    if kind == "experiment":
        experiment_file(request)


def generate_config(request: Mapping[str, Any]) -> GenerateConfig:
    """Return what to generate; raises :class:`InputError`."""
    from workbench.campaign.generate import GenerateConfig

    config = request.get("config", {})
    if not isinstance(config, Mapping):
        raise InputError('config is no object; write e.g. {"max_tests": 100}')
    known = tuple(one.name for one in fields(GenerateConfig))
    refuse_unknown(dict(config), known=known, where="config")
    lists = {name: tuple(config.get(name, ())) for name in ("plugins", "strategies")}
    try:
        return GenerateConfig(**{**config, **lists})
    except TypeError as error:
        raise InputError(f"config: {error}; give each field its type") from None


def execute_options(request: Mapping[str, Any]) -> ExecuteOptions:
    """Return whom to attack and how; raises :class:`InputError`."""
    from workbench.campaign.conduct import ExecuteOptions

    options, providers = request.get("options", {}), request.get("providers", [])
    if not isinstance(options, Mapping) or not isinstance(providers, list):
        raise InputError('write {"providers": ["bare"], "options": {…}}')
    refuse_unknown(dict(options), known=_OPTIONS, where="options")
    for one in providers:
        _check_provider(one)
    values = {**options, "budget_usd": budget_usd(request)}
    return ExecuteOptions(targets=tuple(providers), **values)


def _check_provider(line: Any) -> None:
    """Refuse what would have the server run a function or read a file that a request names."""
    from workbench.campaign.targets.spec import parse_target

    if not isinstance(line, str) or not _PROVIDER.fullmatch(line):
        raise InputError(
            f"provider {str(line)[:80]!r}: a job takes bare, sanitizer@1, guarded:…, anthropic:…,"
            " openai:… and addresses; functions and files are attacked from a notebook"
        )
    parse_target(line)


def budget_usd(request: Mapping[str, Any]) -> Decimal | None:
    """Return the most that a request allows to spend; None without a limit."""
    given = (request.get("options") or {}).get("budget_usd")
    return None if given is None else usd(str(given))


def experiment_file(request: Mapping[str, Any]) -> Path:
    """Return the file of an experiment of the project; a request gives its name, never a path."""
    from workbench.core.settings import project_root

    name, overrides = request.get("experiment"), request.get("overrides", [])
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]{0,99}", name, re.ASCII):
        raise ConfigError(f"experiment {str(name)[:80]!r}: give the name of a file in experiments/")
    if not isinstance(overrides, list) or not all(isinstance(one, str) for one in overrides):
        raise ConfigError("overrides: write a list of step.parameter=value")
    file = project_root() / "experiments" / f"{name}.yaml"
    if not file.is_file():
        raise ConfigError(f"no experiment {name!r} in {file.parent.name}/; see what is there")
    return file
