// SPDX-License-Identifier: Apache-2.0
// door_answer.c -- the detokenizer's stream behind it, the search for stop strings before it.
#include "coordinator/door_answer.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/text/stop_strings.h"

_Static_assert((int)REQUEST_STOPS_MAX == (int)STOP_STRINGS_MAX, "wire and text agree");
_Static_assert((int)REQUEST_STOP_BYTES_MAX == (int)STOP_STRINGS_BYTES_MAX, "wire and text agree");

enum { TEXT_BYTES_MAX = 1 << 20 }; // of one delta

struct door_answer {
    struct door_stream *stream;
    struct stop_strings stops;
    struct text_buffer text;
    char *stop_bytes; // of all stop strings, one after another
    int32_t tokens, min_tokens;
    bool is_text_wanted, includes_stop, has_stops, stopped;
};

// The frame that the request borrows from is gone when tokens come.
static enum status copy_stops(struct door_answer *answer, const struct generate_request *request,
                              struct error *error)
{
    struct stop_string strings[REQUEST_STOPS_MAX];
    size_t bytes = 1, used = 0;
    for (int32_t i = 0; i < request->stops_count; i++)
        bytes += request->stops[i].count;
    answer->stop_bytes = malloc(bytes);
    if (answer->stop_bytes == NULL)
        return error_set(error, E_SYSTEM, "no memory for stop strings");
    for (int32_t i = 0; i < request->stops_count; i++) {
        const struct request_text *stop = &request->stops[i];
        memcpy(answer->stop_bytes + used, stop->bytes, stop->count);
        strings[i] = (struct stop_string){.bytes = answer->stop_bytes + used, .count = stop->count};
        used += stop->count;
    }
    return stop_strings_init(&answer->stops, strings, request->stops_count, error);
}

enum status door_answer_open(struct door_answer **out, struct door_text *text,
                             const struct generate_request *request, struct error *error)
{
    *out = NULL;
    if (!request->want_text && request->stops_count == 0)
        return OK;
    struct door_stream *stream = door_stream_open(text, request->skip_special_tokens);
    if (stream == NULL && request->stops_count > 0)
        return error_set(error, E_UNSUPPORTED,
                         "'stop' needs a tokenizer and this model directory has none");
    if (stream == NULL)
        return OK;
    struct door_answer *answer = calloc(1, sizeof *answer);
    if (answer == NULL) {
        door_stream_close(stream);
        return error_set(error, E_SYSTEM, "no memory for an answer");
    }
    answer->stream = stream;
    answer->min_tokens = request->min_tokens;
    answer->is_text_wanted = request->want_text;
    answer->includes_stop = request->include_stop;
    answer->has_stops = request->stops_count > 0;
    text_buffer_init(&answer->text, TEXT_BYTES_MAX);
    enum status status = answer->has_stops ? copy_stops(answer, request, error) : OK;
    if (status != OK) {
        door_answer_close(answer);
        return status;
    }
    *out = answer;
    return OK;
}

void door_answer_close(struct door_answer *answer)
{
    if (answer == NULL)
        return;
    door_stream_close(answer->stream);
    if (answer->has_stops)
        stop_strings_fini(&answer->stops);
    text_buffer_fini(&answer->text);
    free(answer->stop_bytes);
    free(answer);
}

// Passes text on that no stop string can begin in. What can fail is memory alone, and then the ids
// still reach the client.
static void pass_on(struct door_answer *answer, const char *text, size_t bytes)
{
    enum status status;
    size_t used;
    if (!answer->has_stops || answer->tokens < answer->min_tokens) {
        status = text_buffer_append(&answer->text, text, bytes, NULL);
        return;
    }
    int found = stop_strings_feed(&answer->stops, &answer->text, text, bytes, &used, &status);
    answer->stopped = found >= 0;
    if (answer->stopped && answer->includes_stop)
        status = text_buffer_append(&answer->text, answer->stops.strings[found].bytes,
                                    answer->stops.strings[found].count, NULL);
    (void)status;
}

static void give(const struct door_answer *answer, const char **text, size_t *bytes)
{
    *bytes = answer->is_text_wanted ? answer->text.count : 0;
    *text = *bytes > 0 ? answer->text.bytes : "";
}

int32_t door_answer_feed(struct door_answer *answer, const int32_t *ids, int32_t count,
                         const char **text, size_t *bytes)
{
    int32_t taken = 0;
    answer->text.count = 0;
    while (taken < count && !answer->stopped) {
        size_t piece_bytes;
        answer->tokens++;
        const char *piece = door_stream_feed(answer->stream, &ids[taken++], 1, false, &piece_bytes);
        pass_on(answer, piece, piece_bytes);
    }
    give(answer, text, bytes);
    return taken;
}

void door_answer_finish(struct door_answer *answer, const char **text, size_t *bytes)
{
    answer->text.count = 0;
    if (!answer->stopped) {
        size_t tail_bytes;
        const char *tail = door_stream_feed(answer->stream, NULL, 0, true, &tail_bytes);
        pass_on(answer, tail, tail_bytes);
    }
    if (!answer->stopped && answer->has_stops) {
        enum status status = stop_strings_finish(&answer->stops, &answer->text);
        (void)status;
    }
    give(answer, text, bytes);
}

bool door_answer_stopped(const struct door_answer *answer)
{
    return answer->stopped;
}
