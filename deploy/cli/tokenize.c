// SPDX-License-Identifier: Apache-2.0
// tokenize.c -- stdin to stdout through the text library, a line at a time.
#include "deploy/cli/tokenize.h"

#include <stdio.h>

#include "coordinator/text/text_buffer.h"
#include "coordinator/text/tokenize_lines.h"
#include "coordinator/text/tokenizer.h"
#include "deploy/cli/lines.h"
#include "deploy/cli/output.h"
#include "parallel/base/options.h"

static enum status answer_lines(const struct tokenizer *tokenizer, struct error *error)
{
    struct lines lines;
    struct text_buffer out;
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(tokenizer);
    enum status status = OK;
    text_buffer_init(&out, TOKENIZE_LINES_BYTES_MAX);
    if (scratch == NULL)
        status = error_set(error, E_SYSTEM, "no memory for the tokenizer's scratch");
    else
        status = lines_open(&lines, "-", error);
    while (status == OK) {
        const char *line;
        size_t bytes;
        status = lines_next(&lines, true, &line, &bytes, error);
        if (status != OK || line == NULL)
            break;
        out.count = 0;
        status = tokenize_lines_answer(&out, tokenizer, scratch, line, bytes, error);
        if (status == OK) {
            fwrite(out.bytes, 1, out.count, stdout);
            status = output_flush(error);
        }
    }
    if (scratch != NULL)
        lines_close(&lines);
    text_buffer_fini(&out);
    tokenizer_scratch_free(scratch);
    return status;
}

enum status tokenize_run(int count, char *const *words, struct error *error)
{
    const char *model = NULL;
    bool help = false;
    struct option options[] = {
        {"--model", NULL, OPTION_TEXT, &model, 0, 0, "DIR", "the model directory", NULL},
        {"--help", "-h", OPTION_FLAG, &help, 0, 0, NULL, "print this help", NULL},
    };
    enum { OPTIONS_COUNT = sizeof options / sizeof options[0] };
    TRY(options_parse(options, OPTIONS_COUNT, count, words, error));
    if (help) {
        printf("usage: deltamesh tokenize --model DIR\n\n"
               "Answers each JSON line of stdin: {\"text\": ..} with {\"ids\": [..]}, {\"ids\": "
               "[..]} with\n"
               "{\"text\": ..}, {\"messages\": [..]} with both.\n\n");
        options_print(stdout, options, OPTIONS_COUNT);
        return OK;
    }
    if (model == NULL)
        return error_set(error, E_USAGE, "--model DIR is needed; see --help");
    struct tokenizer tokenizer;
    TRY(tokenizer_load(&tokenizer, model, error));
    enum status status = answer_lines(&tokenizer, error);
    tokenizer_fini(&tokenizer);
    return status;
}
