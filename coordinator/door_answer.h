// SPDX-License-Identifier: Apache-2.0
// door_answer.h -- one answer on its way to a client of the RPC door: drawn ids become text, which
// ends before (or with) the first stop string. Sends nothing.
#pragma once

#include "coordinator/door_text.h"
#include "parallel/wire/requests.h"

struct door_answer; // opaque; of one thread

// For the answer to a request, whose stop strings are copied. *out is NULL when there is nothing to
// do: no text is wanted or the model has no tokenizer, and no stop string is given. E_UNSUPPORTED:
// stop strings without a tokenizer; E_LIMIT, E_INPUT for the strings; E_SYSTEM.
enum status door_answer_open(struct door_answer **out, struct door_text *text,
                             const struct generate_request *request,
                             struct error *error) MUST_CHECK;
void door_answer_close(struct door_answer *answer); // NULL is allowed

// Takes drawn ids. Returns how many of them belong to the answer: all, or up to the one that
// completes a stop string. *text [*bytes] is what may be told now, borrowed until the next call;
// what may be the beginning of a stop string is held back.
int32_t door_answer_feed(struct door_answer *answer, const int32_t *ids, int32_t count,
                         const char **text, size_t *bytes);

// Nothing follows: what was held back, borrowed as above.
void door_answer_finish(struct door_answer *answer, const char **text, size_t *bytes);

// Whether a stop string has ended it. What follows is to be dropped.
bool door_answer_stopped(const struct door_answer *answer);
