"""``python -m pytest_pd.proxy``: the same as ``pytest-pd proxy``."""

from __future__ import annotations

import argparse
import sys

from pytest_pd.errors import PdError
from pytest_pd.proxy import command


def main() -> int:
    """Run the command; user errors are exit code 2, as in ``pytest-pd``."""
    parser = argparse.ArgumentParser(
        prog="python -m pytest_pd.proxy",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.configure(parser)
    try:
        return command.run(parser.parse_args())
    except PdError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
