"""A new fault or a new check without its row in the fault matrix fails here."""

from __future__ import annotations

import pytest

from benchmarks.power import page
from benchmarks.power.cases import CASES, topology_of
from pytest_pd.proxy.fault import KINDS as PROXY_KINDS
from pytest_pd.proxy.fault import parse_faults as parse_proxy_faults
from pytest_pd.reference.faults import KINDS as ENGINE_KINDS
from pytest_pd.reference.faults import Fault
from pytest_pd.spec.topology import TopologySpec

BY_ID = {case.id: case for case in CASES}


@pytest.fixture(scope="module")
def found():
    return page.latest()


@pytest.mark.parametrize(
    ("program", "kinds"), [("reference", ENGINE_KINDS), ("proxy", PROXY_KINDS)]
)
def test_every_kind_of_fault_has_a_case(program, kinds):
    used = {case.fault["kind"] for case in CASES if case.program == program}

    assert used == set(kinds)


def test_no_two_cases_have_one_name():
    assert len(BY_ID) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_is_a_fault_that_can_be_committed(case):
    TopologySpec.model_validate(topology_of(case))
    if case.program == "proxy":
        import json

        assert parse_proxy_faults(json.dumps(dict(case.fault)))
    else:
        assert Fault.parse(case.fault)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_was_run_and_caught_by_what_must_catch_it(found, case):
    assert case.id in found, f"run benchmarks/power/run.py --only {case.id}"
    row = found[case.id]

    assert set(case.must) <= set(row["red"]), row["red"]
    assert row["red"] or case.blind
    assert row["commit"]
    assert row["utc"]


def test_every_check_was_red_under_a_fault(found):
    red = page.caught_by(found)
    never = [name for name in page.checks() if name not in red]

    assert sorted(never) == sorted(page.NEVER_RED)


def test_what_is_said_to_be_blind_is_blind(found):
    seen = {c.id: found[c.id]["red"] for c in CASES if c.blind and c.id in found}

    assert not any(seen.values()), seen


def test_no_fault_that_users_have_reported_is_blind():
    assert not [case.id for case in CASES if case.blind and case.reports]


def test_the_page_says_what_the_rows_say():
    assert page.PAGE.read_text() == page.write(), "run benchmarks/power/page.py"
