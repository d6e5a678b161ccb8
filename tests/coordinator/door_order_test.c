// SPDX-License-Identifier: Apache-2.0
// door_order_test.c -- requests as orders: every field arrives, defaults fill what was left out,
// and what is refused names its field and limit.
#include "coordinator/door_order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 100 };

static struct door_text *text;
static struct door_seeds seeds = {.has_seed = true, .seed = 5};
static struct model_config config = {.eos_count = 1, .eos_ids = {99}};
static const struct coord_sampling fallback = {.temperature = 0.75f, .top_k = 20, .top_p = 0.5f};
static struct error error;
static uint8_t packed[4] = {1, 2, 3};

static int set_up(void **state)
{
    (void)state;
    return door_text_open(&text, NULL, VOCAB, &error) == OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    door_text_close(text);
    return 0;
}

static struct generate_request a_request(void)
{
    struct generate_request request;
    generate_request_init(&request);
    request.ids = packed;
    request.ids_count = 3;
    request.ids_bytes = 3;
    return request;
}

static enum status make(struct link_order *out, const struct generate_request *request)
{
    const struct door_order_sources sources = {
        .rules = {&fallback, &config, NULL, VOCAB}, .text = text, .seeds = &seeds};
    return door_order_make(out, request, &sources, &error);
}

static void defaults_fill_what_was_left_out(void **state)
{
    (void)state;
    struct link_order order = {.arrived_ns = 123};
    struct generate_request request = a_request();
    assert_int_equal(make(&order, &request), OK);
    assert_true(order.arrived_ns == 123);
    assert_int_equal(order.type, ORDER_SUBMIT);
    assert_int_equal(order.prompt_tokens, 3);
    assert_int_equal(order.prompt[2], 3);
    assert_true(order.sampling.temperature == 0.75f && order.sampling.top_p == 0.5f);
    assert_int_equal(order.sampling.top_k, 20);
    assert_int_equal(order.sampling.max_tokens, -1);
    assert_int_equal(order.sampling.stop_count, 1);
    assert_int_equal(order.sampling.stop_ids[0], 99);
    assert_int_equal(order.sampling.logprobs + order.sampling.prompt_logprobs, 0);
    assert_int_equal(order.sampling.drafts, 0); // the server's choice
    free(order.prompt);
}

static void every_field_arrives(void **state)
{
    (void)state;
    struct link_order order = {.prompt = NULL};
    struct generate_request request = a_request();
    request.max_tokens = 7;
    request.temperature = 0.25;
    request.top_k = 3;
    request.top_p = 0.125;
    request.min_p = 0.0625;
    request.repetition_penalty = 1.5;
    request.frequency_penalty = -0.5;
    request.presence_penalty = 2;
    request.min_tokens = 4;
    request.logprobs = 6;
    request.speculative_tokens = 2;
    request.prompt_logprobs = 1;
    request.bias_count = 1;
    request.bias_ids[0] = 9;
    request.biases[0] = 1;
    request.allowed_count = 1;
    request.allowed_ids[0] = 8;
    request.words_count = 1;
    request.words[0] = (struct request_word){.ids_count = 2, .ids = {6, 5}};
    request.has_seed = true;
    request.seed = 77;
    request.ignore_eos = true;
    request.stop_count = 1;
    request.stop_ids[0] = 98;
    assert_int_equal(make(&order, &request), OK);
    const struct coord_sampling *sampling = &order.sampling;
    assert_int_equal(sampling->max_tokens, 7);
    assert_true(sampling->temperature == 0.25f && sampling->top_p == 0.125f);
    assert_true(sampling->min_p == 0.0625f && sampling->repetition == 1.5f);
    assert_true(sampling->frequency == -0.5f && sampling->presence == 2);
    assert_int_equal(sampling->top_k, 3);
    assert_int_equal(sampling->min_tokens, 4);
    assert_int_equal(sampling->logprobs, 6);
    assert_int_equal(sampling->drafts, 1 + 2);
    assert_int_equal(sampling->prompt_logprobs, 1);
    assert_true(sampling->seed == 77);
    const int32_t rest[] = {8, 2, 6, 5};
    assert_true(sampling->bias_count == 1 && order.lists[0] == 9);
    assert_true(sampling->allowed_count == 1 && sampling->words_count == 3);
    assert_memory_equal(order.lists + 2, rest, sizeof rest);
    free(order.lists);
    assert_int_equal(sampling->stop_count, 1);
    assert_int_equal(sampling->stop_ids[0], 98);
    free(order.prompt);
}

static void refused(const struct generate_request *request, enum status status, const char *part)
{
    struct link_order order = {.prompt = NULL};
    assert_int_equal(make(&order, request), status);
    if (strstr(error.text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, error.text);
    assert_null(order.prompt); // nothing is left to free
}

static void refusals_name_field_and_limit(void **state)
{
    (void)state;
    struct generate_request request = a_request();
    request.unsupported = "guided_json";
    refused(&request, E_UNSUPPORTED, "'guided_json' is not served by this version");
    request = a_request();
    request.bias_count = 1;
    request.bias_ids[0] = VOCAB;
    refused(&request, E_INPUT, "'logit_bias'[0]: 100 is outside 0 .. 99");
    request = a_request();
    request.stop_count = 2;
    request.stop_ids[1] = VOCAB;
    refused(&request, E_INPUT, "'stop_token_ids'[1]: 100 is outside 0 .. 99");
    request = a_request();
    packed[1] = VOCAB;
    refused(&request, E_INPUT, "'ids'[1]: 100 is outside 0 .. 99");
    packed[1] = 2;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_fill_what_was_left_out),
        cmocka_unit_test(every_field_arrives),
        cmocka_unit_test(refusals_name_field_and_limit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
