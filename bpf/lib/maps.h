/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every map. Names carry the schema version: a changed layout is a new map. */
#ifndef WEIR_MAPS_H
#define WEIR_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "types.h"

#define WEIR_MAX_DESTINATIONS 65536
#define WEIR_MAX_AGENTS 16 /* agents of one folder, old ones included, while one takes over from another */
#define WEIR_MAX_FLOWS 16384 /* backends, times the runs of the agent that still count */
#define WEIR_MAX_HANDOVERS 65536 /* connections between connect and accept, on the whole node */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weir_config);
} config_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, WEIR_MAX_DESTINATIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weir_destination_key);
	__type(value, struct weir_destination);
} destinations_v1 SEC(".maps");

/* The cgroup ids of agents; the value is the pid that entered it, for people. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WEIR_MAX_AGENTS);
	__type(key, __u64);
	__type(value, __u32);
} agents_v1 SEC(".maps");

/* Sockets that an agent stamped, by descriptor, before it connects them. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} stamps_v1 SEC(".maps");

/* The record of a client's socket, and of the agent's accepted one. Freed with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct weir_record);
} records_v1 SEC(".maps");

/* Records between connect and accept. A plain hash: a full map refuses the next
 * connect, where an LRU would drop a neighbour's record. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WEIR_MAX_HANDOVERS);
	__type(key, struct weir_handover_key);
	__type(value, struct weir_record);
} handovers_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WEIR_COUNTERS);
	__type(key, __u32); /* enum weir_counter */
	__type(value, __u64);
} counters_v1 SEC(".maps");

/* What became of the connects to each backend. Not per CPU: a sum over CPUs that is
 * read while they count is of no moment, and connects are rare enough. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WEIR_MAX_FLOWS);
	__type(key, struct weir_flows_key);
	__type(value, struct weir_flows);
} flows_v1 SEC(".maps");

static __noinline void count(enum weir_counter which)
{
	__u32 key = which;
	__u64 *n = bpf_map_lookup_elem(&counters_v1, &key);

	/* Atomic although per CPU: flows are reconciled with these numbers, and a
	 * preempted caller or a softirq would lose one. */
	if (n)
		__sync_fetch_and_add(n, 1);
}

/* count_flow counts for a backend. Where the agent has made no entry nothing is counted. */
static __noinline void count_flow(__u32 generation, __u32 backend, enum weir_flow_counter which)
{
	struct weir_flows_key key = {generation, backend};
	struct weir_flows *f = bpf_map_lookup_elem(&flows_v1, &key);
	__u32 i = which;

	if (f && i < WEIR_FLOW_SLOTS)
		__sync_fetch_and_add(&f->n[i], 1);
}

static __always_inline __u16 proxy_port(void)
{
	__u32 key = 0;
	struct weir_config *c = bpf_map_lookup_elem(&config_v1, &key);

	return c ? c->proxy_port : 0;
}

#endif
