"""Typed fields of a JSON body, and refusals in the shape of vLLM's. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Body = Mapping[str, Any]


class ApiError(Exception):
    """A refusal in the shape of vLLM's error body."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "BadRequestError",
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message,
                "type": kind,
                "param": param,
                "code": status,
            }
        }


def read_json(raw: bytes) -> Body:
    """Return the body as a mapping.

    Raises:
        ApiError: no JSON, or no object.
    """
    try:
        body = json.loads(raw)
    except ValueError as exc:
        reason = exc.msg if isinstance(exc, json.JSONDecodeError) else str(exc)
        at = f"body.{exc.pos}" if isinstance(exc, json.JSONDecodeError) else "body"
        detail = {"type": "json_invalid", "loc": at, "msg": "JSON decode error"}
        detail |= {"input": "<dict of 0 items>", "ctx": {"error": reason}}  # type: ignore[dict-item]
        raise invalid(detail, at) from exc
    if not isinstance(body, dict):
        raise wrong_type("body", "dict_type", "a valid dictionary", body)
    return body


def flag(body: Body, name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise wrong_type(f"body.{name}", "bool_type", "a valid boolean", value)
    return value


def whole(body: Body, name: str, *, least: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(f"body.{name}", "int_type", "a valid integer", value)
    if value < least:
        raise bad(f"{name} must be at least {least}, got {value}.", name, value)
    return value


def real(
    body: Body, name: str, default: float, *, least: float, most: float = float("inf")
) -> float:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(f"body.{name}", "float_type", "a valid number", value)
    if not least <= value <= most:
        bounds = (
            "non-negative" if least == 0 and most > 1 else f"in ({least:g}, {most:g}]"
        )
        raise bad(f"{name} must be {bounds}, got {value}.", name, value)
    return float(value)


def bad(message: str, param: str, value: object = None) -> ApiError:
    shown = f"parameter={param}" + ("" if value is None else f", value={value}")
    return ApiError(f"{message} ({shown})", param=param)


def wrong_type(where: str, kind: str, wanted: str, value: object) -> ApiError:
    detail = {"type": kind, "loc": where, "msg": f"Input should be {wanted}"}
    return invalid({**detail, "input": str(value)}, where)


def invalid(detail: Mapping[str, object], where: str) -> ApiError:
    message = f"1 validation error:\n  {dict(detail)!r}"
    return ApiError(message, kind="Bad Request", param=where)
