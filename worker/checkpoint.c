// SPDX-License-Identifier: Apache-2.0
// checkpoint.c -- where each row of a canonical tensor lies in the stored files, for every layout
// of the family, and the reading of rectangles. Bytes and headers are safetensors.c's.
#include "worker/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    // Whole rows are read and cut when a row's piece is smaller than this: a page is what the
    // disk gives at least, and one call a piece would cost more than copying the rest.
    PIECE_BYTES_MIN = 4096,
    // Scratch is for cutting and for converting; a row of any model is smaller than half of it.
    SCRATCH_BYTES = CHECKPOINT_SCRATCH_BYTES / 2,
};

// How a canonical tensor is stored.
enum form {
    FORM_WHOLE,   // under its own name
    FORM_EXPERTS, // one tensor per expert, and per gate and up
    FORM_GROUPS,  // rows grouped by key head in a tensor shared with others (Qwen3-Next)
};

// Rows of one group in a grouped tensor: [before | own | after].
struct grouping {
    int64_t segment_rows; // own rows per group in the canonical tensor's segment at hand
    int64_t stride_rows;  // rows of a whole group
    int64_t before_rows;
};

struct binding {
    enum form form;
    int first_part, parts_count; // in checkpoint->parts
};

// One stored tensor under its canonical name.
struct entry {
    const char *name; // points into stored->name, behind the prefix
    struct stored_tensor *stored;
    bool used; // by a binding, or skipped by a named rule
};

struct checkpoint {
    const char *dir; // lent while it is opened, for messages
    struct safetensors files;
    struct model_config config;
    struct tensor_list tensors;
    bool has_mtp;
    struct entry *entries; // in order of name
    int entries_count;
    struct binding *bindings; // [tensors.count]
    struct stored_tensor **parts;
    int parts_count, parts_room;
    const char *prefix; // of the body's stored names, for messages
    int prefix_bytes;
};

static bool begins_with(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_vision(const char *stored_name)
{
    return begins_with(stored_name, "model.visual.") || begins_with(stored_name, "visual.");
}

// The canonical name within a stored one: the three prefixes that releases and fine-tunes use. A
// name of another form stays as it is, and then nobody uses it.
static const char *canonical_name(const char *stored_name)
{
    static const char *const prefixes[] = {"model.language_model.", "language_model.model.",
                                           "model."};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        if (!begins_with(stored_name, prefixes[i]))
            continue;
        const char *name = stored_name + strlen(prefixes[i]);
        if (begins_with(name, "layers.") || strcmp(name, "embed_tokens.weight") == 0 ||
            strcmp(name, "norm.weight") == 0)
            return name;
    }
    static const char head[] = "language_model.";
    if (begins_with(stored_name, "language_model.lm_head."))
        return stored_name + sizeof head - 1;
    return stored_name;
}

static int entry_by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static enum status make_entries(struct checkpoint *checkpoint, struct error *error)
{
    struct safetensors *files = &checkpoint->files;
    checkpoint->entries = calloc((size_t)files->tensors_count + 1, sizeof *checkpoint->entries);
    if (checkpoint->entries == NULL)
        return error_set(error, E_SYSTEM, "no memory for %d tensors", files->tensors_count);
    for (int i = 0; i < files->tensors_count; i++) {
        struct stored_tensor *stored = &files->tensors[i];
        if (is_vision(stored->name))
            continue;
        struct entry entry = {.name = canonical_name(stored->name), .stored = stored};
        checkpoint->entries[checkpoint->entries_count++] = entry;
        if (begins_with(entry.name, "mtp."))
            checkpoint->has_mtp = true;
        if (strcmp(entry.name, "embed_tokens.weight") == 0) {
            checkpoint->prefix = stored->name;
            checkpoint->prefix_bytes = (int)(entry.name - stored->name);
        }
    }
    qsort(checkpoint->entries, (size_t)checkpoint->entries_count, sizeof *checkpoint->entries,
          entry_by_name);
    for (int i = 1; i < checkpoint->entries_count; i++) {
        const struct entry *entry = &checkpoint->entries[i];
        if (strcmp(entry[-1].name, entry->name) == 0)
            return error_set(error, E_INPUT, "%s: tensors %.150s and %.150s are the same one",
                             checkpoint->dir, entry[-1].stored->name, entry->stored->name);
    }
    return OK;
}

static struct entry *find(struct checkpoint *checkpoint, const char *name)
{
    struct entry key = {.name = name};
    return bsearch(&key, checkpoint->entries, (size_t)checkpoint->entries_count,
                   sizeof *checkpoint->entries, entry_by_name);
}

static enum status missing(const struct checkpoint *checkpoint, const char *name,
                           struct error *error)
{
    bool body = !begins_with(name, "mtp.") && !begins_with(name, "lm_head.");
    return error_set(error, E_INPUT, "%s: tensor %.*s%s is missing from the checkpoint",
                     checkpoint->dir, body ? checkpoint->prefix_bytes : 0,
                     checkpoint->prefix != NULL ? checkpoint->prefix : "", name);
}

// "[2, 3]"; out has room for SAFETENSORS_DIMS_MAX numbers.
static const char *shape_text(char out[200], const int64_t *dims, int dims_count)
{
    int at = snprintf(out, 200, "[");
    for (int i = 0; i < dims_count; i++)
        at +=
            snprintf(out + at, (size_t)(200 - at), "%s%lld", i > 0 ? ", " : "", (long long)dims[i]);
    snprintf(out + at, (size_t)(200 - at), "]");
    return out;
}

static enum status check_dtype(const struct checkpoint *checkpoint,
                               const struct stored_tensor *stored, bool is_f32, struct error *error)
{
    if (strcmp(stored->dtype, "BF16") == 0 || (is_f32 && strcmp(stored->dtype, "F32") == 0))
        return OK;
    bool quantized = strcmp(stored->dtype, "F16") != 0 && strcmp(stored->dtype, "F32") != 0;
    return error_set(error, quantized ? E_UNSUPPORTED : E_INPUT,
                     "%s: tensor %.150s is %s; %s is expected%s",
                     checkpoint->files.files[stored->file].path, stored->name, stored->dtype,
                     is_f32 ? "BF16 or F32" : "BF16",
                     quantized ? " (FP8 and INT4 checkpoints are not served yet)" : "");
}

static enum status check_shape(const struct checkpoint *checkpoint,
                               const struct stored_tensor *stored, const int64_t *dims,
                               int dims_count, struct error *error)
{
    bool same = stored->dims_count == dims_count;
    for (int i = 0; same && i < dims_count; i++)
        same = stored->dims[i] == dims[i];
    if (same)
        return OK;
    char found[200], expected[200];
    return error_set(error, E_INPUT, "%s: tensor %.150s has shape %s; %s is expected",
                     checkpoint->files.files[stored->file].path, stored->name,
                     shape_text(found, stored->dims, stored->dims_count),
                     shape_text(expected, dims, dims_count));
}

// Adds a stored tensor to the binding that is being made, when it has that form.
static enum status add_part(struct checkpoint *checkpoint, struct entry *entry, bool is_f32,
                            const int64_t *dims, int dims_count, struct error *error)
{
    TRY(check_dtype(checkpoint, entry->stored, is_f32, error));
    TRY(check_shape(checkpoint, entry->stored, dims, dims_count, error));
    if (checkpoint->parts_count == checkpoint->parts_room) {
        int room = checkpoint->parts_room * 2 + 1024;
        struct stored_tensor **larger =
            realloc(checkpoint->parts, (size_t)room * sizeof *checkpoint->parts);
        if (larger == NULL)
            return error_set(error, E_SYSTEM, "no memory for %d tensors", room);
        checkpoint->parts = larger;
        checkpoint->parts_room = room;
    }
    checkpoint->parts[checkpoint->parts_count++] = entry->stored;
    entry->used = true;
    return OK;
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t name_bytes = strlen(name), suffix_bytes = strlen(suffix);
    return name_bytes >= suffix_bytes && strcmp(name + name_bytes - suffix_bytes, suffix) == 0;
}

// ".../mlp.experts.gate_up_proj" as ".../mlp.experts.{e}.gate_proj.weight" and up_proj,
// ".../mlp.experts.down_proj" as ".../mlp.experts.{e}.down_proj.weight".
static enum status bind_experts(struct checkpoint *checkpoint, const struct tensor *tensor,
                                struct error *error)
{
    static const char *const gate_up[] = {"gate_proj", "up_proj"}, *const down[] = {"down_proj"};
    bool is_down = ends_with(tensor->name, "down_proj");
    const char *const *projections = is_down ? down : gate_up;
    int count = is_down ? 1 : 2;
    int stem_bytes = (int)(strrchr(tensor->name, '.') - tensor->name);
    const int64_t dims[] = {tensor->dims[1] / count, tensor->dims[2]};
    for (int64_t expert = 0; expert < tensor->dims[0]; expert++) {
        for (int i = 0; i < count; i++) {
            char name[TENSOR_NAME_BYTES + 32];
            snprintf(name, sizeof name, "%.*s.%lld.%s.weight", stem_bytes, tensor->name,
                     (long long)expert, projections[i]);
            struct entry *entry = find(checkpoint, name);
            if (entry == NULL)
                return missing(checkpoint, name, error);
            TRY(add_part(checkpoint, entry, false, dims, 2, error));
        }
    }
    return OK;
}

static const char *grouped_suffix(const struct tensor *tensor)
{
    if (ends_with(tensor->name, "in_proj_qkv.weight") ||
        ends_with(tensor->name, "in_proj_z.weight"))
        return "in_proj_qkvz.weight";
    if (ends_with(tensor->name, "in_proj_b.weight") || ends_with(tensor->name, "in_proj_a.weight"))
        return "in_proj_ba.weight";
    return NULL;
}

// The name of the grouped tensor that holds this one's rows; false when there is no such thing.
static bool grouped_name(char out[TENSOR_NAME_BYTES + 32], const struct tensor *tensor)
{
    const char *suffix = grouped_suffix(tensor);
    if (suffix == NULL)
        return false;
    int stem_bytes = (int)(strstr(tensor->name, "in_proj_") - tensor->name);
    snprintf(out, TENSOR_NAME_BYTES + 32, "%.*s%s", stem_bytes, tensor->name, suffix);
    return true;
}

static enum status bind(struct checkpoint *checkpoint, struct binding *binding,
                        const struct tensor *tensor, struct error *error)
{
    const struct model_config *config = &checkpoint->config;
    char name[TENSOR_NAME_BYTES + 32];
    *binding = (struct binding){.form = FORM_WHOLE, .first_part = checkpoint->parts_count};
    struct entry *entry = find(checkpoint, tensor->name);
    if (entry != NULL)
        return add_part(checkpoint, entry, tensor->is_f32, tensor->dims, tensor->dims_count, error);
    if (strstr(tensor->name, ".mlp.experts.") != NULL) {
        int stem_bytes = (int)(strrchr(tensor->name, '.') - tensor->name);
        snprintf(name, sizeof name, "%.*s.0.gate_proj.weight", stem_bytes, tensor->name);
        if (find(checkpoint, name) == NULL)
            return missing(checkpoint, tensor->name, error);
        binding->form = FORM_EXPERTS;
        return bind_experts(checkpoint, tensor, error);
    }
    if (!grouped_name(name, tensor))
        return missing(checkpoint, tensor->name, error);
    entry = find(checkpoint, name);
    if (entry == NULL)
        return missing(checkpoint, config->layout == LAYOUT_QWEN3_NEXT ? name : tensor->name,
                       error);
    binding->form = FORM_GROUPS;
    int64_t rows = ends_with(name, "in_proj_ba.weight")
                       ? 2 * config->value_heads
                       : config_conv_channels(config) + config->value_heads * config->value_dim;
    const int64_t dims[] = {rows, config->hidden};
    return add_part(checkpoint, entry, false, dims, 2, error);
}

static enum status bind_all(struct checkpoint *checkpoint, struct error *error)
{
    const struct tensor_list *tensors = &checkpoint->tensors;
    checkpoint->bindings = calloc((size_t)tensors->count, sizeof *checkpoint->bindings);
    if (checkpoint->bindings == NULL)
        return error_set(error, E_SYSTEM, "no memory to load %d tensors", tensors->count);
    for (int i = 0; i < tensors->count; i++)
        TRY(bind(checkpoint, &checkpoint->bindings[i], &tensors->items[i], error));
    if (checkpoint->config.tied) { // the embedding is the head; a stored copy is not read
        struct entry *head = find(checkpoint, "lm_head.weight");
        if (head != NULL)
            head->used = true;
    }
    const struct entry *unused = NULL;
    int unused_count = 0;
    for (int i = 0; i < checkpoint->entries_count; i++) {
        if (!checkpoint->entries[i].used) {
            unused = unused == NULL ? &checkpoint->entries[i] : unused;
            unused_count++;
        }
    }
    if (unused == NULL)
        return OK;
    char more[40] = "";
    if (unused_count > 1)
        snprintf(more, sizeof more, " (and %d more)", unused_count - 1);
    return error_set(error, E_INPUT, "%s: tensor %.150s is not part of this model%s",
                     checkpoint->files.files[unused->stored->file].path, unused->stored->name,
                     more);
}

enum status checkpoint_open(struct checkpoint **out, const char *model_dir,
                            const struct model_config *config, struct error *error)
{
    struct checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    if (checkpoint == NULL)
        return error_set(error, E_SYSTEM, "no memory to open %s", model_dir);
    checkpoint->config = *config;
    checkpoint->dir = model_dir;
    enum status status = safetensors_open(&checkpoint->files, model_dir, error);
    if (status == OK)
        status = make_entries(checkpoint, error);
    if (status == OK)
        status = tensors_init(&checkpoint->tensors, config, checkpoint->has_mtp, error);
    if (status == OK)
        status = bind_all(checkpoint, error);
    checkpoint->dir = NULL;
    if (status == OK)
        *out = checkpoint;
    else
        checkpoint_close(checkpoint);
    return status;
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    if (checkpoint == NULL)
        return;
    safetensors_close(&checkpoint->files);
    tensors_fini(&checkpoint->tensors);
    free(checkpoint->entries);
    free(checkpoint->bindings);
    free(checkpoint->parts);
    free(checkpoint);
}

bool checkpoint_has_mtp(const struct checkpoint *checkpoint)
{
    return checkpoint->has_mtp;
}

const struct tensor_list *checkpoint_tensors(const struct checkpoint *checkpoint)
{
    return &checkpoint->tensors;
}

const struct safetensors *checkpoint_files(const struct checkpoint *checkpoint)
{
    return &checkpoint->files;
}

// A run of rows that lie one behind the other in a stored tensor.
struct run {
    struct stored_tensor *stored;
    int64_t row, rows;
};

// Where a row of a tensor that shares a grouped one lies. A group is one key head's
// [q | k | v of its value heads | z of them], or [b | a].
static void locate_grouped(struct run *out, const struct model_config *config,
                           const struct tensor *tensor, int64_t row)
{
    int64_t per_key = config->value_heads / config->key_heads;
    int64_t key = config->key_dim, value = per_key * config->value_dim;
    int64_t keys = config->key_heads * key;
    struct grouping g;
    if (ends_with(tensor->name, "in_proj_b.weight"))
        g = (struct grouping){per_key, 2 * per_key, 0};
    else if (ends_with(tensor->name, "in_proj_a.weight"))
        g = (struct grouping){per_key, 2 * per_key, per_key};
    else if (ends_with(tensor->name, "in_proj_z.weight"))
        g = (struct grouping){value, 2 * key + 2 * value, 2 * key + value};
    else if (row < keys)
        g = (struct grouping){key, 2 * key + 2 * value, 0};
    else if (row < 2 * keys)
        g = (struct grouping){key, 2 * key + 2 * value, key};
    else
        g = (struct grouping){value, 2 * key + 2 * value, 2 * key};
    if (ends_with(tensor->name, "in_proj_qkv.weight")) // row within its segment
        row -= row < keys ? 0 : row < 2 * keys ? keys : 2 * keys;
    int64_t within = row % g.segment_rows;
    out->row = row / g.segment_rows * g.stride_rows + g.before_rows + within;
    out->rows = g.segment_rows - within;
}

static struct run locate(const struct checkpoint *checkpoint, const struct tensor *tensor,
                         int64_t row)
{
    const struct binding *binding = &checkpoint->bindings[tensor - checkpoint->tensors.items];
    struct stored_tensor *const *parts = checkpoint->parts + binding->first_part;
    struct run run = {parts[0], row, tensor->rows - row};
    if (binding->form == FORM_EXPERTS) {
        int64_t part_rows = parts[0]->dims[0];
        run = (struct run){parts[row / part_rows], row % part_rows, part_rows - row % part_rows};
    } else if (binding->form == FORM_GROUPS) {
        locate_grouped(&run, &checkpoint->config, tensor, row);
    }
    return run;
}

// Reads columns of whole rows of a run into out, elements as stored.
static enum status read_run(struct checkpoint *checkpoint, uint8_t *out, const struct run *run,
                            const struct tensor_range *range, uint8_t *scratch, struct error *error)
{
    struct safetensors *files = &checkpoint->files;
    size_t element = (size_t)run->stored->element_bits / 8;
    size_t row_bytes = (size_t)range->tensor->columns * element;
    size_t piece_bytes = (size_t)range->columns * element;
    uint64_t at = (uint64_t)run->row * row_bytes, skip = (uint64_t)range->column * element;
    if (piece_bytes == row_bytes)
        return safetensors_read(files, run->stored, at, out, (size_t)run->rows * row_bytes, error);
    if (piece_bytes >= PIECE_BYTES_MIN || run->rows == 1) {
        for (int64_t i = 0; i < run->rows; i++)
            TRY(safetensors_read(files, run->stored, at + (uint64_t)i * row_bytes + skip,
                                 out + (size_t)i * piece_bytes, piece_bytes, error));
        return OK;
    }
    int64_t fitting = (int64_t)(SCRATCH_BYTES / row_bytes);
    ASSERT(fitting > 0);
    for (int64_t row = 0; row < run->rows; row += fitting) {
        int64_t rows = run->rows - row < fitting ? run->rows - row : fitting;
        TRY(safetensors_read(files, run->stored, at + (uint64_t)row * row_bytes, scratch,
                             (size_t)rows * row_bytes, error));
        for (int64_t i = 0; i < rows; i++)
            memcpy(out + (size_t)(row + i) * piece_bytes, scratch + (size_t)i * row_bytes + skip,
                   piece_bytes);
    }
    return OK;
}

// The same for tensors that are f32 in memory; stored as bf16 or f32.
static enum status read_run_f32(struct checkpoint *checkpoint, float *out, const struct run *run,
                                const struct tensor_range *range, uint8_t *scratch,
                                struct error *error)
{
    uint8_t *raw = scratch + SCRATCH_BYTES;
    int64_t fitting = SCRATCH_BYTES / (range->columns * (int64_t)sizeof(float));
    ASSERT(fitting > 0);
    struct run part = *run;
    for (int64_t row = 0; row < run->rows; row += part.rows) {
        part.row = run->row + row;
        part.rows = run->rows - row < fitting ? run->rows - row : fitting;
        TRY(read_run(checkpoint, raw, &part, range, scratch, error));
        size_t count = (size_t)(part.rows * range->columns);
        if (run->stored->element_bits == 32) {
            memcpy(out, raw, count * sizeof(float));
        } else {
            for (size_t i = 0; i < count; i++) {
                uint32_t bits = (uint32_t)(raw[2 * i] | raw[2 * i + 1] << 8) << 16;
                memcpy(&out[i], &bits, sizeof bits);
            }
        }
        out += count;
    }
    return OK;
}

size_t checkpoint_row_bytes(const struct tensor_range *range)
{
    return (size_t)range->columns * (range->tensor->is_f32 ? sizeof(float) : 2);
}

enum status checkpoint_read(struct checkpoint *checkpoint, void *out,
                            const struct tensor_range *range, uint8_t *scratch, struct error *error)
{
    const struct tensor *tensor = range->tensor;
    ASSERT(tensor >= checkpoint->tensors.items &&
           tensor < checkpoint->tensors.items + checkpoint->tensors.count);
    size_t row_bytes = checkpoint_row_bytes(range);
    uint8_t *to = out;
    for (int64_t done = 0; done < range->rows;) {
        struct run run = locate(checkpoint, tensor, range->row + done);
        if (run.rows > range->rows - done)
            run.rows = range->rows - done;
        if (tensor->is_f32)
            TRY(read_run_f32(checkpoint, (float *)(void *)to, &run, range, scratch, error));
        else
            TRY(read_run(checkpoint, to, &run, range, scratch, error));
        to += (size_t)run.rows * row_bytes;
        done += run.rows;
    }
    return OK;
}
