// SPDX-License-Identifier: Apache-2.0
// serve_test.c -- the real `deltamesh serve` with a coordinator and workers that are shell scripts:
// what they are given, and what comes of every way in which they can end.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "parallel/base/clock.h"
#include "tests/fixtures/program.h"

enum { WAIT_MS = 20000, PATH_BYTES = 256 };

static char folder[] = "/tmp/deltamesh-serve-XXXXXX"; // the programs' own directory
static char serve_path[PATH_BYTES];
static struct program serve;

static void path_of(char *path, const char *name)
{
    snprintf(path, PATH_BYTES, "%s/%s", folder, name);
}

static void write_file(const char *name, const void *bytes, size_t count, mode_t mode)
{
    char path[PATH_BYTES];
    path_of(path, name);
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), count);
    close(fd);
}

// All of a file that the scripts write; "" when there is none. The caller frees it.
static char *read_file(const char *name)
{
    char path[PATH_BYTES];
    path_of(path, name);
    char *text = calloc(1, 65536);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        assert_true(read(fd, text, 65535) >= 0);
        close(fd);
    }
    return text;
}

static int copy_program(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    path_of(serve_path, "deltamesh");
    char command[3 * PATH_BYTES];
    snprintf(command, sizeof command, "cp '%s' '%s'", BINARY_DIR "/bin/deltamesh", serve_path);
    return system(command);
}

static int remove_folder(void **state)
{
    (void)state;
    char command[2 * PATH_BYTES];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static int tear_down(void **state)
{
    (void)state;
    program_end(&serve);
    char command[2 * PATH_BYTES];
    snprintf(command, sizeof command, "cd '%s' && rm -f log pids ended deltamesh-*", folder);
    return system(command);
}

// A script that notes its words in `log` and its pid in `pids`, and then does `body`.
static void script(const char *name, const char *body)
{
    char text[4096];
    int bytes = snprintf(text, sizeof text,
                         "#!/bin/sh\ncd '%s'\necho \"%s $*\" >> log\necho $$ >> pids\n%s\n", folder,
                         name, body);
    write_file(name, text, (size_t)bytes, 0755);
}

#define IDLE "while :; do sleep 0.05; done\n"
// Says where workers dial, waits for both of them, says that it is ready.
#define READY                                                                                      \
    "echo workers tcp://127.0.0.1:1\n"                                                             \
    "while [ $(grep -c worker log) -lt 2 ]; do sleep 0.05; done\n"                                 \
    "echo ready rpc=tcp://127.0.0.1:2 http=off\n"

static void start(const char *coordinator, const char *worker, const char *extra)
{
    script("deltamesh-coordinator", coordinator);
    script("deltamesh-worker-cpu", worker);
    const char *words[] = {serve_path, "serve",     "--model", "some dir", "--tp",
                           "2",        "--backend", "cpu",     extra,      NULL};
    program_start(&serve, words, "");
}

static void ready(void)
{
    if (!program_wait_out(&serve, "ready rpc=", WAIT_MS))
        fail_msg("not ready: %s", program_errors(&serve));
}

// Also false for one that has ended and that nobody has waited for yet.
static bool is_alive(pid_t pid)
{
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    int fields = fscanf(file, "%*d (%*[^)]) %c", &state);
    fclose(file);
    return fields == 1 && state != 'Z';
}

static void ends(int code)
{
    int got = program_wait(&serve, WAIT_MS);
    if (got != code)
        fail_msg("exit code %d, expected %d; stderr: %s", got, code, program_errors(&serve));
    // Nothing is left behind.
    char *pids = read_file("pids");
    for (char *rest = pids, *line; (line = strsep(&rest, "\n")) != NULL && line[0] != '\0';)
        assert_false(is_alive((pid_t)atoi(line)));
    free(pids);
}

static void log_has(const char *part)
{
    char *text = read_file("log");
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, text);
    free(text);
}

static void errors_have(const char *part, bool expected)
{
    if ((strstr(program_errors(&serve), part) != NULL) != expected)
        fail_msg("'%s' %s in '%s'", part, expected ? "is not" : "is", program_errors(&serve));
}

static void sigterm_drains(void **state)
{
    (void)state;
    start("trap 'echo drained >> log; touch ended; exit 0' TERM\n" READY IDLE,
          "while [ ! -e ended ]; do sleep 0.05; done; exit 0", "--max-num-seqs=12");
    ready();
    assert_string_equal(program_out(&serve), "ready rpc=tcp://127.0.0.1:2 http=off\n");
    log_has("deltamesh-coordinator --model some dir --tp 2 --max-num-seqs 12\n");
    log_has("deltamesh-worker-cpu --coordinator tcp://127.0.0.1:1 --model some dir --load-format "
            "auto --local-rank 0 --device 0 --log-format text\n");
    log_has("--local-rank 1 --device 1 --log-format text\n");
    kill(serve.pid, SIGTERM);
    ends(0);
    log_has("drained");
}

static void a_clients_drain_is_no_failure(void **state)
{
    (void)state;
    start(READY "touch ended\nsleep 0.3\nexit 0",
          "while [ ! -e ended ]; do sleep 0.05; done; exit 0", NULL);
    ends(0);
    errors_have("error", false);
}

static void a_worker_that_dies_ends_the_group(void **state)
{
    (void)state;
    start("trap 'echo told >> log; sleep 0.1; exit 4' USR1\n" READY IDLE, IDLE, NULL);
    ready();
    char *pids = read_file("pids"); // coordinator, then workers
    pid_t worker = (pid_t)atoi(strchr(pids, '\n') + 1);
    free(pids);
    kill(worker, SIGKILL);
    char text[64];
    snprintf(text, sizeof text, "(pid %d) was killed by signal 9 (Killed)", (int)worker);
    ends(4);
    errors_have(text, true);
    errors_have("rank ", true);
    log_has("told"); // the coordinator could tell its clients
}

static void a_worker_may_also_end_by_exit_code(void **state)
{
    (void)state;
    start("trap 'exit 4' USR1\n" READY IDLE,
          "if [ $8 = 1 ]; then while [ ! -e ended ]; do sleep 0.05; done; exit 4; fi\n" IDLE, NULL);
    ready();
    write_file("ended", "", 0, 0644);
    ends(4);
    errors_have("rank 1 (pid ", true);
    errors_have("ended with exit code 4", true);
}

static void a_deaf_coordinator_is_killed(void **state)
{
    (void)state;
    start("trap '' USR1 TERM INT\n" READY IDLE, IDLE, NULL);
    ready();
    char *pids = read_file("pids");
    kill((pid_t)atoi(strchr(pids, '\n') + 1), SIGSEGV);
    free(pids);
    ends(4);
    errors_have("was killed by signal 11", true);
}

static void bad_input_is_said_once(void **state)
{
    (void)state;
    start("echo workers tcp://127.0.0.1:1\n" IDLE,
          "if [ $8 = 0 ]; then echo 'tensor x is missing' >&2; exit 2; fi\n" IDLE, NULL);
    ends(2);
    assert_string_equal(program_out(&serve), "");
    const char *first = strstr(program_errors(&serve), "tensor x is missing");
    assert_non_null(first);
    assert_null(strstr(first + 1, "tensor x is missing"));
    errors_have("error", false);
    tear_down(state);
    start("echo 'no such model' >&2; exit 2", IDLE, NULL);
    ends(2);
    assert_string_equal(program_errors(&serve), "no such model\n");
    tear_down(state);
    start("echo 'bad flag' >&2; exit 1", IDLE, NULL);
    ends(1);
}

// The coordinator has ended for it and the others have been told to, before it is seen to end.
static void a_worker_that_is_long_in_dying_is_named(void **state)
{
    (void)state;
    start(
        READY "while [ ! -e ended ]; do sleep 0.05; done; exit 4\n",
        "if [ $8 = 1 ]; then trap '' TERM; while [ ! -e ended ]; do sleep 0.05; done; sleep 0.5;\n"
        "kill -9 $$; fi\n" IDLE,
        NULL);
    ready();
    write_file("ended", "", 0, 0644);
    ends(4);
    errors_have("rank 1 (pid ", true);
    errors_have("was killed by signal 9", true);
    errors_have("was killed by signal 15", false);
}

static void a_coordinator_that_dies_ends_all(void **state)
{
    (void)state;
    start(READY IDLE, IDLE, NULL);
    ready();
    char *pids = read_file("pids");
    kill((pid_t)atoi(pids), SIGKILL);
    free(pids);
    ends(4);
    errors_have("the coordinator (pid ", true);
    errors_have("was killed by signal 9", true);
}

static void a_drain_has_an_end(void **state)
{
    (void)state;
    start("trap '' TERM\n" READY IDLE, IDLE, "--drain-timeout=0");
    ready();
    kill(serve.pid, SIGTERM);
    ends(4);
    errors_have("the coordinator did not drain within 5 s", true);
}

static void a_second_signal_aborts(void **state)
{
    (void)state;
    start("trap '' TERM\n" READY IDLE, IDLE, NULL);
    ready();
    uint64_t start_ns = clock_now_ns();
    kill(serve.pid, SIGINT);
    assert_true(program_wait_errors(&serve, "draining", WAIT_MS));
    kill(serve.pid, SIGTERM);
    ends(4);
    assert_true(clock_now_ns() - start_ns < 5u * CLOCK_NS_PER_S);
    errors_have("a second signal", true);
}

static void no_child_outlives_serve(void **state)
{
    (void)state;
    start(READY IDLE, IDLE, NULL);
    ready();
    kill(serve.pid, SIGKILL);
    assert_int_equal(program_wait(&serve, WAIT_MS), -SIGKILL);
    char *pids = read_file("pids");
    uint64_t end_ns = clock_now_ns() + (uint64_t)WAIT_MS * CLOCK_NS_PER_MS;
    int count = 0;
    for (char *rest = pids, *line; (line = strsep(&rest, "\n")) != NULL && line[0] != '\0';) {
        while (is_alive((pid_t)atoi(line)) && clock_now_ns() < end_ns)
            clock_sleep_ns(10 * CLOCK_NS_PER_MS);
        assert_false(is_alive((pid_t)atoi(line)));
        count++;
    }
    assert_int_equal(count, 3);
    free(pids);
}

static void dry_run_is_the_coordinators(void **state)
{
    (void)state;
    start("echo the memory plan; exit 2", IDLE, "--dry-run");
    ends(2);
    assert_string_equal(program_out(&serve), "the memory plan\n");
    log_has("deltamesh-coordinator --model some dir --tp 2 --dry-run\n");
}

static void what_is_missing_or_refused_is_named(void **state)
{
    (void)state;
    const char *none[] = {serve_path, "serve", "--model", "m", "--backend", "cuda", NULL};
    program_start(&serve, none, "");
    ends(2);
    errors_have("no program deltamesh-worker-cuda beside this one", true);
    program_end(&serve);
    const char *host[] = {serve_path, "serve", "--model", "m", "--host", "0.0.0.0", NULL};
    program_start(&serve, host, "");
    ends(1);
    errors_have("--host: use --http HOST:PORT", true);
    program_end(&serve);
    const char *model[] = {serve_path, "serve", "--tp", "2", NULL};
    program_start(&serve, model, "");
    ends(1);
    errors_have("--model DIR is needed", true);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(sigterm_drains),
        TEST(a_clients_drain_is_no_failure),
        TEST(a_worker_that_dies_ends_the_group),
        TEST(a_worker_may_also_end_by_exit_code),
        TEST(a_deaf_coordinator_is_killed),
        TEST(bad_input_is_said_once),
        TEST(a_worker_that_is_long_in_dying_is_named),
        TEST(a_coordinator_that_dies_ends_all),
        TEST(a_drain_has_an_end),
        TEST(a_second_signal_aborts),
        TEST(no_child_outlives_serve),
        TEST(dry_run_is_the_coordinators),
        TEST(what_is_missing_or_refused_is_named),
    };
    return cmocka_run_group_tests(tests, copy_program, remove_folder);
}
