// SPDX-License-Identifier: Apache-2.0
// generate_input.h -- the three ways to give prompts, each turned into frames for the wire. Sends
// nothing.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "deploy/cli/generate_options.h"
#include "deploy/cli/lines.h"
#include "parallel/base/status.h"

struct generate_input {
    const struct generate_options *options; // borrowed
    struct lines lines;                     // of --requests
    int64_t count;                          // requests given out so far; the next one's index
    bool ended;
};

// A request that can be sent. Its id on the wire is its index in decimal.
struct generate_frame {
    uint8_t *bytes; // from malloc, for free; NULL = none
    size_t count;
};

// E_NOT_FOUND or E_SYSTEM when the file of --requests cannot be opened.
enum status generate_input_open(struct generate_input *input,
                                const struct generate_options *options,
                                struct error *error) MUST_CHECK;
void generate_input_close(struct generate_input *input);

// The next request. out->bytes is NULL at the end (input->ended), for an empty line, and without
// wait also when no line is there yet. E_INPUT names the line and what is wrong in it; the next
// call goes on behind it, and the index is used up.
enum status generate_input_next(struct generate_input *input, bool wait, struct generate_frame *out,
                                struct error *error) MUST_CHECK;
