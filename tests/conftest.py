"""Settings of all tests: hypothesis that does not mind a busy machine; signals."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "busy",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("ci", parent=settings.get_profile("busy"), derandomize=True)
on_ci = os.environ.get("CI") or os.environ.get("PD_REQUIRE")
settings.load_profile("ci" if on_ci else "busy")

# A shell's background job, or nohup, ignores these, and every child inherits that:
# tests which send them would wait for nothing.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
