// SPDX-License-Identifier: Apache-2.0
// door_metrics_test.c -- buckets at their borders, and a page whose every line is well-formed.
#include "coordinator/door_metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct text_buffer out;
static struct door_metrics metrics;

static const char *page(const struct coord_status *status, const char *model)
{
    out.count = 0;
    assert_int_equal(door_metrics_write(&out, &metrics, status, model), OK);
    assert_int_equal(text_buffer_append(&out, "", 1, NULL), OK);
    return out.bytes;
}

static int set_up(void **state)
{
    (void)state;
    metrics = (struct door_metrics){.http_requests = 0};
    text_buffer_init(&out, 1 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    text_buffer_fini(&out);
    return 0;
}

// The number behind the first line that begins so.
static double value(const char *text, const char *line)
{
    char wanted[200];
    snprintf(wanted, sizeof wanted, "\n%s ", line);
    const char *at = strstr(text, wanted);
    if (at == NULL)
        fail_msg("there is no line '%s'", line);
    return strtod(at + strlen(wanted), NULL);
}

static void durations_fall_into_buckets(void **state)
{
    (void)state;
    struct coord_status status = {.groups = 1};
    door_metrics_observe(&metrics, DOOR_METRICS_FIRST_TOKEN, 1000000, 1); // 1 ms: the border
    door_metrics_observe(&metrics, DOOR_METRICS_FIRST_TOKEN, 1000001, 1); // just above
    door_metrics_observe(&metrics, DOOR_METRICS_FIRST_TOKEN, 300000000000, 3);
    door_metrics_observe(&metrics, DOOR_METRICS_FIRST_TOKEN, UINT64_MAX, 1); // above all
    const char *text = page(&status, "m");
#define BUCKET(le) "vllm:time_to_first_token_seconds_bucket{model_name=\"m\",le=\"" le "\"}"
    assert_true(value(text, BUCKET("0.001")) == 1);
    assert_true(value(text, BUCKET("0.005")) == 2);
    assert_true(value(text, BUCKET("160")) == 2);
    assert_true(value(text, BUCKET("640")) == 5);
    assert_true(value(text, BUCKET("2560")) == 5);
    assert_true(value(text, BUCKET("+Inf")) == 6);
    assert_true(value(text, "vllm:time_to_first_token_seconds_count{model_name=\"m\"}") == 6);
    assert_true(value(text, "vllm:inter_token_latency_seconds_count{model_name=\"m\"}") == 0);
    assert_true(value(text, "vllm:time_to_first_token_seconds_sum{model_name=\"m\"}") > 900);
}

static void counts_of_core_and_door(void **state)
{
    (void)state;
    struct coord_status status = {.groups = 1,
                                  .running = 3,
                                  .queued = 4,
                                  .pages = 8,
                                  .pages_free = 2,
                                  .slots = 9,
                                  .slots_free = 6,
                                  .tokens_in = 100,
                                  .tokens_out = 200};
    door_metrics_end(&metrics, "stop");
    door_metrics_end(&metrics, "stop");
    door_metrics_end(&metrics, "length");
    door_metrics_end(&metrics, NULL);
    door_metrics_end(&metrics, "something else");
    const char *text = page(&status, "m");
    assert_true(value(text, "vllm:num_requests_running{model_name=\"m\"}") == 3);
    assert_true(value(text, "vllm:num_requests_waiting{model_name=\"m\"}") == 4);
    assert_true(value(text, "vllm:kv_cache_usage_perc{model_name=\"m\"}") == 0.75);
    assert_true(value(text, "vllm:prompt_tokens_total{model_name=\"m\"}") == 100);
    assert_true(value(text, "vllm:generation_tokens_total{model_name=\"m\"}") == 200);
    assert_true(value(text, "deltamesh:state_slots_free{model_name=\"m\"}") == 6);
#define ENDED(reason) "vllm:request_success_total{model_name=\"m\",finished_reason=\"" reason "\"}"
    assert_true(value(text, ENDED("stop")) == 2);
    assert_true(value(text, ENDED("length")) == 1);
    assert_true(value(text, ENDED("abort")) == 0);
    assert_true(value(text, ENDED("error")) == 2);
}

static void a_name_cannot_break_a_line(void **state)
{
    (void)state;
    struct coord_status status = {.pages = 0};
    const char *text = page(&status, "a\"b\\c\nd");
    assert_non_null(strstr(text, "{model_name=\"a\\\"b\\\\c d\"}"));
    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        bool known = strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# TYPE ", 7) == 0 ||
                     strncmp(line, "vllm:", 5) == 0 || strncmp(line, "deltamesh:", 10) == 0;
        if (!known)
            fail_msg("%.60s", line);
    }
    out.bytes_max = 100;
    out.count = 0;
    assert_int_equal(door_metrics_write(&out, &metrics, &status, "m"), E_LIMIT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(durations_fall_into_buckets),
        TEST(counts_of_core_and_door),
        TEST(a_name_cannot_break_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
