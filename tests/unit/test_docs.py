"""What the documents name exists: tests, counters, scenarios."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tof.daemon.fragments import REASONS
from tof.lab.emulation.catalogue import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GTPU = (DOCS / "gtpu.md").read_text()
OPERATIONS = (DOCS / "operations.md").read_text()
NAMED = re.compile(
    r"`(?:tests/)?(?:(unit|component|netns|e2e)/)?(?=::|test_)(test_\w+)?(?:\.py)?(?:::(test_\w+))?`"
)
COUNTED = re.compile(r"counts\[(.+)\] \+= 1")
ROWS, POINTS = 23, 11


def named(text: str) -> Iterator[tuple[Path, str | None]]:
    """Each test that ``text`` names: its file, and its function. ``::test_x`` is of the file named before."""
    at = ROOT
    for folder, file, function in NAMED.findall(text):
        if file:
            at = ROOT / "tests" / (folder or "netns") / f"{file}.py"
        yield at, function or None


def numbered(title: str) -> dict[int, str]:
    """The rows of the table under a heading of gtpu.md, by number."""
    section = GTPU.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return {int(number): row for number, row in re.findall(r"^\| (\d+) \|(.*)$", section, re.MULTILINE)}


@pytest.mark.parametrize("document", ["gtpu.md", "fuzzing.md"])
def test_every_named_test_exists(document: str) -> None:
    found = list(named((DOCS / document).read_text()))
    assert found
    for at, function in found:
        assert at.is_file(), at.name
        assert function is None or f"def {function}(" in at.read_text(), f"{at.name}::{function}"


def test_the_list_of_tests_is_complete() -> None:
    there = {file.stem for file in (ROOT / "tests").rglob("test_*.py")}
    listed = (DOCS / "tests.md").read_text()
    names = set(re.findall(r"\btest_\w+", listed))
    groups = {name for name in names if f"{name}*" in listed}
    assert names - groups <= there
    assert not {name for name in there - names if not name.startswith(tuple(groups))}


@pytest.mark.parametrize(
    ("title", "count"), [("Case by case", ROWS), ("What the cases add up to", POINTS)], ids=["rows", "points"]
)
def test_every_row_is_shown_by_real_packets(title: str, count: int) -> None:
    rows = numbered(title)
    assert list(rows) == list(range(1, count + 1))
    for number, row in rows.items():
        shown_by = row.split(" | ")[-1]
        assert any(at.parent.name == "netns" and function for at, function in named(shown_by)), number


def test_scenarios_of_the_laboratory() -> None:
    played = set(re.findall(r"tof lab play ([\w-]+)(?: --ues \d+)?` \|", (DOCS / "lab.md").read_text()))
    assert played == set(SCENARIOS)
    listed = re.findall(r"`test_lab_play::test_a_tof_plays` \(([^)]*)\)", GTPU)
    assert {name for names in listed for name in re.findall(r"`([\w-]+)`", names)} <= set(SCENARIOS)


def test_every_counter_is_explained() -> None:
    program = (ROOT / "tof/drivers/bpf/tof.bpf.c").read_text()
    enum = re.search(r"enum counter \{(.*?)\};", program, re.DOTALL)
    assert enum is not None
    counters = set(re.findall(r"^\s*c_(\w+),", enum[1], re.MULTILINE))
    for file in (ROOT / "tof/agent").glob("*.py"):
        counters |= {
            name for reason in COUNTED.findall(file.read_text()) for name in re.findall(r'"(\w+)"', reason)
        }
    counters |= set(REASONS)
    unexplained = {name for name in counters if f"`{name}`" not in OPERATIONS}
    assert not unexplained


def test_links_lead_somewhere() -> None:
    for document in [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
