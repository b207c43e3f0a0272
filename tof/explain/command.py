"""``tof explain``: the command line; heavy imports wait until it is called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tof.api.commands import Api, Json, call, print_json, print_table
from tof.errors import SetupError

if TYPE_CHECKING:
    from tof.explain.live import Question
    from tof.explain.words import Explanation
    from tof.model import Policy

NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}
ICMP, ICMPV6 = 1, 58
WITH_PORTS = (6, 17, 132)

CaptureFile = Annotated[Path | None, typer.Option(metavar="FILE", help="pcap or pcapng of S1-U or N3.")]
Services = Annotated[Path | None, typer.Option(metavar="FILE", help="Services, JSON or YAML.")]
Frames = Annotated[list[str] | None, typer.Option(metavar="N[-M]", help="These frames, one by one.")]
Enbs = Annotated[str, typer.Option(metavar="ADDRESS,...", help="The eNodeBs' addresses in the capture.")]


def explain(
    context: typer.Context,
    capture: CaptureFile = None,
    services: Services = None,
    frame: Frames = None,
    enb: Enbs = "",
    ue: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Ask a running agent: of this UE.")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where its packet goes.")] = None,
    protocol: Annotated[str | None, typer.Option(metavar="tcp|udp|icmp|N", help="Its protocol.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Its destination port.")] = None,
    dscp: Annotated[int, typer.Option(min=0, max=63, help="Its DSCP.")] = 0,
    teid: Annotated[int | None, typer.Option(help="Only in an uplink tunnel with this TEID.")] = None,
    source: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Only from this eNB.")] = None,
    destination: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Only to this SGW.")] = None,
    vlan: Annotated[int | None, typer.Option(min=0, max=4094, help="Only in this VLAN; 0: untagged.")] = None,
    api: Api = None,
    json_output: Json = False,
) -> None:
    """Which tunnel, UE, service and application a packet meets, or why it passes: of a capture, or in a running TOF."""
    asked = Asked(ue, to, protocol, port, dscp or None, teid, source, destination, vlan)
    if capture is not None:
        if any(each is not None for each in asked):
            raise SetupError("explain takes --capture FILE, or --ue and --to of a packet, not both")
        _explain_capture(capture, services, frame or [], enb, json_output=json_output)
        return
    if services is not None or frame or enb:
        raise SetupError("--services, --frame and --enb go with --capture FILE")
    _explain_packet(context, _question(asked), api, json_output=json_output)


class Asked(NamedTuple):
    """The options about a packet, as they were given."""

    ue: str | None
    to: str | None
    protocol: str | None
    port: int | None
    dscp: int | None
    teid: int | None
    source: str | None
    destination: str | None
    vlan: int | None


def _question(asked: Asked) -> Question:
    if asked.ue is None or asked.to is None:
        raise SetupError("explain needs --capture FILE, or --ue ADDRESS and --to ADDRESS")
    from tof.explain.live import Question

    number = _protocol(asked.protocol, asked.port, asked.to)
    nodes = _packed("--source", asked.source), _packed("--destination", asked.destination)
    ends = _address("--ue", asked.ue), _address("--to", asked.to)
    if len(ends[0]) != len(ends[1]):
        raise SetupError("--ue and --to are of different families")
    return Question(*ends, number, asked.port, asked.dscp or 0, asked.teid, *nodes, asked.vlan)


def _explain_capture(
    path: Path, services: Path | None, frames: list[str], enb: str, *, json_output: bool
) -> None:
    from tof.explain import report, story
    from tof.lab.replay import ReplayOptions, prepare

    policy = None if services is None else _policy(services)
    provisioned, chains = ((), ()) if policy is None else (policy.services, policy.chains)
    script = prepare(path, ReplayOptions((path,), enb=tuple(filter(None, enb.split(",")))))
    told = story.explain(script.sent, provisioned)
    chosen = _chosen(frames, told)
    flows = [] if frames else story.flows(told)
    if json_output:
        parts: dict[str, Any] = (
            {"explained": [report.frame_document(one, chains) for one in chosen]}
            if frames
            else {"flows": [report.flow_document(flow, chains) for flow in flows]}
        )
        print_json(report.capture_document(str(path), told, provisioned, parts))
        return
    if frames:
        print_table(report.FRAME_COLUMNS, report.frame_rows(chosen, chains))
    else:
        print_table(report.FLOW_COLUMNS, report.flow_rows(flows, chains))
    typer.echo()
    print_table(("reason", "which means"), report.reason_rows(one.outcome.reason for one in chosen))


def _explain_packet(
    context: typer.Context, question: Question, api: str | None, *, json_output: bool
) -> None:
    from tof.explain import report
    from tof.explain.asking import ask
    from tof.explain.live import answers

    known = call(context, lambda client: ask(client, question), api)
    found = answers(question, known)
    if json_output:
        print_json(report.answer_document(question, found, known.chains))
        return
    print_table(report.ANSWER_COLUMNS, report.answer_rows(found, known.chains))
    typer.echo()
    replies = [one.reply.reason for one in found if one.reply is not None]
    reasons = [*(one.outcome.reason for one in found), *replies]
    print_table(("reason", "which means"), report.reason_rows(reasons))


def _policy(path: Path) -> Policy:
    from tof.explain.provision import policy

    try:
        return policy(path.read_text())
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SetupError(f"{path}: is no text") from error
    except SetupError as error:
        raise SetupError(f"{path}: {error}") from error


def _chosen(texts: Sequence[str], told: Sequence[Explanation]) -> list[Explanation]:
    """The frames that --frame names; all of them if it names none."""
    if not texts:
        return list(told)
    wanted: set[int] = set()
    for text in texts:
        first, _, last = text.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise SetupError(f"--frame: {text!r} is neither N nor N-M")
        if not 1 <= int(first) <= int(last or first) <= len(told):
            raise SetupError(f"--frame: {text} is not within the capture's frames, 1-{len(told)}")
        wanted |= set(range(int(first), int(last or first) + 1))
    return [one for one in told if one.number in wanted]


def _protocol(text: str | None, port: int | None, to: str) -> int:
    from tof.explain.choosing import UNKNOWN_PROTOCOL

    number = UNKNOWN_PROTOCOL
    if text is not None:
        number = NUMBERS.get(text.lower(), int(text) if text.isdecimal() else -1)
        if not 0 <= number <= 255:
            raise SetupError(f"--protocol: {text!r} is neither {', '.join(NUMBERS)} nor a number up to 255")
    if port is not None and number not in WITH_PORTS:
        raise SetupError("--port needs --protocol tcp, udp or sctp")
    return ICMPV6 if number == ICMP and ":" in to else number


def _address(option: str, text: str) -> bytes:
    from tof.agent.addresses import parse_address

    try:
        return parse_address(text).packed
    except ValueError:
        raise SetupError(f"{option}: {text!r} is not an address") from None


def _packed(option: str, text: str | None) -> bytes | None:
    return None if text is None else _address(option, text)
