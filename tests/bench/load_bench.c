// SPDX-License-Identifier: Apache-2.0
// load_bench.c -- how fast weights get from files to the device, beside how fast this machine
// copies memory. load_bench CONFIG_DIR [SHARDS [keep]]: writes the dummy weights of
// CONFIG_DIR/config.json as a checkpoint under TMPDIR (which should be a tmpfs), loads it, and
// removes it or prints where it is; or MODEL_DIR: loads what is there. Prints a JSON line.
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/runtime.h"
#include "parallel/base/clock.h"
#include "tests/fixtures/checkpoint.h"
#include "worker/weights.h"

enum { REPEATS = 3, COPY_BYTES = 256 << 20, COPIERS_MAX = 64, PATH_BYTES = 4096 };

static double seconds_since(uint64_t start_ns)
{
    return (double)(clock_now_ns() - start_ns) * 1e-9;
}

static void *copy(void *argument)
{
    uint8_t *memory = argument;
    memcpy(memory, memory + COPY_BYTES / 2, COPY_BYTES / 2);
    return NULL;
}

// Bytes per second that all processors copy together.
static double copied_per_second(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    count = count < COPIERS_MAX ? count : COPIERS_MAX;
    uint8_t *memory[COPIERS_MAX];
    pthread_t threads[COPIERS_MAX];
    double best = 0;
    for (int i = 0; i < count; i++) {
        memory[i] = malloc(COPY_BYTES);
        ASSERT(memory[i] != NULL);
        memset(memory[i], i, COPY_BYTES);
    }
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        uint64_t start_ns = clock_now_ns();
        for (int i = 0; i < count; i++)
            ASSERT(pthread_create(&threads[i], NULL, copy, memory[i]) == 0);
        for (int i = 0; i < count; i++)
            pthread_join(threads[i], NULL);
        double rate = (double)count * (COPY_BYTES / 2) / seconds_since(start_ns);
        best = rate > best ? rate : best;
    }
    for (int i = 0; i < count; i++)
        free(memory[i]);
    return best;
}

// Loads it whole, REPEATS times; prints the best and the worst.
static enum status measure(const char *dir, struct error *error)
{
    struct model_config config;
    struct shard shard;
    double best = 1e9, worst = 0, limit = copied_per_second();
    uint64_t bytes = 0;
    TRY(config_load(&config, dir, error));
    TRY(shard_make(&shard, &config, 0, 1, error));
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        struct model_weights weights;
        struct weights_request request = {.model_dir = dir, .config = &config, .shard = &shard};
        uint64_t start_ns = clock_now_ns();
        TRY(weights_open(&weights, &request, error));
        double seconds = seconds_since(start_ns);
        best = seconds < best ? seconds : best;
        worst = seconds > worst ? seconds : worst;
        bytes = weights.memory_bytes;
        weights_close(&weights);
    }
    printf("{\"bench\": \"load\", \"backend\": \"%s\", \"gb\": %.3f, \"seconds\": %.3f, "
           "\"seconds_worst\": %.3f, \"gb_per_s\": %.2f, \"limit\": \"memory copied by all "
           "processors\", \"limit_gb_per_s\": %.2f, \"share\": %.3f}\n",
           runtime_backend(), (double)bytes * 1e-9, best, worst, (double)bytes * 1e-9 / best,
           limit * 1e-9, (double)bytes / best / limit);
    return OK;
}

int main(int argc, char **argv)
{
    char path[PATH_BYTES], made[CHECKPOINT_FIXTURE_DIR_BYTES];
    struct error error = {0};
    bool keep = argc == 4 && strcmp(argv[3], "keep") == 0;
    if (argc < 2 || argc > 4 || (argc == 4 && !keep)) {
        fprintf(stderr, "usage: load_bench CONFIG_DIR [SHARDS [keep]] | MODEL_DIR\n");
        return 1;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", argv[1]);
    bool stored = access(path, F_OK) == 0;
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", argv[1]);
    stored |= access(path, F_OK) == 0;
    if (runtime_open(0, &error) != OK) {
        fprintf(stderr, "%s\n", error.text);
        return 2;
    }
    snprintf(path, sizeof path, "%s/config.json", argv[1]);
    struct checkpoint_fixture fixture = {.config_path = path,
                                         .shards = argc >= 3 ? atoi(argv[2]) : 0};
    if (!stored)
        checkpoint_fixture_write(made, &fixture);
    enum status status = measure(stored ? argv[1] : made, &error);
    if (!stored && keep)
        printf("{\"checkpoint\": \"%s\"}\n", made);
    else if (!stored)
        checkpoint_fixture_remove(made);
    if (status != OK)
        fprintf(stderr, "%s\n", error.text);
    return status == OK ? 0 : 2;
}
