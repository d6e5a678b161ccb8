// SPDX-License-Identifier: Apache-2.0
// members.c -- workers come (HELLO), get a place, load, say READY, beat, and fall silent. Timers:
//   HEARTBEAT_TIMEOUT  a placed worker that says nothing for so long is dead
//   LOAD_TIMEOUT       from PLACE to READY of the whole group
//   STEP_TIMEOUT       from sending a plan to its last report
// A dead or disagreeing rank ends the epoch of its whole group.
#include "coordinator/coord.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "parallel/base/mix.h"

#define MS_NS 1000000u

static const char *host_of(const struct worker *worker)
{
    return worker->hello.host[0] != '\0' ? worker->hello.host : "an unnamed host";
}

static void refuse(struct coord *coord, int32_t worker, struct coord_actions *out, const char *text)
{
    snprintf(coord->refuse.text, sizeof coord->refuse.text, "%s", text);
    struct coord_action *action = coord_act(out, ACTION_SEND_REFUSE);
    action->worker = worker;
    action->refuse = &coord->refuse;
    coord->workers[worker].phase = WORKER_FREE;
}

// The first difference between a worker and what this deployment needs, or NULL.
static const char *mismatch(struct coord *coord, const struct hello *hello, char text[320])
{
    const struct hello *first = NULL;
    for (int i = 0; i < COORD_WORKERS_MAX && first == NULL; i++) {
        if (coord->workers[i].phase != WORKER_FREE)
            first = &coord->workers[i].hello;
    }
    if (hello->version != WIRE_VERSION) {
        snprintf(text, 320, "protocol version %u, this coordinator speaks %u", hello->version,
                 (unsigned)WIRE_VERSION);
    } else if (strcmp(hello->build, coord->options.build) != 0) {
        snprintf(text, 320, "build '%s', this coordinator is '%s'", hello->build,
                 coord->options.build);
    } else if (hello->config_hash != coord->config_hash) {
        snprintf(text, 320, "model config %016llx, this coordinator serves %016llx",
                 (unsigned long long)hello->config_hash, (unsigned long long)coord->config_hash);
    } else if (first != NULL && hello->has_mtp != first->has_mtp) {
        snprintf(text, 320, "its checkpoint %s the mtp head, the first worker's %s",
                 hello->has_mtp ? "has" : "lacks", first->has_mtp ? "has" : "lacks");
    } else if (first != NULL && strcmp(hello->backend, first->backend) != 0) {
        snprintf(text, 320, "backend '%s', the first worker has '%s'", hello->backend,
                 first->backend);
    } else if (first != NULL && hello->nccl_version != first->nccl_version) {
        snprintf(text, 320, "NCCL %u, the first worker has %u", hello->nccl_version,
                 first->nccl_version);
    } else {
        return NULL;
    }
    return text;
}

// The first group that still forms, or -1.
static int32_t forming_group(const struct coord *coord)
{
    for (int32_t g = 0; g < coord->options.groups; g++) {
        if (coord->groups[g].phase == GROUP_FORMING)
            return g;
    }
    return -1;
}

// Picks `ranks` waiting workers: a worker that asked for a rank gets it if it is free, the others
// fill up in order of their connections. False when too few wait.
static bool choose(const struct coord *coord, int32_t chosen[RANKS_MAX])
{
    int ranks = coord->options.ranks, count = 0;
    bool used[COORD_WORKERS_MAX] = {false};
    for (int r = 0; r < ranks; r++)
        chosen[r] = -1;
    for (int w = 0; w < COORD_WORKERS_MAX; w++) {
        const struct worker *worker = &coord->workers[w];
        int32_t wish = worker->hello.local_rank;
        if (worker->phase == WORKER_WAITING && wish >= 0 && wish < ranks && chosen[wish] < 0) {
            chosen[wish] = w;
            used[w] = true;
            count++;
        }
    }
    for (int w = 0; w < COORD_WORKERS_MAX && count < ranks; w++) {
        if (coord->workers[w].phase != WORKER_WAITING || used[w])
            continue;
        int r = 0;
        while (chosen[r] >= 0)
            r++;
        chosen[r] = w;
        count++;
    }
    return count == ranks;
}

// Of the operator's entropy and the epoch's number.
static void make_id(uint8_t id[WIRE_ID_BYTES], const uint8_t entropy[32], uint64_t epoch)
{
    uint64_t words[4];
    memcpy(words, entropy, sizeof words);
    for (size_t i = 0; i < WIRE_ID_BYTES / 8; i++) {
        uint64_t word = mix_at(words[i % 4], epoch * 64 + i + 1);
        memcpy(id + i * 8, &word, 8);
    }
}

static void place_all(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    const struct memory_plan *memory = &group->memory;
    for (int r = 0; r < coord->options.ranks; r++) {
        struct place_message *place = &coord->places[r];
        *place = (struct place_message){
            .group = g,
            .rank = r,
            .ranks = coord->options.ranks,
            .epoch = group->epoch,
            .sequences = memory->sequences,
            .sequence_tokens = memory->sequence_tokens,
            .step_tokens = memory->step_tokens,
            .pages = memory->pages,
            .pages_per_sequence = memory->pages_per_sequence,
            .checkpoints = memory->checkpoints,
            .vocab_real = coord->options.vocab_real,
            .drafts_max = group->speculation.drafts_max,
            .draft_vocab = coord->options.draft_vocab,
            .synthetic_thousandths = coord->options.synthetic_thousandths,
            .bf16_state = memory->bf16_state,
        };
        make_id(place->id, coord->options.entropy, group->epoch);
        struct worker *worker = &coord->workers[group->workers[r]];
        worker->phase = WORKER_PLACED;
        worker->group = g;
        worker->rank = r;
        struct coord_action *action = coord_act(out, ACTION_SEND_PLACE);
        action->worker = group->workers[r];
        action->group = g;
        action->place = place;
    }
}

// The prefix cache's secret, of the operator's entropy.
static uint64_t prefix_key(const struct coord *coord)
{
    uint64_t words[4];
    memcpy(words, coord->options.entropy, sizeof words);
    return words[0] ^ words[1] * 0x9E3779B97F4A7C15u ^ words[2] ^ words[3];
}

static void init_group_pools(struct coord *coord, int32_t g)
{
    struct group_state *group = &coord->groups[g];
    uint8_t *memory = (uint8_t *)coord->memory_pages;
    if (group->memory.pages > COORD_PAGES_MAX)
        group->memory.pages = COORD_PAGES_MAX;
    state_slots_init(&group->slots, group->memory.sequences);
    kv_pages_init(&group->pages, memory + (size_t)g * kv_pages_bytes(COORD_PAGES_MAX),
                  group->memory.pages);
    int32_t cached = coord_prefix_pages(&coord->options);
    prefix_cache_init(&group->prefix,
                      (uint8_t *)coord->memory_prefix +
                          (size_t)g * coord_prefix_bytes(&coord->options),
                      group->memory.pages < cached ? group->memory.pages : cached,
                      group->memory.checkpoints, prefix_key(coord));
    group->block_tables = coord->memory_tables + (size_t)g * coord_tables_ids(&coord->options);
    group->tables_width = group->memory.pages_per_sequence;
    ASSERT((size_t)group->memory.sequences * (size_t)group->tables_width <=
           coord_tables_ids(&coord->options));
}

// Bytes that a chosen worker can count on: CPU ranks of one host share its memory.
static uint64_t bytes_of(const struct coord *coord, const int32_t *chosen, int r)
{
    const struct hello *hello = &coord->workers[chosen[r]].hello;
    uint64_t sharers = 0;
    if (strcmp(hello->backend, "cpu") != 0)
        return hello->bytes_free;
    for (int i = 0; i < coord->options.ranks; i++)
        sharers += strcmp(coord->workers[chosen[i]].hello.host, hello->host) == 0;
    return hello->bytes_free / sharers;
}

// What its workers can draft, and what was asked for: every number has its recorded steps on the
// workers.
static void init_speculation(struct coord *coord, struct group_state *group, bool has_mtp)
{
    int32_t wish = coord->options.speculative_tokens;
    int32_t drafts_max = wish == SPECULATION_AUTO ? SPECULATION_CHOICES - 1 : wish;
    speculation_init(&group->speculation, has_mtp ? drafts_max : 0, wish);
    group->drafts_made = 0;
}

// Where launches cost time, workers record steps with all numbers of drafts.
static int recorded(const struct coord *coord, const struct group_state *group, int32_t worker)
{
    bool gpu = strcmp(coord->workers[worker].hello.backend, "cpu") != 0;
    return gpu ? 1 + group->speculation.drafts_max : 0;
}

// Forms a group as soon as enough workers wait.
static void form(struct coord *coord, struct coord_actions *out)
{
    int32_t chosen[RANKS_MAX];
    int32_t g = forming_group(coord);
    if (g < 0 || !choose(coord, chosen))
        return;
    struct group_state *group = &coord->groups[g];
    struct memory_wishes wishes = coord->options.wishes;
    wishes.bytes_free = UINT64_MAX;
    wishes.mtp = coord->workers[chosen[0]].hello.has_mtp != 0;
    for (int r = 0; r < coord->options.ranks; r++) {
        uint64_t bytes_free = bytes_of(coord, chosen, r);
        wishes.bytes_free = bytes_free < wishes.bytes_free ? bytes_free : wishes.bytes_free;
        group->workers[r] = chosen[r];
    }
    init_speculation(coord, group, wishes.mtp);
    wishes.drafts_max = group->speculation.drafts_max;
    wishes.recorded = recorded(coord, group, chosen[0]);
    struct shard shard;
    struct error error = {.status = OK};
    enum status status =
        shard_make(&shard, &coord->options.config, 0, coord->options.ranks, &error);
    if (status == OK) {
        status = memory_plan_make(&group->memory, &coord->options.config, &shard, &wishes, &error);
    }
    if (status != OK) {
        group->phase = GROUP_LOADING; // so that its workers are told
        members_fail_group(coord, g, out, "%s", error.text);
        return;
    }
    init_group_pools(coord, g);
    group->epoch = ++coord->epochs;
    group->phase = GROUP_LOADING;
    group->placed_ns = coord->now_ns;
    group->ready_count = 0;
    place_all(coord, g, out);
}

void members_hello(struct coord *coord, const struct coord_event *event, struct coord_actions *out)
{
    struct worker *worker = &coord->workers[event->worker];
    char text[320];
    worker->heard_ns = coord->now_ns;
    if (worker->phase != WORKER_FREE)
        return; // a repetition
    const char *difference = mismatch(coord, event->hello, text);
    if (difference != NULL) {
        refuse(coord, event->worker, out, difference);
        return;
    }
    if (forming_group(coord) < 0 || coord->shutting_down || coord->drained) {
        refuse(coord, event->worker, out, "every group has its workers already");
        return;
    }
    worker->phase = WORKER_WAITING;
    worker->hello = *event->hello;
    worker->group = -1;
    worker->rank = -1;
    form(coord, out);
}

struct group_state *members_group(struct coord *coord, int32_t worker, int32_t group, int32_t rank,
                                  uint64_t epoch)
{
    const struct worker *w = &coord->workers[worker];
    bool placed = w->phase == WORKER_PLACED || w->phase == WORKER_READY;
    if (!placed || w->group != group || w->rank != rank)
        return NULL;
    struct group_state *g = &coord->groups[group];
    bool lives = g->phase == GROUP_LOADING || g->phase == GROUP_READY;
    return lives && g->epoch == epoch ? g : NULL;
}

void members_ready(struct coord *coord, const struct coord_event *event, struct coord_actions *out)
{
    const struct ready *ready = event->ready;
    struct worker *worker = &coord->workers[event->worker];
    struct group_state *group =
        members_group(coord, event->worker, ready->group, ready->rank, ready->epoch);
    worker->heard_ns = coord->now_ns;
    if (group == NULL || worker->phase != WORKER_PLACED)
        return;
    worker->phase = WORKER_READY;
    group->ready_count++;
    if (group->ready_count < coord->options.ranks)
        return;
    group->phase = GROUP_READY;
    struct coord_action *action = coord_act(out, ACTION_GROUP_READY);
    action->group = ready->group;
    action->memory = &group->memory;
    action->drafts_max = group->speculation.drafts_max;
}

void members_heartbeat(struct coord *coord, const struct coord_event *event)
{
    struct worker *worker = &coord->workers[event->worker];
    worker->heard_ns = coord->now_ns;
    worker->beat = *event->heartbeat;
}

void members_fail_group(struct coord *coord, int32_t g, struct coord_actions *out,
                        const char *format, ...)
{
    struct group_state *group = &coord->groups[g];
    if (group->phase == GROUP_FAILED || group->phase == GROUP_ENDED)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(group->failure, sizeof group->failure, format, arguments);
    va_end(arguments);
    group->phase = GROUP_FAILED;
    group->failure_told = false;
    group->end = (struct end_message){.epoch = group->epoch, .failed = 1};
    snprintf(group->end.text, sizeof group->end.text, "%s", group->failure);
    for (int r = 0; r < coord->options.ranks; r++) {
        struct coord_action *action = coord_act(out, ACTION_SEND_END);
        action->worker = group->workers[r];
        action->group = g;
        action->end = &group->end;
        coord->workers[group->workers[r]].phase = WORKER_FREE;
    }
    struct coord_action *action = coord_act(out, ACTION_GROUP_FAILED);
    action->group = g;
    action->status = E_FAILED;
    action->text = group->failure;
}

void members_failure(struct coord *coord, const struct coord_event *event,
                     struct coord_actions *out)
{
    struct worker *worker = &coord->workers[event->worker];
    if (worker->phase == WORKER_WAITING)
        worker->phase = WORKER_FREE;
    if (worker->phase != WORKER_PLACED && worker->phase != WORKER_READY)
        return;
    members_fail_group(coord, worker->group, out, "group %d: rank %d (%s, pid %d) gave up: %s",
                       worker->group, worker->rank, host_of(worker), worker->hello.pid,
                       event->failure->text);
}

void members_gone(struct coord *coord, const struct coord_event *event, struct coord_actions *out)
{
    struct worker *worker = &coord->workers[event->worker];
    if (worker->phase == WORKER_PLACED || worker->phase == WORKER_READY) {
        members_fail_group(coord, worker->group, out,
                           "group %d: rank %d (%s, pid %d) is gone; its last step was %llu",
                           worker->group, worker->rank, host_of(worker), worker->hello.pid,
                           (unsigned long long)worker->beat.step_done);
    }
    worker->phase = WORKER_FREE;
}

// The rank whose exchange counter is furthest behind: the one that the others wait for.
static int32_t slowest_rank(const struct coord *coord, const struct group_state *group)
{
    int32_t slowest = 0;
    for (int r = 1; r < coord->options.ranks; r++) {
        const struct heartbeat *a = &coord->workers[group->workers[r]].beat;
        const struct heartbeat *b = &coord->workers[group->workers[slowest]].beat;
        if (a->exchange_epoch < b->exchange_epoch)
            slowest = r;
    }
    return slowest;
}

static void check_group_time(struct coord *coord, int32_t g, struct coord_actions *out)
{
    struct group_state *group = &coord->groups[g];
    for (int r = 0; r < coord->options.ranks; r++) {
        const struct worker *worker = &coord->workers[group->workers[r]];
        uint64_t silent_ns = coord->now_ns - worker->heard_ns;
        if (silent_ns > (uint64_t)HEARTBEAT_TIMEOUT_MS * MS_NS) {
            members_fail_group(coord, g, out,
                               "group %d: rank %d (%s, pid %d) has been silent for %llu ms, the "
                               "limit is %d; its last step was %llu",
                               g, r, host_of(worker), worker->hello.pid,
                               (unsigned long long)(silent_ns / MS_NS), HEARTBEAT_TIMEOUT_MS,
                               (unsigned long long)worker->beat.step_done);
            return;
        }
    }
    if (group->phase == GROUP_LOADING &&
        coord->now_ns - group->placed_ns > (uint64_t)LOAD_TIMEOUT_MS * MS_NS) {
        members_fail_group(coord, g, out, "group %d: %d of %d ranks were ready after %d ms", g,
                           group->ready_count, coord->options.ranks, LOAD_TIMEOUT_MS);
        return;
    }
    if (group->flights_count == 0)
        return;
    const struct flight *flight = &group->flights[(group->step_done + 1) % COORD_FLIGHT_MAX];
    if (coord->now_ns - flight->begun_ns > (uint64_t)STEP_TIMEOUT_MS * MS_NS) {
        int32_t rank = slowest_rank(coord, group);
        members_fail_group(coord, g, out,
                           "group %d: step %llu has not ended after %d ms; rank %d (pid %d) is "
                           "furthest behind",
                           g, (unsigned long long)flight->step, STEP_TIMEOUT_MS, rank,
                           coord->workers[group->workers[rank]].hello.pid);
    }
}

void members_forgive(struct coord *coord, uint64_t paused_ns)
{
    for (int i = 0; i < COORD_WORKERS_MAX; i++)
        coord->workers[i].heard_ns += paused_ns;
    for (int32_t g = 0; g < coord->options.groups; g++) {
        coord->groups[g].placed_ns += paused_ns;
        for (int i = 0; i < COORD_FLIGHT_MAX; i++)
            coord->groups[g].flights[i].begun_ns += paused_ns;
    }
}

void members_check_time(struct coord *coord, struct coord_actions *out)
{
    for (int32_t g = 0; g < coord->options.groups; g++) {
        enum group_phase phase = coord->groups[g].phase;
        if (phase == GROUP_LOADING || phase == GROUP_READY)
            check_group_time(coord, g, out);
    }
    for (int w = 0; w < COORD_WORKERS_MAX; w++) {
        struct worker *worker = &coord->workers[w];
        if (worker->phase == WORKER_WAITING &&
            coord->now_ns - worker->heard_ns > (uint64_t)HEARTBEAT_TIMEOUT_MS * MS_NS)
            worker->phase = WORKER_FREE; // it repeats HELLO while it lives
    }
}

void members_end_all(struct coord *coord, struct coord_actions *out)
{
    coord->end = (struct end_message){.epoch = 0, .failed = 0};
    snprintf(coord->end.text, sizeof coord->end.text, "the coordinator ends in order");
    for (int w = 0; w < COORD_WORKERS_MAX; w++) {
        if (coord->workers[w].phase == WORKER_FREE)
            continue;
        struct coord_action *action = coord_act(out, ACTION_SEND_END);
        action->worker = w;
        action->end = &coord->end;
        coord->workers[w].phase = WORKER_FREE;
    }
    for (int32_t g = 0; g < coord->options.groups; g++) {
        if (coord->groups[g].phase != GROUP_FAILED)
            coord->groups[g].phase = GROUP_ENDED;
    }
}
