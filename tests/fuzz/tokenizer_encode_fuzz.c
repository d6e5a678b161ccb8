// SPDX-License-Identifier: Apache-2.0
// tokenizer_encode_fuzz.c -- text of any bytes. Well-formed text encodes; its ids decode to a text
// that encodes to the same ids; anything else is refused with the offset of the first bad byte.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/text/detokenizer.h"
#include "coordinator/text/tokenizer.h"
#include "parallel/base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

// A tokenizer of tests/golden/text, loaded once and kept.
struct subject {
    struct tokenizer tokenizer;
    struct tokenizer_scratch *scratch;
};

static void open_subject(struct subject *subject, const char *directory)
{
    struct error error;
    if (tokenizer_load(&subject->tokenizer, directory, &error) != OK)
        DIE("%s", error.text);
    subject->scratch = tokenizer_scratch_new(&subject->tokenizer);
    ASSERT(subject->scratch != NULL);
}

static void decode(const struct subject *subject, const struct token_ids *ids,
                   struct text_buffer *text)
{
    struct detokenizer detokenizer;
    detokenizer_init(&detokenizer, &subject->tokenizer, false);
    for (size_t i = 0; i < ids->count; i++)
        ASSERT(detokenizer_feed(&detokenizer, ids->ids[i], text, NULL) == OK);
    ASSERT(detokenizer_finish(&detokenizer, text, NULL) == OK);
    ASSERT(utf8_valid_bytes(text->bytes, text->count) == text->count);
}

// `faithful`: no token of this tokenizer strips or decodes to other bytes than its content.
static void check(struct subject *subject, const char *text, size_t bytes, bool faithful)
{
    struct error error = {0};
    const size_t count_max = tokenizer_ids_max(bytes) * NORMALIZE_EXPANSION_MAX;
    uint32_t *ids = malloc(2 * count_max * sizeof *ids + 1);
    ASSERT(ids != NULL);
    struct token_ids out = {ids, 0, count_max}, again = {ids + count_max, 0, count_max};
    const enum status status =
        tokenizer_encode(&subject->tokenizer, subject->scratch, &out, text, bytes, &error);
    if (utf8_valid_bytes(text, bytes) != bytes) {
        ASSERT(status == E_INPUT && strstr(error.text, "offset") != NULL && out.count == 0);
    } else {
        struct text_buffer back;
        ASSERT(status == OK && out.count <= tokenizer_ids_max(bytes));
        text_buffer_init(&back, (size_t)1 << 30);
        decode(subject, &out, &back);
        ASSERT(tokenizer_encode(&subject->tokenizer, subject->scratch, &again, back.bytes,
                                back.count, NULL) == OK);
        if (faithful)
            ASSERT(again.count == out.count &&
                   memcmp(again.ids, out.ids, out.count * sizeof *ids) == 0);
        text_buffer_fini(&back);
    }
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct subject family, odd;
    if (family.scratch == NULL) {
        open_subject(&family, SOURCE_DIR "/tests/golden/text/family");
        open_subject(&odd, SOURCE_DIR "/tests/golden/text/odd");
    }
    check(&family, (const char *)data, bytes, true);
    check(&odd, (const char *)data, bytes, false);
    return 0;
}
