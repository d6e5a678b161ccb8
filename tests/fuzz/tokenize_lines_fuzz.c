// SPDX-License-Identifier: Apache-2.0
// tokenize_lines_fuzz.c -- a line of any bytes to `deltamesh tokenize`, chat format included. The
// answer is always one line of JSON with the members that the contract names.
#include <jansson.h>
#include <stdint.h>
#include <string.h>

#include "coordinator/text/tokenize_lines.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check(const struct text_buffer *out, uint32_t id_count)
{
    ASSERT(out->count > 1 && out->bytes[out->count - 1] == '\n');
    ASSERT(memchr(out->bytes, '\n', out->count - 1) == NULL);
    json_t *answer = json_loadb(out->bytes, out->count, JSON_ALLOW_NUL, NULL);
    ASSERT(json_is_object(answer));
    if (json_object_get(answer, "error") != NULL) {
        ASSERT(json_object_size(answer) == 1);
        ASSERT(json_string_length(json_object_get(answer, "error")) > 0);
    } else {
        const json_t *text = json_object_get(answer, "text"), *ids = json_object_get(answer, "ids");
        ASSERT(text == NULL || json_is_string(text));
        ASSERT(ids == NULL || json_is_array(ids));
        ASSERT(json_object_size(answer) == (size_t)(text != NULL) + (size_t)(ids != NULL));
        ASSERT(json_object_size(answer) > 0);
        for (size_t i = 0; i < json_array_size(ids); i++) {
            const json_t *id = json_array_get(ids, i);
            ASSERT(json_is_integer(id) && json_integer_value(id) >= 0 &&
                   json_integer_value(id) < (json_int_t)id_count);
        }
    }
    json_decref(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct tokenizer tokenizer;
    static struct tokenizer_scratch *scratch;
    struct error error;
    if (scratch == NULL) {
        if (tokenizer_load(&tokenizer, SOURCE_DIR "/tests/golden/text/family", &error) != OK)
            DIE("%s", error.text);
        scratch = tokenizer_scratch_new(&tokenizer);
        ASSERT(scratch != NULL);
    }
    for (int scalars = 0; scalars < 2; scalars++) {
        struct text_buffer out;
        text_buffer_init(&out, 64 << 20);
        tokenizer.json_scalars = scalars == 1; // either way of a chat template
        ASSERT(tokenize_lines_answer(&out, &tokenizer, scratch, (const char *)data, bytes,
                                     &error) == OK);
        check(&out, tokenizer.id_count);
        text_buffer_fini(&out);
    }
    return 0;
}
