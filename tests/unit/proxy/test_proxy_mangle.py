"""Streams are taken apart by events, however they were cut into pieces."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pd.proxy.fault import Fault
from pytest_pd.proxy.mangle import CutError, mangled, mangled_body


def event(text):
    return b"data: " + json.dumps({"choices": [{"text": text}]}).encode() + b"\n\n"


USAGE = b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\n'
STREAM = event("a") + event("b") + event("c") + USAGE + b"data: [DONE]\n\n"


async def collect(data, cuts, **faults):
    """Return what comes of `data`, cut at `cuts`, and whether it was cut off."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]

    async def pieces():
        for start, end in itertools.pairwise(places):
            yield data[start:end]

    got = []
    table = {kind: Fault(kind, **given) for kind, given in faults.items()}
    try:
        async for piece in mangled(pieces(), table):
            got.append(piece)
    except CutError:
        return got, True
    return got, False


def run(data, cuts, **faults):
    import asyncio

    return asyncio.run(collect(data, cuts, **faults))


CUTS = st.lists(st.integers(0, 400), max_size=12)


@settings(deadline=None, max_examples=50)
@given(CUTS)
def test_without_a_fault_of_its_own_a_stream_is_what_it_was(cuts):
    got, cut = run(STREAM, cuts)

    assert (b"".join(got), cut) == (STREAM, False)


@settings(deadline=None, max_examples=50)
@given(CUTS)
def test_a_missing_token_is_the_same_however_it_came(cuts):
    got, _ = run(STREAM, cuts, missing_token={"at": 1})

    assert b"".join(got) == STREAM.replace(event("b"), b"")


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_cut_leaves_the_tokens_before_it(at):
    got, cut = run(STREAM, [], cut={"at": at})

    assert cut
    assert b"".join(got) == b"".join(event(text) for text in "abc"[:at])


def test_a_cut_after_the_end_never_comes():
    got, cut = run(STREAM, [], cut={"at": 3})

    assert (b"".join(got), cut) == (STREAM, False)


def test_bundles_lose_nothing():
    got, _ = run(STREAM, [], bundle={"size": 2})

    assert b"".join(got) == STREAM
    assert got[0] == event("a") + event("b")


def test_the_event_of_usage_is_no_token():
    got, _ = run(STREAM, [], duplicate_token={"at": 3})

    assert b"".join(got) == STREAM


def test_two_faults_at_once():
    got, _ = run(STREAM, [], missing_token={"at": 0}, no_done={})

    assert b"".join(got) == event("b") + event("c") + USAGE


def test_usage_is_wrong_in_streams_and_bodies():
    got, _ = run(STREAM, [], usage_wrong={})
    assert b'"completion_tokens": 4' in b"".join(got)

    body = b'{"usage": {"completion_tokens": 3}}'
    faults = {"usage_wrong": Fault("usage_wrong")}
    assert json.loads(mangled_body(body, faults)) == {"usage": {"completion_tokens": 4}}


@pytest.mark.parametrize("body", [b"oops", b"[]", b'{"usage": null}', b"{}"])
def test_a_body_without_usage_stays(body):
    assert mangled_body(body, {"usage_wrong": Fault("usage_wrong")}) == body
