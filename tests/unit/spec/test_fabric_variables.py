"""Interfaces of the cluster file become the variables that engines read."""

from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_ssh import FabricSite


def test_interfaces_and_devices_become_variables():
    fabric = FabricSite(
        collectives="ib0", rdma_devices=("mlx5_0:1", "mlx5_1:1"), ucx_tls="rc,sm,self"
    )

    assert fabric.env == {
        "NCCL_SOCKET_IFNAME": "ib0",
        "GLOO_SOCKET_IFNAME": "ib0",
        "NCCL_IB_HCA": "mlx5_0:1,mlx5_1:1",
        "UCX_NET_DEVICES": "mlx5_0:1,mlx5_1:1",
        "UCX_TLS": "rc,sm,self",
    }


def test_collectives_use_the_control_interface_unless_told_otherwise():
    assert FabricSite(control="eth0").env["NCCL_SOCKET_IFNAME"] == "eth0"


def test_a_cluster_without_a_fabric_sets_nothing():
    assert ClusterSpec(name="x").fabric_env == {}
