"""What a right hand-over moves, from the prompt's length and the model's shape."""

from __future__ import annotations

from pytest_pd.plan.model import ExpectedEvidence


def handed_over_tokens(expected: ExpectedEvidence, prompt_tokens: int) -> range:
    """Return how many tokens of one prompt decode may get from prefill.

    A pull moves all of the prompt. Files hold whole blocks of what comes before
    the last token; vLLM's connector misses a prompt of ``len % block == 1``
    altogether, others do not, so both counts are right there.

    Returns:
        A range of one or more counts of tokens, all of them right.
    """
    if expected.transfer == "none":
        return range(1)
    if not expected.whole_blocks:
        return range(prompt_tokens, prompt_tokens + 1)
    block = expected.block_tokens or 1
    most = (prompt_tokens - 1) // block * block
    least = 0 if prompt_tokens % block == 1 else most
    return range(least, most + 1, max(1, most - least))


def handed_over_bytes(expected: ExpectedEvidence, prompt_tokens: int) -> int | None:
    """Return the bytes of KV that a pull moves for one prompt: whole blocks.

    ``ceil(tokens / block) x block x bytes per token``; None when the model's
    shape or the block size is not known.
    """
    if expected.kv is None or expected.block_tokens is None:
        return None
    blocks = -(-prompt_tokens // expected.block_tokens)
    return blocks * expected.block_tokens * expected.kv.bytes_per_token
