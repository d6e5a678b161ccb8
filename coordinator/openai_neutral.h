// SPDX-License-Identifier: Apache-2.0
// openai_neutral.h -- fields that clients send and this version does not serve: with the value that
// asks for nothing they are accepted, with another one the door refuses them. Pure.
#pragma once

#include <jansson.h>

enum openai_neutral {
    OPENAI_NEUTRAL_UNKNOWN, // nobody's field
    OPENAI_NEUTRAL_SILENT,  // known, and asks for nothing
    OPENAI_NEUTRAL_ASKS,    // known, and asks for something
};

// What a field's value asks for. null asks for nothing.
enum openai_neutral openai_neutral_check(const char *name, const json_t *value);
