// SPDX-License-Identifier: Apache-2.0
// group_nccl.c -- group.h in the CUDA build, for groups of one rank so far: the exchange is a lane
// of device memory, gathers are copies, and there is nobody to wait for. Several GPUs come with
// NCCL and the exchange over symmetric windows.
#include "parallel/group.h"

#include <stdlib.h>

struct group {
    struct group_options options;
    struct exchange exchange;
};

enum status group_open(struct group **out, const struct group_options *options, struct error *error)
{
    if (options->place.ranks != 1) {
        return error_set(error, E_UNSUPPORTED,
                         "tensor parallel %d on GPUs is not served by this version, 1 is",
                         options->place.ranks);
    }
    struct group *group = calloc(1, sizeof *group);
    if (group == NULL)
        return error_set(error, E_SYSTEM, "no memory for a group");
    group->options = *options;
    group->exchange.ranks = 1;
    group->exchange.lane_bytes = options->exchange_bytes;
    group->exchange.inboxes[0] = runtime_alloc(options->exchange_bytes);
    if (group->exchange.inboxes[0] == NULL) {
        free(group);
        return error_set(error, E_LIMIT, "device memory: %zu bytes for the exchange do not fit",
                         options->exchange_bytes);
    }
    *out = group;
    return OK;
}

void group_close(struct group *group)
{
    if (group == NULL)
        return;
    runtime_free(group->exchange.inboxes[0]);
    free(group);
}

struct place group_place(const struct group *group)
{
    return group->options.place;
}

struct exchange *group_exchange(struct group *group)
{
    return &group->exchange;
}

void group_all_gather(struct group *group, struct stream *stream, void *out_dev, const void *in_dev,
                      size_t bytes)
{
    ASSERT(bytes <= group->options.gather_bytes);
    stream_copy_on_device(stream, out_dev, in_dev, bytes);
}

void group_broadcast(struct group *group, struct stream *stream, void *data_dev, size_t bytes,
                     int root)
{
    (void)stream, (void)data_dev;
    ASSERT(bytes <= group->options.gather_bytes && root == 0);
}

void group_barrier(struct group *group, struct stream *stream)
{
    (void)group, (void)stream;
}

int group_failed(const struct group *group)
{
    (void)group;
    return 0;
}

uint32_t group_missing(const struct group *group)
{
    (void)group;
    return 0;
}

void group_abort(struct group *group)
{
    (void)group;
}

// There is nobody to be ahead of or behind.
uint64_t group_epoch(const struct group *group)
{
    (void)group;
    return 0;
}
