"""A real Kubernetes control plane on this machine, with a stand-in for the kubelet."""
