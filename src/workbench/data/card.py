"""The data card: what a pair set holds, where it came from, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from workbench.core.plain import one_line
from workbench.core.redact import redact
from workbench.data.pairs import SPLITS, PairSet
from workbench.store.results import PairsResult

__all__ = ["card_markdown", "make_card"]

_SAMPLES_PER_RELATION = 3
_SAMPLE_CHARS = 300
_LOOKED_AT_CHARS = 4000
_SAMPLE_FIELDS = ["adversarial", "clean", "relation", "category", "split"]
_COUNTED = ("category", "relation", "language", "domain", "context", "source", "license")
"""What is counted in a card of its own table; families follow apart, since they are many."""


def make_card(pair_set: PairSet) -> PairsResult:
    """Return the card of a pair set; samples are plain text of at most 300 characters."""
    manifest = pair_set.manifest
    by = {name: _sorted(counts) for name, counts in manifest["by"].items()}
    families = {family or "(bare)": count for family, count in by["wrapper_family"].items()}
    return PairsResult(
        kind="pairs",
        version=pair_set.version,
        pairs=manifest["pairs"],
        unique_requests=manifest["requests"],
        unique_groups=manifest["groups"],
        wrapper_families=len(set(families) - {"(bare)"}),
        near_duplicates=manifest["near_duplicates"],
        quarantined=manifest["quarantined"],
        shortfall=manifest["shortfall"],
        splits={split: by["split"].get(split, 0) for split in SPLITS},
        by_category=by["category"],
        by_relation=by["relation"],
        by_family=families,
        by_language=by["language"],
        by_domain=by["domain"],
        by_context=by["context"],
        by_license=by["license"],
        by_generator=by["generator"],
        dropped=manifest["dropped"],
        sources=manifest["sources"],
        decontaminated=manifest["decontaminated"],
        leaks=manifest["leaks"],
        seed=manifest["config"]["seed"],
        samples=list(_samples(pair_set)),
    )


def card_markdown(card: PairsResult) -> str:
    """Return the card as Markdown; texts of pairs are fenced, so that none is read as markup."""
    grown = (
        f"{card['pairs']:,} pairs grown from **{card['unique_requests']:,} unique requests** in "
        f"{card['unique_groups']:,} leak groups, in {card['wrapper_families']} wrapper families. "
        f"{card['near_duplicates']:,} near-duplicates were found. Seed {card['seed']}."
    )
    lines = [f"# Pair set {card['version'][:12]}", "", grown, ""]
    if card["shortfall"]:
        lines += [f"**Short:** {card['shortfall']}.", ""]
    lines += ["## Sources", "", "| source | revision | license | pairs |", "|---|---|---|---|"]
    for row in card["sources"]:
        if not row["error"]:
            cells = map(_cell, (row["name"], row["revision"], row["license"]))
            lines.append(f"| {' | '.join(cells)} | {row['pairs']:,} |")
    lines.append("")
    for row in (*card["sources"], *card["decontaminated"]):
        if row["error"]:
            lines.append(f"- **Missing:** {_cell(row['name'])}: {_cell(row['error'])}")
    compared = [_cell(row["name"]) for row in card["decontaminated"] if not row["error"]]
    told = f"Nothing in it resembles: {', '.join(compared)}." if compared else ""
    lines += ["", told or "No other set was there to be compared with."]
    lines += ["", "## Leak check", "", *_table(card["leaks"], "kind of leak", "found")]
    for title, counts in (
        ("Splits", card["splits"]),
        ("Categories", card["by_category"]),
        ("Relations", card["by_relation"]),
        ("Languages", card["by_language"]),
        ("Domains", card["by_domain"]),
        ("Contexts", card["by_context"]),
        ("Licenses", card["by_license"]),
        ("Made by", card["by_generator"]),
        ("Dropped, by reason", card["dropped"]),
        ("Wrapper families", card["by_family"]),
    ):
        lines += ["", f"## {title}", "", *_table(counts, "value", "pairs")]
    lines += ["", "## Some pairs"]
    for sample in card["samples"]:
        sides = [sample[side].replace("~~~", "~ ~ ~") for side in ("adversarial", "clean")]
        about = ", ".join(_cell(sample[name]) for name in ("relation", "category", "split"))
        lines += ["", f"{about}:", "", "~~~text", sides[0], "=>", sides[1], "~~~"]
    return "\n".join(lines) + "\n"


def _table(counts: Mapping[str, int], left: str, right: str) -> list[str]:
    rows = [f"| {_cell(name) or '(none)'} | {count:,} |" for name, count in counts.items()]
    return [f"| {left} | {right} |", "|---|---|", *rows]


def _cell(text: str) -> str:
    """Return a text of somebody else's as the content of a table's cell."""
    shown = _plain(text)
    for mark in "\\|`*_<>[]":
        shown = shown.replace(mark, f"\\{mark}")
    return shown


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    """Return value → pairs, the most frequent first, equals by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _samples(pair_set: PairSet) -> Iterator[dict[str, str]]:
    """Yield some pairs of each relation, of the first shards that have any."""
    left = dict.fromkeys(pair_set.manifest["by"]["relation"], _SAMPLES_PER_RELATION)
    for frame in pair_set.shards():
        for relation, count in list(left.items()):
            some = frame[frame["relation"] == relation].drop_duplicates("core").head(count)
            left[relation] -= len(some)
            for row in some[_SAMPLE_FIELDS].itertuples(index=False):
                yield {name: _plain(value) for name, value in zip(_SAMPLE_FIELDS, row, strict=True)}
        if not any(left.values()):
            return


def _plain(text: str) -> str:
    """Return one short line without personal data, secrets and what is obeyed."""
    shown = one_line(redact(text)[:_LOOKED_AT_CHARS])
    return shown if len(shown) <= _SAMPLE_CHARS else shown[: _SAMPLE_CHARS - 1] + "\u2026"
