"""Names that a specification may leave open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pd.errors import SpecError
from pytest_pd.plan.placeholder import expand, has_placeholder
from pytest_pd.spec.engine import KvTransferSpec

VALUES = {"node": "n0", "port:http": 8100}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{node}", "n0"),
        ("a{node}b{port:http}", "an0b8100"),
        ("{{node}}", "{node}"),
        ('{"a": {"b": [1]}}', '{"a": {"b": [1]}}'),
        ('{"at": "{node}"}', '{"at": "n0"}'),
        ("${HOME}", "${HOME}"),
        ("{}", "{}"),
        ("{ node }", "{ node }"),
        ("{{node}", "{n0"),
    ],
)
def test_texts(text: str, found: str) -> None:
    assert expand(text, VALUES, "t") == found


def test_nested_values_and_models_are_filled() -> None:
    spec = KvTransferSpec(connector="x", path="{node}", config={"a": ["{node}"]})

    found = expand(spec, VALUES, "t")

    assert (found.path, found.config) == ("n0", {"a": ["n0"]})
    assert spec.path == "{node}"


def test_what_has_nothing_open_stays_the_same_object() -> None:
    spec = KvTransferSpec(connector="x")

    assert expand(spec, VALUES, "t") is spec


def test_partial_leaves_unknown_names_and_escapes_for_later() -> None:
    once = expand("{run_dir}/{node}/{{node}}", {"run_dir": "/r"}, "t", partial=True)

    assert once == "/r/{node}/{{node}}"
    assert expand(once, VALUES, "t") == "/r/n0/{node}"


def test_an_unknown_name_says_how_to_mean_it_literally() -> None:
    with pytest.raises(SpecError) as caught:
        expand("{pod}", VALUES, "t: decode-0")

    assert caught.value.fact == "t: decode-0: {pod} is no known placeholder."
    assert "write {{pod}} for the text itself" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("{node}", True),
        ("{{node}}", True),
        ("x", False),
        ('{"a":1}', False),
        (None, False),
    ],
)
def test_what_counts_as_open(value: object, found: bool) -> None:
    assert has_placeholder(value) is found


@given(st.text("ab{}:\"' ", max_size=20))
def test_any_text_is_filled_or_refused_and_never_breaks(text: str) -> None:
    try:
        expand(text, {"a": "1", "b": "2"}, "t")
    except SpecError as error:
        assert "no known placeholder" in error.fact  # noqa: PT017


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5)))
def test_json_without_bare_words_is_left_alone(data: dict[str, object]) -> None:
    import json

    text = json.dumps({"k": data}, separators=(",", ":"))
    if not has_placeholder(text):
        assert expand(text, {}, "t") == text
