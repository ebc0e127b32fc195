"""Plan and run weight refits: move a model from one parallel layout to another.

examples:
  pytest-pd refit plan kimi_k2                   all scenarios: bytes, bound, verdict
  pytest-pd refit plan kimi_k2 -s 6 --cluster gb200_nvl72 --picture six.svg
  pytest-pd refit run kimi_k2 --scaled tiny      run the CPU twins, check every bit
  pytest-pd refit run kimi_k2 -s 2 --scaled tiny --mutant stride_one     must fail
  pytest-pd refit run kimi_k2 --scaled tiny --launch slurm --out DIR     as Slurm jobs
  pytest-pd refit run kimi_k2 --scaled tiny --launch ssh --cluster FILE --out DIR
  pytest-pd refit launch kimi_k2 -s 1 --how megatron   Megatron's own benchmark
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pd.errors import PdError, SpecError
from pytest_pd.refit import files
from pytest_pd.spec.locate import split_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_pd.refit.job import Job, Ran
    from pytest_pd.spec.refit import RefitScenario, RefitSpec
    from pytest_pd.spec.site_ssh import SshSite

LAUNCHERS = ("sbatch", "salloc", "megatron", "script", "ssh")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    plan = actions.add_parser("plan", help="bytes, bounds and verdicts; runs nothing")
    _scenario_options(plan)
    plan.add_argument("--cluster", default="h100_ib", help="speeds (default: h100_ib)")
    plan.add_argument("--dtype", help="bf16, fp8, nvfp4; default: as in the file")
    plan.add_argument("--choice", default="megatron", help="megatron or nearest")
    plan.add_argument("--back", action="store_true", help="plan the way back too")
    plan.add_argument("--picture", type=Path, metavar="FILE", help=".svg or .png")
    launch = actions.add_parser("launch", help="print the command lines for a cluster")
    _scenario_options(launch)
    launch.add_argument("--how", choices=LAUNCHERS, default="sbatch", help="which")
    launch.add_argument("--python", default="python", help="interpreter on the nodes")
    launch.add_argument(
        "--job", type=Path, metavar="FILE", help="our worker: write its job here"
    )
    launch.add_argument("--engine", default="nccl", help="of our worker")
    launch.add_argument("--host", action="append", default=[], help="for ssh")
    parse = actions.add_parser("parse", help="judge what benchmark_refit.py printed")
    _scenario_options(parse)
    parse.add_argument("file", type=Path, help="its output")
    parse.add_argument("--cluster", default="h100_ib", help="speeds (default: h100_ib)")
    judge = actions.add_parser("judge", help="judge the reports of a job that has run")
    judge.add_argument("job", type=Path, help="its job file; reports lie beside it")
    judge.add_argument("--cluster", default="h100_ib", help="speeds (default: h100_ib)")
    run_one = actions.add_parser("run", help="move the weights and check every bit")
    _scenario_options(run_one)
    _run_options(run_one)


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scaled", metavar="TWIN", help="a twin of the file: tiny, mid, ..."
    )
    parser.add_argument("--engine", default="gloo", help="gloo or MODULE:NAME")
    parser.add_argument("--planner", default="own", help="own or megatron")
    parser.add_argument("--warmup", type=int, help="untimed refits after the first")
    parser.add_argument("--iterations", type=int, help="timed refits")
    parser.add_argument(
        "--plain", action="store_true", help="time a plain exchange of the bytes too"
    )
    parser.add_argument(
        "--opinion", action="append", default=[], help="round_trip or dcp; repeatable"
    )
    parser.add_argument("--mutant", default="", help="put a known fault in its place")
    parser.add_argument("--back", action="store_true", help="run the way back too")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep jobs and reports")
    parser.add_argument(
        "--launch", choices=("local", "slurm", "ssh"), default="local", help="where"
    )
    parser.add_argument(
        "--cluster", metavar="NAME|PATH", help="cluster file with the hosts of ssh"
    )
    parser.add_argument(
        "--per-node", type=int, default=8, help="ranks per node; not for local"
    )
    parser.add_argument(
        "--slurm-flag", action="append", default=[], metavar="FLAG", help="for srun"
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=600.0,
        help="for all runs, Slurm's queue included; ssh: how long a host may be silent",
    )


def _scenario_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="file of fixtures/refit, or a path")
    parser.add_argument(
        "-s", "--scenario", action="append", default=[], metavar="N", help="1 or 1,6"
    )


def run(args: argparse.Namespace) -> int:
    """Do what was asked; 0 if all is well."""
    actions = {"plan": _plan, "run": _run, "launch": _launch, "parse": _parse}
    return {**actions, "judge": _judge}[args.action](args)


def _judge(args: argparse.Namespace) -> int:
    from pytest_pd.refit.bound import make_bound
    from pytest_pd.refit.cells import make_cells
    from pytest_pd.refit.job import Ran, load_job
    from pytest_pd.refit.local import reports_of
    from pytest_pd.refit.outcome import outcome_table
    from pytest_pd.refit.run import judged

    if not args.job.is_file():
        raise SpecError(f"{args.job} is no file.", hint="give the job's JSON")
    try:
        job = load_job(args.job)
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(
            f"{args.job} is no job of a refit.", hint="give the job.json in its folder"
        ) from error
    cells = make_cells(job.kinds, job.source, job.target)
    cluster = files.read_refit_cluster(args.cluster)
    bound_s = make_bound(cells, cluster, job.element_bytes).bound_s
    on_cpu = job.device == "cpu"
    ran = Ran(reports_of(job))
    outcome = judged(job, ran, bound_s=None if on_cpu else bound_s)
    sys.stdout.write(outcome_table([outcome]) + "\n")
    return 0 if outcome.status == "verified" else 1


def _launch(args: argparse.Namespace) -> int:
    from pytest_pd.refit import launch

    spec = files.read_refit(args.name)
    if args.how == "ssh" and not args.job:
        raise SpecError("ssh starts our worker.", hint="add --job FILE, shared by all")
    for scenario in files.pick(spec, files.parse_ids(args.scenario)):
        argv = launch.benchmark_argv(spec.model, scenario, python=args.python)
        if args.job:
            job = _full_size_job(args, spec, scenario)
            argv = launch.worker_argv(args.job, python=args.python)
        if args.how == "ssh":
            lines = launch.ssh_argvs(
                job,
                str(args.job),
                split_words(args.host),
                scenario.gpus_per_node,
                python=args.python,
            )
            text = "\n".join(shlex.join(line) for line in lines)
        elif args.how == "script":
            reports = args.job.resolve().parent if args.job else None
            text = launch.sbatch_script(argv, reports=reports)
        elif args.how == "salloc":
            text = shlex.join(launch.salloc_argv(scenario))
        elif args.how == "sbatch":
            script = f"refit-{scenario.label}.sh"
            ranks = scenario.used_ranks if args.job else None
            text = shlex.join(launch.sbatch_argv(scenario, script, ranks=ranks))
        else:
            text = shlex.join(argv)
        sys.stdout.write(text.rstrip("\n") + "\n")
    return 0


def _full_size_job(
    args: argparse.Namespace, spec: RefitSpec, scenario: RefitScenario
) -> Job:
    from pytest_pd.refit.job import remove_reports
    from pytest_pd.refit.run import Settings, make_job

    if len(files.pick(spec, files.parse_ids(args.scenario))) > 1:
        raise SpecError("one job is of one scenario.", hint="add -s N")
    folder = args.job.resolve().parent
    settings = Settings(engine=args.engine, device="cuda", timeout_s=600)
    name = f"{spec.name}/{scenario.label}"
    job = make_job(name, spec.model, scenario, folder, settings)
    job = replace(job, rendezvous="env://")
    remove_reports(folder)
    job.save(args.job)
    return job


def _parse(args: argparse.Namespace) -> int:
    from pytest_pd.refit import external
    from pytest_pd.refit.plan import make_plan

    spec = files.read_refit(args.name)
    (scenario, *more) = files.pick(spec, files.parse_ids(args.scenario))
    if more:
        raise SpecError("one output is of one scenario.", hint="add -s N")
    output = external.parse_benchmark(args.file.read_text("utf-8", "replace"))
    if told := external.contradiction(output, scenario):
        raise SpecError(f"{args.file} is not of scenario {scenario.label}: {told}.")
    plan = make_plan(spec.model, scenario, files.read_refit_cluster(args.cluster))
    measured = external.external_measurement(output, plan.bound.bound_s)
    sys.stdout.write(
        f"scenario {scenario.label}: {measured.extra['status']}: mean "
        f"{output.mean_s * 1e3:.2f} ms, min {output.min_s * 1e3:.2f}, max "
        f"{output.max_s * 1e3:.2f} (rank 0, as printed); bound "
        f"{plan.bound.bound_s * 1e3:.0f} ms\n"
    )
    return 1 if measured.extra["status"] == "invalid" else 0


def _run(args: argparse.Namespace) -> int:
    from pytest_pd.refit.outcome import order_lines, outcome_table, save_outcomes
    from pytest_pd.refit.run import Settings, judged, run_jobs, twin_jobs

    spec = files.read_refit(args.name)
    if not args.scaled:
        raise SpecError(
            f"{spec.name} at full size does not run on this machine.",
            hint=f"add --scaled TWIN, one of: {', '.join(spec.twins)}",
        )
    scenarios = list(files.pick(spec, files.parse_ids(args.scenario)))
    if args.back:
        scenarios = [way for s in scenarios for way in (s, s.reversed())]
    settings = Settings(
        engine=args.engine,
        planner=args.planner,
        warmup=args.warmup,
        iterations=args.iterations,
        plain=args.plain,
        opinions=tuple(args.opinion),
        mutant=args.mutant,
    )
    with _folder(args.out) as (folder, keep):
        jobs = twin_jobs(spec, scenarios, args.scaled, folder, settings)
        (folder / "outcomes.json").unlink(missing_ok=True)
        if args.launch == "local":
            outcomes = run_jobs(jobs, folder.resolve(), timeout_s=args.timeout_s)
        else:
            found = _run_elsewhere(args, jobs, folder.resolve())
            outcomes = [judged(*pair) for pair in zip(jobs, found, strict=True)]
        if args.out:
            save_outcomes(outcomes, folder / "outcomes.json")
        sys.stdout.write(outcome_table(outcomes) + "\n" + order_lines(outcomes))
        if all(o.status == "verified" for o in outcomes):
            return 0
        keep()
        sys.stdout.write(f"logs and reports: {folder}\n")
        return 1


@contextmanager
def _folder(out: Path | None) -> Iterator[tuple[Path, Callable[[], object]]]:
    """Give a folder for jobs, and how to keep it if it is a passing one.

    It stays too when an error says to look there.
    """
    with ExitStack() as stack:
        folder = out or Path(tempfile.mkdtemp(prefix="pd-refit-"))
        if not out:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            yield folder, stack.pop_all
        except PdError as error:
            if folder.resolve() in Path(error.where or "").parents:
                stack.pop_all()
            raise


def _run_elsewhere(
    args: argparse.Namespace, jobs: Sequence[Job], folder: Path
) -> list[Ran]:
    if not args.out:
        raise SpecError(
            f"{args.launch} needs a folder that its nodes share.", hint="add --out DIR"
        )
    per_node, timeout_s = args.per_node, args.timeout_s
    if per_node < 1:
        raise SpecError(f"--per-node {per_node} places no rank.", hint="give 1 or more")
    if args.launch == "slurm":
        from pytest_pd.refit.slurm import run_slurm

        flags = args.slurm_flag
        return run_slurm(
            jobs, folder, per_node=per_node, timeout_s=timeout_s, extra=flags
        )
    from pytest_pd.refit.ssh import run_ssh

    site = _ssh_site(args.cluster)
    return run_ssh(jobs, folder, site, per_node=per_node, silent_s=timeout_s)


def _ssh_site(name: str | None) -> SshSite:
    from pytest_pd.spec.file import read_cluster
    from pytest_pd.spec.locate import find_one

    if not name:
        raise SpecError("ssh needs hosts.", hint="add --cluster FILE")
    site = read_cluster(find_one("clusters", [name]).path).ssh
    if site is None:
        raise SpecError(f"{name} has no SSH hosts.", hint="add ssh.hosts to it")
    return site


def _plan(args: argparse.Namespace) -> int:
    from pytest_pd.refit import picture, table
    from pytest_pd.refit.plan import make_plan
    from pytest_pd.spec.refit import DTYPE_BYTES, RefitScenario

    spec = files.read_refit(args.name)
    cluster = files.read_refit_cluster(args.cluster)
    scenarios = list(files.pick(spec, files.parse_ids(args.scenario)))
    if args.dtype is not None:
        if args.dtype not in DTYPE_BYTES:
            raise SpecError.unknown("dtype", args.dtype, DTYPE_BYTES)
        change = {"dtype": args.dtype}
        scenarios = [RefitScenario(**{**dict(s), **change}) for s in scenarios]
    if args.back:
        scenarios = [way for s in scenarios for way in (s, s.reversed())]
    plans = [make_plan(spec.model, s, cluster, choice=args.choice) for s in scenarios]
    text = table.page(plans[0]) if len(plans) == 1 else table.overview(plans)
    sys.stdout.write(text + "\n")
    if args.picture:
        if len(plans) != 1:
            raise SpecError("a picture shows one scenario.", hint="add -s N")
        picture.save(plans[0], args.picture)
        sys.stdout.write(f"picture: {args.picture}\n")
    return 0
