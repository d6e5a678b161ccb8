// SPDX-License-Identifier: Apache-2.0
// agenda.c -- a binary heap ordered by (time, order of adding).
#include "tests/sim/agenda.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/base/status.h"

void agenda_open(struct agenda *agenda)
{
    memset(agenda, 0, sizeof *agenda);
    agenda->items_max = 1024;
    agenda->items = malloc((size_t)agenda->items_max * sizeof *agenda->items);
    ASSERT(agenda->items != NULL);
}

void agenda_close(struct agenda *agenda)
{
    for (int i = 0; i < agenda->items_count; i++)
        free(agenda->items[i].frame);
    free(agenda->items);
    memset(agenda, 0, sizeof *agenda);
}

static int earlier(const struct agenda_item *a, const struct agenda_item *b)
{
    return a->when_ns != b->when_ns ? a->when_ns < b->when_ns : a->order < b->order;
}

void agenda_add(struct agenda *agenda, const struct agenda_item *item)
{
    if (agenda->items_count == agenda->items_max) {
        agenda->items_max *= 2;
        agenda->items = realloc(agenda->items, (size_t)agenda->items_max * sizeof *agenda->items);
        ASSERT(agenda->items != NULL);
    }
    struct agenda_item added = *item;
    added.order = agenda->added++;
    int at = agenda->items_count++;
    while (at > 0 && earlier(&added, &agenda->items[(at - 1) / 2])) {
        agenda->items[at] = agenda->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    agenda->items[at] = added;
}

struct agenda_item agenda_next(struct agenda *agenda)
{
    ASSERT(agenda->items_count > 0);
    struct agenda_item first = agenda->items[0];
    struct agenda_item last = agenda->items[--agenda->items_count];
    int at = 0;
    for (;;) {
        int child = 2 * at + 1;
        if (child >= agenda->items_count)
            break;
        if (child + 1 < agenda->items_count &&
            earlier(&agenda->items[child + 1], &agenda->items[child]))
            child++;
        if (!earlier(&agenda->items[child], &last))
            break;
        agenda->items[at] = agenda->items[child];
        at = child;
    }
    agenda->items[at] = last;
    return first;
}
