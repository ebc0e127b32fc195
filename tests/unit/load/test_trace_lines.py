"""Lines of a trace that are none."""

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.load.mooncake import read_trace

LINE = '{{"timestamp": {}, "input_length": {}, "output_length": 7, "hash_ids": [1]}}'


@pytest.mark.parametrize("values", [("1e999", 4), ("NaN", 4), (1, "1e999")])
def test_numbers_without_end_are_refused_with_their_line(tmp_path, values):
    path = tmp_path / "trace.jsonl"
    path.write_text(LINE.format(1, 4) + "\n" + LINE.format(*values) + "\n")

    with pytest.raises(SpecError) as caught:
        read_trace(path)

    assert str(caught.value.where) == f"{path}:2"


def test_block_below_zero_is_refused_with_the_line_of_the_file(tmp_path):
    """Blank lines are counted, too: an editor shows the line by this number."""
    path = tmp_path / "trace.jsonl"
    wrong = LINE.format(1, 4).replace("[1]", "[1, -1]")
    path.write_text(LINE.format(1, 4) + "\n\n" + wrong + "\n")

    with pytest.raises(SpecError, match="hash id -1 is below 0") as caught:
        read_trace(path)

    assert str(caught.value.where) == f"{path}:3"
