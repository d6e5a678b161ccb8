// SPDX-License-Identifier: Apache-2.0
// link.c -- rings of structs by value.
#include "coordinator/link.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "parallel/base/clock.h"

enum status link_open(struct link *link, int32_t requests_max, struct error *error)
{
    // A request may end twice for the door (a stop, then its client leaves), and a new one may have
    // its number before the core has seen that.
    uint64_t finishes_max = 2 * (LINK_TO_CORE_MAX + (uint64_t)requests_max);
    size_t orders_bytes = LINK_TO_CORE_MAX * sizeof(struct link_order);
    size_t news_bytes = LINK_FROM_CORE_MAX * sizeof(struct link_news);
    memset(link, 0, sizeof *link);
    link->core_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    link->door_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    link->memory = malloc(orders_bytes + news_bytes + finishes_max * sizeof(struct link_finish));
    if (link->core_fd < 0 || link->door_fd < 0 || link->memory == NULL) {
        link_close(link);
        return error_set(error, E_SYSTEM, "no memory or file descriptor for a door");
    }
    ring_init(&link->to_core, link->memory, sizeof(struct link_order), LINK_TO_CORE_MAX);
    ring_init(&link->from_core, (uint8_t *)link->memory + orders_bytes, sizeof(struct link_news),
              LINK_FROM_CORE_MAX);
    ring_init(&link->finishes, (uint8_t *)link->memory + orders_bytes + news_bytes,
              sizeof(struct link_finish), finishes_max);
    return OK;
}

void link_close(struct link *link)
{
    if (link->core_fd >= 0)
        close(link->core_fd);
    if (link->door_fd >= 0)
        close(link->door_fd);
    free(link->memory);
    *link = (struct link){.core_fd = -1, .door_fd = -1};
}

bool link_order(struct link *link, const struct link_order *order)
{
    void *item = ring_write_begin(&link->to_core);
    if (item == NULL)
        return false;
    memcpy(item, order, sizeof *order);
    ring_write_end(&link->to_core);
    return true;
}

bool link_finish(struct link *link, uint64_t request, const char *reason)
{
    struct link_finish *item = ring_write_begin(&link->finishes);
    if (item == NULL)
        return false;
    *item = (struct link_finish){.request = request, .reason = reason};
    ring_write_end(&link->finishes);
    return true;
}

bool link_next_order(struct link *link, struct link_order *out)
{
    // Looked at first, taken last: what was ordered before an end is in the other ring by then.
    const struct link_finish *finish = ring_read_begin(&link->finishes);
    const void *item = ring_read_begin(&link->to_core);
    if (item != NULL) {
        memcpy(out, item, sizeof *out);
        ring_read_end(&link->to_core);
        return true;
    }
    if (finish == NULL)
        return false;
    *out = (struct link_order){
        .type = ORDER_FINISH, .request = finish->request, .reason = finish->reason};
    ring_read_end(&link->finishes);
    return true;
}

void link_tell(struct link *link, const struct link_news *news)
{
    void *item = ring_write_begin(&link->from_core);
    while (item == NULL) {
        link_wake_door(link);
        clock_sleep_ns(CLOCK_NS_PER_MS);
        item = ring_write_begin(&link->from_core);
    }
    memcpy(item, news, sizeof *news);
    ring_write_end(&link->from_core);
}

bool link_next_news(struct link *link, struct link_news *out)
{
    const void *item = ring_read_begin(&link->from_core);
    if (item == NULL)
        return false;
    memcpy(out, item, sizeof *out);
    ring_read_end(&link->from_core);
    return true;
}

void link_take_news(struct link *link, void (*on_news)(void *door, const struct link_news *news),
                    void *door)
{
    struct link_news news;
    uint64_t end_ns = clock_now_ns() + (uint64_t)LINK_TURN_MS * CLOCK_NS_PER_MS;
    link_clear(link->door_fd);
    while (link_next_news(link, &news)) {
        on_news(door, &news);
        if (clock_now_ns() < end_ns)
            continue;
        link_wake_door(link);
        return;
    }
}

static void wake(int fd)
{
    uint64_t one = 1;
    ssize_t written = write(fd, &one, sizeof one); // full means awake already
    (void)written;
}

void link_wake_core(struct link *link)
{
    wake(link->core_fd);
}

void link_wake_door(struct link *link)
{
    wake(link->door_fd);
}

void link_clear(int fd)
{
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof count);
    (void)got;
}
