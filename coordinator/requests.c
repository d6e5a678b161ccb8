// SPDX-License-Identifier: Apache-2.0
// requests.c -- a table with a free list, and open addressing with backward-shift deletion.
#include "coordinator/requests.h"

#include <string.h>

static int32_t buckets_for(int32_t capacity)
{
    int32_t buckets = 16;
    while (buckets < 2 * capacity)
        buckets *= 2;
    return buckets;
}

size_t requests_bytes(int32_t capacity)
{
    return (size_t)capacity * sizeof(struct request) +
           (size_t)buckets_for(capacity) * sizeof(int32_t);
}

void requests_init(struct requests *requests, void *memory, int32_t capacity)
{
    requests->table = (struct request *)memory;
    requests->capacity = capacity;
    requests->buckets = (int32_t *)(void *)(requests->table + capacity);
    requests->buckets_count = buckets_for(capacity);
    memset(requests->table, 0, (size_t)capacity * sizeof(struct request));
    for (int32_t i = 0; i < capacity; i++)
        requests->table[i].next = i + 1 < capacity ? i + 1 : REQUEST_NONE_INDEX;
    requests->free_first = capacity > 0 ? 0 : REQUEST_NONE_INDEX;
    for (int32_t i = 0; i < requests->buckets_count; i++)
        requests->buckets[i] = REQUEST_NONE_INDEX;
    request_list_init(&requests->queued);
    requests->preempted = 0;
}

// Fibonacci hashing: the door's numbers are consecutive.
static int32_t bucket_of(const struct requests *requests, uint64_t number)
{
    return (int32_t)((number * 0x9E3779B97F4A7C15u) >> 33 &
                     (uint64_t)(requests->buckets_count - 1));
}

static int32_t bucket_next(const struct requests *requests, int32_t bucket)
{
    return (bucket + 1) & (requests->buckets_count - 1);
}

int32_t requests_find(const struct requests *requests, uint64_t number)
{
    int32_t bucket = bucket_of(requests, number);
    while (requests->buckets[bucket] != REQUEST_NONE_INDEX) {
        int32_t index = requests->buckets[bucket];
        if (requests->table[index].number == number)
            return index;
        bucket = bucket_next(requests, bucket);
    }
    return REQUEST_NONE_INDEX;
}

int32_t requests_take(struct requests *requests, uint64_t number)
{
    int32_t index = requests->free_first;
    if (index == REQUEST_NONE_INDEX)
        return REQUEST_NONE_INDEX;
    ASSERT(requests_find(requests, number) == REQUEST_NONE_INDEX);
    requests->free_first = requests->table[index].next;
    requests->table[index] = (struct request){.number = number,
                                              .lists.first = TOKEN_BLOCK_NONE,
                                              .tokens.first = TOKEN_BLOCK_NONE,
                                              .tokens.last = TOKEN_BLOCK_NONE,
                                              .group = -1,
                                              .next = REQUEST_NONE_INDEX,
                                              .previous = REQUEST_NONE_INDEX};
    int32_t bucket = bucket_of(requests, number);
    while (requests->buckets[bucket] != REQUEST_NONE_INDEX)
        bucket = bucket_next(requests, bucket);
    requests->buckets[bucket] = index;
    return index;
}

void requests_forget(struct requests *requests, int32_t index)
{
    int32_t hole = bucket_of(requests, requests->table[index].number);
    while (requests->buckets[hole] != index) {
        if (requests->buckets[hole] == REQUEST_NONE_INDEX)
            return; // forgotten before
        hole = bucket_next(requests, hole);
    }
    int32_t mask = requests->buckets_count - 1;
    int32_t at = bucket_next(requests, hole);
    while (requests->buckets[at] != REQUEST_NONE_INDEX) {
        int32_t home = bucket_of(requests, requests->table[requests->buckets[at]].number);
        // May the entry at `at` move into the hole without passing its home?
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            requests->buckets[hole] = requests->buckets[at];
            hole = at;
        }
        at = bucket_next(requests, at);
    }
    requests->buckets[hole] = REQUEST_NONE_INDEX;
}

void requests_give_back(struct requests *requests, int32_t index)
{
    requests_forget(requests, index);
    requests->table[index].phase = PHASE_FREE;
    requests->table[index].next = requests->free_first;
    requests->free_first = index;
}

void request_list_init(struct request_list *list)
{
    *list = (struct request_list){.first = REQUEST_NONE_INDEX, .last = REQUEST_NONE_INDEX};
}

bool request_before(const struct request *a, const struct request *b)
{
    return a->priority != b->priority ? a->priority < b->priority : a->arrival < b->arrival;
}

void request_list_insert(struct request_list *list, struct requests *requests, int32_t index)
{
    struct request *table = requests->table, *request = &table[index];
    int32_t after = list->last;
    while (after != REQUEST_NONE_INDEX && request_before(request, &table[after]))
        after = table[after].previous;
    request->previous = after;
    request->next = after == REQUEST_NONE_INDEX ? list->first : table[after].next;
    if (after == REQUEST_NONE_INDEX)
        list->first = index;
    else
        table[after].next = index;
    if (request->next == REQUEST_NONE_INDEX)
        list->last = index;
    else
        table[request->next].previous = index;
    list->count++;
}

void request_list_remove(struct request_list *list, struct requests *requests, int32_t index)
{
    struct request *request = &requests->table[index];
    if (request->previous == REQUEST_NONE_INDEX)
        list->first = request->next;
    else
        requests->table[request->previous].next = request->next;
    if (request->next == REQUEST_NONE_INDEX)
        list->last = request->previous;
    else
        requests->table[request->next].previous = request->previous;
    request->next = REQUEST_NONE_INDEX;
    request->previous = REQUEST_NONE_INDEX;
    list->count--;
}
