"""Print what teaches a shell to complete pytest-pd and pytest.

examples:
  eval "$(pytest-pd completion bash)"                in ~/.bashrc
  eval "$(pytest-pd completion zsh)"                 in ~/.zshrc, after compinit
  pytest-pd completion fish > ~/.config/fish/completions/pytest-pd.fish

Then TAB completes commands, options, and the names of topologies, clusters, runs and
engines; for pytest also --topology and --cluster.
"""

from __future__ import annotations

import argparse

PROGRAMS = ("pytest-pd", "pytest")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    """Print code for the shell to read."""
    from argcomplete.shell_integration import shellcode

    if args.shell == "fish":  # one program at a time
        print("\n".join(shellcode([name], shell="fish") for name in PROGRAMS))
    else:
        print(shellcode(list(PROGRAMS), shell=args.shell))
    return 0
