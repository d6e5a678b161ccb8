// SPDX-License-Identifier: Apache-2.0
// door_bench.c -- tokens a second from the core through the RPC door and ZeroMQ to a client: the
// real door thread on a real link, a thread that plays the core, and the real client library, all
// on this machine. The core runs ahead of the client by a few steps at most, as a model does: what
// is measured is what the path bears. Told with it: each thread's time on the processor for a
// token; the largest bounds the path where there are processors enough.
//   bin/door_bench [STREAMS [TOKENS_PER_STREAM [TOKENS_PER_STEP [MODEL]]]]
// With a model's directory the door writes text, too.
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "coordinator/door_rpc.h"
#include "coordinator/text/tokenizer.h"
#include "deploy/client/client.h"
#include "parallel/base/clock.h"
#include "parallel/config.h"

static const double goal_tokens_per_s = 100000;

enum { STREAMS_MAX = 4096, AHEAD_STEPS = 2, VOCAB = 1000 };

static struct bench {
    int streams, step_tokens;
    int64_t tokens; // of a stream
    struct link link;
    uint64_t numbers[STREAMS_MAX]; // of the streams, as the door gave them
    _Atomic int64_t received;      // tokens that the client has seen
    double core_s;                 // processor time of the core's thread
} bench;

static double thread_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double process_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

// ---- the core ----

static void accept_all(void)
{
    struct link_order order;
    for (int i = 0; i < bench.streams;) {
        if (!link_next_order(&bench.link, &order)) {
            clock_sleep_ns(CLOCK_NS_PER_MS);
            continue;
        }
        ASSERT(order.type == ORDER_SUBMIT);
        free(order.prompt);
        bench.numbers[i++] = order.request;
        link_tell(&bench.link,
                  &(struct link_news){.type = NEWS_ACCEPTED, .request = order.request});
        link_wake_door(&bench.link);
    }
}

static void *run_core(void *argument)
{
    (void)argument;
    link_tell(&bench.link, &(struct link_news){.type = NEWS_READY, .context = 1 << 20});
    link_wake_door(&bench.link);
    accept_all();
    double begin_s = thread_s();
    int64_t sent = 0;
    for (int64_t at = 0; at < bench.tokens; at += bench.step_tokens) {
        int64_t ahead = (int64_t)AHEAD_STEPS * bench.streams * bench.step_tokens;
        while (sent - atomic_load_explicit(&bench.received, memory_order_relaxed) > ahead)
            clock_sleep_ns(20 * CLOCK_NS_PER_US);
        for (int i = 0; i < bench.streams; i++) {
            struct link_news news = {.type = NEWS_TOKENS,
                                     .request = bench.numbers[i],
                                     .tokens_count = bench.step_tokens};
            for (int k = 0; k < bench.step_tokens; k++)
                news.tokens[k] = (int32_t)((at + k + i) % VOCAB);
            link_tell(&bench.link, &news);
        }
        sent += (int64_t)bench.streams * bench.step_tokens;
        link_wake_door(&bench.link);
    }
    for (int i = 0; i < bench.streams; i++)
        link_tell(&bench.link, &(struct link_news){.type = NEWS_DONE,
                                                   .request = bench.numbers[i],
                                                   .reason = "length"});
    link_wake_door(&bench.link);
    bench.core_s = thread_s() - begin_s;
    return NULL;
}

// ---- the client ----

static void must(enum status status, const struct error *error)
{
    if (status != OK)
        DIE("%s", error->text);
}

static void send_all(struct client *client)
{
    struct error error;
    uint8_t packed[32];
    const int32_t ids[] = {1, 2, 3};
    for (int i = 0; i < bench.streams; i++) {
        struct generate_request request;
        generate_request_init(&request);
        snprintf(request.id, sizeof request.id, "%d", i);
        must(generate_request_pack_ids(packed, sizeof packed, &request.ids_bytes, ids, 3), &error);
        request.ids = packed;
        request.ids_count = 3;
        must(client_generate(client, &request, &error), &error);
    }
}

// Takes every token; the time from the first to the last.
static double receive_all(struct client *client, int64_t *messages)
{
    struct error error;
    uint64_t begin_ns = 0;
    int ended = 0;
    int64_t received = 0;
    while (ended < bench.streams) {
        const struct reply *reply;
        must(client_next(client, &reply, 10000, &error), &error);
        if (reply->type == REPLY_ERROR)
            DIE("%.*s", (int)reply->text_bytes, reply->text);
        ended += reply->type == REPLY_FINAL;
        if (reply->type != REPLY_DELTA)
            continue;
        begin_ns = begin_ns != 0 ? begin_ns : clock_now_ns();
        ++*messages;
        received += reply->ids_count;
        atomic_store_explicit(&bench.received, received, memory_order_relaxed);
    }
    if (received != bench.tokens * bench.streams)
        DIE("%lld tokens came of %lld", (long long)received,
            (long long)(bench.tokens * bench.streams));
    return (double)(clock_now_ns() - begin_ns) * 1e-9;
}

static void print(double seconds, int64_t messages, double client_s, double all_s)
{
    double tokens = (double)bench.tokens * bench.streams;
    double per_us = 1e6 / (double)messages;
    printf("%d streams, %d tokens a message: %.0f tokens/s (%.0f %% of %.0f), %.0f messages/s\n",
           bench.streams, bench.step_tokens, tokens / seconds,
           100 * tokens / seconds / goal_tokens_per_s, goal_tokens_per_s,
           (double)messages / seconds);
    printf("processor a message: core %.2f us, client %.2f us, door and ZeroMQ's threads %.2f us, "
           "all %.2f us; %.2f of the processors' time was ours\n",
           bench.core_s * per_us, client_s * per_us, (all_s - bench.core_s - client_s) * per_us,
           all_s * per_us, all_s / seconds);
}

int main(int count, char **words)
{
    struct door_rpc *door;
    struct client *client;
    struct error error;
    pthread_t core;
    int64_t messages = 0;
    bench.streams = count > 1 ? atoi(words[1]) : 256;
    bench.step_tokens = count > 3 ? atoi(words[3]) : 1;
    bench.tokens = (count > 2 ? atoll(words[2]) : 2000) / bench.step_tokens * bench.step_tokens;
    if (bench.streams < 1 || bench.streams > STREAMS_MAX || bench.tokens < 1 ||
        bench.step_tokens < 1 || bench.step_tokens > STEP_VERIFY_MAX) {
        fprintf(stderr, "usage: door_bench [STREAMS [TOKENS_PER_STREAM [TOKENS_PER_STEP "
                        "[MODEL]]]]\n");
        return 1;
    }
    static struct tokenizer tokenizer;
    bool has_text = count > 4;
    if (has_text)
        must(tokenizer_load(&tokenizer, words[4], &error), &error);
    must(link_open(&bench.link, STREAMS_MAX, &error), &error);
    struct door_rpc_options options = {.endpoint = "tcp://127.0.0.1:0",
                                       .link = &bench.link,
                                       .tokenizer = has_text ? &tokenizer : NULL,
                                       .vocab_real = VOCAB,
                                       .model_name = "bench",
                                       .requests_max = STREAMS_MAX};
    must(door_rpc_open(&door, &options, &error), &error);
    must(pthread_create(&core, NULL, run_core, NULL) == 0 ? OK : E_SYSTEM, &error);
    const struct client_options client_options = {.endpoint = door_rpc_endpoint(door)};
    must(client_open(&client, &client_options, &error), &error);
    send_all(client);
    double client_s = -thread_s(), all_s = -process_s();
    double seconds = receive_all(client, &messages);
    client_s += thread_s();
    all_s += process_s();
    print(seconds, messages, client_s, all_s);
    pthread_join(core, NULL);
    client_close(client);
    link_tell(&bench.link, &(struct link_news){.type = NEWS_END});
    link_wake_door(&bench.link);
    door_rpc_close(door);
    link_close(&bench.link);
    if (has_text)
        tokenizer_fini(&tokenizer);
    return 0;
}
