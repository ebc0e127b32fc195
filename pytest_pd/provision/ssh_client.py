"""The command line of the system's ssh, for a program that talks by its pipes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_pd.spec.site_ssh import SshHost, SshSite


def ssh_words(site: SshSite, host: SshHost, command: Sequence[str]) -> tuple[str, ...]:
    """Return words that run `command` on a host, as strict as our own connections.

    Words may be added behind them. The command ends with its standard input: ssh
    closes it when whoever started ssh is gone.
    """
    options = (word for option in _options(site) for word in ("-o", option))
    return ("ssh", "-T", *options, *_place(site, host), "--", shlex.join(command))


def _options(site: SshSite) -> Iterator[str]:
    yield "BatchMode=yes"
    yield "StrictHostKeyChecking=yes"
    yield f"ConnectTimeout={max(1, round(site.connect_timeout_s))}"
    yield f"ServerAliveInterval={site.keepalive_s}"
    if site.known_hosts:
        paths = (f'"{Path(path).expanduser()}"' for path in site.known_hosts)
        yield f"UserKnownHostsFile={' '.join(paths)}"


def _place(site: SshSite, host: SshHost) -> Iterator[str]:
    if site.config_file:
        yield from ("-F", str(Path(site.config_file).expanduser()))
    for path in site.identity_files:
        yield from ("-i", str(Path(path).expanduser()))
    if host.user:
        yield from ("-l", host.user)
    if host.port:
        yield from ("-p", str(host.port))
    yield host.host
