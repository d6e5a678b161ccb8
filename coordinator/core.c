// SPDX-License-Identifier: Apache-2.0
// core.c -- coord_step: dispatches an event to members.c and scheduler.c, admits requests, drains.
#include "coordinator/core.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/scheduler.h"

// Kept free in every list of actions for the end of all groups at once.
enum { ACTIONS_RESERVED = COORD_WORKERS_MAX + GROUPS_MAX };

static size_t align_up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

// STEP_ROWS_MAX requests may run in every group, some more may be closing.
static int32_t request_capacity(const struct coord_options *options)
{
    return options->queued_max + 2 * STEP_ROWS_MAX * options->groups;
}

// What a memory plan may ask for at most, before any is made.
static int32_t sequence_tokens_max(const struct coord_options *options)
{
    int32_t longest = options->config.max_position_embeddings;
    int32_t wished = options->wishes.sequence_tokens;
    longest = wished > 0 && wished < longest ? wished : longest;
    return longest < SEQUENCE_TOKENS_MAX ? longest : SEQUENCE_TOKENS_MAX;
}

static int32_t sequences_max(const struct coord_options *options)
{
    return options->wishes.sequences > 0 ? options->wishes.sequences : SEQUENCES_DEFAULT;
}

size_t coord_tables_ids(const struct coord_options *options)
{
    return (size_t)sequences_max(options) *
           (size_t)kv_pages_for_tokens(sequence_tokens_max(options));
}

int32_t coord_prefix_checkpoints(const struct coord_options *options)
{
    int32_t wished = options->wishes.checkpoints;
    return wished < 0 ? 0 : wished > 0 && wished < CHECKPOINTS_MAX ? wished : CHECKPOINTS_MAX;
}

int32_t coord_prefix_pages(const struct coord_options *options)
{
    // More than the memory plan gives to sequences and checkpoints can never be cached.
    int64_t holders = sequences_max(options) + (int64_t)coord_prefix_checkpoints(options);
    int64_t pages = holders * kv_pages_for_tokens(sequence_tokens_max(options));
    if (coord_prefix_checkpoints(options) == 0)
        return 0;
    return pages < COORD_PREFIX_PAGES_MAX ? (int32_t)pages : COORD_PREFIX_PAGES_MAX;
}

size_t coord_prefix_bytes(const struct coord_options *options)
{
    return prefix_cache_bytes(coord_prefix_pages(options), coord_prefix_checkpoints(options));
}

// The pool holds pool_tokens of prompts and what is drawn for those who run or have run: their
// number is bounded (COORD_PREEMPTED_MAX), each has at most a context. Most of it is never touched.
static int64_t pool_tokens_all(const struct coord_options *options)
{
    int64_t holders = (int64_t)sequences_max(options) * options->groups + COORD_PREEMPTED_MAX;
    int64_t blocks = token_pool_blocks(sequence_tokens_max(options));
    return (int64_t)token_pool_blocks(options->pool_tokens) * TOKEN_BLOCK_TOKENS +
           holders * blocks * TOKEN_BLOCK_TOKENS;
}

// Bytes of the arrays of a plan, which live in the coord's memory.
static size_t plan_bytes(void)
{
    return align_up(STEP_ROWS_MAX * sizeof(int32_t)) +
           align_up(STEP_ROWS_MAX * sizeof(struct step_copy)) +
           align_up(STEP_ROWS_MAX * sizeof(struct step_open)) +
           align_up(STEP_ROWS_MAX * sizeof(struct step_pages)) +
           align_up(STEP_ROWS_MAX * sizeof(struct step_plan_row)) +
           align_up(STEP_PAGE_IDS_MAX * sizeof(int32_t)) +
           align_up(STEP_PREFILL_TOKENS_MAX * sizeof(int32_t)) +
           align_up(STEP_LISTS_MAX * sizeof(int32_t));
}

static size_t logprobs_bytes(void)
{
    return align_up(STEP_LOGPROBS_MAX * sizeof(struct step_logprob));
}

size_t coord_bytes(const struct coord_options *options)
{
    size_t groups = (size_t)options->groups;
    return align_up(sizeof(struct coord)) + align_up(groups * sizeof(struct group_state)) +
           align_up(groups * kv_pages_bytes(COORD_PAGES_MAX)) +
           align_up(groups * coord_tables_ids(options) * sizeof(int32_t)) +
           align_up(groups * coord_prefix_bytes(options)) +
           groups * (plan_bytes() + COORD_FLIGHT_MAX * logprobs_bytes()) +
           align_up(requests_bytes(request_capacity(options))) +
           align_up(token_pool_bytes(pool_tokens_all(options)));
}

static void *place(uint8_t **at, size_t bytes)
{
    void *memory = *at;
    *at += align_up(bytes);
    return memory;
}

static void place_plan(struct step_plan *plan, uint8_t **at)
{
    plan->closes = (int32_t *)place(at, STEP_ROWS_MAX * sizeof *plan->closes);
    plan->copies = (struct step_copy *)place(at, STEP_ROWS_MAX * sizeof *plan->copies);
    plan->opens = (struct step_open *)place(at, STEP_ROWS_MAX * sizeof *plan->opens);
    plan->pages = (struct step_pages *)place(at, STEP_ROWS_MAX * sizeof *plan->pages);
    plan->rows = (struct step_plan_row *)place(at, STEP_ROWS_MAX * sizeof *plan->rows);
    plan->page_ids = (int32_t *)place(at, STEP_PAGE_IDS_MAX * sizeof *plan->page_ids);
    plan->tokens = (int32_t *)place(at, STEP_PREFILL_TOKENS_MAX * sizeof *plan->tokens);
    plan->lists = (int32_t *)place(at, STEP_LISTS_MAX * sizeof *plan->lists);
}

enum status coord_init(struct coord **out, void *memory, const struct coord_options *options,
                       struct error *error)
{
    struct shard shard;
    TRY(plan_check(options->groups, options->ranks, error));
    TRY(shard_make(&shard, &options->config, 0, options->ranks, error));
    if (options->speculative_tokens < SPECULATION_AUTO ||
        options->speculative_tokens > STEP_VERIFY_MAX - 1) {
        return error_set(error, E_INPUT,
                         "speculative-tokens is %d, accepted is 0 to %d, or %d for auto",
                         options->speculative_tokens, STEP_VERIFY_MAX - 1, SPECULATION_AUTO);
    }
    if (options->draft_vocab < 0 || options->draft_vocab > options->config.vocab) {
        return error_set(error, E_INPUT, "draft-vocab is %d, accepted is 0 to %d",
                         options->draft_vocab, options->config.vocab);
    }
    // Every request passes through the queue, also one that runs at once.
    if (options->queued_max < 1 || options->queued_max > 1 << 20) {
        return error_set(error, E_INPUT, "max-queued is %d, accepted is 1 to %d",
                         options->queued_max, 1 << 20);
    }
    if (options->checkpoint_interval < 0 || options->checkpoint_interval % TOKENS_PER_PAGE != 0) {
        return error_set(error, E_INPUT,
                         "checkpoint-interval is %d tokens, accepted are multiples of %d",
                         options->checkpoint_interval, TOKENS_PER_PAGE);
    }
    uint8_t *at = (uint8_t *)memory;
    struct coord *coord = (struct coord *)place(&at, sizeof *coord);
    memset(coord, 0, sizeof *coord);
    coord->options = *options;
    coord->deadline_next_ns = UINT64_MAX;
    coord->config_hash = config_hash(&options->config);
    size_t groups_bytes = (size_t)options->groups * sizeof(struct group_state);
    coord->groups = (struct group_state *)place(&at, groups_bytes);
    memset(coord->groups, 0, groups_bytes);
    coord->memory_pages = place(&at, (size_t)options->groups * kv_pages_bytes(COORD_PAGES_MAX));
    coord->memory_prefix = place(&at, (size_t)options->groups * coord_prefix_bytes(options));
    coord->memory_tables = (int32_t *)place(&at, (size_t)options->groups *
                                                     coord_tables_ids(options) * sizeof(int32_t));
    for (int32_t g = 0; g < options->groups; g++) {
        place_plan(&coord->groups[g].plan, &at);
        for (int i = 0; i < COORD_FLIGHT_MAX; i++)
            coord->groups[g].flights[i].logprobs =
                (struct step_logprob *)place(&at, logprobs_bytes());
        request_list_init(&coord->groups[g].running);
    }
    int32_t capacity = request_capacity(options);
    requests_init(&coord->requests, place(&at, requests_bytes(capacity)), capacity);
    int64_t pool_tokens = pool_tokens_all(options);
    token_pool_init(&coord->pool, place(&at, token_pool_bytes(pool_tokens)), pool_tokens);
    coord->prompt_blocks_free = token_pool_blocks(options->pool_tokens);
    ASSERT((size_t)(at - (uint8_t *)memory) <= coord_bytes(options));
    *out = coord;
    return OK;
}

struct coord_action *coord_act(struct coord_actions *out, enum coord_action_type type)
{
    ASSERT(out->count < COORD_ACTIONS_MAX);
    struct coord_action *action = &out->list[out->count++];
    memset(action, 0, sizeof *action);
    action->type = type;
    return action;
}

bool coord_room(struct coord_actions *out, int count)
{
    if (out->count + count <= COORD_ACTIONS_MAX - ACTIONS_RESERVED)
        return true;
    out->more = true;
    return false;
}

// ---- requests ----

// The longest sequence that every placed group can hold, so that what is accepted can run anywhere;
// before any is placed, what the model and the operator allow.
static int32_t context_limit(const struct coord *coord)
{
    int32_t limit = sequence_tokens_max(&coord->options);
    for (int32_t g = 0; g < coord->options.groups; g++) {
        const struct group_state *group = &coord->groups[g];
        bool placed = group->phase == GROUP_LOADING || group->phase == GROUP_READY;
        if (placed && group->memory.sequence_tokens < limit)
            limit = group->memory.sequence_tokens;
    }
    return limit;
}

static bool all_failed(const struct coord *coord)
{
    for (int32_t g = 0; g < coord->options.groups; g++) {
        if (coord->groups[g].phase != GROUP_FAILED && coord->groups[g].phase != GROUP_ENDED)
            return false;
    }
    return true;
}

static bool within_lists(const struct coord_sampling *sampling)
{
    return sampling->bias_count >= 0 && sampling->bias_count <= STEP_BIASES_MAX &&
           sampling->allowed_count >= 0 && sampling->allowed_count <= STEP_ALLOWED_MAX &&
           sampling->words_count >= 0 && sampling->words_count <= STEP_WORDS_MAX;
}

static bool within_logprobs(int32_t wanted)
{
    return wanted >= 0 && wanted <= 1 + STEP_LOGPROBS_TOP_MAX;
}

// The first reason why this request cannot be served, written to coord->text; OK = none.
static enum status refuse_reason(struct coord *coord, const struct coord_event *event,
                                 int32_t limit)
{
    char *text = coord->text;
    const struct coord_sampling *sampling = &event->submit.sampling;
    int32_t tokens = event->submit.prompt_tokens;
    if (coord->draining || coord->shutting_down) {
        snprintf(text, sizeof coord->text, "the server drains and takes no new requests");
        return E_OVERLOADED;
    }
    if (all_failed(coord)) {
        snprintf(text, sizeof coord->text, "no group of workers is left: %.400s",
                 coord->groups[0].failure);
        return E_FAILED;
    }
    if (tokens < 1 || tokens >= limit) {
        snprintf(text, sizeof coord->text, "the prompt has %d tokens, accepted is 1 to %d", tokens,
                 limit - 1);
        return E_INPUT;
    }
    if (sampling->max_tokens != -1 && sampling->max_tokens < 1) {
        snprintf(text, sizeof coord->text, "max_tokens is %d, accepted is 1 and more",
                 sampling->max_tokens);
        return E_INPUT;
    }
    if (!isfinite(sampling->temperature) || sampling->temperature < 0) {
        snprintf(text, sizeof coord->text, "temperature is %g, accepted is 0 and more",
                 (double)sampling->temperature);
        return E_INPUT;
    }
    if (sampling->top_k < 0 || !(sampling->top_p >= 0 && sampling->top_p <= 1) ||
        !(sampling->min_p >= 0 && sampling->min_p <= 1)) {
        snprintf(text, sizeof coord->text,
                 "top_k %d, top_p %g, min_p %g: accepted is 0 and more, 0 to 1, 0 to 1",
                 sampling->top_k, (double)sampling->top_p, (double)sampling->min_p);
        return E_INPUT;
    }
    if (!within_logprobs(sampling->logprobs) || !within_logprobs(sampling->prompt_logprobs)) {
        snprintf(text, sizeof coord->text, "logprobs %d, prompt_logprobs %d: accepted is 0 to %d",
                 sampling->logprobs - 1, sampling->prompt_logprobs - 1, STEP_LOGPROBS_TOP_MAX);
        return E_INPUT;
    }
    if (!within_lists(sampling)) {
        snprintf(text, sizeof coord->text,
                 "%d biases, %d allowed ids, %d numbers of banned words: accepted is up to %d, %d, "
                 "%d",
                 sampling->bias_count, sampling->allowed_count, sampling->words_count,
                 STEP_BIASES_MAX, STEP_ALLOWED_MAX, STEP_WORDS_MAX);
        return E_INPUT;
    }
    if (sampling->stop_count < 0 || sampling->stop_count > STEP_STOP_IDS_MAX) {
        snprintf(text, sizeof coord->text, "%d stop ids, accepted is up to %d",
                 sampling->stop_count, STEP_STOP_IDS_MAX);
        return E_INPUT;
    }
    int32_t waiting = coord->requests.queued.count - coord->requests.preempted;
    if (waiting >= coord->options.queued_max) {
        snprintf(text, sizeof coord->text, "%d requests are waiting already, the limit is %d",
                 waiting, coord->options.queued_max);
        return E_OVERLOADED;
    }
    return OK;
}

static void refuse_request(struct coord *coord, uint64_t number, enum status status,
                           struct coord_actions *out)
{
    struct coord_action *action = coord_act(out, ACTION_ERROR);
    action->request = number;
    action->status = status;
    action->text = coord->text;
    coord->requests_failed++;
}

static void submit(struct coord *coord, const struct coord_event *event, struct coord_actions *out)
{
    uint64_t number = event->submit.request;
    int32_t tokens = event->submit.prompt_tokens;
    int32_t limit = context_limit(coord);
    enum status status = refuse_reason(coord, event, limit);
    if (status != OK) {
        refuse_request(coord, number, status, out);
        return;
    }
    int32_t index = requests_take(&coord->requests, number);
    if (index == REQUEST_NONE_INDEX) {
        snprintf(coord->text, sizeof coord->text, "all %d places for requests are taken",
                 coord->requests.capacity);
        refuse_request(coord, number, E_OVERLOADED, out);
        return;
    }
    struct request *request = &coord->requests.table[index];
    int32_t lists = coord_sampling_lists(&event->submit.sampling);
    int32_t blocks = token_pool_blocks(tokens) + token_pool_blocks(lists);
    if (blocks > coord->prompt_blocks_free) {
        requests_give_back(&coord->requests, index);
        snprintf(coord->text, sizeof coord->text,
                 "the pool of prompt tokens is full (%d tokens asked, %lld free)", tokens + lists,
                 (long long)coord->prompt_blocks_free * TOKEN_BLOCK_TOKENS);
        refuse_request(coord, number, E_OVERLOADED, out);
        return;
    }
    bool taken = token_pool_take(&coord->pool, &request->tokens, event->submit.prompt, tokens) &&
                 token_pool_take(&coord->pool, &request->lists, event->submit.lists, lists);
    ASSERT(taken);
    coord->prompt_blocks_free -= blocks;
    request->prompt_tokens = tokens;
    request->arrival = coord->arrivals++;
    request_times_begin(&request->times, event->submit.arrived_ns, coord->now_ns);
    scheduler_find_turns(coord, request, event->submit.prompt);
    request->priority = event->submit.priority;
    if (event->submit.timeout_ns > 0 && event->submit.timeout_ns < UINT64_MAX - coord->now_ns) {
        request->deadline_ns = coord->now_ns + event->submit.timeout_ns;
        if (request->deadline_ns < coord->deadline_next_ns)
            coord->deadline_next_ns = request->deadline_ns;
    }
    request->sampling = event->submit.sampling;
    int32_t rest = limit - tokens;
    int32_t wanted = request->sampling.max_tokens;
    request->tokens_end = tokens + (wanted == -1 || wanted > rest ? rest : wanted);
    request->phase = PHASE_QUEUED;
    request_list_insert(&coord->requests.queued, &coord->requests, index);
    coord->tokens_in += (uint64_t)tokens;
    coord_act(out, ACTION_ACCEPTED)->request = number;
}

// ---- ends ----

static void check_drained(struct coord *coord, struct coord_actions *out)
{
    if (!coord->draining || coord->drained || coord->requests.queued.count > 0)
        return;
    for (int32_t g = 0; g < coord->options.groups; g++) {
        if (coord->groups[g].running.count > 0)
            return;
    }
    members_end_all(coord, out);
    coord_act(out, ACTION_DRAINED);
    coord->drained = true;
}

static void shut_down(struct coord *coord, struct coord_actions *out)
{
    coord->shutting_down = true;
    coord->draining = true;
    for (int32_t g = 0; g < coord->options.groups; g++) {
        if (coord->groups[g].phase == GROUP_LOADING || coord->groups[g].phase == GROUP_READY)
            members_fail_group(coord, g, out, "the server was told to end at once");
        else if (coord->groups[g].phase == GROUP_FORMING)
            coord->groups[g].phase = GROUP_ENDED;
    }
}

static void dispatch(struct coord *coord, const struct coord_event *event,
                     struct coord_actions *out)
{
    int32_t index;
    switch (event->type) {
    case EVENT_TICK: break;
    case EVENT_HELLO: members_hello(coord, event, out); break;
    case EVENT_READY: members_ready(coord, event, out); break;
    case EVENT_HEARTBEAT: members_heartbeat(coord, event); break;
    case EVENT_FAILURE: members_failure(coord, event, out); break;
    case EVENT_WORKER_GONE: members_gone(coord, event, out); break;
    case EVENT_REPORT:
        coord->workers[event->worker].heard_ns = coord->now_ns;
        if (members_group(coord, event->worker, event->report->group, event->report->rank,
                          event->report->epoch) != NULL)
            scheduler_report(coord, event->report->group, event->report, out);
        break;
    case EVENT_SUBMIT: submit(coord, event, out); break;
    case EVENT_FINISH:
        index = requests_find(&coord->requests, event->finish.request);
        if (index != REQUEST_NONE_INDEX)
            scheduler_finish(coord, index, event->finish.reason, out);
        break;
    case EVENT_DRAIN: coord->draining = true; break;
    case EVENT_SHUTDOWN: shut_down(coord, out); break;
    }
}

void coord_step(struct coord *coord, const struct coord_event *event, struct coord_actions *out)
{
    ASSERT(event->now_ns >= coord->now_ns);
    uint64_t paused_ns = coord->now_ns == 0 ? 0 : event->now_ns - coord->now_ns;
#ifdef PLANT_pause_blamed
    paused_ns = 0;
#endif
    coord->now_ns = event->now_ns;
    if (paused_ns > COORD_PAUSE_NS)
        members_forgive(coord, paused_ns);
    out->count = 0;
    out->more = false;
    dispatch(coord, event, out);
    members_check_time(coord, out);
    for (int32_t g = 0; g < coord->options.groups; g++)
        scheduler_apply(coord, g, out);
    scheduler_tell_failure(coord, out);
    scheduler_check_deadlines(coord, out);
    for (int32_t g = 0; g < coord->options.groups; g++)
        scheduler_pump(coord, g, out);
    check_drained(coord, out);
}

int32_t coord_worker(const struct coord *coord, int32_t group, int rank)
{
    return coord->groups[group].workers[rank];
}

// Free for a new sequence: those that only prefix reuse holds are given up for it.
static int pages_free(const struct group_state *group)
{
    return group->pages.pages_free + prefix_cache_evictable(&group->prefix, PREFIX_NONE);
}

void coord_status(const struct coord *coord, struct coord_status *out)
{
    *out = (struct coord_status){
        .groups = coord->options.groups,
        .vocab = coord->options.vocab_real,
        .draft_vocab = coord->options.draft_vocab,
        .queued = coord->requests.queued.count,
        .queued_max = coord->options.queued_max,
        .preempted = coord->requests.preempted,
        .pool_tokens = (int64_t)token_pool_blocks(coord->options.pool_tokens) * TOKEN_BLOCK_TOKENS,
        .pool_tokens_free = (int64_t)coord->prompt_blocks_free * TOKEN_BLOCK_TOKENS,
        .preemptions = coord->preemptions,
        .timeouts = coord->timeouts,
        .drafts = coord->drafts,
        .steps = coord->steps,
        .requests_done = coord->requests_done,
        .requests_failed = coord->requests_failed,
        .tokens_in = coord->tokens_in,
        .tokens_out = coord->tokens_out,
        .epochs = coord->epochs,
        .draining = coord->draining,
        .failed = all_failed(coord),
    };
    for (int32_t g = 0; g < coord->options.groups; g++) {
        const struct group_state *group = &coord->groups[g];
        out->groups_ready += group->phase == GROUP_READY;
        out->running += group->running.count;
        out->slots += group->slots.slots;
        out->slots_free += group->slots.slots_free;
        out->pages += group->pages.pages;
        out->pages_free += pages_free(group);
        out->pages_cached += prefix_cache_evictable(&group->prefix, PREFIX_NONE);
        out->checkpoints += group->prefix.checkpoints_max;
        out->checkpoints_free += group->prefix.checkpoints_max - group->prefix.checkpoints_used -
                                 group->prefix.checkpoints_reserved;
        out->prefix_queries += group->prefix.counts.query_tokens;
        out->prefix_hits += group->prefix.counts.hit_tokens;
        out->prefix_pages_evicted += group->prefix.counts.pages_evicted;
        out->prefix_checkpoints_saved += group->prefix.counts.checkpoints_saved;
        out->prefix_checkpoints_evicted += group->prefix.counts.checkpoints_evicted;
    }
}

static void rank_status(const struct coord *coord, const struct group_state *group, int rank,
                        struct coord_rank_status *out)
{
    *out = (struct coord_rank_status){.is_here = false};
    bool placed = group->phase == GROUP_LOADING || group->phase == GROUP_READY;
    if (!placed || group->workers[rank] < 0)
        return;
    const struct worker *worker = &coord->workers[group->workers[rank]];
    out->is_here = true;
    out->is_ready = worker->phase == WORKER_READY;
    out->pid = worker->hello.pid;
    memcpy(out->host, worker->hello.host, sizeof out->host);
    out->heard_ns = coord->now_ns - worker->heard_ns;
    out->step_begun = worker->beat.step_begun;
    out->step_done = worker->beat.step_done;
    out->exchange_epoch = worker->beat.exchange_epoch;
}

void coord_group_status(const struct coord *coord, int group_index, struct coord_group_status *out)
{
    const struct group_state *group = &coord->groups[group_index];
    *out = (struct coord_group_status){.phase = group->phase,
                                       .epoch = group->epoch,
                                       .step_sent = group->step_sent,
                                       .step_done = group->step_done,
                                       .running = group->running.count,
                                       .slots = group->slots.slots,
                                       .slots_free = group->slots.slots_free,
                                       .pages = group->pages.pages,
                                       .pages_free = pages_free(group),
                                       .ranks_count = coord->options.ranks};
    for (int rank = 0; rank < coord->options.ranks; rank++)
        rank_status(coord, group, rank, &out->ranks[rank]);
}
