"""Which texts of which requests models work on, under which instruction, in which calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import content_id, seeded
from workbench.data.dedupe import normalize
from workbench.data.requests import Request
from workbench.llm.config import GatewayConfig
from workbench.llm.packing import Packed, pack

__all__ = [
    "CARRYING", "DOMAINS", "FURTHER_LANGUAGES", "TASKS", "Group", "Item", "Job", "ModelCall",
    "Recipe", "plan",
]  # fmt: skip

TASKS: Final = {
    "paraphrase": "paraphrase", "rewrite": "rewrite", "translate": "translate",
    "hard_negative": "expansion", "domain": "expansion",
}  # fmt: skip
"""What can be written → the task by which ``llm/models.json`` chooses a model."""
FURTHER_LANGUAGES: Final = {
    "bn": "Bengali", "cs": "Czech", "el": "Greek", "fa": "Persian", "fi": "Finnish", "he": "Hebrew",
    "hu": "Hungarian", "id": "Indonesian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch",
    "pl": "Polish", "ro": "Romanian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil",
    "th": "Thai", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese",
}  # fmt: skip
"""BCP 47 tag → name of the languages beyond those of the seeds, ``data.requests.LANGUAGES``."""
DOMAINS: Final = ("medical", "legal", "financial")

_PROMPTS: Final = {
    "paraphrase": "Say the request in each item in other words, {manner}. Keep what is asked for"
    " and how harmful or harmless it is. Do not answer it: it trains a filter that has to recognize"
    " such requests.",
    "rewrite": "The request in each item may ask for harm. Write {redirects} requests on the same"
    " subject that are safe and useful to answer: prevention, law, history, science, help for those"
    " concerned. One per line, without numbers.",
    "translate": "Translate the text in each item into {target}, as a native speaker would write"
    " it. Neither answer nor soften it: it trains a filter that has to recognize such texts.",
    "hard_negative": "For each item write one harmless request of daily life, {manner}, that shares"
    " striking words with the item, so that a careless filter takes it for harmful. It must plainly"
    " be innocent.",
    "domain": "Move the text in each item to the {target} domain, {manner}: the same intent, as"
    " harmful or harmless as it is, but about people and things of that domain. Do not answer it:"
    " it trains a filter that has to recognize such texts.",
}
_MANNERS = (
    "plainly", "casually, as in a chat", "formally", "as briefly as possible",
    "with a reason why it is asked", "as somebody who lacks the right words",
)  # fmt: skip
"""Models take no temperature: variety has to come from the prompt."""
_KEPT_FOR_EVER = "mutation"
"""Namespace of the response cache: a stricter gate buys nothing twice."""
CARRYING: Final = ("translate", "domain")
"""Tasks that also work on the safe requests."""
_MOST_CHARS = 2_000
_ROOM_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to have written."""

    tasks: tuple[str, ...] = ("paraphrase", "rewrite", "hard_negative")
    """Of :data:`TASKS`."""
    languages: tuple[str, ...] = ()
    """Of :data:`FURTHER_LANGUAGES`, for ``translate``."""
    domains: tuple[str, ...] = DOMAINS
    """For ``domain``."""
    variants: int = 1
    """Wordings of each paraphrase, hard negative and domain variant."""
    redirects: int = 3
    """Safe requests that each harmful one shall have; as many are carried along."""
    requests: int | None = None
    """Most requests to work on; None: all."""
    seed: int = 0
    """Decides which requests, and which of them share a call."""

    def __post_init__(self) -> None:
        lists = (("tasks", TASKS), ("languages", FURTHER_LANGUAGES), ("domains", DOMAINS))
        for name, known in lists:
            if unknown := set(getattr(self, name)) - set(known):
                raise ConfigError(f"{name}: unknown {min(unknown)!r}; known: {', '.join(known)}")
        if not self.tasks or ("translate" in self.tasks and not self.languages):
            raise ConfigError("name at least one task, and with translate at least one language")
        for name in ("variants", "redirects", "requests"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; give at least 1")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One text to work on."""

    request: Request
    part: int
    """0 is the request itself, the others are its safe requests."""
    text: str

    @property
    def is_harmful(self) -> bool:
        """Whether it asks for harm."""
        return self.part == 0 and self.request.category != "benign"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Items that share an instruction."""

    task: str
    target: str
    variant: int
    instruction: str
    items: Mapping[str, Item]
    """By a name that no item of another group has."""
    max_tokens: int
    """Of an answer to one item."""

    def calls(self, names: Iterable[str], *, size: int) -> list[ModelCall]:
        """Return the calls that ask for some of the items, at most ``size`` in each."""
        calls = pack(
            {name: self.items[name].text for name in names}, instruction=self.instruction,
            items_per_call=size, max_tokens_per_item=self.max_tokens, task=TASKS[self.task],
            namespace=_KEPT_FOR_EVER, variant=self.variant,
        )  # fmt: skip
        return [ModelCall(self, packed) for packed in calls]


class ModelCall(NamedTuple):
    """Some items of a group, in one request to a model."""

    group: Group
    packed: Packed


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that is asked."""

    requests: Sequence[Request]
    groups: Sequence[Group]
    left_out: Mapping[str, int]
    """Reason → requests."""
    calls: Sequence[ModelCall]
    work: str
    """Name under which the gateway keeps the answers for a resume."""


def plan(requests: Sequence[Request], recipe: Recipe, config: GatewayConfig) -> Job:
    """Return what to ask; the same arguments give the same calls.

    Raises:
        DataError: If the recipe finds nothing to do.
    """
    chosen, left_out = _choose(requests, recipe)
    groups = [group for group in _groups(chosen, recipe) if group.items]
    if not groups:
        raise DataError(f"nothing to expand in {len(requests)} requests; left out: {left_out}")
    size = config.savings.items_per_call
    calls = [call for group in groups for call in group.calls(group.items, size=size)]
    asked = [call.packed.request.key(service="", model="") for call in calls]
    return Job(
        requests=chosen, groups=groups, left_out=left_out, calls=calls,
        work=f"expansion-{content_id(asked)[:16]}",
    )  # fmt: skip


def _choose(requests: Sequence[Request], recipe: Recipe) -> tuple[list[Request], dict[str, int]]:
    """Return the requests to work on, in the order of the seed, and why others are left out."""
    left_out: Counter[str] = Counter()
    distinct: dict[str, Request] = {}
    needing = set(recipe.tasks) - {"rewrite", "hard_negative"}
    for one in sorted(requests, key=lambda one: (one.id, one.request)):
        key = normalize(one.request)
        if one.language != "en":
            left_out["not in English"] += 1
        elif max(map(len, (one.request, *one.redirects))) > _MOST_CHARS:
            left_out[f"longer than {_MOST_CHARS:,} characters"] += 1
        elif key in distinct:
            left_out["asked for twice"] += 1
        else:
            if needing and _lacks_redirects(one):
                left_out[f"harmful without a safe request, no {'/'.join(sorted(needing))}"] += 1
            distinct[key] = one
    chosen = list(distinct.values())
    seeded("synthesize", recipe.seed).shuffle(chosen)
    return chosen[: recipe.requests], dict(sorted(left_out.items()))


def _groups(requests: Sequence[Request], recipe: Recipe) -> Iterator[Group]:
    targets = {"translate": recipe.languages, "domain": recipe.domains}
    for task in sorted(set(recipe.tasks)):
        for target in sorted(set(targets.get(task, ("",)))):
            for variant in range(1 if task in {"rewrite", "translate"} else recipe.variants):
                instruction = _PROMPTS[task].format(
                    target=FURTHER_LANGUAGES.get(target, target),
                    redirects=recipe.redirects,
                    manner=_MANNERS[variant % len(_MANNERS)],
                )
                items = {
                    f"{task}/{target}/{variant}/{number}/{item.part}": item
                    for number, one in enumerate(requests)
                    for item in _items(one, task, recipe)
                }
                longest = max((len(item.text) for item in items.values()), default=0)
                longest *= 2 if task == "translate" else 1
                room = _ROOM_TOKENS * recipe.redirects if task == "rewrite" else longest
                yield Group(
                    task=task, target=target, variant=variant, instruction=instruction,
                    items=items, max_tokens=_ROOM_TOKENS + room,
                )  # fmt: skip


def _items(request: Request, task: str, recipe: Recipe) -> Iterator[Item]:
    """Yield the texts of a request that a task works on."""
    is_harmful = request.category != "benign"
    if task == "rewrite":
        is_due = is_harmful and len(request.redirects) < recipe.redirects
    elif task == "hard_negative":
        is_due = is_harmful
    else:
        is_due = not _lacks_redirects(request)
    if is_due:
        yield Item(request=request, part=0, text=request.request)
        carried = request.redirects[: recipe.redirects] if task in CARRYING else ()
        for part, text in enumerate(carried, 1):
            yield Item(request=request, part=part, text=text)


def _lacks_redirects(request: Request) -> bool:
    return request.category != "benign" and not request.redirects
