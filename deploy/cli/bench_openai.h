// SPDX-License-Identifier: Apache-2.0
// bench_openai.h -- OpenAI's completions as text: a request's body, and what the events of a
// streamed answer say. Opens no connection, reads no clock.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "deploy/cli/bench_door.h"

enum { BENCH_OPENAI_LINE_BYTES_MAX = 16 << 20 }; // of one event

// Where to ask: BASE, or BASE without "/v1", or without "/v1/completions", and `path` behind it
// ("/v1/completions"). From malloc; NULL when out of memory.
char *bench_openai_url(const char *base, const char *path);

// The JSON body of a request. model NULL: left out. From malloc; NULL when out of memory.
char *bench_openai_body(const struct bench_request *request, const char *model);

// The first model of an answer of /v1/models, from malloc; NULL when there is none in it.
char *bench_openai_first_model(const char *text, size_t text_bytes);

// An answer as far as it has come.
struct bench_openai_stream {
    char *bytes; // [room], of which [first, count) is not yet read
    size_t first, count, room;
    bool done;     // [DONE] came
    bool finished; // a finish_reason came
    bool failed;   // an error came in the stream; its message is in text
    char text[BENCH_TEXT_BYTES_MAX];
    struct bench_usage usage; // all -1 until it comes
};

// An answer of which nothing has come; fini frees what was kept of it.
void bench_openai_stream_init(struct bench_openai_stream *stream);
void bench_openai_stream_fini(struct bench_openai_stream *stream);

// Adds bytes as they came. False when out of memory or when a line is too long.
bool bench_openai_feed(struct bench_openai_stream *stream, const char *bytes, size_t count);

// Reads one whole event: *tokens is what it brought (0 for usage, errors and ends; 1 for text
// whose token ids are not told). False when no whole one is there.
bool bench_openai_next(struct bench_openai_stream *stream, int32_t *tokens);
