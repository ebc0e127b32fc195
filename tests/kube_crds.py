"""Custom resources that we render, as schemas in our own words, and as definitions.

Only what we use is written out, and nothing else is allowed; a server drops what its
definition does not name, and a test that reads its object back sees it. Sources:
Gateway API Inference Extension ``inference.networking.k8s.io/v1``, Gateway API
``gateway.networking.k8s.io/v1`` and ``leaderworkerset.x-k8s.io/v1``, their API
references.
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

PLACES = {
    "InferencePool": ("inference.networking.k8s.io", "inferencepools"),
    "HTTPRoute": ("gateway.networking.k8s.io", "httproutes"),
    "LeaderWorkerSet": ("leaderworkerset.x-k8s.io", "leaderworkersets"),
}
"""Kind to its group and its plural."""
APPROVED = {"api-approved.kubernetes.io": "unapproved, for tests of pytest-pd"}
"""Groups of ``k8s.io`` are protected: a server wants a word about who approved."""


def definitions() -> list[dict[str, Any]]:
    """Return every CustomResourceDefinition."""
    return [_definition(kind, *PLACES[kind], structural(SPECS[kind])) for kind in SPECS]


def _definition(
    kind: str, group: str, plural: str, spec: dict[str, Any]
) -> dict[str, Any]:
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": spec}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "annotations": APPROVED},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "plural": plural,
                "singular": kind.lower(),
                "listKind": f"{kind}List",
            },
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def structural(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema as servers want it: what is not named is dropped, not refused."""
    if schema == ANYTHING:
        return {**ANYTHING, "x-kubernetes-preserve-unknown-fields": True}
    found = dict(schema)
    if found.get("additionalProperties") is False:
        del found["additionalProperties"]
    if "properties" in found:
        fields = found["properties"].items()
        found["properties"] = {name: structural(field) for name, field in fields}
    if "items" in found:
        found["items"] = structural(found["items"])
    return found
