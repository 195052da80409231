/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What user space and the kernel programs share. Every struct is padded by hand
 * and compared with its Go form in layout_test.go. Addresses are 16 bytes, IPv4
 * in its mapped form (RFC 4291, 2.5.5.2); ports are in network order.
 *
 * A layout may only grow, and then WEIR_RECORD_VERSION and the version in the
 * names of the maps that hold it change too: old and new programs run side by
 * side for a moment during an upgrade.
 */
#ifndef WEIR_TYPES_H
#define WEIR_TYPES_H

#include <linux/types.h>

#define WEIR_RECORD_VERSION 1
#define WEIR_COMM_LEN 16 /* TASK_COMM_LEN */
#define WEIR_UNSET 0xffffffffu /* a login uid or audit session that was never set, audit(7) */

enum weir_role {
	WEIR_ROLE_CLIENT = 1,   /* the record hangs on the socket that called connect(2) */
	WEIR_ROLE_ACCEPTED = 2, /* it was moved to the agent's accepted socket */
};

/* weir_config is the one entry of config_v1. */
struct weir_config {
	__u32 version;
	__u32 generation; /* counts agent runs; the destinations' is one of these */
	__u16 proxy_port; /* network order; 0 until the agent has filled the map */
	__u16 pad;
};

/* weir_destination_key orders protocol and port before the address, so that a
 * prefix of 32 + n bits means "this protocol, this port, this network". */
struct weir_destination_key {
	__u32 prefixlen;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad;
	__u16 port;
	__u8 addr[16];
};

struct weir_destination {
	__u32 backend;    /* index into the agent's list of backends */
	__u32 generation; /* which agent run meant that index */
};

/* weir_handover_key is a TCP connection as the accepting side sees it. */
struct weir_handover_key {
	__u64 netns; /* cookie: every namespace has its own 127.0.0.1 */
	__u8 client_addr[16];
	__u8 proxy_addr[16];
	__u16 client_port;
	__u16 proxy_port;
	__u32 pad;
};

/* weir_record says where a connection was meant to go and who asked for it. It
 * is written in the caller's own context, in the connect hook, and never later. */
struct weir_record {
	__u16 version;
	__u16 size;
	enum weir_role role;
	__u8 addr[16];
	__u16 port;
	__u16 proxy_port; /* where the connect was rewritten to */
	__u32 backend;
	__u32 generation;
	__u32 pid; /* thread group, in the initial pid namespace */
	__u64 netns;
	__u64 cgroup;     /* of the caller, which need not be the socket's */
	__u64 start_time; /* of the thread group's leader, ns, CLOCK_BOOTTIME */
	__u64 exe_inode;
	__u64 time;   /* of the connect, ns, CLOCK_MONOTONIC */
	__u64 cookie; /* of the client's socket */
	__u32 exe_dev; /* the kernel's dev_t: 12 bits major, 20 bits minor */
	__u32 uid;
	__u32 loginuid;
	__u32 audit_session;
	__u8 comm[WEIR_COMM_LEN]; /* chosen by the process: for display only */
};

/* weir_counter indexes counters_v1. Append only. */
enum weir_counter {
	WEIR_REDIRECTED,       /* connects rewritten to the proxy */
	WEIR_HANDED_OVER,      /* records moved to an accepted socket */
	WEIR_ABANDONED,        /* redirected, published, closed before it was accepted */
	WEIR_DENIED_FULL,      /* connects refused: no room for the hand-over */
	WEIR_DENIED_STORAGE,   /* connects refused: no socket storage */
	WEIR_DENIED_UNREADY,   /* connects refused: the agent has not set the port */
	WEIR_UNPUBLISHED,      /* redirected, but the hand-over could not be written */
	WEIR_NO_RECORD,        /* connections to the proxy port without a record */
	WEIR_ACCEPT_STORAGE,   /* records lost: no storage on the accepted socket */
	WEIR_UDP_DENIED,       /* datagrams and UDP connects refused */
	WEIR_EXEMPT,           /* the agent's own connects to protected destinations */
	WEIR_BIND_DENIED,      /* attempts of others to bind the proxy port */
	WEIR_COUNTERS,
};

/* weir_flow_counter indexes weir_flows.n: what became of the connects to one backend.
 * Append only, and no more than WEIR_FLOW_SLOTS. */
enum weir_flow_counter {
	WEIR_FLOW_REDIRECTED,     /* connects rewritten to the proxy */
	WEIR_FLOW_HANDED_OVER,    /* notes moved to an accepted socket */
	WEIR_FLOW_UNCLAIMED,      /* of those: the connection ended before the agent took the note */
	WEIR_FLOW_ABANDONED,      /* ended before the handshake did: nobody listened, or the client left */
	WEIR_FLOW_UNPUBLISHED,    /* no room for the hand-over: the agent closes it */
	WEIR_FLOW_ACCEPT_STORAGE, /* no memory on the accepted socket: the agent closes it */
	WEIR_FLOW_DENIED_FULL,    /* connects refused (ECONNREFUSED): no room for the hand-over */
	WEIR_FLOW_DENIED_STORAGE, /* connects refused (ECONNREFUSED): no memory for the note */
	WEIR_FLOW_DENIED_UNREADY, /* connects refused (ECONNREFUSED): no agent has set the port */
	WEIR_FLOW_UDP_DENIED,     /* datagrams and UDP connects refused (EPERM) */
	WEIR_FLOW_COUNTERS,
};

/* The SO_PRIORITY of an accepted socket that was counted as WEIR_FLOW_UNCLAIMED. */
#define WEIR_UNCLAIMED_PRIORITY 0x57454952

#define WEIR_FLOW_SLOTS 16
#define WEIR_BACKEND_LEN 64 /* configuration: at most 63 bytes */

/* weir_flows_key is a backend as one run of the agent numbers it, as in weir_destination. */
struct weir_flows_key {
	__u32 generation;
	__u32 backend;
};

/* weir_flows counts the connections to one backend. The agent makes the entry before
 * anything can be counted and changes it never again. */
struct weir_flows {
	__u64 made; /* when the counting began, ns, CLOCK_REALTIME */
	__u8 name[WEIR_BACKEND_LEN]; /* of the backend, zero padded */
	__u64 n[WEIR_FLOW_SLOTS]; /* by enum weir_flow_counter */
};

#endif
