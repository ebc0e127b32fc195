"""The port ladder: explicit ports first, then the next free one of each purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Role, SiteFacts

FIRST_PORT = {
    "http": 8100,
    "router": 8000,
    "side_channel": 5600,
    "metrics": 29000,
    "nats": 4222,
    "nats_http": 8222,
    "etcd": 2379,
    "etcd_peer": 2380,
}
"""Where the ladder of a purpose begins; any other purpose begins at 20000."""

LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Claim:
    """A service that wants ports on a node.

    Attributes:
        widths: Purpose to number of consecutive ports.
        fixed: Purpose to first port, where the specification fixes it.
        sibling: Position among the workers of its role on this node: a fixed
            port counts up by width for each of them.
    """

    service: str
    node: str
    role: Role
    widths: Mapping[str, int]
    fixed: Mapping[str, int]
    sibling: int = 0


@dataclass(slots=True)
class Ladder:
    """Who holds which port of which address."""

    site: SiteFacts
    held: dict[tuple[str, int], str] = field(default_factory=dict)
    busy: set[tuple[str, int]] = field(default_factory=set)
    following: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.busy = {(self._at(node), port) for node, port in self.site.busy}

    def _at(self, node: str) -> str:
        # planned nodes may share one address: ports are the address's, not theirs
        return self.site.addresses.get(node, node)

    def fix(self, claim: Claim) -> dict[str, int]:
        """Hold the ports that the specification fixes.

        Raises:
            SpecError: another service has the port, or it is in use there.
        """
        ports = {}
        for purpose, first in claim.fixed.items():
            width = claim.widths.get(purpose)
            if width is None:
                raise SpecError.unknown(f"{claim.service}: port", purpose, claim.widths)
            ports[purpose] = first + claim.sibling * width
            for port in range(ports[purpose], ports[purpose] + width):
                self._hold(claim, purpose, port)
        return ports

    def _hold(self, claim: Claim, purpose: str, port: int) -> None:
        place = (self._at(claim.node), port)
        if place in self.held:
            raise SpecError(
                f"{claim.service} ({purpose}) and {self.held[place]} both want port "
                f"{port} on {claim.node}.",
                hint="give one of them another port, or none to let the plan choose",
            )
        if place in self.busy:
            raise SpecError(
                f"{claim.service} ({purpose}) is to use port {port} on {claim.node}, "
                "which is in use by somebody else.",
                hint="free it, or leave the port out to let the plan choose",
            )
        self.held[place] = f"{claim.service} ({purpose})"

    def fill(self, claim: Claim, fixed: Mapping[str, int]) -> dict[str, int]:
        """Return all ports of a claim: the fixed ones, and the next free others."""
        ports = dict(fixed)
        for purpose, width in claim.widths.items():
            if purpose not in ports:
                ports[purpose] = self._next(claim, purpose, width)
        return ports

    def _next(self, claim: Claim, purpose: str, width: int) -> int:
        router = claim.role is Role.ROUTER and purpose == "http"
        ladder = "router" if router else purpose
        address = self._at(claim.node)
        first = FIRST_PORT.get(ladder, 20000) + self.site.port_offset
        port = self.following.get((address, ladder), first)
        while not all(self._free(address, port + k) for k in range(width)):
            port += 1
            if port + width > LAST_PORT:
                raise SpecError(f"{claim.node} has no free port for {claim.service}.")
        for k in range(width):
            self.held[address, port + k] = f"{claim.service} ({purpose})"
        self.following[address, ladder] = port + width
        return port

    def _free(self, address: str, port: int) -> bool:
        place = (address, port)
        return place not in self.held and place not in self.busy
