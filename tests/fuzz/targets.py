"""What is fuzzed: each parser of bytes that others wrote, and real bytes to begin with.

A target may refuse its input with a `PdError`; any other exception is a defect.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

from pytest_pd.errors import PdError
from pytest_pd.evals.sample import read_samples
from pytest_pd.load.decode import Reads, decode_error, decode_stream
from pytest_pd.load.external import aiperf, guidellm, vllm_bench
from pytest_pd.load.http_message import parse_head
from pytest_pd.load.mooncake import read_trace
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
from pytest_pd.refit.external import parse_benchmark
from pytest_pd.report.night import read_night
from pytest_pd.report.read import read_run
from pytest_pd.report.read_benchmark import read_benchmark
from pytest_pd.report.sheet import read_sheet
from pytest_pd.report.timeline import read_hops
from pytest_pd.spec.baseline import BaselineFile
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.evals import EvalFileSpec
from pytest_pd.spec.file import build, parse_document
from pytest_pd.spec.gate import GateSpec
from pytest_pd.spec.quarantine import read_quarantine
from pytest_pd.spec.refit import RefitCluster, RefitSpec
from pytest_pd.spec.topology import TopologySpec
from pytest_pd.spec.variant import unfold
from pytest_pd.spec.workload import WorkloadSpec
from tests.fuzz import texts as real

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


def small_specs(data: bytes) -> None:
    """Read the text as each of the small kinds of file that people write."""
    document = parse_document(data.decode("utf-8", "replace"), Path("fuzz.yaml"))
    for kind in (BaselineFile, EvalFileSpec, GateSpec, RefitSpec, RefitCluster):
        with suppress(PdError):
            build(document, kind)
    with file_of(data, "quarantine.yaml") as path:
        read_quarantine(path, date(2026, 11, 1))


def night(data: bytes) -> None:
    read_night(data.decode("utf-8", "replace"), "fuzz")


def benchmark_file(data: bytes) -> None:
    """Read a file of pytest-benchmark, and the figures of what is in it."""
    with file_of(data, "0001_x.json") as path:
        for entry in read_benchmark(path).topologies[0].entries:
            entry.statistics()


def trace(data: bytes) -> None:
    with file_of(data, "trace.jsonl") as path:
        read_trace(path)


def sheet(data: bytes) -> None:
    read_sheet(data.decode("utf-8", "replace"))


def printed(data: bytes) -> None:
    """Read what a refit benchmark and the proxy have printed."""
    text = data.decode("utf-8", "replace")
    read_hops(text)
    parse_benchmark(text)


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
    "small_specs": small_specs,
    "night": night,
    "benchmark_file": benchmark_file,
    "trace": trace,
    "sheet": sheet,
    "printed": printed,
}


def seeds(name: str) -> list[bytes]:
    """Return real inputs of a target: what is shipped, recorded, or found before."""
    files = {
        "topology": sorted((ROOT / "fixtures" / "topologies").glob("*.yaml")),
        "cluster": sorted((ROOT / "fixtures" / "clusters").glob("*.yaml")),
        "workload": sorted((ROOT / "fixtures" / "workloads").glob("*.yaml")),
        "bench": [DATA / "vllm-bench-0.32.json"],
        "guidellm": [DATA / "guidellm-0.8.json"],
        "aiperf": [DATA / "aiperf-0.13.jsonl"],
        "small_specs": [
            *sorted((ROOT / "fixtures" / "evals").glob("*.yaml")),
            *sorted((ROOT / "fixtures" / "refit").rglob("*.yaml")),
        ],
    }
    chunk = f"{len(real.STREAM):x}\r\n".encode() + real.STREAM + b"\r\n0\r\n\r\n"
    texts = {
        "log": [real.LOG],
        "metrics": [real.PAGE],
        "events": [real.STREAM, b'data: {"error": {"message": "x", "code": 500}}\n\n'],
        "http": [
            real.HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk,
            real.HEAD + b"Content-Length: 2\r\n\r\nab",
        ],
        "lm_eval": [real.EVALS],
        "run_folder": [real.RUN],
        "slurm": [real.QUEUE],
        "proxy_request": [real.REQUEST],
        "small_specs": list(real.SMALL),
        "night": [real.NIGHT],
        "benchmark_file": [real.BENCHMARK],
        "trace": [real.TRACE],
        "sheet": [real.SHEET],
        "printed": [real.PRINTED],
        "proxy_faults": [b'[{"kind": "stall", "seconds": 1, "at": 2, "after": 3}]'],
    }
    found = [path.read_bytes() for path in files.get(name, ())]
    kept = sorted((Path(__file__).parent / "corpus" / name).glob("*"))
    return [*found, *texts.get(name, ()), *(path.read_bytes() for path in kept)]
