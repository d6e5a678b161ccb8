// SPDX-License-Identifier: Apache-2.0
// door_order.c -- field by field.
#include "coordinator/door_order.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/door_lists.h"

// What is understood and not served by this build, by name.
static enum status check_served(const struct generate_request *request, struct error *error)
{
    const char *field = request->unsupported;
    if (field == NULL)
        return OK;
    return error_set(error, E_UNSUPPORTED, "'%s' is not served by this version; leave it out",
                     field);
}

static enum status fill_sampling(struct coord_sampling *sampling,
                                 const struct generate_request *request,
                                 const struct door_order_sources *sources, struct error *error)
{
    const struct door_sampling_wish wish = {
        .temperature = request->temperature,
        .top_k = request->top_k,
        .top_p = request->top_p,
        .min_p = request->min_p,
        .repetition = request->repetition_penalty,
        .frequency = request->frequency_penalty,
        .presence = request->presence_penalty,
        .min_tokens = request->min_tokens,
        .max_tokens = request->max_tokens,
        .drafts = 1 + request->speculative_tokens, // -1: the server's choice
        .logprobs = request->logprobs,
        .prompt_logprobs = request->prompt_logprobs,
        .stop_ids = request->stop_ids,
        .stop_count = request->stop_count,
        .ignore_eos = request->ignore_eos,
    };
    TRY(door_sampling_fill(sampling, &wish, &sources->rules, error));
    sampling->seed = request->has_seed ? request->seed : door_sampling_seed(sources->seeds);
    return OK;
}

static enum status fill_lists(struct link_order *order, const struct generate_request *request,
                              const struct door_order_sources *sources, struct error *error)
{
    const char *field; // the text names it too
    const struct door_lists_wish wish = {.bias_ids = request->bias_ids,
                                         .biases = request->biases,
                                         .bias_count = request->bias_count,
                                         .allowed_ids = request->allowed_ids,
                                         .allowed_count = request->allowed_count,
                                         .words = request->words,
                                         .words_count = request->words_count};
    return door_lists_make(&order->lists, &order->sampling, &wish, sources->text, &field, error);
}

enum status door_order_make(struct link_order *out, const struct generate_request *request,
                            const struct door_order_sources *sources, struct error *error)
{
    struct link_order order = {.type = ORDER_SUBMIT, .arrived_ns = out->arrived_ns};
    TRY(check_served(request, error));
    order.priority = request->priority;
    order.timeout_ms = request->timeout_ms;
    TRY(fill_sampling(&order.sampling, request, sources, error));
    TRY(fill_lists(&order, request, sources, error));
    enum status status =
        door_text_prompt(sources->text, request, &order.prompt, &order.prompt_tokens, error);
    if (status != OK) {
        free(order.lists);
        return status;
    }
    *out = order;
    return OK;
}

// ---- several answers ----

static int32_t *copy_ids(const int32_t *ids, int32_t count)
{
    int32_t *copy = malloc(((size_t)count + 1) * sizeof *copy);
    if (copy != NULL && count > 0)
        memcpy(copy, ids, (size_t)count * sizeof *copy);
    return copy;
}

// The order of another answer, with ids of its own. False: nothing was given.
static bool give_another(const struct link_order *made, const struct generate_request *request,
                         struct door_request *entry, struct link *link, struct door_text *text)
{
    struct link_order order = *made;
    struct error ignored;
    order.request = entry->number;
    order.sampling.seed = door_sampling_choice_seed(entry->first->seed, entry->index);
    order.prompt = copy_ids(made->prompt, made->prompt_tokens);
    order.lists = copy_ids(made->lists, coord_sampling_lists(&made->sampling));
    if (order.prompt != NULL && order.lists != NULL &&
        door_answer_open(&entry->answer, text, request, &ignored) == OK && link_order(link, &order))
        return true;
    free(order.prompt);
    free(order.lists);
    return false;
}

bool door_order_give(struct link_order *order, const struct generate_request *request,
                     struct door_request *first, struct door_requests *requests, struct link *link,
                     struct door_text *text)
{
    order->request = first->number;
    first->ended = true; // until the core knows it
    for (int32_t i = 1; i < request->n; i++) {
        struct door_request *entry = door_requests_add(requests, first);
        if (entry == NULL)
            return false;
        entry->wants_prompt = first->wants_prompt;
        entry->ended = !give_another(order, request, entry, link, text);
        if (entry->ended)
            return false;
    }
    if (!link_order(link, order))
        return false;
    first->ended = false;
    return true;
}
