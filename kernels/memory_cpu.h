// SPDX-License-Identifier: Apache-2.0
// memory_cpu.h -- how much memory this process may still use, from the kernel's text files.
// Not an op. Belongs to runtime_cpu.c.
#pragma once

#include <stdint.h>

// The least of MemAvailable and of what the control groups of this process (version 2 and 1, all
// parents) still allow; page cache that can be dropped counts as free. root is put before every
// path ("" for the real ones; tests bring their own tree). 0 when meminfo is not readable.
uint64_t memory_cpu_bytes_free(const char *root);
