// SPDX-License-Identifier: Apache-2.0
// thread.c -- a new thread has the mask of the one that makes it.
#include "parallel/base/thread.h"

#include <signal.h>

int thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *argument)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int problem = pthread_create(thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (problem == 0)
        pthread_setname_np(*thread, name);
    return problem;
}
