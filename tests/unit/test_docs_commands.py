"""Every `workbench` command of the documentation is one that there is, with options it takes."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from machine import ROOT
from workbench.cli import main

DOCUMENTS = ["README.md", *sorted(str(one.relative_to(ROOT)) for one in ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CALL = re.compile(r"(?:^|\$\(|^[A-Z_]+=\S+ |\.sh )(?:\.venv/bin/)?(workbench [a-z].*)")
ENDS = {"|", "||", "&", "&&", ";", ">", ">>", "<", ")"}


def calls(file: str) -> list[list[str]]:
    """The words of each call in the code blocks of a document."""
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r'"\$\(.*\)"', "X", text)  # quotes within quotes
    text = re.sub(r"\$\w+", "8400", text)
    blocks = [block for language, block in BLOCK.findall(text) if language in {"", "sh", "bash"}]
    found = []
    for line in "".join(blocks).splitlines():
        if call := CALL.search(line.partition(" #")[0]):
            words = shlex.shlex(call[1], posix=True, punctuation_chars="|&;<>)")
            words.whitespace_split = True
            kept = [*words][1:]
            end = next((at for at, one in enumerate(kept) if one in ENDS), len(kept))
            found.append(kept[:end])
    return found


def check(words: list[str], command: click.Command = main) -> None:
    """Parse as the program would, without doing anything."""
    context = click.Context(command)
    rest = command.parse_args(context, list(words))
    if isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        _, found, rest = command.resolve_command(context, rest)
        check(rest, found)


@pytest.mark.parametrize("file", [one for one in DOCUMENTS if calls(one)])
def test_commands_and_options_exist(file: str) -> None:
    wrong = []
    for words in calls(file):
        try:
            check(words)
        except click.exceptions.Exit:  # --help
            continue
        except click.UsageError as error:
            if not error.format_message().endswith("does not exist."):  # a file of the reader's
                wrong.append(f"workbench {' '.join(words)}: {error.format_message()}")
    assert wrong == []


def test_a_wrong_option_is_seen() -> None:
    with pytest.raises(click.UsageError, match="no-such"):
        check(["serve", "keys", "add", "--no-such", "1"])
    assert len(calls("README.md")) > 25
    assert ["serve", "keys", "add", "--name", "chat", "--json"] in calls("docs/guard.md")
