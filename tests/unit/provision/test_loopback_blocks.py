"""Blocks of loopback addresses: two that ask at once never get the same."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from pytest_pd.provision.kubernetes.forward import take_block

BLOCKS = range(251, 254)


def test_whoever_comes_second_gets_another():
    first, held = take_block(BLOCKS)
    with closing(held):
        second, other = take_block(BLOCKS)
        other.close()

    assert first != second


def test_what_was_given_back_can_be_taken_again():
    first, held = take_block(BLOCKS)
    held.close()
    second, other = take_block(BLOCKS)
    other.close()

    assert first == second


def test_a_block_with_a_busy_port_is_passed_over():
    with socket.create_server((f"127.{BLOCKS[0]}.1.1", 0)) as server:
        block, held = take_block(BLOCKS, [server.getsockname()[1]])
        held.close()

    assert block == BLOCKS[1]


def test_none_is_left():
    with pytest.raises(OSError, match="every block"):
        take_block(())
