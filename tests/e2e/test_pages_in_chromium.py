"""The pages in a real browser: phone and desk, light and dark, keyboard, axe-core."""

from __future__ import annotations

import json

import pytest

from pytest_pd.cli import main
from tests.chromium_kit import axe_source, look_at
from tests.run_kit import PLAN, entry, outcome, passed, write_run

ENDPOINTS = [
    {"service": "prefill-0", "role": "prefill", "url": "http://h:1"},
    {"service": "decode-0", "role": "decode", "url": "http://h:2"},
]
PAGES = ("report.html", "compare.html", "history.html")


def entries(scale=1.0):
    truth = {"calibration": {"itl": {"p99_s": 2e-5}, "ttft": {"p99_s": 1e-5}}}
    found = [
        entry(
            metric,
            [scale * (i % 97 + 1) / 1000 for i in range(2000)],
            streams=2**streams,
            tokens_per_s=100.0 * 2**streams / scale,
            tokens_per_s_per_user=50.0 / 2**streams,
            instrument=truth,
        )
        for metric in ("ttft", "itl", "tpot", "e2e", "output_token_time")
        for streams in range(10)
    ]
    found += [
        entry("eval_sample", [0.1] * 50, score=0.9, point="", load={}),
        entry("refit", [0.03, 0.02], bound_s=0.004, point="", load={}, streams=7),
        entry("kv_handover_bound", [1e-7], point="kv:c1", bytes_per_s_at_least=1e7),
    ]
    return found


def make(path, scale=1.0):
    run = write_run(
        path,
        entries=entries(scale),
        outcomes=[outcome("invalid", reason="the rate was not reached " * 9)],
        verdict=passed(30, invalid=1),
        plan=PLAN | {"endpoints": ENDPOINTS, "rehearsal": scale == 1.0},
        environment={"platform": "Linux", "variables": {"A": "x" * 300}},
    )
    metrics = run / "local_1p1d" / "metrics"
    metrics.mkdir()
    for name in ("prefill-0", "decode-0"):
        for when, count in (("ready", 0), ("end", 40)):
            text = f"vllm:request_success_total {count}\n"
            (metrics / f"{name}-{when}.txt").write_text(text)
    return run


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Build the three kinds of page from runs of 50 entries of 2,000 samples."""
    tmp = tmp_path_factory.mktemp("pages")
    runs = [
        make(tmp / "runs" / f"2026080{day}T020000Z-r{day}", scale)
        for day, scale in enumerate((1.0, 1.0, 1.0, 1.3, 1.3, 1.3), start=1)
    ]
    out = tmp / "out"
    assert main(["report", str(runs[0]), "--out", str(out)]) == 0
    old, new = str(runs[0]), str(runs[-1])
    assert main(["compare", old, new, "--out", str(out), "--force"]) == 0
    assert main(["history", str(tmp / "runs"), "--out", str(out)]) == 0
    return [out / name for name in PAGES]


BROKEN = """<!doctype html><html lang="en"><title>x</title><body style="width:3000px">
<main><h1>x</h1><p style="color:#ddd;background:#fff">hard to read</p></main></html>"""


def test_a_bad_page_is_found_out(tmp_path):
    path = tmp_path / "broken.html"
    path.write_text(BROKEN)

    (look,) = look_at(
        [path], tmp_path, widths=[390], schemes=["light"], axe=axe_source()
    )

    assert ("serious", "color-contrast") in {problem[:2] for problem in look.problems}
    assert look.wide_px > 2000


@pytest.fixture(scope="module")
def looks(pages, tmp_path_factory):
    """Look at every page at two widths in two colour schemes."""
    tmp = tmp_path_factory.mktemp("chromium")
    return look_at(pages, tmp, axe=axe_source(), shots=tmp)


def test_axe_finds_nothing_serious(looks):
    serious = {
        (look.page, look.width_px, look.scheme, *problem)
        for look in looks
        for problem in look.problems
        if problem[0] in ("serious", "critical")
    }

    assert not serious, json.dumps(sorted(serious), indent=1)


def test_nothing_is_wider_than_a_phone(looks):
    assert {(k.page, k.width_px): k.wide_px for k in looks if k.wide_px > 0} == {}


def test_pages_load_nothing_else(looks):
    assert {look.resources for look in looks} == {()}


def test_dark_is_dark_and_light_is_light(looks):
    shades = {(look.scheme, look.background) for look in looks}

    assert shades == {("light", "rgb(255, 255, 255)"), ("dark", "rgb(13, 17, 23)")}


def test_first_tab_skips_to_the_figures(looks):
    found = {look.first_focus for look in looks if look.page != "compare.html"}

    assert found == {"skip"}


def test_pages_of_large_runs_stay_small(pages):
    for page in pages:
        assert page.stat().st_size < 3_000_000, page.name
