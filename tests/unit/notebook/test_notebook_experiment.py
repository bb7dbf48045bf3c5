from __future__ import annotations

from decimal import Decimal

import pytest

from notebook_projects import make_project, write_experiment, write_notebook
from workbench.core.errors import ConfigError, DataError, InputError
from workbench.llm.config import GatewayConfig
from workbench.notebook.experiment import load_experiment, resolve
from workbench.notebook.parameters import read_notebook
from workbench.notebook.plan import prepare


@pytest.fixture
def root(tmp_path):
    write_notebook(
        tmp_path,
        "grow",
        parameters=(
            "size: int = 3  # how many\nrate: float = 0.5\nname: str = ''\n"
            "rows: list = []\nfile: Path = ''\non: bool = False"
        ),
    )
    write_notebook(tmp_path, "train", parameters="pairs: str = ''  # version\nseed: int = 0")
    return tmp_path


def load(root, steps, **fields):
    return load_experiment(write_experiment(root, steps, **fields))


GROW = {"notebook": "grow"}

BAD = {
    "misspelt parameter": (
        {"a": {**GROW, "parameters": {"sise": 1}}},
        r"steps\.a\.parameters\.sise.*did you mean 'size'",
    ),
    "string for int": (
        {"a": {**GROW, "parameters": {"size": "7"}}},
        r"parameters\.size: '7' is a str; write a int such as 3",
    ),
    "bool for int": ({"a": {**GROW, "parameters": {"size": True}}}, r"size: True is a bool"),
    "float for int": ({"a": {**GROW, "parameters": {"size": 1.5}}}, r"size: 1.5 is a float"),
    "scalar for list": (
        {"a": {**GROW, "parameters": {"rows": "x"}}},
        r"rows: 'x' is a str; write a list",
    ),
    "unknown notebook": (
        {"a": {"notebook": "gorw"}},
        r"gorw\.ipynb: no such notebook; there are: grow, train",
    ),
    "no notebook": ({"a": {}}, r"steps\.a: needs `notebook"),
    "unknown field": (
        {"a": {**GROW, "matrx": {}}},
        r"steps\.a: unknown field 'matrx'; did you mean 'matrix'",
    ),
    "unknown need": ({"a": {**GROW, "needs": ["b"]}}, r"steps\.a\.needs: unknown step 'b'"),
    "needs as text": ({"a": {**GROW, "needs": "b"}}, r"needs: 'b'; write a list"),
    "circle": (
        {
            "a": {**GROW, "needs": ["b"]},
            "b": {**GROW, "needs": ["c"]},
            "c": {**GROW, "needs": ["a"]},
        },
        r"needs go in a circle: .*→.*→.*→",
    ),
    "matrix scalar": ({"a": {**GROW, "matrix": {"size": 3}}}, r"matrix\.size: 3; write a list"),
    "matrix misspelt": (
        {"a": {**GROW, "matrix": {"siez": [3]}}},
        r"matrix\.siez.*did you mean 'size'",
    ),
    "matrix type": ({"a": {**GROW, "matrix": {"size": [1, "2"]}}}, r"matrix\.size: '2' is a str"),
    "matrix twice": (
        {"a": {**GROW, "matrix": {"size": [1, 1]}}},
        r"matrix\.size: a value is written twice",
    ),
    "both": (
        {"a": {**GROW, "matrix": {"size": [1]}, "parameters": {"size": 2}}},
        r"'size' stands in matrix and in parameters",
    ),
    "reference to nobody": (
        {"a": {**GROW, "parameters": {"name": "${steps.b.version}"}}},
        r"unknown step 'b'",
    ),
    "reference without need": (
        {"a": GROW, "b": {**GROW, "parameters": {"name": "${steps.a.version}"}}},
        r"uses step 'a'; add it to needs of 'b'",
    ),
    "broken reference": (
        {"a": {**GROW, "parameters": {"name": "${stps.a.version}"}}},
        r"write a reference as",
    ),
    "timeout": ({"a": {**GROW, "timeout_s": 0}}, r"timeout_s: 0; write seconds > 0"),
    "reference in a matrix": (
        {"a": {**GROW, "matrix": {"name": ["${steps.b.version}"]}}},
        r"matrix\.name: unknown step 'b'",
    ),
    "needs of lists": ({"a": {**GROW, "needs": [["b"]]}}, r"needs: .*write a list of step names"),
    "timeout as bool": ({"a": {**GROW, "timeout_s": True}}, r"timeout_s: True; write seconds"),
    "no steps": ({}, r"steps: missing"),
    "bad step name": ({"a b": GROW}, r"a step's name is letters"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_experiments_are_refused_in_one_line_that_names_the_place(root, case):
    steps, message = BAD[case]
    with pytest.raises(ConfigError, match=message) as caught:
        load(root, steps)
    assert "\n" not in str(caught.value)
    assert "trial.yaml" in str(caught.value) or ".ipynb" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "empty or not a mapping"),
        (b"- a\n", "empty or not a mapping"),
        (b"name: x\nsteps: {a: {notebook: grow}}\nname: y\n", "'name' is written twice"),
        (b"steps: [\n", "not YAML"),
        (b"steps: {{a}: 1}\n", "not YAML: .*a key must be a plain word"),
        (b"name: \xff\xfe", "not UTF-8 at byte 6"),
        (b"name: a/b\nsteps: {a: {notebook: grow}}", "name: 'a/b'; use letters"),
        (b"budget_usd: lots\nsteps: {a: {notebook: grow}}", "not an amount of dollars"),
    ],
)
def test_bad_files_are_refused(root, text, message):
    file = root / "experiments" / "trial.yaml"
    file.parent.mkdir()
    file.write_bytes(text)
    with pytest.raises(InputError, match=message):
        load_experiment(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: no such experiment file"):
        load_experiment(tmp_path / "none.yaml")


def test_matrix_is_a_grid_in_file_order(root):
    step = load(
        root,
        {
            "a": {
                **GROW,
                "matrix": {"size": [1, 2], "rate": [0.1, 0.2]},
                "parameters": {"name": "n"},
            }
        },
    ).steps["a"]
    assert [m.label for m in step.members()] == [
        "size=1,rate=0.1",
        "size=1,rate=0.2",
        "size=2,rate=0.1",
        "size=2,rate=0.2",
    ]
    assert step.members()[3].parameters == {"name": "n", "size": 2, "rate": 0.2}


def test_overrides_replace_parameters_and_axes(tmp_path):
    file = make_project(tmp_path)
    experiment = load_experiment(file, overrides=("make.size=9", "square.factor=[7, 8]"))
    assert experiment.steps["make"].parameters == {"size": 9}
    assert [m.label for m in experiment.steps["square"].members()] == ["factor=7", "factor=8"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("make.size=x", "'x' is a str"),
        ("make.siez=1", "did you mean 'size'"),
        ("mak.size=1", "unknown step 'mak'"),
        ("size=1", "write step.parameter=value"),
        ("make.size", "write step.parameter=value"),
    ],
)
def test_bad_overrides_are_refused(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        load_experiment(make_project(tmp_path), overrides=(override,))


def test_references_keep_types_and_fan_in(root):
    results = {"a": {"n": 3}, "b": [{"n": 1}, {"n": 2}], "c": [{"n": 4}]}
    assert resolve("${steps.a.n}", results, where="w") == 3
    assert resolve({"x": ["${steps.b.n}"]}, results, where="w") == {"x": [[1, 2]]}
    assert resolve("${steps.c.n}", results, where="w") == [4]  # a matrix of one is still a list
    assert resolve("v${steps.a.n}!", results, where="w") == "v3!"
    with pytest.raises(ConfigError, match=r"w: .*step 'a' gave no 'm'; it gave: n"):
        resolve("${steps.a.m}", results, where="w")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("size = 3", "write `name: type = default"),
        ("size: complex = 3", "type 'complex'; use one of int"),
        ("size: int = f()", "the default must be a plain value"),
        ("size: int = (", "is not Python, line 1"),
    ],
)
def test_bad_parameter_cells_are_refused(tmp_path, source, message):
    path = write_notebook(tmp_path, "bad", parameters=source)
    with pytest.raises(ConfigError, match=message):
        read_notebook(path)


def test_a_file_that_is_no_notebook_is_refused(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text("{}")
    with pytest.raises(DataError, match="not a notebook"):
        read_notebook(path)


def test_parameters_carry_type_default_and_help(root):
    parameters = read_notebook(root / "notebooks" / "grow.ipynb").parameters
    assert parameters["size"].help == "how many"
    assert (parameters["size"].type, parameters["size"].default) == ("int", 3)
    assert parameters["file"].type == "Path"


def test_a_cell_that_is_not_python_is_named(tmp_path):
    path = write_notebook(tmp_path, "broken", body="def f(:")
    with pytest.raises(ConfigError, match=r"code cell 3 is not Python, line 1"):
        read_notebook(path)


def test_a_cell_of_another_language_is_left_alone(tmp_path):
    assert "echo" not in read_notebook(write_notebook(tmp_path, "sh", body="%%bash\necho {")).code


def test_without_an_llm_section_the_defaults_count(root):
    experiment = load(root, {"a": GROW})
    assert experiment.llm == GatewayConfig()
    assert experiment.llm.budgets.experiment is None
    assert load(root, {"a": GROW}, llm=None).llm == GatewayConfig()


@pytest.mark.parametrize(
    ("outer", "inner", "smaller"), [(5, None, 5), (None, 7, 7), (5, 7, 5), (7, 5, 5), (0, 5, 0)]
)
def test_the_smaller_of_both_limits_on_the_experiment_counts(root, outer, inner, smaller):
    given = {"budget_usd": outer, "llm": {"budgets": {"experiment": inner, "day": 9}}}
    experiment = load(root, {"a": GROW}, **given)
    assert experiment.llm.budgets.experiment == Decimal(smaller)
    assert experiment.llm.budgets.day == Decimal(9)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"modles": {}}, r"trial\.yaml: llm: unknown field 'modles'; did you mean 'models'"),
        ([], r"trial\.yaml: llm: \[\]; write a mapping"),
        ("", r"trial\.yaml: llm: ''; write a mapping"),
        ({"savings": {"parallel": 0}}, r"trial\.yaml: llm\.savings\.parallel: 0; write a number"),
        ({"off_peak": "at night"}, r"trial\.yaml: llm: off_peak is 'at night'; write two"),
        ({"price_file": "own.json"}, r"llm: price file .*own\.json: FileNotFound"),
    ],
)
def test_a_bad_llm_section_is_refused_when_the_file_is_read(root, section, message):
    with pytest.raises(ConfigError, match=message):
        load(root, {"a": GROW}, llm=section)


def test_a_price_file_is_looked_for_where_the_kernels_will_look(root, tmp_path, monkeypatch):
    (root / "own.json").write_text('{"version": "1", "models": {"m": {"input": 1}}}')
    monkeypatch.chdir("/")
    with pytest.raises(ConfigError, match=r"own\.json, model 'm': output, source, checked missing"):
        load(root, {"a": GROW}, llm={"price_file": "own.json"})
    (root / "own.json").write_text('{"version": "1", "models": {}}')
    assert load(root, {"a": GROW}, llm={"price_file": "own.json"}).llm.price_file == "own.json"


def fingerprint(root, notebook, llm):
    experiment = load(root, {"a": {"notebook": notebook}}, llm=llm)
    return prepare(experiment, experiment.steps["a"].members()[0], {}).fingerprint


@pytest.mark.parametrize(
    "llm",
    [
        {"models": {"cheap": "x"}}, {"tasks": {"summary": "none"}}, {"provider": "openai"},
        {"base_url": "http://127.0.0.1:1"}, {"savings": {"routing": False}},
        {"savings": {"items_per_call": 2}}, {"savings": {"context_tokens": 9}},
        {"savings": {"concise": False}},
    ],
)  # fmt: skip
def test_what_decides_answers_runs_again_the_steps_that_reach_a_model_and_no_others(root, llm):
    ask = "def later():\n    from workbench.llm.gateway import open_gateway"
    write_notebook(root, "ask", body=ask)
    assert fingerprint(root, "ask", llm) != fingerprint(root, "ask", {})
    assert fingerprint(root, "grow", llm) == fingerprint(root, "grow", {})


@pytest.mark.parametrize(
    "llm",
    [
        {"budgets": {"day": 1}}, {"rates": {"timeout_s": 3}}, {"savings": {"parallel": 2}},
        {"off_peak": "22:00-06:00"}, {"ttl_s": {"summary": 1}}, {"provider": "anthropic"},
        {"savings": {"prompt_cache": "1h", "response_cache": False, "batches": True}},
    ],
)  # fmt: skip
def test_how_calls_are_paid_for_runs_nothing_again(root, llm):
    write_notebook(root, "ask", body="from workbench.llm.gateway import open_gateway")
    assert fingerprint(root, "ask", llm) == fingerprint(root, "ask", {})
