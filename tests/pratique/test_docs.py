"""The documentation is true of the code, as far as a machine can tell: verbs, command lines, links, paths, tests."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import cast

import pytest

from pratique.__main__ import VERBS
from pratique.dispatch import Verb

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    sorted(
        path
        for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    )
)
NAMES = tuple(name for _, verbs in VERBS for name, _ in verbs)
FOLDERS = tuple(sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")))

COMMAND = re.compile(r"(?:\$ )?(?:sudo )?(?:unshare -n )?pratique (.*)")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
PATH = re.compile(r"`([a-z][\w.-]*/(?:[\w./-]*(?:/|\.[a-z]+))?|[A-Z]+\.md|Makefile|pyproject\.toml)(?:::(\w+))?`")
"""A folder (with a slash at its end) or a file (with an extension), and perhaps something that it defines."""

INLINE = re.compile(r"`pratique ([a-z]+)(?: [^`]*)?`")
PLACEHOLDERS = {"…", "..."}
"""Words that say "and so on": a line with one shows a part of a command, and is read up to the verb."""


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str) -> Iterator[str]:
    """The lines of code blocks, fenced or indented, with continued lines joined."""
    fenced, continued = False, ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        if not fenced and not line.startswith("    "):
            continued = ""
            continue
        whole = continued + line.strip()
        if whole.endswith("\\"):
            continued = whole[:-1]
            continue
        continued = ""
        yield whole


def commands(path: Path) -> tuple[str, ...]:
    """The arguments of each `pratique …` that a page shows in a code block."""
    found = (COMMAND.fullmatch(line) for line in blocks(path.read_text()))
    return tuple(match[1] for match in found if match is not None and match[1].split()[0] != "registry")


SHOWN = tuple((ids(path), line) for path in PAGES for line in commands(path))


@cache
def parser_of(name: str) -> argparse.ArgumentParser:
    verb = cast("Verb", importlib.import_module(f"pratique.commands.{name}"))
    parser = argparse.ArgumentParser(prog=f"pratique {name}", exit_on_error=False)
    verb.configure(parser)
    return parser


def words_of(line: str) -> list[str]:
    """The words of a command line as a shell would pass them on: no redirection, no comment, no job control."""
    words = shlex.split(line, comments=True)
    ends = [position for position, word in enumerate(words) if word in {"<", ">", "|", "&", "&&", ";"}]
    return words[: min(ends, default=len(words))]


def test_each_verb_is_documented() -> None:
    text = "\n".join(path.read_text() for path in PAGES if path.parent == ROOT / "docs")
    assert [name for name in NAMES if f"pratique {name}" not in text] == []


def test_command_lines_are_found() -> None:
    assert len(SHOWN) > 50


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=[f"{page}: {line[:60]}" for page, line in SHOWN])
def test_each_command_line_parses(page: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *rest = words_of(line)
    if name in {"--help", "--version"}:
        return
    assert name in NAMES, f"{page}: {line}"
    parser = parser_of(name)
    if PLACEHOLDERS & set(rest) or "--help" in rest:
        return
    try:
        parser.parse_args(rest)
    except (SystemExit, argparse.ArgumentError) as error:
        pytest.fail(f"{page}: pratique {line}: {error} {capsys.readouterr().err}")


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_each_verb_in_running_text_exists(path: Path) -> None:
    assert [name for name in INLINE.findall(path.read_text()) if name not in NAMES] == []


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_each_relative_link_leads_somewhere(path: Path) -> None:
    targets = [target for target in LINK.findall(path.read_text()) if "://" not in target]
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_each_path_in_backticks_exists(path: Path) -> None:
    found = [(name, test) for name, test in PATH.findall(path.read_text()) if _is_ours(name)]
    assert [name for name, _ in found if not (ROOT / name).exists()] == []
    named = [(name, test) for name, test in found if test]
    assert [f"{name}::{test}" for name, test in named if test not in functions(ROOT / name)] == []


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))


def _is_ours(name: str) -> bool:
    """True for what begins with a folder of the repository, or is a file at its top."""
    first, slash, _ = name.partition("/")
    return not slash or first in FOLDERS
