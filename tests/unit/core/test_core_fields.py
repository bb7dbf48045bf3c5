"""A misspelt field is refused with the name that was meant."""

from __future__ import annotations

import pytest

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown, suggest

KNOWN = ("notebook", "needs", "matrix")


def test_known_names_pass():
    refuse_unknown([], known=KNOWN, where="w")
    refuse_unknown(KNOWN, known=KNOWN, where="w")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("matrx", "did you mean 'matrix'?"),
        ("zzz", "known: notebook, needs, matrix"),
        (True, "known: notebook, needs, matrix"),
        (None, "known: notebook, needs, matrix"),
    ],
)
def test_unknown_names_are_refused_with_the_place_and_a_hint(name, hint):
    with pytest.raises(ConfigError, match=r"f\.yaml: a: unknown field") as caught:
        refuse_unknown(["needs", name], known=KNOWN, where="f.yaml: a")
    assert str(caught.value).endswith(hint)
    assert suggest(name, KNOWN) == hint
