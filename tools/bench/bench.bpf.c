// SPDX-License-Identifier: Apache-2.0
//
// What tools/bench needs in the kernel: a packet generator, a redirect without parsing, counting sinks.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define HEAD 72
#define TEIDS (1 << 20)

struct bench_conf {
	__u32 target;           // the generator's way out
	__u32 tunnels, first_ue;
	__u32 number_at, ue_at; // where the tunnel's number (from 1) and its UE's address stand in the frame
	__u32 onward;           // bench_bare's way out
	__u8 head[HEAD];        // every frame starts with this: frames come back from the data path rewritten
};

#define MAP(name_, type_, value_, entries_)                                                                            \
	struct {                                                                                                       \
		__uint(type, type_);                                                                                   \
		__type(key, __u32);                                                                                    \
		__type(value, value_);                                                                                 \
		__uint(max_entries, entries_);                                                                         \
	} name_ SEC(".maps")

MAP(bench_config, BPF_MAP_TYPE_ARRAY, struct bench_conf, 1);
MAP(bench_count, BPF_MAP_TYPE_PERCPU_ARRAY, __u64, 1);
MAP(bench_seen, BPF_MAP_TYPE_ARRAY, __u32, TEIDS);

static __always_inline struct bench_conf *conf(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&bench_config, &zero);
}

SEC("xdp")
int bench_generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct bench_conf *c = conf();
	__be32 *at;
	__u32 which;

	if (!c || data + HEAD > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, c->head, HEAD);
	which = (__u64)bpf_get_prandom_u32() * c->tunnels >> 32;
	at = data + (c->number_at & 0x7f);
	if ((void *)(at + 1) > end)
		return XDP_ABORTED;
	*at = bpf_htonl(which + 1);
	at = data + (c->ue_at & 0x7f);
	if ((void *)(at + 1) > end)
		return XDP_ABORTED;
	*at = bpf_htonl(c->first_ue + which);
	return bpf_redirect(c->target, 0);
}

SEC("xdp")
int bench_bare(struct xdp_md *ctx)
{
	struct bench_conf *c = conf();

	return c ? bpf_redirect(c->onward, 0) : XDP_ABORTED;
}

static __always_inline void add(void)
{
	__u32 zero = 0;
	__u64 *value = bpf_map_lookup_elem(&bench_count, &zero);

	if (value)
		(*value)++;
}

SEC("xdp.frags")
int bench_sink(struct xdp_md *ctx)
{
	add();
	return XDP_DROP;
}

SEC("tc")
int bench_sink_tc(struct __sk_buff *skb)
{
	add();
	return 2; // TC_ACT_SHOT
}

// Counts by TEID the G-PDUs (IPv4, no options, no VLAN) that carry UDP: what the learning bench sends.
SEC("xdp.frags")
int bench_seen_sink(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 teid, *value;

	if ((void *)(data + 74) > end || data[12] != 8 || data[13] || data[23] != 17 || data[42] != 0x30 ||
	    data[43] != 255 || data[59] != 17)
		return XDP_PASS;
	__builtin_memcpy(&teid, data + 46, 4);
	teid = bpf_ntohl(teid);
	value = bpf_map_lookup_elem(&bench_seen, &teid);
	if (value)
		__sync_fetch_and_add(value, 1);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
