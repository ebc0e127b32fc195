"""What lm-eval leaves becomes records, and nothing is missing without a word."""

from __future__ import annotations

import json

import pytest

from pytest_pd.errors import InvalidRun
from pytest_pd.evals.sample import Reply, Sample, leaves, read_samples


def read(folder, task="t", filter_name="none"):
    return read_samples(folder, task, "exact_match", filter_name)


def test_samples_come_with_score_answer_and_times(tmp_path, lay_out, row):
    lay_out(tmp_path, {"t": [row(0), row(1, 0.0)]})

    first, second = read(tmp_path)

    assert (first.score, second.score) == (1.0, 0.0)
    assert first.answers == (" w001 w002",)
    assert second.replies == (Reply(1, 0.1, 0.2),)
    assert second.seconds == 0.2


def test_an_answer_may_hold_what_some_take_for_an_end_of_line(tmp_path, lay_out, row):
    """lm-eval writes it as it is; KV that is damaged brings it about."""
    lay_out(tmp_path, {"t": [row(0), row(1)]})
    (path,) = tmp_path.rglob("samples_*.jsonl")
    path.write_text(path.read_text().replace("w001", "b\u2028c\x85d"), encoding="utf-8")

    assert read(tmp_path)[0].answers == (" b\u2028c\x85d w002",)


def test_one_filter_is_read_where_there_are_several(tmp_path, lay_out, row):
    rows = [row(0, 0.0, "strict"), row(0, 1.0, "flexible")]
    lay_out(tmp_path, {"t": rows}, effective={"t": 1})

    (sample,) = read(tmp_path, filter_name="flexible")

    assert sample.score == 1.0


def test_a_group_is_all_of_its_tasks(tmp_path, lay_out, row):
    groups = {"g": ["g_one", "h"], "h": ["h_two"], "g_one": [], "h_two": []}
    lay_out(tmp_path, {"g_one": [row(0)], "h_two": [row(0), row(1)]}, groups=groups)

    keys = [sample.key for sample in read(tmp_path, "g")]

    assert keys == [("g_one", 0), ("h_two", 0), ("h_two", 1)]


def test_a_task_is_not_taken_for_another_with_a_longer_name(tmp_path, lay_out, row):
    lay_out(tmp_path, {"t": [row(0)], "t_2": [row(0), row(1)]})

    assert len(read(tmp_path, "t")) == 1


def test_a_task_without_children_stands_for_itself():
    assert leaves({"group_subtasks": {}}, "t") == ["t"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"effective": {"t": 3}}, "2 samples .* 3 were asked", id="fewer"),
        pytest.param({"effective": {"t": 1}}, "2 samples .* 1 were asked", id="more"),
        pytest.param({"answered": False}, "never answered", id="no-exchange"),
    ],
)
def test_missing_samples_are_invalid(tmp_path, lay_out, row, change, message):
    lay_out(tmp_path, {"t": [row(0), row(1)]}, **change)

    with pytest.raises(InvalidRun, match=message):
        read(tmp_path)


def test_no_sample_is_invalid(tmp_path, lay_out):
    lay_out(tmp_path, {"t": []})

    with pytest.raises(InvalidRun, match="scored no sample"):
        read(tmp_path)


def test_no_result_is_invalid(tmp_path):
    with pytest.raises(InvalidRun, match="0 results"):
        read(tmp_path)


def test_a_sample_twice_is_invalid(tmp_path, lay_out, row):
    lay_out(tmp_path, {"t": [row(0), row(0)]})

    with pytest.raises(InvalidRun, match="were asked"):
        read(tmp_path)


def test_a_wrong_filter_names_those_there_are(tmp_path, lay_out, row):
    lay_out(tmp_path, {"t": [row(0)]})

    with pytest.raises(InvalidRun) as caught:
        read(tmp_path, filter_name="strict")

    assert "filters there: none" in caught.value.hint


def test_a_wrong_metric_names_those_there_are(tmp_path, lay_out, row):
    lay_out(tmp_path, {"t": [row(0)]})

    with pytest.raises(InvalidRun) as caught:
        read_samples(tmp_path, "t", "acc", "none")

    assert "exact_match" in caught.value.hint


def test_scored_choices_stay_pairs_of_text(tmp_path, lay_out, row):
    choices = {**row(0), "resps": [[["-1.5", "False"]], [["-0.5", "True"]]]}
    lay_out(tmp_path, {"t": [choices]})

    (sample,) = read(tmp_path)

    assert [json.loads(answer) for answer in sample.answers] == [
        ["-1.5", "False"],
        ["-0.5", "True"],
    ]


def test_a_sample_is_sent_with_its_first_request():
    replies = (Reply(7, 0.0, 0.1), Reply(3, 0.0, 0.2))

    sample = Sample("t", 0, 1.0, (), "", replies)

    assert sample.sent == 3
    assert sample.seconds == pytest.approx(0.3)


def test_what_ended_lm_eval_is_the_reason(tmp_path):
    (tmp_path / "error.txt").write_text("TypeError: no logprobs")

    with pytest.raises(InvalidRun, match="could not score 't': TypeError"):
        read(tmp_path)
