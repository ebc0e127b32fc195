"""Refit: plan the bytes, bound the time, move the weights, verify every bit.

What a worker imports (`shape`, `cells`, `choice`, `transfer`, `content`, `worker`)
needs only the standard library and numpy, and torch where it moves something.
"""
