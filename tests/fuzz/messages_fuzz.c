// SPDX-License-Identifier: Apache-2.0
// messages_fuzz.c -- any bytes as any message between coordinator and workers. What is accepted is
// encoded again, and that has to decode and to encode to the same bytes.
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "parallel/wire/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint8_t first[WIRE_WORKER_FRAME_BYTES_MAX], second[WIRE_WORKER_FRAME_BYTES_MAX];

// A refusal says why.
static void refused(enum status status, const struct error *error)
{
    ASSERT(status == E_MALFORMED && error->text[0] != '\0');
}

#define AGAIN(name)                                                                                \
    static void name##_again(const uint8_t *data, size_t bytes)                                    \
    {                                                                                              \
        struct name message, back;                                                                 \
        struct error error = {0};                                                                  \
        size_t first_bytes, second_bytes;                                                          \
        enum status status = name##_decode(&message, data, bytes, &error);                         \
        if (status != OK) {                                                                        \
            refused(status, &error);                                                               \
            return;                                                                                \
        }                                                                                          \
        ASSERT(name##_encode(first, sizeof first, &first_bytes, &message) == OK);                  \
        ASSERT(first_bytes <= bytes); /* ours is the shortest form */                              \
        ASSERT(name##_decode(&back, first, first_bytes, &error) == OK);                            \
        ASSERT(name##_encode(second, sizeof second, &second_bytes, &back) == OK);                  \
        ASSERT(first_bytes == second_bytes && memcmp(first, second, first_bytes) == 0);            \
    }

AGAIN(hello)
AGAIN(place_message)
AGAIN(ready)
AGAIN(refuse)
AGAIN(end_message)
AGAIN(failure)
AGAIN(heartbeat)

static void check_logprob(const struct step_logprob *entry)
{
    ASSERT(entry->id >= 0 && entry->logprob >= STEP_LOGPROB_MIN && entry->logprob <= 0);
    ASSERT(entry->top_count >= 0 && entry->top_count <= STEP_LOGPROBS_TOP_MAX);
    for (int32_t i = 0; i < entry->top_count; i++) {
        ASSERT(entry->top_ids[i] >= 0);
        ASSERT(entry->top_logprobs[i] >= STEP_LOGPROB_MIN && entry->top_logprobs[i] <= 0);
    }
}

// What a coordinator relies on without looking again: every row's log-probabilities are its own.
static void check_report(const struct report *report)
{
    int32_t told = 0;
    ASSERT(report->group >= 0 && report->group < WIRE_GROUPS_MAX);
    ASSERT(report->rank >= 0 && report->rank < WIRE_RANKS_MAX);
    ASSERT(report->rows_count >= 0 && report->rows_count <= STEP_ROWS_MAX);
    for (int32_t i = 0; i < report->rows_count; i++) {
        const struct step_result *row = &report->rows[i];
        ASSERT(row->slot >= 0 && row->slot < STEP_ROWS_MAX);
        ASSERT(row->count >= 0 && row->count <= STEP_VERIFY_MAX);
        ASSERT(row->end >= 0 && row->end <= 3);
        ASSERT(row->prompt_logprobs_count >= 0 && row->logprobs_count >= 0);
        if (row->prompt_logprobs_count + row->logprobs_count > 0)
            ASSERT(row->logprobs_first == told);
        told += row->prompt_logprobs_count + row->logprobs_count;
        for (int32_t j = 0; j < row->count; j++)
            ASSERT(row->tokens[j] >= 0);
    }
    ASSERT(report->logprobs_count == told && told <= STEP_LOGPROBS_MAX);
    for (int32_t i = 0; i < told; i++)
        check_logprob(&report->logprobs[i]);
}

static void report_again(const uint8_t *data, size_t bytes, bool logprobs)
{
    static struct step_result rows[STEP_ROWS_MAX], rows_back[STEP_ROWS_MAX];
    static struct step_logprob entries[STEP_LOGPROBS_MAX], entries_back[STEP_LOGPROBS_MAX];
    struct report report = {.rows = rows, .logprobs = logprobs ? entries : NULL};
    struct report back = {.rows = rows_back, .logprobs = logprobs ? entries_back : NULL};
    struct error error = {0};
    size_t first_bytes, second_bytes;
    enum status status = report_decode(&report, data, bytes, &error);
    if (status != OK) {
        refused(status, &error);
        return;
    }
    check_report(&report);
    ASSERT(report_encode(first, sizeof first, &first_bytes, &report) == OK);
    ASSERT(report_decode(&back, first, first_bytes, &error) == OK);
    ASSERT(report_encode(second, sizeof second, &second_bytes, &back) == OK);
    ASSERT(first_bytes == second_bytes && memcmp(first, second, first_bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct error error;
    hello_again(data, bytes);
    place_message_again(data, bytes);
    ready_again(data, bytes);
    refuse_again(data, bytes);
    end_message_again(data, bytes);
    failure_again(data, bytes);
    heartbeat_again(data, bytes);
    report_again(data, bytes, true);
    report_again(data, bytes, false);
    if (alive_decode(data, bytes, &error) == OK)
        ASSERT(message_type_of(data, bytes) == MESSAGE_ALIVE);
    return 0;
}
