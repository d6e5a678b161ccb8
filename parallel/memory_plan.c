// SPDX-License-Identifier: Apache-2.0
// memory_plan.c -- the sizes of everything a rank holds, and the solver that makes them fit. Pure.
// The sizes are those of worker/weights.c and worker/state.c; tests compare them.
#include "parallel/memory_plan.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    ALIGN_BYTES = 256,          // every buffer begins on such a boundary
    STEP_TOKENS_DEFAULT = 8192, // beyond it prefill gains no speed, and latency suffers
    CONV_COLUMNS_KEPT = 3,      // conv_width - 1
    GDN_CHUNK_TOKENS = 64,
    GDN_FACTORS_BYTES = 256 * 4, // per chunk and value head
    PENDING_PARITIES = 2,
    // Slots, step tables and lists of a step: the constant part, and per token, sequence and
    // sampled row. Candidates are gathered from every rank, in two parities.
    TABLE_BYTES = 4 << 20,
    TABLE_BYTES_PER_TOKEN = 64,
    TABLE_BYTES_PER_SEQUENCE = 512,
    CANDIDATE_BYTES = 64,
    // Prefix reuse: an eighth of what KV pages could have. A checkpoint of Qwen3.5-35B-A3B takes
    // the room of 2,900 tokens, and spares their prefill to each who starts behind it.
    PREFIX_SHARE = 8,
    CHECKPOINTS_PER_SEQUENCE = 2, // no more than so many for each that may run
    PAGES_PER_CHECKPOINT = 16,    // that nobody holds, where there is memory for all sequences
    PAGE_TOKEN_IDS_BYTES = TOKENS_PER_PAGE * 4,
};

static const uint64_t BYTES_FREE_MAX = (uint64_t)1 << 50; // a PiB: keeps sums far from overflow
static const double UTILIZATION_DEFAULT = 0.9; // the rest is for the driver and fragmentation

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

// A matrix of bf16, a vector of f32.
static uint64_t matrix(int64_t rows, int64_t columns)
{
    return aligned((uint64_t)rows * (uint64_t)columns * 2);
}

static uint64_t vector(int64_t count)
{
    return aligned((uint64_t)count * 4);
}

static uint64_t gdn_bytes(const struct model_config *config, const struct shard *shard)
{
    int64_t heads = shard->value_heads.count;
    return matrix(shard_gdn_rows(shard, config), config->hidden) +
           matrix(config->hidden, heads * config->value_dim) +
           vector((int64_t)shard_conv_channels(shard, config) * config->conv_width) +
           2 * vector(heads) + vector(config->value_dim);
}

static uint64_t attention_bytes(const struct model_config *config, const struct shard *shard)
{
    return matrix(shard_attention_rows(shard, config), config->hidden) +
           matrix(config->hidden, (int64_t)shard->heads.count * config->head_dim) +
           2 * vector(config->head_dim);
}

static uint64_t feed_forward_bytes(const struct model_config *config, const struct shard *shard)
{
    int64_t hidden = config->hidden, experts = config->experts;
    if (experts == 0)
        return matrix(2 * (int64_t)shard->intermediate.count, hidden) +
               matrix(hidden, shard->intermediate.count);
    int64_t columns = shard->expert_intermediate.count, shared = shard->shared_intermediate.count;
    return matrix(experts + 1, hidden) + matrix(experts * 2 * columns, hidden) +
           matrix(experts * hidden, columns) + matrix(2 * shared, hidden) + matrix(hidden, shared);
}

static int attention_layers(const struct model_config *config)
{
    int count = 0;
    for (int i = 0; i < config->layers; i++)
        count += config->layer_is_attention[i];
    return count;
}

uint64_t memory_plan_weight_bytes(const struct model_config *config, const struct shard *shard,
                                  bool mtp)
{
    int64_t hidden = config->hidden;
    uint64_t attention_layer =
        attention_bytes(config, shard) + 2 * vector(hidden) + feed_forward_bytes(config, shard);
    uint64_t gdn_layer =
        gdn_bytes(config, shard) + 2 * vector(hidden) + feed_forward_bytes(config, shard);
    uint64_t attention = (uint64_t)attention_layers(config);
    uint64_t bytes =
        attention * attention_layer + ((uint64_t)config->layers - attention) * gdn_layer;
    bytes += matrix(config->vocab, hidden) + vector(hidden);
    if (!config->tied)
        bytes += matrix(shard->vocab.count, hidden);
    if (mtp)
        bytes += matrix(hidden, 2 * hidden) + 3 * vector(hidden) + attention_layer;
    return bytes;
}

uint64_t memory_plan_page_bytes(const struct model_config *config, const struct shard *shard,
                                bool mtp)
{
    uint64_t layers = (uint64_t)attention_layers(config) + mtp;
    uint64_t values = (uint64_t)shard->kv_heads.count * (uint64_t)config->head_dim;
    return layers * 2 * TOKENS_PER_PAGE * values * 2; // k and v, bf16
}

uint64_t memory_plan_slot_bytes(const struct model_config *config, const struct shard *shard,
                                bool bf16_state)
{
    uint64_t layers = (uint64_t)(config->layers - attention_layers(config));
    uint64_t state = (uint64_t)shard->value_heads.count * (uint64_t)config->value_dim *
                     (uint64_t)config->key_dim * (bf16_state ? 2 : 4);
    uint64_t conv = CONV_COLUMNS_KEPT * (uint64_t)shard_conv_channels(shard, config) * 2;
    return layers * (state + conv);
}

uint64_t memory_plan_checkpoint_bytes(const struct model_config *config, const struct shard *shard,
                                      bool bf16_state)
{
    return memory_plan_slot_bytes(config, shard, bf16_state) + (uint64_t)config->hidden * 2;
}

static int pending_rows(bool bf16_state, int drafts_max)
{
    return (bf16_state ? PENDING_ROWS_BF16 : PENDING_ROWS) + 1 + drafts_max;
}

uint64_t memory_plan_pending_bytes(const struct model_config *config, const struct shard *shard,
                                   bool bf16_state, int drafts_max)
{
    uint64_t layers = (uint64_t)(config->layers - attention_layers(config));
    uint64_t k = (uint64_t)shard->key_heads.count * (uint64_t)config->key_dim;
    uint64_t u = (uint64_t)shard->value_heads.count * (uint64_t)config->value_dim;
    uint64_t g = (uint64_t)shard->value_heads.count;
    uint64_t column = (uint64_t)shard_conv_channels(shard, config) * 2;
    uint64_t rows = (uint64_t)pending_rows(bf16_state, drafts_max) * (k + u + g) * 4;
    // Behind the columns that the convolution still needs of the tokens before; and where the rows
    // that wait lie, two numbers.
    uint64_t columns =
        (1 + (uint64_t)drafts_max + CONV_COLUMNS_KEPT) * column + 2 * sizeof(int32_t);
    return layers * (rows + PENDING_PARITIES * columns);
}

// What chunked prefill of GDN keeps within a step: gdn_workspace_chunks of kernels/gdn.h times a
// pair of tiles per head (exact for heads of 128) and the factors.
static uint64_t gdn_workspace_bytes(const struct model_config *config, const struct shard *shard,
                                    uint64_t tokens)
{
    uint64_t whole = tokens / GDN_CHUNK_TOKENS;
    uint64_t chunks = whole + (whole < 4 ? 1 : whole / 4);
    uint64_t key_heads = (uint64_t)shard->key_heads.count;
    uint64_t value_heads = (uint64_t)shard->value_heads.count;
    uint64_t tiles = 2 * GDN_CHUNK_TOKENS * (uint64_t)config->key_dim * 2;
    return chunks * ((key_heads + value_heads) * tiles + value_heads * GDN_FACTORS_BYTES);
}

static uint64_t largest(int64_t a, int64_t b)
{
    return (uint64_t)(a > b ? a : b);
}

// Bytes of activations per token of a step: struct workspace of worker/state.h.
static uint64_t token_bytes(const struct model_config *config, const struct shard *shard)
{
    uint64_t hidden = (uint64_t)config->hidden;
    int64_t gdn_out = (int64_t)shard->value_heads.count * config->value_dim;
    int64_t attention_out = (int64_t)shard->heads.count * config->head_dim;
    uint64_t projected = largest(
        (int64_t)largest(shard_gdn_rows(shard, config), shard_attention_rows(shard, config)),
        2 * (int64_t)shard->intermediate.count);
    uint64_t middle = (uint64_t)shard->intermediate.count;
    uint64_t routing = 0;
    if (config->experts > 0) {
        uint64_t picks = (uint64_t)config->experts_per_token;
        middle = picks * (uint64_t)shard->expert_intermediate.count +
                 (uint64_t)shard->shared_intermediate.count;
        routing = ((uint64_t)config->experts + 1 + 2 * picks + 1) * 4;
    }
    // residual, normed, hidden, partial, and twice hidden for the MTP head's input
    uint64_t rows =
        6 * hidden + projected + largest(gdn_out, attention_out) + (uint64_t)gdn_out + middle;
    return rows * 2 + routing + TABLE_BYTES_PER_TOKEN;
}

// What the blocks of a step leave for one another: struct attention_workspace.
static uint64_t attention_parts_bytes(const struct model_config *config)
{
    uint64_t queries = (uint64_t)ATTENTION_PARTS * ATTENTION_PART_QUERIES;
    if (config->head_dim != ATTENTION_PART_HEAD_DIM)
        return 0;
    return aligned(queries * ATTENTION_PART_HEAD_DIM * 4) + aligned(queries * 2 * 4) +
           aligned(ATTENTION_PARTS * ATTENTION_PART_BORDER_BYTES);
}

// What the experts' products and lists take: moe_products_bytes and moe_lists_count of kernels.
static uint64_t expert_bytes(const struct model_config *config, uint64_t tokens)
{
    uint64_t picks = (uint64_t)config->experts_per_token, experts = (uint64_t)config->experts;
    uint64_t row = (picks + 1) * (uint64_t)config->hidden;
    uint64_t tokens_float = tokens < EXPERT_FLOAT_TOKENS_MAX ? tokens : EXPERT_FLOAT_TOKENS_MAX;
    if (experts == 0)
        return 0;
    return largest((int64_t)(tokens * row * 2), (int64_t)(tokens_float * row * 4)) +
           (tokens * picks + 2 * (experts + 1)) * 4;
}

// Everything that grows with the size of a step, and the tables.
static uint64_t workspace_bytes(const struct model_config *config, const struct shard *shard,
                                const struct memory_plan *plan)
{
    uint64_t tokens = (uint64_t)plan->step_tokens, sequences = (uint64_t)plan->sequences;
    uint64_t ranks = (uint64_t)shard->ranks;
    uint64_t samples = sequences * VERIFY_ROWS_MAX < tokens ? sequences * VERIFY_ROWS_MAX : tokens;
    uint64_t bytes = TABLE_BYTES + tokens * token_bytes(config, shard);
    bytes += attention_parts_bytes(config);
    bytes += expert_bytes(config, tokens);
    bytes += samples * ((uint64_t)shard->vocab.count * 4 + (1 + 3 * ranks) * CANDIDATE_BYTES);
    bytes += gdn_workspace_bytes(config, shard, tokens);
    bytes += sequences * (TABLE_BYTES_PER_SEQUENCE + 4 * (uint64_t)plan->pages_per_sequence);
    bytes += sequences * 2 * (uint64_t)shard->vocab.count; // how often each token was drawn
    bytes += sequences * SEQUENCE_LISTS_BYTES;
    bytes += sequences * 2 * (uint64_t)config->hidden; // the MTP head's last hidden rows
    // What waits in the slot that is never opened.
    bytes += (uint64_t)(config->layers - attention_layers(config)) * PENDING_PARITIES * 2 *
             sizeof(int32_t);
    if (ranks > 1) // the exchange's inbox: two parities, a lane per rank
        bytes += 2 * ranks * aligned(tokens * (uint64_t)config->hidden * 2);
    return bytes;
}

// What the solver works with.
struct problem {
    const struct model_config *config;
    const struct shard *shard;
    uint64_t left_bytes; // for everything but weights
    // A page with its token ids, a slot with its pending rows and its last hidden row.
    uint64_t page_bytes, slot_bytes, checkpoint_bytes;
    int checkpoints; // as wished
    int pages;       // as wished
    int recorded;
};

// All but pages.
static uint64_t fixed_bytes(const struct problem *problem, const struct memory_plan *plan)
{
    return workspace_bytes(problem->config, problem->shard, plan) +
           memory_plan_recorded_bytes(plan, problem->config, problem->shard) +
           (uint64_t)plan->sequences * problem->slot_bytes +
           (uint64_t)plan->checkpoints * problem->checkpoint_bytes;
}

static bool fits(const struct problem *problem, const struct memory_plan *plan, uint64_t pages)
{
    return fixed_bytes(problem, plan) + pages * problem->page_bytes <= problem->left_bytes;
}

static int round_up_to_page(int64_t tokens)
{
    return (int)((tokens + TOKENS_PER_PAGE - 1) / TOKENS_PER_PAGE * TOKENS_PER_PAGE);
}

// Halves the step until it takes at most a quarter of what is left and one sequence fits beside
// it. False when nothing is small enough.
static bool choose_step(struct memory_plan *plan, const struct problem *problem)
{
    struct memory_plan least = *plan;
    least.sequences = 1;
    for (;;) {
        least.step_tokens = plan->step_tokens;
        least.pages_per_sequence = 1;
        uint64_t step_bytes = workspace_bytes(problem->config, problem->shard, plan);
        bool least_fits = fits(problem, &least, 1);
        if (least_fits && step_bytes <= problem->left_bytes / 4)
            return true;
        if (plan->step_tokens == TOKENS_PER_PAGE)
            return least_fits;
        plan->step_tokens = round_up_to_page(plan->step_tokens / 2);
    }
}

// Pages for one sequence of full length (or half of what is left, when that is less) and for a page
// each.
static uint64_t pages_reserved(const struct memory_plan *plan, const struct problem *problem)
{
    uint64_t pages = (uint64_t)plan->pages_per_sequence;
    if (problem->page_bytes > 0 && pages > problem->left_bytes / 2 / problem->page_bytes)
        pages = problem->left_bytes / 2 / problem->page_bytes;
    return pages > (uint64_t)plan->sequences ? pages : (uint64_t)plan->sequences;
}

// As many sequences as leave room for the pages that are reserved.
static void choose_sequences(struct memory_plan *plan, const struct problem *problem)
{
    while (plan->sequences > 1 && !fits(problem, plan, pages_reserved(plan, problem)))
        plan->sequences--;
}

// Checkpoints take a share of what pages would have, and nothing of the reserved ones.
static void choose_checkpoints(struct memory_plan *plan, const struct problem *problem)
{
    int64_t most = problem->checkpoints > 0 ? problem->checkpoints
                                            : (int64_t)plan->sequences * CHECKPOINTS_PER_SEQUENCE;
    uint64_t reserved = pages_reserved(plan, problem);
    if (problem->checkpoints < 0 || !fits(problem, plan, reserved))
        return;
    uint64_t room = problem->left_bytes - fixed_bytes(problem, plan);
    uint64_t share = problem->checkpoints > 0 ? room : room / PREFIX_SHARE;
    if (share > room - reserved * problem->page_bytes)
        share = room - reserved * problem->page_bytes;
    if (most > CHECKPOINTS_MAX)
        most = CHECKPOINTS_MAX;
    if ((uint64_t)most > share / problem->checkpoint_bytes)
        most = (int64_t)(share / problem->checkpoint_bytes);
    plan->checkpoints = (int32_t)most;
}

// The rest goes to KV pages, up to what the sequences could use and checkpoints could stand on.
static void choose_pages(struct memory_plan *plan, const struct problem *problem)
{
    uint64_t width = (uint64_t)plan->pages_per_sequence;
    uint64_t most =
        (uint64_t)plan->sequences * width +
        (uint64_t)plan->checkpoints * (width < PAGES_PER_CHECKPOINT ? width : PAGES_PER_CHECKPOINT);
    if (problem->pages > 0 && most > (uint64_t)problem->pages)
        most = (uint64_t)problem->pages;
    uint64_t used = fixed_bytes(problem, plan);
    if (used + problem->page_bytes >
        problem->left_bytes) { // a table row of full length is too wide
        plan->pages_per_sequence = 1;
        used = fixed_bytes(problem, plan);
        most = 1;
    }
    uint64_t pages = most;
    if (problem->page_bytes > 0 && most > (problem->left_bytes - used) / problem->page_bytes)
        pages = (problem->left_bytes - used) / problem->page_bytes;
    plan->pages = (int32_t)(pages < INT32_MAX ? pages : INT32_MAX);
    if (plan->pages < plan->pages_per_sequence)
        plan->pages_per_sequence = plan->pages;
    if (plan->sequence_tokens > plan->pages_per_sequence * TOKENS_PER_PAGE)
        plan->sequence_tokens = plan->pages_per_sequence * TOKENS_PER_PAGE;
}

static enum status check_wishes(const struct memory_wishes *wishes, struct error *error)
{
    const struct {
        const char *name;
        int value, max;
    } counts[] = {
        {"sequences at once (--max-num-seqs)", wishes->sequences, SEQUENCES_MAX},
        {"tokens of a sequence (--max-model-len)", wishes->sequence_tokens, SEQUENCE_TOKENS_MAX},
        {"tokens of a step (--max-num-batched-tokens)", wishes->step_tokens, STEP_TOKENS_MAX},
        {"KV pages (--kv-pages)", wishes->pages, MEMORY_PAGES_MAX},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        if (counts[i].value < 0 || counts[i].value > counts[i].max)
            return error_set(error, E_INPUT, "%d %s; 1 to %d are served, 0 chooses",
                             counts[i].value, counts[i].name, counts[i].max);
    }
    if (wishes->checkpoints < -1 || wishes->checkpoints > CHECKPOINTS_MAX)
        return error_set(error, E_INPUT, "%d checkpoints of prefix reuse; -1 to %d are served",
                         wishes->checkpoints, CHECKPOINTS_MAX);
    double share = wishes->utilization;
    if (!(share >= 0 && share <= 1)) // 0 chooses; also refuses NaN
        return error_set(error, E_INPUT,
                         "utilization of memory %g (--gpu-memory-utilization); a number in (0, 1] "
                         "is expected",
                         share);
    return OK;
}

// The wishes with defaults filled in and the model's own limit applied.
static struct memory_plan plan_of_wishes(const struct model_config *config,
                                         const struct memory_wishes *wishes)
{
    struct memory_plan plan = {.drafts_max = wishes->drafts_max, .recorded = wishes->recorded};
    int longest = config->max_position_embeddings;
    if (longest > SEQUENCE_TOKENS_MAX)
        longest = SEQUENCE_TOKENS_MAX;
    plan.sequences = wishes->sequences > 0 ? wishes->sequences : SEQUENCES_DEFAULT;
    if (wishes->pages > 0 && plan.sequences > wishes->pages)
        plan.sequences = wishes->pages;
    plan.sequence_tokens = wishes->sequence_tokens > 0 ? wishes->sequence_tokens : longest;
    if (plan.sequence_tokens > longest)
        plan.sequence_tokens = longest;
    plan.pages_per_sequence = round_up_to_page(plan.sequence_tokens) / TOKENS_PER_PAGE;
    plan.bf16_state = wishes->bf16_state;
    plan.step_tokens =
        round_up_to_page(wishes->step_tokens > 0 ? wishes->step_tokens : STEP_TOKENS_DEFAULT);
    return plan;
}

static enum status does_not_fit(const struct problem *problem, uint64_t weight_bytes,
                                uint64_t budget_bytes, struct error *error)
{
    struct memory_plan least = {.sequences = 1,
                                .step_tokens = TOKENS_PER_PAGE,
                                .pages_per_sequence = 1,
                                .recorded = problem->recorded};
    uint64_t need = weight_bytes + problem->page_bytes + fixed_bytes(problem, &least);
    return error_set(error, E_LIMIT,
                     "one sequence of %d tokens needs %.3f GB on each of %d ranks (weights %.3f "
                     "GB); %.3f GB may be used",
                     TOKENS_PER_PAGE, (double)need * 1e-9, problem->shard->ranks,
                     (double)weight_bytes * 1e-9, (double)budget_bytes * 1e-9);
}

void memory_plan_count_bytes(struct memory_plan *plan, const struct model_config *config,
                             const struct shard *shard, bool mtp)
{
    uint64_t sequences = (uint64_t)plan->sequences;
    plan->weight_bytes = memory_plan_weight_bytes(config, shard, mtp);
    plan->kv_bytes = (uint64_t)plan->pages * memory_plan_page_bytes(config, shard, mtp);
    plan->state_bytes = sequences * memory_plan_slot_bytes(config, shard, plan->bf16_state);
    plan->pending_bytes =
        sequences * memory_plan_pending_bytes(config, shard, plan->bf16_state, plan->drafts_max);
    plan->workspace_bytes = workspace_bytes(config, shard, plan);
    plan->prefix_bytes = 0;
    if (plan->checkpoints > 0) {
        plan->prefix_bytes = (uint64_t)plan->checkpoints *
                                 memory_plan_checkpoint_bytes(config, shard, plan->bf16_state) +
                             (uint64_t)plan->pages * PAGE_TOKEN_IDS_BYTES +
                             sequences * (uint64_t)config->hidden * 2;
    }
    plan->recorded_bytes = memory_plan_recorded_bytes(plan, config, shard);
    plan->total_bytes = plan->weight_bytes + plan->kv_bytes + plan->state_bytes +
                        plan->pending_bytes + plan->workspace_bytes + plan->prefix_bytes +
                        plan->recorded_bytes;
}

enum status memory_plan_make(struct memory_plan *out, const struct model_config *config,
                             const struct shard *shard, const struct memory_wishes *wishes,
                             struct error *error)
{
    TRY(check_wishes(wishes, error));
    double share = wishes->utilization > 0 ? wishes->utilization : UTILIZATION_DEFAULT;
    uint64_t there = wishes->bytes_free < BYTES_FREE_MAX ? wishes->bytes_free : BYTES_FREE_MAX;
    uint64_t budget = (uint64_t)((double)there * share);
    struct memory_plan plan = plan_of_wishes(config, wishes);
    int step_wished = plan.step_tokens, longest = plan.sequence_tokens;
    plan.weight_bytes = memory_plan_weight_bytes(config, shard, wishes->mtp);
    struct problem problem = {
        .config = config,
        .shard = shard,
        .left_bytes = budget > plan.weight_bytes ? budget - plan.weight_bytes : 0,
        .page_bytes = memory_plan_page_bytes(config, shard, wishes->mtp),
        .slot_bytes =
            memory_plan_slot_bytes(config, shard, wishes->bf16_state) +
            memory_plan_pending_bytes(config, shard, wishes->bf16_state, wishes->drafts_max),
        .checkpoint_bytes = memory_plan_checkpoint_bytes(config, shard, wishes->bf16_state),
        .checkpoints = wishes->checkpoints,
        .pages = wishes->pages,
        .recorded = wishes->recorded,
    };
    if (wishes->checkpoints >= 0) {
        problem.page_bytes += PAGE_TOKEN_IDS_BYTES;
        problem.slot_bytes += (uint64_t)config->hidden * 2;
    }
    if (!choose_step(&plan, &problem))
        return does_not_fit(&problem, plan.weight_bytes, budget, error);
    choose_sequences(&plan, &problem);
    choose_checkpoints(&plan, &problem);
    choose_pages(&plan, &problem);

    plan.clamped = plan.sequences < wishes->sequences || plan.sequence_tokens < longest ||
                   plan.sequence_tokens < wishes->sequence_tokens ||
                   (wishes->step_tokens > 0 && plan.step_tokens < step_wished) ||
                   plan.checkpoints < wishes->checkpoints;
    memory_plan_count_bytes(&plan, config, shard, wishes->mtp);
    ASSERT(plan.total_bytes <= budget);
    *out = plan;
    return OK;
}

void memory_plan_print(char *text, size_t text_bytes, const struct memory_plan *plan)
{
    const double gb = 1e-9;
    int64_t tokens = (int64_t)plan->pages * TOKENS_PER_PAGE;
    char recorded[80] = "";
    if (plan->recorded > 0)
        snprintf(recorded, sizeof recorded, "  recorded     %10.3f  %d steps, by an estimate\n",
                 (double)plan->recorded_bytes * gb, memory_plan_recorded_steps(plan));
    snprintf(text, text_bytes,
             "memory of a rank      GB\n"
             "  weights      %10.3f\n"
             "  KV pages     %10.3f  %" PRId32 " pages of %d tokens: %" PRId64 " tokens\n"
             "  states       %10.3f  %" PRId32 " sequences at once, %s\n"
             "  pending rows %10.3f  %d per sequence\n"
             "  prefix reuse %10.3f  %" PRId32 " checkpoints\n"
             "  workspace    %10.3f  steps of up to %" PRId32 " tokens\n"
             "%s"
             "  total        %10.3f\n"
             "longest sequence %" PRId32 " tokens%s\n",
             (double)plan->weight_bytes * gb, (double)plan->kv_bytes * gb, plan->pages,
             TOKENS_PER_PAGE, tokens, (double)plan->state_bytes * gb, plan->sequences,
             plan->bf16_state ? "bf16" : "f32", (double)plan->pending_bytes * gb,
             pending_rows(plan->bf16_state, plan->drafts_max), (double)plan->prefix_bytes * gb,
             plan->checkpoints, (double)plan->workspace_bytes * gb, plan->step_tokens, recorded,
             (double)plan->total_bytes * gb, plan->sequence_tokens,
             plan->clamped ? " (less than asked for: cut to what fits)" : "");
}
