"""What kubectl does in a pod: run a command, reach a port. Over SPDY."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

from pytest_pd.provision.kube_local.spdy import Session, Stream

CHUNK = 65536


async def forward(session: Session, address: str) -> None:
    """Serve port-forward: pairs of streams, one for data and one for errors."""
    errors: dict[str, Stream] = {}
    tasks: set[asyncio.Task[None]] = set()
    while (stream := await session.opened.get()) is not None:
        number = stream.headers.get("requestid", "")
        if stream.headers.get("streamtype") == "error":
            errors[number] = stream
            continue
        error = errors.pop(number, None)
        task = asyncio.create_task(connect(stream, error, address))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()


async def connect(stream: Stream, error: Stream | None, address: str) -> None:
    """Join one stream with one port of the pod."""
    port = int(stream.headers.get("port", "0"))
    try:
        reader, writer = await asyncio.open_connection(address, port)
    except OSError as why:
        if error is not None:
            text = f"failed to connect to port {port} of the pod: {why}"
            await error.write(text.encode())
            await error.close()
        await stream.close()
        return
    try:
        with suppress(OSError):
            await asyncio.gather(upwards(stream, writer), downwards(reader, stream))
    finally:
        writer.close()
        with suppress(OSError):
            await stream.close()
            if error is not None:
                await error.close()


async def upwards(stream: Stream, writer: asyncio.StreamWriter) -> None:
    """Copy what the client sends."""
    while (data := await stream.data.get()) is not None:
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()


async def downwards(reader: asyncio.StreamReader, stream: Stream) -> None:
    """Copy what the pod answers."""
    while data := await reader.read(CHUNK):
        await stream.write(data)
    await stream.close()


async def execute(
    session: Session,
    words: Sequence[str],
    env: Mapping[str, str],
    wanted: Sequence[str],
) -> None:
    """Serve exec: run a command, its ends joined with the client's streams.

    Args:
        wanted: Types of the streams that the client will open.
    """
    streams: dict[str, Stream] = {}
    while not streams.keys() >= set(wanted):
        stream = await session.opened.get()
        if stream is None:
            return
        streams[stream.headers.get("streamtype", "")] = stream
    status = await run(words, env, streams)
    await streams["error"].write(json.dumps(status).encode())
    for stream in streams.values():
        await stream.close()


async def run(
    words: Sequence[str], env: Mapping[str, str], streams: Mapping[str, Stream]
) -> dict[str, object]:
    """Run a command and return the Status that tells of its end."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            env=dict(env),
            stdin=pipe if "stdin" in streams else null,
            stdout=pipe if "stdout" in streams else null,
            stderr=pipe if "stderr" in streams else null,
            start_new_session=True,
        )
    except OSError as why:
        return failure(126, f"{words[0]!r}: {os.strerror(why.errno or 0)}")
    copies = []
    for name, end in (("stdout", process.stdout), ("stderr", process.stderr)):
        if end is not None:
            copies.append(downwards(end, streams[name]))
    feed = None
    if process.stdin is not None:
        feed = asyncio.create_task(upwards(streams["stdin"], process.stdin))
    await asyncio.gather(*copies)
    code = await process.wait()
    if feed is not None:
        feed.cancel()
    code = code if code >= 0 else 128 - code
    text = f"command terminated with exit code {code}"
    return failure(code, text) if code else {"metadata": {}, "status": "Success"}


def failure(code: int, text: str) -> dict[str, object]:
    """Return the Status of a command that ended with a code."""
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": text,
        "details": {"causes": causes},
    }
