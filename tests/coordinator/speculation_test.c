// SPDX-License-Identifier: Apache-2.0
// speculation_test.c -- the choice of drafts against machines whose step times are known and
// sequences whose drafts are as good as told: the same work takes at most 1 / 0.98 of the time that
// the best fixed number takes, whatever machine, batch, context and acceptance, also when these
// change in mid-stream.
#include "coordinator/speculation.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS_MAX = 256, DRAFTS_MAX = SPECULATION_CHOICES - 1 };

// What a step costs, in ns: weights are read once; every token that runs costs a little, in tiles;
// every token of context is read; a draft is a pass of the head over all rows.
struct machine {
    const char *name;
    double base, token, context, pass, pass_context;
    int32_t tile;
    bool measured; // as in measured_us instead
};

// One that hardly notices a token more; its head four times as dear; one that computes slowly, so
// that a token verified costs as much as one alone; products in tiles of 64; long contexts that
// outweigh everything.
static const struct machine machines[] = {
    {"wide", 1.4e6, 6e3, 0.02, 1.2e5, 0.002, 1, false},
    {"dear head", 1.4e6, 6e3, 0.02, 5e5, 0.02, 1, false},
    {"slow", 1e5, 4e5, 0.02, 3e5, 0.002, 1, false},
    {"tiles", 8e5, 6e3, 0.02, 1e5, 0.002, 64, false},
    {"long", 6e5, 2e4, 1.5, 1e5, 0.1, 1, false},
};

// Steps of 35B-A3B on an H200 with 0 .. 5 drafts, us: step_bench --drafts at a context of 1,024,
// bench/results/2026-11-29-h200-drafts.jsonl.
enum { MEASURED_SIZES = 5 };
static const int32_t measured_rows[MEASURED_SIZES] = {1, 4, 16, 64, 256};
static const double measured_us[MEASURED_SIZES][DRAFTS_MAX + 1] = {
    {2354.8, 3231.8, 4171.2, 4960.2, 5720.8, 6452.7},
    {4163.1, 5980.2, 7751.9, 9260.3, 11482.5, 12692.1},
    {8467.8, 13074.6, 15391.6, 17435.0, 19088.0, 20309.0},
    {16881.9, 20407.6, 22766.6, 24503.4, 26335.0, 28319.1},
    {25719.1, 31753.2, 37226.3, 41729.8, 48113.2, 53807.1},
};
static const struct machine h200 = {.name = "H200", .tile = 1, .measured = true};

// What is served: so many sequences at a time, each followed by a new one after `length` tokens.
// What varies and context are functions of how much of all the work is done, 0 .. 1.
struct load {
    int32_t rows, steps; // steps: that the work takes without drafts
    int32_t length;
    double acceptance; // of a draft, those before it taken; or:
    double (*varies)(uint64_t sequence, double done);
    double (*context)(double done); // tokens of every row
    const double *places; // [DRAFTS_MAX] times the acceptance of draft i; NULL: all are as good
    int32_t waves;        // batches that begin full and drain, one after the other; 0: always full
};

struct world {
    const struct machine *machine;
    const struct load *load;
    struct speculation speculation;
    struct speculation_counts counts[ROWS_MAX];
    uint64_t sequence[ROWS_MAX]; // number of the one in the row
    int32_t left[ROWS_MAX];      // its tokens
    uint64_t sequences;          // so far
    int32_t rows;                // that run now
    double tokens, ns;
    uint64_t random;
};

static double uniform(struct world *world)
{
    world->random = world->random * 6364136223846793005u + 1442695040888963407u;
    return (double)(world->random >> 11) * 0x1p-53;
}

static double done(const struct world *world)
{
    return world->tokens / ((double)world->load->rows * world->load->steps);
}

static int32_t rows_at(const struct load *load, double at)
{
    double part = at * load->waves - floor(at * load->waves);
    int32_t rows = part < 0.6 ? load->rows : (int32_t)(load->rows * (1 - part) / 0.4);
    return rows > 1 ? rows : 1;
}

// Between two sizes that were measured, a power of the rows.
static double measured_step_ns(int32_t rows, int32_t drafts)
{
    int32_t i = 0;
    while (i < MEASURED_SIZES - 2 && rows > measured_rows[i + 1])
        i++;
    double share =
        log((double)rows / measured_rows[i]) / log((double)measured_rows[i + 1] / measured_rows[i]);
    return 1e3 * pow(measured_us[i][drafts], 1 - share) * pow(measured_us[i + 1][drafts], share);
}

static double step_ns(const struct world *world, int32_t verified, int32_t made)
{
    const struct machine *machine = world->machine;
    if (machine->measured) {
        int32_t size = world->rows;
        return (measured_step_ns(size, verified) + measured_step_ns(size, made)) / 2;
    }
    int32_t rows = world->rows, tokens = rows * (1 + verified);
    double context = rows * world->load->context(done(world));
    tokens = (tokens + machine->tile - 1) / machine->tile * machine->tile;
    return machine->base + machine->token * tokens + machine->context * context +
           made * (machine->pass + machine->pass_context * context);
}

// As it is measured: 4 % more or less, and one step in 300 takes five times as long.
static uint64_t measured_ns(struct world *world, double ns)
{
    double noise = 1 + 0.04 * (uniform(world) - 0.5);
    return (uint64_t)(ns * noise * (uniform(world) < 1.0 / 300 ? 5 : 1));
}

static int32_t choose(struct world *world)
{
    struct speculation_batch batch;
    speculation_begin(&batch, &world->speculation);
    for (int32_t row = 0; row < world->rows; row++)
        speculation_add(&batch, &world->counts[row], (int32_t)world->load->context(done(world)),
                        DRAFTS_MAX);
    return speculation_choose(&world->speculation, &batch);
}

// The chance of draft i, those before it taken.
static double acceptance_at(const struct load *load, double acceptance, int32_t i)
{
    return load->places == NULL ? acceptance : acceptance * load->places[i];
}

static int32_t draw_taken(struct world *world, int32_t drafts, double acceptance)
{
    int32_t taken = 0;
    while (taken < drafts && uniform(world) < acceptance_at(world->load, acceptance, taken))
        taken++;
    return taken;
}

static double mean_tokens(const struct load *load, int32_t drafts, double acceptance)
{
    double tokens = 1;
    for (int32_t i = drafts - 1; i >= 0; i--)
        tokens = 1 + tokens * acceptance_at(load, acceptance, i);
    return tokens;
}

// Every row draws; returns what came of it. The work that is done is the mean, so that no choice
// is lucky.
static struct speculation_step run_rows(struct world *world, int32_t drafts)
{
    struct speculation_step step = {.cell = speculation_cell_now(&world->speculation),
                                    .drafts = drafts};
    const struct load *load = world->load;
    double now = done(world);
    for (int32_t row = 0; row < world->rows; row++) {
        double acceptance =
            load->varies == NULL ? load->acceptance : load->varies(world->sequence[row], now);
        int32_t taken = draw_taken(world, drafts, acceptance);
        speculation_note_row(&step, &world->counts[row], drafts, taken);
        world->tokens += mean_tokens(load, drafts, acceptance);
        world->left[row] -= 1 + taken;
        if (world->left[row] <= 0) {
            world->sequence[row] = world->sequences++;
            world->left[row] = load->length;
            memset(&world->counts[row], 0, sizeof world->counts[row]);
        }
    }
    return step;
}

// Until all is done; returns the time that it took. As the scheduler does: what a step drafts is
// verified by the next, and what came of a step is known two plans later.
static double run(struct world *world, int32_t wish)
{
    struct speculation_step flying = {.drew = 0};
    int32_t before = 0;
    while (done(world) < 1) {
        world->rows = rows_at(world->load, done(world));
        int32_t drafts = choose(world);
        assert_in_range(drafts, 0, DRAFTS_MAX);
        assert_true(wish == SPECULATION_AUTO || drafts == wish);
        double ns = step_ns(world, before, drafts);
        struct speculation_step step = run_rows(world, before);
        step.ns = before == drafts ? measured_ns(world, ns) : 0;
        world->ns += ns;
        speculation_observe(&world->speculation, &flying);
        flying = step;
        before = drafts;
    }
    return world->ns;
}

static double time_of(const struct machine *machine, const struct load *load, int32_t wish)
{
    struct world *world = calloc(1, sizeof *world);
    world->machine = machine;
    world->load = load;
    world->random = 17;
    world->sequences = (uint64_t)load->rows;
    speculation_init(&world->speculation, DRAFTS_MAX, wish);
    for (int32_t row = 0; row < load->rows; row++) {
        world->sequence[row] = (uint64_t)row;
        world->left[row] = 1 + load->length * row / load->rows;
    }
    double ns = run(world, wish);
    free(world);
    return ns;
}

// Returns the best fixed number; auto does its work with at least so much of its speed.
static int32_t expect_share(const char *what, const struct machine *machine,
                            const struct load *load, double least)
{
    double best = 0;
    int32_t best_drafts = 0;
    for (int32_t drafts = 0; drafts <= DRAFTS_MAX; drafts++) {
        double ns = time_of(machine, load, drafts);
        if (best == 0 || ns < best) {
            best = ns;
            best_drafts = drafts;
        }
    }
    double share = best / time_of(machine, load, SPECULATION_AUTO);
    print_message("%-22s %-9s %3d rows: %.3f of the best, %d drafts\n", what, machine->name,
                  (int)load->rows, share, (int)best_drafts);
    if (share < least)
        fail_msg("%s, %s, %d rows: %.4f of the best (%d drafts)", what, machine->name,
                 (int)load->rows, share, (int)best_drafts);
    return best_drafts;
}

static int32_t expect_close_to_best(const char *what, const struct machine *machine,
                                    const struct load *load)
{
    return expect_share(what, machine, load, 0.98);
}

// The last one in steady work alone: it takes long. Sanitizers make all of it slow and look for
// stray reads only.
static const int32_t sizes[] = {1, 6, 64, 256};
#ifdef DELTAMESH_SANITIZED
enum { SIZES = 2, SIZES_STEADY = 2, MACHINES = 1 };
#else
enum { SIZES = 3, SIZES_STEADY = 4, MACHINES = sizeof machines / sizeof machines[0] };
#endif

static double short_context(double at)
{
    (void)at;
    return 600;
}

static const double acceptances[] = {0.02, 0.5, 0.75, 0.95, 0.98};
static const char *const names[] = {"hopeless", "fair", "good", "splendid", "sure"};
enum { ACCEPTANCES = 5 };

static void steady_work_runs_as_with_the_best_number(void **state)
{
    bool chosen[SPECULATION_CHOICES] = {false};
    (void)state;
    for (int m = 0; m < MACHINES; m++) {
        for (int s = 0; s < SIZES_STEADY; s++) {
            for (int a = 0; a < ACCEPTANCES; a++) {
                struct load load = {.rows = sizes[s],
                                    .steps = sizes[s] > 64 ? 4000 : 6000,
                                    .length = 1000,
                                    .acceptance = acceptances[a],
                                    .context = short_context};
                chosen[expect_close_to_best(names[a], &machines[m], &load)] = true;
            }
        }
    }
    for (int32_t drafts = 0; drafts <= DRAFTS_MAX && MACHINES > 1; drafts++)
        assert_true(chosen[drafts]); // the machines differ enough for that
}

// Good for the first half, then nothing is taken any more; and it comes back.
static double collapses(uint64_t sequence, double at)
{
    (void)sequence;
    return at < 0.5 ? 0.9 : 0.02;
}

static double returns(uint64_t sequence, double at)
{
    (void)sequence;
    return at > 0.3 && at < 0.6 ? 0.02 : 0.85;
}

static void acceptance_may_collapse_and_return(void **state)
{
    (void)state;
    for (int m = 0; m < MACHINES; m++) {
        for (int s = 0; s < SIZES; s++) {
            struct load load = {.rows = sizes[s],
                                .steps = 12000,
                                .length = 1000,
                                .varies = collapses,
                                .context = short_context};
            expect_close_to_best("collapses", &machines[m], &load);
            load.varies = returns;
            expect_close_to_best("returns", &machines[m], &load);
        }
    }
}

// Every second sequence is good; or in the first half nine of ten, in the second one of ten.
static double mixed(uint64_t sequence, double at)
{
    (void)at;
    return sequence % 2 ? 0.95 : 0.05;
}

static double tipping(uint64_t sequence, double at)
{
    return (sequence % 10 != 0) == (at < 0.5) ? 0.95 : 0.05;
}

static void good_and_bad_sequences_mix(void **state)
{
    (void)state;
    for (int m = 0; m < MACHINES; m++) {
        for (int s = 0; s < SIZES; s++) {
            struct load load = {.rows = sizes[s],
                                .steps = 12000,
                                .length = 700,
                                .varies = mixed,
                                .context = short_context};
            expect_close_to_best("mixed", &machines[m], &load);
            load.varies = tipping;
            expect_close_to_best("tipping", &machines[m], &load);
        }
    }
}

static double growing(double at)
{
    return 200 * exp(6 * at); // up to 80,000
}

static double by_turns(double at)
{
    return (int)(at * 6) % 2 ? 30000 : 500;
}

static void context_may_change(void **state)
{
    (void)state;
    for (int m = 0; m < MACHINES; m++) {
        for (int s = 0; s < SIZES; s++) {
            struct load load = {.rows = sizes[s],
                                .steps = 12000,
                                .length = 1000,
                                .acceptance = 0.75,
                                .context = growing};
            expect_close_to_best("growing context", &machines[m], &load);
            load.context = by_turns;
            expect_close_to_best("context by turns", &machines[m], &load);
        }
    }
}

// Heads are worse at each further place; and as --synthetic-acceptance 3.39 decides, times 1.
static const double falling_places[DRAFTS_MAX] = {1, 0.95, 0.9, 0.85, 0.8};
static const double synthetic_places[DRAFTS_MAX] = {1, 1, 0.39, 0, 0};

// Published runs of this family: 3.39 tokens a step with 3 drafts (1 + a + a^2 + a^3).
static const struct measured_case {
    const char *name;
    struct load load; // but for its rows
} measured_cases[] = {
    {"hopeless", {.acceptance = 0.02}},
    {"fair", {.acceptance = 0.5}},
    {"published", {.acceptance = 0.89}},
    {"splendid", {.acceptance = 0.95}},
    {"sure", {.acceptance = 0.98}},
    {"falling", {.acceptance = 0.95, .places = falling_places}},
    {"synthetic", {.acceptance = 1, .places = synthetic_places}},
    {"collapses", {.varies = collapses}},
    {"returns", {.varies = returns}},
    {"mixed", {.varies = mixed}},
};
enum { MEASURED_STEADY = 7 }; // of the cases, the first
static const int32_t measured_loads[] = {1, 4, 16, 64, 256};
enum { MEASURED_LOADS = MACHINES > 1 ? 5 : 2 };

static struct load measured_load(const struct measured_case *from, int32_t rows, int32_t steps)
{
    struct load load = from->load;
    load.rows = rows;
    load.steps = steps;
    load.length = 1000;
    load.context = short_context;
    return load;
}

static void measured_machine_runs_as_with_the_best_number(void **state)
{
    bool chosen[SPECULATION_CHOICES] = {false};
    (void)state;
    for (int i = 0; i < MEASURED_LOADS; i++) {
        for (int c = 0; c < (int)(sizeof measured_cases / sizeof *measured_cases); c++) {
            const struct measured_case *at = &measured_cases[c];
            int32_t steps = c < MEASURED_STEADY ? 6000 : 12000;
            struct load load = measured_load(at, measured_loads[i], steps);
            chosen[expect_close_to_best(at->name, &h200, &load)] = true;
        }
    }
    assert_true(chosen[0] && chosen[5]);
}

// Trying around while nothing is known costs some of the first 300 steps; when every number was
// tried in its turn, up to 9.5 % of them.
static void the_first_steps_are_not_wasted(void **state)
{
    (void)state;
    for (int i = 0; i < MEASURED_LOADS; i++) {
        for (int c = 0; c < MEASURED_STEADY; c++) {
            struct load load = measured_load(&measured_cases[c], measured_loads[i], 300);
            expect_share(measured_cases[c].name, &h200, &load, 0.95);
        }
    }
}

// Rows get fewer within a range and come back: a trial is of other rows than the choice was.
static void batches_may_drain(void **state)
{
    char what[32];
    (void)state;
    for (int i = 0; i < MEASURED_LOADS; i++) {
        for (int c = 1; c < MEASURED_STEADY; c++) {
            for (int32_t waves = 10; waves <= 30; waves += 5) {
                struct load load = measured_load(&measured_cases[c], measured_loads[i], 6000);
                load.waves = waves;
                snprintf(what, sizeof what, "%s, %d waves", measured_cases[c].name, (int)waves);
                expect_close_to_best(what, &h200, &load);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steady_work_runs_as_with_the_best_number),
        cmocka_unit_test(acceptance_may_collapse_and_return),
        cmocka_unit_test(good_and_bad_sequences_mix),
        cmocka_unit_test(context_may_change),
        cmocka_unit_test(measured_machine_runs_as_with_the_best_number),
        cmocka_unit_test(the_first_steps_are_not_wasted),
        cmocka_unit_test(batches_may_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
