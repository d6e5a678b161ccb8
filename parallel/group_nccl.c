// SPDX-License-Identifier: Apache-2.0
// group_nccl.c -- group.h in the CUDA build. A group of one is a lane of device memory. Ranks of
// several GPUs meet as those of the CPU build do, over host memory, where rank 0 hands out NCCL's
// id and where the abort word lies; what is not large goes as packets (kernels/exchange_cuda.h),
// the rest through NCCL, which is loaded when it is needed.
#include "parallel/group.h"

#include <stdlib.h>
#include <string.h>

#ifdef DELTAMESH_NCCL

#include <dlfcn.h>
#include <nccl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "parallel/base/clock.h"
#include "parallel/base/log.h"
#include "parallel/exchange_cuda.h"
#include "parallel/exchange_host.h"

#endif

struct group {
    struct group_options options;
    struct exchange exchange;
    struct peers *peers; // NULL in a group of one
};

static void peers_close(struct peers *peers);
static enum status peers_open(struct group *group, struct error *error);

#ifndef DELTAMESH_NCCL

struct peers {
    int unused;
};

static enum status peers_open(struct group *group, struct error *error)
{
    return error_set(error, E_UNSUPPORTED,
                     "tensor parallel %d on GPUs: this build has no NCCL, 1 is served",
                     group->options.place.ranks);
}

static void peers_close(struct peers *peers)
{
    (void)peers;
}

#else

enum {
    MEETING_BYTES = 256, // of a rank's word at the meeting
    WATCH_NS = 20 * CLOCK_NS_PER_MS,
    NOTICE_NS = 2 * CLOCK_NS_PER_MS,        // kernels look at the abort word more often
    ABORT_WAIT_NS = 1000 * CLOCK_NS_PER_MS, // for a call that is under way
    NCCL_OLDEST = 22800,                    // symmetric windows as we use them
};

// What is used of libnccl.so.2. A process of one GPU need not have it.
struct nccl {
    ncclResult_t (*get_version)(int *);
    ncclResult_t (*get_id)(ncclUniqueId *);
    ncclResult_t (*init)(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *);
    ncclResult_t (*abort)(ncclComm_t);
    ncclResult_t (*state)(ncclComm_t, ncclResult_t *);
    ncclResult_t (*all_reduce)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t,
                               ncclComm_t, cudaStream_t);
    ncclResult_t (*all_gather)(const void *, void *, size_t, ncclDataType_t, ncclComm_t,
                               cudaStream_t);
    ncclResult_t (*broadcast)(const void *, void *, size_t, ncclDataType_t, int, ncclComm_t,
                              cudaStream_t);
    ncclResult_t (*allocate)(void **, size_t);
    ncclResult_t (*release)(void *);
    ncclResult_t (*window)(ncclComm_t, void *, size_t, ncclWindow_t *, int);
    const char *(*text)(ncclResult_t);
    const char *(*last_text)(ncclComm_t);
};

struct peers {
    struct place place;
    struct nccl nccl;
    // An aborted communicator is freed: who calls NCCL holds this and has seen it alive.
    pthread_mutex_t calls_mutex;
    struct exchange_host host;
    struct exchange_cuda_setup packets;
    ncclComm_t communicator;
    ncclWindow_t window; // of the inbox; here, as a thread of NCCL's writes it, in time or not
    uint64_t join_ns_max, calls; // calls: of NCCL, for the heartbeat
    uint8_t *barrier_dev;        // 8 bytes that are added for nothing
    bool has_host, has_packets, has_watch;
    pthread_t watch;
    atomic_bool closing;
    bool aborted; // under calls_mutex
};

static uint32_t *abort_word(const struct peers *peers)
{
    return peers->host.exchanges[0].abort_word;
}

static bool given_up(const struct peers *peers)
{
    return __atomic_load_n(abort_word(peers), __ATOMIC_ACQUIRE) != 0;
}

// False once the communicator is gone or the group given up while another thread has it; else the
// caller owns it until leave(). Calls of a communicator that does not block are short.
static bool enter(struct peers *peers)
{
    while (pthread_mutex_trylock(&peers->calls_mutex) != 0) {
        if (given_up(peers))
            return false;
        clock_sleep_ns(10 * CLOCK_NS_PER_US);
    }
    if (!peers->aborted)
        return true;
    pthread_mutex_unlock(&peers->calls_mutex);
    return false;
}

static void leave(struct peers *peers)
{
    pthread_mutex_unlock(&peers->calls_mutex);
}

// Ends NCCL's kernels on the GPU and frees the communicator, if there is one.
static void abort_once(struct peers *peers)
{
    uint64_t start_ns = clock_now_ns();
    while (pthread_mutex_trylock(&peers->calls_mutex) != 0) {
        if (clock_now_ns() - start_ns > ABORT_WAIT_NS)
            DIE("NCCL: a call has not come back within %d ms, the group is given up",
                (int)(ABORT_WAIT_NS / CLOCK_NS_PER_MS));
        clock_sleep_ns(100 * CLOCK_NS_PER_US);
    }
    if (!peers->aborted && peers->communicator != NULL)
        (void)peers->nccl.abort(peers->communicator);
    peers->aborted = true;
    leave(peers);
}

// How the calls so far are doing; ncclInProgress for ever once the communicator is gone: whoever
// waits then sees that the group has been given up.
static ncclResult_t ask(struct peers *peers)
{
    ncclResult_t state = ncclInProgress;
    if (!enter(peers))
        return ncclInProgress;
    ncclResult_t asked = peers->nccl.state(peers->communicator, &state);
    leave(peers);
    return asked != ncclSuccess ? asked : state;
}

// ---------------------------------------------------------------- the library

static enum status load(struct nccl *nccl, struct error *error)
{
    const char *named = getenv("DELTAMESH_NCCL_LIBRARY");
    void *library = dlopen(named != NULL ? named : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL && named == NULL)
        library = dlopen(DELTAMESH_NCCL, RTLD_NOW | RTLD_LOCAL); // where the build found it
    if (library == NULL)
        return error_set(error, E_SYSTEM, "NCCL: %s; DELTAMESH_NCCL_LIBRARY may name it",
                         dlerror());
    const struct {
        const char *name;
        void **to;
    } symbols[] = {
        {"ncclGetVersion", (void **)&nccl->get_version},
        {"ncclGetUniqueId", (void **)&nccl->get_id},
        {"ncclCommInitRankConfig", (void **)&nccl->init},
        {"ncclCommAbort", (void **)&nccl->abort},
        {"ncclCommGetAsyncError", (void **)&nccl->state},
        {"ncclAllReduce", (void **)&nccl->all_reduce},
        {"ncclAllGather", (void **)&nccl->all_gather},
        {"ncclBroadcast", (void **)&nccl->broadcast},
        {"ncclMemAlloc", (void **)&nccl->allocate},
        {"ncclMemFree", (void **)&nccl->release},
        {"ncclCommWindowRegister", (void **)&nccl->window},
        {"ncclGetErrorString", (void **)&nccl->text},
        {"ncclGetLastError", (void **)&nccl->last_text},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        *symbols[i].to = dlsym(library, symbols[i].name);
        if (*symbols[i].to == NULL)
            return error_set(error, E_SYSTEM, "NCCL: no %s in this version", symbols[i].name);
    }
    int version = 0;
    if (nccl->get_version(&version) != ncclSuccess || version < NCCL_OLDEST)
        return error_set(error, E_MISMATCH, "NCCL %d is too old: built with %d, %d is needed",
                         version, NCCL_VERSION_CODE, NCCL_OLDEST);
    return OK;
}

static enum status fail_nccl(struct peers *peers, const char *what, ncclResult_t result,
                             struct error *error)
{
    bool alive = enter(peers);
    (void)error_set(error, E_SYSTEM, "group %d rank %d: NCCL, %s: %s (%s)", peers->place.group,
                    peers->place.rank, what, peers->nccl.text(result),
                    alive ? peers->nccl.last_text(peers->communicator) : "given up");
    if (alive)
        leave(peers);
    return E_SYSTEM;
}

// Non-blocking calls return before they are done. Bounded, and watches the abort word.
static enum status settle(struct peers *peers, const char *what, ncclResult_t result,
                          struct error *error)
{
    uint64_t start_ns = clock_now_ns(), now_ns = start_ns;
    while (result == ncclInProgress) {
        result = ask(peers);
        now_ns = clock_now_ns();
        if (result != ncclInProgress)
            break;
        if (given_up(peers) || now_ns - start_ns > peers->join_ns_max) {
            exchange_abort(&peers->host.exchanges[0]);
            return error_set(
                error, E_TIMEOUT, "group %d rank %d: NCCL, %s: %s after %llu ms, with %d ranks",
                peers->place.group, peers->place.rank, what,
                given_up(peers) ? "given up" : "not done",
                (unsigned long long)((now_ns - start_ns) / CLOCK_NS_PER_MS), peers->place.ranks);
        }
        if (now_ns - start_ns > CLOCK_NS_PER_MS)
            clock_sleep_ns(100 * CLOCK_NS_PER_US);
    }
    return result == ncclSuccess ? OK : fail_nccl(peers, what, result, error);
}

// While serving: a fault of NCCL is a fault of the process, unless the group has been given up.
static void settle_or_die(struct peers *peers, const char *what, ncclResult_t result)
{
    struct error error = {.status = OK};
    __atomic_fetch_add(&peers->calls, 1, __ATOMIC_RELAXED);
    if (settle(peers, what, result, &error) != OK && !given_up(peers))
        DIE("%s", error.text);
}

// ---------------------------------------------------------------- for parallel/exchange_cuda.c

static void *allocate(void *context, size_t bytes)
{
    struct peers *peers = context;
    void *memory = NULL;
    return peers->nccl.allocate(&memory, bytes) == ncclSuccess ? memory : NULL;
}

static void release(void *context, void *memory_dev)
{
    struct peers *peers = context;
    (void)peers->nccl.release(memory_dev);
}

static void *window_of(void *context, void *memory_dev, size_t bytes, struct error *error)
{
    struct peers *peers = context;
    // Nobody aborts yet: the watch begins when all is open.
    ncclResult_t result = peers->nccl.window(peers->communicator, memory_dev, bytes, &peers->window,
                                             NCCL_WIN_COLL_SYMMETRIC);
    if (result == ncclSuccess) // says so of a call that has only begun (src/dev_runtime.cc, 2.28)
        result = ncclInProgress;
    if (settle(peers, "a symmetric window", result, error) != OK) {
        abort_once(peers); // the memory is given back next
        return NULL;
    }
    if (peers->window == NULL)
        (void)error_set(error, E_SYSTEM,
                        "group %d rank %d: NCCL has no symmetric window between these GPUs",
                        peers->place.group, peers->place.rank);
    return peers->window;
}

// The sum of bf16, by NCCL's order, which is the same for all ranks: the result is made once.
static void add_large(void *context, void *lane_dev, size_t bytes, struct stream *stream)
{
    struct peers *peers = context;
    if (given_up(peers) || !enter(peers))
        return;
    ncclResult_t result =
        peers->nccl.all_reduce(lane_dev, lane_dev, bytes / sizeof(bf16), ncclBfloat16, ncclSum,
                               peers->communicator, exchange_cuda_stream(stream));
    leave(peers);
    settle_or_die(peers, "all-reduce", result);
}

static void gather_large(struct peers *peers, struct stream *stream, void *out_dev,
                         const void *in_dev, size_t bytes)
{
    if (given_up(peers) || !enter(peers)) {
        stream_zero(stream, out_dev, bytes * (size_t)peers->place.ranks);
        return;
    }
    ncclResult_t result = peers->nccl.all_gather(in_dev, out_dev, bytes, ncclUint8,
                                                 peers->communicator, exchange_cuda_stream(stream));
    leave(peers);
    settle_or_die(peers, "all-gather", result);
}

static void broadcast(struct peers *peers, struct stream *stream, void *data_dev, size_t bytes,
                      int root)
{
    if (given_up(peers) || !enter(peers)) {
        stream_zero(stream, data_dev, bytes);
        return;
    }
    ncclResult_t result = peers->nccl.broadcast(data_dev, data_dev, bytes, ncclUint8, root,
                                                peers->communicator, exchange_cuda_stream(stream));
    leave(peers);
    settle_or_die(peers, "broadcast", result);
}

// ---------------------------------------------------------------- meeting

// One word of every rank to all, over host memory. words [ranks][MEETING_BYTES] or NULL.
static enum status meet(struct peers *peers, const char *what, const void *word, size_t bytes,
                        const uint8_t *lanes[EXCHANGE_RANKS_MAX], struct error *error)
{
    struct exchange *host = &peers->host.exchanges[0];
    exchange_push(host, word, bytes);
    if (exchange_pull(host, lanes))
        return OK;
    char missing[64] = "";
    for (int rank = 0, length = 0; rank < peers->place.ranks; rank++) {
        if ((host->missing >> rank & 1) != 0)
            length += snprintf(missing + length, sizeof missing - (size_t)length, " %d", rank);
    }
    return error_set(error, E_TIMEOUT, "group %d rank %d: %s: %s%s did not come",
                     peers->place.group, peers->place.rank, what,
                     host->missing != 0 ? "ranks" : "another rank gave up, or one of them",
                     missing);
}

static enum status join(struct peers *peers, struct error *error)
{
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    ncclUniqueId id = {0};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclResult_t result = ncclSuccess;
    config.blocking = 0;
    if (peers->place.rank == 0)
        result = peers->nccl.get_id(&id);
    if (result != ncclSuccess)
        return fail_nccl(peers, "its id", result, error);
    TRY(meet(peers, "handing out NCCL's id", &id, sizeof id, lanes, error));
    memcpy(&id, lanes[0], sizeof id);
    result =
        peers->nccl.init(&peers->communicator, peers->place.ranks, id, peers->place.rank, &config);
    return settle(peers, "joining", result, error);
}

static void *watch(void *argument)
{
    struct peers *peers = argument;
    while (!atomic_load(&peers->closing)) {
        ncclResult_t state = given_up(peers) ? ncclSuccess : ask(peers);
        if (state != ncclSuccess && state != ncclInProgress) {
            log_error("NCCL: %s", peers->nccl.text(state));
            exchange_abort(&peers->host.exchanges[0]);
        }
        if (given_up(peers)) {
            clock_sleep_ns(NOTICE_NS); // then no kernel writes to windows that an abort unmaps
            abort_once(peers);
        }
        clock_sleep_ns(WATCH_NS);
    }
    return NULL;
}

static enum status open_all(struct peers *peers, struct group *group, struct error *error)
{
    const struct group_options *options = &group->options;
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    struct exchange_host_options host = {
        .place = options->place,
        .count = 1,
        .lane_bytes = {MEETING_BYTES},
        .wait_ns_max = options->join_ns_max,
        .join_ns_max = options->join_ns_max,
    };
    memcpy(host.id, options->id, sizeof host.id);
    TRY(load(&peers->nccl, error));
    TRY(exchange_host_open(&peers->host, &host, error));
    peers->has_host = true;
    TRY(join(peers, error));
    struct exchange_cuda_options packets = {
        .place = options->place,
        .abort_word = abort_word(peers),
        .wait_ns_max = options->wait_ns_max,
        .allocate = allocate,
        .release = release,
        .window_of = window_of,
        .add_large = add_large,
        .context = peers,
    };
    TRY(exchange_cuda_open(&peers->packets, &packets, error));
    peers->has_packets = true;
    peers->barrier_dev = runtime_alloc(8);
    if (peers->barrier_dev == NULL)
        return error_set(error, E_LIMIT, "device memory: 8 bytes for a barrier do not fit");
    TRY(meet(peers, "the exchange", NULL, 0, lanes, error)); // all windows are there
    if (pthread_create(&peers->watch, NULL, watch, peers) != 0)
        return error_set(error, E_SYSTEM, "no thread to watch NCCL");
    peers->has_watch = true;
    return OK;
}

static enum status peers_open(struct group *group, struct error *error)
{
    _Static_assert(sizeof(ncclUniqueId) <= MEETING_BYTES, "handed out at the meeting");
    struct peers *peers = calloc(1, sizeof *peers);
    if (peers == NULL)
        return error_set(error, E_SYSTEM, "no memory for a group");
    pthread_mutex_init(&peers->calls_mutex, NULL); // cannot fail with default attributes
    peers->place = group->options.place;
    peers->join_ns_max = group->options.join_ns_max;
    // Multicast in the switch is not to be relied on. Before NCCL reads it.
    if (setenv("NCCL_NVLS_ENABLE", "0", 1) != 0) {
        peers_close(peers);
        return error_set(error, E_SYSTEM, "no memory for the environment");
    }
    enum status status = open_all(peers, group, error);
    if (status != OK) {
        if (peers->has_host)
            exchange_abort(&peers->host.exchanges[0]);
        peers_close(peers);
        return status;
    }
    group->peers = peers;
    group->exchange.cuda = &peers->packets.exchange;
    return OK;
}

// NCCL is aborted, not taken leave of: that would wait for the others, who may be dead.
static void peers_close(struct peers *peers)
{
    if (peers == NULL)
        return;
    atomic_store(&peers->closing, true);
    if (peers->has_watch)
        pthread_join(peers->watch, NULL);
    abort_once(peers);
    if (peers->has_packets)
        exchange_cuda_close(&peers->packets);
    if (peers->barrier_dev != NULL)
        runtime_free(peers->barrier_dev);
    if (peers->has_host)
        exchange_host_close(&peers->host);
    pthread_mutex_destroy(&peers->calls_mutex);
    free(peers);
}

#endif

enum status group_open(struct group **out, const struct group_options *options, struct error *error)
{
    struct group *group = calloc(1, sizeof *group);
    if (group == NULL)
        return error_set(error, E_SYSTEM, "no memory for a group");
    group->options = *options;
    group->exchange.rank = options->place.rank;
    group->exchange.ranks = options->place.ranks;
    group->exchange.lane_bytes = options->exchange_bytes;
    enum status status = options->place.ranks > 1 ? peers_open(group, error) : OK;
    if (status == OK) {
        group->exchange.inboxes[0] = runtime_alloc(options->exchange_bytes);
        if (group->exchange.inboxes[0] == NULL)
            status =
                error_set(error, E_LIMIT, "device memory: %zu bytes for the exchange do not fit",
                          options->exchange_bytes);
    }
    if (status != OK) {
        group_close(group);
        return status;
    }
    *out = group;
    return OK;
}

void group_close(struct group *group)
{
    if (group == NULL)
        return;
    peers_close(group->peers);
    if (group->exchange.inboxes[0] != NULL)
        runtime_free(group->exchange.inboxes[0]);
    free(group);
}

struct place group_place(const struct group *group)
{
    return group->options.place;
}

struct exchange *group_exchange(struct group *group)
{
    return &group->exchange;
}

// ---------------------------------------------------------------- collectives

void group_all_gather(struct group *group, struct stream *stream, void *out_dev, const void *in_dev,
                      size_t bytes)
{
    ASSERT(bytes <= group->options.gather_bytes);
#ifdef DELTAMESH_NCCL
    _Static_assert((int)GROUP_GATHER_GRAPH_BYTES_MAX == (int)EXCHANGE_PACKETS_BYTES_MAX,
                   "packets alone may be recorded");
    struct peers *peers = group->peers;
    if (peers != NULL && bytes % 8 == 0 && bytes <= EXCHANGE_PACKETS_BYTES_MAX) {
        exchange_cuda_gather(stream, &peers->packets.exchange, out_dev, in_dev, bytes);
        return;
    }
    if (peers != NULL) {
        gather_large(peers, stream, out_dev, in_dev, bytes);
        return;
    }
#endif
    stream_copy_on_device(stream, out_dev, in_dev, bytes);
}

void group_broadcast(struct group *group, struct stream *stream, void *data_dev, size_t bytes,
                     int root)
{
    ASSERT(bytes <= group->options.gather_bytes && root >= 0 && root < group->options.place.ranks);
#ifdef DELTAMESH_NCCL
    struct peers *peers = group->peers;
    if (peers != NULL)
        broadcast(peers, stream, data_dev, bytes, root);
#else
    (void)stream, (void)data_dev;
#endif
}

void group_barrier(struct group *group, struct stream *stream)
{
#ifdef DELTAMESH_NCCL
    if (group->peers != NULL)
        exchange_cuda_add(stream, &group->peers->packets.exchange, group->peers->barrier_dev, 8);
#else
    (void)group, (void)stream;
#endif
}

void group_load_only(struct group *group, bool on)
{
#ifdef DELTAMESH_NCCL
    if (group->peers != NULL)
        group->peers->packets.exchange.load_only = on;
#else
    (void)group, (void)on;
#endif
}

// ---------------------------------------------------------------- state, from any thread

int group_failed(const struct group *group)
{
#ifdef DELTAMESH_NCCL
    if (group->peers != NULL)
        return given_up(group->peers) ||
               __atomic_load_n(&group->peers->packets.report->failed, __ATOMIC_ACQUIRE) != 0;
#endif
    (void)group;
    return 0;
}

uint32_t group_missing(const struct group *group)
{
#ifdef DELTAMESH_NCCL
    if (group->peers != NULL)
        return __atomic_load_n(&group->peers->packets.report->missing, __ATOMIC_ACQUIRE);
#endif
    (void)group;
    return 0;
}

void group_abort(struct group *group)
{
#ifdef DELTAMESH_NCCL
    if (group->peers != NULL)
        exchange_abort(&group->peers->host.exchanges[0]);
#endif
    (void)group;
}

uint64_t group_epoch(const struct group *group)
{
#ifdef DELTAMESH_NCCL
    if (group->peers != NULL)
        return __atomic_load_n(&group->peers->packets.report->epoch, __ATOMIC_RELAXED) +
               __atomic_load_n(&group->peers->calls, __ATOMIC_RELAXED);
#endif
    (void)group; // alone, there is nobody to be ahead of or behind
    return 0;
}
