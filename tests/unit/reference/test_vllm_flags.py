"""vLLM's command line: every flag is known, mistakes end as argparse ends them."""

from __future__ import annotations

import pytest

from pytest_pd.reference import flags


def test_flags_not_given_are_none():
    args = flags.parse(["model"])

    assert args.model_tag == "model"
    assert args.max_model_len is None
    assert args.enable_prefix_caching is None


def test_underscores_are_dashes():
    args = flags.parse(["m", "--max_model_len", "512", "--block_size=32"])

    assert (args.max_model_len, args.block_size) == (512, 32)


def test_booleans_have_a_no():
    assert flags.parse(["m", "--enable-prefix-caching"]).enable_prefix_caching is True
    assert (
        flags.parse(["m", "--no-enable-prefix-caching"]).enable_prefix_caching is False
    )


def test_json_is_parsed():
    args = flags.parse(["m", "--kv-transfer-config", '{"kv_role": "kv_both"}'])

    assert args.kv_transfer_config == {"kv_role": "kv_both"}


def test_json_may_come_key_by_key():
    args = flags.parse(
        [
            "m",
            "--kv-transfer-config.kv_role",
            "kv_both",
            "--kv-transfer-config.kv_connector_extra_config.kv_lease_duration=5",
            "--kv-transfer-config.list+",
            "1",
        ]
    )

    assert args.kv_transfer_config == {
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"kv_lease_duration": 5},
        "list": [1],
    }


@pytest.mark.parametrize(
    ("text", "count"),
    [("512", 512), ("1k", 1000), ("1K", 1024), ("25.6k", 25_600), ("2M", 2**21)],
)
def test_sizes_may_have_a_unit(text: str, count: int):
    assert (
        flags.parse(["m", "--max-num-batched-tokens", text]).max_num_batched_tokens
        == count
    )


def test_the_context_may_be_auto():
    assert flags.parse(["m", "--max-model-len", "auto"]).max_model_len == -1


def test_several_names_and_keys():
    args = flags.parse(["m", "--served-model-name", "a", "b", "--api-key", "k"])

    assert args.served_model_name == ["a", "b"]
    assert args.api_key == ["k"]


def test_short_names():
    assert flags.parse(["m", "-tp", "4", "-dp", "2"]).tensor_parallel_size == 4


def test_optimization_level_without_space():
    assert flags.parse(["m", "-O3"]).optimization_level in (3, "3")


def test_our_own_flags():
    args = flags.parse(["m", "--fault", "{}", "--fault", "{}", "--allow-faults"])

    assert args.fault == ["{}", "{}"]
    assert args.allow_faults


K2_PREFILL = """moonshotai/Kimi-K2 --host 0.0.0.0 --port 8087
 --tensor-parallel-size 1 --data-parallel-size 8 --data-parallel-size-local 4
 --data-parallel-hybrid-lb --data-parallel-address 10.0.0.1
 --data-parallel-rpc-port 13345 --enable-expert-parallel
 --trust-remote-code --gpu-memory-utilization 0.9 --kv-cache-dtype fp8
 --dtype bfloat16 --max-num-seqs 256 --max-num-batched-tokens 8192
 --enforce-eager --no-enable-prefix-caching
 --api-server-count 1 --compilation-config {"cudagraph_mode":"PIECEWISE"}
 --reasoning-parser kimi_k2 --tool-call-parser kimi_k2 --enable-auto-tool-choice"""


def test_a_real_recipe_is_accepted():
    args = flags.parse(K2_PREFILL.split())

    assert args.data_parallel_size_local == 4
    assert args.compilation_config == {"cudagraph_mode": "PIECEWISE"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--tensor-paralel-size", "2"],
            "unrecognized arguments: --tensor-paralel-size",
        ),
        (["--port", "http"], "invalid int value: 'http'"),
        (["--dtype", "float12"], "invalid choice: 'float12'"),
        (["--kv-transfer-config", "{role}"], "cannot be converted"),
        (["--block-size"], "expected one argument"),
        (["--max-num-batched-tokens", "many"], "whole number"),
        (["--enable-prefix-caching=yes"], "ignored explicit argument"),
    ],
)
def test_mistakes_end_with_code_two(capsys, words: list[str], message: str):
    with pytest.raises(SystemExit) as caught:
        flags.parse(["m", *words])

    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_all_316_flags_of_the_release_are_there():
    parser = flags.make_parser()

    names = {name for action in parser._actions for name in action.option_strings}

    assert {"--headless", "--nnodes", "--kv-transfer-config", "--api-key"} <= names
    assert len(parser._actions) >= 316
