"""What every backend promises; each row of the table is held to all of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.probe.logs import read_text
from pytest_pd.provision import BACKENDS
from pytest_pd.provision.base import reach_of
from pytest_pd.provision.lease import held
from pytest_pd.provision.rundir import RunDir, make_run_id
from tests.contract.backend_rows import ROWS
from tests.kit import free_ports, plan_of, python, service, wait_until

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)"
)
FAMILY = """
import subprocess, sys, time
child = "import time; print('child', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-S", "-E", "-c", child])
subprocess.Popen(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & exit 0"])
print("up", flush=True)
time.sleep(600)
"""
ECHO = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
ODD = (
    "a b",
    "",
    "it's",
    'say "x"',
    "line\nbreak",
    "$HOME `id` $(id)",
    "ünï→",
    "*",
    "\\",
    "; touch hurt",
    "../..",
    "--help",
)


@pytest.fixture(scope="module", params=sorted(ROWS))
def place(request, tmp_path_factory):
    with ROWS[request.param](tmp_path_factory.mktemp(request.param)) as made:
        yield made


class Session:
    """One allocation of a place, with what the tests ask of it."""

    def __init__(self, place, run, run_id, allocation):
        self.place, self.run, self.run_id = place, run, run_id
        self.allocation = allocation

    def start(self, plan):
        return self.allocation.start(plan)

    def says(self, process, word):
        wait_until(lambda: word in read_text(process.log), f"{word!r} in the log")

    def ends(self, process):
        wait_until(
            lambda: process.exit_code() is not None, f"the end of {process.name}"
        )
        return process.exit_code()


@contextmanager
def session(place, services=(), nodes=1):
    run_id = make_run_id()
    run = RunDir(place.root / f"it's a run-{run_id}" / "toy")
    run.create()
    context = run.context(run_id, place.cluster.lease_ttl_s)
    backend = BACKENDS.get(place.cluster.backend)()
    plan = plan_of(services or [python("any", SLEEPER)], nodes=nodes)
    with (
        held(run.lease, place.cluster.lease_ttl_s),
        backend.allocate(place.cluster, plan, context) as allocation,
    ):
        yield Session(place, run, run_id, allocation)


@pytest.fixture
def here(place):
    with session(place) as made:
        yield made


def test_every_registered_backend_has_a_row():
    assert set(BACKENDS) - set(ROWS) == set()


def test_a_service_writes_its_log_while_it_runs(here):
    process = here.start(python("one", SLEEPER))

    here.says(process, "up")
    assert process.exit_code() is None


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_reaches_the_harness(here, code):
    process = here.start(python("one", f"raise SystemExit({code})"))

    assert here.ends(process) == code


def test_a_death_by_signal_is_no_clean_exit(here):
    process = here.start(python("one", "import os; os.kill(os.getpid(), 9)"))

    assert here.ends(process) not in (0, None)


def test_the_identity_proves_what_was_started(here):
    process = here.start(python("one", SLEEPER))
    here.says(process, "up")

    assert all(process.identity().values())


def test_stopping_one_leaves_the_other(here):
    one, two = here.start(python("one", SLEEPER)), here.start(python("two", SLEEPER))
    here.says(one, "up")
    here.says(two, "up")

    one.stop(grace_s=5.0)

    assert one.exit_code() is not None
    assert two.exit_code() is None


def test_stopping_twice_is_no_error(here):
    process = here.start(python("one", SLEEPER))
    here.says(process, "up")

    process.stop(grace_s=5.0)
    process.stop(grace_s=5.0)

    assert process.exit_code() is not None


def test_a_service_that_does_not_listen_is_killed(here):
    process = here.start(python("one", DEAF, stop_grace_s=1.0))
    here.says(process, "up")

    process.stop(grace_s=1.0)

    assert process.exit_code() not in (0, None)


def test_leaving_the_block_leaves_nothing(place):
    with session(place) as here:
        for name in ("one", "two"):
            here.says(here.start(python(name, FAMILY)), "up")
        assert place.alive(here.run_id)

    assert place.alive(here.run_id) == []


def test_children_and_daemons_go_with_their_service(here):
    process = here.start(python("one", FAMILY))
    here.says(process, "child")
    here.says(process, "up")
    before = here.place.alive(here.run_id)

    process.stop(grace_s=2.0)

    assert len(here.place.alive(here.run_id)) < len(before)
    wait_until(
        lambda: not [p for p in before if p in here.place.alive(here.run_id)],
        "the end of children and daemons",
    )


def test_a_service_that_ends_takes_its_children_along(here):
    code = FAMILY.replace("time.sleep(600)\n", "raise SystemExit(4)\n")
    process = here.start(python("one", code))

    assert here.ends(process) == 4
    wait_until(lambda: not here.place.alive(here.run_id), "the end of the children")


def test_a_signal_reaches_the_whole_service(here):
    process = here.start(python("one", FAMILY))
    here.says(process, "child")

    process.kill(signal.SIGKILL)

    assert here.ends(process) not in (0, None)


def test_words_arrive_as_they_were_written(here):
    process = here.start(python("one", ECHO, *ODD))

    assert here.ends(process) == 0
    assert json.loads(read_text(process.log).splitlines()[-1])[0] == list(ODD)


def test_variables_arrive_as_they_were_written(here):
    wanted = {f"PD_ODD_{n}": value for n, value in enumerate(ODD)}
    process = here.start(python("one", ECHO, env=wanted))

    assert here.ends(process) == 0
    found = json.loads(read_text(process.log).splitlines()[-1])[1]
    assert {name: found.get(name) for name in wanted} == wanted


def test_unset_patterns_remove_what_is_inherited(here, monkeypatch):
    monkeypatch.setenv("DYN_INHERITED", "1")
    monkeypatch.setenv("DYN_SET", "old")
    process = here.start(
        python("one", ECHO, env={"DYN_SET": "new"}, env_unset=("DYN_*",))
    )

    assert here.ends(process) == 0
    found = json.loads(read_text(process.log).splitlines()[-1])[1]
    assert "DYN_INHERITED" not in found
    assert found["DYN_SET"] == "new"


def test_a_secret_arrives_and_is_written_nowhere(here, monkeypatch):
    monkeypatch.setenv("PD_SECRET", "hush-4711")
    code = "import os, time; print(len(os.environ['PD_SECRET']), flush=True);" + SLEEPER
    process = here.start(python("one", code, env_from_host=("PD_SECRET",)))

    here.says(process, "9")
    here.says(process, "up")
    written = [p for p in here.run.path.rglob("*") if p.is_file()]
    assert [p for p in written if b"hush-4711" in p.read_bytes()] == []
    assert command_lines_with("hush-4711") == []


def test_a_secret_that_is_printed_is_masked_in_the_log(here, monkeypatch):
    monkeypatch.setenv("PD_SECRET", "hush-4711")
    code = "import os, time; print('it is', os.environ['PD_SECRET'], flush=True);"
    process = here.start(python("one", code + SLEEPER, env_from_host=("PD_SECRET",)))

    here.says(process, "it is *********")
    here.says(process, "up")
    assert "hush-4711" not in read_text(process.log)


def command_lines_with(word):
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes()
        except OSError:
            continue
        if word.encode() in text:
            found.append(entry)
    return found


def test_a_secret_that_is_not_there_is_refused_by_name(here, monkeypatch):
    monkeypatch.delenv("PD_SECRET", raising=False)

    with pytest.raises(ProvisionError, match="PD_SECRET"):
        here.start(python("one", SLEEPER, env_from_host=("PD_SECRET",)))


def test_a_missing_program_is_named_with_what_to_do(here):
    said = refusal(here, service("ghost", "no-such-engine", "serve"))

    assert "no-such-engine" in said
    assert "try:" in said or "cannot start" in said


def refusal(here, plan):
    """Return what a user sees: an error at once, or the log of a service that ends."""
    try:
        process = here.start(plan)
    except ProvisionError as error:
        return str(error)
    return "" if here.ends(process) == 0 else read_text(process.log)


def test_every_planned_node_has_an_address_that_is_reached(place):
    plans = [python(f"s{n}", SLEEPER, node=f"node{n}") for n in range(place.nodes)]
    with session(place, plans, nodes=place.nodes) as here:
        plan = plan_of(plans, nodes=place.nodes)
        addresses = here.allocation.addresses(plan)
        reach = reach_of(here.allocation, plan)
        assert set(addresses) == {node.name for node in plan.nodes}
        assert len(set(addresses.values())) == place.nodes
        for node, address in addresses.items():
            listen(here, node, address, reach[node])


def listen(here, node, address, reached_at):
    """Start a listener on a planned port of a node and connect to it from here."""
    code = (
        "import socket, sys, time\n"
        "s = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
        "print('up', flush=True)\n"
        "while True: s.accept()[0].sendall(b'hello')"
    )
    (port,) = free_ports(1)
    name = f"listen-{node}"
    here.start(python(name, code, address, str(port), node=node, ports={"http": port}))
    wait_until(lambda: hears((reached_at, port)), f"an answer of {name}")


def hears(address):
    try:
        with socket.create_connection(address, timeout=5) as connection:
            return connection.recv(5) == b"hello"
    except OSError:
        return False


def test_a_port_that_others_hold_is_busy(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        plans = [python("one", SLEEPER, ports={"http": port})]
        with session(place, plans) as here:
            address = reach_of(here.allocation, plan_of(plans))["node0"]
            if address != "127.0.0.1":
                taken.close()
                with socket.create_server((address, port)):
                    busy = here.allocation.busy_ports(plan_of(plans))
            else:
                busy = here.allocation.busy_ports(plan_of(plans))

    assert busy == {("node0", port)}


def test_what_is_kept_lives_until_its_lease_is_given_back(place):
    run_id = make_run_id()
    run = RunDir(place.root / f"kept-{run_id}" / "toy")
    run.create()
    context = run.context(run_id, place.cluster.lease_ttl_s)
    backend = BACKENDS.get(place.cluster.backend)()
    plan = plan_of([python("one", SLEEPER)])
    with held(run.lease, place.cluster.lease_ttl_s):
        with backend.allocate(place.cluster, plan, context) as allocation:
            process = allocation.start(plan.services[0])
            wait_until(lambda: "up" in read_text(process.log), "the start")
            allocation.keep()
        assert place.alive(run_id)

    gone = place.cluster.lease_ttl_s + place.slack_s
    wait_until(lambda: not place.alive(run_id), "the end", deadline_s=gone)


def test_a_killed_harness_leaves_nothing(place):
    run_id = make_run_id()
    words = [
        *(sys.executable, "-m", "tests.contract.harness_child"),
        place.cluster.model_dump_json(exclude_unset=True),
        *(str(place.root / f"killed-{run_id}" / "toy"), run_id),
    ]
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=env) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"started\n"
            run = RunDir(place.root / f"killed-{run_id}" / "toy")
            wait_until(lambda: len(run.started_records()) == 2, "two services")
            wait_until(lambda: place.alive(run_id), "the first process")
        finally:
            child.kill()

    gone = place.cluster.lease_ttl_s + place.slack_s
    wait_until(lambda: not place.alive(run_id), "the end", deadline_s=gone)
