"""From flags and environment to settings, and the refusals in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.reference import flags
from pytest_pd.reference.settings import Settings, read_settings


@pytest.fixture
def read(tiny: Path):
    """Return a reader of flags for the tiny model."""

    def read_words(words: str = "", env=None, model: str = "") -> Settings:
        args = flags.parse([model or str(tiny), *words.split()])
        return read_settings(args, env or {})

    return read_words


def test_defaults_are_vllms(read, tiny: Path):
    settings = read()

    assert settings.host == "0.0.0.0"
    assert settings.port == 8000
    assert settings.names == (str(tiny),)
    assert settings.block_size == 16
    assert settings.max_model_len == 4096
    assert settings.caching
    assert not settings.details
    assert settings.kv_transfer is None


def test_auto_keeps_the_type_of_the_checkpoint(read):
    assert read().dtype == "float16"
    assert read("--dtype float32").dtype == "float32"
    assert read("--dtype float32 --kv-cache-dtype bfloat16").dtype == "bfloat16"


def test_the_cache_holds_what_its_memory_holds(read):
    """409 blocks of 32 float32 tokens in 64 MiB, as vLLM said of this model."""
    words = "--dtype float32 --block-size 32 --kv-cache-memory-bytes 67108864"

    settings = read(f"{words} --max-model-len 2048")

    assert settings.blocks == 409


def test_blocks_may_be_given(read):
    settings = read("--num-gpu-blocks-override 40 --max-model-len 512")

    assert settings.blocks == 40


def test_keys_come_from_flag_or_environment(read):
    assert read("--api-key a").api_key == "a"
    assert read(env={"VLLM_API_KEY": "b"}).api_key == "b"
    assert read("--api-key a", env={"VLLM_API_KEY": "b"}).api_key == "a"


def test_faults_come_from_both(read):
    env = {"PD_REFERENCE_FAULTS": '[{"kind": "no_done"}]'}

    settings = read('--fault {"kind":"kv_swap"}', env=env)

    assert [fault.kind for fault in settings.faults] == ["kv_swap", "no_done"]


def test_a_rehearsal_computes_with_the_model_it_was_given(read, tiny: Path):
    words = f"--rehearse-model {tiny} --max-model-len 131072 --kv-cache-dtype fp8"

    settings = read(words, model="moonshotai/Kimi-K2")

    assert settings.folder == tiny
    assert settings.model_tag == "moonshotai/Kimi-K2"
    assert settings.max_model_len == 4096
    assert settings.dtype == "float16"


def test_a_rehearsal_may_come_from_the_environment(read, tiny: Path):
    env = {"PD_REFERENCE_REHEARSE_MODEL": str(tiny)}

    assert read(model="no/such/model", env=env).folder == tiny


def test_a_rehearsal_bounds_the_cache(read, tiny: Path):
    words = f"--rehearse-model {tiny} --kv-cache-memory-bytes 100G"

    assert read(words).blocks * 16 == 262_144


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-model-len 5000", "greater than the derived max_model_len"),
        ("--kv-cache-dtype fp8", "fp8"),
        ("--num-gpu-blocks-override 4", "less than one request"),
        ("--kv-transfer-config 5", "JSON object"),
        ('--fault {"kind":"nothing"}', "nothing"),
    ],
)
def test_what_cannot_be_served_is_refused(read, words: str, message: str):
    with pytest.raises(SpecError, match=message):
        read(words)


def test_a_model_must_be_named():
    with pytest.raises(SpecError, match="No model"):
        read_settings(flags.parse([]), {})


def test_a_model_that_is_not_there_is_refused(read):
    with pytest.raises(SpecError, match="holds no model"):
        read(model="/no/such/folder")
