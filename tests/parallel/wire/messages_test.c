// SPDX-License-Identifier: Apache-2.0
// messages_test.c -- every flat message and the report: there and back, cut at every byte, every
// byte changed, every key unknown, every field one beyond its limit.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/wire/messages.h"
#include "parallel/wire/writer.h"

static uint8_t frame[WIRE_WORKER_FRAME_BYTES_MAX];
static size_t frame_bytes;
static struct error error;

static struct hello hello = {.version = WIRE_VERSION,
                             .build = "0.1.0 gcc 12",
                             .backend = "cpu",
                             .host = "node-7",
                             .device = "a CPU",
                             .local_rank = -1,
                             .pid = 4711,
                             .bytes_free = UINT64_MAX,
                             .config_hash = 0x0123456789ABCDEFu,
                             .has_mtp = 1,
                             .nccl_version = 22809};
static struct place_message place_message = {.group = 1,
                                             .rank = 2,
                                             .ranks = 4,
                                             .epoch = 9,
                                             .id = {1, 2, 3, [127] = 255},
                                             .sequences = 8,
                                             .sequence_tokens = 4096,
                                             .step_tokens = 512,
                                             .pages = 777,
                                             .pages_per_sequence = 64,
                                             .checkpoints = 0,
                                             .vocab_real = 248077,
                                             .drafts_max = 5,
                                             .draft_vocab = 32000,
                                             .synthetic_thousandths = 3390,
                                             .bf16_state = 1};
static struct ready ready = {.group = 3, .rank = 7, .epoch = 2, .load_ns = 123456789012};
static struct refuse refuse = {.text = "the group is full"};
static struct end_message end_message = {.epoch = 0, .failed = 1, .text = "rank 1 died"};
static struct failure failure = {.group = -1, .rank = -1, .epoch = 1, .text = "no such file"};
static struct heartbeat heartbeat = {
    .group = 0, .rank = 1, .epoch = 5, .step_begun = 11, .step_done = 10, .exchange_epoch = 990};

// The same decoder with a common face.
#define FACE(name)                                                                                 \
    static enum status decode_##name(void *out, const void *bytes, size_t count)                   \
    {                                                                                              \
        error.text[0] = '\0';                                                                      \
        return name##_decode(out, bytes, count, &error);                                           \
    }                                                                                              \
    static enum status encode_##name(void *buffer, size_t room, size_t *count, const void *from)   \
    {                                                                                              \
        return name##_encode(buffer, room, count, from);                                           \
    }
FACE(hello)
FACE(place_message)
FACE(ready)
FACE(refuse)
FACE(end_message)
FACE(failure)
FACE(heartbeat)

static const struct {
    enum message_type type;
    void *message;
    size_t bytes;
    enum status (*decode)(void *, const void *, size_t);
    enum status (*encode)(void *, size_t, size_t *, const void *);
} flat[] = {
#define ROW(type, name)                                                                            \
    {                                                                                              \
        type, &name, sizeof name, decode_##name, encode_##name                                     \
    }
    ROW(MESSAGE_HELLO, hello),         ROW(MESSAGE_PLACE, place_message),
    ROW(MESSAGE_READY, ready),         ROW(MESSAGE_REFUSE, refuse),
    ROW(MESSAGE_END, end_message),     ROW(MESSAGE_FAILURE, failure),
    ROW(MESSAGE_HEARTBEAT, heartbeat),
#undef ROW
};
enum { FLAT_COUNT = sizeof flat / sizeof flat[0] };

static void flat_messages_there_and_back(void **state)
{
    (void)state;
    for (int i = 0; i < FLAT_COUNT; i++) {
        uint8_t *back = calloc(1, flat[i].bytes);
        assert_int_equal(flat[i].encode(frame, sizeof frame, &frame_bytes, flat[i].message), OK);
        assert_int_equal(message_type_of(frame, frame_bytes), flat[i].type);
        assert_int_equal(flat[i].decode(back, frame, frame_bytes), OK);
        // The statics above have zeroed padding and so has the decoded copy.
        assert_memory_equal(back, flat[i].message, flat[i].bytes);
        free(back);
    }
}

static void cut_or_changed_frames_never_pass_for_others(void **state)
{
    (void)state;
    for (int i = 0; i < FLAT_COUNT; i++) {
        uint8_t *back = malloc(flat[i].bytes);
        assert_int_equal(flat[i].encode(frame, sizeof frame, &frame_bytes, flat[i].message), OK);
        for (size_t cut = 0; cut < frame_bytes; cut++) {
            uint8_t *piece = malloc(cut + 1);
            memcpy(piece, frame, cut);
            memset(back, 0xCD, flat[i].bytes);
            assert_int_equal(flat[i].decode(back, piece, cut), E_MALFORMED);
            assert_true(error.text[0] != '\0');
            for (size_t j = 0; j < flat[i].bytes; j++)
                assert_int_equal(back[j], 0xCD); // *out is written only on OK
            size_t room_bytes;
            assert_int_equal(flat[i].encode(piece, cut, &room_bytes, flat[i].message), E_LIMIT);
            free(piece);
        }
        for (size_t at = 0; at < frame_bytes; at++) {
            uint8_t kept = frame[at];
            for (int value = 0; value < 256; value++) {
                frame[at] = (uint8_t)value;
                enum status status = flat[i].decode(back, frame, frame_bytes);
                assert_true(status == OK || status == E_MALFORMED);
            }
            frame[at] = kept;
        }
        // Another message's decoder refuses it.
        int other = (i + 1) % FLAT_COUNT;
        uint8_t *other_back = malloc(flat[other].bytes);
        assert_int_equal(flat[other].decode(other_back, frame, frame_bytes), E_MALFORMED);
        free(other_back);
        free(back);
    }
}

// Pairs of the map that the frame is: msgpack's short form holds 15, the longer one begins with DE.
static int pairs_of(const uint8_t *map)
{
    return map[0] == 0xDE ? map[1] << 8 | map[2] : map[0] - 0x80;
}

// Calls refused for each key of the frame: changed to one that nobody knows.
static void every_key_has_to_be_known(void **state)
{
    (void)state;
    static const char *const keys[FLAT_COUNT][17] = {
        {"v", "build", "backend", "host", "device", "local", "pid", "free", "config", "mtp",
         "nccl"},
        {"group", "rank", "ranks", "epoch", "id", "seqs", "len", "step", "pages", "width", "checks",
         "vocab", "drafts", "dvocab", "synth", "bf16s"},
        {"group", "rank", "epoch", "load_ns"},
        {"text"},
        {"epoch", "failed", "text"},
        {"group", "rank", "epoch", "text"},
        {"group", "rank", "epoch", "begun", "done", "push"},
    };
    for (int i = 0; i < FLAT_COUNT; i++) {
        int found = 0;
        for (; keys[i][found] != NULL; found++) {
            const char *key = keys[i][found];
            size_t bytes = strlen(key);
            assert_int_equal(flat[i].encode(frame, sizeof frame, &frame_bytes, flat[i].message),
                             OK);
            size_t at = 0;
            while (frame[at] != (0xA0 | bytes) || memcmp(frame + at + 1, key, bytes) != 0)
                assert_true(++at + bytes < frame_bytes);
            frame[at + 1] = 'Z';
            void *back = malloc(flat[i].bytes);
            assert_int_equal(flat[i].decode(back, frame, frame_bytes), E_MALFORMED);
            assert_non_null(strstr(error.text, "key 'Z"));
            assert_non_null(strstr(error.text, "is unknown"));
            free(back);
        }
        assert_int_equal(pairs_of(frame), found + 1); // the list above has all keys but "t"
    }
}

// A frame of one int field out of range: built by hand, since our encoder asserts.
static void refused_int(int row, const char *key, int64_t value)
{
    struct writer w;
    static const char *const types[] = {"hello", "place",   "ready", "refuse",
                                        "end",   "failure", "beat"};
    writer_init(&w, frame, sizeof frame);
    writer_map(&w, 2);
    writer_key(&w, "t");
    writer_key(&w, types[row]);
    writer_key(&w, key);
    writer_int(&w, value);
    assert_int_equal(writer_end(&w, &frame_bytes), OK);
    void *back = malloc(flat[row].bytes);
    assert_int_equal(flat[row].decode(back, frame, frame_bytes), E_MALFORMED);
    if (strstr(error.text, "is outside") == NULL || strstr(error.text, key) == NULL)
        fail_msg("%s %s %lld: '%s'", types[row], key, (long long)value, error.text);
    free(back);
}

static void every_number_has_its_limits(void **state)
{
    (void)state;
    static const struct {
        int row;
        const char *key;
        int64_t below, above;
    } cases[] = {
        {0, "v", -1, 1LL << 31},
        {0, "local", -2, WIRE_RANKS_MAX},
        {0, "pid", -1, 1LL << 31},
        {0, "mtp", -1, 2},
        {0, "nccl", -1, 1LL << 31},
        {1, "group", -1, WIRE_GROUPS_MAX},
        {1, "rank", -1, WIRE_RANKS_MAX},
        {1, "ranks", 0, WIRE_RANKS_MAX + 1},
        {1, "seqs", 0, STEP_ROWS_MAX + 1},
        {1, "len", 0, 1LL << 31},
        {1, "step", 0, 1LL << 31},
        {1, "pages", 0, 1LL << 31},
        {1, "width", 0, 1LL << 31},
        {1, "checks", -1, 1LL << 31},
        {1, "vocab", 0, 1LL << 31},
        {1, "drafts", -1, 6},
        {1, "dvocab", -1, 1LL << 31},
        {1, "synth", -1, 6001},
        {2, "group", -1, WIRE_GROUPS_MAX},
        {2, "rank", -1, WIRE_RANKS_MAX},
        {4, "failed", -1, 2},
        {5, "group", -2, WIRE_GROUPS_MAX},
        {5, "rank", -2, WIRE_RANKS_MAX},
        {6, "group", -1, WIRE_GROUPS_MAX},
        {6, "rank", -1, WIRE_RANKS_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        refused_int(cases[i].row, cases[i].key, cases[i].below);
        refused_int(cases[i].row, cases[i].key, cases[i].above);
    }
}

static void long_and_broken_texts_still_arrive(void **state)
{
    (void)state;
    struct refuse long_refuse, back;
    memset(long_refuse.text, 'x', sizeof long_refuse.text);
    long_refuse.text[sizeof long_refuse.text - 2] = '\xC3'; // half a code point, cut by snprintf
    long_refuse.text[sizeof long_refuse.text - 1] = '\0';
    assert_int_equal(refuse_encode(frame, sizeof frame, &frame_bytes, &long_refuse), OK);
    assert_int_equal(refuse_decode(&back, frame, frame_bytes, &error), OK);
    assert_int_equal(strlen(back.text), WIRE_TEXT_BYTES_MAX - 1);
    assert_int_equal(back.text[sizeof back.text - 2], '?');
    // A byte more than the struct holds is refused.
    struct writer w;
    char too_long[WIRE_TEXT_BYTES_MAX];
    memset(too_long, 'y', sizeof too_long);
    writer_init(&w, frame, sizeof frame);
    writer_map(&w, 2);
    writer_key(&w, "t");
    writer_key(&w, "refuse");
    writer_key(&w, "text");
    writer_text(&w, too_long, sizeof too_long);
    assert_int_equal(writer_end(&w, &frame_bytes), OK);
    assert_int_equal(refuse_decode(&back, frame, frame_bytes, &error), E_MALFORMED);
    assert_string_equal(error.text, "refuse: 'text': 480 bytes, the limit is 479");
}

static void alive_has_no_fields(void **state)
{
    (void)state;
    assert_int_equal(alive_encode(frame, sizeof frame, &frame_bytes), OK);
    assert_int_equal(message_type_of(frame, frame_bytes), MESSAGE_ALIVE);
    assert_int_equal(alive_decode(frame, frame_bytes, &error), OK);
    for (size_t cut = 0; cut < frame_bytes; cut++)
        assert_int_equal(alive_decode(frame, cut, &error), E_MALFORMED);
    assert_int_equal(alive_decode("\x82\xa1t\xa5"
                                  "alive\xa1x\x01",
                                  11, &error),
                     E_MALFORMED);
}

static void foreign_frames_have_no_type(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t count;
    } cases[] = {
        {"", 0},
        {"\x80", 1},
        {"\xc1", 1},
        {"\x81\xa1t", 3},
        {"\x81\xa1t\x01", 4},
        {"\x81\xa1t\xa5hellp", 9},
        {"\x81\xa1x\xa5hello", 9},
        {"\x90", 1},
        {"GET / HTTP/1.1", 14},
        {"\x81\xa1t\xa0", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(message_type_of(cases[i].bytes, cases[i].count), MESSAGE_NONE);
}

// ---- Report ----

static struct step_result rows[STEP_ROWS_MAX], rows_back[STEP_ROWS_MAX];

static struct step_logprob logprobs[STEP_LOGPROBS_MAX], logprobs_back[STEP_LOGPROBS_MAX];

// Three of the first row, none of the second, one of the third.
static struct report a_report(void)
{
    rows[0] = (struct step_result){.slot = 1023,
                                   .count = 6,
                                   .end = 2,
                                   .tokens = {1, 2, 3, 4, 5, 6},
                                   .prompt_logprobs_count = 2,
                                   .logprobs_count = 1};
    rows[1] = (struct step_result){.slot = 0, .count = 0, .end = 1};
    memset(logprobs, 0, sizeof logprobs[0] * 4);
    for (int i = 0; i < 4; i++) {
        logprobs[i].id = i == 3 ? INT32_MAX : i;
        logprobs[i].logprob = i == 2 ? STEP_LOGPROB_MIN : -0.25f * (float)i;
        logprobs[i].top_count = i == 1 ? 0 : 2;
        for (int k = 0; k < logprobs[i].top_count; k++) {
            logprobs[i].top_ids[k] = 70 * k + i;
            logprobs[i].top_logprobs[k] = -1.5f - (float)k;
        }
    }
    rows[2] = (struct step_result){.slot = 5, .count = 1, .end = 0, .tokens = {INT32_MAX}};
    rows[2].logprobs_count = 1;
    rows[2].logprobs_first = 3;
    return (struct report){.logprobs_count = 4,
                           .logprobs = logprobs,
                           .group = 2,
                           .rank = 1,
                           .epoch = 3,
                           .step = UINT64_MAX,
                           .hash = 0xFFEEDDCCBBAA9988u,
                           .step_ns = 1234567,
                           .rows_count = 3,
                           .rows = rows};
}

static void report_there_and_back(void **state)
{
    (void)state;
    struct report report = a_report();
    struct report back = {.rows = rows_back, .logprobs = logprobs_back};
    assert_int_equal(report_encode(frame, sizeof frame, &frame_bytes, &report), OK);
    assert_int_equal(message_type_of(frame, frame_bytes), MESSAGE_REPORT);
    assert_int_equal(report_decode(&back, frame, frame_bytes, &error), OK);
    assert_int_equal(back.group, 2);
    assert_int_equal(back.rank, 1);
    assert_true(back.epoch == 3 && back.step == UINT64_MAX);
    assert_true(back.hash == 0xFFEEDDCCBBAA9988u && back.step_ns == 1234567);
    assert_int_equal(back.rows_count, 3);
    assert_ptr_equal(back.rows, rows_back);
    assert_memory_equal(rows_back, rows, 3 * sizeof *rows);
    assert_int_equal(back.logprobs_count, 4);
    assert_memory_equal(logprobs_back, logprobs, 4 * sizeof *logprobs);
    struct report no_room = {.rows = rows_back};
    assert_int_equal(report_decode(&no_room, frame, frame_bytes, &error), E_MALFORMED);
    assert_string_equal(error.text, "report: 'logprobs'[0]: 5 elements, the limit is 2");
    for (size_t cut = 0; cut < frame_bytes; cut++) {
        uint8_t *piece = malloc(cut + 1);
        memcpy(piece, frame, cut);
        assert_int_equal(report_decode(&back, piece, cut, &error), E_MALFORMED);
        free(piece);
    }
    for (size_t at = 0; at < frame_bytes; at++) {
        uint8_t kept = frame[at];
        for (int value = 0; value < 256; value++) {
            frame[at] = (uint8_t)value;
            enum status status = report_decode(&back, frame, frame_bytes, &error);
            assert_true(status == OK || status == E_MALFORMED);
        }
        frame[at] = kept;
    }
}

static void a_full_report_fits(void **state)
{
    (void)state;
    struct report report = a_report();
    for (int i = 0; i < STEP_ROWS_MAX; i++)
        rows[i] = (struct step_result){.slot = i,
                                       .count = STEP_VERIFY_MAX,
                                       .end = 2,
                                       .tokens = {INT32_MAX, INT32_MAX, i, i, i, INT32_MAX},
                                       .prompt_logprobs_count = 2,
                                       .logprobs_count = 6,
                                       .logprobs_first = 8 * i};
    for (int i = 0; i < STEP_LOGPROBS_MAX; i++) {
        logprobs[i] = (struct step_logprob){
            .id = INT32_MAX, .logprob = -5, .top_count = STEP_LOGPROBS_TOP_MAX};
        for (int k = 0; k < STEP_LOGPROBS_TOP_MAX; k++)
            logprobs[i].top_ids[k] = INT32_MAX - i;
    }
    report.logprobs_count = STEP_LOGPROBS_MAX;
    report.rows_count = STEP_ROWS_MAX;
    struct report back = {.rows = rows_back, .logprobs = logprobs_back};
    assert_int_equal(report_encode(frame, sizeof frame, &frame_bytes, &report), OK);
    assert_int_equal(report_decode(&back, frame, frame_bytes, &error), OK);
    assert_memory_equal(rows_back, rows, sizeof rows);
    assert_memory_equal(logprobs_back, logprobs, sizeof logprobs);
}

static void refused_report(struct report report, const char *text)
{
    struct report back = {.rows = rows_back, .logprobs = logprobs_back};
    assert_int_equal(report_encode(frame, sizeof frame, &frame_bytes, &report), OK);
    assert_int_equal(report_decode(&back, frame, frame_bytes, &error), E_MALFORMED);
    assert_string_equal(error.text, text);
}

static void report_limits(void **state)
{
    (void)state;
    struct report report = a_report();
    report.group = WIRE_GROUPS_MAX;
    refused_report(report, "report: 'group': 64 is outside 0 .. 63");
    report = a_report();
    report.rank = WIRE_RANKS_MAX;
    refused_report(report, "report: 'rank': 8 is outside 0 .. 7");
    report = a_report();
    rows[1].slot = STEP_ROWS_MAX;
    refused_report(report, "report: 'rows'[1]: 1024 is outside 0 .. 1023");
    report = a_report();
    rows[1].end = 4;
    refused_report(report, "report: 'rows'[1]: 4 is outside 0 .. 3");
    report = a_report();
    rows[2].tokens[0] = -1;
    refused_report(report, "report: 'rows'[2]: -1 is outside 0 .. 2147483647");
    report = a_report();
    logprobs[3].id = -1;
    refused_report(report, "report: 'logprobs'[1]: -1 is outside 0 .. 2147483647");
    report = a_report();
    logprobs[0].top_ids[1] = -1;
    refused_report(report, "report: 'logprobs'[0]: -1 is outside 0 .. 2147483647");
    report = a_report();
    logprobs[0].logprob = 0.5f;
    refused_report(report, "report: 'logprobs'[0]: 0.5 is outside -9999 .. 0");
    report = a_report();
    logprobs[1].logprob = -INFINITY;
    refused_report(report, "report: 'logprobs'[0]: -inf is outside -9999 .. 0");
    // By hand: a row that is too short, one that is too long, too many rows.
    static const int counts[] = {1, STEP_VERIFY_MAX + 3};
    static const char *const texts[] = {
        "report: 'rows'[0]: a row of 1 elements, the least is 2",
        "report: 'rows'[0]: 9 elements, the limit is 8",
        "report: 'rows': 1025 elements, the limit is 1024",
    };
    for (int i = 0; i < 3; i++) {
        struct writer w;
        struct report back = {.rows = rows_back, .logprobs = logprobs_back};
        writer_init(&w, frame, sizeof frame);
        writer_map(&w, 2);
        writer_key(&w, "t");
        writer_key(&w, "report");
        writer_key(&w, "rows");
        writer_array(&w, i < 2 ? 1 : STEP_ROWS_MAX + 1);
        if (i < 2)
            writer_array(&w, (size_t)counts[i]);
        for (int j = 0; i < 2 && j < counts[i]; j++)
            writer_int(&w, 1);
        for (int j = 0; i == 2 && j <= STEP_ROWS_MAX; j++)
            writer_nil(&w);
        assert_int_equal(writer_end(&w, &frame_bytes), OK);
        assert_int_equal(report_decode(&back, frame, frame_bytes, &error), E_MALFORMED);
        assert_string_equal(error.text, texts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flat_messages_there_and_back),
        cmocka_unit_test(cut_or_changed_frames_never_pass_for_others),
        cmocka_unit_test(every_key_has_to_be_known),
        cmocka_unit_test(every_number_has_its_limits),
        cmocka_unit_test(long_and_broken_texts_still_arrive),
        cmocka_unit_test(alive_has_no_fields),
        cmocka_unit_test(foreign_frames_have_no_type),
        cmocka_unit_test(report_there_and_back),
        cmocka_unit_test(a_full_report_fits),
        cmocka_unit_test(report_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
