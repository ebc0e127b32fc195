"""What a user calls good enough: limits on the latencies of one request."""

from __future__ import annotations

from pydantic import Field

from pytest_pd.spec.base import Model


class SloSpec(Model):
    """Latency targets that goodput is counted under; each binds every request.

    Attributes:
        ttft_ms: Time to first token.
        tpot_ms: Mean time per output token after the first.
        itl_ms: Longest gap between two output events of the request.
        e2e_ms: Whole request.
    """

    ttft_ms: float | None = Field(default=None, gt=0)
    tpot_ms: float | None = Field(default=None, gt=0)
    itl_ms: float | None = Field(default=None, gt=0)
    e2e_ms: float | None = Field(default=None, gt=0)

    @property
    def is_empty(self) -> bool:
        return not any((self.ttft_ms, self.tpot_ms, self.itl_ms, self.e2e_ms))
