"""Laboratory: what a namespace looks like, to tell whether something was left behind."""

from __future__ import annotations

import json

from tof.lab.namespaces import Lab

_VOLATILE = ("operstate", "stats64", "num_tx_queues", "num_rx_queues")


async def snapshot(lab: Lab, role: str) -> dict[str, str]:
    """Links, addresses, routes, offloads, queueing, netfilter rules, processes: name -> state."""
    found: dict[str, str] = {}
    for link in await lab.ip_json(role, "address", "show"):
        name = link["ifname"]
        found[f"link {name}"] = json.dumps({key: link[key] for key in sorted(link) if key not in _VOLATILE})
        features = await lab.run(role, "ethtool", "-k", name, check=False)
        found[f"offloads {name}"] = features.stdout
        queueing = await lab.run(role, "tc", "qdisc", "show", "dev", name, check=False)
        found[f"qdisc {name}"] = queueing.stdout
    for family in ("-4", "-6"):
        routes = await lab.ip(role, family, "route", "show", "table", "all")
        found[f"routes {family}"] = "\n".join(sorted(routes.splitlines()))
        found[f"rules {family}"] = await lab.ip(role, family, "rule", "show")
    for tool in ("iptables-save", "ip6tables-save", "iptables-legacy-save", "ip6tables-legacy-save"):
        listing = (await lab.run(role, tool, check=False)).stdout
        rules = [line for line in listing.splitlines() if line.startswith("-A") or line.endswith("- [0:0]")]
        found[tool] = "\n".join(rules)
    switches = await lab.run(role, "sysctl", "-a", "--pattern", r"net\.bridge", check=False)
    found["sysctl net.bridge"] = switches.stdout
    pids = await lab.run(role, "ip", "netns", "pids", lab.name(role), check=False)
    found["processes"] = str(len(pids.stdout.split()))
    return found


async def settled(lab: Lab, role: str) -> bool | None:
    """True once every link that is up has its carrier and the link-local address that comes with it, else None.

    Where IPv6 is off for a link, it has none.
    """
    for link in await lab.ip_json(role, "address", "show"):
        if "UP" not in link["flags"] or link["ifname"] == "lo":
            continue
        off = (
            await lab.run(role, "sysctl", "-n", f"net.ipv6.conf.{link['ifname']}.disable_ipv6")
        ).stdout.strip() == "1"
        addressed = any(each["family"] == "inet6" for each in link["addr_info"])
        if "NO-CARRIER" in link["flags"] or not (off or addressed):
            return None
    return True


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Names of what is not as it was."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
