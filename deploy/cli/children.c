// SPDX-License-Identifier: Apache-2.0
// children.c -- fork, exec and wait.
#include "deploy/cli/children.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_NOT_STARTED = 127 };

enum status children_path(char *path, size_t path_bytes, const char *program, struct error *error)
{
    ssize_t bytes = readlink("/proc/self/exe", path, path_bytes - 1);
    if (bytes < 0)
        return error_set(error, E_SYSTEM, "/proc/self/exe: %s", strerror(errno));
    path[bytes] = '\0';
    char *name = strrchr(path, '/') + 1;
    size_t room = path_bytes - (size_t)(name - path);
    if ((size_t)snprintf(name, room, "%s", program) >= room || access(path, X_OK) != 0)
        return error_set(error, E_NOT_FOUND, "no program %s beside this one (%.300s)", program,
                         path);
    return OK;
}

// In the child, between fork and exec: only calls that are safe there.
static void become(char *const *words, int death_signal, pid_t parent, int stdout_fd)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, death_signal);
    if (getppid() != parent) // the parent died before prctl could watch it
        _exit(EXIT_NOT_STARTED);
    setpgid(0, 0);
    if (stdout_fd >= 0)
        dup2(stdout_fd, STDOUT_FILENO);
    execv(words[0], words);
    static const char text[] = "deltamesh: a child program could not be started\n";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(EXIT_NOT_STARTED);
}

enum status children_start(struct child *child, char *const *words, int death_signal,
                           bool read_stdout, struct error *error)
{
    int ends[2] = {-1, -1};
    if (read_stdout && pipe2(ends, O_CLOEXEC) != 0)
        return error_set(error, E_SYSTEM, "no pipe for %s: %s", words[0], strerror(errno));
    fflush(NULL); // what is buffered is written once, by us
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        become(words, death_signal, parent, ends[1]);
    if (ends[1] >= 0)
        close(ends[1]);
    if (pid < 0) {
        if (ends[0] >= 0)
            close(ends[0]);
        return error_set(error, E_SYSTEM, "cannot start %s: %s", words[0], strerror(errno));
    }
    if (ends[0] >= 0)
        fcntl(ends[0], F_SETFL, O_NONBLOCK);
    child->pid = pid;
    child->stdout_fd = ends[0];
    child->is_running = true;
    child->wait_status = 0;
    return OK;
}

bool children_reap(struct child *child)
{
    if (!child->is_running)
        return false;
    pid_t pid = waitpid(child->pid, &child->wait_status, WNOHANG);
    ASSERT(pid == 0 || pid == child->pid || errno == EINTR);
    child->is_running = pid != child->pid;
    return !child->is_running;
}

void children_signal(const struct child *child, int signal)
{
    if (child->is_running)
        kill(child->pid, signal);
}

int children_exit_code(const struct child *child)
{
    return WIFEXITED(child->wait_status) ? WEXITSTATUS(child->wait_status) : -1;
}

int children_end_signal(const struct child *child)
{
    return WIFSIGNALED(child->wait_status) ? WTERMSIG(child->wait_status) : 0;
}

void children_describe(char *text, size_t text_bytes, const struct child *child)
{
    if (WIFSIGNALED(child->wait_status))
        snprintf(text, text_bytes, "%s (pid %d) was killed by signal %d (%s)", child->name,
                 (int)child->pid, WTERMSIG(child->wait_status),
                 strsignal(WTERMSIG(child->wait_status)));
    else
        snprintf(text, text_bytes, "%s (pid %d) ended with exit code %d", child->name,
                 (int)child->pid, WEXITSTATUS(child->wait_status));
}
