"""Words to write prompts with, and which of them are one token each."""

from __future__ import annotations

from collections.abc import Callable

from pytest_pd.errors import MeasurementError

COMMON_WORDS = """
about above after again along also always another answer area around back because
become been before began being below between book both boy came cannot change
children city close country cut different does down during each earth end enough
even every example face fall family far father few find first follow food form
found four from gave girl give good got great group grow half hand hard have head
hear help her here high him his home house however important into just keep kind
know land large last later leave left letter life light like line list little live
long look made main make man many mark mean men might mile more most mother
mountain move much music must name near need never next night not now number off
often old once one only open order other our out over own page paper part people
place plant play point question quick read real right river room said same saw
school sea second see seem sentence set several should show side since small some
something sometimes soon sound start state still stop story study such sun table
take talk tell than that their them then there these they thing think this those
thought three through time together too took tree try turn two under until upon
use very walk want was watch water way well went were what when where which while
white who why will with without word work world would write year young
""".split()  # noqa: SIM905


def single_token_words(count: Callable[[str], int]) -> list[str]:
    """Return the common words that are one token each, a space in front.

    Args:
        count: Function of a text: its tokens, special tokens left out.

    All words are counted in one go first; only where the sum is wrong is the list
    halved, so that a good tokenizer is asked twice and not 300 times.
    """
    found = _single([f" {word}" for word in COMMON_WORDS], count)
    if len(found) < 16:
        raise MeasurementError(
            f"Only {len(found)} common words are one token each.",
            hint="use token ids for this model",
        )
    return found


def _single(words: list[str], count: Callable[[str], int]) -> list[str]:
    if not words or count("".join(words)) == len(words):
        return words
    if len(words) == 1:
        return []
    half = len(words) // 2
    return _single(words[:half], count) + _single(words[half:], count)
