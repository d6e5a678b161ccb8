// SPDX-License-Identifier: Apache-2.0
// generation_config.c -- fields with the limits of a request's.
#include "coordinator/generation_config.h"

#include <stdio.h>

#include "parallel/config_fields.h"
#include "parallel/config_file.h"
#include "parallel/wire/requests.h"

// A number above 0, up to max.
static double positive_or(struct config_fields *fields, const char *name, double fallback,
                          double max)
{
    double number = config_fields_number_or(fields, name, fallback, 0, max);
    char expected[64];
    snprintf(expected, sizeof expected, "a number above 0, up to %g, is expected", max);
    if (!(number > 0))
        config_fields_refuse(fields, E_INPUT, name, expected);
    return number;
}

static struct coord_sampling read_fields(struct config_fields *fields)
{
    double temperature =
        config_fields_number_or(fields, "temperature", 1, 0, REQUEST_TEMPERATURE_MAX);
    int64_t top_k = config_fields_int_or(fields, "top_k", 0, -1, INT32_MAX);
    bool samples = config_fields_bool_or(fields, "do_sample", true);
    return (struct coord_sampling){
        .temperature = samples ? (float)temperature : 0,
        .top_k = top_k < 0 ? 0 : (int32_t)top_k, // -1 says "off", as in requests
        .top_p = (float)positive_or(fields, "top_p", 1, 1),
        .min_p = (float)config_fields_number_or(fields, "min_p", 0, 0, 1),
        .repetition = (float)positive_or(fields, "repetition_penalty", 1, REQUEST_REPETITION_MAX),
    };
}

enum status generation_config_load(struct coord_sampling *out, const char *model_dir,
                                   struct error *error)
{
    char path[4096];
    json_t *document = NULL;
    struct error problem;
    if (snprintf(path, sizeof path, "%s/generation_config.json", model_dir) >= (int)sizeof path)
        return error_set(error, E_LIMIT, "the model's path is longer than %zu bytes", sizeof path);
    enum status status = config_file_read(&document, path, &problem);
    if (status != OK && status != E_NOT_FOUND)
        return error_set(error, status, "%s", problem.text);
    struct config_fields fields = {document, path, "", error, OK}; // of no object: all absent
    struct coord_sampling sampling = read_fields(&fields);
    json_decref(document);
    if (fields.status == OK)
        *out = sampling;
    return fields.status;
}
