"""A service small enough to start in a blink: health, metrics, one token.

``python toy_service.py PORT [--ready-after S] [--die-after S] [--code N]``
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers as an engine would, with made-up content."""

    ready_s = 0.0
    requests = 0

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.answer(200, f'toy_requests_total{{x="1"}} {Handler.requests}\n')
        else:
            self.answer(200 if time.monotonic() >= self.ready_s else 503, "{}")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Handler.requests += 1
        print("served one", flush=True)
        choices = [{"text": "x", "finish_reason": "length"}]
        self.answer(200, json.dumps({"choices": choices}))

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def die(code: int) -> None:
    """End at once, and say when."""
    print(f"dies at {time.time()}", flush=True)
    os._exit(code)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--ready-after", type=float, default=0.0)
    parser.add_argument("--die-after", type=float)
    parser.add_argument("--code", type=int, default=1)
    args = parser.parse_args()
    Handler.ready_s = time.monotonic() + args.ready_after
    if args.die_after is not None:
        threading.Timer(args.die_after, die, [args.code]).start()
    print("toy starts", flush=True)
    if args.die_after is not None:
        print("2026-01-01 00:00:00 ERROR toy is ill", file=sys.stderr, flush=True)
    ThreadingHTTPServer((args.host, args.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
