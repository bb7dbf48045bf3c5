"""Data: what the pair set holds and where it comes from."""

from __future__ import annotations

from workbench.report import figures
from workbench.report.blocks import Figure, Note, Page, Passages, Section, Text
from workbench.report.evidence import Evidence
from workbench.report.tables import Column, counts, number, short, table

__all__ = ["page"]

_RELATIONS = {
    "dewrap": "the request that a wrapper hides",
    "safe_rewrite": "a safe request instead",
    "contrast": "a benign twin",
    "identity": "the same text: benign prompts stay as they are",
    "response": "a model's answer",
}


def page(evidence: Evidence) -> Page | None:
    """Return the data card, or None without pairs."""
    pairs = evidence.last("pairs")
    if pairs is None:
        return None
    footer = evidence.footer([pairs])
    lead = (
        f"Pair set {short(pairs['version'])} holds {number(pairs['pairs'])} adversarial → "
        "clean pairs from "
        f"{number(pairs['unique_requests'])} distinct requests in "
        f"{number(pairs['unique_groups'])} leak groups, "
        f"hidden in {number(pairs['wrapper_families'])} wrapper families. "
        f"{number(pairs['near_duplicates'])} near-duplicates were found. Seed {pairs['seed']}."
    )
    categories = counts("Pairs by harm category", "Category", pairs["by_category"])
    families = counts("Pairs by wrapper family", "Family", pairs["by_family"])
    relations = counts("Pairs by relation", "Relation", pairs["by_relation"])
    meaning = "; ".join(
        f"{name}: {_RELATIONS[name]}" for name in pairs["by_relation"] if name in _RELATIONS
    )
    sources = table(
        "Sources",
        ["Source", "Revision", "License", Column("Pairs", "count"), "Problem"],
        [
            (
                one["name"],
                one["revision"] or "–",
                one["license"],
                number(one["pairs"]),
                one["error"] or "–",
            )
            for one in pairs["sources"]
        ],
    )
    samples = Passages.of(pairs["samples"], texts=("adversarial", "clean"))
    broken = [one for one in pairs["sources"] if one["error"]]
    notes = [
        Note(text=f"Source {one['name']} could not be loaded: {one['error']}") for one in broken
    ]
    return Page(
        name="data",
        title="Data",
        blocks=[Text(text=lead, is_lead=True), *notes],
        sections=[
            Section(
                heading="What is in it",
                blocks=[
                    Figure(
                        name="categories",
                        title="Pairs by harm category",
                        spec=figures.bars(pairs["by_category"], unit="pairs"),
                        summary=f"{len(pairs['by_category'])} categories; the numbers are in "
                        "the table below.",
                        footer=footer,
                        numbers=categories,
                    ),
                    families,
                    relations,
                    Text(text=f"What the clean side is: {meaning}."),
                ],
            ),
            Section(
                heading="Splits",
                blocks=[
                    counts("Pairs by split", "Split", pairs["splits"]),
                    Text(
                        text="test_intents: unseen requests in seen wrappers; test_wrappers: "
                        "seen requests in "
                        "unseen wrappers; test_both: both unseen. Training excludes all three, "
                        "and no leak "
                        "group has pairs on both sides."
                    ),
                ],
            ),
            Section(
                heading="Where it comes from",
                blocks=[sources, counts("Rows dropped", "Reason", pairs["dropped"], unit="rows")],
            ),
            Section(heading="Some pairs", blocks=[samples]),
        ],
    )
