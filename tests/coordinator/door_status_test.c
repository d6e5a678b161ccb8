// SPDX-License-Identifier: Apache-2.0
// door_status_test.c -- every count under its own name, the four states, and names of any text.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <jansson.h>

#include "coordinator/door_status.h"

// One group of two ranks, of which the second has not come.
static json_t *status_of(const char *name, const struct coord_status *status,
                         const struct socket_counts *sockets)
{
    struct overview *overview = calloc(1, sizeof *overview + sizeof overview->groups[0]);
    assert_non_null(overview);
    overview->status = *status;
    overview->groups_count = 1;
    overview->groups[0] = (struct coord_group_status){.phase = GROUP_LOADING,
                                                      .epoch = 51,
                                                      .step_sent = 52,
                                                      .step_done = 53,
                                                      .running = 54,
                                                      .slots = 55,
                                                      .slots_free = 56,
                                                      .pages = 57,
                                                      .pages_free = 58,
                                                      .ranks_count = 2,
                                                      .ranks = {{.is_here = true,
                                                                 .is_ready = true,
                                                                 .pid = 61,
                                                                 .host = "h",
                                                                 .heard_ns = 62999999,
                                                                 .step_begun = 63,
                                                                 .step_done = 64,
                                                                 .exchange_epoch = 65}}};
    char *text = door_status_json(name, overview, sockets);
    free(overview);
    assert_non_null(text);
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    assert_true(json_is_object(object));
    return object;
}

static void every_count_has_its_name(void **state)
{
    (void)state;
    const struct coord_status status = {.groups_ready = 1,
                                        .groups = 2,
                                        .vocab = 20,
                                        .draft_vocab = 24,
                                        .running = 3,
                                        .queued = 4,
                                        .queued_max = 5,
                                        .preempted = 21,
                                        .preemptions = 22,
                                        .timeouts = 23,
                                        .slots_free = 6,
                                        .slots = 7,
                                        .pages_free = 8,
                                        .pages = 9,
                                        .pool_tokens_free = 10,
                                        .pool_tokens = INT64_C(1) << 40,
                                        .steps = 12,
                                        .requests_done = 13,
                                        .requests_failed = 14,
                                        .tokens_in = 15,
                                        .tokens_out = 16};
    const struct socket_counts sockets = {
        .connected = 100, .disconnected = 83, .frames_oversized = 18, .handshakes_failed = 19};
    const struct {
        const char *name;
        json_int_t value;
    } expected[] = {
        {"groups_ready", 1},
        {"groups", 2},
        {"vocab", 20},
        {"draft_vocab", 24},
        {"running", 3},
        {"queued", 4},
        {"queued_max", 5},
        {"preempted", 21},
        {"preemptions", 22},
        {"timeouts", 23},
        {"slots_free", 6},
        {"slots", 7},
        {"pages_free", 8},
        {"pages", 9},
        {"pool_tokens_free", 10},
        {"pool_tokens", INT64_C(1) << 40},
        {"steps", 12},
        {"requests_done", 13},
        {"requests_failed", 14},
        {"tokens_in", 15},
        {"tokens_out", 16},
        {"clients_connected", 17},
        {"frames_oversized", 18},
        {"handshakes_failed", 19},
    };
    json_t *object = status_of("m", &status, &sockets);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const json_t *value = json_object_get(object, expected[i].name);
        if (!json_is_integer(value) || json_integer_value(value) != expected[i].value)
            fail_msg("%s is not %lld", expected[i].name, (long long)expected[i].value);
    }
    json_decref(object);
}

static void check_counts(const json_t *object, const char *const *names, int count, int first)
{
    for (int i = 0; i < count; i++) {
        if (json_integer_value(json_object_get(object, names[i])) != first + i)
            fail_msg("%s is not %d", names[i], first + i);
    }
}

static void groups_and_ranks(void **state)
{
    (void)state;
    static const char *const of_group[] = {"epoch", "step_sent",  "step_done", "running",
                                           "slots", "slots_free", "pages",     "pages_free"};
    static const char *const of_rank[] = {"pid", "silent_ms", "step_begun", "step_done",
                                          "exchanges"};
    const struct coord_status status = {.groups = 1};
    const struct socket_counts none = {0};
    json_t *object = status_of("m", &status, &none);
    const json_t *group = json_array_get(json_object_get(object, "groups_now"), 0);
    const json_t *ranks = json_object_get(group, "ranks");
    assert_string_equal(json_string_value(json_object_get(group, "phase")), "loading");
    check_counts(group, of_group, 8, 51);
    assert_int_equal(json_array_size(ranks), 2);
    check_counts(json_array_get(ranks, 0), of_rank, 5, 61);
    assert_true(json_is_true(json_object_get(json_array_get(ranks, 0), "ready")));
    assert_string_equal(json_string_value(json_object_get(json_array_get(ranks, 0), "host")), "h");
    assert_int_equal(json_object_size(json_array_get(ranks, 1)), 0);
    json_decref(object);
}

static void states_have_names(void **state)
{
    (void)state;
    const struct {
        struct coord_status status;
        const char *name;
    } cases[] = {
        {{.groups = 2, .groups_ready = 1}, "starting"},
        {{.groups = 2, .groups_ready = 2}, "ready"},
        {{.groups = 2, .groups_ready = 2, .draining = true}, "draining"},
        {{.groups = 2, .draining = true, .failed = true}, "failed"},
    };
    const struct socket_counts none = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *object = status_of("m", &cases[i].status, &none);
        assert_string_equal(json_string_value(json_object_get(object, "state")), cases[i].name);
        json_decref(object);
    }
}

static void the_name_is_quoted(void **state)
{
    (void)state;
    const struct coord_status status = {.groups = 1};
    const struct socket_counts none = {0};
    static const char name[] = "a \"model\" \\ of\nJos\xc3\xa9";
    json_t *object = status_of(name, &status, &none);
    assert_string_equal(json_string_value(json_object_get(object, "model")), name);
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_count_has_its_name),
        cmocka_unit_test(groups_and_ranks),
        cmocka_unit_test(states_have_names),
        cmocka_unit_test(the_name_is_quoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
