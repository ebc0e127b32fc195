"""Slurm's own commands, one method each: the only way we speak to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from pytest_pd.errors import BackendMissing, InfrastructureLost, ProvisionError
from pytest_pd.provision.slurm_text import (
    QUEUE_FORMAT,
    JobView,
    client_env,
    holder_env,
    parse_queue,
    parse_records,
    parse_steps,
)
from pytest_pd.user import user_name

TOOLS = ("sbatch", "srun", "squeue", "scontrol", "scancel")
ANSWER_S = 60.0
NO_ANSWER = 124
REFUSALS = {
    "partition": "see `sinfo -s` for the partitions, and correct slurm.partition",
    "feature": "see `sinfo -o '%f %D'`, and correct slurm.constraint",
    "account": "see `sacctmgr show assoc user=$USER`, and correct slurm.account",
    "qos": "see `sacctmgr show qos`, and correct slurm.qos",
    "unrecognized option": "this Slurm is older than the option: drop it from the "
    "cluster file",
    "node configuration": "no node of the partition has that many GPUs or CPUs: "
    "see `sinfo -o '%n %G %c %f'`",
    "gres": "see `sinfo -o '%n %G'`, and correct slurm.gres or slurm.gpus_by",
    "cpu": "see `sinfo -o '%n %c'`, and correct slurm.cpus_per_node",
}


class SlurmClient:
    """Runs the commands without what the user's environment does to them.

    Attributes:
        queries: How often the controller was asked about jobs.
    """

    def __init__(self) -> None:
        self.queries = 0

    def check(self) -> None:
        """Raise `BackendMissing` if the commands are not on PATH."""
        absent = [tool for tool in TOOLS if shutil.which(tool) is None]
        if absent:
            raise BackendMissing(
                f"Slurm's {', '.join(absent)} is not on PATH.",
                hint="run on a login node of the cluster, or load its module",
            )

    def run(
        self,
        *words: str,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        within_s: float = ANSWER_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run one command; one that hangs has failed with `NO_ANSWER`."""
        try:
            return subprocess.run(
                words,
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=within_s,
                env=client_env(os.environ) if env is None else env,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode(errors="replace")
            return subprocess.CompletedProcess(
                *(words, NO_ANSWER, said),
                f"{words[0]} did not answer within {within_s:g} s",
            )

    def submit(self, argv: Sequence[str], script: str) -> str:
        """Submit a batch script and return the job id.

        Raises:
            ProvisionError: Slurm refuses it; its words, and what to correct.
            InfrastructureLost: Slurm does not answer, and may have taken it.
        """
        done = self.run(*argv, stdin=script, env=holder_env(os.environ))
        if done.returncode == 0:
            return done.stdout.strip().partition(";")[0]
        said = last_line(done.stderr)
        if done.returncode == NO_ANSWER or "timed out" in said:
            raise silent(done)
        hints = [hint for word, hint in REFUSALS.items() if word in said.lower()]
        raise ProvisionError(
            f"sbatch refused the job: {said}",
            hint=(hints or ["correct the slurm section of the cluster file"])[0],
        )

    def queue(self, jobs: Sequence[str]) -> dict[str, JobView] | None:
        """Return the jobs' views; None when Slurm did not answer.

        A job that Slurm says it does not know is over; one that a partial answer
        leaves out is as well, for it had at least `MinJobAge` to be seen.
        """
        self.queries += 1
        wanted = ",".join(jobs)
        done = self.run("squeue", "-h", "-t", "all", "-j", wanted, "-o", QUEUE_FORMAT)
        if done.returncode and "Invalid job id" not in done.stderr:
            return None
        views = parse_queue(done.stdout)
        return {job: views.get(job, JobView(job, "GONE")) for job in jobs}

    def position(self, job: str, partition: str) -> tuple[int, int] | None:
        """Return (place, number) of a waiting job in its partition's queue."""
        self.queries += 1
        done = self.run(
            *("squeue", "-h", "-t", "PD", "-p", partition, "--sort=-p,i", "-o", "%i")
        )
        waiting = done.stdout.split()
        return (waiting.index(job) + 1, len(waiting)) if job in waiting else None

    def steps(self, job: str) -> dict[str, str] | None:
        """Return step name to step id of a job; None when Slurm did not answer."""
        self.queries += 1
        done = self.run("squeue", "-h", "-s", "-j", job, "-o", "%i|%j")
        return None if done.returncode else parse_steps(done.stdout)

    def show(self, kind: str, name: str = "") -> list[dict[str, str]]:
        """Return the records of ``scontrol show KIND [NAME]``.

        Raises:
            InfrastructureLost: the controller does not answer.
        """
        done = self.run("scontrol", "show", kind, *([name] if name else []), "-o")
        if done.returncode and "not found" not in done.stdout + done.stderr:
            raise silent(done)
        return parse_records(done.stdout)

    def named(self, name: str) -> list[str]:
        """Return our own jobs that are called `name` and not over.

        Raises:
            InfrastructureLost: the controller does not answer.
        """
        self.queries += 1
        user = user_name()
        done = self.run("squeue", "-h", "-u", user, "-n", name, "-o", "%i")
        if done.returncode:
            raise silent(done)
        return done.stdout.split()

    def hostnames(self, nodes: str) -> tuple[str, ...]:
        """Expand ``n[01-03]`` to the names."""
        return tuple(self.run("scontrol", "show", "hostnames", nodes).stdout.split())

    def release(self, job: str) -> None:
        """Ask the holder of a running job to end: the job is over in 0.1 s.

        ``scancel`` of the job itself takes 2 s, for it kills what is there.
        """
        self.run("scancel", "--batch", "--signal=TERM", job)

    def cancel_named(self, name: str) -> None:
        """Cancel our own jobs that are called `name`; no error if there is none."""
        self.run("scancel", f"--user={user_name()}", f"--name={name}")

    def cancel(self, target: str, signal: str = "") -> None:
        """Cancel a job or step, or send it a signal; no error if it is gone."""
        self.run("scancel", *([f"--signal={signal}"] if signal else []), target)


def silent(done: subprocess.CompletedProcess[str]) -> InfrastructureLost:
    """Return the error for a command that failed as its controller is away."""
    return InfrastructureLost(
        f"Slurm does not answer: {last_line(done.stderr or done.stdout)}",
        hint="`sinfo` and `scontrol ping` show whether the controller is up",
    )


def last_line(text: str) -> str:
    """Return the last line that says something, without the command's name."""
    lines = [
        line
        for line in text.splitlines()
        if line.strip() and not line.startswith("Try ")
    ]
    line = lines[-1].strip() if lines else "no reason given"
    for tool in TOOLS:
        line = line.removeprefix(f"{tool}: ").removeprefix("error: ")
    return line
