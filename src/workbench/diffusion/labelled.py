"""Labelled prompts, one row each: what an evaluation is measured on."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import TYPE_CHECKING, Any, Final

from workbench.core.errors import DataError
from workbench.core.plain import one_line

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "complete", "labelled"]

_TEXTS: Final = ("core", "family", "source", "language", "domain", "category", "group", "split")
COLUMNS: Final = ("prompt", "harmful", "lookalike", "clean", *_TEXTS)
"""``prompt`` and ``harmful`` must be there. ``core`` is the bare request, ``clean`` a safe text to
become, ``family`` the attack's or wrapper's (empty: bare); rows of one ``group`` are not
independent; ``lookalike`` is a safe prompt that sounds harmful."""


def labelled(pairs: pd.DataFrame, *, lookalikes: Collection[str] = ()) -> pd.DataFrame:
    """Return the prompts of pairs, as :func:`complete` does.

    A contrast's clean side is a prompt of its own: a look-alike. A model's response is no
    reference.

    Args:
        pairs: Pairs, from one split or several.
        lookalikes: Requests that are safe and sound harmful.
    """
    import pandas as pd

    rows = []
    for pair in pairs.to_dict("records"):
        is_harmful = pair["category"] != "benign"
        row = pair | {
            "prompt": pair["adversarial"],
            "harmful": is_harmful,
            "lookalike": not is_harmful and pair["core"] in lookalikes,
            "family": pair["wrapper_family"],
            "clean": "" if pair["relation"] == "response" else pair["clean"],
        }
        rows.append(row)
        if pair["relation"] == "contrast":
            safe = dict.fromkeys(("prompt", "core", "clean"), pair["clean"])
            twin = {"harmful": False, "lookalike": True, "family": "", "category": "benign"}
            rows.append(row | safe | twin)
    return complete(pd.DataFrame(rows, columns=COLUMNS))


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with all of :data:`COLUMNS`, a row for each prompt.

    ``clean`` holds all references of a prompt; a harmful request is none. A bare prompt is its own
    core, and a core its own group, where nothing else is said.

    Args:
        table: Its index names the rows in messages.

    Raises:
        DataError: If there is no row, one has no prompt, or a prompt has two labels.
    """
    import pandas as pd

    found: dict[str, dict[str, Any]] = {}
    first: dict[str, Hashable] = {}
    for place, given in zip(table.index, table.to_dict("records"), strict=True):
        row = _filled(given)
        prompt = row["prompt"]
        if not prompt.strip():
            raise DataError(f"{place}: the prompt is empty; write one or drop the row")
        known = found.setdefault(prompt, row)
        if known["harmful"] != row["harmful"]:
            raise DataError(
                f"{place}: prompt {one_line(prompt)[:40]!r} is labelled otherwise at "
                f"{first[prompt]}; keep one of the two"
            )
        first.setdefault(prompt, place)
        known["lookalike"] |= row["lookalike"]
        known["clean"] = tuple(dict.fromkeys(known["clean"] + row["clean"]))
    if not found:
        raise DataError("no labelled prompts to measure on; give a file or split that has some")
    harmful = {row["core"] for row in found.values() if row["harmful"]}
    for row in found.values():
        row["clean"] = tuple(text for text in row["clean"] if text and text not in harmful)
    return pd.DataFrame(list(found.values()), columns=COLUMNS)


def _filled(given: Mapping[Hashable, Any]) -> dict[str, Any]:
    row = {name: text if isinstance(text := given.get(name), str) else "" for name in _TEXTS}
    row["prompt"], clean = given["prompt"], given.get("clean")
    row["core"] = row["core"] or ("" if row["family"] else row["prompt"])
    row["group"] = row["group"] or row["core"] or row["prompt"]
    several = clean if isinstance(clean, tuple | list) else (clean,)
    texts = tuple(text for text in several if isinstance(text, str))
    flags = {"harmful": bool(given["harmful"]), "lookalike": given.get("lookalike") is True}
    return row | flags | {"clean": texts}
