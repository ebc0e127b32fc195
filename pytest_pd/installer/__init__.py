"""Real engines on this machine: pinned, each in a virtual environment of its own."""
