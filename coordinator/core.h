// SPDX-License-Identifier: Apache-2.0
// core.h -- the coordinator as one pure function: an event in, a bounded list of actions out. It
// reads no clock, opens no socket, starts no thread and allocates nothing, so tests/sim replays
// any run from its seed. The shell (shell.c) turns sockets and time into events and carries the
// actions out. Bytes in an event are borrowed until the call returns; bytes in actions point into
// the core and live until the next call.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"
#include "parallel/config.h"
#include "parallel/memory_plan.h"
#include "parallel/plan.h"
#include "parallel/wire/messages.h"

enum {
    COORD_WORKERS_MAX = GROUPS_MAX * RANKS_MAX, // connections that may hold a place
    COORD_QUEUED_MAX_DEFAULT = 1024,
    COORD_WAIT_GAPS = 16, // gaps that a prompt with a slot waits before streams wait longer
    COORD_TURNS_MAX = 4,  // ends of turns that are kept of a prompt
    // On Qwen3.5-35B-A3B the KV of so many tokens is 1.3 times as large as a checkpoint.
    CHECKPOINT_INTERVAL = 4096,
    COORD_FLIGHT_MAX = 2, // steps sent and not reported: one runs, one waits on the device
    COORD_ACTIONS_MAX = 2 * STEP_ROWS_MAX + COORD_WORKERS_MAX + 64,
};

// What the operator and the model decide before the first event. Borrowed during coord_init only.
struct coord_options {
    struct model_config config;
    struct memory_wishes wishes; // bytes_free and mtp are filled in from the workers' HELLOs
    int groups, ranks;
    int vocab_real;                  // number of real token ids
    int32_t turn_id;                 // begins a turn of a conversation, -1 = no id does
    int speculative_tokens;          // a sequence and step; 0 = none, SPECULATION_AUTO = measured
    int draft_vocab;                 // drafts are ids below this one, 0 = any
    int synthetic_thousandths;       // forced acceptance length * 1000 (benchmarks), 0 = none
    int queued_max;                  // requests waiting for a slot
    int32_t checkpoint_interval;     // tokens of a text between two, 0 = CHECKPOINT_INTERVAL
    uint64_t prefill_gap_ns;         // aim of a step with streams and prefill, 0 = none
    int64_t pool_tokens;             // prompt tokens of all unfinished requests together
    char build[WIRE_NAME_BYTES_MAX]; // what a worker's HELLO must say
    uint8_t entropy[32];             // random; the ids of the groups' epochs come from it
};

// How a request wants its tokens drawn; checked by the door, checked again here.
struct coord_sampling {
    float temperature;         // >= 0, finite
    int32_t top_k;             // 0 = off
    float top_p;               // [0, 1], 0 or 1 = off
    float min_p;               // [0, 1], 0 = off
    float repetition;          // > 0, 0 or 1 = off
    float frequency, presence; // [-2, 2], 0 = off
    int32_t min_tokens;        // no stop id before so many
    // Log-probabilities to tell: 0 = none, else 1 + alternatives, up to STEP_LOGPROBS_TOP_MAX.
    int32_t logprobs, prompt_logprobs;
    // Counts of the request's lists, which lie one behind the other as a plan's do (step_open).
    int32_t bias_count, allowed_count, words_count;
    int32_t drafts; // 0 = the server's choice, else 1 + the most at a time
    uint64_t seed;
    int32_t max_tokens; // >= 1, or -1 = the rest of the context
    int32_t stop_count; // ids in stop_ids, the model's eos ids among them unless ignored
    int32_t stop_ids[STEP_STOP_IDS_MAX];
};

// Numbers of a request's lists.
static inline int32_t coord_sampling_lists(const struct coord_sampling *sampling)
{
    return 2 * sampling->bias_count + sampling->allowed_count + sampling->words_count;
}

enum coord_event_type {
    EVENT_TICK,        // only time passed; at least every 100 ms
    EVENT_HELLO,       // hello
    EVENT_READY,       // ready
    EVENT_REPORT,      // report
    EVENT_HEARTBEAT,   // heartbeat
    EVENT_FAILURE,     // failure
    EVENT_WORKER_GONE, // the transport says that this worker cannot be reached
    EVENT_SUBMIT,      // submit: a new request; answered by ACCEPTED or ERROR in the same call
    EVENT_FINISH,      // finish: the door ends a request (abort, client gone, stop string)
    EVENT_DRAIN,       // no new requests; DRAINED when the last one has ended
    EVENT_SHUTDOWN,    // end everything now: every request gets ERROR, every worker END
};

struct coord_event {
    enum coord_event_type type;
    uint64_t now_ns; // never goes back
    int32_t worker;  // the shell's number of the connection, 0 .. COORD_WORKERS_MAX - 1
    union {
        const struct hello *hello;
        const struct ready *ready;
        const struct report *report;
        const struct heartbeat *heartbeat;
        const struct failure *failure;
        struct {
            uint64_t request; // the door's number, unique among unfinished requests
            const int32_t *prompt;
            int32_t prompt_tokens; // >= 1
            uint64_t arrived_ns;   // at the door, by the same clock; 0 = now
            int32_t priority;      // lower is more urgent
            uint64_t timeout_ns;   // DONE with reason "timeout" after that, 0 = never
            const int32_t *lists;  // as the counts of sampling say, NULL when there are none
            struct coord_sampling sampling;
        } submit;
        struct {
            uint64_t request;
            const char *reason; // a literal: "abort", "stop", ...
        } finish;
    };
};

enum coord_action_type {
    ACTION_SEND_PLACE,   // place, to worker
    ACTION_SEND_REFUSE,  // refuse, to worker
    ACTION_SEND_PLAN,    // plan, to every worker of group, rank 0 first
    ACTION_SEND_END,     // end, to worker; the shell may forget the connection afterwards
    ACTION_GROUP_READY,  // group; plan_of_memory
    ACTION_GROUP_FAILED, // group, text: its requests have been given ERROR
    ACTION_ACCEPTED,     // request
    ACTION_TOKENS,       // request, tokens, tokens_count (may be 0), logprobs, prompt_logprobs
    ACTION_DONE,         // request, reason, usage; the last action about a request
    ACTION_ERROR,        // request, status, text; the last action about a request
    ACTION_DRAINED,      // nothing is left; workers were sent END
};

struct coord_usage {
    int32_t prompt_tokens, completion_tokens, cached_tokens;
    int32_t target_steps, drafted, accepted;
};

// How long a request was where: queued, in its prompt, drawing; together all.
struct coord_times {
    uint64_t queue_ns, prefill_ns, decode_ns, all_ns;
};

struct coord_action {
    enum coord_action_type type;
    int32_t worker, group;
    uint64_t request;
    enum status status;
    const char *text;   // ERROR, GROUP_FAILED
    const char *reason; // DONE: "stop", "length", "timeout", or what FINISH said
    const int32_t *tokens;
    int32_t tokens_count;
    bool is_first;     // TOKENS: the request's first, since_ns counts from its arrival
    uint64_t since_ns; // TOKENS: since its last ones
    const struct step_logprob *logprobs;        // TOKENS: [tokens_count], NULL = not asked for
    const struct step_logprob *prompt_logprobs; // TOKENS: of the prompt's next tokens, from its
    int32_t prompt_logprobs_count;              // second on
    struct coord_usage usage;
    struct coord_times times; // DONE
    int32_t drafts_max;       // GROUP_READY: of its steps, 0 = nothing is drafted
    union {
        const struct place_message *place;
        const struct refuse *refuse;
        const struct step_plan *plan;
        const struct end_message *end;
        const struct memory_plan *memory;
    };
};

struct coord_actions {
    int count;
    bool more; // the list was full: call again with EVENT_TICK before the next event
    struct coord_action list[COORD_ACTIONS_MAX];
};

// Drafts of all requests. rows: that verified some; accepted[i]: rows that took draft i.
struct coord_drafts {
    uint64_t rows, drafted, accepted[STEP_VERIFY_MAX - 1];
};

struct coord_status {
    int groups_ready, groups;
    int vocab;       // real token ids
    int draft_vocab; // drafts are ids below this one, 0 = any
    int running, queued, queued_max;
    int preempted; // of queued: have run before, beyond queued_max
    int slots_free, slots, pages_free, pages;
    int64_t pool_tokens_free, pool_tokens;
    int pages_cached;                  // of the free ones: still of use to later prompts
    int checkpoints_free, checkpoints; // of prefix reuse
    // Tokens of prompts looked up, each time that a request gets a slot, and found.
    uint64_t prefix_queries, prefix_hits;
    uint64_t prefix_pages_evicted, prefix_checkpoints_saved, prefix_checkpoints_evicted;
    uint64_t epochs; // begun so far, over all groups
    uint64_t steps, requests_done, requests_failed, tokens_in, tokens_out;
    uint64_t preemptions, timeouts; // timeouts: of requests_done
    bool draining, failed;
    struct coord_drafts drafts;
};

enum group_phase {
    GROUP_FORMING, // waits for workers
    GROUP_LOADING, // all placed
    GROUP_READY,
    GROUP_FAILED,
    GROUP_ENDED, // in order
};

struct coord_rank_status {
    bool is_here;  // a worker has this place
    bool is_ready; // it has loaded
    int32_t pid;   // of the worker, on its host
    char host[WIRE_NAME_BYTES_MAX];
    uint64_t heard_ns;                              // ago
    uint64_t step_begun, step_done, exchange_epoch; // as its last heartbeat said
};

struct coord_group_status {
    enum group_phase phase;
    uint64_t epoch, step_sent, step_done;
    int running, slots, slots_free, pages, pages_free;
    int ranks_count;
    struct coord_rank_status ranks[RANKS_MAX]; // [ranks_count]
};

struct coord; // opaque; lives in memory that the shell gives

// Bytes that coord_init needs for these options.
size_t coord_bytes(const struct coord_options *options);

// memory: coord_bytes long, 64-byte aligned. E_INPUT when the options cannot work (tp that does
// not divide, groups out of range): text says which.
enum status coord_init(struct coord **out, void *memory, const struct coord_options *options,
                       struct error *error) MUST_CHECK;

// Takes one event; the actions are to be carried out, in order, before the next. See the head of
// this file for who owns what.
void coord_step(struct coord *coord, const struct coord_event *event, struct coord_actions *out);

// The connection of a rank of a group that has been placed.
int32_t coord_worker(const struct coord *coord, int32_t group, int rank);

// Counts as of the last event.
void coord_status(const struct coord *coord, struct coord_status *out);

// One group and its ranks, as of the last event.
void coord_group_status(const struct coord *coord, int group, struct coord_group_status *out);

// Named invariants, for tests/sim after every step: NULL when all hold, else the name of the one
// that does not (free + used = total, no page with two owners, a request ends once, ...).
const char *coord_check(const struct coord *coord);
