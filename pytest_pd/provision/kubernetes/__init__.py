"""Kubernetes as a backend, with ``kubectl`` as the one transport."""
