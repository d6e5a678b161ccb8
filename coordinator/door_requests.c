// SPDX-License-Identifier: Apache-2.0
// door_requests.c -- a table with a stack of free places. By id it is searched from the front:
// aborts and new requests are rare beside tokens, which come by number.
#include "coordinator/door_requests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_INDEX_BITS = 24, NUMBER_LINK_SHIFT = 56 };

enum status door_requests_open(struct door_requests *requests, int32_t capacity, int link_index,
                               struct error *error)
{
    ASSERT(capacity >= 1 && capacity <= 1 << NUMBER_INDEX_BITS);
    *requests = (struct door_requests){.capacity = capacity, .link_index = link_index};
    requests->table = calloc((size_t)capacity, sizeof *requests->table);
    requests->free = calloc((size_t)capacity, sizeof *requests->free);
    if (requests->table == NULL || requests->free == NULL)
        return error_set(error, E_SYSTEM, "no memory for %d requests", capacity);
    for (int32_t i = capacity - 1; i >= 0; i--)
        requests->free[requests->free_count++] = i;
    return OK;
}

void door_requests_close(struct door_requests *requests)
{
    for (int32_t i = 0; requests->table != NULL && i < requests->capacity; i++)
        door_stream_close(requests->table[i].stream);
    free(requests->table);
    free(requests->free);
}

struct door_request *door_requests_take(struct door_requests *requests,
                                        const struct socket_peer *peer, const char *id)
{
    if (requests->free_count == 0)
        return NULL;
    int32_t index = requests->free[--requests->free_count];
    struct door_request *request = &requests->table[index];
    uint32_t generation = request->generation + 1;
    memset(request, 0, sizeof *request);
    request->used = true;
    request->generation = generation;
    request->number = (uint64_t)requests->link_index << NUMBER_LINK_SHIFT |
                      (uint64_t)generation << NUMBER_INDEX_BITS | (uint64_t)index;
    request->peer = *peer;
    snprintf(request->id, sizeof request->id, "%s", id);
    return request;
}

void door_requests_give_back(struct door_requests *requests, struct door_request *request)
{
    door_stream_close(request->stream);
    request->stream = NULL;
    request->used = false;
    requests->free[requests->free_count++] = (int32_t)(request - requests->table);
}

struct door_request *door_requests_by_number(struct door_requests *requests, uint64_t number)
{
    uint64_t index = number & ((1u << NUMBER_INDEX_BITS) - 1);
    if (index >= (uint64_t)requests->capacity)
        return NULL;
    struct door_request *request = &requests->table[index];
    return request->used && request->number == number ? request : NULL;
}

static bool same_peer(const struct socket_peer *a, const struct socket_peer *b)
{
    return a->bytes_count == b->bytes_count && memcmp(a->bytes, b->bytes, a->bytes_count) == 0;
}

struct door_request *door_requests_by_id(struct door_requests *requests,
                                         const struct socket_peer *peer, const char *id)
{
    for (int32_t i = 0; i < requests->capacity; i++) {
        struct door_request *request = &requests->table[i];
        if (request->used && strcmp(request->id, id) == 0 && same_peer(&request->peer, peer))
            return request;
    }
    return NULL;
}
