"""What the notebooks leave in ``result.json``, by ``kind``: the contract between stages and report.

Every result also carries ``run_id``, ``usage`` and ``stamp``, added by ``notebook.result.finish``.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

__all__ = [
    "AblationResult", "AblationRow", "CallsResult", "CallsRow", "CostResult", "CurvePoint",
    "EstimateRow", "FrontierRow", "Interval", "JudgeReport", "LawPoint", "LawsResult",
    "PairsResult", "SourceRow", "SpendRow", "TrainingResult",
]  # fmt: skip


class Interval(TypedDict):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class JudgeReport(TypedDict):
    """A grader and its own error, measured on held-out topics of the judge set."""

    id: str
    representation: str
    auroc_benign: Interval
    """Harmful against benign."""
    auroc_lookalike: Interval
    """Harmful against safe look-alikes."""
    threshold: float
    """Probability from which a text counts as unsafe."""
    false_positive_rate: float
    """On benign texts, at the threshold."""
    lookalike_flag_rate: float
    """On safe look-alikes, at the threshold."""
    recall: float
    """Share of harmful texts that it flags at the threshold."""
    calibration_error: float
    """Expected calibration error of its probabilities, out of fold."""
    trained_on: str
    """Hash of the judge set."""


class SourceRow(TypedDict):
    """Where pairs came from."""

    name: str
    revision: str
    license: str
    pairs: int
    error: str
    """Why it could not be loaded; empty where it was."""


class PairsResult(TypedDict):
    """``kind: pairs`` (notebook 01)."""

    kind: Literal["pairs"]
    version: str
    """Id of the pair-set artifact."""
    pairs: int
    unique_requests: int
    unique_groups: int
    wrapper_families: int
    near_duplicates: int
    quarantined: int
    """Rows with personal data or secrets, set aside redacted for review."""
    shortfall: str
    """Why it has fewer pairs than asked for; empty where it has not."""
    splits: dict[str, int]
    by_category: dict[str, int]
    by_relation: dict[str, int]
    by_family: dict[str, int]
    by_language: dict[str, int]
    by_domain: dict[str, int]
    by_context: dict[str, int]
    by_license: dict[str, int]
    by_generator: dict[str, int]
    """What made the rows: a grammar, a file, a model."""
    dropped: dict[str, int]
    """Reason → rows dropped."""
    sources: list[SourceRow]
    decontaminated: list[SourceRow]
    """Other people's test sets, to which no pair is similar; those not loaded say so."""
    leaks: dict[str, int]
    """Kind of leak → how many were found in the finished set."""
    seed: int
    samples: list[dict[str, str]]
    """Some pairs: adversarial, clean, relation, category, split."""


class FrontierRow(TypedDict):
    """One method at one gain on one split: a point of the safety–semantic frontier."""

    method: str
    """``sanitizer``, which gives texts, or one that moves vectors: ``identity``, ``ridge``, …"""
    gain: float
    """Times the odds of harm; of what moves vectors, how far along the predicted correction."""
    split: str
    semantic: float
    """Mean cosine of what is sent on to the clean reference."""
    safety: float
    """Relative reduction of the mean unsafe probability; what is blocked is safe."""
    unsafe: float
    """Share of outputs that the judge flags."""
    keep: float
    """Mean cosine of a sanitized benign prompt to itself."""


class TrainingResult(TypedDict):
    """``kind: training``, a run of a sweep, or ``sanitizer``, a final model (notebook 02)."""

    kind: Literal["training", "sanitizer"]
    model: str
    """Id of the model artifact."""
    pair_set: str
    encoder: str
    seed: int
    axes: dict[str, float]
    """What the sweep varies and what follows: wrapper_families, pairs, requests, parameters."""
    loss: float
    """Mean ``1 − cosine`` of the tagger's vector to the bare request on ``test_both``."""
    validation_loss: float
    """The same on ``validation``; the only figure a model may be chosen by."""
    baselines: dict[str, float]
    """The same ``loss`` of each method that moves vectors; ``x0-x3`` is an ensemble of three."""
    frontier: list[FrontierRow]
    curve: list[dict[str, float]]
    """step, train_loss; of validation dewrap, payload, detect, and error, their sum."""
    judges: list[JudgeReport]
    steps: int
    train_s: float
    samples_per_s: float
    flops: float
    """Counted, of training."""
    hardware: NotRequired[str]
    """What the GPUs call themselves, or ``cpu``; absent from older results, as the next two are."""
    processes: NotRequired[int]
    utilization: NotRequired[float | None]
    """Counted FLOPs over the GPUs' dense bf16 peak in the seconds of the steps (MFU); None on CPUs
    and where the peak is not known."""
    spread: NotRequired[dict[str, float]]  # of the members of an ensemble


class LawPoint(TypedDict):
    """One training run as the law sees it."""

    run_id: str
    x: float
    loss: float
    seed: int


class CurvePoint(TypedDict):
    """The fitted law at one x, with its 95 % interval."""

    x: float
    loss: float
    low: float
    high: float


class LawsResult(TypedDict):
    """``kind: laws`` (notebook 03)."""

    kind: Literal["laws"]
    axis: str
    form: str
    """The law in words, e.g. ``L(x) = E + A · x^(−α)``."""
    parameters: dict[str, Interval]
    """By name, with bootstrap intervals; ``second_method``: by variable projection."""
    second_method: NotRequired[dict[str, float]]
    starts: int
    starts_agreeing: int
    points: list[LawPoint]
    curve: list[CurvePoint]
    backtest: list[dict[str, float]]
    """x_fit_max, x_predicted, predicted, low, high, actual, error_pct."""
    comparison: NotRequired[list[dict[str, object]]]
    """Per form what it missed and forecasts; ``axes``: the law of each axis that the runs vary."""
    axes: NotRequired[list[dict[str, object]]]
    forecast: dict[str, object]
    """Of the next phase: x, loss (Interval), train_s, usd, kwh, gco2, and ``note``."""
    allocation: NotRequired[dict[str, object]]
    """``rows`` of compute, parameters, data, loss where both vary, and ``note``."""
    gpu_costs: NotRequired[list[dict[str, object]]]
    cost_note: NotRequired[str]
    phases: NotRequired[list[dict[str, object]]]
    promised: NotRequired[list[dict[str, object]]]
    """What the roadmap claims to cost and promises, beside what is computed and forecast."""
    baselines: dict[str, float]
    """Mean ``loss`` of each baseline over the runs at the largest x."""
    claims: list[dict[str, object]]
    """The roadmap's targets: phase, safety, semantic, pairs, usd, kwh; shown as *claimed* only."""
    best_model: str
    best_run: str
    verdict: str
    """One honest sentence: which method won, and whether the law is worth believing."""
    wandb: dict[str, object]
    """mode, folder, runs, error."""


class SpendRow(TypedDict):
    """What a phase or resource cost."""

    group: str
    cpu_s: float
    kwh: float
    usd: float
    share: float


class CallsRow(TypedDict):
    """Model calls of a phase, model, task, person or day."""

    group: str
    calls: int
    """Sent to a service and billed, lost ones included."""
    lost: int
    """Whose answer never came; billed at their worst case, an estimate."""
    hits: int
    """Answers that were at hand, or in flight already; cost nothing."""
    rules: int
    """Requests that a rule answered."""
    hit_share: float
    """Hits over all requests that needed a model."""
    misses: dict[str, int]
    """Why calls were not at hand: ``absent``, ``expired``, ``off``."""
    input_tokens: int
    """Of prompts, at the full price or written to the service's cache."""
    cached_tokens: int
    """Of prompts, read from the service's cache."""
    output_tokens: int
    usd: float
    saved_usd: float
    """What the hits had cost when they were bought."""
    bytes_sent: int
    bytes_received: int


class CallsResult(TypedDict):
    """All model calls of an experiment."""

    by_phase: list[CallsRow]
    by_model: list[CallsRow]
    by_task: list[CallsRow]
    total: CallsRow


class EstimateRow(TypedDict):
    """What a piece of work was expected to cost, beside what it did cost."""

    work: str
    phase: str
    at: str
    """When it was estimated."""
    expected_calls: int
    calls: int
    low_usd: float
    expected_usd: float
    worst_usd: float
    usd: float
    """Billed since, up to the next estimate of the same work; lost calls included."""
    ratio: float
    """Billed over expected; 0 where nothing was expected."""
    verdict: Literal["within", "below", "above", "cut short"]
    """Where the bill lies beside low and worst; ``cut short``: estimated anew before its end."""


class CostResult(TypedDict):
    """``kind: cost`` (notebook 08)."""

    kind: Literal["cost"]
    by_phase: list[SpendRow]
    by_step: list[SpendRow]
    total: SpendRow
    gco2: float
    energy_method: str
    """How energy was estimated, in words."""
    assumptions: list[dict[str, object]]
    """name, value, unit, source, kind (``measured | assumed | claimed``)."""
    roi: dict[str, object]
    """annual_{cost,alternative,saving}_usd, payback_days, sensitivity (list)."""
    claims: list[dict[str, object]]
    """Cost claims of the source documents: name, claimed, measured here, note."""
    calls: NotRequired[CallsResult]
    """Model calls; absent from results that are older than the gateway."""
    estimates: NotRequired[list[EstimateRow]]


class AblationRow(TypedDict):
    """What one saving took off the bill of the fixed workload, beside what the guide claims."""

    saving: str
    """``prompt caching``, ``model selection``, …; ``combined`` for all of them together."""
    usd: float
    """Bill with this saving alone switched on."""
    usd_alone_reduction: float
    """Share of the baseline's bill that it takes off alone; below 0 it costs more."""
    usd_without_increase: float
    """By which share the combined bill grows where only this one is off; 0 for ``combined``."""
    seconds: float
    """Wall seconds with this saving alone."""
    latency_reduction: float
    """Share of the baseline's seconds that it takes off alone."""
    latency_without_increase: float
    """By which share the combined time grows where only this one is off; 0 for ``combined``."""
    tokens_reduction: float
    """Share of the baseline's tokens that it takes off alone."""
    claimed_usd: list[float]
    """Least and most of the bill that the guide says it takes off; empty where it says nothing."""
    claimed_tokens: list[float]
    """Least and most of the tokens that the guide says it takes off; empty likewise."""
    claimed_latency: list[float]
    """Least and most of the time that the guide says it takes off; empty where it says nothing."""
    verdict: Literal["reached", "missed", "no claim", "not comparable"]
    """Whether every claim was measured to be true, up to its least, and says the same thing."""
    note: str
    """Why it came out so, in words; may be empty."""


class AblationResult(TypedDict):
    """``kind: ablation`` (``workbench cost ablate``)."""

    kind: Literal["ablation"]
    workload: str
    """What was asked, of which server, in words."""
    baseline: dict[str, float]
    """With every saving off: usd, seconds, calls."""
    rows: list[AblationRow]
    """One per saving."""
    combined: AblationRow
    """All savings on."""
