// SPDX-License-Identifier: Apache-2.0
// shell.c -- one poll loop. Every event goes through step(), which carries out all actions before
// the next event.
#include "coordinator/shell.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "parallel/base/clock.h"
#include "parallel/base/log.h"
#include "parallel/wire/socket.h"

#define MS_NS ((uint64_t)CLOCK_NS_PER_MS)

enum { TICK_MS = 50 };

struct shell {
    struct shell_options options;
    struct coord *core;
    void *core_memory;
    struct socket *socket;
    int doors_fd; // epoll over the links' eventfds: some door has ordered something
    struct coord_actions *actions;
    struct socket_peer peers[COORD_WORKERS_MAX]; // bytes_count 0 = free
    uint8_t *frame;                              // [WIRE_WORKER_FRAME_BYTES_MAX]
    struct step_result *results;                 // [STEP_ROWS_MAX]
    struct step_logprob *logprobs;               // [STEP_LOGPROBS_MAX] of the report being read
    struct figures figures;
    uint64_t alive_ns; // when ALIVE was last sent
    uint64_t drain_ns; // when draining began, 0 = not
    int groups_ready;
    bool drained, failed;
    int signals_seen;
};

static volatile sig_atomic_t stop_signals, look_signals;

static void on_stop(int number)
{
    (void)number;
    stop_signals++;
}

static void on_look(int number)
{
    (void)number;
    look_signals = 1;
}

static void step(struct shell *shell, struct coord_event *event);
static void drain(struct shell *shell);

// ---- workers ----

static void forget_worker(struct shell *shell, int32_t worker)
{
    shell->peers[worker].bytes_count = 0;
}

static void worker_gone(struct shell *shell, int32_t worker)
{
    forget_worker(shell, worker);
    step(shell, &(struct coord_event){.type = EVENT_WORKER_GONE, .worker = worker});
}

// Sends the frame that was just encoded. True when the peer is gone. What that means is the core's
// to say: to a rank its group's end, to any other worker nothing.
static bool send_failed(struct shell *shell, int32_t worker, enum status encoded, size_t bytes)
{
    struct error error;
    ASSERT(encoded == OK); // every message of ours fits the frame
    enum status status =
        socket_send(shell->socket, &shell->peers[worker], shell->frame, bytes, &error);
    if (status == OK)
        return false;
    if (status == E_CONNECTION)
        log_info("worker %d: %s", worker, error.text);
    else
        log_warning("worker %d: %s", worker, error.text);
    return true;
}

// The number of a connection; a new one for a peer that is not known yet when `add`, else -1.
static int32_t worker_of(struct shell *shell, const struct socket_peer *peer, bool add)
{
    int32_t free_place = -1;
    for (int32_t i = 0; i < COORD_WORKERS_MAX; i++) {
        const struct socket_peer *known = &shell->peers[i];
        if (known->bytes_count == 0) {
            free_place = free_place < 0 ? i : free_place;
        } else if (known->bytes_count == peer->bytes_count &&
                   memcmp(known->bytes, peer->bytes, peer->bytes_count) == 0) {
            return i;
        }
    }
    if (add && free_place >= 0)
        shell->peers[free_place] = *peer;
    return add ? free_place : -1;
}

static void send_alive(struct shell *shell)
{
    uint64_t now_ns = clock_now_ns();
    if (!look_signals && now_ns - shell->alive_ns < HEARTBEAT_INTERVAL_MS * MS_NS)
        return;
    look_signals = 0;
    shell->alive_ns = now_ns;
    for (int32_t i = 0; i < COORD_WORKERS_MAX; i++) {
        size_t bytes;
        if (shell->peers[i].bytes_count == 0)
            continue;
        enum status status = alive_encode(shell->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes);
        if (send_failed(shell, i, status, bytes))
            worker_gone(shell, i);
    }
}

// Decodes a frame into an event and steps. A frame that is not what it should be is logged and
// dropped; a worker of another version is refused by the core.
static void on_worker_frame(struct shell *shell, const struct socket_peer *peer, const void *frame,
                            size_t bytes)
{
    union {
        struct hello hello;
        struct ready ready;
        struct report report;
        struct heartbeat heartbeat;
        struct failure failure;
    } message;
    struct error error = {.status = OK};
    enum message_type type = message_type_of(frame, bytes);
    struct coord_event event = {.worker = worker_of(shell, peer, type == MESSAGE_HELLO)};
    enum status status = E_MALFORMED;
    if (event.worker < 0)
        return; // of a worker whose group has ended, or more connections than places
    switch (type) {
    case MESSAGE_HELLO:
        status = hello_decode(&message.hello, frame, bytes, &error);
        event.type = EVENT_HELLO;
        event.hello = &message.hello;
        break;
    case MESSAGE_READY:
        status = ready_decode(&message.ready, frame, bytes, &error);
        event.type = EVENT_READY;
        event.ready = &message.ready;
        break;
    case MESSAGE_REPORT:
        message.report.rows = shell->results;
        message.report.logprobs = shell->logprobs;
        status = report_decode(&message.report, frame, bytes, &error);
        event.type = EVENT_REPORT;
        event.report = &message.report;
        break;
    case MESSAGE_HEARTBEAT:
        status = heartbeat_decode(&message.heartbeat, frame, bytes, &error);
        event.type = EVENT_HEARTBEAT;
        event.heartbeat = &message.heartbeat;
        break;
    case MESSAGE_FAILURE:
        status = failure_decode(&message.failure, frame, bytes, &error);
        event.type = EVENT_FAILURE;
        event.failure = &message.failure;
        break;
    default: (void)error_set(&error, E_MALFORMED, "a frame of no known type"); break;
    }
    if (status == OK && type == MESSAGE_REPORT) {
        figures_report(&shell->figures, &message.report, shell->options.core.ranks, clock_now_ns());
    }
    if (status == OK)
        step(shell, &event);
    else
        log_warning("worker %d: dropped %zu bytes: %s", event.worker, bytes, error.text);
}

// Whether the n-th of something is worth a line: the 1st, 2nd, 4th, 8th, ..
static bool is_told(uint64_t n)
{
    return (n & (n - 1)) == 0;
}

// What the socket has dropped. Who sent it may be anybody that can connect, as often as they like.
static void on_dropped(struct shell *shell, const struct socket_peer *peer, enum status status)
{
    struct socket_counts counts = socket_counts(shell->socket);
    int32_t worker = worker_of(shell, peer, false);
    char who[32] = "a stranger";
    if (worker >= 0)
        snprintf(who, sizeof who, "worker %d", worker);
    if (!is_told(status == E_LIMIT ? counts.frames_oversized : counts.frames_multipart))
        return;
    if (status == E_LIMIT)
        log_warning("%s: dropped a message above the limit of %d bytes; %llu so far", who,
                    WIRE_WORKER_FRAME_BYTES_MAX, (unsigned long long)counts.frames_oversized);
    else
        log_warning("%s: dropped a message of several frames; %llu so far", who,
                    (unsigned long long)counts.frames_multipart);
}

static void receive_workers(struct shell *shell)
{
    struct socket_peer peer;
    const void *frame;
    size_t bytes;
    for (;;) {
        enum status status = socket_receive(shell->socket, &peer, &frame, &bytes);
        if (status == E_TIMEOUT)
            return;
        if (status == OK)
            on_worker_frame(shell, &peer, frame, bytes);
        else
            on_dropped(shell, &peer, status);
    }
}

// ---- doors ----

static struct link *link_of(struct shell *shell, uint64_t request)
{
    return &shell->options.links[(request >> 56) % (uint64_t)shell->options.links_count];
}

static void on_order(struct shell *shell, struct link *link, const struct link_order *order)
{
    struct coord_event event = {.worker = -1};
    struct link_news news = {.type = NEWS_STATUS, .request = order->request};
    switch (order->type) {
    case ORDER_SUBMIT:
        event.type = EVENT_SUBMIT;
        event.submit.request = order->request;
        event.submit.prompt = order->prompt;
        event.submit.prompt_tokens = order->prompt_tokens;
        event.submit.arrived_ns = order->arrived_ns;
        event.submit.priority = order->priority;
        event.submit.timeout_ns = (uint64_t)order->timeout_ms * CLOCK_NS_PER_MS;
        event.submit.lists = order->lists;
        event.submit.sampling = order->sampling;
        step(shell, &event);
        free(order->prompt);
        free(order->lists);
        break;
    case ORDER_FINISH:
        event.type = EVENT_FINISH;
        event.finish.request = order->request;
        event.finish.reason = order->reason;
        step(shell, &event);
        break;
    case ORDER_STATUS:
        news.overview = overview_make(shell->core, &shell->figures);
        link_tell(link, &news);
        break;
    case ORDER_DRAIN: drain(shell); break;
    }
}

static void receive_doors(struct shell *shell)
{
    for (int i = 0; i < shell->options.links_count; i++) {
        struct link *link = &shell->options.links[i];
        struct link_order order;
        link_clear(link->core_fd);
        while (link_next_order(link, &order))
            on_order(shell, link, &order);
    }
}

static void wake_doors(struct shell *shell)
{
    for (int i = 0; i < shell->options.links_count; i++)
        link_wake_door(&shell->options.links[i]);
}

static void tell_all_doors(struct shell *shell, const struct link_news *news)
{
    for (int i = 0; i < shell->options.links_count; i++)
        link_tell(&shell->options.links[i], news);
    wake_doors(shell);
}

// ---- actions ----

// As it is for a person; a line of the log for each of its lines for a program.
static void print_table(char *table)
{
    char *rest = table;
    if (log_format() == LOG_TEXT)
        fprintf(stderr, "%s", table);
    for (char *line; log_format() == LOG_JSON && (line = strsep(&rest, "\n")) != NULL;) {
        if (line[0] != '\0')
            log_info("%s", line);
    }
}

// What was asked for about drafts where none are made: only now is it known what the model's files
// have.
static void warn_of_no_drafts(const struct coord_options *options)
{
    bool none_wanted = options->speculative_tokens == 0;
    const char *why = none_wanted ? "--speculative-tokens is 0"
                                  : "the model's files have no multi-token-prediction head";
    if (options->speculative_tokens > 0)
        log_warning("--speculative-tokens %d does nothing: %s", options->speculative_tokens, why);
    if (options->draft_vocab > 0)
        log_warning("--draft-vocab %d does nothing: %s", options->draft_vocab, why);
    if (options->synthetic_thousandths > 0)
        log_warning("--synthetic-acceptance %g does nothing: %s",
                    options->synthetic_thousandths / 1000.0, why);
}

static void on_group_ready(struct shell *shell, const struct coord_action *action)
{
    char table[2048];
    struct link_news news = {.type = NEWS_READY, .context = action->memory->sequence_tokens};
    memory_plan_print(table, sizeof table, action->memory);
    print_table(table);
    log_info("group %d is ready: %d ranks", action->group, shell->options.core.ranks);
    tell_all_doors(shell, &news);
    if (shell->groups_ready == 0 && action->drafts_max == 0)
        warn_of_no_drafts(&shell->options.core);
    if (++shell->groups_ready == shell->options.core.groups) {
        printf("%s\n", shell->options.ready_line);
        fflush(stdout);
    }
}

static void on_group_failed(struct shell *shell, const struct coord_action *action)
{
    struct coord_status status;
    log_error("%s", action->text);
    coord_status(shell->core, &status);
    shell->failed = status.failed;
}

static void copy_logprobs(struct link_news *news, const struct coord_action *action)
{
    size_t prompt = (size_t)action->prompt_logprobs_count;
    size_t drawn = action->logprobs != NULL ? (size_t)action->tokens_count : 0;
    if (prompt + drawn == 0)
        return;
    news->logprobs = malloc((1 + prompt + drawn) * sizeof *news->logprobs);
    if (news->logprobs == NULL) {
        log_error("no memory for the log-probabilities of %zu tokens", prompt + drawn);
        return;
    }
    news->logprobs[0] = (struct step_logprob){.id = -1};
    if (prompt > 0)
        memcpy(news->logprobs + 1, action->prompt_logprobs, prompt * sizeof *news->logprobs);
    if (drawn > 0)
        memcpy(news->logprobs + 1 + prompt, action->logprobs, drawn * sizeof *news->logprobs);
    news->prompt_logprobs_count = (int32_t)prompt;
    news->logprobs_count = (int32_t)drawn;
}

static void tell_request(struct shell *shell, const struct coord_action *action)
{
    struct link_news news = {.request = action->request};
    switch (action->type) {
    case ACTION_ACCEPTED: news.type = NEWS_ACCEPTED; break;
    case ACTION_TOKENS:
        ASSERT(action->tokens_count <= STEP_VERIFY_MAX);
        news.type = NEWS_TOKENS;
        news.tokens_count = action->tokens_count;
        memcpy(news.tokens, action->tokens, (size_t)action->tokens_count * sizeof(int32_t));
        copy_logprobs(&news, action);
        break;
    case ACTION_DONE:
        news.type = NEWS_DONE;
        news.reason = action->reason;
        news.usage = action->usage;
        break;
    default:
        news.type = NEWS_ERROR;
        news.status = action->status;
        news.text = strdup(action->text);
        break;
    }
    link_tell(link_of(shell, action->request), &news);
}

// A worker that cannot be reached is not told to the core from here: the next ALIVE finds out.
static void send_to_worker(struct shell *shell, const struct coord_action *action)
{
    size_t bytes = 0;
    enum status status = OK;
    if (shell->peers[action->worker].bytes_count == 0)
        return;
    if (action->type == ACTION_SEND_PLACE)
        status =
            place_message_encode(shell->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, action->place);
    else if (action->type == ACTION_SEND_REFUSE)
        status = refuse_encode(shell->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, action->refuse);
    else
        status = end_message_encode(shell->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, action->end);
    if (action->type == ACTION_SEND_REFUSE)
        log_warning("worker %d was refused: %s", action->worker, action->refuse->text);
    bool gone = send_failed(shell, action->worker, status, bytes);
    if (gone || action->type != ACTION_SEND_PLACE)
        forget_worker(shell, action->worker);
}

static void send_plan(struct shell *shell, const struct coord_action *action)
{
    size_t bytes;
    enum status status =
        step_plan_encode(shell->frame, WIRE_WORKER_FRAME_BYTES_MAX, &bytes, action->plan);
    for (int r = 0; r < shell->options.core.ranks; r++) {
        int32_t worker = coord_worker(shell->core, action->group, r);
        (void)send_failed(shell, worker, status, bytes);
    }
}

static void act(struct shell *shell, const struct coord_action *action)
{
    figures_action(&shell->figures, action);
    switch (action->type) {
    case ACTION_SEND_PLACE:
    case ACTION_SEND_REFUSE:
    case ACTION_SEND_END: send_to_worker(shell, action); break;
    case ACTION_SEND_PLAN: send_plan(shell, action); break;
    case ACTION_GROUP_READY: on_group_ready(shell, action); break;
    case ACTION_GROUP_FAILED: on_group_failed(shell, action); break;
    case ACTION_DRAINED: shell->drained = true; break;
    default: tell_request(shell, action); break;
    }
}

static void step(struct shell *shell, struct coord_event *event)
{
    do {
        event->now_ns = clock_now_ns();
        coord_step(shell->core, event, shell->actions);
        for (int i = 0; i < shell->actions->count; i++)
            act(shell, &shell->actions->list[i]);
        if (shell->actions->count > 0)
            wake_doors(shell);
        event->type = EVENT_TICK;
    } while (shell->actions->more);
}

// ---- time and signals ----

static void drain(struct shell *shell)
{
    struct link_news news = {.type = NEWS_DRAINING};
    if (shell->drain_ns == 0)
        shell->drain_ns = clock_now_ns();
    tell_all_doors(shell, &news);
    step(shell, &(struct coord_event){.type = EVENT_DRAIN, .worker = -1});
}

static void check_signals(struct shell *shell)
{
    int seen = stop_signals;
    uint64_t now_ns = clock_now_ns();
    bool late = shell->drain_ns != 0 &&
                now_ns - shell->drain_ns > (uint64_t)shell->options.drain_timeout_s * 1000 * MS_NS;
    if (seen > shell->signals_seen && seen == 1) {
        log_info("draining: no new requests, at most %d s", shell->options.drain_timeout_s);
        drain(shell);
    } else if ((seen > shell->signals_seen && seen > 1) || late) {
        log_warning("%s: everything ends now", late ? "the drain took too long" : "told twice");
        step(shell, &(struct coord_event){.type = EVENT_SHUTDOWN, .worker = -1});
        shell->drained = true;
    }
    shell->signals_seen = seen;
}

static enum status open_doors_fd(struct shell *shell, struct error *error)
{
    struct epoll_event event = {.events = EPOLLIN};
    shell->doors_fd = epoll_create1(EPOLL_CLOEXEC);
    bool fine = shell->doors_fd >= 0;
    for (int i = 0; i < shell->options.links_count && fine; i++) {
        int fd = shell->options.links[i].core_fd;
        fine = epoll_ctl(shell->doors_fd, EPOLL_CTL_ADD, fd, &event) == 0;
    }
    return fine ? OK : error_set(error, E_SYSTEM, "no file descriptor for the doors' orders");
}

static enum status open_shell(struct shell *shell, struct error *error)
{
    size_t bytes = (coord_bytes(&shell->options.core) + 63) / 64 * 64;
    shell->core_memory = aligned_alloc(64, bytes);
    shell->actions = malloc(sizeof *shell->actions);
    shell->frame = malloc(WIRE_WORKER_FRAME_BYTES_MAX);
    shell->results = calloc(STEP_ROWS_MAX, sizeof *shell->results);
    shell->logprobs = calloc(STEP_LOGPROBS_MAX, sizeof *shell->logprobs);
    if (shell->core_memory == NULL || shell->actions == NULL || shell->frame == NULL ||
        shell->results == NULL || shell->logprobs == NULL)
        return error_set(error, E_SYSTEM, "no memory: the coordinator needs %zu MiB", bytes >> 20);
    TRY(open_doors_fd(shell, error));
    TRY(coord_init(&shell->core, shell->core_memory, &shell->options.core, error));
    struct socket_options socket = {.endpoint = shell->options.workers_endpoint,
                                    .frame_bytes_max = WIRE_WORKER_FRAME_BYTES_MAX,
                                    .queue_frames_max = 64,
                                    .insecure = shell->options.insecure,
                                    .curve_dir = shell->options.curve_dir,
                                    .curve_who = "worker"};
    TRY(socket_open_router(&shell->socket, &socket, error));
    printf("workers %s\n", socket_endpoint(shell->socket));
    fflush(stdout);
    return OK;
}

static void run(struct shell *shell)
{
    while (!shell->drained && !shell->failed) {
        (void)socket_wait(shell->socket, shell->doors_fd, TICK_MS);
        receive_workers(shell);
        receive_doors(shell);
        step(shell, &(struct coord_event){.type = EVENT_TICK, .worker = -1});
        send_alive(shell);
        check_signals(shell);
    }
}

enum status shell_run(const struct shell_options *options, struct error *error)
{
    struct shell *shell = calloc(1, sizeof *shell);
    struct sigaction stop = {.sa_handler = on_stop}, look = {.sa_handler = on_look};
    if (shell == NULL)
        return error_set(error, E_SYSTEM, "no memory for the coordinator");
    shell->options = *options;
    shell->doors_fd = -1;
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGUSR1, &look, NULL);
    enum status status = open_shell(shell, error);
    if (status == OK) {
        run(shell);
        tell_all_doors(shell, &(struct link_news){.type = NEWS_END});
        if (shell->failed)
            status = error_set(error, E_FAILED, "%s", ""); // on_group_failed has said why
    }
    socket_close(shell->socket, 1000);
    if (shell->doors_fd >= 0)
        close(shell->doors_fd);
    free(shell->core_memory);
    free(shell->actions);
    free(shell->frame);
    free(shell->results);
    free(shell->logprobs);
    free(shell);
    return status;
}
