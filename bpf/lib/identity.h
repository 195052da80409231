/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Who calls. Only for hooks that run in the caller's own context (connect,
 * sendmsg, bind): in sockops and skb programs "current" is whoever was interrupted.
 * The structs name just the fields that are read; CO-RE finds them in the
 * running kernel (the suffix after ___ is ignored when types are matched).
 */
#ifndef WEIR_IDENTITY_H
#define WEIR_IDENTITY_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "types.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__u32 val;
} kuid_t___weir;

struct super_block___weir {
	__u32 s_dev;
};

struct inode___weir {
	struct super_block___weir *i_sb;
	unsigned long i_ino;
};

struct file___weir {
	struct inode___weir *f_inode;
};

struct mm_struct___weir {
	struct file___weir *exe_file;
};

struct task_struct___weir {
	struct mm_struct___weir *mm;
	struct task_struct___weir *group_leader;
	__u64 start_boottime;
	kuid_t___weir loginuid;
	unsigned int sessionid;
};

#pragma clang attribute pop

/* identify fills the caller's part of a record. A field that this kernel does not
 * have stays unset; user space treats unset as unknown. */
static __always_inline void identify(struct weir_record *r)
{
	struct task_struct___weir *task = (void *)bpf_get_current_task();
	struct inode___weir *exe = BPF_CORE_READ(task, mm, exe_file, f_inode);

	r->pid = bpf_get_current_pid_tgid() >> 32;
	r->uid = (__u32)bpf_get_current_uid_gid();
	r->cgroup = bpf_get_current_cgroup_id();
	r->start_time = BPF_CORE_READ(task, group_leader, start_boottime);
	r->exe_inode = BPF_CORE_READ(exe, i_ino);
	r->exe_dev = BPF_CORE_READ(exe, i_sb, s_dev);
	r->loginuid = WEIR_UNSET;
	r->audit_session = WEIR_UNSET;
	if (bpf_core_field_exists(task->loginuid))
		r->loginuid = BPF_CORE_READ(task, loginuid.val);
	if (bpf_core_field_exists(task->sessionid))
		r->audit_session = BPF_CORE_READ(task, sessionid);
	bpf_get_current_comm(r->comm, sizeof(r->comm));
}

#endif
