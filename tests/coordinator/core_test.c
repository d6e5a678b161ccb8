// SPDX-License-Identifier: Apache-2.0
// core_test.c -- what is refused and how it is said, drain, shutdown, status, and lists of actions
// that are too short for what is to be said.
#include "coordinator/core.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/fixtures/coord_rig.h"

static void open_rig(struct coord_rig *rig, int groups, int ranks)
{
    struct coord_options options;
    coord_rig_options(&options, groups, ranks);
    coord_rig_open(rig, &options);
}

static void open_started(struct coord_rig *rig, int groups, int ranks)
{
    open_rig(rig, groups, ranks);
    coord_rig_start(rig);
    assert_int_equal(coord_rig_count(rig, ACTION_GROUP_READY), groups);
    coord_rig_forget(rig);
}

// ---- coord_init ----

static void expect_init(const struct coord_options *options, enum status expected, const char *text)
{
    struct coord_options sized = *options;
    struct coord *coord = NULL;
    struct error error = {.status = OK};
    sized.groups = 1; // memory enough; what is wrong is found before it is used
    sized.queued_max = 10;
    void *memory = aligned_alloc(64, (coord_bytes(&sized) + 63) / 64 * 64);
    assert_int_equal(coord_init(&coord, memory, options, &error), expected);
    if (text != NULL && strstr(error.text, text) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, text);
    assert_int_equal(coord != NULL, expected == OK);
    free(memory);
}

static void test_init(void **state)
{
    (void)state;
    struct coord_options options;
    coord_rig_options(&options, 1, 2);
    options.queued_max = 10;
    expect_init(&options, OK, NULL);
    options.ranks = 3;
    expect_init(&options, E_INPUT, "degrees that work: 1, 2, 4");
    options.ranks = 9;
    expect_init(&options, E_INPUT, "9");
    options.ranks = 0;
    expect_init(&options, E_INPUT, "0");
    options.ranks = 2;
    options.groups = 65;
    expect_init(&options, E_INPUT, "65");
    options.groups = 1;
    options.queued_max = -1;
    expect_init(&options, E_INPUT, "max-queued is -1, accepted is 1 to 1048576");
    options.queued_max = 0; // every request passes through the queue
    expect_init(&options, E_INPUT, "max-queued is 0, accepted is 1 to 1048576");
    options.queued_max = (1 << 20) + 1;
    expect_init(&options, E_INPUT, "max-queued is 1048577");
    options.queued_max = 10;
    options.draft_vocab = options.config.vocab;
    expect_init(&options, OK, NULL);
    options.draft_vocab = options.config.vocab + 1;
    expect_init(&options, E_INPUT, "draft-vocab is 101, accepted is 0 to 100");
    options.draft_vocab = -1;
    expect_init(&options, E_INPUT, "draft-vocab is -1, accepted is 0 to 100");
}

// ---- refusals ----

static void expect_refusal(struct coord_rig *rig, int32_t prompt_tokens,
                           const struct coord_sampling *sampling, enum status status,
                           const char *text)
{
    struct coord_status before, after;
    coord_status(rig->coord, &before);
    coord_rig_forget(rig);
    coord_rig_step(rig, (struct coord_event){.type = EVENT_SUBMIT,
                                             .worker = -1,
                                             .submit = {.request = 900,
                                                        .prompt = rig->prompt,
                                                        .prompt_tokens = prompt_tokens,
                                                        .sampling = *sampling}});
    assert_int_equal(rig->did_count, 1);
    assert_int_equal(rig->did[0].action.type, ACTION_ERROR);
    assert_int_equal(rig->did[0].action.request, 900);
    assert_int_equal(rig->did[0].action.status, status);
    if (strstr(rig->did[0].text, text) == NULL)
        fail_msg("'%s' does not say '%s'", rig->did[0].text, text);
    coord_status(rig->coord, &after);
    assert_int_equal(after.requests_failed, before.requests_failed + 1);
    assert_int_equal(after.queued, before.queued);
    assert_int_equal(after.pool_tokens_free, before.pool_tokens_free);
}

static void test_refusals_name_value_and_limit(void **state)
{
    (void)state;
    struct coord_rig rig;
    const struct coord_sampling right = {.max_tokens = 5};
    struct coord_sampling s = right;
    open_started(&rig, 1, 1);
    expect_refusal(&rig, 0, &s, E_INPUT, "the prompt has 0 tokens, accepted is 1 to 1023");
    expect_refusal(&rig, -3, &s, E_INPUT, "the prompt has -3 tokens");
    expect_refusal(&rig, 1024, &s, E_INPUT, "the prompt has 1024 tokens, accepted is 1 to 1023");
    s.max_tokens = 0;
    expect_refusal(&rig, 5, &s, E_INPUT, "max_tokens is 0, accepted is 1 and more");
    s.max_tokens = -2;
    expect_refusal(&rig, 5, &s, E_INPUT, "max_tokens is -2");
    s = right;
    s.temperature = NAN;
    expect_refusal(&rig, 5, &s, E_INPUT, "temperature is nan, accepted is 0 and more");
    s.temperature = INFINITY;
    expect_refusal(&rig, 5, &s, E_INPUT, "temperature is inf");
    s.temperature = -0.5f;
    expect_refusal(&rig, 5, &s, E_INPUT, "temperature is -0.5");
    s = right;
    s.top_k = -1;
    expect_refusal(&rig, 5, &s, E_INPUT, "top_k -1");
    s = right;
    s.top_p = 1.5f;
    expect_refusal(&rig, 5, &s, E_INPUT, "top_p 1.5");
    s.top_p = NAN;
    expect_refusal(&rig, 5, &s, E_INPUT, "top_p nan");
    s = right;
    s.min_p = -0.1f;
    expect_refusal(&rig, 5, &s, E_INPUT, "min_p -0.1");
    s = right;
    s.stop_count = STEP_STOP_IDS_MAX + 1;
    expect_refusal(&rig, 5, &s, E_INPUT, "17 stop ids, accepted is up to 16");
    s.stop_count = -1;
    expect_refusal(&rig, 5, &s, E_INPUT, "-1 stop ids");
    coord_rig_forget(&rig);
    coord_rig_submit(&rig, 1, 1023, -1); // the longest that is accepted has room for one token
    assert_non_null(coord_rig_about(&rig, ACTION_ACCEPTED, 1));
    assert_int_equal(coord_rig_sent(&rig, 0, 1)->plan.opens[0].tokens_end, 1024);
    coord_rig_close(&rig);
}

static void test_queue_is_bounded(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_options options;
    const struct coord_sampling sampling = {.max_tokens = 5};
    struct coord_status status;
    coord_rig_options(&options, 1, 1);
    options.queued_max = 3;
    coord_rig_open(&rig, &options); // no worker: everything waits
    for (uint64_t i = 1; i <= 3; i++)
        coord_rig_submit(&rig, i, 10, 5);
    assert_int_equal(coord_rig_count(&rig, ACTION_ACCEPTED), 3);
    expect_refusal(&rig, 10, &sampling, E_OVERLOADED,
                   "3 requests are waiting already, the limit is 3");
    coord_rig_forget(&rig);
    coord_rig_finish(&rig, 2, "abort"); // one that waits makes room
    assert_string_equal(coord_rig_about(&rig, ACTION_DONE, 2)->action.reason, "abort");
    coord_rig_submit(&rig, 4, 10, 5);
    assert_non_null(coord_rig_about(&rig, ACTION_ACCEPTED, 4));
    coord_status(rig.coord, &status);
    assert_int_equal(status.queued, 3);
    coord_rig_close(&rig);
}

static void test_pool_is_bounded(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_options options;
    const struct coord_sampling sampling = {.max_tokens = 5};
    coord_rig_options(&options, 1, 1);
    options.pool_tokens = 256;
    coord_rig_open(&rig, &options);
    coord_rig_submit(&rig, 1, 129, 5); // three blocks of 64
    assert_non_null(coord_rig_about(&rig, ACTION_ACCEPTED, 1));
    expect_refusal(&rig, 65, &sampling, E_OVERLOADED,
                   "the pool of prompt tokens is full (65 tokens asked, 64 free)");
    coord_rig_submit(&rig, 2, 64, 5);
    assert_non_null(coord_rig_about(&rig, ACTION_ACCEPTED, 2));
    expect_refusal(&rig, 1, &sampling, E_OVERLOADED, "0 free");
    coord_rig_finish(&rig, 1, "abort");
    coord_rig_submit(&rig, 3, 192, 5);
    assert_non_null(coord_rig_about(&rig, ACTION_ACCEPTED, 3));
    coord_rig_close(&rig);
}

// The context before any worker came is the operator's; then that of the smallest group.
static void test_context(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_options options;
    const struct coord_sampling sampling = {.max_tokens = 5};
    struct hello hello;
    coord_rig_options(&options, 2, 1);
    coord_rig_open(&rig, &options);
    expect_refusal(&rig, 1024, &sampling, E_INPUT, "accepted is 1 to 1023");
    coord_rig_submit(&rig, 1, 900, -1);
    hello = coord_rig_hello(&rig);
    snprintf(hello.backend, sizeof hello.backend, "cpu"); // its memory is all for sequences
    coord_rig_say_hello(&rig, 0, &hello);
    expect_refusal(&rig, 1024, &sampling, E_INPUT, "accepted is 1 to 1023");
    hello.bytes_free = 5300 << 10; // a second group with much less memory
    coord_rig_forget(&rig);
    coord_rig_say_hello(&rig, 1, &hello);
    int32_t small = coord_rig_find(&rig, ACTION_SEND_PLACE)->place.sequence_tokens;
    assert_true(small < 900);
    expect_refusal(&rig, small, &sampling, E_INPUT, "the prompt has ");
    // The small group is ready first: the long prompt waits for the large one.
    coord_rig_forget(&rig);
    struct ready ready = {.group = 1, .rank = 0, .epoch = 2};
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_READY, .worker = 1, .ready = &ready});
    assert_int_equal(coord_rig_count(&rig, ACTION_GROUP_READY), 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_PLAN), 0);
    assert_int_equal(coord_rig_count(&rig, ACTION_ERROR), 0);
    // The large one fails: now nobody can hold it.
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_WORKER_GONE, .worker = 0});
    assert_int_equal(coord_rig_about(&rig, ACTION_ERROR, 1)->action.status, E_INPUT);
    assert_non_null(strstr(coord_rig_about(&rig, ACTION_ERROR, 1)->text, "900 tokens"));
    coord_rig_close(&rig);
}

static void test_max_tokens_beyond_the_context(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_started(&rig, 1, 1);
    coord_rig_submit(&rig, 1, 1000, INT32_MAX);
    assert_int_equal(coord_rig_sent(&rig, 0, 1)->plan.opens[0].tokens_end, 1024);
    coord_rig_close(&rig);
}

// ---- ends ----

static void test_drain(void **state)
{
    (void)state;
    struct coord_rig rig;
    const struct coord_sampling sampling = {.max_tokens = 5};
    struct coord_status status;
    open_started(&rig, 1, 2);
    coord_rig_submit(&rig, 1, 10, 3);
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_DRAIN, .worker = -1});
    assert_int_equal(coord_rig_count(&rig, ACTION_DRAINED), 0);
    expect_refusal(&rig, 10, &sampling, E_OVERLOADED, "drains and takes no new requests");
    coord_rig_forget(&rig);
    coord_rig_run(&rig, 0);
    assert_string_equal(coord_rig_about(&rig, ACTION_DONE, 1)->action.reason, "length");
    assert_int_equal(coord_rig_count(&rig, ACTION_TOKENS), 3);
    assert_int_equal(coord_rig_count(&rig, ACTION_DRAINED), 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_END), 2);
    assert_int_equal(coord_rig_find(&rig, ACTION_SEND_END)->end.failed, 0);
    assert_int_equal(rig.did[rig.did_count - 1].action.type, ACTION_DRAINED);
    coord_status(rig.coord, &status);
    assert_int_equal(status.slots_free, status.slots);
    assert_int_equal(status.pages_free, status.pages);
    assert_int_equal(status.pool_tokens_free, status.pool_tokens);
    assert_true(status.draining);
    // It stays so.
    coord_rig_forget(&rig);
    coord_rig_wait(&rig, 100000);
    assert_int_equal(rig.did_count, 0);
    struct hello hello = coord_rig_hello(&rig);
    coord_rig_say_hello(&rig, 0, &hello);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_REFUSE), 1);
    coord_rig_close(&rig);
}

static void test_drain_of_nothing(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct hello hello;
    open_rig(&rig, 1, 2);
    hello = coord_rig_hello(&rig);
    coord_rig_say_hello(&rig, 3, &hello); // waits for the second rank
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_DRAIN, .worker = -1});
    assert_int_equal(coord_rig_count(&rig, ACTION_DRAINED), 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_END), 1);
    assert_int_equal(coord_rig_find(&rig, ACTION_SEND_END)->action.worker, 3);
    assert_int_equal(coord_rig_find(&rig, ACTION_SEND_END)->end.epoch, 0); // any epoch
    coord_rig_close(&rig);
}

// What waits while the workers come is served before the drain ends, or ended by a shutdown.
static void test_drain_and_shutdown_while_forming(void **state)
{
    (void)state;
    for (int at_once = 0; at_once < 2; at_once++) {
        struct coord_rig rig;
        open_rig(&rig, 1, 2);
        coord_rig_submit(&rig, 1, 10, 2);
        coord_rig_step(&rig, (struct coord_event){.type = EVENT_DRAIN, .worker = -1});
        assert_int_equal(coord_rig_count(&rig, ACTION_DRAINED), 0);
        if (at_once) {
            coord_rig_step(&rig, (struct coord_event){.type = EVENT_SHUTDOWN, .worker = -1});
            assert_int_equal(coord_rig_about(&rig, ACTION_ERROR, 1)->action.status, E_FAILED);
        } else {
            coord_rig_start(&rig);
            coord_rig_run(&rig, 0);
            assert_string_equal(coord_rig_about(&rig, ACTION_DONE, 1)->action.reason, "length");
        }
        assert_int_equal(coord_rig_count(&rig, ACTION_DRAINED), 1);
        coord_rig_close(&rig);
    }
}

// A drain does not wait for a step that only closing requests are in, but for its end.
static void test_drain_waits_for_steps(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_started(&rig, 1, 1);
    coord_rig_submit(&rig, 1, 10, 50);
    coord_rig_finish(&rig, 1, "abort");
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_DRAIN, .worker = -1});
    assert_int_equal(coord_rig_count(&rig, ACTION_DRAINED), 0);
    coord_rig_report(&rig, 0, 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_DRAINED), 0);
    coord_rig_report(&rig, 0, 2);
    assert_int_equal(coord_rig_count(&rig, ACTION_DRAINED), 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_TOKENS), 0);
    coord_rig_close(&rig);
}

static void test_shutdown(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_started(&rig, 2, 2);
    for (uint64_t i = 1; i <= 20; i++)
        coord_rig_submit(&rig, i, 10, 50);
    coord_rig_forget(&rig);
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_SHUTDOWN, .worker = -1});
    assert_int_equal(coord_rig_count(&rig, ACTION_ERROR), 20);
    assert_int_equal(coord_rig_count(&rig, ACTION_GROUP_FAILED), 2);
    assert_int_equal(coord_rig_count(&rig, ACTION_DRAINED), 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_END), 4);
    for (int i = 0; i < rig.did_count; i++) {
        const struct rig_did *did = &rig.did[i];
        if (did->action.type == ACTION_SEND_END) { // each group's own
            assert_int_equal(did->end.epoch, (uint64_t)did->action.group + 1);
            assert_int_equal(did->end.failed, 1);
            assert_non_null(strstr(did->text, "told to end at once"));
        }
    }
    assert_int_equal(coord_rig_find(&rig, ACTION_ERROR)->action.status, E_FAILED);
    coord_rig_close(&rig);
}

// Two groups fail in one call: what each one's workers and requests are told is its own.
static void test_two_groups_fail_at_once(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_started(&rig, 2, 1);
    coord_rig_submit(&rig, 1, 10, 50);
    coord_rig_submit(&rig, 2, 10, 50);
    coord_rig_forget(&rig);
    coord_rig_wait(&rig, HEARTBEAT_TIMEOUT_MS + 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_END), 2);
    for (int i = 0; i < rig.did_count; i++) {
        const struct rig_did *did = &rig.did[i];
        if (did->action.type == ACTION_SEND_END) {
            assert_int_equal(did->end.epoch, (uint64_t)did->action.group + 1);
            assert_non_null(strstr(did->text, did->action.group == 0 ? "group 0" : "group 1"));
        }
    }
    assert_int_equal(coord_rig_count(&rig, ACTION_ERROR), 2);
    coord_rig_close(&rig);
}

static void test_after_all_groups_failed(void **state)
{
    (void)state;
    struct coord_rig rig;
    const struct coord_sampling sampling = {.max_tokens = 5};
    struct coord_status status;
    open_started(&rig, 1, 1);
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_WORKER_GONE, .worker = 0});
    coord_status(rig.coord, &status);
    assert_true(status.failed);
    assert_int_equal(status.groups_ready, 0);
    expect_refusal(&rig, 5, &sampling, E_FAILED, "no group of workers is left: group 0: rank 0");
    coord_rig_close(&rig);
}

// ---- many at once ----

enum { MANY = 1024 };

static void open_many(struct coord_rig *rig, int groups)
{
    struct coord_options options;
    coord_rig_options(&options, groups, 1);
    options.wishes.sequences = MANY;
    options.wishes.step_tokens = 8192;
    options.queued_max = 2000;
    coord_rig_open(rig, &options);
    coord_rig_start(rig);
    coord_rig_forget(rig);
}

// 1,024 sequences end in one step: 2,048 actions, more than a list keeps for them beside another.
static void test_more_actions_than_a_list_holds(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_status status;
    open_many(&rig, 1);
    for (uint64_t i = 1; i <= MANY; i++)
        coord_rig_submit(&rig, i, 1, 3);
    coord_rig_forget(&rig);
    while (coord_rig_count(&rig, ACTION_DONE) < MANY) {
        int before = rig.did_count;
        coord_rig_run(&rig, 0);
        assert_true(rig.did_count > before);
    }
    assert_int_equal(coord_rig_count(&rig, ACTION_TOKENS), 3 * MANY);
    for (uint64_t i = 1; i <= MANY; i++)
        assert_non_null(coord_rig_about(&rig, ACTION_DONE, i));
    coord_status(rig.coord, &status);
    assert_int_equal(status.requests_done, MANY);
    assert_int_equal(status.running, 0);
    assert_int_equal(status.slots_free, MANY);
    coord_rig_close(&rig);
}

// A group with 1,024 requests fails while 1,100 wait: each is told once, over several calls.
static void test_many_fail_at_once(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_status status;
    open_many(&rig, 1);
    for (uint64_t i = 1; i <= MANY; i++)
        coord_rig_submit(&rig, i, 1, 1000);
    coord_rig_report(&rig, 0, 1); // the third step opens all that came after the second
    for (uint64_t i = MANY + 1; i <= MANY + 1100; i++)
        coord_rig_submit(&rig, i, 1, 1000);
    coord_status(rig.coord, &status);
    assert_int_equal(status.running, MANY);
    assert_int_equal(status.queued, 1100);
    coord_rig_forget(&rig);
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_WORKER_GONE, .worker = 0});
    assert_true(rig.calls > 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_ERROR), MANY + 1100);
    for (uint64_t i = 1; i <= MANY + 1100; i++)
        assert_non_null(coord_rig_about(&rig, ACTION_ERROR, i));
    assert_int_equal(coord_rig_count(&rig, ACTION_GROUP_FAILED), 1);
    coord_status(rig.coord, &status);
    assert_int_equal(status.running + status.queued, 0);
    assert_int_equal(status.pool_tokens_free, status.pool_tokens);
    coord_rig_close(&rig);
}

// Three full groups fail in one call: more errors than a list holds.
static void test_groups_fail_at_once(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_status status;
    open_many(&rig, 3);
    for (uint64_t i = 1; i <= 3 * MANY; i++) {
        coord_rig_submit(&rig, i, 1, 1000);
        for (int32_t g = 0; g < 3 && i % 64 == 0; g++) { // a step of each, for the next to open
            if (rig.steps_sent[g] >= 2)
                coord_rig_report(&rig, g, rig.steps_sent[g] - 1);
            coord_rig_forget(&rig);
        }
    }
    coord_status(rig.coord, &status);
    assert_true(status.running > COORD_ACTIONS_MAX);
    coord_rig_forget(&rig);
    coord_rig_wait(&rig, HEARTBEAT_TIMEOUT_MS + 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_GROUP_FAILED), 3);
    assert_int_equal(coord_rig_count(&rig, ACTION_ERROR), 3 * MANY);
    coord_status(rig.coord, &status);
    assert_int_equal(status.running + status.queued, 0);
    coord_rig_close(&rig);
}

static void test_status(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_status status;
    open_started(&rig, 1, 1);
    coord_rig_submit(&rig, 1, 100, 2);
    coord_rig_submit(&rig, 2, 10, 50);
    coord_rig_report(&rig, 0, 1);
    coord_rig_report(&rig, 0, 2);
    coord_status(rig.coord, &status);
    assert_int_equal(status.groups, 1);
    assert_int_equal(status.groups_ready, 1);
    assert_int_equal(status.running, 1);
    assert_int_equal(status.queued_max, 100);
    assert_int_equal(status.slots, 4);
    assert_int_equal(status.slots_free, 3);
    assert_int_equal(status.pages - status.pages_free, 1);
    assert_int_equal(status.pool_tokens - status.pool_tokens_free, 64);
    assert_int_equal(status.tokens_in, 110);
    assert_int_equal(status.tokens_out, 2);
    assert_int_equal(status.requests_done, 1);
    assert_int_equal(status.requests_failed, 0);
    assert_int_equal(status.steps, 4);
    assert_false(status.draining);
    assert_false(status.failed);
    coord_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_refusals_name_value_and_limit),
        cmocka_unit_test(test_queue_is_bounded),
        cmocka_unit_test(test_pool_is_bounded),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_max_tokens_beyond_the_context),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_of_nothing),
        cmocka_unit_test(test_drain_and_shutdown_while_forming),
        cmocka_unit_test(test_drain_waits_for_steps),
        cmocka_unit_test(test_shutdown),
        cmocka_unit_test(test_two_groups_fail_at_once),
        cmocka_unit_test(test_after_all_groups_failed),
        cmocka_unit_test(test_more_actions_than_a_list_holds),
        cmocka_unit_test(test_many_fail_at_once),
        cmocka_unit_test(test_groups_fail_at_once),
        cmocka_unit_test(test_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
