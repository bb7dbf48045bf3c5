"""Several valid answers per prompt: heads in one pass beside diffusion in several steps.

Three kinds of sets: a number of modes that nobody tells (1 to 64), a continuous surface of few or
of many dimensions whose extent a condition says, and the 4 to 8 safe redirects of each shipped
harmful request, encoded by MiniLM. Every method learns from one answer per prompt and step, for as
many steps, and is asked for 32 answers on prompts that it has not seen.

coverage   share of valid answers that lie near an answer of the method
precision  share of the method's answers that lie near a valid one; heads count as their score says
energy     energy distance between the method's answers and the valid ones, 0 is best
harmful    redirects: share of answers whose nearest known text is a harmful request
longer     redirects: words that full detail instead of none adds to the texts nearest to answers
ms         CPU milliseconds per prompt, one thread, batch 1, without the encoder

Redirects are decoded as the product does it: coverage and precision are those of the 8 most
believed safe texts among the nearest ones to the answers (of one answer, its 8 nearest), and near
is a cosine of .5. The prompt itself is the method to beat there.

``turned`` answers are moved, along the same arc, as far from the prompt as answers are on average:
a mean of several falls short of that. ``perfect draws`` come from the valid set itself: no sampler
does better on average. A figure is the mean of three seeds, beside half the width of its 95 %
interval. The second table has paired differences of each sampler to the best heads that are no
slower, positive where it is better. Another number of training steps may be given as argument.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from measure import publish
from workbench.data.requests import load_benign, load_requests
from workbench.diffusion.condition import CONDITION_DIM, Condition, condition_rows
from workbench.diffusion.networks import Prompt
from workbench.diffusion.prior import Prior, PriorBatch, PriorConfig
from workbench.embedding.encoder import load_encoder

SEEDS = 3
ANSWERS = 32
TESTED = 100
PROMPTS = 4_000
VALID_DRAWS = 256
STUDENT_95 = 4.303  # two degrees of freedom
ANGLE = math.pi / 4  # between a prompt and its valid answers
MEASURES = ("coverage", "precision", "energy", "harmful", "longer")
BATCH, RATE, HIDDEN = 128, 2e-3, 128
DEFAULT_STEPS = 600
TRAINING_STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_STEPS


Answer = Callable[[Prompt], Tensor]
"""Prompts to unit vectors ``(prompts, answers, dim)``."""


class Task(Protocol):
    """Prompts with sets of valid answers."""

    name: str
    dim: int
    conditions: int

    def batch(self, generator: Generator) -> PriorBatch:
        """Return training prompts, each with one of its answers."""

    def test(self) -> Prompt:
        """Return prompts that are not trained on."""

    def valid(self, generator: Generator, count: int) -> Tensor:
        """Return answers of each test prompt, drawn with replacement."""

    def measure(self, answers: Tensor, weights: Tensor, valid: Tensor) -> dict[str, float]:
        """Return coverage, precision and harm of answers that are believed as weights say."""

    def longer(self, answer: Answer) -> float:
        """Return how many words full detail adds to what answers are decoded to."""


def bare(pooled: Tensor, condition: Tensor) -> Prompt:
    """Return prompts of which nothing is known but a vector and a condition."""
    rows, dim = pooled.shape
    tokens = torch.zeros(rows, 0, dim)
    return Prompt(pooled, tokens, torch.zeros(rows, 0, dtype=torch.bool), condition)


class _Synthetic:
    """Answers at a fixed angle from the prompt, in a subspace of ``inner`` dimensions."""

    dim, conditions = 64, 2
    near, radius = 0.95, 0.95

    def __init__(self, *, seed: int, inner: int) -> None:
        self.random = Generator().manual_seed(seed)
        self.inner = inner
        self.basis = torch.linalg.qr(self.normal(self.dim, inner))[0]
        self.mixing = self.normal(self.dim, inner)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random)

    def rows(self, generator: Generator) -> Tensor:
        return torch.randint(TESTED, PROMPTS, (BATCH,), generator=generator)

    def measure(self, answers: Tensor, weights: Tensor, valid: Tensor) -> dict[str, float]:
        covered = (valid @ answers.transpose(1, 2)).amax(dim=-1) >= self.radius
        right = (self.nearest(answers) >= self.near).float()
        return {
            "coverage": float(covered.float().mean()),
            "precision": float((right * weights).sum(-1).mean()),
            "harmful": math.nan,
        }

    def longer(self, answer: Answer) -> float:  # noqa: ARG002
        return math.nan

    def nearest(self, answers: Tensor) -> Tensor:
        """Return the cosine of each answer to the nearest valid one."""
        raise NotImplementedError


class _Modes(_Synthetic):
    """1 to 64 answers, as many as the prompt's topic has; nothing says how many."""

    name = "modes, 1 to 64"
    topics, most = 24, 64

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed, inner=16)
        self.topic = torch.randint(self.topics, (PROMPTS,), generator=self.random)
        centers = normalize(self.normal(self.topics, self.dim), dim=-1)
        own = normalize(self.normal(PROMPTS, self.dim), dim=-1)
        self.prompts = normalize(centers[self.topic] + 0.7 * own, dim=-1)
        doublings = torch.linspace(0, math.log2(self.most), self.topics)
        self.counts = (2**doublings).round().long()[self.topic]
        self.directions = normalize(self.normal(self.topics, self.most, self.inner), dim=-1)

    def modes(self, rows: Tensor) -> Tensor:
        own = normalize(self.prompts[rows] @ self.mixing, dim=-1)[:, None]
        inner = normalize(self.directions[self.topic[rows]] + 0.3 * own, dim=-1) @ self.basis.T
        prompt = self.prompts[rows][:, None]
        return normalize(math.cos(ANGLE) * prompt + math.sin(ANGLE) * inner, dim=-1)

    def draw(self, rows: Tensor, count: int, generator: Generator) -> Tensor:
        share = torch.rand(len(rows), count, generator=generator)
        chosen = (share * self.counts[rows, None]).long()
        return self.modes(rows).take_along_dim(chosen[..., None], dim=1)

    def batch(self, generator: Generator) -> PriorBatch:
        rows = self.rows(generator)
        prompt = bare(self.prompts[rows], torch.zeros(len(rows), 2))
        return PriorBatch(prompt, self.draw(rows, 1, generator)[:, 0])

    def test(self) -> Prompt:
        return bare(self.prompts[:TESTED], torch.zeros(TESTED, 2))

    def valid(self, generator: Generator, count: int) -> Tensor:
        return self.draw(torch.arange(TESTED), count, generator)

    def nearest(self, answers: Tensor) -> Tensor:
        cosines = answers @ self.modes(torch.arange(TESTED)).transpose(1, 2)
        absent = torch.arange(self.most) >= self.counts[:TESTED, None, None]
        return cosines.masked_fill(absent, -1).amax(dim=-1)


class _Surface(_Synthetic):
    """A cap of a sphere of answers, as wide as the wanted degree of detail says."""

    def __init__(self, *, seed: int, inner: int, radius: float) -> None:
        super().__init__(seed=seed, inner=inner)
        self.name = f"surface of {inner - 1} dimensions"
        self.radius = radius
        self.prompts = normalize(self.normal(PROMPTS, self.dim), dim=-1)
        self.detail = torch.rand(PROMPTS, generator=self.random)

    def frames(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return prompts, a basis beside each, the cap's middle in it, and its opening angle."""
        prompt = self.prompts[rows]
        beside = self.basis - prompt[:, :, None] * (prompt @ self.basis)[:, None]
        basis, upper = torch.linalg.qr(beside)
        basis = basis * upper.diagonal(dim1=1, dim2=2).sign()[:, None]
        middle = normalize(prompt @ self.mixing, dim=-1)
        return prompt, basis, middle, math.pi * (0.25 + 0.75 * self.detail[rows])

    def draw(self, rows: Tensor, count: int, generator: Generator) -> Tensor:
        prompt, basis, middle, opening = self.frames(rows)
        share = torch.rand(len(rows), count, generator=generator) ** (1 / (self.inner - 1))
        away = torch.randn(len(rows), count, self.inner, generator=generator)
        along = (away * middle[:, None]).sum(-1, keepdim=True) * middle[:, None]
        angle = (opening[:, None] * share)[..., None]
        inner = angle.cos() * middle[:, None] + angle.sin() * normalize(away - along, dim=-1)
        beside = inner @ basis.transpose(1, 2)
        return math.cos(ANGLE) * prompt[:, None] + math.sin(ANGLE) * beside

    def prompt(self, rows: Tensor) -> Prompt:
        detail = self.detail[rows, None]
        return bare(self.prompts[rows], torch.cat([detail, 1 - detail], dim=1))

    def batch(self, generator: Generator) -> PriorBatch:
        rows = self.rows(generator)
        return PriorBatch(self.prompt(rows), self.draw(rows, 1, generator)[:, 0])

    def test(self) -> Prompt:
        return self.prompt(torch.arange(TESTED))

    def valid(self, generator: Generator, count: int) -> Tensor:
        return self.draw(torch.arange(TESTED), count, generator)

    def nearest(self, answers: Tensor) -> Tensor:
        prompt, basis, middle, opening = self.frames(torch.arange(TESTED))
        inner = answers @ basis
        length = inner.norm(dim=-1)
        angle = torch.acos(((inner * middle[:, None]).sum(-1) / length).clamp(-1, 1))
        outside = (angle - opening[:, None]).clamp(min=0)
        ahead = (answers * prompt[:, None]).sum(-1)
        found: Tensor = math.cos(ANGLE) * ahead + math.sin(ANGLE) * length * outside.cos()
        return found


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The shipped requests and their redirects as vectors, computed once."""

    requests: Tensor
    redirects: Tensor
    owner: Tensor
    """Request of each redirect."""
    words: Tensor
    """Of each redirect."""
    benign: Tensor
    contexts: tuple[str, ...]
    domains: tuple[str, ...]
    chars: tuple[int, ...]

    @classmethod
    def encode(cls) -> Texts:
        """Return all of it; takes half a minute."""
        encoder = load_encoder()
        found = load_requests()
        redirects = [text for one in found for text in one.redirects]
        return cls(
            requests=torch.from_numpy(encoder.encode([one.request for one in found])),
            redirects=torch.from_numpy(encoder.encode(redirects)),
            owner=torch.tensor([at for at, one in enumerate(found) for _ in one.redirects]),
            words=torch.tensor([len(text.split()) for text in redirects]),
            benign=torch.from_numpy(encoder.encode([one.request for one in load_benign()])),
            contexts=tuple(one.context for one in found),
            domains=tuple(one.domain for one in found),
            chars=tuple(len(one.request) for one in found),
        )


class _Redirects:
    """Harmful requests and their safe redirects; the degree of detail is a redirect's length."""

    name = "redirects of harmful requests"
    dim, conditions = 384, CONDITION_DIM
    near = 0.5  # the mean cosine of a redirect to the nearest other one of its request
    listed = 8

    def __init__(self, texts: Texts, *, seed: int) -> None:
        self.texts = texts
        order = torch.randperm(len(texts.requests), generator=Generator().manual_seed(seed))
        self.tested = order[:TESTED]
        self.trained = (~torch.isin(texts.owner, self.tested)).nonzero()[:, 0]
        self.detail = texts.words.argsort().argsort() / len(texts.words)
        self.safe = torch.cat([texts.redirects[self.trained], texts.benign])

    def prompt(self, rows: Tensor, detail: Sequence[float | None]) -> Prompt:
        told = [
            Condition(
                context=self.texts.contexts[row],
                domain=self.texts.domains[row],
                language="en",
                chars=self.texts.chars[row],
                detail=wanted,
            )
            for row, wanted in zip(rows.tolist(), detail, strict=True)
        ]
        return bare(self.texts.requests[rows], condition_rows(told))

    @cached_property
    def everything(self) -> Prompt:
        """The request of each redirect, with the redirect's degree of detail."""
        return self.prompt(self.texts.owner, self.detail.tolist())

    def batch(self, generator: Generator) -> PriorBatch:
        rows = self.trained[torch.randint(len(self.trained), (BATCH,), generator=generator)]
        return PriorBatch(self.everything, self.texts.redirects).at(rows)

    def test(self) -> Prompt:
        return self.prompt(self.tested, [None] * TESTED)

    @cached_property
    def own(self) -> list[Tensor]:
        """The redirects of each test request."""
        return [self.texts.redirects[self.texts.owner == row] for row in self.tested]

    def valid(self, generator: Generator, count: int) -> Tensor:
        drawn = [torch.randint(len(own), (count,), generator=generator) for own in self.own]
        return torch.stack([own[rows] for own, rows in zip(self.own, drawn, strict=True)])

    def measure(self, answers: Tensor, weights: Tensor, valid: Tensor) -> dict[str, float]:  # noqa: ARG002
        cosines = answers @ torch.cat([self.texts.requests, self.safe]).T
        harmful = cosines.argmax(dim=-1) < len(self.texts.requests)
        lists = self.decoded(cosines[..., len(self.texts.requests) :], weights)
        near = [
            (own @ self.safe[texts].T) >= self.near
            for own, texts in zip(self.own, lists, strict=True)
        ]
        return {
            "coverage": float(np.mean([one.any(dim=1).float().mean() for one in near])),
            "precision": float(np.mean([one.any(dim=0).float().mean() for one in near])),
            "harmful": float((harmful * weights).sum(-1).mean()),
        }

    def decoded(self, cosines: Tensor, weights: Tensor) -> list[Tensor]:
        """Return the safe texts that stand for the answers to each prompt, 8 at most."""
        if cosines.shape[1] == 1:
            return list(cosines[:, 0].topk(self.listed, dim=-1).indices)
        belief = torch.zeros(len(cosines), len(self.safe))
        belief.scatter_add_(1, cosines.argmax(dim=-1), weights)
        found = belief.topk(self.listed, dim=-1)
        pairs = zip(found.indices, found.values, strict=True)
        return [texts[believed > 0] for texts, believed in pairs]

    def longer(self, answer: Answer) -> float:
        words = {}
        for detail in (0.0, 1.0):
            answers = answer(self.prompt(self.tested, [detail] * TESTED))
            nearest = (answers @ self.texts.redirects[self.trained].T).argmax(dim=-1)
            words[detail] = float(self.texts.words[self.trained][nearest].float().mean())
        return words[1.0] - words[0.0]


@dataclass
class Figures:
    """What a method did on a task, a list over seeds for each measure."""

    task: str
    method: str
    kind: str
    """``heads``, ``sampler`` or ``other``."""
    values: dict[str, list[float]] = field(default_factory=dict)


def figures_of(task: Task, answers: Tensor, weights: Tensor, *, seed: int) -> dict[str, float]:
    """Return the figures of answers ``(tested, count, dim)`` that are believed as weights say."""
    valid = task.valid(Generator().manual_seed(seed), VALID_DRAWS)
    found = task.measure(answers, weights, valid)
    return found | {"energy": float(energy_distance(answers, weights, valid).mean())}


def energy_distance(answers: Tensor, weights: Tensor, valid: Tensor) -> Tensor:
    """Return the energy distance of weighted answers to an equally likely valid set, per prompt."""
    even = torch.full(valid.shape[:2], 1 / valid.shape[1])

    def mean(left: Tensor, a: Tensor, right: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("pi,pij,pj->p", a, torch.cdist(left, right), b)

    across = mean(answers, weights, valid, even)
    return 2 * across - mean(answers, weights, answers, weights) - mean(valid, even, valid, even)


def train(task: Task, *, seed: int, **config: Any) -> Prior:
    """Return a prior trained for the common number of steps."""
    torch.manual_seed(seed)
    config |= {"dim": task.dim, "conditions": task.conditions, "hidden": HIDDEN}
    prior = Prior(PriorConfig(network="mlp", **config))
    optimizer = torch.optim.AdamW(prior.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TRAINING_STEPS)
    generator = Generator().manual_seed(seed)
    for _ in range(TRAINING_STEPS):
        loss = prior.loss(task.batch(generator), generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return prior.eval()


def milliseconds(answer: Answer, prompt: Prompt) -> float:
    """Return the median CPU time of an answer to one prompt."""
    one = Prompt(*(part[:1] for part in prompt))
    taken = []
    for _ in range(15):
        started = time.thread_time()
        answer(one)
        taken.append(time.thread_time() - started)
    return 1_000 * float(np.median(taken))


def ridge(task: Task, generator: Generator) -> Answer:
    """Return linear regression of the correction, its penalty chosen by leaving rows out."""
    from sklearn.linear_model import RidgeCV

    def rows(prompt: Prompt) -> Any:
        return torch.cat([prompt.pooled, prompt.condition], dim=1).numpy()

    batches = [task.batch(generator) for _ in range(32)]
    given = np.concatenate([rows(one.prompt) for one in batches])
    wanted = np.concatenate([(one.target - one.prompt.pooled).numpy() for one in batches])
    fitted = RidgeCV(alphas=(0.1, 1.0, 10.0, 100.0)).fit(given, wanted)

    def answer(prompt: Prompt) -> Tensor:
        correction = torch.from_numpy(fitted.predict(rows(prompt))).float()
        moved: Tensor = normalize(prompt.pooled + correction, dim=-1)
        return moved[:, None]

    return answer


SAMPLINGS = (("ddim", 1), *((name, n) for name in ("ddim", "dpm_solver_pp") for n in (5, 10, 20)))
Plan = Callable[[int], Sequence[tuple[Task, Sequence[int], Sequence[str]]]]
"""Seed to tasks, the numbers of heads that take part, and the processes."""
SHORT = {"ddim": "DDIM", "dpm_solver_pp": "DPM++", "bridge": "bridge"}


def answerers(
    task: Task, heads: Sequence[int], processes: Sequence[str], *, seed: int
) -> Iterator[tuple[str, str, Answer, Answer | None]]:
    """Give name, kind, answers and, where there are any, the weights of each method's answers."""
    turn = partial(turned, angle=mean_angle(task, Generator().manual_seed(seed)))
    direct = train(task, seed=seed, process="regression").sample
    yield "the prompt itself", "other", lambda prompt: prompt.pooled[:, None], None
    yield "ridge", "other", ridge(task, Generator().manual_seed(seed)), None
    yield "residual MLP", "other", direct, None
    yield "residual MLP, turned", "other", turn(direct), None
    for count in heads:
        prior = train(task, seed=seed, process="hypotheses", hypotheses=count)
        answer = partial(prior.sample, candidates=min(count, ANSWERS))
        yield f"{count} heads", "heads", answer, believed(prior)
        yield f"{count} heads, turned", "heads", turn(answer), believed(prior)
    for process in processes:
        prior = train(task, seed=seed, process=process)
        for sampler, steps in samplings(process):
            name = f"{process} {SHORT[sampler]} {steps}"
            yield name, "sampler", drawing(prior, sampler, steps, seed=seed), None


def mean_angle(task: Task, generator: Generator) -> float:
    """Return how far answers are from their prompts on average, in radians."""
    batch = task.batch(generator)
    cosines = (batch.prompt.pooled * batch.target).sum(dim=-1)
    return float(torch.acos(cosines.clamp(-1, 1)).mean())


def turned(answer: Answer, *, angle: float) -> Answer:
    """Return answers moved on or back, from the prompt, to one angle: means fall short of it."""

    def turn(prompt: Prompt) -> Tensor:
        origin, answers = prompt.pooled[:, None], answer(prompt)
        along = (answers * origin).sum(dim=-1, keepdim=True) * origin
        found: Tensor = math.cos(angle) * origin
        return found + math.sin(angle) * normalize(answers - along, dim=-1)

    return turn


def samplings(process: str) -> Sequence[tuple[str, int]]:
    """Return samplers and steps of a process; one step is the same with either sampler."""
    return [("bridge", n) for n in (1, 5, 10, 20)] if process == "bridge" else SAMPLINGS


def drawing(prior: Prior, sampler: str, steps: int, *, seed: int) -> Answer:
    """Return what draws answers from a prior."""

    def answer(prompt: Prompt) -> Tensor:
        return prior.sample(
            prompt,
            sampler=sampler,
            steps=steps,
            candidates=ANSWERS,
            generator=Generator().manual_seed(seed),
        )

    return answer


def believed(prior: Prior) -> Answer:
    """Return how likely each head is, best first as they are sampled."""

    def weights(prompt: Prompt) -> Tensor:
        with torch.no_grad():
            scores: Tensor = prior.network(prior.network.read(prompt))[1]
        best = scores.softmax(dim=-1).sort(dim=-1, descending=True).values[:, :ANSWERS]
        return best / best.sum(dim=-1, keepdim=True)

    return weights


def study(plan: Plan) -> list[Figures]:
    """Return the figures of all methods on all tasks over the seeds."""
    found: dict[tuple[str, str], Figures] = {}

    def note(task: Task, name: str, kind: str, values: dict[str, float]) -> None:
        figures = found.setdefault((task.name, name), Figures(task.name, name, kind))
        for measured, value in values.items():
            figures.values.setdefault(measured, []).append(value)

    for seed in range(SEEDS):
        for task, heads, processes in plan(seed):
            prompt = task.test()
            perfect = task.valid(Generator().manual_seed(seed + 1_000), ANSWERS)
            even = torch.full((TESTED, ANSWERS), 1 / ANSWERS)
            values = figures_of(task, perfect, even, seed=seed)
            note(task, "perfect draws", "other", {"ms": math.nan, "longer": math.nan} | values)
            for name, kind, answer, weigh in answerers(task, heads, processes, seed=seed):
                answers = answer(prompt)
                count = answers.shape[1]
                weights = weigh(prompt) if weigh else torch.full((TESTED, count), 1 / count)
                values = figures_of(task, answers, weights, seed=seed)
                values["longer"] = task.longer(answer)
                note(task, name, kind, {"ms": milliseconds(answer, prompt)} | values)
    return list(found.values())


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval."""
    return float(np.mean(values)), STUDENT_95 * float(np.std(values, ddof=1)) / len(values) ** 0.5


def known(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with nothing where there is no number."""
    return {name: "" if value != value else value for name, value in row.items()}  # noqa: PLR0124


def table(figures: Sequence[Figures]) -> list[dict[str, Any]]:
    """Return a row per method and task."""
    rows = []
    for one in figures:
        row: dict[str, Any] = {"task": one.task, "method": one.method}
        row["ms"] = float(np.mean(one.values["ms"]))
        for measured in MEASURES:
            row[measured], row[f"{measured} ±"] = interval(one.values[measured])
        rows.append(known(row))
    return rows


def gains(figures: Sequence[Figures]) -> list[dict[str, Any]]:
    """Return, for each sampler, how much better it is than the best heads that are no slower."""
    rows = []
    for one in (each for each in figures if each.kind == "sampler"):
        slowest = np.mean(one.values["ms"])
        rivals = [
            each
            for each in figures
            if each.task == one.task
            and each.kind == "heads"
            and np.mean(each.values["ms"]) <= slowest
        ]
        if not rivals:
            continue
        row: dict[str, Any] = {"task": one.task, "gain of": one.method}
        for measured in MEASURES:
            sign = -1 if measured in ("energy", "harmful") else 1
            own = sign * np.array(one.values[measured])
            best = max((sign * np.array(each.values[measured]) for each in rivals), key=np.mean)
            row[measured], row[f"{measured} ±"] = interval(own - best)
        rows.append(known(row))
    return rows


def main() -> None:
    """Measure and publish."""
    torch.set_num_threads(1)
    texts = Texts.encode()

    def plan(seed: int) -> list[tuple[Task, Sequence[int], Sequence[str]]]:
        return [
            (_Modes(seed=seed), (8, 32), ("x0",)),
            (_Surface(seed=seed, inner=4, radius=0.95), (32,), ("x0",)),
            (_Surface(seed=seed, inner=16, radius=0.8), (32, 128), ("x0", "eps", "v", "bridge")),
            (_Redirects(texts, seed=seed), (8, 32), ("x0", "bridge")),
        ]

    figures = study(plan)
    suffix = "" if TRAINING_STEPS == DEFAULT_STEPS else f"_{TRAINING_STEPS}"
    publish(f"redirect{suffix}", table(figures))
    publish(f"redirect_gain{suffix}", gains(figures))


if __name__ == "__main__":
    main()
