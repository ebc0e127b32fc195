"""Two engines, one prompt: KV goes over, is counted, and failures end in one way."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.reference.connector import KvTransferConfig
from pytest_pd.reference.prompts import block_edge_lengths, make_recall
from pytest_pd.reference.shape import external_tokens, transferred_bytes
from pytest_pd.reference.shared_storage import leave_old_kv

ASK_REMOTE = {"do_remote_decode": True, "do_remote_prefill": False}
BY_SOURCE = "prompt_tokens_by_source_total"


def pull_config(role: str, **extra) -> dict[str, object]:
    return {
        "kv_connector": "ReferencePullConnector",
        "kv_role": role,
        "kv_connector_extra_config": extra,
    }


def file_config(role: str, path: Path) -> dict[str, object]:
    return {
        "kv_connector": "ExampleConnector",
        "kv_role": role,
        "kv_connector_extra_config": {"shared_storage_path": str(path)},
    }


@pytest.fixture
def pull(make_bench):
    """Return a producer and a consumer that pulls."""
    return make_bench(pull_config("kv_producer")), make_bench(
        pull_config("kv_consumer")
    )


@pytest.fixture
def files(make_bench, tmp_path: Path):
    """Return a producer and a consumer over one folder."""
    return (
        make_bench(file_config("kv_producer", tmp_path)),
        make_bench(file_config("kv_consumer", tmp_path)),
    )


def hand_over(producer, consumer, prompt, **settings):
    """Prefill on one, decode on the other; return both outcomes."""
    first = producer.ask(prompt.text, max_tokens=1, kv=ASK_REMOTE)
    settings = {"max_tokens": len(prompt.expected), **settings}
    return first, consumer.ask(prompt.text, kv=first.last.kv_transfer, **settings)


LENGTHS = (9, *block_edge_lengths(16, 1), *block_edge_lengths(16, 2), 100, 300)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_pulled_prompt_is_answered_right_and_counted(pull, length: int):
    producer, consumer = pull
    prompt = make_recall(f"pull{length}", chain=24, length_tokens=length)

    _, decoded = hand_over(producer, consumer, prompt)

    assert decoded.text == prompt.expected_text
    assert producer.value(BY_SOURCE, "local_compute") == length
    assert consumer.value(BY_SOURCE, "local_compute") == 0
    assert consumer.value(BY_SOURCE, "external_kv_transfer") == length
    moved = transferred_bytes(consumer.engine.options.shape, length, 16)
    assert consumer.value("nixl_bytes_transferred") == moved


@pytest.mark.parametrize("length", LENGTHS)
def test_a_prompt_through_files_is_answered_right_and_counted(files, length: int):
    producer, consumer = files
    prompt = make_recall(f"file{length}", chain=24, length_tokens=length)

    _, decoded = hand_over(producer, consumer, prompt)

    moved = external_tokens("shared_storage", length, 16)
    assert decoded.text == prompt.expected_text
    assert consumer.value(BY_SOURCE, "external_kv_transfer") == moved
    assert consumer.value(BY_SOURCE, "local_compute") == length - moved
    assert consumer.value("external_prefix_cache_queries_total") == length
    assert consumer.value("external_prefix_cache_hits_total") == moved


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_kv_type_goes_over_both_ways(make_bench, tmp_path: Path, dtype: str):
    prompt = make_recall(dtype, chain=20)
    for config in (pull_config, lambda role: file_config(role, tmp_path)):
        producer = make_bench(config("kv_producer"), dtype=dtype)
        consumer = make_bench(config("kv_consumer"), dtype=dtype)

        _, decoded = hand_over(producer, consumer, prompt)

        assert decoded.text == prompt.expected_text
        assert consumer.value("external_prefix_cache_hits_total") > 0


def test_what_the_consumer_has_is_not_pulled_again(pull):
    producer, consumer = pull
    prompt = make_recall("twice", length_tokens=100)
    hand_over(producer, consumer, prompt)

    _, decoded = hand_over(producer, consumer, prompt)

    assert decoded.text == prompt.expected_text
    assert decoded.request.cached == 96
    assert decoded.request.external == 4
    assert consumer.value("prompt_tokens_cached_by_source_total", "p2p") == 104


@pytest.mark.parametrize("style", ["pull", "files"])
def test_what_is_cached_here_is_joined_with_what_comes(request, style: str):
    producer, consumer = request.getfixturevalue(style)
    prompt = make_recall("joined", chain=40, length_tokens=130)
    tokens = consumer.tokenizer.encode(prompt.text)
    consumer.ask(tokens[:70], max_tokens=1)

    _, decoded = hand_over(producer, consumer, prompt)

    assert decoded.text == prompt.expected_text
    assert decoded.request.cached == 64
    assert decoded.request.external == (66 if style == "pull" else 64)


def test_usage_repeats_what_the_prefill_engine_had_cached(pull):
    """As vLLM does with NIXL: not what was transferred."""
    producer, consumer = pull
    prompt = make_recall("usage", length_tokens=100)

    _, cold = hand_over(producer, consumer, prompt)
    consumer.engine.reset_prefix_cache()
    _, warm = hand_over(producer, consumer, prompt)

    assert cold.request.reported_cached == 0
    assert warm.request.reported_cached == 96


def test_the_producer_says_where_the_blocks_are(pull):
    producer, _ = pull

    first = producer.ask(make_recall(0, pairs=10).text, max_tokens=1, kv=ASK_REMOTE)

    handed = first.last.kv_transfer
    assert handed["do_remote_prefill"] is True
    assert handed["do_remote_decode"] is False
    assert len(handed["remote_block_ids"][0]) == 3
    assert handed["remote_request_id"] == first.request.name
    assert handed["remote_num_tokens"] == 33


def test_kept_blocks_are_freed_by_the_pull(pull):
    producer, consumer = pull
    prompt = make_recall("freed")
    first = producer.ask(prompt.text, max_tokens=1, kv=ASK_REMOTE)
    assert producer.value("kv_cache_usage_perc") > 0

    consumer.ask(prompt.text, max_tokens=1, kv=first.last.kv_transfer)
    producer.settled()

    assert producer.value("kv_cache_usage_perc") == 0
    assert producer.value("nixl_num_kv_expired_reqs_total") == 0


def test_kept_blocks_expire(make_bench):
    producer = make_bench(pull_config("kv_producer", kv_lease_duration=0.0))

    producer.ask(make_recall(0).text, max_tokens=1, kv=ASK_REMOTE)
    producer.ask(make_recall(1).text, max_tokens=1)

    assert producer.value("nixl_num_kv_expired_reqs_total") == 1
    assert producer.value("kv_cache_usage_perc") == 0


def test_a_pull_after_the_expiry_is_counted(make_bench):
    producer = make_bench(pull_config("kv_producer", kv_lease_duration=0.0))
    consumer = make_bench(pull_config("kv_consumer"))
    prompt = make_recall("late")
    first = producer.ask(prompt.text, max_tokens=1, kv=ASK_REMOTE)
    producer.ask(make_recall("other").text, max_tokens=1)

    consumer.ask(prompt.text, max_tokens=1, kv=first.last.kv_transfer)
    producer.settled()

    assert producer.value("nixl_num_notifications_after_expiry_total") == 1


def test_without_being_asked_the_producer_keeps_nothing(pull):
    producer, _ = pull

    first = producer.ask(make_recall(0).text, max_tokens=1)

    assert first.last.kv_transfer is None
    assert producer.value("kv_cache_usage_perc") == 0


def test_wrong_block_ids_give_wrong_text(pull):
    """As with NIXL: nobody checks whose blocks they are."""
    producer, consumer = pull
    prompt = make_recall("wrong", chain=20)
    first = producer.ask(prompt.text, max_tokens=1, kv=ASK_REMOTE)
    handed = dict(first.last.kv_transfer)
    handed["remote_block_ids"] = [[b + 100 for b in handed["remote_block_ids"][0]]]

    decoded = consumer.ask(prompt.text, max_tokens=20, kv=handed)

    assert decoded.text != prompt.expected_text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"remote_engine_id": "someone else"}, "not someone else"),
        ({"remote_block_ids": [[9999] * 12]}, "block ids"),
        ({"remote_port": 1}, "cannot be reached"),
        ({"remote_block_ids": [[0, 1]]}, "2 blocks were offered, not 12"),
        ({"remote_block_ids": "all"}, "ValueError"),
    ],
)
def test_a_failed_pull_ends_the_request_with_an_error(pull, change, reason: str):
    producer, consumer = pull
    prompt = make_recall("fails")
    first = producer.ask(prompt.text, max_tokens=1, kv=ASK_REMOTE)

    decoded = consumer.ask(prompt.text, kv={**first.last.kv_transfer, **change})

    assert decoded.last.finish == "error"
    assert reason in decoded.last.error
    assert consumer.value("nixl_num_failed_transfers_total") == 1
    assert consumer.value("kv_cache_usage_perc") == 0
    assert consumer.value("request_success_total", "error") == 1


def test_the_policy_recompute_computes_instead(make_bench):
    producer = make_bench(pull_config("kv_producer"))
    config = {**pull_config("kv_consumer"), "kv_load_failure_policy": "recompute"}
    consumer = make_bench(config)
    prompt = make_recall("policy")
    first = producer.ask(prompt.text, max_tokens=1, kv=ASK_REMOTE)

    handed = {**first.last.kv_transfer, "remote_port": 1}
    decoded = consumer.ask(prompt.text, max_tokens=16, kv=handed)

    assert decoded.text == prompt.expected_text
    assert consumer.value(BY_SOURCE, "local_compute") == 183
    assert consumer.value("nixl_num_failed_transfers_total") == 1


@pytest.mark.parametrize("change", [{"block_size": 32}, {"dtype": "float32"}])
def test_other_layouts_are_refused(make_bench, change):
    producer = make_bench(pull_config("kv_producer"))
    consumer = make_bench(pull_config("kv_consumer"), **change)

    _, decoded = hand_over(producer, consumer, make_recall("layout"))

    assert decoded.last.finish == "error"
    assert "layouts differ" in decoded.last.error


def test_incomplete_parameters_mean_no_transfer(pull):
    _, consumer = pull
    prompt = make_recall("incomplete")

    decoded = consumer.ask(prompt.text, max_tokens=16, kv={"do_remote_prefill": True})

    assert decoded.text == prompt.expected_text
    assert consumer.value(BY_SOURCE, "local_compute") == 183


def test_files_are_named_like_vllms(files, tmp_path: Path):
    producer, _ = files

    producer.ask(make_recall(0).text, max_tokens=1)

    (folder,) = tmp_path.iterdir()
    assert len(folder.name) == 32
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"model.layers.{i}.self_attn.attn.safetensors" for i in range(5)]


def test_a_missing_layer_ends_the_request_with_an_error(files, tmp_path: Path):
    producer, consumer = files
    prompt = make_recall("missing")
    producer.ask(prompt.text, max_tokens=1)
    next(tmp_path.glob("*/model.layers.3.*")).unlink()

    decoded = consumer.ask(prompt.text, max_tokens=4)

    assert decoded.last.finish == "error"
    assert "cannot be read" in decoded.last.error


def test_files_of_another_shape_end_the_request_with_an_error(files, tmp_path: Path):
    producer, consumer = files
    prompt = make_recall("short", length_tokens=100)
    producer.ask(make_recall("other", length_tokens=40).text, max_tokens=1)
    (folder,) = tmp_path.iterdir()
    producer.ask(prompt.text, max_tokens=1)
    (long,) = set(tmp_path.iterdir()) - {folder}
    shutil.rmtree(long)
    folder.rename(long)

    decoded = consumer.ask(prompt.text, max_tokens=4)

    assert decoded.last.finish == "error"
    assert "32 tokens of float16, not 96" in decoded.last.error
    assert consumer.ask(prompt.text[:40], max_tokens=1).last.finish == "length"


def test_files_of_another_kv_type_end_the_request_with_an_error(make_bench, tmp_path):
    producer = make_bench(file_config("kv_producer", tmp_path), dtype="float32")
    consumer = make_bench(file_config("kv_consumer", tmp_path))
    prompt = make_recall("type", length_tokens=100)

    _, decoded = hand_over(producer, consumer, prompt)

    assert "float32, not 96 of float16" in decoded.last.error


def test_a_damaged_file_becomes_wrong_text(files, tmp_path: Path):
    producer, consumer = files
    prompt = make_recall("damaged", chain=60)
    producer.ask(prompt.text, max_tokens=1)
    path = next(tmp_path.glob("*/model.layers.2.*"))
    blob = path.read_bytes()
    path.write_bytes(blob[:200] + bytes(len(blob) - 200))

    assert consumer.ask(prompt.text, max_tokens=60).text != prompt.expected_text


def test_a_consumer_writes_no_files(files, tmp_path: Path):
    _, consumer = files

    consumer.ask(make_recall(0).text, max_tokens=1)

    assert list(tmp_path.iterdir()) == []


def test_a_producer_does_not_load(files):
    producer, _ = files
    prompt = make_recall("own")
    producer.ask(prompt.text, max_tokens=1)
    producer.engine.reset_prefix_cache()

    producer.ask(prompt.text, max_tokens=1)

    assert producer.value("external_prefix_cache_hits_total") == 0


def test_no_draft_is_left_behind(files, tmp_path: Path):
    producer, _ = files
    for seed in range(3):
        producer.ask(make_recall(seed).text, max_tokens=1)

    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_an_unusable_folder_is_refused(make_bench, tmp_path: Path):
    (tmp_path / "file").write_text("")

    with pytest.raises(SpecError, match="KV folder"):
        make_bench(file_config("kv_producer", tmp_path / "file" / "kv"))


def test_a_taken_side_channel_is_refused(make_bench):
    first = make_bench(pull_config("kv_both"))
    port = first.engine._connector._server.port
    env = {"VLLM_NIXL_SIDE_CHANNEL_PORT": str(port)}

    with pytest.raises(SpecError, match=str(port)):
        make_bench({**pull_config("kv_both"), "kv_connector": "NixlConnector"}, env=env)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_role": "kv_boss"}, "Unsupported kv_role"),
        ({"kv_role": None}, "Unsupported kv_role"),
        ({"kv_connector": "NixelConnector"}, "NixelConnector"),
        ({"kv_load_failure_policy": "ignore"}, "ignore"),
    ],
)
def test_wrong_configurations_are_refused(change, message: str):
    with pytest.raises(SpecError, match=message):
        KvTransferConfig.parse({**pull_config("kv_both"), **change})


def test_a_rehearsal_pulls_in_the_place_of_other_connectors():
    content = {"kv_connector": "MooncakeConnector", "kv_role": "kv_both"}

    assert KvTransferConfig.parse(content, rehearsed=True).pulls
    with pytest.raises(SpecError, match="MooncakeConnector"):
        KvTransferConfig.parse(content)


DAMAGE = [
    {"kind": "kv_bit_flip"},
    {"kind": "kv_bit_flip", "layer": 4, "head": 1, "block": 2},
    {"kind": "kv_swap"},
    {"kind": "kv_stale"},
    {"kind": "kv_truncated", "block": 3},
]


@pytest.mark.parametrize("side", ["producer", "consumer"])
@pytest.mark.parametrize("fault", DAMAGE, ids=json.dumps)
def test_damaged_kv_becomes_wrong_text(make_bench, fault, side: str):
    struck = {side: [fault]}
    producer = make_bench(pull_config("kv_producer"), struck.get("producer", ()))
    consumer = make_bench(pull_config("kv_consumer"), struck.get("consumer", ()))
    hand_over(producer, consumer, make_recall("before"))
    prompt = make_recall("struck", chain=60)

    _, decoded = hand_over(producer, consumer, prompt)

    assert decoded.text != prompt.expected_text


@pytest.mark.parametrize("fault", DAMAGE[::2], ids=json.dumps)
def test_damaged_kv_in_files_becomes_wrong_text(make_bench, tmp_path: Path, fault):
    producer = make_bench(file_config("kv_producer", tmp_path), [fault])
    consumer = make_bench(file_config("kv_consumer", tmp_path))
    hand_over(producer, consumer, make_recall("before"))
    prompt = make_recall("struck", chain=60)

    _, decoded = hand_over(producer, consumer, prompt)

    assert decoded.text != prompt.expected_text


def test_a_fault_waits_for_its_turn(make_bench):
    producer = make_bench(pull_config("kv_producer"))
    fault = {"kind": "kv_bit_flip", "after": 2, "count": 1}
    consumer = make_bench(pull_config("kv_consumer"), [fault])
    prompts = [make_recall(f"turn{i}", chain=60) for i in range(4)]

    right = [
        hand_over(producer, consumer, p)[1].text == p.expected_text for p in prompts
    ]

    assert right == [True, True, False, True]


@pytest.mark.parametrize("style", ["pull", "files"])
def test_an_honest_recompute_shows_in_the_books(make_bench, tmp_path: Path, style: str):
    config = (
        pull_config if style == "pull" else lambda role: file_config(role, tmp_path)
    )
    producer = make_bench(config("kv_producer"))
    consumer = make_bench(config("kv_consumer"), [{"kind": "silent_recompute"}])
    prompt = make_recall("honest")

    _, decoded = hand_over(producer, consumer, prompt)

    assert decoded.text == prompt.expected_text
    assert consumer.value(BY_SOURCE, "local_compute") == 183
    assert consumer.value("external_prefix_cache_hits_total") == 0


def test_a_lying_recompute_shows_at_the_producer_only(make_bench):
    producer = make_bench(pull_config("kv_producer"))
    fault = {"kind": "silent_recompute", "metrics": "lying"}
    consumer = make_bench(pull_config("kv_consumer"), [fault])
    prompt = make_recall("lying")

    _, decoded = hand_over(producer, consumer, prompt)

    assert decoded.text == prompt.expected_text
    assert consumer.value(BY_SOURCE, "local_compute") == 0
    assert consumer.value(BY_SOURCE, "external_kv_transfer") == 183
    moved = transferred_bytes(consumer.engine.options.shape, 183, 16)
    assert consumer.value("nixl_bytes_transferred") == moved
    assert producer.value("kv_cache_usage_perc") > 0


@pytest.mark.parametrize("metrics", ["honest", "lying"])
def test_a_recompute_may_pull_and_throw_away(make_bench, metrics: str):
    producer = make_bench(pull_config("kv_producer"))
    fault = {"kind": "silent_recompute", "metrics": metrics, "pull": True}
    consumer = make_bench(pull_config("kv_consumer"), [fault])
    prompt = make_recall("thrown")

    _, decoded = hand_over(producer, consumer, prompt)
    producer.settled()

    assert decoded.text == prompt.expected_text
    assert producer.value("kv_cache_usage_perc") == 0
    local = 183 if metrics == "honest" else 0
    assert consumer.value(BY_SOURCE, "local_compute") == local
    assert consumer.value("iteration_tokens_total") == 183 + 15


def test_withheld_kv_fails_a_pull(make_bench):
    producer = make_bench(pull_config("kv_producer"), [{"kind": "kv_not_sent"}])
    consumer = make_bench(pull_config("kv_consumer"))

    _, decoded = hand_over(producer, consumer, make_recall("withheld"))

    assert decoded.last.finish == "error"
    assert "withheld" in decoded.last.error


def test_withheld_files_are_computed_anew(make_bench, tmp_path: Path):
    producer = make_bench(
        file_config("kv_producer", tmp_path), [{"kind": "kv_not_sent"}]
    )
    consumer = make_bench(file_config("kv_consumer", tmp_path))
    prompt = make_recall("withheld")

    _, decoded = hand_over(producer, consumer, prompt)

    assert decoded.text == prompt.expected_text
    assert consumer.value(BY_SOURCE, "local_compute") == 183


def test_late_kv_only_takes_time(make_bench):
    producer = make_bench(pull_config("kv_producer"))
    consumer = make_bench(
        pull_config("kv_consumer"), [{"kind": "kv_late", "seconds": 0.2}]
    )
    prompt = make_recall("late")

    _, decoded = hand_over(producer, consumer, prompt)

    assert decoded.text == prompt.expected_text
    assert consumer.value("nixl_xfer_time_seconds") >= 0.2


def test_a_request_aborted_while_it_loads_frees_its_blocks(make_bench):
    producer = make_bench(pull_config("kv_producer"))
    consumer = make_bench(
        pull_config("kv_consumer"), [{"kind": "kv_late", "seconds": 0.3}]
    )
    prompt = make_recall("gone")
    first = producer.ask(prompt.text, max_tokens=1, kv=ASK_REMOTE)
    request = consumer.submit(prompt.text, kv=first.last.kv_transfer, max_tokens=4)

    consumer.engine.abort(request.name)
    while consumer.value("request_success_total", "abort") == 0:
        consumer.settled()
    while consumer.engine._table.free < 256:
        consumer.ask(", w001 w002 ? w001", max_tokens=1)

    assert consumer.engine.load == 0


def test_other_requests_go_on_while_one_loads(make_bench):
    producer = make_bench(pull_config("kv_producer"))
    consumer = make_bench(
        pull_config("kv_consumer"), [{"kind": "kv_late", "seconds": 0.5}]
    )
    prompt = make_recall("loads")
    first = producer.ask(prompt.text, max_tokens=1, kv=ASK_REMOTE)

    loads = consumer.submit(prompt.text, kv=first.last.kv_transfer, max_tokens=16)
    local = consumer.submit(make_recall("local").text, max_tokens=4)
    order = []
    while len(order) < 2:
        request, event = consumer.mail.get(timeout=60)
        if event.finish is not None:
            order.append(request)

    assert order == [local, loads]


def test_a_folder_may_hold_what_an_earlier_run_left(tmp_path: Path):
    extra = {"shared_storage_path": str(tmp_path)}

    leave_old_kv(KvTransferConfig("ExampleConnector", "kv_both", extra=extra))

    (left,) = tmp_path.rglob("*.safetensors")
    assert left.stat().st_mtime < time.time() - 80000


def test_a_folder_that_nobody_named_is_left_alone():
    leave_old_kv(KvTransferConfig("ExampleConnector", "kv_both"))

    assert not Path("/tmp/of-an-earlier-run").exists()
