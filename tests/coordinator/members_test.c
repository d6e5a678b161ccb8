// SPDX-License-Identifier: Apache-2.0
// members_test.c -- who is taken, who is refused and why, who is given up and when: to the
// millisecond on both sides of every limit.
#include "coordinator/core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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

static void expect_text(const char *text, const char *words)
{
    if (strstr(text, words) == NULL)
        fail_msg("'%s' does not say '%s'", text, words);
}

static void expect_failed(const struct coord_rig *rig, const char *words)
{
    const struct rig_did *failed = coord_rig_find(rig, ACTION_GROUP_FAILED);
    assert_non_null(failed);
    assert_int_equal(coord_rig_count(rig, ACTION_GROUP_FAILED), 1);
    expect_text(failed->text, words);
}

// ---- HELLO ----

static void expect_refused(struct coord_rig *rig, const struct hello *hello, const char *first,
                           const char *second)
{
    coord_rig_forget(rig);
    coord_rig_say_hello(rig, 9, hello);
    assert_int_equal(rig->did_count, 1);
    assert_int_equal(rig->did[0].action.type, ACTION_SEND_REFUSE);
    assert_int_equal(rig->did[0].action.worker, 9);
    expect_text(rig->did[0].text, first);
    expect_text(rig->did[0].text, second);
}

static void test_mismatches_name_both_sides(void **state)
{
    (void)state;
    struct coord_rig rig;
    char text[64];
    open_rig(&rig, 1, 2);
    const struct hello right = coord_rig_hello(&rig);
    struct hello hello = right;
    hello.version = 7;
    expect_refused(&rig, &hello, "protocol version 7", "speaks 1");
    hello = right;
    snprintf(hello.build, sizeof hello.build, "other-2");
    expect_refused(&rig, &hello, "build 'other-2'", "'rig-1'");
    hello = right;
    hello.config_hash = 0x1234;
    snprintf(text, sizeof text, "serves %016llx", (unsigned long long)right.config_hash);
    expect_refused(&rig, &hello, "model config 0000000000001234", text);
    coord_rig_say_hello(&rig, 0, &right); // the first worker: the others must be like it
    hello = right;
    hello.has_mtp = 1;
    expect_refused(&rig, &hello, "has the mtp head", "first worker's lacks");
    hello = right;
    snprintf(hello.backend, sizeof hello.backend, "cpu");
    expect_refused(&rig, &hello, "backend 'cpu'", "'cuda'");
    hello = right;
    hello.nccl_version = 22809;
    expect_refused(&rig, &hello, "NCCL 22809", "has 0");
    // Whoever was refused holds no place: the next right one is the second rank.
    coord_rig_forget(&rig);
    coord_rig_say_hello(&rig, 9, &right);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_PLACE), 2);
    coord_rig_close(&rig);
}

static void test_surplus_and_repetition(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_rig(&rig, 1, 2);
    const struct hello hello = coord_rig_hello(&rig);
    coord_rig_say_hello(&rig, 4, &hello);
    coord_rig_say_hello(&rig, 4, &hello); // not a second rank
    assert_int_equal(rig.did_count, 0);
    coord_rig_say_hello(&rig, 2, &hello);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_PLACE), 2);
    coord_rig_forget(&rig);
    coord_rig_say_hello(&rig, 4, &hello); // was under way when it was placed
    assert_int_equal(rig.did_count, 0);
    expect_refused(&rig, &hello, "every group has its workers already", "");
    coord_rig_close(&rig);
}

static void test_places(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_rig(&rig, 2, 2);
    struct hello hello = coord_rig_hello(&rig);
    hello.local_rank = 1;
    coord_rig_say_hello(&rig, 0, &hello);
    hello.local_rank = -1;
    coord_rig_say_hello(&rig, 1, &hello);
    hello.local_rank = 1;
    coord_rig_say_hello(&rig, 2, &hello);
    coord_rig_say_hello(&rig, 3, &hello); // both want rank 1: the first gets it
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_PLACE), 4);
    const int32_t expected[4][3] = {{1, 0, 0}, {0, 0, 1}, {3, 1, 0}, {2, 1, 1}};
    for (int i = 0; i < 4; i++) {
        const struct place_message *place = &rig.did[i].place;
        assert_int_equal(rig.did[i].action.worker, expected[i][0]);
        assert_int_equal(place->group, expected[i][1]);
        assert_int_equal(place->rank, expected[i][2]);
        assert_int_equal(place->ranks, 2);
        assert_int_equal(place->epoch, (uint64_t)place->group + 1);
        assert_int_equal(place->vocab_real, 96);
        assert_int_equal(coord_worker(rig.coord, place->group, place->rank), expected[i][0]);
    }
    // One rendezvous for the ranks of a group, another for the next group.
    assert_memory_equal(rig.did[0].place.id, rig.did[1].place.id, WIRE_ID_BYTES);
    assert_memory_not_equal(rig.did[0].place.id, rig.did[2].place.id, WIRE_ID_BYTES);
    coord_rig_close(&rig);
}

// What workers are told of drafts is what was asked for.
static void test_places_tell_of_drafts(void **state)
{
    (void)state;
    struct coord_rig rig;
    struct coord_options options;
    coord_rig_options(&options, 1, 1);
    options.speculative_tokens = 2;
    options.draft_vocab = 40;
    options.wishes.bf16_state = true;
    options.synthetic_thousandths = 2500;
    coord_rig_open(&rig, &options);
    struct hello hello = coord_rig_hello(&rig);
    hello.has_mtp = 1;
    coord_rig_say_hello(&rig, 0, &hello);
    assert_int_equal(rig.did[0].place.drafts_max, 2);
    assert_int_equal(rig.did[0].place.draft_vocab, 40);
    assert_int_equal(rig.did[0].place.bf16_state, 1);
    assert_int_equal(rig.did[0].place.synthetic_thousandths, 2500);
    coord_rig_say_ready(&rig, 0, 0);
    assert_int_equal(coord_rig_find(&rig, ACTION_GROUP_READY)->action.drafts_max, 2);
    assert_int_equal(coord_rig_find(&rig, ACTION_GROUP_READY)->action.memory->drafts_max, 2);
    coord_rig_close(&rig);
    // Without the head nothing is drafted, whatever was asked for.
    coord_rig_open(&rig, &options);
    hello.has_mtp = 0;
    coord_rig_say_hello(&rig, 0, &hello);
    coord_rig_say_ready(&rig, 0, 0);
    assert_int_equal(rig.did[0].place.drafts_max, 0);
    assert_int_equal(coord_rig_find(&rig, ACTION_GROUP_READY)->action.drafts_max, 0);
    coord_rig_close(&rig);
}

// ---- memory ----

static struct place_message place_with(const char *backend, const char *host, uint64_t bytes_first,
                                       uint64_t bytes_second)
{
    struct coord_rig rig;
    open_rig(&rig, 1, 2);
    struct hello hello = coord_rig_hello(&rig);
    snprintf(hello.backend, sizeof hello.backend, "%s", backend);
    hello.bytes_free = bytes_first;
    coord_rig_say_hello(&rig, 0, &hello);
    snprintf(hello.host, sizeof hello.host, "%s", host);
    hello.bytes_free = bytes_second;
    coord_rig_say_hello(&rig, 1, &hello);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_PLACE), 2);
    struct place_message place = rig.did[0].place;
    assert_int_equal(place.pages, rig.did[1].place.pages);
    coord_rig_close(&rig);
    return place;
}

static void test_memory_of_the_smallest_rank(void **state)
{
    (void)state;
    const uint64_t much = (uint64_t)1 << 40, little = 6 << 20;
    struct place_message all = place_with("cuda", "host", much, much);
    struct place_message first = place_with("cuda", "host", little, much);
    struct place_message second = place_with("cuda", "host", much, little);
    assert_int_equal(all.pages, 64); // 4 sequences of 1024 tokens
    assert_true(first.pages < all.pages);
    assert_int_equal(second.pages, first.pages);
    // CPU ranks of one host share what each of them sees. They record no steps.
    struct place_message shared = place_with("cpu", "host", 2 * little, 2 * little);
    struct place_message apart = place_with("cpu", "other", little, little);
    assert_int_equal(shared.pages, apart.pages);
    assert_true(apart.pages > first.pages && apart.pages < all.pages);
}

static void test_memory_too_small(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_rig(&rig, 1, 2);
    coord_rig_submit(&rig, 1, 10, 5);
    struct hello hello = coord_rig_hello(&rig);
    coord_rig_say_hello(&rig, 0, &hello);
    hello.bytes_free = 1000;
    coord_rig_forget(&rig);
    coord_rig_say_hello(&rig, 1, &hello);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_PLACE), 0);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_END), 2);
    assert_int_equal(coord_rig_find(&rig, ACTION_SEND_END)->end.epoch, 0); // they have none yet
    assert_int_equal(coord_rig_find(&rig, ACTION_SEND_END)->end.failed, 1);
    expect_failed(&rig, "one sequence of 64 tokens needs");
    expect_text(coord_rig_about(&rig, ACTION_ERROR, 1)->text, "one sequence of 64 tokens needs");
    coord_rig_close(&rig);
}

// ---- READY ----

static void say_ready(struct coord_rig *rig, int32_t worker, struct ready ready)
{
    coord_rig_step(rig,
                   (struct coord_event){.type = EVENT_READY, .worker = worker, .ready = &ready});
}

static void test_ready_counts_once_and_only_for_its_place(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_rig(&rig, 1, 2);
    const struct hello hello = coord_rig_hello(&rig);
    coord_rig_say_hello(&rig, 0, &hello);
    say_ready(&rig, 0, (struct ready){.group = 0, .rank = 0, .epoch = 1}); // not placed yet
    coord_rig_say_hello(&rig, 1, &hello);
    coord_rig_forget(&rig);
    say_ready(&rig, 0, (struct ready){.group = 0, .rank = 0, .epoch = 1});
    say_ready(&rig, 0, (struct ready){.group = 0, .rank = 0, .epoch = 1}); // a copy
    say_ready(&rig, 0, (struct ready){.group = 0, .rank = 1, .epoch = 1}); // another's rank
    say_ready(&rig, 1, (struct ready){.group = 0, .rank = 1, .epoch = 0}); // another epoch
    say_ready(&rig, 1, (struct ready){.group = 1, .rank = 1, .epoch = 1}); // another group
    say_ready(&rig, 5, (struct ready){.group = 0, .rank = 1, .epoch = 1}); // a stranger
    assert_int_equal(rig.did_count, 0);
    say_ready(&rig, 1, (struct ready){.group = 0, .rank = 1, .epoch = 1});
    assert_int_equal(rig.did_count, 1);
    assert_int_equal(rig.did[0].action.type, ACTION_GROUP_READY);
    coord_rig_close(&rig);
}

static void test_no_step_before_every_rank_is_ready(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_rig(&rig, 1, 2);
    const struct hello hello = coord_rig_hello(&rig);
    coord_rig_submit(&rig, 1, 10, 5);
    coord_rig_say_hello(&rig, 0, &hello);
    coord_rig_say_hello(&rig, 1, &hello);
    coord_rig_say_ready(&rig, 0, 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_PLAN), 0);
    coord_rig_say_ready(&rig, 0, 0);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_PLAN), 2);
    coord_rig_close(&rig);
}

// ---- silence and time ----

static void test_silent_rank(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_started(&rig, 2, 2);
    coord_rig_submit(&rig, 1, 10, 50); // in group 0
    coord_rig_wait(&rig, HEARTBEAT_TIMEOUT_MS - 1000);
    for (int32_t w = 0; w < 4; w++) {
        if (w != 1)
            coord_rig_beat(&rig, w);
    }
    coord_rig_forget(&rig);
    coord_rig_wait(&rig, 1000); // exactly the limit is not over it
    assert_int_equal(rig.did_count, 0);
    coord_rig_wait(&rig, 1);
    expect_failed(&rig, "group 0: rank 1 (host, pid 4242) has been silent for 4001 ms, the limit "
                        "is 4000");
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_END), 2);
    expect_text(coord_rig_about(&rig, ACTION_ERROR, 1)->text, "rank 1");
    // The other group goes on.
    coord_rig_forget(&rig);
    coord_rig_submit(&rig, 2, 10, 5);
    assert_int_equal(coord_rig_find(&rig, ACTION_SEND_PLAN)->action.group, 1);
    coord_rig_close(&rig);
}

// A coordinator that stood still blames nobody for what it has not heard in that time: not for
// beats, nor for a step. Silence before and after it counts.
static void test_a_pause_of_the_coordinator(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_started(&rig, 1, 2);
    coord_rig_submit(&rig, 1, 10, 50);
    coord_rig_wait(&rig, 3000);
    coord_rig_forget(&rig);
    rig.now_ns += 100 * 1000 * (uint64_t)RIG_MS_NS;
    coord_rig_beat(&rig, 0); // the first of many messages that wait
    assert_int_equal(rig.did_count, 0);
    coord_rig_wait(&rig, 900);
    assert_int_equal(rig.did_count, 0);
    coord_rig_wait(&rig, 101);
    expect_failed(&rig, "group 0: rank 1 (host, pid 4242) has been silent for 4001 ms");
    coord_rig_close(&rig);
}

static void test_anything_said_is_a_sign_of_life(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_started(&rig, 1, 1);
    coord_rig_submit(&rig, 1, 10, 500);
    for (uint64_t step = 1; step < 50; step++) { // reports only, no beats
        rig.now_ns += 3000 * (uint64_t)RIG_MS_NS;
        coord_rig_report(&rig, 0, step);
    }
    assert_int_equal(coord_rig_count(&rig, ACTION_GROUP_FAILED), 0);
    assert_int_equal(coord_rig_count(&rig, ACTION_TOKENS), 49);
    coord_rig_close(&rig);
}

static void test_silent_waiting_worker_loses_its_place(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_rig(&rig, 1, 2);
    const struct hello hello = coord_rig_hello(&rig);
    coord_rig_say_hello(&rig, 0, &hello);
    coord_rig_wait(&rig, HEARTBEAT_TIMEOUT_MS + 1);
    coord_rig_say_hello(&rig, 1, &hello); // alone: the other is gone
    assert_int_equal(rig.did_count, 0);
    for (int i = 0; i < 20; i++) { // it repeats HELLO while it lives
        rig.now_ns += HELLO_INTERVAL_MS * (uint64_t)RIG_MS_NS;
        coord_rig_say_hello(&rig, 1, &hello);
    }
    coord_rig_say_hello(&rig, 2, &hello);
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_PLACE), 2);
    assert_int_equal(rig.did[0].action.worker, 1);
    assert_int_equal(rig.did[1].action.worker, 2);
    coord_rig_close(&rig);
}

// Time passes while both workers beat.
static void wait_beating(struct coord_rig *rig, uint64_t duration_ms)
{
    for (uint64_t waited = 0; waited < duration_ms; waited += 1000) {
        uint64_t part_ms = duration_ms - waited < 1000 ? duration_ms - waited : 1000;
        rig->now_ns += part_ms * RIG_MS_NS;
        coord_rig_beat(rig, 0);
        coord_rig_beat(rig, 1);
    }
}

static void test_load_timeout(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_rig(&rig, 1, 2);
    const struct hello hello = coord_rig_hello(&rig);
    coord_rig_say_hello(&rig, 0, &hello);
    coord_rig_say_hello(&rig, 1, &hello);
    coord_rig_say_ready(&rig, 0, 1);
    wait_beating(&rig, LOAD_TIMEOUT_MS);
    assert_int_equal(coord_rig_count(&rig, ACTION_GROUP_FAILED), 0);
    coord_rig_wait(&rig, 1);
    expect_failed(&rig, "group 0: 1 of 2 ranks were ready after 1800000 ms");
    coord_rig_close(&rig);
}

// The second of two steps in flight waits for the first: that time is none of its own.
static void test_a_step_waits_for_the_one_before(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_started(&rig, 1, 2);
    coord_rig_submit(&rig, 1, 10, 50);
    wait_beating(&rig, STEP_TIMEOUT_MS - 10);
    assert_int_equal(rig.steps_sent[0], 2);
    coord_rig_report(&rig, 0, 1);
    wait_beating(&rig, STEP_TIMEOUT_MS);
    assert_int_equal(coord_rig_count(&rig, ACTION_GROUP_FAILED), 0);
    coord_rig_wait(&rig, 1);
    expect_failed(&rig, "group 0: step 2 has not ended after 60000 ms; rank 0 (pid 4242) is "
                        "furthest behind");
    coord_rig_close(&rig);
}

static void test_step_timeout_names_the_slowest(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_started(&rig, 1, 2);
    wait_beating(&rig, 2 * STEP_TIMEOUT_MS); // nothing to do is no reason
    coord_rig_submit(&rig, 1, 10, 50);
    wait_beating(&rig, STEP_TIMEOUT_MS - 10);
    struct heartbeat beat = {.exchange_epoch = 9};
    coord_rig_step(&rig,
                   (struct coord_event){.type = EVENT_HEARTBEAT, .worker = 0, .heartbeat = &beat});
    beat.exchange_epoch = 8;
    coord_rig_step(&rig,
                   (struct coord_event){.type = EVENT_HEARTBEAT, .worker = 1, .heartbeat = &beat});
    coord_rig_wait(&rig, 10);
    assert_int_equal(coord_rig_count(&rig, ACTION_GROUP_FAILED), 0);
    coord_rig_wait(&rig, 1);
    expect_failed(&rig, "group 0: step 1 has not ended after 60000 ms; rank 1 (pid 4242) is "
                        "furthest behind");
    coord_rig_close(&rig);
}

// ---- failures ----

static void say_failure(struct coord_rig *rig, int32_t worker, const char *text)
{
    struct failure failure = {.group = -1, .rank = -1};
    snprintf(failure.text, sizeof failure.text, "%s", text);
    coord_rig_step(
        rig, (struct coord_event){.type = EVENT_FAILURE, .worker = worker, .failure = &failure});
}

static void test_worker_gives_up(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_rig(&rig, 1, 2);
    const struct hello hello = coord_rig_hello(&rig);
    coord_rig_say_hello(&rig, 0, &hello);
    say_failure(&rig, 0, "the model is not there"); // not placed: only its place is free again
    coord_rig_say_hello(&rig, 1, &hello);
    assert_int_equal(rig.did_count, 0);
    say_failure(&rig, 7, "a stranger");
    assert_int_equal(rig.did_count, 0);
    coord_rig_say_hello(&rig, 0, &hello);
    coord_rig_forget(&rig);
    say_failure(&rig, 1, "the disk is on fire");
    expect_failed(&rig, "group 0: rank 1 (host, pid 4242) gave up: the disk is on fire");
    assert_int_equal(coord_rig_count(&rig, ACTION_SEND_END), 2);
    coord_rig_forget(&rig);
    say_failure(&rig, 0, "and I, too"); // the group has failed already
    assert_int_equal(rig.did_count, 0);
    coord_rig_close(&rig);
}

static void test_worker_gone(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_rig(&rig, 1, 2);
    const struct hello hello = coord_rig_hello(&rig);
    const struct coord_event gone = {.type = EVENT_WORKER_GONE, .worker = 0};
    coord_rig_say_hello(&rig, 0, &hello);
    coord_rig_step(&rig, gone); // while it waits: its place is free
    coord_rig_say_hello(&rig, 1, &hello);
    assert_int_equal(rig.did_count, 0);
    coord_rig_say_hello(&rig, 0, &hello);
    coord_rig_forget(&rig);
    coord_rig_step(&rig, gone); // while it loads
    expect_failed(&rig, "group 0: rank 0 (host, pid 4242) is gone");
    coord_rig_forget(&rig);
    coord_rig_step(&rig, gone);
    assert_int_equal(rig.did_count, 0);
    coord_rig_close(&rig);
}

// A connection's number is used again after its group has failed: the new worker is a new one.
static void test_connections_are_used_again(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_started(&rig, 1, 2);
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_WORKER_GONE, .worker = 1});
    const struct hello hello = coord_rig_hello(&rig);
    for (int32_t w = 0; w < 2; w++) {
        coord_rig_forget(&rig);
        coord_rig_say_hello(&rig, w, &hello);
        assert_int_equal(coord_rig_count(&rig, ACTION_SEND_REFUSE), 1);
    }
    coord_rig_close(&rig);
}

// Nothing of a failed epoch changes anything.
static void test_messages_of_a_dead_epoch(void **state)
{
    (void)state;
    struct coord_rig rig;
    open_started(&rig, 2, 1);
    coord_rig_submit(&rig, 1, 10, 50);
    struct report report = coord_rig_report_of(&rig, 0, 0, 1);
    coord_rig_step(&rig, (struct coord_event){.type = EVENT_WORKER_GONE, .worker = 0});
    coord_rig_forget(&rig);
    coord_rig_step(&rig,
                   (struct coord_event){.type = EVENT_REPORT, .worker = 0, .report = &report});
    say_ready(&rig, 0, (struct ready){.group = 0, .rank = 0, .epoch = 1});
    coord_rig_beat(&rig, 0);
    assert_int_equal(rig.did_count, 0);
    // Of another epoch, another group or another connection of a living group.
    coord_rig_submit(&rig, 2, 10, 50);
    coord_rig_forget(&rig);
    report = coord_rig_report_of(&rig, 1, 0, 1);
    report.epoch = 1;
    coord_rig_say_report(&rig, &report);
    report = coord_rig_report_of(&rig, 1, 0, 1);
    coord_rig_step(&rig,
                   (struct coord_event){.type = EVENT_REPORT, .worker = 5, .report = &report});
    report.group = 0;
    coord_rig_step(&rig,
                   (struct coord_event){.type = EVENT_REPORT, .worker = 1, .report = &report});
    assert_int_equal(rig.did_count, 0);
    coord_rig_report(&rig, 1, 1);
    assert_int_equal(coord_rig_count(&rig, ACTION_TOKENS), 1);
    coord_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mismatches_name_both_sides),
        cmocka_unit_test(test_surplus_and_repetition),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_places_tell_of_drafts),
        cmocka_unit_test(test_memory_of_the_smallest_rank),
        cmocka_unit_test(test_memory_too_small),
        cmocka_unit_test(test_ready_counts_once_and_only_for_its_place),
        cmocka_unit_test(test_no_step_before_every_rank_is_ready),
        cmocka_unit_test(test_silent_rank),
        cmocka_unit_test(test_a_pause_of_the_coordinator),
        cmocka_unit_test(test_anything_said_is_a_sign_of_life),
        cmocka_unit_test(test_silent_waiting_worker_loses_its_place),
        cmocka_unit_test(test_load_timeout),
        cmocka_unit_test(test_a_step_waits_for_the_one_before),
        cmocka_unit_test(test_step_timeout_names_the_slowest),
        cmocka_unit_test(test_worker_gives_up),
        cmocka_unit_test(test_worker_gone),
        cmocka_unit_test(test_connections_are_used_again),
        cmocka_unit_test(test_messages_of_a_dead_epoch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
