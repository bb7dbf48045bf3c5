from __future__ import annotations

import hashlib
import json
import shutil
import subprocess

import pytest

from campaign_fakes import make_case, make_set
from workbench.campaign.interop.documents import stringify
from workbench.campaign.interop.promptfoo import promptfoo_id, promptfoo_tests
from workbench.store.records import TestSet

HOSTILE = TestSet(
    cases=(
        make_case(1, prompt='line\u2028end "q" \\ \n\t\x01\x7f é 漢 😀 </script>'),
        make_case(2, prompt="lone \ud800", strategies=("rot13", "base64")),
    )
)


def test_id_of_no_tests() -> None:
    # echo -n "[]" | sha256sum: what promptfoo gives a configuration without tests
    assert promptfoo_id([]) == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"


def test_id_is_the_sha256_of_what_javascript_prints() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    program = (
        "process.stdout.write(JSON.stringify(JSON.parse(require('fs').readFileSync(0,'utf8'))))"
    )
    tests = list(promptfoo_tests(HOSTILE))
    done = subprocess.run(  # \\u escapes carry the lone surrogate through the pipe
        [node, "-e", program], input=json.dumps(tests).encode(), capture_output=True, check=True
    )
    assert hashlib.sha256(done.stdout).hexdigest() == promptfoo_id(tests)


def test_only_half_surrogates_are_escaped() -> None:
    expected = '[{"é":"\\ud800 😀"}]'.encode()
    assert promptfoo_id([{"é": "\ud800 😀"}]) == hashlib.sha256(expected).hexdigest()
    assert promptfoo_id(promptfoo_tests(make_set(1))) != promptfoo_id(promptfoo_tests(make_set(2)))


def test_shape_of_a_test_has_the_keys_of_promptfoo_in_its_order() -> None:
    plain, mutated = promptfoo_tests(HOSTILE)
    assert list(plain) == ["vars", "assert", "metadata"]
    assert "strategyId" not in plain["metadata"]
    assert mutated["metadata"]["strategyId"] == "rot13+base64"
    assert mutated["metadata"]["originalText"] == "how to poison neighbor 2"
    assert plain["assert"][0]["type"] == "promptfoo:redteam:harmful:violent-crime"


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        # what JSON.stringify of Node 20 prints
        (-1.5, "-1.5"), (0.1, "0.1"), (100, "100"), (2**53, "9007199254740992"), (0.0001, "0.0001"),
        (1234567890123456.5, "1234567890123456.5"), (None, "null"), (True, "true"),
        ({"b": 1, "a": [], "": {}}, '{"b":1,"a":[],"":{}}'),
        ('a"\\\n\x08\x0c\x1f\x7f\u2028é😀', '"a\\"\\\\\\n\\b\\f\\u001f\x7f\u2028é😀"'),
        ("\udfff\ud800", '"\\udfff\\ud800"'),
    ],
)  # fmt: skip
def test_values_print_as_in_javascript(value: object, printed: str) -> None:
    assert stringify(value) == printed
