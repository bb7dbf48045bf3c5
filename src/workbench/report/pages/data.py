"""Data: what the pair set holds and where it comes from."""

from __future__ import annotations

from workbench.report import figures
from workbench.report.blocks import Fact, Figure, Finding, Page, Passages, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.tables import counts, number, percent, records, short

__all__ = ["page"]

_RELATIONS = {
    "dewrap": "the request that a wrapper hides",
    "safe_rewrite": "a safe request instead of a harmful one",
    "contrast": "a benign twin",
    "identity": "the same text: benign prompts stay as they are",
    "response": "a model's answer",
}
_SPLITS = {
    "train": "what sanitizers learn from",
    "validation": "what chooses between them",
    "test_intents": "unseen requests in seen wrappers",
    "test_wrappers": "seen requests in unseen wrappers",
    "test_both": "unseen requests in unseen wrappers: the figures of this report",
}


def page(evidence: Evidence) -> Page | None:
    """Return the data card, or None without pairs."""
    pairs = evidence.last("pairs")
    if pairs is None:
        return None
    total, families = number(pairs["pairs"]), number(pairs["wrapper_families"])
    requests = number(pairs["unique_requests"])
    benign = percent(pairs["by_category"].get("benign", 0) / max(pairs["pairs"], 1))
    finding = Finding(
        f"{total} pairs from {requests} requests, hidden in {families} ways",
        f"Each pair is an adversarial prompt and the clean text that should come out of it. "
        f"{benign} of them are harmless requests, so that a sanitizer also learns what to leave "
        f"alone. {number(pairs['near_duplicates'])} near-duplicates were taken out. Pair set "
        f"{short(pairs['version'])}, seed {pairs['seed']}.",
    )
    unit = "Count | pairs"
    figure = Figure(
        name="categories",
        title="Pairs by harm category",
        spec=figures.bars(pairs["by_category"], show=number),
        summary="Counted exactly; benign pairs are harmless requests, plain and wrapped.",
        footer=evidence.footer([pairs]),
        numbers=counts("Pairs by category", ["Category", unit], pairs["by_category"]),
    )
    by_family = counts("Pairs by wrapper family", ["Family", unit], pairs["by_family"]).folded()
    meant, relation = pairs["by_relation"], ["Relation", unit]
    relations = counts("What the clean text is", relation, meant, meanings=_RELATIONS)
    splits = counts("Pairs by split", ["Split", unit], pairs["splits"], meanings=_SPLITS)
    no_leak = Text(
        f"Requests that mean the same share one of {number(pairs['unique_groups'])} groups. All "
        "requests of a group are seen in training or none is, and so it is with wrapper families. "
        "The finished set was searched again for leaks, without trusting how it was built; found: "
        + ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in pairs["leaks"].items())
        + "."
    )
    kinds = [
        counts(title, [heading, unit], pairs[field])
        for title, heading, field in (
            ("Languages", "Language", "by_language"),
            ("Domains", "Domain", "by_domain"),
            ("Contexts", "Context", "by_context"),
            ("Licenses", "License", "by_license"),
            ("Made by", "Generator", "by_generator"),
        )
    ]
    dropped = counts("Rows dropped", ["Reason", "Count | rows"], pairs["dropped"])
    told = [
        _missing("Could not be loaded", pairs["sources"]),
        _missing("Not compared with, since it could not be loaded", pairs["decontaminated"]),
        f"{pairs['shortfall'].capitalize()}." if pairs["shortfall"] else "",
    ]
    origin = [records("Sources", pairs["sources"]), dropped]
    if pairs["decontaminated"]:
        origin.insert(1, records("Test sets that it shall not resemble", pairs["decontaminated"]))
    note = f"from {requests} requests in {families} wrapper families; counted exactly"
    return Page(
        name="data",
        finding=finding,
        notes=[Text(note, is_note=True) for note in told if note],
        facts=[Fact("Training pairs grown", total, note)],
        sections=[
            Section("What is in it", [figure, relations, *kinds, by_family]),
            Section("Splits", [splits, no_leak]),
            Section("Where it comes from", origin),
            Section("Some pairs", [Passages.of(pairs["samples"], texts=("adversarial", "clean"))]),
        ],
    )


def _missing(words: str, sources: list[dict[str, str]]) -> str:
    names = [one["name"] for one in sources if one["error"]]
    return f"{words}: {', '.join(names)}. The tables of sources say why." if names else ""
