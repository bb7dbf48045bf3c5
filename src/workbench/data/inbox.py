"""What comes back from use: findings and feedback, held until a person has looked at them.

The inbox is a folder of JSON Lines to which lines are added and never changed: entries, scrubbed on
the way in, and decisions about them. An accepted entry joins the training split of the next version
that names it, and no other split::

    adapter: inbox
    upto: 42-9c1185a5c5e9fc54   # ``Inbox.pin``: so many lines, and their hash
    expansion: 3f9a0c2b         # of safe requests that ``data.synthesize`` wrote for findings
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from filelock import FileLock

from workbench.core.errors import ConfigError, DataError
from workbench.core.fields import refuse_unknown
from workbench.core.files import read_table
from workbench.core.identity import canonical_json, content_id, text_id
from workbench.core.redact import redact
from workbench.core.settings import read_settings
from workbench.data.clean import MAX_CHARS, MIN_CHARS, language_of, repair
from workbench.data.expansions import FEEDBACK, read_expansion_here
from workbench.data.pairs import Source, Stem
from workbench.data.requests import HARM_CATEGORIES, Request
from workbench.data.transforms import TRANSFORMS
from workbench.data.wrappers import family_split
from workbench.store.artifacts import clear_disk_errors, write_atomic
from workbench.store.records import Finding, Pair, TestCase, now

__all__ = ["CONFIRMED", "Entry", "Inbox", "Status", "read_inbox"]

CONFIRMED: Final = "confirmed"
"""Status of the findings that may come in."""

Status = Literal["quarantined", "accepted", "rejected"]

_LICENSE = "own findings and opted-in feedback"
_DECISIONS: Mapping[str, Status] = {"accept": "accepted", "reject": "rejected"}
_SEGMENT_BYTES = 8 << 20
_LANGUAGE = re.compile("[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_SHORTEST_ID = 8

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One attack that got through, or one prompt that somebody gave."""

    origin: Literal["finding", "feedback"]
    prompt: str
    core: str
    """The request inside; the prompt itself where nobody knows better."""
    better: str = ""
    """What it should have become; empty where nobody said."""
    category: str
    language: str
    families: tuple[str, ...] = ()
    """Of the disguises that the prompt is known to wear."""
    user: str = ""
    """Salted hash of whoever gave it."""
    reference: str = ""
    """Id of the finding."""
    status: Status = "quarantined"

    @property
    def id(self) -> str:
        """Hash of what it says; the same thing said twice is one entry."""
        return text_id(self.origin, self.prompt, self.core, self.better, self.category)


class Inbox:
    """An inbox; any number of processes may write to it.

    Args:
        folder: Where it is: ``inbox`` in the home folder of the store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add_findings(
        self, findings: Iterable[Finding], *, cases: Mapping[str, TestCase]
    ) -> Counter[str]:
        """Take in the confirmed findings; return what became of all, ``added`` or the reason.

        Args:
            findings: Of executions.
            cases: Their test cases by id: what a disguised prompt asks for is known from nowhere
                else, and without it nobody can tell whether that is tested on.

        Raises:
            StoreError: If the disk is full or read-only.
        """
        return self._take_in(_of_finding(one, cases.get(one.case_id)) for one in findings)

    def add_feedback(self, path: Path) -> Counter[str]:
        """Take in a file of feedback; return what became of its rows, ``added`` or the reason.

        Args:
            path: Rows with ``prompt``, ``category`` and ``consent``, maybe ``better``, ``user``
                and ``language``; every other column stays in the file.

        Raises:
            DataError: If the file cannot be read.
            StoreError: If the disk is full or read-only.
        """
        rows, salt = read_table(path).rows, self._salt()
        return self._take_in(_of_feedback(row, salt=salt) for row in rows)

    def accept(self, ids: Iterable[str], *, by: str) -> int:
        """Say that entries may be trained on; return how many. Ids may be cut short.

        Raises:
            DataError: If no entry, or several, begin so; nothing was decided then.
            StoreError: If the disk is full or read-only.
        """
        return self._decide("accept", ids, by=by)

    def reject(self, ids: Iterable[str], *, by: str) -> int:
        """Say that entries may not be trained on, accepted ones too; as :meth:`accept`."""
        return self._decide("reject", ids, by=by)

    def entries(self, *, upto: str = "") -> list[Entry]:
        """Return the entries with their status, oldest first.

        Args:
            upto: A pin: as they were then.

        Raises:
            DataError: If the pin is none of this inbox.
        """
        lines, _ = self._read()
        return list(_fold(lines[: _lines_of(upto, lines)] if upto else lines).values())

    @property
    def pin(self) -> str:
        """Name of what the inbox holds now."""
        return _pin_of(self._read()[0])

    @property
    def torn(self) -> int:
        """Lines that a kill or a full disk left unfinished; they are skipped."""
        return self._read()[1]

    def to_rewrite(self) -> list[Request]:
        """Return the accepted requests that need a safe one, for ``data.synthesize``."""
        return [
            Request(
                id=_parent_of(one), category=one.category, request=one.core, redirects=(),
                domain="general", context="general", lookalike=False, language=one.language,
            )
            for one in self.entries()
            if one.status == "accepted" and one.category != "benign" and not one.better
        ]  # fmt: skip

    def _take_in(self, found: Iterable[Entry | str]) -> Counter[str]:
        told: Counter[str] = Counter()
        new: dict[str, Entry] = {}
        with self._alone():
            known = set(_fold(self._read()[0]))
            for one in found:
                reason = one if isinstance(one, str) else _wrong(one)
                if isinstance(one, Entry) and not reason:
                    reason = "there already" if one.id in known | new.keys() else "added"
                    new.setdefault(one.id, one)
                told[reason] += 1
            added = [entry for name, entry in new.items() if name not in known]
            self._append(
                {"event": "entry", "id": one.id, "at": now(), **asdict(one)} for one in added
            )
        return told

    def _decide(self, event: str, ids: Iterable[str], *, by: str) -> int:
        with self._alone():
            known = _fold(self._read()[0])
            chosen = sorted({_whole(beginning, known) for beginning in ids})
            if chosen:
                self._append([{"event": event, "ids": chosen, "by": by, "at": now()}])
        return len(chosen)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with clear_disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / "inbox.lock"):
                yield

    def _salt(self) -> str:
        path = self._folder / "salt"
        with self._alone():
            if not path.exists():
                write_atomic(path, os.urandom(16).hex().encode())
                path.chmod(0o600)
            return path.read_text()

    def _append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add lines; they are on the disk when this returns. Called alone."""
        data = "".join(canonical_json(record) + "\n" for record in records).encode()
        if not data:
            return
        segments = sorted(self._folder.glob("*.jsonl"))
        last = segments[-1] if segments else self._folder / "00001.jsonl"
        if segments and last.stat().st_size >= _SEGMENT_BYTES:
            last = last.with_stem(f"{int(last.stem) + 1:05d}")
        with last.open("a+b") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) and file.read(1) != b"\n":
                _logger.warning("%s: its last line is torn and will be skipped", last)
                data = b"\n" + data
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> tuple[list[bytes], int]:
        """Return the whole lines, and how many are torn."""
        segments = sorted(self._folder.glob("*.jsonl"))
        lines = [line for one in segments for line in one.read_bytes().split(b"\n") if line]
        whole = [line for line in lines if _is_whole(line)]
        return whole, len(lines) - len(whole)


def read_inbox(options: Mapping[str, Any], *, folder: Path) -> Source:  # noqa: ARG001
    """Return the source of what was accepted, up to a pin.

    Raises:
        ConfigError: If there is no pin, or an unknown option.
        DataError: If the pin is none of this inbox, or there is no such expansion.
    """
    refuse_unknown(options, known=("upto", "expansion"), where="source inbox")
    inbox = Inbox(read_settings().home / "inbox")
    upto = options.get("upto")
    if not isinstance(upto, str) or not upto:
        raise ConfigError(f"source inbox: upto is {upto!r}; write what it holds: {inbox.pin}")
    written: defaultdict[str, list[str]] = defaultdict(list)
    expansion = ""
    if "expansion" in options:
        found = read_expansion_here(options["expansion"], where="source inbox: expansion")
        expansion = found.id
        for row in found.rows:
            written[row.parent_id] += row.redirects
    prototype = Pair(
        adversarial="", clean="", relation="safe_rewrite", source="inbox", source_rev=upto,
        license=_LICENSE, category="benign", generator="inbox/1",
    )  # fmt: skip
    left_out: Counter[str] = Counter()
    stems = []
    for entry in inbox.entries(upto=upto):
        better = (entry.better,) if entry.better else tuple(written[_parent_of(entry)])
        if reason := _reason_to_leave_out(entry, better):
            left_out[reason] += 1
        else:
            stems.append(_stem(prototype, entry, better))
    return Source(
        name="inbox", revision=upto, content=content_id([upto, expansion]), license=_LICENSE,
        stems=stems, is_trained_only=True, left_out=left_out,
    )  # fmt: skip


def _of_finding(finding: Finding, case: TestCase | None) -> Entry | str:
    if finding.status != CONFIRMED:
        return "not confirmed"
    if case is None:
        return "without its test case"
    return Entry(
        origin="finding", prompt=_scrub(finding.sent), core=_scrub(case.goal),
        category=finding.category, language=language_of(case.goal)[0], reference=finding.id,
        families=tuple(map(_family_of, case.strategies)),
    )  # fmt: skip


def _of_feedback(row: Mapping[str, Any], *, salt: str) -> Entry | str:
    if row.get("consent") is not True:
        return "without consent"
    texts = {name: row.get(name) or "" for name in ("prompt", "better", "category", "language")}
    if not all(isinstance(text, str) for text in texts.values()):
        return "not text"
    prompt, user, language = _scrub(texts["prompt"]), row.get("user"), texts["language"]
    if not _LANGUAGE.fullmatch(language):
        language = language_of(prompt)[0]
    return Entry(
        origin="feedback", prompt=prompt, core=prompt, better=_scrub(texts["better"]),
        category=texts["category"], language=language,
        user=text_id(salt, str(user))[:16] if user else "",
    )  # fmt: skip


def _scrub(text: str) -> str:
    return redact(repair(text))


def _family_of(strategy: str) -> str:
    """Return the wrapper family of a strategy of campaigns, as the data calls it."""
    if strategy in TRANSFORMS.names():
        return f"encoding-{strategy}"
    return strategy.removeprefix("wrap-")


def _wrong(entry: Entry) -> str:
    """Return why an entry may not come in."""
    if entry.category not in (*HARM_CATEGORIES, "benign"):
        return "unknown category"
    sides = [entry.prompt, entry.core, *filter(None, [entry.better])]
    if not all(MIN_CHARS <= len(side) <= MAX_CHARS for side in sides):
        return "too short or too long"
    return "better text equal to the prompt" if entry.better == entry.prompt else ""


def _reason_to_leave_out(entry: Entry, better: Sequence[str]) -> str:
    if entry.status != "accepted":
        return "waits for a person" if entry.status == "quarantined" else "rejected by a person"
    if any(family_split(family) == "test" for family in entry.families):
        return "in a wrapper that is tested on"
    return "needs a rewrite first" if entry.category != "benign" and not better else ""


def _stem(prototype: Pair, entry: Entry, better: tuple[str, ...]) -> Stem:
    pair = replace(
        prototype, adversarial=entry.prompt, core=entry.core, category=entry.category,
        language=entry.language,
        wrapper_family=entry.families[0] if len(entry.families) == 1 else "",
    )  # fmt: skip
    pairs = [replace(pair, clean=text) for text in better]
    if entry.category == "benign":
        pairs = [replace(pair, clean=entry.prompt, relation="identity")]
    return Stem(
        core=entry.core, category=entry.category, language=entry.language, size=len(pairs),
        texts=tuple(dict.fromkeys((entry.core, entry.prompt, *(one.clean for one in pairs)))),
        grow=partial(_each, tuple(pairs)),
    )  # fmt: skip


def _each(pairs: tuple[Pair, ...], *, seed: int) -> Iterator[Pair]:  # noqa: ARG001
    yield from pairs


def _parent_of(entry: Entry) -> str:
    return f"{FEEDBACK}{entry.id[:24]}"


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _fold(lines: Iterable[bytes]) -> dict[str, Entry]:
    """Return the entries by id, each as the last decision left it."""
    entries: dict[str, Entry] = {}
    for record in map(json.loads, lines):
        if record["event"] == "entry":
            told = {name: value for name, value in record.items() if name not in _ENVELOPE}
            entries[record["id"]] = Entry(**{**told, "families": tuple(told["families"])})
        for name in set(record.get("ids", ())) & entries.keys():  # a damaged line decides nothing
            entries[name] = replace(entries[name], status=_DECISIONS[record["event"]])
    return entries


_ENVELOPE = ("event", "id", "at")


def _pin_of(lines: Sequence[bytes]) -> str:
    return f"{len(lines)}-{hashlib.sha256(b''.join(lines)).hexdigest()[:16]}"


def _lines_of(pin: str, lines: Sequence[bytes]) -> int:
    count = pin.partition("-")[0]
    number = int(count) if count.isdecimal() else -1
    if not 0 <= number <= len(lines) or _pin_of(lines[:number]) != pin:
        raise DataError(f"inbox: it never was {pin!r}; it is {_pin_of(lines)} now")
    return number


def _whole(beginning: str, known: Iterable[str]) -> str:
    found = [name for name in known if name.startswith(beginning)]
    if len(found) != 1 or len(beginning) < _SHORTEST_ID:
        raise DataError(
            f"inbox: {len(found)} entries begin with {beginning!r}; give one id, at least"
            f" {_SHORTEST_ID} characters of it"
        )
    return found[0]
