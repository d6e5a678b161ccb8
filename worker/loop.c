// SPDX-License-Identifier: Apache-2.0
// loop.c -- one thread, one poll: the socket, the loader's end, the steps' ends, time.
#include "worker/loop.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "parallel/base/clock.h"
#include "parallel/base/log.h"
#include "parallel/base/version.h"
#include "parallel/wire/messages.h"
#include "parallel/wire/socket.h"
#include "worker/loader.h"

#define MS_NS ((uint64_t)CLOCK_NS_PER_MS)

enum { REFUSED_MS_MAX = 8000 }; // for a coordinator that turns this worker away at the handshake

struct loop {
    struct loop_options options;
    struct model_config config;
    struct hello hello;
    struct socket *socket;
    struct loader *loader;      // NULL until placed
    struct step_engine *engine; // NULL until loaded
    struct place_message place;
    struct step_plan plan;
    struct report report;
    uint8_t *frame; // [WIRE_WORKER_FRAME_BYTES_MAX] for sending
    int wake_fd;    // the loader has ended, or a step has
    uint64_t started_ns, placed_ns, heard_ns, said_ns;
    bool ended; // told to end in order
};

static volatile sig_atomic_t stop_requested;

static void on_signal(int number)
{
    (void)number;
    stop_requested = 1;
}

static enum status send_frame(struct loop *loop, enum status encoded, size_t bytes,
                              struct error *error)
{
    ASSERT(encoded == OK); // every message of a worker fits its frame
    return socket_send(loop->socket, NULL, loop->frame, bytes, error);
}

static void tell_failure(struct loop *loop, const char *text)
{
    struct failure failure = {.group = -1, .rank = -1};
    struct error ignored;
    size_t bytes;
    if (loop->loader != NULL) {
        failure.group = loop->place.group;
        failure.rank = loop->place.rank;
        failure.epoch = loop->place.epoch;
    }
    snprintf(failure.text, sizeof failure.text, "%s", text);
    enum status status = failure_encode(loop->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, &failure);
    if (send_frame(loop, status, bytes, &ignored) != OK)
        log_warning("the coordinator could not be told: %s", text);
}

// ---- what is said at intervals ----

static enum status say_hello(struct loop *loop, struct error *error)
{
    size_t bytes;
    enum status status =
        hello_encode(loop->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, &loop->hello);
    return send_frame(loop, status, bytes, error);
}

static enum status say_heartbeat(struct loop *loop, struct error *error)
{
    struct heartbeat beat = {.group = loop->place.group, .rank = loop->place.rank};
    size_t bytes;
    if (loop->engine != NULL) {
        beat.step_begun = step_begun(loop->engine);
        beat.step_done = step_done(loop->engine);
        beat.exchange_epoch = group_epoch(loader_group(loop->loader));
    }
    enum status status = heartbeat_encode(loop->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, &beat);
    return send_frame(loop, status, bytes, error);
}

static enum status say_something(struct loop *loop, struct error *error)
{
    uint64_t now_ns = clock_now_ns();
    bool placed = loop->loader != NULL;
    uint64_t interval_ms = placed ? HEARTBEAT_INTERVAL_MS : HELLO_INTERVAL_MS;
    if (loop->said_ns != 0 && now_ns - loop->said_ns < interval_ms * MS_NS)
        return OK;
    loop->said_ns = now_ns;
    enum status status = placed ? say_heartbeat(loop, error) : say_hello(loop, error);
    // Not connected yet, or a queue that a coordinator does not read: silence ends it, not this.
    if (!placed && status == E_CONNECTION) {
        loop->said_ns = 0; // again at the next turn
        return OK;
    }
    return status == E_OVERLOADED ? OK : status;
}

static enum status check_silence(struct loop *loop, struct error *error)
{
    uint64_t now_ns = clock_now_ns();
    const char *refusal = loop->heard_ns == 0 ? socket_refusal(loop->socket) : "";
    uint64_t limit_ms = loop->loader == NULL ? PLACE_TIMEOUT_MS : 2 * HEARTBEAT_TIMEOUT_MS;
    if (refusal[0] != '\0')
        limit_ms = REFUSED_MS_MAX;
    uint64_t since_ns = loop->heard_ns != 0 ? loop->heard_ns : loop->started_ns;
    if (now_ns - since_ns < limit_ms * MS_NS)
        return OK;
    return error_set(error, E_CONNECTION, "the coordinator at %s has been silent for %llu ms%s",
                     loop->options.coordinator, (unsigned long long)limit_ms, refusal);
}

// ---- what is heard ----

static enum status on_place(struct loop *loop, const void *frame, size_t bytes, struct error *error)
{
    struct place_message place;
    TRY(place_message_decode(&place, frame, bytes, error));
    if (loop->loader != NULL)
        return OK; // a repetition; a new epoch comes to a new process
    loop->place = place;
    loop->placed_ns = clock_now_ns();
    log_set_name("deltamesh-worker", place.rank);
    struct loader_options options = {.model_dir = loop->options.model_dir,
                                     .load_format = loop->options.load_format,
                                     .config = loop->config,
                                     .place = place,
                                     .ended_fd = loop->wake_fd,
                                     .notify_fd = loop->wake_fd};
    return loader_start(&loop->loader, &options, error);
}

static enum status on_end(struct loop *loop, const void *frame, size_t bytes, struct error *error)
{
    struct end_message end;
    TRY(end_message_decode(&end, frame, bytes, error));
    if (end.epoch != 0 && loop->loader != NULL && end.epoch != loop->place.epoch)
        return OK; // of an epoch that this worker is not of
    loop->ended = true;
    return end.failed ? error_set(error, E_FAILED, "the group was ended: %s", end.text) : OK;
}

static enum status on_refuse(const void *frame, size_t bytes, struct error *error)
{
    struct refuse refuse;
    TRY(refuse_decode(&refuse, frame, bytes, error));
    return error_set(error, E_MISMATCH, "the coordinator refused this worker: %s", refuse.text);
}

static enum status on_plan(struct loop *loop, const void *frame, size_t bytes, struct error *error)
{
    TRY(step_plan_decode(&loop->plan, frame, bytes, error));
    if (loop->engine == NULL) {
        return error_set(error, E_MALFORMED, "step %llu came before this rank was ready",
                         (unsigned long long)loop->plan.step);
    }
    if (loop->plan.epoch < loop->place.epoch)
        return OK; // of a dead epoch
    return step_submit(loop->engine, &loop->plan, error);
}

static enum status on_frame(struct loop *loop, const void *frame, size_t bytes, struct error *error)
{
    loop->heard_ns = clock_now_ns();
    switch (message_type_of(frame, bytes)) {
    case MESSAGE_PLACE: return on_place(loop, frame, bytes, error);
    case MESSAGE_REFUSE: return on_refuse(frame, bytes, error);
    case MESSAGE_PLAN: return on_plan(loop, frame, bytes, error);
    case MESSAGE_END: return on_end(loop, frame, bytes, error);
    case MESSAGE_ALIVE: return OK;
    default:
        return error_set(error, E_MALFORMED,
                         "a message of %zu bytes from the coordinator is of "
                         "no type that a worker knows",
                         bytes);
    }
}

static enum status receive_all(struct loop *loop, struct error *error)
{
    const void *frame;
    size_t bytes;
    enum status status = OK;
    while (status == OK && !loop->ended) {
        status = socket_receive(loop->socket, NULL, &frame, &bytes);
        if (status == E_TIMEOUT)
            return OK;
        if (status != OK)
            return error_set(error, status, "a message from the coordinator was unreadable");
        status = on_frame(loop, frame, bytes, error);
    }
    return status;
}

// ---- what the device has done ----

static enum status check_loaded(struct loop *loop, struct error *error)
{
    enum status status = loader_result(loop->loader, error);
    if (status == E_TIMEOUT)
        return OK;
    TRY(status);
    loop->engine = loader_engine(loop->loader);
    struct ready ready = {.group = loop->place.group,
                          .rank = loop->place.rank,
                          .epoch = loop->place.epoch,
                          .load_ns = clock_now_ns() - loop->placed_ns};
    size_t bytes;
    log_info("ready after %llu ms", (unsigned long long)(ready.load_ns / MS_NS));
    status = ready_encode(loop->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, &ready);
    return send_frame(loop, status, bytes, error);
}

static enum status send_reports(struct loop *loop, struct error *error)
{
    while (step_next_report(loop->engine, &loop->report)) {
        size_t bytes;
        if (group_failed(loader_group(loop->loader))) {
            return error_set(error, E_FAILED, "step %llu: a peer did not come to the exchange",
                             (unsigned long long)loop->report.step);
        }
        enum status status =
            report_encode(loop->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, &loop->report);
        TRY(send_frame(loop, status, bytes, error));
    }
    return OK;
}

static enum status progress(struct loop *loop, struct error *error)
{
    uint64_t count;
    ssize_t got = read(loop->wake_fd, &count, sizeof count); // nonblocking: may find nothing
    (void)got;
    if (loop->loader != NULL && loop->engine == NULL)
        TRY(check_loaded(loop, error));
    return loop->engine != NULL ? send_reports(loop, error) : OK;
}

static enum status run(struct loop *loop, struct error *error)
{
    loop->started_ns = clock_now_ns();
    while (!loop->ended) {
        if (stop_requested) {
            tell_failure(loop, "it was told to end (SIGTERM)");
            return OK;
        }
        TRY(receive_all(loop, error)); // first: an END may lie before the connection's end
        if (loop->ended)
            break;
        TRY(say_something(loop, error));
        TRY(check_silence(loop, error));
        TRY(progress(loop, error));
        if (!loop->ended)
            (void)socket_wait(loop->socket, loop->wake_fd, HEARTBEAT_INTERVAL_MS / 2);
    }
    return OK;
}

// ---- start and end ----

static enum status make_hello(struct loop *loop, struct error *error)
{
    struct hello *hello = &loop->hello;
    bool has_mtp;
    TRY(weights_has_mtp(&has_mtp, loop->options.model_dir, loop->options.load_format, &loop->config,
                        error));
    *hello = (struct hello){.version = WIRE_VERSION,
                            .local_rank = loop->options.local_rank,
                            .pid = (int32_t)getpid(),
                            .bytes_free = runtime_bytes_free(),
                            .config_hash = config_hash(&loop->config),
                            .has_mtp = has_mtp};
    snprintf(hello->build, sizeof hello->build, "%s", version_build());
    snprintf(hello->backend, sizeof hello->backend, "%s", runtime_backend());
    snprintf(hello->device, sizeof hello->device, "%s", runtime_device_name());
    if (gethostname(hello->host, sizeof hello->host - 1) != 0)
        snprintf(hello->host, sizeof hello->host, "unknown");
    return OK;
}

static enum status open_loop(struct loop *loop, struct error *error)
{
    TRY(config_load(&loop->config, loop->options.model_dir, error));
    TRY(make_hello(loop, error));
    TRY(step_plan_open(&loop->plan, error));
    loop->report.rows = calloc(STEP_ROWS_MAX, sizeof *loop->report.rows);
    loop->report.logprobs = calloc(STEP_LOGPROBS_MAX, sizeof *loop->report.logprobs);
    loop->frame = malloc(WIRE_WORKER_FRAME_BYTES_MAX);
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->report.rows == NULL || loop->report.logprobs == NULL || loop->frame == NULL ||
        loop->wake_fd < 0)
        return error_set(error, E_SYSTEM, "no memory or file descriptor for the worker");
    struct socket_options socket = {.endpoint = loop->options.coordinator,
                                    .frame_bytes_max = WIRE_WORKER_FRAME_BYTES_MAX,
                                    .queue_frames_max = 64,
                                    .insecure = loop->options.insecure,
                                    .curve_dir = loop->options.curve_dir,
                                    .curve_who = "worker"};
    return socket_open_dealer(&loop->socket, &socket, error);
}

static void close_loop(struct loop *loop)
{
    socket_close(loop->socket, 500);
    loader_close(loop->loader);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    step_plan_close(&loop->plan);
    free(loop->report.rows);
    free(loop->report.logprobs);
    free(loop->frame);
}

enum status loop_run(const struct loop_options *options, struct error *error)
{
    struct loop loop = {.options = *options, .wake_fd = -1};
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    enum status status = open_loop(&loop, error);
    if (status == OK) {
        status = run(&loop, error);
        if (status != OK && !loop.ended)
            tell_failure(&loop, error->text);
    }
    close_loop(&loop);
    return status;
}
