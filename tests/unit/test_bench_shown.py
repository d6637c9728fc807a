"""A bench as people see it: the table in a terminal, and the chart, which needs nothing but itself."""

import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from agent.benching import chart, chart_parts, table, words
from agent.benching.figures import Density, Failure, Measured, Memory
from agent.benching.limits import Limits, Until
from agent.benching.percentiles import samples
from agent.benching.result import Facts, Result
from agent.reasons import Reason

MIB = 1 << 20
GIB = 1 << 30
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = 'x"/><script>alert(1)</script><image href="http://example.org/a.png"/>\x1b[31m\x00'


def memory(**components: int) -> Memory:
    sizes = {name: size * MIB for name, size in components.items()}
    return Memory(sizes, sizes, True, 10, sum(sizes.values()), sum(sizes.values()))  # noqa: FBT003


def series(median: float) -> tuple[float, ...]:
    return tuple(median + n / 1000 for n in range(-4, 6))


RUNC = Measured(
    "runc", "", 0.3, samples(series(0.1)), samples(series(0.08)), memory(shim=9, pause=1),
    density=Density(110, Until.SANDBOXES, 20.0, 30 * GIB, 2 * GIB, 3 * GIB),
)  # fmt: skip
CLH = Measured(
    "kata-clh", "cloud-hypervisor", 0.9, samples(series(0.4)), samples(series(0.2)),
    memory(vmm=118, virtiofsd=6, shim=34), density=Density(80, Until.MEMORY, 60.0, 30 * GIB, 15 * GIB, 3 * GIB),
)  # fmt: skip
FAILED = Failure(Reason.CANARY_FAILED, "a sandbox does not start through kata-qemu", "qemu said no", "Read it.")
QEMU = Measured("kata-qemu", failure=FAILED)
RESULT = Result(
    Facts("worker-1", "6.1.0", "bare metal", 8, 32 * GIB, "containerd 1.7.24", "4.1.0"),
    "2026-11-24T16:16:59Z",
    10,
    Limits(),
    (RUNC, CLH),
    ("42 pods ran here: what they did is in these figures.",),
)


def drawn(made: Result, width: int = 120) -> str:
    screen = Console(file=io.StringIO(), width=width, highlight=False)
    screen.print(table.drawn(made))
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def row(text: str, *cells: str) -> bool:
    return any(all(cell in line for cell in cells) for line in text.splitlines())


def test_the_table_tells_time_memory_and_density_of_each_handler() -> None:
    text = drawn(RESULT)
    assert row(text, "runc", "100 ms", "104 ms", "105 ms*", "80 ms", "1.0 x")
    assert row(text, "kata-clh", "400 ms", "4.0 x")
    assert row(text, "kata-clh", "cloud-hypervisor", "158 MiB", "118 MiB", "6.0 MiB", "34.0 MiB")
    assert row(text, "kata-clh", "80", "192 MiB", "about 144", "50 % of the available memory")
    assert row(text, "runc", "110", "18.6 MiB", "-", "110 sandboxes")
    assert "! 42 pods ran here" in text
    assert "10 samples are too few for p99 (it takes 100)" in text


def test_a_table_of_a_narrow_terminal_cuts_no_figure() -> None:
    text = drawn(RESULT, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert row(text, "kata-clh", "400 ms", "404 ms", "405 ms*", "200 ms", "205 ms*", "4.0 x")


def test_a_failure_stands_below_with_the_runtime_s_words_and_the_remedy() -> None:
    made = replace(RESULT, handlers=(RUNC, QEMU))
    text = drawn(made)
    assert "✗ kata-qemu: a sandbox does not start through kata-qemu  [CanaryFailed]" in text
    assert "qemu said no" in text
    assert "→ Read it." in text
    assert (made.status, RESULT.status) == (1, 0)


def test_an_interrupted_bench_and_one_that_left_sandboxes_say_so() -> None:
    assert "interrupted" in drawn(replace(RESULT, caught=15))
    assert replace(RESULT, caught=15).status == 143
    assert "2 sandboxes left" in drawn(replace(RESULT, left=2))
    assert replace(RESULT, left=2).status == 1


def test_a_bench_that_measured_nothing_can_be_shown() -> None:
    made = replace(RESULT, handlers=(QEMU,))
    assert "CanaryFailed" in drawn(made)
    assert ET.fromstring(chart.svg(made)).tag == f"{SVG}svg"


def test_the_json_has_every_sample_and_says_how_percentiles_are_meant() -> None:
    made = json.loads(json.dumps(RESULT.as_json()))
    assert made["percentiles"] == "nearest rank"
    clh = made["handlers"][1]
    assert clh["start_seconds"]["samples"] == [round(value, 4) for value in series(0.4)]
    assert clh["start_seconds"]["only_the_maximum"] == ["p99"]
    assert clh["memory"]["component_bytes"]["vmm"] == 118 * MIB
    assert clh["density"] == {
        "count": 80,
        "until": "memory",
        "seconds": 60.0,
        "available_bytes": 30 * GIB,
        "used_bytes": 15 * GIB,
        "headroom_bytes": 3 * GIB,
        "bytes_each": 15 * GIB // 80,
        "would_fit": 144,
    }


def test_sizes_and_times_are_said_with_their_units() -> None:
    assert [words.sizes(n) for n in (12288, 700 << 10, 12 * MIB, 150 * MIB, 2 * GIB, 384 * GIB)] == [
        "12 KiB", "0.7 MiB", "12.0 MiB", "150 MiB", "2.0 GiB", "384 GiB",
    ]  # fmt: skip
    assert [words.milliseconds(s) for s in (0.0984, 1.25, 12.34)] == ["98 ms", "1250 ms", "12.3 s"]


# the chart


def test_the_same_figures_make_the_same_bytes() -> None:
    assert chart.svg(RESULT) == chart.svg(replace(RESULT))


def test_the_chart_has_a_title_and_its_figures_as_words() -> None:
    root = ET.fromstring(chart.svg(RESULT))
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert desc is not None
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == title.get("id")
    assert root.get("aria-describedby") == desc.get("id")
    assert title.text == "katanode bench on worker-1"
    assert "kata-clh (cloud-hypervisor): start 400 ms (p90 404 ms, max 405 ms)" in str(desc.text)
    assert "memory 158 MiB (vmm 118 MiB, virtiofsd 6.0 MiB, shim 34.0 MiB)" in str(desc.text)


def test_bars_are_as_long_as_their_figures() -> None:
    root = ET.fromstring(chart.svg(RESULT))
    bars = [float(bar.get("width", 0)) for bar in root.iter(f"{SVG}rect") if bar.get("class") == "bar"]
    assert len(bars) == 6  # start, removal and density of two handlers
    assert bars[1] / bars[0] == pytest.approx(4.0, rel=0.01)
    assert bars[5] / bars[4] == pytest.approx(80 / 110, rel=0.01)


def test_everything_lies_within_the_picture() -> None:
    long = replace(CLH, name="a-handler-whose-name-is-far-too-long-for-its-place")
    root = ET.fromstring(chart.svg(replace(RESULT, handlers=(RUNC, long, QEMU))))
    width, height = (float(root.get(name, 0)) for name in ("width", "height"))
    for element in root.iter():
        if element.tag in {f"{SVG}text", f"{SVG}rect"}:
            assert 0 <= float(element.get("x", 0)) + float(element.get("width", 0)) <= width
            assert 0 <= float(element.get("y", 0)) + float(element.get("height", 0)) <= height
    assert any(t.text == long.name for t in root.iter(f"{SVG}title"))


def test_nothing_foreign_in_the_chart_runs_or_is_fetched() -> None:
    foreign = replace(CLH, name=HOSTILE, hypervisor=HOSTILE, failure=replace(FAILED, message=HOSTILE))
    made = replace(RESULT, handlers=(foreign,), notes=(HOSTILE,), facts=replace(RESULT.facts, node=HOSTILE))
    text = chart.svg(made)
    root = ET.fromstring(text)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "line", "text"}
    assert not any("href" in name or name.startswith("on") for e in root.iter() for name in e.attrib)
    assert "\x1b" not in text
    assert "@import" not in text
    assert not re.search(r"url\(", text)


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(d * 2 for d in digits)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_bars_stand_out_from_their_ground(*, dark: bool) -> None:
    light, _, night = chart_parts.STYLE.partition("@media(prefers-color-scheme:dark)")
    style = night if dark else light
    ground = re.findall(r"\.bg\{fill:(#\w+)\}", style)[0]
    texts = [re.findall(r"text\{[^}]*fill:(#\w+)", style)[0], re.findall(r"\.d\{fill:(#\w+)", style)[0]]
    assert all(contrast(colour, ground) >= 4.5 for colour in texts)  # WCAG 1.4.3
    bars = {name: re.findall(rf"\.{name}\{{fill:(#\w+)\}}", style)[0] for name in chart_parts.COLOURS}
    assert {name: c for name, c in bars.items() if contrast(c, ground) < 3} == {}  # WCAG 1.4.11


@pytest.mark.parametrize(
    ("highest", "last"), [(0, 1), (0.4, 0.4), (7, 8), (100, 100), (101, 120), (1452, 1500), (12_345, 15_000)]
)
def test_axes_end_at_a_round_number_that_holds_the_highest(highest: float, last: float) -> None:
    found = chart_parts.ticks(highest)
    assert found[0] == 0
    if highest:
        assert found[-1] == pytest.approx(last)
        assert 3 <= len(found) <= 8
