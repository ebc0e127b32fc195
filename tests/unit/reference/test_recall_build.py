"""The recall model is a build product: the same bytes on every run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pytest_pd.reference import recall, tensorfile
from pytest_pd.reference.model import Model

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("name", FILES)
def test_rebuilding_gives_the_files_in_the_tree(tmp_path: Path, tiny: Path, name: str):
    recall.write(tmp_path)

    assert (tmp_path / name).read_bytes() == (tiny / name).read_bytes()


def test_folder_holds_nothing_else(tiny: Path):
    assert sorted(path.name for path in tiny.iterdir()) == sorted(FILES)


def test_model_is_smaller_than_two_megabytes(tiny: Path):
    assert sum(path.stat().st_size for path in tiny.iterdir()) < 2_000_000


def test_weights_are_read_alike_by_the_safetensors_library(tiny: Path):
    path = tiny / "model.safetensors"

    theirs, ours = load_file(path), tensorfile.read(path)

    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[name], ours[name]) for name in theirs)


def test_weights_are_float16_and_finite(tiny: Path):
    for tensor in tensorfile.read(tiny / "model.safetensors").values():
        assert tensor.dtype == np.float16
        assert np.isfinite(tensor).all()


def test_every_embedding_has_one_norm():
    embedding = recall.make_weights()["model.embed_tokens.weight"].astype(float)

    energies = (embedding**2).sum(axis=1)

    assert np.allclose(energies, energies[0], rtol=1e-3)


def test_shapes_follow_the_config(model: Model, tiny: Path):
    config = json.loads((tiny / "config.json").read_text())

    assert model.shape.layers == config["num_hidden_layers"] == 5
    assert model.shape.kv_heads == config["num_key_value_heads"] == 2
    assert model.vocab_size == 262


def test_chat_template_is_part_of_the_tokenizer_config(tiny: Path):
    settings = json.loads((tiny / "tokenizer_config.json").read_text())

    assert settings["chat_template"] == recall.CHAT_TEMPLATE
