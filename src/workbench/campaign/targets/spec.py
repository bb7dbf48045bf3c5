"""Targets by a line or a file, and what it takes to open them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.campaign.targets.base import PassThrough, Target
from workbench.campaign.targets.config import TargetSpec
from workbench.core.errors import ConfigError
from workbench.core.settings import Settings, read_variable
from workbench.llm.config import GatewayConfig

if TYPE_CHECKING:
    from workbench.diffusion.sanitizer import Sanitizer
    from workbench.llm.gateway import Gateway
    from workbench.llm.timing import Timing
    from workbench.store.database import Store

__all__ = ["open_targets", "parse_target", "services_of"]

_GUARD = re.compile(r"(sanitizer|guarded)(?:@([^:@]*))?(?::(.*))?", re.DOTALL)
_MODEL = re.compile(r"(anthropic|openai):(.*?)(?:@(https?://.*))?")
_MOST_BYTES = 1_000_000
_MOST_LAYERS = 4
_HINT = (
    "write bare, sanitizer@1, guarded:TARGET, anthropic:MODEL, openai:MODEL@URL, http(s)://…,"
    " ws(s)://…, python:module:function, or the path of a .yaml file"
)


def parse_target(text: str | Path, *, folder: Path = Path(), layers: int = 0) -> TargetSpec:
    """Return the target that a line says, or a YAML file of its fields.

    Args:
        text: E.g. ``guarded@4:anthropic:claude-haiku-5-5`` or ``targets/chat.yaml``.
        folder: That relative paths start from.
        layers: How many guards stand before it.

    Raises:
        ConfigError: If it says no target.
    """
    line = str(text).strip()
    if isinstance(text, Path) or re.fullmatch(r"(?!\w+://|guarded).*\.ya?ml", line):
        return _from_file(folder / text, layers=layers)
    if line == "bare":
        return TargetSpec(type="bare")
    if found := _GUARD.fullmatch(line):
        return _guard(line, *found.groups(), folder=folder, layers=layers)
    if found := _MODEL.fullmatch(line):
        provider, model, url = found.groups()
        values = {"type": "model", "provider": provider, "model": model, "url": url or ""}
        return TargetSpec.from_mapping(values, where=line[:80])
    for scheme, kind in (("http", "http"), ("ws", "websocket")):
        if re.match(f"{scheme}s?://", line):
            # not shown: may hold a password
            return TargetSpec.from_mapping({"type": kind, "url": line}, where=f"{scheme} target")
    if line.startswith("python:"):
        function = line.removeprefix("python:")
        values = {"type": "python", "function": function}
        return TargetSpec.from_mapping(values, where=line[:80], folder=folder)
    raise ConfigError(f"target {line[:80]!r}: unknown; {_HINT}")


def _guard(
    line: str, kind: str, gain: str | None, inner: str | None, *, folder: Path, layers: int
) -> TargetSpec:
    if (inner is None) != (kind == "sanitizer") or layers >= _MOST_LAYERS:
        raise ConfigError(f"target {line[:80]!r}: unknown; {_HINT}")
    values: dict[str, Any] = {"type": kind}
    if gain is not None:
        try:
            values["gain"] = float(gain)
        except ValueError:
            raise ConfigError(
                f"target {line[:80]!r}: gain is {gain!r:.80}; write a number, e.g. {kind}@4"
            ) from None
    if inner is not None:
        values["target"] = parse_target(inner, folder=folder, layers=layers + 1)
    return TargetSpec.from_mapping(values, where=line[:80])


def _from_file(path: Path, *, layers: int) -> TargetSpec:
    import yaml

    if layers > _MOST_LAYERS:
        raise ConfigError(f"{path}: guards stand before guards {layers} times; write one")
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"{path}: more than {_MOST_BYTES:,} bytes; write one target a file")
        content = yaml.safe_load(data)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        shown = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: {shown}; correct the file") from error
    return _from_content(content, where=str(path), folder=path.parent, layers=layers)


def _from_content(content: Any, *, where: str, folder: Path, layers: int) -> TargetSpec:
    if isinstance(content, Mapping) and isinstance(inner := content.get("target"), str | Mapping):
        if layers > _MOST_LAYERS:
            raise ConfigError(f"{where}: guards stand before guards {layers} times; write one")
        behind = (
            parse_target(inner, folder=folder, layers=layers + 1)
            if isinstance(inner, str)
            else _from_content(inner, where=f"{where}.target", folder=folder, layers=layers + 1)
        )
        content = {**content, "target": behind}
    return TargetSpec.from_mapping(content, where=where, folder=folder)


def services_of(specs: Sequence[TargetSpec], config: GatewayConfig) -> dict[str, GatewayConfig]:
    """Return how to open the gateways that the models among the targets are asked through.

    Nothing is answered from the response cache of others, nor in batches. Open each with phase
    ``execution`` and, as work, what is the same when the execution is resumed.

    Args:
        specs: The targets.
        config: Of the section ``llm``: keys, rates and budgets hold for them too.
    """
    models = [one for spec in specs for one in _layers(spec) if one.type == "model"]
    found = [_service(spec, config) for spec in models]
    return {_name(one): one for one in found}


def _layers(spec: TargetSpec) -> list[TargetSpec]:
    return [spec, *(_layers(spec.target) if spec.target else [])]


def _service(spec: TargetSpec, config: GatewayConfig) -> GatewayConfig:
    savings = replace(config.savings, response_cache=False, batches=False, prewarm=False)
    families = {"anthropic": ("anthropic", "bedrock", "vertex", "scripted")}
    if spec.url:
        base = replace(config, provider=spec.provider, base_url=spec.url)
    elif config.provider in families.get(spec.provider, (spec.provider, "scripted")):
        base = config
    else:
        base = replace(config, provider=spec.provider, base_url="")
    return replace(base, savings=savings)


def _name(config: GatewayConfig) -> str:
    return f"{config.provider} {config.base_url}".strip()


def open_targets(
    specs: Sequence[TargetSpec],
    *,
    store: Store,
    config: GatewayConfig,
    gateway: Gateway | Mapping[str, Gateway] | None = None,
    sanitizer: Sanitizer | None = None,
    allow_hosts: Collection[str] = (),
    staging: bool = False,
    timing: Timing | None = None,
    tell: Callable[[str], None] = print,
) -> list[Target]:
    """Return the targets, checked but not connected; whoever asks them closes them.

    Args:
        specs: As :func:`parse_target` gives them.
        store: Its settings say whether other machines may be reached.
        config: That the gateways' names come from; its address is checked like those of targets.
        gateway: Open gateways by the names of :func:`services_of`, or one for all models.
        sanitizer: For targets with one; see :attr:`TargetSpec.needs_sanitizer`.
        allow_hosts: Hosts beyond this machine that may be tested, ``host`` or ``host:port``.
        staging: Whether all targets are declared not to be production.
        timing: Clocks and sleep.
        tell: Called with a line when quiet hours hold a target.

    Raises:
        ConfigError: If an address is not allowed, a secret is not set, a function is not there, or
            a target lacks its gateway or sanitizer.
    """
    pace = {"timing": timing, "tell": tell}
    opener = _Opener(store.settings, config, gateway, sanitizer, allow_hosts, staging, pace)
    return [opener.open(spec) for spec in specs]


@dataclass(frozen=True)
class _Opener:
    settings: Settings
    config: GatewayConfig
    gateway: Gateway | Mapping[str, Gateway] | None
    sanitizer: Sanitizer | None
    allow_hosts: Collection[str]
    staging: bool
    pace: Mapping[str, Any]

    def open(self, spec: TargetSpec) -> Target:
        """Return one target."""
        if spec.type == "bare":
            bare = PassThrough()
            bare.name = spec.name or bare.name
            return bare
        if spec.type in {"sanitizer", "guarded"}:
            return self._guard(spec)
        if spec.type == "model":
            return self._model(spec)
        if spec.type == "python":
            from workbench.campaign.targets.callable import CallableTarget

            return CallableTarget(spec, **self.pace)
        secrets = {name: read_variable(name) for name in spec.variables}
        if spec.type == "websocket":
            from workbench.campaign.targets.websocket import WebSocketTarget

            url = self._address(spec, ("ws", "wss"))
            return WebSocketTarget(spec, url=url, secrets=secrets, **self.pace)
        from workbench.campaign.targets.http import HttpTarget

        url = self._address(spec, ("http", "https"))
        return HttpTarget(spec, url=url, secrets=secrets, **self.pace)

    def _address(self, spec: TargetSpec, schemes: tuple[str, ...]) -> Any:
        from workbench.campaign.targets.address import checked_address

        return checked_address(
            spec.url,
            where=f"target {spec.name or spec.model or spec.type}",
            schemes=schemes,
            allow_hosts=self.allow_hosts,
            staging=spec.staging or self.staging,
            settings=self.settings,
        )

    def _guard(self, spec: TargetSpec) -> Target:
        from workbench.campaign.targets.guarded import GuardedTarget
        from workbench.campaign.targets.sanitizer import SanitizerTarget

        if self.sanitizer is None:
            raise ConfigError(
                f"target {spec.name or spec.type}: needs a trained sanitizer; train one with"
                " workbench train, or leave the target out"
            )
        guard = SanitizerTarget(self.sanitizer, gain=spec.gain)
        if spec.target:
            return GuardedTarget(guard, self.open(spec.target), name=spec.name)
        guard.name = spec.name or guard.name
        return guard

    def _model(self, spec: TargetSpec) -> Target:
        from workbench.campaign.targets.model import ModelTarget

        found = _service(spec, self.config)
        if found.base_url:
            self._address(replace(spec, url=found.base_url), ("http", "https"))
        service = _name(found)
        by_name = isinstance(self.gateway, Mapping)
        gateway = self.gateway.get(service) if by_name else self.gateway  # type: ignore[union-attr]
        if gateway is None:
            raise ConfigError(
                f"target {spec.name or spec.model}: needs a gateway to {service}; open those of"
                " services_of and pass them"
            )
        spec = replace(spec, parallel=spec.parallel or self.config.savings.parallel)
        return ModelTarget(spec, gateway=gateway, service=service, **self.pace)  # type: ignore[arg-type]
