"""A bundle: whatever hangs or fails there is one, within its bounds, and nothing in it that was masked anywhere."""

import argparse
import base64
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agent import cli
from agent.bundle import archive, bundle, command, configuration, kata, logs, memory, piece
from agent.bundle.bundle import Bundle, assembled
from agent.bundle.gather import Part, gather
from agent.bundle.masking import Sweep, json_piece, text_piece, toml_piece
from agent.bundle.piece import Failure, Piece, within
from agent.bundle.scene import Scene, looked_up
from agent.cri.credentials import MARK
from agent.cri.daemon import Daemon
from agent.cri.journal import Entry, FileChange, Journal
from agent.errors import KatanodeError
from agent.host.process import Completed, Runner
from agent.host.root import HostRoot
from agent.node import Node
from agent.reasons import Reason
from agent.settings import Settings

SECRET = "s3cr3t-Hunter2"
AT = 1_790_000_000.0


class StandInRunner(Runner):
    """A stand-in: says what it was told to say, and notes what it was asked."""

    said: Mapping[str, bytes]
    asked: list[tuple[str, ...]]

    def run(self, argv: Sequence[str], *, check: bool = True, **_: object) -> Completed:
        self.asked.append(tuple(argv))
        if argv[0] not in self.said:
            raise KatanodeError(Reason.COMMAND_FAILED, f"{argv[0]} cannot be started")
        return Completed(tuple(argv), 0, self.said[argv[0]], b"")


def stand_in(**said: bytes) -> StandInRunner:
    runner = StandInRunner()
    object.__setattr__(runner, "said", said)
    object.__setattr__(runner, "asked", [])
    return runner


def scene(root: Path, runner: Runner | None = None, **more: object) -> Scene:
    node = Node(HostRoot(root), runner or stand_in(), Settings(), lambda _: None, lambda _a, _b, _c: None)
    made = Scene(node, root / "etc/katanode/katanode.toml")
    return replace(made, **more)  # type: ignore[arg-type]


def daemon(config: str = "/etc/containerd/config.toml", unit: str = "containerd.service") -> Daemon:
    return Daemon("/run/x.sock", 1, "/usr/bin/containerd", config, unit, "", "2.1.9")


def write(root: Path, path: str, content: str | bytes) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def texts(items: Sequence[Piece | Failure]) -> dict[str, str]:
    return {item.name: item.text if isinstance(item, Piece) else item.why for item in items}


# gathering


def good() -> Iterator[Piece | Failure]:
    yield Piece("good.txt", "good\n")


def late() -> Iterator[Piece | Failure]:
    yield Piece("late.txt", "before\n")
    time.sleep(60)
    yield Piece("never.txt", "")


def failing() -> Iterator[Piece | Failure]:
    yield Piece("failing.txt", "before\n")
    raise KatanodeError(Reason.FILE_READ_FAILED, "x cannot be read", evidence="EIO")


def faulty() -> Iterator[Piece | Failure]:
    yield from ()
    raise ValueError("oops")


def dying() -> Iterator[Piece | Failure]:
    yield Piece("dying.txt", "before\n")
    os.kill(os.getpid(), signal.SIGKILL)


def nothing() -> Iterator[Piece | Failure]:
    yield from ()


def big() -> Iterator[Piece | Failure]:
    yield Piece("big.txt", "x" * 3_000_000)


def test_what_fails_hangs_or_dies_costs_its_own_part_only_and_is_told() -> None:
    every = [late, failing, faulty, dying, nothing, big, good]
    began = time.monotonic()
    items = gather([Part(part.__name__, part, 0.5) for part in every], at_once=3, seconds=30)
    assert time.monotonic() - began < 10
    assert [item.name for item in items if isinstance(item, Piece)] == [
        *("late.txt", "failing.txt", "dying.txt", "big.txt", "good.txt")
    ]
    assert [item for item in items if isinstance(item, Failure)] == [
        Failure("late", "it did not end within 0.5 s"),
        Failure("failing", "x cannot be read [FileReadFailed]\nEIO"),
        Failure("faulty", "katanode's own fault: ValueError('oops')"),
        Failure("dying", "its process ended without an answer"),
    ]
    assert texts(items)["big.txt"] == "x" * 3_000_000
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_program_that_a_hanging_part_runs_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def waits_for_program() -> Iterator[Piece | Failure]:
        yield from ()
        Runner().run(("sh", "-c", f"echo $$ >{note}; exec sleep 60"), timeout=50)

    gather([Part("x", waits_for_program, 1.0)], at_once=1, seconds=30)
    pid = int(note.read_text())
    end = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_parts_that_find_no_time_left_are_named() -> None:
    items = gather([Part("late", late, 60), Part("good", good)], at_once=1, seconds=0.3)
    assert texts(items) == {
        "late.txt": "before\n",
        "late": "it did not end within 60 s",
        "good": "not tried: the parts before it took 0.3 s",
    }


# bounds


@given(
    st.lists(st.tuples(st.text("aä\n", max_size=400), st.sampled_from(["start", "end"])), max_size=8),
    st.integers(100, 400),
    st.integers(0, 1500),
)
def test_no_file_and_no_bundle_is_larger_than_its_bound_and_what_is_cut_says_so(
    made: list[tuple[str, str]], limit: int, total: int
) -> None:
    pieces = [Piece(str(number), text, keep=keep) for number, (text, keep) in enumerate(made)]  # type: ignore[arg-type]
    kept = within(pieces, limit, total)
    assert [item.name for item in kept] == [item.name for item in pieces]
    sizes = [item.size for item in kept if isinstance(item, Piece)]
    assert sum(sizes) <= max(total, 0)
    assert all(size <= limit for size in sizes)
    for was, now in zip(pieces, kept, strict=True):
        if isinstance(now, Failure):
            assert "the bundle is full" in now.why
        elif now != was:
            assert "are left out]" in now.text
            assert "are left out" in now.note
            inside = now.text.split("]\n", 1)[1] if was.keep == "end" else now.text.rpartition("\n[cut")[0]
            assert (was.text.endswith if was.keep == "end" else was.text.startswith)(inside)


def test_a_bundle_that_is_full_leaves_out_what_comes_last_and_says_so() -> None:
    items = [Piece("a", "a\n" * 200), Piece("b", "b\n" * 500, keep="end"), Piece("c", "c\n" * 500)]
    made = assembled("n", AT, items, piece_limit=500, total_limit=900)
    assert [(item.name, item.size <= 500, item.note[:4]) for item in made.pieces] == [
        ("a", True, ""),
        ("b", True, "cut:"),
    ]
    assert made.size <= 900
    assert [failure.why for failure in made.failures] == ["left out: the bundle is full (1 kB)"]
    assert "c: left out: the bundle is full (1 kB)" in made.words()


def test_a_log_keeps_its_end_and_is_cut_between_lines() -> None:
    lines = [f"line {number}" for number in range(100)]
    log = piece.cut(Piece("log", "\n".join(lines), keep="end"), 300)
    first, *rest = log.text.split("\n")
    assert first.startswith("[cut: the first ")
    assert rest == lines[-len(rest) :]
    assert log.note.startswith("cut: its first ")


def test_sizes_are_told_for_people() -> None:
    sizes = [0, 999, 1000, 12_345, 999_499, 3_400_000, 270_000_000_000, 5_000_000_000_000]
    assert [piece.human(size) for size in sizes] == [
        *("0 B", "999 B", "1 kB", "12 kB", "999 kB", "3.4 MB", "270.0 GB", "5000.0 GB")
    ]


# secrets


@given(
    st.from_regex(r"Zq7[^\ud800-\udfff]{4,30}9xK", fullmatch=True),
    st.sampled_from(["plain", "json", "json in json", "unicode json", "address", "base64", "auth"]),
)
def test_a_secret_of_one_part_is_in_no_other_however_it_is_written(secret: str, how: str) -> None:
    encoded = base64.b64encode(secret.encode()).decode()
    auth = base64.b64encode(f"robot:{secret}".encode()).decode()
    written = {
        "plain": secret,
        "json": json.dumps({"x": secret}),
        "json in json": json.dumps(json.dumps({"x": secret})),
        "unicode json": json.dumps({"x": secret}, ensure_ascii=False),
        "address": urllib.parse.quote(secret, safe=""),
        "base64": encoded,
        "auth": auth,
    }[how]
    document = f'[auth]\nusername = "robot"\npassword = {json.dumps(secret, ensure_ascii=False)}\n'
    known = toml_piece("config.toml", document.replace("\x7f", "\\u007f").encode())
    made = assembled("n", AT, [Piece("other.txt", f"seen: {written}\n"), known])
    for form in (secret, encoded, auth, json.dumps(secret)[1:-1]):
        assert all(form not in item.text for item in made.files())
    assert [item.masked > 0 for item in made.pieces] == [True, True]


def test_the_password_in_what_docker_calls_auth_is_looked_for_too() -> None:
    auth = base64.b64encode(f"robot:{SECRET}".encode()).decode()
    known = toml_piece("config.toml", f'auth = "{auth}"'.encode())
    made = assembled("n", AT, [known, Piece("log", f"pulled with {SECRET} by robot\n")])
    assert made.pieces[1].text == f"pulled with {MARK} by robot\n"


def test_what_stands_beside_a_secret_is_looked_for_nowhere_else() -> None:
    text = """\
        [x]
        username = "administrator"
        password_file = "/etc/registry/password"
        env = ["HOME=/root/elsewhere", "API_TOKEN=abcdefgh"]
        [x.auth]
        username = "administrator"
        enabled = true
        password = "swordfish"
    """
    basic = base64.b64encode(b"administrator:swordfish").decode()
    assert set(toml_piece("x", text.encode()).secrets) == {"abcdefgh", "swordfish", basic}


def test_so_many_secrets_that_a_search_would_not_end_are_told() -> None:
    many = Piece("a", "x", secrets=tuple(f"secret-{number:05}" for number in range(1000)))
    made = assembled("n", AT, [many, Piece("b", "secret-00000 secret-00999")])
    assert made.pieces[1].text == f"{MARK} secret-00999"
    assert [failure.name for failure in made.failures] == ["masking"]


def test_failures_and_notes_are_masked_as_well() -> None:
    known = toml_piece("config.toml", f'password = "{SECRET}"'.encode())
    failed = Failure("x", f"login as u:{SECRET} failed; https://u:other-Secret@host/")
    made = assembled("n", AT, [known, failed, Piece("y", "", note=f"{SECRET} seen")])
    assert SECRET not in made.words()
    assert "other-Secret" not in made.words()
    assert SECRET not in json.dumps(made.as_json())


def test_a_file_that_is_no_text_is_left_out_since_nothing_can_be_told_in_it(tmp_path: Path) -> None:
    write(tmp_path, "/etc/containerd/config.toml", f'password = "{SECRET}"'.encode("utf-16"))
    items = list(configuration.configuration(scene(tmp_path, daemon=daemon())))
    (failure,) = [item for item in items if isinstance(item, Failure)]
    assert failure.name == "containerd/etc/containerd/config.toml"
    assert "not text (byte 0 is no UTF-8)" in failure.why
    assert "begins with ff fe" in failure.why
    write(tmp_path, "/etc/containerd/config.toml", f'password = "{SECRET}"'.encode("utf-16-le"))
    made = texts(list(configuration.configuration(scene(tmp_path, daemon=daemon()))))
    assert "not text (it holds a NUL byte at 1)" in made["containerd/etc/containerd/config.toml"]


def test_a_tree_keeps_its_shape_and_loses_its_secrets() -> None:
    tree = {
        "argv": ["x", "--token", SECRET, "--verbose"],
        "auths": {"docker.io": {"auth": SECRET, "ok": True, "none": None, "n": 7}},
        "headers": {"X-A": [SECRET]},
        "evidence": f"line\npassword={SECRET}\nmore",
        "enable_auth": True,
        "plain": ["a", 1],
    }
    made = json_piece("x.json", tree)
    shown = json.loads(made.text)
    assert SECRET not in made.text
    assert shown["argv"] == ["x", "--token", MARK, "--verbose"]
    assert shown["auths"] == {"docker.io": {"auth": MARK, "ok": True, "none": None, "n": MARK}}
    assert shown["evidence"] == f"line\npassword={MARK}\nmore"
    assert (shown["enable_auth"], shown["plain"]) == (True, ["a", 1])
    assert made.masked == 5


def test_a_reader_s_terminal_is_left_alone_and_line_ends_are_told() -> None:
    made = assembled("n\x1b", AT, [Piece("a\n/../b", "x\x1b[2Jy\x00\udcff\n"), toml_piece("c", b"a = 1\r\nb = 2\r\n")])
    assert made.pieces[0].text == "x\\x1b[2Jy\\x00\\xdcff\n"
    assert made.pieces[0].name == "a_/b"
    assert made.pieces[1].text == "a = 1\nb = 2\n"
    assert made.pieces[1].note == "lines end in CRLF"
    assert "\x1b" not in made.name + made.index.text.replace("bundle of n\x1b", "")


# parts


def test_imports_are_followed_through_globs_others_imports_and_damage_and_each_file_comes_once(tmp_path: Path) -> None:
    write(tmp_path, "/etc/containerd/config.toml", 'imports = ["conf.d/*.toml", "/etc/x.toml", "gone.toml"]\n')
    write(tmp_path, "/etc/containerd/conf.d/b.toml", "b = 1\n")
    write(tmp_path, "/etc/containerd/conf.d/a.toml", 'imports = [\n  "../config.toml",\n  "../../y.toml"]\nbroken\n')
    write(tmp_path, "/etc/containerd/conf.d/not.conf", "")
    write(tmp_path, "/etc/x.toml", 'imports = "no list"\n')
    write(tmp_path, "/etc/y.toml", 'imports = ["/etc/s*/*.toml"]\ny = 1\n')
    write(tmp_path, "/etc/sub/z.toml", "")
    assert configuration.reach(HostRoot(tmp_path), "/etc/containerd/config.toml") == [
        "/etc/containerd/config.toml",
        "/etc/containerd/conf.d/a.toml",
        "/etc/containerd/conf.d/b.toml",
        "/etc/x.toml",
        "/etc/containerd/gone.toml",
        "/etc/y.toml",
        "/etc/sub/z.toml",
    ]
    made = texts(list(configuration.configuration(scene(tmp_path, daemon=daemon()))))
    assert made["containerd/etc/y.toml"].endswith("y = 1\n")
    assert "No such file" in made["containerd/etc/containerd/gone.toml"]
    assert "/etc/containerd/conf.d/not.conf" in made["containerd/folder.txt"]


def test_a_fifo_in_a_file_s_place_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "etc/containerd").mkdir(parents=True)
    os.mkfifo(tmp_path / "etc/containerd/config.toml")
    made = texts(list(configuration.configuration(scene(tmp_path, daemon=daemon()))))
    assert "no regular file: prw" in made["containerd/etc/containerd/config.toml"]


def test_a_file_that_is_too_long_is_cut_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "/etc/containerd/config.toml", "# a comment\n" * 100_000)
    items = list(configuration.configuration(scene(tmp_path, daemon=daemon())))
    config = next(item for item in items if item.name.endswith("config.toml"))
    assert isinstance(config, Piece)
    assert config.text.endswith("# a comment\n# [cut: the last 675720 bytes are left out]\n")
    assert config.note == "cut: its last 676 kB are left out"


def journal(root: Path, content: bytes | None) -> None:
    (root / "var/lib/katanode").mkdir(parents=True)
    files = (FileChange("/etc/containerd/config.toml", content, b"root = '/x'\n"),)
    Journal(root / "var/lib/katanode/journal.json").write(Entry(daemon(), files, (), (), {"id": "name"}))


def test_the_journal_s_files_are_shown_as_masked_lines_and_never_in_base64(tmp_path: Path) -> None:
    content = f'version = 2\npassword = """\n{SECRET}\n"""\n'.encode()
    journal(tmp_path, content)
    made = assembled("n", AT, list(memory.memory(scene(tmp_path))))
    shown = next(item for item in made.pieces if item.name == "katanode/journal.json")
    assert json.loads(shown.text)["files"][0]["before"] == [
        "version = 2",
        f'password = "{MARK}"',
        *[f"# {MARK}"] * 2,
        "",
    ]
    for data in (SECRET.encode(), base64.b64encode(content)[:40]):
        assert all(data not in item.text.encode() for item in made.files())


@pytest.mark.parametrize("damage", ["cut", "no text"])
def test_a_journal_that_cannot_be_read_is_described_and_not_shown(tmp_path: Path, damage: str) -> None:
    content = f'password = "{SECRET}"\n'
    journal(tmp_path, content.encode("utf-16" if damage == "no text" else "utf-8"))
    file = tmp_path / "var/lib/katanode/journal.json"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    made = assembled("n", AT, list(memory.memory(scene(tmp_path))))
    every = "".join(item.text for item in made.files())
    assert base64.b64encode(content.encode()).decode()[:30] not in every
    assert base64.b64encode(content.encode("utf-16")).decode()[:30] not in every
    assert ("left out, since it may hold credentials" if damage == "cut" else "not text") in every


def test_a_damaged_memory_is_shown_as_text(tmp_path: Path) -> None:
    write(tmp_path, "/var/lib/katanode/state.json", f'{{"release": "4.1.0", "token": "{SECRET}", ')
    write(tmp_path, "/var/lib/katanode/wish", "disabled")
    write(tmp_path, "/etc/modules-load.d/katanode.conf", "kvm\n")
    items = list(memory.memory(scene(tmp_path)))
    made = texts(items)
    assert made["katanode/state.json"] == f'{{"release": "4.1.0", "token": "{MARK}", '
    assert (made["katanode/wish"], made["katanode/etc/modules-load.d/katanode.conf"]) == ("disabled", "kvm\n")
    assert "damaged: no JSON" in [item.note for item in items if isinstance(item, Piece)]


def test_settings_that_are_refused_are_in_the_bundle_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, "/etc/katanode/katanode.toml", f'[kata]\nverzion = "4"\n[runtime]\nx_token = "{SECRET}"\n')
    items = list(memory.settings(scene(tmp_path, settings_problem="[kata] has no verzion")))
    made = texts(items)
    assert made["settings.toml"] == f'[kata]\nverzion = "4"\n[runtime]\nx_token = "{MARK}"\n'
    assert made["settings"].startswith("[kata] has no verzion")
    gone = texts(list(memory.settings(scene(tmp_path / "elsewhere"))))
    assert list(gone) == ["settings.toml"]
    assert gone["settings.toml"].startswith("# ")
    assert "all settings have their defaults" in gone["settings.toml"]


def test_each_handler_s_rendering_is_there_by_release_and_strays_are_seen(tmp_path: Path) -> None:
    home = "/etc/kata-containers/katanode/kata-clh"
    write(tmp_path, f"{home}/.4.1.0-abc.1234/configuration.toml", "[hypervisor.clh]\n")
    write(tmp_path, f"{home}/.4.1.0-abc.1234/config.d/10-x.toml", f'kernel_params = "proxy=http://u:{SECRET}@p"\n')
    (tmp_path / home.lstrip("/") / "4.1.0-abc").symlink_to(".4.1.0-abc.1234")
    (tmp_path / home.lstrip("/") / "configuration.toml").symlink_to("4.1.0-abc/configuration.toml")
    write(tmp_path, "/etc/kata-containers/configuration.toml", "# somebody's\n")
    assert texts(list(kata.kata(scene(tmp_path)))) == {
        "kata/configuration.toml": "# somebody's\n",
        "kata/kata-clh/4.1.0-abc/configuration.toml": "[hypervisor.clh]\n",
        "kata/kata-clh/4.1.0-abc/config.d/10-x.toml": f'kernel_params = "proxy=http://{MARK}@p"\n',
    }
    assert "nothing is installed" in texts(list(kata.kata(scene(tmp_path / "etc"))))["kata"]


def test_logs_are_bounded_asked_of_the_unit_that_runs_and_masked(tmp_path: Path) -> None:
    said = f'x level=info msg="pull" auth="{SECRET}"\n'.encode()
    runner = stand_in(journalctl=said, dmesg=b"[1] kvm: disabled by bios\n[2] eth0: up\n")
    at = scene(tmp_path, runner, daemon=daemon(unit="k3s.service"))
    (runtime,), (of_kata,), (kernel,) = (list(part(at)) for part in (logs.runtime_log, logs.kata_log, logs.kernel_log))
    assert isinstance(runtime, Piece)
    assert runtime.text == f'x level=info msg="pull" auth="{MARK}"\n'
    assert runner.asked[0][-2:] == ("--unit", "k3s.service")
    assert "--lines=2000" in runner.asked[0]
    assert "SYSLOG_IDENTIFIER=kata" in runner.asked[1]
    assert texts([of_kata, kernel])["logs/kernel.txt"] == "[1] kvm: disabled by bios\n"


def test_of_a_very_long_log_the_end_is_there_and_the_cut_is_told(tmp_path: Path) -> None:
    lines = "".join(f"{number} {'x' * 2000}\n" for number in range(2000))
    (log,) = logs.runtime_log(scene(tmp_path, stand_in(journalctl=lines.encode()), daemon=daemon()))
    (kept,) = assembled("n", AT, [log]).pieces
    assert kept.text.startswith("[cut: ")
    assert kept.text.endswith(lines[-4000:])
    assert 2_000_000 < kept.size <= piece.PIECE_LIMIT
    assert kept.note.startswith("the last 2000 lines; cut: ")


def test_without_a_unit_or_a_journal_that_is_said(tmp_path: Path) -> None:
    without_unit = scene(tmp_path, daemon=daemon(unit=""))
    assert "no systemd unit" in texts(list(logs.runtime_log(without_unit)))["logs/containerd.txt"]
    silent = scene(tmp_path, stand_in(journalctl=b""), daemon=daemon())
    assert texts(list(logs.runtime_log(silent))) == {"logs/containerd.txt": "the journal has no such line"}


def test_a_runtime_that_does_not_answer_is_looked_for_among_the_processes_and_at_known_places(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    write(tmp_path, "/proc/7/cmdline", b"containerd\0--config=/etc/own.toml\0")
    write(tmp_path, "/proc/7/cgroup", "0::/system.slice/own.service\n")
    (proc / "7/exe").symlink_to("/opt/own/containerd")
    (proc / "net").mkdir()
    runner = stand_in(**{"/opt/own/containerd": b"containerd github.com/containerd/containerd v1.7.24~ds1 abc\n"})
    found = looked_up(scene(tmp_path, runner), proc=proc)
    assert found.daemon == Daemon("", 7, "/opt/own/containerd", "/etc/own.toml", "own.service", "", "1.7.24~ds1")
    assert not found.answers
    assert "no CRI socket was found [RuntimeNotFound]" in found.trouble

    (proc / "7/exe").unlink()
    assert looked_up(scene(tmp_path), proc=proc).daemon is None
    write(tmp_path, "/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "version = 3\n")
    write(tmp_path, "/var/lib/rancher/k3s/data/current/bin/containerd", "")
    standing = looked_up(scene(tmp_path), proc=proc).daemon
    assert standing is not None
    assert (standing.unit, standing.version) == ("k3s.service", "")


# the archive


def example() -> Bundle:
    return assembled(
        "worker-1",
        AT,
        [
            text_piece("report.json", "{}\n", note="ready"),
            Failure("plan.json", "no CRI socket was found [RuntimeNotFound]\nlooked at /run/x"),
            text_piece("logs/a.txt", f"password={SECRET}\n"),
            text_piece("logs/a.txt", "twice\n"),
        ],
    )


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {entry.name: tar.extractfile(entry) for entry in tar.getmembers()}
        return {name: file.read() for name, file in found.items() if file is not None}


def test_the_list_is_what_is_in_the_archive_in_its_order_with_sizes_and_counts() -> None:
    made = example()
    content = members(archive.packed(made.name, made.files(), made.at))
    folder = "katanode-bundle-worker-1-20260921-141320"
    assert list(content) == [f"{folder}/{n}" for n in ("INDEX.txt", "report.json", "logs/a.txt", "logs/a.txt~2")]
    listed = made.as_json()["files"]
    assert isinstance(listed, list)
    assert {f"{folder}/{file['name']}": file["bytes"] for file in listed} == {n: len(d) for n, d in content.items()}
    assert content[f"{folder}/INDEX.txt"].decode() == made.words()
    rows = [line.split() for line in made.words().splitlines()]
    assert ["18", "B", "1", "logs/a.txt"] in rows
    assert ["3", "B", "-", "report.json", "ready"] in rows
    assert "  plan.json: no CRI socket was found [RuntimeNotFound]\n    looked at /run/x" in made.words()
    assert made.words().endswith("4 files, 27 B; 1 value or line masked; 1 could not be had\n")


def test_the_same_bundle_is_the_same_bytes_and_plain_tar_reads_it(tmp_path: Path) -> None:
    made = example()
    data = archive.packed(made.name, made.files(), made.at)
    assert data == archive.packed(made.name, made.files(), made.at)
    assert int.from_bytes(data[4:8], "little") == int(AT), "gzip's own time is the bundle's (RFC 1952)"
    archive.write(tmp_path / "x.tar.gz", data)
    done = subprocess.run(["tar", "-tvf", tmp_path / "x.tar.gz"], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 4
    assert all(line.startswith("-rw------- 0/0") for line in done.stdout.splitlines())
    packed = archive.packed(made.name, made.files(), made.at, zstandard=True)
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    assert members(plain) == members(data)


def test_an_archive_is_its_owner_s_alone_and_takes_no_place_that_is_taken(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        archive.write(tmp_path / "new", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("new", "link"):
        for attempt in (lambda path: archive.write(path, b"y"), archive.refuse):
            with pytest.raises(KatanodeError, match="is there already"):
                attempt(tmp_path / name)
    assert (tmp_path / "new").read_bytes() == b"x"
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(KatanodeError, match="cannot be written") as caught:
        archive.refuse(tmp_path / "no folder" / "x")
    assert "kubectl -n katanode exec POD -- katanode bundle --output -" in caught.value.remedy


def test_a_full_disk_leaves_no_half_of_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.os, "fsync", full)
    with pytest.raises(KatanodeError, match="cannot be written"):
        archive.write(tmp_path / "x", b"data")
    assert list(tmp_path.iterdir()) == []


# the command


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Scene]:
    """The command in an empty folder; `bundle.make` gives the example, and notes for what."""
    scenes: list[Scene] = []

    def make(scene: Scene, _node: str) -> Bundle:
        scenes.append(scene)
        return example()

    monkeypatch.setattr(bundle, "make", make)
    monkeypatch.setattr(command, "looked_up", lambda scene: scene)
    monkeypatch.chdir(tmp_path)
    return scenes


def test_list_shows_and_writes_nothing(gathered: list[Scene], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", "--list"]) == 0
    assert capsys.readouterr().out == example().words()
    assert cli.main(["bundle", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == example().as_json()
    assert os.listdir() == []
    assert len(gathered) == 2


def test_without_a_name_it_is_named_after_the_node_and_the_moment(
    gathered: list[Scene], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bundle"]) == 0
    name = "katanode-bundle-worker-1-20260921-141320.tar.gz"
    assert os.listdir() == [name]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{name}: 4 files, 27 B in ")
    assert "could not be had: plan.json: no CRI socket was found [RuntimeNotFound]\n" in said.err
    assert cli.main(["bundle"]) == 1
    assert len(gathered) == 2, "a name that holds the moment is known only afterwards"


def test_what_is_there_is_refused_before_anything_is_gathered(
    gathered: list[Scene], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x").write_text("x")
    assert cli.main(["bundle", "--output", "x"]) == 1
    assert cli.main(["bundle", "--output", "-", "--json"]) == 2
    assert "x is there already" in capsys.readouterr().err
    assert (gathered, Path("x").read_text()) == ([], "x")


def test_as_json_it_says_where_the_archive_is(gathered: list[Scene], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", "--json", "--output", "y.tar.zst"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == "y.tar.zst"
    assert told["archive_bytes"] == Path("y.tar.zst").stat().st_size
    assert Path("y.tar.zst").read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    assert len(gathered) == 1


def test_settings_that_are_wrong_or_gone_do_not_keep_it_from_being_made(gathered: list[Scene]) -> None:
    Path("bad.toml").write_text("[kata]\nverzion = 1\n")
    for name in ("bad.toml", "gone.toml"):
        assert cli.main(["bundle", "--list", "--settings", name]) == 0
    assert "verzion" in gathered[0].settings_problem
    assert "gone.toml does not exist" in gathered[1].settings_problem
    assert gathered[0].node.settings == Settings()


def test_standard_output_gets_the_archive_and_nothing_else(
    gathered: list[Scene], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert command.run(HostRoot(), argparse.Namespace(output="-", list=False, json=False, settings=None)) == 0
    said = capfdbinary.readouterr()
    assert next(iter(members(said.out))).endswith("/INDEX.txt")
    assert said.err.startswith(b"standard output: 4 files, ")
    assert len(gathered) == 1


def test_the_process_that_forks_has_one_thread_whatever_it_has_loaded() -> None:
    program = "import os; from agent.bundle import command; print(len(os.listdir('/proc/self/task')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_a_sweep_without_secrets_changes_nothing() -> None:
    same = Piece("a", "text\n")
    assert Sweep([])(same) is same
    assert Sweep(["short"])(Piece("a", "short\n")).text == "short\n"
