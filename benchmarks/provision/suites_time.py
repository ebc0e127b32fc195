"""How long all suites take on Kimi K2 2P1D here, by each of its ways.

    python benchmarks/provision/suites_time.py card     # the card's line, real Slurm
    python benchmarks/provision/suites_time.py local    # --rehearse on this machine
    python benchmarks/provision/suites_time.py ssh      # --rehearse over 7 real sshd
    python benchmarks/provision/suites_time.py slurm    # --rehearse by sbatch and srun

``card`` runs ``pytest suites/ -m gb200 --topology k2_2p1d`` with ``pd_cluster`` set and
nothing else, beside a ``vllm`` on PATH that computes the project's small model.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pytest_pd.installer.paths import bin_dir  # noqa: E402
from tests.e2e.slurm_kit import RACK, STAND_IN, vllm_stand_in  # noqa: E402
from tests.services_slurm import slurm_site  # noqa: E402
from tests.services_sshd import sshd_hosts  # noqa: E402

KINDS = ("card", "local", "ssh", "slurm")
MOST_S = 170


def cluster_file(folder: Path, content: dict[str, object]) -> str:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@contextmanager
def place(kind: str, folder: Path) -> Iterator[list[str]]:
    """Start what the kind needs; yield the words that follow ``--topology``."""
    if kind == "local":
        yield ["--rehearse"]
    elif kind == "ssh":
        with sshd_hosts(folder / "sshd", 7) as hosts:
            site = hosts.site(
                run_dir=str(folder / "remote"), package_python=sys.executable
            )
            content = {
                "name": "hosts",
                "backend": "ssh",
                "lease_ttl_s": 20,
                "ssh": site.model_dump(mode="json", exclude_defaults=True),
            }
            yield ["--rehearse", "--cluster", cluster_file(folder, content)]
    else:
        with slurm_site(folder / "slurm", 12) as site, site.as_default():
            card = kind == "card"
            path = cluster_file(folder, {**RACK, **(STAND_IN if card else {})})
            yield (
                ["-m", "gb200", "-o", f"pd_cluster={path}"]
                if card
                else ["--rehearse", "--cluster", path]
            )


def run(kind: str, words: list[str], folder: Path) -> tuple[float, str]:
    """Run the suites once; return seconds and pytest's last words."""
    places = [str(vllm_stand_in(folder)), str(bin_dir()), os.environ["PATH"]]
    began_s = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "suites/", "--topology", "k2_2p1d"),
            *(*words, "--run-dir", str(folder / "run"), "-q", "-p", "no:randomly"),
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        timeout=MOST_S,
        check=False,
    )
    lines = done.stdout.splitlines()
    bad = [x for x in lines if x.startswith(("FAILED", "ERROR"))]
    last = [x for x in lines if " passed" in x][-1:]
    told = "; ".join([*last, *bad]) or done.stdout[-600:]
    return time.monotonic() - began_s, f"exit {done.returncode}: {told}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--times", type=int, default=1)
    args = parser.parse_args()
    for _ in range(args.times):
        with tempfile.TemporaryDirectory() as text, place(args.kind, Path(text)) as w:
            load = os.getloadavg()[0]
            took_s, told = run(args.kind, w, Path(text))
        after = os.getloadavg()[0]
        print(
            f"{args.kind}: {took_s:.1f} s (load average {load:.1f} before, "
            f"{after:.1f} after, {os.cpu_count()} CPUs); {told}",
            flush=True,
        )


if __name__ == "__main__":
    main()
