"""The status page: what it says, that it is valid, and that nothing foreign becomes part of it."""

import base64
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from xml.etree.ElementTree import Element

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import bounded
from agent.page import FINDINGS_LIMIT, HEADERS, Failure, Look, View, Wait, page
from agent.page_parts import duration, relative
from agent.page_style import STYLE
from agent.reasons import CATALOGUE, Reason, Severity
from agent.report import Finding, HandlerReport, Report, State, bad, ok

NOW = 1_795_521_303.0  # 2026-11-24T11:55:03Z
HOSTILE = (
    "</pre></article></body><script>document.title='taken'</script><img src=x onerror=alert(1)>"
    "\"' style='position:fixed' <style>*{display:none}</style> <!-- ]]> &lt;b&gt; &#60;i&#62; javascript:alert(1)"
)

VSOCK = bad("vhost-vsock answers", Reason.VHOST_VSOCK_BUSY, "Device or resource busy", handlers=("kata-qemu",))
WELL = (ok("KVM runs guest instructions", "API version 12"), ok("kernel", "6.1.0"))
DEGRADED = Report(
    (
        WELL[0],
        bad("permissions of /dev/kvm", Reason.KVM_PERMISSIONS_LOOSE, "crw-rw-rw-"),
        bad("/dev/shm", Reason.SHM_SMALL, "64 MB"),
        VSOCK,
        WELL[1],
    ),
    (HandlerReport("kata-clh", ready=True), HandlerReport("kata-qemu", ready=False, obstacles=(VSOCK,))),
    State.DEGRADED,
    "4.1.0",
)
FULL = View(
    node="node-17",
    version="0.1.0",
    now=NOW,
    report=DEGRADED.as_json(),
    release="4.1.0-3dc6b69c",
    look=Look(NOW - 190, 2.34, "rolled_back"),
    working_since=NOW - 42,
    step="release 4.1.0: 412 of 969 MB",
    next_look=NOW + 98,
    waits=(Wait("a restart slot", NOW - 75, "katanode-restart-0 is held by node-9"),),
    failure=Failure(NOW - 60, Reason.CLUSTER_UNREACHABLE, "the API is away", "Connection refused"),
    published=NOW - 3700,
)
FRESH = View(node="node-17", version="0.1.0", now=NOW)


def of(*findings: Finding) -> View:
    handlers = (HandlerReport("kata-clh", ready=False, obstacles=tuple(f for f in findings if f.reason)),)
    return replace(FRESH, report=Report(findings, handlers, State.BLOCKED).as_json())


def parsed(text: str) -> Element:
    """The page as a browser's parser reads it; any error of syntax or nesting fails."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


def words(element: Element) -> str:
    """What is read, with a space where one element follows another."""
    return " ".join(" ".join(element.itertext()).split())


def text_of(view: View) -> str:
    body = parsed(page(view)).find("body")
    assert body is not None
    return words(body)


def elements(root: Element) -> Iterator[Element]:
    return (e for e in root.iter() if isinstance(e.tag, str))


@pytest.mark.parametrize("state", State)
def test_the_page_is_valid_and_says_the_state_large(state: State) -> None:
    tree = parsed(page(replace(FULL, report={**DEGRADED.as_json(), "state": str(state)})))
    assert words(tree.find(".//p[@class='state']")) == state
    assert words(tree.find(".//title")) == f"{state}: node-17"
    assert tree.get("lang") == "en"
    assert tree.find(".//meta[@name='viewport']").get("content") == "width=device-width, initial-scale=1"


def test_before_the_first_look_it_says_so() -> None:
    said = text_of(FRESH)
    assert "starting" in said
    assert "The first look at this node has not ended yet." in said
    assert "It has just started." in said


def test_versions_and_the_release_are_named() -> None:
    said = text_of(FULL)
    assert "Kata Containers 4.1.0 · release 4.1.0-3dc6b69c" in said
    assert "katanode 0.1.0" in said


def test_the_note_of_the_run_is_shown_with_its_commands_as_code() -> None:
    note = "The release is kept; `katanode apply` goes on."
    tree = parsed(page(replace(FULL, report={**DEGRADED.as_json(), "note": note})))
    assert "katanode apply" in {words(code) for code in tree.iter("code")}


def test_findings_come_worst_first_and_those_that_are_well_are_folded() -> None:
    tree = parsed(page(FULL))
    assert [a.get("id") for a in tree.iter("article")] == [
        Reason.VHOST_VSOCK_BUSY,
        Reason.SHM_SMALL,
        Reason.KVM_PERMISSIONS_LOOSE,
    ]
    folded = tree.find(".//details")
    assert folded.get("open") is None
    assert words(folded.find("summary")) == "2 checks passed"
    assert "KVM runs guest instructions API version 12" in words(folded)
    assert "1 problem, 1 warning, 1 note" in text_of(FULL)


def test_a_node_in_order_says_that_nothing_stands_in_the_way() -> None:
    assert "Nothing stands in the way" in text_of(of(*WELL))


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_shown_with_its_title_evidence_and_remedy(reason: Reason) -> None:
    tree = parsed(page(of(bad("a check", reason, "the evidence"))))
    said = words(tree.find(f".//article[@id='{reason}']"))
    assert CATALOGUE[reason].title in said
    assert f"{reason} · a check" in said
    assert "the evidence" in said
    assert "".join(tree.find(".//p[@class='remedy']").itertext()) == CATALOGUE[reason].remedy.replace("`", "")


def test_a_handler_names_its_reasons_and_each_leads_to_its_finding() -> None:
    again = replace(VSOCK, check="once more", handlers=("kata-fc",))
    report = replace(DEGRADED, findings=(*DEGRADED.findings, again))
    tree = parsed(page(replace(FULL, report=report.as_json())))
    rows = [words(row) for row in tree.findall(".//section[@class='handlers']//li")]
    assert rows == ["✓ kata-clh ready", "✗ kata-qemu not ready VhostVsockBusy"]
    ids = Counter(e.get("id") for e in elements(tree) if e.get("id"))
    assert set(ids.values()) == {1}, ids
    links = {a.get("href") for a in tree.iter("a")}
    assert links == {"#VhostVsockBusy", "metrics", "healthz", "readyz"}


def test_a_reason_without_a_finding_of_its_own_leads_nowhere() -> None:
    report = replace(DEGRADED, findings=WELL)
    tree = parsed(page(replace(FULL, report=report.as_json())))
    assert "VhostVsockBusy" in words(tree)
    assert not [a for a in tree.iter("a") if a.get("href").startswith("#")]


def test_what_the_agent_is_at_is_said_with_times_both_ways() -> None:
    said = text_of(FULL)
    for sentence in (
        "Waiting for a restart slot for 1 min 15 s, since 2026-11-24T11:53:48Z katanode-restart-0 is held by node-9",
        "At work now release 4.1.0: 412 of 969 MB",
        "for 42 s, since 2026-11-24T11:54:21Z",
        "Last failure the API is away",
        f"Connection refused {CATALOGUE[Reason.CLUSTER_UNREACHABLE].remedy}",
        "Last look at the node 3 min 10 s ago 2026-11-24T11:51:53Z",
        "took 2.3 s: a change failed and was undone",
        "Next look in 1 min 38 s 2026-11-24T11:56:41Z",
        "Last told to the cluster 1 h 1 min ago 2026-11-24T10:53:23Z",
        "as of 2026-11-24T11:55:03Z",
    ):
        assert sentence in said, sentence


def test_a_failure_with_a_remedy_of_its_own_shows_that_one() -> None:
    view = replace(FULL, failure=replace(FULL.failure, remedy="Open port 6443."))
    assert "Open port 6443." in text_of(view)
    assert CATALOGUE[Reason.CLUSTER_UNREACHABLE].remedy not in text_of(view)


def test_a_look_that_does_not_come_is_called_overdue() -> None:
    late = replace(FULL, next_look=NOW - 500)
    assert "overdue" not in text_of(late), "it is at work"
    assert "Next look 8 min 20 s ago 2026-11-24T11:46:43Z overdue" in text_of(replace(late, working_since=None))
    assert "overdue" not in text_of(replace(late, working_since=None, next_look=NOW - 30)), "timers have some play"


def everywhere(foreign: str) -> View:
    """A view that has the same foreign text wherever text can come from outside."""
    finding = replace(VSOCK, check=foreign, evidence=foreign, remedy=foreign, handlers=(foreign,))
    report = Report(
        (finding, Finding(foreign, Severity.OK, foreign)),
        (HandlerReport(foreign, ready=False, obstacles=(finding,)),),
        State.BLOCKED,
        foreign,
        foreign,
    ).as_json()
    report["handlers"][0]["reasons"] = [foreign]  # type: ignore[index]
    report["findings"][0]["reason"] = foreign  # type: ignore[index]
    return View(
        node=foreign,
        version=foreign,
        now=NOW,
        report=report,
        release=foreign,
        look=Look(NOW, 1, "changed"),
        working_since=NOW,
        step=foreign,
        waits=(Wait(foreign, NOW, foreign),),
        failure=Failure(NOW, Reason.INTERNAL_ERROR, foreign, foreign, foreign),
    )


def skeleton(view: View) -> list[tuple[str, dict[str, str]]]:
    """Every element with its attributes: all of the page but its text."""
    return [(e.tag, dict(e.attrib)) for e in elements(parsed(page(view))) if e.tag != "code"]


@functools.cache
def harmless() -> list[tuple[str, dict[str, str]]]:
    return skeleton(everywhere("harmless"))


def test_hostile_text_stays_text() -> None:
    assert skeleton(everywhere(HOSTILE)) == harmless()
    evidence = [pre.text for pre in parsed(page(everywhere(HOSTILE))).iter("pre")]
    assert evidence == [HOSTILE] * 3


@given(st.text(min_size=1).filter(lambda text: bool(bounded(text)) and text not in set(Reason)))
def test_no_text_at_all_changes_the_page_around_it(foreign: str) -> None:
    assert skeleton(everywhere(foreign)) == harmless()


def test_control_and_direction_characters_are_made_visible() -> None:
    foreign = "a\x00b\x1b[31mc\u202ed\ud800e\r\n\u2028f"
    shown = page(of(bad("a check", Reason.CONFIG_REFUSED, foreign)))
    assert r"a\x00b\x1b[31mc\x202ed\xd800e\x0d" in shown
    assert not set(foreign) - set("abcdef[31m\n") & set(shown)
    shown.encode()  # a lone surrogate would not pass


def test_however_much_is_found_the_page_stays_small_and_says_what_it_left_out() -> None:
    huge = Finding("c" * 10**6, Severity.ERROR, "'\n" * 10**4, Reason.CONFIG_REFUSED, "r" * 10**4)
    good = replace(huge, severity=Severity.OK, reason=None)
    report = Report((*[huge] * 5000, *[good] * 5000), (), State.BLOCKED).as_json()
    made = page(replace(FRESH, report=report))
    assert len(made.encode()) < 4 << 20
    assert f"{10000 - 2 * FINDINGS_LIMIT} more are left out here" in words(parsed(made))
    assert "5000 problems" in made
    assert "5000 checks passed" in made


def test_the_usual_page_is_light() -> None:
    assert len(page(FULL).encode()) < 10_000


def header(name: str) -> str:
    return dict(HEADERS)[name]


def test_the_policy_allows_this_style_and_nothing_else() -> None:
    policy = header("Content-Security-Policy")
    (style,) = re.findall(r"<style>(.*?)</style>", page(FULL), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ")[:3] == ["default-src 'none'", f"style-src 'sha256-{digest}'", "img-src data:"]
    for directive in ("base-uri", "form-action", "frame-ancestors"):  # these do not fall back to default-src
        assert f"{directive} 'none'" in policy
    assert header("X-Content-Type-Options") == "nosniff"
    assert header("Content-Type") == "text/html; charset=utf-8"
    assert header("Cache-Control") == "no-store"


def test_the_page_needs_nothing_from_outside() -> None:
    tree = parsed(page(FULL))
    used = {e.tag for e in elements(tree)}
    assert not used & {"script", "iframe", "object", "embed", "form", "img", "base"}
    for element in elements(tree):
        assert "style" not in element.attrib
        assert not [key for key in element.attrib if key.startswith("on")]
    (icon,) = tree.iter("link")
    assert icon.get("href").startswith("data:image/svg+xml,")
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def palette(block: str) -> dict[str, str]:
    colours = dict(re.findall(r"--(\w+):(#[0-9a-f]{3,6})", block))
    return {k: v if len(v) == 7 else "#" + "".join(2 * c for c in v[1:]) for k, v in colours.items()}


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_colour_can_be_read_on_its_ground(mode: str) -> None:
    light, dark = STYLE.split("@media(prefers-color-scheme:dark)")
    colours = palette(light if mode == "light" else dark.split("}}")[0])
    assert len(colours) == 11
    for ground in ("bg", "card", "code"):
        for ink in ("fg", "dim", "good", "warning", "error", "info", "none"):
            low, high = sorted((luminance(colours[ground]), luminance(colours[ink])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


@pytest.mark.parametrize(
    ("seconds", "words_"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (0.04, "0 s"),
        (0.41, "0.4 s"),
        (2, "2 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (75, "1 min 15 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (93784, "1 d 2 h"),
    ],
)
def test_a_length_of_time_has_its_two_largest_units(seconds: float, words_: str) -> None:
    assert duration(seconds) == words_


def test_a_moment_is_told_from_now() -> None:
    assert relative(NOW, NOW + 0.3) == "just now"
    assert relative(NOW - 75, NOW) == "1 min 15 s ago"
    assert relative(NOW + 12, NOW) == "in 12 s"
