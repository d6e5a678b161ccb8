// SPDX-License-Identifier: Apache-2.0
// bench_options.c -- the table of bench's options.
#include "deploy/cli/bench_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deploy/cli/bench_load.h"
#include "parallel/base/options.h"
#include "parallel/wire/requests.h"

static struct bench_options parsed;
static const char *concurrency, *goodput; // as given

static struct option table[] = {
    {"--rpc", NULL, OPTION_TEXT, &parsed.rpc, 0, 0, "ENDPOINT", "the RPC door to load, or:", NULL},
    {"--url", "--base-url", OPTION_TEXT, &parsed.url, 0, 0, "URL",
     "any OpenAI server (/v1/completions, streamed)", NULL},
    {"--input-len", "--random-input-len", OPTION_INT, &parsed.input_tokens, 1, BENCH_LENGTH_MAX,
     "N", "tokens of every prompt", NULL},
    {"--output-len", "--random-output-len", OPTION_INT, &parsed.output_tokens, 1, BENCH_LENGTH_MAX,
     "N", "tokens of every answer, at most", NULL},
    {"--trace", NULL, OPTION_TEXT, &parsed.trace, 0, 0, "FILE.jsonl",
     "lengths from lines {\"input_len\",\"output_len\"} instead", NULL},
    {"--concurrency", "--max-concurrency", OPTION_TEXT, &concurrency, 0, 0, "C[,C2,..]",
     "requests at any time; a run for each, or:", NULL},
    {"--request-rate", NULL, OPTION_REAL, &parsed.requests_per_s, 1e-6, 1e6, "R",
     "requests a second, at random times (Poisson)", NULL},
    {"--num-prompts", "--num-requests", OPTION_INT, &parsed.requests, 1, BENCH_REQUESTS_MAX, "N",
     "requests of a run (ten for each of --concurrency)", NULL},
    {"--warmup", "--num-warmups", OPTION_INT, &parsed.warmup, 0, BENCH_REQUESTS_MAX, "N",
     "requests before the measured ones of a run (0)", NULL},
    {"--goodput", NULL, OPTION_TEXT, &goodput, 0, 0, "ttft:MS,tpot:MS,e2e:MS",
     "count requests within these bounds, one or more", NULL},
    {"--ignore-eos", NULL, OPTION_FLAG, &parsed.ignore_eos, 0, 0, NULL,
     "go on after the end of the text", NULL},
    {"--temperature", NULL, OPTION_REAL, &parsed.temperature, 0, REQUEST_TEMPERATURE_MAX, "T",
     "0 takes the likeliest token (0)", NULL},
    {"--seed", NULL, OPTION_SEED, &parsed.seed, 0, 0, "S",
     "of prompts, arrival times and draws (0)", NULL},
    {"--vocab", NULL, OPTION_INT, &parsed.vocab, 1, INT32_MAX, "N",
     "prompts of ids below N (the server's own, or 1000)", NULL},
    {"--model", "--served-model-name", OPTION_TEXT, &parsed.model, 0, 0, "NAME",
     "for --url: what to ask for (the first of /v1/models)", NULL},
    {"--api-key", NULL, OPTION_TEXT, &parsed.api_key, 0, 0, "K", "for --url", NULL},
    {"--json", NULL, OPTION_FLAG, &parsed.json, 0, 0, NULL, "one JSON object per run", NULL},
    {"--curve-dir", NULL, OPTION_TEXT, &parsed.curve_dir, 0, 0, "DIR",
     "CURVE keys of a client; see deltamesh keys", NULL},
    {"--insecure", NULL, OPTION_FLAG, &parsed.insecure, 0, 0, NULL,
     "allow an RPC door that is not on the loopback", NULL},
    {"--help", "-h", OPTION_FLAG, &parsed.help, 0, 0, NULL, "print this help", NULL},
};

enum { TABLE_COUNT = sizeof table / sizeof table[0] };

// "1,8,64".
static enum status read_concurrencies(struct error *error)
{
    const char *at = concurrency;
    for (;;) {
        char *end;
        errno = 0;
        long value = strtol(at, &end, 10);
        if (end == at || errno != 0 || value < 1 || value > BENCH_CONCURRENCY_MAX ||
            (*end != ',' && *end != '\0'))
            return error_set(error, E_USAGE, "--concurrency: '%.40s' is no number within 1 .. %d",
                             at, BENCH_CONCURRENCY_MAX);
        if (parsed.concurrencies_count == BENCH_POINTS_MAX)
            return error_set(error, E_USAGE, "--concurrency: more than %d numbers",
                             BENCH_POINTS_MAX);
        parsed.concurrencies[parsed.concurrencies_count++] = (int32_t)value;
        if (*end == '\0')
            return OK;
        at = end + 1;
    }
}

// "ttft:200,tpot:50", a space for the comma as well.
static enum status read_goodput(struct error *error)
{
    const struct {
        const char *name;
        double *bound_ms;
    } bounds[] = {{"ttft:", &parsed.bounds.ttft_ms},
                  {"tpot:", &parsed.bounds.tpot_ms},
                  {"e2e:", &parsed.bounds.end_to_end_ms},
                  {"e2el:", &parsed.bounds.end_to_end_ms}};
    enum { COUNT = sizeof bounds / sizeof bounds[0] };
    for (const char *at = goodput;;) {
        int i = 0;
        while (i < COUNT && strncmp(at, bounds[i].name, strlen(bounds[i].name)) != 0)
            i++;
        char *end = NULL;
        double value = i < COUNT ? strtod(at + strlen(bounds[i].name), &end) : 0;
        if (!(value > 0 && value < 1e9) || (*end != ',' && *end != ' ' && *end != '\0'))
            return error_set(error, E_USAGE,
                             "--goodput: '%.40s' is not ttft:MS, tpot:MS or e2e:MS, MS above 0",
                             at);
        *bounds[i].bound_ms = value;
        parsed.has_bounds = true;
        if (*end == '\0')
            return OK;
        at = end + 1;
    }
}

static enum status check(struct error *error)
{
    if ((parsed.rpc != NULL) + (parsed.url != NULL) != 1)
        return error_set(error, E_USAGE, "one of --rpc and --url is needed; see --help");
    bool has_lengths = parsed.input_tokens > 0 && parsed.output_tokens > 0;
    bool has_length = parsed.input_tokens > 0 || parsed.output_tokens > 0;
    if (parsed.trace != NULL ? has_length : !has_lengths)
        return error_set(error, E_USAGE,
                         "either --input-len and --output-len or --trace is needed; see --help");
    if ((concurrency != NULL) + (parsed.requests_per_s > 0) != 1)
        return error_set(error, E_USAGE,
                         "one of --concurrency and --request-rate is needed; see --help");
    if (parsed.requests_per_s > 0 && parsed.requests == 0)
        return error_set(error, E_USAGE, "--request-rate needs --num-prompts; see --help");
    if (parsed.rpc != NULL && (parsed.model != NULL || parsed.api_key != NULL))
        return error_set(error, E_USAGE, "--model and --api-key belong to --url");
    if (goodput != NULL)
        TRY(read_goodput(error));
    return concurrency != NULL ? read_concurrencies(error) : OK;
}

enum status bench_options_parse(struct bench_options *out, int count, char *const *arguments,
                                struct error *error)
{
    parsed = (struct bench_options){.help = false};
    concurrency = goodput = NULL;
    for (int i = 0; i < TABLE_COUNT; i++)
        table[i].given = NULL;
    TRY(options_parse(table, TABLE_COUNT, count, arguments, error));
    if (parsed.help) {
        printf("usage: deltamesh bench (--rpc ENDPOINT | --url URL)\n"
               "                       (--input-len N --output-len N | --trace FILE.jsonl)\n"
               "                       (--concurrency C[,C2,..] | --request-rate R) [options]\n\n"
               "Loads a server with distinct random prompts and tells how it did.\n"
               "TTFT: to the first tokens of a request. TPOT: per token behind them.\n"
               "ITL: gaps between messages. Percentiles are exact.\n\n");
        options_print(stdout, table, TABLE_COUNT);
    } else {
        TRY(check(error));
    }
    *out = parsed;
    return OK;
}
