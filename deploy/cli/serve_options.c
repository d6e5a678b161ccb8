// SPDX-License-Identifier: Apache-2.0
// serve_options.c -- the table of serve's options. What the coordinator understands is passed on
// word by word, so that limits and defaults have one place, the coordinator's.
#include "deploy/cli/serve_options.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "parallel/base/options.h"

#define LATER "not in this version"

// Values of forwarded options are checked by the coordinator; these only hold the words.
static struct {
    const char *rpc, *http, *api_key, *model_len, *sequences, *step_tokens, *utilization, *queued,
        *gap, *pages, *seed, *name, *curve_dir, *log_format, *speculative, *synthetic,
        *checkpoint_interval, *draft_vocab, *state_dtype;
    int32_t groups;
    bool insecure, no_prefix_cache, prefix_cache;
} words;
static struct serve_options parsed;

#define TEXT(name, aliases, value, argument, help)                                                 \
    {                                                                                              \
        name, aliases, OPTION_TEXT, value, 0, 0, argument, help, NULL                              \
    }
#define REFUSED(name, instead)                                                                     \
    {                                                                                              \
        name, NULL, OPTION_REFUSED, NULL, 0, 0, NULL, instead, NULL                                \
    }
static struct option table[] = {
    TEXT("--model", NULL, &parsed.model, "DIR", "the model directory"),
    {"--tp", "-tp --tensor-parallel-size", OPTION_INT, &parsed.ranks, 1, SERVE_RANKS_MAX, "N",
     "worker processes, one per GPU", NULL},
    {"--load-format", NULL, OPTION_CHOICE, &parsed.load_format, 0, 0, "auto|dummy",
     "weights from files, or made by a rule", NULL},
    TEXT("--rpc", NULL, &words.rpc, "ENDPOINT",
         "the RPC door (tcp://127.0.0.1:5570; port 0 = any)"),
    TEXT("--http", NULL, &words.http, "HOST:PORT",
         "the HTTP door (127.0.0.1:8000; port 0 = any; off = none)"),
    TEXT("--api-key", NULL, &words.api_key, "K", "HTTP clients must send it ($DELTAMESH_API_KEY)"),
    TEXT("--max-model-len", NULL, &words.model_len, "N", "longest sequence, prompt and output"),
    TEXT("--max-num-seqs", NULL, &words.sequences, "N", "sequences that run at once"),
    TEXT("--max-num-batched-tokens", NULL, &words.step_tokens, "N", "tokens of one step"),
    TEXT("--gpu-memory-utilization", NULL, &words.utilization, "F", "share of free memory to use"),
    TEXT("--max-queued", NULL, &words.queued, "N", "requests that may wait"),
    TEXT("--max-prefill-gap-ms", NULL, &words.gap, "N",
         "that streams wait for new prompts; more if their steps are long or these waited; 0 = any "
         "(60)"),
    TEXT("--kv-pages", "--num-gpu-blocks-override", &words.pages, "N",
         "no more KV pages of 64 tokens than these"),
    {"--state-dtype", "--mamba-ssm-cache-dtype", OPTION_CHOICE, &words.state_dtype, 0, 0,
     "auto|float32|bfloat16",
     "recurrent states in memory; bfloat16 halves them and costs accuracy (auto: float32)", NULL},
    {"--no-prefix-cache", "--no-enable-prefix-caching", OPTION_FLAG, &words.no_prefix_cache, 0, 0,
     NULL, "run every prompt from its first token", NULL},
    TEXT("--checkpoint-interval", NULL, &words.checkpoint_interval, "N",
         "prefix reuse: a long text can be gone on from every N tokens (4096)"),
    TEXT("--speculative-tokens", "--num-speculative-tokens", &words.speculative, "K|auto",
         "tokens to draft per sequence and step, 0 to 5 (auto: what pays)"),
    TEXT("--draft-vocab", NULL, &words.draft_vocab, "N",
         "draft only token ids below N, by so many rows of lm_head (0, or the vocabulary: all)"),
    TEXT("--synthetic-acceptance", NULL, &words.synthetic, "AL",
         "for benchmarks: tokens per verified row by chance, not by the model"),
    TEXT("--seed", NULL, &words.seed, "S", "requests without a seed get one derived from it"),
    TEXT("--served-model-name", NULL, &words.name, "NAME", "what the model is called"),
    {"--drain-timeout", NULL, OPTION_INT, &parsed.drain_timeout_s, 0, 86400, "S",
     "longest drain, in seconds (30)", NULL},
    TEXT("--curve-dir", NULL, &words.curve_dir, "DIR",
         "CURVE keys of RPC clients and workers; see deltamesh keys"),
    {"--log-format", NULL, OPTION_CHOICE, &words.log_format, 0, 0, "text|json",
     "how lines on stderr look (text)", NULL},
    {"--insecure", NULL, OPTION_FLAG, &words.insecure, 0, 0, NULL,
     "allow endpoints that are not on the loopback", NULL},
    // From here on: not the coordinator's.
    {"--backend", NULL, OPTION_CHOICE, &parsed.backend, 0, 0, "auto|cuda|cpu",
     "which workers to start", NULL},
    {"--dp", "-dp --data-parallel-size", OPTION_INT, &words.groups, 1, 64, "N", NULL, NULL},
    {"--dry-run", NULL, OPTION_FLAG, &parsed.dry_run, 0, 0, NULL,
     "check the model's configs and print the memory plan; nothing is started", NULL},
    {"--enable-prefix-caching", NULL, OPTION_FLAG, &words.prefix_cache, 0, 0, NULL,
     "changes nothing: it is on", NULL},
    {"--help", "-h", OPTION_FLAG, &parsed.help, 0, 0, NULL, "print this help", NULL},
    REFUSED("--host", "use --http HOST:PORT"),
    REFUSED("--port", "use --http HOST:PORT"),
    REFUSED("--speculative-config", "use --speculative-tokens K|auto"),
};
#undef TEXT
#undef REFUSED

enum {
    OPTIONS_COUNT = sizeof table / sizeof table[0],
    FORWARDED_COUNT = 25, // the rows above "not the coordinator's"
};

static enum status check(struct error *error)
{
    if (parsed.model == NULL)
        return error_set(error, E_USAGE, "--model DIR is needed; see --help");
    if (words.groups > 1)
        return error_set(error, E_USAGE, "--dp: more than one group is " LATER);
    return OK;
}

static void print_help(void)
{
    printf("usage: deltamesh serve --model DIR [options]\n\n"
           "Starts a coordinator and --tp workers, prints `ready rpc=ENDPOINT http=URL` when all\n"
           "is up, and drains on SIGTERM or Ctrl-C (a second one aborts).\n\n");
    options_print(stdout, table, OPTIONS_COUNT);
}

static void forward(void)
{
    int used = 0;
    for (int i = 0; i < FORWARDED_COUNT; i++) {
        if (table[i].given == NULL)
            continue;
        parsed.forwarded[used++] = table[i].name;
        if (table[i].kind != OPTION_FLAG)
            parsed.forwarded[used++] = table[i].given;
    }
    if (parsed.dry_run)
        parsed.forwarded[used++] = "--dry-run";
    parsed.forwarded[used] = NULL;
}

enum status serve_options_parse(struct serve_options *out, int count, char *const *arguments,
                                struct error *error)
{
    parsed = (struct serve_options){
        .backend = "auto", .load_format = "auto", .ranks = 1, .drain_timeout_s = 30};
    words.groups = 1;
    words.curve_dir = words.log_format = NULL;
    for (int i = 0; i < OPTIONS_COUNT; i++)
        table[i].given = NULL;
    TRY(options_parse(table, OPTIONS_COUNT, count, arguments, error));
    if (parsed.help) {
        print_help();
    } else {
        TRY(check(error));
        forward();
    }
    parsed.curve_dir = words.curve_dir;
    parsed.log_format = words.log_format != NULL ? words.log_format : "text";
    *out = parsed;
    return OK;
}

const char *serve_options_backend(const struct serve_options *options, bool has_cuda_worker)
{
    if (strcmp(options->backend, "auto") != 0)
        return options->backend;
    return has_cuda_worker && access("/dev/nvidia0", R_OK) == 0 ? "cuda" : "cpu";
}
