// SPDX-License-Identifier: Apache-2.0
// requests_fuzz.c -- any bytes as a client's request and as a reply. What is accepted is encoded
// again and has to decode to the same.
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/base/utf8.h"
#include "parallel/wire/requests.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { IDS_MAX = 256, ENTRIES_MAX = 256 };

static bool is_refusal(enum status status)
{
    return status == E_MALFORMED || status == E_INPUT || status == E_LIMIT;
}

static bool is_within(double value, double min, double max)
{
    return value >= min && value <= max;
}

// What the door relies on without looking again: numbers.
static void check_sampling(const struct generate_request *request)
{
    ASSERT(request->max_tokens == -1 || request->max_tokens >= 1);
    ASSERT(request->temperature == -1 ||
           is_within(request->temperature, 0, REQUEST_TEMPERATURE_MAX));
    ASSERT(request->top_p == -1 || (request->top_p > 0 && request->top_p <= 1));
    ASSERT(request->min_p == -1 || is_within(request->min_p, 0, 1));
    ASSERT(
        request->repetition_penalty == -1 ||
        (request->repetition_penalty > 0 && request->repetition_penalty <= REQUEST_REPETITION_MAX));
    ASSERT(is_within(request->frequency_penalty, -2, 2));
    ASSERT(is_within(request->presence_penalty, -2, 2));
    ASSERT(request->top_k >= -1 && request->min_tokens >= 0);
    ASSERT(is_within(request->n, 1, REQUEST_N_MAX));
    ASSERT(is_within(request->logprobs, 0, 1 + STEP_LOGPROBS_TOP_MAX));
    ASSERT(is_within(request->prompt_logprobs, 0, 1 + STEP_LOGPROBS_TOP_MAX));
    ASSERT(is_within(request->speculative_tokens, -1, STEP_VERIFY_MAX - 1));
    ASSERT(is_within(request->timeout_ms, 0, REQUEST_TIMEOUT_MS_MAX));
}

static void check_text(const struct request_text *text, size_t bytes_max)
{
    ASSERT(text->bytes != NULL && text->count >= 1 && text->count <= bytes_max);
    ASSERT(utf8_valid_bytes(text->bytes, text->count) == text->count);
}

static void check_ids(const int32_t *ids, int32_t count, int32_t count_max)
{
    ASSERT(count >= 0 && count <= count_max);
    for (int32_t i = 0; i < count; i++)
        ASSERT(ids[i] >= 0);
}

// And lists.
static void check_lists(const struct generate_request *request)
{
    check_ids(request->stop_ids, request->stop_count, REQUEST_STOP_IDS_MAX);
    check_ids(request->bias_ids, request->bias_count, STEP_BIASES_MAX);
    check_ids(request->allowed_ids, request->allowed_count, STEP_ALLOWED_MAX);
    for (int32_t i = 0; i < request->bias_count; i++)
        ASSERT(is_within((double)request->biases[i], -REQUEST_BIAS_MAX, REQUEST_BIAS_MAX));
    ASSERT(is_within(request->stops_count, 0, REQUEST_STOPS_MAX));
    for (int32_t i = 0; i < request->stops_count; i++)
        check_text(&request->stops[i], REQUEST_STOP_BYTES_MAX);
    ASSERT(is_within(request->words_count, 0, REQUEST_WORDS_MAX));
    for (int32_t i = 0; i < request->words_count; i++) {
        const struct request_word *word = &request->words[i];
        ASSERT((word->text.bytes != NULL) == (word->ids_count == 0));
        check_ids(word->ids, word->ids_count, STEP_WORD_TOKENS_MAX);
        if (word->text.bytes != NULL)
            check_text(&word->text, REQUEST_WORD_BYTES_MAX);
    }
}

// Two requests whose numbers and counts are the same. The bytes of their lists: generate_again.
static void check_same(const struct generate_request *a, const struct generate_request *b)
{
    ASSERT(strcmp(a->id, b->id) == 0);
    ASSERT(a->prompt_bytes == b->prompt_bytes && a->ids_count == b->ids_count &&
           a->messages_bytes == b->messages_bytes && a->tools_bytes == b->tools_bytes);
    ASSERT(a->max_tokens == b->max_tokens && a->min_tokens == b->min_tokens);
    ASSERT(a->temperature == b->temperature && a->top_p == b->top_p && a->min_p == b->min_p);
    ASSERT(a->repetition_penalty == b->repetition_penalty);
    ASSERT(a->frequency_penalty == b->frequency_penalty);
    ASSERT(a->presence_penalty == b->presence_penalty && a->top_k == b->top_k);
    ASSERT(a->has_seed == b->has_seed && a->seed == b->seed && a->n == b->n);
    ASSERT(a->logprobs == b->logprobs && a->prompt_logprobs == b->prompt_logprobs);
    ASSERT(a->speculative_tokens == b->speculative_tokens);
    ASSERT(a->priority == b->priority && a->timeout_ms == b->timeout_ms);
    ASSERT(a->ignore_eos == b->ignore_eos && a->include_stop == b->include_stop);
    ASSERT(a->enable_thinking == b->enable_thinking && a->want_text == b->want_text);
    ASSERT(a->preserve_thinking == b->preserve_thinking);
    ASSERT(a->skip_special_tokens == b->skip_special_tokens);
    ASSERT(a->stop_count == b->stop_count && a->stops_count == b->stops_count);
    ASSERT(a->bias_count == b->bias_count && a->allowed_count == b->allowed_count);
    ASSERT(a->words_count == b->words_count);
    for (int32_t i = 0; i < a->bias_count; i++)
        ASSERT(a->bias_ids[i] == b->bias_ids[i] && a->biases[i] == b->biases[i]);
    for (int32_t i = 0; i < a->words_count; i++)
        ASSERT(a->words[i].ids_count == b->words[i].ids_count &&
               a->words[i].text.count == b->words[i].text.count);
}

// Encodes a request and decodes that; both have to be the same where the wire carries it, and the
// second has to encode to the bytes of the first.
static void generate_again(const struct generate_request *request, size_t bytes)
{
    static struct generate_request back;
    // Ours may be longer where a client wrote whole numbers: 4 bytes for a bias, 8 for a real.
    size_t room = bytes + 4 * STEP_BIASES_MAX + 512, first_bytes, second_bytes;
    uint8_t *first = malloc(room), *second = malloc(room);
    struct error error;
    ASSERT(generate_request_encode(first, room, &first_bytes, request) == OK);
    ASSERT(generate_request_decode(&back, first, first_bytes, &error) == OK);
    check_same(request, &back);
    ASSERT(generate_request_encode(second, room, &second_bytes, &back) == OK);
    ASSERT(first_bytes == second_bytes && memcmp(first, second, first_bytes) == 0);
    free(first);
    free(second);
}

static void try_generate(const uint8_t *data, size_t bytes)
{
    struct generate_request request;
    struct error error = {0};
    int32_t ids[IDS_MAX];
    memset(&request, 0xA5, sizeof request);
    enum status status = generate_request_decode(&request, data, bytes, &error);
    ASSERT(memchr(request.id, 0, sizeof request.id) != NULL); // also on failure
    if (status != OK) {
        ASSERT(is_refusal(status) && error.text[0] != '\0');
        return;
    }
    ASSERT(request.id[0] != '\0');
    ASSERT((request.prompt != NULL) + (request.ids != NULL) + (request.messages != NULL) == 1);
    ASSERT(utf8_valid_bytes(request.prompt, request.prompt_bytes) == request.prompt_bytes);
    ASSERT(memchr(request.unknown, 0, sizeof request.unknown) != NULL);
    if (request.ids != NULL) {
        status = generate_request_ids(ids, IDS_MAX, 1000, &request, &error);
        ASSERT(status == OK || is_refusal(status));
        for (int32_t i = 0; status == OK && i < request.ids_count; i++)
            ASSERT(ids[i] >= 0 && ids[i] < 1000);
    }
    check_sampling(&request);
    check_lists(&request);
    generate_again(&request, bytes);
}

// Entries of a decoded reply, as a client takes them; at most ENTRIES_MAX.
static int32_t take_logprobs(struct step_logprob *out, const uint8_t *value, size_t bytes)
{
    int32_t count = 0;
    for (; count < ENTRIES_MAX; count++) {
        const uint8_t *before = value;
        struct step_logprob *entry = &out[count];
        if (!reply_next_logprob(entry, &value, &bytes))
            break;
        ASSERT(value > before);
        ASSERT(entry->id >= -1 && is_within((double)entry->logprob, STEP_LOGPROB_MIN, 0));
        check_ids(entry->top_ids, entry->top_count, STEP_LOGPROBS_TOP_MAX);
        for (int32_t i = 0; i < entry->top_count; i++)
            ASSERT(is_within((double)entry->top_logprobs[i], STEP_LOGPROB_MIN, 0));
    }
    return count;
}

static void check_same_logprobs(const struct step_logprob *a, const struct step_logprob *b,
                                int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        ASSERT(a[i].id == b[i].id);
        if (a[i].id < 0)
            continue;
        ASSERT(a[i].logprob == b[i].logprob && a[i].top_count == b[i].top_count);
        for (int32_t j = 0; j < a[i].top_count; j++)
            ASSERT(a[i].top_ids[j] == b[i].top_ids[j] &&
                   a[i].top_logprobs[j] == b[i].top_logprobs[j]);
    }
}

static void check_same_delta(const struct reply *reply, const struct reply *back)
{
    static struct step_logprob entries[ENTRIES_MAX];
    ASSERT(back->index == reply->index);
    ASSERT(back->ids_count == reply->ids_count && back->text_bytes == reply->text_bytes);
    ASSERT(memcmp(reply->ids, back->ids, (size_t)reply->ids_count * sizeof *reply->ids) == 0);
    ASSERT(take_logprobs(entries, back->logprobs_value, back->logprobs_bytes) ==
           reply->logprobs_count);
    check_same_logprobs(reply->logprobs, entries, reply->logprobs_count);
    ASSERT(take_logprobs(entries, back->prompt_logprobs_value, back->prompt_logprobs_bytes) ==
           reply->prompt_logprobs_count);
    check_same_logprobs(reply->prompt_logprobs, entries, reply->prompt_logprobs_count);
}

static void check_same_reply(const struct reply *reply, const struct reply *back)
{
    const struct usage *a = &reply->usage, *b = &back->usage;
    ASSERT(back->type == reply->type && strcmp(back->id, reply->id) == 0);
    if (reply->type == REPLY_DELTA)
        check_same_delta(reply, back);
    if (reply->type == REPLY_ACCEPTED)
        ASSERT(back->seed == reply->seed && back->prompt_tokens == reply->prompt_tokens &&
               strcmp(back->ignored, reply->ignored) == 0);
    if (reply->type == REPLY_CHOICE || reply->type == REPLY_FINAL)
        ASSERT(back->index == reply->index && a->prompt_tokens == b->prompt_tokens &&
               a->completion_tokens == b->completion_tokens &&
               a->cached_tokens == b->cached_tokens && a->target_steps == b->target_steps &&
               a->drafted == b->drafted && a->accepted == b->accepted);
}

static void try_reply(const uint8_t *data, size_t bytes)
{
    static struct step_logprob entries[ENTRIES_MAX], prompt_entries[ENTRIES_MAX];
    struct reply reply, back;
    struct error error = {0};
    int32_t ids[IDS_MAX], ids_back[IDS_MAX];
    enum status status = reply_decode(&reply, ids, IDS_MAX, data, bytes, &error);
    if (status != OK) {
        ASSERT(status == E_MALFORMED && error.text[0] != '\0');
        return;
    }
    // A decoded reply holds them as they came: what a server would write is what a client takes.
    reply.logprobs = entries;
    reply.logprobs_count = take_logprobs(entries, reply.logprobs_value, reply.logprobs_bytes);
    reply.prompt_logprobs = prompt_entries;
    reply.prompt_logprobs_count =
        take_logprobs(prompt_entries, reply.prompt_logprobs_value, reply.prompt_logprobs_bytes);
    // {"id": 1} becomes an entry of 24 bytes.
    size_t room = 8 * bytes + 1024, again_bytes;
    uint8_t *frame = malloc(room);
    ASSERT(reply_encode(frame, room, &again_bytes, &reply) == OK);
    ASSERT(reply_decode(&back, ids_back, IDS_MAX, frame, again_bytes, &error) == OK);
    check_same_reply(&reply, &back);
    free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char id[REQUEST_ID_BYTES_MAX + 1];
    struct plain_request plain;
    struct tokenize_request tokenize;
    struct error error = {0};
    (void)request_type_of(data, bytes);
    request_id_of(id, data, bytes);
    ASSERT(strlen(id) <= REQUEST_ID_BYTES_MAX);
    enum status status = plain_request_decode(&plain, data, bytes, &error);
    ASSERT(status == OK || (is_refusal(status) && error.text[0] != '\0'));
    ASSERT((tokenize_request_decode(&tokenize, data, bytes, &error) == OK) == (status == OK));
    try_generate(data, bytes);
    try_reply(data, bytes);
    return 0;
}
