"""Custom resources that we render, as schemas in our own words.

Only what we use is written out, and nothing else is allowed. They are not tried on the
server of `.ci/kube-assets`: 1.20 built with Go 1.19 dies of any custom resource (its
reflect2 is too old for that Go's maps). Sources: Gateway API Inference Extension
``inference.networking.k8s.io/v1``, Gateway API ``gateway.networking.k8s.io/v1`` and
``leaderworkerset.x-k8s.io/v1``, their API references.
"""

from __future__ import annotations

from typing import Any

STRING = {"type": "string"}
NAME = {"type": "string", "minLength": 1, "maxLength": 253}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
LABELS = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}
ANYTHING = {"type": "object"}


def record(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    """Return the schema of an object."""
    found: dict[str, Any] = {"type": "object", "properties": fields}
    found["additionalProperties"] = False
    return {**found, "required": list(required)} if required else found


def many(items: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    """Return the schema of a list."""
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


NUMBER = record(("number",), number=PORT)
POOL = record(
    ("selector", "targetPorts", "endpointPickerRef"),
    selector=record(("matchLabels",), matchLabels=LABELS),
    targetPorts=many(NUMBER, 1, 8),
    endpointPickerRef=record(
        ("name",),
        group=STRING,
        kind={**STRING, "default": "Service"},
        name=NAME,
        port=NUMBER,
        failureMode={**STRING, "enum": ["FailOpen", "FailClose"]},
    ),
)
REF = {"group": STRING, "kind": STRING, "name": NAME, "namespace": STRING}
BACKEND = record(("name",), **REF, port=PORT, weight={"type": "integer"})
ROUTE = record(
    parentRefs=many(record(("name",), **REF, sectionName=STRING, port=PORT), 0, 32),
    hostnames=many(STRING, 0, 16),
    rules=many(record(backendRefs=many(BACKEND, 0, 16)), 1, 16),
)
TEMPLATE = record(metadata=ANYTHING, spec=ANYTHING)
WORKERS = record(
    ("leaderWorkerTemplate",),
    replicas={"type": "integer", "minimum": 0, "default": 1},
    startupPolicy={**STRING, "enum": ["LeaderCreated", "LeaderReady"]},
    leaderWorkerTemplate=record(
        ("workerTemplate",),
        size={"type": "integer", "minimum": 1, "default": 1},
        restartPolicy={
            **STRING,
            "enum": ["None", "RecreateGroupOnPodRestart", "RecreateGroupAfterStart"],
        },
        leaderTemplate=TEMPLATE,
        workerTemplate=TEMPLATE,
    ),
)

SPECS = {"InferencePool": POOL, "HTTPRoute": ROUTE, "LeaderWorkerSet": WORKERS}
"""Kind to the schema of its ``spec``."""
