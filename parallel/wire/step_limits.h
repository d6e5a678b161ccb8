// SPDX-License-Identifier: Apache-2.0
// step_limits.h -- how large a step plan and its report may be. Clients' fields have some of these
// limits too.
#pragma once

enum {
    STEP_ROWS_MAX = 1024,
    STEP_VERIFY_MAX = 6,
    STEP_STOP_IDS_MAX = 16,
    STEP_SAVES_MAX = 4, // checkpoints that a prefill row leaves
    STEP_PREFILL_TOKENS_MAX = 65536,
    // Of a prefill row behind the prompt: tokens drawn before a preemption. Divides 64.
    STEP_REPLAY_TOKENS_MAX = 16,
    STEP_PAGE_IDS_MAX = 32768,
    STEP_LISTS_MAX = 65536, // numbers of all requests' lists in one plan
    STEP_BIASES_MAX = 300,
    STEP_ALLOWED_MAX = 1024,
    STEP_WORDS_MAX = 512, // numbers of one request's banned words: each its length, then its ids
    STEP_WORD_TOKENS_MAX = 8,
    STEP_RECENT_MAX = STEP_WORD_TOKENS_MAX - 1,
    STEP_LOGPROBS_TOP_MAX = 20,      // alternatives told beside a token
    STEP_PROMPT_LOGPROBS_MAX = 2048, // prompt tokens of a step whose log-probabilities are told
    STEP_LOGPROB_MIN = -9999,        // as vLLM's
    STEP_LOGPROBS_MAX = 8192,        // of a report: those, and every token that a step can draw
};
