"""A real headless Chromium, over its DevTools protocol: what a page is like."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.services import require

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
AXE_NAME = "axe-core/axe.min.js"
BUDGET_S = 120.0
SEEN = """
({ resources: performance.getEntriesByType('resource').map(e => e.name),
   wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
   background: getComputedStyle(document.body).backgroundColor,
   interactive_ms: performance.getEntriesByType('navigation')[0].domInteractive,
   loaded_ms: performance.getEntriesByType('navigation')[0].loadEventEnd,
   focus: document.activeElement.className })
"""
LOADED = "performance.timing.loadEventEnd > 0"
AUDIT = """
axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v =>
  [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 120)).join(' ; ')]))
"""


@dataclass(frozen=True)
class Look:
    """One page at one width in one colour scheme.

    Attributes:
        problems: axe-core's findings: (impact, rule, where).
        wide_px: How far the page is wider than the window.
        resources: What it loaded besides itself.
        first_focus: Class of what the first Tab reaches.
    """

    page: str
    width_px: int
    scheme: str
    problems: tuple[tuple[str, str, str], ...]
    wide_px: int
    resources: tuple[str, ...]
    background: str
    first_focus: str
    interactive_ms: float
    loaded_ms: float


def find_chromium() -> str:
    """Return the program, or skip (fail where ``chromium`` is required)."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    return found or require("chromium", "apt-get install chromium")


def axe_source() -> str:
    """Return axe-core's source, or skip (fail where ``axe`` is required)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    home = Path(os.environ.get("PD_CACHE", cache / "pytest-pd"))
    path = home / AXE_NAME
    if not path.is_file():
        require("axe", f"npm pack axe-core, and its axe.min.js to {path}")
    return path.read_text(encoding="utf-8")


def look_at(
    pages: Sequence[Path],
    tmp: Path,
    *,
    widths: Sequence[int] = (1280, 390),
    schemes: Sequence[str] = ("light", "dark"),
    axe: str = "",
    shots: Path | None = None,
) -> list[Look]:
    """Return what each page is like at each width in each scheme.

    Args:
        tmp: For the browser's profile.
        axe: Source of axe-core; empty leaves its findings out.
        shots: Folder for screenshots.
    """
    program = find_chromium()
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    words += ["--remote-debugging-port=0", f"--user-data-dir={tmp / 'profile'}"]
    with (tmp / "chromium.log").open("wb") as log:
        browser = subprocess.Popen(
            [program, *words, "about:blank"], stdout=log, stderr=log
        )
    try:
        views = [(page, w, s) for page in pages for w in widths for s in schemes]
        return asyncio.run(
            asyncio.wait_for(_visit(tmp / "profile", views, axe, shots), BUDGET_S)
        )
    finally:
        browser.terminate()
        browser.wait(timeout=20)


async def _visit(
    profile: Path, views: Sequence[tuple[Path, int, str]], axe: str, shots: Path | None
) -> list[Look]:
    port = profile / "DevToolsActivePort"
    while not _written(port):  # noqa: ASYNC110  another process writes the file
        await asyncio.sleep(0.05)
    address = f"http://127.0.0.1:{_written(port)}"
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{address}/json/new?about:blank") as reply:
            target = await reply.json()
        url = target["webSocketDebuggerUrl"]
        async with session.ws_connect(url, max_msg_size=0) as socket:
            tab = Tab(socket)
            await tab.ask("Page.enable")
            return [await _look(tab, *view, axe, shots) for view in views]


def _written(port: Path) -> str:
    """Return the port once the browser has written both lines of the file."""
    lines = port.read_text().splitlines() if port.is_file() else []
    return lines[0] if len(lines) == 2 else ""


class Tab:
    """One tab: commands and events in order."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        command = {"id": number, "method": method, "params": params}
        await self._socket.send_json(command)
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def until(self, event: str) -> None:
        while (await self._socket.receive_json()).get("method") != event:
            pass

    async def value(self, expression: str) -> Any:
        given = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = await self.ask("Runtime.evaluate", **given)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


async def _look(
    tab: Tab, page: Path, width: int, scheme: str, axe: str, shots: Path | None
) -> Look:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1}
    await tab.ask("Emulation.setDeviceMetricsOverride", mobile=width < 600, **size)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    await tab.ask("Emulation.setEmulatedMedia", features=media)
    await tab.ask("Page.navigate", url=f"file://{page}")
    await tab.until("Page.loadEventFired")
    while not await tab.value(LOADED):  # noqa: ASYNC110  true just after the event
        await asyncio.sleep(0.02)
    key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    for kind in ("rawKeyDown", "keyUp"):
        await tab.ask("Input.dispatchKeyEvent", type=kind, **key)
    seen = await tab.value(SEEN)
    problems = []
    if axe:
        await tab.value(f"{axe}; true")
        problems = await tab.value(AUDIT)
    if shots is not None:
        shot = await tab.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path = shots / f"{page.stem}-{width}-{scheme}.png"
        path.write_bytes(base64.b64decode(shot["data"]))
    return Look(
        page.name,
        width,
        scheme,
        tuple(map(tuple, problems)),
        int(seen["wide"]),
        tuple(seen["resources"]),
        seen["background"],
        seen["focus"],
        seen["interactive_ms"],
        seen["loaded_ms"],
    )
