"""A bundle is fetched from a hub and an index of our own, then looked at."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from pytest_pd.bundle import wheels
from pytest_pd.bundle.hub import FetchError, wanted
from pytest_pd.cli import main

FILES = {
    "config.json": b'{"vocab_size": 3}',
    "tokenizer.json": b'{"model": {}}',
    "model-00001.safetensors": b"weights",
    "model.safetensors.index.json": b"{}",
}
TOPOLOGY = {
    "name": "hubbed",
    "hardware": "cpu",
    "model": {"path": "acme/small", "served_name": "small"},
    "engine": {"kind": "reference"},
    "aggregated": {"replicas": 1},
    "router": {"kind": "proxy"},
}


class Hub(BaseHTTPRequestHandler):
    """Answers like the Hugging Face hub; says who asked with which token."""

    def do_GET(self):
        self.server.tokens.add(self.headers.get("authorization"))
        if self.path == "/api/models/acme/small":
            body = json.dumps({"siblings": [{"rfilename": n} for n in FILES]}).encode()
        else:
            body = FILES.get(self.path.removeprefix("/acme/small/resolve/main/"))
        self.send_response(200 if body is not None else 404)
        self.end_headers()
        self.wfile.write(body or b"")
        self.server.asked.append(self.path)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        server.tokens, server.asked = set(), []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def topology(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("hubbed.yaml").write_text(yaml.safe_dump(TOPOLOGY))
    return "hubbed.yaml"


@pytest.fixture
def pip(monkeypatch):
    """Keep the words that pip would get; the test says what it answers."""
    calls = []

    def call(*words):
        calls.append(words)
        if calls.refuses and calls.refuses in words:
            raise FetchError(f"pip cannot find {calls.refuses}")

    class Calls(list):
        refuses = ""

    calls = Calls()
    monkeypatch.setattr(wheels, "_pip", call)
    return calls


def test_weights_are_no_part_of_a_bundle():
    names = [*FILES, "../../etc/passwd.json", "/abs.json", "original/tokenizer.model"]

    assert wanted(names) == [
        "config.json",
        "tokenizer.json",
        "original/tokenizer.model",
    ]


def test_everything_comes_and_is_enough(topology, hub, pip, capsys):
    assert main(["fetch", topology, "--to", "b"]) == 0

    assert (
        Path("b/models/acme--small/tokenizer.json").read_bytes()
        == (FILES["tokenizer.json"])
    )
    assert not any("safetensors" in path for path in hub.asked)
    capsys.readouterr()
    assert main(["verify", "b", topology, "--offline"]) == 0
    said = capsys.readouterr().out
    assert "ok  tokenizer of acme/small" in said
    assert "ok  wheels of pytest-pd" in said


def test_the_token_is_sent_and_not_shown(topology, hub, pip, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret1234")

    main(["fetch", topology, "--to", "b"])

    assert hub.tokens == {"Bearer hf_secret1234"}
    kept = [p.read_text() for p in Path("b").rglob("*.json")]
    assert "hf_secret1234" not in capsys.readouterr().out + "".join(kept)


def test_a_hub_that_refuses_is_told_and_the_rest_goes_on(topology, hub, pip, capsys):
    Path("hubbed.yaml").write_text(
        yaml.safe_dump(TOPOLOGY | {"model": {"path": "a/b", "served_name": "x"}})
    )

    assert main(["fetch", topology, "--to", "b"]) == 1

    said = capsys.readouterr().out
    assert "does not give 'a/b'" in said
    assert "HF_ENDPOINT" in said
    assert any("wheel" in words for words in pip)


@pytest.mark.parametrize("address", ["http://u:s3cret99@127.0.0.1:1", "http://[u"])
def test_a_hub_that_cannot_be_asked_is_told_without_its_password(
    address, topology, hub, pip, monkeypatch, capsys
):
    monkeypatch.setenv("HF_ENDPOINT", address)

    assert main(["fetch", topology, "--to", "b"]) == 1

    said = capsys.readouterr().out
    assert "does not give" in said
    assert "s3cret99" not in said


def test_a_tokenizer_that_is_not_there_is_missing(topology, hub, pip, capsys):
    main(["fetch", "local_agg", "--to", "b"])
    capsys.readouterr()

    assert main(["verify", "b", topology, "--offline"]) == 1
    assert "NO  tokenizer of acme/small" in capsys.readouterr().out


def test_wheels_that_are_not_enough_are_missing(pip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["fetch", "local_agg", "--to", "b"])
    pip.refuses = "pytest-pd"

    assert main(["verify", "b", "--offline"]) == 1
    assert "NO  wheels of pytest-pd" in capsys.readouterr().out


@pytest.mark.parametrize("harm", ["change", "remove"])
def test_a_damaged_file_is_named(topology, hub, pip, capsys, harm):
    main(["fetch", topology, "--to", "b"])
    file = Path("b/models/acme--small/config.json")
    file.unlink() if harm == "remove" else file.write_text("{}")

    assert main(["verify", "b"]) == 1
    assert "models/acme--small/config.json is" in capsys.readouterr().out


def test_images_and_what_is_left_to_people_are_told(tmp_path, monkeypatch, capsys, pip):
    monkeypatch.chdir(tmp_path)
    spec = TOPOLOGY | {
        "model": {"path": "/models/x", "served_name": "x"},
        "engine": {"kind": "reference", "image": "reg.example.com/pd:1"},
    }
    Path("imaged.yaml").write_text(yaml.safe_dump(spec | {"name": "imaged"}))

    assert main(["fetch", "imaged.yaml", "--to", "b"]) == 0
    assert Path("b/images.txt").read_text() == "reg.example.com/pd:1\n"
    assert main(["verify", "b", "imaged.yaml", "--offline"]) == 0
    assert "2 to look at yourself" in capsys.readouterr().out


def test_engines_come_as_their_recipes_say(pip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    main(["fetch", "local_1p1d_vllm_router", "--to", "b"])
    main(["fetch", "local_1p1d_vllm_router", "--to", "c", "--no-engines"])

    assert ["vllm-router==0.1.17" in words for words in pip] == [False, True, False]


def test_a_folder_that_is_no_bundle_is_told(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert "holds no bundle" in capsys.readouterr().err


def test_no_index_is_asked(hub, monkeypatch, tmp_path):
    """Really asks pip: an empty folder holds no pytest-pd."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{hub.server_port}/simple")

    assert "pip install failed" in wheels.missing_for("pytest-pd", tmp_path)
    assert hub.asked == []
