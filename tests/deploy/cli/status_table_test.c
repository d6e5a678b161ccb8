// SPDX-License-Identifier: Apache-2.0
// status_table_test.c -- every figure in its column, rates over the time between, a server that
// says less.
#include "deploy/cli/status_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static const char now_text[] =
    "{\"model\":\"m\",\"state\":\"ready\",\"running\":3,\"queued\":4,\"queued_max\":5,"
    "\"preempted\":6,"
    "\"clients_connected\":7,\"requests_failed\":8,\"steps\":300,\"tokens_out\":900,\"tokens_in\":"
    "70,"
    "\"requests_done\":21,\"groups_now\":[{\"phase\":\"ready\",\"epoch\":2,\"step_sent\":12,"
    "\"step_done\":11,\"running\":3,\"slots\":32,\"slots_free\":29,\"pages\":64,\"pages_free\":60,"
    "\"ranks\":[{\"host\":\"a\",\"pid\":99,\"ready\":true,\"step_begun\":12,\"step_done\":11,"
    "\"exchanges\":1000,\"silent_ms\":40},{\"host\":\"b\",\"pid\":98,\"ready\":false},{}]}]}";

static char *print(const char *now_json, const char *before_json, double seconds)
{
    char *text = NULL;
    size_t bytes;
    json_t *now = json_loads(now_json, 0, NULL);
    json_t *before = before_json != NULL ? json_loads(before_json, 0, NULL) : NULL;
    FILE *file = open_memstream(&text, &bytes);
    assert_non_null(now);
    assert_non_null(file);
    status_table_print(file, now, before, seconds);
    fclose(file);
    json_decref(now);
    json_decref(before);
    return text;
}

static void columns(void **state)
{
    (void)state;
    char *text = print(
        now_text, "{\"steps\":200,\"tokens_out\":800,\"tokens_in\":60,\"requests_done\":20}", 2);
    assert_string_equal(
        text, "m  ready  running 3  queued 4/5 (preempted 6)  clients 7  failed 8\n"
              "50.0 steps/s  50.0 tokens/s out  5.0 tokens/s in  0.5 requests/s\n"
              "group 0   ready  epoch 2  step 12 sent, 11 done  running 3  slots 3/32  pages 4/64\n"
              "  rank 0   a:99  step 12 begun, 11 done  exchanges 1000  heard 40 ms ago\n"
              "  rank 1   b:98 (loading)  step 0 begun, 0 done  exchanges 0  heard 0 ms ago\n"
              "  rank 2   nobody yet\n");
    free(text);
}

static void little_is_enough(void **state)
{
    (void)state;
    char *text = print("{\"groups_now\":7}", NULL, 0);
    assert_string_equal(text, "?  ?  running 0  queued 0/0 (preempted 0)  clients 0  failed 0\n"
                              "0.0 steps/s  0.0 tokens/s out  0.0 tokens/s in  0.0 requests/s\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns),
        cmocka_unit_test(little_is_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
