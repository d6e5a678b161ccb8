// SPDX-License-Identifier: Apache-2.0
// runtime_cpu.h -- what only the CPU backend's launchers use: putting a function on a stream.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/runtime.h"

enum {
    STREAM_ARGUMENTS_BYTES_MAX = 512, // of one op's argument struct
    STREAM_QUEUE_MAX = 4096,          // ops queued before the caller waits
};

// Queues function(copy of arguments); the struct is copied, what it points to is not. Waits when
// STREAM_QUEUE_MAX ops are queued.
void stream_run(struct stream *stream, void (*function)(const void *arguments),
                const void *arguments, size_t arguments_bytes);

// Test hook: from now on the stream's thread sleeps a pseudo-random time of 0..microseconds_max
// before some of its ops, by seed; 0 turns it off. Finds work that forgot to be ordered.
void stream_set_jitter(struct stream *stream, uint64_t seed, uint32_t microseconds_max);
