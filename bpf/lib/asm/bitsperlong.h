/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The BPF machine has 64-bit longs. */
#define __BITS_PER_LONG 64
