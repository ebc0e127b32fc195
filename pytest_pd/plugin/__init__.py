"""The pytest plugin: hooks that decide nothing themselves."""
