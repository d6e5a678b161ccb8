// SPDX-License-Identifier: Apache-2.0
// bench_load.c -- every number is a hash of (seed, what it is for, which), so that a request is
// the same in every run, whatever ran before it.
#include "deploy/cli/bench_load.h"

#include <math.h>
#include <stdlib.h>

#include <jansson.h>

#include "deploy/cli/lines.h"
#include "parallel/base/mix.h"

enum purpose { PURPOSE_PROMPT = 1, PURPOSE_FIRST, PURPOSE_SEED, PURPOSE_GAP };

static uint64_t draw(const struct bench_load *load, enum purpose purpose, uint64_t which)
{
    uint64_t of_purpose = mix_at(load->seed ^ (uint64_t)purpose << 56, 1);
    return mix_at(of_purpose + which, 1);
}

void bench_load_init(struct bench_load *load, struct bench_lengths fixed, int32_t vocab,
                     uint64_t seed)
{
    ASSERT(vocab >= 1);
    *load = (struct bench_load){.fixed = fixed, .vocab = vocab, .seed = seed};
}

void bench_load_fini(struct bench_load *load)
{
    free(load->trace);
    load->trace = NULL;
    load->trace_count = load->trace_room = 0;
}

static enum status read_length(int32_t *out, const json_t *object, const char *key,
                               struct error *error)
{
    const json_t *value = json_object_get(object, key);
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 1 || number > BENCH_LENGTH_MAX)
        return error_set(error, E_INPUT, "'%s' is missing or not within 1 .. %d", key,
                         BENCH_LENGTH_MAX);
    *out = (int32_t)number;
    return OK;
}

static enum status read_line(struct bench_lengths *out, const char *line, size_t bytes,
                             struct error *error)
{
    json_error_t problem;
    json_t *object = json_loadb(line, bytes, 0, &problem);
    if (object == NULL)
        return error_set(error, E_INPUT, "%s (column %d)", problem.text, problem.column);
    enum status status = read_length(&out->input, object, "input_len", error);
    if (status == OK)
        status = read_length(&out->output, object, "output_len", error);
    json_decref(object);
    return status;
}

static enum status append(struct bench_load *load, struct bench_lengths lengths,
                          struct error *error)
{
    if (load->trace_count == load->trace_room) {
        int64_t room = 2 * load->trace_room + 1024;
        void *grown = realloc(load->trace, (size_t)room * sizeof *load->trace);
        if (grown == NULL)
            return error_set(error, E_SYSTEM, "no memory for a trace of %lld lines",
                             (long long)room);
        load->trace = grown;
        load->trace_room = room;
    }
    load->trace[load->trace_count++] = lengths;
    return OK;
}

static enum status read_lines(struct bench_load *load, struct lines *lines, struct error *error)
{
    for (;;) {
        const char *line;
        size_t bytes;
        struct bench_lengths lengths = {0};
        struct error inner;
        TRY(lines_next(lines, true, &line, &bytes, error));
        if (line == NULL)
            return OK;
        if (bytes == 0)
            continue;
        if (read_line(&lengths, line, bytes, &inner) != OK)
            return error_set(error, E_INPUT, "%s: line %lld: %.300s", lines->name,
                             (long long)lines->number, inner.text);
        TRY(append(load, lengths, error));
    }
}

enum status bench_load_read_trace(struct bench_load *load, const char *path, struct error *error)
{
    struct lines lines;
    TRY(lines_open(&lines, path, error));
    enum status status = read_lines(load, &lines, error);
    lines_close(&lines);
    if (status == OK && load->trace_count == 0)
        status = error_set(error, E_INPUT, "%s: no line in it", path);
    return status;
}

struct bench_lengths bench_load_lengths(const struct bench_load *load, int64_t index)
{
    return load->trace_count > 0 ? load->trace[index % load->trace_count] : load->fixed;
}

int32_t bench_load_longest_input(const struct bench_load *load, int64_t count)
{
    int32_t longest = load->trace_count > 0 ? 0 : load->fixed.input;
    for (int64_t i = 0; i < count && i < load->trace_count; i++)
        longest = load->trace[i].input > longest ? load->trace[i].input : longest;
    return longest;
}

void bench_load_prompt(int32_t *ids, const struct bench_load *load, int64_t index)
{
    int32_t count = bench_load_lengths(load, index).input;
    uint64_t vocab = (uint64_t)load->vocab, number = (uint64_t)index;
    uint64_t state = draw(load, PURPOSE_PROMPT, number);
    ids[0] = (int32_t)((draw(load, PURPOSE_FIRST, 0) % vocab + number % vocab) % vocab);
    if (count > 1)
        ids[1] = (int32_t)((draw(load, PURPOSE_FIRST, 1) % vocab + number / vocab % vocab) % vocab);
    for (int32_t i = 2; i < count; i++)
        ids[i] = (int32_t)(mix_at(state + (uint64_t)i, 1) % vocab);
}

uint64_t bench_load_seed(const struct bench_load *load, int64_t index)
{
    return draw(load, PURPOSE_SEED, (uint64_t)index);
}

uint64_t bench_load_gap_ns(const struct bench_load *load, int64_t index, double requests_per_s)
{
    // 53 bits, and never 0: (0, 1].
    double u = (double)((draw(load, PURPOSE_GAP, (uint64_t)index) >> 11) + 1) * 0x1p-53;
    return (uint64_t)(-log(u) / requests_per_s * 1e9);
}
