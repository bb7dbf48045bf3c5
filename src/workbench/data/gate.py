"""What of a model's texts may become data: each check has a name, under which failures count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from workbench.data.clean import clean_pair, language_of, repair
from workbench.data.dedupe import near_links, normalize
from workbench.store.records import Pair

if TYPE_CHECKING:
    from workbench.embedding.encoder import Encoder
    from workbench.judge.probe import Judge

__all__ = ["ON_TOPIC", "REFUSED", "Candidate", "Gate"]

REFUSED: Final = "refused"
ON_TOPIC: Final = {"paraphrase": 0.4, "domain": 0.25, "rewrite": 0.25, "hard_negative": 0.2}
"""Task → cosine of MiniLM to the source from which a text is on its subject; not whether it asks
for the same. Of the 4,232 shipped safe requests 92 % have 0.25 with their request and 12 % with
another of its category; 96 % and 26 % have 0.2 (``benchmarks/bench_gate.py``)."""

_LENGTHS = (0.25, 3.0)
"""Characters of a translation per character of English; Japanese takes .4, Indonesian 1.7."""
_REFUSAL = re.compile(
    r"(?i)^\W*(?:(?:i['\u2019]?m |i am |we['\u2019]re )?sorry\b|i apologi[sz]e"
    r"|(?:unfortunately, )?i (?:can(?:no|['\u2019])t|won['\u2019]t|am unable|['\u2019]?m not able)"
    r"\b.{0,30}\b(?:help|assist|provide|comply|fulfil|create|write|rewrite|rephrase|translate)"
    r"|as an ai\b)"
)


@dataclass(kw_only=True)
class Candidate:
    """One text that a model wrote."""

    text: str
    source: str
    """What it was written from."""
    is_harmful: bool
    """Whether it has to ask for harm as the source does, or has to be benign."""
    language: str = "en"
    topic: float = 0.0
    """Smallest cosine to the source."""
    bucket: str = ""
    """Near-duplicates are looked for among texts of the same one."""
    reason: str = ""
    """Why it may not pass; empty where it may."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The graders of a gate. Both know English, so translations are held to other checks.

    English texts: no refusal, clean, benign where they have to be, still harmful where the source
    was judged so, on the source's subject, no near-duplicate. Translations: no refusal that reads
    like an English one, clean, in the language, of a plausible length, no near-duplicate; whether
    they say the same is **not** checked.
    """

    judge: Judge
    encoder: Encoder

    def facts(self) -> dict[str, Any]:
        """Return who judged, and from which figures on."""
        return {
            "judge": {"id": self.judge.id, "threshold": float(self.judge.threshold)},
            "encoder": {"id": self.encoder.id, "on_topic": ON_TOPIC},
        }

    def check(self, candidates: Sequence[Candidate], *, known: Iterable[tuple[str, str]]) -> None:
        """Set the reasons; what passes is repaired.

        Args:
            candidates: In an order that is always the same: of near-duplicates the first passes.
            known: Bucket and text of what there is already.
        """
        for one in candidates:
            one.text = repair(one.text)
            one.reason = _refused(one) or _unclean(one) or _untranslated(one)
        english = [one for one in candidates if not one.reason and one.language == "en"]
        if english:
            self._judge(english)
        self._compare([one for one in english if not one.reason])
        passed = [one for one in candidates if not one.reason]
        there = list(known)
        keys = [normalize(text) for _, text in there] + [normalize(one.text) for one in passed]
        buckets = [bucket for bucket, _ in there] + [one.bucket for one in passed]
        for earlier, later in sorted(near_links(keys, within=buckets), key=itemgetter(1)):
            first = earlier - len(there)
            if later >= len(there) and (first < 0 or not passed[first].reason):
                passed[later - len(there)].reason = "near-duplicate"

    def _judge(self, candidates: Sequence[Candidate]) -> None:
        texts = _texts_of(candidates)
        unsafe = dict(zip(texts, self.judge.score(texts) >= self.judge.threshold, strict=True))
        for one in candidates:
            if unsafe[one.text] and not one.is_harmful:
                one.reason = "judged unsafe"
            elif one.is_harmful and unsafe[one.source] and not unsafe[one.text]:
                one.reason = "no longer judged harmful"

    def _compare(self, candidates: Sequence[Candidate]) -> None:
        texts = _texts_of(candidates)
        vectors = dict(zip(texts, self.encoder.encode(texts), strict=True)) if texts else {}
        for one in candidates:
            if vectors[one.text] @ vectors[one.source] < one.topic:
                one.reason = "off topic"


def _texts_of(candidates: Sequence[Candidate]) -> list[str]:
    return list(dict.fromkeys(text for one in candidates for text in (one.text, one.source)))


def _refused(one: Candidate) -> str:
    is_refusal = _REFUSAL.search(one.text) and not _REFUSAL.search(one.source)
    return REFUSED if is_refusal else ""


def _unclean(one: Candidate) -> str:
    text = Pair(
        adversarial=one.text, clean=one.text, relation="identity", source="", license="",
        category="", language=one.language,
    )  # fmt: skip
    return clean_pair(text)[1]


def _untranslated(one: Candidate) -> str:
    if one.language == "en":
        return ""
    if language_of(one.text)[0] != one.language:
        return "in another language"
    least, most = _LENGTHS
    ratio = len(one.text) / max(len(one.source), 1)
    return "" if least <= ratio <= most else "of another length"
