// SPDX-License-Identifier: Apache-2.0
// main.c -- deltamesh-coordinator: command line, model's config and tokenizer, doors, core, exit
// code.
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <jansson.h>

#include "coordinator/door_http.h"
#include "coordinator/door_rpc.h"
#include "coordinator/generation_config.h"
#include "coordinator/shell.h"
#include "coordinator/speculation.h"
#include "coordinator/text/tokenizer.h"
#include "parallel/base/clock.h"
#include "parallel/base/log.h"
#include "parallel/base/options.h"
#include "parallel/base/version.h"

enum { POOL_TOKENS = 4 << 20, LINE_BYTES = 512 };

struct arguments {
    const char *model, *workers, *rpc, *http, *api_key, *load_format, *name, *curve_dir,
        *log_format, *speculative, *state_dtype;
    int32_t tp, dp, sequence_tokens, sequences, step_tokens, queued_max, drain_timeout_s, gap_ms,
        pages, checkpoint_interval, draft_vocab;
    double utilization, gibibytes_free, synthetic;
    uint64_t seed;
    bool has_seed, no_prefix_cache, insecure, dry_run, version, help;
};

// Everything that is loaded once.
struct deployment {
    struct arguments arguments;
    struct model_config config;
    struct tokenizer tokenizer;
    bool has_tokenizer;
    struct coord_sampling sampling_default;
};

static void print_help(const struct option *options, int count)
{
    printf("usage: deltamesh-coordinator --model DIR [options]\n\n"
           "The doors, the scheduler and the memory plan of one deployment. Needs no GPU.\n\n");
    options_print(stdout, options, count);
}

// After the words have been read: what they say together.
static enum status finish(struct arguments *a, const struct option *options, int count,
                          struct error *error)
{
    for (int i = 0; i < count; i++)
        a->has_seed |= options[i].value == &a->seed && options[i].given != NULL;
    if (a->help)
        print_help(options, count);
    if (a->help || a->version || a->model != NULL)
        return OK;
    return error_set(error, E_USAGE, "--model is needed; see --help");
}

static enum status parse(struct arguments *a, int argc, char **argv, struct error *error)
{
    struct option options[] = {
        {"--model", NULL, OPTION_TEXT, &a->model, 0, 0, "DIR", "the model directory", NULL},
        {"--tp", "-tp --tensor-parallel-size", OPTION_INT, &a->tp, 1, RANKS_MAX, "N",
         "ranks of a group", NULL},
        {"--dp", "-dp --data-parallel-size", OPTION_INT, &a->dp, 1, GROUPS_MAX, "N", "groups",
         NULL},
        {"--workers", NULL, OPTION_TEXT, &a->workers, 0, 0, "ENDPOINT",
         "where workers dial; port 0 = any", NULL},
        {"--http", NULL, OPTION_TEXT, &a->http, 0, 0, "HOST:PORT",
         "the HTTP door; port 0 = any, off = none", NULL},
        {"--api-key", NULL, OPTION_TEXT, &a->api_key, 0, 0, "K",
         "HTTP clients must send it; by default $DELTAMESH_API_KEY", NULL},
        {"--rpc", NULL, OPTION_TEXT, &a->rpc, 0, 0, "ENDPOINT", "the RPC door; port 0 = any", NULL},
        {"--load-format", NULL, OPTION_CHOICE, &a->load_format, 0, 0, "auto|dummy",
         "weights from files, or made by a rule", NULL},
        {"--max-model-len", NULL, OPTION_INT, &a->sequence_tokens, 64, SEQUENCE_TOKENS_MAX, "N",
         "longest sequence, prompt and output", NULL},
        {"--max-num-seqs", NULL, OPTION_INT, &a->sequences, 1, SEQUENCES_MAX, "N",
         "sequences that run at once", NULL},
        {"--max-num-batched-tokens", NULL, OPTION_INT, &a->step_tokens, 64, STEP_TOKENS_MAX, "N",
         "tokens of one step", NULL},
        {"--gpu-memory-utilization", NULL, OPTION_REAL, &a->utilization, 0.01, 1, "F",
         "share of free memory to use", NULL},
        {"--max-queued", NULL, OPTION_INT, &a->queued_max, 1, 1 << 20, "N",
         "requests that may wait", NULL},
        {"--max-prefill-gap-ms", NULL, OPTION_INT, &a->gap_ms, 0, 60000, "N",
         "that streams wait for new prompts; more if steps are long or these waited; 0 = any (60)",
         NULL},
        {"--kv-pages", "--num-gpu-blocks-override", OPTION_INT, &a->pages, 1, MEMORY_PAGES_MAX, "N",
         "no more KV pages of 64 tokens than these", NULL},
        {"--state-dtype", "--mamba-ssm-cache-dtype", OPTION_CHOICE, &a->state_dtype, 0, 0,
         "auto|float32|bfloat16", "recurrent states; bfloat16: half, less exact (float32)", NULL},
        {"--no-prefix-cache", "--no-enable-prefix-caching", OPTION_FLAG, &a->no_prefix_cache, 0, 0,
         NULL, "run every prompt from its first token", NULL},
        {"--checkpoint-interval", NULL, OPTION_INT, &a->checkpoint_interval, TOKENS_PER_PAGE,
         SEQUENCE_TOKENS_MAX, "N",
         "prefix reuse: a long text can be gone on from every N tokens, a multiple of 64 (4096)",
         NULL},
        {"--speculative-tokens", "--num-speculative-tokens", OPTION_TEXT, &a->speculative, 0, 0,
         "K|auto", "tokens to draft per sequence and step, 0 to 5; auto: what pays", NULL},
        {"--draft-vocab", NULL, OPTION_INT, &a->draft_vocab, INT32_MIN, INT32_MAX, "N",
         "draft only token ids below N, by so many rows of lm_head (0, or the vocabulary: all)",
         NULL},
        {"--synthetic-acceptance", NULL, OPTION_REAL, &a->synthetic, 1, STEP_VERIFY_MAX, "AL",
         "for benchmarks: tokens per verified row by chance, not by the model", NULL},
        {"--seed", NULL, OPTION_SEED, &a->seed, 0, 0, "S",
         "requests without a seed get one derived from it", NULL},
        {"--served-model-name", NULL, OPTION_TEXT, &a->name, 0, 0, "NAME",
         "what the model is called", NULL},
        {"--drain-timeout", NULL, OPTION_INT, &a->drain_timeout_s, 0, 86400, "S",
         "longest drain after SIGTERM", NULL},
        {"--curve-dir", NULL, OPTION_TEXT, &a->curve_dir, 0, 0, "DIR",
         "CURVE keys of RPC clients and workers; see deltamesh keys", NULL},
        {"--insecure", NULL, OPTION_FLAG, &a->insecure, 0, 0, NULL,
         "allow endpoints that are not on the loopback without keys", NULL},
        {"--log-format", NULL, OPTION_CHOICE, &a->log_format, 0, 0, "text|json",
         "how lines on stderr look", NULL},
        {"--dry-run", NULL, OPTION_FLAG, &a->dry_run, 0, 0, NULL,
         "check the model's configs and print the memory plan; nothing is started", NULL},
        {"--gib-free", NULL, OPTION_REAL, &a->gibibytes_free, 0.001, 1 << 20, "F",
         "for --dry-run: memory of a rank; this host's by default", NULL},
        {"--version", NULL, OPTION_FLAG, &a->version, 0, 0, NULL, "print the version", NULL},
        {"--help", "-h", OPTION_FLAG, &a->help, 0, 0, NULL, "print this help", NULL},
    };
    int count = (int)(sizeof options / sizeof options[0]);
    TRY(options_parse(options, count, argc - 1, argv + 1, error));
    return finish(a, options, count, error);
}

// --speculative-tokens; without it, what pays.
static enum status read_speculative(int *out, const struct arguments *a, struct error *error)
{
    char *end = NULL;
    *out = SPECULATION_AUTO;
    if (a->speculative == NULL || strcmp(a->speculative, "auto") == 0)
        return OK;
    long value = strtol(a->speculative, &end, 10);
    if (end == a->speculative || *end != '\0' || value < 0 || value > STEP_VERIFY_MAX - 1)
        return error_set(error, E_USAGE,
                         "--speculative-tokens is '%s', accepted is 0 to %d or auto",
                         a->speculative, STEP_VERIFY_MAX - 1);
    *out = (int)value;
    return OK;
}

static enum status check_draft_vocab(const struct deployment *d, struct error *error)
{
    int32_t draft_vocab = d->arguments.draft_vocab;
    if (draft_vocab >= 0 && draft_vocab <= d->config.vocab)
        return OK;
    return error_set(error, E_USAGE,
                     "--draft-vocab is %d, accepted is 1 to %d, the model's vocabulary, or 0 for "
                     "all of it",
                     draft_vocab, d->config.vocab);
}

static const char *model_name(const struct arguments *a)
{
    if (a->name != NULL)
        return a->name;
    const char *slash = strrchr(a->model, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : a->model;
}

static enum status load(struct deployment *d, struct error *error)
{
    TRY(config_load(&d->config, d->arguments.model, error));
    TRY(check_draft_vocab(d, error));
    TRY(generation_config_load(&d->sampling_default, d->arguments.model, error));
    enum status status = tokenizer_load(&d->tokenizer, d->arguments.model, error);
    json_t *name = json_string(model_name(&d->arguments));
    bool named = name != NULL;
    json_decref(name);
    if (!named)
        return error_set(error, E_USAGE, "the model's name is not UTF-8; see --served-model-name");
    if (status == E_NOT_FOUND) {
        log_info("no tokenizer in %s: token ids only", d->arguments.model);
        return OK;
    }
    TRY(status);
    d->has_tokenizer = true;
    if ((int64_t)d->tokenizer.id_count > d->config.vocab) {
        return error_set(error, E_INPUT,
                         "%s: tokenizer.json has %u ids, the model only %d vocabulary rows",
                         d->arguments.model, d->tokenizer.id_count, d->config.vocab);
    }
    return OK;
}

static int32_t vocab_real(const struct deployment *d)
{
    return d->has_tokenizer ? (int32_t)d->tokenizer.id_count : d->config.vocab;
}

// The id that begins a turn in the family's chat format; -1 when the tokenizer has none.
static int32_t turn_id(const struct deployment *d)
{
    uint32_t id;
    bool known = d->has_tokenizer && tokenizer_added_id(&d->tokenizer, "<|im_start|>", &id);
    return known ? (int32_t)id : -1;
}

static struct memory_wishes wishes_of(const struct arguments *a)
{
    return (struct memory_wishes){.checkpoints = a->no_prefix_cache ? -1 : 0,
                                  .utilization = a->utilization,
                                  .sequences = a->sequences,
                                  .sequence_tokens = a->sequence_tokens,
                                  .pages = a->pages,
                                  .bf16_state = a->state_dtype != NULL &&
                                                strcmp(a->state_dtype, "bfloat16") == 0,
                                  .step_tokens = a->step_tokens};
}

static enum status dry_run(const struct deployment *d, struct error *error)
{
    struct shard shard;
    struct memory_plan plan;
    char table[2048];
    const struct arguments *a = &d->arguments;
    struct memory_wishes wishes = wishes_of(a);
    double host_bytes = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    wishes.bytes_free = (uint64_t)(host_bytes / a->tp);
    if (a->gibibytes_free > 0)
        wishes.bytes_free = (uint64_t)ldexp(a->gibibytes_free, 30);
    wishes.mtp = d->config.mtp_layers > 0;
    int drafts;
    TRY(read_speculative(&drafts, a, error));
    if (wishes.mtp)
        wishes.drafts_max = drafts == SPECULATION_AUTO ? SPECULATION_CHOICES - 1 : drafts;
    if (a->gibibytes_free > 0) // of a GPU, whose workers record steps
        wishes.recorded = 1 + wishes.drafts_max;
    TRY(shard_make(&shard, &d->config, 0, a->tp, error));
    TRY(memory_plan_make(&plan, &d->config, &shard, &wishes, error));
    memory_plan_print(table, sizeof table, &plan);
    printf("%s: %s, %d layers, hidden %d, %d token ids, tensor parallel %d\n%s", a->model,
           d->config.model_type, d->config.layers, d->config.hidden, vocab_real(d), a->tp, table);
    if (fflush(stdout) != 0 || ferror(stdout))
        return error_set(error, E_SYSTEM, "stdout: %s", strerror(errno));
    return OK;
}

enum { LINK_RPC, LINK_HTTP, LINKS };

// What is open to clients. http NULL: --http off.
struct doors {
    struct link links[LINKS];
    int links_count;
    struct door_rpc *rpc;
    struct door_http *http;
};

static enum status run_shell(const struct deployment *d, struct doors *doors, struct error *error)
{
    const struct arguments *a = &d->arguments;
    char ready_line[LINE_BYTES];
    struct shell_options options = {
        .core = {.config = d->config,
                 .wishes = wishes_of(a),
                 .groups = a->dp,
                 .ranks = a->tp,
                 .vocab_real = vocab_real(d),
                 .turn_id = turn_id(d),
                 .queued_max = a->queued_max,
                 .checkpoint_interval = a->checkpoint_interval,
                 .prefill_gap_ns = (uint64_t)a->gap_ms * CLOCK_NS_PER_MS,
                 .draft_vocab = a->draft_vocab,
                 .synthetic_thousandths = (int)lround(1000 * a->synthetic),
                 .pool_tokens = POOL_TOKENS},
        .workers_endpoint = a->workers,
        .insecure = a->insecure,
        .curve_dir = a->curve_dir,
        .links = doors->links,
        .links_count = doors->links_count,
        .drain_timeout_s = a->drain_timeout_s,
        .ready_line = ready_line,
    };
    snprintf(ready_line, sizeof ready_line, "ready rpc=%s http=%s", door_rpc_endpoint(doors->rpc),
             doors->http != NULL ? door_http_url(doors->http) : "off");
    TRY(read_speculative(&options.core.speculative_tokens, a, error));
    snprintf(options.core.build, sizeof options.core.build, "%s", version_build());
    if (getrandom(options.core.entropy, sizeof options.core.entropy, 0) !=
        (ssize_t)sizeof options.core.entropy)
        return error_set(error, E_SYSTEM, "the system gives no randomness");
    return shell_run(&options, error);
}

static enum status open_rpc(const struct deployment *d, struct doors *doors, struct error *error)
{
    const struct arguments *a = &d->arguments;
    struct door_rpc_options options = {.endpoint = a->rpc,
                                       .insecure = a->insecure,
                                       .curve_dir = a->curve_dir,
                                       .link = &doors->links[LINK_RPC],
                                       .link_index = LINK_RPC,
                                       .tokenizer = d->has_tokenizer ? &d->tokenizer : NULL,
                                       .config = d->config,
                                       .vocab_real = vocab_real(d),
                                       .model_name = model_name(a),
                                       .sampling_default = d->sampling_default,
                                       .seed = a->seed,
                                       .has_seed = a->has_seed,
                                       .requests_max = a->queued_max + 2 * SEQUENCES_MAX};
    TRY(link_open(&doors->links[LINK_RPC], options.requests_max, error));
    doors->links_count = LINK_RPC + 1;
    return door_rpc_open(&doors->rpc, &options, error);
}

static enum status open_http(const struct deployment *d, struct doors *doors, struct error *error)
{
    const struct arguments *a = &d->arguments;
    const char *api_key = a->api_key != NULL ? a->api_key : getenv("DELTAMESH_API_KEY");
    struct door_http_options options = {.address = a->http,
                                        .api_key = api_key,
                                        .insecure = a->insecure,
                                        .link = &doors->links[LINK_HTTP],
                                        .link_index = LINK_HTTP,
                                        .tokenizer = d->has_tokenizer ? &d->tokenizer : NULL,
                                        .config = d->config,
                                        .vocab_real = vocab_real(d),
                                        .model_name = model_name(a),
                                        .sampling_default = d->sampling_default,
                                        .seed = a->seed,
                                        .has_seed = a->has_seed,
                                        .requests_max = a->queued_max + 2 * SEQUENCES_MAX};
    if (strcmp(a->http, "off") == 0)
        return OK;
    TRY(link_open(&doors->links[LINK_HTTP], options.requests_max, error));
    doors->links_count = LINK_HTTP + 1;
    return door_http_open(&doors->http, &options, error);
}

static void close_doors(struct doors *doors)
{
    for (int i = 0; i < doors->links_count; i++) { // also when the shell never ran
        link_tell(&doors->links[i], &(struct link_news){.type = NEWS_END});
        link_wake_door(&doors->links[i]);
    }
    if (doors->http != NULL)
        door_http_close(doors->http);
    if (doors->rpc != NULL)
        door_rpc_close(doors->rpc);
    for (int i = 0; i < doors->links_count; i++)
        link_close(&doors->links[i]);
}

static enum status serve(const struct deployment *d, struct error *error)
{
    struct doors doors = {.links_count = 0};
    struct shard shard;
    TRY(shard_make(&shard, &d->config, 0, d->arguments.tp, error)); // before anything is opened
    enum status status = open_rpc(d, &doors, error);
    if (status == OK)
        status = open_http(d, &doors, error);
    if (status == OK)
        status = run_shell(d, &doors, error);
    close_doors(&doors);
    return status;
}

static enum status run(struct deployment *d, struct error *error)
{
    enum status status = load(d, error);
    if (status == OK)
        status = d->arguments.dry_run ? dry_run(d, error) : serve(d, error);
    if (d->has_tokenizer)
        tokenizer_fini(&d->tokenizer);
    return status;
}

int main(int argc, char **argv)
{
    static struct deployment deployment = {
        .arguments = {.workers = "tcp://127.0.0.1:0",
                      .rpc = "tcp://127.0.0.1:5570",
                      .http = "127.0.0.1:8000",
                      .load_format = "auto",
                      .log_format = "text",
                      .tp = 1,
                      .dp = 1,
                      .gap_ms = 60,
                      .queued_max = COORD_QUEUED_MAX_DEFAULT,
                      .utilization = 0.9,
                      .drain_timeout_s = 30},
    };
    struct error error = {.status = OK};
    log_set_name("deltamesh-coordinator", -1);
    enum status status = parse(&deployment.arguments, argc, argv, &error);
    if (status == OK && strcmp(deployment.arguments.log_format, "json") == 0)
        log_set_format(LOG_JSON);
    if (status == OK && !deployment.arguments.help) {
        if (deployment.arguments.version)
            printf("deltamesh-coordinator %s\n", version_build());
        else
            status = run(&deployment, &error);
    }
    if (status != OK && error.text[0] != '\0')
        log_error("%s", error.text);
    return status_exit_code(status);
}
