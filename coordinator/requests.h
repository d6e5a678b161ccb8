// SPDX-License-Identifier: Apache-2.0
// requests.h -- the table of unfinished requests: find by the door's number, wait in order of
// seniority. Pure: memory is given by the caller. Who runs where is the scheduler's.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/core.h"
#include "coordinator/prefix_cache.h"
#include "coordinator/requests_times.h"
#include "coordinator/speculation.h"
#include "coordinator/token_pool.h"

enum { REQUEST_NONE_INDEX = -1 };

enum request_phase {
    PHASE_FREE,
    PHASE_QUEUED,
    PHASE_RUNNING,   // has a slot
    PHASE_PREEMPTED, // gets no more rows; goes back to the queue after its steps in flight
    PHASE_CLOSING,   // its end was told; steps in flight still name its slot
};

// What a request with a slot has of the prefix cache.
struct request_prefix {
    int32_t node;       // the path that it holds
    int32_t checkpoint; // pinned until a plan copies it, PREFIX_NONE = none
    int32_t position;   // where its slot starts
    int32_t parts_at;   // how far its text was known when it got the slot
    int32_t fold;       // reserved for a place in what it draws, PREFIX_NONE = none
    int32_t fold_at;    // that place
};

struct request {
    uint64_t number; // the door's
    enum request_phase phase;
    struct coord_sampling sampling;
    int32_t priority;          // lower is more urgent
    uint64_t deadline_ns;      // 0 = none
    uint64_t arrival;          // counts submits; with priority: seniority
    struct token_chain tokens; // the prompt, then what was drawn and told
    int32_t prompt_tokens;
    int32_t tokens_end;       // longest length: prompt + max_tokens, within the model's context
    int32_t outputs;          // tokens drawn and told
    int32_t group;            // -1 before it has one; once begun it never changes
    int32_t slot;             // while it has one
    bool ran;                 // has had a slot before
    bool begun;               // a plan has opened a slot for it, this one or one before
    bool opened;              // a plan has opened this slot
    int32_t prefill_end;      // tokens that come as prefill rows: those known when it got the slot
    int32_t prefill_given;    // of them, to steps so far
    int32_t chunk;            // prompt tokens of the step that is being planned
    int32_t pages_count;      // pages held: its slot's row of the block tables
    int32_t pages_told;       // of them, told to the workers
    int32_t steps_in_flight;  // unresolved steps that name the slot
    int32_t draws_in_flight;  // rows of unresolved steps that draw: at least one token each
    int32_t tokens_in_flight; // most tokens that those rows may draw
    int32_t next, previous;   // in the queue, the running list of its group, or the free list
    int32_t target_steps;
    int32_t drafted, accepted;            // drafts offered to verify rows, and taken
    struct speculation_counts acceptance; // of late
    struct request_times times;
    struct request_prefix prefix;
    int32_t cached_tokens; // of the prompt, not run when it got its first slot
    int32_t turns_count;
    int32_t turns[COORD_TURNS_MAX]; // where turns end: later prompts part there
    struct token_chain lists;       // of biases, allowed ids and banned words
    int32_t prompt_logprobs_told;   // tokens of the prompt of which they have been told
};

// A doubly linked list of requests through next and previous.
struct request_list {
    int32_t first, last;
    int32_t count;
};

struct requests {
    struct request *table; // [capacity]
    int32_t capacity;
    int32_t free_first;
    struct request_list queued; // most senior first
    int32_t preempted;          // of queued: have had a slot before
    int32_t *buckets; // [buckets_count] open addressing by number, index or REQUEST_NONE_INDEX
    int32_t buckets_count;
};

// Bytes of memory that requests_init needs.
size_t requests_bytes(int32_t capacity);
// An empty table of `capacity` entries over memory that stays the caller's.
void requests_init(struct requests *requests, void *memory, int32_t capacity);

// A free request with this number (which must be unknown), phase still FREE and in no list;
// REQUEST_NONE_INDEX when the table is full.
int32_t requests_take(struct requests *requests, uint64_t number);

// Forgets the number; the entry itself stays until requests_give_back.
void requests_forget(struct requests *requests, int32_t index);
void requests_give_back(struct requests *requests, int32_t index);

// The request with this number, REQUEST_NONE_INDEX when unknown.
int32_t requests_find(const struct requests *requests, uint64_t number);

// Whether a goes before b: of more urgent priority, or of the same and came earlier.
bool request_before(const struct request *a, const struct request *b);

// Lists. A request is in at most one.
void request_list_init(struct request_list *list);
// Where it belongs, most senior first; takes long only for those that go before many others.
void request_list_insert(struct request_list *list, struct requests *requests, int32_t index);
// From wherever it is, in constant time.
void request_list_remove(struct request_list *list, struct requests *requests, int32_t index);
