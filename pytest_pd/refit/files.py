"""Names on the command line to refit specs and cluster descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_pd.errors import SpecError
from pytest_pd.spec.file import build, read_document
from pytest_pd.spec.locate import Roots, find_one
from pytest_pd.spec.refit import RefitCluster, RefitScenario, RefitSpec, TwinSpec


def read_refit(word: str, roots: Roots | None = None) -> RefitSpec:
    """Return the refit file that a name or a path means."""
    found = find_one("refit", [word], roots or Roots())
    return build(read_document(found.path), RefitSpec)


def read_refit_cluster(word: str, roots: Roots | None = None) -> RefitCluster:
    """Return the cluster description (for bounds) that a name or a path means."""
    found = find_one("refit/clusters", [word], roots or Roots())
    return build(read_document(found.path), RefitCluster)


def parse_ids(words: Iterable[str]) -> tuple[int, ...]:
    """Return the ids in options such as ``1,6``; none for no option."""
    parts = [part.strip() for word in words for part in word.split(",")]
    try:
        return tuple(dict.fromkeys(int(part) for part in parts if part))
    except ValueError as error:
        raise SpecError(
            f"{','.join(words)!r} is no list of scenario numbers.",
            hint="for example -s 1,6",
        ) from error


def pick(spec: RefitSpec, ids: Sequence[int]) -> tuple[RefitScenario, ...]:
    """Return the scenarios with `ids`, all of them if there are none.

    Raises:
        SpecError: an id that the file does not have.
    """
    known = {scenario.id: scenario for scenario in spec.scenarios}
    for number in ids:
        if number not in known:
            raise SpecError(
                f"{spec.name} has no scenario {number}.",
                hint=f"one of: {', '.join(map(str, known))}",
            )
    return tuple(known[number] for number in ids) if ids else spec.scenarios


def twin(spec: RefitSpec, name: str) -> TwinSpec:
    """Return the scaled model of that name."""
    if name not in spec.twins:
        raise SpecError.unknown("twin", name, spec.twins)
    return spec.twins[name]
