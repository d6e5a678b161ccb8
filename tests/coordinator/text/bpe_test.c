// SPDX-License-Identifier: Apache-2.0
// bpe_test.c -- both ways of merging, on thousands of random tables and pieces, against the rule
// told plainly: always the merge of least rank, leftmost first.
#include "coordinator/text/bpe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOKENS_MAX = 80, TEXT_MAX = 12, PIECE_MAX = 400 };

// Tokens as texts: an id is an index, 0 .. letters-1 are single bytes 'a', 'b', ...
struct table {
    char texts[TOKENS_MAX][TEXT_MAX + 1];
    uint32_t count;
    struct bpe_merge merges[TOKENS_MAX * 2];
    uint32_t merge_count;
    struct bpe bpe;
};

static uint64_t random_state;

static uint32_t random_below(uint32_t end)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % end);
}

static uint32_t id_of(const struct table *table, const char *text)
{
    for (uint32_t i = 0; i < table->count; i++) {
        if (strcmp(table->texts[i], text) == 0)
            return i;
    }
    return UINT32_MAX;
}

// Random merges of random tokens; several may make the same token, as in real files.
static void make_table(struct table *table, uint32_t letters, uint32_t merges)
{
    memset(table, 0, sizeof *table);
    for (; table->count < letters; table->count++)
        table->texts[table->count][0] = (char)('a' + table->count);
    while (table->merge_count < merges) {
        const uint32_t left = random_below(table->count), right = random_below(table->count);
        char text[2 * TEXT_MAX + 1];
        snprintf(text, sizeof text, "%s%s", table->texts[left], table->texts[right]);
        merges -= strlen(text) > TEXT_MAX ? 1 : 0;
        if (strlen(text) > TEXT_MAX)
            continue;
        uint32_t id = id_of(table, text);
        if (id == UINT32_MAX) {
            id = table->count++;
            memcpy(table->texts[id], text, strlen(text) + 1);
        }
        table->merges[table->merge_count] = (struct bpe_merge){left, right, table->merge_count, id};
        table->merge_count++;
    }
    assert_int_equal(bpe_init(&table->bpe, table->merge_count, NULL), OK);
    for (uint32_t i = 0; i < table->merge_count; i++)
        bpe_add(&table->bpe, table->merges[i]);
    for (uint32_t i = 0; i < 256; i++)
        table->bpe.byte_ids[i] = i >= 'a' && i < 'a' + letters ? i - 'a' : 0;
}

// The last merge in the list that has this pair, as the table keeps it.
static const struct bpe_merge *find(const struct table *table, uint32_t left, uint32_t right)
{
    for (uint32_t i = table->merge_count; i-- > 0;) {
        if (table->merges[i].left == left && table->merges[i].right == right)
            return &table->merges[i];
    }
    return NULL;
}

static size_t encode_plainly(const struct table *table, const char *piece, size_t bytes,
                             uint32_t *ids)
{
    size_t count = bytes;
    for (size_t i = 0; i < bytes; i++)
        ids[i] = (uint32_t)(piece[i] - 'a');
    for (;;) {
        const struct bpe_merge *best = NULL;
        size_t place = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            const struct bpe_merge *merge = find(table, ids[i], ids[i + 1]);
            if (merge != NULL && (best == NULL || merge->rank < best->rank)) {
                best = merge;
                place = i;
            }
        }
        if (best == NULL)
            return count;
        ids[place] = best->id;
        memmove(ids + place + 1, ids + place + 2, (count - place - 2) * sizeof *ids);
        count--;
    }
}

static void check_piece(const struct table *table, struct bpe_scratch *scratch, const char *piece,
                        size_t bytes)
{
    uint32_t expected[PIECE_MAX];
    size_t count;
    const size_t expected_count = encode_plainly(table, piece, bytes, expected);
    assert_int_equal(bpe_encode(&table->bpe, scratch, piece, bytes, &count, NULL), OK);
    assert_int_equal(count, expected_count);
    assert_memory_equal(scratch->ids, expected, count * sizeof *expected);
}

static void random_pieces_merge_by_the_rule(void **state)
{
    (void)state;
    static struct table table;
    struct bpe_scratch scratch = {0};
    random_state = 1;
    for (unsigned round = 0; round < 300; round++) {
        const uint32_t letters = 1 + random_below(4);
        make_table(&table, letters, random_below(70));
        for (unsigned i = 0; i < 8; i++) {
            char piece[PIECE_MAX];
            // Around the border between the two ways (48) and well beyond.
            const size_t bytes = 1 + random_below(i < 6 ? 100 : PIECE_MAX - 1);
            for (size_t at = 0; at < bytes; at++)
                piece[at] = (char)('a' + random_below(letters));
            check_piece(&table, &scratch, piece, bytes);
        }
        bpe_fini(&table.bpe);
    }
    bpe_scratch_fini(&scratch);
}

static void a_second_merge_of_a_pair_replaces_the_first(void **state)
{
    (void)state;
    struct bpe bpe;
    assert_int_equal(bpe_init(&bpe, 2, NULL), OK);
    bpe_add(&bpe, (struct bpe_merge){1, 2, 0, 7});
    bpe_add(&bpe, (struct bpe_merge){1, 2, 5, 7});
    assert_int_equal(bpe_find(&bpe, 1, 2)->rank, 5);
    assert_null(bpe_find(&bpe, 2, 1));
    bpe_fini(&bpe);
}

// A quadratic way would take hours here; tests have five minutes.
static void a_piece_of_a_million_bytes_is_bounded(void **state)
{
    (void)state;
    static struct table table;
    struct bpe_scratch scratch = {0};
    const size_t bytes = 1 << 20;
    char *piece = malloc(bytes);
    assert_non_null(piece);
    memset(piece, 'a', bytes);
    random_state = 3;
    make_table(&table, 1, 0);
    bpe_fini(&table.bpe);
    assert_int_equal(bpe_init(&table.bpe, 3, NULL), OK);
    bpe_add(&table.bpe, (struct bpe_merge){0, 0, 0, 1}); // aa
    bpe_add(&table.bpe, (struct bpe_merge){1, 1, 1, 2}); // aaaa
    bpe_add(&table.bpe, (struct bpe_merge){2, 2, 2, 3}); // 8 a
    size_t count;
    assert_int_equal(bpe_encode(&table.bpe, &scratch, piece, bytes, &count, NULL), OK);
    assert_int_equal(count, bytes / 8);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(scratch.ids[i], 3);
    free(piece);
    bpe_fini(&table.bpe);
    bpe_scratch_fini(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_pieces_merge_by_the_rule),
        cmocka_unit_test(a_second_merge_of_a_pair_replaces_the_first),
        cmocka_unit_test(a_piece_of_a_million_bytes_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
