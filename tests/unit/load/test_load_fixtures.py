"""What the fixtures make of a load result: requests of others, and how far it is."""

from __future__ import annotations

import pytest

from pytest_pd.fixtures import load as fixtures
from pytest_pd.load.engine import Counters
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target


class Served:
    """Stands for a window in which the services counted so many requests."""

    def __init__(self, count: int) -> None:
        self.count = count

    def foreign_requests(self, own: int) -> int:
        return max(0, self.count - own)


def test_prompts_that_were_not_sent_hide_no_requests_of_others(truth):
    point = LoadPoint(duration_s=0.3, warmup=1, min_waves=1)
    prompts = [Prompt(text=f"a {k}", output_tokens=4) for k in range(1000)]
    result = run_load(Target(url=truth.url), point, prompts)
    sent = result.counts()["ok"] + 1

    assert fixtures.undisturbed(result, Served(sent)).is_valid
    disturbed = fixtures.undisturbed(result, Served(sent + 3))
    assert disturbed.reasons == ("3 requests of others were served meanwhile",)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (LoadPoint(requests=10, warmup=2), "4 of 10 done"),
        (LoadPoint(duration_s=60.0), "p: 4 done, 0 in flight, 0 failed"),
    ],
)
def test_progress_counts_what_ends_the_run(point, said, tmp_path, monkeypatch):
    monkeypatch.setattr(fixtures, "PROGRESS_EVERY_S", -1.0)
    diary = tmp_path / "bench.log"
    tick = fixtures.progress("p", point, 100_000, diary)

    tick(Counters())
    tick(Counters(done=4))

    assert said in diary.read_text()
