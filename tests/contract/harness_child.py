"""A harness to be killed: starts services that run for ever, then waits.

``python -m tests.contract.harness_child CLUSTER_JSON RUN_DIR RUN_ID``
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pytest_pd.provision import BACKENDS
from pytest_pd.provision.lease import held
from pytest_pd.provision.rundir import RunDir
from pytest_pd.spec.cluster import ClusterSpec
from tests.kit import plan_of, python

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"


def main() -> None:
    cluster = ClusterSpec.model_validate_json(sys.argv[1])
    run = RunDir(Path(sys.argv[2]))
    run.create()
    context = run.context(sys.argv[3], cluster.lease_ttl_s)
    plan = plan_of([python("one", SLEEPER), python("two", SLEEPER)])
    backend = BACKENDS.get(cluster.backend)()
    with (
        held(run.lease, cluster.lease_ttl_s),
        backend.allocate(cluster, plan, context) as allocation,
    ):
        for each in plan.services:
            allocation.start(each)
        print("started", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main()
