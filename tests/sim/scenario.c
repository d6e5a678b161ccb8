// SPDX-License-Identifier: Apache-2.0
// scenario.c -- draws deployments that are small, so that slots, pages, queue, pool and step are
// all contended, and clients that ask for more than there is.
#include "tests/sim/scenario.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/speculation.h"
#include "parallel/memory_plan.h"
#include "parallel/shard.h"

static int32_t pick(struct dice *dice, const int32_t *choices, int count)
{
    return choices[dice_between(dice, 0, count - 1)];
}

#define PICK(dice, ...)                                                                            \
    pick(dice, (const int32_t[]){__VA_ARGS__},                                                     \
         (int)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)))

// A model that 1, 2, 3 and 4 ranks divide, whose pages are large beside everything else, so that
// the memory plan leaves the operator's wishes alone and only pages are short.
static struct model_config model(void)
{
    struct model_config config = {
        .layout = LAYOUT_QWEN35,
        .model_type = "sim",
        .layers = 8,
        .hidden = 64,
        .vocab = 1200,
        .max_position_embeddings = 6400,
        .rms_norm_eps = 1e-6,
        .heads = 24,
        .kv_heads = 12,
        .head_dim = 256,
        .rope = {.type = ROPE_DEFAULT, .rotary_dim = 64, .theta = 1e7},
        .key_heads = 12,
        .value_heads = 24,
        .key_dim = 16,
        .value_dim = 16,
        .conv_width = 4,
        .intermediate = 48,
    };
    for (int i = 0; i < config.layers; i++)
        config.layer_is_attention[i] = i % 2 == 1;
    return config;
}

static void draw_deployment(struct scenario *scenario, struct dice *dice)
{
    struct coord_options *options = &scenario->options;
    bool storm = dice_chance(dice, 0.25); // more sequences than tokens of a step
    options->config = model();
    options->groups = PICK(dice, 1, 1, 1, 2);
    options->ranks = (int)dice_between(dice, 1, SIM_RANKS_MAX);
    options->vocab_real = PICK(dice, 40, 300, 1177);
    options->turn_id = PICK(dice, -1, 7, 7); // any id may begin turns
    options->queued_max = storm ? 1000 : PICK(dice, 1, 3, 20, 1000, 1000);
    options->wishes.utilization = 1;
    options->wishes.sequences = storm ? PICK(dice, 60, 120, 120) : PICK(dice, 1, 2, 4, 8, 16);
    options->wishes.step_tokens = storm ? PICK(dice, 64, 128, 128) : PICK(dice, 64, 128, 256, 512);
    options->wishes.sequence_tokens =
        storm ? PICK(dice, 200, 700) : PICK(dice, 130, 700, 2048, 6400);
    options->wishes.checkpoints = PICK(dice, -1, 0, 0, 1, 2, 5, 20);
    options->checkpoint_interval = PICK(dice, 0, 64, 64, 128, 320);
    scenario->follows = PICK(dice, 0, 3, 8) * 0.1;
    int32_t longest = options->wishes.sequence_tokens;
    options->pool_tokens =
        dice_chance(dice, 0.3) ? dice_between(dice, 64, 3 * longest) : 400 * (int64_t)longest;
    snprintf(options->build, sizeof options->build, "sim-1");
    for (size_t i = 0; i < sizeof options->entropy; i++)
        options->entropy[i] = (uint8_t)dice_next(dice);
    scenario->poisoned_memory = dice_chance(dice, 0.2);
    scenario->mtp = dice_chance(dice, 0.5);
    options->speculative_tokens = PICK(dice, SPECULATION_AUTO, SPECULATION_AUTO, 0, 1, 3, 5);
    // Clients to match.
    scenario->clients =
        storm ? (int)dice_between(dice, 60, SIM_CLIENTS_MAX) : (int)dice_between(dice, 1, 60);
    scenario->short_prompts = storm ? PICK(dice, 50, 90, 98) * 0.01 : PICK(dice, 0, 0, 5, 10) * 0.1;
    scenario->short_tokens_max = PICK(dice, 6, 60);
    scenario->prompt_tokens_max = PICK(dice, 70, 300, 1200, 5000);
    if (scenario->prompt_tokens_max > longest + 70)
        scenario->prompt_tokens_max = longest + 70;
    scenario->output_tokens_max = storm ? PICK(dice, 8, 60, 150) : PICK(dice, 1, 8, 40, 150);
    scenario->endless = longest <= 700 && !storm ? 0.1 : 0;
    scenario->hungry = !storm && longest >= 700 && dice_chance(dice, 0.5);
    if (!scenario->hungry)
        return;
    options->wishes.sequences = PICK(dice, 4, 8, 16);
    options->wishes.pages = (int)dice_between(dice, 6, 2 * options->wishes.sequences);
    options->queued_max = 20;
    scenario->prompt_tokens_max = PICK(dice, 20, 70, 300);
    scenario->output_tokens_max = PICK(dice, 300, 500, 700);
    scenario->clients = (int)dice_between(dice, 8, 30);
}

// Bytes so that a share of the pages that full sequences could use is there.
static void draw_memory(struct scenario *scenario, struct dice *dice)
{
    const struct coord_options *options = &scenario->options;
    struct memory_wishes wishes = options->wishes;
    struct memory_plan plan;
    struct shard shard;
    struct error error = {.status = OK};
    wishes.bytes_free = UINT64_MAX;
    wishes.mtp = scenario->mtp;
    enum status status = shard_make(&shard, &options->config, 0, options->ranks, &error);
    if (status == OK)
        status = memory_plan_make(&plan, &options->config, &shard, &wishes, &error);
    if (status != OK)
        DIE("the scenario's model: %s", error.text);
    // The token ids beside a page, too, where there is prefix reuse.
    uint64_t ids_bytes = options->wishes.checkpoints >= 0 ? TOKENS_PER_PAGE * sizeof(int32_t) : 0;
    uint64_t page_bytes =
        memory_plan_page_bytes(&options->config, &shard, scenario->mtp) + ids_bytes;
    bool same = dice_chance(dice, 0.7);
    int64_t pages = 0;
    scenario->cpu = dice_chance(dice, 0.3);
    int drafts = options->speculative_tokens;
    drafts = drafts == SPECULATION_AUTO ? SPECULATION_CHOICES - 1 : drafts;
    plan.drafts_max = scenario->mtp ? drafts : 0;
    plan.recorded = scenario->cpu ? 0 : 1 + plan.drafts_max;
    memory_plan_count_bytes(&plan, &options->config, &shard, scenario->mtp);
    for (int i = 0; i < SIM_PROCESSES_MAX; i++) {
        if (i == 0 || !same)
            pages = dice_chance(dice, options->wishes.sequences > 16 ? 0.7 : 0.3)
                        ? plan.pages
                        : dice_between(dice, 1, plan.pages / 2 + 1);
        if (scenario->hungry)
            pages = plan.pages;
        // Half a page more, so that rounding does not matter.
        scenario->bytes_free[i] = plan.total_bytes - plan.kv_bytes -
                                  (uint64_t)plan.pages * ids_bytes + (uint64_t)pages * page_bytes +
                                  page_bytes / 2 + 1000000;
        if (scenario->cpu)
            scenario->bytes_free[i] *= (uint64_t)options->ranks;
    }
}

static void draw_processes(struct scenario *scenario, struct dice *dice)
{
    int needed = scenario->options.groups * scenario->options.ranks;
    int intruders = dice_chance(dice, 0.2) ? (int)dice_between(dice, 1, 3) : 0;
    scenario->processes = needed + intruders;
    for (int i = needed; i < scenario->processes; i++) {
        scenario->intruders[i] =
            (enum intruder)dice_between(dice, INTRUDER_VERSION, INTRUDER_SURPLUS);
    }
    scenario->start_ns_max = (uint64_t)PICK(dice, 1, 100, 2000) * SIM_MS_NS;
    scenario->load_ns_max = (uint64_t)PICK(dice, 1, 100, 3000) * SIM_MS_NS;
    scenario->step_ns_min = (uint64_t)PICK(dice, 50, 1000) * SIM_US_NS;
    scenario->step_ns_max = scenario->step_ns_min * (uint64_t)PICK(dice, 1, 2, 20);
    scenario->token_ns = (uint64_t)PICK(dice, 0, 1, 10, 100) * SIM_US_NS;
    scenario->options.prefill_gap_ns = (uint64_t)PICK(dice, 0, 5, 20, 60) * SIM_MS_NS;
    scenario->exchange_wait_ns = (uint64_t)PICK(dice, 10, 100) * SIM_S_NS;
    scenario->arrivals_ns = (uint64_t)PICK(dice, 1, 300, 3000, 6000) * SIM_MS_NS;
    if (scenario->hungry) {
        scenario->arrivals_ns = (uint64_t)PICK(dice, 1, 100, 500) * SIM_MS_NS;
    } else if (dice_chance(dice, 0.3)) { // a trickle: at any time some decode, and more come
        uint64_t work_ns = (scenario->step_ns_min + scenario->step_ns_max) / 2 *
                           (uint64_t)scenario->clients * (uint64_t)scenario->output_tokens_max / 2;
        scenario->arrivals_ns = work_ns / (uint64_t)PICK(dice, 2, 4, 8) + 1;
    }
    scenario->stops = dice_chance(dice, 0.5) && !scenario->hungry ? 0.7 : 0;
    scenario->aborts = dice_chance(dice, 0.5) ? 0.3 : 0;
    scenario->door_stops = dice_chance(dice, 0.5) ? 0.2 : 0;
    scenario->timeouts = dice_chance(dice, 0.3) ? 0.3 : 0;
    scenario->priorities = dice_chance(dice, 0.4);
    scenario->numbers_reused = dice_chance(dice, 0.5);
}

static void draw_network(struct scenario *scenario, struct dice *dice)
{
    bool calm = scenario->mood == MOOD_CALM, faulty = scenario->mood == MOOD_FAULTY;
    scenario->latency_ns_min = 20 * SIM_US_NS;
    scenario->latency_ns_max = (uint64_t)PICK(dice, 30, 200, 5000) * SIM_US_NS;
    scenario->late_ns_max = (uint64_t)PICK(dice, 1, 20, 300) * SIM_MS_NS;
    scenario->copied = calm ? 0 : PICK(dice, 0, 5, 30) * 0.01;
    scenario->overtaken = calm ? 0 : PICK(dice, 0, 5, 30) * 0.01;
    if (faulty && dice_chance(dice, 0.3)) {
        scenario->lost = 0.0005 * PICK(dice, 1, 10, 100);
        scenario->copied_plans = 0.0005 * PICK(dice, 0, 1, 10);
    }
}

static void draw_faults(struct scenario *scenario, struct dice *dice)
{
    if (scenario->mood == MOOD_CALM)
        return;
    bool faulty = scenario->mood == MOOD_FAULTY;
    int64_t last_ns = (int64_t)(scenario->arrivals_ns + scenario->start_ns_max);
    scenario->faults_count = (int)dice_between(dice, faulty ? 1 : 0, faulty ? 3 : 6);
    for (int i = 0; i < scenario->faults_count; i++) {
        struct fault *fault = &scenario->faults[i];
        fault->type = (enum fault_type)dice_between(dice, 0, FAULT_TYPE_COUNT - 1);
        if (!faulty)
            fault->type = (enum fault_type)PICK(dice, FAULT_FREEZE, FAULT_GARBAGE, FAULT_PAUSE);
        fault->when_ns = (uint64_t)dice_between(dice, 0, last_ns);
        fault->duration_ns = (uint64_t)dice_between(dice, 1, faulty ? 20000 : 2500) * SIM_MS_NS;
        if (fault->type == FAULT_PAUSE) // workers wait for a silent coordinator twice as long
            fault->duration_ns = (uint64_t)dice_between(dice, 1, 6000) * SIM_MS_NS;
        fault->process = (int32_t)dice_between(dice, 0, scenario->processes - 1);
    }
    if (faulty && dice_chance(dice, 0.03)) // too small for a single sequence
        scenario->bytes_free[dice_between(dice, 0, scenario->processes - 1)] = 1 << 20;
}

void scenario_draw(struct scenario *scenario, struct dice *dice, uint64_t seed)
{
    memset(scenario, 0, sizeof *scenario);
    scenario->seed = seed;
    scenario->mood = (enum mood)dice_between(dice, MOOD_CALM, MOOD_FAULTY);
    draw_deployment(scenario, dice);
    draw_memory(scenario, dice);
    draw_processes(scenario, dice);
    draw_network(scenario, dice);
    draw_faults(scenario, dice);
    int64_t ending = dice_between(dice, 0, 9);
    scenario->ending = ending < 6 ? ENDING_LAST : ending < 8 ? ENDING_DRAIN : ENDING_SHUTDOWN;
    scenario->ending_ns =
        (uint64_t)dice_between(dice, 0, (int64_t)(scenario->arrivals_ns + scenario->start_ns_max));
    // Without deadly faults only work takes time (invariants.c bounds standing still): the slowest
    // networks need more than ten minutes for the largest loads.
    scenario->virtual_ns_max = (scenario->mood == MOOD_FAULTY ? 600 : 3600) * (uint64_t)SIM_S_NS;
}

void scenario_print(const struct scenario *scenario)
{
    static const char *const moods[] = {"calm", "noisy", "faulty"};
    static const char *const endings[] = {"after the last", "drain", "shutdown"};
    const struct coord_options *options = &scenario->options;
    printf("seed %llu: %s, %d groups of %d, %d processes, %d clients, prompts to %d, outputs to "
           "%d; wishes: %d sequences of %d, steps of %d; queue %d, pool %lld; %d faults, ends %s\n",
           (unsigned long long)scenario->seed, moods[scenario->mood], options->groups,
           options->ranks, scenario->processes, scenario->clients, scenario->prompt_tokens_max,
           scenario->output_tokens_max, options->wishes.sequences, options->wishes.sequence_tokens,
           options->wishes.step_tokens, options->queued_max, (long long)options->pool_tokens,
           scenario->faults_count, endings[scenario->ending]);
}
