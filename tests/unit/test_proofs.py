"""What a canary's failure does to a proof: one that may pass makes a doubt, any other one and the second end it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent import proofs as module
from agent import settings, state
from agent.cri.daemon import Daemon
from agent.cri.handler import Handler
from agent.errors import KatanodeError
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.node import Node
from agent.proofs import Proofs, Subject, words
from agent.reasons import CATALOGUE, Reason, Severity
from agent.reconcile import report
from agent.sandboxes.canary import CanaryError, Proof

if TYPE_CHECKING:
    from pathlib import Path

    from agent.state import State

CLH, QEMU = "kata-clh", "kata-qemu"
DAEMON = Daemon("/run/c.sock", 1, "/usr/bin/containerd", "/etc/containerd/config.toml", "containerd", "", "2.1.9")
SLOW = CanaryError(Reason.CANARY_TIMED_OUT, "a sandbox does not start", evidence="Deadline Exceeded", passing=True)
BROKEN = CanaryError(Reason.CANARY_GUEST_FILES, "a sandbox does not start", evidence='image "/x.img" is empty')


class Bench:
    """A node on which canaries do what they are told to.

    Attributes:
        fails: handler to what its canary raises.
        tried: the canaries so far.
    """

    def __init__(self, root: Path) -> None:
        self.fails: dict[str, KatanodeError] = {}
        self.tried: list[tuple[str, bool]] = []
        self.file = root / "state.json"
        self.node = Node(
            HostRoot(root),
            Runner(),
            settings.Settings(),
            lambda _: None,
            lambda *_: None,
            tried=lambda handler, started: self.tried.append((handler, started)),
        )

    def prove(self, _client: object, handler: str, *_: object) -> Proof:
        if handler in self.fails:
            raise self.fails[handler]
        return Proof(handler, 0.25, "/shim", "/vmm", {"vmm": 20 << 20, "shim": 8 << 20}, own_kernel=True)

    def proofs(self, content: bytes = b"1") -> Proofs:
        """Those of a new run, which knows what the one before kept."""
        subjects = [Subject(Handler(name, "type", "/shim", "/conf"), "/shim", {"f": content}) for name in (CLH, QEMU)]
        made = Proofs(self.node, DAEMON, subjects)
        made.recall(self.kept)
        return made

    def keep(self, made: Proofs) -> None:
        state.save(self.file, replace(self.kept, proofs=made.held, failed=made.failed))

    @property
    def kept(self) -> State:
        return state.load(self.file)

    def renewed(self, *names: str) -> Proofs:
        made = self.proofs()
        made.renew(names or (CLH, QEMU))
        self.keep(made)
        return made


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("this boot\n")
    made = Bench(tmp_path)
    monkeypatch.setattr(module.canary, "prove", made.prove)
    monkeypatch.setattr(module, "Client", lambda _socket: contextlib.nullcontext())
    proofs = made.proofs()
    proofs.make((CLH, QEMU))
    made.keep(proofs)
    return made


def ready(made: Proofs) -> set[str]:
    return {handler.name for handler in report(made.node, None, made, ()).handlers if handler.ready}


def test_a_renewed_proof_is_a_new_one(bench: Bench) -> None:
    before = bench.kept.proofs[CLH]
    made = bench.renewed()
    assert bench.kept.proofs[CLH]["at"] > before["at"]
    assert made.findings() == ()
    assert bench.tried == [(CLH, True), (QEMU, True)] * 2


def test_a_failure_that_may_pass_leaves_the_proof_in_doubt_and_says_so(bench: Bench) -> None:
    bench.fails[CLH] = SLOW
    made = bench.renewed()
    assert ready(made) == {CLH, QEMU}
    assert made.doubted == (CLH,)
    (finding,) = made.findings()
    assert (finding.reason, finding.severity, finding.handlers) == (Reason.CANARY_TIMED_OUT, Severity.WARNING, (CLH,))
    assert "Deadline Exceeded" in finding.evidence
    assert finding.remedy == CATALOGUE[Reason.CANARY_TIMED_OUT].remedy


def test_the_second_failure_takes_the_proof_whatever_it_is_and_whoever_remembers(bench: Bench) -> None:
    bench.fails[CLH] = SLOW
    bench.renewed()
    assert bench.proofs().doubted == (CLH,), "an agent that died meanwhile has not forgotten"
    made = bench.renewed(CLH)
    assert ready(made) == {QEMU}
    assert CLH not in bench.kept.proofs
    assert bench.proofs().missing((CLH, QEMU)) == (CLH,)


def test_a_success_settles_the_doubt(bench: Bench) -> None:
    bench.fails[CLH] = SLOW
    bench.renewed()
    del bench.fails[CLH]
    made = bench.renewed(CLH)
    assert (made.doubted, made.findings(), bench.kept.failed) == ((), (), {})
    bench.fails[CLH] = SLOW
    assert ready(bench.renewed()) == {CLH, QEMU}, "the next failure is a first one again"


def test_a_failure_that_stays_takes_the_proof_at_once(bench: Bench) -> None:
    bench.fails[QEMU] = BROKEN
    made = bench.renewed()
    assert ready(made) == {CLH}
    (finding,) = made.findings()
    assert (finding.reason, finding.severity) == (Reason.CANARY_GUEST_FILES, Severity.ERROR)


def test_looks_that_start_nothing_know_why_a_handler_has_no_proof(bench: Bench) -> None:
    bench.fails[QEMU] = BROKEN
    bench.renewed()
    handler = next(h for h in report(bench.node, None, bench.proofs(), ()).handlers if h.name == QEMU)
    (finding,) = handler.obstacles
    assert finding.reason is Reason.CANARY_GUEST_FILES
    assert 'image "/x.img" is empty' in finding.evidence
    assert " UTC" in finding.evidence, "it is said when that was"


def test_a_reason_that_is_a_warning_elsewhere_keeps_a_handler_from_being_ready(bench: Bench) -> None:
    bench.fails[CLH] = CanaryError(Reason.SHM_SMALL, "a sandbox does not start", evidence="")
    assert ready(bench.renewed()) == {QEMU}


def test_before_a_first_proof_there_is_nothing_to_be_spared(bench: Bench) -> None:
    bench.fails[CLH] = SLOW
    made = bench.proofs()
    made.make((CLH,))
    assert ready(made) == {QEMU}
    with pytest.raises(KatanodeError) as error:
        made.verdict((CLH,))
    assert error.value.reason is Reason.CANARY_TIMED_OUT


def test_what_failed_of_another_configuration_is_no_doubt_about_this_one(bench: Bench) -> None:
    bench.fails[CLH] = SLOW
    bench.renewed()
    changed = bench.proofs(b"2")
    assert (changed.held, changed.failed, changed.doubted) == ({}, {}, ())
    assert changed.unproved(CLH).reason is Reason.CANARY_NOT_RUN


def test_a_memory_of_another_version_is_understood(bench: Bench) -> None:
    raw = json.loads(bench.file.read_text())
    for proof in raw["proofs"].values():
        for key in ("at", "memory", "own_kernel"):
            del proof[key]
    digests = {name: proof["digest"] for name, proof in raw["proofs"].items()}
    raw["failed"] = {
        CLH: {"digest": digests[CLH], "at": 1.0, "evidence": "", "reason": "NobodyKnowsThis"},
        QEMU: {"digest": digests[QEMU], "reason": "CanaryTimedOut"},
    }
    bench.file.write_text(json.dumps(raw))
    made = bench.proofs()
    assert set(made.held) == {CLH, QEMU}
    assert made.findings() == ()
    assert words(made.held[CLH]) == "in 0.25 s; its VM was held by /vmm; the guest's kernel was not told of"


def test_a_proof_says_what_it_saw(bench: Bench) -> None:
    assert words(bench.kept.proofs[CLH]) == (
        "in 0.25 s; its VM was held by /vmm; 28 MiB (shim 8, vmm 20); the guest's kernel is another than the host's"
    )


def test_the_time_of_the_last_success_outlives_the_proof(bench: Bench) -> None:
    at = bench.kept.proofs[CLH]["at"]
    bench.fails[CLH] = BROKEN
    bench.renewed(CLH)
    bench.renewed(CLH)
    assert bench.kept.failed[CLH]["proved"] == at
