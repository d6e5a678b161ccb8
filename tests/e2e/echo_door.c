// SPDX-License-Identifier: Apache-2.0
// echo_door.c -- the HTTP door before a core that draws what the prompt says: the tokens between
// the last <|fim_prefix|> of the prompt and the <|fim_suffix|> after it. So a test writes the
// model's answer itself. Runs until it is killed. echo_door --model DIR [--per-step N]
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/door_http.h"
#include "parallel/base/clock.h"
#include "parallel/base/log.h"

enum { REQUESTS_MAX = 64, CONTEXT = 1 << 16, POLL_NS = 200000 };

// A request whose answer is being told.
struct running {
    uint64_t request; // 0 = free
    int32_t *prompt, prompt_tokens;
    int32_t at, end; // of the prompt: the answer's next token
    int32_t told, told_max, min_tokens;
};

static struct running table[REQUESTS_MAX];
static struct link core;
static int32_t per_step = 1, token_begin, token_end;

static int32_t id_of(const struct tokenizer *tokenizer, const char *text)
{
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(tokenizer);
    uint32_t storage[64];
    struct token_ids ids = {.ids = storage, .count_max = 64};
    struct error error;
    ASSERT(scratch != NULL);
    if (tokenizer_encode(tokenizer, scratch, &ids, text, strlen(text), &error) != OK)
        DIE("%s", error.text);
    ASSERT(ids.count == 1);
    tokenizer_scratch_free(scratch);
    return (int32_t)storage[0];
}

static void end(struct running *running, const char *reason)
{
    struct link_news news = {.type = NEWS_DONE, .request = running->request, .reason = reason};
    news.usage = (struct coord_usage){.prompt_tokens = running->prompt_tokens,
                                      .completion_tokens = running->told,
                                      .cached_tokens = running->prompt_tokens / 64 * 64};
    link_tell(&core, &news);
    free(running->prompt);
    running->request = 0;
}

static void submit(const struct link_order *order)
{
    struct running *running = table;
    while (running->request != 0)
        running++; // the door takes no more than REQUESTS_MAX
    *running = (struct running){.request = order->request,
                                .prompt = order->prompt,
                                .prompt_tokens = order->prompt_tokens,
                                .told_max = order->sampling.max_tokens};
    for (int32_t i = 0; i < order->prompt_tokens; i++) {
        if (order->prompt[i] == token_begin)
            running->at = i + 1;
    }
    running->end = running->at;
    while (running->end < running->prompt_tokens && running->prompt[running->end] != token_end)
        running->end++;
    link_tell(&core, &(struct link_news){.type = NEWS_ACCEPTED, .request = running->request});
}

static void on_order(const struct link_order *order)
{
    if (order->type == ORDER_SUBMIT)
        submit(order);
    for (int i = 0; order->type == ORDER_FINISH && i < REQUESTS_MAX; i++) {
        if (table[i].request == order->request)
            end(&table[i], order->reason);
    }
}

// A step: every request's next tokens.
static void step(void)
{
    for (int i = 0; i < REQUESTS_MAX; i++) {
        struct running *running = &table[i];
        struct link_news news = {.type = NEWS_TOKENS, .request = running->request};
        if (running->request == 0)
            continue;
        while (news.tokens_count < per_step && running->at < running->end &&
               running->told != running->told_max) {
            news.tokens[news.tokens_count++] = running->prompt[running->at++];
            running->told++;
        }
        if (news.tokens_count > 0)
            link_tell(&core, &news);
        if (running->at == running->end)
            end(running, "stop");
        else if (running->told == running->told_max)
            end(running, "length");
    }
}

static void run(void)
{
    struct link_order order;
    link_tell(&core, &(struct link_news){.type = NEWS_READY, .context = CONTEXT});
    for (;;) {
        while (link_next_order(&core, &order))
            on_order(&order);
        step();
        link_wake_door(&core);
        clock_sleep_ns(POLL_NS);
    }
}

int main(int argc, char **argv)
{
    static struct tokenizer tokenizer;
    struct door_http *door = NULL;
    struct error error = {.status = OK};
    ASSERT(argc >= 3);
    if (argc == 5)
        per_step = (int32_t)strtol(argv[4], NULL, 10);
    ASSERT(per_step >= 1 && per_step <= STEP_VERIFY_MAX);
    struct door_http_options options = {.address = "127.0.0.1:0",
                                        .link = &core,
                                        .link_index = 1,
                                        .tokenizer = &tokenizer,
                                        .model_name = "echo",
                                        .requests_max = REQUESTS_MAX};
    enum status status = tokenizer_load(&tokenizer, argv[2], &error);
    options.vocab_real = (int)tokenizer.id_count;
    if (status == OK)
        status = link_open(&core, REQUESTS_MAX, &error);
    if (status == OK)
        status = door_http_open(&door, &options, &error);
    if (status != OK)
        DIE("%s", error.text);
    token_begin = id_of(&tokenizer, "<|fim_prefix|>");
    token_end = id_of(&tokenizer, "<|fim_suffix|>");
    printf("ready http=%s\n", door_http_url(door));
    fflush(stdout);
    run();
}
