"""What a topology file may not say, and how it is told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.secret import secrets_in
from pytest_pd.spec.explain import known_keys
from pytest_pd.spec.file import read_cluster, read_topology, read_workload
from pytest_pd.spec.topology import TopologySpec

Write = Callable[..., Path]


def refusal(path: Path) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read_topology(path)
    return caught.value


def test_an_unknown_key_names_file_line_path_and_neighbour(write: Write) -> None:
    path = write("aggregated:\n  tp: 2\n  replcas: 3\n")

    error = refusal(path)

    assert error.fact == f"{path}:11: unknown key 'aggregated.replcas'."
    assert error.hint == "did you mean 'replicas'?"
    assert error.where == f"{path}:11"


def test_an_unknown_key_without_a_neighbour_lists_the_known(write: Write) -> None:
    error = refusal(write("budgets: {zzz: 1}\n"))

    assert "known keys: allocation_s, queue_s, ready_s" in error.hint


def test_an_unknown_key_at_the_top_is_told_alone(write: Write) -> None:
    error = refusal(write("decoder: {}\n"))

    assert error.fact.count("\n") == 0
    assert error.hint == "did you mean 'decode'?"


def test_every_mistake_is_told_at_once(write: Write) -> None:
    error = refusal(write("levle: quick\nbudgets: {ready_s: -1}\n"))

    assert "unknown key 'levle'" in error.fact
    assert "budgets.ready_s" in error.fact


def test_a_wrong_value_shows_what_was_given(write: Write) -> None:
    error = refusal(write("level: fast\n"))

    assert "t.yaml:9: level: " in error.fact
    assert "(got 'fast')" in error.fact


def test_a_missing_key_is_named(write: Write) -> None:
    error = refusal(write(base="name: t\nhardware: cpu\nmodel: {path: m}\n"))

    assert "key 'model.served_name' is missing" in error.fact
    assert "key 'engine' is missing" in error.fact
    assert "default factory" not in error.fact


@pytest.mark.parametrize(
    ("more", "fact"),
    [
        ("encode: {replicas: 1}\n", "an encode role is not supported yet"),
        ("budgets: {ready_s: 50, tests_s: 60, allocation_s: 100}\n", "= 110 s do not"),
        ("setup: {}\n", "key 'setup.script' is missing"),
        ("software: {dynamo: {version: '1', commit: '2'}}\n", "one of version, commit"),
        ("software: {dynamo: {}}\n", "got none"),
        ("profiling: {tool: nsys, role: decode, start_step: 9, stop_step: 9}\n", "not"),
        ("evals: [{task: gsm8k, expected: 94.5}]\n", "less than or equal to 1"),
        ("evals: [{task: gsm8k, test: mcnemar}]\n", "'paired', 'identity'"),
        ("evals: [{shots: 5}]\n", "t.yaml:9: key 'evals.0.task' is missing"),
        ("workloads: [{nme: w}]\n", "t.yaml:9: unknown key 'workloads.0.nme'"),
        ("workloads: [3]\n", "t.yaml:9: workloads.0"),
        ("placement: {roles_share_nodes: no_way}\n", "roles_share_nodes"),
    ],
)
def test_blocks_that_contradict_themselves(write: Write, more: str, fact: str) -> None:
    assert fact in refusal(write(more)).fact


@pytest.mark.parametrize(
    ("pool", "fact"),
    [
        ("{replicas: 0}", "greater than or equal to 1"),
        ("{replicas: 3, workers: [{node: 0}]}", "replicas 3 but 1 workers are listed"),
        ("{workers: [{node: 0, nodes: [1]}]}", "give node or nodes, not both"),
        ("{tp: 8, dp: 3, attention_dp: true}", "tp 8 is not divisible by dp 3"),
        ("{tp: 8, dcp: 3}", "tp 8 is not divisible by dcp 3"),
        ("{ep: 8, moe: {eplb_slots: 12}}", "eplb_slots 12 is not divisible by ep 8"),
        ("{moe: {experts: 256, eplb_slots: 128}}", "every expert needs a slot"),
        ("{args: --tp 2}", "a list of words is wanted"),
        ("{args: [--eager, true]}", "write 'true' in quotes"),
        ("{env: {A: false}}", "write 'false' in quotes"),
        ("{env: 'A=1 B=2'}", "dictionary"),
        ("{env: {HF_TOKEN: hf_abc}}", "HF_TOKEN looks like a secret"),
        ("{port: 70000}", "65535"),
        ("{speculative: {method: mtp, num_tokens: 0}}", "num_tokens"),
    ],
)
def test_pools_that_cannot_be(write: Write, pool: str, fact: str) -> None:
    error = refusal(write(f"aggregated: {pool}\n"))

    assert fact in error.fact
    assert error.fact.startswith(f"{write('aggregated: ' + pool)}:9")


@pytest.mark.parametrize(
    "name",
    [
        "DB_PASSWD",
        "REDIS_PASS",
        "GITHUB_PAT",
        "NGC_CREDENTIALS",
        "SSL_PASSPHRASE",
        "SENTRY_DSN",
        "WANDB_APIKEY",
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN_2",
    ],
)
def test_every_name_that_is_masked_is_refused_in_env(write: Write, name: str) -> None:
    error = refusal(write(f"aggregated: {{env: {{{name}: abc-def}}}}\n"))

    assert f"{name} looks like a secret" in error.fact
    assert secrets_in({name: "abc-def"}) == ("abc-def",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "'false'"),
        ("VLLM_TOKENIZER_MODE", "mistral"),
        ("MAX_NUM_BATCHED_TOKENS", "131072"),
        ("DYN_TOKEN_ECHO_DELAY_MS", "10"),
        ("HF_TOKEN_PATH", "/run/secrets/hf"),
        ("HF_TOKEN", "''"),
        ("VLLM_FUSION_PASS", "'true'"),
    ],
)
def test_settings_with_such_names_are_no_secrets(
    write: Write, name: str, value: str
) -> None:
    path = write(f"aggregated: {{env: {{{name}: {value}}}}}\n")

    assert read_topology(path).aggregated.env == {name: value.strip("'")}


def test_a_secret_is_not_repeated_in_the_refusal(write: Write) -> None:
    assert "hf_abc" not in str(
        refusal(write("aggregated: {env: {HF_TOKEN: hf_abc}}\n"))
    )


@pytest.mark.parametrize(
    ("without", "fact"),
    [
        ("decode: {replicas: 1}\n", "there is no decode pool"),
        ("prefill: {replicas: 1}\n", "there is no prefill pool"),
        ("kv_transfer: {connector: pull}\n", "prefill and decode need kv_transfer"),
    ],
)
def test_half_a_disaggregation_is_refused(
    write: Write, without: str, fact: str
) -> None:
    path = write()
    path.write_text(path.read_text().replace(without, ""))

    assert fact in refusal(path).fact


def test_no_worker_at_all_is_refused(write: Write) -> None:
    path = write()
    text = path.read_text().replace("prefill: {replicas: 1}\n", "")
    path.write_text(text.replace("decode: {replicas: 1}\n", ""))

    assert "there is no worker" in refusal(path).fact


def test_a_model_must_be_somewhere(write: Write) -> None:
    path = write()
    path.write_text(path.read_text().replace("{path: m, served", "{served"))

    assert "give path, or ref" in refusal(path).fact


def test_a_list_at_the_top_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- a\n- b\n")

    assert "holds no mapping" in refusal(path).fact


def test_an_empty_cluster_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")

    with pytest.raises(SpecError, match="holds no mapping"):
        read_cluster(path)


def test_of_a_name_or_a_mapping_only_what_was_tried_is_told(write: Write) -> None:
    error = refusal(write("evals: [{task: gsm8k, shotz: 5}]\n"))

    assert error.fact.count("\n") == 0
    assert error.hint == "did you mean 'shots'?"


def test_known_keys_follow_lists_and_optional_models() -> None:
    assert "gpus" in known_keys(TopologySpec, ("prefill", "workers", 0))
    assert "tier" in known_keys(TopologySpec, ("decode", "kv_offload"))


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("aggregated: {replicas: 10001}\n", "aggregated.replicas"),
        ("aggregated: {replicas: 1%s}\n" % ("9" * 40), "aggregated.replicas"),
        ("placement: {gpus_per_node: 1000000000000}\n", "placement.gpus_per_node"),
        ("aggregated: {tp: 1%s}\n" % ("0" * 40), "aggregated.tp"),
    ],
)
def test_a_count_that_no_plan_could_list_is_refused(
    write: Write, more: str, key: str
) -> None:
    error = refusal(write(more))

    assert f"{key}: Input should be less than or equal to" in error.fact


@pytest.mark.parametrize("text", ["nodes: 20001", "gpus_per_node: 257"])
def test_a_cluster_beyond_any_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"name: c\nbackend: slurm\n{text}\n")

    with pytest.raises(SpecError, match="less than or equal to"):
        read_cluster(path)


@pytest.mark.parametrize(
    "key",
    ["input_tokens", "output_tokens", "requests", "timeout_s", "ramp_s", "shards"],
)
def test_a_workload_that_no_memory_holds_is_refused(tmp_path: Path, key: str) -> None:
    values = {"input_tokens": 8, "output_tokens": 1, "requests": 1, key: 10**12}
    lines = "".join(f"{name}: {value}\n" for name, value in values.items())
    path = tmp_path / "w.yaml"
    path.write_text(f"name: w\nconcurrency: 1\n{lines}")

    with pytest.raises(SpecError, match=f"{key}: .*less than or equal to"):
        read_workload(path)
