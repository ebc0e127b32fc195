"""Load processes on several nodes of a Slurm job make one record."""

from pytest_pd.load.bench import Bench
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.target import Target
from pytest_pd.load.truth_process import truth_server
from tests.e2e.slurm_kit import cluster, running_slurm, session


def test_a_shard_on_each_node(tmp_path):
    point = LoadPoint(concurrency=4, requests=16, min_waves=1)
    prompts = [Prompt(text=f"a {k}", output_tokens=8) for k in range(16)]
    with (
        running_slurm(tmp_path / "slurm", 2) as site,
        session(site, tmp_path / "run", cluster(), nodes=2) as made,
        truth_server("--ttft-ms", "20", "--itl-ms", "5") as server,
    ):
        place = made.allocation
        first, second = (place.load_command(node) for node in ("node0", "node1"))
        bench = Bench(first, place.load_env(), [second])
        result = bench.run(Target(url=server.url), point, prompts, shards=2)
        bench.close()

    assert first != second
    assert result.counts() == {"ok": 16}
    assert result.instrument.shards == 2
    assert result.instrument.stamp_source == "kernel"
    assert [(result.rows()["shard"] == k).sum() for k in (0, 1)] == [8, 8]
    meant = result.rows()["intended_ns"]
    assert meant[0] == meant[1], "the first request of each node: a common start"
