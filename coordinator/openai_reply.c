// SPDX-License-Identifier: Apache-2.0
// openai_reply.c -- JSON by hand: a chunk per token is the door's hottest path, and its shape is
// fixed.
#include "coordinator/openai_reply.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/openai_json.h"

static enum status put(struct text_buffer *out, const char *text)
{
    return text_buffer_append_text(out, text, NULL);
}

static enum status put_number(struct text_buffer *out, int64_t number)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%lld", (long long)number);
    return put(out, digits);
}

static enum status put_string(struct text_buffer *out, const char *text)
{
    return openai_json_string(out, text, strlen(text));
}

// {"id":..,"object":..,"created":..,"model":..,"choices":[
static enum status put_head(struct text_buffer *out, const struct openai_head *head,
                            const char *object)
{
    TRY(put(out, "{\"id\":"));
    TRY(put_string(out, head->id));
    TRY(put(out, ",\"object\":\""));
    TRY(put(out, object));
    TRY(put(out, "\",\"created\":"));
    TRY(put_number(out, head->created_s));
    TRY(put(out, ",\"model\":"));
    TRY(put_string(out, head->model));
    return put(out, ",\"choices\":[");
}

static const char *chunk_object(const struct openai_head *head)
{
    return head->kind == OPENAI_CHAT ? "chat.completion.chunk" : "text_completion";
}

// "token_ids", "logprobs", "finish_reason", "stop_reason" and the choice's end.
static enum status put_tail(struct text_buffer *out, const struct openai_piece *piece)
{
    if (piece->ids != NULL) {
        TRY(put(out, ",\"token_ids\":["));
        for (int32_t i = 0; i < piece->ids_count; i++) {
            if (i > 0)
                TRY(put(out, ","));
            TRY(put_number(out, piece->ids[i]));
        }
        TRY(put(out, "]"));
    }
    TRY(put(out, ",\"logprobs\":"));
    TRY(piece->logprobs != NULL ? openai_logprobs_write(out, piece->logprobs) : put(out, "null"));
    TRY(put(out, ",\"finish_reason\":"));
    if (piece->finish_reason == NULL)
        return put(out, "null}");
    TRY(put_string(out, piece->finish_reason));
    TRY(put(out, ",\"stop_reason\":"));
    if (piece->stop != NULL)
        TRY(openai_json_string(out, piece->stop->bytes, piece->stop->count));
    else
        TRY(put(out, "null"));
    return put(out, "}");
}

static enum status put_index(struct text_buffer *out, int32_t index)
{
    TRY(put(out, "{\"index\":"));
    return put_number(out, index);
}

static enum status put_member(struct text_buffer *out, const char *name,
                              const struct openai_text *text)
{
    TRY(put(out, name));
    return openai_json_string(out, text->bytes, text->count);
}

// ---- streams ----

enum status openai_reply_role(struct text_buffer *out, const struct openai_head *head,
                              int32_t index)
{
    TRY(put(out, "data: "));
    TRY(put_head(out, head, chunk_object(head)));
    TRY(put_index(out, index));
    return put(out, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                    "\"finish_reason\":null}]}\n\n");
}

// "tool_calls":[..], with a comma before it where something precedes.
static enum status put_calls(struct text_buffer *out, const struct openai_piece *piece, bool comma)
{
    TRY(put(out, comma ? ",\"tool_calls\":[" : "\"tool_calls\":["));
    TRY(text_buffer_append(out, piece->calls.bytes, piece->calls.count, NULL));
    return put(out, "]");
}

static enum status put_delta(struct text_buffer *out, const struct openai_piece *piece)
{
    TRY(put(out, ",\"delta\":{"));
    if (piece->reasoning.count > 0)
        TRY(put_member(out, "\"reasoning_content\":", &piece->reasoning));
    if (piece->content.count > 0) {
        TRY(put_member(
            out, piece->reasoning.count > 0 ? ",\"content\":" : "\"content\":", &piece->content));
    }
    if (piece->calls.count > 0)
        TRY(put_calls(out, piece, piece->reasoning.count > 0 || piece->content.count > 0));
    return put(out, "}");
}

static enum status put_usage(struct text_buffer *out, const struct openai_usage *usage)
{
    TRY(put(out, "\"usage\":{\"prompt_tokens\":"));
    TRY(put_number(out, usage->prompt_tokens));
    TRY(put(out, ",\"completion_tokens\":"));
    TRY(put_number(out, usage->completion_tokens));
    TRY(put(out, ",\"total_tokens\":"));
    TRY(put_number(out, usage->prompt_tokens + usage->completion_tokens));
    TRY(put(out, ",\"prompt_tokens_details\":{\"cached_tokens\":"));
    TRY(put_number(out, usage->cached_tokens));
    TRY(put(out, "},\"target_steps\":"));
    TRY(put_number(out, usage->target_steps));
    TRY(put(out, ",\"drafted\":"));
    TRY(put_number(out, usage->drafted));
    TRY(put(out, ",\"accepted\":"));
    TRY(put_number(out, usage->accepted));
    return put(out, "}");
}

enum status openai_reply_chunk(struct text_buffer *out, const struct openai_head *head,
                               const struct openai_piece *piece)
{
    TRY(put(out, "data: "));
    TRY(put_head(out, head, chunk_object(head)));
    TRY(put_index(out, piece->index));
    if (head->kind == OPENAI_CHAT)
        TRY(put_delta(out, piece));
    else
        TRY(put_member(out, ",\"text\":", &piece->content));
    TRY(put_tail(out, piece));
    TRY(put(out, "]"));
    if (piece->usage != NULL) {
        TRY(put(out, ","));
        TRY(put_usage(out, piece->usage));
    }
    return put(out, "}\n\n");
}

enum status openai_reply_usage(struct text_buffer *out, const struct openai_head *head,
                               const struct openai_usage *usage)
{
    TRY(put(out, "data: "));
    TRY(put_head(out, head, chunk_object(head)));
    TRY(put(out, "],"));
    TRY(put_usage(out, usage));
    return put(out, "}\n\n");
}

enum status openai_reply_failure(struct text_buffer *out, const struct openai_error *error,
                                 const char *request_id)
{
    TRY(put(out, "data: "));
    TRY(openai_error_write(out, error, request_id));
    return put(out, "\n\n");
}

enum status openai_reply_done(struct text_buffer *out)
{
    return put(out, "data: [DONE]\n\n");
}

// ---- whole answers ----

enum status openai_reply_begin(struct text_buffer *out, const struct openai_head *head)
{
    return put_head(out, head, head->kind == OPENAI_CHAT ? "chat.completion" : "text_completion");
}

enum status openai_reply_choice(struct text_buffer *out, const struct openai_head *head,
                                const struct openai_piece *piece)
{
    if (piece->index > 0)
        TRY(put(out, ","));
    TRY(put_index(out, piece->index));
    if (head->kind == OPENAI_COMPLETION) {
        TRY(put_member(out, ",\"text\":", &piece->content));
        return put_tail(out, piece);
    }
    TRY(put(out, ",\"message\":{\"role\":\"assistant\""));
    if (piece->calls.count > 0 && piece->content.count == 0) // as OpenAI: a call alone has no text
        TRY(put(out, ",\"content\":null"));
    else
        TRY(put_member(out, ",\"content\":", &piece->content));
    if (piece->reasoning.count > 0)
        TRY(put_member(out, ",\"reasoning_content\":", &piece->reasoning));
    if (piece->calls.count > 0)
        TRY(put_calls(out, piece, true));
    TRY(put(out, "}"));
    return put_tail(out, piece);
}

enum status openai_reply_end(struct text_buffer *out, const struct openai_usage *usage)
{
    TRY(put(out, "],"));
    TRY(put_usage(out, usage));
    return put(out, "}");
}

enum status openai_reply_models(struct text_buffer *out, const char *model, int64_t created_s,
                                int32_t context)
{
    TRY(put(out, "{\"object\":\"list\",\"data\":[{\"id\":"));
    TRY(put_string(out, model));
    TRY(put(out, ",\"object\":\"model\",\"created\":"));
    TRY(put_number(out, created_s));
    TRY(put(out, ",\"owned_by\":\"deltamesh\",\"root\":"));
    TRY(put_string(out, model));
    TRY(put(out, ",\"parent\":null,\"max_model_len\":"));
    if (context > 0)
        TRY(put_number(out, context));
    else
        TRY(put(out, "null"));
    return put(out, "}]}");
}
