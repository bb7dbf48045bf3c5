"""Pair sets: the card of one, some of its pairs, and what sets two versions apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets

from workbench.core.errors import DataError
from workbench.data.pairs import RELATIONS, SPLITS, PairSet
from workbench.notebook.widgets import look
from workbench.notebook.widgets.panel import Panel
from workbench.report.tables import Number, counts, number, percent, short
from workbench.store.database import Store

__all__ = ["PairSets", "pair_sets"]

_SAMPLED = 10
_COUNTED = (("Category", "by_category"), ("Relation", "by_relation"), ("Language", "by_language"))
_LABELS = ("relation", "category", "language", "split", "wrapper_family", "source")


class PairSets(Panel):
    """The card of a pair set; below it a sample, or the difference to another.

    Args:
        store: What to read.
        version: Of the set, or the beginning of it; the newest if empty.
    """

    title = "Pair sets"

    def __init__(self, store: Store | None = None, *, version: str = "") -> None:
        super().__init__(store)
        self._version = version
        self._cards: dict[str, Mapping[str, Any]] = {}

    def snapshot(self) -> dict[str, Any]:
        """Return the versions there are and the card of one; pairs come with :meth:`sample`."""
        from workbench.data.card import make_card

        listed = self.store.artifacts.rows("pair_set")
        if not listed:
            words = "There is no pair set here. Notebook 01 or workbench data build makes one."
            return {"blocks": {"none": look.text(words)}}
        newest = self._load(self._version)
        if newest.version not in self._cards:  # what a version holds never changes
            self._cards[newest.version] = make_card(newest)
        card = self._cards[newest.version]
        rows = [(short(one["id"]), one["created_at"][:16].replace("T", " "), one["owner"])
                for one in listed]  # fmt: skip
        blocks = _card_blocks(card)
        blocks["versions"] = look.table("Versions", ("Version", "Made", "By"), rows)
        return {"blocks": blocks, "version": card["version"]}

    def controls(self) -> list[ipywidgets.Widget]:
        """Return the choice of two versions, and what to show of them."""
        listed = [one["id"] for one in self.store.artifacts.rows("pair_set")]
        choices = [(short(one), one) for one in listed] or [("none", "")]
        wanted = next((one for one in listed if self._version and one.startswith(self._version)),
                      choices[0][1])  # fmt: skip
        other = listed[1] if len(listed) > 1 else choices[0][1]
        shown = ipywidgets.Dropdown(options=choices, value=wanted, description="Version")
        shown.observe(lambda change: self._choose(change["new"]), names="value")
        before = ipywidgets.Dropdown(options=choices, value=other, description="Against")
        split = ipywidgets.Dropdown(options=["", *SPLITS], description="Split")
        relation = ipywidgets.Dropdown(options=["", *RELATIONS], description="Relation")
        seed = ipywidgets.BoundedIntText(value=0, min=0, max=2**31 - 1, description="Draw")

        def draw() -> None:
            self.sample(seed=seed.value, split=split.value, relation=relation.value)

        def differ() -> None:
            self.diff(before.value)

        return [
            ipywidgets.HBox([shown, before, self.button("Difference", differ)]),
            ipywidgets.HBox([split, relation, seed, self.button("Sample", draw)]),
        ]

    def sample(self, *, count: int = _SAMPLED, seed: int = 0, **only: str) -> None:
        """Show some pairs below, drawn evenly from those that fit.

        Args:
            count: Most pairs.
            seed: Decides which.
            **only: Column → the value that it must have; empty ones do not count.

        Raises:
            DataError: If nothing fits.
        """
        from workbench.data.export import sample

        wanted = {name: value for name, value in only.items() if value}
        rows = sample(self._load(self._version), count=count, seed=seed, only=wanted)
        items = []
        for row in rows:
            heading = " · ".join(row[name] for name in _LABELS if row[name])
            items.append((heading, [("adversarial", row["adversarial"]), ("clean", row["clean"])]))
        self.reply({"sample": look.passages(items)})

    def diff(self, old: str) -> None:
        """Show below what changed from another version to the one that is shown."""
        from workbench.data.compare import compare

        if not old:
            raise DataError("there is one pair set only; build another to compare")
        found = compare(self._load(old), self._load(self._version))
        facts = [(name, number(found[name]), "pairs") for name in ("kept", "added", "removed")]
        facts.append(("relabelled", number(found["relabelled"]), "kept pairs"))
        blocks = {
            "what": look.text(f"From {short(found['old'])} to {short(found['new'])}"),
            "difference": look.facts(facts),
            "by": _changed(found),
        }
        if found["moved"]:
            rows = [(name, number(count)) for name, count in found["moved"].items()]
            blocks["moved"] = look.table("Moved between splits", ("From → to", "Pairs"), rows)
        if found["config"]:
            settings = [(name, *map(str, values)) for name, values in found["config"].items()]
            heads = ("Setting", "Before", "Now")
            blocks["config"] = look.table("Built otherwise", heads, settings)
        self.reply(blocks)

    def _choose(self, version: str) -> None:
        self._version = version
        self.reply({})
        self.update()

    def _load(self, version: str) -> PairSet:
        from workbench.data.build import load_pairs

        return load_pairs(self.store, version)


def pair_sets(store: Store | None = None, *, version: str = "") -> PairSets:
    """Return the panel of pair sets."""
    return PairSets(store, version=version)


def _card_blocks(card: Mapping[str, Any]) -> dict[str, look.Block]:
    facts = [
        ("pairs", number(card["pairs"]), f"version {short(card['version'])}"),
        ("unique requests", number(card["unique_requests"]), "what pairs grow from"),
        ("wrapper families", number(card["wrapper_families"]), "ways to disguise"),
        ("near-duplicates", number(card["near_duplicates"]), "marked"),
        ("leaks found", number(sum(card["leaks"].values())), "between splits"),
    ]
    blocks = {"facts": look.facts(facts)}
    if card["shortfall"]:
        blocks["short"] = look.text(f"Short: {card['shortfall']}.", is_note=True)
    total = sum(card["splits"].values()) or 1
    splits = [(name, number(n), percent(n / total)) for name, n in card["splits"].items()]
    blocks["splits"] = look.table("Splits", ("Split", "Pairs", "Share"), splits)
    for head, name in _COUNTED:
        made = counts(head, (head, "Pairs"), card[name])
        heads = [column.name for column in made.columns]
        blocks[name] = look.table(f"By {head.lower()}", heads, made.rows)
    sources = [
        (row["name"], str(row["revision"])[:20], row["license"], number(row["pairs"]),
         row["error"] or "–")
        for row in card["sources"]
    ]  # fmt: skip
    columns = ("Source", "Revision", "License", "Pairs", "Missing because")
    blocks["sources"] = look.table("Sources", columns, sources)
    return blocks


def _changed(found: Mapping[str, Any]) -> look.Block:
    rows: list[tuple[str, str, Number, Number]] = []
    for field in found["added_by"] | found["removed_by"]:
        added, removed = (found[way].get(field, {}) for way in ("added_by", "removed_by"))
        for value in sorted({*added, *removed}):
            came, went = number(added.get(value, 0)), number(removed.get(value, 0))
            rows.append((field, value, came, went))
    return look.table("What came and went", ("Field", "Value", "Added", "Removed"), rows)
