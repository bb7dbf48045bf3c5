"""What to build: the file of a build, checked before anything is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown
from workbench.data.sources import SourceSpec

__all__ = ["BuildConfig", "read_config"]

_WEIGHED: Final = ("category", "language")


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build."""

    target_pairs: int = 2000
    """Pairs to grow; those of the evaluation sources come on top."""
    seed: int = 0
    """Order and style of everything grown."""
    sources: Sequence[SourceSpec] = ("seeds",)
    """What pairs are grown from, in equal shares; see ``data.sources``."""
    evaluation: Sequence[SourceSpec] = ()
    """What is only ever tested on; where given, it alone is the split ``test_both``."""
    decontaminate: Sequence[SourceSpec] = ()
    """Other people's test sets, to which no pair may be similar; they do not join the set."""
    licenses: Sequence[str] = ()
    """Licenses to allow; a source under another one is left out. Empty: all."""
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """``category`` or ``language`` → value → how often its requests are used where others are used
    once: more of what sanitizers fail on."""
    name: str = ""
    """What reports call it; no part of the version."""
    folder: Path | None = None
    """Folder that relative paths of sources start from; none: the project's."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]*", self.name):
            raise ConfigError(f"name is {self.name!r}; write letters, digits, - and _")
        for name in ("target_pairs", "seed"):
            if type(value := getattr(self, name)) is not int:
                raise ConfigError(f"{name} is {value!r}; write a whole number")
        if self.target_pairs < 1:
            raise ConfigError(f"target_pairs is {self.target_pairs}; give at least 1")
        for name in ("sources", "evaluation", "decontaminate", "licenses"):
            if isinstance(value := getattr(self, name), str) or not isinstance(value, Sequence):
                raise ConfigError(f"{name} is {value!r}; write a list, [] for none")
        if strange := [one for one in self.licenses if not isinstance(one, str)]:
            raise ConfigError(f"licenses: {strange[0]!r} is no text; write names")
        if not self.sources:
            raise ConfigError("sources is empty; name at least one, e.g. seeds")
        _check_weights(self.weights)

    def to_json(self) -> dict[str, Any]:
        """Return what names the set: everything but where on this machine its files lie."""
        lists = {
            name: [_without_folders(spec) for spec in getattr(self, name)]
            for name in ("sources", "evaluation", "decontaminate")
        }
        weights = {name: dict(by_value) for name, by_value in self.weights.items()}
        return {
            "target_pairs": self.target_pairs, "seed": self.seed, **lists,
            "licenses": sorted(self.licenses), "weights": weights,
        }  # fmt: skip


def _check_weights(weights: Any) -> None:
    if not isinstance(weights, Mapping):
        raise ConfigError(f"weights is {weights!r}; write category: {{name: number}}")
    refuse_unknown(weights, known=_WEIGHED, where="weights")
    for name, by_value in weights.items():
        if not isinstance(by_value, Mapping):
            raise ConfigError(f"weights: {name} is {by_value!r}; write {{name: number}}")
        for value, weight in by_value.items():
            is_number = type(weight) in {int, float} and 0 < weight < math.inf
            if not is_number:
                raise ConfigError(f"weights: {name}: {value} is {weight!r}; write a number above 0")


def read_config(path: Path, **changes: Any) -> BuildConfig:
    """Return the config of a YAML file such as ``experiments/data/phase1.yaml``.

    Args:
        path: The file; ``description`` in it is for readers.
        changes: Fields to set over those of the file.

    Raises:
        ConfigError: If the file is missing, no YAML mapping, or has an unknown field.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; see experiments/data/") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}; correct the file") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: holds {type(content).__name__}; write field: value lines")
    known = (*BuildConfig().to_json(), "name", "description")
    refuse_unknown(content, known=known, where=str(path))
    fields = {name: value for name, value in content.items() if name != "description"}
    try:
        return BuildConfig(**{"name": path.stem, **fields, **changes})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _without_folders(spec: SourceSpec) -> Any:
    if not isinstance(spec, Mapping):
        return spec
    return {
        key: Path(value).name if key == "path" else _without_folders(value)
        for key, value in spec.items()
    }
