"""Laboratory: interception, learning and diversion, as checks (points 2 to 4)."""

from __future__ import annotations

from tof.lab.checks import Capture, Check, Checks, Figures, clock
from tof.lab.peers import CORE_TUN, Ue, parse_ping
from tof.lab.webserver import content_digest, write_content
from tof.lab.world import CORE, CORE6, EDGE, ELSEWHERE, PING_TARGET, SERVICE, World

BULK_MEGABYTES = 100


async def interception(world: World, figures: Figures) -> Checks:
    """Point 2: the TOF sits in the wire and nobody but GTP-U can tell."""
    for label, argv in (
        ("ARP and ICMP", ("ping", "-n", "-q", "-i", "0.05", "-c", "20", CORE)),
        ("neighbour discovery and ICMPv6", ("ping", "-n", "-q", "-i", "0.05", "-c", "20", CORE6)),
    ):
        await world.lab.ip("ran", "neighbour", "flush", "all")
        pings = parse_ping((await world.ran(*argv)).stdout)
        yield Check.equal(f"2 interception: {label} between eNB and SGW cross", 20, pings.received)
    page = await world.ran("curl", "-s", "--max-time", "5", f"http://{CORE}/")
    yield Check.equal("2 interception: TCP between eNB and SGW crosses", "core", page.stdout.strip())
    began = clock()
    ues = [await world.attach() for _ in range(3)]
    figures["attach_ms"] = (clock() - began) * 1000 / 3
    addresses = sorted({ue.address for ue in ues})
    yield Check(
        "2 interception: GTP-C crosses, UEs attach",
        len(addresses) == 3,
        "3 UEs with addresses",
        ", ".join(addresses),
    )
    yield await _xdp(world)
    yield await _queues(world)
    health = await world.tof.request("GET", "/health")
    yield Check.equal("2 interception: the TOF says that it is well", "ok", health.body.get("state"))


async def _xdp(world: World) -> Check:
    links = {link["ifname"]: link for link in await world.lab.ip_json("tof", "link", "show")}
    modes = {1: "native", 2: "generic"}
    seen = []
    for name in ("enb0", "sgw0"):
        mode = modes.get(links[name].get("xdp", {}).get("mode", 0), "no")
        seen.append(f"{name} in {links[name].get('master', 'no bridge')} with {mode} XDP")
    ok = all("br-s1" in each and "with no XDP" not in each for each in seen)
    return Check(
        "2 interception: adapters are bridged, XDP attached", ok, "both in br-s1 with XDP", "; ".join(seen)
    )


async def _queues(world: World) -> Check:
    rules = ""
    for tool in ("iptables-save", "iptables-legacy-save"):
        rules += (await world.lab.run("tof", tool, check=False)).stdout
    queues = [line for line in rules.splitlines() if "NFQUEUE" in line and "--queue-bypass" in line]
    ok = all(any(f"--queue-num {number}" in line for line in queues) for number in (0, 1))
    expected = "NFQUEUE 0 and 1 with bypass"
    return Check(
        "2 interception: unknown G-PDUs go to the queues", ok, expected, "; ".join(queues) or "no rule"
    )


async def learning(world: World, figures: Figures) -> Checks:
    """Point 3: tunnels are learnt from their first packets, none of which is lost."""
    first = [await ue.ping(PING_TARGET) for ue in world.ues]
    yield Check.equal(
        "3 learning: the very first packets are not lost", 3, sum(each.received for each in first)
    )
    figures["first_ping_ms"] = max(each.rtt_ms for each in first)
    for ue in world.ues:
        yield await tunnels_check(world, ue)
    sessions = {each["ue"]: each["state"] for each in (await world.tof.request("GET", "/sessions")).body}
    wanted = {ue.address: "paired" for ue in world.ues}
    yield Check.equal("3 learning: GET /sessions pairs both directions", wanted, sessions)
    many = await world.ues[0].ping(PING_TARGET, "-i", "0.01", count=200)
    figures["passing_rtt_ms"] = many.rtt_ms
    yield Check.equal("3 learning: known tunnels pass without loss", 200, many.received)
    large = await world.ues[0].ping(PING_TARGET, "-i", "0.01", "-s", "1472", count=50)
    yield Check.equal("3 learning: outer fragments (1500-byte UE packets) pass", 50, large.received)
    yield await _download(
        world.ues[1], "3 learning: 100 MB pass by, unchanged", ELSEWHERE, figures, "passing"
    )


async def tunnels_check(
    world: World, ue: Ue, name: str = "3 learning: GET /tunnels has both tunnels of"
) -> Check:
    """The check that the TOF knows exactly the UE's two tunnels."""
    wanted = {"uplink": f"{ue.enb} > {CORE}", "downlink": f"{CORE} > {ue.enb}"}
    seen = {}
    for direction, tunnel in (await world.tof.tunnels_of(ue.address)).items():
        seen[direction] = f"{tunnel['source']} > {tunnel['destination']}"
    return Check.equal(f"{name} {ue.address}", wanted, seen)


async def _download(ue: Ue, name: str, address: str, figures: Figures, figure: str) -> Check:
    began = clock()
    script = 'curl -sf --max-time 20 "$0" | sha256sum'
    result = await ue.run("bash", "-c", script, f"http://{address}/{BULK_MEGABYTES}MB", timeout=70)
    figures[f"{figure}_download_mb_s"] = BULK_MEGABYTES / (clock() - began)
    return Check.equal(name, content_digest(BULK_MEGABYTES)[:16], result.stdout[:16])


async def diversion(world: World, figures: Figures) -> Checks:
    """Point 4: traffic to a service is answered at the edge, all else by the Internet."""
    answer = await world.tof.provision("video", SERVICE, EDGE)
    yield Check.equal("4 diversion: the service is provisioned", 200, answer.status)
    async with Capture(world.lab, "core", CORE_TUN, f"host {SERVICE}") as at_core:
        for ue in world.ues:
            page = await ue.curl(f"http://{SERVICE}/", seconds=5)
            yield Check.equal(f"4 diversion: {ue.address} gets the service from the edge", "edge", page)
        echo = await world.ues[0].udp(SERVICE, "hello")
        yield Check.equal("4 diversion: UDP reaches the edge and comes back", "edge: hello", echo)
        pings = await world.ues[0].ping(SERVICE, "-i", "0.01", count=100)
        figures["diverted_rtt_ms"] = pings.rtt_ms
        yield Check.equal("4 diversion: ICMP reaches the edge and comes back", 100, pings.received)
        yield await _download(
            world.ues[0], "4 diversion: 100 MB down from the edge", SERVICE, figures, "diverted"
        )
        yield await _upload(world, figures)
        yield Check.equal("4 diversion: the core saw none of it", 0, len(at_core.packets))
    page = await world.ues[0].curl(f"http://{ELSEWHERE}/", seconds=5)
    yield Check.equal("4 diversion: other addresses are answered by the Internet", "internet", page)
    client = ("-o", "/dev/null", "-w", "%header{x-client}")
    seen = await world.ues[0].curl(f"http://{SERVICE}/", *client, seconds=5)
    yield Check.equal("4 diversion: the application sees the UE's own address", world.ues[0].address, seen)


async def _upload(world: World, figures: Figures) -> Check:
    file = world.lab.dir / "upload"
    write_content(str(file), BULK_MEGABYTES)
    began = clock()
    said = await world.ues[1].curl(f"http://{SERVICE}/upload", "-T", str(file), seconds=20)
    figures["diverted_upload_mb_s"] = BULK_MEGABYTES / (clock() - began)
    expected = f"edge {BULK_MEGABYTES * 1_000_000} {content_digest(BULK_MEGABYTES)}"
    return Check("4 diversion: 100 MB up to the edge", said == expected, expected[:32], said[:32])
