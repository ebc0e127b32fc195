"""Which refits run: every scenario of Kimi K2, or those of ``--pd-scenario 1,6``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_pd.errors import EngineMissing, InvalidRun
from pytest_pd.plugin.marks import is_within, level_of
from pytest_pd.refit.files import parse_ids, pick, read_refit, twin
from pytest_pd.refit.judge import Outcome
from pytest_pd.refit.local import worker_python
from pytest_pd.refit.run import Settings, run_jobs, twin_jobs
from pytest_pd.spec.refit import RefitScenario, RefitSpec

SMALLEST = 3
"""Scenario whose twin moves the fewest bytes: the one of the quick level."""


def asked_for(config: pytest.Config) -> tuple[int, ...]:
    """Return the scenarios that were named."""
    return parse_ids([config.getoption("pd_scenario") or ""])


def ways(spec: RefitSpec, config: pytest.Config) -> Iterator[RefitScenario]:
    """Yield scenarios, and the way back where both models share the GPUs."""
    for scenario in pick(spec, asked_for(config)):
        yield scenario
        if scenario.collocated:
            yield scenario.reversed()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "scenario" not in metafunc.fixturenames:
        return
    named = asked_for(metafunc.config)
    params = []
    for scenario in ways(read_refit("kimi_k2"), metafunc.config):
        quick = bool(named) or (scenario.id == SMALLEST and not scenario.back)
        level = pytest.mark.pd_level("quick" if quick else "standard")
        marks = () if metafunc.definition.get_closest_marker("pd_level") else (level,)
        params.append(pytest.param(scenario, id=scenario.label, marks=marks))
    metafunc.parametrize("scenario", params)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Apply ``--pd-level``; refits belong to no topology that names a default."""
    limit = config.getoption("pd_level") or "quick"
    mine = [item for item in items if item.path.parent == Path(__file__).parent]
    left = [item for item in mine if not is_within(level_of(item), limit)]
    if left:
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session")
def refit_spec() -> RefitSpec:
    """The file that the scenarios are of."""
    return read_refit("kimi_k2")


@pytest.fixture(scope="session")
def _refit_python(request: pytest.FixtureRequest) -> str:
    try:
        return worker_python()
    except EngineMissing as error:
        if asked_for(request.config):
            raise
        pytest.skip(f"{error.fact} {error.hint}")


Move = Callable[..., Outcome]


@pytest.fixture
def move(_refit_python: str, refit_spec: RefitSpec, tmp_path: Path) -> Move:
    """Run a scenario's twin: ``move(scenario, "tiny", **settings)`` -> `Outcome`."""

    def _move(scenario: RefitScenario, size: str, **settings: object) -> Outcome:
        twin(refit_spec, size)
        wanted = Settings(**settings)  # type: ignore[arg-type]
        jobs = twin_jobs(refit_spec, [scenario], size, tmp_path, wanted)
        (outcome,) = run_jobs(jobs, tmp_path)
        return outcome

    return _move


@pytest.fixture
def believed() -> Callable[[Outcome], Outcome]:
    """Return the outcome if its times can be believed; fail or be invalid if not."""

    def _believed(outcome: Outcome) -> Outcome:
        if outcome.status == "invalid":
            raise InvalidRun("\n".join(outcome.problems))
        assert outcome.status == "verified", "\n".join(outcome.problems)
        return outcome

    return _believed
