"""Words and ids, as the tokenizers library has them for the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.reference.tokenizer import Tokenizer


def test_bos_comes_first(tokenizer: Tokenizer):
    assert tokenizer.encode(", w001 w002") == [1, 5, 7, 8]


def test_bos_can_be_left_out(tokenizer: Tokenizer):
    assert tokenizer.encode(", w001 w002", with_bos=False) == [5, 7, 8]


def test_decode_is_the_way_back(tokenizer: Tokenizer):
    assert tokenizer.decode([5, 7, 8]) == ", w001 w002"


def test_unknown_words_become_unk(tokenizer: Tokenizer):
    assert tokenizer.encode("hello", with_bos=False) == [3]


def test_special_words_are_found_inside_a_word(tokenizer: Tokenizer):
    assert tokenizer.encode("w001<s>w002", with_bos=False) == [7, 1, 8]


def test_special_tokens_add_no_text(tokenizer: Tokenizer):
    assert tokenizer.piece(tokenizer.eos) == ""
    assert tokenizer.piece(7) == " w001"


def test_decode_can_leave_special_tokens_out(tokenizer: Tokenizer):
    assert tokenizer.decode([1, 7, 2], skip_special=True) == "w001"


def test_chat_is_the_contents_behind_bos(tokenizer: Tokenizer):
    text = tokenizer.render_chat([("user", ", w001 w002"), ("assistant", "w003")])

    assert text == "<s> , w001 w002 w003"
    assert tokenizer.encode(text, with_bos=False)[0] == tokenizer.bos


def _parts(tiny: Path) -> tuple[dict[str, object], dict[str, object]]:
    names = ("tokenizer.json", "tokenizer_config.json")
    content, settings = (json.loads((tiny / name).read_text()) for name in names)
    return content, settings


def test_another_kind_of_tokenizer_is_refused(tiny: Path):
    content, settings = _parts(tiny)
    content["model"] = {"type": "BPE"}

    with pytest.raises(SpecError, match="BPE"):
        Tokenizer(content, settings)


def test_another_chat_template_is_refused(tiny: Path):
    content, settings = _parts(tiny)
    settings["chat_template"] = "{{ messages }}"

    with pytest.raises(SpecError, match="chat template"):
        Tokenizer(content, settings).render_chat([("user", "w001")])
