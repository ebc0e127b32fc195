"""Helper processes beside the harness: what stops it for a while stops not them.

Each is a module that reads one JSON object and says ``ready``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_pd.errors import InfrastructureLost
from pytest_pd.provision.lease import disown

READY_S = 30.0
RELAY = "pytest_pd.provision.kubernetes.relay"
KEEP = "pytest_pd.provision.kubernetes.keep"


class Helper:
    """One helper process; it leads a session of its own."""

    def __init__(self, module: str, request: Mapping[str, Any], log: Path) -> None:
        self._module, self._request, self._log = module, request, log
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self, fds: Sequence[int] = ()) -> None:
        """Start it and wait until it says that it works.

        Args:
            fds: Open files that it keeps open.

        Raises:
            InfrastructureLost: it said nothing; its log tells why.
        """
        with self._log.open("ab") as log:
            popen = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                pass_fds=fds,
            )
        self._popen = popen
        assert popen.stdin is not None
        assert popen.stdout is not None
        with popen.stdin as pipe:
            pipe.write(json.dumps(self._request).encode() + b"\n")
        ready = select.select([popen.stdout], [], [], READY_S)[0]
        if not ready or not popen.stdout.readline():
            raise InfrastructureLost(
                f"{self._module} does not reach the cluster.", where=self._log
            )

    def end(self) -> None:
        """End it and what it started; a second time does nothing."""
        popen, self._popen = self._popen, None
        if popen is None or popen.stdout is None:
            return
        if popen.poll() is None:
            os.killpg(popen.pid, signal.SIGTERM)
        popen.wait()
        popen.stdout.close()

    def leave(self) -> None:
        """Let it outlive us."""
        popen, self._popen = self._popen, None
        if popen is not None and popen.stdout is not None:
            popen.stdout.close()
            disown(popen)
