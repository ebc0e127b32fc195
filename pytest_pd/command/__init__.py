"""Commands of ``pytest-pd`` that cut across the parts."""
