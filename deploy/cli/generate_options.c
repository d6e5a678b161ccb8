// SPDX-License-Identifier: Apache-2.0
// generate_options.c -- the table of generate's options.
#include "deploy/cli/generate_options.h"

#include <stdio.h>
#include <string.h>

#include "parallel/base/options.h"
#include "parallel/wire/requests.h"

static struct generate_options parsed;
static struct {
    int32_t max_tokens, top_k, logprobs, prompt_logprobs, drafts;
    double temperature, top_p, min_p;
    uint64_t seed;
    bool ignore_eos;
} sampling;

static struct option table[] = {
    {"--rpc", NULL, OPTION_TEXT, &parsed.rpc, 0, 0, "ENDPOINT", "the server to ask, or:", NULL},
    {"--model", NULL, OPTION_TEXT, &parsed.model, 0, 0, "DIR",
     "start a server for this command alone", NULL},
    {"--tp", "-tp --tensor-parallel-size", OPTION_INT, &parsed.ranks, 1, 8, "N",
     "its worker processes", NULL},
    {"--backend", NULL, OPTION_CHOICE, &parsed.backend, 0, 0, "auto|cuda|cpu", "its workers' kind",
     NULL},
    {"--load-format", NULL, OPTION_CHOICE, &parsed.load_format, 0, 0, "auto|dummy",
     "its weights: from files, or made by a rule", NULL},
    {"--prompt", NULL, OPTION_TEXT, &parsed.prompt, 0, 0, "TEXT",
     "one prompt, streamed, or:", NULL},
    {"--prompt-ids", NULL, OPTION_TEXT, &parsed.prompt_ids, 0, 0, "1,2,3",
     "one prompt as token ids, or:", NULL},
    {"--requests", NULL, OPTION_TEXT, &parsed.requests, 0, 0, "FILE|-",
     "a JSON object a line: prompt, ids or messages", NULL},
    // Defaults of every request's fields.
    {"--max-tokens", NULL, OPTION_INT, &sampling.max_tokens, 1, INT32_MAX, "N",
     "longest answer (the rest of the context)", NULL},
    {"--temperature", NULL, OPTION_REAL, &sampling.temperature, 0, REQUEST_TEMPERATURE_MAX, "T",
     "0 takes the likeliest token (0)", NULL},
    {"--top-k", NULL, OPTION_INT, &sampling.top_k, 0, INT32_MAX, "K", "among the K likeliest",
     NULL},
    {"--top-p", NULL, OPTION_REAL, &sampling.top_p, 0, 1, "P", "among the likeliest of mass P",
     NULL},
    {"--min-p", NULL, OPTION_REAL, &sampling.min_p, 0, 1, "P", "at least P times the likeliest",
     NULL},
    {"--seed", NULL, OPTION_SEED, &sampling.seed, 0, 0, "S", "of the draws", NULL},
    {"--ignore-eos", NULL, OPTION_FLAG, &sampling.ignore_eos, 0, 0, NULL,
     "go on after the end of the text", NULL},
    {"--logprobs", NULL, OPTION_INT, &sampling.logprobs, 0, STEP_LOGPROBS_TOP_MAX, "K",
     "with --json: log-probabilities of what was drawn and of the K likeliest", NULL},
    {"--prompt-logprobs", NULL, OPTION_INT, &sampling.prompt_logprobs, 0, STEP_LOGPROBS_TOP_MAX,
     "K", "with --json: the same of the prompt", NULL},
    {"--speculative-tokens", "--num-speculative-tokens", OPTION_INT, &sampling.drafts, 0,
     STEP_VERIFY_MAX - 1, "K", "most drafts at a time, 0 for none (the server chooses)", NULL},
    // Neither.
    {"--json", NULL, OPTION_FLAG, &parsed.json, 0, 0, NULL, "one JSON object per answer", NULL},
    {"--curve-dir", NULL, OPTION_TEXT, &parsed.curve_dir, 0, 0, "DIR",
     "CURVE keys of a client; see deltamesh keys", NULL},
    {"--insecure", NULL, OPTION_FLAG, &parsed.insecure, 0, 0, NULL,
     "allow a server that is not on the loopback", NULL},
    {"--help", "-h", OPTION_FLAG, &parsed.help, 0, 0, NULL, "print this help", NULL},
};

enum {
    TABLE_COUNT = sizeof table / sizeof table[0],
    SAMPLING_FIRST = 8, // rows of the table above
    SAMPLING_COUNT = 10,
};

// The wire's name of an option's field: "--max-tokens" is "max_tokens".
static const char *const wire_keys[SAMPLING_COUNT] = {
    "max_tokens", "temperature", "top_k",    "top_p",           "min_p",
    "seed",       "ignore_eos",  "logprobs", "prompt_logprobs", "speculative_tokens",
};

static void fill_defaults(void)
{
    for (int i = 0; i < SAMPLING_COUNT; i++) {
        const struct option *option = &table[SAMPLING_FIRST + i];
        bool is_temperature = option->value == &sampling.temperature;
        if (option->given == NULL && !is_temperature)
            continue;
        struct generate_default *out = &parsed.defaults[parsed.defaults_count++];
        *out = (struct generate_default){.key = wire_keys[i]};
        if (option->kind == OPTION_INT) {
            out->kind = DEFAULT_INT;
            out->number = *(const int32_t *)option->value;
        } else if (option->kind == OPTION_REAL) {
            out->kind = DEFAULT_REAL;
            out->real = *(const double *)option->value;
        } else if (option->kind == OPTION_SEED) {
            out->kind = DEFAULT_SEED;
            out->seed = *(const uint64_t *)option->value;
        } else {
            out->kind = DEFAULT_TRUE;
        }
    }
}

static enum status check(struct error *error)
{
    if ((parsed.rpc != NULL) + (parsed.model != NULL) != 1)
        return error_set(error, E_USAGE, "one of --rpc and --model is needed; see --help");
    int inputs = (parsed.prompt != NULL) + (parsed.prompt_ids != NULL) + (parsed.requests != NULL);
    if (inputs != 1)
        return error_set(error, E_USAGE,
                         "one of --prompt, --prompt-ids and --requests is needed; see --help");
    return OK;
}

enum status generate_options_parse(struct generate_options *out, int count, char *const *arguments,
                                   struct error *error)
{
    parsed = (struct generate_options){.backend = "auto", .load_format = "auto", .ranks = 1};
    memset(&sampling, 0, sizeof sampling);
    for (int i = 0; i < TABLE_COUNT; i++)
        table[i].given = NULL;
    TRY(options_parse(table, TABLE_COUNT, count, arguments, error));
    if (parsed.help) {
        printf(
            "usage: deltamesh generate (--rpc ENDPOINT | --model DIR)\n"
            "                          (--prompt TEXT | --prompt-ids 1,2,3 | --requests FILE|-)\n"
            "                          [options]\n\n"
            "Text goes to stdout as it comes, figures to stderr.\n\n");
        options_print(stdout, table, TABLE_COUNT);
    } else {
        TRY(check(error));
        fill_defaults();
    }
    *out = parsed;
    return OK;
}
