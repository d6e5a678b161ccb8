// SPDX-License-Identifier: Apache-2.0
// safetensors_parse.c -- checks what headers and indexes claim before anything believes it: types,
// sizes against shapes, ranges against the file, overlaps and holes. Reads no file.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/safetensors.h"

// Every dtype of the format whose elements fill whole bytes.
static const struct {
    const char *name;
    int bits;
} dtypes[] = {
    {"BF16", 16},   {"F32", 32}, {"F16", 16}, {"F64", 64}, {"F8_E4M3", 8}, {"F8_E5M2", 8},
    {"F8_E8M0", 8}, {"I8", 8},   {"U8", 8},   {"I16", 16}, {"U16", 16},    {"I32", 32},
    {"U32", 32},    {"I64", 64}, {"U64", 64}, {"BOOL", 8},
};

static enum status parse_json(json_t **out, const char *path, const char *json, size_t json_bytes,
                              struct error *error)
{
    json_error_t problem;
    *out = json_loadb(json, json_bytes, JSON_REJECT_DUPLICATES, &problem);
    if (*out == NULL)
        return error_set(error, E_MALFORMED, "%s: JSON, byte %d: %s", path, problem.position,
                         problem.text);
    if (!json_is_object(*out)) {
        json_decref(*out);
        return error_set(error, E_MALFORMED, "%s: a JSON object is expected", path);
    }
    return OK;
}

// Where a problem is, for messages.
struct spot {
    const char *path, *name;
    struct error *error;
};

static enum status parse_dtype(struct stored_tensor *out, const json_t *value,
                               const struct spot *spot)
{
    const char *dtype = json_string_value(value);
    if (dtype == NULL)
        return error_set(spot->error, E_MALFORMED, "%s: tensor %.200s has no dtype", spot->path,
                         spot->name);
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(dtypes[i].name, dtype) == 0) {
            out->dtype = dtypes[i].name;
            out->element_bits = dtypes[i].bits;
            return OK;
        }
    }
    return error_set(spot->error, E_UNSUPPORTED, "%s: tensor %.200s has the unknown dtype %.20s",
                     spot->path, spot->name, dtype);
}

// Also computes the bytes that dtype and shape come to.
static enum status parse_shape(struct stored_tensor *out, const json_t *shape,
                               const struct spot *spot)
{
    size_t count = json_array_size(shape);
    if (!json_is_array(shape) || count > SAFETENSORS_DIMS_MAX)
        return error_set(spot->error, E_MALFORMED,
                         "%s: tensor %.200s has no shape of 0 to %d dimensions", spot->path,
                         spot->name, SAFETENSORS_DIMS_MAX);
    out->dims_count = (int)count;
    uint64_t bytes = (uint64_t)out->element_bits / 8;
    bool fits = true;
    for (size_t i = 0; i < count; i++) {
        const json_t *dim = json_array_get(shape, i);
        fits = fits && json_is_integer(dim) && json_integer_value(dim) >= 0;
        out->dims[i] = fits ? json_integer_value(dim) : 0;
        fits = fits && !__builtin_mul_overflow(bytes, (uint64_t)out->dims[i], &bytes);
    }
    if (!fits || bytes > INT64_MAX)
        return error_set(spot->error, E_MALFORMED,
                         "%s: tensor %.200s has a shape that is no array of sizes, or too large",
                         spot->path, spot->name);
    out->bytes = bytes;
    return OK;
}

// data_bytes is what the file holds behind its header.
static enum status parse_offsets(struct stored_tensor *out, const json_t *offsets,
                                 uint64_t data_bytes, const struct spot *spot)
{
    const json_t *first = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !json_is_integer(first) ||
        !json_is_integer(end) || json_integer_value(first) < 0 ||
        json_integer_value(end) < json_integer_value(first))
        return error_set(spot->error, E_MALFORMED,
                         "%s: tensor %.200s has no data_offsets [begin, end]", spot->path,
                         spot->name);
    uint64_t begin = (uint64_t)json_integer_value(first);
    uint64_t bytes = (uint64_t)json_integer_value(end) - begin;
    if (begin + bytes > data_bytes)
        return error_set(spot->error, E_MALFORMED,
                         "%s: tensor %.200s ends at byte %llu of the data; the file has %llu",
                         spot->path, spot->name, (unsigned long long)(begin + bytes),
                         (unsigned long long)data_bytes);
    if (bytes != out->bytes)
        return error_set(spot->error, E_MALFORMED,
                         "%s: tensor %.200s has %llu bytes of data; its dtype and shape come to "
                         "%llu",
                         spot->path, spot->name, (unsigned long long)bytes,
                         (unsigned long long)out->bytes);
    out->offset_bytes = begin;
    return OK;
}

static enum status parse_tensor(struct stored_tensor *out, const json_t *entry, uint64_t data_bytes,
                                const struct spot *spot)
{
    if (!json_is_object(entry))
        return error_set(spot->error, E_MALFORMED, "%s: tensor %.200s is no object", spot->path,
                         spot->name);
    TRY(parse_dtype(out, json_object_get(entry, "dtype"), spot));
    TRY(parse_shape(out, json_object_get(entry, "shape"), spot));
    return parse_offsets(out, json_object_get(entry, "data_offsets"), data_bytes, spot);
}

static int by_offset(const void *a, const void *b)
{
    const struct stored_tensor *left = *(const struct stored_tensor *const *)a;
    const struct stored_tensor *right = *(const struct stored_tensor *const *)b;
    if (left->offset_bytes != right->offset_bytes)
        return left->offset_bytes < right->offset_bytes ? -1 : 1;
    return left->bytes < right->bytes ? -1 : left->bytes > right->bytes; // empty ones first
}

// The data must be covered end to end, each byte once. Offsets are still relative to the data.
static enum status check_cover(struct stored_tensor *tensors, int count, const char *path,
                               uint64_t data_bytes, struct error *error)
{
    struct stored_tensor **order = calloc((size_t)count + 1, sizeof *order);
    if (order == NULL)
        return error_set(error, E_SYSTEM, "%s: no memory to check its tensors", path);
    for (int i = 0; i < count; i++)
        order[i] = &tensors[i];
    qsort(order, (size_t)count, sizeof *order, by_offset);
    enum status status = OK;
    uint64_t end = 0;
    for (int i = 0; i < count && status == OK; i++) {
        if (order[i]->offset_bytes != end)
            status = error_set(error, E_MALFORMED,
                               "%s: tensor %.200s begins at byte %llu of the data; the tensors "
                               "before it end at %llu",
                               path, order[i]->name, (unsigned long long)order[i]->offset_bytes,
                               (unsigned long long)end);
        end = order[i]->offset_bytes + order[i]->bytes;
    }
    if (status == OK && end != data_bytes)
        status = error_set(error, E_MALFORMED,
                           "%s: its tensors end at byte %llu of the data; the file has %llu", path,
                           (unsigned long long)end, (unsigned long long)data_bytes);
    free(order);
    return status;
}

// Appends the entries of a header; *first is where they begin in set->tensors.
static enum status append_tensors(struct safetensors *set, int file, const char *path,
                                  json_t *header, uint64_t data_bytes, struct error *error)
{
    size_t room = (size_t)set->tensors_count + json_object_size(header);
    struct stored_tensor *larger = realloc(set->tensors, (room + 1) * sizeof *larger);
    if (larger == NULL)
        return error_set(error, E_SYSTEM, "%s: no memory for %zu tensors", path, room);
    set->tensors = larger;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue; // free text of whoever wrote the file
        struct stored_tensor tensor = {.file = file};
        struct spot spot = {path, name, error};
        TRY(parse_tensor(&tensor, entry, data_bytes, &spot));
        tensor.name = strdup(name);
        if (tensor.name == NULL)
            return error_set(error, E_SYSTEM, "%s: no memory for its names", path);
        set->tensors[set->tensors_count++] = tensor;
    }
    return OK;
}

enum status safetensors_parse_header(struct safetensors *set, int file, const char *json,
                                     size_t json_bytes, struct error *error)
{
    const char *path = set->files[file].path;
    uint64_t file_bytes = set->files[file].bytes;
    ASSERT(file_bytes >= 8 && json_bytes <= file_bytes - 8);
    json_t *header;
    TRY(parse_json(&header, path, json, json_bytes, error));
    uint64_t data_at = 8 + (uint64_t)json_bytes, data_bytes = file_bytes - data_at;
    int first = set->tensors_count;
    enum status status = append_tensors(set, file, path, header, data_bytes, error);
    json_decref(header);
    TRY(status);
    struct stored_tensor *tensors = set->tensors + first;
    int count = set->tensors_count - first;
    TRY(check_cover(tensors, count, path, data_bytes, error));
    for (int i = 0; i < count; i++)
        tensors[i].offset_bytes += data_at;
    return OK;
}

// The number of the file of that name, added when new; -1 with error set on failure.
static int file_number(struct safetensors *set, const char *dir, const char *name,
                       struct error *error)
{
    size_t dir_bytes = strlen(dir);
    for (int i = set->files_count - 1; i >= 0; i--) {
        if (strcmp(set->files[i].path + dir_bytes + 1, name) == 0)
            return i;
    }
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL) {
        (void)error_set(error, E_MALFORMED,
                        "%s: the index names \"%.200s\"; files of this directory are expected", dir,
                        name);
        return -1;
    }
    size_t path_bytes = dir_bytes + strlen(name) + 2;
    char *path = malloc(path_bytes);
    if (set->files_count == SAFETENSORS_FILES_MAX || path == NULL) {
        (void)error_set(error, E_LIMIT, "%s: the index names more than %d files", dir,
                        SAFETENSORS_FILES_MAX);
        free(path);
        return -1;
    }
    snprintf(path, path_bytes, "%s/%s", dir, name);
    set->files[set->files_count] = (struct stored_file){.path = path, .fd = -1};
    return set->files_count++;
}

static int claim_by_name(const void *a, const void *b)
{
    return strcmp(((const struct stored_claim *)a)->name, ((const struct stored_claim *)b)->name);
}

static enum status append_claims(struct safetensors *set, const char *dir, json_t *weight_map,
                                 struct error *error)
{
    set->claims = calloc(json_object_size(weight_map) + 1, sizeof *set->claims);
    set->files = calloc(SAFETENSORS_FILES_MAX, sizeof *set->files);
    if (set->claims == NULL || set->files == NULL)
        return error_set(error, E_SYSTEM, "%s: no memory for its index", dir);
    const char *name;
    json_t *value;
    json_object_foreach(weight_map, name, value)
    {
        if (!json_is_string(value))
            return error_set(error, E_MALFORMED, "%s: the index gives no file for tensor %.200s",
                             dir, name);
        int file = file_number(set, dir, json_string_value(value), error);
        if (file < 0)
            return error != NULL ? error->status : E_MALFORMED;
        char *copy = strdup(name);
        if (copy == NULL)
            return error_set(error, E_SYSTEM, "%s: no memory for its index", dir);
        set->claims[set->claims_count++] = (struct stored_claim){copy, file};
    }
    qsort(set->claims, (size_t)set->claims_count, sizeof *set->claims, claim_by_name);
    return OK;
}

enum status safetensors_parse_index(struct safetensors *set, const char *dir, const char *json,
                                    size_t json_bytes, struct error *error)
{
    json_t *index;
    TRY(parse_json(&index, dir, json, json_bytes, error));
    json_t *weight_map = json_object_get(index, "weight_map");
    enum status status;
    if (!json_is_object(weight_map) || json_object_size(weight_map) == 0)
        status = error_set(error, E_MALFORMED, "%s: the index has no weight_map", dir);
    else
        status = append_claims(set, dir, weight_map, error);
    json_decref(index);
    return status;
}

enum status safetensors_check_index(const struct safetensors *set, struct error *error)
{
    if (set->claims == NULL)
        return OK;
    // Claims have unique names. So if every stored tensor is claimed for its own file and the
    // counts agree, the two are the same.
    for (int i = 0; i < set->tensors_count; i++) {
        const struct stored_tensor *tensor = &set->tensors[i];
        struct stored_claim key = {tensor->name, 0};
        const struct stored_claim *claim =
            bsearch(&key, set->claims, (size_t)set->claims_count, sizeof key, claim_by_name);
        if (claim == NULL || claim->file != tensor->file)
            return error_set(error, E_MALFORMED, "%s: holds tensor %.200s, which the index %s",
                             set->files[tensor->file].path, tensor->name,
                             claim == NULL ? "does not name" : "places in another file");
    }
    if (set->tensors_count == set->claims_count)
        return OK;
    for (int i = 0; i < set->claims_count; i++) {
        bool found = false;
        for (int j = 0; j < set->tensors_count && !found; j++)
            found = strcmp(set->tensors[j].name, set->claims[i].name) == 0;
        if (!found)
            return error_set(error, E_MALFORMED,
                             "%s: tensor %.200s is missing, which the index places here",
                             set->files[set->claims[i].file].path, set->claims[i].name);
    }
    return OK;
}
