// SPDX-License-Identifier: Apache-2.0
// children.h -- programs of ours started as child processes that cannot outlive us. Knows how a
// child ended, not what that means.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "parallel/base/status.h"

enum { CHILDREN_PATH_BYTES_MAX = 4096 };

struct child {
    char name[64];   // for people: "rank 1", "the coordinator"
    pid_t pid;       // 0 = never started
    int stdout_fd;   // our end of its stdout, -1 when it shares ours
    bool is_running; // until children_reap has seen its end
    int wait_status; // of waitpid, once it has ended
};

// The path of a program that lies beside the running one, into path[path_bytes], which should be
// CHILDREN_PATH_BYTES_MAX. E_NOT_FOUND when there is none.
enum status children_path(char *path, size_t path_bytes, const char *program,
                          struct error *error) MUST_CHECK;

// Starts words[0] with words (ending in NULL), in a process group of its own, so that a terminal's
// Ctrl-C reaches us alone, and with death_signal should we die. read_stdout: its stdout is a pipe
// to child->stdout_fd, non-blocking. The caller's signal mask is not inherited. child->name stays.
enum status children_start(struct child *child, char *const *words, int death_signal,
                           bool read_stdout, struct error *error) MUST_CHECK;

// True when the child has just been seen to end; asks without waiting.
bool children_reap(struct child *child);

// Sends a signal to a child that still runs.
void children_signal(const struct child *child, int signal);

// Its exit code, -1 when a signal ended it.
int children_exit_code(const struct child *child);

// The signal that ended it, 0 when it exited.
int children_end_signal(const struct child *child);

// "rank 1 (pid 77) was killed by signal 9 (Killed)" or "... ended with exit code 4" into text.
void children_describe(char *text, size_t text_bytes, const struct child *child);
