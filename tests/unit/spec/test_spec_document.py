"""YAML as we read it: strict, with lines, and with the scalars of YAML 1.2."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pd.errors import SpecError
from pytest_pd.spec.document import dump, parse_document, read_document

HERE = Path("x.yaml")


def data(text: str) -> object:
    return parse_document(text, HERE).data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("true", True),
        ("12:30:00", "12:30:00"),
        ("1e5", 1e5),
        ("0x10", 16),
        ("0o17", 15),
        ("007", 7),
        ("2026-11-21", "2026-11-21"),
        ("~", None),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = data(f"key: {text}")

    assert found == {"key": value}
    assert type(found["key"]) is type(value)  # type: ignore[index]


def test_a_key_given_twice_names_both_lines() -> None:
    with pytest.raises(SpecError) as caught:
        data("a: 1\nb: {}\na: 2\n")

    assert "'a' is given twice, on lines 1 and 3" in caught.value.fact
    assert caught.value.where == "x.yaml:3"


def test_a_nested_key_given_twice_is_named_with_its_path() -> None:
    with pytest.raises(SpecError, match=r"'prefill\.env\.X' is given twice"):
        data("prefill:\n  env:\n    X: 1\n    Y: 2\n    X: 3\n")


def test_a_key_given_twice_inside_a_list_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'workers\.1\.node' is given twice"):
        data("workers:\n  - {node: 1}\n  - {node: 1, node: 2}\n")


def test_the_same_key_in_two_mappings_is_fine() -> None:
    assert data("a: {x: 1}\nb: {x: 2}") == {"a": {"x": 1}, "b": {"x": 2}}


def test_anchors_and_merges_work() -> None:
    found = data("base: &b {x: 1, y: 2}\nnew: {<<: *b, y: 3}\n")

    assert found == {"base": {"x": 1, "y": 2}, "new": {"x": 1, "y": 3}}


def test_lines_are_those_of_keys_and_items() -> None:
    document = parse_document("a: 1\nb:\n  c: [1,\n    2]\n", HERE)

    assert document.where(("b", "c")) == "x.yaml:3"
    assert document.where(("b", "c", 1)) == "x.yaml:4"
    assert document.where(("b", "nothing", "here")) == "x.yaml:2"


def test_what_is_not_yaml_is_told_with_its_line() -> None:
    with pytest.raises(SpecError, match=r"x\.yaml:[23]: not YAML"):
        data("a: 1\nb: [1, 2\nc: 3: 4\n")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!env", "!!set"])
def test_tags_are_refused(tag: str) -> None:
    with pytest.raises(SpecError, match="not YAML of data"):
        data(f"a: {tag} [echo]")


def test_a_key_that_is_no_word_is_refused() -> None:
    with pytest.raises(SpecError, match="a key must be a word"):
        data("? [a, b]\n: 1\n")


def test_two_documents_in_one_file_are_refused() -> None:
    with pytest.raises(SpecError, match="not YAML"):
        data("a: 1\n---\nb: 2\n")


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        read_document(tmp_path / "absent.yaml")


def test_bytes_that_are_no_text_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: \xff\xfe")

    with pytest.raises(SpecError, match="not UTF-8"):
        read_document(path)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("abcxyz0123456789 -_:.{}[]'\"#&*!|>%@,~=<eE+\n", max_size=12)
    | st.sampled_from(["off", "1e5", "0o7", "12:30", "null", "True", "1_0", "<<", "="]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc1e.:", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_what_is_dumped_is_read_back_as_it_was(value: object) -> None:
    assert parse_document(dump({"value": value}), HERE).data == {"value": value}


@pytest.mark.parametrize("text", ["b: 0999", "0999: 1"])
def test_what_only_looks_like_a_number_is_told_with_its_line(text: str) -> None:
    with pytest.raises(SpecError, match=r"x\.yaml:1: '0999' cannot be read") as caught:
        data(text)

    assert "quotes" in caught.value.hint
