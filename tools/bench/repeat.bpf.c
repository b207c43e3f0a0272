// SPDX-License-Identifier: Apache-2.0
//
// The data path's own source in programs that put the frame back as it was, so that one frame can be run a million
// times (BPF_PROG_TEST_RUN repeats on the frame that the run before left).

#include "tof.bpf.c"

#define BENCH_HEAD 72

struct bench_frame {
	__u32 size;
	__u8 head[BENCH_HEAD];
};

MAP(bench_original, BPF_MAP_TYPE_ARRAY, __u32, struct bench_frame, 1, 0);

static __always_inline int restored(struct xdp_md *ctx, int verdict)
{
	struct bench_frame *frame;
	void *data, *end;
	__u32 zero = 0;

	frame = bpf_map_lookup_elem(&bench_original, &zero);
	if (!frame || bpf_xdp_adjust_head(ctx, (int)bpf_xdp_get_buff_len(ctx) - (int)frame->size))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + BENCH_HEAD > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, frame->head, BENCH_HEAD);
	return verdict;
}

SEC("xdp.frags")
int bench_floor(struct xdp_md *ctx)
{
	return restored(ctx, XDP_REDIRECT);
}

SEC("xdp.frags")
__attribute__((flatten)) int bench_s1(struct xdp_md *ctx)
{
	return restored(ctx, tof_s1_enb(ctx));
}

SEC("xdp.frags")
__attribute__((flatten)) int bench_ue(struct xdp_md *ctx)
{
	return restored(ctx, tof_ue(ctx));
}
