"""What each named reason means, in a line.

The names are those of the data path's counters (``enum counter`` in tof.bpf.c), of the agent's, and some of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

COUNTERS: Final = {
    "diverted": "a service's: to its application",
    "bridged_fragment": "an outer fragment of no service's datagram: by the bridge",
    "bridged_length": "the lengths of IP, UDP and GTP-U disagree, or the packet is cut short: by the bridge",
    "bridged_version": "not GTP-U version 1: by the bridge",
    "bridged_message": "a GTP-U message that needs no attention: by the bridge",
    "bridged_extension": "a broken or too long chain of GTP-U extension headers: by the bridge",
    "bridged_inner": "the G-PDU holds no IP packet, or has TEID 0: by the bridge",
    "spoofed": "the source is not the UE that the tunnel belongs to: not diverted",
    "nested": "a UE's data is GTP-U itself: carried, never believed",
    "wrong_side": "of a known tunnel, but from the side that its packets do not come from: not believed",
    "flow_unknown": "TCP to a service without its SYN: a connection that began at the core stays there",
    "flow_ambiguous": "another session with this UE address is using the same flow: stays with the core",
    "flow_waits": "of a diverted connection, in a new tunnel under another session: dropped until its owner is known",
    "inner_fragment": "a later fragment of TCP to a service, its first one was not seen: to the core",
    "fragment_refused": "an outer fragment too long, or one too many, to be reassembled: by the bridge",
    "bypassed": "bypass is on: everything goes to the wire",
    "ovs_down": "no heartbeat of Open vSwitch: services go to the core",
    "ue_no_tunnel": "no downlink is known yet: the reply is held while the Pinger asks",
    "ue_ended": "the downlink has seen its End Marker: the reply is held while the Pinger asks",
}
FRAGMENTS: Final = {
    "timeout": "a service's outer fragment, the rest of whose datagram did not come in time: to the core",
    "overlap": "outer fragments overlap: the datagram goes to the core as it came",
    "end_inconsistent": "outer fragments disagree about their datagram's end: to the core as they came",
    "odd_length": "an outer fragment is empty or ends between two units of eight bytes: to the core",
    "beyond_maximum": "an outer fragment reaches beyond what a datagram can hold: to the core",
    "too_many": "a datagram in too many fragments: to the core",
    "refused_before": "a fragment of a datagram that was refused: to the core",
    "overflow": "too many fragments wait: the longest waiting go to the core",
    "not_a_gpdu": "the reassembled datagram is no G-PDU: to the core as it came",
    "undecodable": "the agent cannot read it: it passes unlearnt",
    "too_big": "longer than the applications' link, and neither to be cut nor answered: to the core",
}
LEARNER: Final = {
    "refused_address": "the UE's address is a service's, the Pinger's or the TOF's: its tunnel is not learnt",
    "refused_bearers": "too many tunnels of this UE between these nodes: not learnt",
    "refused_pairs": "this UE address is behind too many pairs of nodes: not learnt",
    "refused_room": "the table of tunnels is full: not learnt",
    "end_marker_wrong_side": "an End Marker from the eNB's side: passed, not believed",
    "error_indication_unknown": "an Error Indication about no tunnel that is known: passed",
    "error_indication_wrong_side": "an Error Indication from the side its sender cannot be on: not believed",
    "echo_response_wrong_side": "an Echo Response from the side its sender cannot be on: not believed",
}
OWN: Final = {
    "no_service": "of a known tunnel, to no service",
    "downlink": "to a UE: only what comes from a UE can be a service's",
    "tunnel_learnt": "the first packet of a tunnel, no service's: it passes, and the tunnel is known from now on",
    "shadow": "a service's that is in shadow mode: counted, and answered by the core",
    "no_ue_address": "no UE can own this address: nothing is learnt from it",
    "forwarded": "a packet to a UE that an eNB relays (handover): not learnt as that UE's uplink",
    "same_side": "between two nodes of one side: it does not cross the TOF",
    "not_gtpu": "not GTP-U: carried as by a wire",
    "end_marker": "End Marker: nothing more is injected into its tunnel",
    "error_indication": "Error Indication: the tunnel that it is about is forgotten",
    "echo_response": "Echo Response: its restart counter is remembered",
    "cut": "the capture does not hold enough of it to tell",
    "ue_unknown": "no tunnel of this UE is known: its first packet teaches its tunnel",
    "uplink_unknown": "the UE has no such uplink tunnel: its first packet teaches it",
    "unresolved": "the service's application is not found: its traffic goes to the core",
    "unhealthy": "the service's application does not answer its probes: its traffic goes to the core",
    "out_of_hours": "the service that would have it does not select packets at this hour: no other does",
    "broken_chain": "a VNF of the service's chain is dead: its traffic goes to the core",
    "answered": "the reply goes into this downlink tunnel",
    "answered_in_one": "the reply goes into one of these downlink tunnels, as the core answered the uplink",
}
REASONS: Final[Mapping[str, str]] = COUNTERS | FRAGMENTS | LEARNER | OWN
