// SPDX-License-Identifier: Apache-2.0
// exchange_host.c -- the meeting of the ranks and the layout of the shared segment.
//
// Whoever comes first creates the segment (O_EXCL), reserves its pages, writes the head and sets
// `ready`; the others wait for that and compare. Then every rank sets its bit in `presence`. The
// meeting ends for all ranks alike by one atomic word: either all bits are there, or one rank has
// given up, which it may only do while a bit is missing. In both cases the name is removed, so that
// only a kill of every rank within the meeting itself could leave one behind.
#include "parallel/exchange_host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "parallel/base/arena.h"
#include "parallel/base/clock.h"

enum {
    LAYOUT_VERSION = 1,
    PAGE_BYTES = 4096, // alignment of the parts; need not be the machine's
    POLL_NS = 200 * CLOCK_NS_PER_US,
    RANK_BITS = 0xff,   // of presence: who has come
    REASON_SHIFT = 8,   // of presence: enum status of whoever gave up, OK while nobody has
    QUITTER_SHIFT = 16, // of presence: the rank that gave up
};

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "the head is shared between processes");
_Static_assert((int)EXCHANGE_RANKS_MAX == (int)RANKS_MAX && RANKS_MAX <= 8, "bits of presence");

// At the start of the segment.
struct head {
    atomic_uint ready; // set last by the creator: everything below is valid
    uint32_t layout_version;
    int32_t ranks, count;
    uint64_t lane_bytes[EXCHANGE_HOST_COUNT_MAX];
    uint8_t id[EXCHANGE_HOST_ID_BYTES];
    atomic_uint presence;
    alignas(64) uint32_t abort_word; // see kernels/exchange.h
};

_Static_assert(sizeof(struct head) <= PAGE_BYTES, "mapped alone by those who join");

// One rank's way through a meeting.
struct meeting {
    const struct exchange_host_options *options;
    struct error *error;
    char name[EXCHANGE_HOST_NAME_BYTES];
    uint64_t deadline_ns;
    size_t bytes;
};

// ---------------------------------------------------------------- name, sizes, layout

static uint64_t hash_bytes(const uint8_t *bytes, size_t count, uint64_t hash) // FNV-1a
{
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

void exchange_host_name(char name[EXCHANGE_HOST_NAME_BYTES],
                        const uint8_t id[EXCHANGE_HOST_ID_BYTES])
{
    unsigned long long first = hash_bytes(id, EXCHANGE_HOST_ID_BYTES, 0xcbf29ce484222325u);
    unsigned long long second = hash_bytes(id, EXCHANGE_HOST_ID_BYTES, 0x9ae16a3b2f90404fu);
    snprintf(name, EXCHANGE_HOST_NAME_BYTES, "/deltamesh-%016llx%016llx", first, second);
}

static size_t lane_bytes_of(const struct exchange_host_options *options, int index)
{
    size_t mask = EXCHANGE_LANE_ALIGN_BYTES - 1;
    return (options->lane_bytes[index] + mask) & ~mask;
}

// Takes every part off the arena in a fixed order; exchanges is NULL when only counting.
static struct head *lay_out(struct arena *arena, const struct exchange_host_options *options,
                            struct exchange *exchanges)
{
    size_t lanes = 2 * (size_t)options->place.ranks;
    struct head *head = arena_take(arena, sizeof *head, PAGE_BYTES);
    for (int i = 0; i < options->count; i++) {
        for (int rank = 0; rank < options->place.ranks; rank++) {
            void *marks = arena_take(arena, lanes * sizeof(struct exchange_mark), PAGE_BYTES);
            void *inbox = arena_take(arena, lanes * lane_bytes_of(options, i), PAGE_BYTES);
            if (exchanges != NULL) {
                exchanges[i].marks[rank] = marks;
                exchanges[i].inboxes[rank] = inbox;
            }
        }
    }
    return head;
}

size_t exchange_host_bytes(const struct exchange_host_options *options)
{
    struct arena arena;
    arena_init(&arena, NULL, SIZE_MAX);
    lay_out(&arena, options, NULL);
    return (arena.used + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static void fill_exchanges(struct exchange_host *host, const struct exchange_host_options *options)
{
    struct arena arena;
    arena_init(&arena, host->memory, host->bytes);
    memset(host->exchanges, 0, sizeof host->exchanges);
    struct head *head = lay_out(&arena, options, host->exchanges);
    for (int i = 0; i < options->count; i++) {
        struct exchange *exchange = &host->exchanges[i];
        exchange->rank = options->place.rank;
        exchange->ranks = options->place.ranks;
        exchange->lane_bytes = lane_bytes_of(options, i);
        exchange->abort_word = &head->abort_word;
        exchange->wait_ns_max = options->wait_ns_max;
    }
}

// ---------------------------------------------------------------- errors

// "1", "1 and 3", "1, 2 and 3" for the bits of `ranks`.
static void name_ranks(char *text, size_t bytes, unsigned ranks)
{
    size_t length = 0;
    text[0] = '\0';
    for (int rank = 0; rank < EXCHANGE_RANKS_MAX; rank++) {
        unsigned later = ranks & ~((2u << rank) - 1);
        if ((ranks >> rank & 1) == 0)
            continue;
        const char *after = later == 0 ? "" : (later & (later - 1)) == 0 ? " and " : ", ";
        int more = snprintf(text + length, bytes - length, "%d%s", rank, after);
        length += (size_t)more;
    }
}

static enum status fail_system(struct meeting *meeting, const char *what)
{
    return error_set(meeting->error, E_SYSTEM, "group %d rank %d: %s of %s (%zu bytes): %s",
                     meeting->options->place.group, meeting->options->place.rank, what,
                     meeting->name, meeting->bytes, strerror(errno));
}

static unsigned all_bits(const struct meeting *meeting)
{
    return (1u << meeting->options->place.ranks) - 1;
}

// The error of a meeting that somebody gave up, from its final word.
static enum status fail_given_up(struct meeting *meeting, unsigned presence)
{
    const struct place *place = &meeting->options->place;
    enum status reason = (enum status)(presence >> REASON_SHIFT & 0xff);
    int quitter = (int)(presence >> QUITTER_SHIFT & 0xff);
    if (reason != E_TIMEOUT)
        return error_set(meeting->error, reason, "group %d rank %d: rank %d did not agree: %s",
                         place->group, place->rank, quitter, status_name(reason));
    char missing[64], who[64];
    unsigned absent = all_bits(meeting) & ~presence;
    name_ranks(missing, sizeof missing, absent);
    if (quitter == place->rank)
        snprintf(who, sizeof who, "waited %llu ms",
                 (unsigned long long)(meeting->options->join_ns_max / CLOCK_NS_PER_MS));
    else
        snprintf(who, sizeof who, "rank %d gave up waiting", quitter);
    return error_set(meeting->error, E_TIMEOUT,
                     "group %d rank %d: rank%s %s of %d did not come (%s)", place->group,
                     place->rank, (absent & (absent - 1)) == 0 ? "" : "s", missing, place->ranks,
                     who);
}

// ---------------------------------------------------------------- presence

// Gives the meeting up unless it is complete or given up already. Returns the final word.
static unsigned give_up(struct meeting *meeting, struct head *head, enum status reason)
{
    unsigned presence = atomic_load(&head->presence);
    unsigned mark = (unsigned)reason << REASON_SHIFT | (unsigned)meeting->options->place.rank
                                                           << QUITTER_SHIFT;
    while ((presence & RANK_BITS) != all_bits(meeting) && presence >> REASON_SHIFT == 0) {
        if (atomic_compare_exchange_weak(&head->presence, &presence, presence | mark)) {
            presence |= mark;
            break;
        }
    }
    return presence;
}

static enum status attend(struct meeting *meeting, struct head *head)
{
    const struct place *place = &meeting->options->place;
    unsigned own = 1u << place->rank;
    unsigned presence = atomic_load(&head->presence);
    do {
        if (presence >> REASON_SHIFT != 0)
            return fail_given_up(meeting, presence);
        if ((presence & own) != 0)
            return error_set(meeting->error, E_MISMATCH,
                             "group %d: two processes claim to be rank %d of %d", place->group,
                             place->rank, place->ranks);
    } while (!atomic_compare_exchange_weak(&head->presence, &presence, presence | own));
    presence |= own;
    while ((presence & RANK_BITS) != all_bits(meeting) && presence >> REASON_SHIFT == 0) {
        if (clock_now_ns() >= meeting->deadline_ns) {
            presence = give_up(meeting, head, E_TIMEOUT);
            continue;
        }
        clock_sleep_ns(POLL_NS);
        presence = atomic_load(&head->presence);
    }
    shm_unlink(meeting->name); // everyone does; all but the first get ENOENT
    return presence >> REASON_SHIFT == 0 ? OK : fail_given_up(meeting, presence);
}

// ---------------------------------------------------------------- the segment

static void write_head(struct head *head, const struct meeting *meeting)
{
    const struct exchange_host_options *options = meeting->options;
    head->layout_version = LAYOUT_VERSION;
    head->ranks = options->place.ranks;
    head->count = options->count;
    for (int i = 0; i < options->count; i++)
        head->lane_bytes[i] = lane_bytes_of(options, i);
    memcpy(head->id, options->id, sizeof head->id);
    atomic_store_explicit(&head->ready, 1, memory_order_release);
}

// Reserving the pages now turns a /dev/shm that is too small into an error here instead of a
// SIGBUS in the middle of a step.
static enum status create(struct meeting *meeting, int fd, void **memory)
{
    int problem;
    do
        problem = posix_fallocate(fd, 0, (off_t)meeting->bytes);
    while (problem == EINTR);
    errno = problem;
    if (problem != 0)
        return fail_system(meeting, "reserving shared memory");
    *memory = mmap(NULL, meeting->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*memory == MAP_FAILED)
        return fail_system(meeting, "mapping shared memory");
    write_head(*memory, meeting);
    return OK;
}

static enum status compare(struct meeting *meeting, const struct head *head)
{
    const struct exchange_host_options *options = meeting->options;
    const struct place *place = &options->place;
    if (head->layout_version != LAYOUT_VERSION || memcmp(head->id, options->id, sizeof head->id))
        return error_set(meeting->error, E_MISMATCH, "group %d rank %d: %s is of another build",
                         place->group, place->rank, meeting->name);
    if (head->ranks != place->ranks || head->count != options->count)
        return error_set(meeting->error, E_MISMATCH,
                         "group %d rank %d: %d ranks, %d exchanges here; %d and %d elsewhere",
                         place->group, place->rank, place->ranks, options->count, head->ranks,
                         head->count);
    for (int i = 0; i < options->count; i++) {
        if (head->lane_bytes[i] != lane_bytes_of(options, i))
            return error_set(meeting->error, E_MISMATCH,
                             "group %d rank %d: exchange %d has lanes of %zu bytes here, "
                             "of %llu bytes elsewhere",
                             place->group, place->rank, i, lane_bytes_of(options, i),
                             (unsigned long long)head->lane_bytes[i]);
    }
    return OK;
}

// True once the creator has said that the segment is complete; waits until the deadline.
static bool wait_ready(struct meeting *meeting, int fd, struct head **head)
{
    struct stat info;
    *head = MAP_FAILED;
    while (clock_now_ns() < meeting->deadline_ns) {
        if (*head == MAP_FAILED && fstat(fd, &info) == 0 && info.st_size >= PAGE_BYTES)
            *head = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (*head != MAP_FAILED && atomic_load_explicit(&(*head)->ready, memory_order_acquire) == 1)
            return true;
        clock_sleep_ns(POLL_NS);
    }
    return false;
}

static enum status join(struct meeting *meeting, int fd, void **memory)
{
    const struct place *place = &meeting->options->place;
    struct head *head;
    enum status status;
    if (!wait_ready(meeting, fd, &head)) {
        shm_unlink(meeting->name);
        status = error_set(meeting->error, E_TIMEOUT,
                           "group %d rank %d: %s was begun by a rank that did not finish it",
                           place->group, place->rank, meeting->name);
    } else if ((status = compare(meeting, head)) != OK) {
        if (give_up(meeting, head, E_MISMATCH) >> REASON_SHIFT != 0)
            shm_unlink(meeting->name);
    } else {
        *memory = mmap(NULL, meeting->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (*memory == MAP_FAILED)
            status = fail_system(meeting, "mapping shared memory");
    }
    if (head != MAP_FAILED)
        munmap(head, PAGE_BYTES);
    return status;
}

// Creates or joins the segment. The name can vanish between the two attempts when a meeting has
// just ended; then the next round creates a new one.
static enum status open_segment(struct meeting *meeting, void **memory)
{
    for (;;) {
        int fd = shm_open(meeting->name, O_RDWR | O_CREAT | O_EXCL, 0600);
        bool creator = fd >= 0;
        if (!creator && errno == EEXIST)
            fd = shm_open(meeting->name, O_RDWR, 0);
        if (fd < 0 && errno == ENOENT && clock_now_ns() < meeting->deadline_ns)
            continue;
        if (fd < 0)
            return fail_system(meeting, "opening shared memory");
        enum status status = creator ? create(meeting, fd, memory) : join(meeting, fd, memory);
        close(fd);
        if (creator && status != OK)
            shm_unlink(meeting->name);
        return status;
    }
}

static enum status check_options(const struct exchange_host_options *options, struct error *error)
{
    const struct place *place = &options->place;
    if (place->ranks < 1 || place->ranks > EXCHANGE_RANKS_MAX || place->rank < 0 ||
        place->rank >= place->ranks)
        return error_set(error, E_INPUT, "group %d: rank %d of %d is no place (ranks 1..%d)",
                         place->group, place->rank, place->ranks, EXCHANGE_RANKS_MAX);
    ASSERT(options->count >= 1 && options->count <= EXCHANGE_HOST_COUNT_MAX);
    for (int i = 0; i < options->count; i++) {
        if (options->lane_bytes[i] > (size_t)1 << 40)
            return error_set(error, E_LIMIT, "group %d: a lane of %zu bytes is beyond 1 TiB",
                             place->group, options->lane_bytes[i]);
    }
    return OK;
}

enum status exchange_host_open(struct exchange_host *host,
                               const struct exchange_host_options *options, struct error *error)
{
    TRY(check_options(options, error));
    struct meeting meeting = {.options = options, .error = error};
    meeting.deadline_ns = clock_now_ns() + options->join_ns_max;
    meeting.bytes = exchange_host_bytes(options);
    exchange_host_name(meeting.name, options->id);
    void *memory = MAP_FAILED;
    enum status status = OK;
    if (options->place.ranks == 1) {
        memory =
            mmap(NULL, meeting.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return fail_system(&meeting, "mapping memory");
    } else {
        TRY(open_segment(&meeting, &memory));
        status = attend(&meeting, memory);
    }
    if (status != OK) {
        munmap(memory, meeting.bytes);
        return status;
    }
    host->memory = memory;
    host->bytes = meeting.bytes;
    fill_exchanges(host, options);
    return OK;
}

void exchange_host_close(struct exchange_host *host)
{
    munmap(host->memory, host->bytes);
    host->memory = NULL;
}
