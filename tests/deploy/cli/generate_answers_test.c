// SPDX-License-Identifier: Apache-2.0
// generate_answers_test.c -- deltas gathered, figures counted, text and JSON printed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "deploy/cli/generate_answers.h"

static struct generate_answers answers;
static struct answer answer;
static struct error error;
static char text[65536]; // what went to stdout or stderr

static void take(const struct reply *reply)
{
    assert_int_equal(generate_answers_take(&answers, &answer, reply, &error), OK);
}

static void delta(const char *piece, const int32_t *ids, int32_t ids_count)
{
    take(&(struct reply){.type = REPLY_DELTA,
                         .text = piece,
                         .text_bytes = strlen(piece),
                         .ids = ids,
                         .ids_count = ids_count});
}

static void final(void)
{
    take(&(struct reply){.type = REPLY_FINAL,
                         .finish_reason = "stop",
                         .usage = {.prompt_tokens = 4,
                                   .completion_tokens = 3,
                                   .target_steps = 2,
                                   .drafted = 4,
                                   .accepted = 1}});
}

static int saved_fd, memory_fd;

static void catch_stream(FILE *stream)
{
    fflush(stream);
    memory_fd = memfd_create("caught", MFD_CLOEXEC);
    saved_fd = dup(fileno(stream));
    dup2(memory_fd, fileno(stream));
}

static void give_back_stream(FILE *stream)
{
    fflush(stream);
    dup2(saved_fd, fileno(stream));
    close(saved_fd);
    ssize_t bytes = pread(memory_fd, text, sizeof text - 1, 0);
    close(memory_fd);
    assert_true(bytes >= 0);
    text[bytes] = '\0';
}

static const int32_t ids[3] = {7, 8, 9};

static void new_answer(bool json, bool single, bool want_ids)
{
    generate_answers_fini(&answers);
    generate_answers_release(&answer);
    answers.json = json;
    answers.single = single;
    answers.want_ids = want_ids;
    answer = (struct answer){.is_used = true, .index = 12, .frame = malloc(8)};
}

static void a_single_text_is_streamed(void **state)
{
    (void)state;
    new_answer(false, true, false);
    catch_stream(stdout);
    take(&(struct reply){.type = REPLY_ACCEPTED});
    delta("Hel", ids, 2);
    delta("lo", ids + 2, 1);
    final();
    give_back_stream(stdout);
    assert_string_equal(text, "Hello\n");
    assert_true(answer.is_accepted);
    assert_null(answer.frame); // not needed any more
    assert_int_equal(answers.completion_tokens, 3);
    assert_int_equal(answers.waits_count, 1);
    assert_int_equal(answers.ended, 1);
}

static void several_are_printed_whole(void **state)
{
    (void)state;
    new_answer(false, false, false);
    catch_stream(stdout);
    delta("Hello", ids, 3);
    final();
    give_back_stream(stdout);
    assert_string_equal(text, "# 12 stop, 3 tokens\nHello\n");
}

static void ids_stand_in_for_missing_text(void **state)
{
    (void)state;
    new_answer(false, true, true);
    catch_stream(stdout);
    delta("", ids, 3);
    final();
    give_back_stream(stdout);
    assert_string_equal(text, "7,8,9\n");
}

static void json_is_one_object_a_line(void **state)
{
    (void)state;
    new_answer(true, false, false);
    catch_stream(stdout);
    delta("a\"\n", ids, 2);
    delta("", ids + 2, 1);
    final();
    assert_int_equal(generate_answers_fail(&answers, 13, E_LIMIT, "too long", &error), OK);
    give_back_stream(stdout);
    assert_string_equal(
        text, "{\"index\":12,\"ids\":[7,8,9],\"text\":\"a\\\"\\n\",\"finish_reason\":\"stop\","
              "\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":3,\"cached_tokens\":0,"
              "\"target_steps\":2,\"drafted\":4,\"accepted\":1}}\n"
              "{\"index\":13,\"error\":{\"code\":\"limit\",\"message\":\"too long\"}}\n");
    assert_int_equal(answers.failed, 1);
    assert_int_equal(answers.first_failure, E_LIMIT);
}

static void long_answers_grow(void **state)
{
    (void)state;
    enum { PIECES = 5000 };
    new_answer(true, false, false);
    for (int32_t i = 0; i < PIECES; i++)
        delta("abc", &i, 1);
    assert_int_equal(answer.choices[0].text_bytes, 3 * PIECES);
    assert_memory_equal(answer.choices[0].text + 3 * PIECES - 4, "cabc", 4);
    for (int32_t i = 0; i < PIECES; i++)
        assert_int_equal(answer.choices[0].ids[i], i);
}

static void figures_are_right(void **state)
{
    (void)state;
    new_answer(true, false, false);
    generate_answers_fini(&answers);
    catch_stream(stderr);
    generate_answers_print_figures(&answers); // nothing came: no figures
    give_back_stream(stderr);
    assert_string_equal(text, "");
    static const uint64_t waits_ms[] = {30, 10, 500, 20, 40};
    answers.waits_ns = malloc(sizeof waits_ms);
    for (int i = 0; i < 5; i++)
        answers.waits_ns[i] = waits_ms[i] * 1000000;
    answers.waits_count = 5;
    answers.completion_tokens = 30;
    answers.target_steps = 20;
    answers.drafted = 40;
    answers.accepted = 10;
    catch_stream(stderr);
    generate_answers_print_figures(&answers);
    give_back_stream(stderr);
    assert_non_null(strstr(text, "30 tokens in "));
    assert_non_null(strstr(text, "first token after 30.0 ms (median of 5, longest 500.0 ms)"));
    assert_non_null(strstr(text, "; drafts 40, accepted 10 (25 %), 1.50 tokens a step\n"));
}

static int tear_down(void **state)
{
    (void)state;
    generate_answers_fini(&answers);
    generate_answers_release(&answer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_single_text_is_streamed),
        cmocka_unit_test(several_are_printed_whole),
        cmocka_unit_test(ids_stand_in_for_missing_text),
        cmocka_unit_test(json_is_one_object_a_line),
        cmocka_unit_test(long_answers_grow),
        cmocka_unit_test(figures_are_right),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
