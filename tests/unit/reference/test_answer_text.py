"""Text of an answer and the stop texts in it."""

from __future__ import annotations

from pytest_pd.reference.request import Answer


def told(answer: Answer, pieces: list[str]) -> list[str]:
    return [answer.take(final=answer.add(piece) is not None) for piece in pieces]


def test_without_stop_each_piece_is_told_at_once():
    assert told(Answer(), [" a", " b"]) == [" a", " b"]


def test_a_stop_text_is_left_out():
    answer = Answer(["b"])

    assert answer.add(" a") is None
    assert answer.add(" b") == "b"
    assert answer.take(final=True) == " a "


def test_a_stop_text_can_be_kept():
    answer = Answer(["b"], keep_stop=True)
    answer.add(" a b c")

    assert answer.take(final=True) == " a b"


def test_a_stop_text_over_the_edge_of_tokens_is_found():
    answer = Answer(["02 w0"])

    assert answer.add(" w002") is None
    assert answer.add(" w003") == "02 w0"
    assert answer.take(final=True) == " w0"


def test_what_may_become_a_stop_text_waits():
    answer = Answer(["xyz"])
    answer.add("abxy")

    assert answer.take(final=False) == "ab"
    answer.add("q")
    assert answer.take(final=True) == "xyq"


def test_the_first_of_several_stop_texts_ends_it():
    assert Answer(["q", "b"]).add("abc") == "b"


def test_nothing_is_told_twice():
    answer = Answer()
    answer.add("a")
    answer.take(final=False)

    assert answer.take(final=True) == ""
