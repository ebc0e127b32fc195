"""One file, many topologies: what merges, what replaces, what is deleted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.spec.file import read_topologies, read_topology
from pytest_pd.spec.workload import WorkloadSpec

Write = Callable[..., Path]


def names(path: Path) -> list[str]:
    return [spec.name for spec in read_topologies(path)]


def test_a_file_without_variants_is_one_topology(write: Write) -> None:
    assert names(write()) == ["t"]


def test_mappings_merge_lists_replace_null_deletes(write: Write) -> None:
    path = write(
        "workloads: [a, b]\n"
        "budgets: {ready_s: 60, tests_s: 70}\n"
        "variants:\n"
        "  v:\n"
        "    workloads: [c]\n"
        "    budgets: {tests_s: 80}\n"
        "    router: {kind: proxy, policy: least_loaded}\n"
        "  w:\n"
        "    budgets: null\n"
    )

    base, v, w = read_topologies(path)

    assert base.workloads == ("a", "b")
    assert v.workloads == ("c",)
    assert (v.budgets.ready_s, v.budgets.tests_s) == (60, 80)
    assert v.router is not None
    assert v.router.policy == "least_loaded"
    assert w.budgets.ready_s is None


def test_variants_do_not_touch_the_base_or_each_other(write: Write) -> None:
    path = write(
        "variants:\n  a: {prefill: {env: {X: 1}}}\n  b: {prefill: {env: {Y: 2}}}\n"
    )

    base, a, b = read_topologies(path)

    assert base.prefill is not None
    assert base.prefill.env == {}
    assert a.prefill is not None
    assert a.prefill.env == {"X": "1"}
    assert b.prefill is not None
    assert b.prefill.env == {"Y": "2"}


def test_zip_goes_in_step_and_grid_in_all_combinations(write: Write) -> None:
    path = write(
        "matrix:\n"
        "  zip: {prefill.replicas: [1, 2], decode.replicas: [3, 4]}\n"
        "  grid: {level: [quick, full]}\n"
        '  name: "p{prefill.replicas}d{decode.replicas}_{level}"\n'
    )

    found = read_topologies(path)[1:]

    assert [spec.name for spec in found] == [
        "t_p1d3_quick",
        "t_p1d3_full",
        "t_p2d4_quick",
        "t_p2d4_full",
    ]
    assert found[3].decode is not None
    assert found[3].decode.replicas == 4


def test_a_point_can_bring_its_workloads(write: Write) -> None:
    path = write(
        "matrix:\n"
        "  zip:\n"
        "    decode.replicas: [1, 2]\n"
        "    workloads: [[small], [{name: w, input_tokens: 9, concurrency: [64]}]]\n"
        "  name: 'd{decode.replicas}'\n"
    )

    (workload,) = read_topology(path, "t_d2").workloads

    assert read_topology(path, "t_d1").workloads == ("small",)
    assert isinstance(workload, WorkloadSpec)
    assert [point.value for point in workload.concurrency] == [64]


def test_a_wrong_value_of_an_axis_is_told_on_its_line(write: Write) -> None:
    path = write("matrix:\n  grid:\n    level: [quick]\n    decode.tp: [1, x]\n")

    with pytest.raises(SpecError, match=r"t\.yaml:12: decode\.tp: .*got 'x'"):
        read_topologies(path)


def test_points_without_a_template_are_named_by_their_axes(write: Write) -> None:
    path = write("matrix: {grid: {decode.replicas: [1, 2]}}\n")

    assert names(path) == ["t", "t_decode_replicas_1", "t_decode_replicas_2"]


def test_an_abstract_base_is_not_a_topology(write: Write) -> None:
    path = write("abstract: true\nvariants: {a: {}, b: {}}\n")

    assert names(path) == ["t_a", "t_b"]


def test_a_topology_of_a_file_is_found_by_name(write: Write) -> None:
    path = write("variants: {big: {prefill: {replicas: 4}}}\n")

    assert read_topology(path).name == "t"
    assert read_topology(path, "t").name == "t"
    assert read_topology(path, "t_big").name == "t_big"


def test_a_file_whose_name_differs_answers_to_both(write: Write) -> None:
    path = write("variants: {big: {}}\n", name="other.yaml")

    assert read_topology(path, "other").name == "t"
    assert read_topology(path, "other_big").name == "other_big"
    assert read_topology(path, "t_big").name == "t_big"


def test_an_unknown_variant_is_refused_with_the_nearest(write: Write) -> None:
    path = write("variants: {big: {}}\n")

    with pytest.raises(SpecError, match="'t_bog' is not known") as caught:
        read_topology(path, "t_bog")

    assert "did you mean 't_big'?" in caught.value.hint


def test_a_mistake_in_a_variant_is_told_on_its_own_line(write: Write) -> None:
    path = write("variants:\n  v:\n    decode:\n      replcas: 2\n")

    with pytest.raises(SpecError) as caught:
        read_topologies(path)

    assert caught.value.fact == f"{path}:12: unknown key 'decode.replcas'."


def test_a_wrong_value_in_a_list_of_a_variant_has_its_line(write: Write) -> None:
    path = write(
        "variants:\n  v:\n    decode:\n      workers:\n      - {}\n      - {nod: 1}\n"
    )

    with pytest.raises(SpecError, match=r"t\.yaml:14: unknown key"):
        read_topologies(path)


@pytest.mark.parametrize(
    ("more", "fact"),
    [
        ("variants: [a]\n", "variants must be a mapping"),
        ("variants: {a: 1}\n", r"variants\.a must be a mapping"),
        ("matrix: [1]\n", "matrix must be a mapping"),
        ("matrix: {zip: {a: 1}}\n", r"matrix\.zip\.a must be a list"),
        ("matrix: {cross: {a: [1]}}\n", r"unknown key 'matrix\.cross'"),
        ("matrix: {zip: {a: [1], b: [1, 2]}}\n", "a has 1, b has 2"),
        ("matrix: {grid: {level: [full]}, name: '{x}'}\n", "axis 'x' is not known"),
        ("abstract: true\n", "abstract and has no variants"),
        (
            "variants: {level_full: {}}\nmatrix: {grid: {level: [full]}}\n",
            "'t_level_full' is given twice",
        ),
    ],
)
def test_what_cannot_unfold_is_refused(write: Write, more: str, fact: str) -> None:
    with pytest.raises(SpecError, match=fact):
        read_topologies(write(more))
