"""The command ``pytest-pd``: the parts of the harness for a person at a terminal."""

from __future__ import annotations

import argparse
import errno
import io
import os
import select
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from pytest_pd import __version__
from pytest_pd.errors import PdError
from pytest_pd.signals import install

COMMANDS = {
    "plan": ("print what would be started", "pytest_pd.command.plan"),
    "topologies": ("list the known topologies", "pytest_pd.command.topologies"),
    "preflight": ("look before anything is started", "pytest_pd.command.preflight"),
    "up": ("bring a topology up and keep it", "pytest_pd.command.up"),
    "down": ("end a topology that was kept", "pytest_pd.command.down"),
    "reap": ("end what killed runs left", "pytest_pd.command.reap"),
    "prune": ("remove old run folders", "pytest_pd.command.prune"),
    "proxy": (
        "two-stage P/D proxy over prefill and decode servers",
        "pytest_pd.proxy.command",
    ),
    "load": ("measure a URL", "pytest_pd.terminal.load"),
    "calibrate": ("measure the instrument itself", "pytest_pd.load.calibrate_command"),
    "engines": ("list, install and check real engines", "pytest_pd.command.engines"),
    "report": ("write page, summary and tables of runs", "pytest_pd.command.report"),
    "compare": ("compare runs, metric by metric", "pytest_pd.command.compare"),
    "gate": ("fail a run that got slower", "pytest_pd.command.gate"),
    "accept-baseline": (
        "accept runs as what later ones are held against",
        "pytest_pd.command.accept_baseline",
    ),
    "history": (
        "figures over many runs, with change points",
        "pytest_pd.command.history",
    ),
    "merge": ("merge JUnit files of shards and reruns", "pytest_pd.command.merge"),
    "completion": ("print completion for a shell", "pytest_pd.command.completion"),
    "fetch": (
        "bring together what a site without a network needs",
        "pytest_pd.command.fetch",
    ),
    "verify": ("look at what fetch brought", "pytest_pd.command.verify"),
    "init": ("lay out a project of your own", "pytest_pd.command.init"),
    "nightly": ("run pytest for a night", "pytest_pd.command.nightly"),
    "evals": ("score a URL with lm-eval; accept scores", "pytest_pd.command.evals"),
    "refit": ("plan and run weight refits", "pytest_pd.refit.command"),
}
"""Name to help and module, which has ``configure(parser)`` and ``run(args)``."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser with every command's name; options are added on use."""
    parser = argparse.ArgumentParser(prog="pytest-pd", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, _) in sorted(COMMANDS.items()):
        commands.add_parser(name, help=text, add_help=False)
    return parser


def complete(line: str) -> None:
    """Offer the words that can follow `line` to the shell, and exit.

    Only the command that stands in the line is imported: TAB has to be quick.
    """
    import argcomplete

    from pytest_pd.complete import add_completers

    parser = argparse.ArgumentParser(prog="pytest-pd")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    written = line.split()[1:2]
    for name, (text, module_name) in sorted(COMMANDS.items()):
        below = commands.add_parser(name, help=text)
        if [name] == written:
            import_module(module_name).configure(below)
            add_completers(below, name)
    argcomplete.autocomplete(parser)


UNREAD = 128 + 13
"""Exit code when a reader such as ``head`` left early, as shells tell SIGPIPE."""


def _carried_out(module: ModuleType, args: argparse.Namespace) -> int:
    code = int(module.run(args))
    sys.stdout.flush()  # here it is still told who does not read
    return code


def _is_unread() -> bool:
    """Tell whether nobody reads our output any more; what is left of it is dropped."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not output.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a write says when its disk takes no more; such an error names no file."""


def _make_writable() -> None:
    """Let any text be printed: to a closed stream, and to one that knows only ASCII."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: `>&-`
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _in_words(error: OSError) -> PdError | None:
    """Return what a user can do about `error`; None for a bug of ours."""
    if error.filename is not None:
        return PdError(
            f"{str(error.filename)!r} cannot be used: {error.strerror}.",
            hint="look at its name, its permissions and the room on its disk",
        )
    try:
        sys.stdout.flush()  # what a failed write left is still there, and fails again
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = "standard output"
    else:
        if error.errno not in ROOM:
            return None
        what = "a file"
    return PdError(
        f"{what.capitalize()} cannot be written: {error.strerror}.",
        hint="make room on its disk, or write to another",
    )


def _masked(text: str) -> str:
    from pytest_pd.secret import redact, secrets_in

    return redact(text, secrets_in(os.environ))


def _complain(command: str, error: PdError) -> None:
    print(_masked(f"pytest-pd {command}: {error}"), file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """Shows no secret of a command line that it refuses."""

    def error(self, message: str) -> NoReturn:
        super().error(_masked(message))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; user errors are exit code 2.

    So is a named file that is missing or closed to us, and a full disk.
    """
    if "_ARGCOMPLETE" in os.environ:
        complete(os.environ.get("COMP_LINE", ""))
    words = list(sys.argv[1:] if argv is None else argv)
    undo = install()  # what a command started must be ended by its clean-up
    try:
        _make_writable()
        make_parser().parse_known_args(words[:1] or ["--help"])
        text, module_name = COMMANDS[words[0]]
        module = import_module(module_name)
        parser = Parser(
            prog=f"pytest-pd {words[0]}",
            description=module.__doc__ or text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(parser)
        return _carried_out(module, parser.parse_args(words[1:]))
    except PdError as error:
        _complain(words[0], error)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            return UNREAD
        told = _in_words(error)
        if told is None:
            raise
        _complain(words[0], told)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        undo()


if __name__ == "__main__":
    raise SystemExit(main())
