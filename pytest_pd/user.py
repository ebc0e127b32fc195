"""Who uses this host, and which folder ``~`` means; containers may know neither."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from pytest_pd.errors import SpecError


def user_name() -> str:
    """Return the user's name, or the number where the host has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return str(os.getuid())


def expand(path: str | Path) -> Path:
    """Return `path` with a leading ``~`` or ``~user`` written out.

    Raises:
        SpecError: there is no such user, or the host knows no home of ours.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise SpecError(
            f"{str(path)!r} begins with a home folder that this host does not know.",
            hint="write the path out, or set HOME where it begins with ~/",
        ) from error
