// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//go:build ignore

/*
 * Redirect TCP connections to protected destinations into the agent's listener on
 * loopback, and carry over where they were meant to go and who asked.
 *
 *   connect4/6      caller's context  protected? leave a record in the socket's storage, rewrite to loopback
 *   TCP_CONNECT_CB  before the SYN    ports are chosen: publish the record under netns cookie + tuple
 *   PASSIVE_ESTAB.  softirq           move it into the accepted socket's storage, where the agent reads it
 *   STATE_CB        any               a client that closed before it was accepted takes its entry back; an
 *                                     accepted connection that ends with its note unread is counted
 *   getpeername4/6  caller's context  the client sees the address that it asked for
 *   sendmsg4/6      caller's context  no datagrams to protected destinations (QUIC would go round)
 *   post_bind4/6    caller's context  nobody but an agent binds the proxy's port on loopback
 *
 * Failure policy: whatever cannot be recorded is refused. ECONNREFUSED where trying
 * again may help (database pools retry it), EPERM where it never will.
 * Tests: internal/redirect.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/addr.h"
#include "lib/identity.h"
#include "lib/maps.h"
#include "lib/types.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_UDPLITE 136
#define EPERM 1
#define ECONNREFUSED 111

/* Longer than the kernel's last SYN retry (127 s, net.ipv4.tcp_syn_retries = 6). */
#define WEIR_HANDOVER_TTL_NS (180ULL * 1000 * 1000 * 1000)

#define DENY 0
#define ALLOW 1
#define REDIRECT 2

static __always_inline int refuse(enum weir_counter why, int err)
{
	count(why);
	bpf_set_retval(-err);
	return DENY;
}

static __always_inline struct weir_destination *destination(__u8 protocol, __u16 port, const struct weir_addr *addr)
{
	struct weir_destination_key key = {
		.prefixlen = 8 * (sizeof(key) - sizeof(key.prefixlen)),
		.protocol = protocol,
		.port = port,
	};

	store_addr(key.addr, addr);
	return bpf_map_lookup_elem(&destinations_v1, &key);
}

/* exempt is true for the agent: by the cgroup of the caller, or by a stamp that
 * only a holder of the map can put on a socket. Never by mark or uid. */
static __always_inline int exempt(struct bpf_sock *sk)
{
	__u64 cgroup = bpf_get_current_cgroup_id();

	return bpf_map_lookup_elem(&agents_v1, &cgroup) || bpf_sk_storage_get(&stamps_v1, sk, 0, 0);
}

/* room puts an entry into the hand-over map and takes it out again: a full map
 * refuses the connect here, where the caller still gets an errno. */
static __always_inline int room(struct weir_record *r)
{
	struct weir_handover_key probe = {}; /* netns 0 does not exist */

	__builtin_memcpy(probe.client_addr, &r->cookie, sizeof(r->cookie));
	if (bpf_map_update_elem(&handovers_v1, &probe, r, BPF_ANY))
		return 0;
	bpf_map_delete_elem(&handovers_v1, &probe);
	return 1;
}

static __always_inline int connect_tcp(struct bpf_sock_addr *ctx, struct bpf_sock *sk, const struct weir_addr *addr)
{
	__u16 port = (__u16)ctx->user_port;
	struct weir_destination *d = destination(IPPROTO_TCP, port, addr);
	struct weir_record *r;
	__u16 proxy;

	if (!d || exempt(sk)) {
		/* The latest connect counts: what an earlier one left must not
		 * speak for this one. */
		bpf_sk_storage_delete(&records_v1, sk);
		if (d)
			count(WEIR_EXEMPT);
		return ALLOW;
	}
	proxy = proxy_port();
	if (!proxy) {
		count_flow(d->generation, d->backend, WEIR_FLOW_DENIED_UNREADY);
		return refuse(WEIR_DENIED_UNREADY, ECONNREFUSED);
	}
	r = bpf_sk_storage_get(&records_v1, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!r) {
		count_flow(d->generation, d->backend, WEIR_FLOW_DENIED_STORAGE);
		return refuse(WEIR_DENIED_STORAGE, ECONNREFUSED);
	}

	r->version = WEIR_RECORD_VERSION;
	r->size = sizeof(*r);
	r->role = WEIR_ROLE_CLIENT;
	store_addr(r->addr, addr);
	r->port = port;
	r->proxy_port = proxy;
	r->backend = d->backend;
	r->generation = d->generation;
	r->netns = bpf_get_netns_cookie(ctx);
	r->cookie = bpf_get_socket_cookie(ctx);
	r->time = bpf_ktime_get_ns();
	identify(r);

	if (!room(r)) {
		count_flow(r->generation, r->backend, WEIR_FLOW_DENIED_FULL);
		bpf_sk_storage_delete(&records_v1, sk);
		return refuse(WEIR_DENIED_FULL, ECONNREFUSED);
	}
	count(WEIR_REDIRECTED);
	count_flow(r->generation, r->backend, WEIR_FLOW_REDIRECTED);
	return REDIRECT;
}

static __always_inline int datagram(struct bpf_sock_addr *ctx, struct bpf_sock *sk, const struct weir_addr *addr)
{
	struct weir_destination *d = destination(IPPROTO_UDP, (__u16)ctx->user_port, addr);

	if (!d || exempt(sk))
		return ALLOW;
	count_flow(d->generation, d->backend, WEIR_FLOW_UDP_DENIED);
	return refuse(WEIR_UDP_DENIED, EPERM);
}

static __always_inline int outbound(struct bpf_sock_addr *ctx, const struct weir_addr *addr)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk) {
		bpf_set_retval(-EPERM); /* cannot happen for inet sockets */
		return DENY;
	}
	switch (ctx->protocol) {
	case IPPROTO_TCP:
		return connect_tcp(ctx, sk, addr);
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		return datagram(ctx, sk, addr);
	}
	return ALLOW;
}

/* asked4 and asked6 are the address that the kernel is going to connect to: the
 * unspecified address means this host, as in tcp_v4_connect and tcp_v6_connect. */
static __always_inline struct weir_addr asked4(struct bpf_sock_addr *ctx)
{
	__u32 ip = ctx->user_ip4;

	return addr4(ip ? ip : WEIR_LOOPBACK4);
}

static __always_inline struct weir_addr asked6(struct bpf_sock_addr *ctx)
{
	struct weir_addr a = addr6(ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]);
	struct bpf_sock *sk = ctx->sk;

	if (!is_any(&a))
		return a;
	if (is_mapped(&a) || (sk && sk->src_ip6[2] == WEIR_MAPPED))
		return addr4(WEIR_LOOPBACK4);
	return addr6(0, 0, 0, WEIR_LOOPBACK6);
}

SEC("cgroup/connect4")
int weir_connect4(struct bpf_sock_addr *ctx)
{
	struct weir_addr addr = asked4(ctx);
	int verdict = outbound(ctx, &addr);

	if (verdict != REDIRECT)
		return verdict;
	ctx->user_ip4 = WEIR_LOOPBACK4;
	ctx->user_port = proxy_port();
	return ALLOW;
}

SEC("cgroup/connect6")
int weir_connect6(struct bpf_sock_addr *ctx)
{
	struct weir_addr addr = asked6(ctx);
	int mapped = is_mapped(&addr);
	int verdict = outbound(ctx, &addr);

	if (verdict != REDIRECT)
		return verdict;
	/* A mapped address stays mapped: the socket may be unable to speak IPv6. */
	ctx->user_ip6[0] = 0;
	ctx->user_ip6[1] = 0;
	ctx->user_ip6[2] = mapped ? WEIR_MAPPED : 0;
	ctx->user_ip6[3] = mapped ? WEIR_LOOPBACK4 : WEIR_LOOPBACK6;
	ctx->user_port = proxy_port();
	return ALLOW;
}

SEC("cgroup/sendmsg4")
int weir_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct weir_addr addr = asked4(ctx);
	struct bpf_sock *sk = ctx->sk;

	return sk ? datagram(ctx, sk, &addr) : DENY;
}

SEC("cgroup/sendmsg6")
int weir_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct weir_addr addr = asked6(ctx);
	struct bpf_sock *sk = ctx->sk;

	return sk ? datagram(ctx, sk, &addr) : DENY;
}

/* asked_for is the record of a client's socket whose peer is the proxy, else NULL. */
static __always_inline struct weir_record *asked_for(struct bpf_sock_addr *ctx, const struct weir_addr *peer)
{
	struct bpf_sock *sk = ctx->sk;
	struct weir_record *r;

	if (!sk || !is_loopback(peer))
		return 0;
	r = bpf_sk_storage_get(&records_v1, sk, 0, 0);
	if (!r || r->role != WEIR_ROLE_CLIENT || r->proxy_port != (__u16)ctx->user_port)
		return 0;
	return r;
}

SEC("cgroup/getpeername4")
int weir_getpeername4(struct bpf_sock_addr *ctx)
{
	struct weir_addr peer = addr4(ctx->user_ip4);
	struct weir_record *r = asked_for(ctx, &peer);

	if (r) {
		ctx->user_ip4 = ((__u32 *)r->addr)[3];
		ctx->user_port = r->port;
	}
	return ALLOW;
}

SEC("cgroup/getpeername6")
int weir_getpeername6(struct bpf_sock_addr *ctx)
{
	struct weir_addr peer = addr6(ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]);
	struct weir_record *r = asked_for(ctx, &peer);

	if (r) {
		__u32 *to = (__u32 *)r->addr;

		ctx->user_ip6[0] = to[0];
		ctx->user_ip6[1] = to[1];
		ctx->user_ip6[2] = to[2];
		ctx->user_ip6[3] = to[3];
		ctx->user_port = r->port;
	}
	return ALLOW;
}

/* bind_allowed keeps the proxy's port on loopback (and on "any", which covers it)
 * for agents: where no agent listens, nobody else may take its clients' bytes. */
static __always_inline int bind_allowed(struct bpf_sock *sk, const struct weir_addr *addr)
{
	__u16 proxy = proxy_port();

	if (sk->protocol != IPPROTO_TCP || !proxy || sk->src_port != bpf_ntohs(proxy))
		return ALLOW;
	if (!is_any(addr) && !is_loopback(addr))
		return ALLOW;
	if (exempt(sk))
		return ALLOW;
	count(WEIR_BIND_DENIED);
	return DENY;
}

SEC("cgroup/post_bind4")
int weir_post_bind4(struct bpf_sock *sk)
{
	struct weir_addr addr = addr4(sk->src_ip4);

	return bind_allowed(sk, &addr);
}

SEC("cgroup/post_bind6")
int weir_post_bind6(struct bpf_sock *sk)
{
	struct weir_addr addr = addr6(sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]);

	return bind_allowed(sk, &addr);
}

/* load reads a word of the context at a fixed offset. In plain C clang merges the
 * loads of the v4 and v6 branches into one through a computed pointer, and the
 * verifier refuses that ("dereference of modified ctx ptr"). */
#define load(ctx, field)                                                                             \
	({                                                                                           \
		__u64 word;                                                                          \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                                \
			     : "=r"(word)                                                            \
			     : "r"(ctx), "i"(__builtin_offsetof(struct bpf_sock_ops, field)));       \
		(__u32)word;                                                                         \
	})

static __always_inline struct weir_addr local_addr(struct bpf_sock_ops *ops)
{
	if (load(ops, family) == AF_INET)
		return addr4(load(ops, local_ip4));
	return addr6(load(ops, local_ip6[0]), load(ops, local_ip6[1]), load(ops, local_ip6[2]), load(ops, local_ip6[3]));
}

static __always_inline struct weir_addr remote_addr(struct bpf_sock_ops *ops)
{
	if (load(ops, family) == AF_INET)
		return addr4(load(ops, remote_ip4));
	return addr6(load(ops, remote_ip6[0]), load(ops, remote_ip6[1]), load(ops, remote_ip6[2]), load(ops, remote_ip6[3]));
}

/* In sock_ops the local port is in host order, the remote one in network order in
 * the upper half of the word. */
static __always_inline __u16 local_port(struct bpf_sock_ops *ops)
{
	return bpf_htons((__u16)load(ops, local_port));
}

static __always_inline __u16 remote_port(struct bpf_sock_ops *ops)
{
	return (__u16)(load(ops, remote_port) >> 16);
}

/* client_key names the connection from the client's end; proxy_key from the agent's.
 * Both give the same key: a mapped client talks to a plain IPv4 listener. */
static __always_inline void client_key(struct bpf_sock_ops *ops, struct weir_handover_key *key)
{
	struct weir_addr local = local_addr(ops), remote = remote_addr(ops);

	key->netns = bpf_get_netns_cookie(ops);
	key->client_port = local_port(ops);
	key->proxy_port = remote_port(ops);
	store_addr(key->client_addr, &local);
	store_addr(key->proxy_addr, &remote);
}

static __always_inline void proxy_key(struct bpf_sock_ops *ops, struct weir_handover_key *key)
{
	struct weir_addr local = local_addr(ops), remote = remote_addr(ops);

	key->netns = bpf_get_netns_cookie(ops);
	key->client_port = remote_port(ops);
	key->proxy_port = local_port(ops);
	store_addr(key->client_addr, &remote);
	store_addr(key->proxy_addr, &local);
}

/* publish runs when the client's port is chosen and its SYN not yet sent. */
static __always_inline void publish(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct weir_record *r = bpf_sk_storage_get(&records_v1, sk, 0, 0);
	struct weir_handover_key key = {};

	if (!r) {
		/* A direct connect to the proxy: it must not find what an earlier
		 * connection with the same port may have left. */
		if (remote_port(ops) == proxy_port()) {
			client_key(ops, &key);
			bpf_map_delete_elem(&handovers_v1, &key);
		}
		return;
	}
	if (r->role != WEIR_ROLE_CLIENT)
		return;
	client_key(ops, &key);
	if (bpf_map_update_elem(&handovers_v1, &key, r, BPF_ANY)) {
		count(WEIR_UNPUBLISHED); /* no record at the other end: the agent closes it */
		count_flow(r->generation, r->backend, WEIR_FLOW_UNPUBLISHED);
		return;
	}
	bpf_sock_ops_cb_flags_set(ops, load(ops, bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* hand_over runs in softirq when the handshake ends, before accept(2) can return. */
static __always_inline void hand_over(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct weir_handover_key key = {};
	struct weir_record *from, *to;
	__u32 generation, backend;
	__u64 cookie;

	if (local_port(ops) != proxy_port())
		return;
	proxy_key(ops, &key);
	from = bpf_map_lookup_elem(&handovers_v1, &key);
	if (!from || bpf_ktime_get_ns() - from->time > WEIR_HANDOVER_TTL_NS) {
		count(WEIR_NO_RECORD);
		return;
	}
	cookie = from->cookie;
	generation = from->generation;
	backend = from->backend;
	to = bpf_sk_storage_get(&records_v1, sk, from, BPF_SK_STORAGE_GET_F_CREATE);
	if (!to) {
		count(WEIR_ACCEPT_STORAGE);
		if (!bpf_map_delete_elem(&handovers_v1, &key))
			count_flow(generation, backend, WEIR_FLOW_ACCEPT_STORAGE);
		return;
	}
	/* Elements are reused at once: if the client closed while this copied, the
	 * copy may hold a part of somebody else's record. */
	from = bpf_map_lookup_elem(&handovers_v1, &key);
	if (!from || from->cookie != cookie || to->cookie != cookie || bpf_map_delete_elem(&handovers_v1, &key)) {
		bpf_sk_storage_delete(&records_v1, sk);
		count(WEIR_NO_RECORD);
		return;
	}
	to->role = WEIR_ROLE_ACCEPTED;
	count(WEIR_HANDED_OVER);
	count_flow(generation, backend, WEIR_FLOW_HANDED_OVER);
	bpf_sock_ops_cb_flags_set(ops, load(ops, bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG);
}

#define SOL_SOCKET 1
#define SO_PRIORITY 12

static __always_inline int set_priority(struct bpf_sock_ops *ops, __u32 value)
{
	return bpf_setsockopt(ops, SOL_SOCKET, SO_PRIORITY, &value, sizeof(value));
}

/* unclaimed counts an accepted connection that ends with its note unread. The agent
 * takes a note by deleting it; but of two that delete at once both may succeed, for
 * the kernel looks before it locks. So what was counted is marked, under the socket's
 * lock, and the agent looks for the mark after its delete, having waited for that lock. */
static __always_inline void unclaimed(struct bpf_sock_ops *ops, struct bpf_sock *sk, struct weir_record *r)
{
	__u32 generation = r->generation, backend = r->backend;

	if (set_priority(ops, WEIR_UNCLAIMED_PRIORITY))
		return; /* the agent will find the note */
	if (bpf_sk_storage_delete(&records_v1, sk)) {
		set_priority(ops, 0); /* the agent has taken it this moment */
		return;
	}
	count_flow(generation, backend, WEIR_FLOW_UNCLAIMED);
}

/* take_back removes the entry of a client that closed before it was accepted, and
 * the note of an accepted connection that nobody has taken. */
static __always_inline void take_back(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct weir_record *r = bpf_sk_storage_get(&records_v1, sk, 0, 0);
	struct weir_handover_key key = {};
	struct weir_record *entry;

	if (!r)
		return;
	if (r->role == WEIR_ROLE_ACCEPTED) {
		unclaimed(ops, sk, r);
		return;
	}
	client_key(ops, &key);
	entry = bpf_map_lookup_elem(&handovers_v1, &key);
	if (!entry || entry->cookie != r->cookie)
		return; /* handed over, or the port is somebody else's by now */
	if (bpf_map_delete_elem(&handovers_v1, &key))
		return; /* handed over this moment */
	count(WEIR_ABANDONED);
	count_flow(r->generation, r->backend, WEIR_FLOW_ABANDONED);
}

SEC("sockops")
int weir_sockops(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	__u32 op = ops->op;

	if (!sk || (op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB &&
		    op != BPF_SOCK_OPS_STATE_CB))
		return 1;
	switch (op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		publish(ops, sk);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		hand_over(ops, sk);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] == BPF_TCP_CLOSE)
			take_back(ops, sk);
		break;
	}
	return 1;
}
