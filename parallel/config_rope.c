// SPDX-License-Identifier: Apache-2.0
// config_rope.c -- rotary embedding: which fields of config.json mean what, and the frequencies.
// Defaults and precedence are those of Hugging Face transformers (modeling_rope_utils), except
// that a missing rope_theta is an error: its default of 10000 fits no model of this family.
#include "parallel/config_rope.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const keys_of_all_types[] = {
    "rope_type",         "type", "rope_theta", "partial_rotary_factor", "mrope_section",
    "mrope_interleaved",
};
static const char *const keys_of_yarn[] = {
    "factor",           "original_max_position_embeddings",
    "attention_factor", "beta_fast",
    "beta_slow",        "mscale",
    "mscale_all_dim",   "truncate",
};

static bool is_one_of(const char *key, const char *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(key, keys[i]) == 0)
            return true;
    }
    return false;
}

// A key that nobody reads could change the positions: refused, not ignored.
static void refuse_unknown_keys(struct config_fields *rope, bool yarn)
{
    const char *key;
    json_t *value;
    json_t *object = json_copy((json_t *)(uintptr_t)rope->object); // shallow: iterating needs it
    json_object_foreach(object, key, value)
    {
        bool known =
            is_one_of(key, keys_of_all_types,
                      sizeof keys_of_all_types / sizeof keys_of_all_types[0]) ||
            (yarn && is_one_of(key, keys_of_yarn, sizeof keys_of_yarn / sizeof keys_of_yarn[0]));
        if (!known && !json_is_null(value))
            config_fields_refuse(rope, E_UNSUPPORTED, key, "this field is not known here");
    }
    json_decref(object);
}

// Text positions are one-dimensional, so the sections' sizes do not matter; their form is checked
// because a wrong one means another model.
static void check_mrope(struct config_fields *rope)
{
    const json_t *section = config_fields_get(rope, "mrope_section");
    bool fits = section == NULL || (json_is_array(section) && json_array_size(section) == 3);
    for (size_t i = 0; fits && section != NULL && i < 3; i++)
        fits = json_is_integer(json_array_get(section, i));
    if (!fits)
        config_fields_refuse(rope, E_INPUT, "mrope_section", "three integers are expected");
    (void)config_fields_bool_or(rope, "mrope_interleaved", true);
}

// The length-dependent scale of YaRN's attention logits (Peng et al., 2023, eq. 22 and its
// generalisation by mscale).
static double yarn_scale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static void parse_yarn(struct rope_config *out, struct config_fields *text,
                       struct config_fields *rope, int max_position_embeddings)
{
    // Precedence of transformers: a field beside the rope object wins over the one inside.
    int64_t original = config_fields_int_or(rope, "original_max_position_embeddings",
                                            max_position_embeddings, 1, 1 << 24);
    original = config_fields_int_or(text, "original_max_position_embeddings", original, 1, 1 << 24);
    out->original_max_position_embeddings = (int)original;
    if (json_object_get(rope->object, "factor") == NULL)
        config_fields_fail(rope, E_INPUT, "%s: %sfactor is missing", rope->file, rope->where);
    double ratio = (double)max_position_embeddings / (double)original;
    out->factor = config_fields_number_or(rope, "factor", ratio, 1e-3, 4096);
    double mscale = config_fields_number_or(rope, "mscale", 0, 0, 100);
    double mscale_all_dim = config_fields_number_or(rope, "mscale_all_dim", 0, 0, 100);
    double inferred = mscale > 0 && mscale_all_dim > 0 ? yarn_scale(out->factor, mscale) /
                                                             yarn_scale(out->factor, mscale_all_dim)
                                                       : yarn_scale(out->factor, 1);
    out->attention_factor = config_fields_number_or(rope, "attention_factor", inferred, 1e-3, 1e3);
    out->beta_fast = config_fields_number_or(rope, "beta_fast", 32, 0, 1e6);
    out->beta_slow = config_fields_number_or(rope, "beta_slow", 1, 0, 1e6);
    if (out->beta_fast <= 0) // 0 means unset there
        out->beta_fast = 32;
    if (out->beta_slow <= 0)
        out->beta_slow = 1;
    out->truncate = config_fields_bool_or(rope, "truncate", true);
}

void config_rope_parse(struct rope_config *out, struct config_fields *fields, int head_dim,
                       int max_position_embeddings)
{
    const json_t *object = config_fields_get(fields, "rope_scaling");
    bool older = json_is_object(object) && json_object_size(object) > 0;
    const char *name = older ? "rope_scaling" : "rope_parameters";
    object = config_fields_get(fields, name);
    if (object != NULL && !json_is_object(object))
        config_fields_refuse(fields, E_INPUT, name, "an object is expected");
    char where[64];
    snprintf(where, sizeof where, "%s%s.", fields->where, name);
    struct config_fields rope = {object, fields->file, where, fields->error, fields->status};

    const char *type = config_fields_text(&rope, "rope_type");
    const char *type_name = type != NULL ? "rope_type" : "type";
    if (type == NULL)
        type = config_fields_text(&rope, "type");
    bool yarn = type != NULL && strcmp(type, "yarn") == 0;
    if (type != NULL && !yarn && strcmp(type, "default") != 0 && strcmp(type, "mrope") != 0)
        config_fields_refuse(&rope, E_UNSUPPORTED, type_name,
                             "\"default\" and \"yarn\" are served");
    refuse_unknown_keys(&rope, yarn);
    check_mrope(&rope);

    *out = (struct rope_config){.type = yarn ? ROPE_YARN : ROPE_DEFAULT, .attention_factor = 1};
    double theta = config_fields_number_or(fields, "rope_theta", 0, 2, 1e12);
    out->theta = config_fields_number_or(&rope, "rope_theta", theta, 2, 1e12);
    if (out->theta <= 0)
        config_fields_fail(&rope, E_INPUT, "%s: %srope_theta is missing", rope.file, where);
    double share = config_fields_number_or(fields, "partial_rotary_factor", 0.25, 0, 1);
    share = config_fields_number_or(&rope, "partial_rotary_factor", share, 0, 1);
    out->rotary_dim = (int)(head_dim * share);
    if (out->rotary_dim < 2 || out->rotary_dim % 2 != 0 || out->rotary_dim > 2 * ROTARY_PAIRS_MAX)
        config_fields_fail(&rope, E_INPUT,
                           "%s: %spartial_rotary_factor %g rotates %d of %d dimensions "
                           "of a head; an even number in [2, %d] is expected",
                           rope.file, where, share, out->rotary_dim, head_dim,
                           2 * ROTARY_PAIRS_MAX);
    if (yarn)
        parse_yarn(out, fields, &rope, max_position_embeddings);
    if (fields->status == OK)
        fields->status = rope.status;
}

// The pair index at which a wave makes `rotations` turns over the original context.
static double yarn_pair(const struct rope_config *rope, double rotations)
{
    double turns =
        (double)rope->original_max_position_embeddings / (rotations * 2 * 3.14159265358979323846);
    return rope->rotary_dim * log(turns) / (2 * log(rope->theta));
}

void config_rope_frequencies(float *inverse_frequencies, const struct rope_config *rope)
{
    int pairs = rope->rotary_dim / 2;
    float low = 0, width = 1;
    if (rope->type == ROPE_YARN) {
        double first = yarn_pair(rope, rope->beta_fast);
        double last = yarn_pair(rope, rope->beta_slow);
        if (rope->truncate) {
            first = floor(first);
            last = ceil(last);
        }
        first = fmax(first, 0);
        last = fmin(last, rope->rotary_dim - 1);
        if (first >= last && first <= last) // equal: a step instead of a ramp
            last += 0.001;
        low = (float)first;
        width = (float)(last - first);
    }
    // Single precision in the order of the reference, so that long positions turn alike.
    for (int i = 0; i < pairs; i++) {
        float wave = powf((float)rope->theta, (float)(2 * i) / (float)rope->rotary_dim);
        float plain = 1.0f / wave;
        inverse_frequencies[i] = plain;
        if (rope->type == ROPE_YARN) {
            float stretched = 1.0f / ((float)rope->factor * wave);
            float ramp = fminf(fmaxf(((float)i - low) / width, 0.0f), 1.0f);
            float keep = 1.0f - ramp;
            inverse_frequencies[i] = stretched * (1.0f - keep) + plain * keep;
        }
    }
}
