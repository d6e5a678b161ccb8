// SPDX-License-Identifier: Apache-2.0
// serve_test.c -- the coordinator's core and the worker's engine in one process, plans and reports
// between them as frames, with a real forward pass: what a request is told does not depend on how
// many pages there were (preempted = not preempted, token for token, whatever the sampling), and a
// recorded stream of plans, fed to a fresh engine, gives the same tokens and hashes again.
#include "coordinator/core.h"
#include "worker/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "parallel/base/clock.h"
#include "tests/fixtures/team.h"

enum {
    RANKS = 2,
    SEQUENCES = 4,
    CONTEXT = 512,
    STEP_TOKENS = 256,
    REQUESTS = 7,
    OUTPUTS_MAX = 400,
    STEPS_MAX = 4000,
    REAL_IDS = 364,
    CHECKPOINTS = 6,
};

static const char *const model_dir = SOURCE_DIR "/tests/golden/dense_untied_r2";

// What each request has been told.
struct told {
    int32_t tokens[OUTPUTS_MAX];
    int count;
    char reason[16]; // "" until it is done
};

struct served {
    struct told told[REQUESTS];
    uint64_t preemptions, steps, hits;
    // The plans, as they went out, and what rank 0 drew: by step.
    uint8_t *frames[STEPS_MAX + 1];
    size_t frame_bytes[STEPS_MAX + 1];
    uint64_t hashes[STEPS_MAX + 1];
};

struct server {
    struct team team;
    struct step_engine *engines[RANKS];
    int notify_fd;
    struct coord *coord;
    void *memory;
    struct coord_actions *actions;
    struct step_plan plan; // decoded
    uint8_t *buffer;
    uint64_t epoch, sent, heard;
    struct served *served;
};

// ---- requests ----

static int32_t prompt_of(int request, int32_t *prompt)
{
    const int32_t lengths[REQUESTS] = {100, 5, 64, 130, 33, 63, 20};
    for (int i = 0; i < lengths[request]; i++)
        prompt[i] = (request * 31 + i * i + 7 * i) % REAL_IDS;
    return lengths[request];
}

// Every mechanism that could notice that a sequence was computed a second time.
static struct coord_sampling sampling_of(int request)
{
    const struct coord_sampling all[REQUESTS] = {
        {.temperature = 0, .max_tokens = 180},
        {.temperature = 1, .seed = 5, .presence = 1, .max_tokens = 200},
        {.temperature = 0.7f,
         .seed = 6,
         .top_k = 20,
         .top_p = 0.9f,
         .frequency = 0.3f,
         .max_tokens = 250},
        {.temperature = 0, .frequency = 0.7f, .presence = 0.5f, .max_tokens = 300},
        {.temperature = 1, .seed = 7, .repetition = 1.3f, .min_p = 0.05f, .max_tokens = 170},
        {.temperature = 1,
         .seed = 8,
         .frequency = -0.4f,
         .repetition = 0.8f,
         .min_tokens = 120,
         .max_tokens = 250,
         .stop_count = 3,
         .stop_ids = {3, 77, 200}},
        {.temperature = 1.5f, .seed = 9, .frequency = 1, .max_tokens = 300},
    };
    return all[request];
}

// ---- the ranks ----

static void open_engines(struct server *server, uint64_t epoch, int32_t checkpoints)
{
    struct error error;
    struct team_options options = {.model_dir = model_dir,
                                   .load_format = LOAD_DUMMY,
                                   .ranks = RANKS,
                                   .sequences = SEQUENCES,
                                   .sequence_tokens = CONTEXT,
                                   .step_tokens = STEP_TOKENS,
                                   .checkpoints = checkpoints};
    team_open(&server->team, &options);
    server->notify_fd = eventfd(0, EFD_NONBLOCK);
    for (int r = 0; r < RANKS; r++) {
        struct step_options step = {.model = &server->team.ranks[r].model,
                                    .memory = server->team.ranks[r].plan,
                                    .epoch = epoch,
                                    .vocab_real = REAL_IDS,
                                    .notify_fd = server->notify_fd};
        assert_int_equal(step_engine_open(&server->engines[r], &step, &error), OK);
    }
    assert_int_equal(step_plan_open(&server->plan, &error), OK);
}

static void close_engines(struct server *server)
{
    for (int r = 0; r < RANKS; r++)
        step_engine_close(server->engines[r]);
    close(server->notify_fd);
    team_close(&server->team);
    step_plan_close(&server->plan);
}

static void submit_frame(struct server *server, const uint8_t *frame, size_t bytes)
{
    struct error error;
    if (step_plan_decode(&server->plan, frame, bytes, &error) != OK)
        fail_msg("%s", error.text);
    for (int r = 0; r < RANKS; r++) {
        if (step_submit(server->engines[r], &server->plan, &error) != OK)
            fail_msg("rank %d: %s", r, error.text);
    }
}

static void next_report(struct server *server, int rank, struct report *report)
{
    uint64_t limit_ns = clock_now_ns() + 60ull * CLOCK_NS_PER_S;
    while (!step_next_report(server->engines[rank], report)) {
        if (clock_now_ns() > limit_ns)
            fail_msg("no report within a minute");
        clock_sleep_ns(20 * CLOCK_NS_PER_US);
    }
}

// ---- the core ----

static void keep_frame(struct server *server, const struct step_plan *plan)
{
    struct served *served = server->served;
    size_t bytes;
    assert_int_equal(step_plan_encode(server->buffer, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, plan),
                     OK);
    assert_true(plan->step == server->sent + 1 && plan->step <= STEPS_MAX);
    server->sent = plan->step;
    served->frames[plan->step] = malloc(bytes);
    memcpy(served->frames[plan->step], server->buffer, bytes);
    served->frame_bytes[plan->step] = bytes;
    submit_frame(server, server->buffer, bytes);
}

static void act(struct server *server, const struct coord_action *action)
{
    struct told *told = &server->served->told[action->request % REQUESTS];
    switch (action->type) {
    case ACTION_SEND_PLACE:
        server->epoch = action->place->epoch;
        if (action->place->rank == 0)
            open_engines(server, server->epoch, action->place->checkpoints);
        break;
    case ACTION_SEND_PLAN: keep_frame(server, action->plan); break;
    case ACTION_TOKENS:
        assert_true(told->count + action->tokens_count <= OUTPUTS_MAX);
        memcpy(told->tokens + told->count, action->tokens,
               (size_t)action->tokens_count * sizeof(int32_t));
        told->count += action->tokens_count;
        break;
    case ACTION_DONE: snprintf(told->reason, sizeof told->reason, "%s", action->reason); break;
    case ACTION_GROUP_READY:
    case ACTION_ACCEPTED: break;
    default: fail_msg("action %d: %s", (int)action->type, action->text != NULL ? action->text : "");
    }
}

static void step(struct server *server, struct coord_event event)
{
    do {
        event.now_ns = clock_now_ns();
        coord_step(server->coord, &event, server->actions);
        for (int i = 0; i < server->actions->count; i++)
            act(server, &server->actions->list[i]);
        const char *broken = coord_check(server->coord);
        if (broken != NULL)
            fail_msg("broken: %s", broken);
        event.type = EVENT_TICK;
    } while (server->actions->more);
}

static struct coord_options core_options(int32_t pages, int32_t checkpoints)
{
    struct error error;
    struct coord_options options = {.wishes = {.utilization = 1,
                                               .sequences = SEQUENCES,
                                               .sequence_tokens = CONTEXT,
                                               .step_tokens = STEP_TOKENS,
                                               .checkpoints = checkpoints > 0 ? checkpoints : -1,
                                               .pages = pages},
                                    .groups = 1,
                                    .ranks = RANKS,
                                    .vocab_real = REAL_IDS,
                                    .queued_max = REQUESTS,
                                    .pool_tokens = 4096,
                                    .build = "test"};
    if (config_load(&options.config, model_dir, &error) != OK)
        fail_msg("%s", error.text);
    return options;
}

static void form_group(struct server *server, const struct coord_options *options, int32_t pages)
{
    struct hello hello = {.version = WIRE_VERSION,
                          .build = "test",
                          .backend = "cuda",
                          .host = "host",
                          .local_rank = -1,
                          .bytes_free = (uint64_t)1 << 40,
                          .config_hash = config_hash(&options->config)};
    struct coord_status status;
    for (int32_t w = 0; w < RANKS; w++)
        step(server, (struct coord_event){.type = EVENT_HELLO, .worker = w, .hello = &hello});
    for (int32_t r = 0; r < RANKS; r++) {
        struct ready ready = {.rank = r, .epoch = server->epoch};
        step(server, (struct coord_event){.type = EVENT_READY,
                                          .worker = coord_worker(server->coord, 0, r),
                                          .ready = &ready});
    }
    coord_status(server->coord, &status);
    assert_int_equal(status.pages, pages);
    assert_int_equal(status.slots, SEQUENCES);
}

static void submit_all(struct server *server)
{
    int32_t prompt[CONTEXT];
    for (int i = 0; i < REQUESTS; i++) {
        int32_t tokens = prompt_of(i, prompt);
        step(server, (struct coord_event){.type = EVENT_SUBMIT,
                                          .worker = -1,
                                          .submit = {.request = (uint64_t)i,
                                                     .prompt = prompt,
                                                     .prompt_tokens = tokens,
                                                     .sampling = sampling_of(i)}});
    }
}

static bool all_done(const struct served *served)
{
    for (int i = 0; i < REQUESTS; i++) {
        if (served->told[i].reason[0] == '\0')
            return false;
    }
    return true;
}

// Serves all requests with so many pages and checkpoints.
static struct served *serve(int32_t pages, int32_t checkpoints)
{
    struct server server = {.served = calloc(1, sizeof(struct served))};
    struct coord_options options = core_options(pages, checkpoints);
    struct step_result rows[STEP_ROWS_MAX];
    struct coord_status status;
    struct error error;
    size_t bytes = (coord_bytes(&options) + 63) / 64 * 64;
    server.memory = aligned_alloc(64, bytes);
    server.actions = malloc(sizeof *server.actions);
    server.buffer = malloc(WIRE_WORKER_FRAME_BYTES_MAX);
    assert_int_equal(coord_init(&server.coord, server.memory, &options, &error), OK);
    form_group(&server, &options, pages);
    submit_all(&server);
    while (!all_done(server.served)) {
        assert_true(server.heard < server.sent);
        server.heard++;
        for (int r = 0; r < RANKS; r++) {
            struct report report = {.rows = rows};
            next_report(&server, r, &report);
            server.served->hashes[report.step] = report.hash;
            step(&server, (struct coord_event){.type = EVENT_REPORT,
                                               .worker = coord_worker(server.coord, 0, r),
                                               .report = &report});
        }
    }
    coord_status(server.coord, &status);
    server.served->preemptions = status.preemptions;
    server.served->hits = status.prefix_hits;
    server.served->steps = server.heard;
    close_engines(&server);
    free(server.memory);
    free(server.actions);
    free(server.buffer);
    return server.served;
}

static void free_served(struct served *served)
{
    for (int i = 0; i <= STEPS_MAX; i++)
        free(served->frames[i]);
    free(served);
}

// ---- tests ----

static void expect_same(const struct served *one, const struct served *other)
{
    for (int i = 0; i < REQUESTS; i++) {
        const struct told *a = &one->told[i], *b = &other->told[i];
        assert_int_equal(a->count, b->count);
        assert_memory_equal(a->tokens, b->tokens, (size_t)a->count * sizeof(int32_t));
        assert_string_equal(a->reason, b->reason);
        assert_true(a->count > 1);
    }
}

// Also when it comes back by a checkpoint that its first life has left.
static void test_preempted_is_told_the_same(void **state)
{
    (void)state;
    struct served *plenty = serve(SEQUENCES * CONTEXT / 64, 0);
    struct served *few = serve(CONTEXT / 64, 0);
    struct served *cached = serve(CONTEXT / 64 + 6, CHECKPOINTS);
    print_message("%d steps with plenty of pages, %d steps and %d preemptions with few; %d, %d and "
                  "%d tokens found with checkpoints\n",
                  (int)plenty->steps, (int)few->steps, (int)few->preemptions, (int)cached->steps,
                  (int)cached->preemptions, (int)cached->hits);
    assert_int_equal(plenty->preemptions, 0);
    assert_true(few->preemptions >= 3 && cached->preemptions >= 1 && cached->hits >= 64);
    expect_same(plenty, few);
    expect_same(plenty, cached);
    assert_true(plenty->told[5].count >= 120); // min_tokens
    assert_string_equal(plenty->told[5].reason, "stop");
    free_served(plenty);
    free_served(few);
    free_served(cached);
}

static void test_recorded_plans_give_the_same_tokens(void **state)
{
    (void)state;
    struct served *served = serve(CONTEXT / 64 + 6, CHECKPOINTS);
    struct server replay = {.served = served};
    struct step_result rows[STEP_ROWS_MAX];
    struct error error;
    struct step_plan first;
    assert_int_equal(step_plan_open(&first, &error), OK);
    assert_int_equal(step_plan_decode(&first, served->frames[1], served->frame_bytes[1], &error),
                     OK);
    open_engines(&replay, first.epoch, CHECKPOINTS);
    int drawn = 0;
    for (uint64_t step = 1; step <= served->steps; step++) {
        submit_frame(&replay, served->frames[step], served->frame_bytes[step]);
        for (int r = 0; r < RANKS; r++) {
            struct report report = {.rows = rows};
            next_report(&replay, r, &report);
            assert_int_equal(report.step, step);
            assert_true(report.hash == served->hashes[step]);
            for (int i = 0; i < report.rows_count; i++)
                drawn += report.rows[i].count;
        }
    }
    int told = 0;
    for (int i = 0; i < REQUESTS; i++)
        told += served->told[i].count;
    assert_int_equal(drawn, told);
    close_engines(&replay);
    step_plan_close(&first);
    free_served(served);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preempted_is_told_the_same),
        cmocka_unit_test(test_recorded_plans_give_the_same_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
