"""Real bytes that mutations begin with, where no shipped file has them."""

from __future__ import annotations

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
SMALL = (
    b"quarantine:\n- {test: 'a.py::b[topo:x*', owner: ana, reason: why, "
    b"expires: 2026-12-01}\n",
    b"baseline: [runs/*, accepted.yaml]\nkeep: 5\nmetrics:\n  ttft: {median: 5%}\n",
    b"baselines:\n- topology: x\n  figures:\n    e: {p50: {values: [1.0], "
    b"errors: [0.1]}}\n",
)
NIGHT = (
    b'{"run_id": "a", "at": "2026-11-21", "verdict": "passed", "versions": {"v": "1"}, '
    b'"baselines": [{"topology": "x", "figures": {"e": {"p50": {"values": [1.0], '
    b'"errors": [0.1]}}}}]}'
)
BENCHMARK = (
    b'{"benchmarks": [{"group": "ttft", "name": "n", "fullname": "pd::x::y[z]::ttft", '
    b'"params": {"topology": "x"}, "stats": {"data": [0.1, 0.2]}, "extra_info": '
    b'{"unit": "s", "run_id": "a", "topology_hash": "0"}}]}'
)
TRACE = (
    b'{"timestamp": 1000, "input_length": 40, "output_length": 7, "hash_ids": [1, 2]}\n'
)
SHEET = b'Concurrency,O,P\r\n1,"a ""b""",2.5\r\n8,,\r\n'
PRINTED = (
    b"2026-11-21 15:00:00,123 INFO pytest_pd.proxy: request id=pd-7 route=x "
    b"prefill=127.0.0.1:1 decode=127.0.0.1:2 a=b prefill_ms=3.5 c=d total_ms=9.1\n"
    b"REFIT BENCHMARK - COLLOCATED MODE\nWorld size: 128\n"
    b"Source:      TP=16, PP=1, EP=8, DP=8\nDestination: TP=8, PP=1, EP=16, DP=16\n"
    b"Backend: nccl\nMean: 812.34 ms\nMin:  801.00 ms\nMax:  833.10 ms\n"
)
REQUEST = (
    b'{"model": "tiny", "prompt": "w001 w002", "max_tokens": 4, "stream": true, '
    b'"kv_transfer_params": {"remote_port": 1}}'
)
