// SPDX-License-Identifier: Apache-2.0
// main.c -- deltamesh-worker-{cpu,cuda}: command line, start, exit code.
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "kernels/runtime.h"
#include "parallel/base/log.h"
#include "parallel/base/options.h"
#include "parallel/base/version.h"
#include "worker/affinity.h"
#include "worker/loop.h"

struct arguments {
    const char *coordinator, *model, *load_format, *curve_dir, *log_format;
    int32_t local_rank, device;
    bool insecure, version, help;
};

static enum status parse(struct arguments *a, int argc, char **argv, struct error *error)
{
    struct option options[] = {
        {"--coordinator", NULL, OPTION_TEXT, &a->coordinator, 0, 0, "ENDPOINT",
         "where the coordinator listens for workers", NULL},
        {"--model", NULL, OPTION_TEXT, &a->model, 0, 0, "DIR", "the model directory", NULL},
        {"--load-format", NULL, OPTION_CHOICE, &a->load_format, 0, 0, "auto|dummy",
         "weights from files, or made by a rule", NULL},
        {"--local-rank", NULL, OPTION_INT, &a->local_rank, -1, 7, "N",
         "the rank this worker would like; -1 = any", NULL},
        {"--device", NULL, OPTION_INT, &a->device, 0, 1023, "N", "GPU index (CUDA)", NULL},
        {"--curve-dir", NULL, OPTION_TEXT, &a->curve_dir, 0, 0, "DIR",
         "CURVE keys of a worker; see deltamesh keys", NULL},
        {"--insecure", NULL, OPTION_FLAG, &a->insecure, 0, 0, NULL,
         "allow a coordinator that is not on the loopback", NULL},
        {"--log-format", NULL, OPTION_CHOICE, &a->log_format, 0, 0, "text|json",
         "how lines on stderr look", NULL},
        {"--version", NULL, OPTION_FLAG, &a->version, 0, 0, NULL, "print the version", NULL},
        {"--help", "-h", OPTION_FLAG, &a->help, 0, 0, NULL, "print this help", NULL},
    };
    int count = (int)(sizeof options / sizeof options[0]);
    TRY(options_parse(options, count, argc - 1, argv + 1, error));
    if (a->help) {
        printf("usage: deltamesh-worker-%s --coordinator ENDPOINT --model DIR [options]\n\n"
               "One rank of a group: holds its part of the weights, runs step plans.\n\n",
               runtime_backend());
        options_print(stdout, options, count);
        return OK;
    }
    if (a->version || (a->coordinator != NULL && a->model != NULL))
        return OK;
    return error_set(error, E_USAGE, "--coordinator and --model are needed; see --help");
}

static enum status serve(const struct arguments *a, struct error *error)
{
    struct loop_options options = {
        .coordinator = a->coordinator,
        .model_dir = a->model,
        .load_format = strcmp(a->load_format, "dummy") == 0 ? LOAD_DUMMY : LOAD_AUTO,
        .local_rank = a->local_rank,
        .insecure = a->insecure,
        .curve_dir = a->curve_dir,
    };
    TRY(runtime_open(a->device, error));
    int processors = affinity_near(runtime_pci_id(), "/sys", AFFINITY_PROCESSORS_MIN);
    if (processors > 0)
        log_info("runs on the %d processors near the GPU", processors);
    enum status status = loop_run(&options, error);
    runtime_close();
    return status;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {.load_format = "auto", .log_format = "text", .local_rank = -1};
    struct error error = {.status = OK};
    log_set_name("deltamesh-worker", -1);
    enum status status = parse(&arguments, argc, argv, &error);
    if (status == OK && strcmp(arguments.log_format, "json") == 0)
        log_set_format(LOG_JSON);
    if (status == OK && !arguments.help) {
        if (arguments.version)
            printf("deltamesh-worker-%s %s\n", runtime_backend(), version_build());
        else
            status = serve(&arguments, &error);
    }
    if (status != OK)
        log_error("%s", error.text);
    return status_exit_code(status);
}
