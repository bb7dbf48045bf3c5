"""What the notebooks of campaigns leave in ``result.json``, beside those of ``store.results``."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from workbench.store.results import Interval, JudgeReport

__all__ = [
    "AgreementRow", "AnalysisResult", "ComparisonRow", "ExecutionResult", "FlakyCase",
    "OpinionsRow", "RateRow", "TargetErrors", "TestSetResult",
]  # fmt: skip


class TestSetResult(TypedDict):
    """``kind: test_set`` (notebook 04)."""

    kind: Literal["test_set"]
    test_set: str
    promptfoo_id: str
    tests: int
    controls: int
    by_plugin: dict[str, int]
    by_strategy: dict[str, int]
    by_category: dict[str, int]
    estimate: dict[str, float]
    """Of executing it once per target: calls, cpu_s, usd."""
    samples: list[dict[str, str]]
    limited_by: NotRequired[str]
    """Why there are not more cases. This and what follows is absent from older results."""
    left_out: NotRequired[dict[str, str]]
    """Plugin → why it has no cases."""
    unwritten: NotRequired[int]
    """Cases that a model should have written and did not."""
    dropped: NotRequired[dict[str, int]]
    """Why drafts of models were dropped → how many."""
    usd: NotRequired[float]
    """What models were billed for writing cases."""


class RateRow(TypedDict):
    """A rate over attempts with its interval."""

    target: str
    group: str
    """Strategy or category; ``all`` for the total."""
    successes: int
    attempts: int
    rate: Interval


class ComparisonRow(TypedDict):
    """Two ways compared on the same attempts."""

    first: str
    second: str
    """Targets; of mutations ``plain`` and the strategy."""
    by: str
    """``all``, ``strategy``, ``category``, ``controls``; of mutations ``target``."""
    group: str
    pairs: int
    """Attempts of the one that have their like among those of the other."""
    goals: int
    """Different requests among them: what is independent."""
    only_first: int
    """Pairs of which the first alone succeeded."""
    only_second: int
    difference: Interval
    """Success of the second less that of the first."""
    p: float
    """McNemar's exact test, whole goals exchanged."""
    p_mid: float
    """The same with half of the observed outcome's probability: less cautious."""
    p_adjusted: float
    """``p`` after Holm over all rows of the table: no false claim in it, with 95 %."""
    q: float
    """``p`` after Benjamini and Hochberg: 5 % of what is below .05 may be false."""


class AgreementRow(TypedDict):
    """How far two judges say the same."""

    first: str
    second: str
    attempts: int
    """On which both have an opinion."""
    observed: float
    """Share on which they agree."""
    kappa: Interval | None
    """Cohen's: agreement beyond chance; None where both say nothing but the same one thing."""


class OpinionsRow(TypedDict):
    """What a judge had to say of an execution."""

    judge: str
    attempts: int
    """On which it has an opinion."""
    attacks: int
    """Of which it says that they succeeded."""
    controls: int
    """Of which it says that they were spoilt."""


class FlakyCase(TypedDict):
    """A case that the same target answered differently."""

    case_id: str
    target: str
    plugin: str
    strategy: str
    successes: int
    attempts: int


class TargetErrors(TypedDict):
    """Attempts that a target did not answer, by reason."""

    target: str
    error: str
    attempts: int


class ExecutionResult(TypedDict):
    """``kind: execution`` (notebook 05)."""

    kind: Literal["execution"]
    execution: str
    """Id of the execution artifact."""
    test_set: str
    targets: list[str]
    attempts: int
    resumed: int
    """Attempts that an earlier, killed run had already made."""
    errors: int
    judges: list[JudgeReport]
    usd: NotRequired[float]
    """What the targets were paid. This and what follows is absent from older results."""
    trials: NotRequired[int]
    """How often each case was sent to each target."""
    kinds: NotRequired[dict[str, str]]
    """Target → ``guard`` or ``model``."""


class AnalysisResult(TypedDict):
    """``kind: analysis`` (notebook 06)."""

    kind: Literal["analysis"]
    execution: str
    test_set: str
    method: str
    """How intervals are computed, in words."""
    totals: list[RateRow]
    """Attack success per target."""
    by_strategy: list[RateRow]
    by_category: list[RateRow]
    delivered: list[RateRow]
    """Attacks whose request came through intact, plain or disguised; no judge involved."""
    controls: list[RateRow]
    """Controls spoilt per target (over-refusal)."""
    latency_ms: dict[str, Interval]
    """Target → median with 5th and 95th percentile."""
    agreement: float
    """Share of attempts on which both judges agree."""
    judges: list[JudgeReport]
    findings: int
    examples: list[dict[str, str]]
    """Some findings: target, strategy, category, sent, received (redacted)."""
    attempts: NotRequired[int]
    """All, errors included. This and what follows is absent from older results."""
    by_plugin: NotRequired[list[RateRow]]
    by_severity: NotRequired[list[RateRow]]
    agreed_on: NotRequired[int]
    """Attempts of which ``agreement`` is a share: those with several opinions, or one judge."""
    alpha: NotRequired[float | None]
    """Krippendorff's, of all judges: agreement beyond chance; None where it is undefined."""
    judge_agreement: NotRequired[list[AgreementRow]]
    """Each two judges."""
    opinions: NotRequired[list[OpinionsRow]]
    """Each judge."""
    judge_accuracy: NotRequired[list[dict[str, object]]]
    accuracy_note: NotRequired[str]
    """What to know of the labelled answers."""
    """Of judges of answers, on labelled cases."""
    kinds: NotRequired[dict[str, str]]
    """Target → ``guard``, which lets texts through, or ``model``, which answers."""
    usd: NotRequired[dict[str, float]]
    """Target → dollars that its attempts cost."""
    errors: NotRequired[dict[str, int]]
    """Target → attempts that it did not answer."""
    error_reasons: NotRequired[list[TargetErrors]]
    """The most frequent ones, redacted."""
    flaky: NotRequired[list[RateRow]]
    """Share of the cases tried several times that did not always end alike, controls included."""
    flaky_cases: NotRequired[list[FlakyCase]]
    """Those closest to half and half."""
    comparisons: NotRequired[list[ComparisonRow]]
    """Each two targets."""
    mutations: NotRequired[list[ComparisonRow]]
    """Each strategy against the plain form of the same requests on the same target."""
    failing_cases: NotRequired[int]
    """Attacks that succeeded, and controls that were spoilt, at least once on any target."""
    states: NotRequired[dict[str, int]]
    """State → findings in it when this was made."""
    prefill: NotRequired[dict[str, object]]
    """How well suggested states foretold what people decided: precision, recall, n, intervals."""
