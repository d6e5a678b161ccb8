// SPDX-License-Identifier: Apache-2.0
// messages_fuzz.c -- any bytes as any message between coordinator and workers. What is accepted is
// encoded again, and that has to decode and to encode to the same bytes.
#include <stdint.h>
#include <string.h>

#include "parallel/wire/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint8_t first[1 << 17], second[1 << 17];

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

static void report_again(const uint8_t *data, size_t bytes)
{
    static struct step_result rows[STEP_ROWS_MAX], rows_back[STEP_ROWS_MAX];
    struct report report = {.rows = rows}, back = {.rows = rows_back};
    struct error error = {0};
    size_t first_bytes, second_bytes;
    enum status status = report_decode(&report, data, bytes, &error);
    if (status != OK) {
        refused(status, &error);
        return;
    }
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
    report_again(data, bytes);
    if (alive_decode(data, bytes, &error) == OK)
        ASSERT(message_type_of(data, bytes) == MESSAGE_ALIVE);
    return 0;
}
