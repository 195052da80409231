/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The same types on every build machine, so that the objects come out the same. */
#include <asm-generic/types.h>
