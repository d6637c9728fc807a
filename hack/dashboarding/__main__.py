"""`hack/dashboards`: writes or checks the files of manifests/monitoring/grafana."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hack.dashboarding import canary, changes, fleet, sandboxes
from hack.dashboarding.board import written

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "manifests/monitoring/grafana"
BOARDS = (fleet.BOARD, changes.BOARD, sandboxes.BOARD, canary.BOARD)


def main() -> int:
    """Writes the dashboards; with `--check` the exit status is 1 where one is not what would be written."""
    parser = argparse.ArgumentParser(prog="hack/dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when something is to be written")
    check = parser.parse_args().check
    files = {FOLDER / f"{board.uid}.json": written(board.as_json()) + "\n" for board in BOARDS}
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    stale += [path for path in FOLDER.glob("*.json") if path not in files]
    if check:
        for path in stale:
            print(f"{path.relative_to(REPOSITORY)} is not what hack/dashboards writes: run it")
        return 1 if stale else 0
    for path in stale:
        if path in files:
            path.write_text(files[path])
        else:
            print(f"{path.relative_to(REPOSITORY)} is none of these dashboards: remove it")
    return 0


sys.exit(main())
