// SPDX-License-Identifier: Apache-2.0
// bench_http.c -- bench over any server that speaks OpenAI's streamed completions: libcurl's multi
// interface in this thread, one connection for each request in flight, kept for the next.
#include "deploy/cli/bench_door.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <curl/curl.h>

#include "deploy/cli/bench_openai.h"
#include "parallel/base/clock.h"

enum {
    CONNECT_MS_MAX = 5000,
    ASK_MS_MAX = 10000,           // for /v1/models
    ANSWER_BYTES_MAX = 1 << 20,   // of /v1/models
    SILENCE_S_MAX = 600,          // without a byte: a prompt may wait that long for its turn
    FILES_BESIDE_CONNECTIONS = 64 // of this process
};

struct transfer {
    struct bench_http *http;
    CURL *easy;
    char *body;
    int64_t number;
    struct bench_openai_stream stream;
    char refusal[BENCH_TEXT_BYTES_MAX]; // the body of an answer that is no stream
    size_t refusal_bytes;
    bool out_of_bounds; // the answer could not be kept
    struct transfer *next_free;
};

struct bench_http {
    struct bench_door door; // first, so that one is the other
    CURLM *multi;
    struct curl_slist *headers;
    char *url, *model;
    struct transfer **transfers; // [transfers_count], all that were ever needed
    int32_t transfers_count, transfers_room;
    struct transfer *free_transfers;
    struct bench_event *events; // a ring [events_room]
    int64_t events_first, events_count, events_room;
    bool out_of_memory; // where libcurl calls us, nothing else can be told
};

// ---- events ----

static struct bench_event *add_event(struct bench_http *http, enum bench_event_type type,
                                     int64_t number)
{
    static struct bench_event lost;
    if (http->events_count == http->events_room) {
        int64_t room = 2 * http->events_room + 256;
        struct bench_event *grown = calloc((size_t)room, sizeof *grown);
        if (grown == NULL) {
            http->out_of_memory = true;
            return &lost;
        }
        for (int64_t i = 0; i < http->events_count; i++)
            grown[i] = http->events[(http->events_first + i) % http->events_room];
        free(http->events);
        http->events = grown;
        http->events_first = 0;
        http->events_room = room;
    }
    int64_t at = (http->events_first + http->events_count++) % http->events_room;
    http->events[at] =
        (struct bench_event){.type = type, .number = number, .when_ns = clock_now_ns()};
    return &http->events[at];
}

static void add_failure(struct transfer *transfer, enum status status, const char *kind,
                        const char *text)
{
    struct bench_event *event = add_event(transfer->http, BENCH_EVENT_FAILED, transfer->number);
    event->status = status;
    snprintf(event->kind, sizeof event->kind, "%s", kind);
    snprintf(event->text, sizeof event->text, "%s", text);
}

static long http_code(const struct transfer *transfer)
{
    long code = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &code);
    return code;
}

static size_t on_bytes(char *bytes, size_t one, size_t count, void *argument)
{
    struct transfer *transfer = argument;
    int32_t tokens;
    (void)one; // always 1
    if (http_code(transfer) != 200) {
        size_t room = sizeof transfer->refusal - 1 - transfer->refusal_bytes;
        size_t kept = count < room ? count : room;
        memcpy(transfer->refusal + transfer->refusal_bytes, bytes, kept);
        transfer->refusal_bytes += kept;
        return count;
    }
    transfer->out_of_bounds = !bench_openai_feed(&transfer->stream, bytes, count);
    if (transfer->out_of_bounds)
        return 0;
    while (bench_openai_next(&transfer->stream, &tokens)) {
        if (tokens > 0)
            add_event(transfer->http, BENCH_EVENT_TOKENS, transfer->number)->tokens = tokens;
    }
    return count;
}

// ---- transfers ----

static void set_options(CURL *easy, const struct bench_http *http)
{
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, http->headers);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS_MAX);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
}

static struct transfer *open_transfer(struct bench_http *http)
{
    if (http->transfers_count == http->transfers_room) {
        int32_t room = 2 * http->transfers_room + 64;
        void *grown = realloc(http->transfers, (size_t)room * sizeof *http->transfers);
        if (grown == NULL)
            return NULL;
        http->transfers = grown;
        http->transfers_room = room;
    }
    struct transfer *transfer = calloc(1, sizeof *transfer);
    CURL *easy = curl_easy_init();
    if (transfer == NULL || easy == NULL) {
        free(transfer);
        curl_easy_cleanup(easy);
        return NULL;
    }
    *transfer = (struct transfer){.http = http, .easy = easy};
    set_options(easy, http);
    curl_easy_setopt(easy, CURLOPT_URL, http->url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)SILENCE_S_MAX);
    http->transfers[http->transfers_count++] = transfer;
    return transfer;
}

static struct transfer *take_transfer(struct bench_http *http)
{
    struct transfer *transfer = http->free_transfers;
    if (transfer == NULL)
        return open_transfer(http);
    http->free_transfers = transfer->next_free;
    return transfer;
}

static void give_back_transfer(struct transfer *transfer)
{
    bench_openai_stream_fini(&transfer->stream);
    free(transfer->body);
    transfer->body = NULL;
    transfer->next_free = transfer->http->free_transfers;
    transfer->http->free_transfers = transfer;
}

static enum status send_request(struct bench_door *door, const struct bench_request *request,
                                struct error *error)
{
    struct bench_http *http = (struct bench_http *)door;
    struct transfer *transfer = take_transfer(http);
    char *body = bench_openai_body(request, http->model);
    if (transfer == NULL || body == NULL) {
        free(body);
        return error_set(error, E_SYSTEM, "no memory for another request");
    }
    transfer->body = body;
    transfer->number = request->number;
    transfer->refusal_bytes = 0;
    transfer->out_of_bounds = false;
    bench_openai_stream_init(&transfer->stream);
    curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
    curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDS, body);
    if (curl_multi_add_handle(http->multi, transfer->easy) != CURLM_OK)
        return error_set(error, E_SYSTEM, "libcurl takes no further request");
    return OK;
}

// ---- ends ----

static enum status status_of_code(long code)
{
    if (code == 429)
        return E_OVERLOADED;
    return code >= 400 && code < 500 ? E_INPUT : E_FAILED;
}

static void end_transfer(struct transfer *transfer, CURLcode result)
{
    struct bench_openai_stream *stream = &transfer->stream;
    long code = http_code(transfer);
    if (transfer->out_of_bounds) {
        add_failure(transfer, E_LIMIT, "too long", "an event of the answer is too long");
    } else if (code != 0 && code != 200) {
        char kind[BENCH_KIND_BYTES_MAX];
        snprintf(kind, sizeof kind, "http %ld", code);
        transfer->refusal[transfer->refusal_bytes] = '\0';
        add_failure(transfer, status_of_code(code), kind, transfer->refusal);
    } else if (stream->failed) {
        add_failure(transfer, E_FAILED, "error in stream", stream->text);
    } else if (result != CURLE_OK) {
        add_failure(transfer, E_CONNECTION, "connection", curl_easy_strerror(result));
    } else if (!stream->done && !stream->finished) {
        add_failure(transfer, E_FAILED, "cut off", "the answer ended before its end");
    } else {
        add_event(transfer->http, BENCH_EVENT_DONE, transfer->number)->usage = stream->usage;
    }
}

static void gather_ends(struct bench_http *http)
{
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(http->multi, &left)) != NULL;) {
        struct transfer *transfer;
        CURLcode result = message->data.result;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
        end_transfer(transfer, result);
        curl_multi_remove_handle(http->multi, transfer->easy);
        give_back_transfer(transfer);
    }
}

static enum status next_event(struct bench_door *door, struct bench_event *out, int timeout_ms,
                              struct error *error)
{
    struct bench_http *http = (struct bench_http *)door;
    uint64_t end_ns = clock_now_ns() + (uint64_t)timeout_ms * CLOCK_NS_PER_MS;
    for (;;) {
        if (http->events_count > 0) {
            *out = http->events[http->events_first];
            http->events_first = (http->events_first + 1) % http->events_room;
            http->events_count--;
            return OK;
        }
        int running;
        CURLMcode result = curl_multi_perform(http->multi, &running);
        gather_ends(http);
        if (result != CURLM_OK || http->out_of_memory)
            return error_set(error, E_SYSTEM, "libcurl: %s",
                             http->out_of_memory ? "no memory" : curl_multi_strerror(result));
        uint64_t now_ns = clock_now_ns();
        if (http->events_count > 0)
            continue;
        if (now_ns >= end_ns)
            return error_set(error, E_TIMEOUT, "nothing came within %d ms", timeout_ms);
        curl_multi_poll(http->multi, NULL, 0, (int)((end_ns - now_ns) / CLOCK_NS_PER_MS), NULL);
    }
}

static void close_http(struct bench_door *door)
{
    struct bench_http *http = (struct bench_http *)door;
    for (int32_t i = 0; i < http->transfers_count; i++) {
        struct transfer *transfer = http->transfers[i];
        curl_multi_remove_handle(http->multi, transfer->easy);
        curl_easy_cleanup(transfer->easy);
        bench_openai_stream_fini(&transfer->stream);
        free(transfer->body);
        free(transfer);
    }
    curl_multi_cleanup(http->multi);
    curl_slist_free_all(http->headers);
    curl_global_cleanup();
    free(http->transfers);
    free(http->events);
    free(http->url);
    free(http->model);
    free(http);
}

// ---- the beginning ----

struct answer {
    char *bytes;
    size_t count;
};

static size_t on_answer(char *bytes, size_t one, size_t count, void *argument)
{
    struct answer *answer = argument;
    (void)one; // always 1
    char *grown = answer->count + count <= ANSWER_BYTES_MAX
                      ? realloc(answer->bytes, answer->count + count)
                      : NULL;
    if (grown == NULL)
        return 0;
    memcpy(grown + answer->count, bytes, count);
    answer->bytes = grown;
    answer->count += count;
    return count;
}

// Whether anybody is there, and the model's name if it was not given.
static enum status ask_model(struct bench_http *http, const struct bench_options *options,
                             struct error *error)
{
    struct answer answer = {.bytes = NULL};
    CURL *easy = curl_easy_init();
    char *url = bench_openai_url(options->url, "/v1/models");
    enum status status = OK;
    if (easy == NULL || url == NULL)
        status = error_set(error, E_SYSTEM, "no memory for a connection");
    CURLcode result = CURLE_OK;
    if (status == OK) {
        set_options(easy, http);
        curl_easy_setopt(easy, CURLOPT_URL, url);
        curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)ASK_MS_MAX);
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_answer);
        curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer);
        result = curl_easy_perform(easy);
    }
    if (result == CURLE_URL_MALFORMAT || result == CURLE_UNSUPPORTED_PROTOCOL)
        status =
            error_set(error, E_USAGE, "--url %s: %s", options->url, curl_easy_strerror(result));
    else if (result != CURLE_OK)
        status = error_set(error, E_CONNECTION, "no answer from %s: %s", url,
                           curl_easy_strerror(result));
    if (status == OK && http->model == NULL)
        http->model = bench_openai_first_model(answer.bytes, answer.count);
    curl_easy_cleanup(easy);
    free(answer.bytes);
    free(url);
    return status;
}

// A connection is a file: as many as this process may have.
static void raise_file_limit(const struct bench_options *options)
{
    struct rlimit limit;
    rlim_t wanted = FILES_BESIDE_CONNECTIONS;
    for (int32_t i = 0; i < options->concurrencies_count; i++) {
        rlim_t needed = (rlim_t)options->concurrencies[i] + FILES_BESIDE_CONNECTIONS;
        wanted = needed > wanted ? needed : wanted;
    }
    if (options->concurrencies_count == 0)
        wanted += (rlim_t)options->requests;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static enum status fill_headers(struct bench_http *http, const char *api_key, struct error *error)
{
    char key[1024] = "Authorization: Bearer ";
    size_t used = strlen(key);
    if (api_key != NULL && strlen(api_key) >= sizeof key - used)
        return error_set(error, E_USAGE, "--api-key is longer than %zu bytes",
                         sizeof key - used - 1);
    http->headers = curl_slist_append(NULL, "Content-Type: application/json");
    http->headers = curl_slist_append(http->headers, "Expect:");
    if (api_key != NULL) {
        strcpy(key + used, api_key);
        http->headers = curl_slist_append(http->headers, key);
    }
    return OK;
}

enum status bench_http_open(struct bench_door **out, const struct bench_options *options,
                            struct error *error)
{
    struct bench_http *http = calloc(1, sizeof *http);
    if (http == NULL)
        return error_set(error, E_SYSTEM, "no memory for a connection");
    http->door = (struct bench_door){.send = send_request, .next = next_event, .close = close_http};
    raise_file_limit(options);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    http->multi = curl_multi_init();
    http->url = bench_openai_url(options->url, "/v1/completions");
    http->model = options->model != NULL ? strdup(options->model) : NULL;
    enum status status = OK;
    if (http->multi == NULL || http->url == NULL)
        status = error_set(error, E_SYSTEM, "no memory for a connection");
    if (status == OK) {
        curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)BENCH_CONCURRENCY_MAX);
        status = fill_headers(http, options->api_key, error);
    }
    if (status == OK)
        status = ask_model(http, options, error);
    if (status != OK) {
        close_http(&http->door);
        return status;
    }
    *out = &http->door;
    return OK;
}
