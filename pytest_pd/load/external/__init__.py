"""Load tools of other makes: run them, and read their results as our records.

Their times are taken in user space, as every event of such a result says. A tool that
keeps no time per event (guidellm) gives requests of two events: first and last.
"""

from __future__ import annotations

from pytest_pd.load.external.driver import (
    DRIVERS,
    Driver,
    check_demands,
    find_driver,
    run_external,
)

__all__ = ["DRIVERS", "Driver", "check_demands", "find_driver", "run_external"]
