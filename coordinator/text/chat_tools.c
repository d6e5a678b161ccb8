// SPDX-License-Identifier: Apache-2.0
// chat_tools.c -- tools and tool calls as the chat template writes them; see chat_tools.h.
#include "coordinator/text/chat_tools.h"

#include <stdint.h>
#include <string.h>

#include "coordinator/text/python_json.h"

static const char instructions_text[] =
    "\n</tools>\n\n"
    "If you choose to call a function ONLY reply in the following format with NO suffix:\n\n"
    "<tool_call>\n<function=example_function_name>\n"
    "<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nThis is the value for the second parameter\n"
    "that can span\nmultiple lines\n</parameter>\n</function>\n</tool_call>\n\n"
    "<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: an inner <function=...></function> block "
    "must be nested within <tool_call></tool_call> XML tags\n"
    "- Required parameters MUST be specified\n"
    "- You may provide optional reasoning for your function call in natural language BEFORE the "
    "function call, but NOT after\n"
    "- If there is no function call available, answer the question like normal with your current "
    "knowledge and do not tell the user about function calls\n</IMPORTANT>";

enum status chat_tools_append_definitions(struct text_buffer *out, const json_t *tools,
                                          struct error *error)
{
    TRY(text_buffer_append_text(
        out, "# Tools\n\nYou have access to the following functions:\n\n<tools>", error));
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *tool = json_array_get(tools, i);
        if (!json_is_object(tool))
            return error_set(error, E_INPUT, "tools[%zu]: not an object", i);
        TRY(text_buffer_append(out, "\n", 1, error));
        TRY(python_json_append(out, tool, error));
    }
    return text_buffer_append_text(out, instructions_text, error);
}

// The object that holds a call's name and arguments.
static const json_t *function_of(const json_t *call)
{
    const json_t *function = json_object_get(call, "function");
    return function != NULL ? function : call;
}

// The arguments as an object of the caller's to release; NULL where they are none. Clients send
// the JSON text that they were given, "" where the function takes nothing.
static json_t *arguments_of(const json_t *function)
{
    json_t *arguments = json_object_get(function, "arguments");
    if (arguments == NULL || json_is_null(arguments) ||
        (json_is_string(arguments) && json_string_length(arguments) == 0))
        return json_object();
    if (json_is_string(arguments))
        return json_loadb(json_string_value(arguments), json_string_length(arguments),
                          JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    return json_incref(arguments);
}

static enum status check_call(const json_t *call, size_t index, size_t call_index,
                              struct error *error)
{
    const json_t *function = function_of(call);
    if (!json_is_object(function))
        return error_set(error, E_INPUT,
                         "messages[%zu].tool_calls[%zu]: not an object with a \"function\"", index,
                         call_index);
    if (!json_is_string(json_object_get(function, "name")))
        return error_set(error, E_INPUT,
                         "messages[%zu].tool_calls[%zu].function.name: not a string", index,
                         call_index);
    json_t *arguments = arguments_of(function);
    const bool right = json_is_object(arguments);
    json_decref(arguments);
    if (!right)
        return error_set(error, E_INPUT,
                         "messages[%zu].tool_calls[%zu].function.arguments: not an object or the "
                         "JSON text of one",
                         index, call_index);
    return OK;
}

enum status chat_tools_check_calls(const json_t *calls, size_t index, struct error *error)
{
    if (calls == NULL || json_is_null(calls))
        return OK;
    if (!json_is_array(calls))
        return error_set(error, E_INPUT, "messages[%zu].tool_calls: not a list", index);
    for (size_t i = 0; i < json_array_size(calls); i++)
        TRY(check_call(json_array_get(calls, i), index, i, error));
    return OK;
}

static enum status append_arguments(struct text_buffer *out, json_t *arguments, bool json_scalars,
                                    struct error *error)
{
    const char *name;
    json_t *value;
    json_object_foreach(arguments, name, value)
    {
        TRY(text_buffer_append_text(out, "<parameter=", error));
        TRY(text_buffer_append_text(out, name, error));
        TRY(text_buffer_append(out, ">\n", 2, error));
        if (json_scalars && !json_is_string(value))
            TRY(python_json_append(out, value, error));
        else
            TRY(python_json_append_str(out, value, error));
        TRY(text_buffer_append_text(out, "\n</parameter>\n", error));
    }
    return OK;
}

static enum status append_call(struct text_buffer *out, const json_t *function, bool json_scalars,
                               struct error *error)
{
    const json_t *name = json_object_get(function, "name");
    TRY(text_buffer_append_text(out, "<tool_call>\n<function=", error));
    TRY(text_buffer_append(out, json_string_value(name), json_string_length(name), error));
    TRY(text_buffer_append(out, ">\n", 2, error));
    json_t *arguments = arguments_of(function);
    if (arguments == NULL)
        return error_set(error, E_SYSTEM, "out of memory for a call's arguments");
    const enum status status = append_arguments(out, arguments, json_scalars, error);
    json_decref(arguments);
    TRY(status);
    return text_buffer_append_text(out, "</function>\n</tool_call>", error);
}

enum status chat_tools_append_calls(struct text_buffer *out, const json_t *calls, bool after_text,
                                    bool json_scalars, struct error *error)
{
    for (size_t i = 0; i < json_array_size(calls); i++) {
        if (i > 0)
            TRY(text_buffer_append(out, "\n", 1, error));
        else if (after_text)
            TRY(text_buffer_append(out, "\n\n", 2, error));
        TRY(append_call(out, function_of(json_array_get(calls, i)), json_scalars, error));
    }
    return OK;
}
