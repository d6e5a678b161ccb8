// SPDX-License-Identifier: Apache-2.0
// group_host.c -- struct group for ranks that are processes (or threads) of one host: one exchange
// for the model's ops and a second one for the collectives beside it, both queued on the stream.
#include "parallel/group.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/runtime_cpu.h"
#include "parallel/exchange_host.h"

enum { MODEL, COLLECTIVES, EXCHANGES };

struct group {
    struct place place;
    struct exchange_host host;
};

_Static_assert((int)GROUP_ID_BYTES == (int)EXCHANGE_HOST_ID_BYTES, "the id is passed on");

enum status group_open(struct group **out, const struct group_options *options, struct error *error)
{
    struct group *group = calloc(1, sizeof *group);
    if (group == NULL)
        return error_set(error, E_SYSTEM, "no memory for a group");
    group->place = options->place;
    struct exchange_host_options host_options = {
        .place = options->place,
        .count = EXCHANGES,
        .lane_bytes = {[MODEL] = options->exchange_bytes, [COLLECTIVES] = options->gather_bytes},
        .wait_ns_max = options->wait_ns_max,
        .join_ns_max = options->join_ns_max,
    };
    memcpy(host_options.id, options->id, sizeof host_options.id);
    enum status status = exchange_host_open(&group->host, &host_options, error);
    if (status != OK) {
        free(group);
        return status;
    }
    *out = group;
    return OK;
}

void group_close(struct group *group)
{
    if (group == NULL)
        return;
    exchange_host_close(&group->host);
    free(group);
}

struct place group_place(const struct group *group)
{
    return group->place;
}

struct exchange *group_exchange(struct group *group)
{
    return &group->host.exchanges[MODEL];
}

// ---------------------------------------------------------------- collectives

struct collective_op {
    struct exchange *exchange;
    uint8_t *out;
    const uint8_t *in;
    size_t bytes;
    int root; // of a broadcast
};

static void run_all_gather(const void *arguments)
{
    const struct collective_op *op = arguments;
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    exchange_push(op->exchange, op->in, op->bytes);
    if (!exchange_pull(op->exchange, lanes)) {
        memset(op->out, 0, op->bytes * (size_t)op->exchange->ranks);
        return;
    }
    for (int rank = 0; rank < op->exchange->ranks; rank++)
        memcpy(op->out + (size_t)rank * op->bytes, lanes[rank], op->bytes);
}

void group_all_gather(struct group *group, struct stream *stream, void *out_dev, const void *in_dev,
                      size_t bytes)
{
    struct collective_op op = {
        .exchange = &group->host.exchanges[COLLECTIVES],
        .out = out_dev,
        .in = in_dev,
        .bytes = bytes,
    };
    ASSERT(bytes <= op.exchange->lane_bytes);
    if (bytes != 0)
        stream_run(stream, run_all_gather, &op, sizeof op);
}

static void run_broadcast(const void *arguments)
{
    const struct collective_op *op = arguments;
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    bool sends = op->exchange->rank == op->root;
    exchange_push(op->exchange, op->in, sends ? op->bytes : 0);
    if (!exchange_pull(op->exchange, lanes))
        memset(op->out, 0, op->bytes);
    else if (!sends)
        memcpy(op->out, lanes[op->root], op->bytes);
}

void group_broadcast(struct group *group, struct stream *stream, void *data_dev, size_t bytes,
                     int root)
{
    struct collective_op op = {
        .exchange = &group->host.exchanges[COLLECTIVES],
        .out = data_dev,
        .in = data_dev,
        .bytes = bytes,
        .root = root,
    };
    ASSERT(bytes <= op.exchange->lane_bytes && root >= 0 && root < op.exchange->ranks);
    if (bytes != 0)
        stream_run(stream, run_broadcast, &op, sizeof op);
}

static void run_barrier(const void *arguments)
{
    struct exchange *exchange = *(struct exchange *const *)arguments;
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    exchange_push(exchange, NULL, 0);
    // A failed wait is sticky; whoever drives the stream sees it in group_failed.
    (void)exchange_pull(exchange, lanes);
}

void group_barrier(struct group *group, struct stream *stream)
{
    struct exchange *exchange = &group->host.exchanges[COLLECTIVES];
    stream_run(stream, run_barrier, &exchange, sizeof exchange);
}

// ---------------------------------------------------------------- state, from any thread

int group_failed(const struct group *group)
{
    return exchange_failed(&group->host.exchanges[MODEL]) ||
           exchange_failed(&group->host.exchanges[COLLECTIVES]);
}

uint32_t group_missing(const struct group *group)
{
    uint32_t missing = 0;
    for (int i = 0; i < EXCHANGES; i++)
        missing |= __atomic_load_n(&group->host.exchanges[i].missing, __ATOMIC_RELAXED);
    return missing;
}

void group_abort(struct group *group)
{
    exchange_abort(&group->host.exchanges[MODEL]); // the abort word is common to both
}

void group_load_only(struct group *group, bool on)
{
    (void)group, (void)on; // one way of summing serves every size
}

uint64_t group_epoch(const struct group *group)
{
    uint64_t pushes = 0;
    for (int i = 0; i < EXCHANGES; i++)
        pushes += __atomic_load_n(&group->host.exchanges[i].epoch, __ATOMIC_RELAXED);
    return pushes;
}
