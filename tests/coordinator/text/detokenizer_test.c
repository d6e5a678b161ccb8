// SPDX-License-Identifier: Apache-2.0
// detokenizer_test.c -- streams against Hugging Face's decode of the whole list, and what a stream
// may not give away early.
#include "coordinator/text/detokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/base/utf8.h"
#include "tests/fixtures/text_golden.h"

enum { IDS_MAX = 4096 };

// Streams ids; after each, what has come out must be whole code points.
static void stream(const struct tokenizer *tokenizer, const uint32_t *ids, size_t count, bool skip,
                   struct text_buffer *out)
{
    struct detokenizer detokenizer;
    detokenizer_init(&detokenizer, tokenizer, skip);
    out->count = 0;
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(detokenizer_feed(&detokenizer, ids[i], out, NULL), OK);
        assert_int_equal(utf8_valid_bytes(out->bytes, out->count), out->count);
        assert_true(detokenizer.tail_bytes < CODE_POINT_BYTES_MAX);
    }
    assert_int_equal(detokenizer_finish(&detokenizer, out, NULL), OK);
}

static void check_text(const struct text_buffer *out, const char *text, size_t bytes)
{
    assert_int_equal(out->count, bytes);
    assert_memory_equal(out->bytes == NULL ? "" : out->bytes, text, bytes);
}

static void check_lists(const char *name, const char *folder)
{
    struct tokenizer tokenizer;
    struct text_golden golden;
    struct text_buffer out;
    static uint32_t ids[IDS_MAX];
    text_golden_load(&tokenizer, folder);
    text_golden_open(&golden, name, folder);
    text_buffer_init(&out, 1 << 20);
    for (size_t texts = text_golden_number(&golden); texts > 0; texts--) {
        size_t bytes;
        text_golden_text(&golden, &bytes);
        text_golden_ids(&golden, ids, IDS_MAX);
    }
    const size_t lists = text_golden_number(&golden);
    assert_true(lists > 400);
    for (size_t i = 0; i < lists; i++) {
        const size_t count = text_golden_ids(&golden, ids, IDS_MAX);
        for (int skip = 0; skip < 2; skip++) {
            size_t bytes;
            const char *text = text_golden_text(&golden, &bytes);
            stream(&tokenizer, ids, count, skip == 1, &out);
            check_text(&out, text, bytes);
        }
    }
    text_golden_close(&golden);
    text_buffer_fini(&out);
    tokenizer_fini(&tokenizer);
}

static void lists_of_the_family_decode_as_hugging_face_does(void **state)
{
    (void)state;
    check_lists("family", "tests/golden/text/family");
}

static void lists_of_the_odd_tokenizer_decode_as_hugging_face_does(void **state)
{
    (void)state;
    check_lists("odd", "tests/golden/text/odd");
}

static void lists_of_the_demo_model_decode_as_hugging_face_does(void **state)
{
    (void)state;
    check_lists("demo", "deploy/demo/model");
}

// Every text that was encoded, NFC or not, comes back in normal form; here all are.
static void encoded_texts_come_back(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "plain text", "\U0001f600 caf\u00e9\n\n  x",
                                        "<|im_start|>user\nhi<|im_end|>", "\u65e5\u672c\u8a9e"};
    struct tokenizer tokenizer;
    struct text_buffer out;
    uint32_t ids[256];
    text_golden_load(&tokenizer, "tests/golden/text/family");
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(&tokenizer);
    text_buffer_init(&out, 1000);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct token_ids list = {ids, 0, 256};
        const size_t bytes = strlen(texts[i]);
        assert_int_equal(tokenizer_encode(&tokenizer, scratch, &list, texts[i], bytes, NULL), OK);
        stream(&tokenizer, ids, list.count, false, &out);
        check_text(&out, texts[i], bytes);
    }
    text_buffer_fini(&out);
    tokenizer_scratch_free(scratch);
    tokenizer_fini(&tokenizer);
}

// The id of a single byte, by what ids decode to.
static uint32_t byte_id(const struct tokenizer *tokenizer, uint8_t byte)
{
    for (uint32_t id = 0; id < tokenizer->id_count; id++) {
        const struct token_bytes token = tokenizer_id_text(tokenizer, id);
        if (token.count == 1 && (uint8_t)token.bytes[0] == byte)
            return id;
    }
    fail();
    return 0;
}

static void bytes_are_held_back_until_they_are_certain(void **state)
{
    (void)state;
    // Bytes, and how much text is out after each: an emoji; a broken one; a tail at the end.
    static const uint8_t bytes[] = {0xf0, 0x9f, 0x98, 0x80, 'a', 0xe2, 0x82, 'b', 0xff, 0xc3};
    static const size_t lengths[] = {0, 0, 0, 4, 5, 5, 5, 9, 12, 12};
    struct tokenizer tokenizer;
    struct text_buffer out;
    struct detokenizer detokenizer;
    text_golden_load(&tokenizer, "tests/golden/text/family");
    text_buffer_init(&out, 1000);
    detokenizer_init(&detokenizer, &tokenizer, true);
    for (size_t i = 0; i < sizeof bytes; i++) {
        const uint32_t id = byte_id(&tokenizer, bytes[i]);
        assert_int_equal(detokenizer_feed(&detokenizer, id, &out, NULL), OK);
        assert_int_equal(out.count, lengths[i]);
    }
    assert_int_equal(detokenizer_finish(&detokenizer, &out, NULL), OK);
    check_text(&out, "\U0001f600a\ufffdb\ufffd\ufffd", 15);
    assert_int_equal(detokenizer_finish(&detokenizer, &out, NULL), OK);
    assert_int_equal(out.count, 15);
    text_buffer_fini(&out);
    tokenizer_fini(&tokenizer);
}

static void an_id_without_a_token_is_refused(void **state)
{
    (void)state;
    struct tokenizer tokenizer;
    struct text_buffer out;
    struct detokenizer detokenizer;
    struct error error;
    char number[32];
    text_golden_load(&tokenizer, "tests/golden/text/family");
    text_buffer_init(&out, 4);
    detokenizer_init(&detokenizer, &tokenizer, true);
    assert_int_equal(detokenizer_feed(&detokenizer, tokenizer.id_count, &out, &error), E_INPUT);
    snprintf(number, sizeof number, "below %u", tokenizer.id_count);
    assert_non_null(strstr(error.text, number));
    assert_int_equal(out.count, 0);
    // A buffer that is full says so.
    enum status status = OK;
    for (unsigned i = 0; i < 5 && status == OK; i++)
        status = detokenizer_feed(&detokenizer, byte_id(&tokenizer, 'x'), &out, &error);
    assert_int_equal(status, E_LIMIT);
    assert_int_equal(out.count, 4);
    text_buffer_fini(&out);
    tokenizer_fini(&tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_of_the_family_decode_as_hugging_face_does),
        cmocka_unit_test(lists_of_the_odd_tokenizer_decode_as_hugging_face_does),
        cmocka_unit_test(lists_of_the_demo_model_decode_as_hugging_face_does),
        cmocka_unit_test(encoded_texts_come_back),
        cmocka_unit_test(bytes_are_held_back_until_they_are_certain),
        cmocka_unit_test(an_id_without_a_token_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
