// SPDX-License-Identifier: Apache-2.0
// serve.c -- one loop over signals and the coordinator's stdout, from the first child's start to
// the last one's end.
#include "deploy/cli/serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "deploy/cli/children.h"
#include "deploy/cli/serve_options.h"
#include "parallel/base/clock.h"
#include "parallel/base/log.h"

enum {
    LINE_BYTES_MAX = 1024,   // of what the coordinator prints on stdout
    POLL_MS = 200,           // how late a deadline may be noticed
    TELL_CLIENTS_MS = 5000,  // for the coordinator after a worker's death
    DRAIN_GRACE_MS = 5000,   // for the coordinator beyond its own drain timeout
    WORKER_ENDS_MS = 5000,   // for a worker that has been told to end
    WORKER_ALONE_MS = 10000, // for the coordinator when a worker has ended in order
    TERMINATE_MS = 4000,     // between SIGTERM and SIGKILL; a GPU's process may take a second
};

enum phase {
    LOADING,  // until the coordinator's ready line
    SERVING,  //
    DRAINING, // the coordinator has been told to drain
    FAILING,  // a worker died: the coordinator tells its clients
    ENDING,   // the coordinator has ended, or has to
};

struct serve {
    struct serve_options options;
    enum phase phase;
    enum status result;
    struct child coordinator;
    struct child workers[SERVE_RANKS_MAX];
    int32_t workers_count; // started
    char worker_path[CHILDREN_PATH_BYTES_MAX];
    int signal_fd;
    uint64_t deadline_ns; // of the phase; UINT64_MAX = none
    int stops;            // SIGTERM and SIGINT so far
    int signalled;        // the children, by us: 0, SIGTERM, or SIGKILL behind it
    char line[LINE_BYTES_MAX];
    size_t line_bytes;
};

static void set_deadline(struct serve *serve, int64_t duration_ms)
{
    serve->deadline_ns = clock_now_ns() + (uint64_t)duration_ms * CLOCK_NS_PER_MS;
}

// The coordinator is to end now, for this reason; the first reason stays.
static void end_because(struct serve *serve, enum status status)
{
    if (serve->result == OK)
        serve->result = status;
    serve->phase = ENDING;
}

// ---- Starting ----

static enum status start_coordinator(struct serve *serve, struct error *error)
{
    static char path[CHILDREN_PATH_BYTES_MAX];
    char *words[SERVE_WORDS_MAX + 2] = {path};
    TRY(children_path(path, sizeof path, "deltamesh-coordinator", error));
    for (int i = 0; serve->options.forwarded[i] != NULL; i++)
        memcpy(&words[i + 1], &serve->options.forwarded[i], sizeof *words); // exec only reads them
    if (serve->options.dry_run) {
        execv(path, words);
        return error_set(error, E_SYSTEM, "cannot start %s: %s", path, strerror(errno));
    }
    snprintf(serve->coordinator.name, sizeof serve->coordinator.name, "the coordinator");
    return children_start(&serve->coordinator, words, SIGKILL, true, error);
}

static enum status find_worker(struct serve *serve, struct error *error)
{
    struct error none;
    bool has_cuda = children_path(serve->worker_path, sizeof serve->worker_path,
                                  "deltamesh-worker-cuda", &none) == OK;
    char name[64];
    snprintf(name, sizeof name, "deltamesh-worker-%s",
             serve_options_backend(&serve->options, has_cuda));
    return children_path(serve->worker_path, sizeof serve->worker_path, name, error);
}

static enum status start_workers(struct serve *serve, const char *endpoint, struct error *error)
{
    for (int32_t rank = 0; rank < serve->options.ranks; rank++) {
        struct child *worker = &serve->workers[rank];
        char local_rank[16], coordinator[LINE_BYTES_MAX], model[CHILDREN_PATH_BYTES_MAX];
        char load_format[16], log_format[16], curve_dir[CHILDREN_PATH_BYTES_MAX];
        snprintf(log_format, sizeof log_format, "%s", serve->options.log_format);
        snprintf(local_rank, sizeof local_rank, "%d", (int)rank);
        snprintf(coordinator, sizeof coordinator, "%s", endpoint);
        snprintf(model, sizeof model, "%s", serve->options.model);
        snprintf(load_format, sizeof load_format, "%s", serve->options.load_format);
        char *curve = serve->options.curve_dir != NULL ? "--curve-dir" : NULL;
        snprintf(curve_dir, sizeof curve_dir, "%s", curve != NULL ? serve->options.curve_dir : "");
        char *words[] = {serve->worker_path,
                         "--coordinator",
                         coordinator,
                         "--model",
                         model,
                         "--load-format",
                         load_format,
                         "--local-rank",
                         local_rank,
                         "--device",
                         local_rank,
                         "--log-format",
                         log_format,
                         curve,
                         curve_dir,
                         NULL};
        snprintf(worker->name, sizeof worker->name, "rank %d", (int)rank);
        TRY(children_start(worker, words, SIGKILL, false, error));
        serve->workers_count++;
    }
    return OK;
}

// ---- What the coordinator prints ----

static void on_line(struct serve *serve, const char *line)
{
    static const char workers[] = "workers ", ready[] = "ready ";
    struct error error;
    if (strncmp(line, workers, sizeof workers - 1) == 0) {
        if (serve->phase != LOADING || serve->workers_count > 0)
            return;
        if (start_workers(serve, line + sizeof workers - 1, &error) != OK) {
            log_error("%s", error.text);
            end_because(serve, error.status);
        }
        return;
    }
    if (serve->phase == LOADING && strncmp(line, ready, sizeof ready - 1) == 0)
        serve->phase = SERVING;
    puts(line);
    fflush(stdout);
}

// False once the pipe has ended.
static bool read_coordinator(struct serve *serve)
{
    char *line = serve->line;
    for (;;) {
        ASSERT(serve->line_bytes < LINE_BYTES_MAX - 1); // below; gcc 13 wants to see it here
        ssize_t count = read(serve->coordinator.stdout_fd, line + serve->line_bytes,
                             LINE_BYTES_MAX - 1 - serve->line_bytes);
        if (count < 0)
            return errno == EAGAIN || errno == EINTR;
        if (count == 0)
            return false;
        serve->line_bytes += (size_t)count;
        char *end;
        while ((end = memchr(line, '\n', serve->line_bytes)) != NULL) {
            *end = '\0';
            on_line(serve, line);
            serve->line_bytes -= (size_t)(end + 1 - line);
            memmove(line, end + 1, serve->line_bytes);
        }
        if (serve->line_bytes == LINE_BYTES_MAX - 1)
            serve->line_bytes = 0; // a line of no program of ours
    }
}

// ---- What ends ----

// The status that an exit code of a child stands for.
static enum status status_of(int exit_code)
{
    return exit_code == 0 ? OK : exit_code == 1 ? E_USAGE : exit_code == 2 ? E_INPUT : E_FAILED;
}

// Whether a child that is found behind others is what these ended for: somebody else killed it. A
// process with a GPU is seen to end a second after it was killed, its connections at once.
static bool is_cause(const struct serve *serve, const struct child *child)
{
    int signal = children_end_signal(child);
    bool ours = serve->signalled != 0 && (signal == SIGTERM || signal == serve->signalled);
    return signal != 0 && !ours;
}

static void on_coordinator_end(struct serve *serve)
{
    char text[256];
    enum status status = status_of(children_exit_code(&serve->coordinator));
    bool known = serve->phase == FAILING || serve->phase == ENDING;
    children_describe(text, sizeof text, &serve->coordinator);
    if (status == E_FAILED && (!known || is_cause(serve, &serve->coordinator)))
        log_error("%s", text);
    end_because(serve, status);
}

static void on_worker_end(struct serve *serve, struct child *worker)
{
    char text[256];
    int code = children_exit_code(worker);
    children_describe(text, sizeof text, worker);
    if (serve->phase == ENDING || serve->phase == FAILING) {
        if (is_cause(serve, worker))
            log_error("%s%s", text, serve->signalled != 0 ? ", while all were being ended" : "");
        return;
    }
    if (code == 0) { // the coordinator let it go and will end too
        if (serve->phase != DRAINING)
            set_deadline(serve, WORKER_ALONE_MS);
        return;
    }
    if (serve->phase == LOADING && (code == 1 || code == 2)) {
        end_because(serve, status_of(code)); // it has said why
        return;
    }
    log_error("%s; its group ends", text);
    serve->result = E_FAILED;
    serve->phase = FAILING;
    set_deadline(serve, TELL_CLIENTS_MS);
    children_signal(&serve->coordinator, SIGUSR1);
}

static void on_stop(struct serve *serve)
{
    if (++serve->stops > 1) {
        log_warning("a second signal: everything is ended now");
        end_because(serve, E_ABORTED);
        return;
    }
    if (serve->phase == FAILING || serve->phase == ENDING)
        return;
    log_info("draining, %d s at most; a second signal aborts", (int)serve->options.drain_timeout_s);
    serve->phase = DRAINING;
    set_deadline(serve, 1000 * (int64_t)serve->options.drain_timeout_s + DRAIN_GRACE_MS);
    children_signal(&serve->coordinator, SIGTERM);
}

static void on_deadline(struct serve *serve)
{
    serve->deadline_ns = UINT64_MAX;
    if (serve->phase == DRAINING)
        log_error("the coordinator did not drain within %d s",
                  (int)serve->options.drain_timeout_s + DRAIN_GRACE_MS / 1000);
    else if (serve->phase != FAILING)
        log_error("a worker ended in order, but the coordinator did not within %d s",
                  WORKER_ALONE_MS / 1000);
    end_because(serve, E_FAILED);
}

static void reap(struct serve *serve)
{
    if (children_reap(&serve->coordinator)) {
        read_coordinator(serve); // its last lines
        on_coordinator_end(serve);
    }
    for (int32_t rank = 0; rank < serve->workers_count; rank++) {
        if (children_reap(&serve->workers[rank]))
            on_worker_end(serve, &serve->workers[rank]);
    }
}

// ---- The loop ----

static void read_signals(struct serve *serve)
{
    struct signalfd_siginfo info;
    while (read(serve->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo != SIGCHLD)
            on_stop(serve);
    }
    reap(serve);
}

// One round: waits for a signal, a line or a while.
static void wait_once(struct serve *serve)
{
    struct pollfd fds[2] = {{.fd = serve->signal_fd, .events = POLLIN},
                            {.fd = serve->coordinator.stdout_fd, .events = POLLIN}};
    poll(fds, 2, POLL_MS);
    if ((fds[1].revents & (POLLIN | POLLHUP)) != 0 && !read_coordinator(serve)) {
        close(serve->coordinator.stdout_fd);
        serve->coordinator.stdout_fd = -1;
    }
    read_signals(serve);
    if (clock_now_ns() >= serve->deadline_ns)
        on_deadline(serve);
}

static bool any_runs(const struct serve *serve)
{
    bool runs = serve->coordinator.is_running;
    for (int32_t rank = 0; rank < serve->workers_count; rank++)
        runs |= serve->workers[rank].is_running;
    return runs;
}

static void signal_all(struct serve *serve, int signal)
{
    serve->signalled = signal;
    children_signal(&serve->coordinator, signal);
    for (int32_t rank = 0; rank < serve->workers_count; rank++)
        children_signal(&serve->workers[rank], signal);
}

// Ends what still runs: workers of a coordinator that ended in order get time to follow it; then
// SIGTERM, then SIGKILL. A second stop shortens all of it.
static void end_all(struct serve *serve)
{
    static const int signals[] = {0, SIGTERM, SIGKILL};
    bool in_order = serve->result == OK;
    for (int i = in_order ? 0 : 1; i < 3 && any_runs(serve); i++) {
        int stops = serve->stops;
        if (serve->result == E_ABORTED)
            i = 2;
        if (signals[i] != 0)
            signal_all(serve, signals[i]);
        set_deadline(serve, i == 0 ? WORKER_ENDS_MS : TERMINATE_MS);
        uint64_t end_ns = serve->deadline_ns;
        serve->deadline_ns = UINT64_MAX;
        while (any_runs(serve) && clock_now_ns() < end_ns && serve->stops == stops)
            wait_once(serve);
    }
}

// Blocks the signals we wait for, so that they are read as bytes; from here to the program's end.
static enum status open_signals(struct serve *serve, struct error *error)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN); // who reads our stdout may leave; the deployment goes on
    serve->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (serve->signal_fd < 0)
        return error_set(error, E_SYSTEM, "signalfd: %s", strerror(errno));
    return OK;
}

enum status serve_run(int count, char *const *words, struct error *error)
{
    static struct serve serve;
    serve = (struct serve){
        .coordinator = {.stdout_fd = -1}, .signal_fd = -1, .deadline_ns = UINT64_MAX};
    TRY(serve_options_parse(&serve.options, count, words, error));
    if (serve.options.help)
        return OK;
    if (serve.options.dry_run)
        return start_coordinator(&serve, error); // which becomes it, or fails
    TRY(find_worker(&serve, error));
    TRY(open_signals(&serve, error));
    log_set_name("deltamesh serve", -1);
    if (strcmp(serve.options.log_format, "json") == 0)
        log_set_format(LOG_JSON);
    TRY(start_coordinator(&serve, error));
    while (serve.phase != ENDING)
        wait_once(&serve);
    end_all(&serve);
    if (serve.coordinator.stdout_fd >= 0)
        close(serve.coordinator.stdout_fd);
    close(serve.signal_fd);
    error->text[0] = '\0'; // whatever went wrong has been said
    return serve.result;
}
