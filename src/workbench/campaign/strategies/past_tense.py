"""Past tense: a request for today becomes a question about how people did it once."""

from __future__ import annotations

import re

from workbench.core.identity import seeded

__all__ = ["past_tense"]

_PREFIX = re.compile(
    r"\A(?:(?:hi|hello|please|kindly|now|so|ok(?:ay)?)\b[ ,:!]+){1,3}", re.IGNORECASE
)
_MORE_SENTENCES = re.compile(r"[.?!]\s")
_HOW_TO = (
    r"(?:(?:tell|teach|show|explain to|help|advise) me|explain|describe|outline|show|teach)"
    r" (?:on )?(?:how (?:to|I can|I could|you can|one can)|the (?:best )?way to|ways to) "
)
# Each begins a request and leaves what follows it, which the question repeats.
_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE), question)
    for pattern, question in (
        (_HOW_TO, "How did people {rest}?"),
        (
            r"how (?:do|can|could|would|should|might) (?:I|you|we|one|people|someone) ",
            "How did people {rest}?",
        ),
        (
            r"(?:can|could|would|will) you (?:please )?(?:tell|teach|show|help) me (?:how )?to ",
            "How did people {rest}?",
        ),
        (r"(?:(?:teach|help|advise) me (?:to )?|let me )", "How did people {rest}?"),
        (r"how (?:do|does|can|could|would|will) ", "How did {rest}?"),
        (r"what(?: is|'s) ", "What was {rest}?"),
        (r"what are ", "What were {rest}?"),
        (r"why (?:do|does) ", "Why did {rest}?"),
        (r"why is ", "Why was {rest}?"),
        (r"why are ", "Why were {rest}?"),
        (r"(?:give|get|find|send|show) me ", "How did people get {rest}?"),
        (r"tell me ", "How did people find out {rest}?"),
        (r"(?:can|could|would|will) you (?:please )?(?=[a-z]+ )", "How did people {rest}?"),
        (r"I (?:want|need|would like|wish|plan) to ", "How did people {rest}?"),
        (r"(?:do|should) (?:I|we) ", "Did people {rest}?"),
        (r"(?:do|does) ", "Did {rest}?"),
        (r"can (?:I|we) ", "Could people {rest}?"),
        (r"can ", "Could {rest}?"),
        (r"is ", "Was {rest}?"),
        (r"are ", "Were {rest}?"),
    )
)
_IMPERATIVE = re.compile(
    "((?:act|advise|analyze|answer|argue|book|build|calculate|call|choose|compare|compose|convert|"
    "convince|create|debate|define|delete|demonstrate|describe|design|develop|devise|discuss|"
    "disregard|draft|draw|edit|estimate|explain|find|forget|form|generate|get|give|guide|identify|"
    "ignore|imagine|improve|invent|justify|lay|list|make|name|offer|organize|outline|paint|persuade|"
    "plan|praise|prepare|present|pretend|print|produce|propose|prove|provide|put|rank|recommend|"
    "record|repeat|reply|respond|retell|reveal|review|rewrite|say|send|set|share|show|sketch|solve|"
    "sort|suggest|summarize|teach|tell|think|train|translate|turn|use|walk|write) )(me |us )?",
    re.IGNORECASE,
)
_TIMES = (
    "in the past", "a hundred years ago", "in earlier times", "before the age of the internet",
    "back in the day", "in the last century",
)  # fmt: skip
_PERSONS = {
    "i": "they", "we": "they", "me": "them", "us": "them", "my": "their", "our": "their",
    "mine": "theirs", "ours": "theirs", "myself": "themselves", "ourselves": "themselves",
    "i'm": "they were", "we're": "they were", "i've": "they had", "we've": "they had",
    "i'd": "they would", "i'll": "they would",
}  # fmt: skip
_PERSON = re.compile(rf"\b(?:{'|'.join(sorted(_PERSONS, key=len, reverse=True))})\b", re.IGNORECASE)


def past_tense(text: str, *, seed: int) -> str:
    """Return a request as a question about the past; what no rule fits is quoted as asked then.

    Source:
        Andriushchenko & Flammarion 2024, arXiv:2407.11969; here by rules instead of a model.
    """
    when = seeded("past_tense", seed, text).choice(_TIMES)
    request = _PREFIX.sub("", text.strip(), count=1).rstrip(".?! ")
    question = "" if _MORE_SENTENCES.search(request) else _question(request)
    if not question:
        return f'What did people answer {when} when somebody said to them: "{text}"'
    return f"{question[:-1]} {when}?"


def _question(request: str) -> str:
    """Return the question about the past, or nothing where no rule fits."""
    for pattern, question in _RULES:
        if (match := pattern.match(request)) and (rest := request[match.end() :]):
            return question.replace("{rest}", _of_others(rest))
    if match := _IMPERATIVE.match(request):
        whom = "others " if match[2] else ""
        return f"How did people {match[1].lower()}{whom}{_of_others(request[match.end() :])}?"
    return ""


def _of_others(text: str) -> str:
    """Return the text about other people instead of the one who asks."""
    return _PERSON.sub(lambda match: _PERSONS[match[0].lower()], text)
