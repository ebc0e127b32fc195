"""Which worker takes a request."""

from __future__ import annotations

from collections import Counter

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.proxy.policy import ConsistentHash, LeastLoaded, RoundRobin, make_policy
from pytest_pd.proxy.worker import Address, Role, Worker


def make_workers(number):
    return [
        Worker(Role.DECODE, Address(f"http://10.0.0.{index}:8000"))
        for index in range(number)
    ]


def test_round_robin_takes_each_in_turn():
    workers = make_workers(3)
    policy = RoundRobin()

    picked = [workers.index(policy.pick(workers, b"")) for _ in range(6)]

    assert picked == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(("prefill", "decode"), [(2, 2), (2, 4), (3, 2), (4, 4)])
def test_round_robin_lets_every_pair_meet_equally_often(prefill, decode):
    import math

    first, second = make_workers(prefill), make_workers(decode)
    turn = math.lcm(prefill, decode)
    one, two = RoundRobin(), RoundRobin(turn)

    pairs = Counter(
        (first.index(one.pick(first, b"")), second.index(two.pick(second, b"")))
        for _ in range(turn * decode)
    )

    assert len(pairs) == prefill * decode
    assert len(set(pairs.values())) == 1


@pytest.mark.parametrize("left", [1, 2, 3, 4])
def test_round_robin_is_even_over_the_workers_that_are_left(left):
    workers = make_workers(4)
    policy = RoundRobin(4)

    shares = Counter(policy.pick(workers[:left], b"").name for _ in range(12 * left))

    assert set(shares.values()) == {12}


def test_a_second_try_takes_no_turn():
    workers = make_workers(2)
    policy = RoundRobin()
    first = []
    for _ in range(6):
        first.append(policy.pick(workers, b""))
        if first[-1] is workers[0]:
            assert policy.pick(workers[1:], b"", again=True) is workers[1]

    assert [workers.index(worker) for worker in first] == [0, 1] * 3


def test_least_loaded_takes_the_idle_one():
    workers = make_workers(3)
    workers[0].active, workers[1].active, workers[2].active = 2, 1, 2

    assert LeastLoaded().pick(workers, b"") is workers[1]


def test_least_loaded_spreads_ties():
    workers = make_workers(3)
    policy = LeastLoaded()

    assert Counter(id(policy.pick(workers, b"")) for _ in range(9)) == {
        id(worker): 3 for worker in workers
    }


def test_a_key_stays_on_its_worker():
    workers = make_workers(8)
    one, two = ConsistentHash(workers), ConsistentHash(make_workers(8))

    for number in range(50):
        key = f"session:{number}".encode()
        assert one.pick(workers, key) is one.pick(workers, key)
        assert one.pick(workers, key).name == two.pick(two._workers, key).name


def test_keys_spread_over_all_workers():
    workers = make_workers(8)
    policy = ConsistentHash(workers)

    shares = Counter(
        policy.pick(workers, f"session:{n}".encode()).name for n in range(8000)
    )

    # 128 points a worker: shares differ by about 1/sqrt(128), 9 %; here 3.5 sigma.
    assert len(shares) == 8
    assert all(650 < share < 1350 for share in shares.values())


def test_only_the_keys_of_a_worker_that_left_move():
    workers = make_workers(4)
    policy = ConsistentHash(workers)
    keys = [f"session:{number}".encode() for number in range(500)]
    before = {key: policy.pick(workers, key) for key in keys}

    rest = workers[1:]
    moved = [key for key in keys if policy.pick(rest, key) is not before[key]]

    assert moved
    assert all(before[key] is workers[0] for key in moved)


def test_an_unknown_policy_names_the_known_ones():
    with pytest.raises(SpecError, match="round_robbin") as caught:
        make_policy("round_robbin", [])

    assert "round_robin" in str(caught.value)


async def test_a_session_stays_on_its_workers(pd):
    async with pd.world(prefill=3, decode=3, policy="consistent_hash") as world:
        answers = [
            await world.complete(headers={"x-session-id": "s1"}, prompt=f"turn {turn}")
            for turn in range(6)
        ]

        assert len({h["x-pd-prefill-worker"] for _, h, _ in answers}) == 1
        assert len({h["x-pd-decode-worker"] for _, h, _ in answers}) == 1


async def test_without_a_session_the_start_of_the_prompt_decides(pd):
    async with pd.world(decode=4, policy="consistent_hash") as world:
        same = [await world.complete(prompt="x" * 256 + str(n)) for n in range(5)]
        other = [await world.complete(prompt=f"{n} is another") for n in range(40)]

        assert len({h["x-pd-decode-worker"] for _, h, _ in same}) == 1
        assert len({h["x-pd-decode-worker"] for _, h, _ in other}) > 1


async def test_round_robin_counts_agree_with_what_workers_saw(pd):
    async with pd.world(prefill=2, decode=2) as world:
        pairs = Counter()
        for _ in range(8):
            _, headers, _ = await world.complete()
            pairs[headers["x-pd-prefill-worker"], headers["x-pd-decode-worker"]] += 1

        assert sorted(pairs.values()) == [2, 2, 2, 2]
        for role in ("prefill", "decode"):
            for fake in getattr(world, role):
                series = f'pd_proxy_{role}_requests_total{{worker="{fake.url}"}}'
                assert await world.metric(series) == len(fake.seen) == 4


async def test_a_rank_is_a_header_and_a_worker_of_its_own(pd):
    async with pd.world(ranks=(0, 1)) as world:
        names = set()
        for _ in range(4):
            _, headers, _ = await world.complete()
            names.add(headers["x-pd-decode-worker"])

        ranks = [seen.headers["X-data-parallel-rank"] for seen in world.decode[0].seen]
        assert sorted(ranks) == ["0", "0", "1", "1"]
        assert names == {f"{world.decode[0].url}@0", f"{world.decode[0].url}@1"}
