"""A user's own project: what ``pytest-pd init`` lays out, and how it is updated."""
