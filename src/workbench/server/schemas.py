"""JSON schemas of what goes in and out: they check requests, and the document shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.campaign.plugins.catalog import PLUGINS
from workbench.store.jobs import JOB_KINDS, JOB_STATES
from workbench.store.records import PHASES
from workbench.store.risk_rules import LEVELS, RISK_STATUSES

__all__ = [
    "ATTEMPTS", "COST", "CURSOR", "DATASET", "DATASETS", "EXECUTE", "EXPERIMENTS", "FREE",
    "GENERATE", "GENERATED", "HASH", "JOB", "JOBS", "JOB_ID", "JOB_KIND", "JOB_STATE", "LIMIT",
    "PROBLEM", "RISKS", "RISK_LEVEL", "RISK_STATUS", "RUN", "STARTED", "TEXT", "USAGE", "listed",
    "record",
]  # fmt: skip

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
FREE: Schema = {"type": "object"}
HASH: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
JOB_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9-]{0,63}$"}
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
CURSOR: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{0,600}$", "default": ""}

_CHAIN = {"type": "string", "pattern": r"^[a-z0-9_-]{1,60}(\+[a-z0-9_-]{1,60}){0,4}$"}
_MODEL = r"[A-Za-z0-9_.:/-]{1,120}"
_URL = r"(http|ws)s?://[!-~]{1,300}"
_PROVIDER = {
    "type": "string",
    "pattern": (
        r"^(guarded(@[0-9.]{1,8})?:){0,3}"
        rf"(bare|sanitizer(@[0-9.]{{1,8}})?|(anthropic|openai):{_MODEL}(@https?://[!-~]{{1,300}})?"
        rf"|{_URL})$"
    ),
}
"""A target as ``workbench campaign run`` reads it; no file of the server and no Python function."""


def record(properties: Mapping[str, Schema], *, required: tuple[str, ...] | None = None) -> Schema:
    """Return the schema of an object that has these fields and no others, all or some required."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties if required is None else required),
        "additionalProperties": False,
    }


def listed(items: Schema) -> Schema:
    """Return the schema of a page of a list."""
    return {"type": "array", "items": items, "maxItems": 200}


CONFIG = record(
    {
        "plugins": {
            "type": "array", "items": {"enum": PLUGINS.names()}, "uniqueItems": True,
            "maxItems": 100, "description": "What is attacked; none means all that suit.",
        },
        "strategies": {
            "type": "array", "items": _CHAIN, "uniqueItems": True, "maxItems": 100,
            "description": "Disguises, or chains a+b; none means all that need no model.",
        },
        "surface": {"enum": ["", "guard", "model"]},
        "max_tests": {"type": "integer", "minimum": 1, "maximum": 10_000},
        "mutations_per_prompt": {"type": "integer", "minimum": 0, "maximum": 100},
        "pair_set": {"type": "string", "pattern": "^[0-9a-f]{0,64}$"},
        "explore": {"type": "number", "minimum": 0, "maximum": 1},
        "seed": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    },
    required=(),
)  # fmt: skip
OPTIONS = record(
    {
        "judges": {"enum": ["rules", "probes"]},
        "grader": {"type": "string", "pattern": f"^({_MODEL})?$"},
        "sanitizer": {"type": "string", "pattern": "^[0-9a-f]{0,64}$"},
        "trials": {"type": "integer", "minimum": 1, "maximum": 100},
        "label": {"type": "string", "maxLength": 200},
        "budget_usd": {"type": "number", "minimum": 0, "maximum": 1_000_000},
        "retry_errors": {"type": "boolean"},
    },
    required=(),
)
_PROVIDERS = {"type": "array", "items": _PROVIDER, "minItems": 1, "maxItems": 20}

GENERATE = record({"config": CONFIG})
EXECUTE = record(
    {"datasetId": HASH, "providers": _PROVIDERS, "options": OPTIONS},
    required=("datasetId", "providers"),
)
RUN = record(
    {"config": CONFIG, "providers": _PROVIDERS, "options": OPTIONS},
    required=("config", "providers"),
)

GENERATED = record({"jobId": JOB_ID, "datasetId": HASH, "testCount": COUNT})
STARTED = record({"jobId": JOB_ID})
_NAMES = {"type": "array", "items": TEXT}
_DATASET = {
    "dataset_id": HASH, "test_count": COUNT, "created_at": TEXT, "plugins": _NAMES,
    "strategies": _NAMES,
}  # fmt: skip
DATASETS = listed(record(_DATASET))
DATASET = record({**_DATASET, "tests": listed(FREE), "metadata": FREE})
JOB = record(
    {
        "jobId": JOB_ID, "kind": {"enum": list(JOB_KINDS)}, "state": {"enum": list(JOB_STATES)},
        "request": FREE, "result": FREE, "error": TEXT, "done": COUNT, "total": COUNT,
        "note": TEXT, "usd": TEXT, "created_at": TEXT, "started_at": TEXT, "finished_at": TEXT,
    }
)  # fmt: skip
JOBS = listed(JOB)
ATTEMPTS = record({"category": TEXT, "run": TEXT, "result": FREE, "attempts": listed(FREE)})
COST = record({"experiment": TEXT, "by": TEXT, "rows": {"type": "array", "items": FREE},
               "total": FREE})  # fmt: skip
USAGE = record(
    {
        "user": TEXT, "since": TEXT, "window": TEXT, "credit_usd": TEXT,
        "phases": {
            "type": "object", "propertyNames": {"enum": list(PHASES)},
            "additionalProperties": record({"usd": TEXT, "credits": NUMBER}),
        },
        "credits": NUMBER, "quota": {"type": ["number", "null"]},
    }
)  # fmt: skip
RISKS = listed(FREE)
RISK_STATUS: Schema = {"enum": ["", *RISK_STATUSES], "default": ""}
RISK_LEVEL: Schema = {"enum": ["", *LEVELS], "default": ""}
JOB_KIND: Schema = {"enum": ["", *JOB_KINDS], "default": ""}
JOB_STATE: Schema = {"enum": ["", *JOB_STATES], "default": ""}
EXPERIMENTS = listed(
    record({"name": TEXT, "state": TEXT, "started_at": TEXT, "finished_at": TEXT, "steps": FREE})
)
PROBLEM = record({"type": TEXT, "title": TEXT, "status": {"type": "integer"}, "detail": TEXT})
