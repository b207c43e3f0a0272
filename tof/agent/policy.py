"""Everything that is provisioned, as one document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tof.agent.catalog import Catalog
from tof.agent.chain_body import chain_body, check_mark, parse_chain
from tof.agent.group_body import check_remotes, group_body, parse_group
from tof.agent.service_body import body_of, parse
from tof.errors import BadRequest, Conflict
from tof.model import Chain, Policy, SecurityGroup

FIELDS = ("services", "chains", "securityGroups")


def parse_policy(body: Mapping[str, object]) -> Policy:
    """What a policy declares; BadRequest or Conflict name the entry at fault, as ``services[2].ports``."""
    for field in body:
        if field not in FIELDS:
            raise BadRequest(f"{field} is not a field of a policy", field)
    if "services" not in body:
        raise BadRequest("services is missing or not a list", "services")
    catalog, chains, groups = Catalog(), dict[str, Chain](), dict[str, SecurityGroup]()

    def declare(entry: Mapping[str, object]) -> None:
        chain = parse_chain(entry)
        if chains.setdefault(chain.name, chain) is not chain:
            raise Conflict(f"there is already a chain called {chain.name}", "name")
        check_mark(chain, (other for other in chains.values() if other is not chain))

    def declare_group(entry: Mapping[str, object]) -> None:
        group = parse_group(entry)
        if groups.setdefault(group.name, group) is not group:
            raise Conflict(f"there is already a security group called {group.name}", "name")

    _each(body, "chains", declare)
    _each(body, "securityGroups", declare_group)
    check_remotes(groups.values())
    catalog.chains = tuple(chains.values())
    _each(body, "services", lambda entry: catalog.put_new(parse(entry)))
    return Policy(
        catalog.services,
        tuple(chains[name] for name in sorted(chains)),
        tuple(groups[name] for name in sorted(groups)),
    )


def policy_body(policy: Policy) -> dict[str, object]:
    """What ``parse_policy`` reads."""
    body: dict[str, object] = {"services": [body_of(service) for service in policy.services]}
    optional: dict[str, list[dict[str, object]]] = {
        "chains": [chain_body(chain) for chain in policy.chains],
        "securityGroups": [group_body(group) for group in policy.groups],
    }
    return body | {field: entries for field, entries in optional.items() if entries}


def _each(body: Mapping[str, object], field: str, take: Callable[[Mapping[str, object]], object]) -> None:
    for where, entry in _entries(body, field):
        try:
            take(entry)
        except (BadRequest, Conflict) as error:
            at = f"{where}.{error.field}" if error.field else where
            raise type(error)(f"{at}: {str(error).removeprefix(f'{error.field}: ')}", at) from error


def _entries(body: Mapping[str, object], field: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    entries = body.get(field, [])
    if not isinstance(entries, list):
        raise BadRequest(f"{field} is missing or not a list", field)
    for number, entry in enumerate(entries):
        where = f"{field}[{number}]"
        if not isinstance(entry, Mapping):
            raise BadRequest(f"{where} is not an object", where)
        yield where, entry
