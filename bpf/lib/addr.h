/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Addresses in one form: 16 bytes, IPv4 mapped. */
#ifndef WEIR_ADDR_H
#define WEIR_ADDR_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "types.h"

#define WEIR_MAPPED bpf_htonl(0x0000ffff) /* third word of ::ffff:a.b.c.d */
#define WEIR_LOOPBACK4 bpf_htonl(0x7f000001)
#define WEIR_LOOPBACK6 bpf_htonl(1) /* fourth word of ::1 */

/* weir_addr is an address by words, in network order. */
struct weir_addr {
	__u32 w[4];
};

static __always_inline struct weir_addr addr4(__u32 ip)
{
	struct weir_addr a = {{0, 0, WEIR_MAPPED, ip}};
	return a;
}

static __always_inline struct weir_addr addr6(__u32 a, __u32 b, __u32 c, __u32 d)
{
	struct weir_addr r = {{a, b, c, d}};
	return r;
}

static __always_inline int is_mapped(const struct weir_addr *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == WEIR_MAPPED;
}

static __always_inline int is_any(const struct weir_addr *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && (a->w[2] == 0 || a->w[2] == WEIR_MAPPED) && a->w[3] == 0;
}

/* is_loopback is true for the two addresses that the agent listens on. */
static __always_inline int is_loopback(const struct weir_addr *a)
{
	if (a->w[0] || a->w[1])
		return 0;
	return (a->w[2] == WEIR_MAPPED && a->w[3] == WEIR_LOOPBACK4) || (a->w[2] == 0 && a->w[3] == WEIR_LOOPBACK6);
}

static __always_inline void store_addr(__u8 to[16], const struct weir_addr *a)
{
	__builtin_memcpy(to, a->w, 16);
}

#endif
