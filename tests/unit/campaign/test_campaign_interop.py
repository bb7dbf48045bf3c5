from __future__ import annotations

import json
import shutil
import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from campaign_fakes import make_case, make_set
from workbench.campaign.interop import (
    javascript_json,
    promptfoo_id,
    promptfoo_tests,
    promptfoo_yaml,
)
from workbench.core.errors import DataError
from workbench.store.records import TestSet

# By the rules of ECMA-262, 6.1.6.1.20; checked against node below.
NUMBERS = {
    1.0: "1", -0.0: "0", 0.1: "0.1", 1e21: "1e+21", 1e20: "100000000000000000000", 1e-6: "0.000001",
    1e-7: "1e-7", 123456789.125: "123456789.125", 1.5e300: "1.5e+300", 5e-324: "5e-324",
    2**53: "9007199254740992", 2**64: "18446744073709552000", -2.5: "-2.5",
    1e16: "10000000000000000",
}  # fmt: skip
VALUES = [
    *NUMBERS, True, None, [], {}, "line\u2028end \"q\" \\ \n\t\x01\x7f é 漢 😀", "lone \ud800",
    {"b": 1, "10": 2, "9": 3, "01": 4, "4294967295": 5, "a": [1.5, {"x": "y"}]},
]  # fmt: skip


@pytest.mark.parametrize(("number", "text"), NUMBERS.items())
def test_numbers_print_as_in_javascript(number: float, text: str) -> None:
    assert javascript_json(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_printed_numbers_read_back(number: float) -> None:
    assert float(javascript_json(number)) == number


@given(st.recursive(st.text() | st.booleans() | st.integers(-9, 9), st.lists))
def test_values_read_back(value: object) -> None:
    assert json.loads(javascript_json(value)) == value


def test_node_prints_the_same() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    # \\u escapes carry lone surrogates through the pipe
    given_json = json.dumps(VALUES)
    program = (
        "process.stdout.write(JSON.stringify(JSON.parse(require('fs').readFileSync(0,'utf8'))))"
    )
    done = subprocess.run(
        [node, "-e", program], input=given_json.encode(), capture_output=True, check=True
    )
    assert done.stdout.decode() == javascript_json(VALUES)


def test_id_is_the_sha256_of_the_tests_of_promptfoo() -> None:
    # echo -n "[]" | sha256sum: what promptfoo gives a configuration without tests
    assert promptfoo_id([]) == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"


def test_shape_of_a_test_has_the_keys_of_promptfoo_in_its_order() -> None:
    plain, mutated = promptfoo_tests(
        TestSet(cases=(make_case(1), make_case(2, prompt="x", strategies=("rot13", "base64"))))
    )
    assert list(plain) == ["vars", "assert", "metadata"]
    assert "strategyId" not in plain["metadata"]
    assert mutated["metadata"]["strategyId"] == "rot13+base64"
    assert mutated["metadata"]["originalText"] == "how to poison neighbor 2"
    assert plain["assert"][0]["type"] == "promptfoo:redteam:harm-violence"


def test_yaml_holds_the_same_tests() -> None:
    tests = make_set(3)
    document = yaml.safe_load(promptfoo_yaml(tests, purpose="a: 'shop' assistant"))
    assert document["tests"] == promptfoo_tests(tests)
    assert document["defaultTest"]["metadata"]["purpose"] == "a: 'shop' assistant"


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(DataError, match="bytes"):
        javascript_json({"x": b"raw"})
