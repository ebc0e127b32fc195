"""What a person types and reads: tables, pictures, launch lines, parsed benchmarks."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.refit import external, launch, names
from pytest_pd.refit.files import pick, read_refit, read_refit_cluster
from pytest_pd.refit.job import Job, RankReport, load_job
from pytest_pd.refit.picture import matrix_gb, svg
from pytest_pd.refit.plan import make_plan
from pytest_pd.refit.run import Settings, make_job, planned_traffic, twin_jobs
from pytest_pd.refit.slurm import srun_argv
from pytest_pd.refit.tensors import grids, tensor_kinds

KIMI = read_refit("kimi_k2")

PRINTED = """\
some warning of a library
================================================================================
REFIT BENCHMARK - COLLOCATED MODE
================================================================================
World size: 128
Source:      TP=16, PP=1, EP=8, DP=8
Destination: TP=8, PP=1, EP=16, DP=16
Model: 61L, 7168H, 64 heads, vocab=163840
MoE: 384 experts, top-8
Backend: nccl
================================================================================

Building source model...
================================================================================
RESULTS
================================================================================
Mean: 812.34 ms
Min:  801.00 ms
Max:  833.10 ms
================================================================================
"""


def words(line):
    return tuple(line.split())


def one(number):
    return pick(KIMI, [number])[0]


def test_plan_prints_all_scenarios_with_bound_and_verdict(capsys):
    assert main(["refit", "plan", "kimi_k2"]) == 0

    out = capsys.readouterr().out
    assert "1,026,408,232,448 parameters" in out
    assert out.count("IMPOSSIBLE") == 7
    assert "order by bound:  6 < 7 < 4 < 5 < 3 < 1 = 2" in out
    assert "ranks 96-127 are idle" in out
    assert "scenario 2 does not fit" in out


def test_plan_of_one_scenario_on_another_cluster(capsys):
    assert (
        main(["refit", "plan", "kimi_k2", "-s", "6", "--cluster", "gb200_nvl72"]) == 0
    )

    out = capsys.readouterr().out
    assert "23/23/19" in out
    assert "partly" in out
    assert "messages" in out


def test_plan_of_the_way_back(capsys):
    assert main(["refit", "plan", "kimi_k2", "-s", "6,7", "--back"]) == 0

    assert "7-back" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plan", "kimi"], "did you mean 'kimi_k2'"),
        (["plan", "kimi_k2", "-s", "8"], "no scenario 8"),
        (["plan", "kimi_k2", "--cluster", "h100"], "did you mean 'h100_ib'"),
        (["plan", "kimi_k2", "--dtype", "bf15"], "did you mean 'bf16'"),
        (["plan", "kimi_k2", "--picture", "x.svg"], "one scenario"),
        (["plan", "kimi_k2", "-s", "1", "--picture", "x.gif"], "neither .svg nor .png"),
        (["run", "kimi_k2"], "add --scaled TWIN"),
        (["run", "kimi_k2", "--scaled", "huge"], "'huge'"),
        (["run", "kimi_k2", "--scaled", "tiny", "--opinion", "dpc"], "'dpc'"),
        (["run", "kimi_k2", "--scaled", "tiny", "--mutant", "nop"], "'noop'"),
        (["run", "kimi_k2", "--scaled", "tiny", "--planner", "owm"], "'own'"),
        (["run", "kimi_k2", "--scaled", "tiny", "--engine", "glo"], "'gloo'"),
        (["run", "kimi_k2", "--scaled", "tiny", "--iterations", "0"], "1 or more"),
        (["run", "kimi_k2", "--scaled", "tiny", "--warmup", "-1"], "0 or more"),
        (["launch", "kimi_k2", "-s", "1", "--job", "{file}", "--engine", "ncl"], "ncl"),
        (["parse", "kimi_k2", "{file}"], "add -s N"),
        (["launch", "kimi_k2", "-s", "1", "--how", "ssh"], "add --job FILE"),
        (["launch", "kimi_k2", "--job", "{file}"], "one job is of one scenario"),
    ],
)
def test_mistakes_are_one_message_and_no_traceback(words, told, capsys, tmp_path):
    (tmp_path / "out.txt").write_text(PRINTED)
    words = [word.format(file=tmp_path / "out.txt") for word in words]

    assert main(["refit", *words]) == 2

    err = capsys.readouterr().err
    assert told in err
    assert "Traceback" not in err


def test_the_picture_has_one_square_per_pair_that_exchanges_bytes(tmp_path):
    plan = make_plan(KIMI.model, one(6), read_refit_cluster("h100_ib"))

    root = ET.fromstring(svg(plan))

    squares = [e for e in root.iter() if e.tag.endswith("rect") and len(e)]
    assert len(squares) == (matrix_gb(plan) > 0).sum()
    assert "TP16EP8" in root[0].text


def test_the_picture_is_written_where_asked(tmp_path, capsys):
    path = tmp_path / "six.svg"

    assert main(["refit", "plan", "kimi_k2", "-s", "6", "--picture", str(path)]) == 0

    assert path.read_text().startswith("<svg")
    assert str(path) in capsys.readouterr().out


def test_a_png_without_matplotlib_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    path = str(tmp_path / "six.png")

    assert main(["refit", "plan", "kimi_k2", "-s", "6", "--picture", path]) == 2

    assert "pytest-pd[plots]" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "nodes"), [(1, 12), (6, 16)])
def test_salloc_is_the_published_line(number, nodes):
    assert launch.salloc_argv(one(number)) == words(
        f"salloc --nodes={nodes} --ntasks-per-node=8 --gpus-per-node=8 --time=1:00:00"
    )


@pytest.mark.parametrize("number", [1, 6])
def test_sbatch_takes_the_nodes_that_megatron_needs(number):
    assert launch.sbatch_argv(one(number), "benchmark_refit_kimi_k2.sh") == words(
        "sbatch --nodes=16 --ntasks-per-node=8 --gpus-per-node=8 --exclusive "
        "--time=1:00:00 benchmark_refit_kimi_k2.sh"
    )


def test_the_published_flags_of_scenario_1_and_both_expert_sizes():
    assert launch.layout_flags(one(1)) == words(
        "--tensor-model-parallel-size 8 --pipeline-model-parallel-size 1 "
        "--expert-model-parallel-size 8 --expert-tensor-parallel-size 8 "
        "--rl-inference-tensor-model-parallel-size 8 "
        "--rl-inference-pipeline-model-parallel-size 1 "
        "--rl-inference-expert-model-parallel-size 4 "
        "--rl-inference-expert-tensor-model-parallel-size 8"
    )


def test_megatrons_benchmark_gets_the_whole_model():
    argv = launch.benchmark_argv(KIMI.model, one(6), python="python3")

    line = " ".join(argv)
    assert line.startswith(
        "python3 examples/rl/benchmark_refit.py --refit-mode collocated "
        "--refit-method nccl --tensor-model-parallel-size 16 "
    )
    for flag in (
        "--rl-inference-expert-tensor-model-parallel-size 8",
        "--num-benchmark-warmup 2 --num-benchmark-iterations 10",
        "--num-layers 61 --hidden-size 7168",
        "--multi-latent-attention --q-lora-rank 1536 --kv-lora-rank 512",
        "--num-experts 384 --moe-ffn-hidden-size 2048 --moe-router-topk 8",
        "--moe-layer-freq [0]*1+[1]*60",
        "--moe-shared-expert-intermediate-size 2048",
        "--untie-embeddings-and-output-weights",
    ):
        assert flag in line


def test_a_dense_model_has_no_expert_flags():
    llama = read_refit("llama_3_1_8b")

    line = " ".join(launch.benchmark_argv(llama.model, llama.scenarios[0]))

    assert "--num-query-groups 8" in line
    assert "--num-experts" not in line
    assert "--pipeline-model-parallel-size 2" in line


def test_the_batch_script_quotes_what_a_shell_would_expand():
    text = launch.sbatch_script(launch.benchmark_argv(KIMI.model, one(6)))

    assert text.startswith("#!/bin/bash\nset -eu\nsrun --mpi=none bash -c '")
    assert "NVSHMEM_MAX_CTAS=2" in text
    assert "RANK=$SLURM_PROCID" in text


def kimi_job(tmp_path, **settings):
    (job,) = twin_jobs(KIMI, [one(6)], "tiny", tmp_path, Settings(**settings))
    return job


def test_ssh_starts_one_worker_per_rank(tmp_path):
    lines = launch.ssh_argvs(
        kimi_job(tmp_path), "/shared/my job.json", ["a", "b"], 4, python="python3"
    )

    assert len(lines) == 8
    assert lines[5] == (
        *("ssh", "-o", "BatchMode=yes", "b", "--"),
        "env RANK=5 LOCAL_RANK=1 WORLD_SIZE=8 MASTER_ADDR=a MASTER_PORT=29500 "
        "NVSHMEM_MAX_CTAS=2 python3 -m pytest_pd.refit.worker '/shared/my job.json'",
    )


def test_too_few_hosts_are_refused_with_the_sum(tmp_path):
    with pytest.raises(SpecError, match="8 ranks / 4 per host = 2 hosts; 1"):
        launch.ssh_argvs(kimi_job(tmp_path), "j", ["a"], 4, python="python3")


def test_srun_makes_a_job_with_one_task_per_node(tmp_path):
    job = kimi_job(tmp_path)

    argv = srun_argv(
        job,
        ("python3", "-m", "x"),
        import_path="/im port",
        per_node=4,
        time_min=5,
        extra=("--partition=gpu",),
    )

    assert argv[:-1] == words(
        "srun --mpi=none --kill-on-bad-exit=1 --nodes=2 --ntasks-per-node=1 "
        "--cpus-per-task=4 --time=5 --job-name=pd-refit-0-scenario-6 "
        "--partition=gpu bash -c"
    )
    assert "export PYTHONPATH='/im port'; exec python3 -m x" in argv[-1]


def test_launch_prints_the_lines(capsys):
    assert main(["refit", "launch", "kimi_k2", "-s", "1", "--how", "salloc"]) == 0

    assert capsys.readouterr().out.startswith("salloc --nodes=12 ")


def test_launch_by_ssh_writes_the_job_and_prints_one_line_per_rank(tmp_path, capsys):
    job = tmp_path / "job.json"
    line = ["refit", "launch", "kimi_k2", "-s", "1", "--how", "ssh"]
    hosts = ",".join(f"h{n:02}" for n in range(12))

    assert main([*line, "--job", str(job), "--host", hosts]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 96
    assert lines[95].startswith(
        "ssh -o BatchMode=yes h11 -- 'env RANK=95 LOCAL_RANK=7 "
    )
    saved = load_job(job)
    assert (saved.engine, saved.device, saved.rendezvous) == ("nccl", "cuda", "env://")
    assert saved.world == 96


def save_reports(job, folder):
    traffic = planned_traffic(job).elements * job.element_bytes
    for rank in range(job.world):
        times = [0.030] * job.iterations
        report = RankReport(rank, samples_s=times, launch=job.launch)
        report.sent = dict(enumerate(map(int, traffic[rank])))
        report.received = dict(enumerate(map(int, traffic[:, rank])))
        report.save(folder)


def test_reports_under_the_bound_of_the_cluster_are_judged_invalid(tmp_path, capsys):
    path = tmp_path / "job.json"
    assert main(["refit", "launch", "kimi_k2", "-s", "6", "--job", str(path)]) == 0
    save_reports(load_job(path), tmp_path)

    assert main(["refit", "judge", str(path)]) == 1
    out = capsys.readouterr().out
    assert "an iteration took 30.000 ms, under the lower bound of 185" in out

    assert main(["refit", "judge", str(path), "--cluster", "gb200_nvl72_64"]) == 0
    assert "verified" in capsys.readouterr().out


def test_a_job_without_reports_is_told(tmp_path, capsys):
    path = tmp_path / "job.json"
    assert main(["refit", "launch", "kimi_k2", "-s", "6", "--job", str(path)]) == 0

    assert main(["refit", "judge", str(path)]) == 2

    assert "no rank gave a report" in capsys.readouterr().err


LAUNCH = ["refit", "launch", "kimi_k2", "-s", "6", "--job"]


def test_a_launch_removes_the_reports_of_an_earlier_one(tmp_path):
    path = tmp_path / "job.json"
    assert main([*LAUNCH, str(path)]) == 0
    save_reports(load_job(path), tmp_path)

    assert main([*LAUNCH, str(path)]) == 0

    assert [left.name for left in tmp_path.iterdir()] == ["job.json"]


def test_reports_of_another_launch_are_not_judged(tmp_path, capsys):
    path = tmp_path / "job.json"
    assert main([*LAUNCH, str(path)]) == 0
    earlier = load_job(path)
    assert main([*LAUNCH, str(path)]) == 0
    save_reports(earlier, tmp_path)

    assert main(["refit", "judge", str(path), "--cluster", "gb200_nvl72_64"]) == 2

    told = f"no rank gave a report of this launch; {earlier.world} of another launch"
    assert told in capsys.readouterr().err


def test_the_script_of_a_job_removes_the_reports_of_an_earlier_submission(
    tmp_path, capsys
):
    folder = tmp_path / "my jobs"
    folder.mkdir()
    assert main([*LAUNCH, str(folder / "job.json"), "--how", "script"]) == 0

    lines = capsys.readouterr().out.splitlines()

    assert lines[2] == f"rm -f '{folder}'/rank-*.json"
    assert lines[3].startswith("srun ")


def test_our_worker_needs_no_idle_ranks(tmp_path, capsys):
    line = ["refit", "launch", "kimi_k2", "-s", "1", "--job", str(tmp_path / "j.json")]

    assert main(line) == 0

    assert capsys.readouterr().out.startswith("sbatch --nodes=12 ")


def test_printed_times_are_read_and_stay_unverified():
    output = external.parse_benchmark(PRINTED)

    made = external.external_measurement(output, bound_s=0.185)

    times_s = (output.mean_s, output.min_s, output.max_s)
    assert times_s == pytest.approx((0.81234, 0.801, 0.8331))
    assert output.source == (16, 1, 8, 8)
    assert made.extra["status"] == "unverified"


def test_printed_times_under_the_bound_are_invalid():
    output = external.parse_benchmark(PRINTED)

    assert external.external_measurement(output, 0.9).extra["status"] == "invalid"


@pytest.mark.parametrize("line", ["Mean:", "World size:", "Destination:", "Backend:"])
def test_output_that_was_cut_is_refused(line):
    text = "\n".join(x for x in PRINTED.splitlines() if not x.startswith(line))

    with pytest.raises(MeasurementError, match="has no"):
        external.parse_benchmark(text)


def test_a_mean_outside_of_min_and_max_is_refused():
    with pytest.raises(MeasurementError, match="not between"):
        external.parse_benchmark(PRINTED.replace("812.34", "912.34"))


def test_output_of_another_scenario_is_told():
    output = external.parse_benchmark(PRINTED)

    assert external.contradiction(output, one(6)) == ""
    told = external.contradiction(output, one(7))
    assert told == "source TP=16, wanted 32; source EP=8, wanted 4; " + (
        "target TP=8, wanted 16; target EP=16, wanted 8"
    )


def test_parse_judges_a_file(tmp_path, capsys):
    path = tmp_path / "out.txt"
    path.write_text(PRINTED)

    assert main(["refit", "parse", "kimi_k2", str(path), "-s", "6"]) == 0
    assert "unverified: mean 812.34 ms" in capsys.readouterr().out

    path.write_text(PRINTED.replace("801.00", "20.00"))
    assert main(["refit", "parse", "kimi_k2", str(path), "-s", "6"]) == 1
    assert "invalid" in capsys.readouterr().out


def test_a_dtype_that_cannot_be_moved_is_refused(tmp_path):
    scenario = one(1).model_copy(update={"dtype": "nvfp4"})

    with pytest.raises(SpecError, match="can be planned, not run"):
        make_job("x", KIMI.model, scenario, tmp_path)


def test_an_engine_of_the_users_own_is_taken_as_it_is(tmp_path):
    assert kimi_job(tmp_path, engine="my.module:engine").engine == "my.module:engine"


def test_every_mutant_that_may_be_named_is_made_by_the_worker():
    root = Path(names.__file__).parent
    (made,) = re.findall(
        r"MUTANTS.*= (\{[^}]*\})", (root / "worker/mutant.py").read_text()
    )

    assert tuple(re.findall(r'"(\w+)":', made)) == names.MUTANTS


def test_a_job_with_megatrons_planner_expects_megatrons_traffic(tmp_path):
    assert kimi_job(tmp_path, planner="megatron").choice == "megatron"
    assert kimi_job(tmp_path).choice == "nearest"


def test_a_job_knows_its_processes(tmp_path):
    source, target = grids(one(1), KIMI.model)
    job = Job("x", tensor_kinds(KIMI.model), source, target, "", "")

    assert job.world == 96
    assert replace(job, target=replace(target, ranks=64)).world == 128
