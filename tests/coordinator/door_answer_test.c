// SPDX-License-Identifier: Apache-2.0
// door_answer_test.c -- the text of an answer with stop strings, however its tokens were grouped,
// against cutting the whole text at once. The tokenizer is the demo model's.
#include "coordinator/door_answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TEXT "The fox \xe4\xb8\x96\xe7\x95\x8c said: stop here, and stop there. <end> The end"

static struct tokenizer tokenizer;
static struct door_text *door, *bare;
static struct error error;
static int32_t *ids;
static int32_t ids_count;

static int set_up(void **state)
{
    (void)state;
    if (tokenizer_load(&tokenizer, SOURCE_DIR "/deploy/demo/model", &error) != OK)
        fail_msg("%s", error.text);
    assert_int_equal(door_text_open(&door, &tokenizer, (int32_t)tokenizer.id_count, &error), OK);
    assert_int_equal(door_text_open(&bare, NULL, 100, &error), OK);
    assert_int_equal(door_text_encode(door, TEXT, strlen(TEXT), &ids, &ids_count, &error), OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(ids);
    door_text_close(door);
    door_text_close(bare);
    tokenizer_fini(&tokenizer);
    return 0;
}

static void add_stop(struct generate_request *request, const char *stop)
{
    request->stops[request->stops_count++] =
        (struct request_text){.bytes = stop, .count = strlen(stop)};
}

// Feeds all ids, `group` at a time; text gets everything told. Returns the ids that were taken.
static int32_t run(const struct generate_request *request, int group, char *text)
{
    struct door_answer *answer;
    const char *piece;
    size_t bytes, used = 0;
    int32_t taken = 0;
    assert_int_equal(door_answer_open(&answer, door, request, &error), OK);
    for (int32_t at = 0; at < ids_count && !door_answer_stopped(answer); at += group) {
        int32_t count = ids_count - at < group ? ids_count - at : group;
        taken += door_answer_feed(answer, ids + at, count, &piece, &bytes);
        memcpy(text + used, piece, bytes);
        used += bytes;
    }
    door_answer_finish(answer, &piece, &bytes);
    memcpy(text + used, piece, bytes);
    text[used + bytes] = '\0';
    door_answer_close(answer);
    return taken;
}

static void cut_at_the_first_stop_string(void **state)
{
    static const struct {
        const char *stops[3];
        const char *ends; // the text ends before this
        bool include;
    } cases[] = {
        {{"stop"}, "stop here", false},
        {{"there.", "here"}, "here, and", false},
        {{"here, and stop there. <"}, "here, and", false}, // over many tokens
        {{"\xe7\x95\x8c"}, "\xe7\x95\x8c said", false},    // in a character of several tokens
        {{"The end."}, NULL, false},                       // held back, and never comes
        {{"nowhere", "end"}, "> The end", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct generate_request request;
        char expected[sizeof TEXT + 1] = TEXT, text[sizeof TEXT + 1];
        int32_t taken = -1;
        generate_request_init(&request);
        request.include_stop = cases[i].include;
        for (int s = 0; s < 3 && cases[i].stops[s] != NULL; s++)
            add_stop(&request, cases[i].stops[s]);
        if (cases[i].ends != NULL)
            *strstr(expected, cases[i].ends) = '\0';
        for (int group = 1; group <= 7; group++) {
            int32_t now = run(&request, group, text);
            assert_string_equal(text, expected);
            assert_true(group == 1 || now == taken); // grouping changes no count
            taken = now;
        }
        assert_true((taken < ids_count) == (cases[i].ends != NULL));
    }
}

static void stops_before_min_tokens_do_not_count(void **state)
{
    struct generate_request request;
    char text[sizeof TEXT + 1];
    (void)state;
    generate_request_init(&request);
    add_stop(&request, "stop");
    int32_t first = run(&request, 1, text);
    request.min_tokens = first + 1;
    int32_t second = run(&request, 1, text);
    assert_true(second > first);
    assert_int_equal(strstr(TEXT, "stop there") - TEXT, strlen(text));
    request.min_tokens = ids_count + 1;
    assert_int_equal(run(&request, 3, text), ids_count);
    assert_string_equal(text, TEXT);
}

static void stops_work_where_no_text_is_wanted(void **state)
{
    struct generate_request request;
    char text[sizeof TEXT + 1];
    (void)state;
    generate_request_init(&request);
    request.want_text = false;
    struct door_answer *answer;
    assert_int_equal(door_answer_open(&answer, door, &request, &error), OK);
    assert_null(answer); // nothing to do
    add_stop(&request, "said");
    assert_true(run(&request, 2, text) < ids_count);
    assert_string_equal(text, "");
}

static void without_a_tokenizer(void **state)
{
    struct generate_request request;
    struct door_answer *answer;
    (void)state;
    generate_request_init(&request);
    assert_int_equal(door_answer_open(&answer, bare, &request, &error), OK);
    assert_null(answer);
    add_stop(&request, "x");
    assert_int_equal(door_answer_open(&answer, bare, &request, &error), E_UNSUPPORTED);
    assert_string_equal(error.text, "'stop' needs a tokenizer and this model directory has none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_at_the_first_stop_string),
        cmocka_unit_test(stops_before_min_tokens_do_not_count),
        cmocka_unit_test(stops_work_where_no_text_is_wanted),
        cmocka_unit_test(without_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
