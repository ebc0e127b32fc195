"""Join JUnit shards and reruns: the last result counts, the first failure is kept.

The only place that knows junitparser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from junitparser import (
    Error,
    Failure,
    JUnitXml,
    JUnitXmlError,
    Properties,
    Property,
    Skipped,
    TestCase,
    TestSuite,
)

from pytest_pd.errors import MeasurementError
from pytest_pd.report.outcome import TestOutcome, settled

FLAKY = "flaky"
FIRST_FAILURE = "first_failure"
PYTEST = "pytest"
"""Name of the suite that pytest writes."""
RESULTS = {
    "failed": Failure,
    "invalid": Failure,
    "error": Error,
    "blocked": Error,
    "skipped": Skipped,
}
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Merged:
    """What came out of a merge.

    Attributes:
        tests, bad, skipped: Number of test cases; `bad` failed or broke.
        flaky: Names of those that failed first and passed at last.
    """

    tests: int
    bad: int
    skipped: int
    flaky: tuple[str, ...]


def merge_junit(files: Sequence[Path], into: Path) -> Merged:
    """Join `files`, in the order given, and write `into` in one step.

    A test is known by suite, class and name. Of the results of several files the last
    counts; a test that failed first and passed at last gets the properties ``flaky``
    and ``first_failure``. Results of one file belong together.

    Raises:
        MeasurementError: no file, or one that is no JUnit XML.
    """
    if not files:
        raise MeasurementError("No JUnit file to merge.", hint="run with --junitxml")
    suites: dict[str, TestSuite] = {}
    last: dict[Key, TestCase] = {}
    first_bad: dict[Key, str] = {}
    for file in files:
        here: dict[Key, TestCase] = {}
        for suite in _suites(file):
            name = str(suite.name or "")
            for case in suite:
                key = (name, str(case.classname), str(case.name))
                here[key] = _joined(here[key], case) if key in here else case
                if reason := _reason(case):
                    first_bad.setdefault(key, reason)
            suites.setdefault(name, _empty(suite))
        last |= here
    for (name, _, _), case in last.items():
        suites[name].append(case)  # add_testcase counts all cases anew
    flaky = [key for key in first_bad if _is_green(last[key])]
    for key in flaky:
        _set(last[key], FLAKY, "true")
        _set(last[key], FIRST_FAILURE, first_bad[key])
    _write(suites.values(), into)
    return Merged(
        tests=len(last),
        bad=sum(bool(_reason(case)) for case in last.values()),
        skipped=sum(case.is_skipped for case in last.values()),
        flaky=tuple(f"{key[1]}::{key[2]}" for key in flaky),
    )


def is_junit(path: Path) -> bool:
    """Tell whether there is a whole file; a pytest that was killed leaves none."""
    with suppress(MeasurementError):
        return bool(_suites(path))
    return False


def write_outcomes(outcomes: Iterable[TestOutcome], into: Path) -> None:
    """Write the cases that pytest would have written, with the reasons alone."""
    suite = TestSuite(PYTEST)
    for outcome in settled(outcomes):
        suite.add_testcase(_case(outcome))
    _write([suite], into)


def _case(outcome: TestOutcome) -> TestCase:
    # class and name are cut from the id as pytest does it: merged cases meet
    address, bracket, params = outcome.nodeid.partition("[")
    module, *names = address.split("::")
    *path, name = [module.removesuffix(".py").replace("/", "."), *names]
    case = TestCase(
        _legal(name + bracket + params), _legal(".".join(path)), outcome.duration_s
    )
    if kind := RESULTS.get(outcome.verdict):
        case.result = [kind(_legal(outcome.reason))]
    return case


def _legal(text: str) -> str:
    """Return what XML can hold of a text."""
    return ILLEGAL.sub("?", text)


def _suites(file: Path) -> list[TestSuite]:
    try:
        found: Any = JUnitXml.fromfile(str(file))
    except (OSError, ParseError, JUnitXmlError) as error:
        raise MeasurementError(
            f"{str(file)!r} is no JUnit XML: {error}.",
            hint="a run that was killed leaves a torn file: leave it out",
        ) from error
    return [found] if isinstance(found, TestSuite) else list(found)


def _empty(suite: TestSuite) -> TestSuite:
    """Return a suite with the name and the properties of `suite`, no cases."""
    made = TestSuite(suite.name)
    for attribute in ("hostname", "timestamp"):
        if value := getattr(suite, attribute):
            setattr(made, attribute, value)
    for one in suite.properties():
        made.add_property(one.name, one.value)
    return made


def _reason(case: TestCase) -> str:
    """Return why a case is not green; empty when it is."""
    for result in case.result:
        if isinstance(result, Failure | Error):
            return str(result.message or result.text or "failed").strip()
    return ""


def _joined(first: TestCase, second: TestCase) -> TestCase:
    """Return one case of two that pytest wrote for a test: its call and teardown."""
    first.result = [*first.result, *second.result]
    for one in second.child(Properties) or ():
        _set(first, one.name, one.value)
    return first


def _is_green(case: TestCase) -> bool:
    return not _reason(case) and not case.is_skipped


def _set(case: TestCase, name: str, value: str) -> None:
    properties = case.child(Properties)
    if properties is None:
        properties = Properties()
        case.append(properties)
    properties.add_property(Property(name, value))


def _write(suites: Iterable[TestSuite], into: Path) -> None:
    merged = JUnitXml()
    for suite in suites:
        suite.update_statistics()
        merged.append(suite)
    merged.update_statistics()
    into.parent.mkdir(parents=True, exist_ok=True)
    partial = into.with_name(into.name + ".partial")
    merged.write(str(partial))
    partial.replace(into)
