"""One request, with no help from proxies or redirects, and errors in few words."""

from __future__ import annotations

import http.server
import json
import socket
import threading

import pytest

from pytest_pd.errors import InfrastructureLost
from pytest_pd.probe.http import Answer, request
from tests.kit import free_ports


class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"path": self.path})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({"body": json.loads(body), "type": self.headers["Content-Type"]})

    def answer(self, record):
        text = json.dumps(record).encode()
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


def test_path_and_query_are_kept(url):
    assert request(f"{url}/a/b?c=d").json() == {"path": "/a/b?c=d"}


def test_no_path_means_the_root(url):
    assert request(url).json() == {"path": "/"}


def test_a_body_is_posted_as_json(url):
    answer = request(f"{url}/x", body={"a": "ü"}).json()

    assert answer == {"body": {"a": "ü"}, "type": "application/json"}


def test_redirects_are_shown_and_not_followed(url):
    answer = request(f"{url}/moved")

    assert (answer.status, answer.ok) == (302, False)


def test_proxy_variables_are_ignored(url, monkeypatch):
    (port,) = free_ports(1)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")

    assert request(f"{url}/x").ok


def test_nobody_there_is_two_words():
    (port,) = free_ports(1)

    with pytest.raises(InfrastructureLost, match="connection refused"):
        request(f"http://127.0.0.1:{port}/")


def test_silence_is_told():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(InfrastructureLost, match="no answer in time"):
            request(f"http://127.0.0.1:{port}/", timeout_s=0.2)


def test_what_is_no_http_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_nonsense, args=(server,))
        thread.start()
        with pytest.raises(InfrastructureLost):
            request(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()


def answer_nonsense(server):
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"SSH-2.0-OpenSSH\r\n")


def test_a_body_that_is_no_json_is_none():
    assert Answer(200, b"<html>").json() is None
    assert Answer(200, b"\xff").text == "\ufffd"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999",
        "http://127.0.0.1:x",
        "http://[",
        "http://a b",
        "http://a..b",
        "http://127.0.0.1:1/ü",
    ],
)
def test_what_is_no_url_is_told_as_one_that_does_not_answer(url):
    with pytest.raises(InfrastructureLost) as caught:
        request(url)

    assert caught.value.fact.startswith(f"{url}: ")
