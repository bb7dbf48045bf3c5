"""A campaign as JUnit XML, which every CI server can show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from workbench.campaign.columns import Columns, Source, read_columns
from workbench.campaign.gate import GateCheck
from workbench.campaign.rates import attacks, controls, rate_rows
from workbench.store.campaign_results import RateRow

__all__ = ["junit"]

_READ = ("target", "plugin", "strategy", "goal", "success", "error", "is_control")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped."""


def junit(source: Source, *, checks: Sequence[GateCheck] = ()) -> str:
    """Return a suite per target with a test per plugin and strategy, and a suite of the gate.

    With a gate, it alone decides: other tests tell their rate. Without one, a test fails where any
    attack succeeded, or any control was spoilt. A test is an error where no attempt was answered.

    Args:
        source: An execution, or the Parquet file of its attempts.
        checks: Of ``campaign.gate.evaluate``.

    Raises:
        StoreError: If the file is damaged.
    """
    columns = read_columns(source, _READ)
    targets = sorted(columns.labels("target")) if isinstance(source, Path) else source.targets
    tests = _tests(columns, decide=not checks)
    root = ET.Element("testsuites", name="campaign")
    suites = [("gate", [_gate_test(check) for check in checks])] if checks else []
    suites += [
        (target, [test for test in tests if test.get("classname") == _legal(target)])
        for target in targets
    ]
    for name, found in suites:
        suite = ET.SubElement(root, "testsuite", {"name": _legal(name), **_counts(found)})
        suite.extend(found)
    for name, number in _counts(root.iter("testcase")).items():
        root.set(name, number)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _tests(columns: Columns, *, decide: bool) -> list[ET.Element]:
    some = (
        ("attack succeeded", columns.where(attacks(columns))),
        ("control spoilt", columns.where(controls(columns))),
    )
    tests = [
        _cell(row, what=what, decide=decide)
        for what, answered in some
        for row in rate_rows(answered, by=("plugin", "strategy"))
    ]
    tests += [
        _with(_test(target, f"{plugin} / {strategy}"), "error", "no attempt was answered")
        for target, plugin, strategy in _silent(columns)
    ]
    return sorted(tests, key=lambda test: test.get("name", ""))


def _silent(columns: Columns) -> Iterable[tuple[str, str, str]]:
    """Give the target, plugin and strategy of each cell of which no attempt was answered."""
    names = ("target", "plugin", "strategy")
    codes = columns.combined(names)
    for code in np.setdiff1d(codes, codes[columns.answered()]).tolist():
        at = int(np.flatnonzero(codes == code)[0])
        target, plugin, strategy = (
            columns.distinct[name][int(columns[name][at])].as_py() for name in names
        )
        yield target, plugin, strategy


def _cell(row: RateRow, *, what: str, decide: bool) -> ET.Element:
    rate = row["rate"]
    told = (
        f"{what} {row['successes']} of {row['attempts']} times:"
        f" {rate['value']:.1%} ({rate['low']:.1%} to {rate['high']:.1%})"
    )
    test = _test(row["target"], row["group"])
    if decide and row["successes"]:
        return _with(test, "failure", told)
    ET.SubElement(test, "system-out").text = _legal(told)
    return test


def _gate_test(check: GateCheck) -> ET.Element:
    test = _test("gate", check.expression)
    if not check.passed:
        return _with(test, "failure", str(check))
    ET.SubElement(test, "system-out").text = _legal(str(check))
    return test


def _test(suite: str, name: str) -> ET.Element:
    return ET.Element("testcase", classname=_legal(suite), name=_legal(name))


def _with(test: ET.Element, kind: str, message: str) -> ET.Element:
    ET.SubElement(test, kind, message=_legal(message), type=kind).text = _legal(message)
    return test


def _counts(tests: Iterable[ET.Element]) -> dict[str, str]:
    found = list(tests)
    kinds = {"failures": "failure", "errors": "error"}
    counts = {
        name: sum(test.find(kind) is not None for test in found) for name, kind in kinds.items()
    }
    return {name: str(count) for name, count in {"tests": len(found), **counts}.items()}


def _legal(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
