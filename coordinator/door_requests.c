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
        door_answer_close(requests->table[i].answer);
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
    request->first = request;
    request->left = 1;
    request->finish_reason = "";
    request->generation = generation;
    request->number = (uint64_t)requests->link_index << NUMBER_LINK_SHIFT |
                      (uint64_t)generation << NUMBER_INDEX_BITS | (uint64_t)index;
    request->peer = *peer;
    snprintf(request->id, sizeof request->id, "%s", id);
    return request;
}

struct door_request *door_requests_add(struct door_requests *requests, struct door_request *first)
{
    struct door_request *request = door_requests_take(requests, &first->peer, first->id);
    struct door_request *last = first;
    if (request == NULL)
        return NULL;
    while (last->next != NULL)
        last = last->next;
    last->next = request;
    request->first = first;
    request->index = last->index + 1;
    first->left++;
    return request;
}

void door_requests_give_back(struct door_requests *requests, struct door_request *request)
{
    struct door_request *one = request->first;
    while (one != NULL) {
        struct door_request *next = one->next;
        door_answer_close(one->answer);
        one->answer = NULL;
        one->next = NULL;
        one->used = false;
        requests->free[requests->free_count++] = (int32_t)(one - requests->table);
        one = next;
    }
}

static void add_usage(struct usage *sum, const struct usage *one, int32_t index)
{
    sum->prompt_tokens += index == 0 ? one->prompt_tokens : 0; // one prompt for all answers
    sum->cached_tokens += index == 0 ? one->cached_tokens : 0;
    sum->completion_tokens += one->completion_tokens;
    sum->target_steps += one->target_steps;
    sum->drafted += one->drafted;
    sum->accepted += one->accepted;
}

void door_requests_end(struct door_request *request, const char *reason, const struct usage *usage)
{
    struct door_request *first = request->first;
    request->ended = true;
    add_usage(&first->usage, usage, request->index);
    if (request == first)
        first->finish_reason = reason;
    first->left--;
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
        if (request->used && request->first == request && strcmp(request->id, id) == 0 &&
            same_peer(&request->peer, peer))
            return request;
    }
    return NULL;
}
