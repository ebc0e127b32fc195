"""One night from the list of tests to the exit code."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pytest_pd.errors import PdError, SpecError
from pytest_pd.nightly.book import (
    RECORD,
    newest_was_stopped,
    read_times,
    record_of,
    write_record,
)
from pytest_pd.nightly.budget import Estimate, estimate
from pytest_pd.nightly.judgement import (
    CODES,
    Attempt,
    Gated,
    Judgement,
    Verdict,
    judge_night,
    nothing_run,
    to_retry,
)
from pytest_pd.nightly.launch import Listed, list_tests, run_tests
from pytest_pd.nightly.summary import summary, webhook_body
from pytest_pd.nightly.webhook import post
from pytest_pd.provision.rundir import make_run_id, run_path
from pytest_pd.report.redact import redact, secrets_in
from pytest_pd.spec.quarantine import NOBODY, QuarantineSpec, read_quarantine

OURS = ("--junitxml", "--junit-xml", "--pd-run-dir", "--run-dir", "--collect-only")
"""Options of pytest that a night sets itself."""
LISTING_S = 60.0
"""Collecting may take so long, however small the budget."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for.

    Attributes:
        words: Arguments of pytest.
        budget_s: No longer than this; None: computed from earlier nights.
        retries: How often tests that infrastructure broke are run again.
        nights, runs: Folders of the records and of the runs.
        webhook: Name of the variable that holds the address; empty for none.
        junit: Also write the merged JUnit file here.
    """

    words: tuple[str, ...]
    budget_s: float | None = None
    retries: int = 1
    quarantine: Path | None = None
    nights: Path = Path("nights")
    runs: Path = Path("runs")
    webhook: str = ""
    junit: Path | None = None


def spend(wishes: Wishes, say: Callable[[str], None]) -> int:
    """Run a night and return its exit code.

    Raises:
        SpecError: arguments, quarantine or webhook are wrong; nothing was started.
    """
    check_words(wishes.words)
    clear_junit(wishes.junit)
    now = datetime.now(UTC)
    folder = run_path(wishes.nights, make_run_id(), now).absolute()
    folder.mkdir(parents=True)
    book, began_s = Book(wishes, folder, say), time.monotonic()
    try:
        book.address = webhook_address(wishes.webhook, os.environ)
        # no test needs it, and what is not there stands in no output of theirs
        os.environ.pop(wishes.webhook, None)
        book.known = _quarantine(wishes.quarantine, now)
        limit_s = wishes.budget_s and max(wishes.budget_s, LISTING_S)
        listed = list_tests(wishes.words, folder, limit_s)
    except TimeoutError as error:
        return book.end(nothing_run(Verdict.CUT, f"{error}: nothing was started"))
    except SpecError as error:
        why = redact(str(error), (book.address, *secrets_in(os.environ)))
        book.close(nothing_run(Verdict.UNSTARTED, why))
        say(f"night: {Verdict.UNSTARTED}, {folder}")
        raise
    expected = _expected(listed, wishes.nights)
    say(f"night: {expected}")
    stopped = newest_was_stopped(wishes.nights)
    if stopped:
        say("night: the newest night was cut or refused: its times stop no other")
    elif _is_too_long(expected, wishes.budget_s):
        why = f"over the budget of {wishes.budget_s:g} s: nothing was started"
        return book.end(nothing_run(Verdict.REFUSED, f"{why}; {expected}"))
    if wishes.budget_s:
        limit_s = max(0.0, wishes.budget_s - (time.monotonic() - began_s))
    else:
        limit_s = None if stopped else expected.limit_s
    attempts = _attempts(wishes, folder, listed, limit_s, say)
    if not attempts:
        why = "the first attempt could not be made: nothing is known of its tests"
        return book.end(nothing_run(Verdict.SILENT, why))
    gate = _gate(attempts)
    return book.end(judge_night(attempts, book.known, listed.tests, gate), attempts)


@dataclass(slots=True)
class Book:
    """Where a night is written down, and who hears of it."""

    wishes: Wishes
    folder: Path
    say: Callable[[str], None]
    known: QuarantineSpec = NOBODY
    address: str = ""

    def close(
        self, judgement: Judgement, attempts: Sequence[Attempt] = ()
    ) -> Judgement:
        """Write record, summary and JUnit, and tell the webhook.

        Returns:
            The judgement; not a green one where it could not be written down.
        """
        try:
            self._write_page(judgement, attempts)
            record = record_of(judgement, attempts, self.wishes.words)
            write_record(self.folder / RECORD, record)
        except OSError as error:
            judgement = _unwritten(judgement, error)
            with suppress(OSError):
                self._write_page(judgement, attempts)
        for trouble in _tell(
            self.wishes, self.folder, judgement, attempts, self.address
        ):
            self.say(f"night: {trouble}")
        return judgement

    def _write_page(self, judgement: Judgement, attempts: Sequence[Attempt]) -> None:
        said = summary(judgement, attempts, self.known)
        # a word of the command line may hold bytes that are no UTF-8
        text = said.encode("utf-8", "backslashreplace").decode()
        (self.folder / "summary.md").write_text(text, encoding="utf-8")

    def end(self, judgement: Judgement, attempts: Sequence[Attempt] = ()) -> int:
        """Close the night, say how it was and return its exit code."""
        told = self.close(judgement, attempts)
        text, code = summary(told, attempts, self.known), told.exit_code
        self.say(f"\n{text}\nnight: {told.word}, exit code {code}, {self.folder}")
        return code


def _unwritten(judgement: Judgement, error: OSError) -> Judgement:
    """Return the judgement of a night that its folder cannot keep."""
    notes = (*judgement.notes, f"the night cannot be written down: {error}")
    if judgement.exit_code:
        return replace(judgement, notes=notes)
    return replace(judgement, verdict=Verdict.INVALID, layer="infra", notes=notes)


def clear_junit(path: Path | None) -> None:
    """Remove the file of an earlier night, so that nobody takes it for this one's.

    Raises:
        SpecError: it cannot be removed, so it could not be written either.
    """
    try:
        if path is not None:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise SpecError(
            f"{str(path)!r} cannot be written: {error.strerror}.",
            hint="--junit takes the name of a file",
        ) from error


def check_words(words: Sequence[str]) -> None:
    """Refuse arguments that a night sets itself.

    Raises:
        SpecError: names the first.
    """
    for word in words:
        if word.partition("=")[0] in OURS:
            raise SpecError(
                f"A night sets {word.partition('=')[0]} itself.",
                hint="leave it out; --junit FILE and --runs DIR of pytest-pd nightly "
                "say where files go",
            )


def webhook_address(variable: str, environ: Mapping[str, str]) -> str:
    """Return the address that a variable holds; empty when none is wanted.

    Raises:
        SpecError: the variable is not set, or holds no http(s) address.
    """
    if not variable:
        return ""
    found = environ.get(variable, "")
    if not found.startswith(("https://", "http://")):
        named = variable if variable.isidentifier() else "What was named"
        raise SpecError(
            f"{named} holds no web address.",
            hint="--webhook-env takes the NAME of a variable that does",
        )
    return found


def _quarantine(path: Path | None, now: datetime) -> QuarantineSpec:
    return read_quarantine(path, now.date()) if path else NOBODY


def _expected(listed: Listed, nights: Path) -> Estimate:
    return estimate(listed.tests, len(listed.topologies), read_times(nights))


def _is_too_long(expected: Estimate, budget_s: float | None) -> bool:
    known = budget_s is not None and expected.total_s is not None
    return known and expected.total_s > budget_s  # type: ignore[operator]


def _attempts(
    wishes: Wishes,
    folder: Path,
    listed: Listed,
    left_s: float | None,
    say: Callable[[str], None],
) -> list[Attempt]:
    """Run all, then again what infrastructure broke, while there is time.

    Args:
        left_s: Seconds until all has to be over; None: as long as it takes.

    Returns:
        Those that could be made: what one has found is not lost with the next.
    """
    if left_s is not None:
        say(f"night: ends after {left_s:.0f} s at the latest")
    made: list[Attempt] = []
    only: tuple[str, ...] = ()
    for number in range(1, wishes.retries + 2):
        try:
            attempt = run_tests(
                wishes.words,
                folder / f"attempt-{number}",
                wishes.runs.absolute() / f"{folder.name}-{number}",
                only=only,
                limit_s=left_s,
            )
        except OSError as error:
            say(f"night: attempt {number} cannot be made: {error}")
            break
        made.append(attempt)
        only = to_retry(attempt, only or listed.tests)
        left_s = None if left_s is None else left_s - attempt.wall_s
        out_of_time = attempt.cut or (left_s is not None and left_s <= 0)
        if not only or out_of_time or attempt.exit_code == CODES[Verdict.INTERRUPTED]:
            break
        if number <= wishes.retries:
            say(f"night: infrastructure broke {len(only)} test(s): once more")
    return made


def _gate(attempts: Sequence[Attempt]) -> Gated | None:
    """Judge the figures of several attempts once; None where one was judged already.

    A retry alone has few figures, and the attempt before it is no baseline for it.
    """
    files = [attempt.gate_file for attempt in attempts if attempt.gate_file]
    if len(attempts) < 2 or not files:
        return None
    from pytest_pd.report.gated import gated

    lines, word = gated(Path(files[-1]), [Path(each.run_dir) for each in attempts])
    return Gated(word, tuple(lines))


def _tell(
    wishes: Wishes,
    folder: Path,
    judgement: Judgement,
    attempts: Sequence[Attempt],
    address: str,
) -> list[str]:
    """Merge JUnit and tell the webhook; return what went wrong there."""
    told = []
    if attempts:
        from pytest_pd.report.junit import merge_junit

        targets = filter(None, (folder / "junit.xml", wishes.junit))
        try:
            files = list(_junit_files(folder, attempts))
            for target in targets:
                merge_junit(files, target)
        except (PdError, OSError) as error:
            told.append(f"no JUnit file: {error}")
    if address:
        body = webhook_body(judgement, folder.name, (address, *secrets_in(os.environ)))
        told.append(post(address, body))
    return [line for line in told if line]


def _junit_files(folder: Path, attempts: Sequence[Attempt]) -> Iterator[Path]:
    """Yield a file an attempt; pytest writes its own at its end, if it comes there."""
    from pytest_pd.report.junit import is_junit, write_outcomes

    for number, attempt in enumerate(attempts, start=1):
        path = folder / f"attempt-{number}" / "junit.xml"
        if not is_junit(path):
            write_outcomes(attempt.outcomes, path)
        yield path
