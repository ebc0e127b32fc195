"""One work unit per topology, so that two workers never start the same one."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from pytest_pd.plugin.selection import topology_of


def scope_of(nodeid: str, dist: str) -> str:
    """Return the unit of a test without topology: xdist's own for each ``--dist``.

    Tests that worksteal would move singly are units of their own.
    """
    if dist == "loadscope":
        return nodeid.rpartition("::")[0]
    if dist == "loadfile":
        return nodeid.partition("::")[0]
    group = nodeid.rpartition("@")[2]
    return group if dist == "loadgroup" and "]" not in group else nodeid


class TopologyScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """LoadScope by topology; a test that killed its worker is never run again."""

    def _split_scope(self, nodeid: str) -> str:
        """Return the topology of a test, else what ``--dist`` asks for."""
        name = topology_of(nodeid)
        if name:
            return f"topo:{name}"
        return scope_of(nodeid, self.config.getvalue("dist"))

    def remove_node(self, node: WorkerController) -> str | None:
        """Take a worker away and return the test it died in.

        The crashed test counts as done (LoadScope runs it again), and finished
        units do not go back to the queue (an empty unit would stop a worker).
        """
        workload = self.assigned_work.get(node, {})
        crashed = next(
            (t for unit in workload.values() for t, done in unit.items() if not done),
            None,
        )
        if crashed is not None:
            workload[self._split_scope(crashed)][crashed] = True
        self.assigned_work[node] = {
            scope: unit for scope, unit in workload.items() if not all(unit.values())
        }
        super().remove_node(node)
        return crashed
