"""Connections that trust a host only if its key is known.

fabric accepts any key (its client has an AutoAddPolicy) and reads neither
``UserKnownHostsFile`` nor ``StrictHostKeyChecking``; here both ends of a jump must be
in a known_hosts file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fabric
import paramiko

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.spec.site_ssh import SshHost, SshSite

DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
NO_KEY = "No authentication methods available"


def make_connection(site: SshSite, host: SshHost) -> fabric.Connection:
    """Return a connection that is not open yet, strict for every hop."""
    config = fabric.Config(
        runtime_ssh_path=str(Path(site.config_file).expanduser())
        if site.config_file
        else None
    )
    keys = [str(Path(path).expanduser()) for path in site.identity_files]
    connection = fabric.Connection(
        host.host,
        user=host.user,
        port=host.port,
        config=config,
        connect_timeout=site.connect_timeout_s,
        connect_kwargs={
            "banner_timeout": site.connect_timeout_s,
            "auth_timeout": site.connect_timeout_s,
            **({"key_filename": keys} if keys else {}),
        },
    )
    trust_known_keys_only(connection, site)
    return connection


def trust_known_keys_only(connection: fabric.Connection, site: SshSite) -> None:
    """Make a connection, and the hops before it, refuse keys that nobody knows."""
    client = connection.client
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    for path in known_hosts_files(connection, site):
        if path.is_file():
            client.load_host_keys(str(path))
    if isinstance(connection.gateway, fabric.Connection):
        connection.gateway.connect_kwargs.update(connection.connect_kwargs)
        connection.gateway.connect_timeout = site.connect_timeout_s
        trust_known_keys_only(connection.gateway, site)


def known_hosts_files(connection: fabric.Connection, site: SshSite) -> list[Path]:
    """Return the files of host keys: the cluster file's, else the configuration's."""
    given: Sequence[str] = site.known_hosts
    if not given:
        given = connection.ssh_config.get("userknownhostsfile", "").split()
    return [Path(path).expanduser() for path in given or DEFAULT_KNOWN_HOSTS]


def open_connection(site: SshSite, host: SshHost) -> fabric.Connection:
    """Return an open connection.

    Raises:
        ProvisionError: the host is not who it was, or does not let us in.
        InfrastructureLost: it cannot be reached.
    """
    connection = make_connection(site, host)
    try:
        connection.open()
    except Exception as error:
        connection.close()
        raise explain(connection, error) from error
    connection.transport.set_keepalive(site.keepalive_s)
    return connection


def explain(connection: fabric.Connection, error: Exception) -> ProvisionError:
    """Return what went wrong, and what to do, in one sentence each."""
    name = f"{connection.user}@{connection.host}:{connection.port}"
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, paramiko.BadHostKeyException):
        return ProvisionError(
            f"{name} shows another host key than the known one.",
            hint="if the host was installed anew: "
            f"ssh-keygen -R '[{connection.host}]:{connection.port}', then connect once",
        )
    if isinstance(error, paramiko.AuthenticationException) or NO_KEY in str(error):
        return ProvisionError(
            f"{name} refuses our keys.",
            hint="ssh-add the key, or name it in ssh.identity_files",
        )
    if "not found in known_hosts" in str(error):
        return ProvisionError(
            f"{name} has a host key that no known_hosts file holds.",
            hint=f"connect once with ssh -p {connection.port} {connection.host} "
            "and compare the key, or name a file in ssh.known_hosts",
        )
    return InfrastructureLost(
        f"{name} cannot be reached: {text}.",
        hint="does the host run, and does ssh reach it from here?",
    )
