"""Measures one point as it has to be: calibrated, once more if too coarse, judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pytest_pd.errors import PdError
from pytest_pd.load.calibrate import Calibration, Rhythm
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.result import LoadResult
from pytest_pd.measure.instrument import ERROR_SHARE, calibrated

Run = Callable[[Sequence[Prompt]], LoadResult]
Calibrate = Callable[[Rhythm, bool], Calibration]
"""Takes a rhythm, and whether a cached calibration is good enough."""


def measure_point(
    run: Run,
    make_prompts: Callable[[], Sequence[Prompt]],
    calibrate: Calibrate | None,
    *,
    error_share: float = ERROR_SHARE,
    max_attempts: int = 2,
) -> LoadResult:
    """Return a run with its calibration; reasons say whether it holds.

    A run that does not hold is done once more, with a fresh calibration and prompts
    of its own: a neighbour's burst of load passes, a host that is too slow does not.
    A run in which a request failed, or brought nothing, is not repeated: that is the
    server's answer. Where the repeat breaks, the run before it is the result, and one
    of its reasons says so.

    Args:
        calibrate: None leaves the calibration out, for a step of a search.

    Raises:
        PdError, OSError: the first run broke.
    """
    result, attempt = run(make_prompts()), 1
    while result.counts().get("ok"):
        if calibrate is not None:
            result = _with_calibration(result, calibrate, attempt == 1, error_share)
        is_whole = set(result.counts()) == {"ok"}
        if result.is_valid or attempt == max_attempts or not is_whole:
            instrument = replace(result.instrument, attempts=attempt)
            return replace(result, instrument=instrument)
        try:
            result = run(make_prompts())
        except (PdError, OSError) as error:
            return _but(result, "no repeat of it could be measured", error)
        attempt += 1
    return result


def _but(result: LoadResult, what: str, error: PdError | OSError) -> LoadResult:
    """Return `result` with one reason more, in the words of `error`."""
    fact = error.fact if isinstance(error, PdError) else f"{error}."
    reason = f"{what}: {fact.removesuffix('.')}"
    return replace(result, reasons=(*result.reasons, reason))


def _with_calibration(
    result: LoadResult, calibrate: Calibrate, may_be_old: bool, error_share: float
) -> LoadResult:
    """Return `result` with its calibration, or with the reason why it has none."""
    try:
        calibration = calibrate(Rhythm.of(result), may_be_old)
    except (PdError, OSError) as error:
        return _but(result, "the instrument could not be calibrated", error)
    return calibrated(result, calibration, error_share=error_share)
