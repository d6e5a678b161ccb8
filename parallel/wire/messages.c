// SPDX-License-Identifier: Apache-2.0
// messages.c -- the flat messages between coordinator and workers, one table each, and reports.
// Step plans are in step_plan.c.
#include "parallel/wire/messages.h"

#include <string.h>

#include "parallel/wire/fields.h"
#include "parallel/wire/reader.h"
#include "parallel/wire/writer.h"

static const char *const type_names[MESSAGE_TYPE_COUNT] = {
    [MESSAGE_HELLO] = "hello",    [MESSAGE_READY] = "ready",     [MESSAGE_REPORT] = "report",
    [MESSAGE_HEARTBEAT] = "beat", [MESSAGE_FAILURE] = "failure", [MESSAGE_PLACE] = "place",
    [MESSAGE_REFUSE] = "refuse",  [MESSAGE_PLAN] = "plan",       [MESSAGE_END] = "end",
    [MESSAGE_ALIVE] = "alive",
};

// Rows of the tables below: a member of struct `of` and the key it travels under.
#define MEMBER(of, member) offsetof(struct of, member), sizeof((struct of *)0)->member
#define INT(of, member, key, min, max)                                                             \
    {                                                                                              \
        key, FIELD_INT32, MEMBER(of, member), min, max                                             \
    }
#define UINT64(of, member, key)                                                                    \
    {                                                                                              \
        key, FIELD_UINT64, MEMBER(of, member), 0, 0                                                \
    }
#define TEXT(of, member, key)                                                                      \
    {                                                                                              \
        key, FIELD_TEXT, MEMBER(of, member), 0, 0                                                  \
    }
#define BYTES(of, member, key)                                                                     \
    {                                                                                              \
        key, FIELD_BYTES, MEMBER(of, member), 0, 0                                                 \
    }

static const struct field hello_fields[] = {
    INT(hello, version, "v", 0, INT32_MAX),
    TEXT(hello, build, "build"),
    TEXT(hello, backend, "backend"),
    TEXT(hello, host, "host"),
    TEXT(hello, device, "device"),
    INT(hello, local_rank, "local", -1, WIRE_RANKS_MAX - 1),
    INT(hello, pid, "pid", 0, INT32_MAX),
    UINT64(hello, bytes_free, "free"),
    UINT64(hello, config_hash, "config"),
    INT(hello, has_mtp, "mtp", 0, 1),
    INT(hello, nccl_version, "nccl", 0, INT32_MAX),
};

static const struct field place_message_fields[] = {
    INT(place_message, group, "group", 0, WIRE_GROUPS_MAX - 1),
    INT(place_message, rank, "rank", 0, WIRE_RANKS_MAX - 1),
    INT(place_message, ranks, "ranks", 1, WIRE_RANKS_MAX),
    UINT64(place_message, epoch, "epoch"),
    BYTES(place_message, id, "id"),
    INT(place_message, sequences, "seqs", 1, STEP_ROWS_MAX),
    INT(place_message, sequence_tokens, "len", 1, INT32_MAX),
    INT(place_message, step_tokens, "step", 1, INT32_MAX),
    INT(place_message, pages, "pages", 1, INT32_MAX),
    INT(place_message, pages_per_sequence, "width", 1, INT32_MAX),
    INT(place_message, checkpoints, "checks", 0, INT32_MAX),
    INT(place_message, vocab_real, "vocab", 1, INT32_MAX),
    INT(place_message, drafts_max, "drafts", 0, STEP_VERIFY_MAX - 1),
    INT(place_message, draft_vocab, "dvocab", 0, INT32_MAX),
    INT(place_message, synthetic_thousandths, "synth", 0, STEP_VERIFY_MAX * 1000),
    INT(place_message, bf16_state, "bf16s", 0, 1),
};

static const struct field ready_fields[] = {
    INT(ready, group, "group", 0, WIRE_GROUPS_MAX - 1),
    INT(ready, rank, "rank", 0, WIRE_RANKS_MAX - 1),
    UINT64(ready, epoch, "epoch"),
    UINT64(ready, load_ns, "load_ns"),
};

static const struct field refuse_fields[] = {
    TEXT(refuse, text, "text"),
};

static const struct field end_message_fields[] = {
    UINT64(end_message, epoch, "epoch"),
    INT(end_message, failed, "failed", 0, 1),
    TEXT(end_message, text, "text"),
};

static const struct field failure_fields[] = {
    INT(failure, group, "group", -1, WIRE_GROUPS_MAX - 1),
    INT(failure, rank, "rank", -1, WIRE_RANKS_MAX - 1),
    UINT64(failure, epoch, "epoch"),
    TEXT(failure, text, "text"),
};

static const struct field heartbeat_fields[] = {
    INT(heartbeat, group, "group", 0, WIRE_GROUPS_MAX - 1),
    INT(heartbeat, rank, "rank", 0, WIRE_RANKS_MAX - 1),
    UINT64(heartbeat, epoch, "epoch"),
    UINT64(heartbeat, step_begun, "begun"),
    UINT64(heartbeat, step_done, "done"),
    UINT64(heartbeat, exchange_epoch, "push"),
};

// Both directions of a flat message; the copy keeps *out untouched on failure.
#define FLAT_CODEC(name, type)                                                                     \
    static const struct field_table name##_table = {                                               \
        type, name##_fields, (int32_t)(sizeof name##_fields / sizeof name##_fields[0])};           \
    enum status name##_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,                \
                              const struct name *message)                                          \
    {                                                                                              \
        return fields_encode(buffer, buffer_bytes, bytes_out, &name##_table, message);             \
    }                                                                                              \
    enum status name##_decode(struct name *out, const void *frame, size_t frame_bytes,             \
                              struct error *error)                                                 \
    {                                                                                              \
        struct name copy = {0};                                                                    \
        TRY(fields_decode(&copy, &name##_table, frame, frame_bytes, error));                       \
        *out = copy;                                                                               \
        return OK;                                                                                 \
    }

FLAT_CODEC(hello, "hello")
FLAT_CODEC(place_message, "place")
FLAT_CODEC(ready, "ready")
FLAT_CODEC(refuse, "refuse")
FLAT_CODEC(end_message, "end")
FLAT_CODEC(failure, "failure")
FLAT_CODEC(heartbeat, "beat")

static const struct field_table alive_table = {"alive", NULL, 0};

enum status alive_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out)
{
    return fields_encode(buffer, buffer_bytes, bytes_out, &alive_table, NULL);
}

enum status alive_decode(const void *frame, size_t frame_bytes, struct error *error)
{
    return fields_decode(NULL, &alive_table, frame, frame_bytes, error);
}

enum message_type message_type_of(const void *frame, size_t frame_bytes)
{
    static const char *const keys[] = {"t"};
    struct reader reader;
    struct reader_map map;
    reader_init(&reader, frame, frame_bytes, "frame", NULL);
    reader_map_open(&reader, &map, keys, 1, false);
    if (reader_map_key(&reader, &map) != 0)
        return MESSAGE_NONE;
    size_t bytes;
    const char *name = reader_str(&reader, &bytes, 64);
    for (int i = 1; i < MESSAGE_TYPE_COUNT; i++) {
        if (strlen(type_names[i]) == bytes && memcmp(type_names[i], name, bytes) == 0)
            return (enum message_type)i;
    }
    return MESSAGE_NONE;
}

// ---- Report. A row is [slot, end, token ...]. Log-probabilities of a row are [row, how many of
// its prompt, [id, logprob, id, logprob ...] ...]: the token, then its alternatives. ----

enum report_key {
    REPORT_T,
    REPORT_GROUP,
    REPORT_RANK,
    REPORT_EPOCH,
    REPORT_STEP,
    REPORT_HASH,
    REPORT_NS,
    REPORT_ROWS,
    REPORT_LOGPROBS,
    REPORT_KEYS
};

static const char *const report_keys[REPORT_KEYS] = {"t",    "group", "rank", "epoch",   "step",
                                                     "hash", "ns",    "rows", "logprobs"};

static void write_logprob(struct writer *writer, const struct step_logprob *entry)
{
    ASSERT(entry->top_count >= 0 && entry->top_count <= STEP_LOGPROBS_TOP_MAX);
    writer_array(writer, 2 * (size_t)entry->top_count + 2);
    writer_int(writer, entry->id);
    writer_float(writer, entry->logprob);
    for (int32_t i = 0; i < entry->top_count; i++) {
        writer_int(writer, entry->top_ids[i]);
        writer_float(writer, entry->top_logprobs[i]);
    }
}

static void write_logprobs(struct writer *writer, const struct report *message)
{
    size_t rows = 0;
    for (int32_t i = 0; i < message->rows_count; i++)
        rows += message->rows[i].prompt_logprobs_count + message->rows[i].logprobs_count > 0;
    writer_key(writer, "logprobs");
    writer_array(writer, rows);
    for (int32_t i = 0; i < message->rows_count; i++) {
        const struct step_result *row = &message->rows[i];
        int32_t count = row->prompt_logprobs_count + row->logprobs_count;
        if (count == 0)
            continue;
        ASSERT(row->logprobs_first >= 0 && row->logprobs_first <= message->logprobs_count - count);
        writer_array(writer, (size_t)count + 2);
        writer_int(writer, i);
        writer_int(writer, row->prompt_logprobs_count);
        for (int32_t j = 0; j < count; j++)
            write_logprob(writer, &message->logprobs[row->logprobs_first + j]);
    }
}

enum status report_encode(void *buffer, size_t buffer_bytes, size_t *bytes_out,
                          const struct report *message)
{
    struct writer writer;
    writer_init(&writer, buffer, buffer_bytes);
    writer_map(&writer, REPORT_KEYS);
    writer_key(&writer, "t");
    writer_key(&writer, "report");
    writer_key(&writer, "group");
    writer_int(&writer, message->group);
    writer_key(&writer, "rank");
    writer_int(&writer, message->rank);
    writer_key(&writer, "epoch");
    writer_uint(&writer, message->epoch);
    writer_key(&writer, "step");
    writer_uint(&writer, message->step);
    writer_key(&writer, "hash");
    writer_uint(&writer, message->hash);
    writer_key(&writer, "ns");
    writer_uint(&writer, message->step_ns);
    writer_key(&writer, "rows");
    ASSERT(message->rows_count >= 0 && message->rows_count <= STEP_ROWS_MAX);
    writer_array(&writer, (size_t)message->rows_count);
    for (int32_t i = 0; i < message->rows_count; i++) {
        const struct step_result *row = &message->rows[i];
        ASSERT(row->count >= 0 && row->count <= STEP_VERIFY_MAX);
        writer_array(&writer, (size_t)row->count + 2);
        writer_int(&writer, row->slot);
        writer_int(&writer, row->end);
        for (int32_t j = 0; j < row->count; j++)
            writer_int(&writer, row->tokens[j]);
    }
    write_logprobs(&writer, message);
    return writer_end(&writer, bytes_out);
}

static void read_result(struct reader *reader, struct step_result *row)
{
    int32_t elements = reader_array(reader, STEP_VERIFY_MAX + 2);
    if (reader->status == OK && elements < 2)
        reader_fail(reader, E_MALFORMED, "a row of %d elements, the least is 2", (int)elements);
    *row = (struct step_result){.slot = reader_int32(reader, 0, STEP_ROWS_MAX - 1)};
    row->end = reader_int32(reader, 0, 3);
    for (int32_t j = 2; j < elements && reader->status == OK; j++)
        row->tokens[j - 2] = reader_int32(reader, 0, INT32_MAX);
    row->count = reader->status == OK ? elements - 2 : 0;
}

static void read_logprob(struct reader *reader, struct step_logprob *entry)
{
    int32_t elements = reader_array(reader, 2 + 2 * STEP_LOGPROBS_TOP_MAX);
    if (reader->status == OK && (elements < 2 || elements % 2 != 0))
        reader_fail(reader, E_MALFORMED, "%d elements, pairs are needed", (int)elements);
    *entry = (struct step_logprob){.id = reader_int32(reader, 0, INT32_MAX)};
    entry->logprob = (float)reader_real(reader, STEP_LOGPROB_MIN, 0);
    for (int32_t i = 0; i < elements / 2 - 1 && reader->status == OK; i++) {
        entry->top_ids[i] = reader_int32(reader, 0, INT32_MAX);
        entry->top_logprobs[i] = (float)reader_real(reader, STEP_LOGPROB_MIN, 0);
        entry->top_count++;
    }
}

// One row's; rows come in order and have been read before.
static void read_row_logprobs(struct reader *reader, struct report *report, int32_t *row_before)
{
    int32_t room = report->logprobs != NULL ? STEP_LOGPROBS_MAX - report->logprobs_count : 0;
    int32_t count = reader_array(reader, room + 2) - 2;
    int32_t row = reader_int32(reader, *row_before + 1, report->rows_count - 1);
    int32_t prompt = reader_int32(reader, 0, count);
    if (reader->status != OK)
        return;
    *row_before = row;
    report->rows[row].logprobs_first = report->logprobs_count;
    for (int32_t i = 0; i < count && reader->status == OK; i++)
        read_logprob(reader, &report->logprobs[report->logprobs_count++]);
    report->rows[row].prompt_logprobs_count = prompt;
    report->rows[row].logprobs_count = count - prompt;
}

static void read_logprobs(struct reader *reader, struct report *report)
{
    int32_t rows = reader_array(reader, report->rows_count), row_before = -1;
    for (int32_t i = 0; i < rows && reader->status == OK; i++) {
        reader->index = i;
        read_row_logprobs(reader, report, &row_before);
    }
}

enum status report_decode(struct report *out, const void *frame, size_t frame_bytes,
                          struct error *error)
{
    struct reader reader;
    struct reader_map map;
    struct report report = {.rows = out->rows, .logprobs = out->logprobs};
    reader_init(&reader, frame, frame_bytes, "report", error);
    reader_map_open(&reader, &map, report_keys, REPORT_KEYS, true);
    for (int32_t key; (key = reader_map_key(&reader, &map)) >= 0;) {
        switch ((enum report_key)key) {
        case REPORT_T: fields_read_type(&reader, "report"); break;
        case REPORT_GROUP: report.group = reader_int32(&reader, 0, WIRE_GROUPS_MAX - 1); break;
        case REPORT_RANK: report.rank = reader_int32(&reader, 0, WIRE_RANKS_MAX - 1); break;
        case REPORT_EPOCH: report.epoch = reader_uint64(&reader); break;
        case REPORT_STEP: report.step = reader_uint64(&reader); break;
        case REPORT_HASH: report.hash = reader_uint64(&reader); break;
        case REPORT_NS: report.step_ns = reader_uint64(&reader); break;
        case REPORT_ROWS:
            report.rows_count = reader_array(&reader, STEP_ROWS_MAX);
            for (int32_t i = 0; i < report.rows_count && reader.status == OK; i++) {
                reader.index = i;
                read_result(&reader, &report.rows[i]);
            }
            break;
        case REPORT_LOGPROBS: read_logprobs(&reader, &report); break;
        case REPORT_KEYS: break;
        }
    }
    TRY(reader_end(&reader));
    *out = report;
    return OK;
}
