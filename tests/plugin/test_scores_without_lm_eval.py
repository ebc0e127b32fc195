"""Without lm-eval a topology that names evals is not green."""

from __future__ import annotations

import pytest

from pytest_pd.spec.locate import SHIPPED

SUITE = """
import pytest_pd.evals.evaluate as evals
from pytest_pd.errors import EngineMissing

def missing(*args, **more):
    raise EngineMissing("lm-eval is not here.", hint="install it")

evals.evaluate = missing

def test_score(score): score("shipped")
"""


@pytest.mark.parametrize(
    ("named", "outcome"),
    [("evals: [shipped]\n", {"failed": 1}), ("", {"skipped": 1})],
)
def test_lm_eval_is_needed_where_the_topology_names_evals(project, named, outcome):
    shipped = SHIPPED / "topologies" / "local_1p1d.yaml"
    path = project.pytester.path / "mine.yaml"
    path.write_text(
        shipped.read_text().replace("name: local_1p1d\n", "name: mine\n") + named
    )
    project.suite(SUITE)

    result = project.run("--pd-topology", str(path), "-rs")

    result.assert_outcomes(**outcome)
    result.stdout.fnmatch_lines(["*lm-eval is not here.*"])
