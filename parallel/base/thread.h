// SPDX-License-Identifier: Apache-2.0
// thread.h -- threads beside a program's own one, which alone takes its signals.
#pragma once

#include <pthread.h>

// Starts `run` with every signal blocked, so that poll() of the caller's thread is what a signal
// interrupts; the caller's own mask is as before. name: at most 15 bytes, seen by ps and debuggers.
// 0, or an errno. The caller joins the thread.
int thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *argument);
