"""How a topology is laid out: pure functions from specifications to data."""
