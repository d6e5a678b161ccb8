// SPDX-License-Identifier: Apache-2.0
// door_metrics_test.c -- every line has its value, is well-formed, and is explained in METRICS.md.
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
static struct overview *overview; // of one group of two ranks

static const char *page(const char *model)
{
    out.count = 0;
    assert_int_equal(door_metrics_write(&out, &metrics, overview, model), OK);
    assert_int_equal(text_buffer_append(&out, "", 1, NULL), OK);
    return out.bytes;
}

static int set_up(void **state)
{
    (void)state;
    metrics = (struct door_metrics){.http_requests = 0};
    overview = calloc(1, sizeof *overview + sizeof overview->groups[0]);
    assert_non_null(overview);
    overview->groups_count = 1;
    overview->groups[0].ranks_count = 2;
    text_buffer_init(&out, 1 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    text_buffer_fini(&out);
    free(overview);
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

static void histograms_sum_up(void **state)
{
    (void)state;
    struct figures *figures = &overview->figures;
    figures_observe(figures, FIGURE_FIRST_TOKEN, 0.001, 1); // the border
    figures_observe(figures, FIGURE_FIRST_TOKEN, 0.0010001, 1);
    figures_observe(figures, FIGURE_FIRST_TOKEN, 300, 3);
    figures_observe(figures, FIGURE_FIRST_TOKEN, 1e10, 1); // above all
    const char *text = page("m");
#define BUCKET(le) "vllm:time_to_first_token_seconds_bucket{model_name=\"m\",le=\"" le "\"}"
    assert_true(value(text, BUCKET("0.001")) == 1);
    assert_true(value(text, BUCKET("0.005")) == 2);
    assert_true(value(text, BUCKET("160")) == 2);
    assert_true(value(text, BUCKET("640")) == 5);
    assert_true(value(text, BUCKET("2560")) == 5);
    assert_true(value(text, BUCKET("+Inf")) == 6);
    assert_true(value(text, "vllm:time_to_first_token_seconds_count{model_name=\"m\"}") == 6);
    assert_true(value(text, "vllm:inter_token_latency_seconds_count{model_name=\"m\"}") == 0);
    assert_true(value(text, "vllm:time_to_first_token_seconds_sum{model_name=\"m\"}") > 1e10);
}

#define LINE(name)    name "{model_name=\"m\"}"
#define ENDED(reason) "vllm:request_success_total{model_name=\"m\",finished_reason=\"" reason "\"}"
#define ACCEPTED(position)                                                                         \
    "vllm:spec_decode_num_accepted_tokens_per_pos_total{model_name=\"m\",position=\"" position "\"}"
static const struct {
    const char *line;
    double value;
} wanted[] = {
    {LINE("vllm:num_requests_running"), 3},
    {LINE("vllm:num_requests_waiting"), 4},
    {LINE("vllm:kv_cache_usage_perc"), 0.75},
    {LINE("vllm:num_preemptions_total"), 14},
    {LINE("vllm:prompt_tokens_total"), 100},
    {LINE("vllm:generation_tokens_total"), 200},
    {LINE("deltamesh:state_slots"), 9},
    {LINE("deltamesh:state_slots_free"), 6},
    {LINE("deltamesh:kv_pages"), 8},
    {LINE("deltamesh:kv_pages_free"), 2},
    {LINE("deltamesh:groups"), 11},
    {LINE("deltamesh:groups_ready"), 12},
    {LINE("deltamesh:queued_max"), 13},
    {LINE("deltamesh:draft_vocab"), 45},
    {LINE("deltamesh:steps_total"), 15},
    {LINE("deltamesh:epochs_total"), 16},
    {LINE("deltamesh:requests_done_total"), 17},
    {LINE("deltamesh:requests_failed_total"), 18},
    {LINE("vllm:prefix_cache_queries_total"), 21},
    {LINE("vllm:prefix_cache_hits_total"), 22},
    {LINE("deltamesh:kv_pages_evicted_total"), 61},
    {LINE("deltamesh:checkpoints_saved_total"), 62},
    {LINE("deltamesh:checkpoints_evicted_total"), 63},
    {LINE("deltamesh:kv_pages_cached"), 1},
    {LINE("deltamesh:checkpoints"), 64},
    {LINE("deltamesh:checkpoints_free"), 65},
    {"vllm:cache_config_info{model_name=\"m\",block_size=\"64\",num_gpu_blocks=\"8\","
     "enable_prefix_caching=\"True\"}",
     1},
    {LINE("vllm:spec_decode_num_drafts_total"), 25},
    {LINE("vllm:spec_decode_num_draft_tokens_total"), 43},
    {LINE("vllm:spec_decode_num_accepted_tokens_total"), 20 + 10 + 3 + 2 + 1},
    {ACCEPTED("0"), 20},
    {ACCEPTED("1"), 10},
    {ACCEPTED("4"), 1},
    {ENDED("stop"), 31},
    {ENDED("length"), 32},
    {ENDED("abort"), 33},
    {ENDED("timeout"), 34},
    {ENDED("error"), 35},
    {LINE("deltamesh:requests_preempted"), 43},
    {LINE("deltamesh:requests_timeout_total"), 44},
    {"deltamesh:group_epoch{model_name=\"m\",group=\"0\"}", 41},
    {"deltamesh:rank_step{model_name=\"m\",group=\"0\",rank=\"0\"}", 0},
    {"deltamesh:rank_step{model_name=\"m\",group=\"0\",rank=\"1\"}", 42},
    {LINE("deltamesh:http_requests_total"), 51},
    {LINE("deltamesh:http_errors_total"), 52},
    {LINE("deltamesh:http_clients_left_total"), 53},
    {LINE("deltamesh:http_clients_slow_total"), 54},
};

static void every_count_has_its_line(void **state)
{
    (void)state;
    overview->status =
        (struct coord_status){.groups = 11,
                              .groups_ready = 12,
                              .running = 3,
                              .queued = 4,
                              .queued_max = 13,
                              .draft_vocab = 45,
                              .pages = 8,
                              .pages_free = 2,
                              .slots = 9,
                              .slots_free = 6,
                              .preempted = 43,
                              .timeouts = 44,
                              .preemptions = 14,
                              .steps = 15,
                              .epochs = 16,
                              .requests_done = 17,
                              .requests_failed = 18,
                              .tokens_in = 100,
                              .tokens_out = 200,
                              .prefix_queries = 21,
                              .prefix_hits = 22,
                              .prefix_pages_evicted = 61,
                              .prefix_checkpoints_saved = 62,
                              .prefix_checkpoints_evicted = 63,
                              .pages_cached = 1,
                              .checkpoints = 64,
                              .checkpoints_free = 65,
                              .drafts = {.rows = 25, .drafted = 43, .accepted = {20, 10, 3, 2, 1}}};
    overview->figures.ended[0] = 31;
    overview->figures.ended[1] = 32;
    overview->figures.ended[2] = 33;
    overview->figures.ended[3] = 34;
    overview->figures.ended[4] = 35;
    overview->groups[0].epoch = 41;
    overview->groups[0].ranks[1].step_done = 42;
    metrics = (struct door_metrics){51, 52, 53, 54};
    const char *text = page("m");
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (value(text, wanted[i].line) != wanted[i].value)
            fail_msg("%s is %g", wanted[i].line, value(text, wanted[i].line));
    }
}

// Every name of the page is explained in METRICS.md, and every name there is on the page.
static void the_table_is_complete(void **state)
{
    (void)state;
    char table[32768], name[128];
    FILE *file = fopen(SOURCE_DIR "/coordinator/METRICS.md", "r");
    assert_non_null(file);
    table[fread(table, 1, sizeof table - 1, file)] = '\0';
    fclose(file);
    int on_page = 0, in_table = 0;
    for (const char *at = page("m"); (at = strstr(at, "# TYPE ")) != NULL; on_page++) {
        at += 7;
        snprintf(name, sizeof name, "| `%.*s` |", (int)strcspn(at, " "), at);
        if (strstr(table, name) == NULL)
            fail_msg("%s is not in METRICS.md", name);
    }
    for (const char *at = table; (at = strstr(at, "\n| `")) != NULL; at++)
        in_table++;
    assert_int_equal(in_table, on_page);
}

static void a_name_cannot_break_a_line(void **state)
{
    (void)state;
    const char *text = page("a\"b\\c\nd");
    assert_non_null(strstr(text, "{model_name=\"a\\\"b\\\\c d\"}"));
    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        bool known = strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# TYPE ", 7) == 0 ||
                     strncmp(line, "vllm:", 5) == 0 || strncmp(line, "deltamesh:", 10) == 0;
        if (!known)
            fail_msg("%.60s", line);
    }
    out.bytes_max = 100;
    out.count = 0;
    assert_int_equal(door_metrics_write(&out, &metrics, overview, "m"), E_LIMIT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(histograms_sum_up),
        TEST(every_count_has_its_line),
        TEST(the_table_is_complete),
        TEST(a_name_cannot_break_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
