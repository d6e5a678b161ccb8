// SPDX-License-Identifier: Apache-2.0
// openai_reply_test.c -- every shape parses, and says what it was given.
#include "coordinator/openai_reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct text_buffer out;
static const struct openai_head completion = {
    .kind = OPENAI_COMPLETION, .id = "cmpl-1", .model = "a \"model\"", .created_s = 7};
static const struct openai_head chat = {
    .kind = OPENAI_CHAT, .id = "chatcmpl-1", .model = "m", .created_s = 7};

static int set_up(void **state)
{
    (void)state;
    text_buffer_init(&out, 1 << 16);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    text_buffer_fini(&out);
    return 0;
}

// The one event that out holds, as JSON; the caller frees it.
static json_t *event(void)
{
    assert_memory_equal(out.bytes, "data: ", 6);
    assert_memory_equal(out.bytes + out.count - 2, "\n\n", 2);
    assert_null(memchr(out.bytes, '\n', out.count - 2));
    json_t *root = json_loadb(out.bytes + 6, out.count - 8, 0, NULL);
    assert_non_null(root);
    out.count = 0;
    return root;
}

static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static json_t *choice_of(const json_t *root)
{
    return json_array_get(json_object_get(root, "choices"), 0);
}

static void check_head(const json_t *root, const struct openai_head *head, const char *object)
{
    assert_string_equal(text_of(root, "id"), head->id);
    assert_string_equal(text_of(root, "model"), head->model);
    assert_string_equal(text_of(root, "object"), object);
    assert_int_equal(json_integer_value(json_object_get(root, "created")), head->created_s);
}

static void chunks_of_a_completion(void **state)
{
    (void)state;
    const int32_t ids[] = {5, -0, 123456};
    struct openai_piece piece = {
        .index = 3, .content = {.bytes = "a\n\"b", .count = 4}, .ids = ids, .ids_count = 3};
    assert_int_equal(openai_reply_chunk(&out, &completion, &piece), OK);
    json_t *root = event();
    const json_t *choice = choice_of(root);
    check_head(root, &completion, "text_completion");
    assert_string_equal(text_of(choice, "text"), "a\n\"b");
    assert_int_equal(json_integer_value(json_object_get(choice, "index")), 3);
    assert_true(json_is_null(json_object_get(choice, "finish_reason")));
    assert_null(json_object_get(choice, "stop_reason"));
    assert_int_equal(json_array_size(json_object_get(choice, "token_ids")), 3);
    json_decref(root);
    const struct stop_string stop = {.bytes = "\n\n", .count = 2};
    piece = (struct openai_piece){.finish_reason = "stop", .stop = &stop};
    assert_int_equal(openai_reply_chunk(&out, &completion, &piece), OK);
    root = event();
    assert_string_equal(text_of(choice_of(root), "text"), "");
    assert_string_equal(text_of(choice_of(root), "finish_reason"), "stop");
    assert_string_equal(text_of(choice_of(root), "stop_reason"), "\n\n");
    assert_null(json_object_get(choice_of(root), "token_ids"));
    json_decref(root);
}

static void chunks_of_a_chat(void **state)
{
    (void)state;
    assert_int_equal(openai_reply_role(&out, &chat, 0), OK);
    json_t *root = event();
    check_head(root, &chat, "chat.completion.chunk");
    assert_string_equal(text_of(json_object_get(choice_of(root), "delta"), "role"), "assistant");
    json_decref(root);
    struct openai_piece piece = {.content = {.bytes = "c", .count = 1},
                                 .reasoning = {.bytes = "r", .count = 1}};
    for (int i = 0; i < 4; i++) {
        piece.content.count = (size_t)(i & 1);
        piece.reasoning.count = (size_t)(i >> 1);
        assert_int_equal(openai_reply_chunk(&out, &chat, &piece), OK);
        root = event();
        const json_t *delta = json_object_get(choice_of(root), "delta");
        assert_int_equal(json_object_size(delta), (i & 1) + (i >> 1));
        assert_true((text_of(delta, "content") != NULL) == (i & 1));
        assert_true((text_of(delta, "reasoning_content") != NULL) == (i >> 1));
        json_decref(root);
    }
}

static void calls_of_a_chat(void **state)
{
    (void)state;
    struct openai_piece piece = {.calls = {.bytes = "{\"x\":1},{\"x\":2}", .count = 15},
                                 .content = {.bytes = "c", .count = 0}};
    for (int i = 0; i < 2; i++) {
        piece.content.count = (size_t)i;
        assert_int_equal(openai_reply_chunk(&out, &chat, &piece), OK);
        json_t *root = event();
        const json_t *delta = json_object_get(choice_of(root), "delta");
        assert_int_equal(json_object_size(delta), 1 + i);
        assert_int_equal(json_array_size(json_object_get(delta, "tool_calls")), 2);
        json_decref(root);
        assert_int_equal(openai_reply_choice(&out, &chat, &piece), OK);
        json_t *choice = json_loadb(out.bytes, out.count, 0, NULL);
        out.count = 0;
        const json_t *message = json_object_get(choice, "message");
        assert_int_equal(json_array_size(json_object_get(message, "tool_calls")), 2);
        assert_true(json_is_null(json_object_get(message, "content")) == (i == 0));
        json_decref(choice);
    }
}

static void check_usage(const json_t *root)
{
    const json_t *usage = json_object_get(root, "usage");
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    assert_int_equal(json_integer_value(json_object_get(usage, "prompt_tokens")), 5);
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 6);
    assert_int_equal(json_integer_value(json_object_get(usage, "total_tokens")), 11);
    assert_int_equal(json_integer_value(json_object_get(details, "cached_tokens")), 4);
    assert_int_equal(json_integer_value(json_object_get(usage, "target_steps")), 3);
    assert_int_equal(json_integer_value(json_object_get(usage, "drafted")), 2);
    assert_int_equal(json_integer_value(json_object_get(usage, "accepted")), 1);
}

static void usage_in_every_chunk(void **state)
{
    (void)state;
    const struct openai_usage usage = {5, 6, 4, 3, 2, 1};
    struct openai_piece piece = {.content = {.bytes = "c", .count = 1}, .usage = &usage};
    assert_int_equal(openai_reply_chunk(&out, &chat, &piece), OK);
    json_t *root = event();
    check_usage(root);
    assert_int_equal(json_array_size(json_object_get(root, "choices")), 1);
    json_decref(root);
}

static void ends_of_a_stream(void **state)
{
    (void)state;
    const struct openai_usage usage = {5, 6, 4, 3, 2, 1};
    assert_int_equal(openai_reply_usage(&out, &chat, &usage), OK);
    json_t *root = event();
    check_head(root, &chat, "chat.completion.chunk");
    assert_int_equal(json_array_size(json_object_get(root, "choices")), 0);
    check_usage(root);
    json_decref(root);
    struct openai_error error = {.error = {.status = E_FAILED, .text = "gone"}};
    assert_int_equal(openai_reply_failure(&out, &error, "id"), OK);
    root = event();
    assert_string_equal(text_of(json_object_get(root, "error"), "message"), "gone");
    json_decref(root);
    assert_int_equal(openai_reply_done(&out), OK);
    assert_int_equal(out.count, 14);
    assert_memory_equal(out.bytes, "data: [DONE]\n\n", 14);
}

static void whole(const struct openai_head *head, int count)
{
    const struct openai_usage usage = {5, 6, 4, 3, 2, 1};
    struct openai_piece piece = {.content = {.bytes = "c", .count = 1},
                                 .reasoning = {.bytes = "r", .count = 1},
                                 .finish_reason = "length"};
    out.count = 0;
    assert_int_equal(openai_reply_begin(&out, head), OK);
    for (piece.index = 0; piece.index < count; piece.index++)
        assert_int_equal(openai_reply_choice(&out, head, &piece), OK);
    assert_int_equal(openai_reply_end(&out, &usage), OK);
    json_t *root = json_loadb(out.bytes, out.count, 0, NULL);
    const json_t *choice = json_array_get(json_object_get(root, "choices"), (size_t)count - 1);
    check_head(root, head, head->kind == OPENAI_CHAT ? "chat.completion" : "text_completion");
    check_usage(root);
    assert_int_equal(json_integer_value(json_object_get(choice, "index")), count - 1);
    assert_string_equal(text_of(choice, "finish_reason"), "length");
    if (head->kind == OPENAI_CHAT) {
        const json_t *message = json_object_get(choice, "message");
        assert_string_equal(text_of(message, "role"), "assistant");
        assert_string_equal(text_of(message, "content"), "c");
        assert_string_equal(text_of(message, "reasoning_content"), "r");
    } else {
        assert_string_equal(text_of(choice, "text"), "c");
    }
    json_decref(root);
}

static void whole_answers(void **state)
{
    (void)state;
    whole(&completion, 1);
    whole(&completion, 3);
    whole(&chat, 1);
}

static void models_and_limits(void **state)
{
    (void)state;
    assert_int_equal(openai_reply_models(&out, "m", 9, 1024), OK);
    json_t *root = json_loadb(out.bytes, out.count, 0, NULL);
    const json_t *model = json_array_get(json_object_get(root, "data"), 0);
    assert_string_equal(text_of(model, "id"), "m");
    assert_int_equal(json_integer_value(json_object_get(model, "max_model_len")), 1024);
    json_decref(root);
    out.count = 0;
    assert_int_equal(openai_reply_models(&out, "m", 9, 0), OK);
    root = json_loadb(out.bytes, out.count, 0, NULL);
    model = json_array_get(json_object_get(root, "data"), 0);
    assert_true(json_is_null(json_object_get(model, "max_model_len")));
    json_decref(root);
    struct openai_piece piece = {.content = {.bytes = "c", .count = 1}};
    out.bytes_max = 100;
    out.count = 0;
    assert_int_equal(openai_reply_chunk(&out, &chat, &piece), E_LIMIT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(chunks_of_a_completion), TEST(chunks_of_a_chat), TEST(calls_of_a_chat),
        TEST(usage_in_every_chunk),   TEST(ends_of_a_stream), TEST(whole_answers),
        TEST(models_and_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
