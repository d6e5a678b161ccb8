// SPDX-License-Identifier: Apache-2.0
// tokenizer_tables.h -- fills a tokenizer's tables from the three long members of a tokenizer.json:
// vocabulary, merges, added tokens. Which file they come from and whether its pipeline is one we
// serve is tokenizer_load.c's business.
#pragma once

#include <jansson.h>

#include "coordinator/text/json_scan.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/vocabulary.h"
#include "parallel/base/status.h"

// Reads the vocabulary, an object of text: id at the scan's place, into `vocabulary` (inited) and
// sets base_count. E_INPUT: an id is missing (a hole), or an id or text comes twice.
MUST_CHECK enum status tokenizer_tables_read_vocabulary(struct tokenizer *tokenizer,
                                                        struct vocabulary *vocabulary,
                                                        struct json_scan *scan);

// Reads the merges, an array of "a b" or ["a", "b"] in order of rank, and sets tokenizer->bpe.
// E_INPUT: a merge names or makes a token that the vocabulary lacks, or a byte has no token.
MUST_CHECK enum status tokenizer_tables_read_merges(struct tokenizer *tokenizer,
                                                    const struct vocabulary *vocabulary,
                                                    struct json_scan *scan);

// Adds the tokens of the added_tokens array to vocabulary and tokenizer, then, ids now being
// complete, sets id_count, what each id decodes to, and which are special.
// E_INPUT: an id is not the next one, or not the one the vocabulary gives that content.
MUST_CHECK enum status tokenizer_tables_finish(struct tokenizer *tokenizer,
                                               struct vocabulary *vocabulary, const json_t *added,
                                               const char *name, struct error *error);
