// SPDX-License-Identifier: Apache-2.0
// openai_error.c -- one table from status to code and type.
#include "coordinator/openai_error.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/openai_json.h"

enum status openai_error_of(struct openai_error *error, const char *param, enum status status)
{
    snprintf(error->param, sizeof error->param, "%s", param);
    error->error.status = status;
    return status;
}

int openai_error_http_code(const struct openai_error *error)
{
    if (error->http_code != 0)
        return error->http_code;
    switch (error->error.status) {
    case E_INPUT:
    case E_UNSUPPORTED:
    case E_MALFORMED:
    case E_LIMIT: return 400;
    case E_NOT_FOUND: return 404;
    case E_TIMEOUT: return 408;
    case E_OVERLOADED: return 429;
    case E_CONNECTION:
    case E_ABORTED:
    case E_FAILED: return 503;
    default: return 500;
    }
}

static const char *type_of(int http_code)
{
    switch (http_code) {
    case 401: return "authentication_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 503: return "service_unavailable_error";
    default: return http_code < 500 ? "invalid_request_error" : "server_error";
    }
}

enum status openai_error_write(struct text_buffer *out, const struct openai_error *error,
                               const char *request_id)
{
    int http_code = openai_error_http_code(error);
    const char *text = error->error.text;
    TRY(text_buffer_append_text(out, "{\"error\":{\"message\":", NULL));
    TRY(openai_json_string(out, text, strlen(text)));
    TRY(text_buffer_append_text(out, ",\"type\":", NULL));
    TRY(openai_json_string(out, type_of(http_code), strlen(type_of(http_code))));
    TRY(text_buffer_append_text(out, ",\"param\":", NULL));
    if (error->param[0] != '\0')
        TRY(openai_json_string(out, error->param, strlen(error->param)));
    else
        TRY(text_buffer_append_text(out, "null", NULL));
    const char *code = status_name(error->error.status);
    TRY(text_buffer_append_text(out, ",\"code\":", NULL));
    TRY(openai_json_string(out, code, strlen(code)));
    TRY(text_buffer_append_text(out, ",\"request_id\":", NULL));
    TRY(openai_json_string(out, request_id, strlen(request_id)));
    return text_buffer_append_text(out, "}}", NULL);
}
