// SPDX-License-Identifier: Apache-2.0
// door_metrics.c -- tables of names, and one writer for each kind of line.
#include "coordinator/door_metrics.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// One page under way; the first failure stays.
struct page {
    struct text_buffer *out;
    const char *model; // label value, escaped
    enum status status;
};

struct counter {
    const char *name, *help;
    uint64_t value;
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

static void put_histogram(struct page *page, const struct figure_form *form,
                          const struct figure *figure)
{
    uint64_t sum = 0;
    put_head(page, form->name, "histogram", form->help);
    for (int i = 0; i < form->bounds_count; i++) {
        sum += figure->counts[i];
        put(page, "%s_bucket{model_name=\"%s\",le=\"%.9g\"} %llu\n", form->name, page->model,
            form->bounds[i], (unsigned long long)sum);
    }
    put(page, "%s_bucket{model_name=\"%s\",le=\"+Inf\"} %llu\n", form->name, page->model,
        (unsigned long long)figure->count);
    put(page, "%s_sum{model_name=\"%s\"} %.9g\n", form->name, page->model, figure->sum);
    put(page, "%s_count{model_name=\"%s\"} %llu\n", form->name, page->model,
        (unsigned long long)figure->count);
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
        {"vllm:num_preemptions_total", "counter", "requests that lost their pages for a while",
         (double)status->preemptions},
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
        {"deltamesh:draft_vocab", "gauge", "drafts are token ids below this one; 0: any",
         status->draft_vocab},
        {"deltamesh:requests_preempted", "gauge", "preempted requests that wait to go on",
         status->preempted},
        {"deltamesh:requests_timeout_total", "counter", "requests that their time has ended",
         (double)status->timeouts},
        {"deltamesh:draining", "gauge", "1 once no new requests are taken", status->draining},
        {"deltamesh:steps_total", "counter", "steps done", (double)status->steps},
        {"deltamesh:epochs_total", "counter", "lives of groups begun", (double)status->epochs},
        {"deltamesh:requests_done_total", "counter", "requests of all doors that ended well",
         (double)status->requests_done},
        {"deltamesh:requests_failed_total", "counter", "requests of all doors that failed",
         (double)status->requests_failed},
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        put_value(page, values[i].name, values[i].kind, values[i].help, values[i].value);
}

static void put_counters(struct page *page, const struct counter *counters, size_t count)
{
    for (size_t i = 0; i < count; i++)
        put_value(page, counters[i].name, "counter", counters[i].help, (double)counters[i].value);
}

// Prefix reuse, and how the cache is laid out.
static void put_prefix(struct page *page, const struct coord_status *status)
{
    const struct counter counters[] = {
        {"vllm:prefix_cache_queries_total", "prompt tokens looked up", status->prefix_queries},
        {"vllm:prefix_cache_hits_total", "of them found", status->prefix_hits},
        {"deltamesh:kv_pages_evicted_total", "cached pages given up", status->prefix_pages_evicted},
        {"deltamesh:checkpoints_saved_total", "checkpoints of recurrent state saved",
         status->prefix_checkpoints_saved},
        {"deltamesh:checkpoints_evicted_total", "of them given up",
         status->prefix_checkpoints_evicted},
    };
    put_counters(page, counters, sizeof counters / sizeof counters[0]);
    put_value(page, "deltamesh:kv_pages_cached", "gauge", "of the free pages: of use to prompts",
              status->pages_cached);
    put_value(page, "deltamesh:checkpoints", "gauge", "places for checkpoints",
              status->checkpoints);
    put_value(page, "deltamesh:checkpoints_free", "gauge", "of them free",
              status->checkpoints_free);
    put_head(page, "vllm:cache_config_info", "gauge", "how the KV cache is laid out; always 1");
    put(page,
        "vllm:cache_config_info{model_name=\"%s\",block_size=\"%d\",num_gpu_blocks=\"%d\","
        "enable_prefix_caching=\"%s\"} 1\n",
        page->model, TOKENS_PER_PAGE, status->pages, status->checkpoints > 0 ? "True" : "False");
}

static void put_drafts(struct page *page, const struct coord_drafts *drafts)
{
    static const char by_position[] = "vllm:spec_decode_num_accepted_tokens_per_pos_total";
    uint64_t accepted = 0;
    for (int i = 0; i < STEP_VERIFY_MAX - 1; i++)
        accepted += drafts->accepted[i];
    const struct counter counters[] = {
        {"vllm:spec_decode_num_drafts_total", "times that a row verified drafts", drafts->rows},
        {"vllm:spec_decode_num_draft_tokens_total", "tokens drafted", drafts->drafted},
        {"vllm:spec_decode_num_accepted_tokens_total", "of them accepted", accepted},
    };
    put_counters(page, counters, sizeof counters / sizeof counters[0]);
    put_head(page, by_position, "counter", "drafts accepted, by their place in the row");
    for (int i = 0; i < STEP_VERIFY_MAX - 1; i++) {
        put(page, "%s{model_name=\"%s\",position=\"%d\"} %llu\n", by_position, page->model, i,
            (unsigned long long)drafts->accepted[i]);
    }
}

static void put_figures(struct page *page, const struct figures *figures)
{
    put_head(page, "vllm:request_success_total", "counter", "requests by their end");
    for (int i = 0; i < FIGURE_REASONS; i++) {
        put(page, "vllm:request_success_total{model_name=\"%s\",finished_reason=\"%s\"} %llu\n",
            page->model, figure_reasons[i], (unsigned long long)figures->ended[i]);
    }
    for (int i = 0; i < FIGURE_KINDS; i++)
        put_histogram(page, &figure_forms[i], &figures->kinds[i]);
}

static void put_door(struct page *page, const struct door_metrics *metrics)
{
    const struct counter counters[] = {
        {"deltamesh:http_requests_total", "HTTP requests", metrics->http_requests},
        {"deltamesh:http_errors_total", "HTTP answers of 400 and more", metrics->http_errors},
        {"deltamesh:http_clients_left_total", "requests whose client left before their end",
         metrics->clients_left},
        {"deltamesh:http_clients_slow_total", "requests cut off since their client did not read",
         metrics->clients_slow},
    };
    put_counters(page, counters, sizeof counters / sizeof counters[0]);
}

// A line for every group, or for every rank of it.
static void put_groups(struct page *page, const struct overview *overview)
{
    put_head(page, "deltamesh:group_epoch", "gauge", "which life of its own a group lives");
    for (int g = 0; g < overview->groups_count; g++) {
        put(page, "deltamesh:group_epoch{model_name=\"%s\",group=\"%d\"} %llu\n", page->model, g,
            (unsigned long long)overview->groups[g].epoch);
    }
    put_head(page, "deltamesh:rank_step", "gauge", "last step that a rank has done");
    for (int g = 0; g < overview->groups_count; g++) {
        const struct coord_group_status *group = &overview->groups[g];
        for (int r = 0; r < group->ranks_count; r++) {
            put(page, "deltamesh:rank_step{model_name=\"%s\",group=\"%d\",rank=\"%d\"} %llu\n",
                page->model, g, r, (unsigned long long)group->ranks[r].step_done);
        }
    }
}

enum status door_metrics_write(struct text_buffer *out, const struct door_metrics *metrics,
                               const struct overview *overview, const char *model_name)
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
    put_core(&page, &overview->status);
    put_groups(&page, overview);
    put_prefix(&page, &overview->status);
    put_drafts(&page, &overview->status.drafts);
    put_figures(&page, &overview->figures);
    put_door(&page, metrics);
    return page.status;
}
