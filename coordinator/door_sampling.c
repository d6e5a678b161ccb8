// SPDX-License-Identifier: Apache-2.0
// door_sampling.c -- defaults, sets of ids, a hash.
#include "coordinator/door_sampling.h"

#include <sys/random.h>

#include "parallel/base/mix.h"

uint64_t door_sampling_choice_seed(uint64_t seed, int32_t index)
{
    return index == 0 ? seed : mix_at(mix_at(seed, 0), (uint64_t)index);
}

uint64_t door_sampling_seed(struct door_seeds *seeds)
{
    uint64_t seed;
    if (!seeds->has_seed && getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed)
        return seed;
    uint64_t number = (uint64_t)seeds->link_index << 56 | ++seeds->given;
    return mix_at(seeds->seed, number);
}

static enum status add_stop(struct coord_sampling *sampling, int32_t id)
{
    for (int32_t i = 0; i < sampling->stop_count; i++) {
        if (sampling->stop_ids[i] == id)
            return OK;
    }
    if (sampling->stop_count == STEP_STOP_IDS_MAX)
        return E_LIMIT;
    sampling->stop_ids[sampling->stop_count++] = id;
    return OK;
}

// The request's ids first, then the model's own.
static enum status add_all(struct coord_sampling *sampling, const struct door_sampling_wish *wish,
                           const struct door_sampling_rules *rules)
{
    const struct tokenizer *tokenizer = rules->tokenizer;
    sampling->stop_count = 0;
    for (int32_t i = 0; i < wish->stop_count; i++)
        TRY(add_stop(sampling, wish->stop_ids[i]));
    for (int i = 0; i < rules->config->eos_count && !wish->ignore_eos; i++)
        TRY(add_stop(sampling, rules->config->eos_ids[i]));
    for (uint32_t i = 0; tokenizer != NULL && i < tokenizer->eos_count && !wish->ignore_eos; i++)
        TRY(add_stop(sampling, (int32_t)tokenizer->eos_ids[i]));
    return OK;
}

static enum status fill_stops(struct coord_sampling *sampling,
                              const struct door_sampling_wish *wish,
                              const struct door_sampling_rules *rules, struct error *error)
{
    for (int32_t i = 0; i < wish->stop_count; i++) {
        if (wish->stop_ids[i] >= rules->vocab_real)
            return error_set(error, E_INPUT, "'stop_token_ids'[%d]: %d is outside 0 .. %d", i,
                             wish->stop_ids[i], rules->vocab_real - 1);
    }
    if (add_all(sampling, wish, rules) == OK)
        return OK;
    return error_set(error, E_LIMIT, "stop_token_ids: more than %d with the model's own",
                     STEP_STOP_IDS_MAX);
}

enum status door_sampling_fill(struct coord_sampling *out, const struct door_sampling_wish *wish,
                               const struct door_sampling_rules *rules, struct error *error)
{
    struct coord_sampling sampling = *rules->defaults;
    sampling.max_tokens = wish->max_tokens;
    if (wish->temperature >= 0)
        sampling.temperature = (float)wish->temperature;
    if (wish->top_k >= 0)
        sampling.top_k = wish->top_k;
    if (wish->top_p >= 0)
        sampling.top_p = (float)wish->top_p;
    if (wish->min_p >= 0)
        sampling.min_p = (float)wish->min_p;
    if (wish->repetition >= 0)
        sampling.repetition = (float)wish->repetition;
    sampling.frequency = (float)wish->frequency;
    sampling.presence = (float)wish->presence;
    sampling.min_tokens = wish->min_tokens;
    sampling.drafts = wish->drafts;
    sampling.logprobs = wish->logprobs;
    sampling.prompt_logprobs = wish->prompt_logprobs;
    TRY(fill_stops(&sampling, wish, rules, error));
    *out = sampling;
    return OK;
}
