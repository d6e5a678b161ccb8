// SPDX-License-Identifier: Apache-2.0
// runtime_cpu.h -- what only the CPU backend's launchers use: putting a function on a stream; and
// the tests' hooks into a stream. Not an op.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/runtime.h"

enum {
    STREAM_ARGUMENTS_BYTES_MAX = 512, // of one op's argument struct
    STREAM_QUEUE_MAX = 4096,          // ops queued before the caller waits
    STREAM_POISON_BYTE = 0xa5,
};

// Queues function(copy of arguments); the struct is copied, what it points to is not. Waits when
// STREAM_QUEUE_MAX ops are queued. Not from a function that runs on this stream.
void stream_run(struct stream *stream, void (*function)(const void *arguments),
                const void *arguments, size_t arguments_bytes);

// Test hook: from now on the stream's thread sleeps a pseudo-random time of 0..microseconds_max
// before some of its ops, by seed; 0 turns it off. Finds work that forgot to be ordered.
void stream_set_jitter(struct stream *stream, uint64_t seed, uint32_t microseconds_max);

// Test hook: from now on, until it is turned off, staging memory is spoilt with STREAM_POISON_BYTE
// where it means nothing: the source of a copy to the device once it has run (only where the
// source came from runtime_alloc_host), and the destination of a copy to the host as soon as it is
// queued. Finds staging that is read too early or expected to last.
void stream_set_poison(struct stream *stream, bool on);
