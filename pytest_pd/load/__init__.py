"""The load generator: its timestamps come from the kernel, its error is known."""
