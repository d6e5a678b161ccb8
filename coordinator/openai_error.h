// SPDX-License-Identifier: Apache-2.0
// openai_error.h -- what went wrong with an HTTP request, and how OpenAI's clients are told: an
// HTTP code and a body {"error": {...}}. Pure; knows no HTTP library.
#pragma once

#include "coordinator/text/text_buffer.h"
#include "parallel/base/status.h"

enum { OPENAI_PARAM_BYTES_MAX = 64 };

struct openai_error {
    struct error error;                 // status and text; the text names field, value and limit
    char param[OPENAI_PARAM_BYTES_MAX]; // the request field that it is about, "" = none
    int http_code;                      // 0 = the one that belongs to the status
};

// Sets the field that the error is about and returns status.
enum status openai_error_of(struct openai_error *error, const char *param, enum status status);

// The HTTP code: 400, 404, 408, 429, 500 or 503 by status unless http_code says another.
int openai_error_http_code(const struct openai_error *error);

// Appends {"error":{"message","type","param","code","request_id"}} to out. A text that is not
// UTF-8 has the offending bytes replaced. E_LIMIT, E_SYSTEM of out.
MUST_CHECK enum status openai_error_write(struct text_buffer *out, const struct openai_error *error,
                                          const char *request_id);
