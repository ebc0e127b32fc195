"""A real Slurm on this machine: munged, slurmctld and as many slurmd as asked.

Everything listens on loopback addresses of one block (``127.<block>.1.<i>``),
nothing is read from or written to ``/etc/slurm``, and every daemon is a child of
the caller that dies with it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
INSTALL = "apt-get install -y slurm-wlm munge"
SBIN = "/usr/sbin:/sbin"

CONF = """\
ClusterName=pdtest
SlurmctldHost={host}({controller})
SlurmctldPort={port}
{communication}
SlurmUser={user}
SlurmdUser={user}
{auth}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=100000
GresTypes=gpu
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout={slurmd_timeout_s}
SlurmctldTimeout=15
InactiveLimit=0
KillWait=3
MinJobAge=300
UnkillableStepTimeout=30
WaitTime=0
TreeWidth=64
PropagateResourceLimits=NONE
MaxJobCount=5000
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr={address} Port={port} CPUs=8 "
    "Sockets=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=2000 "
    "Gres=gpu:{gpus} Feature={feature} State=UNKNOWN\n"
)
PARTITIONS = """\
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL MaxTime=1 State=UP
PartitionName=small Nodes=ALL MaxNodes=2 MaxTime=60 State=UP
"""
GPU_FILES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom")
"""Existing character devices: Slurm counts them as GPUs and sets the ids."""


def missing() -> str:
    """Return why a real Slurm cannot run here, or an empty string."""
    path = os.pathsep.join((os.environ.get("PATH", ""), SBIN))
    absent = [name for name in DAEMONS if shutil.which(name, path=path) is None]
    return f"{', '.join(absent)} not found: {INSTALL}" if absent else ""


def _tool(name: str) -> str:
    path = os.pathsep.join((os.environ.get("PATH", ""), SBIN))
    found = shutil.which(name, path=path)
    assert found, f"{name} not found: {INSTALL}"
    return found


def _await(condition: Callable[[], bool], *, within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} after {within_s:g} s"
        time.sleep(0.05)


def _has_freezer() -> bool:
    return os.geteuid() == 0 and Path("/sys/fs/cgroup/freezer").is_dir()


def own_names() -> bool:
    return os.geteuid() == 0


def free_block() -> int:
    """Return an x for which nobody listens on 127.x.0.1:6817."""
    for block in range(100, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((f"127.{block}.0.1", 6817))
                return block
    raise AssertionError("every loopback block from 127.100 to 127.199 is taken")


@dataclass
class SlurmSite:
    """A running Slurm; `env` is what a client of it needs."""

    root: Path
    nodes: int
    gpus_per_node: int = 4
    proctrack: str = ""
    slurmd_timeout_s: int = 15
    block: int = field(default_factory=free_block)
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.root / "etc" / "slurm.conf"

    @property
    def env(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.conf)}

    @property
    def names(self) -> list[str]:
        return [f"n{index:02d}" for index in range(1, self.nodes + 1)]

    def address(self, name: str) -> str:
        """Return the loopback address of one node."""
        return f"127.{self.block}.1.{int(name[1:])}"

    def client(self, *words: str, check: bool = True) -> str:
        """Run a Slurm client command and return what it printed."""
        done = subprocess.run(
            words,
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{words}: {done.stderr}"
        return done.stdout

    def jobs(self) -> list[str]:
        """Return the ids of jobs that are not over."""
        return self.client("squeue", "-h", "-o", "%i").split()

    def jobs_of(self, run_id: str) -> list[str]:
        """Return the jobs of one run that are not over."""
        lines = self.client("squeue", "-h", "-o", "%i %k").splitlines()
        return [line.split()[0] for line in lines if line.endswith(f"pd:{run_id}")]

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Make it the Slurm that programs of this process talk to."""
        before = os.environ.get("SLURM_CONF")
        os.environ.update(self.env)
        try:
            yield
        finally:
            os.environ.pop("SLURM_CONF")
            if before is not None:
                os.environ["SLURM_CONF"] = before

    def start(self) -> None:
        for part in ("etc", "state", "log", "munge"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        (self.root / "munge").chmod(0o700)
        self._write_configuration()
        self._start_munge()
        self.start_controller()
        for name in self.names:
            self.start_node(name)
        _await(self._all_idle, within_s=60, what=f"{self.nodes} idle nodes")
        if own_names():
            self._assert_loopback_only()

    def stop(self) -> None:
        """End all jobs, then every daemon by its process id."""
        with suppress(subprocess.TimeoutExpired, AssertionError):
            for job in self.jobs():
                self.client("scancel", job, check=False)
            _await(lambda: not self.jobs(), within_s=20, what="empty queue")
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()

    def start_controller(self) -> None:
        self._spawn_as("slurmctld", socket.gethostname(), "slurmctld")

    def start_node(self, name: str) -> None:
        (self.root / f"spool.{name}").mkdir(exist_ok=True)
        self._spawn_as(name, name, "slurmd", "-N", name)

    def kill(self, daemon: str) -> None:
        """SIGKILL a daemon (``slurmctld`` or a node) and reap it."""
        self.daemons[daemon].send_signal(signal.SIGKILL)
        self.daemons.pop(daemon).wait()

    def _spawn(self, name: str, *argv: str) -> None:
        with (self.root / "log" / f"{name}.out").open("ab") as sink:
            self.daemons[name] = subprocess.Popen(
                # The daemon dies with us, whatever kills us.
                ["setpriv", "--pdeathsig", "KILL", *argv],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **self.env},
            )

    def _spawn_as(self, name: str, host: str, tool: str, *args: str) -> None:
        """Start a Slurm daemon; as root under a host name of its own.

        `NoInAddrAny` binds every socket to what the host name resolves to, so
        that a daemon listens on its own loopback address and nowhere else.
        """
        argv = (_tool(tool), "-D", "-f", str(self.conf), *args)
        if not own_names():
            self._spawn(name, *argv)
            return
        script = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'
        self._spawn(
            name,
            *("unshare", "--mount", "--uts", "--propagation", "private"),
            *("sh", "-c", script, "sh", host, str(self.root / "etc" / "hosts")),
            *argv,
        )

    def _start_munge(self) -> None:
        key = self.root / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(64))
        files = [
            f"--{what}={self.root}/munge/{name}"
            for what, name in (
                ("key-file", "key"),
                ("socket", "sock"),
                ("pid-file", "pid"),
                ("log-file", "log"),
                ("seed-file", "seed"),
            )
        ]
        self._spawn("munged", _tool("munged"), "--foreground", "--force", *files)
        sock = self.root / "munge" / "sock"
        _await(sock.exists, within_s=20, what="munge socket")

    def _write_configuration(self) -> None:
        host = socket.gethostname()
        auth = (
            f"AuthType=auth/munge\nAuthInfo=socket={self.root}/munge/sock\n"
            "CredType=cred/munge"
        )
        conf = CONF.format(
            host=host,
            controller=f"127.{self.block}.0.1",
            port=6817,
            user=os.environ.get("USER") or "root",
            auth=auth,
            communication=(
                "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"
                if own_names()
                else ""
            ),
            root=self.root,
            proctrack=self.proctrack or ("cgroup" if _has_freezer() else "linuxproc"),
            slurmd_timeout_s=self.slurmd_timeout_s,
        )
        for index, name in enumerate(self.names):
            conf += NODE.format(
                name=name,
                host=name if own_names() else host,
                address=self.address(name),
                port=6818 if own_names() else 17000 + index,
                gpus=self.gpus_per_node,
                feature="gb200" if index < self.nodes * 2 / 3 else "gb300",
            )
        self.conf.write_text(conf + PARTITIONS)
        hosts = [f"127.0.0.1 localhost\n127.{self.block}.0.1 {host}\n"]
        hosts += [f"{self.address(name)} {name}\n" for name in self.names]
        (self.root / "etc" / "hosts").write_text("".join(hosts))
        gpus = ",".join(GPU_FILES[: self.gpus_per_node])
        names = f"n[01-{self.nodes:02d}]"
        (self.root / "etc" / "gres.conf").write_text(
            f"NodeName={names} Name=gpu File={gpus}\n"
        )
        (self.root / "etc" / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"
            "CgroupMountpoint=/sys/fs/cgroup\n"
        )

    def _all_idle(self) -> bool:
        for name, daemon in self.daemons.items():
            assert daemon.poll() is None, self._tail(name)
        try:
            states = self.client("sinfo", "-h", "-N", "-p", "batch", "-o", "%t")
        except AssertionError:
            return False
        return states.split() == ["idle"] * self.nodes

    def _tail(self, name: str) -> str:
        logs = sorted((self.root / "log").glob(f"*{name}*"))
        return "\n".join(log.read_text(errors="replace")[-800:] for log in logs)

    def _assert_loopback_only(self) -> None:
        """Every listening socket of our daemons is on 127/8."""
        lines = subprocess.run(
            ["ss", "-Hltnp"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        pids = {f"pid={daemon.pid}," for daemon in self.daemons.values()}
        ours = [line for line in lines if any(pid in line for pid in pids)]
        assert len(ours) > self.nodes, "the daemons' sockets are not visible"
        outside = [line for line in ours if not line.split()[3].startswith("127.")]
        assert not outside, outside


@contextmanager
def slurm_site(root: Path, nodes: int, **options: object) -> Iterator[SlurmSite]:
    """Yield a running Slurm and take every part of it down again."""
    site = SlurmSite(root, nodes, **options)  # type: ignore[arg-type]
    try:
        site.start()
        yield site
    finally:
        site.stop()


def main() -> None:
    """``python tests/services_slurm.py DIR [NODES]``: run one until Ctrl-C."""
    began = time.monotonic()
    nodes = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    with slurm_site(Path(sys.argv[1]).absolute(), nodes) as site:
        print(f"export SLURM_CONF={site.conf}")
        print(
            f"# {nodes} nodes idle after {time.monotonic() - began:.1f} s", flush=True
        )
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
