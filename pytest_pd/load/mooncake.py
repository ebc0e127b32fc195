"""Replay of recorded traces: times, lengths, and which blocks prompts share."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.load.prompts import Prompt, PromptSource


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One request of a trace.

    Attributes:
        at_s: Start, seconds.
        input_tokens, output_tokens: Lengths.
        blocks: Ids of the prompt's blocks; equal ids are equal text.
    """

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]


def read_trace(
    path: Path, *, sha256: str | None = None, limit: int | None = None
) -> list[TraceEntry]:
    """Read a Mooncake trace: JSON lines, times in ms.

    Raises:
        SpecError: the file is absent, another one, or a line of it is wrong.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(f"Trace {str(path)!r} cannot be read: {error}.") from error
    found = hashlib.sha256(raw).hexdigest()
    if sha256 is not None and found != sha256:
        raise SpecError(
            f"Trace {str(path)!r} has SHA-256 {found}, not {sha256}.", where=path
        )
    numbered = [(k, x) for k, x in enumerate(raw.splitlines(), 1) if x.strip()]
    entries = [_entry(line, f"{path}:{k}") for k, line in numbered[:limit]]
    return sorted(entries, key=lambda entry: entry.at_s)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no time")
    return number


def _block(value: Any) -> int:
    block = int(value)
    if block < 0:
        raise ValueError(f"hash id {block} is below 0")
    return block


def _entry(line: bytes, where: str) -> TraceEntry:
    try:
        fields: dict[str, Any] = json.loads(line)
        return TraceEntry(
            at_s=_finite(fields["timestamp"]) / 1e3,
            input_tokens=int(fields["input_length"]),
            output_tokens=max(int(fields["output_length"]), 1),
            blocks=tuple(_block(block) for block in fields.get("hash_ids", ())),
        )
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise SpecError(
            f"Line of the trace cannot be read: {type(error).__name__} {error}.",
            hint="wanted: timestamp, input_length, output_length, hash_ids",
            where=where,
        ) from error


def replay_prompts(
    entries: list[TraceEntry],
    source: PromptSource,
    *,
    block_tokens: int = 512,
    speed: float = 1.0,
) -> list[Prompt]:
    """Return the prompts of a trace: equal hash ids become equal blocks of text.

    A prompt is its blocks in order, cut to its length; a trace without hash ids
    gets blocks that nobody shares. No block is one of an earlier replay from `source`.
    """
    replay = source.made
    source.made += len(entries)
    prompts = []
    for serial, entry in enumerate(entries):
        size = max(entry.input_tokens - source.overhead, 1)
        needed = -(-size // block_tokens)
        blocks = [2 * block for block in entry.blocks[:needed]]
        while len(blocks) < needed:  # odd keys: never those of a hash id
            blocks.append(2 * (serial * 65536 + len(blocks)) + 1)
        words: list[int] = []
        for block in blocks:
            words += source.block(block_tokens, replay, block)
        made = source.compose(words[:size], entry.output_tokens)
        prompts.append(replace(made, at_s=entry.at_s / speed))
    return prompts
