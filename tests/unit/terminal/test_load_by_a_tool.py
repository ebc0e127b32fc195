"""``pytest-pd load --with TOOL``: a tool of another make sends, our table shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_pd.cli import main

RECORDED = Path(__file__).parents[1] / "load" / "data" / "aiperf-0.13.jsonl"


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Words of a run by a stand-in that writes what the real aiperf once wrote."""
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "aiperf"
    program.write_text(
        '#!/bin/sh\nfor word do last=$folder; folder=$word; [ "$last" = '
        f'--artifact-dir ] && cp "{RECORDED}" "$word/profile_export.jsonl"; done\n'
        'printf "%s\\n" "$@" > words\n'
    )
    program.chmod(0o755)
    tool = ("--with", "aiperf", "--tool-path", str(program), "--quiet")
    sizes = ("--requests", "3", "--input-tokens", "16", "--output-tokens", "20")
    return ["load", "http://127.0.0.1:9", "--model", "m", *sizes, *tool]


def test_its_figures_stand_in_our_table(words, tmp_path, capsys):
    code = main([*words, "--model-dir", "tok", "--json", "out.json"])

    asked = (tmp_path / "words").read_text().splitlines()
    assert asked[asked.index("--osl") + 1] == "20"
    (entry,) = json.loads((tmp_path / "out.json").read_text())
    assert entry["outcomes"] == {"ok": 3}
    assert "ttft" in capsys.readouterr().out
    assert code == (1 if entry["reasons"] else 0)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "give --model-dir"),
        (("--model-dir", "tok", "--header", "X-Key:secret"), "on its command line"),
        (("--workload", "local_multi_turn", "--model-dir", "tok"), "nor conversations"),
        (("--model-dir", "tok", "--shared-tokens", "8"), "a shared part"),
        (("--model-dir", "tok", "--shards", "2"), "sends by itself"),
    ],
)
def test_what_it_cannot_do_is_refused(words, tmp_path, capsys, more, said):
    assert main([*words, *more]) == 2

    assert said in capsys.readouterr().err
    assert not (tmp_path / "words").exists()


def test_an_slo_of_gaps_is_refused_where_none_are_kept(words, tmp_path, capsys):
    words[words.index("aiperf")] = "guidellm"

    assert main([*words, "--model-dir", "tok", "--slo-itl-ms", "50"]) == 2

    assert "keeps no time per event" in capsys.readouterr().err
    assert not (tmp_path / "words").exists()
