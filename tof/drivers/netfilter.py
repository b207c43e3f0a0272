"""The GTP Filter's netfilter part: chains that hand what crosses the queue bridges to NFQUEUE.

Everything there is an IPv4 packet: the slow lane wraps the frames (docs/decisions/0010). Raw PREROUTING comes before
conntrack. FORWARD accepts them, so that a host firewall that drops forwarded packets by default (container runtimes
set that) does not drop what the agent let pass.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tof.config import Config
from tof.errors import BackendError

HOOKS = {"raw": "PREROUTING", "filter": "FORWARD"}
_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class QueueRule:
    """What enters a queue bridge by ``device`` goes to NFQUEUE ``queue``."""

    device: str
    queue: int


@dataclass(frozen=True, slots=True)
class Rules:
    """An instance's chain, the same name in each table, and its rules."""

    chain: str
    queues: tuple[QueueRule, ...]

    def lines(self, table: str, *, notrack: bool) -> tuple[str, ...]:
        """The chain's rules in a table, as ``iptables-save`` prints them."""
        return tuple(
            f"-A {self.chain} -m physdev --physdev-in {rule.device} -j {target}"
            for rule in self.queues
            for target in _targets(table, rule, notrack)
        )


def wanted(config: Config) -> Rules:
    """The rules of a configuration."""
    names, base = config.names, config.agent.queue_base
    return Rules(names.chain, tuple(QueueRule(q.b, base + n) for n, q in enumerate(names.queue)))


def plan(saved: str, rules: Rules, *, notrack: bool = True) -> str:
    """Input for ``iptables-restore --noflush`` that brings the rules in force; empty when they are."""
    script = []
    for table, hook in HOOKS.items():
        have, jump = _ours(saved, table, rules.chain), f"{hook} -j {rules.chain}"
        body = rules.lines(table, notrack=notrack)
        if have == {*body, f":{rules.chain}", f"-A {jump}"} and _in_order(saved, body):
            continue
        script += [f"*{table}", f":{rules.chain} - [0:0]", *body]
        script += [] if f"-A {jump}" in have else [f"-I {hook} 1 -j {rules.chain}"]
        script.append("COMMIT")
    return "".join(f"{line}\n" for line in script)


def unplan(saved: str, rules: Rules) -> str:
    """Input for ``iptables-restore --noflush`` that removes the rules; empty when there are none."""
    script = []
    for table in HOOKS:
        have = _ours(saved, table, rules.chain)
        if have:
            jumps = [line for line in _table(saved, table) if line.endswith(f" -j {rules.chain}")]
            script += [f"*{table}", f":{rules.chain} - [0:0]"]
            script += [f"-D{line[2:]}" for line in jumps]
            script += [f"-X {rules.chain}", "COMMIT"]
    return "".join(f"{line}\n" for line in script)


def empty_tables(saved: str) -> tuple[str, ...]:
    """Those of our tables that hold nothing any more: no rules, no chains, no policies."""
    found = []
    for table in HOOKS:
        lines = list(_table(saved, table))
        if lines and all(line.split()[1:2] == ["ACCEPT"] for line in lines):
            found.append(table)
    return tuple(found)


def ensure(rules: Rules, variant: str = "") -> bool:
    """Bring the rules in force; False when they were already."""
    saved = _save(variant)
    if _in_force(saved, rules):
        return False
    try:
        _restore(variant, plan(saved, rules))
    except BackendError:
        # A kernel without the CT target does without: then conntrack merely sees the queued packets.
        _restore(variant, plan(saved, rules, notrack=False))
    return True


def present(rules: Rules, variant: str = "") -> bool:
    """Whether the rules are in force."""
    return _in_force(_save(variant), rules)


def remove(rules: Rules, variant: str = "") -> bool:
    """Remove the rules, and tables that are left empty; False when there was nothing to remove."""
    script = unplan(_save(variant), rules)
    if not script:
        return False
    _restore(variant, script)
    _tidy(variant)
    return True


def _targets(table: str, rule: QueueRule, notrack: bool) -> Iterator[str]:
    if table == "filter":
        yield "ACCEPT"
        return
    if notrack:
        yield "CT --notrack"
    yield f"NFQUEUE --queue-num {rule.queue} --queue-bypass"


def _table(saved: str, table: str) -> Iterator[str]:
    inside = False
    for line in saved.splitlines():
        if line.startswith("*") or line == "COMMIT":
            inside = line == f"*{table}"
        elif inside and line[:1] in (":", "-"):
            yield line.rstrip()


def _ours(saved: str, table: str, chain: str) -> set[str]:
    found = set()
    for line in _table(saved, table):
        words = line.split()
        if words[0] == f":{chain}":
            found.add(f":{chain}")
        elif words[:2] == ["-A", chain] or words[-2:] == ["-j", chain]:
            found.add(line)
    return found


def _in_order(saved: str, body: Sequence[str]) -> bool:
    kept = [line.rstrip() for line in saved.splitlines() if line.rstrip() in body]
    return kept == list(body)


def _in_force(saved: str, rules: Rules) -> bool:
    return not (plan(saved, rules) and plan(saved, rules, notrack=False))


def _tidy(variant: str) -> None:
    if shutil.which("nft") is None or "nf_tables" not in _run(_tool(variant), "--version"):
        return
    for table in empty_tables(_save(variant)):
        # One transaction: deleting a chain that someone has just filled fails, and the table stays.
        subprocess.run(
            ["nft", "-f", "-"],
            input=f"delete chain ip {table} {HOOKS[table]}\ndelete table ip {table}\n",
            text=True,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
        )


def _tool(variant: str) -> str:
    return f"iptables-{variant}" if variant else "iptables"


def _save(variant: str) -> str:
    return _run(f"{_tool(variant)}-save")


def _restore(variant: str, script: str) -> None:
    _run(f"{_tool(variant)}-restore", "--noflush", "-w", "5", text=script)


def _run(*command: str, text: str = "") -> str:
    try:
        done = subprocess.run(
            command, input=text, text=True, capture_output=True, check=False, timeout=_TIMEOUT_S
        )
    except FileNotFoundError as error:
        raise BackendError(f"{command[0]} is not installed (Debian package iptables)") from error
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"{command[0]} does not answer") from error
    if done.returncode:
        raise BackendError(f"{' '.join(command)}: {done.stderr.strip().splitlines()[:1]}")
    return done.stdout
