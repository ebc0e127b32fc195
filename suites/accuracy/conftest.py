"""Which tasks are scored: those of the evals that belong to each topology."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_pd.errors import InvalidRun, PdError
from pytest_pd.evals.baseline import how_to_add
from pytest_pd.evals.evaluate import Evaluation
from pytest_pd.evals.gate import Outcome
from pytest_pd.evals.judge import TaskResult
from pytest_pd.fixtures.score import evals_on
from pytest_pd.plugin.session import SESSION


def cases(config: pytest.Config, topology_id: str, kind: str) -> dict[str, str]:
    """Return ``eval:task`` to level, for tasks with a gate of `kind`; "" means any."""
    return {
        f"{name}:{task}": spec.level
        for name, spec in evals_on(config, topology_id).items()
        for task in spec.tasks
        if not kind or spec.gate(task, kind)
    }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests that take ``scored`` one case per task, by their gate's kind."""
    if "scored" not in metafunc.fixturenames:
        return
    kind = kind_of(metafunc.definition)
    found: dict[str, str] = {}
    for topology_id in metafunc.config.stash[SESSION].choice.specs:
        found |= cases(metafunc.config, topology_id, kind)
    params = [
        pytest.param(name, marks=pytest.mark.pd_level(level))
        for name, level in found.items()
    ]
    metafunc.parametrize("scored", params, indirect=True)


def kind_of(item: pytest.Item) -> str:
    """Return the kind of gate that a test asserts; "" when it asserts none."""
    mark = item.get_closest_marker("pd_gate")
    return str(mark.args[0]) if mark else ""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pd_gate(kind): asserts this gate of each task")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out tasks that are not the item's topology's, and skipped-empty sets."""
    items[:] = [item for item in items if _belongs(config, item)]


def _belongs(config: pytest.Config, item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    if "scored" not in params or "topology" not in params:
        return True
    return params["scored"] in cases(config, params["topology"], kind_of(item))


@pytest.fixture
def scored(
    request: pytest.FixtureRequest, score: Callable[[str], Evaluation]
) -> TaskResult:
    """What lm-eval and the gates say about the task that the parameter names."""
    name, _, task = request.param.partition(":")
    found = score(name)
    if missing := found.left_out.get(task):
        pytest.skip(f"{task}: the topology has not: {', '.join(missing)}")
    result = found.results[task]
    if isinstance(result, PdError):
        raise result
    return result


@pytest.fixture
def passes(
    request: pytest.FixtureRequest, score: Callable[[str], Evaluation]
) -> Callable[[TaskResult], None]:
    """Assert the gate that the test is marked with.

    A gate that cannot tell makes the run invalid, one without a score to hold
    against is an error that says how to add it: neither is green.
    """
    kind = kind_of(request.node)
    name = request.node.callspec.params["scored"].partition(":")[0]

    def _passes(result: TaskResult) -> None:
        if kind not in result.gates:  # workers without an API
            pytest.skip("no worker answers whole requests; see `against: stored`")
        answer = result.gates[kind]
        if answer.outcome is Outcome.UNKNOWN:
            found = score(name)
            raise how_to_add(found.spec, result.task, found.subject)
        if answer.outcome is Outcome.CANNOT_TELL:
            raise InvalidRun(
                str(answer),
                hint="take more samples (limit), or promise less (largest_drop)",
            )
        assert answer.outcome is Outcome.PASSED, str(answer)

    return _passes
