"""Laboratory: Debian's osmo-ggsn as the core, sgsnemu as eNBs with one UE each: real GTP-C and GTP-U."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tof.lab.namespaces import Job, Lab, Result, until

UE_DEVICE = "ue"
CORE_TUN = "tun4"

_GGSN_CONFIG = """\
log stderr
 logging color 0
 logging level set-all notice
line vty
 no login
ggsn lab
 gtp state-dir {dir}
 gtp bind-ip {address}
 apn internet
  gtpu-mode tun
  tun-device {tun}
  type-support v4
  ip prefix dynamic {pool}
  ip dns 0 8.8.8.8
  ip ifconfig {pool}
  no shutdown
 default-apn internet
 no shutdown ggsn
"""


@dataclass(frozen=True, slots=True)
class PingResult:
    """What ``ping`` counted; ``rtt_ms`` is the mean round trip."""

    sent: int
    received: int
    rtt_ms: float


@dataclass(frozen=True, slots=True)
class Ue:
    """An attached UE: role of its namespace, address from the core, address of its eNB, radio end."""

    lab: Lab
    role: str
    address: str
    enb: str
    radio: Job

    async def run(self, *argv: str, timeout: float = 60.0) -> Result:
        """Run a command as the UE; its exit status is the caller's business."""
        return await self.lab.run(self.role, *argv, timeout=timeout, check=False)

    async def ping(self, address: str, *options: str, count: int = 1, timeout: float = 60.0) -> PingResult:
        """Ping from the UE."""
        result = await self.run("ping", "-n", "-q", "-c", str(count), *options, address, timeout=timeout)
        return parse_ping(result.stdout)

    async def curl(self, url: str, *options: str, seconds: float = 60.0) -> str:
        """Body of the answer, empty if there was none within ``seconds``."""
        argv = ("curl", "-s", "--max-time", f"{seconds:g}", *options, url)
        return (await self.run(*argv, timeout=seconds + 5)).stdout.strip()

    async def udp(self, address: str, text: str, port: int = 7) -> str:
        """The line that comes back for one line of UDP, empty if none within two seconds."""
        script = 'exec 3<>"/dev/udp/$0/$1"; echo "$2" >&3; timeout 2 head -n 1 <&3'
        return (await self.run("bash", "-c", script, address, str(port), text)).stdout.strip()

    async def detach(self) -> None:
        """End the session properly (GTP-C Delete PDP Context)."""
        await self.lab.stop(self.radio)


def parse_ping(text: str) -> PingResult:
    """Figures of ping's closing lines, zeros where they are missing."""
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    times = re.search(r"= [\d.]+/([\d.]+)/", text)
    sent, received = (int(counts[1]), int(counts[2])) if counts else (0, 0)
    return PingResult(sent, received, float(times[1]) if times else 0.0)


async def start_core(lab: Lab, role: str, address: str, pool: str) -> Job:
    """Start the GGSN on ``address``, with UE addresses from ``pool``; returns when it serves."""
    config = lab.dir / "ggsn.cfg"
    config.write_text(_GGSN_CONFIG.format(dir=lab.dir, address=address, pool=pool, tun=CORE_TUN))
    job = await lab.start(role, "ggsn", "osmo-ggsn", "-c", str(config))

    async def serving() -> bool | None:
        return "GGSN(lab): Successfully started" in job.output or None

    await until("osmo-ggsn serves", serving)
    return job


async def attach(lab: Lab, radio_role: str, enb: str, core: str, number: int) -> Ue:
    """Attach UE ``number`` (1-9) through the eNB address ``enb``; its tun is in a namespace of its own."""
    role = f"ue{number}"
    await lab.namespace(role, "net.ipv6.conf.default.disable_ipv6=1", "net.ipv6.conf.all.disable_ipv6=1")
    state = lab.dir / role
    state.mkdir()
    tun = ("--createif", "--defaultroute", "--tun-device", UE_DEVICE, "--netns", lab.name(role))
    files = ("--statedir", str(state), "--pidfile", str(state / "pid"))
    imsi = ("--imsi", f"24001000000000{number}")
    radio = await lab.start(
        radio_role, f"sgsnemu-{role}", *("sgsnemu", "-l", enb, "-r", core), *tun, *files, *imsi
    )

    async def attached() -> str | None:
        links = await lab.ip_json(role, "address", "show")
        addresses = [
            info["local"] for link in links if link["ifname"] == UE_DEVICE for info in link["addr_info"]
        ]
        return next(iter(addresses), None)

    return Ue(lab, role, await until(f"{role} attaches", attached, within=15.0), enb, radio)
