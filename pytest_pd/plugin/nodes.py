"""Which machines a topology uses, by names that all harnesses of a host agree on."""

from __future__ import annotations

from pytest_pd.plugin.choice import Choice


def node_names(choice: Choice, topology_id: str) -> tuple[str, ...]:
    """Return one name per machine.

    Every node of a local cluster is this host. Elsewhere the nodes are known only
    once they are allocated, and an allocation is nobody else's.
    """
    cluster = choice.clusters[topology_id]
    return ("localhost",) if cluster.backend == "local" else ()
