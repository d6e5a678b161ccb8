// SPDX-License-Identifier: Apache-2.0
// door_http_test.c -- the real door on a real link, whose core is the test. A stream goes on beside
// a burst of large prompts: the core tells the stream a token as soon as the event of the one
// before has come, and counts how many come between the first and the last of the prompts. Counts,
// and no times: on a slow machine everything takes longer, the prompts too. And whoever waits when
// the core ends is answered.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "coordinator/door_http.h"
#include "coordinator/text/tokenizer.h"
#include "parallel/base/clock.h"

enum {
    PROMPTS = 40,
    PROMPT_IDS = 50000, // 300 KB of JSON: about a turn each
    CONTEXT = 1 << 16,
    // Events before the burst: in each turn of the loop the door reads some of every body, so that
    // all but their last bytes are read then.
    EVENTS_BEFORE = 200,
    // Of the burst; without turns the door takes what is there in one go, or two.
    EVENTS_LEAST = 6,
};

static const char *const event_mark = "data: {";

struct world {
    struct tokenizer tokenizer;
    struct link link;
    struct door_http *door;
    int stream, prompts[PROMPTS]; // sockets
    uint64_t request;             // the stream's, as the core knows it
    int told, events;             // of the stream
    size_t matched;               // of an event's mark, at the end of what was read
    int orders;                   // of prompts
    int events_first, events_last;
    uint64_t limit_ns;
};

static int dial(const struct door_http *door)
{
    int port, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(sscanf(door_http_url(door), "http://127.0.0.1:%d", &port), 1);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void send_all(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL);
        assert_true(sent > 0);
        bytes += sent;
        count -= (size_t)sent;
    }
}

// A completion's request; returns its bytes, which end with the body's last.
static char *make_request(int ids, const char *fields, size_t *count)
{
    size_t room = 512 + (size_t)ids * 6, used = 0;
    char *body = malloc(room), *whole = malloc(room + 512);
    assert_true(body != NULL && whole != NULL);
    used += (size_t)sprintf(body, "{\"model\":\"m\",%s\"prompt\":[", fields);
    for (int i = 0; i < ids; i++)
        used += (size_t)sprintf(body + used, "%s%d", i > 0 ? "," : "", 1000 + i % 2000);
    used += (size_t)sprintf(body + used, "]}");
    *count = (size_t)sprintf(whole,
                             "POST /v1/completions HTTP/1.1\r\nHost: test\r\n"
                             "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                             used, body);
    free(body);
    return whole;
}

static void tell(struct world *w, const struct link_news *news)
{
    link_tell(&w->link, news);
    link_wake_door(&w->link);
}

static void take_orders(struct world *w)
{
    struct link_order order;
    link_clear(w->link.core_fd);
    while (link_next_order(&w->link, &order)) {
        if (order.type != ORDER_SUBMIT)
            continue;
        free(order.prompt);
        free(order.lists);
        if (order.prompt_tokens < PROMPT_IDS) {
            w->request = order.request;
            tell(w, &(struct link_news){.type = NEWS_ACCEPTED, .request = w->request});
            continue;
        }
        w->orders++;
        w->events_first = w->orders == 1 ? w->events : w->events_first;
        w->events_last = w->events;
    }
}

// Counts the events that have come.
static void read_stream(struct world *w)
{
    char bytes[4096];
    ssize_t count;
    while ((count = recv(w->stream, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
        for (ssize_t i = 0; i < count; i++) {
            w->matched = bytes[i] == event_mark[w->matched] ? w->matched + 1
                                                            : (size_t)(bytes[i] == event_mark[0]);
            if (event_mark[w->matched] != '\0')
                continue;
            w->matched = 0;
            w->events++;
        }
    }
    assert_true(count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)); // it never ends
}

// One round of the core, which waits for an order or an event.
static void play(struct world *w)
{
    struct pollfd fds[] = {{.fd = w->link.core_fd, .events = POLLIN},
                           {.fd = w->stream, .events = POLLIN}};
    assert_true(poll(fds, 2, 1000) >= 0 && clock_now_ns() < w->limit_ns);
    take_orders(w);
    read_stream(w);
    if (w->request == 0 || w->events < w->told)
        return;
    w->told = w->events + 1;
    tell(w, &(struct link_news){
                .type = NEWS_TOKENS, .request = w->request, .tokens_count = 1, .tokens = {1000}});
}

static void open_world(struct world *w)
{
    struct error error = {.text = ""};
    memset(w, 0, sizeof *w);
    w->limit_ns = clock_now_ns() + 120ull * CLOCK_NS_PER_S;
    assert_int_equal(tokenizer_load(&w->tokenizer, SOURCE_DIR "/deploy/demo/model", &error), OK);
    assert_int_equal(link_open(&w->link, PROMPTS + 8, &error), OK);
    struct door_http_options options = {.address = "127.0.0.1:0",
                                        .link = &w->link,
                                        .link_index = 1,
                                        .tokenizer = &w->tokenizer,
                                        .vocab_real = (int)w->tokenizer.id_count,
                                        .model_name = "m",
                                        .requests_max = PROMPTS + 8};
    if (door_http_open(&w->door, &options, &error) != OK)
        fail_msg("%s", error.text);
    tell(w, &(struct link_news){.type = NEWS_READY, .context = CONTEXT});
}

static void close_world(struct world *w)
{
    for (int i = 0; i < PROMPTS; i++)
        close(w->prompts[i]); // -1 is none
    close(w->stream);
    tell(w, &(struct link_news){.type = NEWS_END});
    door_http_close(w->door);
    take_orders(w);
    link_close(&w->link);
    tokenizer_fini(&w->tokenizer);
}

static void open_stream(struct world *w)
{
    size_t count;
    char *request =
        make_request(3, "\"stream\":true,\"return_token_ids\":true,\"max_tokens\":60000,", &count);
    w->stream = dial(w->door);
    send_all(w->stream, request, count);
    free(request);
    while (w->events < 3)
        play(w);
}

static void test_a_stream_goes_on_beside_a_burst(void **state)
{
    (void)state;
    static struct world world;
    struct world *w = &world;
    size_t count;
    char *request = make_request(PROMPT_IDS, "\"max_tokens\":1,", &count);
    open_world(w);
    open_stream(w);
    for (int i = 0; i < PROMPTS; i++) {
        w->prompts[i] = dial(w->door);
        send_all(w->prompts[i], request, count - 1);
    }
    for (int until = w->events + EVENTS_BEFORE; w->events < until;)
        play(w);
    assert_int_equal(w->orders, 0);
    for (int i = 0; i < PROMPTS; i++)
        send_all(w->prompts[i], request + count - 1, 1);
    free(request);
    while (w->orders < PROMPTS)
        play(w);
    int events = w->events_last - w->events_first;
    print_message("%d events of the stream while %d prompts were read\n", events, PROMPTS);
    assert_true(events >= EVENTS_LEAST);
    close_world(w);
}

// All that comes up to this text and a bit; the connection's end before it is a failure.
static const char *read_until(int fd, const char *wanted)
{
    static char bytes[8192];
    size_t count = 0;
    bytes[0] = '\0';
    while (strstr(bytes, wanted) == NULL) {
        ssize_t got = recv(fd, bytes + count, sizeof bytes - 1 - count, 0);
        if (got <= 0)
            fail_msg("'%s' has not come, but '%s'", wanted, bytes);
        count += (size_t)got;
        bytes[count] = '\0';
    }
    return bytes;
}

// Its group dies, say, with a stream under way and an order that it has not read.
static void test_the_end_is_told_to_those_who_wait(void **state)
{
    (void)state;
    static struct world world;
    struct world *w = &world;
    size_t count;
    char *request = make_request(3, "\"max_tokens\":1,", &count);
    open_world(w);
    memset(w->prompts, 0xff, sizeof w->prompts);
    open_stream(w);
    w->prompts[0] = dial(w->door);
    send_all(w->prompts[0], request, count);
    free(request);
    struct pollfd order = {.fd = w->link.core_fd, .events = POLLIN};
    assert_int_equal(poll(&order, 1, 20000), 1);
    tell(w, &(struct link_news){.type = NEWS_END});
    const char *answer = read_until(w->prompts[0], "the server has ended");
    assert_non_null(strstr(answer, "HTTP/1.1 503 "));
    read_until(w->stream, "the server has ended");
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stream_goes_on_beside_a_burst),
        cmocka_unit_test(test_the_end_is_told_to_those_who_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
