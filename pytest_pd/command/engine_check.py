"""Start an engine for real, ask it one thing, and say what it is."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pytest_pd.errors import ProvisionError
from pytest_pd.installer import install, paths
from pytest_pd.installer.recipe import LM_EVAL, Recipe
from pytest_pd.probe.http import request
from pytest_pd.provision import BACKENDS
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.deployment import Deployment
from pytest_pd.provision.progress import ProgressLine
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.reference.prompts import make_recall
from pytest_pd.spec.file import read_cluster, read_topology
from pytest_pd.spec.locate import HERE, find_one

ASK_TIMEOUT_S = 60.0


def check(recipe: Recipe, say: Callable[[str], None]) -> None:
    """Bring up the smallest topology that needs this engine, and ask it a question.

    Raises:
        EngineMissing: it is neither on PATH nor installed by us.
        ProvisionError: it does not start, or answers nothing.
    """
    for line in identity(recipe):
        say(line)
    topology = read_topology(find_one("topologies", [recipe.topology]).path)
    cluster = read_cluster(find_one("clusters", ["local"]).path)
    progress = ProgressLine(sys.stderr)
    with tempfile.TemporaryDirectory(prefix="pytest-pd-check-") as folder:
        run = RunDir(Path(folder) / topology.name)
        with deploy(
            partial(plan_deployment, topology, cluster),
            BACKENDS.get(cluster.backend)(),
            cluster,
            run.context(make_run_id(), cluster.lease_ttl_s),
            progress=progress,
        ) as deployment:
            say(f"  {topology.name}: ready after {deployment.timings['total']:.1f} s")
            say(f"  {ask(deployment)}")
            if recipe.name == LM_EVAL.name:
                say(f"  {score(deployment)}")


def score(deployment: Deployment) -> str:
    """Let lm-eval ask five questions and return what it says of them.

    Raises:
        InvalidRun: it does not come to an end with five samples.
    """
    from pytest_pd.evals.catalogue import read_eval
    from pytest_pd.evals.judge import PD, mean
    from pytest_pd.evals.runner import Job, Side, run, samples_of

    plan, task = deployment.plan, "pd_arithmetic"
    spec = read_eval("shipped", HERE)
    few = {task: spec.tasks[task].model_copy(update={"limit": 5})}
    job = Job(
        spec.model_copy(update={"tasks": few}),
        plan.served_model,
        plan.model_path,
        (Side(PD, plan.url),),
        deployment.run_dir / "evals",
    )
    run(job)
    samples = samples_of(job, task)[PD]
    return f"lm-eval scores {mean(samples):g} over {len(samples)} samples"


def identity(recipe: Recipe) -> list[str]:
    """Return where the programs are and, of an installation of ours, what is in it.

    Raises:
        EngineMissing: a program is not on this machine.
    """
    lines = [f"{recipe.name} {recipe.version}: {recipe.summary}"]
    for name in recipe.programs:
        found = install.require(name, recipe.name)
        lines.append(f"  {name}: {_origin(found, recipe)}")
    marker = install.marker(recipe)
    versions = marker.get("versions") if marker else None
    if isinstance(versions, Mapping):
        said = ", ".join(f"{name} {version}" for name, version in versions.items())
        lines.append(f"  {said}")
    return lines


def _origin(program: str, recipe: Recipe) -> str:
    ours = Path(program).parent == paths.bin_dir()
    return str(install.home(recipe)) if ours else f"{program} (yours, from PATH)"


def ask(deployment: Deployment) -> str:
    """Send one prompt whose answer is known and return what came of it.

    Raises:
        ProvisionError: no answer, or a wrong one where the tokens are true.
    """
    plan = deployment.plan
    prompt = make_recall("check", length_tokens=100)
    body = {
        "model": plan.served_model,
        "prompt": prompt.text,
        "max_tokens": 8,
        "temperature": 0,
    }
    answer = request(f"{plan.url}/v1/completions", body=body, timeout_s=ASK_TIMEOUT_S)
    record = answer.json()
    if not answer.ok or not isinstance(record, dict):
        raise ProvisionError(
            f"{plan.url} answered {answer.status}: {answer.text[:300]}"
        )
    text = str(record["choices"][0]["text"])
    if not plan.expected.true_tokens:
        return f"answers (it invents its tokens): {text!r}"
    if not prompt.expected_text.startswith(text) or not text:
        raise ProvisionError(
            f"{plan.url} answers {text!r}; right is {prompt.expected_text!r}."
        )
    return f"answers rightly: {text!r}"
