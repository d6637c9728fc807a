"""`katanode fleet` against an API server: pages, refusals, and a watch through everything that ends one."""

import argparse
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.cluster.api import Api
from agent.errors import KatanodeError
from agent.fleet import command, mirror, session
from agent.fleet.connect import connect
from agent.fleet.gather import Gathering
from agent.fleet.table import Fleet, iso
from agent.reasons import Reason
from hack.apistandin import ApiStandin, Rule

READ = ("list", "watch")
NODES = Rule(READ, ("",), ("nodes",))
PODS = Rule(READ, ("",), ("pods",))
CLASSES = Rule(READ, ("node.k8s.io",), ("runtimeclasses",))
PROGRAM = """
import argparse, sys
from agent.fleet import command
parser = argparse.ArgumentParser()
command.add_parser(parser.add_subparsers())
options = parser.parse_args(sys.argv[1:])
sys.exit(options.command(options))
"""


@pytest.fixture
def api() -> Iterator[ApiStandin]:
    with ApiStandin() as made:
        made.add_token("laptop", "someone", rules=[NODES, PODS, CLASSES])
        yield made
        made.finish_watches()


def kubeconfig(folder: Path, api: ApiStandin, token: str = "laptop") -> str:
    file = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "contexts": [{"name": "lab", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": api.url}}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    file.write_text(yaml.safe_dump(content))
    return str(file)


def condition(status: str, reason: str) -> dict[str, str]:
    now = str(iso(time.time()))
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    return {"type": "KataReady", "status": status, "reason": reason, "message": "A sentence.", **times}


def node(name: str, state: str = "ready", reason: str = "Ready") -> dict[str, Any]:
    good = state == "ready"
    labels = {"katanode.io/state": state, "handler.katanode.io/kata-clh": str(good).lower()}
    labels |= {"katanode.io/kata-version": "4.1.0"}
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {"conditions": [condition("True" if good else "False", reason)]},
    }


def start_pod(api: ApiStandin, name: str, where: str, runtime_class: str = "kata-clh", phase: str = "Running") -> None:
    """A pod is created on a node, and its kubelet says how it is."""
    spec = {"nodeName": where, "runtimeClassName": runtime_class, "containers": [{"name": "c", "image": "i"}]}
    api.create("pods", {"metadata": {"name": name}, "spec": spec}, "default")
    send(api, "PATCH", f"/api/v1/namespaces/default/pods/{name}/status", {"status": {"phase": phase}})


def runtime_class(name: str, handler: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "handler": handler}


def send(api: ApiStandin, method: str, path: str, body: Any = None) -> None:
    """A write as an administrator makes it."""
    headers = {"Authorization": f"Bearer {api.admin_token}", "Content-Type": "application/merge-patch+json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(api.url + path, data, headers, method=method), timeout=5):
        pass


def become(api: ApiStandin, name: str, state: str, reason: str) -> None:
    """The node's agent has something new to say."""
    wanted = node(name, state, reason)
    send(api, "PATCH", f"/api/v1/nodes/{name}", {"metadata": {"labels": wanted["metadata"]["labels"]}})
    send(api, "PATCH", f"/api/v1/nodes/{name}/status", {"status": wanted["status"]})


def small(api: ApiStandin) -> None:
    """Three nodes, one of them without katanode, and three sandboxes."""
    api.create("nodes", node("good"))
    api.create("nodes", node("bad", "blocked", "KVMDisabledInFirmware"))
    api.add_node("other")
    api.create("runtimeclasses", runtime_class("isolated", "kata-clh"))
    api.create("runtimeclasses", runtime_class("gvisor", "runsc"))
    for name, its in (("a", "isolated"), ("b", "isolated"), ("c", "kata-old"), ("d", "gvisor")):
        start_pod(api, name, "good", its)
    start_pod(api, "e", "good", "isolated", "Succeeded")


def run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    options = parser.parse_args(["fleet", *argv])
    return int(options.command(options))


def refused(*argv: str) -> KatanodeError:
    with pytest.raises(KatanodeError) as caught:
        run(*argv)
    return caught.value


def test_the_fleet_is_shown_with_its_sandboxes_and_its_summary(
    api: ApiStandin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(api)
    assert run("--kubeconfig", kubeconfig(tmp_path, api)) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["NODE", "STATE", "REASON", "KATA", "AGE", "SANDBOXES"]
    assert lines[1][:3] + lines[1][4:] == ["good", "ready", "4.1.0", "3"]
    assert lines[2][:4] + lines[2][5:] == ["bad", "blocked", "KVMDisabledInFirmware", "4.1.0", "0"]
    assert " ".join(lines[4]) == "1 ready, 1 blocked: KVMDisabledInFirmware; 1 node without katanode"
    assert lines[7][0] == "→"


def test_it_reads_and_writes_nothing(api: ApiStandin, tmp_path: Path) -> None:
    small(api)
    api.journal.reset()
    run("--kubeconfig", kubeconfig(tmp_path, api))
    assert {asked["verb"] for asked in api.journal.table()} == {"list"}
    assert not api.journal.writes()


def test_a_fleet_in_order_is_status_0(api: ApiStandin, tmp_path: Path) -> None:
    api.create("nodes", node("good"))
    assert run("--kubeconfig", kubeconfig(tmp_path, api)) == 0


def test_a_cluster_without_katanode_is_status_1(
    api: ApiStandin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.add_node("other")
    assert run("--kubeconfig", kubeconfig(tmp_path, api)) == 1
    assert capsys.readouterr().out == "1 node without katanode\n"


def test_a_reason_chooses_nodes_and_leaves_the_summary_whole(
    api: ApiStandin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(api)
    file = kubeconfig(tmp_path, api)
    assert run("--kubeconfig", file, "--json", "--reason", "kvmdisabledinfirmware") == 1
    said = json.loads(capsys.readouterr().out)
    assert [row["node"] for row in said["nodes"]] == ["bad"]
    assert said["summary"].startswith("1 ready, 1 blocked")
    run("--kubeconfig", file, "--json", "--reason", "KVMBusy")
    assert json.loads(capsys.readouterr().out)["nodes"] == []


def test_without_sandboxes_no_pod_is_read(api: ApiStandin, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(api)
    run("--kubeconfig", kubeconfig(tmp_path, api), "--no-sandboxes")
    assert "SANDBOXES" not in capsys.readouterr().out
    assert api.journal.requests(resource="pods") == 0


def test_1200_nodes_come_in_pages_each_once(
    api: ApiStandin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1200):
        api.create("nodes", node(f"node-{number}"))
    for number in range(600):
        start_pod(api, f"pod-{number}", f"node-{number % 7}")
    for number in range(450):  # these are not asked for
        start_pod(api, f"done-{number}", f"node-{number % 7}", phase="Succeeded")
    began = time.monotonic()
    assert run("--kubeconfig", kubeconfig(tmp_path, api), "--json") == 0
    assert time.monotonic() - began < 10
    said = json.loads(capsys.readouterr().out)
    assert [row["node"] for row in said["nodes"]] == [f"node-{number}" for number in range(1200)]
    assert sum(row["sandboxes"] for row in said["nodes"]) == 600
    assert api.journal.requests(resource="nodes", verb="list") == 3
    assert api.journal.requests(resource="pods", verb="list") == 2


def test_pages_whose_version_is_forgotten_are_read_anew_from_the_first(
    api: ApiStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(600):
        api.create("nodes", node(f"node-{number:03}"))
    gathering = Gathering(connect(kubeconfig(tmp_path, api)))
    get, once = Api.get, iter([True])

    def get_and_forget(self: Api, path: str, **query: object) -> dict[str, Any]:
        page = get(self, path, **query)
        if next(once, False):
            send(api, "DELETE", "/api/v1/nodes/node-000")
            api.create("nodes", node("node-new"))
            api.compact()
        return page

    monkeypatch.setattr(Api, "get", get_and_forget)
    gathering.fill()
    names = {row.name for row in gathering.fleet(time.time()).rows}
    assert names == {f"node-{number:03}" for number in range(1, 600)} | {"node-new"}
    assert api.journal.requests(resource="nodes", status=410) == 1


def test_a_server_that_asks_for_patience_is_given_it(api: ApiStandin, tmp_path: Path) -> None:
    small(api)
    api.faults.throttle(count=1, retry_after=1)
    began = time.monotonic()
    assert run("--kubeconfig", kubeconfig(tmp_path, api)) == 1
    assert time.monotonic() - began >= 1
    assert api.journal.requests(status=429) == 1


def test_a_short_trouble_of_the_server_is_waited_out_and_a_long_one_told(
    api: ApiStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(api)
    file = kubeconfig(tmp_path, api)
    api.faults.storm(code=503, count=2)
    assert run("--kubeconfig", file) == 1
    monkeypatch.setattr(mirror, "_TRIES", 2)
    api.faults.storm(code=503)
    error = refused("--kubeconfig", file)
    assert error.reason is Reason.CLUSTER_UNREACHABLE
    assert "is in trouble" in error.message


def test_credentials_that_are_not_taken_are_told_as_such(api: ApiStandin, tmp_path: Path) -> None:
    error = refused("--kubeconfig", kubeconfig(tmp_path, api, "expired"))
    assert error.reason is Reason.CLUSTER_FORBIDDEN
    assert error.message == f"the API server {api.url} (context lab) does not take these credentials"
    assert "log in again" in error.remedy


def test_who_may_not_list_nodes_is_told_what_to_ask_for(api: ApiStandin, tmp_path: Path) -> None:
    api.add_token("weak", "eve", rules=[PODS])
    error = refused("--kubeconfig", kubeconfig(tmp_path, api, "weak"))
    assert error.reason is Reason.CLUSTER_FORBIDDEN
    assert 'User "eve" cannot list resource "nodes"' in error.evidence
    assert "Ask for the right to list nodes" in error.remedy


def test_who_may_not_list_pods_sees_the_nodes_and_no_number(
    api: ApiStandin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(api)
    api.add_token("weak", "eve", rules=[NODES, CLASSES])
    assert run("--kubeconfig", kubeconfig(tmp_path, api, "weak")) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[-1] == "?"
    assert '! SANDBOXES is not known: pods is forbidden: User "eve" cannot list resource "pods"' in out


def test_who_may_not_list_runtime_classes_gets_the_number_by_their_names(
    api: ApiStandin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(api)
    api.add_token("weak", "eve", rules=[NODES, PODS])
    run("--kubeconfig", kubeconfig(tmp_path, api, "weak"))
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[-1] == "1", "kata-old alone has Kata's name"
    assert "! SANDBOXES takes each RuntimeClass for its handler's namesake" in out


def test_a_server_that_is_away_is_unreachable(api: ApiStandin, tmp_path: Path) -> None:
    api.absent()
    error = refused("--kubeconfig", kubeconfig(tmp_path, api))
    assert error.reason is Reason.CLUSTER_UNREACHABLE
    assert "cannot be reached" in error.message
    api.present()


def test_what_is_no_api_is_told_as_such(api: ApiStandin, tmp_path: Path) -> None:
    file = Path(kubeconfig(tmp_path, api))
    file.write_text(file.read_text().replace(api.url, f"{api.url}/wrong"))
    error = refused("--kubeconfig", str(file))
    assert error.reason is Reason.CLUSTER_CONFIG_INVALID
    assert "does not answer as a Kubernetes API does" in error.message


class Watched:
    """A fleet that is kept up to date."""

    def __init__(self, gathering: Gathering) -> None:
        self._gathering = gathering
        self.changes = 0
        gathering.fill()
        gathering.start(self._changed)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def fleet(self) -> Fleet:
        return self._gathering.fleet(time.time())

    @property
    def states(self) -> dict[str, str]:
        return {row.name: row.state for row in self.fleet.rows}

    def until(self, holds: Callable[[Fleet], bool], seconds: float = 15) -> Fleet:
        end = time.monotonic() + seconds
        while not holds(self.fleet):
            assert time.monotonic() < end, self.fleet
            time.sleep(0.02)
        return self.fleet


@pytest.fixture
def watched(api: ApiStandin, tmp_path: Path) -> Iterator[Watched]:
    small(api)
    gathering = Gathering(connect(kubeconfig(tmp_path, api)))
    made = Watched(gathering)
    end = time.monotonic() + 5
    while api.open_watches < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    yield made
    gathering.stop()


def test_what_changes_is_seen(api: ApiStandin, watched: Watched) -> None:
    become(api, "bad", "ready", "Ready")
    watched.until(lambda fleet: fleet.summary() == "2 ready; 1 node without katanode")
    api.create("nodes", node("new", "installing", "WaitingForRestartSlot"))
    watched.until(lambda fleet: [row.state for row in fleet.rows if row.name == "new"] == ["installing"])
    send(api, "DELETE", "/api/v1/nodes/good")
    watched.until(lambda fleet: [row.name for row in fleet.rows] == ["bad", "new"])
    assert api.journal.requests(resource="nodes", verb="list") == 1


def test_sandboxes_come_and_go(api: ApiStandin, watched: Watched) -> None:
    def sandboxes(fleet: Fleet) -> int | None:
        return {row.name: row.sandboxes for row in fleet.rows}["good"]

    assert sandboxes(watched.fleet) == 3
    start_pod(api, "new", "good")
    watched.until(lambda fleet: sandboxes(fleet) == 4)
    send(api, "DELETE", "/api/v1/namespaces/default/pods/a?gracePeriodSeconds=0")
    watched.until(lambda fleet: sandboxes(fleet) == 3)
    send(api, "PATCH", "/api/v1/namespaces/default/pods/b/status", {"status": {"phase": "Succeeded"}})
    watched.until(lambda fleet: sandboxes(fleet) == 2)
    api.create("runtimeclasses", runtime_class("kata-old", "runc"))
    watched.until(lambda fleet: sandboxes(fleet) == 1)


@pytest.mark.parametrize("how", ["expire_watches", "drop_watches", "finish_watches"])
def test_a_watch_that_ends_in_any_way_goes_on(api: ApiStandin, watched: Watched, how: str) -> None:
    assert getattr(api, how)() == 3
    become(api, "bad", "ready", "Ready")
    watched.until(lambda _: watched.states == {"good": "ready", "bad": "ready"})
    watched.until(lambda fleet: not fleet.notes)


def test_what_happened_during_a_break_longer_than_the_history_is_found(api: ApiStandin, watched: Watched) -> None:
    api.absent()
    fleet = watched.until(lambda fleet: bool(fleet.notes))
    assert "cannot be reached; the table is from before." in fleet.notes[0]
    assert [row.state for row in fleet.rows] == ["blocked", "ready"]
    api.create("nodes", node("new"))
    api.compact()
    api.present()
    watched.until(lambda fleet: [row.name for row in fleet.rows] == ["bad", "good", "new"] and not fleet.notes)


def test_nobody_grows_silent_because_the_server_is_away(api: ApiStandin, watched: Watched) -> None:
    api.absent()
    watched.until(lambda fleet: bool(fleet.notes))
    later = watched._gathering.fleet(time.time() + 3600)
    assert [row.state for row in later.rows] == ["blocked", "ready"]
    api.present()
    watched.until(lambda fleet: not fleet.notes)
    later = watched._gathering.fleet(time.time() + 3600)
    assert [row.state for row in later.rows] == ["silent", "silent"]


def test_credentials_that_expire_meanwhile_are_read_anew(api: ApiStandin, tmp_path: Path, watched: Watched) -> None:
    api.rotate_token("laptop", "renewed")
    api.drop_watches()
    fleet = watched.until(lambda fleet: bool(fleet.notes))
    assert "does not take these credentials" in fleet.notes[0]
    kubeconfig(tmp_path, api, "renewed")  # somebody logs in again, beside it
    become(api, "bad", "ready", "Ready")
    watched.until(lambda fleet: not fleet.notes and set(watched.states.values()) == {"ready"}, 30)


def test_who_may_list_but_not_watch_sees_it_anew_now_and_then(api: ApiStandin, tmp_path: Path) -> None:
    small(api)
    api.add_token("weak", "eve", rules=[Rule(("list",), ("*",), ("*",))])
    gathering = Gathering(connect(kubeconfig(tmp_path, api, "weak")))
    gathering.fill()
    notes: list[tuple[str, ...]] = []
    gathering.start(lambda: notes.append(gathering.fleet(time.time()).notes))
    become(api, "bad", "ready", "Ready")
    end = time.monotonic() + 15
    while not gathering.fleet(time.time()).fine:
        assert time.monotonic() < end
        time.sleep(0.02)
    gathering.stop()
    begun = next(number for number, shown in enumerate(notes) if shown)
    for shown in notes[begun:]:  # it does not come and go, whichever kind was refused first
        assert shown[0].startswith("Read anew now and then only, since watching is not allowed: ")


def test_a_heartbeat_alone_asks_for_no_more_than_the_watch(api: ApiStandin, watched: Watched) -> None:
    def heard(fleet: Fleet) -> float | None:
        return {row.name: row.facts.heard for row in fleet.rows}["good"]

    before, asked = heard(watched.fleet), api.journal.requests(user="someone")
    beat = condition("True", "Ready") | {"lastHeartbeatTime": str(iso(time.time() + 60))}
    send(api, "PATCH", "/api/v1/nodes/good/status", {"status": {"conditions": [beat]}})
    watched.until(lambda fleet: heard(fleet) != before)
    assert api.journal.requests(user="someone") == asked


def started(file: str, *argv: str, **streams: Any) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-c", PROGRAM, "fleet", "--kubeconfig", file, "--watch", *argv]
    return subprocess.Popen(program, **streams)


def test_watching_into_a_pipe_gives_a_line_for_each_change_and_ends_on_ctrl_c(api: ApiStandin, tmp_path: Path) -> None:
    small(api)
    with started(kubeconfig(tmp_path, api), "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["states"] == {"ready": 1, "blocked": 1}
        become(api, "bad", "ready", "Ready")
        while json.loads(process.stdout.readline())["states"] != {"ready": 2}:
            pass
        beat = condition("True", "Ready") | {"lastHeartbeatTime": str(iso(time.time() + 60))}
        beat["lastTransitionTime"] = str(api.get("nodes", "bad")["status"]["conditions"][0]["lastTransitionTime"])
        send(api, "PATCH", "/api/v1/nodes/bad/status", {"status": {"conditions": [beat]}})
        time.sleep(1.5)  # longer than the pause between two lines
        api.create("nodes", node("new"))
        assert json.loads(process.stdout.readline())["states"] == {"ready": 3}, "a heartbeat alone is no news"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=5)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_watching_on_a_terminal_redraws_it_and_leaves_it_as_it_was(api: ApiStandin, tmp_path: Path) -> None:
    small(api)
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    process = started(kubeconfig(tmp_path, api), stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {
        "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"})  # fmt: skip
    os.close(theirs)

    def seen_until(words: bytes) -> bytes:
        text, end = b"", time.monotonic() + 15
        while words not in text:
            ready, _, _ = select.select([ours], [], [], end - time.monotonic())
            assert ready, text
            try:
                text += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
        return text

    first = seen_until(b"KVMDisabledInFirmware\x1b")
    assert b"\x1b[?1049h" in first, "on a screen of its own"
    become(api, "bad", "ready", "Ready")
    seen_until(b"2 ready; 1 node without katanode")
    process.send_signal(signal.SIGINT)
    last = seen_until(b"never said")
    assert process.wait(5) == 0
    os.close(ours)
    assert b"\x1b[?1049l" in last
    assert b"\x1b[?25h" in last, "the cursor is back"
    assert last.rstrip().endswith(b"2 ready; 1 node without katanode")
    assert b"Traceback" not in last


def test_the_status_of_a_watch_is_that_of_its_last_table(
    api: ApiStandin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(api)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session._View, "again", interrupt)
    assert run("--kubeconfig", kubeconfig(tmp_path, api), "--watch", "--json") == 1
