"""Names of hardware that topologies, clusters and marks agree on."""

HARDWARE = {
    "cpu": "no GPU",
    "a100": "NVIDIA A100",
    "h100": "NVIDIA H100",
    "h200": "NVIDIA H200",
    "b200": "NVIDIA B200",
    "gb200": "NVIDIA GB200",
    "gb300": "NVIDIA GB300",
    "mi300x": "AMD MI300X",
}
"""Mark to what it stands for."""
