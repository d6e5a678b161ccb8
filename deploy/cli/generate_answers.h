// SPDX-License-Identifier: Apache-2.0
// generate_answers.h -- what came back for the requests of one `generate`, how it is printed, and
// the figures at its end. Sends nothing.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "parallel/base/status.h"
#include "parallel/wire/requests.h"

// What has come of one of a request's answers.
struct answer_choice {
    char *text;
    size_t text_bytes, text_room;
    int32_t *ids;
    int32_t ids_count, ids_room;
    json_t *logprobs, *prompt_logprobs; // arrays; NULL: none came
};

// One request in flight and what has come for it.
struct answer {
    bool is_used, is_accepted, has_choices; // has_choices: its answers are told one by one
    int64_t index;
    uint8_t *frame; // the request, kept until the server has accepted it
    size_t frame_bytes;
    struct answer_choice *choices; // [choices_count], one unless the request has `n`
    int32_t choices_count;
    uint64_t sent_ns, first_ns; // first_ns 0 until the first tokens came
};

// Over all requests of the command.
struct generate_answers {
    bool json;     // one object a line
    bool single;   // one prompt: its text goes out as it comes
    bool want_ids; // prompts were ids: an answer without text shows its ids
    int64_t ended, failed;
    enum status first_failure;
    int64_t prompt_tokens, completion_tokens, target_steps, drafted, accepted;
    uint64_t begin_ns;
    uint64_t *waits_ns; // [waits_count] to each answer's first tokens
    int64_t waits_count, waits_room;
};

// Frees what an answer holds and marks it unused.
void generate_answers_release(struct answer *answer);

// Takes note of a reply to this answer and prints what is to be printed. REPLY_FINAL and
// REPLY_ERROR end it. E_SYSTEM when out of memory, or when stdout did not take it.
enum status generate_answers_take(struct generate_answers *answers, struct answer *answer,
                                  const struct reply *reply, struct error *error) MUST_CHECK;

// Prints and counts a request that failed, here or at the server: a JSON object on stdout, or a
// line on stderr when there are several. text may be error's own. E_SYSTEM as above.
enum status generate_answers_fail(struct generate_answers *answers, int64_t index,
                                  enum status status, const char *text,
                                  struct error *error) MUST_CHECK;

// The figures, on stderr: tokens, tokens/s, time to the first token, drafts if there were any.
void generate_answers_print_figures(const struct generate_answers *answers);
void generate_answers_fini(struct generate_answers *answers);
