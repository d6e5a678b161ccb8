// SPDX-License-Identifier: Apache-2.0
// pretokenize.c -- the families' regular expressions in PCRE2's spelling; see pretokenize.h.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "coordinator/text/pretokenize.h"

#include <pcre2.h>
#include <stdint.h>
#include <string.h>

// Letters, marks and numbers of Unicode 15 and 16, which Hugging Face's engine knows and PCRE2
// 10.42 (Unicode 14, in Debian 12 and Ubuntu 24.04) does not; named twice where PCRE2 is newer.
#define NEW_L                                                                                      \
    "\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}"               \
    "\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}"         \
    "\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}"           \
    "\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}"          \
    "\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}"                    \
    "\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}"                     \
    "\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}"          \
    "\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NEW_M                                                                                      \
    "\\x{897}\\x{cf3}\\x{ece}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}\\x{11241}"                 \
    "\\x{113b8}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113d0}"          \
    "\\x{113d2}\\x{113e1}-\\x{113e2}\\x{11f00}-\\x{11f01}\\x{11f03}\\x{11f34}-\\x{11f3a}"          \
    "\\x{11f3e}-\\x{11f42}\\x{11f5a}\\x{13440}\\x{13447}-\\x{13455}\\x{1611e}-\\x{1612f}"          \
    "\\x{1e08f}\\x{1e4ec}-\\x{1e4ef}\\x{1e5ee}-\\x{1e5ef}"
#define NEW_N                                                                                      \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}"         \
    "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}"         \
    "\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"

// \s of the original, without U+180E, which PCRE2 still takes for a space.
#define SPACE    "\\p{White_Space}"
#define NO_SPACE "\\P{White_Space}"
#define LETTERS  "\\p{L}" NEW_L
#define MARKS    "\\p{M}" NEW_M
#define NUMBERS  "\\p{N}" NEW_N

// The pieces: an English contraction, a word with the one sign before it, a digit, a run of signs
// with the line ends after it, line ends, and spaces (the last of them goes with what follows).
#define PIECES(word, word_letters)                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n" LETTERS NUMBERS "]?[" word "]+|[" NUMBERS "]|"         \
    " ?[^" SPACE word_letters NUMBERS "]+[\\r\\n]*|" SPACE "*[\\r\\n]+|" SPACE "+(?!" NO_SPACE     \
    ")|" SPACE "+"

static const struct family {
    const char *name, *regex, *pattern;
} families[] = {
    {"qwen3.5",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
     " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     PIECES(LETTERS MARKS, LETTERS MARKS)},
    {"qwen2",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
     " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     PIECES(LETTERS, LETTERS)},
};

static enum status pcre2_failed(struct error *error, enum status status, const char *what, int code)
{
    PCRE2_UCHAR words[128] = "";
    pcre2_get_error_message(code, words, sizeof words);
    return error_set(error, status, "%s: PCRE2 says: %s", what, (const char *)words);
}

enum status pretokenize_init(struct pretokenize *pretokenize, const char *regex,
                             struct error *error)
{
    *pretokenize = (struct pretokenize){0};
    const struct family *family = NULL;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (strcmp(regex, families[i].regex) == 0)
            family = &families[i];
    }
    if (family == NULL)
        return error_set(error, E_UNSUPPORTED,
                         "the regular expression \"%.300s\" is not that of a known family", regex);
    int code;
    PCRE2_SIZE offset;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)family->pattern, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP, &code, &offset, NULL);
    if (compiled == NULL)
        return pcre2_failed(error, E_SYSTEM, "compiling the pre-tokenizer's expression", code);
    // Where the system forbids executable memory this fails and matching is interpreted: slower,
    // with the same result.
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
    pretokenize->code = compiled;
    pretokenize->family = family->name;
    return OK;
}

void pretokenize_fini(struct pretokenize *pretokenize)
{
    pcre2_code_free(pretokenize->code);
    *pretokenize = (struct pretokenize){0};
}

enum status pretokenize_scratch_init(struct pretokenize_scratch *scratch, struct error *error)
{
    scratch->match = pcre2_match_data_create(1, NULL);
    scratch->context = pcre2_match_context_create(NULL);
    scratch->stack = pcre2_jit_stack_create((size_t)32 << 10, (size_t)1 << 20, NULL);
    if (scratch->match == NULL || scratch->context == NULL) {
        pretokenize_scratch_fini(scratch);
        return error_set(error, E_SYSTEM, "out of memory for a PCRE2 match");
    }
    if (scratch->stack != NULL)
        pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
    // The expressions take linear time, so the text's limit is limit enough; PCRE2's default of
    // ten million steps would refuse a long run of spaces.
    pcre2_set_match_limit(scratch->context, UINT32_MAX);
    return OK;
}

void pretokenize_scratch_fini(struct pretokenize_scratch *scratch)
{
    pcre2_jit_stack_free(scratch->stack);
    pcre2_match_context_free(scratch->context);
    pcre2_match_data_free(scratch->match);
    *scratch = (struct pretokenize_scratch){0};
}

enum status pretokenize_next(const struct pretokenize *pretokenize,
                             struct pretokenize_scratch *scratch, const char *text, size_t bytes,
                             size_t *at, struct error *error)
{
    const size_t start = *at;
    const int matches = pcre2_match(pretokenize->code, (PCRE2_SPTR)text, bytes, start,
                                    PCRE2_NO_UTF_CHECK, scratch->match, scratch->context);
    if (matches == PCRE2_ERROR_NOMATCH) {
        *at = bytes;
        return OK;
    }
    if (matches < 0)
        return pcre2_failed(error, E_SYSTEM, "cutting text into pieces", matches);
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(scratch->match);
    *at = place[0] > start ? place[0] : place[1];
    ASSERT(*at > start && *at <= bytes);
    return OK;
}
