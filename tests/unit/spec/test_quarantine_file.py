"""The quarantine file: strict, dated, and about whole test ids."""

from __future__ import annotations

from datetime import date

import pytest
import yaml

from pytest_pd.errors import SpecError
from pytest_pd.spec.quarantine import read_quarantine

TODAY = date(2026, 11, 21)
ENTRY = {
    "test": "s/test_a.py::test_one[topo:k2*",
    "owner": "ana@example.com",
    "reason": "issue 7",
    "expires": "2026-12-01",
}


@pytest.fixture
def quarantine(tmp_path):
    def _write(**changes):
        rows = {k: v for k, v in {**ENTRY, **changes}.items() if v is not None}
        path = tmp_path / "quarantine.yaml"
        path.write_text(yaml.safe_dump({"quarantine": [rows]}))
        return read_quarantine(path, TODAY)

    return _write


def test_an_entry_means_the_tests_it_names(quarantine):
    known = quarantine()

    assert known.of("s/test_a.py::test_one[topo:k2_2p1d]").owner == "ana@example.com"
    assert known.of("s/test_a.py::test_one[topo:other]") is None
    assert known.of("s/test_a.py::test_two[topo:k2]") is None


def test_brackets_are_letters(quarantine):
    assert quarantine(test="a[bc]d").of("abd") is None


def test_an_expired_entry_is_an_error(quarantine):
    with pytest.raises(SpecError, match=r"ana@example.com.*expired on 2026-11-01"):
        quarantine(expires="2026-11-01")


def test_the_last_day_counts(tmp_path):
    path = tmp_path / "q.yaml"
    path.write_text(
        "quarantine:\n- {test: abc, owner: ana, reason: why, expires: 2026-11-21}\n"
    )

    assert read_quarantine(path, TODAY).of("abc")


def test_no_entry_runs_for_ever(quarantine):
    with pytest.raises(SpecError, match="more than 90 days"):
        quarantine(expires="2030-01-01")


@pytest.mark.parametrize("key", ["owner", "reason", "expires", "test"])
def test_every_key_is_needed(quarantine, key):
    with pytest.raises(SpecError, match=key):
        quarantine(**{key: None})


def test_an_empty_owner_is_none(quarantine):
    with pytest.raises(SpecError, match="owner"):
        quarantine(owner="   ")
