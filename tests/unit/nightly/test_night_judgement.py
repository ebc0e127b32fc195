"""Verdict, layer and exit code of a night, from what its attempts told."""

from __future__ import annotations

from datetime import date

import pytest

from pytest_pd.nightly.judgement import (
    CODES,
    LAYERS,
    Attempt,
    Gated,
    Verdict,
    judge_night,
    tells_time,
    to_retry,
)
from pytest_pd.report.outcome import TestOutcome
from pytest_pd.spec.quarantine import NOBODY, QuarantinedSpec, QuarantineSpec

KNOWN = QuarantineSpec(
    quarantine=(
        QuarantinedSpec(
            test="s.py::known*",
            owner="ana",
            reason="issue 7",
            expires=date(2026, 12, 1),
        ),
    )
)


def told(
    name="s.py::a", verdict="passed", layer="", reason="", when="call", topology="t"
):
    return TestOutcome(
        nodeid=name,
        topology=topology,
        verdict=verdict,
        when=when,
        duration_s=1.0,
        reason=reason,
        layer=layer,
    )


def attempt(*outcomes, exit_code=None, **fields):
    bad = any(o.verdict not in ("passed", "skipped") for o in outcomes)
    code = int(bad) if exit_code is None else exit_code
    return Attempt(exit_code=code, wall_s=9.0, outcomes=outcomes, **fields)


def judged(*attempts, known=NOBODY):
    return judge_night(attempts, known)


def test_a_green_night_is_zero():
    assert judged(attempt(told())).exit_code == 0


@pytest.mark.parametrize(("layer", "digit"), [(n, i + 1) for i, n in enumerate(LAYERS)])
def test_each_layer_has_its_code(layer, digit):
    failed = judged(attempt(told(verdict="failed", layer=layer)))
    invalid = judged(attempt(told(verdict="invalid", layer=layer)))

    assert failed.exit_code == 10 + digit
    assert invalid.exit_code == 20 + digit


def test_no_code_of_ours_is_one_of_pytest_but_zero_and_two():
    assert {code for code in CODES.values() if code < 10} == {0, 2}
    assert len(set(CODES.values())) == len(Verdict)


def test_what_was_found_names_the_night_before_what_kept_us_from_looking():
    night = judged(
        attempt(
            told(verdict="error", layer="infra"),
            told("s.py::b", "failed", "accuracy"),
        )
    )

    assert night.word == "failed (accuracy)"
    assert len(night.bad) == 2


def test_failed_counts_more_than_invalid():
    night = judged(
        attempt(
            told(verdict="invalid", layer="client"),
            told("s.py::b", "failed", "performance"),
        )
    )

    assert night.exit_code == 16


def test_a_worse_gate_is_performance():
    assert judged(attempt(told(), exit_code=1, gate="worse")).exit_code == 16


def test_a_gate_without_judgement_is_invalid():
    night = judged(attempt(told(), exit_code=1, gate="no judgement"))

    assert night.exit_code == 26


LATE = "not run: time limit (5 s of the job are left, 30 s are needed)"


def test_a_test_that_the_job_had_no_time_for_has_no_result():
    late = [told(f"s.py::b{k}", "skipped", reason=LATE) for k in range(200)]
    night = judge_night(
        [attempt(told(), *late)], NOBODY, ["s.py::a", *(o.nodeid for o in late)]
    )

    assert night.exit_code == 31
    assert len(night.missing) == 200
    assert night.notes == (
        "200 listed test(s) have no result, the first: s.py::b0",
        f"200 of them {LATE}",
    )
    assert not tells_time(attempt(told(), *late))


def test_a_retry_that_had_no_time_takes_no_result_away():
    broken = told(verdict="error", layer="infra", reason="node lost")
    night = judged(attempt(broken), attempt(told(verdict="skipped", reason=LATE)))

    assert night.word == "failed (infra)"
    assert [outcome.reason for outcome in night.bad] == ["node lost"]


def test_a_test_that_is_skipped_for_another_reason_has_a_result():
    night = judged(attempt(told(), told("s.py::b", "skipped", reason="no GPU here")))

    assert night.exit_code == 0


@pytest.mark.parametrize(("pytest_says", "code"), [(0, 0), (1, 14)])
def test_a_gate_that_cannot_tell_explains_no_failure(pytest_says, code):
    night = judged(attempt(told(), exit_code=pytest_says, gate="too noisy"))

    assert night.exit_code == code


def test_a_rerun_does_not_wash_a_worse_gate():
    night = judged(
        attempt(told(verdict="error", layer="infra"), gate="worse"),
        attempt(told(), gate="passed"),
    )

    assert night.exit_code == 16


def test_a_rerun_does_not_wash_a_gate_that_could_not_judge():
    night = judged(
        attempt(told(verdict="error", layer="infra"), gate="no judgement"),
        attempt(told(), gate="passed"),
    )

    assert night.exit_code == 26


def test_what_the_gate_says_of_all_attempts_counts():
    made = (
        attempt(told(verdict="error", layer="infra"), gate="passed"),
        attempt(told(), exit_code=1, gate="no judgement"),
    )
    night = judge_night(made, NOBODY, gate=Gated("passed", ("gate passed: 1 passed",)))

    assert night.exit_code == 0
    assert night.gate == ("gate passed: 1 passed",)


def test_infrastructure_that_came_back_is_green_and_told():
    night = judged(
        attempt(told(verdict="error", layer="infra", reason="node n3 is gone")),
        attempt(told()),
    )

    assert night.exit_code == 0
    assert night.flaky == {"s.py::a": "node n3 is gone"}


def test_quarantined_failures_are_neither_green_nor_red():
    night = judged(
        attempt(told(), told("s.py::known[1]", "failed", "server")), known=KNOWN
    )

    assert night.exit_code == 30
    assert [o.nodeid for o in night.quarantined] == ["s.py::known[1]"]
    assert night.bad == ()


def test_quarantine_hides_no_other_failure():
    night = judged(
        attempt(
            told(verdict="failed", layer="server"),
            told("s.py::known[1]", "failed", "server"),
        ),
        known=KNOWN,
    )

    assert night.exit_code == 13


def test_infrastructure_is_in_nobodys_quarantine():
    night = judged(attempt(told("s.py::known", "error", "infra")), known=KNOWN)

    assert night.exit_code == 11


def test_a_quarantined_test_that_passes_is_told():
    night = judged(attempt(told("s.py::known")), known=KNOWN)

    assert night.exit_code == 0
    assert any("remove the entry" in note for note in night.notes)


def test_an_entry_that_means_no_test_is_told():
    night = judged(attempt(told()), known=KNOWN)

    assert any("means no test" in note for note in night.notes)


def test_a_silent_topology_is_never_green():
    night = judged(attempt(told(), exit_code=1, silent=("k2",)))

    assert night.exit_code == 31
    assert "topology 'k2' reached no verdict" in night.notes


def test_a_topology_that_spoke_in_the_rerun_is_not_silent():
    night = judged(
        attempt(told(verdict="error", layer="infra"), silent=("t",)), attempt(told())
    )

    assert night.exit_code == 0


def test_only_skipped_tests_are_no_verdict():
    assert judged(attempt(told(verdict="skipped"))).exit_code == 31


def test_an_exit_code_that_nothing_explains_is_never_green():
    assert judged(attempt(told(), exit_code=1)).exit_code == 14


@pytest.mark.parametrize("second", [[], [told(verdict="failed", layer="server")]])
def test_a_verdict_that_nobody_knows_is_never_green(second):
    assert judged(attempt(told(verdict="rerun"), *second)).exit_code == 14


def test_a_rerun_that_ends_badly_without_a_bad_test_is_never_green():
    night = judged(
        attempt(told(verdict="error", layer="infra")), attempt(told(), exit_code=1)
    )

    assert night.exit_code == 14


def test_a_rerun_of_one_topology_leaves_the_others_silent_and_is_green():
    night = judged(
        attempt(told(verdict="error", layer="infra"), told("s.py::b", topology="k2")),
        attempt(told(), exit_code=1, silent=("k2",)),
    )

    assert night.exit_code == 0


def test_a_topology_that_was_silent_since_a_killed_attempt_is_never_green():
    night = judged(attempt(exit_code=-9), attempt(told(), exit_code=1, silent=("k2",)))

    assert night.exit_code == 31
    assert "topology 'k2' reached no verdict" in night.notes


def test_a_listed_test_without_a_result_is_never_green():
    made = attempt(told(verdict="error", layer="infra")), attempt(told())
    night = judge_night(made, NOBODY, ["s.py::a", "s.py::b", "s.py::c"])

    assert night.exit_code == 31
    assert night.missing == ("s.py::b", "s.py::c")
    assert "2 listed test(s) have no result, the first: s.py::b" in night.notes


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"exit_code": 2, "cut": True}, 33),
        ({"exit_code": 130}, 130),
        ({"exit_code": -9}, 11),
        ({"exit_code": 3}, 14),
    ],
    ids=["cut", "interrupted", "killed", "internal-error"],
)
def test_ends_that_no_test_tells_of(fields, code):
    assert judged(attempt(told(), **fields)).exit_code == code


def test_only_infrastructure_is_retried():
    tests = ["s.py::a", "s.py::b", "s.py::c"]
    first = attempt(
        told("s.py::a", "failed", "server"),
        told("s.py::b", "error", "infra"),
        told("s.py::c", "invalid", "client"),
    )

    assert to_retry(first, tests) == ("s.py::b",)


def test_failed_content_is_not_retried_though_infrastructure_broke_its_teardown():
    first = attempt(
        told(verdict="failed", layer="server"),
        told(verdict="error", layer="infra", when="teardown"),
    )

    assert to_retry(first, ["s.py::a"]) == ()
    assert judged(first).exit_code == 13


def test_tests_that_a_killed_pytest_left_are_retried():
    first = attempt(told("s.py::a"), exit_code=-9)

    assert to_retry(first, ["s.py::a", "s.py::b"]) == ("s.py::b",)


def test_tests_that_the_budget_cut_are_not_retried():
    first = attempt(told("s.py::a"), exit_code=-9, cut=True)

    assert to_retry(first, ["s.py::a", "s.py::b"]) == ()
