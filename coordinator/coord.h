// SPDX-License-Identifier: Apache-2.0
// coord.h -- what is inside struct coord, for the pure files of the core (core.c, members.c,
// scheduler*.c) and nobody else.
#pragma once

#include "coordinator/core.h"
#include "coordinator/kv_pages.h"
#include "coordinator/requests.h"
#include "coordinator/scheduler_pace.h"
#include "coordinator/speculation.h"
#include "coordinator/state_slots.h"
#include "coordinator/token_pool.h"

enum worker_phase {
    WORKER_FREE,    // no such connection
    WORKER_WAITING, // said HELLO, waits for the rest of its group
    WORKER_PLACED,  // loading
    WORKER_READY,
};

struct worker {
    enum worker_phase phase;
    int32_t group, rank; // while PLACED or READY
    struct hello hello;
    struct heartbeat beat; // the last one
    uint64_t heard_ns;     // when it last said anything
};

// A step that was sent and has not been reported by every rank.
struct flight {
    uint64_t step;
    uint64_t begun_ns; // since when it can run: it was sent, and the one before it has ended
    uint32_t reported; // bit r: rank r has reported
    uint64_t hash;     // of the first report
    uint64_t step_ns;  // of the report that took least: it waited least for the others
    int32_t prefill_tokens;
    int32_t rows_count;
    int32_t decode_rows;              // the first of them
    int32_t verify, drafts;           // tokens of a decode row; drafts made for the next step
    int32_t speculation_cell;         // whose times the step's is one of
    int32_t requests[STEP_ROWS_MAX];  // index of the request of each row
    int32_t draws[STEP_ROWS_MAX];     // most tokens that the row may draw, 0 = it draws none
    int32_t positions[STEP_ROWS_MAX]; // of the first token of each prefill row
    int32_t places[STEP_ROWS_MAX];    // of the checkpoint that a row names while it decodes, or 0
    struct step_result results[STEP_ROWS_MAX];
    struct step_logprob *logprobs; // [STEP_LOGPROBS_MAX] in the coord's memory
};

struct group_state {
    enum group_phase phase;
    uint64_t epoch;
    int32_t workers[RANKS_MAX]; // connection of each rank
    int32_t ready_count;
    uint64_t placed_ns;
    struct memory_plan memory;
    struct state_slots slots;
    struct kv_pages pages;
    struct prefix_cache prefix;
    int32_t *block_tables;                   // [slots, tables_width] page ids
    int32_t tables_width;                    // pages of the longest sequence
    struct request_list running;             // everybody with a slot, most senior first
    struct flight flights[COORD_FLIGHT_MAX]; // step s sits in flights[s % COORD_FLIGHT_MAX]
    int32_t flights_count;
    uint64_t step_sent, step_done;
    struct scheduler_pace pace;
    bool senior_passed; // the most senior prompt let another pass in the last step with prefill
    struct speculation speculation;
    int32_t drafts_made;           // what the last plan told every row to draft
    int32_t closes[STEP_ROWS_MAX]; // slots that the next plan closes
    int32_t closes_count;
    struct step_plan plan; // arrays in the coord's memory
    char failure[WIRE_TEXT_BYTES_MAX];
    char refusal[WIRE_TEXT_BYTES_MAX]; // of a queued request, borrowed by the last actions
    struct end_message end; // its own: several groups may fail in one call, and all may end then
    bool failure_told;      // every request of the group has had its ERROR
};

struct coord {
    struct coord_options options;
    uint64_t config_hash;
    uint64_t now_ns;
    struct worker workers[COORD_WORKERS_MAX];
    struct group_state *groups; // [options.groups]
    struct requests requests;
    struct token_pool pool;
    bool draining, drained, shutting_down;
    struct place_message places[RANKS_MAX]; // what the last ACTION_SEND_* point to
    struct refuse refuse;
    struct end_message end; // in order, for every worker that is left
    char text[WIRE_TEXT_BYTES_MAX];
    uint64_t epochs; // given out so far
    uint64_t requests_done, requests_failed, tokens_in, tokens_out, steps;
    uint64_t preemptions, timeouts;
    uint64_t deadline_next_ns; // no request has to end before, UINT64_MAX = none at all
    struct coord_drafts drafts;
    uint64_t arrivals;          // requests accepted so far
    int32_t prompt_blocks_free; // of the pool's share that prompts may take
    void *memory_pages;         // [groups] x kv_pages_bytes(COORD_PAGES_MAX)
    int32_t *memory_tables;     // [groups] x the largest block tables
    void *memory_prefix;        // [groups] x coord_prefix_bytes
};

// The request at an index of the table, which must be one.
static inline struct request *request_at(struct coord *coord, int32_t index)
{
    return &coord->requests.table[index];
}

enum {
    // 64 Mi tokens of KV: more than any host of today holds; larger plans are clamped to it.
    COORD_PAGES_MAX = 1 << 20,
    // 8 Mi tokens of cached prompts: 33 MB of the coordinator's memory, touched as it is used.
    COORD_PREFIX_PAGES_MAX = 1 << 17,
    // While so many preempted requests wait, no new one is given a slot: what has been drawn for
    // unfinished requests is kept, so their number must be bounded.
    COORD_PREEMPTED_MAX = 256,
};

// Time passes in ticks of at most 100 ms (EVENT_TICK); after longer than this the process stood
// still.
#define COORD_PAUSE_NS 1000000000u

// Appends an action; there must be room (coord_room).
struct coord_action *coord_act(struct coord_actions *out, enum coord_action_type type);

// Whether `count` more actions fit; when not, marks the list as having more.
bool coord_room(struct coord_actions *out, int count);

// ---- members.c: who is there, in which group, alive or not ----

// A worker offers itself: refused, made to wait, or placed together with its group.
void members_hello(struct coord *coord, const struct coord_event *event, struct coord_actions *out);
// A rank has loaded; the last one makes its group ready.
void members_ready(struct coord *coord, const struct coord_event *event, struct coord_actions *out);
// Notes that a worker lives and how far it is.
void members_heartbeat(struct coord *coord, const struct coord_event *event);
// A worker says that it gives up; its group's epoch ends.
void members_failure(struct coord *coord, const struct coord_event *event,
                     struct coord_actions *out);
// A worker cannot be reached any more; its group's epoch ends.
void members_gone(struct coord *coord, const struct coord_event *event, struct coord_actions *out);

// This process itself did nothing for so long: nobody is blamed for that time. What others have
// said in the meantime still waits to be read.
void members_forgive(struct coord *coord, uint64_t paused_ns);

// Fails groups whose ranks are silent, load too long or do not end a step.
void members_check_time(struct coord *coord, struct coord_actions *out);

// The group of a worker's message when the message is of its current epoch and place, else NULL.
struct group_state *members_group(struct coord *coord, int32_t worker, int32_t group, int32_t rank,
                                  uint64_t epoch);

// Ends the epoch of a group: END to its workers, GROUP_FAILED. Requests are told by
// scheduler_tell_failure, as many as fit into one list of actions.
void members_fail_group(struct coord *coord, int32_t group, struct coord_actions *out,
                        const char *format, ...) PRINTF_LIKE(4, 5);

// END in order to every worker of every group.
void members_end_all(struct coord *coord, struct coord_actions *out);

// Page ids of the block tables of a group at most.
size_t coord_tables_ids(const struct coord_options *options);

// Pages that a group's prefix cache may hold, checkpoints, and bytes of memory for both, at most.
int32_t coord_prefix_pages(const struct coord_options *options);
int32_t coord_prefix_checkpoints(const struct coord_options *options);
size_t coord_prefix_bytes(const struct coord_options *options);

// The row of the block tables of a request that has a slot: [tables_width] page ids.
int32_t *coord_pages(const struct group_state *group, const struct request *request);

// The step s that is in flight.
static inline struct flight *coord_flight(struct group_state *group, uint64_t step)
{
    return &group->flights[step % COORD_FLIGHT_MAX];
}
