"""The daemon's figures, on a node in a lab with an API server stand-in: memory, CPU, and how soon it is back."""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from agent.cluster import names, saying
from agent.service.messages import Task
from agent.service.service import FULL
from agent.settings import Settings
from hack.lab.apiserver import NODE, api_server
from hack.lab.containerd import PrivateContainerd
from hack.lab.figures import SETTINGS, Figure, spread, until, write_settings
from hack.lab.lab import Lab
from hack.lab.running import KATANODE, PORT, Running
from hack.standin.build import build_release

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hack.apistandin import ApiStandin

_VERSION = "3.2.0"
_HANDLERS = ("kata-clh", "kata-qemu")
_PERIOD = 600.0
"""Seconds for which the CPU's share is told."""
_WINDOW = 60.0
"""Seconds of each window in which it is measured."""
_STARTS = 5
_LOOKS = 1000
_WARM = 200
"""Looks before those that are counted: pools of memory fill in the first ones."""
_MIB = 1 << 20
# The manifests' probes, and a scrape every 30 s.
_VISITS = """
import sys, time, urllib.request
for second in range(int(sys.argv[1])):
    for path, period in ("/readyz", 5), ("/healthz", 20), ("/metrics", 30):
        if second % period == 0:
            urllib.request.urlopen(sys.argv[2] + path, timeout=5).read()
    time.sleep(1)
"""
_PLAYER = """#!/bin/sh
printf . >>{folder}/looks
case "$*" in *'"full": true'*) exec cat {folder}/full ;; *) exec cat {folder}/quick ;; esac
"""


def figures(folder: Path) -> Iterator[Figure]:
    """Measures them.

    Args:
        folder: for temporary files.
    """
    archive = build_release(folder / "release", _VERSION)["kata-static"]
    with Lab(keep=(folder,)) as lab, PrivateContainerd(lab, "2.1"), api_server(lab) as (api, surroundings):

        def settings(interval: int) -> None:
            serve = f'[serve]\naddress = "127.0.0.1"\nport = {PORT}\n'
            write_settings(lab, archive, _VERSION, _HANDLERS, f"[run]\ninterval_seconds = {interval}\n{serve}")

        # Compiled once, as in the image.
        env = {**surroundings, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
        settings(Settings().run.interval_seconds)
        lab.run([KATANODE, "apply"], env=env)
        yield _back(lab, api, env)
        with Running(lab, env) as daemon:
            daemon.until_looked(1)
            full = daemon.cpu.workers
            time.sleep(10)
            idle = _idle(daemon, lab)
            settings(10)
            daemon.until_looked(3)
            look, looks = _look(daemon, idle)
            yield Figure("daemon's RSS after looks", f"{daemon.rss / _MIB:.1f} MiB", "80 MiB", daemon.rss <= 80 * _MIB)
        yield _share(idle, look, looks, full)
        yield _growth(lab, env, folder)


def _share(idle: float, look: float, looks: int, full: float) -> Figure:
    """What the measured parts make in the period.

    Args:
        idle: seconds of CPU in a second without a look.
        look: seconds of CPU of a look.
        looks: how many it is the mean of.
        full: seconds of CPU of a look at everything.
    """
    per_period, full_per_period = _PERIOD / Settings().run.interval_seconds, _PERIOD / FULL
    between, further = idle * _PERIOD, max(0.0, full - look) * full_per_period
    used = between + look * per_period + further
    measured = (
        f"{100 * used / _PERIOD:.3f} %: {between:.2f} s between looks (x{_PERIOD / _WINDOW:.0f}, probed and scraped) + "
        f"{per_period:g} looks of {look:.2f} s (mean of {looks}) + "
        f"{further:.2f} s for a full one an hour, {full:.2f} s"
    )
    return Figure("CPU of daemon and workers in 10 min", measured, "0.2 % of a core", used <= 0.002 * _PERIOD)


def _look(daemon: Running, idle: float) -> tuple[float, int]:
    """Seconds of CPU of a look, the daemon's own share included, and of how many looks that is the mean."""
    before, begin, looks = daemon.cpu, time.monotonic(), daemon.looks()
    time.sleep(_WINDOW)
    used, seconds, looks = sum(daemon.cpu) - sum(before), time.monotonic() - begin, daemon.looks() - looks
    return max(0.0, used - idle * seconds) / looks, looks


def _idle(daemon: Running, lab: Lab) -> float:
    """Seconds of CPU in a second without a look, while it is probed and scraped as the manifests have it."""
    looks, before, begin = daemon.looks(), daemon.cpu, time.monotonic()
    lab.run([sys.executable, "-S", "-c", _VISITS, f"{_WINDOW:.0f}", f"http://127.0.0.1:{PORT}"], timeout=2 * _WINDOW)
    used, seconds = sum(daemon.cpu) - sum(before), time.monotonic() - begin
    assert daemon.looks() == looks, "a look came in between"
    return used / seconds


def _back(lab: Lab, api: ApiStandin, env: Mapping[str, str]) -> Figure:
    """From the daemon's start to the gate label, on a node that is installed and has lost all that was said of it."""
    times = []
    for _ in range(_STARTS):
        _forget(api)
        begin = time.monotonic()
        with Running(lab, env) as daemon:
            until(lambda: _gate(api) == "true", 60, pause=0.005)
            times.append(time.monotonic() - begin)
            done = daemon.log.read_text()
        # Neither belongs to this figure, and neither is needed: the proof of the last canary still holds.
        assert "restarting containerd" not in done, done
        assert "canary" not in done, done
    return Figure("daemon's start to the gate label", spread(times), "5 s", statistics.median(times) <= 5)


def _gate(api: ApiStandin) -> str | None:
    node = api.get("nodes", NODE)
    assert node is not None
    return saying.labels_of(node).get(names.GATE)


def _forget(api: ApiStandin) -> None:
    """Makes the Node one of which nothing was said."""
    node = api.get("nodes", NODE)
    assert node is not None
    labels = {key: value for key, value in saying.labels_of(node).items() if not names.ours(key)}
    conditions = [c for c in node["status"]["conditions"] if c["type"] != names.CONDITION]
    meta = {key: value for key, value in node["metadata"].items() if key != "managedFields"}
    api.put("nodes", {**node, "metadata": {**meta, "labels": labels}, "status": {"conditions": conditions}})


def _growth(lab: Lab, env: Mapping[str, str], folder: Path) -> Figure:
    """How much the daemon's memory grows over looks whose results are played back."""
    for name, full in (("full", True), ("quick", False)):
        task = json.dumps(asdict(Task("/", SETTINGS, "present", full)))
        said = lab.run([sys.executable, "-P", "-m", "agent.service.worker", task], env=env).stdout
        assert json.loads(said.splitlines()[-1])[1]["problem"] is None, said
        (folder / name).write_text(said)
    player, counter = folder / "player", folder / "looks"
    player.write_text(_PLAYER.format(folder=folder))
    player.chmod(0o755)
    counter.write_bytes(b"")
    with Running(lab, env, [sys.executable, "-m", "hack.lab.looks", player, SETTINGS]) as daemon:
        sizes = []
        for looks in (_WARM, _WARM + _LOOKS // 2, _WARM + _LOOKS):
            until(lambda wanted=looks: counter.stat().st_size >= wanted, 300)
            sizes.append(daemon.rss)
    growth = sizes[-1] - sizes[0]
    measured = f"{growth / _MIB:+.2f} MiB ({' '.join(f'{s / _MIB:.2f}' for s in sizes)}), looks played back"
    return Figure("daemon's growth over 1,000 looks", measured, "1 MiB", growth <= _MIB)
