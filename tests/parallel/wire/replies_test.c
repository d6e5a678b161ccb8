// SPDX-License-Identifier: Apache-2.0
// replies_test.c -- the door's answers: there and back, cut and changed anywhere, newer servers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/wire/requests.h"

static uint8_t frame[1 << 14];
static size_t frame_bytes;
static struct error error;
static int32_t ids_space[4];

static struct reply there_and_back_of(const struct reply *reply)
{
    struct reply back;
    assert_int_equal(reply_encode(frame, sizeof frame, &frame_bytes, reply), OK);
    if (reply_decode(&back, ids_space, 4, frame, frame_bytes, &error) != OK)
        fail_msg("%s", error.text);
    assert_int_equal(back.type, reply->type);
    assert_string_equal(back.id, reply->id);
    return back;
}

// Of two tokens, one without alternatives, and of a prompt whose first token has none.
static void logprobs_there_and_back(void **state)
{
    (void)state;
    const int32_t ids[2] = {7, 8};
    struct step_logprob entries[4] = {
        {.id = -1},
        {.id = INT32_MAX, .logprob = STEP_LOGPROB_MIN},
        {.id = 7, .logprob = -0.5f, .top_count = 20},
        {.id = 8, .logprob = 0},
    };
    struct step_logprob entry;
    for (int i = 0; i < 20; i++) {
        entries[2].top_ids[i] = 1000 * i;
        entries[2].top_logprobs[i] = -0.25f * (float)i;
    }
    struct reply delta = {.type = REPLY_DELTA,
                          .id = "r",
                          .ids = ids,
                          .ids_count = 2,
                          .text = "",
                          .logprobs = entries + 2,
                          .logprobs_count = 2,
                          .prompt_logprobs = entries,
                          .prompt_logprobs_count = 2};
    struct reply back = there_and_back_of(&delta);
    assert_int_equal(back.logprobs_count, 2);
    assert_int_equal(back.prompt_logprobs_count, 2);
    for (int i = 0; i < 4; i++) {
        const uint8_t **value = i < 2 ? &back.prompt_logprobs_value : &back.logprobs_value;
        size_t *bytes = i < 2 ? &back.prompt_logprobs_bytes : &back.logprobs_bytes;
        assert_true(reply_next_logprob(&entry, value, bytes));
        assert_memory_equal(&entry, &entries[i], sizeof entry);
    }
    assert_false(reply_next_logprob(&entry, &back.logprobs_value, &back.logprobs_bytes));
    assert_false(
        reply_next_logprob(&entry, &back.prompt_logprobs_value, &back.prompt_logprobs_bytes));
    delta.logprobs_count = delta.prompt_logprobs_count = 0;
    back = there_and_back_of(&delta); // not told: the keys are not there
    assert_null(back.logprobs_value);
    assert_null(back.prompt_logprobs_value);
    for (size_t at = 0; at < frame_bytes; at++)
        assert_true(frame_bytes - at < 8 || memcmp(frame + at, "logprobs", 8) != 0);
}

// What is no entry ends the list.
static void odd_logprobs_end_the_list(void **state)
{
    (void)state;
    static const char *const odd[] = {
        "\x05",
        "\x81\xa2id\xff",
        "\x81\xa7logprob\x01",
        "\x81\xa3top\x91\x91\x05",
        "\x81\xa3top\xdc\x00\x15",
        "\x81\xa2id",
        "\xc1",
    };
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        struct step_logprob entry;
        const uint8_t *value = (const uint8_t *)odd[i];
        size_t bytes = i == 4 ? 8 : strlen(odd[i]);
        assert_false(reply_next_logprob(&entry, &value, &bytes));
        assert_int_equal(bytes, 0);
    }
}

static void every_type_there_and_back(void **state)
{
    (void)state;
    const int32_t ids[4] = {0, 127, 248076, INT32_MAX};
    struct reply back = there_and_back_of(&(struct reply){.type = REPLY_ACCEPTED,
                                                          .id = "r",
                                                          .seed = UINT64_MAX,
                                                          .prompt_tokens = 12,
                                                          .ignored = "temprature,foo"});
    assert_true(back.seed == UINT64_MAX);
    assert_int_equal(back.prompt_tokens, 12);
    assert_string_equal(back.ignored, "temprature,foo");
    back = there_and_back_of(&(struct reply){.type = REPLY_DELTA,
                                             .id = "r",
                                             .index = 3,
                                             .ids = ids,
                                             .ids_count = 4,
                                             .text = "h\xc3\xa9",
                                             .text_bytes = 3});
    assert_int_equal(back.index, 3);
    assert_int_equal(back.ids_count, 4);
    assert_memory_equal(back.ids, ids, sizeof ids);
    assert_int_equal(back.text_bytes, 3);
    assert_memory_equal(back.text, "h\xc3\xa9", 3);
    back = there_and_back_of(&(struct reply){.type = REPLY_CHOICE,
                                             .id = "r",
                                             .index = 2,
                                             .finish_reason = "stop",
                                             .usage = {1, 2, 3, 4, 5, 6}});
    assert_int_equal(back.index, 2);
    assert_string_equal(back.finish_reason, "stop");
    assert_int_equal(back.usage.accepted, 6);
    back = there_and_back_of(&(struct reply){.type = REPLY_FINAL,
                                             .id = "r",
                                             .index = 1,
                                             .finish_reason = "length",
                                             .usage = {1, 2, 3, 4, 5, 6}});
    assert_int_equal(back.index, 1);
    assert_string_equal(back.finish_reason, "length");
    const struct usage usage = {1, 2, 3, 4, 5, 6};
    assert_memory_equal(&back.usage, &usage, sizeof usage);
    back = there_and_back_of(&(struct reply){.type = REPLY_ERROR,
                                             .error = status_name(E_OVERLOADED),
                                             .text = "queue full",
                                             .text_bytes = 10});
    assert_ptr_equal(back.error, status_name(E_OVERLOADED));
    assert_memory_equal(back.text, "queue full", 10);
    back = there_and_back_of(&(struct reply){.type = REPLY_PING});
    assert_int_equal(back.text_bytes, 0);
    there_and_back_of(&(struct reply){.type = REPLY_DRAINING, .id = "d"});
    for (int i = 0; i < 2; i++) {
        back = there_and_back_of(&(struct reply){.type = i ? REPLY_STATUS : REPLY_TOKENS,
                                                 .id = "s",
                                                 .text = "{\"a\":1}",
                                                 .text_bytes = 7});
        assert_memory_equal(back.text, "{\"a\":1}", 7);
    }
}

static void broken_text_still_arrives(void **state)
{
    (void)state;
    struct reply back = there_and_back_of(&(struct reply){
        .type = REPLY_ERROR, .error = "limit", .text = "half \xc3", .text_bytes = 6});
    assert_memory_equal(back.text, "half ?", 6);
}

static void cut_and_changed_frames(void **state)
{
    (void)state;
    const int32_t ids[2] = {300, 70000};
    const struct reply replies[] = {
        {.type = REPLY_DELTA, .id = "r", .ids = ids, .ids_count = 2, .text = "hi", .text_bytes = 2},
        {.type = REPLY_FINAL,
         .id = "r",
         .finish_reason = "stop",
         .usage = {1, 200, 70000, 4, 5, 6}},
        {.type = REPLY_ACCEPTED, .id = "r", .seed = 99, .prompt_tokens = 5, .ignored = "x"},
    };
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
        struct reply back;
        there_and_back_of(&replies[i]);
        for (size_t cut = 0; cut < frame_bytes; cut++) {
            uint8_t *piece = malloc(cut + 1);
            memcpy(piece, frame, cut);
            assert_int_equal(reply_decode(&back, ids_space, 4, piece, cut, &error), E_MALFORMED);
            size_t bytes;
            assert_int_equal(reply_encode(piece, cut, &bytes, &replies[i]), E_LIMIT);
            free(piece);
        }
        for (size_t at = 0; at < frame_bytes; at++) {
            uint8_t kept = frame[at];
            for (int value = 0; value < 256; value++) {
                frame[at] = (uint8_t)value;
                enum status status = reply_decode(&back, ids_space, 4, frame, frame_bytes, &error);
                assert_true(status == OK || status == E_MALFORMED);
            }
            frame[at] = kept;
        }
    }
}

static void refused(const char *bytes, size_t count, const char *text)
{
    struct reply back;
    assert_int_equal(reply_decode(&back, ids_space, 4, bytes, count, &error), E_MALFORMED);
    assert_string_equal(error.text, text);
}

#define REFUSED(bytes, text) refused(bytes, sizeof(bytes) - 1, text)

static void wrong_replies_are_named(void **state)
{
    (void)state;
    REFUSED("\x80", "reply: key 't' is missing");
    REFUSED("\x81\xa1t\xa4what", "reply: 't': 'what' is no reply");
    REFUSED("\x82\xa1t\xa5"
            "delta\xa3ids\x95\x01\x02\x03\x04\x05",
            "reply: 'ids': 5 elements, the limit is 4");
    REFUSED("\x82\xa1t\xa5"
            "delta\xa3ids\x91\xff",
            "reply: 'ids'[0]: -1 is outside 0 .. 2147483647");
    REFUSED("\x82\xa1t\xa5"
            "delta\xa4text\xa1\xff",
            "reply: 'text': invalid UTF-8 at byte 0 of 1");
    REFUSED("\x82\xa1t\xa5"
            "final\xa5usage\x81\xa7"
            "drafted\xff",
            "reply: 'drafted': -1 is outside 0 .. 2147483647");
}

static void a_newer_server_is_understood(void **state)
{
    (void)state;
    struct reply back;
    static const char newer[] = "\x84\xa1t\xa5"
                                "final\xa3new\x91\x01\xad"
                                "finish_reason\xa6"
                                "boring\xa5usage\x82\xa3"
                                "new\x81\xa1x\x01\xa8"
                                "accepted"
                                "\x09";
    assert_int_equal(reply_decode(&back, ids_space, 4, newer, sizeof newer - 1, &error), OK);
    assert_string_equal(back.finish_reason, "unknown");
    assert_int_equal(back.usage.accepted, 9);
    static const char word[] = "\x82\xa1t\xa5"
                               "error\xa5"
                               "error\xa3new";
    assert_int_equal(reply_decode(&back, ids_space, 4, word, sizeof word - 1, &error), OK);
    assert_string_equal(back.error, status_name(E_FAILED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_there_and_back),    cmocka_unit_test(broken_text_still_arrives),
        cmocka_unit_test(cut_and_changed_frames),       cmocka_unit_test(wrong_replies_are_named),
        cmocka_unit_test(a_newer_server_is_understood), cmocka_unit_test(logprobs_there_and_back),
        cmocka_unit_test(odd_logprobs_end_the_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
