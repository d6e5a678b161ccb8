// SPDX-License-Identifier: Apache-2.0
// status_table.c -- columns.
#include "deploy/cli/status_table.h"

#include <stdbool.h>

static long long number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *word(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "?";
}

static double rate(const json_t *now, const json_t *before, double seconds, const char *key)
{
    return before != NULL && seconds > 0
               ? (double)(number(now, key) - number(before, key)) / seconds
               : 0;
}

static void print_rank(FILE *file, size_t index, const json_t *rank)
{
    if (json_object_size(rank) == 0) {
        fprintf(file, "  rank %-2zu  nobody yet\n", index);
        return;
    }
    fprintf(file,
            "  rank %-2zu  %s:%lld%s  step %lld begun, %lld done  exchanges %lld  heard %lld ms "
            "ago\n",
            index, word(rank, "host"), number(rank, "pid"),
            json_is_true(json_object_get(rank, "ready")) ? "" : " (loading)",
            number(rank, "step_begun"), number(rank, "step_done"), number(rank, "exchanges"),
            number(rank, "silent_ms"));
}

static void print_group(FILE *file, size_t index, const json_t *group)
{
    const json_t *ranks = json_object_get(group, "ranks");
    fprintf(
        file,
        "group %-2zu  %s  epoch %lld  step %lld sent, %lld done  running %lld  slots %lld/%lld  "
        "pages %lld/%lld\n",
        index, word(group, "phase"), number(group, "epoch"), number(group, "step_sent"),
        number(group, "step_done"), number(group, "running"),
        number(group, "slots") - number(group, "slots_free"), number(group, "slots"),
        number(group, "pages") - number(group, "pages_free"), number(group, "pages"));
    for (size_t i = 0; i < json_array_size(ranks); i++)
        print_rank(file, i, json_array_get(ranks, i));
}

void status_table_print_groups(FILE *file, const json_t *status)
{
    const json_t *groups = json_object_get(status, "groups_now");
    for (size_t i = 0; i < json_array_size(groups); i++)
        print_group(file, i, json_array_get(groups, i));
}

void status_table_print(FILE *file, const json_t *now, const json_t *before, double seconds)
{
    fprintf(file,
            "%s  %s  running %lld  queued %lld/%lld (preempted %lld)  clients %lld  failed "
            "%lld\n",
            word(now, "model"), word(now, "state"), number(now, "running"), number(now, "queued"),
            number(now, "queued_max"), number(now, "preempted"), number(now, "clients_connected"),
            number(now, "requests_failed"));
    fprintf(file, "%.1f steps/s  %.1f tokens/s out  %.1f tokens/s in  %.1f requests/s\n",
            rate(now, before, seconds, "steps"), rate(now, before, seconds, "tokens_out"),
            rate(now, before, seconds, "tokens_in"), rate(now, before, seconds, "requests_done"));
    status_table_print_groups(file, now);
}
