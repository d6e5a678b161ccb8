// SPDX-License-Identifier: Apache-2.0
// tokenizer_bench.c -- seconds to load a tokenizer and MB/s to encode and decode, on one core, each
// as a part of the project's goal. For the vocabulary of the family's size:
//   python3 tests/bench/make_vocabulary.py /tmp/vocabulary
//   bin/tokenizer_bench /tmp/vocabulary /tmp/vocabulary/text.txt
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/text/detokenizer.h"
#include "coordinator/text/tokenizer.h"

// The goals: a load of half a second from a warm cache, 5 MB/s on one core.
static const double load_goal_s = 0.5, encode_goal_mb_per_s = 5;
enum { ROUNDS = 5, HARD_BYTES = 10000000 };

// Time of this thread on the processor: what other programs take does not count.
static double cpu_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static char *read_file(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        DIE("%s: cannot be read", path);
    const long end = ftell(file);
    rewind(file);
    char *content = malloc((size_t)end + 1);
    if (content == NULL || fread(content, 1, (size_t)end, file) != (size_t)end)
        DIE("%s: cannot be read", path);
    fclose(file);
    *bytes = (size_t)end;
    return content;
}

static void bench_load(const char *directory)
{
    double best = 1e9;
    struct tokenizer tokenizer;
    struct error error;
    for (int round = 0; round < ROUNDS; round++) {
        const double start = cpu_s();
        if (tokenizer_load(&tokenizer, directory, &error) != OK)
            DIE("%s", error.text);
        const double taken = cpu_s() - start;
        best = taken < best ? taken : best;
        tokenizer_fini(&tokenizer);
    }
    printf("load    %8.3f s       %4.0f %% of the time allowed, %.3f s\n", best,
           100 * best / load_goal_s, load_goal_s);
}

// The best of some rounds; the cache of pieces is empty at the first.
static void bench_encode(const struct tokenizer *tokenizer, const char *name, const char *text,
                         size_t bytes, int rounds)
{
    struct error error;
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(tokenizer);
    struct token_ids out = {.count_max = tokenizer_ids_max(bytes)};
    out.ids = malloc(out.count_max * sizeof *out.ids + 1);
    if (scratch == NULL || out.ids == NULL)
        DIE("out of memory");
    double best = 1e9;
    for (int round = 0; round < rounds; round++) {
        out.count = 0;
        const double start = cpu_s();
        if (tokenizer_encode(tokenizer, scratch, &out, text, bytes, &error) != OK)
            DIE("%s", error.text);
        const double taken = cpu_s() - start;
        best = taken < best ? taken : best;
    }
    printf("%-20s %8.2f MB/s  %4.0f %% of the goal, %.0f MB/s; %.2f bytes a token\n", name,
           (double)bytes / best / 1e6, 100 * (double)bytes / best / 1e6 / encode_goal_mb_per_s,
           encode_goal_mb_per_s, (double)bytes / (double)out.count);
    free(out.ids);
    tokenizer_scratch_free(scratch);
}

static void bench_decode(const struct tokenizer *tokenizer, const char *text, size_t bytes)
{
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(tokenizer);
    struct token_ids ids = {.count_max = tokenizer_ids_max(bytes)};
    struct text_buffer out;
    struct error error;
    ids.ids = malloc(ids.count_max * sizeof *ids.ids + 1);
    if (scratch == NULL || ids.ids == NULL)
        DIE("out of memory");
    if (tokenizer_encode(tokenizer, scratch, &ids, text, bytes, &error) != OK)
        DIE("%s", error.text);
    text_buffer_init(&out, ids.count_max);
    struct detokenizer detokenizer;
    detokenizer_init(&detokenizer, tokenizer, true);
    const double start = cpu_s();
    for (size_t i = 0; i < ids.count; i++) {
        if (detokenizer_feed(&detokenizer, ids.ids[i], &out, &error) != OK)
            DIE("%s", error.text);
    }
    const double taken = cpu_s() - start;
    printf("decode  %21.1f ns a token, %.1f MB/s\n", taken * 1e9 / (double)ids.count,
           (double)out.count / taken / 1e6);
    text_buffer_fini(&out);
    free(ids.ids);
    tokenizer_scratch_free(scratch);
}

// Texts that punish a quadratic step: one class of characters without end.
static void bench_hard(const struct tokenizer *tokenizer)
{
    static const struct {
        const char *name, *unit;
    } hard[] = {{"one letter", "a"},
                {"spaces", " "},
                {"combining marks", "\u0301\u0316"},
                {"almost added tokens", "<|im_start|"}};
    char *text = malloc(HARD_BYTES + 16);
    if (text == NULL)
        DIE("out of memory");
    for (size_t i = 0; i < sizeof hard / sizeof hard[0]; i++) {
        const size_t unit = strlen(hard[i].unit);
        size_t bytes = 0;
        for (; bytes < HARD_BYTES; bytes += unit)
            memcpy(text + bytes, hard[i].unit, unit);
        bench_encode(tokenizer, hard[i].name, text, bytes, 1);
    }
    free(text);
}

int main(int argument_count, char **arguments)
{
    if (argument_count != 3) {
        fprintf(stderr, "usage: tokenizer_bench MODEL_DIRECTORY TEXT_FILE\n");
        return 1;
    }
    struct tokenizer tokenizer;
    struct error error;
    size_t bytes;
    char *text = read_file(arguments[2], &bytes);
    bench_load(arguments[1]);
    if (tokenizer_load(&tokenizer, arguments[1], &error) != OK)
        DIE("%s", error.text);
    printf("        %u token ids, longest token %u bytes; text of %zu bytes\n", tokenizer.id_count,
           tokenizer.token_bytes_max, bytes);
    bench_encode(&tokenizer, "encode, cold cache", text, bytes, 1);
    bench_encode(&tokenizer, "encode", text, bytes, ROUNDS);
    bench_decode(&tokenizer, text, bytes);
    bench_hard(&tokenizer);
    tokenizer_fini(&tokenizer);
    free(text);
    return 0;
}
