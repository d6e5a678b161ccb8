// SPDX-License-Identifier: Apache-2.0
// generate_answers.c -- gathers deltas, prints answers.
#include "deploy/cli/generate_answers.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "deploy/cli/output.h"
#include "parallel/base/clock.h"

// Makes room for `more` items of item_bytes beyond count; false when out of memory.
static bool grow(void **items, size_t *room, size_t count, size_t more, size_t item_bytes)
{
    if (count + more <= *room)
        return true;
    size_t wanted = 2 * (count + more) + 64;
    void *grown = realloc(*items, wanted * item_bytes);
    if (grown == NULL)
        return false;
    *items = grown;
    *room = wanted;
    return true;
}

void generate_answers_release(struct answer *answer)
{
    for (int32_t i = 0; i < answer->choices_count; i++) {
        free(answer->choices[i].text);
        free(answer->choices[i].ids);
        json_decref(answer->choices[i].logprobs);
        json_decref(answer->choices[i].prompt_logprobs);
    }
    free(answer->choices);
    free(answer->frame);
    *answer = (struct answer){0};
}

// The answer `index` of a request; NULL when out of memory or when no server has so many.
static struct answer_choice *choice_of(struct answer *answer, int32_t index)
{
    if (index >= REQUEST_N_MAX)
        return NULL;
    if (index >= answer->choices_count) {
        size_t bytes = (size_t)(index + 1) * sizeof *answer->choices;
        struct answer_choice *grown = realloc(answer->choices, bytes);
        if (grown == NULL)
            return NULL;
        size_t used = (size_t)answer->choices_count * sizeof *grown;
        memset((char *)grown + used, 0, bytes - used);
        answer->choices = grown;
        answer->choices_count = index + 1;
    }
    return &answer->choices[index];
}

static enum status append(struct answer_choice *answer, const struct reply *reply,
                          struct error *error)
{
    void *text = answer->text, *ids = answer->ids;
    size_t ids_room = (size_t)answer->ids_room;
    bool grown = grow(&text, &answer->text_room, answer->text_bytes, reply->text_bytes, 1);
    answer->text = text;
    grown = grown && grow(&ids, &ids_room, (size_t)answer->ids_count, (size_t)reply->ids_count,
                          sizeof *answer->ids);
    answer->ids = ids;
    answer->ids_room = (int32_t)ids_room;
    if (!grown)
        return error_set(error, E_SYSTEM, "no memory for an answer of %d tokens",
                         (int)answer->ids_count);
    if (reply->text_bytes > 0)
        memcpy(answer->text + answer->text_bytes, reply->text, reply->text_bytes);
    answer->text_bytes += reply->text_bytes;
    if (reply->ids_count > 0)
        memcpy(answer->ids + answer->ids_count, reply->ids,
               (size_t)reply->ids_count * sizeof *answer->ids);
    answer->ids_count += reply->ids_count;
    return OK;
}

// {"id", "logprob", "top": [[id, logprob] ...]}
static json_t *logprob_object(const struct step_logprob *entry)
{
    if (entry->id < 0)
        return json_null();
    json_t *object = json_object(), *top = json_array();
    json_object_set_new(object, "id", json_integer(entry->id));
    json_object_set_new(object, "logprob", json_real((double)entry->logprob));
    json_object_set_new(object, "top", top);
    for (int32_t i = 0; i < entry->top_count; i++) {
        json_t *pair = json_array();
        json_array_append_new(pair, json_integer(entry->top_ids[i]));
        json_array_append_new(pair, json_real((double)entry->top_logprobs[i]));
        json_array_append_new(top, pair);
    }
    return object;
}

static void append_logprobs(json_t **array, const uint8_t *value, size_t bytes)
{
    struct step_logprob entry;
    if (value != NULL && *array == NULL)
        *array = json_array();
    while (value != NULL && reply_next_logprob(&entry, &value, &bytes))
        json_array_append_new(*array, logprob_object(&entry));
}

static enum status note_first(struct generate_answers *answers, struct answer *answer,
                              struct error *error)
{
    void *waits = answers->waits_ns;
    size_t room = (size_t)answers->waits_room;
    bool grown = grow(&waits, &room, (size_t)answers->waits_count, 1, sizeof *answers->waits_ns);
    answers->waits_ns = waits;
    answers->waits_room = (int64_t)room;
    if (!grown)
        return error_set(error, E_SYSTEM, "no memory for %" PRId64 " figures",
                         answers->waits_count);
    answer->first_ns = clock_now_ns();
    answers->waits_ns[answers->waits_count++] = answer->first_ns - answer->sent_ns;
    return OK;
}

static enum status take_delta(struct generate_answers *answers, struct answer *answer,
                              const struct reply *reply, struct error *error)
{
    if (answer->first_ns == 0 && reply->ids_count > 0)
        TRY(note_first(answers, answer, error));
    answers->completion_tokens += reply->ids_count;
    if (answers->single && !answers->json && reply->text_bytes > 0)
        fwrite(reply->text, 1, reply->text_bytes, stdout);
    struct answer_choice *choice = choice_of(answer, reply->index);
    if (choice == NULL)
        return error_set(error, E_SYSTEM, "no memory for answer %d", (int)reply->index);
    append_logprobs(&choice->logprobs, reply->logprobs_value, reply->logprobs_bytes);
    append_logprobs(&choice->prompt_logprobs, reply->prompt_logprobs_value,
                    reply->prompt_logprobs_bytes);
    return append(choice, reply, error);
}

static json_t *usage_object(const struct usage *usage)
{
    json_t *object = json_object();
    json_object_set_new(object, "prompt_tokens", json_integer(usage->prompt_tokens));
    json_object_set_new(object, "completion_tokens", json_integer(usage->completion_tokens));
    json_object_set_new(object, "cached_tokens", json_integer(usage->cached_tokens));
    json_object_set_new(object, "target_steps", json_integer(usage->target_steps));
    json_object_set_new(object, "drafted", json_integer(usage->drafted));
    json_object_set_new(object, "accepted", json_integer(usage->accepted));
    return object;
}

static void print_object(json_t *object)
{
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(object);
}

// Of one of several answers the object also tells which.
static void print_json(const struct answer *answer, const struct answer_choice *choice,
                       const struct reply *reply)
{
    json_t *object = json_object(), *ids = json_array();
    json_object_set_new(object, "index", json_integer(answer->index));
    if (answer->has_choices)
        json_object_set_new(object, "choice", json_integer(reply->index));
    json_object_set_new(object, "ids", ids);
    for (int32_t i = 0; i < choice->ids_count; i++)
        json_array_append_new(ids, json_integer(choice->ids[i]));
    json_object_set_new(object, "text",
                        json_stringn(choice->text != NULL ? choice->text : "", choice->text_bytes));
    json_object_set_new(object, "finish_reason", json_string(reply->finish_reason));
    if (choice->logprobs != NULL)
        json_object_set(object, "logprobs", choice->logprobs);
    if (choice->prompt_logprobs != NULL)
        json_object_set(object, "prompt_logprobs", choice->prompt_logprobs);
    json_object_set_new(object, "usage", usage_object(&reply->usage));
    print_object(object);
}

static void print_text(const struct generate_answers *answers, const struct answer *answer,
                       const struct answer_choice *choice, const struct reply *reply)
{
    if (!answers->single && answer->has_choices)
        printf("# %" PRId64 " answer %d %s, %d tokens\n", answer->index, (int)reply->index,
               reply->finish_reason, (int)choice->ids_count);
    else if (!answers->single)
        printf("# %" PRId64 " %s, %d tokens\n", answer->index, reply->finish_reason,
               (int)choice->ids_count);
    if (choice->text_bytes > 0 && !answers->single)
        fwrite(choice->text, 1, choice->text_bytes, stdout);
    for (int32_t i = 0; answers->want_ids && choice->text_bytes == 0 && i < choice->ids_count; i++)
        printf("%s%d", i > 0 ? "," : "", (int)choice->ids[i]);
    putchar('\n');
}

// One answer has ended: of several each is printed, and at the request's end nothing.
static enum status print_choice(const struct generate_answers *answers, struct answer *answer,
                                const struct reply *reply, struct error *error)
{
    const struct answer_choice *choice = choice_of(answer, reply->index);
    if (choice == NULL)
        return error_set(error, E_SYSTEM, "no memory for answer %d", (int)reply->index);
    if (answers->json)
        print_json(answer, choice, reply);
    else
        print_text(answers, answer, choice, reply);
    return OK;
}

static enum status take_final(struct generate_answers *answers, struct answer *answer,
                              const struct reply *reply, struct error *error)
{
    answers->ended++;
    answers->prompt_tokens += reply->usage.prompt_tokens;
    answers->target_steps += reply->usage.target_steps;
    answers->drafted += reply->usage.drafted;
    answers->accepted += reply->usage.accepted;
    return answer->has_choices ? OK : print_choice(answers, answer, reply, error);
}

static enum status take(struct generate_answers *answers, struct answer *answer,
                        const struct reply *reply, struct error *error)
{
    char text[512];
    switch (reply->type) {
    case REPLY_ACCEPTED:
        answer->is_accepted = true;
        free(answer->frame);
        answer->frame = NULL;
        if (reply->ignored[0] != '\0')
            fprintf(stderr, "deltamesh: request %" PRId64 ": unknown fields were ignored: %s\n",
                    answer->index, reply->ignored);
        return OK;
    case REPLY_DELTA: return take_delta(answers, answer, reply, error);
    case REPLY_CHOICE:
        answer->has_choices = true;
        return print_choice(answers, answer, reply, error);
    case REPLY_FINAL: return take_final(answers, answer, reply, error);
    case REPLY_ERROR:
        if (answers->single && !answers->json && answer->choices_count > 0 &&
            answer->choices[0].text_bytes > 0)
            putchar('\n'); // after a text that broke off
        snprintf(text, sizeof text, "%.*s", (int)reply->text_bytes, reply->text);
        return generate_answers_fail(answers, answer->index, status_from_name(reply->error), text,
                                     error);
    default: return OK;
    }
}

enum status generate_answers_take(struct generate_answers *answers, struct answer *answer,
                                  const struct reply *reply, struct error *error)
{
    TRY(take(answers, answer, reply, error));
    return output_flush(error);
}

enum status generate_answers_fail(struct generate_answers *answers, int64_t index,
                                  enum status status, const char *text, struct error *error)
{
    answers->failed++;
    if (answers->first_failure == OK)
        answers->first_failure = status;
    if (answers->json) {
        json_t *object = json_object(), *failure = json_object();
        json_object_set_new(object, "index", json_integer(index));
        json_object_set_new(object, "error", failure);
        json_object_set_new(failure, "code", json_string(status_name(status)));
        json_object_set_new(failure, "message", json_string(text));
        print_object(object);
    } else {
        fprintf(stderr, "deltamesh: request %" PRId64 ": %s: %s\n", index, status_name(status),
                text);
    }
    return output_flush(error);
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void generate_answers_print_figures(const struct generate_answers *answers)
{
    double seconds = (double)(clock_now_ns() - answers->begin_ns) / CLOCK_NS_PER_S;
    int64_t waits = answers->waits_count;
    if (waits == 0)
        return;
    qsort(answers->waits_ns, (size_t)waits, sizeof *answers->waits_ns, by_size);
    double median_ms = (double)answers->waits_ns[waits / 2] / CLOCK_NS_PER_MS;
    double longest_ms = (double)answers->waits_ns[waits - 1] / CLOCK_NS_PER_MS;
    fprintf(stderr, "%" PRId64 " tokens in %.3f s, %.1f tokens/s; first token after %.1f ms",
            answers->completion_tokens, seconds, (double)answers->completion_tokens / seconds,
            median_ms);
    if (waits > 1)
        fprintf(stderr, " (median of %" PRId64 ", longest %.1f ms)", waits, longest_ms);
    if (answers->drafted > 0)
        fprintf(stderr, "; drafts %" PRId64 ", accepted %" PRId64 " (%.0f %%), %.2f tokens a step",
                answers->drafted, answers->accepted,
                100.0 * (double)answers->accepted / (double)answers->drafted,
                (double)answers->completion_tokens / (double)answers->target_steps);
    fputc('\n', stderr);
}

void generate_answers_fini(struct generate_answers *answers)
{
    free(answers->waits_ns);
    *answers = (struct generate_answers){0};
}
