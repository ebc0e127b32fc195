"""Tools that a command runs end with it, however it ends."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from pytest_pd.cli import COMMANDS, main
from pytest_pd.provision.launcher import start_time
from tests.kit import wait_until

TOOL = "import os, subprocess, time; print(os.getpid(), flush=True);"
FAMILY = f"{TOOL} subprocess.run(['sleep', '60'])"
COMMAND = f"""
    import sys, types
    from pytest_pd import cli
    from pytest_pd.group import tied_group

    def run(args):
        with tied_group([sys.executable, "-c", {FAMILY!r}]) as tool:
            print(tool.pid, flush=True)
            tool.wait()

    sys.modules["made_up"] = types.SimpleNamespace(run=run, configure=lambda _: None)
    cli.COMMANDS["made-up"] = ("", "made_up")
    sys.exit(cli.main(["made-up"]))
"""


def group_of(pgid):
    words = ["ps", "-o", "pid=,pgid=,stat=", "-e"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in lines.splitlines()]
    return [
        int(pid) for pid, group, stat in rows if group == str(pgid) and stat[0] != "Z"
    ]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 130), (signal.SIGHUP, 130), (signal.SIGKILL, -9)],
)
def test_a_tool_with_children_ends_with_the_command(number, code):
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(COMMAND)], stdout=subprocess.PIPE
    ) as command:
        leader, tool = (int(command.stdout.readline()) for _ in range(2))
        wait_until(lambda: len(group_of(leader)) == 3, "the tool's child")

        command.send_signal(number)

        try:
            assert command.wait(30) == code
            wait_until(lambda: not start_time(tool), "the tool's end", deadline_s=20)
            wait_until(lambda: not group_of(leader), "all its group's", deadline_s=20)
        finally:
            for pid in group_of(leader):
                os.kill(pid, signal.SIGKILL)


def test_the_command_line_leaves_handlers_as_they_were(capsys):
    assert "topologies" in COMMANDS
    before = signal.getsignal(signal.SIGTERM)

    main(["topologies"])

    assert signal.getsignal(signal.SIGTERM) is before
