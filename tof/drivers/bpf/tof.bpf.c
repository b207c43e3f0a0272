// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// The GTP Filter and the GTP Tunnel Endpoints in the kernel.
//
//   tof_s1_*    XDP on the S1 adapters: known tunnels pass port to port or are decapsulated; the rest takes the bridge
//   tof_slow_*  clsact ingress on the S1 adapters: unknown G-PDUs and signalling messages go to the queue
//   tof_ret_*   XDP and clsact ingress where packets come back from the queue: divert, or send on by the way out
//   tof_ue      XDP on ue0: frames from OVS are encapsulated into the tunnel that their destination MAC names
//   tof_nop     XDP_PASS, which makes a veth run NAPI so that frames can be redirected into it
//
// Every multi-byte field named *_be is in network order, all else in host order. `make` is one clang call, see
// tools/setup. No CO-RE is needed: only stable UAPI structures are read. Kernel >= 6.1.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ENB 0
#define SGW 1
#define MAX_PORTS 8
#define NO_VLAN 0xffff
#define GTPU_PORT 2152
#define VLAN_BYTES 4
#define GATEWAY 0xffffffffU
#define DSCP 0xfc              // what injected packets take over; the rest is another packet's mark of congestion (RFC 6040)
#define MAY_CUT 1              // beside it, of IPv4: no DF; where a tunnel's own packets may be cut, so may injected ones
#define MAX_EXTENSIONS 8
#define MOST_HEADER 1536       // bytes of GTP-U before the user's packet: more than the longest legal container (1 032)
#define HEAD 256               // bytes of a packet that the slow lane needs in the linear area
#define HEARTBEAT_NS 900000000ULL
#define SETTLE_GAP_NS 50000ULL        // the queue has been silent for this long: nothing can be overtaken
#define SETTLE_SOFT_NS 50000000ULL    // after this, a shorter silence is enough
#define SETTLE_LATE_NS 200000000ULL   // after this, an instant of equality is: a busy tunnel must get its fast lane
#define SETTLE_MOMENT_NS 10000ULL     // what an answered packet may need to be on its way
#define SETTLE_HARD_NS 500000000ULL   // nothing has come back for this long: the agent hangs
#define CROWD 1024                    // packets in a queue: it cannot keep up, new tunnels are learnt beside it
#define CROWD_OF_SERVICES 12288       // the same for packets to a service; NFQUEUE fails open at 16384
#define TOLD_MS 200                   // how often an unknown tunnel is told of
#define YOUNG_NS 2000000000ULL        // by then the core has said whether a UE's address is in use elsewhere, too
#define FLOW_FRESH_NS 30000000000ULL  // a flow of another session with the same 5-tuple is in use for this long
#define HOP_SETTLE_NS 10000000ULL     // the kernel has sent what waited for an ARP reply: nothing can be overtaken
#define HOP_FRESH_NS 60000000000ULL   // a node not heard for this long is looked for by the kernel again
#define PIECE_NS 1000000000ULL        // identifications are used again: what is known of one datagram's fragments
#define AGENT_NS 500000000ULL         // an agent that has not been heard for this long is given no fragments
#define HANG_NS 2000000000ULL         // and what it would only learn from passes it by (GTP-U path management waits longer)
#define PIECE_WINDOW_NS 100000000ULL  // bounds of what fragments may take of the agent's time, per window:
#define PIECES_UNDECIDED 200          //   later fragments that came before their first
#define PIECES_DIVERTED 500           //   datagrams to be reassembled
#define PIECE_BYTES 2048              // so much of a frame reaches the agent: FRAME_BYTES in tof/drivers/nfqueue.py
#define BLIND_S 600                   // how long a tag beside its frame keeps S1 out of the fast lane
#define QFI_FRESH_MS 10000            // the default QoS flow of a session has been used within this time
#define WORST_GTP 16                  // 8 + optional 4 + PDU Session Container 4

// Counters. The names are read from this very enum by tof/drivers/xdp.py: c_<name>.
enum counter {
	c_passed,               // known tunnel, port to port
	c_diverted,             // decapsulated towards br-ue
	c_encapsulated,         // from br-ue into a tunnel
	c_queued,               // handed to NFQUEUE
	c_returned,             // came back from NFQUEUE and was sent on
	c_bridged_partial,      // known tunnel, unfinished checksum of a local sender: by the bridge
	c_bridged_way_unknown,  // known tunnel, way out unknown or back to the ingress side: by the bridge
	c_bridged_fragment,     // outer fragment
	c_bridged_length,       // IP, UDP and GTP-U lengths disagree or the packet is cut short
	c_bridged_version,      // GTP version or protocol type is not GTP-U version 1
	c_bridged_message,      // GTP-U message that is no G-PDU and needs no attention
	c_bridged_extension,    // extension header chain is broken or too long
	c_bridged_inner,        // inner packet is not IP
	c_sampled,              // learnt from a copy because the packet cannot be queued
	c_sample_lost,          // event buffer full
	c_crowded,              // unknown tunnel while the queue cannot keep up: by the bridge, learnt from an event
	c_crowded_lost,         // the same, but the buffer of such events was full
	c_agent_hangs,          // would be queued, but the agent has not been heard for two seconds: by the bridge
	c_spoofed,              // inner source is not the tunnel's UE: passed, not diverted
	c_shadowed,             // selected by a service that only counts: passed
	c_ovs_down,             // service traffic to the core: no heartbeat
	c_flow_unknown,         // TCP to a service without its SYN: stays with the core
	c_flow_ambiguous,       // the same inner 5-tuple is in use by another session
	c_flow_displaced,       // a flow in use gave way to a newer one: its UE has more of them than its share
	c_flow_waits,           // dropped: of a diverted TCP connection, in a tunnel that is not known to be its UE's yet
	c_no_application,       // the service's application that it would be given to is dead: to the core
	c_inner_fragment,       // later TCP fragment to a service without its first: to the core
	c_heartbeats,
	c_ue_bypassed,          // dropped on the UE side: bypass is on
	c_ue_malformed,         // dropped on the UE side: not a well-formed IP frame
	c_ue_no_tunnel,         // held: no downlink tunnel is known for the UE
	c_ue_ended,             // held: the UE's downlink tunnel has ended
	c_ue_too_big,           // does not fit the tunnel
	c_apps_too_big,         // a UE's packet to a service, longer than the applications' link: the agent cuts or answers it
	c_hand_over_lost,       // a frame that the agent was to cut, answer or hold: too long, or too many at once
	c_ue_no_way_out,        // dropped: no adapter leads to the tunnel's destination
	c_ue_ambiguous,         // held: the UE address is in use behind several pairs
	c_ue_moved,             // held: the tunnel that its flow came in is another UE's by now
	c_ue_doubted,           // held: whose the UE's downlink tunnel is now has to be asked first
	c_pinger_replies,       // the Pinger's own replies, to the queue
	c_hop_unknown,          // shared adapter: the far node's MAC address is not resolved yet
	c_fragment_queued,      // outer fragment handed to NFQUEUE: of service traffic, or not decided yet
	c_fragment_refused,     // outer fragment: too long, or too many to decide on or to reassemble, by the bridge
	c_bypassed,             // seen while bypass was on
	c_station_moved,        // a MAC address is heard on another adapter than before
	c_nested,               // a UE's user data is GTP-U itself: carried like any other, and never believed
	c_wrong_side,           // a known tunnel's packet from the side it does not come from: by the bridge, not believed
	c_names_shown,          // a resolver's answer to a UE: a copy went to the agent, for services given by domain
	c_names_unasked,        // one from a resolver that no question was seen for: not shown
	c_names_unshown,        // one that is too long, or too many of them, or no agent there: not shown
	c_tags_beside,          // its VLAN tag is not in the frame, where XDP would see it: the slow lane serves S1
	c_unaccounted,          // diverted or injected for a service, but the table of accounts was full
	c_max
};

struct config {
	__u32 bypass, services, pinging, shared;
	__u32 ue_ifindex, mtu, queue_ifindex[2];
	__u32 port_count[2], port[2][MAX_PORTS];
	__u32 apps_ifindex, splice_ifindex;
	__u8 own_mac[6];        // of a shared adapter
	__u16 restricted;       // separate adapters: only between the nodes in tof_sides
	__u32 prefixes;         // services with more addresses than one: a look into tof_prefixes
	__u32 names;            // services given by domain: the agent is shown the answers of tof_resolvers
	__u32 accounting;       // packets of services are counted in tof_accounts
	__u32 apps_mtu;         // of the applications' link; 0: whatever fits S1 fits it
	__u64 service_filter;   // one bit per service address, by hash: most packets need no look into tof_services
};

struct shared_state {
	__u64 beat_ns;
	__u32 fdb_generation;
	__u32 blind_s;          // when a VLAN tag was last seen that XDP had not: then it judges nothing. 0: never
	__u64 sample_window_ns, samples;
	__u64 piece_window_ns;
	__u32 pieces_undecided, pieces_diverted;
};

struct key4 {
	__be32 source, destination, teid;
	__u16 vlan, pad;
};

struct key {             // either family: IPv4 addresses stand in the first four bytes
	__u8 source[16], destination[16];
	__be32 teid;
	__u16 vlan, family; // 4 or 6
};

struct tunnel {
	__u64 packets, bytes, last_ns;
	__u64 ue6;              // first half of the UE's IPv6 /64, 0: none
	__be32 ue4;             // 0: none
	__u32 index, session, link_signature;
	__u32 out_ifindex, out_generation;
	__u8 direction;         // ENB: uplink, SGW: downlink (the side it comes from)
	__u8 flags, qfi, tos;   // tos: DSCP, and MAY_CUT
	__u32 event_ms;         // when an event was last raised for this tunnel
	__u8 source_mac[6], destination_mac[6];
	__u32 ifindex;
	__u64 learnt_ns;
	__u64 injected_ns;      // when the TOF put a packet of its own in; 0: its node's own packets have passed since
	__u32 qfi_ms;           // when `qfi` was last seen
	__u32 calm_ms;          // uplink: foreign sources are no news before this; 0: they are
	__u8 identifier6[8];    // uplink: second half of the IPv6 address that the UE used last
};
#define T_SETTLING 1
#define T_ENDED 2
#define T_CONTAINER 4
#define T_MOVED 8               // downlink: carried another UE's packet, the agent has not decided yet
#define T_LEFT 16               // uplink: the UE has gone on through another node

struct pending {         // of a tunnel whose packets take the queue
	__u32 ticket, pad;      // of the last one
	__u64 first_ns, last_ns; // the first since it was at rest; the last that went in or came out
	__u64 wait_ns;          // since when there has always been one in the queue
	__u8 source_mac[6], destination_mac[6];
	__u32 ifindex;
	__u32 tos;
};

struct queue {           // NFQUEUE keeps the order: what has a lower ticket than one that is back is out
	__u32 issued, back;
	__u64 back_ns, probe_ns;
};

struct outlet {
	struct key own;
	__u32 peer, pad;
	__u64 doubted_ns;       // downlink: nothing is injected before its core has spoken in it after this
};

struct ue_key {
	__u64 ue6;
	__be32 ue4;
	__u32 pad;
};
#define UE_AMBIGUOUS 0xfffffffeU

struct flow_key {
	__u8 ue[16], service[16];
	__be16 ue_port, service_port;
	__u8 protocol, over, pad[2]; // over: no flow any more, but its place still leads to others
};

// Where a flow may stand. Each UE has FLOW_SHARE places of its own and its flows push out each other alone: a UE that
// floods a service with SYNs or ports cannot take another UE's connections from it. The flows of tunnels that the core
// has not answered yet share POOL places between them all, so that invented UEs are worth no more than that.
struct flow_place {
	__u64 ue;               // IPv4 address, or the first half of an IPv6 one; 0: the pool
	__u32 slot, pad;
};
#define FLOW_SHARE 4096
#define FLOW_POOL 65536
#define FLOW_WAYS 4             // places that one flow may stand at

struct flow {
	__u64 last_ns;
	__u32 session, application, uplink; // 0: an application has sent its SYN, the UE has not answered yet
	__u8 has_qfi, qfi;      // of the UE's last packet: the reply mirrors it
	__u8 overflowed, pad;   // another flow found this place, its first, taken: it is at one of the next
	struct flow_key key;
};

struct l4 {
	__be16 source, destination;
	__u8 tcp_flags, pad[3];
};

// Fragments of one datagram: outer ones by the addresses on S1 (session 0), inner ones by the UE's and the service's.
struct piece_key {
	__u8 source[16], destination[16];
	__be32 ident;
	__u16 vlan;
	__u8 family, protocol;
	__u32 session;
};

// Once one fragment of a datagram has taken the queue all do, so that they stay in order.
struct piece {
	__u64 since_ns;
	__u32 fate, queued;     // of inner fragments: from an application `fate` is their tunnel, to one `queued` its number
};
struct account_key {     // a UE's traffic with a service, behind one pair of nodes; IPv4 addresses are mapped
	__u8 ue[16];            // of an IPv6 UE the first half
	__u8 enb[16], sgw[16];
	__u32 service;
	__u16 vlan, by_agent;   // by_agent: what the agent alone has counted, and alone writes
};

struct account {         // by direction: ENB is uplink and diverted, SGW is downlink and injected
	__u64 packets[2], bytes[2]; // of users' packets
	__u64 first_ns, last_ns;
};
struct scratch {         // what the stack has no room for
	struct flow fresh;
	struct flow_place place;
	struct l4 l4;
	__u32 own_slot, own_first, pool_first;
	struct piece piece;
	struct piece_key piece_key;
	struct account_key account_key;
	struct account account;
};

#define FATE_MARK 0x70f00000 // `fate` of a queued fragment as tof/drivers/nfqueue.py reads it
enum fate { f_undecided = 1, f_pass, f_divert, f_left }; // left: one went on already, so do the others

struct station_key {
	__u8 mac[6];
	__u16 vlan;
};

struct station {
	__u32 ifindex;
	__u16 side, tagged;     // tagged: XDP has seen its tag in the frame
};

struct prefix_key {      // of a service's addresses
	__u32 prefix;
	__u8 address[16];
};

// Services are judged as tof/dataplane/selection.py says: the destination leads to a list of rules, the first that holds
// decides. tof_services and tof_prefixes hold where in tof_rules the list begins, plus one.
struct rule {
	__u32 number;           // of the service
	__u16 last, protocol;
	__u16 port_first, port_last, vlan, looks_at_ports;
	__u32 ues, enbs, sgws;  // sets of prefixes in tof_sets, 0: any
	__u32 pad;
	__u64 dscps;            // one bit each, 0: any
};
#define ANY 0xffff
#define MAX_RULES 65536         // HALF and LONGEST_LIST in tof/drivers/selection.py
#define MAX_LIST 1024

struct set_key {
	__u32 prefix, set;
	__u8 address[16];
};

struct served {          // a service, by its number, or a further application of one, by its own
	__u64 packets, bytes;   // that it selected
	__u32 state, service;   // service: whose application it is; a service's own number stands for its first application
	char name[64];
};
#define S_DIVERT 1              // else to the core
#define S_SHADOW 2
#define S_TRACKED 4             // by connection tracking in Open vSwitch
#define S_LIVES 8               // the application
#define S_SPREAD 16             // the service has several, see tof_spread

// Which of a service's applications has a new flow: the same as tof/dataplane/spreading.py says.
#define SPREAD_SLOTS 256
struct spread {
	__u32 by_flow, pad;     // else by UE
	__u32 slots[SPREAD_SLOTS]; // numbers of applications, 0: to the core
};

struct event {
	__u32 kind, side, ifindex, index, length;
	__u16 vlan, captured;
	__u8 data[];
};
struct seen {            // a G-PDU of an unknown tunnel, all that the agent learns from
	struct key key;
	__u8 inner_source[16], inner_destination[16];
	__u8 source_mac[6], destination_mac[6];
	__u32 ifindex;
	__u16 size;
	__u8 side, inner6, tos, gtp_flags, has_container, qfi;
};
enum event_kind {
	e_sample = 1, e_spoofed, e_downlink_moved, e_held, e_too_big, e_returned, e_doubted, e_moved, e_answer,
	e_apps_too_big
};
struct side_key {        // shared adapter: which side an outer source address is on
	__u32 prefix;
	__u8 address[16];
};

struct hop {             // shared adapter: where an outer address's own packets come from
	__u8 mac[6];
	__u16 vlan;
	__u32 tagged, pad;      // as of a station
	__u64 heard_ns, usable_ns;
};

struct query_key {       // a UE's question to a resolver that has not been answered yet
	__u8 ue[16], server[16];
	__be16 port, ident;
};

struct answers {         // that were shown to the agent in this window
	__u64 window_ns;
	__u32 shown, pad;
};
#define DNS_PORT 53
#define DNS_HEADER 12
#define QUERY_FRESH_NS 10000000000ULL
#define ANSWERS_WINDOW_NS 100000000ULL
#define ANSWERS_SHOWN 200

#define SAMPLE_BYTES 256
#define HELD_BYTES 2048
#define LARGE_BYTES 9728        // jumbo frames; they leave half of the buffer to all else
#define EVENT_BYTES (4 << 20)

#define MAP(name_, type_, key_, value_, entries_, flags_)                                                              \
	struct {                                                                                                       \
		__uint(type, type_);                                                                                   \
		__type(key, key_);                                                                                     \
		__type(value, value_);                                                                                 \
		__uint(max_entries, entries_);                                                                         \
		__uint(map_flags, flags_);                                                                             \
	} name_ SEC(".maps")

MAP(tof_config, BPF_MAP_TYPE_ARRAY, __u32, struct config, 1, 0);
MAP(tof_state, BPF_MAP_TYPE_ARRAY, __u32, struct shared_state, 1, 0);
MAP(tof_counters, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, c_max, 0);
MAP(tof_tunnels4, BPF_MAP_TYPE_HASH, struct key4, struct tunnel, 1000000, BPF_F_NO_PREALLOC);
MAP(tof_tunnels6, BPF_MAP_TYPE_HASH, struct key, struct tunnel, 1000000, BPF_F_NO_PREALLOC);
MAP(tof_outlets, BPF_MAP_TYPE_HASH, __u32, struct outlet, 2000000, BPF_F_NO_PREALLOC);
MAP(tof_ues, BPF_MAP_TYPE_HASH, struct ue_key, __u32, 1000000, BPF_F_NO_PREALLOC);
MAP(tof_pending, BPF_MAP_TYPE_LRU_HASH, struct key, struct pending, 65536, 0);
MAP(tof_queues, BPF_MAP_TYPE_ARRAY, __u32, struct queue, 2, 0);
MAP(tof_told, BPF_MAP_TYPE_LRU_HASH, struct key, __u32, 65536, 0);
MAP(tof_flows, BPF_MAP_TYPE_LRU_HASH, struct flow_place, struct flow, 262144, 0);
MAP(tof_scratch, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct scratch, 1, 0);
MAP(tof_tracked, BPF_MAP_TYPE_HASH, struct in6_addr, __u32, 65536, BPF_F_NO_PREALLOC);
MAP(tof_splices, BPF_MAP_TYPE_HASH, __u32, __u32, 1024, BPF_F_NO_PREALLOC); // interface of an application's port -> its other
MAP(tof_agent, BPF_MAP_TYPE_ARRAY, __u32, __u64, 1, 0); // when the agent last turned to the fragments it holds
MAP(tof_pieces, BPF_MAP_TYPE_LRU_HASH, struct piece_key, struct piece, 32768, 0);
MAP(tof_services, BPF_MAP_TYPE_HASH, struct in6_addr, __u32, 65536, BPF_F_NO_PREALLOC);
MAP(tof_prefixes, BPF_MAP_TYPE_LPM_TRIE, struct prefix_key, __u32, 16384, BPF_F_NO_PREALLOC);
MAP(tof_rules, BPF_MAP_TYPE_ARRAY, __u32, struct rule, MAX_RULES, 0);
MAP(tof_sets, BPF_MAP_TYPE_LPM_TRIE, struct set_key, __u32, 65536, BPF_F_NO_PREALLOC);
MAP(tof_served, BPF_MAP_TYPE_HASH, __u32, struct served, 65536, BPF_F_NO_PREALLOC);
MAP(tof_spread, BPF_MAP_TYPE_HASH, __u32, struct spread, 16384, BPF_F_NO_PREALLOC);
MAP(tof_accounts, BPF_MAP_TYPE_HASH, struct account_key, struct account, 262144, BPF_F_NO_PREALLOC);
MAP(tof_reported, BPF_MAP_TYPE_HASH, struct account_key, struct account, 524288, BPF_F_NO_PREALLOC); // by the agent
MAP(tof_stations, BPF_MAP_TYPE_LRU_HASH, struct station_key, struct station, 16384, 0);
MAP(tof_tokens, BPF_MAP_TYPE_LRU_HASH, __u64, __u32, 16384, 0);
MAP(tof_sides, BPF_MAP_TYPE_LPM_TRIE, struct side_key, __u32, 4096, BPF_F_NO_PREALLOC);
MAP(tof_hops, BPF_MAP_TYPE_LRU_HASH, struct in6_addr, struct hop, 16384, 0);
MAP(tof_resolvers, BPF_MAP_TYPE_LPM_TRIE, struct prefix_key, __u32, 4096, BPF_F_NO_PREALLOC);
MAP(tof_queries, BPF_MAP_TYPE_LRU_HASH, struct query_key, __u64, 65536, 0);
MAP(tof_answers, BPF_MAP_TYPE_ARRAY, __u32, struct answers, 1, 0);
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENT_BYTES);
} tof_events SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20); // 161 000 of them
} tof_seen SEC(".maps");

// ---------------------------------------------------------------------------------------------- small helpers

// Each XDP program comes twice: NAME for generic mode and NAME_jumbo for native mode, where frames may be longer than a
// page. In generic mode a program that is ready for fragments makes the kernel (seen on 6.18) hand its classifiers a
// packet without its Ethernet header.
#define XDP_PROGRAM(name_, call_)                                                                                      \
	SEC("xdp")                                                                                                     \
	int name_(struct xdp_md *ctx)                                                                                  \
	{                                                                                                              \
		return call_;                                                                                          \
	}                                                                                                              \
	SEC("xdp.frags")                                                                                               \
	int name_##_jumbo(struct xdp_md *ctx)                                                                          \
	{                                                                                                              \
		return call_;                                                                                          \
	}

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&tof_counters, &which);

	if (value)
		(*value)++;
}

static __always_inline struct config *config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&tof_config, &zero);
}

static __always_inline struct shared_state *state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&tof_state, &zero);
}

// Another CPU may have written `then` after this one read the clock: that is no time at all, not an age.
static __always_inline __u64 since(__u64 then, __u64 now)
{
	return now > then ? now - then : 0;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static __always_inline __u64 sum16(const __u8 *address) // of a 16-byte address, folded later
{
	const __be32 *words = (const __be32 *)address;

	return (__u64)words[0] + words[1] + words[2] + words[3];
}

static __always_inline void mapped(struct in6_addr *out, __be32 address) // ::ffff:a.b.c.d
{
	out->in6_u.u6_addr32[0] = 0;
	out->in6_u.u6_addr32[1] = 0;
	out->in6_u.u6_addr32[2] = bpf_htonl(0xffff);
	out->in6_u.u6_addr32[3] = address;
}

// ---------------------------------------------------------------------------------------------- parsing

// Global functions are verified on their own, which keeps the programs within every verifier's budget; offsets that
// come out of them are plain numbers again, so they are masked before they address a packet.
#define OFFSET(offset_) ((offset_) & 0x7ff)
// The compiler must not forget a bound that the verifier needs to see.
#define BOUNDED(value_, mask_) asm volatile("%0 &= %1" : "+r"(value_) : "i"(mask_))

enum kind {
	k_other,        // not GTP-U
	k_odd,          // GTP-U that cannot be judged: counted, by the bridge
	k_fragment,     // first outer fragment of a G-PDU
	k_piece,        // any other outer fragment of UDP
	k_gpdu,
	k_signal,       // Error Indication, End Marker, Echo Response: the agent decides
	k_message,      // any other GTP-U message
};

struct fragment6 {       // RFC 8200 section 4.5
	__u8 next, zero;
	__be16 offset;          // in its upper 13 bits; 1: more fragments
	__be32 ident;
};

struct packet {
	__u16 ip, gtp, inner, l4;   // offsets from the start of the frame; l4 = 0: no first L4 header
	__u16 vlan, inner_length;
	__u8 outer6, inner6, message, gtp_flags;
	__u8 has_container, qfi, tos, protocol;
	__u8 partial, reason, fragment, foreign; // foreign: known to be of another UDP port, or of no UDP
	__u8 piece;                 // `fragment` of the inner packet, `piece` of the outer: 0 whole, FIRST or LATER
	__u8 dscp, has_port;        // of the inner packet: what `look_closer` has found
	__u8 tagged, pad;           // IEEE 802.1Q, in the frame
	__u16 port;
	__be32 ident, inner_ident;  // of fragments
	__be32 teid, source, destination; // outer IPv4
	__u8 addresses[32];               // outer IPv6
	__be32 inner4_source, inner4_destination;
	__u8 inner6_source[16], inner6_destination[16];
};

#define FIRST 1
#define LATER 2

static __always_inline int odd(struct packet *p, __u8 reason)
{
	p->reason = reason;
	return k_odd;
}

// The inner packet: 3GPP TS 29.281 carries any T-PDU, only IPv4 and IPv6 can be a UE's.
static __always_inline int parse_inner(void *data, void *end, struct packet *p, __u32 room)
{
	__u8 *first = data + OFFSET(p->inner);

	if ((void *)(first + 1) > end)
		return odd(p, c_bridged_inner);
	if (*first >> 4 == 4) {
		struct iphdr *ip = (void *)first;
		__u32 header;

		if ((void *)(ip + 1) > end)
			return odd(p, c_bridged_inner);
		header = ip->ihl * 4;
		p->inner_length = bpf_ntohs(ip->tot_len);
		if (header < sizeof(*ip) || p->inner_length < header || p->inner_length > room)
			return odd(p, c_bridged_inner);
		p->inner4_source = ip->saddr;
		p->inner4_destination = ip->daddr;
		p->protocol = ip->protocol;
		p->inner_ident = ip->id;
		p->fragment = ip->frag_off & bpf_htons(0x1fff) ? LATER : ip->frag_off & bpf_htons(0x2000) ? FIRST : 0;
		p->l4 = p->fragment == LATER ? 0 : p->inner + header;
		return k_gpdu;
	}
	if (*first >> 4 == 6) {
		struct ipv6hdr *ip = (void *)first;
		__u32 length;

		if ((void *)(ip + 1) > end)
			return odd(p, c_bridged_inner);
		length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
		if (length > room) // before it is cut to 16 bits
			return odd(p, c_bridged_inner);
		p->inner_length = length;
		p->inner6 = 1;
		__builtin_memcpy(p->inner6_source, &ip->saddr, 16);
		__builtin_memcpy(p->inner6_destination, &ip->daddr, 16);
		p->protocol = ip->nexthdr;
		p->l4 = p->inner + sizeof(*ip);
		if (ip->nexthdr == IPPROTO_FRAGMENT) {
			struct fragment6 *fragment = (void *)(ip + 1);

			p->l4 = 0;
			p->fragment = LATER;
			if ((void *)(fragment + 1) > end || length < sizeof(*ip) + sizeof(*fragment))
				return k_gpdu;
			p->protocol = fragment->next;
			p->inner_ident = fragment->ident;
			if (!(fragment->offset & bpf_htons(0xfff8))) {
				p->fragment = FIRST;
				p->l4 = p->inner + sizeof(*ip) + sizeof(*fragment);
			}
		}
		return k_gpdu;
	}
	return odd(p, c_bridged_inner);
}

#define END_MARKER 254

static __always_inline int is_answer(__u8 message) // Error Indication, Echo Response
{
	return message == 26 || message == 2;
}

// TS 29.281 section 5.1: the four optional octets are there if any of E, S, PN is set.
// TS 29.281 section 5.2.1: the length of an extension header counts units of four octets and is never zero.
static __always_inline int parse_gtp(void *data, void *end, struct packet *p, __u32 length)
{
	__u8 *gtp = data + p->gtp, *optional, next;
	__u32 at, total;
	int i;

	if ((void *)(gtp + 8) > end)
		return odd(p, c_bridged_length);
	p->gtp_flags = gtp[0];
	p->message = gtp[1];
	if (gtp[0] >> 5 != 1 || !(gtp[0] & 0x10))
		return odd(p, c_bridged_version);
	total = 8 + ((__u32)gtp[2] << 8 | gtp[3]);
	__builtin_memcpy(&p->teid, gtp + 4, 4);
	if (p->message != 255 && p->message != END_MARKER && !is_answer(p->message)) {
		p->reason = c_bridged_message;
		return k_message;
	}
	if (total != length)
		return odd(p, c_bridged_length);
	if (p->message != 255)
		return k_signal;
	at = 8;
	if (gtp[0] & 7) {
		optional = gtp + 8;
		if ((void *)(optional + 4) > end || total < 12)
			return odd(p, c_bridged_length);
		next = gtp[0] & 4 ? optional[3] : 0;
		at = 12;
		for (i = 0; i < MAX_EXTENSIONS && next; i++) {
			__u8 *extension = gtp + at;
			__u32 size;

			if ((void *)(extension + 4) > end)
				return odd(p, c_bridged_extension);
			size = extension[0] * 4;
			if (!size || at + size > total || at + size > MOST_HEADER)
				return odd(p, c_bridged_extension);
			if (next == 0x85 && !p->has_container) {
				p->has_container = 1;
				p->qfi = extension[2] & 0x3f; // TS 38.415 section 5.5.2
			}
			at += size;
			extension = gtp + ((at - 1) & 0x7ff); // its last octet: the next type
			if ((void *)(extension + 1) > end)
				return odd(p, c_bridged_extension);
			next = *extension;
		}
		if (next)
			return odd(p, c_bridged_extension);
	}
	if (total <= at)
		return odd(p, c_bridged_inner);
	p->inner = p->gtp + at;
	if (!p->teid)
		return odd(p, c_bridged_inner);
	return parse_inner(data, end, p, total - at);
}

// TS 29.281 section 4.4.2: an answer goes to the port that the message it answers came from, which may be any.
// From port 2152 others may speak too: only what cannot be anything else is taken for an answer.
static __always_inline int parse_answer(void *end, struct packet *p, const struct udphdr *udp)
{
	const __u8 *gtp = (const void *)(udp + 1);

	if ((void *)(gtp + 8) > end || gtp[0] >> 4 != 3 || !is_answer(gtp[1]) ||
	    bpf_ntohs(udp->len) != sizeof(*udp) + 8 + ((__u32)gtp[2] << 8 | gtp[3]))
		return k_other;
	p->foreign = 0;
	p->message = gtp[1];
	__builtin_memcpy(&p->teid, gtp + 4, 4);
	return k_signal;
}

static __always_inline int parse_udp(void *data, void *end, struct packet *p, __u32 room, __u64 addresses)
{
	struct udphdr *udp = data + p->gtp;
	__u32 length;

	if ((void *)(udp + 1) > end || room < sizeof(*udp))
		return odd(p, c_bridged_length);
	length = bpf_ntohs(udp->len);
	if (udp->dest != bpf_htons(GTPU_PORT))
		return udp->source == bpf_htons(GTPU_PORT) && length == room ? parse_answer(end, p, udp) : k_other;
	// A first fragment holds less than its headers say.
	if ((p->piece ? length <= room : length != room) || length < sizeof(*udp) + 8)
		return odd(p, c_bridged_length);
	// An unfinished checksum holds the sum of the pseudo header alone: a sender on this host.
	p->partial = udp->check &&
		     udp->check == fold(addresses + bpf_htons(IPPROTO_UDP) + bpf_htons(length));
	p->gtp += sizeof(*udp);
	return parse_gtp(data, end, p, length - sizeof(*udp));
}

static __always_inline __u16 vlan_of(__u32 tci) // IEEE 802.1Q: VLAN 0 is a priority alone
{
	return tci & 0xfff ? tci & 0xfff : NO_VLAN;
}

static __always_inline int parse(void *data, void *end, __u32 frame, struct packet *p)
{
	struct ethhdr *eth = data;
	struct udphdr *udp;
	__u32 room, begins, headers;
	int kind = k_piece;
	__u64 addresses;
	__be16 type;

	if ((void *)(eth + 1) > end)
		return k_other;
	p->ip = sizeof(*eth);
	type = eth->h_proto;
	if (type == bpf_htons(ETH_P_8021Q)) {
		__be16 *tag = (void *)(eth + 1);

		if ((void *)(tag + 2) > end)
			return k_other;
		p->vlan = vlan_of(bpf_ntohs(tag[0]));
		p->tagged = 1;
		type = tag[1];
		p->ip += 4;
	}
	if (type == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + p->ip;
		__u32 length, header;

		if ((void *)(ip + 1) > end)
			return k_other;
		if (ip->version != 4 || ip->protocol != IPPROTO_UDP)
			return k_other;
		header = ip->ihl * 4;
		length = bpf_ntohs(ip->tot_len);
		p->source = ip->saddr;
		p->destination = ip->daddr;
		p->tos = (ip->tos & DSCP) | (ip->frag_off & bpf_htons(0x4000) ? 0 : MAY_CUT);
		p->gtp = p->ip + header;
		udp = data + p->gtp;
		p->foreign = !(ip->frag_off & bpf_htons(0x1fff)) && (void *)(udp + 1) <= end &&
			     udp->dest != bpf_htons(GTPU_PORT);
		if (header < sizeof(*ip) || length < header || p->ip + length > frame)
			return odd(p, c_bridged_length);
		if (ip->frag_off & bpf_htons(0x3fff)) {
			p->piece = ip->frag_off & bpf_htons(0x1fff) ? LATER : FIRST;
			p->ident = ip->id;
		}
		room = length - header;
		addresses = (__u64)ip->saddr + ip->daddr;
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + p->ip;

		if ((void *)(ip + 1) > end || ip->version != 6)
			return k_other;
		p->outer6 = 1;
		__builtin_memcpy(p->addresses, &ip->saddr, 32);
		p->tos = bpf_ntohs(*(__be16 *)ip) >> 4 & DSCP;
		p->gtp = p->ip + sizeof(*ip);
		room = bpf_ntohs(ip->payload_len);
		if (ip->nexthdr == IPPROTO_FRAGMENT) {
			struct fragment6 *fragment = (void *)(ip + 1);

			udp = (void *)(fragment + 1);
			p->foreign = (void *)udp > end || fragment->next != IPPROTO_UDP;
			if (p->foreign || room < sizeof(*fragment) || p->gtp + room > frame)
				return odd(p, c_bridged_fragment);
			p->piece = fragment->offset & bpf_htons(0xfff8) ? LATER : FIRST;
			p->ident = fragment->ident;
			p->foreign = p->piece == FIRST && (void *)(udp + 1) <= end &&
				     udp->dest != bpf_htons(GTPU_PORT);
			p->gtp += sizeof(*fragment);
			room -= sizeof(*fragment);
		} else if (ip->nexthdr != IPPROTO_UDP) {
			return k_other;
		}
		if (p->gtp + room > frame)
			return odd(p, c_bridged_length);
		addresses = sum16(p->addresses) + sum16(p->addresses + 16);
	} else {
		return k_other;
	}
	begins = p->gtp;
	if (p->piece != LATER)
		kind = parse_udp(data, end, p, room, addresses);
	if (!p->piece)
		return kind;
	p->reason = c_bridged_fragment;
	// What follows the fragment in the frame is none of it: all headers that are read must be within.
	headers = p->l4 ? p->l4 - p->inner + 14 : p->inner6 ? 48 : 20;
	if (headers > p->inner_length)
		headers = p->inner_length;
	return kind == k_gpdu && p->inner + headers <= begins + room ? k_fragment : k_piece;
}

__noinline int parse_xdp(struct xdp_md *ctx, struct packet *p)
{
	if (!p)
		return k_other;
	return parse((void *)(long)ctx->data, (void *)(long)ctx->data_end, bpf_xdp_get_buff_len(ctx), p);
}

__noinline int parse_inner_xdp(struct xdp_md *ctx, struct packet *p)
{
	if (!p)
		return k_other;
	p->inner = 14;
	return parse_inner((void *)(long)ctx->data, (void *)(long)ctx->data_end, p, bpf_xdp_get_buff_len(ctx) - 14);
}

__noinline int parse_skb(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return k_other;
	bpf_skb_pull_data(skb, skb->len < HEAD ? skb->len : HEAD);
	if (skb->vlan_present) {
		// XDP saw this tag in the frame (or `see_tags` tells that it did not); more than one is none of ours.
		if (skb->vlan_proto != bpf_htons(ETH_P_8021Q) || skb->protocol == bpf_htons(ETH_P_8021Q))
			return k_other;
		p->vlan = vlan_of(skb->vlan_tci);
	}
	return parse((void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, p);
}

// ---------------------------------------------------------------------------------------------- tunnels

static __always_inline void key_of(const struct packet *p, struct key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	if (p->outer6) {
		__builtin_memcpy(key->source, p->addresses, 32);
		key->family = 6;
	} else {
		__builtin_memcpy(key->source, &p->source, 4);
		__builtin_memcpy(key->destination, &p->destination, 4);
		key->family = 4;
	}
	key->teid = p->teid;
	key->vlan = p->vlan;
}

static __always_inline struct tunnel *find(const struct key *key)
{
	struct key4 key4;

	if (key->family == 6)
		return bpf_map_lookup_elem(&tof_tunnels6, key);
	__builtin_memcpy(&key4.source, key->source, 4);
	__builtin_memcpy(&key4.destination, key->destination, 4);
	key4.teid = key->teid;
	key4.vlan = key->vlan;
	key4.pad = 0;
	return bpf_map_lookup_elem(&tof_tunnels4, &key4);
}

static __always_inline struct tunnel *tunnel_of(const struct packet *p)
{
	struct key4 key4 = {p->source, p->destination, p->teid, p->vlan, 0};
	struct key key;

	if (!p->outer6)
		return bpf_map_lookup_elem(&tof_tunnels4, &key4);
	key_of(p, &key);
	return bpf_map_lookup_elem(&tof_tunnels6, &key);
}

static __always_inline void add_traffic(struct tunnel *t, __u32 bytes)
{
	__sync_fetch_and_add(&t->packets, 1);
	__sync_fetch_and_add(&t->bytes, bytes);
}

// ---------------------------------------------------------------------------------------------- stations

// Our own (MAC, VLAN) -> adapter table: redirected frames do not refresh the bridge's. Whether the station has moved.
static __always_inline int learn_station(const struct ethhdr *eth, const struct packet *p, __u32 ifindex, __u32 side)
{
	struct station_key key = {.vlan = p->vlan};
	struct station *known, fresh = {ifindex, side, p->tagged};
	struct shared_state *s;
	int moved;

	if (eth->h_source[0] & 1)
		return 0;
	__builtin_memcpy(key.mac, eth->h_source, 6);
	known = bpf_map_lookup_elem(&tof_stations, &key);
	moved = known && known->ifindex != ifindex;
	if (known && !moved) {
		known->tagged |= p->tagged;
		return 0;
	}
	if (moved)
		count(c_station_moved);
	bpf_map_update_elem(&tof_stations, &key, &fresh, BPF_ANY);
	s = state();
	if (s)
		__sync_fetch_and_add(&s->fdb_generation, 1);
	return moved;
}

static __always_inline struct station *station_of(const __u8 *mac, __u16 vlan)
{
	struct station_key key = {.vlan = vlan};

	__builtin_memcpy(key.mac, mac, 6);
	return bpf_map_lookup_elem(&tof_stations, &key);
}

static __always_inline __u32 link_signature(const struct ethhdr *eth, __u32 ifindex, __u8 tos)
{
	const __u16 *m = (const __u16 *)eth;

	return ((__u32)m[0] << 16 | m[1]) * 0x9e3779b1U ^ ((__u32)m[2] << 16 | m[3]) * 0x85ebca6bU ^
	       ((__u32)m[4] << 16 | m[5]) * 0xc2b2ae35U ^ (ifindex << 8 | tos) * 0x27d4eb2fU;
}

// What the tunnel's own packets last carried is what injected ones will carry (MACs, DSCP, DF). After any station's move all
// tunnels say again where theirs is: one whose address somebody else took is back with its next packet. Whether it was.
static __always_inline int follow_link(struct tunnel *t, const struct ethhdr *eth, const struct packet *p,
				       __u32 ifindex, __u32 side)
{
	struct shared_state *s = state();
	__u32 signature = link_signature(eth, ifindex, p->tos);

	if (s)
		signature ^= (s->fdb_generation << 1 | p->tagged) * 0x165667b1U;
	if (t->link_signature == signature)
		return 0;
	__builtin_memcpy(t->source_mac, eth->h_source, 6);
	__builtin_memcpy(t->destination_mac, eth->h_dest, 6);
	t->ifindex = ifindex;
	t->tos = p->tos;
	t->out_generation = 0;
	t->link_signature = signature;
	return learn_station(eth, p, ifindex, side);
}

// VLAN tags are kept beside the frame by a kernel that sends over a veth, and by adapters that cannot be told not to. XDP
// does not see those and would take a tagged packet for its untagged twin's: then the slow lane serves S1, tag or none.
static __always_inline int is_blind(void)
{
	struct shared_state *s = state();

	return s && s->blind_s && (__u32)(bpf_ktime_get_coarse_ns() / 1000000000) - s->blind_s < BLIND_S;
}

static __always_inline void make_blind(void)
{
	struct shared_state *s = state();

	count(c_tags_beside);
	if (s)
		s->blind_s = (__u32)(bpf_ktime_get_coarse_ns() / 1000000000) ?: 1;
}

// The adapter that leads to the tunnel's destination MAC, cached until any station moves. 0: unknown.
static __always_inline __u32 way_out(struct tunnel *t, __u16 vlan, __u32 side)
{
	struct shared_state *s = state();
	struct station *station;

	if (!s)
		return 0;
	if (t->out_ifindex && t->out_generation == s->fdb_generation)
		return t->out_ifindex;
	station = station_of(t->destination_mac, vlan);
	if (!station)
		return 0;
	if (station->side == side && station->ifindex == t->ifindex)
		return 0;
	t->out_generation = s->fdb_generation;
	t->out_ifindex = station->ifindex;
	return station->ifindex;
}

// ---------------------------------------------------------------------------------------------- diversion

static __always_inline int owns(const struct tunnel *t, const struct packet *p, int source)
{
	__u64 prefix;

	if (!p->inner6)
		return t->ue4 && t->ue4 == (source ? p->inner4_source : p->inner4_destination);
	__builtin_memcpy(&prefix, source ? p->inner6_source : p->inner6_destination, 8);
	return t->ue6 && t->ue6 == prefix;
}

// Whether the inner address could be a UE's, as is_global_unicast in tof/wire/inet.py has it: what comes from a link-local
// address (Router Solicitations, listener reports) or goes to all nodes (Router Advertisements) says nothing of whose the
// tunnel is.
static __always_inline int could_be_ue(const struct packet *p, int source)
{
	const __u8 *six = source ? p->inner6_source : p->inner6_destination;
	__u32 four = bpf_ntohl(source ? p->inner4_source : p->inner4_destination), first = four >> 24;
	__u64 prefix;

	if (!p->inner6)
		return first && first != 127 && first < 224 && four >> 16 != 0xa9fe;
	__builtin_memcpy(&prefix, six, 8);
	return prefix && six[0] != 0xff && !(six[0] == 0xfe && (six[1] & 0xc0) == 0x80);
}

// A tunnel that has a UE of the packet's family.
static __always_inline int has_ue(const struct tunnel *t, const struct packet *p)
{
	return p->inner6 ? t->ue6 != 0 : t->ue4 != 0;
}

static __always_inline void inner_address(const struct packet *p, int source, struct in6_addr *out)
{
	if (p->inner6)
		__builtin_memcpy(out, source ? p->inner6_source : p->inner6_destination, 16);
	else
		mapped(out, source ? p->inner4_source : p->inner4_destination);
}

// Whether it goes to a service's one address, which can be no UE's.
static __always_inline int to_service_address(const struct packet *p)
{
	struct in6_addr address;

	inner_address(p, 0, &address);
	return bpf_map_lookup_elem(&tof_services, &address) != 0;
}

// At most one event per tunnel and 100 ms; `now_ms` wraps, which costs one event.
static __always_inline void tell(struct tunnel *t, __u32 kind, const struct packet *p, __u32 side, __u64 now)
{
	__u32 now_ms = now / 1000000;
	struct event *e;

	if (now_ms - t->event_ms < 100)
		return;
	t->event_ms = now_ms;
	e = bpf_ringbuf_reserve(&tof_events, sizeof(*e) + 32, 0);
	if (!e) {
		count(c_sample_lost);
		return;
	}
	e->kind = kind;
	e->side = side;
	e->ifindex = 0;
	e->index = t->index;
	e->length = e->captured = p->inner6 ? 32 : 8;
	e->vlan = p->vlan;
	__builtin_memset(e->data, 0, 32);
	if (p->inner6) {
		__builtin_memcpy(e->data, p->inner6_source, 16);
		__builtin_memcpy(e->data + 16, p->inner6_destination, 16);
	} else {
		__builtin_memcpy(e->data, &p->inner4_source, 4);
		__builtin_memcpy(e->data + 4, &p->inner4_destination, 4);
	}
	bpf_ringbuf_submit(e, 0);
}

// An uplink tunnel carries a source that is not its UE's: it may be another's by now. Until the agent has decided, nothing
// goes into its pair on behalf of the one that had it; a first address of its family is more often the same UE's second one.
static __always_inline void foreign(struct tunnel *t, const struct packet *p, __u32 side, __u64 now)
{
	__u32 now_ms = now / 1000000, index = t->index;
	struct outlet *outlet;

	if (t->calm_ms && (__s32)(t->calm_ms - now_ms) > 0)
		return;
	if (now_ms - t->event_ms >= 100 && has_ue(t, p)) {
		outlet = bpf_map_lookup_elem(&tof_outlets, &index);
		index = outlet ? outlet->peer : 0;
		outlet = index ? bpf_map_lookup_elem(&tof_outlets, &index) : 0;
		if (outlet)
			outlet->doubted_ns = bpf_ktime_get_ns();
	}
	tell(t, e_spoofed, p, side, now);
}

// A downlink packet to anybody but the tunnel's UE (a router advertisement, the other family's) is no word of the core's
// about whose the tunnel is: a doubt outlasts it.
static __always_inline void heard(struct tunnel *t, const struct packet *p, __u64 now)
{
	__u32 index = t->index;
	struct outlet *outlet;
	__u64 later;

	if (t->direction == SGW && !owns(t, p, 0)) {
		later = bpf_ktime_get_ns() + 1;
		outlet = bpf_map_lookup_elem(&tof_outlets, &index);
		if (outlet && outlet->doubted_ns > t->last_ns && outlet->doubted_ns < later)
			outlet->doubted_ns = later;
	}
	t->last_ns = now;
}

// What a packet in a known tunnel says about its UE.
static __always_inline void notice(struct tunnel *t, const struct packet *p, __u32 side, __u64 now)
{
	if (t->direction == ENB) {
		if (!owns(t, p, 1)) {
			if (could_be_ue(p, 1)) {
				count(c_spoofed);
				foreign(t, p, side, now);
			}
			return;
		}
		if (p->inner6)
			__builtin_memcpy(t->identifier6, p->inner6_source + 8, 8);
		if (t->flags & T_LEFT)
			tell(t, e_returned, p, side, now);
	} else if (!owns(t, p, 0)) {
		if (!could_be_ue(p, 0) || to_service_address(p))
			return;
		t->flags |= T_MOVED; // nothing more goes in on behalf of the one that had the tunnel
		tell(t, e_downlink_moved, p, side, now);
	} else if (t->flags & T_ENDED) { // an ended tunnel that speaks again is another one
		tell(t, e_downlink_moved, p, side, now);
	} else if (t->flags & T_MOVED) {
		t->flags &= ~T_MOVED;
	}
}

// The same hash as `filter_bit` in tof/drivers/layout.py.
static __always_inline int may_be_service(const struct config *c, const struct packet *p)
{
	const __be32 *words = (const __be32 *)p->inner6_destination;
	__u32 address = p->inner6 ? bpf_ntohl(words[0] ^ words[1] ^ words[2] ^ words[3]) :
				    bpf_ntohl(p->inner4_destination);

	return c->service_filter >> (address * 0x9e3779b1U >> 26) & 1;
}

// Whether the user's packet has `bytes` of L4: what follows it in the frame is none of it.
static __always_inline int has_l4(const struct packet *p, __u32 bytes)
{
	return p->l4 && p->l4 + bytes <= p->inner + p->inner_length;
}

static __always_inline void ports_of(void *data, void *end, const struct packet *p, struct l4 *l4)
{
	__u8 *h = data + OFFSET(p->l4);

	if (!has_l4(p, 8) || (void *)(h + 8) > end)
		return;
	if (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP) {
		__builtin_memcpy(&l4->source, h, 4);
		if (p->protocol == IPPROTO_TCP && has_l4(p, 14) && (void *)(h + 14) <= end)
			l4->tcp_flags = h[13];
	} else if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6) {
		__builtin_memcpy(&l4->source, h + 4, 2); // an echo's identifier, the same both ways
		l4->destination = l4->source;
	}
}

static __always_inline void flow_of(const struct packet *p, const struct l4 *l4, int from_ue, struct flow_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	if (p->inner6) {
		__builtin_memcpy(key->ue, from_ue ? p->inner6_source : p->inner6_destination, 16);
		__builtin_memcpy(key->service, from_ue ? p->inner6_destination : p->inner6_source, 16);
	} else {
		__builtin_memcpy(key->ue, from_ue ? &p->inner4_source : &p->inner4_destination, 4);
		__builtin_memcpy(key->service, from_ue ? &p->inner4_destination : &p->inner4_source, 4);
	}
	key->ue_port = from_ue ? l4->source : l4->destination;
	key->service_port = from_ue ? l4->destination : l4->source;
	key->protocol = p->protocol;
}

// The flow under `key`, among its UE's own or in the pool; 0: none. Then, if `first` is given, `place` is where it would
// stand, a free place or else that of the longest silent, and `first` the first that it could have had.
static __always_inline struct flow *flow_at(const struct flow_key *key, int pool, struct flow_place *place,
					    __u32 *first)
{
	const volatile __u64 *wanted = (const __u64 *)key; // not to be kept on the stack
	const __u32 *w = (const __u32 *)key;
	__u32 hash = (w[2] ^ w[3]) * 0x9e3779b1U ^ (w[4] ^ w[5] ^ w[6] ^ w[7]) * 0x85ebca6bU ^ w[8] * 0xc2b2ae35U ^
		     w[9] * 0x27d4eb2fU;
	__u32 mask = pool ? FLOW_POOL - 1 : FLOW_SHARE - 1, slot, i;
	__u64 stalest = ~0ULL;
	struct flow *one;

	if (pool)
		hash ^= (w[0] ^ w[1]) * 0x165667b1U;
	hash = (hash ^ hash >> 15) * 0x2c1b3c6dU;
	hash ^= hash >> 12;
	place->ue = pool ? 0 : wanted[0];
	place->pad = 0;
	slot = hash;
	if (first)
		*first = hash & mask;
#pragma unroll 1
	for (i = 0; i < FLOW_WAYS; i++) {
		place->slot = (hash + i) & mask;
		one = bpf_map_lookup_elem(&tof_flows, place);
		if (one) {
			const __u64 *there = (const __u64 *)&one->key;

			if (!((there[0] ^ wanted[0]) | (there[1] ^ wanted[1]) | (there[2] ^ wanted[2]) |
			      (there[3] ^ wanted[3]) | (there[4] ^ wanted[4])))
				return one;
		}
		if (!first) { // not at the first place, and nobody was ever sent on from there: nowhere
			if (i == 0 && (!one || !one->overflowed))
				return 0;
			continue;
		}
		if ((one ? one->last_ns : 0) < stalest) {
			stalest = one ? one->last_ns : 0;
			slot = hash + i;
		}
	}
	place->slot = slot & mask;
	return 0;
}

static __always_inline void forget_flow(struct flow *known, struct flow_place *place)
{
	if (!known->overflowed) {
		bpf_map_delete_elem(&tof_flows, place);
		return;
	}
	known->key.over = 1;
	known->last_ns = 0;
}

// Put `fresh` at `place`; `first` is where it is looked for first.
static __always_inline void put_flow(struct flow *fresh, struct flow_place *place, __u32 first,
				     const struct flow *known, __u64 now)
{
	struct flow *before = bpf_map_lookup_elem(&tof_flows, place);
	__u32 slot = place->slot;

	if (before && before != known && since(before->last_ns, now) < FLOW_FRESH_NS)
		count(c_flow_displaced);
	fresh->overflowed = before ? before->overflowed : 0;
	bpf_map_update_elem(&tof_flows, place, fresh, BPF_ANY);
	if (slot == first)
		return;
	place->slot = first;
	before = bpf_map_lookup_elem(&tof_flows, place);
	if (before)
		before->overflowed = 1;
}

#define TCP_SYN 0x02
#define TCP_ACK 0x10

// Clamp the MSS option of a SYN so that full segments fit the tunnel in both directions (RFC 879, RFC 6691).
// `l4`: offset of the TCP header; `size`: of what the packet has from there on; `limit`: largest MSS.
__noinline int clamp_mss(struct xdp_md *ctx, __u32 l4, __u32 size, __u32 limit)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u8 *tcp = data + OFFSET(l4);
	__u32 at = 20, i, header;

	if (!l4 || (void *)(tcp + 20) > end || !(tcp[13] & TCP_SYN))
		return 0;
	header = (tcp[12] >> 4) * 4;
	if (header > size)
		header = size;
	for (i = 0; i < 20; i++) {
		__u8 *option = tcp + (at & 0x3f);

		if (at + 4 > header || at > 56 || (void *)(option + 4) > end || option[0] == 0)
			return 0;
		if (option[0] == 1) {
			at++;
			continue;
		}
		if (option[0] == 2 && option[1] == 4) {
			__be16 *checksum = (__be16 *)(tcp + 16);
			__u32 old = (__u32)option[2] << 8 | option[3], was, is;

			if (old <= limit)
				return 0;
			option[2] = limit >> 8;
			option[3] = limit;
			// RFC 1624; an option at an odd offset contributes byte-swapped.
			was = at & 1 ? ((old & 0xff) << 8 | old >> 8) : old;
			is = at & 1 ? ((limit & 0xff) << 8 | limit >> 8) : limit;
			*checksum = bpf_htons(~fold((~bpf_ntohs(*checksum) & 0xffff) + (~was & 0xffff) + is));
			return 1;
		}
		if (option[1] < 2)
			return 0;
		at += option[1];
	}
	return 0;
}

static __always_inline void clamp(struct xdp_md *ctx, const struct config *c, const struct packet *p, __u32 outer6)
{
	__u32 overhead = (outer6 ? 40 : 20) + 8 + WORST_GTP + (p->inner6 ? 40 : 20) + 20;

	if (p->protocol == IPPROTO_TCP && has_l4(p, 20) && c->mtu > overhead + 200)
		clamp_mss(ctx, p->l4, p->inner + p->inner_length - p->l4, c->mtu - overhead);
}

// An ICMP error quotes the packet that it is about (RFC 792, RFC 4443 section 3). Translation without state leaves what is
// quoted as its receiver had it: the end that is not the error's receiver is the error's sender, whatever address it had.
static __always_inline int is_error(__u8 type, int six)
{
	return six ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

static __always_inline void requote4(struct iphdr *quoted, __be32 *end, __be32 address)
{
	// The header's own checksum takes up the difference, so that the error's stays right (RFC 1624).
	quoted->check = ~fold((__u16)~quoted->check + (__u16)~fold(*end) + address);
	*end = address;
}

static __always_inline __u16 resummed6(__u16 sum, const struct in6_addr *was, const struct in6_addr *is)
{
	return ~fold((__u16)~sum + (__u16)~fold(sum16(was->in6_u.u6_addr8)) + sum16(is->in6_u.u6_addr8));
}

static __always_inline int same_address(const void *one, const void *other)
{
	const __u64 *a = one, *b = other;

	return a[0] == b[0] && a[1] == b[1];
}

__noinline int mend_quote(struct xdp_md *ctx, struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *quoted6;
	struct iphdr *quoted;
	__u8 *icmp;

	if (!p || !p->l4 || p->fragment || p->protocol != (p->inner6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return 0;
	icmp = data + OFFSET(p->l4);
	quoted = (void *)(icmp + 8);
	if (!has_l4(p, 8 + sizeof(*quoted)) || (void *)(quoted + 1) > end || !is_error(icmp[0], p->inner6))
		return 0;
	if (!p->inner6) {
		if (quoted->version == 4 && quoted->saddr == p->inner4_destination &&
		    quoted->daddr != p->inner4_source)
			requote4(quoted, &quoted->daddr, p->inner4_source);
		return 0;
	}
	quoted6 = (void *)quoted;
	if (!has_l4(p, 8 + sizeof(*quoted6)) || (void *)(quoted6 + 1) > end || quoted6->version != 6 ||
	    !same_address(&quoted6->saddr, p->inner6_destination) || same_address(&quoted6->daddr, p->inner6_source))
		return 0;
	*(__u16 *)(icmp + 2) = resummed6(*(__u16 *)(icmp + 2), &quoted6->daddr, (struct in6_addr *)p->inner6_source);
	__builtin_memcpy(&quoted6->daddr, p->inner6_source, 16);
	return 0;
}

// What is remembered of a datagram's fragments while its identification is not used again.
static __always_inline struct piece *piece_of(const struct piece_key *key, __u64 now)
{
	struct piece *known = bpf_map_lookup_elem(&tof_pieces, key);

	return known && since(known->since_ns, now) < PIECE_NS ? known : 0;
}

static __always_inline void inner_pieces(const struct packet *p, __u32 session, struct piece_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	if (p->inner6) {
		__builtin_memcpy(key->source, p->inner6_source, 32);
	} else {
		__builtin_memcpy(key->source, &p->inner4_source, 4);
		__builtin_memcpy(key->destination, &p->inner4_destination, 4);
	}
	key->family = p->inner6 ? 6 : 4;
	key->ident = p->inner_ident;
	key->protocol = p->protocol;
	key->session = session;
}

static __always_inline void outer_address(const struct packet *p, int source, struct in6_addr *out)
{
	if (p->outer6)
		__builtin_memcpy(out, source ? p->addresses : p->addresses + 16, 16);
	else
		mapped(out, source ? p->source : p->destination);
}

// What a service's selection may look at in the inner packet.
static __always_inline void look_closer(void *data, void *end, struct packet *p)
{
	__u8 *inner = data + OFFSET(p->inner), *ports = data + OFFSET(p->l4);

	if ((void *)(inner + 2) <= end)
		p->dscp = p->inner6 ? (inner[0] & 0xf) << 2 | inner[1] >> 6 : inner[1] >> 2;
	p->has_port = 0;
	if ((p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP || p->protocol == IPPROTO_SCTP) &&
	    has_l4(p, 4) && (void *)(ports + 4) <= end) {
		p->has_port = 1;
		p->port = (__u16)ports[2] << 8 | ports[3];
	}
}

static __always_inline int in_set(__u32 set, const struct in6_addr *address)
{
	struct set_key key = {.prefix = 32 + 128, .set = set};

	__builtin_memcpy(key.address, address, 16);
	return !set || bpf_map_lookup_elem(&tof_sets, &key);
}

#define HOLDS 1
#define UNSEEN 2                // a later fragment, which shows no port

// Does rule `at` select this uplink packet, its destination aside?
__noinline int rule_holds(struct packet *p, __u32 at)
{
	struct rule *rule = bpf_map_lookup_elem(&tof_rules, &at);
	struct in6_addr address;

	if (!p || !rule)
		return 0;
	if ((rule->protocol != ANY && rule->protocol != p->protocol) ||
	    (rule->dscps && !(rule->dscps >> (p->dscp & 63) & 1)) ||
	    (rule->vlan != ANY && rule->vlan != (p->vlan == NO_VLAN ? 0 : p->vlan)))
		return 0;
	if (rule->ues) {
		inner_address(p, 1, &address);
		if (!in_set(rule->ues, &address))
			return 0;
	}
	if (rule->enbs) {
		outer_address(p, 1, &address);
		if (!in_set(rule->enbs, &address))
			return 0;
	}
	if (rule->sgws) {
		outer_address(p, 0, &address);
		if (!in_set(rule->sgws, &address))
			return 0;
	}
	if (!rule->looks_at_ports)
		return HOLDS;
	if (p->fragment == LATER)
		return UNSEEN;
	return p->has_port && p->port >= rule->port_first && p->port <= rule->port_last ? HOLDS : 0;
}

// Where the rules for this destination begin, plus one.
static __always_inline __u32 rules_for(const struct config *c, const struct packet *p)
{
	struct prefix_key key = {.prefix = 128};
	struct in6_addr address;
	__u32 *list;

	inner_address(p, 0, &address);
	list = bpf_map_lookup_elem(&tof_services, &address);
	if (!list && c->prefixes && could_be_ue(p, 0)) {
		__builtin_memcpy(key.address, &address, 16);
		list = bpf_map_lookup_elem(&tof_prefixes, &key);
	}
	return list ? *list : 0;
}

// The number of the service that selects the packet, by the rules from `at` on; 0: none.
__noinline __u32 first_rule(struct packet *p, __u32 at)
{
	struct rule *rule;
	int i, holds;

	if (!p)
		return 0;
#pragma unroll 1
	for (i = 0; i < MAX_LIST; i++, at++) {
		holds = rule_holds(p, at);
		if (holds == UNSEEN)
			return 0;
		rule = bpf_map_lookup_elem(&tof_rules, &at);
		if (!rule)
			return 0;
		if (holds)
			return rule->number;
		if (rule->last)
			return 0;
	}
	return 0;
}

// The service that this number is an application of.
static __always_inline __u32 service_behind(__u32 application)
{
	struct served *served = bpf_map_lookup_elem(&tof_served, &application);

	return served ? served->service : application;
}

static __always_inline int is_of(__u32 application, __u32 service)
{
	return application == service || service_behind(application) == service;
}

// The application of `service`, which has several, that this packet's flow goes to, 0: none, to the core. `before`: the one that it has gone to
// so far, and stays with while that lives. The ports stand in tof_scratch.
__noinline __u32 application_of(struct packet *p, __u32 service, __u32 before)
{
	struct scratch *scratch;
	struct spread *spread;
	struct served *mine;
	__u32 zero = 0, hash;

	if (!p)
		return 0;
	mine = before ? bpf_map_lookup_elem(&tof_served, &before) : 0;
	if (mine && mine->service == service && mine->state & S_LIVES)
		return before;
	spread = bpf_map_lookup_elem(&tof_spread, &service);
	scratch = bpf_map_lookup_elem(&tof_scratch, &zero);
	if (!spread || !scratch)
		return 0;
	if (p->inner6) {
		const __be32 *words = (const __be32 *)p->inner6_source;

		hash = bpf_ntohl(words[0]) * 0x9e3779b1U ^ bpf_ntohl(words[1]) * 0x85ebca6bU;
	} else {
		hash = bpf_ntohl(p->inner4_source) * 0x9e3779b1U;
	}
	if (spread->by_flow && !p->fragment)
		hash ^= ((__u32)bpf_ntohs(scratch->l4.source) << 16 | bpf_ntohs(scratch->l4.destination)) * 0xc2b2ae35U ^
			p->protocol * 0x27d4eb2fU;
	hash = (hash ^ hash >> 15) * 0x2c1b3c6dU;
	hash ^= hash >> 12;
	return spread->slots[hash & (SPREAD_SLOTS - 1)];
}

// The service that an uplink packet belongs to, 0: none. `t`: its tunnel, if that is known: later inner fragments follow
// their first one.
static __always_inline __u32 service_of(void *data, void *end, const struct config *c, struct packet *p,
					const struct tunnel *t)
{
	struct scratch *scratch;
	struct piece *first;
	__u32 at, zero = 0;

	if (!may_be_service(c, p))
		return 0;
	at = rules_for(c, p);
	if (!at)
		return 0;
	if (t && p->fragment == LATER) {
		scratch = bpf_map_lookup_elem(&tof_scratch, &zero);
		if (!scratch)
			return 0;
		inner_pieces(p, t->session, &scratch->piece_key);
		first = piece_of(&scratch->piece_key, bpf_ktime_get_ns());
		if (first)
			return first->fate == f_divert ? service_behind(first->queued) : 0;
	}
	look_closer(data, end, p);
	return first_rule(p, at - 1);
}

// Has the core answered this uplink tunnel: is there a downlink tunnel for its replies?
static __always_inline int is_paired(__u32 uplink)
{
	struct outlet *outlet = bpf_map_lookup_elem(&tof_outlets, &uplink);

	return outlet && outlet->peer;
}

static __always_inline int heart_beats(__u64 now)
{
	struct shared_state *s = state();

	return s && since(s->beat_ns, now) < HEARTBEAT_NS;
}

static __always_inline int in_use(const struct flow *known, __u64 now)
{
	__u32 uplink = known->uplink;

	return since(known->last_ns, now) < FLOW_FRESH_NS && bpf_map_lookup_elem(&tof_outlets, &uplink);
}

// In a tunnel that is not known to be its UE's: a segment of a diverted connection, whose UE may have moved here. The
// service's own server would reset it.
__noinline int may_have_moved(struct xdp_md *ctx, struct packet *p, __u32 service, __u64 now)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct scratch *scratch;
	struct flow *known;
	__u32 zero = 0;
	int pool;

	scratch = bpf_map_lookup_elem(&tof_scratch, &zero);
	if (!p || !scratch || p->protocol != IPPROTO_TCP || p->fragment == LATER || !heart_beats(now))
		return 0;
	__builtin_memset(&scratch->l4, 0, sizeof(scratch->l4));
	ports_of(data, end, p, &scratch->l4);
	if ((scratch->l4.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return 0;
	flow_of(p, &scratch->l4, 1, &scratch->fresh.key);
#pragma unroll 1
	for (pool = 0; pool < 2; pool++) {
		known = flow_at(&scratch->fresh.key, pool, &scratch->place, 0);
		if (known)
			return is_of(known->application, service) && in_use(known, now);
	}
	return 0;
}

// Is this flow ours to divert, and to which application? Writes the flow table, from which replies find their tunnel.
// Negative: neither ours nor the core's for the moment.
static __always_inline __s64 judge_flow(void *data, void *end, struct packet *p, struct tunnel *t, __u32 service,
					__u32 spread, __u64 now, int alive, struct scratch *scratch)
{
	struct flow_place *place = &scratch->place;
	struct flow *known, *fresh = &scratch->fresh;
	int opens, pooled = 0;

	fresh->last_ns = now;
	fresh->session = t->session;
	fresh->uplink = t->index;
	fresh->has_qfi = p->has_container;
	fresh->qfi = p->qfi;
	__builtin_memset(&scratch->l4, 0, sizeof(scratch->l4));
	ports_of(data, end, p, &scratch->l4);
	flow_of(p, &scratch->l4, 1, &fresh->key);
	opens = p->protocol == IPPROTO_TCP && (scratch->l4.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	known = flow_at(&fresh->key, 0, place, &scratch->own_first);
	scratch->own_slot = place->slot;
	if (!known) {
		known = flow_at(&fresh->key, 1, place, &scratch->pool_first);
		pooled = 1;
	}
	if (!alive) {
		// A connection that begins at the core stays there.
		if (opens && known)
			forget_flow(known, place);
		count(c_ovs_down);
		return 0;
	}
	if (known && known->session != t->session && in_use(known, now) &&
	    (known->last_ns >= t->learnt_ns || !is_paired(t->index))) { // its UE has not come here from there
		// The service's own server would reset a connection that it does not know.
		if (p->protocol == IPPROTO_TCP && !opens && since(t->learnt_ns, now) < YOUNG_NS) {
			count(c_flow_waits);
			return -1;
		}
		count(c_flow_ambiguous);
		return 0;
	}
	if (p->protocol == IPPROTO_TCP && !opens &&
	    (!known || (known->application && !is_of(known->application, service)))) {
		count(c_flow_unknown);
		return 0;
	}
	fresh->application = spread ? application_of(p, service, known ? known->application : 0) : service;
	if (!fresh->application) {
		count(c_no_application);
		return 0;
	}
	if (pooled && is_paired(t->index)) { // from the pool to its UE's own
		if (known)
			forget_flow(known, place);
		pooled = 0;
		__builtin_memcpy(&place->ue, fresh->key.ue, sizeof(place->ue));
		place->slot = scratch->own_slot;
	} else if (known && known->application == fresh->application && known->uplink == t->index && known->qfi == p->qfi &&
		   known->has_qfi == p->has_container) {
		known->last_ns = now;
		return fresh->application;
	}
	put_flow(fresh, place, pooled ? scratch->pool_first : scratch->own_first, known, now);
	return fresh->application;
}

// The same of a packet that may be a fragment: the first one alone has ports, the others follow it.
static __always_inline __s64 take_flow(void *data, void *end, struct packet *p, struct tunnel *t, __u32 service,
				       __u32 spread, __u64 now, int alive)
{
	struct scratch *scratch;
	struct piece_key *key;
	struct piece *first;
	__u32 zero = 0;
	__s64 taken;

	scratch = bpf_map_lookup_elem(&tof_scratch, &zero);
	if (!scratch)
		return 0;
	key = &scratch->piece_key;

	if (p->fragment != LATER || !alive) {
		taken = judge_flow(data, end, p, t, service, spread, now, alive, scratch);
		if (p->fragment == FIRST) {
			scratch->piece.since_ns = now;
			scratch->piece.fate = taken > 0 ? f_divert : f_pass;
			scratch->piece.queued = taken;
			inner_pieces(p, t->session, key);
			bpf_map_update_elem(&tof_pieces, key, &scratch->piece, BPF_ANY);
		}
		return taken;
	}
	inner_pieces(p, t->session, key);
	first = piece_of(key, now);
	if (first)
		return first->fate == f_divert ? first->queued : 0;
	if (p->protocol == IPPROTO_TCP) {
		count(c_inner_fragment);
		return 0;
	}
	return spread ? application_of(p, service, 0) : service;
}

// Open vSwitch 3.1 takes the data of a later IPv4 fragment for a TCP or UDP header and "corrects the checksum" in it when
// it rewrites an address. On br-ue such fragments go by another protocol, told by the reserved bit of RFC 791; but its
// connection tracking, which puts fragments together, has to see them as they are.
#define VEIL_UDP 253
#define VEIL_TCP 254
#define VEIL_BIT 0x8000

static __always_inline int veil(struct iphdr *ip)
{
	__be16 *words = (__be16 *)ip, offset = words[3], protocol = words[4];

	if (!(ip->frag_off & bpf_htons(0x1fff)) || (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_TCP))
		return 0;
	ip->frag_off |= bpf_htons(VEIL_BIT);
	ip->protocol = ip->protocol == IPPROTO_UDP ? VEIL_UDP : VEIL_TCP;
	ip->check = ~fold((__u16)~ip->check + (__u16)~offset + words[3] + (__u16)~protocol + words[4]); // RFC 1624
	return 1;
}

static __always_inline int unveil(struct iphdr *ip)
{
	__be16 *words = (__be16 *)ip, offset = words[3], protocol = words[4];

	if (!(ip->frag_off & bpf_htons(VEIL_BIT)) || !(ip->frag_off & bpf_htons(0x1fff)) ||
	    (ip->protocol != VEIL_UDP && ip->protocol != VEIL_TCP))
		return 0;
	ip->frag_off &= ~bpf_htons(VEIL_BIT);
	ip->protocol = ip->protocol == VEIL_UDP ? IPPROTO_UDP : IPPROTO_TCP;
	ip->check = ~fold((__u16)~ip->check + (__u16)~offset + words[3] + (__u16)~protocol + words[4]);
	return 1;
}

static __always_inline void add_served(struct served *served, __u32 bytes)
{
	__sync_fetch_and_add(&served->packets, 1);
	__sync_fetch_and_add(&served->bytes, bytes);
}

static __always_inline void mapped_outer(__u8 *out, const __u8 *address, int six)
{
	__be32 four;

	if (six) {
		__builtin_memcpy(out, address, 16);
	} else {
		__builtin_memcpy(&four, address, 4);
		mapped((struct in6_addr *)out, four);
	}
}

// Add the user's packet to its account with `service`. `own`: the tunnel that it is injected into, 0: it is uplink.
__noinline int account(struct packet *p, struct key *own, __u32 service, __u64 now)
{
	__u32 zero = 0, way = own ? SGW : ENB;
	struct scratch *scratch = bpf_map_lookup_elem(&tof_scratch, &zero);
	struct account_key *key;
	struct account *known;

	if (!p || !scratch)
		return 0;
	key = &scratch->account_key;
	__builtin_memset(key, 0, sizeof(*key));
	if (p->inner6)
		__builtin_memcpy(key->ue, own ? p->inner6_destination : p->inner6_source, 8);
	else
		mapped((struct in6_addr *)key->ue, own ? p->inner4_destination : p->inner4_source);
	if (own) {
		mapped_outer(key->enb, own->destination, own->family == 6);
		mapped_outer(key->sgw, own->source, own->family == 6);
		key->vlan = own->vlan;
	} else {
		outer_address(p, 1, (struct in6_addr *)key->enb);
		outer_address(p, 0, (struct in6_addr *)key->sgw);
		key->vlan = p->vlan;
	}
	key->service = service;
	known = bpf_map_lookup_elem(&tof_accounts, key);
	if (!known) {
		__builtin_memset(&scratch->account, 0, sizeof(scratch->account));
		scratch->account.first_ns = now;
		// A new account has nothing reported yet, whatever an agent left behind that ended while it closed one.
		bpf_map_delete_elem(&tof_reported, key);
		bpf_map_update_elem(&tof_accounts, key, &scratch->account, BPF_NOEXIST);
		known = bpf_map_lookup_elem(&tof_accounts, key);
	}
	if (!known) {
		count(c_unaccounted);
		return 0;
	}
	__sync_fetch_and_add(&known->packets[way], 1);
	__sync_fetch_and_add(&known->bytes[way], p->inner_length);
	known->last_ns = now;
	return 0;
}

// A frame that cannot go now is handed to the agent whole: it holds, cuts or answers it.
static __always_inline int hand(struct xdp_md *ctx, __u32 kind, __u32 index, __u64 size, const __u64 room)
{
	struct event *e = bpf_ringbuf_reserve(&tof_events, sizeof(*e) + room, 0);

	if (!e) {
		count(c_sample_lost);
		return XDP_DROP;
	}
	e->kind = kind;
	e->side = SGW;
	e->ifindex = ctx->ingress_ifindex;
	e->index = index;
	e->length = size;
	e->vlan = NO_VLAN;
	e->captured = size;
	BOUNDED(size, 0x3fff);
	if (size < ETH_HLEN || size > room || bpf_xdp_load_bytes(ctx, 0, e->data, size)) {
		bpf_ringbuf_discard(e, 0);
		return XDP_DROP;
	}
	bpf_ringbuf_submit(e, 0);
	return XDP_DROP;
}

__noinline int hand_over(struct xdp_md *ctx, __u32 kind, __u32 index)
{
	__u64 size = bpf_xdp_get_buff_len(ctx);

	if (size < ETH_HLEN)
		return XDP_DROP;
	if (size <= HELD_BYTES)
		return hand(ctx, kind, index, size, HELD_BYTES);
	if (size <= LARGE_BYTES && bpf_ringbuf_query(&tof_events, BPF_RB_AVAIL_DATA) < EVENT_BYTES / 2)
		return hand(ctx, kind, index, size, LARGE_BYTES);
	count(c_hand_over_lost);
	return XDP_DROP;
}

#define TOO_LONG 100            // for the applications' link: the frame is as it would have gone to OVS

static __always_inline int too_long(const struct config *c, const struct packet *p)
{
	return c->apps_mtu && p->inner_length > c->apps_mtu;
}

// Decapsulate an uplink packet to a service and hand it to OVS. Negative: not diverted, go on.
__noinline int divert(struct xdp_md *ctx, struct packet *p, struct tunnel *t, __u64 now, __u32 service)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 frame, surplus, index;
	struct config *c = config();
	struct served *served;
	struct ethhdr *eth;
	__u8 *payload;
	__s64 taken;
	int tracked;

	if (!p || !t || !c)
		return -1;
	index = t->index;
	served = bpf_map_lookup_elem(&tof_served, &service);
	if (!served || !(served->state & (S_DIVERT | S_SHADOW)))
		return -1;
	if (!owns(t, p, 1)) {
		if (!could_be_ue(p, 1)) { // what could be one is counted for every packet, see `notice`
			count(c_spoofed);
			return -1;
		}
		if (!(served->state & S_DIVERT) || !may_have_moved(ctx, p, service, now))
			return -1;
		count(c_flow_waits);
		return XDP_DROP;
	}
	if (served->state & S_SHADOW) {
		add_served(served, p->inner_length);
		count(c_shadowed);
		return -1;
	}
	taken = take_flow(data, end, p, t, service, served->state & S_SPREAD, now, heart_beats(now));
	if (taken <= 0)
		return taken ? XDP_DROP : -1;
	add_served(served, p->inner_length);
	if (c->accounting)
		account(p, 0, service, now);
	tracked = served->state & S_TRACKED;
	if (taken != service) {
		service = taken;
		served = bpf_map_lookup_elem(&tof_served, &service);
		tracked = served && served->state & S_TRACKED;
	}
	clamp(ctx, c, p, p->outer6);
	frame = bpf_xdp_get_buff_len(ctx);
	surplus = frame - p->inner - p->inner_length;
	if (surplus && bpf_xdp_adjust_tail(ctx, -(int)surplus))
		return -1;
	if (bpf_xdp_adjust_head(ctx, (int)p->inner - (int)sizeof(*eth)))
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	payload = (void *)(eth + 1);
	if ((void *)(payload + sizeof(struct iphdr)) > end)
		return XDP_DROP;
	if (!too_long(c, p) && !p->inner6 && !tracked)
		veil((struct iphdr *)payload);
	eth->h_dest[0] = 0x02; // the application's MAC address, by which the classifier knows it
	eth->h_dest[1] = 0x72;
	service = bpf_htonl(service);
	__builtin_memcpy(eth->h_dest + 2, &service, 4);
	eth->h_source[0] = 0x02;
	eth->h_source[1] = 0x70;
	index = bpf_htonl(index);
	__builtin_memcpy(eth->h_source + 2, &index, 4);
	eth->h_proto = p->inner6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	if (too_long(c, p)) {
		count(c_apps_too_big);
		return TOO_LONG;
	}
	count(c_diverted);
	return bpf_redirect(c->ue_ifindex, 0);
}

static __always_inline int divert_or_hand_over(struct xdp_md *ctx, struct packet *p, struct tunnel *t, __u64 now,
					       __u32 service)
{
	int verdict = divert(ctx, p, t, now, service);

	// Not from there: three calls deep, the programs' stack would be too small.
	return verdict == TOO_LONG ? hand_over(ctx, e_apps_too_big, 0) : verdict;
}

// The Pinger knows its own replies by a 64-bit token; a UE's ping to the same target has none.
static __always_inline int pinger_reply(void *data, void *end, const struct config *c, const struct packet *p)
{
	__u8 *h = data + OFFSET(p->l4);
	__u64 token;

	if (!c->pinging || !has_l4(p, 16) || p->fragment || (void *)(h + 16) > end)
		return 0;
	if (!(p->protocol == IPPROTO_ICMP && h[0] == 0) && !(p->protocol == IPPROTO_ICMPV6 && h[0] == 129))
		return 0;
	__builtin_memcpy(&token, h + 8, 8);
	return bpf_map_lookup_elem(&tof_tokens, &token) != 0;
}

// Are packets of this tunnel in the queue? Not if nothing at all has come back for long: it has failed open or dropped.
static __always_inline int waits(const struct pending *p, __u32 side, __u64 now)
{
	struct queue *queue = bpf_map_lookup_elem(&tof_queues, &side);

	return queue && (__s32)(p->ticket - queue->back) > 0 &&
	       (since(p->wait_ns, now) < SETTLE_HARD_NS || since(queue->back_ns, now) < SETTLE_HARD_NS);
}

// May this tunnel's packets take the fast lane without overtaking those in the queue?
static __always_inline int settled(struct tunnel *t, const struct packet *p, __u32 side, __u64 now)
{
	__u64 age, silence;
	struct pending *q;
	struct key key;

	key_of(p, &key);
	q = bpf_map_lookup_elem(&tof_pending, &key);
	age = q ? since(q->first_ns, now) : 0;
	silence = age < SETTLE_SOFT_NS ? SETTLE_GAP_NS : age < SETTLE_LATE_NS ? SETTLE_MOMENT_NS : 0;
	if (q && (waits(q, side, now) || since(q->last_ns, now) < silence))
		return 0;
	t->flags &= ~T_SETTLING;
	return 1;
}

// Messages that a UE writes itself reach whom it addresses, if the core lets them.
static __always_inline int is_nested(void *data, void *end, const struct packet *p)
{
	__be16 *ports = data + OFFSET(p->l4);

	return p->protocol == IPPROTO_UDP && has_l4(p, 4) && (void *)(ports + 2) <= end &&
	       ports[1] == bpf_htons(GTPU_PORT);
}

// A session's first QoS flow is its default one; another takes its place only when it has not been seen for a while.
static __always_inline void follow_form(struct tunnel *t, const struct packet *p, __u64 now)
{
	__u32 now_ms = now / 1000000;

	if (!p->has_container)
		return;
	// Another CPU's clock, or the coarse one, may be a little behind the one that wrote qfi_ms.
	if (!(t->flags & T_CONTAINER) ||
	    (t->qfi != p->qfi && now_ms - t->qfi_ms + QFI_FRESH_MS > 2 * QFI_FRESH_MS)) {
		t->qfi = p->qfi;
		t->flags |= T_CONTAINER;
	}
	if (t->qfi == p->qfi)
		t->qfi_ms = now_ms;
}

// ---------------------------------------------------------------------------------------------- names

static __always_inline int is_dns(void *data, void *end, const struct config *c, const struct packet *p, int from_ue)
{
	__be16 *ports = data + OFFSET(p->l4);

	return c->names && p->protocol == IPPROTO_UDP && !p->fragment && has_l4(p, sizeof(struct udphdr) + DNS_HEADER) &&
	       (void *)(ports + 2) <= end && (from_ue ? ports[1] : ports[0]) == bpf_htons(DNS_PORT);
}

static __always_inline int is_resolver(const struct in6_addr *address)
{
	struct prefix_key key = {.prefix = 128};

	__builtin_memcpy(key.address, address, 16);
	return bpf_map_lookup_elem(&tof_resolvers, &key) != 0;
}

static __always_inline int agent_lives(__u64 now)
{
	__u32 zero = 0;
	__u64 *heard = bpf_map_lookup_elem(&tof_agent, &zero);

	return heard && since(*heard, now) < AGENT_NS;
}

static __always_inline void show_answer(struct xdp_md *ctx, const struct packet *p, __u32 index, __u64 now)
{
	struct answers *answers;
	__u64 size = p->inner_length;
	struct event *e = 0;
	__u32 zero = 0;

	answers = bpf_map_lookup_elem(&tof_answers, &zero);
	if (answers && since(answers->window_ns, now) > ANSWERS_WINDOW_NS) {
		answers->window_ns = now;
		answers->shown = 0;
	}
	if (answers && agent_lives(now) && size <= HELD_BYTES && __sync_fetch_and_add(&answers->shown, 1) < ANSWERS_SHOWN)
		e = bpf_ringbuf_reserve(&tof_events, sizeof(*e) + HELD_BYTES, 0);
	if (!e) {
		count(c_names_unshown);
		return;
	}
	e->kind = e_answer;
	e->side = SGW;
	e->ifindex = ctx->ingress_ifindex;
	e->index = index;
	e->length = e->captured = size;
	e->vlan = p->vlan;
	BOUNDED(size, 0xfff);
	if (!size || size > HELD_BYTES || bpf_xdp_load_bytes(ctx, OFFSET(p->inner), e->data, size)) {
		bpf_ringbuf_discard(e, 0);
		return;
	}
	bpf_ringbuf_submit(e, 0);
	count(c_names_shown);
}

// A UE's question to a resolver is remembered. The answer to it, and nothing else, is shown to the agent, and passes
// untouched: whoever wants to say which addresses a service has must be heard by the UE that has just asked.
__noinline int follow_names(struct xdp_md *ctx, struct packet *p, struct tunnel *t, __u32 from_ue)
{
	__u64 now = bpf_ktime_get_ns(), *asked;
	struct query_key key = {};
	struct in6_addr ue, server;
	__u8 head[10];

	if (!p || !t || !owns(t, p, from_ue != 0) || bpf_xdp_load_bytes(ctx, OFFSET(p->l4), head, sizeof(head)))
		return 0;
	inner_address(p, from_ue != 0, &ue);
	inner_address(p, from_ue == 0, &server);
	__builtin_memcpy(key.ue, &ue, 16);
	__builtin_memcpy(key.server, &server, 16);
	__builtin_memcpy(&key.port, from_ue ? head : head + 2, 2);
	__builtin_memcpy(&key.ident, head + 8, 2);
	if (from_ue) {
		if (is_resolver(&server))
			bpf_map_update_elem(&tof_queries, &key, &now, BPF_ANY);
		return 0;
	}
	asked = bpf_map_lookup_elem(&tof_queries, &key);
	if (asked && since(*asked, now) < QUERY_FRESH_NS) {
		bpf_map_delete_elem(&tof_queries, &key);
		show_answer(ctx, p, t->index, now);
	} else if (is_resolver(&server)) {
		count(c_names_unasked);
	}
	return 0;
}

// ---------------------------------------------------------------------------------------------- shared adapter

static __always_inline int side_of(const struct packet *p, int source)
{
	struct side_key key = {.prefix = 128};
	struct in6_addr address;
	__u32 *side;

	outer_address(p, source, &address);
	__builtin_memcpy(key.address, &address, 16);
	side = bpf_map_lookup_elem(&tof_sides, &key);
	return side ? (int)*side : -1;
}

// With one adapter the side is told by the provisioned addresses; -1: not between an eNB and an SGW, or not to us.
static __always_inline int shared_side(const struct config *c, const struct ethhdr *eth, const struct packet *p)
{
	int from = side_of(p, 1), to = side_of(p, 0), i;

	if (p->foreign)
		return -1;
	for (i = 0; i < 6; i++)
		if (eth->h_dest[i] != c->own_mac[i])
			return -1;
	return from >= 0 && to >= 0 && from != to ? from : -1;
}

static __always_inline int same_mac(const __u8 *one, const __u8 *other)
{
	const __u16 *a = (const __u16 *)one, *b = (const __u16 *)other;

	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

// Two VLANs may have nodes with the same address. The programs' stack has no room for a longer key: the VLAN stands where
// that of an IPv4 address is empty, and changes that of an IPv6 one, whose `vlan` is looked at as well.
static __always_inline void in_vlan(struct in6_addr *address, __u16 vlan)
{
	address->in6_u.u6_addr16[0] ^= vlan;
}

// A node is reached by the MAC address its own packets come from. After an ARP reply the kernel first sends on what waited
// for it, `wait_ns` keeps the rest behind that.
static __always_inline void learn_hop(struct in6_addr *address, const __u8 *mac, __u16 vlan, int tagged, __u64 wait_ns)
{
	struct hop *known, fresh = {.vlan = vlan, .tagged = tagged};
	__u64 now = bpf_ktime_get_ns();

	in_vlan(address, vlan);
	known = bpf_map_lookup_elem(&tof_hops, address);

	if (mac[0] & 1)
		return;
	if (known && known->vlan == vlan && same_mac(known->mac, mac) &&
	    since(known->heard_ns, now) < HOP_FRESH_NS) {
		known->tagged |= tagged;
		if (since(known->heard_ns, now) > 1000000000)
			known->heard_ns = now;
		return;
	}
	__builtin_memcpy(fresh.mac, mac, 6);
	fresh.heard_ns = now;
	fresh.usable_ns = now + wait_ns;
	bpf_map_update_elem(&tof_hops, address, &fresh, BPF_ANY);
}

static __always_inline struct hop *hop_to(struct in6_addr *address, __u16 vlan)
{
	__u64 now = bpf_ktime_get_ns();
	struct hop *hop;

	in_vlan(address, vlan);
	hop = bpf_map_lookup_elem(&tof_hops, address);

	if (hop && hop->vlan == vlan && now >= hop->usable_ns && since(hop->heard_ns, now) < HOP_FRESH_NS)
		return hop;
	count(c_hop_unknown);
	return 0;
}

static __always_inline void learn_neighbour(struct in6_addr *address, const __u8 *mac, __u16 vlan)
{
	struct side_key key = {.prefix = 128};

	__builtin_memcpy(key.address, address, 16);
	if (bpf_map_lookup_elem(&tof_sides, &key))
		learn_hop(address, mac, vlan, vlan != NO_VLAN, HOP_SETTLE_NS);
}

// From ARP (RFC 826) and neighbour discovery (RFC 4861: hop limit 255 proves that it comes from the link).
__noinline int learn_arp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u16 vlan = NO_VLAN;
	__u8 *payload = data + sizeof(*eth);
	struct in6_addr address;
	__be16 type;

	if ((void *)(payload + 4) > end)
		return 0;
	type = eth->h_proto;
	if (type == bpf_htons(ETH_P_8021Q)) {
		vlan = vlan_of(bpf_ntohs(*(__be16 *)payload));
		type = *(__be16 *)(payload + 2);
		payload += 4;
	}
	if (type == bpf_htons(ETH_P_ARP)) {
		__be32 sender;

		if ((void *)(payload + 28) > end || payload[4] != 6 || payload[5] != 4)
			return 0;
		__builtin_memcpy(&sender, payload + 14, 4);
		mapped(&address, sender);
		learn_neighbour(&address, payload + 8, vlan);
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)payload;
		__u8 *icmp = payload + sizeof(*ip);

		if ((void *)(icmp + 4) > end || ip->nexthdr != IPPROTO_ICMPV6 || ip->hop_limit != 255)
			return 0;
		__builtin_memcpy(&address, &ip->saddr, 16);
		if (icmp[0] == 135 || icmp[0] == 136)
			learn_neighbour(&address, eth->h_source, vlan);
	}
	return 0;
}

static __always_inline int readdress(struct xdp_md *ctx, const struct config *c, struct in6_addr *to, __u16 vlan)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct hop *hop = hop_to(to, vlan);
	struct ethhdr *eth = data;

	if (!hop || (void *)(eth + 1) > end)
		return -1;
	__builtin_memcpy(eth->h_dest, hop->mac, 6);
	__builtin_memcpy(eth->h_source, c->own_mac, 6);
	return 0;
}

// Back out of the adapter towards the far node, IP packet unchanged; the slow lane asks the kernel whom nobody heard.
static __always_inline int reflect(struct xdp_md *ctx, const struct config *c, const struct packet *p)
{
	struct in6_addr address;

	if (p->partial) {
		count(c_bridged_partial);
		return XDP_PASS;
	}
	outer_address(p, 0, &address);
	// Not XDP_TX: a veth whose far end runs NAPI without XDP leaves such frames lying in its ring (seen on 6.18).
	return readdress(ctx, c, &address, p->vlan) ? XDP_PASS : bpf_redirect(c->port[0][0], 0);
}

// The same in the slow lane.
static __always_inline int send_on(struct __sk_buff *skb, const struct config *c, const struct packet *p)
{
	__u32 adapter = c->port[0][0];
	struct in6_addr address;
	struct hop *hop;

	outer_address(p, 0, &address);
	hop = hop_to(&address, p->vlan);
	if (!hop)
		return bpf_redirect_neigh(adapter, 0, 0, 0);
	if (bpf_skb_store_bytes(skb, 0, hop->mac, 6, 0) || bpf_skb_store_bytes(skb, 6, c->own_mac, 6, 0))
		return TC_ACT_SHOT;
	return bpf_redirect(adapter, 0);
}

// ---------------------------------------------------------------------------------------------- XDP, S1 side

// TS 29.281 section 7.3.2: what is sent to a UE ends, and only its own side may say so.
static __always_inline void end_tunnel(const struct packet *p, __u32 side)
{
	struct tunnel *t = p->message == END_MARKER ? tunnel_of(p) : 0;

	if (t && t->direction == SGW && side == SGW)
		t->flags |= T_ENDED;
}

static __always_inline int fast(struct xdp_md *ctx, __u32 side, const int shared)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet p = {.vlan = NO_VLAN};
	struct config *c = config();
	struct tunnel *t;
	int kind, verdict, station_moved, blind;
	__u32 out, service;
	__u64 now;

	if (!c)
		return XDP_PASS;
	if (c->bypass && !shared) {
		count(c_bypassed);
		return XDP_PASS;
	}
	kind = parse_xdp(ctx, &p);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if ((void *)((struct ethhdr *)data + 1) > end)
		return XDP_PASS;
	blind = is_blind();
	if (shared) {
		struct in6_addr source;
		int from;

		if (kind == k_other)
			return learn_arp(ctx), XDP_PASS;
		from = shared_side(c, data, &p);
		if (from < 0)
			return XDP_PASS;
		side = from;
		outer_address(&p, 1, &source);
		if (!blind || p.tagged)
			learn_hop(&source, ((struct ethhdr *)data)->h_source, p.vlan, p.tagged, 0);
		if (blind)
			return XDP_PASS;
		if (c->bypass) {
			count(c_bypassed);
			return reflect(ctx, c, &p);
		}
	}
	if (blind) {
		if (p.tagged)
			learn_station(data, &p, ctx->ingress_ifindex, side);
		return XDP_PASS;
	}
	if (kind != k_gpdu) {
		if (!shared)
			learn_station(data, &p, ctx->ingress_ifindex, side);
		if (p.reason && !(p.piece && c->services)) // else the slow lane counts it
			count(p.reason);
		if (kind == k_signal)
			end_tunnel(&p, side);
		return shared && (kind == k_odd || kind == k_message || (kind == k_piece && !c->services)) ?
			       reflect(ctx, c, &p) :
			       XDP_PASS;
	}
	t = tunnel_of(&p);
	if (!t || t->direction != side) {
		if (!shared)
			learn_station(data, &p, ctx->ingress_ifindex, side);
		if (t)
			count(c_wrong_side);
		return XDP_PASS;
	}
	// Reading the precise clock waits for the tunnel's cache lines, which the CPU could still be fetching.
	now = bpf_ktime_get_coarse_ns();
	station_moved = follow_link(t, data, &p, ctx->ingress_ifindex, side);
	if (t->direction == SGW && pinger_reply(data, end, c, &p))
		return XDP_PASS;
	notice(t, &p, side, now);
	if (t->direction == ENB && is_nested(data, end, &p))
		count(c_nested);
	if (is_dns(data, end, c, &p, t->direction == ENB))
		follow_names(ctx, &p, t, t->direction == ENB);
	if (t->flags & T_SETTLING && !settled(t, &p, side, bpf_ktime_get_ns()))
		return XDP_PASS;
	follow_form(t, &p, now);
	add_traffic(t, p.inner_length);
	heard(t, &p, now);
	service = t->direction == ENB ? service_of(data, end, c, &p, t) : 0;
	if (service) {
		verdict = divert_or_hand_over(ctx, &p, t, now, service);
		if (verdict >= 0)
			return verdict;
	}
	if (t->injected_ns)
		t->injected_ns = 0;
	if (shared) {
		verdict = reflect(ctx, c, &p);
		if (verdict == XDP_REDIRECT)
			count(c_passed);
		return verdict;
	}
	if (p.partial) {
		count(c_bridged_partial);
		return XDP_PASS;
	}
	if (station_moved) // so that the bridge learns it too
		return XDP_PASS;
	out = way_out(t, p.vlan, side);
	if (!out || out == ctx->ingress_ifindex) { // the way that tof_ue found may be the one this came by
		count(c_bridged_way_unknown);
		return XDP_PASS;
	}
	count(c_passed);
	return bpf_redirect(out, 0);
}

XDP_PROGRAM(tof_s1_enb, fast(ctx, ENB, 0))

XDP_PROGRAM(tof_s1_sgw, fast(ctx, SGW, 0))

XDP_PROGRAM(tof_s1_shared, fast(ctx, ENB, 1))

XDP_PROGRAM(tof_nop, XDP_PASS)

// ---------------------------------------------------------------------------------------------- the slow lane

static __always_inline int sample(struct __sk_buff *skb, const struct packet *p, __u32 side)
{
	struct shared_state *s = state();
	struct event *e;
	__u64 now = bpf_ktime_get_ns();
	__u64 size = skb->len < SAMPLE_BYTES ? skb->len : SAMPLE_BYTES;

	// At most 20 per millisecond on the whole: a flood of fragments or bad checksums cannot take the agent's time.
	if (!s)
		return TC_ACT_OK;
	if (since(s->sample_window_ns, now) > 1000000) {
		s->sample_window_ns = now;
		s->samples = 0;
	}
	if (s->samples++ >= 20) {
		count(c_sample_lost);
		return TC_ACT_OK;
	}
	e = bpf_ringbuf_reserve(&tof_events, sizeof(*e) + SAMPLE_BYTES, 0);
	if (!e) {
		count(c_sample_lost);
		return TC_ACT_OK;
	}
	e->kind = e_sample;
	e->side = side;
	e->ifindex = skb->ifindex;
	e->index = 0;
	e->length = skb->len;
	e->vlan = p->vlan;
	BOUNDED(size, 0x1ff);
	if (size < 34 || size > SAMPLE_BYTES || bpf_skb_load_bytes(skb, 0, e->data, size)) {
		bpf_ringbuf_discard(e, 0);
		return TC_ACT_OK;
	}
	e->captured = size;
	bpf_ringbuf_submit(e, 0);
	count(c_sampled);
	return TC_ACT_OK;
}

// br_netfilter drops, trims or reassembles whatever is not a plain IPv4 packet, so it is shown nothing else: a frame
// crosses the queue whole, tag and trailer included, behind a header of ours (RFC 3692: protocol 253 is for such use).
struct wrapper {
	struct ethhdr eth;
	struct iphdr ip;
	__u32 ticket;
} __attribute__((packed));
#define WRAPPER_PROTOCOL 253
#define WRAPPER_ADDRESS 0xc0000008 // RFC 7600: the IPv4 dummy address
#define WRAPPER_TTL 64
#define STRAIGHT 0x88b5            // IEEE 802, local experimental: crosses the detour, and netfilter does not look at it

// Without a ticket the frame is not queued.
static __always_inline int wrap(struct __sk_buff *skb, __u32 ticket)
{
	struct wrapper w = {
		.eth = {{0x02, 0x71, 0, 0, 0, 2}, {0x02, 0x71, 0, 0, 0, 1}, bpf_htons(ticket ? ETH_P_IP : STRAIGHT)},
		.ip = {.version = 4, .ihl = 5, .ttl = WRAPPER_TTL, .protocol = WRAPPER_PROTOCOL},
		.ticket = ticket,
	};
	__u32 tagged = !!skb->vlan_present, length = sizeof(w) - sizeof(w.eth) + skb->len + tagged * VLAN_BYTES;
	__be16 tag[2] = {skb->vlan_proto, bpf_htons(skb->vlan_tci)};
	__u8 macs[12];

	w.ip.tot_len = bpf_htons(length);
	w.ip.saddr = w.ip.daddr = bpf_htonl(WRAPPER_ADDRESS);
	w.ip.check = bpf_htons(~fold(0x4500 + length + (WRAPPER_TTL << 8 | WRAPPER_PROTOCOL) +
				     2 * ((WRAPPER_ADDRESS >> 16) + (WRAPPER_ADDRESS & 0xffff))));
	if (skb->gso_size || length > 0xffff)
		return -1;
	if (bpf_skb_change_head(skb, sizeof(w) + tagged * VLAN_BYTES, 0))
		return -1;
	if (tagged && (bpf_skb_load_bytes(skb, sizeof(w) + VLAN_BYTES, macs, sizeof(macs)) ||
		       bpf_skb_store_bytes(skb, sizeof(w), macs, sizeof(macs), 0) ||
		       bpf_skb_store_bytes(skb, sizeof(w) + sizeof(macs), tag, sizeof(tag), 0) || bpf_skb_vlan_pop(skb)))
		return TC_ACT_SHOT;
	return bpf_skb_store_bytes(skb, 0, &w, sizeof(w), 0) ? TC_ACT_SHOT : TC_ACT_OK;
}

// Does the queue have more to do than it can? While nothing at all comes back, a packet now and then finds out.
static __always_inline int crowded(struct queue *queue, __u32 most, __u64 now)
{
	if ((__s32)(queue->issued - queue->back) < (__s32)most)
		return 0;
	if (since(queue->back_ns, now) < SETTLE_HARD_NS || since(queue->probe_ns, now) < SETTLE_HARD_NS)
		return 1;
	queue->probe_ns = now;
	return 0;
}

static __always_inline void tell_seen(const struct key *key, const struct packet *p, const struct ethhdr *macs,
				      __u32 ifindex, __u32 side, __u64 now)
{
	__u32 now_ms = now / 1000000, *told = bpf_map_lookup_elem(&tof_told, key);
	struct seen *e;

	if (told && now_ms - *told < TOLD_MS)
		return;
	e = bpf_ringbuf_reserve(&tof_seen, sizeof(*e), 0);
	if (!e) {
		count(c_crowded_lost);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->key = *key;
	if (p->inner6) {
		__builtin_memcpy(e->inner_source, p->inner6_source, 16);
		__builtin_memcpy(e->inner_destination, p->inner6_destination, 16);
	} else {
		__builtin_memcpy(e->inner_source, &p->inner4_source, 4);
		__builtin_memcpy(e->inner_destination, &p->inner4_destination, 4);
	}
	__builtin_memcpy(e->source_mac, macs->h_source, 6);
	__builtin_memcpy(e->destination_mac, macs->h_dest, 6);
	e->ifindex = ifindex;
	e->size = p->inner_length;
	e->side = side;
	e->inner6 = p->inner6;
	e->tos = p->tos & DSCP;
	e->gtp_flags = p->gtp_flags;
	e->has_container = p->has_container;
	e->qfi = p->qfi;
	bpf_ringbuf_submit(e, 0);
	bpf_map_update_elem(&tof_told, key, &now_ms, BPF_ANY);
}

// One that is gone leaves the queue open; one that stands still would hold the nodes' Echo Responses, and the first
// packets of every UE. Packets of tunnels that it has learnt just now still take the queue: their services are diverted
// behind it.
static __always_inline int agent_hangs(__u64 now)
{
	__u32 zero = 0;
	__u64 *heard = bpf_map_lookup_elem(&tof_agent, &zero);

	return heard && *heard && since(*heard, now) > HANG_NS;
}

// `most`: packets in the queue above which this one of an unknown tunnel takes the bridge instead; 0: never.
// `fate`: of an outer fragment, else 0.
__noinline int to_queue(struct __sk_buff *skb, struct packet *p, __u32 side, __u32 most, __u32 fate)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct queue *queue = bpf_map_lookup_elem(&tof_queues, &side);
	__u32 ifindex = skb->ifindex, ticket, waiting;
	struct config *c = config();
	struct pending fresh = {}, *q;
	__u64 now = bpf_ktime_get_ns();
	struct ethhdr *eth = data, macs;
	struct station *station;
	struct key key;
	int verdict;

	if (!p || !c || !queue || (void *)(eth + 1) > end)
		return TC_ACT_OK;
	station = station_of(eth->h_dest, p->vlan);
	if (station && station->side == side) // between two nodes of one side (X2): the queue does not know the way
		return station->ifindex == ifindex ? TC_ACT_OK : bpf_redirect(station->ifindex, 0);
	macs = *eth;
	key_of(p, &key);
	q = fate ? 0 : bpf_map_lookup_elem(&tof_pending, &key);
	waiting = q && waits(q, side, now);
	if (most && !waiting && !(q && since(q->last_ns, now) < SETTLE_GAP_NS) && crowded(queue, most, now)) {
		count(c_crowded);
		tell_seen(&key, p, &macs, ifindex, side, now);
		return TC_ACT_OK;
	}
	if (!fate && (most || p->message != 255) && !waiting && agent_hangs(now)) {
		count(c_agent_hangs); // and not told of: nobody knows how old that would be when an agent hears it
		return TC_ACT_OK;
	}
	ticket = __sync_fetch_and_add(&queue->issued, 1) + 1;
	verdict = wrap(skb, ticket);
	if (verdict)
		return verdict < 0 ? TC_ACT_OK : verdict;
	if (fate) {
		skb->mark = FATE_MARK | fate;
		count(c_fragment_queued);
		return bpf_redirect(c->queue_ifindex[side & 1], 0);
	}
	if (!q) {
		fresh.first_ns = now;
		bpf_map_update_elem(&tof_pending, &key, &fresh, BPF_NOEXIST);
		q = bpf_map_lookup_elem(&tof_pending, &key);
	}
	if (q) {
		if (since(q->last_ns, now) > SETTLE_HARD_NS)
			q->first_ns = now;
		if (!waiting)
			q->wait_ns = now;
		__builtin_memcpy(q->source_mac, macs.h_source, 6);
		__builtin_memcpy(q->destination_mac, macs.h_dest, 6);
		q->ifindex = ifindex;
		q->tos = p->tos & DSCP;
		q->last_ns = now;
		q->ticket = ticket;
	}
	count(c_queued);
	return bpf_redirect(c->queue_ifindex[side & 1], 0);
}

// Not between the nodes that the TOF is restricted to.
static __always_inline int elsewhere(const struct config *c, const struct packet *p, __u32 side)
{
	return c->restricted && (side_of(p, 1) != (int)side || side_of(p, 0) != (int)!side);
}

static __always_inline int to_service(void *data, void *end, const struct config *c, struct packet *p, __u32 side)
{
	return side == ENB && service_of(data, end, c, p, 0);
}

static __always_inline void outer_pieces(const struct packet *p, struct piece_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	if (p->outer6) {
		__builtin_memcpy(key->source, p->addresses, 32);
	} else {
		__builtin_memcpy(key->source, &p->source, 4);
		__builtin_memcpy(key->destination, &p->destination, 4);
	}
	key->family = p->outer6 ? 6 : 4;
	key->protocol = IPPROTO_UDP;
	key->ident = p->ident;
	key->vlan = p->vlan;
}

// A bound on what fragments can ask of the agent; both CPUs may be a little generous.
static __always_inline int within_rate(__u64 now, int diverted)
{
	struct shared_state *s = state();

	if (!s)
		return 0;
	if (since(s->piece_window_ns, now) > PIECE_WINDOW_NS) {
		s->piece_window_ns = now;
		s->pieces_undecided = s->pieces_diverted = 0;
	}
	return diverted ? s->pieces_diverted++ < PIECES_DIVERTED : s->pieces_undecided++ < PIECES_UNDECIDED;
}

static __always_inline __u32 state_of(__u32 service)
{
	struct served *served = bpf_map_lookup_elem(&tof_served, &service);

	return served ? served->state : 0;
}

static __always_inline int is_diverted(__u32 service)
{
	return state_of(service) & S_DIVERT;
}

// The first fragment of a G-PDU in tunnel `t`: the judgement that `fast` and `divert` pass on a whole one.
static __always_inline int judge_first(void *data, void *end, struct packet *p, struct tunnel *t, __u32 side,
				       const struct config *c, __u64 now)
{
	__u32 service, state;

	if (t->direction != side) {
		count(c_wrong_side);
		return f_pass;
	}
	t->tos |= MAY_CUT; // its node lets long packets be cut
	notice(t, p, side, now);
	add_traffic(t, p->inner_length);
	heard(t, p, now);
	service = t->direction == ENB ? service_of(data, end, c, p, t) : 0;
	state = service && owns(t, p, 1) ? state_of(service) : 0;
	if (state & S_DIVERT && take_flow(data, end, p, t, service, state & S_SPREAD, now, heart_beats(now)) > 0)
		return f_divert;
	t->injected_ns = 0;
	return f_pass;
}

// The fate with which an outer fragment takes the queue; 0: it goes on by the bridge. `t`: its tunnel, if it tells one
// and that is known.
__noinline int judge_piece(struct __sk_buff *skb, struct packet *p, __u32 side, int gpdu, struct tunnel *t)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct config *c = config();
	__u64 now = bpf_ktime_get_ns();
	__u32 fate = f_pass, zero = 0;
	struct scratch *scratch;
	struct piece *known;

	if (!p || !c)
		return 0;
	if (gpdu) {
		if (t)
			fate = judge_first(data, end, p, t, side, c, now);
		else if (side == ENB && p->protocol != IPPROTO_TCP && is_diverted(service_of(data, end, c, p, 0)))
			fate = f_undecided; // the agent learns the tunnel from it, and decides
		else
			sample(skb, p, side);
	}
	scratch = bpf_map_lookup_elem(&tof_scratch, &zero);
	if (!scratch || !c->services || side != ENB || !agent_lives(now))
		return 0;
	outer_pieces(p, &scratch->piece_key);
	known = piece_of(&scratch->piece_key, now);
	if (known && (p->piece == LATER || known->fate == f_left))
		return known->queued ? known->fate : 0;
	if (p->piece == LATER)
		fate = f_undecided;
	if (fate != f_pass && (skb->len > PIECE_BYTES || !within_rate(now, fate == f_divert))) {
		fate = known && known->queued ? f_pass : f_left;
		count(c_fragment_refused);
	}
	scratch->piece.since_ns = now;
	scratch->piece.fate = fate;
	scratch->piece.queued = (known && known->queued) || fate == f_undecided || fate == f_divert;
	bpf_map_update_elem(&tof_pieces, &scratch->piece_key, &scratch->piece, BPF_ANY);
	return scratch->piece.queued ? fate : 0;
}

enum way { w_bridge, w_queue, w_return };

// A packet of a known tunnel that XDP could not judge: what `fast` does, but for services and names, which are looked after
// where packets come back from the queue, without having been in it.
__noinline int serve(struct __sk_buff *skb, struct packet *p, struct tunnel *t, __u32 side)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u64 now = bpf_ktime_get_ns();
	struct config *c = config();
	struct ethhdr *eth = data;

	if (!p || !t || !c || (void *)(eth + 1) > end)
		return w_bridge;
	follow_link(t, eth, p, skb->ifindex, side);
	notice(t, p, side, now);
	if (side == ENB && is_nested(data, end, p))
		count(c_nested);
	if (t->flags & T_SETTLING && !settled(t, p, side, now))
		return w_queue;
	if (is_dns(data, end, c, p, side == ENB) || to_service(data, end, c, p, side))
		return w_return;
	follow_form(t, p, now);
	add_traffic(t, p->inner_length);
	heard(t, p, now);
	t->injected_ns = 0;
	count(c_passed);
	return w_bridge;
}

static __always_inline int served(struct __sk_buff *skb, const struct config *c, struct packet *p, struct tunnel *t,
				  __u32 side)
{
	int verdict;

	switch (serve(skb, p, t, side)) {
	case w_queue:
		return to_queue(skb, p, side, 0, 0);
	case w_return:
		verdict = wrap(skb, 0);
		return verdict ? verdict < 0 ? TC_ACT_OK : verdict : bpf_redirect(c->queue_ifindex[side & 1], 0);
	}
	return TC_ACT_OK;
}

// TC_ACT_OK: the queue has nothing to learn from it.
static __always_inline int judge(struct __sk_buff *skb, struct config *c, struct packet *p, int kind, __u32 side,
				 int blind)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct tunnel *t;
	int fate;

	switch (kind) {
	case k_signal:
		if (blind)
			end_tunnel(p, side);
		return to_queue(skb, p, side, 0, 0);
	case k_fragment:
	case k_piece:
		t = kind == k_fragment ? tunnel_of(p) : 0;
		fate = judge_piece(skb, p, side, kind == k_fragment, t);
		if (fate)
			return to_queue(skb, p, side, 0, fate);
		if (c->services)
			count(c_bridged_fragment);
		return TC_ACT_OK;
	case k_gpdu:
		t = tunnel_of(p);
		if ((t ? t->direction == SGW : side == SGW) && pinger_reply(data, end, c, p)) {
			if (t)
				count(c_pinger_replies);
			return to_queue(skb, p, side, 0, 0);
		}
		if (t && blind && t->direction == side)
			return served(skb, c, p, t, side);
		if (t && !(t->flags & T_SETTLING))
			return TC_ACT_OK;
		return to_queue(skb, p, side, t ? 0 : to_service(data, end, c, p, side) ? CROWD_OF_SERVICES : CROWD, 0);
	}
	return TC_ACT_OK;
}

static __always_inline int has_tag(const struct __sk_buff *skb)
{
	return skb->vlan_present && skb->vlan_proto == bpf_htons(ETH_P_8021Q) &&
	       skb->protocol != bpf_htons(ETH_P_8021Q);
}

// Whether S1 is the slow lane's to serve. A tag that XDP, which was there before, has seen in the frame stands in
// tof_stations; packets of known tunnels are not always noted there, so they tell nothing new.
static __always_inline int serves(struct __sk_buff *skb, const struct packet *p, int kind, __u32 side)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	int blind = is_blind();
	struct ethhdr *eth = data;
	struct station *station;

	if ((void *)(eth + 1) > end || eth->h_source[0] & 1)
		return blind;
	if (has_tag(skb) && (blind || kind != k_gpdu || !tunnel_of(p))) {
		station = station_of(eth->h_source, p->vlan);
		if (!station || !station->tagged) {
			make_blind();
			blind = 1;
		}
	}
	if (blind)
		learn_station(eth, p, skb->ifindex, side);
	return blind;
}

static __always_inline int slow(struct __sk_buff *skb, __u32 side)
{
	struct packet p = {.vlan = NO_VLAN};
	struct config *c = config();
	int kind, blind;

	if (!c || c->bypass)
		return TC_ACT_OK;
	kind = parse_skb(skb, &p);
	blind = serves(skb, &p, kind, side);
	if (kind != k_other && kind != k_odd && elsewhere(c, &p, side))
		return TC_ACT_OK;
	return judge(skb, c, &p, kind, side, blind);
}

// A Linux bridge drops what comes from a group address or from none; a wire carries it, and so does the TOF.
static __always_inline int unbridgeable(struct __sk_buff *skb)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return 0;
	return eth->h_source[0] & 1 || !(eth->h_source[0] | eth->h_source[1] | eth->h_source[2] |
					 eth->h_source[3] | eth->h_source[4] | eth->h_source[5]);
}

static __always_inline int carry(struct __sk_buff *skb, __u32 side)
{
	struct config *c = config();
	__u32 i;

	for (i = 0; c && i < MAX_PORTS; i++) {
		if (i >= c->port_count[!side])
			break;
		bpf_clone_redirect(skb, c->port[!side][i], 0);
	}
	return TC_ACT_SHOT;
}

// IEEE 802.1Q table 8-1: 01:80:c2:00:00:00 to :0f end at the next bridge, which is the Linux bridge's business.
static __always_inline int ends_at_a_bridge(struct __sk_buff *skb)
{
	const __be16 *mac = (void *)(long)skb->data;

	if ((void *)(mac + 3) > (void *)(long)skb->data_end)
		return 0;
	return mac[0] == bpf_htons(0x0180) && mac[1] == bpf_htons(0xc200) && (mac[2] & bpf_htons(0xfff0)) == 0;
}

static __always_inline int slow_separate(struct __sk_buff *skb, __u32 side)
{
	int verdict = ends_at_a_bridge(skb) ? TC_ACT_OK : slow(skb, side);

	return verdict == TC_ACT_OK && unbridgeable(skb) ? carry(skb, side) : verdict;
}

// The same of a shared adapter, whose nodes stand in tof_hops.
static __always_inline int serves_shared(struct __sk_buff *skb, const struct ethhdr *eth, const struct packet *p)
{
	struct in6_addr source;
	int blind = is_blind();
	struct hop *hop;

	outer_address(p, 1, &source);
	in_vlan(&source, p->vlan);
	if (has_tag(skb)) {
		hop = bpf_map_lookup_elem(&tof_hops, &source);
		if (!hop || hop->vlan != p->vlan || !hop->tagged) {
			make_blind();
			blind = 1;
		}
	}
	if (blind) {
		outer_address(p, 1, &source);
		learn_hop(&source, eth->h_source, p->vlan, 0, 0);
	}
	return blind;
}

static __always_inline int slow_shared(struct __sk_buff *skb)
{
	struct packet p = {.vlan = NO_VLAN};
	struct config *c = config();
	int kind, from, verdict, blind;
	struct ethhdr *eth;

	if (!c)
		return TC_ACT_OK;
	kind = parse_skb(skb, &p);
	eth = (void *)(long)skb->data;
	if (kind == k_other || (void *)(eth + 1) > (void *)(long)skb->data_end)
		return TC_ACT_OK;
	from = shared_side(c, eth, &p);
	if (from < 0) {
		if (p.piece == FIRST) // of the host's own: its other fragments cannot be told from GTP-U
			judge_piece(skb, &p, ENB, 0, 0);
		return TC_ACT_OK;
	}
	blind = serves_shared(skb, eth, &p);
	verdict = c->bypass ? TC_ACT_OK : judge(skb, c, &p, kind, from, blind);
	return verdict == TC_ACT_OK ? send_on(skb, c, &p) : verdict;
}

SEC("tc")
int tof_slow_enb(struct __sk_buff *skb)
{
	return slow_separate(skb, ENB);
}

SEC("tc")
int tof_slow_sgw(struct __sk_buff *skb)
{
	return slow_separate(skb, SGW);
}

SEC("tc")
int tof_slow_shared(struct __sk_buff *skb)
{
	return slow_shared(skb);
}

// ---------------------------------------------------------------------------------------------- back from the queue

static __always_inline void returned(const struct packet *p, __u32 side, __u32 ticket)
{
	struct queue *queue = bpf_map_lookup_elem(&tof_queues, &side);
	__u64 now = bpf_ktime_get_ns();
	struct pending *q;
	struct key key;

	if (!ticket) // did not go through the queue
		return;
	key_of(p, &key);
	q = bpf_map_lookup_elem(&tof_pending, &key);
	if (q)
		q->last_ns = now;
	if (queue) {
		queue->back_ns = now;
		if ((__s32)(ticket - queue->back) > 0)
			queue->back = ticket;
	}
	count(c_returned);
}

// The original frame again, the ticket before it as metadata.
static __always_inline int unwrap(struct xdp_md *ctx, __u32 *ticket)
{
	struct wrapper *w = (void *)(long)ctx->data;

	if ((void *)(w + 1) > (void *)(long)ctx->data_end ||
	    (w->eth.h_proto != bpf_htons(ETH_P_IP) && w->eth.h_proto != bpf_htons(STRAIGHT)) ||
	    w->ip.protocol != WRAPPER_PROTOCOL)
		return -1;
	*ticket = w->ticket;
	return bpf_xdp_adjust_head(ctx, sizeof(*w)) || bpf_xdp_adjust_meta(ctx, -(int)sizeof(*ticket));
}

static __always_inline int back(struct xdp_md *ctx, __u32 side)
{
	struct packet p = {.vlan = NO_VLAN};
	__u32 service, ticket = 0;
	struct config *c = config();
	void *data, *end;
	struct tunnel *t;
	__u64 now;
	int verdict;

	if (unwrap(ctx, &ticket))
		return XDP_DROP;
	if (!c || parse_xdp(ctx, &p) != k_gpdu)
		return XDP_PASS;
	t = tunnel_of(&p);
	if (!t || t->direction != side)
		return XDP_PASS;
	now = bpf_ktime_get_ns();
	follow_form(t, &p, now);
	add_traffic(t, p.inner_length);
	heard(t, &p, now);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (is_dns(data, end, c, &p, side == ENB))
		follow_names(ctx, &p, t, side == ENB);
	service = c->bypass || side != ENB ? 0 : service_of(data, end, c, &p, t);
	if (service) {
		verdict = divert_or_hand_over(ctx, &p, t, now, service);
		if (verdict >= 0) {
			returned(&p, side, ticket);
			return verdict;
		}
	}
	t->injected_ns = 0;
	return XDP_PASS;
}

XDP_PROGRAM(tof_ret_enb, back(ctx, ENB))

XDP_PROGRAM(tof_ret_sgw, back(ctx, SGW))

// Send on by the way out; to every adapter of the other side when no frame of the destination was seen yet.
// Cloning sends at once, so that the packet is out before the tunnel counts as drained.
static __always_inline int onward(struct __sk_buff *skb, __u32 side)
{
	__u32 i, other = !side, *metadata = (void *)(long)skb->data_meta, ticket = 0;
	struct packet p = {.vlan = NO_VLAN};
	struct config *c = config();
	struct station *station;
	struct ethhdr *eth;

	if (!c)
		return TC_ACT_SHOT;
	skb->mark = 0; // it said the fate of a fragment
	if ((void *)(metadata + 1) <= (void *)(long)skb->data)
		ticket = *metadata;
	parse_skb(skb, &p);
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	if (c->shared) {
		returned(&p, side, ticket);
		return send_on(skb, c, &p);
	}
	station = eth->h_dest[0] & 1 ? 0 : station_of(eth->h_dest, p.vlan);
	if (station && station->side == other) {
		bpf_clone_redirect(skb, station->ifindex, 0);
	} else {
		for (i = 0; i < MAX_PORTS; i++) {
			if (i >= c->port_count[other])
				break;
			bpf_clone_redirect(skb, c->port[other][i], 0);
		}
	}
	returned(&p, side, ticket);
	return TC_ACT_SHOT;
}

SEC("tc")
int tof_onward_enb(struct __sk_buff *skb)
{
	return onward(skb, ENB);
}

SEC("tc")
int tof_onward_sgw(struct __sk_buff *skb)
{
	return onward(skb, SGW);
}

// ---------------------------------------------------------------------------------------------- UE side

static __always_inline __u32 default_tunnel(const struct packet *p)
{
	struct ue_key key = {};
	__u32 *index;

	if (p->inner6)
		__builtin_memcpy(&key.ue6, p->inner6_destination, 8);
	else
		key.ue4 = p->inner4_destination;
	index = bpf_map_lookup_elem(&tof_ues, &key);
	return index ? *index : 0;
}

// The downlink tunnel for a frame to the gateway MAC: the pair of the one its flow came from, else the UE's default.
// In `p`: the flow's QFI, which the reply mirrors. `via`: the uplink tunnel of the flow.
static __always_inline __u32 reply_tunnel(void *data, void *end, struct packet *p, __u64 now, __u32 *via)
{
	struct flow_place place;
	struct flow_key key;
	struct outlet *outlet;
	struct flow *flow;
	struct l4 l4 = {};

	ports_of(data, end, p, &l4);
	flow_of(p, &l4, 0, &key);
	flow = flow_at(&key, 0, &place, 0);
	if (!flow)
		flow = flow_at(&key, 1, &place, 0);
	if (flow) {
		if (since(flow->last_ns, now) > 1000000000) // a stream that only comes down is in use too
			flow->last_ns = now;
		p->has_container = flow->has_qfi;
		p->qfi = flow->qfi;
		outlet = bpf_map_lookup_elem(&tof_outlets, &flow->uplink);
		if (outlet) {
			*via = flow->uplink;
			return outlet->peer; // 0: wait for its own pair rather than answer into another UE's tunnel
		}
	}
	return default_tunnel(p);
}

// The same of a packet that may be a fragment: the first one alone has ports, the others follow it.
__noinline __u32 reply_tunnel_of(struct xdp_md *ctx, struct packet *p, __u64 now, __u32 *via)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct piece fresh = {.since_ns = now}, *first;
	struct piece_key key;

	if (!p || !via)
		return 0;
	inner_pieces(p, 0, &key);
	first = p->fragment == LATER ? piece_of(&key, now) : 0;
	if (first)
		return first->fate;
	fresh.fate = reply_tunnel(data, end, p, now, via);
	if (p->fragment == FIRST)
		bpf_map_update_elem(&tof_pieces, &key, &fresh, BPF_ANY);
	return fresh.fate;
}

// An application opens a TCP connection to a UE: its answer belongs to that, though it is no SYN. Whatever one of several
// applications of a service says first, the answer goes to that one.
static __always_inline void opened_by_application(void *data, void *end, struct packet *p, __u64 now,
						  __u32 application)
{
	__u32 zero = 0, service = application ? service_behind(application) : 0;
	struct served *served = service ? bpf_map_lookup_elem(&tof_served, &service) : 0;
	struct scratch *scratch;
	struct flow *fresh;

	scratch = bpf_map_lookup_elem(&tof_scratch, &zero);
	if (!scratch || p->fragment == LATER)
		return;
	fresh = &scratch->fresh;
	__builtin_memset(&scratch->l4, 0, sizeof(scratch->l4));
	ports_of(data, end, p, &scratch->l4);
	if ((p->protocol != IPPROTO_TCP || (scratch->l4.tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN) &&
	    !(served && served->state & S_SPREAD))
		return;
	__builtin_memset(fresh, 0, sizeof(*fresh));
	fresh->last_ns = now;
	fresh->application = application;
	flow_of(p, &scratch->l4, 0, &fresh->key);
	if (!flow_at(&fresh->key, 0, &scratch->place, &scratch->own_first))
		put_flow(fresh, &scratch->place, scratch->own_first, 0, now);
}

__noinline int note_opening(struct xdp_md *ctx, struct packet *p, __u64 now, __u32 application)
{
	if (p)
		opened_by_application((void *)(long)ctx->data, (void *)(long)ctx->data_end, p, now, application);
	return 0;
}

// The UDP checksum of `length` bytes at `at`; mandatory over IPv6 (RFC 8200 section 8.1).
__noinline int checksum6(struct xdp_md *ctx, __u32 at, __u32 length, __u64 seed)
{
	__u8 chunk[64] = {};
	__u64 sum = seed, rest = length & 63;
	__u32 i;

	for (i = 0; i < 160 && length >= 64; i++) {
		if (bpf_xdp_load_bytes(ctx, at, chunk, sizeof(chunk)))
			return 0;
		sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)chunk, sizeof(chunk), 0);
		at += sizeof(chunk);
		length -= sizeof(chunk);
	}
	__builtin_memset(chunk, 0, sizeof(chunk));
	BOUNDED(rest, 63);
	if (rest > 0 && bpf_xdp_load_bytes(ctx, at, chunk, rest))
		return 0;
	sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)chunk, sizeof(chunk), 0);
	sum = (__u16)~fold(sum);
	return sum ? sum : 0xffff;
}

struct gtp_long {       // TS 29.281 section 5.1 with one PDU Session Container (TS 38.415 section 5.5.2)
	__u8 flags, message;
	__be16 length;
	__be32 teid;
	__u8 zero[3], next;
	__u8 size, pdu_type, qfi, last;
};

// Prepend Ethernet, IP, UDP and GTP-U as `own` and the tunnel say. The frame starts with a 14-byte Ethernet header.
static __always_inline int prepend(struct xdp_md *ctx, const struct outlet *o, const struct tunnel *t, __u32 inner,
				   __u8 qfi)
{
	__u32 v6 = o->own.family == 6, tagged = o->own.vlan != NO_VLAN;
	__u32 gtp_size = t->flags & T_CONTAINER ? 16 : 8;
	__u32 ip_size = v6 ? 40 : 20, udp_length = 8 + gtp_size + inner;
	__u32 head = 14 + tagged * 4 + ip_size + 8 + gtp_size, at;
	__u8 aligned[2 + 14 + 4 + 40 + 8 + 16 + 4] __attribute__((aligned(8))) = {}, *buffer = aligned + 2;
	struct gtp_long *gtp;
	struct udphdr *udp;
	__be16 *type;

	if (bpf_xdp_adjust_head(ctx, 14 - (int)head))
		return -1;
	__builtin_memcpy(buffer, t->destination_mac, 6);
	__builtin_memcpy(buffer + 6, t->source_mac, 6);
	type = (__be16 *)(buffer + 12);
	if (tagged) {
		type[0] = bpf_htons(ETH_P_8021Q);
		type[1] = bpf_htons(o->own.vlan);
		type += 2;
	}
	*type = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	at = tagged ? 18 : 14;
	if (v6) {
		struct ipv6hdr *ip = (void *)(buffer + at);

		*(__be32 *)ip = bpf_htonl(6 << 28 | (__u32)(t->tos & DSCP) << 20);
		ip->payload_len = bpf_htons(udp_length);
		ip->nexthdr = IPPROTO_UDP;
		ip->hop_limit = 64;
		__builtin_memcpy(&ip->saddr, o->own.source, 16);
		__builtin_memcpy(&ip->daddr, o->own.destination, 16);
		udp = (void *)(ip + 1);
	} else {
		struct iphdr *ip = (void *)(buffer + at);
		__u64 sum = 0;
		int i;

		ip->version = 4;
		ip->ihl = 5;
		ip->tos = t->tos & DSCP;
		ip->tot_len = bpf_htons(20 + udp_length);
		if (t->tos & MAY_CUT) // RFC 6864: then its identification counts
			ip->id = bpf_htons((__u16)(t->packets + t->index * 0x9e37));
		else
			ip->frag_off = bpf_htons(0x4000);
		ip->ttl = 64;
		ip->protocol = IPPROTO_UDP;
		__builtin_memcpy(&ip->saddr, o->own.source, 4);
		__builtin_memcpy(&ip->daddr, o->own.destination, 4);
		for (i = 0; i < 10; i++)
			sum += ((__u16 *)ip)[i];
		ip->check = ~fold(sum);
		udp = (void *)(ip + 1);
	}
	udp->source = udp->dest = bpf_htons(GTPU_PORT);
	udp->len = bpf_htons(udp_length);
	gtp = (void *)(udp + 1);
	gtp->message = 255;
	gtp->teid = o->own.teid;
	gtp->length = bpf_htons(udp_length - 16);
	gtp->flags = 0x30;
	if (gtp_size == 16) {
		gtp->flags = 0x34;
		gtp->next = 0x85;
		gtp->size = 1;
		gtp->pdu_type = t->direction == ENB ? 0x10 : 0x00;
		gtp->qfi = qfi;
	}
	// Constant sizes, so that every kernel's verifier is content.
	if (!v6 && !tagged && gtp_size == 8)
		return bpf_xdp_store_bytes(ctx, 0, buffer, 14 + 20 + 8 + 8);
	if (!v6 && !tagged)
		return bpf_xdp_store_bytes(ctx, 0, buffer, 14 + 20 + 8 + 16);
	if (!v6 && gtp_size == 8)
		return bpf_xdp_store_bytes(ctx, 0, buffer, 18 + 20 + 8 + 8);
	if (!v6)
		return bpf_xdp_store_bytes(ctx, 0, buffer, 18 + 20 + 8 + 16);
	if (head > 14 + 4 + 40 + 8 + 16 || bpf_xdp_store_bytes(ctx, 0, buffer, head & 0x7f))
		return -1;
	{
		__be16 check = checksum6(ctx, head - gtp_size - 8, udp_length,
					 sum16(o->own.source) + sum16(o->own.destination) +
						 bpf_htons(IPPROTO_UDP) + bpf_htons(udp_length));

		return bpf_xdp_store_bytes(ctx, head - gtp_size - 2, &check, 2);
	}
}

__noinline int encapsulate(struct xdp_md *ctx, struct outlet *o, struct tunnel *t, __u32 inner, __u8 qfi)
{
	if (!o || !t)
		return -1;
	return prepend(ctx, o, t, inner, qfi);
}

// Shared adapter: the node at the tunnel's end.
static __always_inline int readdress_tunnel(struct xdp_md *ctx, const struct config *c, const struct outlet *o)
{
	struct in6_addr address;
	__be32 short_address;

	if (o->own.family == 6) {
		__builtin_memcpy(&address, o->own.destination, 16);
	} else {
		__builtin_memcpy(&short_address, o->own.destination, 4);
		mapped(&address, short_address);
	}
	return readdress(ctx, c, &address, o->own.vlan);
}

static __always_inline int ue_side(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet p = {.vlan = NO_VLAN};
	__u32 index, room, surplus, out, via = 0, by_address, application = 0;
	struct ethhdr *eth = data;
	struct config *c = config();
	struct outlet *outlet;
	struct shared_state *s;
	struct tunnel *t;
	__u64 now;

	if (!c || (void *)(eth + 1) > end)
		return XDP_DROP;
	now = bpf_ktime_get_ns();
	if (eth->h_proto == bpf_htons(0x8902)) { // CFM, sent by OVS and carried here by one of our flows
		s = state();
		if (s)
			s->beat_ns = now;
		count(c_heartbeats);
		return XDP_DROP;
	}
	if (c->bypass) {
		count(c_ue_bypassed);
		return XDP_DROP;
	}
	room = bpf_xdp_get_buff_len(ctx) - 14;
	if ((eth->h_proto != bpf_htons(ETH_P_IP) && eth->h_proto != bpf_htons(ETH_P_IPV6)) ||
	    eth->h_dest[0] != 0x02 || eth->h_dest[1] != 0x70) {
		count(c_ue_malformed);
		return XDP_DROP;
	}
	__builtin_memcpy(&index, eth->h_dest + 2, 4);
	index = bpf_ntohl(index);
	if (eth->h_proto == bpf_htons(ETH_P_IP) && data + sizeof(*eth) + sizeof(struct iphdr) <= end)
		unveil((struct iphdr *)(eth + 1));
	if (parse_inner_xdp(ctx, &p) != k_gpdu) {
		count(c_ue_malformed);
		return XDP_DROP;
	}
	if (eth->h_source[0] == 0x02 && eth->h_source[1] == 0x72) // a flow of br-ue says whose it is
		__builtin_memcpy(&application, eth->h_source + 2, 4);
	by_address = index == GATEWAY;
	if (by_address)
		index = reply_tunnel_of(ctx, &p, now, &via);
	if (index == UE_AMBIGUOUS) {
		count(c_ue_ambiguous);
		return hand_over(ctx, e_held, via);
	}
	outlet = index ? bpf_map_lookup_elem(&tof_outlets, &index) : 0;
	t = outlet ? find(&outlet->own) : 0;
	if (!t) {
		count(c_ue_no_tunnel);
		return hand_over(ctx, e_held, via);
	}
	if (t->flags & T_ENDED) {
		count(c_ue_ended);
		return hand_over(ctx, e_held, via);
	}
	if (by_address && !owns(t, &p, 0)) {
		count(c_ue_moved);
		return hand_over(ctx, e_moved, via);
	}
	if (t->flags & T_MOVED || (outlet->doubted_ns && t->last_ns < outlet->doubted_ns)) {
		count(c_ue_doubted);
		return hand_over(ctx, e_doubted, via ? via : index);
	}
	if (p.inner_length + (outlet->own.family == 6 ? 40 : 20) + 8 + (t->flags & T_CONTAINER ? 16 : 8) > c->mtu) {
		count(c_ue_too_big);
		return hand_over(ctx, e_too_big, index);
	}
	out = c->shared ? 0 : way_out(t, outlet->own.vlan, t->direction);
	if (!out && c->port_count[!t->direction] == 1)
		out = c->port[!t->direction][0];
	if (!out) {
		count(c_ue_no_way_out);
		return XDP_DROP;
	}
	if (by_address)
		note_opening(ctx, &p, now, bpf_ntohl(application));
	if (is_dns((void *)(long)ctx->data, (void *)(long)ctx->data_end, c, &p, 0))
		follow_names(ctx, &p, t, 0);
	clamp(ctx, c, &p, outlet->own.family == 6);
	if (p.protocol == IPPROTO_ICMP || p.protocol == IPPROTO_ICMPV6)
		mend_quote(ctx, &p);
	surplus = room - p.inner_length;
	if (surplus && bpf_xdp_adjust_tail(ctx, -(int)surplus))
		return XDP_DROP;
	if (encapsulate(ctx, outlet, t, p.inner_length, p.has_container ? p.qfi : t->qfi)) {
		count(c_ue_malformed);
		return XDP_DROP;
	}
	add_traffic(t, p.inner_length);
	t->injected_ns = now;
	if (c->accounting && application && t->direction == SGW)
		account(&p, &outlet->own, service_behind(bpf_ntohl(application)), now);
	count(c_encapsulated);
	if (c->shared && readdress_tunnel(ctx, c, outlet))
		return XDP_PASS; // tof_ue_onward asks the kernel for the way
	return bpf_redirect(out, 0);
}

XDP_PROGRAM(tof_ue, ue_side(ctx))

SEC("tc")
int tof_ue_onward(struct __sk_buff *skb)
{
	struct config *c = config();

	return c && c->shared ? bpf_redirect_neigh(c->port[0][0], 0, 0, 0) : TC_ACT_SHOT;
}

// Egress of a shared adapter without an address: there the kernel asks for our nodes in the name of another adapter's
// address, to which a node that filters by return path gives no answer. A probe (RFC 5227) asks in nobody's name.
SEC("tc")
int tof_shared_out(struct __sk_buff *skb)
{
	struct side_key key = {.prefix = 128};
	struct in6_addr address;
	__u8 arp[28] __attribute__((aligned(4)));
	__be32 sender, target;

	if (skb->protocol != bpf_htons(ETH_P_ARP) || bpf_skb_load_bytes(skb, ETH_HLEN, arp, sizeof(arp)))
		return TC_ACT_OK;
	__builtin_memcpy(&sender, arp + 14, 4);
	__builtin_memcpy(&target, arp + 24, 4);
	mapped(&address, target);
	__builtin_memcpy(key.address, &address, 16);
	if (arp[7] != 1 || sender == target || !bpf_map_lookup_elem(&tof_sides, &key))
		return TC_ACT_OK;
	sender = 0;
	bpf_skb_store_bytes(skb, ETH_HLEN + 14, &sender, 4, 0);
	return TC_ACT_OK;
}

// ---------------------------------------------------------------------------------------------- apps side

static __always_inline int is_tracked(__be32 application)
{
	struct in6_addr address;

	mapped(&address, application);
	return bpf_map_lookup_elem(&tof_tracked, &address) != 0;
}

// What goes to an application with a port of its own is tracked there, whoever it is from.
static __always_inline int veil_unless_tracked(struct iphdr *ip)
{
	return (ip->frag_off & bpf_htons(0x1fff)) && !is_tracked(ip->saddr) && !is_tracked(ip->daddr) && veil(ip);
}

static __always_inline void change_veil(struct __sk_buff *skb, int on)
{
	struct iphdr ip;

	if (skb->protocol == bpf_htons(ETH_P_IP) && !bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) &&
	    (on ? veil_unless_tracked(&ip) : unveil(&ip)))
		bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
}

// The same of what goes to an application.
static __always_inline void mend_quote4(struct __sk_buff *skb)
{
	struct iphdr ip, quoted;
	__u32 at;
	__u8 type;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_ICMP ||
	    ip.frag_off & bpf_htons(0x3fff))
		return;
	at = ETH_HLEN + ip.ihl * 4;
	if (bpf_skb_load_bytes(skb, at, &type, 1) || !is_error(type, 0) ||
	    bpf_skb_load_bytes(skb, at + 8, &quoted, sizeof(quoted)) || quoted.version != 4 ||
	    quoted.daddr != ip.saddr || quoted.saddr == ip.daddr)
		return;
	requote4(&quoted, &quoted.saddr, ip.daddr);
	bpf_skb_store_bytes(skb, at + 8, &quoted, sizeof(quoted), 0);
}

static __always_inline void mend_quote6(struct __sk_buff *skb)
{
	struct ipv6hdr ip, quoted;
	__u32 at = ETH_HLEN + sizeof(ip);
	__u16 sum;
	__u8 type;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_ICMPV6 ||
	    bpf_skb_load_bytes(skb, at, &type, 1) || !is_error(type, 1) || bpf_skb_load_bytes(skb, at + 2, &sum, 2) ||
	    bpf_skb_load_bytes(skb, at + 8, &quoted, sizeof(quoted)) || quoted.version != 6 ||
	    !same_address(&quoted.daddr, &ip.saddr) || same_address(&quoted.saddr, &ip.daddr))
		return;
	sum = resummed6(sum, &quoted.saddr, &ip.daddr);
	bpf_skb_store_bytes(skb, at + 2, &sum, 2, 0);
	bpf_skb_store_bytes(skb, at + 8 + __builtin_offsetof(struct ipv6hdr, saddr), &ip.daddr, 16, 0);
}

// Where a frame on this interface goes on: applications that have ports of their own have splices of their own.
static __always_inline __u32 other_end(struct __sk_buff *skb, __u32 shared)
{
	__u32 here = skb->ifindex, *own = bpf_map_lookup_elem(&tof_splices, &here);

	return own ? *own : shared;
}

// apps0 -> tofapp0: transmitting on a veth without offloads completes checksums and cuts TSO frames to size.
SEC("tc")
int tof_apps_in(struct __sk_buff *skb)
{
	struct config *c = config();

	change_veil(skb, 1);
	return c ? bpf_redirect(other_end(skb, c->splice_ifindex), 0) : TC_ACT_SHOT;
}

// tofapp0 -> apps0: the network of the apps sees one gateway, not one station per tunnel.
SEC("tc")
int tof_apps_out(struct __sk_buff *skb)
{
	__u8 gateway[6] = {0x02, 0x70, 0xff, 0xff, 0xff, 0xff};
	struct config *c = config();
	__u8 source[2];

	if (!c)
		return TC_ACT_SHOT;
	if (!bpf_skb_load_bytes(skb, 6, source, 2) && source[0] == gateway[0] && source[1] == gateway[1])
		bpf_skb_store_bytes(skb, 6, gateway, 6, 0);
	change_veil(skb, 0);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		mend_quote4(skb);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		mend_quote6(skb);
	return bpf_redirect(other_end(skb, c->apps_ifindex), 0);
}

char LICENSE[] SEC("license") = "GPL";
