"""The embedded engine whose truth is known: a small real transformer server."""
