"""Counters of nodes tell whether KV took the fabric or fell back to TCP."""

import pytest

from pytest_pd.provision import node_facts
from pytest_pd.provision.wire import (
    Wire,
    fell_back,
    nvlink_bytes,
    rdma_bytes,
    tcp_bytes,
    wire_of,
)

NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets
    lo: 9000000    1000    0    0    0     0          0         0  9000000    1000
  eth0: 4096       12    0    0    0     0          0         0     2048       9
enP5p9s0:1000000   12    0    0    0     0          0         0     2048       9
"""
NVLINK = """\
GPU 0: NVIDIA GB200 (UUID: GPU-1)
\t Link 0: Data Tx: 7 KiB
\t Link 0: Data Rx: 100 KiB
\t Link 17: Data Tx: 7 KiB
\t Link 17: Data Rx: 28 KiB
GPU 1: NVIDIA GB200 (UUID: GPU-2)
\t Link 0: Data Tx: 0 KiB
\t Link 0: Data Rx: 0 KiB
"""
PORTS = {"mlx5_0/1": "250", "mlx5_1/1": "750", "mlx5_2/1": ""}


def test_what_came_in_by_interfaces_is_summed_without_loopback():
    assert tcp_bytes(NET_DEV) == 1_004_096


def test_rdma_counters_count_words_of_four_bytes():
    assert rdma_bytes(PORTS) == 4000
    assert rdma_bytes({"mlx5_0/1": ""}) is None


def test_nvlink_is_summed_over_links_and_gpus():
    assert nvlink_bytes(NVLINK) == 128 * 1024
    assert nvlink_bytes("Unable to retrieve NVLink information") is None


def test_nodes_are_summed_and_differences_taken():
    said = {"net_dev": NET_DEV, "rdma": PORTS, "nvlink": NVLINK}
    one, two = ({"wire": said}, {"wire": {**said, "nvlink": ""}})

    found = wire_of([one, two])

    assert found == Wire(2_008_192, 8000, 128 * 1024)
    assert found.since(Wire(8_192, 1000, None)) == Wire(2_000_000, 7000, None)


@pytest.mark.parametrize(
    ("moved", "alone_tcp", "fell"),
    [
        (Wire(10, 1000, None), 0, False),
        (Wire(10, 0, 0), 0, False),  # stayed on the node: neither way was used
        (Wire(900, 0, None), 0, True),
        (Wire(900, 10, 20), 0, True),
        (Wire(900, 8000, 9000), 0, True),  # TP and EP use the fabric, the KV does not
        (Wire(900, 8000, 9000), 800, False),  # TP takes TCP
        (Wire(900, None, None), 0, False),
    ],
)
def test_kv_by_tcp_is_a_fall_back_only_where_there_is_a_fabric(moved, alone_tcp, fell):
    assert bool(fell_back(moved, Wire(alone_tcp), 1000)) is fell


def test_this_machine_has_counters_that_can_be_read():
    assert tcp_bytes(node_facts.wire()["net_dev"]) >= 0
    assert "lo:" in node_facts.wire()["net_dev"]
