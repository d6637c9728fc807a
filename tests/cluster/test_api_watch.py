"""Lists and watches, the same on the stand-in and on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from servers import NODES, unique

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Api, Json


def of(path: str) -> str:
    """The field selector of one object."""
    return f"metadata.name={path.rpartition('/')[2]}"


def until(events: Iterator[Json], **labels: str | None) -> Json:
    """The first event whose object has these labels: controllers write to new Nodes too."""
    for event in events:
        has = event["object"]["metadata"].get("labels", {})
        if all(has.get(name) == value for name, value in labels.items()):
            return event
    raise AssertionError(f"the watch ended before {labels}")


def test_a_watch_tells_what_there_is_and_then_what_changes(api: Api, own_node: str) -> None:
    with api.admin.watch(NODES, fieldSelector=of(own_node)) as events:
        first = next(events)
        assert (first["type"], first["object"]["kind"], first["object"]["apiVersion"]) == ("ADDED", "Node", "v1")
        made = api.admin.merge(own_node, {"metadata": {"labels": {"step": "1"}}}).done()
        changed = until(events, step="1")
        assert changed["type"] == "MODIFIED"
        assert changed["object"]["metadata"]["resourceVersion"] == made.revision
        api.admin.delete(own_node).done()
        gone = next(event for event in events if event["type"] != "MODIFIED")
        assert gone["type"] == "DELETED"
        assert int(gone["object"]["metadata"]["resourceVersion"]) > int(made.revision)


def test_a_watch_from_a_version_tells_only_what_came_after(api: Api, own_lease: str) -> None:
    first = api.admin.merge(own_lease, {"metadata": {"labels": {"step": "1"}}}).done()
    second = api.admin.merge(own_lease, {"metadata": {"labels": {"step": "2"}}}).done()
    with api.admin.watch(api.leases, fieldSelector=of(own_lease), resourceVersion=first.revision) as events:
        event = next(events)
        assert (event["type"], event["object"]["metadata"]["resourceVersion"]) == ("MODIFIED", second.revision)


def test_a_write_that_changes_nothing_is_not_told(api: Api, own_lease: str) -> None:
    start = api.admin.get(own_lease).revision
    with api.admin.watch(api.leases, fieldSelector=of(own_lease), resourceVersion=start) as events:
        api.admin.merge(own_lease, {"spec": {"holderIdentity": "node-1"}}).done()
        made = api.admin.merge(own_lease, {"spec": {"holderIdentity": "node-2"}}).done()
        assert next(events)["object"]["metadata"]["resourceVersion"] == made.revision


def test_a_watch_is_of_its_own_object_only(api: Api, own_lease: str) -> None:
    start = api.admin.get(own_lease).revision
    with api.admin.watch(api.leases, fieldSelector=of(own_lease), resourceVersion=start) as events:
        other = f"{api.leases}/{unique()}"
        api.admin.update(other, {"metadata": {"name": other.rpartition("/")[2]}}).done(201)
        api.admin.delete(other).done()
        made = api.admin.merge(own_lease, {"spec": {"holderIdentity": "node-2"}}).done()
        assert next(events)["object"]["metadata"]["resourceVersion"] == made.revision


def test_what_no_longer_matches_is_deleted_for_the_watch(api: Api, own_lease: str) -> None:
    name = unique()
    with api.admin.watch(api.leases, labelSelector=f"only={name}", resourceVersion="0") as events:
        api.admin.merge(own_lease, {"metadata": {"labels": {"only": name}}}).done()
        assert next(events)["type"] == "ADDED"
        made = api.admin.merge(own_lease, {"metadata": {"labels": {"only": "other"}}}).done()
        event = next(events)
        assert (event["type"], event["object"]["metadata"]["labels"]) == ("DELETED", {"only": name})
        assert event["object"]["metadata"]["resourceVersion"] == made.revision


def test_a_version_that_is_too_old_is_an_error_in_the_stream(api: Api, own_lease: str) -> None:
    if api.standin is not None:
        api.standin.compact("leases")
    with api.admin.watch(api.leases, resourceVersion="1", timeoutSeconds="1") as events:
        first = next(events, {"type": "none"})
        if first["type"] != "ERROR" and api.standin is None:
            pytest.skip("this cluster still has its whole history")
        assert first["type"] == "ERROR"
        status = first["object"]
        assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
        assert status["message"].startswith("too old resource version: 1 (")
        assert next(events, None) is None


def test_a_watch_ends_after_its_time(api: Api, own_lease: str) -> None:
    start = api.admin.get(own_lease).revision
    with api.admin.watch(api.leases, fieldSelector=of(own_lease), resourceVersion=start, timeoutSeconds="1") as events:
        assert list(events) == []


def test_a_bookmark_comes_before_the_end(api: Api, own_lease: str) -> None:
    start = api.admin.get(own_lease).revision
    query = {"resourceVersion": start, "allowWatchBookmarks": "true", "timeoutSeconds": "8"}
    with api.admin.watch(api.leases, fieldSelector=of(own_lease), **query) as events:
        told = list(events)
    assert {event["type"] for event in told} == {"BOOKMARK"}
    meta = told[-1]["object"]["metadata"]
    assert int(meta.pop("resourceVersion")) >= int(start)
    assert not meta.get("name")
    assert told[-1]["object"]["kind"] == "Lease"


@pytest.mark.parametrize("asked", [{}, {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}])
def test_a_bookmark_marks_the_end_of_what_there_is(api: Api, own_lease: str, asked: dict[str, str]) -> None:
    query = {"allowWatchBookmarks": "true", **asked}
    with api.admin.watch(api.leases, fieldSelector=of(own_lease), **query) as events:
        assert next(events)["type"] == "ADDED"
        mark = next(events)
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_list_has_a_version_and_items_without_their_kind(api: Api, own_lease: str) -> None:
    found = api.admin.get(api.leases, fieldSelector=of(own_lease)).done().body
    assert (found["kind"], found["apiVersion"]) == ("LeaseList", "coordination.k8s.io/v1")
    assert int(found["metadata"]["resourceVersion"]) >= int(found["items"][0]["metadata"]["resourceVersion"])
    assert [item["metadata"]["name"] for item in found["items"]] == [own_lease.rpartition("/")[2]]
    assert "kind" not in found["items"][0]


def test_a_list_is_chosen_by_labels(api: Api, own_lease: str) -> None:
    name = unique()
    api.admin.merge(own_lease, {"metadata": {"labels": {"only": name, "other": "1"}}}).done()
    for selector in (f"only={name}", f"only in ({name},x)", f"only={name},other", f"only={name},other!=2,!none"):
        assert len(api.admin.get(api.leases, labelSelector=selector).done().body["items"]) == 1, selector
    for selector in (f"only!={name}", f"only={name},!other", f"only={name},other notin (1)"):
        assert api.admin.get(api.leases, labelSelector=selector).done().body["items"] == [], selector


def test_a_list_comes_in_pages_of_one_version(api: Api) -> None:
    mark = unique()
    paths = [f"{api.leases}/{unique()}" for _ in range(3)]
    for path in paths:
        api.admin.update(path, {"metadata": {"name": path.rpartition("/")[2], "labels": {"page": mark}}}).done(201)
    first = api.admin.get(api.leases, labelSelector=f"page={mark}", limit="2").done().body
    assert len(first["items"]) == 2
    for path in paths:
        api.admin.delete(path).done()
    token = first["metadata"]["continue"]
    second = api.admin.get(api.leases, labelSelector=f"page={mark}", limit="2", **{"continue": token}).done().body
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    names = sorted(item["metadata"]["name"] for item in (*first["items"], *second["items"]))
    assert names == sorted(path.rpartition("/")[2] for path in paths)


def test_pods_are_found_by_their_node(api: Api) -> None:
    assert api.admin.get("/api/v1/pods", fieldSelector=f"spec.nodeName={unique()}").done().body["items"] == []
    refused = api.admin.get("/api/v1/pods", fieldSelector="spec.image=x")
    refused.refused(400, "BadRequest", "field label not supported: spec.image")


def test_a_version_from_the_future_times_out(api: Api, own_lease: str) -> None:
    refused = api.admin.get(own_lease, resourceVersion="999999999999")
    details = refused.refused(504, "Timeout", "Too large resource version: 999999999999, current: ")
    assert details["causes"][0]["reason"] == "ResourceVersionTooLarge"
