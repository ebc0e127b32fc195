"""What Slurm is told and what it answers, as text. Pure functions."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pytest_pd.plan.model import ServicePlan
from pytest_pd.provision.locks import file_name
from pytest_pd.spec.site_slurm import ContainerSite, SlurmSite

ACTIVE = frozenset(
    [
        "PENDING",
        "CONFIGURING",
        "RUNNING",
        "COMPLETING",
        "SUSPENDED",
        "RESIZING",
        "REQUEUED",
        "REQUEUE_HOLD",
        "REQUEUE_FED",
        "SIGNALING",
        "STAGE_OUT",
        "STOPPED",
        "SPECIAL_EXIT",
    ]
)
OVER = {
    "COMPLETED": "was released",
    "CANCELLED": "was cancelled",
    "TIMEOUT": "reached its time limit",
    "NODE_FAIL": "lost a node",
    "BOOT_FAIL": "got a node that did not boot",
    "PREEMPTED": "was preempted",
    "DEADLINE": "reached its deadline",
    "OUT_OF_MEMORY": "ran out of memory",
    "FAILED": "failed",
    "REVOKED": "was revoked",
    "GONE": "is not known to Slurm any more",
}
QUEUE_FORMAT = "%i|%T|%r|%N|%L|%S"
FOREIGN = re.compile("(SBATCH|SALLOC|SRUN|SLURM|SQUEUE|SINFO|SCANCEL|SCONTROL|SACCT)_")
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
HOLDER_NEEDS = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LD_LIBRARY_PATH")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy")

WATCH_LEASE = """\
last= quiet_s=0
while :; do
  now=
  read -r now 2>/dev/null <"$lease"
  case $now in bye*) break ;; esac
  if [ -n "$now" ] && [ "$now" != "$last" ]; then last=$now quiet_s=0; fi
  if [ "$quiet_s" -gt "$ttl_s" ]; then break; fi
  sleep "$poll_s" & nap=$!
  wait $nap
  quiet_s=$((quiet_s + poll_s))
done
"""
"""Ends when the lease was given back or has not changed for its time to live.

Only seconds slept are counted, so that a file system which hangs ends nothing; a
lease that cannot be read is unknown, not over.
"""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What the holder job asks for.

    Attributes:
        folder: Shared folder of this topology's Slurm files.
        lease: Lease file as the nodes see it.
        lease_ttl_s: Seconds without a change after which the job ends.
    """

    name: str
    run_id: str
    nodes: int
    gpus_per_node: int
    folder: str
    lease: str
    lease_ttl_s: float


@dataclass(frozen=True, slots=True)
class JobView:
    """One job as the queue shows it.

    Attributes:
        state: First word of the state, upper case.
        reason: Why it waits or ended, in Slurm's word.
        nodes: Node list in Slurm's compressed form.
        left_s: Seconds to the time limit; None when there is none.
        start: Expected start of a waiting job, as printed.
    """

    job: str
    state: str
    reason: str = ""
    nodes: str = ""
    left_s: float | None = None
    start: str = ""

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def story(self) -> str:
        """The end of the job in words: ``reached its time limit``."""
        reason = self.reason not in ("", "None") and f" ({self.reason})"
        return OVER.get(self.state, f"is {self.state}") + (reason or "")


def client_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what changes the meaning of our commands."""
    return {
        name: value
        for name, value in env.items()
        if name in KEPT or not FOREIGN.match(name)
    }


def holder_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return what ``sbatch`` stores with the job: where tools are, no secret.

    Less is given here and not by ``--export``, which with a list of names starts a
    login shell on the node and waits for it.
    """
    return {
        name: value
        for name, value in client_env(env).items()
        if name in HOLDER_NEEDS or name in KEPT
    }


def step_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that ``srun`` carries to a node: proxies too are cut."""
    return {
        name: value
        for name, value in client_env(env).items()
        if name.lower() not in PROXIES
    }


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [f"--{name}={value}"]


def gpu_options(site: SlurmSite, gpus: int) -> list[str]:
    """Return the option that asks for `gpus` GPUs on each node."""
    if site.gpus_by == "none" or gpus == 0:
        return []
    if site.gpus_by == "gres":
        return [f"--gres={site.gres}:{gpus}"]
    kind = site.gres.partition(":")[2]
    return [f"--gpus-per-node={kind}:{gpus}" if kind else f"--gpus-per-node={gpus}"]


def batch_options(site: SlurmSite, request: JobRequest) -> list[str]:
    """Return every ``sbatch`` option of the holder job."""
    segment = request.nodes if site.segment == "all" else site.segment
    return [
        f"--job-name={request.name}",
        f"--comment=pd:{request.run_id}",
        f"--nodes={request.nodes}",
        "--ntasks-per-node=1",
        f"--time={site.time_limit_min}",
        "--no-requeue",
        f"--output={request.folder}/holder.%j.log",
        "--export=ALL",
        *_option("partition", site.partition),
        *_option("account", site.account),
        *_option("qos", site.qos),
        *_option("reservation", site.reservation),
        *_option("constraint", site.constraint),
        *gpu_options(site, request.gpus_per_node),
        *_option("cpus-per-task", site.cpus_per_node),
        *(["--exclusive"] if site.exclusive else []),
        *(["--mem=0"] if site.whole_memory else []),
        *_option("segment", segment),
        *_option("nodelist", ",".join(site.nodelist) or None),
        *_option("exclude", ",".join(site.exclude) or None),
        *site.sbatch_flags,
    ]


def lease_script(request: JobRequest) -> str:
    """Return the POSIX sh lines that wait for the end of the lease."""
    poll_s = max(1, int(request.lease_ttl_s // 10))
    return (
        f"lease={shlex.quote(request.lease)}\n"
        f"ttl_s={int(request.lease_ttl_s)} poll_s={poll_s}\n" + WATCH_LEASE
    )


def batch_argv(site: SlurmSite, request: JobRequest) -> tuple[str, ...]:
    """Return the ``sbatch`` words; the script comes through standard input.

    Options are words and not ``#SBATCH`` lines, whose quoting is Slurm's own.
    """
    return ("sbatch", "--parsable", *batch_options(site, request))


def batch_script(request: JobRequest) -> str:
    """Return the job that holds the nodes for as long as its lease is renewed."""
    return (
        "#!/bin/sh\ntrap 'kill $nap; exit 0' TERM\n"
        + lease_script(request)
        + 'echo "the lease is over; the nodes are released"\n'
    )


def watchman_script(request: JobRequest, seconds: int = 8) -> str:
    """Return the lines that cancel the job from the submitting host.

    A job that is still pending runs no holder that could end it, so this is what
    a killed harness leaves behind. The name is looked for again for some seconds:
    the harness may have died between the submission and its answer.
    """
    return (
        lease_script(request)
        + f"for _ in $(seq {seconds}); do\n"
        + f'  scancel --user="$(id -un)" --name={shlex.quote(request.name)}\n'
        + "  sleep 1\ndone\n"
    )


def container_options(
    site: ContainerSite | None, service: ServicePlan, folder: str
) -> list[str]:
    """Return the pyxis options of one step; none when nothing names an image."""
    image = service.image or (site.image if site else None)
    if not image:
        return []
    given = site or ContainerSite()
    mounts = (f"{folder}:{folder}", *given.mounts, *service.mounts)
    return [
        f"--container-image={image}",
        f"--container-mounts={','.join(dict.fromkeys(mounts))}",
        *_option("container-workdir", given.workdir),
        *given.flags,
    ]


def step_name(mark: str) -> str:
    """Return the name of the step of a service: no other of the job has it.

    An allocation may hold steps of several topologies, each with its router.

    Args:
        mark: ``<run id>/<topology>/<service>``.
    """
    return file_name("-".join(["pd", *mark.split("/")]))


def step_argv(
    site: SlurmSite,
    job: str,
    node: str,
    service: ServicePlan,
    *,
    name: str,
    node_gpus: int,
    folder: str,
    command: Iterable[str],
) -> tuple[str, ...]:
    """Return the ``srun`` words that run `command` on one node of the job.

    Every worker sees all GPUs of its node and picks its own by their ids: two
    overlapping steps that ask for two GPUs each may be given the same two.
    """
    gpus = gpu_options(site, node_gpus) if service.gpu_ids else ["--gres=none"]
    if site.gpus_by == "none":
        gpus = []
    memory = service.memory_gib and f"{int(service.memory_gib * 1024)}M"
    return (
        "srun",
        f"--jobid={job}",
        "--overlap",
        "--nodes=1",
        "--ntasks=1",
        f"--nodelist={node}",
        f"--job-name={name}",
        "--export=ALL",
        "--kill-on-bad-exit=1",
        *gpus,
        *_option("cpus-per-task", service.cpus),
        *_option("mem", memory),
        *_option("cpu-bind", site.cpu_bind),
        *_option("mpi", site.mpi),
        *container_options(site.container, service, folder),
        *site.srun_flags,
        *command,
    )


def seconds_left(text: str) -> float | None:
    """Turn Slurm's ``[days-]hours:minutes:seconds`` into seconds.

    ``UNLIMITED``, ``NOT_SET`` and ``INVALID`` are None.
    """
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text):
        return None
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if days:
        parts += [0] * (3 - len(parts))
    total = 0
    for part in parts:
        total = total * 60 + part
    return float(total + int(days or 0) * 86400)


def parse_queue(text: str) -> dict[str, JobView]:
    """Read ``squeue -o`` in `QUEUE_FORMAT`; the last line of a job id holds."""
    views = {}
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) != 6:
            continue
        job, state, reason, nodes, left, start = fields
        word = re.match(r"[A-Z_]+", state)
        views[job] = JobView(
            job, word[0] if word else "", reason, nodes, seconds_left(left), start
        )
    return views


def parse_steps(text: str) -> dict[str, str]:
    """Read ``squeue -s -o '%i|%j'``: step name to step id."""
    pairs = (line.strip().split("|", 1) for line in text.splitlines() if "|" in line)
    return {name: step for step, name in pairs}


def parse_records(text: str) -> list[dict[str, str]]:
    """Read ``scontrol show ... -o``: one record of ``Key=value`` pairs a line."""
    records = []
    for line in text.splitlines():
        pairs = re.findall(r"(\w+)=(\S*)", line)
        if pairs:
            records.append(dict(reversed(pairs)))
    return records
