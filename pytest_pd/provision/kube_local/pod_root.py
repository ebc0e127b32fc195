"""Become a container's command, with files of its own where a pod has some.

``python3 -S -E pod_root.py SPEC WORDS...``; SPEC is JSON with ``hosts`` (a file that
stands for /etc/hosts), ``mounts`` (pairs of source and target) and ``told`` (where to
write why the command could not be started). A mount namespace of its own, so that
nobody else sees them; /run is empty in it, as in a container. A target that is neither
there nor below /run is left out: a folder for it would have to be made on this machine.
"""
# ruff: noqa: PTH103, PTH110, PTH112, PTH120, PTH123

import ctypes
import json
import os
import sys

NEW_NAMESPACE, NEW_USER = 0x00020000, 0x10000000
BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18
NOT_STARTED = 128


def unshare(libc: ctypes.CDLL) -> None:
    """Enter a mount namespace of our own; as root of one's own where one is not."""
    uid, gid = os.getuid(), os.getgid()
    flags = NEW_NAMESPACE if uid == 0 else NEW_NAMESPACE | NEW_USER
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")
    if uid:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def mount(libc: ctypes.CDLL, source: str, target: str, kind: str, flags: int) -> None:
    """Mount, or raise OSError."""
    words = [word.encode() for word in (source, target, kind)]
    if libc.mount(*words, flags, None):
        raise OSError(ctypes.get_errno(), "mount", target)


def set_up(hosts: str, mounts: "list[list[str]]") -> None:
    """Give this process the files of its pod."""
    libc = ctypes.CDLL(None, use_errno=True)
    unshare(libc)
    mount(libc, "none", "/", "none", RECURSIVE | PRIVATE)
    mount(libc, "tmpfs", "/run", "tmpfs", 0)
    mount(libc, hosts, "/etc/hosts", "none", BIND)
    for source, target in mounts:
        where = os.path.realpath(target)
        if where.startswith("/run/"):
            make_target(source, where)
        if os.path.exists(where):
            mount(libc, source, where, "none", BIND)


def make_target(source: str, target: str) -> None:
    """Make an empty file or folder to mount on."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "a"):
        pass


def main() -> None:
    """Set up and exec."""
    spec, words = json.loads(sys.argv[1]), sys.argv[2:]
    try:
        set_up(spec["hosts"], spec["mounts"])
        os.chdir("/")
        os.execvp(words[0], words)
    except OSError as why:
        found = f"exec: {words[0]!r}: {why}"
        with open(spec["told"], "w") as file:
            file.write(found)
        os._exit(NOT_STARTED)


if __name__ == "__main__":
    main()
