// SPDX-License-Identifier: Apache-2.0
// messages.h -- every message between coordinator and workers, with fields, limits and timeouts.
// (Client messages: requests.h.) A message is one ZeroMQ frame: a msgpack map with short string
// keys, "t" (the type) first. Decoding is strict: an unknown, repeated or missing key, a value out
// of range or a byte left over is E_MALFORMED and names the field. Structs borrow the frame's
// bytes until the next receive unless a comment says otherwise.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"
#include "parallel/wire/step_limits.h"

enum {
    WIRE_VERSION = 1,

    WIRE_TEXT_BYTES_MAX = 480,             // of any text for people
    WIRE_NAME_BYTES_MAX = 96,              // of a host, device, build or backend name
    WIRE_WORKER_FRAME_BYTES_MAX = 4 << 20, // the largest plan: 65,536 prefill tokens and tables
    WIRE_ID_BYTES = 128,                   // a group's rendezvous id
    WIRE_GROUPS_MAX = 64,                  // plan.h's GROUPS_MAX and RANKS_MAX: a decoded group or
    WIRE_RANKS_MAX = 8,                    // rank is safe to use as an index below them

    // Eight beats may be missed: the longest stall seen on a loaded 2-core machine is well below.
    HEARTBEAT_INTERVAL_MS = 250,
    HEARTBEAT_TIMEOUT_MS = 4000,
    HELLO_INTERVAL_MS = 500,   // a worker repeats HELLO until it is placed
    PLACE_TIMEOUT_MS = 120000, // from the first HELLO to PLACE
    LOAD_TIMEOUT_MS = 1800000, // from PLACE to READY: 800 GB from a cold disk
    JOIN_TIMEOUT_MS = 60000,   // meeting of the ranks after loading
    STEP_TIMEOUT_MS = 60000,   // a step that takes longer ends the epoch
};

enum message_type {
    MESSAGE_NONE,
    // worker -> coordinator
    MESSAGE_HELLO,     // "hello"
    MESSAGE_READY,     // "ready"
    MESSAGE_REPORT,    // "report"
    MESSAGE_HEARTBEAT, // "beat"
    MESSAGE_FAILURE,   // "failure"
    // coordinator -> worker
    MESSAGE_PLACE,  // "place"
    MESSAGE_REFUSE, // "refuse"
    MESSAGE_PLAN,   // "plan"
    MESSAGE_END,    // "end"
    MESSAGE_ALIVE,  // "alive": the coordinator's heartbeat, no fields
    MESSAGE_TYPE_COUNT
};

// A worker offers itself. Repeated until answered by PLACE or REFUSE.
struct hello {
    uint32_t version;                  // "v" WIRE_VERSION
    char build[WIRE_NAME_BYTES_MAX];   // "build" program version and compiler
    char backend[WIRE_NAME_BYTES_MAX]; // "backend" cuda or cpu
    char host[WIRE_NAME_BYTES_MAX];    // "host"
    char device[WIRE_NAME_BYTES_MAX];  // "device" GPU name and uuid
    int32_t local_rank;                // "local" the rank it would like, -1 = any
    int32_t pid;                       // "pid"
    uint64_t bytes_free;               // "free" device bytes before weights
    uint64_t config_hash;              // "config" config_hash of its model
    int32_t has_mtp;                   // "mtp" 0 or 1
    uint32_t nccl_version;             // "nccl" 0 on the CPU
};

// A worker's place in a group; sent once per epoch. It answers READY when loaded and joined.
struct place_message {
    int32_t group, rank, ranks;              // "group" "rank" "ranks"
    uint64_t epoch;                          // "epoch" counts from 1
    uint8_t id[WIRE_ID_BYTES];               // "id" rendezvous id, new for every epoch
    int32_t sequences, sequence_tokens;      // "seqs" "len": the memory plan's counts
    int32_t step_tokens, pages;              // "step" "pages"
    int32_t pages_per_sequence, checkpoints; // "width" "checks"
    int32_t vocab_real, draft_vocab;         // "vocab" real ids; "dvocab" drafts are below, 0 = any
    int32_t drafts_max, bf16_state;          // "drafts" of a step, 0: no head; "bf16s" 0 f32, 1
    int32_t synthetic_thousandths; // "synth" forced acceptance length * 1000, 0 = the model's
};

struct ready {
    int32_t group, rank; // "group" "rank"
    uint64_t epoch;      // "epoch"
    uint64_t load_ns;    // "load_ns" from PLACE to READY
};

// How a refused worker learns why (another version, model or too many workers). It ends, code 2.
struct refuse {
    char text[WIRE_TEXT_BYTES_MAX]; // "text"
};

// The group ends in order (drain, shutdown) or because of `text`. The worker ends.
struct end_message {
    uint64_t epoch;                 // "epoch" 0 = any
    int32_t failed;                 // "failed" 0 = in order
    char text[WIRE_TEXT_BYTES_MAX]; // "text"
};

struct failure {
    int32_t group, rank;            // "group" "rank", -1 before PLACE
    uint64_t epoch;                 // "epoch"
    char text[WIRE_TEXT_BYTES_MAX]; // "text"
};

struct heartbeat {
    int32_t group, rank;     // "group" "rank"
    uint64_t epoch;          // "epoch"
    uint64_t step_begun;     // "begun" last step given to the device
    uint64_t step_done;      // "done" last step the device ended
    uint64_t exchange_epoch; // "push" pushes so far: tells which rank the others wait for
};

enum step_row_kind { STEP_ROW_DECODE, STEP_ROW_PREFILL };

// ---- The step plan. Executed in this order on one stream. ----

struct step_copy { // a prefix checkpoint becomes the state of a slot
    int32_t checkpoint, slot;
};

struct step_open {
    int32_t slot;
    int32_t position;          // "pos" 0, or the checkpoint's
    int32_t prompt_tokens;     // "prompt" the original prompt's length (penalties count from here)
    int32_t tokens_end;        // "end" longest length of the sequence: prompt + max_tokens
    int32_t page_limit;        // "limit" pages it may ever hold
    uint64_t seed;             // "seed"
    float temperature;         // "temp" 0 = greedy
    int32_t top_k;             // "top_k" 0 = off
    float top_p, min_p;        // "top_p" 0 or 1 = off, "min_p" 0 = off
    float repetition;          // "rep" 0 or 1 = off
    float frequency, presence; // "freq" "pres" 0 = off
    int32_t stops_from;        // "from" position from which stop ids may be drawn, 0 = any
    int32_t logprobs;          // "logp" of drawn tokens: 0 = none, else 1 + alternatives
    int32_t drafts;            // "drafts" 0 = as many as a step says, else 1 + the most
    int32_t stop_count;        // "stop" array of ids
    int32_t stop_ids[STEP_STOP_IDS_MAX];
    // Lists in plan->lists, one behind the other: "bias" ids, then the bits of as many f32; "allow"
    // the only ids that may be drawn, none = all; "words" that must not be completed.
    int32_t lists_first, bias_count, allowed_count, words_count;
    // "recent" what was drawn before `position`, newest first, where there are words.
    int32_t recent_count, recent[STEP_RECENT_MAX];
};

// Numbers of an opening's lists.
static inline int32_t step_open_lists(const struct step_open *open)
{
    return 2 * open->bias_count + open->allowed_count + open->words_count;
}

struct step_pages { // block_table[slot][first ..] = page_ids[ids_first .. + count), count >= 1
    int32_t slot, first, count;
    int32_t ids_first;
};

struct step_plan_row {
    int32_t slot, kind; // enum step_row_kind
    // Prefill only; a decoded decode row has no tokens and samples:
    int32_t tokens_first, tokens_count; // in plan->tokens, at least one
    int32_t token_next;      // the prompt's next token, -1 when this chunk ends the prompt
    int32_t sample;          // 1 = draw a token after the last one
    int32_t prompt_logprobs; // of the tokens after the chunk's: 0 = none, else 1 + alternatives
    int32_t saves_count;     // checkpoints after so many tokens: ascending, each a multiple of 64
    struct step_save {       // or all of the row's
        int32_t checkpoint, tokens;
    } saves[STEP_SAVES_MAX];
    // Decode only: where to store the state when the row begins at position checkpoint_at (else 0),
    // which its tokens do not cross; -1 = nowhere.
    int32_t checkpoint, checkpoint_at;
};

// Arrays belong to the plan's owner, who allocates them once with step_plan_open.
struct step_plan {
    int32_t group;  // "group"
    uint64_t step;  // "step" counts from 1 within an epoch, without gaps
    uint64_t epoch; // "epoch"
    int32_t verify; // "verify" tokens of every decode row, 1..6
    int32_t draft;  // "draft" drafts to make for the next step, 0..5
    int32_t closes_count, copies_count, opens_count, pages_count, rows_count;
    int32_t page_ids_count, tokens_count, lists_count;
    int32_t *closes;            // "closes" [STEP_ROWS_MAX] slots
    struct step_copy *copies;   // "copies" [STEP_ROWS_MAX]
    struct step_open *opens;    // "opens" [STEP_ROWS_MAX]
    struct step_pages *pages;   // "pages" [STEP_ROWS_MAX]
    struct step_plan_row *rows; // "rows" [STEP_ROWS_MAX], decode rows first
    int32_t *page_ids;          // [STEP_PAGE_IDS_MAX]
    int32_t *tokens;            // [STEP_PREFILL_TOKENS_MAX]
    int32_t *lists;             // [STEP_LISTS_MAX]
};

// One heap allocation for all arrays of a plan; before "ready" only. E_SYSTEM when out of memory.
enum status step_plan_open(struct step_plan *plan, struct error *error) MUST_CHECK;
void step_plan_close(struct step_plan *plan);
void step_plan_clear(struct step_plan *plan); // all counts 0, verify 1, draft 0

struct step_result {
    int32_t slot;
    int32_t count; // tokens drawn and accepted, 0 = the row was inert
    int32_t end;   // 0 runs on, 1 stop id, 2 length, 3 no logit was finite
    int32_t tokens[STEP_VERIFY_MAX];
    int32_t prompt_logprobs_count, logprobs_count; // of prompt and drawn tokens, in this order
    int32_t logprobs_first;                        // in report->logprobs
};

// A token, its log-probability and the likeliest ids with theirs, by the model's own distribution:
// before penalties, biases, temperature and filters.
struct step_logprob {
    int32_t id;
    float logprob; // STEP_LOGPROB_MIN and more; no mass at all is told as that
    int32_t top_count;
    int32_t top_ids[STEP_LOGPROBS_TOP_MAX];
    float top_logprobs[STEP_LOGPROBS_TOP_MAX];
};

// Every rank reports every step; rank 0 with the rows, the others with rows_count 0.
struct report {
    int32_t group, rank;      // "group" "rank"
    uint64_t epoch, step;     // "epoch" "step"
    uint64_t hash;            // "hash" over the drawn tokens; differs = the epoch ends
    uint64_t step_ns;         // "ns" from its turn on the device to its end
    int32_t rows_count;       // "rows" in the plan's order
    struct step_result *rows; // caller's array of STEP_ROWS_MAX
    // "logprobs": rows that asked for them, in order.
    int32_t logprobs_count;
    struct step_logprob *logprobs; // caller's array of STEP_LOGPROBS_MAX, NULL = none can come
};

// Reads only the type of a frame; MESSAGE_NONE when it is no message of ours.
enum message_type message_type_of(const void *frame, size_t frame_bytes);

// Each encode writes one frame into buffer and its size into *bytes_out; E_LIMIT when buffer_bytes
// do not suffice. Each decode writes *out only on OK.
#define MESSAGE_CODEC(name)                                                                        \
    enum status name##_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,                \
                              const struct name *message) MUST_CHECK;                              \
    enum status name##_decode(struct name *out, const void *frame, size_t frame_bytes,             \
                              struct error *error) MUST_CHECK

MESSAGE_CODEC(hello);
MESSAGE_CODEC(place_message);
MESSAGE_CODEC(ready);
MESSAGE_CODEC(refuse);
MESSAGE_CODEC(end_message);
MESSAGE_CODEC(failure);
MESSAGE_CODEC(heartbeat);
MESSAGE_CODEC(step_plan); // decode fills the arrays of an opened plan, also on failure
MESSAGE_CODEC(report);    // decode fills report->rows and logprobs, which the caller has set

// The same for the message without fields.
enum status alive_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out) MUST_CHECK;
enum status alive_decode(const void *frame, size_t frame_bytes, struct error *error) MUST_CHECK;
