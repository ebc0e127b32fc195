"""``pytest-pd plan`` and ``pytest-pd topologies`` as a person types them."""

import json
from pathlib import Path

import pytest

from pytest_pd.cli import main
from pytest_pd.spec.file import read_topology


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PD_CLUSTER", raising=False)


def test_a_plan_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "local_1p1d"]) == 0

    out = capsys.readouterr().out
    assert out.startswith("local_1p1d: 1 node, 0 GPUs, 2 endpoints\n")
    assert "export" not in out


def test_commands_are_printed_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "local_1p1d", "--commands"]) == 0

    assert "-m pytest_pd.reference serve" in capsys.readouterr().out


def test_several_plans_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "local_1p1d,local_agg", "--json"]) == 0

    first, second = json.loads(capsys.readouterr().out)
    assert (first["name"], second["name"]) == ("local_1p1d", "local_agg")
    assert first["services"][0]["argv"][1:4] == ["-m", "pytest_pd.reference", "serve"]
    assert second["url"] == "http://node0:8100"


def test_a_lock_is_written_and_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.lock.yaml"

    assert main(["plan", "local_2p1d", "--lock", str(path)]) == 0
    first = capsys.readouterr().out
    assert main(["plan", str(path)]) == 0

    assert capsys.readouterr().out == first
    assert read_topology(path).name == "local_2p1d"


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["plan", "local_1p1x"], "topology 'local_1p1x' is not known"),
        (["plan", "local_1p1d", "--cluster", "nowhere"], "cluster 'nowhere' is not"),
        (["plan", "local_*", "--lock", "x"], "--lock holds one plan"),
        (["topologies", "zzz*"], "matches none of the topologies"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_two(
    words: list[str], fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2

    captured = capsys.readouterr()
    assert fact in captured.err
    assert "Traceback" not in captured.err


def test_topologies_are_listed_with_their_shape(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["topologies", "local_*"]) == 0

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0][:2] == ["TOPOLOGY", "HARDWARE"]
    assert ["local_1p1d", "cpu", "reference", "proxy"] in [row[:4] for row in rows]


def test_a_broken_file_is_a_row_and_not_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "more" / "topologies"
    folder.mkdir(parents=True)
    (folder / "bad.yaml").write_text("name: bad\nzzz: 1\n")

    assert main(["topologies", "--json", "--search", str(tmp_path / "more")]) == 0

    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert "unknown key 'zzz'" in rows["bad"]["shape"]
    assert rows["local_agg"]["shape"] == "1 node, 0 GPUs, 1 endpoint"


def test_the_cluster_can_come_from_the_environment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nhardware: cpu\nnodes: 3\n")
    monkeypatch.setenv("PD_CLUSTER", str(path))

    assert main(["plan", "local_1p1d"]) == 0

    assert capsys.readouterr().out.startswith("local_1p1d: 2 nodes")
