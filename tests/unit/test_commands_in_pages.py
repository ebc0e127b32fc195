"""Every command in README and docs can be typed; those that cost little are run."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_pd.cli import COMMANDS, main
from pytest_pd.spec.locate import catalogue

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (\S.*)$", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
PROGRAMS = ("pytest-pd", "pytest")
CHEAP = ("topologies", "completion", "plan")
MADE_UP = re.compile(r"^(mine|my_\w+|damaged|imaged|NAME|TOPOLOGY|DIR|FILE)\b|[/$.<…]")
"""Names that a page asks its reader to choose."""


def lines_of(text):
    """Return the commands of a page, each as one line."""
    for body in FENCE.findall(text):
        yield from body.replace("\\\n", " ").splitlines()
    yield from INDENTED.findall(FENCE.sub("", text))
    yield from INLINE.findall(FENCE.sub("", text))


def words_of(line):
    """Return program and words of a line that calls one of ours, else nothing."""
    line = line.strip().removeprefix("$ ").removeprefix("- run: ")
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return []
    while words and (re.fullmatch(r"[A-Z_]+=\S*", words[0]) or words[0] == "nice"):
        words = words[1:]
    if not words or Path(words[0]).name not in PROGRAMS:
        return []
    for stop in ("|", ">", ">>", "&&", "||", ";", "<", "&"):
        if stop in words:
            words = words[: words.index(stop)]
    return [Path(words[0]).name, *words[1:]]


def commands():
    found = {}
    for page in PAGES:
        for line in lines_of(page.read_text(encoding="utf-8")):
            words = words_of(line)
            if len(words) > 1 and "..." not in words:
                name = f"{page.stem}: {' '.join(words)}"
                found.setdefault(name, words)
    return found


FOUND = commands()
OURS = {name: words[1:] for name, words in FOUND.items() if words[0] == "pytest-pd"}
PYTEST = {name: words[1:] for name, words in FOUND.items() if words[0] == "pytest"}


def parser_of(command):
    parser = argparse.ArgumentParser(prog=command, exit_on_error=False)
    import_module(COMMANDS[command][1]).configure(parser)
    return parser


def test_pages_hold_commands():
    assert len(OURS) > 60
    assert len(PYTEST) > 30


@pytest.mark.parametrize("name", OURS)
def test_our_command_can_be_typed(name, capsys):
    command, *words = OURS[name]
    if command.startswith("-"):
        assert command in ("--help", "--version")
        return
    assert command in COMMANDS, f"no command {command!r}"
    if not words or {"NAME", "-h", "--help"} & set(words):
        return  # the command is only spoken of
    try:
        parser_of(command).parse_args(words)
    except SystemExit:
        said = capsys.readouterr().err
        only_spoken_of = "the following arguments are required" in said
        is_prose = f"`{' '.join(['pytest-pd', command, *words])}`" in text_of(name)
        assert only_spoken_of, said
        assert is_prose, said


def text_of(name):
    stem = name.split(":")[0]
    return "".join(p.read_text("utf-8") for p in PAGES if p.stem == stem)


@pytest.mark.parametrize("name", PYTEST)
def test_options_for_pytest_exist(name, request):
    known = known_options(request.config)
    words = PYTEST[name]

    used = {word.partition("=")[0] for word in words if word.startswith("--")}

    assert used - {"--"} <= known


@pytest.mark.parametrize("name", PYTEST)
def test_topologies_and_paths_exist(name):
    words = PYTEST[name]
    for option, value in pairwise(words):
        if option in ("--topology", "--pd-topology"):
            for one in value.split(","):
                assert is_topology(one), one
    for word in words:
        if word.startswith("suites/") and "mine" not in word:
            assert (ROOT / word.split("::")[0]).exists(), word


def is_topology(word):
    if MADE_UP.search(word):
        return True
    known = catalogue("topologies")
    if set("*?") & set(word):
        import fnmatch

        return bool(fnmatch.filter(known, word))
    return word in known


def known_options(config):
    options = set()
    parser = config._parser
    for group in [*parser._groups, parser._anonymous]:
        for option in group.options:
            options |= set(option.names())
    return options | {"--help", "--collect-only"}


def is_cheap(words):
    refit = words[:2] == ["refit", "plan"] and "--picture" not in words
    writes = {"--lock", "--manifests", "--picture"} & set(words)
    made_up = any(MADE_UP.search(word) for word in words[1:])
    is_known = words[0] in CHEAP and (len(words) > 1 or words == ["topologies"])
    return (is_known or refit) and not writes and not made_up


@pytest.mark.parametrize("name", [n for n, words in OURS.items() if is_cheap(words)])
def test_cheap_commands_work(name, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)

    assert main(OURS[name]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out
