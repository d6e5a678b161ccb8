// SPDX-License-Identifier: Apache-2.0
// door_requests.h -- the unfinished requests of all clients of the RPC door: by number for the
// core's news, by client and id for the client's orders. One thread; sends nothing.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/door_answer.h"
#include "parallel/wire/requests.h"
#include "parallel/wire/socket.h"

// One answer that the core draws. A request of n answers has n places: a chain from its first one,
// which stands for the request and is given back with all of them.
struct door_request {
    bool used;
    bool accepted;
    bool ended;                 // this answer; the request's others may go on
    struct door_request *first; // of the request
    struct door_request *next;  // NULL: the last
    int32_t index;              // which answer
    int32_t left;               // of first: answers that have not ended
    struct usage usage;         // of first: of the answers that have ended
    const char *finish_reason;  // of first: its own
    bool is_cut_off;            // its work has ended, of which its client is still to be told
    uint64_t number;            // what the core knows it by
    uint32_t generation;        // makes the numbers of one place differ
    struct socket_peer peer;
    char id[REQUEST_ID_BYTES_MAX + 1];       // what the client knows it by
    char ignored[REQUEST_UNKNOWN_BYTES_MAX]; // keys of the request that nobody knew
    int32_t prompt_tokens;
    uint64_t seed;
    struct door_answer *answer; // NULL: ids only
    int32_t tokens;             // told so far
    bool wants_prompt;          // its log-probabilities; prompt_told: the first ones have been told
    bool prompt_told;
};

struct door_requests {
    struct door_request *table; // [capacity]
    int32_t *free;              // [free_count] places
    int32_t capacity, free_count;
    int link_index;
};

// Room for `capacity` requests. link_index becomes the top byte of their numbers, by which the
// shell finds the door. E_SYSTEM.
enum status door_requests_open(struct door_requests *requests, int32_t capacity, int link_index,
                               struct error *error) MUST_CHECK;

// Also closes the answers of requests that never ended.
void door_requests_close(struct door_requests *requests);

// A place with a new number; NULL when all are taken. door_requests_add takes another one for the
// next answer of the request of `first`. Giving back a request gives back all of its places, from
// whichever of them.
struct door_request *door_requests_take(struct door_requests *requests,
                                        const struct socket_peer *peer, const char *id);
struct door_request *door_requests_add(struct door_requests *requests, struct door_request *first);
void door_requests_give_back(struct door_requests *requests, struct door_request *request);

// One answer has ended: notes it, and its usage, at the request's first place.
void door_requests_end(struct door_request *request, const char *reason, const struct usage *usage);

// NULL when there is none. by_id gives a request's first place.
struct door_request *door_requests_by_number(struct door_requests *requests, uint64_t number);
struct door_request *door_requests_by_id(struct door_requests *requests,
                                         const struct socket_peer *peer, const char *id);
