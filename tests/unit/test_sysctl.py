from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.errors import KatanodeError
from agent.host import sysctl
from agent.host.process import Completed, Runner
from agent.host.root import HostRoot
from agent.host.sysctl import Sysctls
from agent.reasons import Reason


class NoRunner(Runner):
    def run(self, argv: Sequence[str], **_: object) -> Completed:
        raise AssertionError(argv)


@dataclass(frozen=True)
class Netns(Runner):
    """The host's network namespace: what cat and sysctl see there."""

    values: dict[str, str] = field(default_factory=dict)

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        if argv[0] == "cat":
            value = self.values.get(argv[1])
            if value is None:
                return Completed(tuple(argv), 1, b"", b"cat: x: No such file or directory")
            return Completed(tuple(argv), 0, value.encode(), b"")
        key, new = argv[2].split("=")
        self.values["/proc/sys/" + key.replace(".", "/")] = new + "\n"
        return Completed(tuple(argv), 0, b"", b"")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    for key, value in {
        "fs/inotify/max_user_watches": "8192",
        "vm/max_map_count": "65530",
        "kernel/x": "1\t2\t3",
    }.items():
        (tmp_path / "proc/sys" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/sys" / key).write_text(value + "\n")
    return tmp_path


def test_only_lower_values_are_raised() -> None:
    plan = sysctl.plan({"a.b": 1, "c.d": 9, "e.f": 5}, {"a.b": 5, "c.d": 5, "e.f": 5})
    assert plan.raises == {"a.b": 5}
    assert plan.unknown == ()


def test_a_key_that_the_kernel_does_not_have_is_passed_over_and_named() -> None:
    plan = sysctl.plan({"a.b": None}, {"a.b": 5, "never.read": 1})
    assert plan.raises == {}
    assert plan.unknown == ("a.b", "never.read")


def test_the_file_holds_what_is_raised_and_nothing_else() -> None:
    content = sysctl.desired_file({"a.b": 1, "c.d": 9}, {"c.d": 5, "a.b": 5, "no.such": 1})
    assert content == b"# katanode: raised for Kata Containers\na.b = 5\n"


def test_no_file_is_wanted_where_nothing_is_raised() -> None:
    assert sysctl.desired_file({"c.d": 9}, {"c.d": 5}) == b""


def test_the_file_does_not_lower_what_another_file_sets_higher() -> None:
    assert sysctl.desired_file({"a.b": 1}, {"a.b": 5}, {"a.b": 7}) == b""


def test_other_files_of_the_node_are_read_and_katanodes_own_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "etc/sysctl.d"
    folder.mkdir(parents=True)
    (folder / "10-a.conf").write_text("# a.b = 100\na.b=3\n-net/core/x = 4\nwords = yes\n")
    (folder / "99-katanode.conf").write_text("a.b = 50\n")
    (folder / "README").write_text("a.b = 70\n")
    (tmp_path / "etc/sysctl.conf").write_text("a.b = 2\n")
    assert sysctl.configured(HostRoot(tmp_path)) == {"a.b": 3, "net.core.x": 4}


def test_a_value_is_read_and_raised(node: Path) -> None:
    here = Sysctls(HostRoot(node), NoRunner())
    assert here.raise_to("fs.inotify.max_user_watches", 524288)
    assert here.read("fs.inotify.max_user_watches") == 524288


def test_a_value_that_is_high_enough_is_left_alone(node: Path) -> None:
    here = Sysctls(HostRoot(node), NoRunner())
    assert not here.raise_to("vm.max_map_count", 65530)
    assert here.read("vm.max_map_count") == 65530


def test_what_is_missing_or_no_number_reads_as_none(node: Path) -> None:
    here = Sysctls(HostRoot(node), NoRunner())
    assert here.read_all(["vm.no_such", "kernel.x", "vm.max_map_count"]) == {
        "vm.no_such": None,
        "kernel.x": None,
        "vm.max_map_count": 65530,
    }


def test_a_missing_key_cannot_be_raised(node: Path) -> None:
    with pytest.raises(KatanodeError) as caught:
        Sysctls(HostRoot(node), NoRunner()).raise_to("vm.no_such", 1)
    assert caught.value.reason is Reason.SYSCTL_FAILED


def test_a_kernel_that_does_not_keep_the_value_is_found_out(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sysctls, "_write", lambda *_: None)
    with pytest.raises(KatanodeError, match="was set to 99999 and is 65530"):
        Sysctls(HostRoot(node), NoRunner()).raise_to("vm.max_map_count", 99999)


def test_from_a_pod_network_keys_are_the_hosts_not_the_pods(node: Path) -> None:
    runner = Netns(values={"/proc/sys/net/core/somaxconn": "4096\n"})
    here = Sysctls(HostRoot(node), runner)
    assert here.read("net.core.somaxconn") == 4096
    assert here.raise_to("net.core.somaxconn", 32768)
    assert here.read("net.core.somaxconn") == 32768
    assert here.read("net.no.such") is None


def test_the_old_values_come_back(node: Path) -> None:
    here = Sysctls(HostRoot(node), NoRunner())
    before = {"vm.max_map_count": 65530}
    here.raise_to("vm.max_map_count", 262144)
    assert here.restore(before, {"vm.max_map_count": 262144}) == ()
    assert here.read("vm.max_map_count") == 65530


def test_a_value_that_somebody_changed_since_is_not_set_back(node: Path) -> None:
    here = Sysctls(HostRoot(node), NoRunner())
    here.raise_to("vm.max_map_count", 300000)
    here.restore({"vm.max_map_count": 65530}, {"vm.max_map_count": 262144})
    assert here.read("vm.max_map_count") == 300000


def test_setting_back_goes_on_after_a_failure(node: Path) -> None:
    class Broken(Runner):
        def run(self, argv: Sequence[str], **_: object) -> Completed:
            raise KatanodeError(Reason.SYSCTL_FAILED, "no nsenter")

    here = Sysctls(HostRoot(node), Broken())
    here.raise_to("vm.max_map_count", 262144)
    failures = here.restore(
        {"net.core.somaxconn": 1, "vm.max_map_count": 65530}, {"net.core.somaxconn": 2, "vm.max_map_count": 262144}
    )
    assert [str(f) for f in failures] == ["no nsenter [SysctlFailed]"]
    assert here.read("vm.max_map_count") == 65530
