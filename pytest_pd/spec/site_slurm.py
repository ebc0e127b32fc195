"""What a cluster file can say about a Slurm site; every habit is a switch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pytest_pd.spec.base import Model, Positive, Seconds


class ContainerSite(Model):
    """How steps enter a container (pyxis).

    Attributes:
        image: Image, or path of a squashfs file; a topology's image wins.
        mounts: ``SOURCE:TARGET[:FLAGS]``; the run directory is always mounted.
        flags: Further options, for example ``--no-container-mount-home``.
        import_to: Folder that all nodes see: images of a registry are imported there
            once (``enroot import``), and every step starts from the file.
    """

    image: str | None = None
    mounts: tuple[str, ...] = ()
    workdir: str | None = None
    flags: tuple[str, ...] = ()
    import_to: str | None = None


class SlurmSite(Model):
    """Options of ``sbatch`` and ``srun`` as this site wants them.

    Attributes:
        constraint: Node feature expression; not sent when the site has none.
        time_limit_min: Wall time of the job.
        queue_budget_s: How long a job may wait for its start.
        node_answer_s: How long nodes may take to say what they see. The first step of
            a job waits for the site's prolog.
        exclusive: Whole nodes; switch off where the site refuses it.
        gpus_by: Option that asks for GPUs; ``none`` where nodes come whole.
        gres: Name of the GPU resource, ``gpu`` or with a type ``gpu:h100``.
        cpus_per_node: CPUs to ask for; None takes what exclusive nodes have.
        whole_memory: Ask for all memory of a node (``--mem=0``).
        segment: Nodes per block (``--segment``, Slurm 24.05 and later);
            ``all`` puts the whole topology into one NVLink domain.
        mpi: Plug-in for steps, ``pmix`` or ``none``; None leaves the default.
        cpu_bind: Steps are not bound to a CPU subset unless asked.
        address: What services listen on: the address or the name of a node as
            Slurm knows it, or ``interface:NAME``.
        shared_dir: Folder that all nodes see; a run directory outside of it is
            refused. None leaves it to the nodes to say what they see.
        job_id: Run inside this allocation; else ``SLURM_JOB_ID`` if
            `inside_allocation`, else a job of our own.
        python: Interpreter on the nodes, 3.6 or later, for launcher and checks.
        package_python: Interpreter that has this package, as the nodes see it, for
            the reference engine and the proxy; None is the one that runs pytest.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    time_limit_min: Positive = 60
    queue_budget_s: Seconds = 3600.0
    node_answer_s: Seconds = 300.0
    exclusive: bool = True
    gpus_by: Literal["gres", "gpus-per-node", "none"] = "gres"
    gres: str = "gpu"
    cpus_per_node: Positive | None = None
    whole_memory: bool = False
    segment: Positive | Literal["all"] | None = None
    mpi: str | None = None
    cpu_bind: str | None = "none"
    nodelist: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    container: ContainerSite | None = None
    address: str = Field(
        default="node_addr", pattern=r"^(node_addr|node_name|interface:[\w.-]+)$"
    )
    shared_dir: str | None = None
    inside_allocation: bool = True
    job_id: str | None = Field(default=None, pattern=r"^\d+$")
    python: str = "python3"
    package_python: str | None = None
    sbatch_flags: tuple[str, ...] = ()
    srun_flags: tuple[str, ...] = ()
