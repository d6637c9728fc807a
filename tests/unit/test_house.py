"""The rules of the house: who may import whom, and that what is generated is current."""

import subprocess
import sys
from pathlib import Path

from agent.reasons import CATALOGUE, Reason, consequences

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_rooms_import_only_what_they_may() -> None:
    done = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    assert done.returncode == 0, done.stdout


def test_types_hold_strictly() -> None:
    done = run(sys.executable, "-m", "mypy")
    assert done.returncode == 0, done.stdout


def test_the_linter_has_nothing_to_say() -> None:
    done = run(sys.executable, "-m", "ruff", "check", ".")
    assert done.returncode == 0, done.stdout
    done = run(sys.executable, "-m", "ruff", "format", "--check", ".")
    assert done.returncode == 0, done.stdout


def test_the_cri_messages_are_current(tmp_path: Path) -> None:
    done = subprocess.run(
        ["hack/proto", str(tmp_path)],
        cwd=REPOSITORY,
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("cri_pb2.py", "cri_pb2.pyi"):
        assert (tmp_path / "agent/cri" / name).read_text() == (REPOSITORY / "agent/cri" / name).read_text()


def test_every_reason_is_in_the_catalogue_with_a_title_and_a_remedy() -> None:
    assert set(CATALOGUE) == set(Reason)
    for reason, entry in CATALOGUE.items():
        assert entry.title, reason
        assert not entry.title.endswith("."), reason
        assert entry.remedy.endswith("."), reason
        assert reason not in entry.depends_on, reason


def test_a_cause_hides_its_consequences() -> None:
    found = {Reason.KVM_MODULE_MISSING, Reason.KVM_DEVICE_MISSING, Reason.TUN_MISSING}
    assert consequences(found) == {Reason.KVM_DEVICE_MISSING}


def test_every_reason_is_used() -> None:
    source = "\n".join(path.read_text() for path in (REPOSITORY / "agent").rglob("*.py") if path.name != "reasons.py")
    unused = [reason.name for reason in Reason if f"Reason.{reason.name}" not in source]
    assert not unused
