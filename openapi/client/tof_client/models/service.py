from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define

from ..models.service_initiates import ServiceInitiates
from ..models.service_mode import ServiceMode
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.health_check import HealthCheck
    from ..models.mirror import Mirror
    from ..models.spread import Spread


T = TypeVar("T", bound="Service")


@_attrs_define
class Service:
    """Traffic of UEs to `serviceIP` that the selection holds for is answered by `applicationIP`. Both are of one family
    and neither multicast, broadcast, loopback, unspecified, IPv6 link-local, a Pinger target nor an address of the
    TOF (a prefix may contain such addresses). An IPv4-mapped IPv6 address is the IPv4 address.

    `domain` stands in the place of `serviceIP` where the addresses are those that DNS says; one of the two is needed.
    The other fields are optional, and are in an answer only when they say something; an empty list is
    as if absent. The selection is `protocol`, `ports`, `dscp`, `vlans`, `ues`, `enbs` and `sgws`: a packet must suit
    all that are given, and in each list one entry. A packet that several services select belongs to the one with
    the highest `priority`, then to the one with the longest prefix; services that are still equal then must not
    select the same packets (409). Answers have lists sorted and without duplicates, and ports merged.

        Attributes:
            name (str): 1 to 63 letters, digits, dots, underscores and hyphens, the first a letter or digit; no address
            application_ip (str): The address of the application at the edge
            service_ip (str | Unset): The address that UEs use, or a prefix of such addresses (203.0.113.0/24) without bits
                behind it; 0.0.0.0/0 and
                ::/0 are every address of their family
            domain (str | Unset): Instead of `serviceIP`: the service has the addresses that the resolvers named in the
                configuration
                (`dns.resolvers`, else 400) answer to UEs that ask for this name, or for a name that is an alias of it;
                `*.example.com` are all names below example.com. They are of the family of `applicationIP`. Beside a
                `serviceIP` that is one address: while the service is in force, the DNS server at the edge (`dns.server`, else
                400) says that the name has this address.
            protocol (int | str | Unset): `tcp`, `udp`, `sctp`, `icmp` (1 for IPv4, 58 for IPv6), or the number of an IP
                protocol; without it, every
                protocol
            ports (list[int | str] | Unset): Destination ports: numbers, and ranges such as "8000-8100" with both ends
                included. Needs `protocol` tcp, udp
                or sctp. With `vlans`, at most 256 combinations.
            application_port (int | Unset): The port at the application, if it is another one; needs exactly one port in
                `ports`
            dscp (list[int] | Unset): DSCP of the UE's packet
            vlans (list[int] | Unset): VLAN ids of S1 or N3; 0 is untagged
            ues (list[str] | Unset): Addresses and prefixes of UEs, of the family of `applicationIP`
            enbs (list[str] | Unset): Addresses and prefixes of eNodeBs or gNBs
            sgws (list[str] | Unset): Addresses and prefixes of SGWs or UPFs
            priority (int | Unset): Which of several services has a packet that they select; without it, 0
            mode (ServiceMode | Unset): `divert`, as without it: packets go to the application. `shadow`: they go to the
                core, and are counted.
            health (HealthCheck | Unset): How the application is asked whether it lives, from the TOF's own address on the
                applications' side. While it does
                not, the service's traffic goes to the core. A new service is in force with the first answer.
            chain (str | Unset): The port-chain that the packets walk between UE and application, one of the policy's
                `chains`
            hours (list[str] | Unset): When it selects packets, in the time zone of the TOF's host: days, times, or both.
                Outside of these it has none, and
                services of a lower priority may have them.
            mirror (Mirror | Unset): Where the service's diverted packets go a second time, both ways and as the UE sends
                and gets them: either out of an
                interface of those in the TOF's `mirror.interfaces`, or into a file of this name (without `.pcapng`) in
                `mirror.dir`.
            spread (Spread | Unset): Further applications beside `applicationIP`, of its family, all at the same
                `applicationPort`, `health` asked of
                each. A flow that has begun stays with its application while that lives; `by` says where a new one goes, or one
                whose application has died: to the first application in order that lives (`applicationIP`, then this list), or
                to
                the share that its UE, or the flow itself, falls into by consistent hashing
            initiates (ServiceInitiates | Unset): Whether the application may open flows to UEs as this service: `any`, also
                to UEs that have never spoken to it, or
                `none`: it answers them. By default `any`; for an application with a port of its own what its security groups
                let out.
    """

    name: str
    application_ip: str
    service_ip: str | Unset = UNSET
    domain: str | Unset = UNSET
    protocol: int | str | Unset = UNSET
    ports: list[int | str] | Unset = UNSET
    application_port: int | Unset = UNSET
    dscp: list[int] | Unset = UNSET
    vlans: list[int] | Unset = UNSET
    ues: list[str] | Unset = UNSET
    enbs: list[str] | Unset = UNSET
    sgws: list[str] | Unset = UNSET
    priority: int | Unset = UNSET
    mode: ServiceMode | Unset = UNSET
    health: HealthCheck | Unset = UNSET
    chain: str | Unset = UNSET
    hours: list[str] | Unset = UNSET
    mirror: Mirror | Unset = UNSET
    spread: Spread | Unset = UNSET
    initiates: ServiceInitiates | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        application_ip = self.application_ip

        service_ip = self.service_ip

        domain = self.domain

        protocol: int | str | Unset
        if isinstance(self.protocol, Unset):
            protocol = UNSET
        else:
            protocol = self.protocol

        ports: list[int | str] | Unset = UNSET
        if not isinstance(self.ports, Unset):
            ports = []
            for ports_item_data in self.ports:
                ports_item: int | str
                ports_item = ports_item_data
                ports.append(ports_item)

        application_port = self.application_port

        dscp: list[int] | Unset = UNSET
        if not isinstance(self.dscp, Unset):
            dscp = self.dscp

        vlans: list[int] | Unset = UNSET
        if not isinstance(self.vlans, Unset):
            vlans = self.vlans

        ues: list[str] | Unset = UNSET
        if not isinstance(self.ues, Unset):
            ues = self.ues

        enbs: list[str] | Unset = UNSET
        if not isinstance(self.enbs, Unset):
            enbs = self.enbs

        sgws: list[str] | Unset = UNSET
        if not isinstance(self.sgws, Unset):
            sgws = self.sgws

        priority = self.priority

        mode: str | Unset = UNSET
        if not isinstance(self.mode, Unset):
            mode = self.mode.value

        health: dict[str, Any] | Unset = UNSET
        if not isinstance(self.health, Unset):
            health = self.health.to_dict()

        chain = self.chain

        hours: list[str] | Unset = UNSET
        if not isinstance(self.hours, Unset):
            hours = self.hours

        mirror: dict[str, Any] | Unset = UNSET
        if not isinstance(self.mirror, Unset):
            mirror = self.mirror.to_dict()

        spread: dict[str, Any] | Unset = UNSET
        if not isinstance(self.spread, Unset):
            spread = self.spread.to_dict()

        initiates: str | Unset = UNSET
        if not isinstance(self.initiates, Unset):
            initiates = self.initiates.value

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "name": name,
                "applicationIP": application_ip,
            }
        )
        if service_ip is not UNSET:
            field_dict["serviceIP"] = service_ip
        if domain is not UNSET:
            field_dict["domain"] = domain
        if protocol is not UNSET:
            field_dict["protocol"] = protocol
        if ports is not UNSET:
            field_dict["ports"] = ports
        if application_port is not UNSET:
            field_dict["applicationPort"] = application_port
        if dscp is not UNSET:
            field_dict["dscp"] = dscp
        if vlans is not UNSET:
            field_dict["vlans"] = vlans
        if ues is not UNSET:
            field_dict["ues"] = ues
        if enbs is not UNSET:
            field_dict["enbs"] = enbs
        if sgws is not UNSET:
            field_dict["sgws"] = sgws
        if priority is not UNSET:
            field_dict["priority"] = priority
        if mode is not UNSET:
            field_dict["mode"] = mode
        if health is not UNSET:
            field_dict["health"] = health
        if chain is not UNSET:
            field_dict["chain"] = chain
        if hours is not UNSET:
            field_dict["hours"] = hours
        if mirror is not UNSET:
            field_dict["mirror"] = mirror
        if spread is not UNSET:
            field_dict["spread"] = spread
        if initiates is not UNSET:
            field_dict["initiates"] = initiates

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.health_check import HealthCheck  # noqa: PLC0415
        from ..models.mirror import Mirror  # noqa: PLC0415
        from ..models.spread import Spread  # noqa: PLC0415

        d = dict(src_dict)
        name = d.pop("name")

        application_ip = d.pop("applicationIP")

        service_ip = d.pop("serviceIP", UNSET)

        domain = d.pop("domain", UNSET)

        def _parse_protocol(data: object) -> int | str | Unset:
            if isinstance(data, Unset):
                return data
            return cast(int | str | Unset, data)

        protocol = _parse_protocol(d.pop("protocol", UNSET))

        _ports = d.pop("ports", UNSET)
        ports: list[int | str] | Unset = UNSET
        if _ports is not UNSET:
            ports = []
            for ports_item_data in _ports:

                def _parse_ports_item(data: object) -> int | str:
                    return cast(int | str, data)

                ports_item = _parse_ports_item(ports_item_data)

                ports.append(ports_item)

        application_port = d.pop("applicationPort", UNSET)

        dscp = cast(list[int], d.pop("dscp", UNSET))

        vlans = cast(list[int], d.pop("vlans", UNSET))

        ues = cast(list[str], d.pop("ues", UNSET))

        enbs = cast(list[str], d.pop("enbs", UNSET))

        sgws = cast(list[str], d.pop("sgws", UNSET))

        priority = d.pop("priority", UNSET)

        _mode = d.pop("mode", UNSET)
        mode: ServiceMode | Unset
        if isinstance(_mode, Unset):
            mode = UNSET
        else:
            mode = ServiceMode(_mode)

        _health = d.pop("health", UNSET)
        health: HealthCheck | Unset
        if isinstance(_health, Unset):
            health = UNSET
        else:
            health = HealthCheck.from_dict(_health)

        chain = d.pop("chain", UNSET)

        hours = cast(list[str], d.pop("hours", UNSET))

        _mirror = d.pop("mirror", UNSET)
        mirror: Mirror | Unset
        if isinstance(_mirror, Unset):
            mirror = UNSET
        else:
            mirror = Mirror.from_dict(_mirror)

        _spread = d.pop("spread", UNSET)
        spread: Spread | Unset
        if isinstance(_spread, Unset):
            spread = UNSET
        else:
            spread = Spread.from_dict(_spread)

        _initiates = d.pop("initiates", UNSET)
        initiates: ServiceInitiates | Unset
        if isinstance(_initiates, Unset):
            initiates = UNSET
        else:
            initiates = ServiceInitiates(_initiates)

        service = cls(
            name=name,
            application_ip=application_ip,
            service_ip=service_ip,
            domain=domain,
            protocol=protocol,
            ports=ports,
            application_port=application_port,
            dscp=dscp,
            vlans=vlans,
            ues=ues,
            enbs=enbs,
            sgws=sgws,
            priority=priority,
            mode=mode,
            health=health,
            chain=chain,
            hours=hours,
            mirror=mirror,
            spread=spread,
            initiates=initiates,
        )

        return service
