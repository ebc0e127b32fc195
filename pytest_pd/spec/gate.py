"""What a run may not be slower than: baseline runs and limits by metric."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from pytest_pd.spec.base import Args, Model, Positive
from pytest_pd.spec.document import read_document
from pytest_pd.spec.file import build

Share = Annotated[float, Field(gt=0, lt=1)]


def _with_homes(words: Args) -> Args:
    for word in words:
        try:
            Path(word).expanduser()
        except RuntimeError:
            raise ValueError(f"nobody here has the home of {word!r}") from None
    return words


Places = Annotated[Args, AfterValidator(_with_homes)]


class LimitSpec(Model):
    """Limit of one metric.

    Attributes:
        max_increase: Share by which the figure may grow; bigger is worse.
        statistic: ``mean``, ``p50``, ``p90``, ``p99``; the metric's own if absent.
    """

    max_increase: float = Field(gt=0)
    statistic: str | None = Field(default=None, pattern=r"^(mean|p\d{1,2}(\.\d+)?)$")


class GateSpec(Model):
    """A gate.

    Attributes:
        baseline: Folders or globs of runs, and files of accepted figures (.yaml),
            relative to the file.
        keep: Only the newest so many of them count, by name, for each test and point.
        metrics: Metric to its limit; others are not judged.
        alpha: Chance that a run in which nothing changed fails anywhere at all.
        jitter: Assumed scatter from run to run, corrected by the baseline.
        fail_on_noise: Fail when it is too noisy to tell.
        fail_on_missing: Fail when a figure has no baseline, or the run lacks one that
            the baseline has.
    """

    baseline: Places
    keep: Positive = 10
    metrics: dict[str, LimitSpec] = Field(min_length=1)
    alpha: Share = 0.02
    jitter: Share = 0.03
    fail_on_noise: bool = False
    fail_on_missing: bool = False


def read_gate(path: Path) -> GateSpec:
    """Read a gate file.

    Raises:
        SpecError: what is wrong, with file and line.
    """
    return build(read_document(path), GateSpec)
