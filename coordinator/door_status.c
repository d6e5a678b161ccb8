// SPDX-License-Identifier: Apache-2.0
// door_status.c -- a table of names and numbers.
#include "coordinator/door_status.h"

#include <jansson.h>

static const char *state_of(const struct coord_status *status)
{
    if (status->failed)
        return "failed";
    if (status->draining)
        return "draining";
    return status->groups_ready == status->groups ? "ready" : "starting";
}

struct count {
    const char *name;
    int64_t value;
};

static void set_counts(json_t *object, const struct count *counts, size_t counts_count)
{
    for (size_t i = 0; i < counts_count; i++)
        json_object_set_new(object, counts[i].name, json_integer(counts[i].value));
}

static json_t *rank_json(const struct coord_rank_status *rank)
{
    json_t *object = json_object();
    if (!rank->is_here)
        return object;
    const struct count counts[] = {
        {"pid", rank->pid},
        {"silent_ms", (int64_t)(rank->heard_ns / 1000000)},
        {"step_begun", (int64_t)rank->step_begun},
        {"step_done", (int64_t)rank->step_done},
        {"exchanges", (int64_t)rank->exchange_epoch},
    };
    json_object_set_new(object, "host", json_string(rank->host));
    json_object_set_new(object, "ready", json_boolean(rank->is_ready));
    set_counts(object, counts, sizeof counts / sizeof counts[0]);
    return object;
}

static json_t *group_json(const struct coord_group_status *group)
{
    static const char *const phases[] = {
        [GROUP_FORMING] = "forming", [GROUP_LOADING] = "loading", [GROUP_READY] = "ready",
        [GROUP_FAILED] = "failed",   [GROUP_ENDED] = "ended",
    };
    const struct count counts[] = {
        {"epoch", (int64_t)group->epoch},         {"step_sent", (int64_t)group->step_sent},
        {"step_done", (int64_t)group->step_done}, {"running", group->running},
        {"slots_free", group->slots_free},        {"slots", group->slots},
        {"pages_free", group->pages_free},        {"pages", group->pages},
    };
    json_t *object = json_object(), *ranks = json_array();
    json_object_set_new(object, "phase", json_string(phases[group->phase]));
    set_counts(object, counts, sizeof counts / sizeof counts[0]);
    for (int r = 0; r < group->ranks_count; r++)
        json_array_append_new(ranks, rank_json(&group->ranks[r]));
    json_object_set_new(object, "ranks", ranks);
    return object;
}

char *door_status_json(const char *model_name, const struct overview *overview,
                       const struct socket_counts *sockets)
{
    const struct coord_status *status = &overview->status;
    const struct count counts[] = {
        {"groups_ready", status->groups_ready},
        {"groups", status->groups},
        {"vocab", status->vocab},
        {"draft_vocab", status->draft_vocab},
        {"running", status->running},
        {"queued", status->queued},
        {"queued_max", status->queued_max},
        {"preempted", status->preempted},
        {"slots_free", status->slots_free},
        {"slots", status->slots},
        {"pages_free", status->pages_free},
        {"pages", status->pages},
        {"pool_tokens_free", status->pool_tokens_free},
        {"pool_tokens", status->pool_tokens},
        {"steps", (int64_t)status->steps},
        {"requests_done", (int64_t)status->requests_done},
        {"requests_failed", (int64_t)status->requests_failed},
        {"preemptions", (int64_t)status->preemptions},
        {"epochs", (int64_t)status->epochs},
        {"timeouts", (int64_t)status->timeouts},
        {"tokens_in", (int64_t)status->tokens_in},
        {"tokens_out", (int64_t)status->tokens_out},
        {"clients_connected", (int64_t)(sockets->connected - sockets->disconnected)},
        {"frames_oversized", (int64_t)sockets->frames_oversized},
        {"handshakes_failed", (int64_t)sockets->handshakes_failed},
    };
    json_t *object = json_object();
    json_object_set_new(object, "model", json_string(model_name));
    json_object_set_new(object, "state", json_string(state_of(status)));
    set_counts(object, counts, sizeof counts / sizeof counts[0]);
    json_t *groups = json_array();
    for (int g = 0; g < overview->groups_count; g++)
        json_array_append_new(groups, group_json(&overview->groups[g]));
    json_object_set_new(object, "groups_now", groups);
    char *json = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    return json;
}
