"""Everything that a topology needs, brought together for a site without a network."""
