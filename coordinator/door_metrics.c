// SPDX-License-Identifier: Apache-2.0
// door_metrics.c -- tables of names, and one writer for each kind.
#include "coordinator/door_metrics.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const reasons[DOOR_METRICS_REASONS] = {"stop", "length", "abort", "error"};

// Upper bounds in seconds, the last one +Inf. First tokens and ends: 1 ms to 160 s by doubling,
// with halves between; tokens: 0.5 ms on.
static const double bounds[DOOR_METRICS_TIMES][DOOR_METRICS_BUCKETS_MAX] = {
    {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
     1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560},
    {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
     0.3,    0.4,   0.5,    0.75,  1,    2.5,   5,    7.5,   10,  20,   40},
    {0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,
     10,   15,   20,  30,  40,  50,  60, 120, 240, 480, 960},
};
enum { BOUNDS = 22 };

static const struct {
    const char *name, *help;
} times[DOOR_METRICS_TIMES] = {
    {"vllm:time_to_first_token_seconds", "arrival to first token, requests of this door"},
    {"vllm:inter_token_latency_seconds", "time per token after the first, requests of this door"},
    {"vllm:e2e_request_latency_seconds", "arrival to end, requests of this door"},
};

void door_metrics_observe(struct door_metrics *metrics, enum door_metrics_time time,
                          uint64_t duration_ns, uint64_t times_over)
{
    struct door_metrics_histogram *histogram = &metrics->times[time];
    double duration_s = (double)duration_ns * 1e-9;
    int bucket = 0;
    while (bucket < BOUNDS && duration_s > bounds[time][bucket])
        bucket++;
    histogram->counts[bucket] += times_over;
    histogram->count += times_over;
    histogram->sum_s += duration_s * (double)times_over;
}

void door_metrics_end(struct door_metrics *metrics, const char *reason)
{
    int index = DOOR_METRICS_REASONS - 1;
    for (int i = 0; reason != NULL && i < DOOR_METRICS_REASONS; i++) {
        if (strcmp(reasons[i], reason) == 0)
            index = i;
    }
    metrics->ended[index]++;
}

// One page under way; the first failure stays.
struct page {
    struct text_buffer *out;
    const char *model; // label value, escaped
    enum status status;
};

static void put(struct page *page, const char *format, ...) PRINTF_LIKE(2, 3);
static void put(struct page *page, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (page->status == OK)
        page->status = text_buffer_append_text(page->out, line, NULL);
}

static void put_head(struct page *page, const char *name, const char *kind, const char *help)
{
    put(page, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

static void put_value(struct page *page, const char *name, const char *kind, const char *help,
                      double value)
{
    put_head(page, name, kind, help);
    put(page, "%s{model_name=\"%s\"} %.17g\n", name, page->model, value);
}

static void put_histogram(struct page *page, const struct door_metrics *metrics, int time)
{
    const struct door_metrics_histogram *histogram = &metrics->times[time];
    const char *name = times[time].name;
    uint64_t sum = 0;
    put_head(page, name, "histogram", times[time].help);
    for (int i = 0; i < BOUNDS; i++) {
        sum += histogram->counts[i];
        put(page, "%s_bucket{model_name=\"%s\",le=\"%g\"} %llu\n", name, page->model,
            bounds[time][i], (unsigned long long)sum);
    }
    put(page, "%s_bucket{model_name=\"%s\",le=\"+Inf\"} %llu\n", name, page->model,
        (unsigned long long)histogram->count);
    put(page, "%s_sum{model_name=\"%s\"} %.9g\n", name, page->model, histogram->sum_s);
    put(page, "%s_count{model_name=\"%s\"} %llu\n", name, page->model,
        (unsigned long long)histogram->count);
}

static void put_core(struct page *page, const struct coord_status *status)
{
    double pages = status->pages > 0 ? status->pages : 1;
    const struct {
        const char *name, *kind, *help;
        double value;
    } values[] = {
        {"vllm:num_requests_running", "gauge", "requests that hold a slot", status->running},
        {"vllm:num_requests_waiting", "gauge", "requests that wait for a slot", status->queued},
        {"vllm:kv_cache_usage_perc", "gauge", "share of KV pages in use, 0 to 1",
         status->pages > 0 ? 1 - status->pages_free / pages : 0},
        {"vllm:prompt_tokens_total", "counter", "prompt tokens accepted",
         (double)status->tokens_in},
        {"vllm:generation_tokens_total", "counter", "tokens drawn", (double)status->tokens_out},
        {"deltamesh:state_slots", "gauge", "recurrent-state slots", status->slots},
        {"deltamesh:state_slots_free", "gauge", "recurrent-state slots free", status->slots_free},
        {"deltamesh:kv_pages", "gauge", "KV pages of 64 tokens", status->pages},
        {"deltamesh:kv_pages_free", "gauge", "KV pages free", status->pages_free},
        {"deltamesh:groups", "gauge", "tensor-parallel groups", status->groups},
        {"deltamesh:groups_ready", "gauge", "groups that serve", status->groups_ready},
        {"deltamesh:queued_max", "gauge", "requests that may wait", status->queued_max},
        {"deltamesh:draining", "gauge", "1 once no new requests are taken", status->draining},
        {"deltamesh:steps_total", "counter", "steps done", (double)status->steps},
        {"deltamesh:requests_done_total", "counter", "requests of all doors that ended well",
         (double)status->requests_done},
        {"deltamesh:requests_failed_total", "counter", "requests of all doors that failed",
         (double)status->requests_failed},
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        put_value(page, values[i].name, values[i].kind, values[i].help, values[i].value);
}

static void put_door(struct page *page, const struct door_metrics *metrics)
{
    put_head(page, "vllm:request_success_total", "counter", "answers of this door by their end");
    for (int i = 0; i < DOOR_METRICS_REASONS; i++) {
        put(page, "vllm:request_success_total{model_name=\"%s\",finished_reason=\"%s\"} %llu\n",
            page->model, reasons[i], (unsigned long long)metrics->ended[i]);
    }
    const struct {
        const char *name, *help;
        uint64_t value;
    } values[] = {
        {"vllm:prefix_cache_queries_total", "prompt tokens that were looked up, ended requests",
         metrics->prompt_tokens},
        {"vllm:prefix_cache_hits_total", "of them found, ended requests", metrics->cached_tokens},
        {"vllm:spec_decode_num_draft_tokens_total", "tokens drafted, ended requests",
         metrics->drafted_tokens},
        {"vllm:spec_decode_num_accepted_tokens_total", "of them accepted, ended requests",
         metrics->accepted_tokens},
        {"deltamesh:http_requests_total", "HTTP requests", metrics->http_requests},
        {"deltamesh:http_errors_total", "HTTP answers of 400 and more", metrics->http_errors},
        {"deltamesh:http_clients_left_total", "requests whose client left before their end",
         metrics->clients_left},
        {"deltamesh:http_clients_slow_total", "requests cut off since their client did not read",
         metrics->clients_slow},
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        put_value(page, values[i].name, "counter", values[i].help, (double)values[i].value);
}

enum status door_metrics_write(struct text_buffer *out, const struct door_metrics *metrics,
                               const struct coord_status *status, const char *model_name)
{
    char model[256];
    size_t count = 0;
    for (; *model_name != '\0' && count + 3 < sizeof model; model_name++) {
        if (*model_name == '"' || *model_name == '\\')
            model[count++] = '\\';
        model[count++] = *model_name == '\n' ? ' ' : *model_name;
    }
    model[count] = '\0';
    struct page page = {.out = out, .model = model, .status = OK};
    put_core(&page, status);
    put_door(&page, metrics);
    for (int i = 0; i < DOOR_METRICS_TIMES; i++)
        put_histogram(&page, metrics, i);
    return page.status;
}
