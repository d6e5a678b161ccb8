// SPDX-License-Identifier: Apache-2.0
// openai_tools.c -- events of the parser become pieces of JSON, by hand as in openai_reply.c.
#include "coordinator/openai_tools.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/openai_json.h"

enum { ARGUMENTS_BYTES_MAX = 64 << 20 }; // of one call; an answer is bounded by its tokens

// ---- requests ----

static enum status bad_tool(struct openai_error *error, size_t index, const char *problem)
{
    return openai_error_of(error, "tools",
                           error_set(&error->error, E_INPUT, "tools[%zu]%s", index, problem));
}

static enum status check_tool(const json_t *tool, size_t index, struct openai_error *error)
{
    const json_t *type = json_object_get(tool, "type");
    const json_t *function = json_object_get(tool, "function");
    const json_t *name = json_object_get(function, "name");
    if (!json_is_object(tool))
        return bad_tool(error, index, ": accepted is an object");
    if (type == NULL || !json_is_string(type) || strcmp(json_string_value(type), "function") != 0)
        return bad_tool(error, index, ".type: accepted is \"function\"");
    if (!json_is_object(function))
        return bad_tool(error, index, ".function: accepted is an object");
    if (!json_is_string(name) || json_string_length(name) == 0)
        return bad_tool(error, index, ".function.name: accepted is a string that is not empty");
    if (json_string_length(name) > TOOL_CALLS_NAME_BYTES_MAX) {
        return openai_error_of(error, "tools",
                               error_set(&error->error, E_LIMIT,
                                         "tools[%zu].function.name has %zu bytes, accepted is up "
                                         "to %d",
                                         index, json_string_length(name),
                                         TOOL_CALLS_NAME_BYTES_MAX));
    }
    return OK;
}

enum status openai_tools_check(const json_t *tools, struct openai_error *error)
{
    size_t count = json_array_size(tools);
    if (!json_is_array(tools)) {
        return openai_error_of(
            error, "tools",
            error_set(&error->error, E_INPUT, "tools: accepted is an array of tools"));
    }
    if (count > OPENAI_TOOLS_MAX) {
        return openai_error_of(error, "tools",
                               error_set(&error->error, E_LIMIT,
                                         "tools has %zu tools, accepted is up to %d", count,
                                         OPENAI_TOOLS_MAX));
    }
    for (size_t i = 0; i < count; i++)
        TRY(check_tool(json_array_get(tools, i), i, error));
    return OK;
}

enum status openai_tools_choice(bool *none, const json_t *value, struct openai_error *error)
{
    const char *word = json_string_value(value);
    if (word != NULL && (strcmp(word, "none") == 0 || strcmp(word, "auto") == 0)) {
        *none = strcmp(word, "none") == 0;
        return OK;
    }
    if (json_is_object(value) || (word != NULL && strcmp(word, "required") == 0)) {
        return openai_error_of(
            error, "tool_choice",
            error_set(&error->error, E_UNSUPPORTED,
                      "tool_choice: %s is not served by this version; accepted is \"none\" or "
                      "\"auto\"",
                      word != NULL ? "\"required\"" : "a function by its name"));
    }
    return openai_error_of(
        error, "tool_choice",
        error_set(&error->error, E_INPUT, "tool_choice: accepted is \"none\" or \"auto\""));
}

// ---- calls ----

void openai_tools_init(struct openai_tools *tools, const struct openai_tools_wish *wish,
                       const char *id, bool is_stream)
{
    *tools = (struct openai_tools){
        .is_on = wish->tools != NULL, .one_only = wish->one_only, .is_stream = is_stream};
    snprintf(tools->head, sizeof tools->head, "call_%s", id);
    text_buffer_init(&tools->name, TOOL_CALLS_NAME_BYTES_MAX);
    text_buffer_init(&tools->arguments, ARGUMENTS_BYTES_MAX);
    if (tools->is_on)
        tool_calls_init(&tools->calls, wish->tools);
}

void openai_tools_fini(struct openai_tools *tools)
{
    if (tools->is_on)
        tool_calls_fini(&tools->calls);
    text_buffer_fini(&tools->name);
    text_buffer_fini(&tools->arguments);
    tools->is_on = false;
}

static enum status put(struct text_buffer *out, const char *text)
{
    return text_buffer_append_text(out, text, NULL);
}

// {"index":0,"id":"..","type":"function","function":{"name":"..","arguments":, the index in
// streams only.
static enum status put_head(const struct openai_tools *tools, struct text_buffer *out, int index,
                            const struct text_buffer *name)
{
    char text[OPENAI_TOOLS_HEAD_BYTES_MAX + 64];
    if (out->count > 0)
        TRY(put(out, ","));
    TRY(put(out, "{"));
    snprintf(text, sizeof text, "\"index\":%d,", index);
    if (tools->is_stream)
        TRY(put(out, text));
    snprintf(text, sizeof text,
             "\"id\":\"%s-%d\",\"type\":\"function\",\"function\":{\"name\":", tools->head, index);
    TRY(put(out, text));
    TRY(openai_json_string(out, name->bytes, name->count));
    return put(out, ",\"arguments\":");
}

static enum status put_begin(struct openai_tools *tools, struct text_buffer *out,
                             const struct tool_calls_event *event)
{
    tools->count++;
    tools->is_open = true;
    tools->name.count = tools->arguments.count = 0;
    TRY(text_buffer_append(&tools->name, event->bytes, event->count, NULL));
    if (!tools->is_stream)
        return OK;
    TRY(put_head(tools, out, event->index, &tools->name));
    return put(out, "\"\"}}");
}

static enum status put_arguments(struct openai_tools *tools, struct text_buffer *out,
                                 const struct tool_calls_event *event)
{
    char text[32];
    if (!tools->is_stream)
        return text_buffer_append(&tools->arguments, event->bytes, event->count, NULL);
    snprintf(text, sizeof text, "{\"index\":%d,", event->index);
    if (out->count > 0)
        TRY(put(out, ","));
    TRY(put(out, text));
    TRY(put(out, "\"function\":{\"arguments\":"));
    TRY(openai_json_string(out, event->bytes, event->count));
    return put(out, "}}");
}

static enum status put_end(struct openai_tools *tools, struct text_buffer *out,
                           const struct tool_calls_event *event)
{
    tools->is_open = !event->complete;
    tools->is_enough = tools->one_only;
    if (tools->is_stream)
        return OK;
    TRY(put_head(tools, out, event->index, &tools->name));
    TRY(openai_json_string(out, tools->arguments.bytes, tools->arguments.count));
    return put(out, "}}");
}

static enum status put_event(struct openai_tools *tools, struct text_buffer *content,
                             struct text_buffer *calls, const struct tool_calls_event *event)
{
    switch (event->kind) {
    case TOOL_CALLS_BEGIN: return put_begin(tools, calls, event);
    case TOOL_CALLS_ARGUMENTS: return put_arguments(tools, calls, event);
    case TOOL_CALLS_END: return put_end(tools, calls, event);
    default: return text_buffer_append(content, event->bytes, event->count, NULL);
    }
}

static enum status put_events(struct openai_tools *tools, struct text_buffer *content,
                              struct text_buffer *calls)
{
    for (size_t i = 0; i < tools->calls.event_count && !tools->is_enough; i++)
        TRY(put_event(tools, content, calls, &tools->calls.events[i]));
    return OK;
}

enum status openai_tools_feed(struct openai_tools *tools, struct text_buffer *content,
                              struct text_buffer *calls, const struct text_buffer *text, bool last)
{
    struct error ignored; // no memory: the status says it all
    if (!tools->is_on)
        return text_buffer_append(content, text->bytes, text->count, NULL);
    if (tools->is_enough)
        return OK;
    TRY(tool_calls_feed(&tools->calls, text->bytes, text->count, &ignored));
    TRY(put_events(tools, content, calls));
    if (!last)
        return OK;
    TRY(tool_calls_finish(&tools->calls, &ignored));
    return put_events(tools, content, calls);
}

const char *openai_tools_reason(const struct openai_tools *tools, const char *reason)
{
    bool calls = tools->count > 0 && !tools->is_open;
    return calls && strcmp(reason, "stop") == 0 ? "tool_calls" : reason;
}
