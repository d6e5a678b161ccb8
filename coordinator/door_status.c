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

char *door_status_json(const char *model_name, const struct coord_status *status,
                       const struct socket_counts *sockets)
{
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {
        {"groups_ready", status->groups_ready},
        {"groups", status->groups},
        {"vocab", status->vocab},
        {"running", status->running},
        {"queued", status->queued},
        {"queued_max", status->queued_max},
        {"slots_free", status->slots_free},
        {"slots", status->slots},
        {"pages_free", status->pages_free},
        {"pages", status->pages},
        {"pool_tokens_free", status->pool_tokens_free},
        {"pool_tokens", status->pool_tokens},
        {"steps", (int64_t)status->steps},
        {"requests_done", (int64_t)status->requests_done},
        {"requests_failed", (int64_t)status->requests_failed},
        {"tokens_in", (int64_t)status->tokens_in},
        {"tokens_out", (int64_t)status->tokens_out},
        {"clients_connected", (int64_t)(sockets->connected - sockets->disconnected)},
        {"frames_oversized", (int64_t)sockets->frames_oversized},
        {"handshakes_failed", (int64_t)sockets->handshakes_failed},
    };
    json_t *object = json_object();
    json_object_set_new(object, "model", json_string(model_name));
    json_object_set_new(object, "state", json_string(state_of(status)));
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        json_object_set_new(object, counts[i].name, json_integer(counts[i].value));
    char *json = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    return json;
}
