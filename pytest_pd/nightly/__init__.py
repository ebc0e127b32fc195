"""A night: run pytest, judge what came out by verdict and layer, tell people."""
