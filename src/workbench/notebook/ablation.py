"""The ablation: one fixed workload through the real gateway, with each saving on and off.

Half of the items are records of product faults to be summed up: one in ten asks for a score only,
one in five is hard. The other half are questions to be put another way, five variants of each. All
come with documents of which a quarter is about them. The service is ``llm.loopback``, so nothing is
spent; its answers to each item fill a fixed share of ``max_tokens``.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from workbench.core.errors import GateError, InputError, ModelError
from workbench.core.identity import new_id
from workbench.core.money import ZERO
from workbench.core.settings import read_settings
from workbench.cost.calls import summary
from workbench.cost.optimize import Trial, faults, table
from workbench.llm.config import GatewayConfig, Savings
from workbench.llm.context import fit
from workbench.llm.gateway import Gateway, open_gateway
from workbench.llm.loopback import LoopbackServer
from workbench.llm.messages import Answer, Difficulty, Request
from workbench.llm.packing import Packed, pack, unpack
from workbench.llm.transport import open_transport
from workbench.notebook.result import Session
from workbench.store.database import Store, open_store

__all__ = ["Item", "ablate", "workload"]

_REPEATED = 0.3
"""Share of items that repeat another one."""
_S_PER_TOKEN = 0.0001
_LEAST, _VARIANTS, _DOCUMENTS, _RELEVANT, _HITS = 40, 5, 8, 2, 100
_FILLED, _BYTES_PER_TOKEN = 0.4, 4
_RULED = "risk_score"
_SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "prompt_cache": {"prompt_cache": "5m", "prewarm": True},
    "routing": {"routing": True},
    "response_cache": {"response_cache": True},
    "items_per_call": {"items_per_call": 20},
    "context_tokens": {"context_tokens": 300},
    "concise": {"concise": True},
    "parallel": {"parallel": 32},
}
_OFF = Savings(
    prompt_cache="off", prewarm=False, response_cache=False, routing=False, items_per_call=1,
    concise=False, parallel=1,
)  # fmt: skip
_TEXTS = json.loads(Path(__file__).with_name("ablation.json").read_text("utf-8"))
_THINGS = (_TEXTS["products"], _TEXTS["parts"], _TEXTS["faults"], _TEXTS["conditions"])
_HANDBOOK = "\n".join(
    f"Where the {part} of a {thing} {fault} {when}, name the part first and the setting last."
    for thing, part, fault, when in product(*(words[:3] for words in _THINGS))
)
"""What every call begins with: longer than the shortest prefix that a service caches."""


class Item(NamedTuple):
    """One thing to ask, with what might be known about it."""

    task: str
    difficulty: Difficulty
    variant: int
    text: str
    documents: list[str]


def ablate(
    store: Store,
    *,
    size: int,
    latency_ms: float,
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Return the result of kind ``ablation``; the store gets it as the experiment ``ablation``.

    Args:
        store: Gets the result only: the calls and their ledgers go to stores of their own.
        size: Items of the workload.
        latency_ms: Until the server begins an answer.
        seed: Of the workload.
        tell: Called with a line of progress before each trial.

    Raises:
        GateError: If a bill is not the server's, or a switch has no effect.
        InputError: If the size is too small.
    """
    items = workload(size=size, seed=seed)
    folder = store.home / "by-hand" / (run_id := new_id("run"))
    session = Session(
        settings=store.settings, store=store, run_id=run_id, folder=folder, experiment="ablation"
    )
    trials = asyncio.run(_trials(items, latency_s=latency_ms / 1000, tell=tell))
    if found := faults(trials):
        raise GateError(f"the ablation proves nothing: {'; '.join(found)}")
    *rows, combined = table(trials)
    base = trials["baseline"]
    return session.finish(
        {
            "kind": "ablation",
            "workload": f"{size // 2} summaries of records and {size // 2} mutations,"
            f" {_REPEATED:.0%} of them repeats, to a server on this machine that takes"
            f" {latency_ms:g} ms per call and {_S_PER_TOKEN * 1000:g} ms per token",
            "baseline": {"usd": float(base.usd), "seconds": base.seconds, "calls": base.calls},
            "rows": rows,
            "combined": combined,
            "trials": json.loads(
                json.dumps({k: asdict(v) for k, v in trials.items()}, default=str)
            ),
        },
        seed=seed,
    )


def workload(*, size: int, seed: int) -> list[Item]:
    """Return the items, the same for the same size and seed.

    Raises:
        InputError: If there are too few for every kind to occur.
    """
    if size < _LEAST:
        raise InputError(f"size {size}: the workload needs at least {_LEAST} items")
    chance, half, items = random.Random(seed), size // 2, list[Item]()  # noqa: S311
    for is_mutation in (False, True):
        firsts = [_item(n, is_mutation, seed) for n in range(round(half * (1 - _REPEATED)))]
        items += firsts + chance.choices(firsts, k=half - len(firsts))
    chance.shuffle(items)
    return items


def _item(number: int, is_mutation: bool, seed: int) -> Item:
    serial, variant = divmod(number, _VARIANTS) if is_mutation else (number, 0)
    # the variants of a question have its words and documents in common
    chance = random.Random(f"{seed}/{is_mutation}/{serial}")  # noqa: S311
    thing, part, fault, when = map(chance.choice, _THINGS)
    about = f"the {part} of {thing} model {serial:04d}"
    documents = []
    for place in range(_DOCUMENTS):
        remarks = [" ".join(map(chance.choice, _THINGS[2:])) for _ in range(10)]
        subject = about if place < _RELEVANT else f"another {chance.choice(_THINGS[0])}"
        documents.append(f"Workshop note on {subject}: it {', '.join(remarks)}.")
    chance.shuffle(documents)
    task = "mutation" if is_mutation else "summary" if number % 10 else _RULED
    difficulty: Difficulty = "complex" if task == "summary" and number % 5 == 1 else "normal"
    return Item(task, difficulty, variant, f"{about.capitalize()} {fault} {when}.", documents)


async def _trials(
    items: Sequence[Item], *, latency_s: float, tell: Callable[[str], None]
) -> dict[str, Trial]:
    """Return all trials, named as ``cost.optimize`` says."""
    on = replace(_OFF, **{k: v for switch in _SWITCHES.values() for k, v in switch.items()})
    off = {k: {name: getattr(_OFF, name) for name in switch} for k, switch in _SWITCHES.items()}
    plan = {
        "baseline": _OFF,
        "+streaming": _OFF,
        "+batches": replace(_OFF, batches=True),
        **{f"+{name}": replace(_OFF, **switch) for name, switch in _SWITCHES.items()},
        "all": on,
        **{f"-{name}": replace(on, **switch) for name, switch in off.items()},
        "all+batches": replace(on, batches=True),
    }
    # about what part of the baseline's time each takes
    parts = {
        name: 0.1 if one.batches or one.parallel > 1 else 1 / min(one.items_per_call, 2)
        for name, one in plan.items()
    }
    await _trial(items[:_LEAST], _OFF, latency_s=0.0)  # loads what is loaded once
    trials: dict[str, Trial] = {}
    began = time.monotonic()
    for name, savings in plan.items():
        left = sum(part for other, part in parts.items() if other not in trials)
        done = sum(parts.values()) - left
        eta = f", about {(time.monotonic() - began) / done * left:.0f} s left" if trials else ""
        tell(f"{len(trials) + 1}/{len(plan)} {name}{eta}")
        is_streamed = name == "+streaming"
        trials[name] = await _trial(items, savings, latency_s=latency_s, is_streamed=is_streamed)
    return trials


async def _trial(
    items: Sequence[Item], savings: Savings, *, latency_s: float, is_streamed: bool = False
) -> Trial:
    """Do the work once, with a server, a store and a gateway of its own."""
    with TemporaryDirectory(prefix="ablation-") as home:
        store = open_store(read_settings({"WORKBENCH_HOME": home}))
        async with LoopbackServer(latency_s=(latency_s, _S_PER_TOKEN), answer=_answer) as server:
            config = GatewayConfig(base_url=server.base_url, savings=savings)
            transport = open_transport(config, settings=store.settings)
            async with open_gateway(
                store, phase="generation", config=config, transport=transport, tell=lambda _: None
            ) as gateway:
                began = time.perf_counter()
                calls = _pack(items, savings)
                # one by one: a message batch knows no rules, and only single calls stream
                ruled = [c for c in calls if savings.routing and c.request.task == _RULED]
                single = calls if is_streamed else ruled
                timed = [await _time(gateway, c.request, is_streamed) for c in single]
                rest = [] if is_streamed else [call for call in calls if call not in ruled]
                outcomes = await gateway.map([call.request for call in rest])
                seconds = time.perf_counter() - began
                again = [call.request for call in rest][: _HITS * savings.response_cache]
                hits = [await _time(gateway, request, False) for request in again]
        rows = store.ledger.rows()
        store.engine.dispose()
    answers = [answer for answer, _ in timed] + [one for one in outcomes if isinstance(one, Answer)]
    _check([*single, *rest], answers)
    total = summary("total", rows)
    return Trial(
        usd=sum((row.usd for row in rows), ZERO),
        server_usd=server.ledger.total_usd(),
        seconds=round(seconds, 3),
        calls=total["calls"],
        hits=total["hits"] - len(hits),
        rules=total["rules"],
        prompt_tokens=total["input_tokens"] + total["cached_tokens"],
        cached_tokens=total["cached_tokens"],
        output_tokens=total["output_tokens"],
        in_flight=server.max_in_flight_seen,
        call_ms=median([a.latency_s * 1000 for a in answers if a.outcome == "sent"] or [0.0]),
        hit_ms=median([ms for answer, ms in hits if answer.outcome == "hit"] or [0.0]),
        first_text_ms=median([ms for _, ms in timed] if is_streamed else [0.0]),
    )


def _pack(items: Sequence[Item], savings: Savings) -> list[Packed]:
    """Return the calls; with the response cache on, equal items of packed calls are asked once."""
    groups: dict[tuple[str, Difficulty, int], dict[str, str]] = defaultdict(dict)
    for number, item in enumerate(items):
        most = savings.context_tokens
        found = fit(item.documents, query=item.text, max_tokens=most) if most else item.documents
        text = "\n".join([item.text, *found])
        is_ruled = savings.routing and item.task == _RULED
        is_merged = savings.response_cache and savings.items_per_call > 1 and not is_ruled
        name = text if is_merged else str(number)
        groups[item.task, item.difficulty, item.variant][name] = text
    manner = "concise" if savings.concise else "verbose"
    calls = []
    for (task, difficulty, variant), texts in groups.items():
        calls += pack(
            texts,
            instruction=f"{_HANDBOOK}\n\nFor each: {_TEXTS['tasks'][task]}. {_TEXTS[manner]}.",
            items_per_call=1 if savings.routing and task == _RULED else savings.items_per_call,
            max_tokens_per_item=120 if savings.concise else 400,
            task=task,
            difficulty=difficulty,
            variant=variant,
        )
    return calls


async def _time(gateway: Gateway, request: Request, is_streamed: bool) -> tuple[Answer, float]:
    """Return the answer, and the milliseconds until it, or its first text, was there."""
    seen: list[float] = []
    began = time.perf_counter()
    show = (lambda _: seen.append(time.perf_counter())) if is_streamed else None
    answer = await gateway.ask(request, rule=lambda _: "5", on_text=show)
    return answer, ((seen or [time.perf_counter()])[0] - began) * 1000


def _check(calls: Sequence[Packed], answers: Sequence[Answer]) -> None:
    pairs = zip(calls, answers, strict=False)
    if len(answers) < len(calls) or any(unpack(call, one.text)[1] for call, one in pairs):
        raise ModelError("the loopback server left items without an answer; try again")


def _answer(body: dict[str, Any]) -> str:
    number = max(body["messages"][-1]["content"].count("<item id="), 1)  # none to warm a cache
    size = int(body["max_tokens"] / number * _FILLED) * _BYTES_PER_TOKEN
    text = str(_TEXTS["answer"] * size)[:size]
    if "output_config" not in body:
        return text
    return json.dumps({"items": [{"id": str(n), "text": text} for n in range(1, number + 1)]})
