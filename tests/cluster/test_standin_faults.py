"""What the stand-in does on demand that a real server does in bad times."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
import urllib3
from servers import NODES, Client, client_of

from hack.apistandin import Fault, Rule, What

if TYPE_CHECKING:
    from hack.apistandin import ApiStandin

LEASES = "/apis/coordination.k8s.io/v1/namespaces/katanode/leases"
BROKEN = (urllib3.exceptions.ProtocolError, urllib3.exceptions.NewConnectionError)


@pytest.fixture
def admin(own_standin: ApiStandin) -> Client:
    """Who may do all, with a Node to do it to."""
    own_standin.add_node("node-1")
    return client_of(own_standin)


def control(standin: ApiStandin, method: str, path: str, body: object = None) -> object:
    """Control over HTTP."""
    return urllib3.request(method, f"{standin.control_url}/standin/{path}", json=body).json()


def test_throttled_requests_say_when_to_come_back(own_standin: ApiStandin, admin: Client) -> None:
    own_standin.faults.throttle(count=2, retry_after=3, verbs={"apply"})
    admin.get(f"{NODES}/node-1").done()
    wanted = {"apiVersion": "v1", "kind": "Node", "metadata": {"labels": {"a": "1"}}}
    for _ in range(2):
        refused = admin.apply(f"{NODES}/node-1", wanted)
        # As from API priority and fairness: no Status object.
        assert (refused.status, refused.body["text"]) == (429, "Too many requests, please try again later.\n")
    said = admin.pool.request("GET", own_standin.url + NODES, headers=admin.headers)
    assert "Retry-After" not in said.headers
    admin.apply(f"{NODES}/node-1", wanted).done()
    own_standin.faults.throttle(count=1, retry_after=7)
    said = admin.pool.request("GET", own_standin.url + NODES, headers=admin.headers, retries=False)
    assert (said.status, said.headers["Retry-After"]) == (429, "7")


def test_a_storm_hits_a_part_of_the_requests_for_a_time(own_standin: ApiStandin, admin: Client) -> None:
    own_standin.faults.storm(code=500, rate=0.5, seconds=30)
    codes = [admin.get(NODES).status for _ in range(200)]
    assert 60 < codes.count(500) < 140
    assert codes.count(200) == 200 - codes.count(500)
    own_standin.faults.clear()
    own_standin.faults.storm(seconds=0.2)
    admin.get(NODES).refused(503, "ServiceUnavailable")
    time.sleep(0.25)
    admin.get(NODES).done()


def test_the_old_token_is_unauthorized_after_a_rotation(own_standin: ApiStandin, admin: Client) -> None:
    own_standin.add_token("old", "agent", rules=[Rule(("get",), ("",), ("nodes",))])
    client_of(own_standin, "old").get(f"{NODES}/node-1").done()
    own_standin.rotate_token("old", "new")
    client_of(own_standin, "old").get(f"{NODES}/node-1").refused(401, "Unauthorized")
    client_of(own_standin, "new").get(f"{NODES}/node-1").done()


def test_a_reset_before_the_work_leaves_it_undone(own_standin: ApiStandin, admin: Client) -> None:
    own_standin.faults.reset(count=1, verbs={"patch"})
    with pytest.raises(BROKEN):
        admin.merge(f"{NODES}/node-1", {"metadata": {"labels": {"a": "1"}}})
    assert "a" not in admin.get(f"{NODES}/node-1").done().labels


def test_an_answer_that_is_lost_was_a_write(own_standin: ApiStandin, admin: Client) -> None:
    own_standin.faults.reset(after_write=True, count=1, verbs={"create"})
    with pytest.raises(BROKEN):
        admin.create(LEASES, {"metadata": {"name": "slot"}})
    admin.get(f"{LEASES}/slot").done()
    assert [write.name for write in own_standin.journal.writes(resource="leases")] == ["slot"]
    assert own_standin.journal.requests(verb="create", status=0) == 1


def test_a_slow_answer_takes_its_time(own_standin: ApiStandin, admin: Client) -> None:
    own_standin.faults.slow(0.3, count=1)
    begin = time.monotonic()
    admin.get(NODES).done()
    assert time.monotonic() - begin >= 0.3


def test_an_absent_server_refuses_connections_and_forgets_nothing(own_standin: ApiStandin, admin: Client) -> None:
    admin.merge(f"{NODES}/node-1", {"metadata": {"labels": {"a": "1"}}}).done()
    with admin.watch(NODES, resourceVersion=str(own_standin.revision)) as events:
        own_standin.absent()
        with pytest.raises(urllib3.exceptions.HTTPError):
            next(events)
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        client_of(own_standin).get(NODES)
    own_standin.present()
    assert admin.get(f"{NODES}/node-1").done().labels["a"] == "1"


def test_a_watch_that_is_dropped_breaks(own_standin: ApiStandin, admin: Client) -> None:
    with admin.watch(NODES) as events:
        next(events)
        assert own_standin.drop_watches("nodes") == 1
        with pytest.raises(urllib3.exceptions.HTTPError):
            next(events)
    gone(own_standin)


def gone(standin: ApiStandin) -> None:
    """No watch is open any more, soon."""
    for _ in range(100):
        if standin.open_watches == 0:
            return
        time.sleep(0.02)
    assert standin.open_watches == 0


def test_a_watch_whose_client_went_is_closed(own_standin: ApiStandin, admin: Client) -> None:
    with admin.watch(NODES, fieldSelector="metadata.name=node-1") as events:
        next(events)
        assert own_standin.open_watches == 1
    gone(own_standin)


def test_a_watch_that_expires_ends_with_410(own_standin: ApiStandin, admin: Client) -> None:
    with admin.watch(NODES, resourceVersion=str(own_standin.revision)) as events:
        assert own_standin.expire_watches("nodes") == 1
        last = next(events)
        assert (last["type"], last["object"]["code"], last["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert next(events, None) is None


def test_a_stalled_watch_stays_open_and_says_nothing(own_standin: ApiStandin, admin: Client) -> None:
    told: list[float] = []
    with admin.watch(NODES, resourceVersion=str(own_standin.revision)) as events:
        number = own_standin.faults.stall(resources={"nodes"})
        listener = threading.Thread(target=lambda: told.append(next(events) and time.monotonic()))
        listener.start()
        admin.merge(f"{NODES}/node-1", {"metadata": {"labels": {"a": "1"}}}).done()
        time.sleep(0.5)
        assert not told
        begin = time.monotonic()
        own_standin.faults.clear(number)
        listener.join(5)
        assert told[0] >= begin


def test_faults_are_chosen_by_who_asks_and_what_for(own_standin: ApiStandin, admin: Client) -> None:
    rule = Rule(("get",), ("",), ("nodes",))
    for node in ("node-1", "node-2"):
        own_standin.add_token(node, "agent", node=node, rules=[rule])
    own_standin.faults.add(Fault(What.STATUS, code=502, nodes=frozenset({"node-1"})))
    client_of(own_standin, "node-2").get(f"{NODES}/node-1").done()
    assert client_of(own_standin, "node-1").get(f"{NODES}/node-1").status == 502


def test_the_journal_knows_who_wrote_what_and_when(own_standin: ApiStandin, admin: Client) -> None:
    rule = Rule(("*",), ("", "coordination.k8s.io"), ("*",))
    own_standin.add_token("t", "agent", node="node-1", rules=[rule])
    agent = client_of(own_standin, "t")
    own_standin.journal.reset()
    begin = time.monotonic()
    agent.create(LEASES, {"metadata": {"name": "slot"}, "spec": {"holderIdentity": "node-1"}}).done(201)
    wanted = {"apiVersion": "v1", "kind": "Node", "metadata": {"labels": {"a": "1"}}}
    agent.apply(f"{NODES}/node-1", wanted).done()
    agent.apply(f"{NODES}/node-1", wanted).done()
    agent.get(f"{LEASES}/none").refused(404, "NotFound")
    journal = own_standin.journal
    assert [(w.verb, w.name, w.changed) for w in journal.writes()] == [
        ("create", "slot", True),
        ("apply", "node-1", True),
        ("apply", "node-1", False),
    ]
    assert all(begin <= write.at <= time.monotonic() for write in journal.writes())
    assert journal.writes(resource="leases")[0].object["spec"]["holderIdentity"] == "node-1"
    assert journal.writes_per_node() == {"node-1": 3}
    assert journal.requests(verb="patch", resource="nodes", user="agent", status=200) == 2
    assert journal.requests(status=404) == 1
    seen = control(own_standin, "GET", "journal?resource=leases")
    assert isinstance(seen, list)
    assert [(write["name"], write["user"], "object" in write) for write in seen] == [("slot", "agent", False)]


def test_all_of_it_can_be_asked_for_over_http(own_standin: ApiStandin, admin: Client) -> None:
    user = {"name": "agent", "node": "node-1", "rules": [{"verbs": ["get"], "resources": ["nodes"]}]}
    control(own_standin, "PUT", "tokens/first", user)
    client_of(own_standin, "first").get(f"{NODES}/node-1").done()
    control(own_standin, "POST", "tokens/first/rotate", {"to": "second"})
    client_of(own_standin, "first").get(f"{NODES}/node-1").refused(401, "Unauthorized")
    agent = client_of(own_standin, "second")
    control(own_standin, "POST", "faults", {"what": "status", "code": 429, "count": 1, "users": ["agent"]})
    admin.get(NODES).done()
    assert agent.get(f"{NODES}/node-1").status == 429
    counters = control(own_standin, "GET", "counters")
    assert isinstance(counters, dict)
    answers = [(one["status"], one["count"]) for one in counters["requests"] if one["user"] == "agent"]
    assert sorted(answers) == [(200, 1), (429, 1)]
    control(own_standin, "POST", "reset")
    control(own_standin, "POST", "absence", {"seconds": 0.3})
    time.sleep(0.2)
    with pytest.raises(urllib3.exceptions.HTTPError):
        client_of(own_standin).get(NODES)
    time.sleep(0.4)
    admin.get(NODES).done()
    control(own_standin, "DELETE", "tokens/second")
    agent.get(f"{NODES}/node-1").refused(401, "Unauthorized")


def test_two_stand_ins_know_nothing_of_each_other(own_standin: ApiStandin, admin: Client) -> None:
    with type(own_standin)() as other:
        client_of(other).get(f"{NODES}/node-1").refused(404, "NotFound")
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", int(other.url.rpartition(":")[2])))
