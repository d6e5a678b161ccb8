// SPDX-License-Identifier: Apache-2.0
// door_text_test.c -- prompts in their three forms, streams cut anywhere, and a door without a
// tokenizer. The tokenizer is the demo model's.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "coordinator/door_text.h"
#include "parallel/base/utf8.h"
#include "parallel/wire/writer.h"

#define FULL                                                                                       \
    "The fox \xe4\xb8\x96\xe7\x95\x8c said \xf0\x9f\xa6\x8a, Gr\xc3\xbc\xc3\x9f"                   \
    "e!\n\n"

static struct tokenizer tokenizer;
static struct door_text *door, *bare; // with and without a tokenizer
static struct error error;
static uint8_t frame[4096];

static int open_doors(void **state)
{
    (void)state;
    if (tokenizer_load(&tokenizer, SOURCE_DIR "/deploy/demo/model", &error) != OK)
        fail_msg("%s", error.text);
    assert_int_equal(door_text_open(&door, &tokenizer, (int32_t)tokenizer.id_count, &error), OK);
    assert_int_equal(door_text_open(&bare, NULL, 100, &error), OK);
    return 0;
}

static int close_doors(void **state)
{
    (void)state;
    door_text_close(door);
    door_text_close(bare);
    tokenizer_fini(&tokenizer);
    return 0;
}

static struct generate_request request_of(const char *prompt)
{
    struct generate_request request;
    generate_request_init(&request);
    request.prompt = prompt;
    request.prompt_bytes = prompt != NULL ? strlen(prompt) : 0;
    return request;
}

static int32_t *ids_of(const struct generate_request *request, int32_t *count)
{
    int32_t *ids = NULL;
    if (door_text_prompt(door, request, &ids, count, &error) != OK)
        fail_msg("%s", error.text);
    return ids;
}

static void assert_refused(struct door_text *at, const struct generate_request *request,
                           enum status status, const char *part)
{
    int32_t *ids = NULL, count;
    assert_int_equal(door_text_prompt(at, request, &ids, &count, &error), status);
    assert_null(ids);
    if (strstr(error.text, part) == NULL)
        fail_msg("'%s' does not name %s", error.text, part);
}

// The ids of `deltamesh tokenize` for a line, and its text.
static json_t *tokenize(struct writer *w)
{
    struct tokenize_request request;
    size_t bytes;
    char *text = NULL;
    assert_int_equal(writer_end(w, &bytes), OK);
    assert_int_equal(tokenize_request_decode(&request, frame, bytes, &error), OK);
    if (door_text_tokenize(door, &request, &text, &error) != OK)
        fail_msg("%s", error.text);
    json_t *object = json_loads(text, 0, NULL);
    free(text);
    assert_true(json_is_object(object));
    return object;
}

static struct writer *begin_tokenize(struct writer *w, const char *key)
{
    writer_init(w, frame, sizeof frame);
    writer_map(w, 3);
    writer_key(w, "t");
    writer_key(w, "tokenize");
    writer_key(w, "id");
    writer_key(w, "1");
    writer_key(w, key);
    return w;
}

static void write_messages(struct writer *w, const char *role, const char *content)
{
    writer_array(w, 1);
    writer_map(w, 2);
    writer_key(w, "role");
    writer_key(w, role);
    writer_key(w, "content");
    writer_key(w, content);
}

static void a_prompt_is_its_tokens(void **state)
{
    (void)state;
    struct generate_request request = request_of(FULL);
    struct writer w;
    int32_t count;
    int32_t *ids = ids_of(&request, &count);
    writer_key(begin_tokenize(&w, "text"), FULL);
    json_t *line = tokenize(&w);
    const json_t *expected = json_object_get(line, "ids");
    assert_int_equal(json_array_size(expected), count);
    for (int32_t i = 0; i < count; i++)
        assert_int_equal(json_integer_value(json_array_get(expected, (size_t)i)), ids[i]);
    json_decref(line);
    free(ids);
}

static void ids_are_copied_and_checked(void **state)
{
    (void)state;
    const int32_t good[] = {0, 5, (int32_t)tokenizer.id_count - 1};
    const int32_t bad[] = {1, (int32_t)tokenizer.id_count};
    struct generate_request request = request_of(NULL);
    int32_t count;
    request.ids = frame;
    request.ids_count = 3;
    assert_int_equal(generate_request_pack_ids(frame, sizeof frame, &request.ids_bytes, good, 3),
                     OK);
    int32_t *ids = ids_of(&request, &count);
    assert_int_equal(count, 3);
    assert_memory_equal(ids, good, sizeof good);
    free(ids);
    request.ids_count = 2;
    assert_int_equal(generate_request_pack_ids(frame, sizeof frame, &request.ids_bytes, bad, 2),
                     OK);
    assert_refused(door, &request, E_INPUT, "[1]");
}

static void messages_are_rendered(void **state)
{
    (void)state;
    struct generate_request request = request_of(NULL);
    struct writer w;
    int32_t count, shorter_count;
    write_messages(begin_tokenize(&w, "messages"), "user", "Hello!");
    json_t *line = tokenize(&w);
    const char *text = json_string_value(json_object_get(line, "text"));
    assert_non_null(strstr(text, "Hello!"));
    struct generate_request same = request_of(text);
    int32_t *expected = ids_of(&same, &count);
    writer_init(&w, frame, sizeof frame);
    write_messages(&w, "user", "Hello!");
    request.messages = frame;
    assert_int_equal(writer_end(&w, &request.messages_bytes), OK);
    int32_t *ids = ids_of(&request, &shorter_count);
    assert_int_equal(count, shorter_count);
    assert_memory_equal(ids, expected, (size_t)count * sizeof *ids);
    free(ids);
    request.enable_thinking = false;
    ids = ids_of(&request, &shorter_count);
    assert_true(shorter_count != count || memcmp(ids, expected, (size_t)count * 4) != 0);
    free(ids);
    free(expected);
    json_decref(line);
}

// Tools and kept thoughts come into the prompt as at the other door.
static void tools_are_rendered(void **state)
{
    (void)state;
    static uint8_t tools[256];
    struct generate_request request = request_of(NULL);
    struct chat_format_options options = chat_format_defaults();
    struct writer w;
    int32_t *wanted = NULL, wanted_count, count;
    json_t *messages = json_loads("[{\"role\":\"user\",\"content\":\"Hello!\"}]", 0, NULL);
    json_t *list = json_loads("[{\"name\":\"look\"}]", 0, NULL);
    options.tools = list;
    assert_int_equal(door_text_chat(door, messages, &options, &wanted, &wanted_count, &error), OK);
    writer_init(&w, frame, sizeof frame);
    write_messages(&w, "user", "Hello!");
    request.messages = frame;
    assert_int_equal(writer_end(&w, &request.messages_bytes), OK);
    writer_init(&w, tools, sizeof tools);
    writer_array(&w, 1);
    writer_map(&w, 1);
    writer_key(&w, "name");
    writer_text(&w, "look", 4);
    request.tools = tools;
    assert_int_equal(writer_end(&w, &request.tools_bytes), OK);
    int32_t *ids = ids_of(&request, &count);
    assert_int_equal(count, wanted_count);
    assert_memory_equal(ids, wanted, (size_t)count * sizeof *ids);
    free(ids);
    writer_init(&w, tools, sizeof tools);
    writer_array(&w, 1);
    writer_int(&w, 5);
    assert_int_equal(writer_end(&w, &request.tools_bytes), OK);
    assert_refused(door, &request, E_INPUT, "tools");
    free(wanted);
    json_decref(messages);
    json_decref(list);
}

static void wrong_messages_are_named(void **state)
{
    (void)state;
    struct generate_request request = request_of(NULL);
    struct writer w;
    writer_init(&w, frame, sizeof frame);
    write_messages(&w, "wizard", "Hello!");
    request.messages = frame;
    assert_int_equal(writer_end(&w, &request.messages_bytes), OK);
    assert_refused(door, &request, E_INPUT, "wizard");
    writer_init(&w, frame, sizeof frame);
    writer_text(&w, "hello", 5);
    assert_int_equal(writer_end(&w, &request.messages_bytes), OK);
    assert_refused(door, &request, E_INPUT, "messages");
    writer_init(&w, frame, sizeof frame);
    writer_bin(&w, "hello", 5);
    assert_int_equal(writer_end(&w, &request.messages_bytes), OK);
    assert_refused(door, &request, E_INPUT, "JSON");
}

// Streamed in groups of `group` ids: whole code points only, and together the text.
static void assert_streamed(const int32_t *ids, int32_t count, int32_t group)
{
    char text[256];
    size_t used = 0;
    struct door_stream *stream = door_stream_open(door, true);
    assert_non_null(stream);
    for (int32_t i = 0; i <= count; i += group) {
        size_t bytes;
        int32_t some = count - i < group ? count - i : group;
        const char *part = door_stream_feed(stream, ids + i, some, some < group, &bytes);
        assert_int_equal(utf8_valid_bytes(part, bytes), bytes);
        assert_true(used + bytes < sizeof text);
        memcpy(text + used, part, bytes);
        used += bytes;
    }
    assert_int_equal(used, strlen(FULL));
    assert_memory_equal(text, FULL, used);
    door_stream_close(stream);
}

static void a_stream_is_the_text(void **state)
{
    (void)state;
    struct generate_request request = request_of(FULL);
    int32_t count;
    int32_t *ids = ids_of(&request, &count);
    assert_true(count > 10); // the wide code points are several tokens each
    for (int32_t group = 1; group <= 5; group++)
        assert_streamed(ids, count, group);
    free(ids);
}

static void half_a_code_point_waits_and_ends_replaced(void **state)
{
    (void)state;
    struct generate_request request = request_of("\xf0\x9f\xa6\x8a");
    int32_t count;
    size_t bytes;
    int32_t *ids = ids_of(&request, &count);
    assert_true(count >= 2);
    struct door_stream *stream = door_stream_open(door, true);
    door_stream_feed(stream, ids, count - 1, false, &bytes);
    assert_int_equal(bytes, 0);
    const char *tail = door_stream_feed(stream, NULL, 0, true, &bytes);
    assert_true(bytes >= 3 && bytes % 3 == 0);
    assert_memory_equal(tail, "\xef\xbf\xbd", 3);
    door_stream_close(stream);
    door_stream_close(NULL);
    free(ids);
}

static void special_tokens_show_when_asked(void **state)
{
    (void)state;
    static const char special[] = "<|im_end|>";
    struct generate_request request = request_of(special);
    int32_t count;
    int32_t *ids = ids_of(&request, &count);
    assert_int_equal(count, 1);
    for (int skip = 0; skip < 2; skip++) {
        size_t bytes;
        struct door_stream *stream = door_stream_open(door, skip == 1);
        const char *text = door_stream_feed(stream, ids, 1, true, &bytes);
        assert_int_equal(bytes, skip == 1 ? 0 : strlen(special));
        assert_memory_equal(text, special, bytes);
        door_stream_close(stream);
    }
    free(ids);
}

static void without_a_tokenizer_text_is_refused_by_name(void **state)
{
    (void)state;
    struct generate_request request = request_of("Hello");
    struct tokenize_request line = {.value = frame, .value_bytes = 1};
    char *text = NULL;
    int32_t *ids = NULL, count;
    assert_refused(bare, &request, E_UNSUPPORTED, "'prompt'");
    request = request_of(NULL);
    request.messages = frame;
    request.messages_bytes = 1;
    assert_refused(bare, &request, E_UNSUPPORTED, "'messages'");
    assert_int_equal(door_text_tokenize(bare, &line, &text, &error), E_UNSUPPORTED);
    assert_null(text);
    assert_null(door_stream_open(bare, true));
    const int32_t own[] = {99, 100};
    request = request_of(NULL);
    request.ids = frame;
    request.ids_count = 1;
    assert_int_equal(generate_request_pack_ids(frame, sizeof frame, &request.ids_bytes, own, 1),
                     OK);
    assert_int_equal(door_text_prompt(bare, &request, &ids, &count, &error), OK);
    assert_int_equal(ids[0], 99);
    free(ids);
    request.ids_count = 2;
    assert_int_equal(generate_request_pack_ids(frame, sizeof frame, &request.ids_bytes, own, 2),
                     OK);
    assert_refused(bare, &request, E_INPUT, "100");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_its_tokens),
        cmocka_unit_test(ids_are_copied_and_checked),
        cmocka_unit_test(messages_are_rendered),
        cmocka_unit_test(tools_are_rendered),
        cmocka_unit_test(wrong_messages_are_named),
        cmocka_unit_test(a_stream_is_the_text),
        cmocka_unit_test(half_a_code_point_waits_and_ends_replaced),
        cmocka_unit_test(special_tokens_show_when_asked),
        cmocka_unit_test(without_a_tokenizer_text_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, open_doors, close_doors);
}
