"""What is fuzzed: each parser of bytes that others wrote, and real bytes to begin with.

A target may refuse its input with a `PdError`; any other exception is a defect.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_pd.errors import PdError
from pytest_pd.evals.sample import read_samples
from pytest_pd.load.decode import Reads, decode_error, decode_stream
from pytest_pd.load.external import aiperf, guidellm, vllm_bench
from pytest_pd.load.http_message import parse_head
from pytest_pd.load.sse import AnswerReader
from pytest_pd.probe.logs import errors_in, first_error
from pytest_pd.probe.metrics import increase, parse_page
from pytest_pd.probe.openai import from_events
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.slurm_text import parse_queue, parse_records, parse_steps
from pytest_pd.proxy.ask import (
    Transfer,
    decode_body,
    handed_params,
    parse_ask,
    prefill_body,
    routing_key,
    single_stage_reason,
)
from pytest_pd.proxy.fault import parse_faults
from pytest_pd.report.read import read_run
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import build, parse_document
from pytest_pd.spec.topology import TopologySpec
from pytest_pd.spec.variant import unfold
from pytest_pd.spec.workload import WorkloadSpec

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "unit" / "load" / "data"
Target = Callable[[bytes], object]


@contextmanager
def file_of(data: bytes, name: str) -> Iterator[Path]:
    """Yield a file with these bytes, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="pd-fuzz-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


def topology(data: bytes) -> None:
    """Read a topology file with its variants, and plan each."""
    document = parse_document(data.decode("utf-8", "replace"), Path("fuzz.yaml"))
    for found in unfold(document).values():
        spec = build(found, TopologySpec)
        with suppress(PdError):
            plan_deployment(spec, ClusterSpec(name="local"))


def cluster(data: bytes) -> None:
    build(parse_document(data.decode("utf-8", "replace"), Path("c")), ClusterSpec)


def workload(data: bytes) -> None:
    build(parse_document(data.decode("utf-8", "replace"), Path("w")), WorkloadSpec)


def log(data: bytes) -> None:
    """Find the first error of a log."""
    str(*list(errors_in("decode-0", data.decode("utf-8", "replace")))[:1])
    with file_of(data, "decode-0.log") as path:
        first_error({"decode-0": path})


def metrics(data: bytes) -> None:
    """Read a page, and its growth against its own first half."""
    text = data.decode("utf-8", "replace")
    page, before = parse_page(text), parse_page(text[: len(text) // 2])
    for name, _ in list(page.values)[:20]:
        increase(before, page, name)
        page.label_totals(name, "model_name")


def events(data: bytes) -> None:
    """Read a stream as the load generator and as the functional client do."""
    AnswerReader().read(data)
    lines = data.decode("utf-8", "replace").splitlines()
    payloads = [x.removeprefix("data:").strip() for x in lines if x.startswith("data:")]
    from_events(200, {}, payloads)


def http(data: bytes) -> None:
    """Read a whole HTTP answer, in one read."""
    raw = bytearray(data)
    head = parse_head(raw)
    if head is None:
        return
    reads = Reads()
    reads.add(0, 1, len(raw))
    decode_error(raw, head)
    decode_stream(raw, head, reads)


def bench(data: bytes) -> None:
    with file_of(data, "found.json") as path:
        vllm_bench.read(path)


def guidellm_report(data: bytes) -> None:
    with file_of(data, "found.json") as path:
        guidellm.read(path)


def aiperf_export(data: bytes) -> None:
    with file_of(data, "found.jsonl") as path:
        aiperf.read(path)


def lm_eval(data: bytes) -> None:
    """Read what lm-eval wrote: three files, parted by lines of dashes."""
    results, samples, requests = (data.split(b"\n---\n") + [b""] * 3)[:3]
    with file_of(results, "results_1.json") as path:
        path.with_name("samples_pd_recall_2026.jsonl").write_bytes(samples)
        path.with_name("requests.jsonl").write_bytes(requests)
        read_samples(path.parent, "pd_recall", "exact_match", "none")


def run_folder(data: bytes) -> None:
    """Read a run that was killed: manifest, entries, outcomes, parted as above."""
    manifest, entries, outcomes = (data.split(b"\n---\n") + [b""] * 3)[:3]
    with file_of(outcomes, "results.jsonl") as path:
        folder = path.parent / "local_1p1d"
        folder.mkdir()
        (folder / "manifest.json").write_bytes(manifest)
        (folder / "entries.jsonl").write_bytes(entries)
        record = read_run(path.parent)
        record.counts()
        for entry in record.entries:
            entry.statistics()
            str((entry.unit, entry.test, entry.point, entry.concurrency))


def slurm(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    parse_queue(text)
    parse_steps(text)
    parse_records(text)


def proxy_request(data: bytes) -> None:
    """Take a request apart as the proxy does, for both kinds of transfer."""
    ask = parse_ask(data)
    for transfer in Transfer:
        if single_stage_reason(ask, transfer) == "" and ask.fields is not None:
            prefill_body(ask.fields, transfer)
    routing_key(None, ask.fields)
    decode_body(ask, handed_params(data))


def proxy_faults(data: bytes) -> None:
    parse_faults(data)


TARGETS: Mapping[str, Target] = {
    "topology": topology,
    "cluster": cluster,
    "workload": workload,
    "log": log,
    "metrics": metrics,
    "events": events,
    "http": http,
    "bench": bench,
    "guidellm": guidellm_report,
    "aiperf": aiperf_export,
    "lm_eval": lm_eval,
    "run_folder": run_folder,
    "slurm": slurm,
    "proxy_request": proxy_request,
    "proxy_faults": proxy_faults,
}

EVENT = (
    b'data: {"id": "c", "choices": [{"index": 0, "text": " w001", "logprobs": null, '
    b'"finish_reason": null}]}\n\n'
)
USAGE = (
    b'data: {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}\n\n'
)
STREAM = EVENT + EVENT + USAGE + b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
LOG = (
    b"INFO 11-21 15:00:00 [server.py:1] Application startup complete.\n"
    b"2026-11-21 15:00:01,123 ERROR something: CUDA out of memory\n"
    b"Traceback (most recent call last):\n  File x\nRuntimeError: boom\n"
    b"0001-01-01 00:00:00 ERROR before all time\n"
)
PAGE = (
    b"# HELP vllm:prompt_tokens_total x\n# TYPE vllm:prompt_tokens_total counter\n"
    b'vllm:prompt_tokens_total{model_name="tiny",engine="0"} 12.0\n'
    b'vllm:nixl_bytes_transferred_bucket{le="+Inf"} 3 1700000000 # {a="b"} 1\n'
    b"process_resident_memory_bytes 1.2e+08\n"
)
EVALS = (
    b'{"results": {"pd_recall": {}}, "n-samples": {"pd_recall": {"effective": 1}}}'
    b'\n---\n{"doc_id": 0, "filter": "none", "exact_match": 1.0, "resps": [["a"]], '
    b'"prompt_hash": "x", "metrics": ["exact_match"]}\n---\n'
    b'{"task": "pd_recall", "doc_id": 0, "sent": 1, "begun_s": 0.5, "seconds": 0.1, '
    b'"tokens": [], "logprobs": []}'
)
RUN = (
    b'{"run_id": "abcdefgh", "created_s": 1.0, "topology": "local_1p1d"}\n---\n'
    b'{"fullname": "pd::x::y[z]::ttft", "group": "ttft", "data": [0.1, 0.2], '
    b'"outcome": "passed", "params": {"topology": "x"}, "extra_info": {"unit": "s", '
    b'"load": {"concurrency": 1, "arrivals": "closed"}, '
    b'"percentiles_s": {"p50": 1}}}\n---\n'
    b'{"nodeid": "a::b", "topology": "local_1p1d", "verdict": "passed", '
    b'"when": "call", "duration_s": 0.1}'
)
QUEUE = (
    b"12|RUNNING|None|n[1-2]|1-02:03:04|2026-11-21T15:00:00\n"
    b"12.0|prefill-0\nJobId=12 JobState=RUNNING Reason=None\n"
)
REQUEST = (
    b'{"model": "tiny", "prompt": "w001 w002", "max_tokens": 4, "stream": true, '
    b'"kv_transfer_params": {"remote_port": 1}}'
)


def seeds(name: str) -> list[bytes]:
    """Return real inputs of a target: what is shipped, recorded, or found before."""
    files = {
        "topology": sorted((ROOT / "fixtures" / "topologies").glob("*.yaml")),
        "cluster": sorted((ROOT / "fixtures" / "clusters").glob("*.yaml")),
        "workload": sorted((ROOT / "fixtures" / "workloads").glob("*.yaml")),
        "bench": [DATA / "vllm-bench-0.32.json"],
        "guidellm": [DATA / "guidellm-0.8.json"],
        "aiperf": [DATA / "aiperf-0.13.jsonl"],
    }
    chunk = f"{len(STREAM):x}\r\n".encode() + STREAM + b"\r\n0\r\n\r\n"
    texts = {
        "log": [LOG],
        "metrics": [PAGE],
        "events": [STREAM, b'data: {"error": {"message": "x", "code": 500}}\n\n'],
        "http": [
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk,
            HEAD + b"Content-Length: 2\r\n\r\nab",
        ],
        "lm_eval": [EVALS],
        "run_folder": [RUN],
        "slurm": [QUEUE],
        "proxy_request": [REQUEST],
        "proxy_faults": [b'[{"kind": "stall", "seconds": 1, "at": 2, "after": 3}]'],
    }
    found = [path.read_bytes() for path in files.get(name, ())]
    kept = sorted((Path(__file__).parent / "corpus" / name).glob("*"))
    return [*found, *texts.get(name, ()), *(path.read_bytes() for path in kept)]
