"""Running lm-eval: its command line, its environment, its end; lm-eval is played."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pytest_pd.errors import EngineMissing, InvalidRun, SpecError
from pytest_pd.evals import runner
from pytest_pd.evals.runner import Job, Side
from pytest_pd.spec.evals import EvalFileSpec

GATES = [{"kind": "paired"}]
TOKEN = "hf_not-a-real-one"
FAKE = """\
import json, os, pathlib, sys, time
job = json.loads(pathlib.Path(sys.argv[2]).read_text())
print("a table of lm-eval")
for call in job["calls"]:
    print(json.dumps({"stage": call["side"]}), flush=True)
    print(json.dumps({"side": call["side"], "done": 1, "total": 1}), flush=True)
"""


@pytest.fixture
def make_job(tmp_path):
    def _make(tasks=None, sides=("pd",), tokenizer="/models/tiny", **more) -> Job:
        spec = EvalFileSpec.model_validate(
            {"name": "e", "tasks": tasks or {"t": {"gates": GATES}}, **more}
        )
        asked = tuple(Side(name, f"http://{name}:1") for name in sides)
        return Job(spec, "tiny", tokenizer, asked, tmp_path / "out")

    return _make


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Put a program in lm-eval's place: ``play(text)`` after the usual facts."""
    monkeypatch.setenv("PD_CACHE", str(tmp_path / "cache"))

    def _play(text: str = "") -> None:
        place = tmp_path / "cache" / "bin"
        place.mkdir(parents=True)
        (tmp_path / "fake.py").write_text(FAKE + text)
        program = place / runner.PROGRAM
        program.write_text(
            f'#!/bin/sh\nexec {sys.executable} {tmp_path}/fake.py "$@"\n'
        )
        program.chmod(0o755)

    return _play


def partial(job: Job) -> Path:
    return job.folder.with_name(job.folder.name + runner.PARTIAL)


def argv(job: Job) -> list[str]:
    (call,) = runner.plan_of(job)["calls"]
    return call["argv"]


def model_args(job: Job) -> dict:
    words = argv(job)
    return json.loads(words[words.index("--model_args") + 1])


def test_completions_go_to_their_path_with_a_local_tokenizer(make_job):
    job = make_job(concurrency=7)

    assert argv(job)[:3] == ["run", "--model", "local-completions"]
    assert model_args(job) == {
        "model": "tiny",
        "base_url": "http://pd:1/v1/completions",
        "num_concurrent": 7,
        "max_retries": 1,
        "tokenizer_backend": "huggingface",
        "tokenizer": "/models/tiny",
    }


def test_chat_goes_to_its_path_with_the_servers_template(make_job):
    job = make_job(api="chat")

    assert "local-chat-completions" in argv(job)
    assert "--apply_chat_template" in argv(job)
    assert model_args(job)["base_url"] == "http://pd:1/v1/chat/completions"
    assert model_args(job)["tokenizer_backend"] is None


def test_own_model_args_win(make_job):
    assert model_args(make_job(model_args={"max_retries": 3}))["max_retries"] == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"limit": 50}, ["--limit", "50"], id="limit"),
        pytest.param({"shots": 0}, ["--num_fewshot", "0"], id="shots"),
    ],
)
def test_settings_become_words(make_job, settings, expected):
    words = argv(make_job({"t": {"gates": GATES, **settings}}))

    place = words.index(expected[0])
    assert words[place : place + 2] == expected


def test_sampling_becomes_generation_arguments(make_job):
    words = argv(make_job(sampling={"temperature": 0.6}))

    assert json.loads(words[words.index("--gen_kwargs") + 1]) == {"temperature": 0.6}


def test_tasks_with_equal_settings_share_a_call(make_job):
    tasks = {
        "a": {"gates": GATES},
        "b": {"gates": GATES, "limit": 5},
        "c": {"gates": GATES},
    }

    calls = runner.plan_of(make_job(tasks, sides=("pd", "aggregated")))["calls"]

    told = [(call["side"], call["tasks"]) for call in calls]
    assert told == [
        ("pd", "a, c"),
        ("pd", "b"),
        ("aggregated", "a, c"),
        ("aggregated", "b"),
    ]


def test_no_secret_but_the_hubs_token_reaches_lm_eval(make_job):
    others = {"OPENAI_API_KEY": "sk-x", "AWS_SECRET_ACCESS_KEY": "y"}

    env = runner.environment(make_job(offline=False), {"HF_TOKEN": TOKEN, **others})

    assert env["HF_TOKEN"] == TOKEN
    assert "OPENAI_API_KEY" not in env
    assert "AWS_SECRET_ACCESS_KEY" not in env


def test_offline_asks_the_hub_for_nothing(make_job):
    env = runner.environment(make_job(), {"HF_TOKEN": TOKEN})

    assert env["HF_HUB_OFFLINE"] == env["HF_DATASETS_OFFLINE"] == "1"
    assert "HF_TOKEN" not in env


def test_data_of_our_own_stays_out_of_the_users_cache(make_job):
    own = runner.environment(make_job(data="fixtures/evals/rows"), {})

    for name in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE"):
        assert own[name].startswith(str(make_job().folder))
        assert name not in runner.environment(make_job(), {})


def test_data_of_our_own_leaves_the_hubs_cache_and_login_in_reach(make_job):
    job = make_job(data="fixtures/evals/rows")

    assert "HF_HOME" not in runner.environment(job, {})
    assert runner.environment(job, {"HF_HOME": "/hf"})["HF_HOME"] == "/hf"


def test_the_token_is_in_no_file_of_a_run(make_job, play, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    play("print(os.environ['HF_TOKEN'], file=sys.stderr)")
    job = make_job(offline=False)

    runner.run(job)

    files = [path for path in job.folder.rglob("*") if path.is_file()]
    assert "***" in (job.folder / runner.LOG).read_text()
    assert not [path for path in files if TOKEN in path.read_text(errors="replace")]


def test_progress_is_passed_on_and_other_output_is_not(make_job, play):
    play()
    facts: list[object] = []

    runner.run(make_job(sides=("pd", "aggregated")), facts.append)

    assert [fact["stage"] for fact in facts if "stage" in fact] == ["pd", "aggregated"]
    assert facts[-1] == {"side": "aggregated", "done": 1, "total": 1}


def test_an_error_of_lm_eval_is_invalid_and_told(make_job, play):
    play("sys.exit('ValueError: no such task')")
    job = make_job()

    with pytest.raises(InvalidRun, match="code 1: ValueError: no such task") as caught:
        runner.run(job)

    assert caught.value.where == partial(job) / runner.LOG


FAILED = """for call in job["calls"]:
    out = pathlib.Path(call["out"])
    out.mkdir(parents=True)
    (out / "error.txt").write_text("ConnectionError: refused")
"""


def earlier(job, text):
    """Lay out what a job left that came to its end."""
    (job.folder / "pd").mkdir(parents=True)
    (job.folder / "pd" / "samples.jsonl").write_text(text)
    (job.folder / runner.PLAN).write_text('{"calls": []}')


@pytest.mark.parametrize(
    ("text", "told"), [("sys.exit('gone')", "code 1"), (FAILED, "no result: Connec")]
)
def test_a_run_that_comes_to_nothing_leaves_the_samples_of_the_last(
    text, told, make_job, play
):
    job = make_job()
    earlier(job, "good")
    play(text)

    with pytest.raises(InvalidRun, match=told) as caught:
        runner.run(job)

    assert (job.folder / "pd" / "samples.jsonl").read_text() == "good"
    assert caught.value.where == partial(job) / runner.LOG


def test_a_run_that_comes_to_its_end_replaces_the_last(make_job, play):
    job = make_job()
    earlier(job, "old")
    partial(job).mkdir()
    play()

    runner.run(job)

    assert not (job.folder / "pd").exists()
    assert not partial(job).exists()
    plan = json.loads((job.folder / "job.json").read_text())
    assert plan == runner.plan_of(job)


def test_time_that_is_up_ends_the_process(make_job, play, tmp_path):
    play("pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)")
    job = make_job(budget_s=5.0)

    with pytest.raises(InvalidRun, match="not done after 5 s"):
        runner.run(job)

    pid = (partial(job) / "pid").read_text()
    assert not Path(f"/proc/{pid}").exists()


def test_without_lm_eval_the_error_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PD_CACHE", str(tmp_path))
    monkeypatch.setattr(runner, "find_spec", lambda name: None)

    with pytest.raises(EngineMissing) as caught:
        runner.find_python()

    assert "pytest-pd engines install lm-eval" in caught.value.hint


def test_the_extra_is_taken_when_there_is_no_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PD_CACHE", str(tmp_path))
    monkeypatch.setattr(runner, "find_spec", lambda name: object())

    assert runner.find_python() == sys.executable


def test_own_environment_wins_over_the_extra(play, monkeypatch, tmp_path):
    play()
    monkeypatch.setattr(runner, "find_spec", lambda name: object())

    assert runner.find_python().startswith(str(tmp_path))


def test_tasks_and_documents_are_laid_out(make_job):
    job = make_job(include="fixtures/evals/tasks", data="fixtures/evals/rows")

    runner.prepare(job)

    assert (job.folder / "tasks" / "pd_recall.yaml").is_file()
    assert (job.folder / "data" / "pd_recall.jsonl").is_file()
    assert (job.folder / "openai" / "gsm8k" / "README.md").is_file()
    assert "--include_path" in argv(job)


def test_a_folder_that_is_not_there_is_named(make_job):
    with pytest.raises(InvalidRun, match="no/such/folder"):
        runner.prepare(make_job(data="no/such/folder"))


def test_the_folder_of_an_earlier_job_is_made_anew(make_job, play):
    play()
    job = make_job()
    runner.run(job)
    (job.folder / "old").write_text("x")

    runner.run(job)

    assert not (job.folder / "old").exists()


@pytest.mark.parametrize("plan", [None, "not json", '{"jobs": 3}'])
def test_a_folder_that_no_job_made_is_left_as_it_is(make_job, play, plan):
    play()
    job = make_job()
    job.folder.mkdir()
    (job.folder / "mine.txt").write_text("precious")
    if plan is not None:
        (job.folder / runner.PLAN).write_text(plan)

    with pytest.raises(SpecError, match="is no folder of an eval") as caught:
        runner.run(job)

    assert "--out" in caught.value.hint
    assert (job.folder / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_left_as_it_is(make_job, play, tmp_path, kind):
    play()
    job = make_job()
    if kind == "file":
        job.folder.write_text("precious")
    else:
        job.folder.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SpecError, match="is no folder of an eval"):
        runner.run(job)

    assert job.folder.is_file() or job.folder.is_symlink()


@pytest.mark.parametrize("missing", ["data", "include"])
def test_a_job_that_could_not_be_laid_out_can_be_run_again(make_job, play, missing):
    play()
    given = {"data": "fixtures/evals/rows", "include": "fixtures/evals/tasks"}
    with pytest.raises(InvalidRun, match="no/such/folder"):
        runner.run(make_job(**{**given, missing: "no/such/folder"}))

    runner.run(make_job(**given))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "Traceback\n  File x\nKeyError: 'a'\n", "KeyError: 'a'", id="error"
        ),
        pytest.param("fine\nlast\n", "last", id="last-line"),
        pytest.param("", "(its log is empty)", id="empty"),
    ],
)
def test_the_telling_line_of_a_log(tmp_path, text, expected):
    log = tmp_path / "log"
    log.write_text(text)

    assert runner.last_error(log) == expected
