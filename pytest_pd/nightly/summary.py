"""What people read in the morning: a page of Markdown, and the body of a webhook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pytest_pd.nightly.judgement import Attempt, Judgement
from pytest_pd.report.outcome import TestOutcome
from pytest_pd.report.redact import redact
from pytest_pd.spec.quarantine import QuarantineSpec

MOST_LISTED = 20


def counts(judgement: Judgement) -> str:
    """Return ``12 passed, 1 failed, 3 without a result``."""
    found = Counter(outcome.verdict for outcome in judgement.outcomes)
    if judgement.missing:
        found["without a result"] = len(judgement.missing)
    return ", ".join(f"{n} {word}" for word, n in found.most_common()) or "no test"


def summary(
    judgement: Judgement, attempts: Sequence[Attempt], known: QuarantineSpec
) -> str:
    """Return the page: verdict, what is not green, what is known, what was retried."""
    wall_s = sum(attempt.wall_s for attempt in attempts)
    lines = [
        f"# Night: {judgement.word}",
        "",
        f"{counts(judgement)}; {wall_s:.0f} s in {len(attempts)} attempt(s); "
        f"exit code {judgement.exit_code}",
        "",
    ]
    lines += _section("Not green", map(_line, judgement.bad))
    lines += _section(
        "In quarantine, and not green",
        (f"{_line(o)} {_excuse(o, known)}" for o in judgement.quarantined),
    )
    lines += _section(
        "Green after infrastructure broke them",
        (f"`{test}`: {reason}" for test, reason in judgement.flaky.items()),
    )
    lines += _section("Gate", judgement.gate)
    lines += _section("Notes", judgement.notes)
    lines += _section("Runs", (f"`{attempt.run_dir}`" for attempt in attempts))
    return "\n".join(lines) + "\n"


def _section(title: str, rows: Iterable[str]) -> list[str]:
    found = list(rows)
    if not found:
        return []
    shown = [f"- {row}" for row in found[:MOST_LISTED]]
    if len(found) > MOST_LISTED:
        shown.append(f"- and {len(found) - MOST_LISTED} more")
    return [f"## {title}", "", *shown, ""]


def _line(outcome: TestOutcome) -> str:
    return (
        f"**{outcome.verdict}** ({outcome.layer}) `{outcome.nodeid}`: "
        f"{outcome.reason.replace('<', '&lt;')}"
    )


def _excuse(outcome: TestOutcome, known: QuarantineSpec) -> str:
    one = known.of(outcome.nodeid)
    return f"({one.owner}, until {one.expires}: {one.reason})" if one else ""


def webhook_body(
    judgement: Judgement, name: str, secrets: Iterable[str]
) -> dict[str, Any]:
    """Return the JSON body: ``text`` is what Slack and Mattermost show.

    Args:
        name: Of the night.
        secrets: Masked wherever they stand. No log, path or host name is in the body.
    """
    hidden = tuple(secrets)
    reasons = [f"{o.verdict} ({o.layer}) {o.nodeid}: {o.reason}" for o in judgement.bad]
    reasons += [line for line in judgement.gate if line.startswith("worse:")]
    text = "\n".join([f"{name}: {judgement.word}; {counts(judgement)}", *reasons[:5]])
    return {
        "text": redact(text, hidden),
        "night": name,
        "verdict": str(judgement.verdict),
        "layer": judgement.layer,
        "exit_code": judgement.exit_code,
        "counts": dict(Counter(o.verdict for o in judgement.outcomes)),
        "quarantined": len(judgement.quarantined),
    }
