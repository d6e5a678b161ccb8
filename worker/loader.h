// SPDX-License-Identifier: Apache-2.0
// loader.h -- everything a placed rank builds before it is READY, on a thread of its own so that
// the worker goes on answering while hundreds of gigabytes are read: weights, state, stream,
// group, step engine. Owns them afterwards.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/wire/messages.h"
#include "worker/model.h"
#include "worker/step.h"

struct loader_options {
    const char *model_dir; // borrowed for the loader's life
    enum load_format load_format;
    struct model_config config;
    struct place_message place;
    int ended_fd;  // eventfd that gets 1 when loading has ended, well or not
    int notify_fd; // for the step engine
};

struct loader; // opaque

// Starts the thread. E_SYSTEM when there is no thread or memory.
enum status loader_start(struct loader **out, const struct loader_options *options,
                         struct error *error) MUST_CHECK;

// Ends the group's waits and frees everything. While it still loads, only lets go of the thread:
// the process is about to end, and reading a large model cannot be interrupted.
void loader_close(struct loader *loader);

// How loading ended; E_TIMEOUT while it has not.
enum status loader_result(const struct loader *loader, struct error *error) MUST_CHECK;

// Valid after loader_result said OK.
struct step_engine *loader_engine(const struct loader *loader);
struct group *loader_group(const struct loader *loader);
