// SPDX-License-Identifier: Apache-2.0
// runtime.h -- streams, graphs, events and memory of a device, the same for CUDA and for the CPU
// backend, where a stream is a bounded queue with a thread of its own. Not an op.
//
// Work on one stream runs in order; the host runs ahead of it. Nothing here may be called from
// two threads on the same stream at once. A CUDA fault ends the process (status_die).
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"

struct stream; // opaque
struct event;  // opaque

// Opens the backend on device `device` (index; ignored on the CPU). Once per process, first.
enum status runtime_open(int device, struct error *error) MUST_CHECK;
void runtime_close(void);

// "cuda" or "cpu".
const char *runtime_backend(void);

// Bytes of device memory free now (CPU: physical memory available to this process).
uint64_t runtime_bytes_free(void);

// A name for people and HELLO: GPU model and uuid, or the CPU's model name. Never NULL.
const char *runtime_device_name(void);

// The device's address on the PCI bus as Linux writes it ("0000:3b:00.0"); "" on the CPU, and when
// the driver does not tell. After runtime_open.
const char *runtime_pci_id(void);

// Device memory, 256-byte aligned, not zeroed. NULL when there is not enough.
void *runtime_alloc(size_t bytes);
void runtime_free(void *memory_dev);

// Host memory that asynchronous copies may use (pinned on CUDA). NULL when there is not enough.
void *runtime_alloc_host(size_t bytes);
void runtime_free_host(void *memory);

// A queue of work that runs in order, beside its host. E_SYSTEM when the system gives none.
enum status stream_open(struct stream **out, struct error *error) MUST_CHECK;
void stream_close(struct stream *stream); // waits for queued work

// Blocks until all work queued so far has run.
void stream_synchronize(struct stream *stream);

// Queued copies and fill; source and destination must stay valid until they have run.
void stream_copy_to_device(struct stream *stream, void *to_dev, const void *from, size_t bytes);
void stream_copy_to_host(struct stream *stream, void *to, const void *from_dev, size_t bytes);
void stream_copy_on_device(struct stream *stream, void *to_dev, const void *from_dev, size_t bytes);
void stream_zero(struct stream *stream, void *memory_dev, size_t bytes);

// Writes the 8-byte value 1 to eventfd `fd` from the device's side when the work queued so far
// has run: how a poll loop learns that a step ended.
void stream_notify(struct stream *stream, int fd);

// ---- graphs: a list of work that is recorded once and queued as often as wanted ----

struct graph; // opaque

// From here on, what is queued on the stream is recorded instead of run: launches, copies on the
// device and fills, with their pointers and numbers as they are now. Nothing else may be queued,
// and one stream of a process records at a time.
void stream_capture_begin(struct stream *stream);

// Ends recording. E_SYSTEM when there is no memory for it; the stream works as before either way.
enum status stream_capture_end(struct stream *stream, struct graph **out,
                               struct error *error) MUST_CHECK;

// Queues everything that was recorded, in order. On CUDA that is one launch.
void graph_launch(struct graph *graph, struct stream *stream);

// After its launches have run. NULL is allowed.
void graph_close(struct graph *graph);

// Products of many tokens are chosen for a few counts only, the least of 4, 5, 6 and 7 times a
// power of two that holds `tokens`: what they need can be loaded before anything is served.
static inline int runtime_tokens_bucket(int tokens)
{
    int unit = 1;
    while (tokens > 7 * unit)
        unit *= 2;
    return tokens < 4 ? tokens : (tokens + unit - 1) / unit * unit;
}

// ---- events ----

// Work queued on stream later waits until the recorded point was passed.
void stream_wait(struct stream *stream, struct event *event);

// A point in a stream that others can ask for. Recording again moves the point.
enum status event_open(struct event **out, struct error *error) MUST_CHECK;
void event_close(struct event *event);
void event_record(struct event *event, struct stream *stream);
bool event_query(struct event *event); // true when the recorded point was passed
void event_synchronize(struct event *event);
