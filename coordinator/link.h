// SPDX-License-Identifier: Apache-2.0
// link.h -- what passes between a door's thread and the core's: two bounded rings and two
// eventfds. A door is the only writer of one ring and the only reader of the other. Knows no
// socket and no format.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core.h"
#include "coordinator/overview.h"
#include "parallel/base/ring.h"

// What doors tell those who still wait when the core ends.
#define LINK_ENDED_TEXT "the server has ended: its log says why"

enum {
    LINK_TO_CORE_MAX = 8192,    // orders waiting for the core, beside ends of requests
    LINK_FROM_CORE_MAX = 65536, // news waiting for the door: 64 steps of 1,024 rows
    LINK_TURN_MS = 5,           // a door's news and its clients take turns
};

enum link_order_type {
    ORDER_SUBMIT,
    ORDER_FINISH,
    ORDER_STATUS,
    ORDER_DRAIN,
};

// Door -> core. prompt belongs to the core from then on, which frees it.
struct link_order {
    enum link_order_type type;
    uint64_t request;
    int32_t *prompt; // [prompt_tokens], malloc'ed
    int32_t prompt_tokens;
    uint64_t arrived_ns; // at the door
    int32_t priority;
    int32_t timeout_ms; // 0 = none
    int32_t *lists;     // malloc'ed, or NULL; as sampling counts them; the core's as prompt is
    struct coord_sampling sampling;
    const char *reason; // FINISH: a literal
};

enum link_news_type {
    NEWS_READY,    // the first group serves; context tells the limit
    NEWS_DRAINING, // no new requests are taken from now on
    NEWS_ACCEPTED, // request
    NEWS_TOKENS,   // request, tokens (may be none), logprobs
    NEWS_DONE,     // request, reason, usage
    NEWS_ERROR,    // request, status, text
    NEWS_STATUS,   // overview
    NEWS_END,      // nothing follows: flush and leave
};

// Core -> door. text and logprobs belong to the door from then on, which frees them.
struct link_news {
    enum link_news_type type;
    uint64_t request;
    int32_t tokens_count;
    int32_t tokens[STEP_VERIFY_MAX];
    // TOKENS: malloc'ed, or NULL: an empty entry (id -1), then [prompt_logprobs_count], then
    // [logprobs_count], which is 0 or tokens_count.
    struct step_logprob *logprobs;
    int32_t prompt_logprobs_count, logprobs_count;
    enum status status;
    char *text;         // ERROR: malloc'ed, or NULL when there was no memory
    const char *reason; // DONE: a literal
    union {
        struct coord_usage usage;
        struct overview *overview; // malloc'ed, for the door to free; NULL: there is no memory
        int32_t context;           // READY: longest sequence
    };
};

// The end of a request, as it waits for the core; read as ORDER_FINISH.
struct link_finish {
    uint64_t request;
    const char *reason; // a literal
};

struct link {
    struct ring to_core, from_core, finishes;
    int core_fd, door_fd; // eventfds: something is in the ring that this side reads
    void *memory;
};

// requests_max: unfinished ones that a door can have; there is room for the ends of all. Takes
// memory and eventfds; E_SYSTEM when there are none.
enum status link_open(struct link *link, int32_t requests_max, struct error *error) MUST_CHECK;
// Once neither side uses it any more.
void link_close(struct link *link);

// Door's side. False when LINK_TO_CORE_MAX wait: the caller answers `overloaded`.
bool link_order(struct link *link, const struct link_order *order);
// Orders the end of a request, behind what was ordered before; reason: a literal. It has room when
// other orders have none, so that a door does not wait for a core that waits for it. False when
// more wait than a door can have requests.
bool link_finish(struct link *link, uint64_t request, const char *reason);
bool link_next_news(struct link *link, struct link_news *out);
// Clears the door's eventfd and hands the news that there are to on_news, for LINK_TURN_MS at most;
// when some are left then, the door stays awake.
void link_take_news(struct link *link, void (*on_news)(void *door, const struct link_news *news),
                    void *door);

// Core's side. link_tell waits when the ring is full: a door never blocks, so it will read.
void link_tell(struct link *link, const struct link_news *news);
bool link_next_order(struct link *link, struct link_order *out);

// Wakes the other side; once after a batch.
void link_wake_core(struct link *link);
void link_wake_door(struct link *link);

// Empties this side's eventfd before the ring is read.
void link_clear(int fd);
