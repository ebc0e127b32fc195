"""What a node says about itself: ports, GPUs, limits, and whether it sees our files.

A program of its own for a machine that may have another Python (3.6 and later)
and nothing of ours: ``python3 -S -E node_facts.py`` with one JSON object on
standard input (``ports``: (address, port) pairs to try, ``nonce``: path of a file,
``disk``: folder); prints JSON in pieces, each a line behind ``PDFACTS`` and the node.
"""
# ruff: noqa: UP006, UP031, UP035, UP045
# ruff: noqa: PTH112, PTH118, PTH123, PTH208, B905

import errno
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from typing import Any, Dict, List, Optional

PIECE = 400
"""Characters: srun cuts lines of several nodes into each other above 1,024 bytes."""

GPU_FIELDS = (
    "index,uuid,name,driver_version,memory.used,memory.total,"
    "clocks_throttle_reasons.active,ecc.errors.uncorrected.volatile.total"
)


def is_busy(address: str, port: int) -> bool:
    """Whether somebody listens there; an address that is not ours is not busy."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def output(*words: str) -> str:
    """Return what a program prints; empty when it is absent or fails."""
    try:
        return subprocess.check_output(
            words, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=30
        ).decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return ""


def gpus() -> List[Dict[str, str]]:
    """Return one record per NVIDIA GPU; empty where there is no driver."""
    query = ["--query-gpu=" + GPU_FIELDS, "--format=csv,noheader,nounits"]
    lines = output("nvidia-smi", *query).splitlines()
    names = GPU_FIELDS.split(",")
    rows = [[word.strip() for word in line.split(",")] for line in lines]
    return [dict(zip(names, row)) for row in rows]


def gpu_processes() -> List[str]:
    """Return pid, memory in MiB and name of processes on the GPUs."""
    query = "--query-compute-apps=pid,used_memory,process_name"
    return output("nvidia-smi", query, "--format=csv,noheader,nounits").splitlines()


def addresses() -> Dict[str, str]:
    """Return interface name to its first IPv4 address."""
    found = {}  # type: Dict[str, str]
    for line in output("ip", "-o", "-4", "addr", "show").splitlines():
        words = line.split()
        found.setdefault(words[1], words[3].partition("/")[0])
    return found


def infiniband() -> Dict[str, str]:
    """Return ``device/port`` to its state: ``4: ACTIVE``."""
    found = {}
    base = "/sys/class/infiniband"
    for device in os.listdir(base) if os.path.isdir(base) else []:
        for port in os.listdir(os.path.join(base, device, "ports")):
            path = os.path.join(base, device, "ports", port, "state")
            found["%s/%s" % (device, port)] = read(path)
    return found


def wire() -> Dict[str, Any]:
    """Return the texts of counters that tell which way bytes came in."""
    base, rdma = "/sys/class/infiniband", {}
    for device in os.listdir(base) if os.path.isdir(base) else []:
        for port in os.listdir(os.path.join(base, device, "ports")):
            path = os.path.join(
                base, device, "ports", port, "counters", "port_rcv_data"
            )
            rdma["%s/%s" % (device, port)] = read(path)
    return {
        "net_dev": read("/proc/net/dev"),
        "rdma": rdma,
        "nvlink": output("nvidia-smi", "nvlink", "-gt", "d"),
    }


def read(path: str) -> str:
    """Return a small file's text; empty when it cannot be read."""
    try:
        with open(path) as file:
            return str(file.read(1 << 16)).strip()
    except OSError:
        return ""


def limit(number: int) -> Optional[int]:
    """Return a soft limit; None for unlimited."""
    soft = resource.getrlimit(number)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def free_bytes(path: str) -> int:
    """Return the free space at a path; -1 when it is not there."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return -1


def facts(request: Dict[str, Any]) -> Dict[str, Any]:
    """Return everything asked for about this node."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return {
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "machine": os.uname().machine,
        "python": sys.version.split()[0],
        "nonce": read(request["nonce"]) if request.get("nonce") else "",
        "busy": [pair for pair in request.get("ports", []) if is_busy(*pair)],
        "visible": visible.split(",") if visible else [],
        "addresses": addresses(),
        "gpus": gpus() if request.get("gpus") else [],
        "gpu_processes": gpu_processes() if request.get("gpus") else [],
        "infiniband": infiniband(),
        "wire": wire() if request.get("wire") else {},
        "memlock_bytes": limit(resource.RLIMIT_MEMLOCK),
        "open_files": limit(resource.RLIMIT_NOFILE),
        "shm_bytes": free_bytes("/dev/shm"),
        "disk_bytes": free_bytes(request.get("disk") or "/tmp"),
    }


def main() -> int:
    """Answer one request."""
    request = json.loads(sys.stdin.read() or "{}")
    mine = request.get("nodes", {}).get(os.environ.get("SLURMD_NODENAME", ""), {})
    request.update(mine)
    found = facts(request)
    text = json.dumps(found)
    for start in range(0, len(text), PIECE):
        piece = text[start : start + PIECE]
        sys.stdout.write("PDFACTS %s %s\n" % (found["node"], piece))
    return 0


if __name__ == "__main__":
    sys.exit(main())
