"""Secrets in bytes that come piece by piece. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytest_pd.provision.launcher import to_bytes


class Masker:
    """Overwrites secrets by as many ``*``, so that every offset stays what it was.

    An end that may be the beginning of a secret is held back until more has come.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [to_bytes(secret) for secret in secrets]
        self._raw = self._masked = b""

    @property
    def held(self) -> int:
        """How many bytes are held back."""
        return len(self._raw)

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return those that can be shown."""
        raw, masked = self._raw + data, bytearray(self._masked + data)
        for start, end in (*self._whole(raw), *self._half(data)):
            masked[start:end] = b"*" * (end - start)
        keep = max((begun(raw, secret) for secret in self._secrets), default=0)
        shown = len(raw) - keep
        self._raw, self._masked = raw[shown:], bytes(masked[shown:])
        return bytes(masked[:shown])

    def flush(self) -> bytes:
        """Return what was held back: nothing more comes."""
        held, self._raw, self._masked = self._masked, b"", b""
        return held

    def _whole(self, raw: bytes) -> Iterator[tuple[int, int]]:
        """Yield start and end of every secret."""
        for secret in self._secrets:
            at = raw.find(secret)
            while at >= 0:
                yield at, at + len(secret)
                at = raw.find(secret, at + 1)

    def _half(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield what is held of a secret whose rest a launcher has masked meanwhile."""
        for secret in self._secrets:
            size = begun(self._raw, secret)
            if size and data.startswith(b"*" * (len(secret) - size)):
                yield self.held - size, self.held


def begun(text: bytes, secret: bytes) -> int:
    """Return how much of a secret stands at the end of a text, less than all of it."""
    most = min(len(secret) - 1, len(text))
    return next((n for n in range(most, 0, -1) if text.endswith(secret[:n])), 0)
