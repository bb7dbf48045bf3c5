"""The commands of docs/serving.md and docs/guard.md, as they are written, and its two clients."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest

from doc_scripts import execute, script_of
from machine import ROOT, require
from served_models import add_model
from workbench.core.settings import read_settings
from workbench.store.database import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CALLS = """
said = [{"role": "user", "content": "What is phishing?"}]
print(claude.messages.create(model="claude-haiku-5-5", max_tokens=40, messages=said).content)
made = gpt.chat.completions.create(model="gpt-5.4-mini", max_completion_tokens=40, messages=said)
print(made.choices[0].message)
"""


def here(script: str, folder: Path) -> str:
    """The script on free ports, in a store of its own that has a sanitizer."""
    require("curl")
    home = folder / "home"
    store = open_store(read_settings({"WORKBENCH_HOME": str(home)}))
    add_model(store)
    store.engine.dispose()
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        port, other = (str(free.getsockname()[1]) for free in (one, two))
    script = re.sub(r"(workbench serve )(?=&|--anthropic)", rf"\1--port {port} ", script)
    script = script.replace("8400", port).replace("8099", other)
    # the last line ends what was started, and says so in its status
    script = f"{script}\nwait\n"
    return f"export WORKBENCH_HOME={home} PATH={sys.prefix}/bin:$PATH\n{script}"


def test_the_page_on_the_service(tmp_path: Path) -> None:
    script = script_of("docs/serving.md", "# The service", tmp_path)
    output = execute(here(script, tmp_path), tmp_path)
    assert '"decision":' in output
    assert re.search(
        r'^workbench_serving_decisions_total\{decision="\w+"\} 1\.0$', output, re.MULTILINE
    )


def test_the_page_on_the_guard(tmp_path: Path) -> None:
    script = script_of("docs/guard.md", "[the service](serving.md)):", tmp_path)
    text = (ROOT / "docs/guard.md").read_text(encoding="utf-8")
    clients = text.partition("```python\n")[2].partition("```")[0]
    clients = clients.replace('"wbk_…"', 'os.environ["KEY"]')
    called = "KEY=$KEY ANTHROPIC_API_KEY=theirs OPENAI_API_KEY=theirs python - <<'END'\n"
    called += f"import os, anthropic, openai\n{clients}{CALLS}END\nsleep 2\nworkbench cost show"
    script = script.replace("workbench cost show", called)
    output = execute(here(script, tmp_path), tmp_path)
    assert "x-workbench-decision: pass" in output
    assert "TextBlock(" in output
    assert "ChatCompletionMessage(" in output
    assert re.search(r"^serving\s+\$0\.00\s+3 ", output, re.MULTILINE)
