"""Record megatron-core's schedule of a refit file at full size, to compare ours with.

usage (a Python with torch and numpy; a megatron-core source tree, for example the
unpacked sdist of 0.19.2):

  PD_MEGATRON_SRC=megatron_core-0.19.2 PYTHONPATH=. python \\
      benchmarks/refit/record_megatron_schedule.py job.json ... > schedule.json

`job.json` is what ``refit.job.Job.save`` writes. One layer of each kind is planned
and counted as often as the model has it, which is exact: layers of a kind are alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from pytest_pd.refit.job import Job, load_job
from pytest_pd.refit.shape import TensorKind
from pytest_pd.refit.transfer import shards
from pytest_pd.refit.worker.megatron import SOURCE_VARIABLE, load_planner, rosters


def one_layer(kind: TensorKind) -> TensorKind:
    """Return the kind in its first layer only; pipeline stages would not allow it."""
    return replace(kind, layer_stop=kind.layer_start + 1)


def record(job: Job) -> dict[str, object]:
    """Return the schedule's matrices as vectors and a digest."""
    assert job.source.pp == job.target.pp == 1, "layers are alike only in one stage"
    start = time.perf_counter()
    planner = load_planner()
    elements = np.zeros((job.world, job.world), np.int64)
    messages = np.zeros_like(elements)
    for kind in job.kinds:
        some = replace(job, kinds=(one_layer(kind),))
        layers = kind.layer_stop - kind.layer_start
        sizes = {
            s.name: s.shape
            for r in range(job.world)
            for s in shards(some.kinds, some.target, r)
        }
        for _, dst, src, _, dst_slice, _, meta in planner._iter_global_transfer_ops(
            *rosters(planner, some)
        ):
            shape = sizes[meta.name]
            runs = zip(dst_slice, shape, strict=True)
            size = int(np.prod([len(range(*s.indices(n))) for s, n in runs]))
            elements[src, dst] += size * layers
            messages[src, dst] += layers
    return {
        "name": job.name,
        "seconds": round(time.perf_counter() - start, 2),
        "ranks": job.world,
        "messages": int(messages.sum()),
        "elements": int(elements.sum()),
        "local_elements": int(np.trace(elements)),
        "sent_elements": [int(n) for n in elements.sum(axis=1)],
        "received_elements": [int(n) for n in elements.sum(axis=0)],
        "elements_sha256": hashlib.sha256(elements.astype("<i8").tobytes()).hexdigest(),
        "messages_sha256": hashlib.sha256(messages.astype("<i8").tobytes()).hexdigest(),
    }


def main() -> None:
    """Record every job that the command line names."""
    tree = Path(os.environ[SOURCE_VARIABLE])
    planner = tree / "megatron/core/resharding/planner.py"
    utils = planner.with_name("utils.py")
    out = {
        "provenance": {
            "source": tree.name,
            "planner_sha256": hashlib.sha256(planner.read_bytes()).hexdigest(),
            "utils_sha256": hashlib.sha256(utils.read_bytes()).hexdigest(),
            "recorded_by": "benchmarks/refit/record_megatron_schedule.py",
        },
        "schedules": [record(load_job(Path(word))) for word in sys.argv[1:]],
    }
    json.dump(out, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
