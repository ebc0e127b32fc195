"""The guard's program: what it takes for the end of a lease, and what it then does."""

from __future__ import annotations

import sys

import pytest

from pytest_pd.provision.kubernetes import cleaner


class Clock:
    now_s = 100.0

    def monotonic(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(cleaner, "time", clock)
    return clock


@pytest.fixture
def end(monkeypatch, clock):
    """Run the guard against answers to its questions; return what it deleted."""

    def _end(answers, ours=""):
        asked, deleted = iter(answers), []

        def call(method, path):
            if method == "GET":
                return next(asked)
            deleted.append(path)
            return 200, {}

        monkeypatch.setattr(cleaner, "call", call)
        monkeypatch.setattr(sys, "argv", ["cleaner", "ns", "lease", "3", ours])
        assert cleaner.main() == 0
        return deleted

    return _end


def renewed(text):
    return 200, {"spec": {"renewTime": text}}


LEASE = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/lease"


def test_a_lease_that_is_not_renewed_ends_the_run(end, clock):
    began_s = clock.now_s

    assert end([renewed("1")] * 50) == [LEASE]
    assert 3 < clock.now_s - began_s < 5


def test_renewals_keep_the_run(end, clock):
    began_s = clock.now_s
    end([*(renewed(str(n)) for n in range(40)), *[renewed("40")] * 50])

    assert clock.now_s - began_s > 40 * 0.75


def test_a_lease_that_stays_gone_ends_the_run(end, clock):
    began_s = clock.now_s

    assert end([(404, {})] * 40) == [LEASE]
    assert 5 <= clock.now_s - began_s < 10


def test_a_lease_that_was_gone_for_a_moment_ends_nothing(end, clock):
    began_s = clock.now_s
    on = [renewed(str(number)) for number in range(2, 22)]
    end([renewed("1"), (404, {}), (404, {}), *on, *[renewed("22")] * 50])

    assert clock.now_s - began_s > 20 * 0.75


def test_a_server_that_does_not_answer_says_nothing(end, clock):
    began_s = clock.now_s
    end([renewed("1"), *[(0, {})] * 40, *[renewed("2")] * 50])

    assert clock.now_s - began_s > 40 * 0.75


def test_after_an_outage_there_is_time_to_renew(end, clock):
    began_s = clock.now_s
    old = [renewed("1")] * 2
    end([*old, *[(0, {})] * 20, *old, renewed("2"), *[renewed("2")] * 50])

    assert clock.now_s - began_s > (2 + 20 + 2) * 0.75 + 3


def test_a_server_that_answers_now_and_then_does_not_keep_the_run(end):
    flapping = [renewed("1"), (0, {})] * 50

    assert end(flapping) == [LEASE]


def test_one_slow_answer_ends_nothing(clock):
    watch = cleaner.Watch(3.0)
    assert not watch.over("1")
    clock.sleep(60.0)

    assert not watch.over("1")


def test_our_namespace_goes_too(end):
    assert end([(404, {})] * 40, ours="ns") == [LEASE, "/api/v1/namespaces/ns"]
