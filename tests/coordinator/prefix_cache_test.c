// SPDX-License-Identifier: Apache-2.0
// prefix_cache_test.c -- the tree of cached beginnings: what is found is what was saved and not
// evicted, with equal tokens; what is held stays; what a step in flight names is not given away;
// counts hold after every operation of long random runs, with collisions of the hash, too.
#include "coordinator/prefix_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAGES = 64, TEXT_TOKENS = 2048, NO_LIMIT = 1 << 20 };

struct world {
    struct kv_pages kv;
    struct token_pool pool;
    struct prefix_cache cache;
    void *memory[3];
    uint64_t step, random;
    bool copies; // the step that starts a request copies its checkpoint
};

static void open_world(struct world *w, int32_t nodes, int32_t checkpoints)
{
    *w = (struct world){.step = 1, .random = 1, .copies = true};
    w->memory[0] = malloc(kv_pages_bytes(PAGES));
    w->memory[1] = malloc(token_pool_bytes(64 * TEXT_TOKENS));
    size_t bytes = prefix_cache_bytes(nodes, checkpoints);
    w->memory[2] = malloc(bytes);
    memset(w->memory[2], 0xa5, bytes);
    kv_pages_init(&w->kv, w->memory[0], PAGES);
    token_pool_init(&w->pool, w->memory[1], 64 * TEXT_TOKENS);
    prefix_cache_init(&w->cache, w->memory[2], nodes, checkpoints, 99);
}

static void check(const struct world *w)
{
    const char *broken = prefix_cache_check(&w->cache, &w->kv);
    if (broken != NULL)
        fail_msg("broken: %s", broken);
}

// Ends with nothing held: all that is left can be evicted, and then all pages are free.
static void close_world(struct world *w)
{
    check(w);
    assert_int_equal(w->cache.nodes_held, 0);
    assert_int_equal(prefix_cache_evictable(&w->cache, PREFIX_NONE), w->cache.nodes_used);
    prefix_cache_make_room(&w->cache, &w->kv, PAGES);
    check(w);
    assert_int_equal(w->kv.pages_free, PAGES);
    assert_int_equal(w->cache.nodes_used, 0);
    assert_int_equal(w->cache.checkpoints_used + w->cache.checkpoints_reserved, 0);
    for (int i = 0; i < 3; i++)
        free(w->memory[i]);
}

// A request as a scheduler sees it.
struct request {
    struct token_chain chain;
    int32_t node, position, pages;
    int32_t reserved; // PREFIX_NONE = none
    int32_t page_ids[TEXT_TOKENS / 64];
};

static struct prefix_text text_of(const struct world *w, const struct request *request)
{
    return (struct prefix_text){&w->pool, &request->chain};
}

static struct prefix_hit find(const struct world *w, const struct request *request)
{
    return prefix_cache_find(&w->cache, text_of(w, request), request->chain.tokens - 1, w->step);
}

// Starts a request at the longest hit, with pages of its own for the rest.
static struct prefix_hit start(struct world *w, struct request *request, const int32_t *tokens,
                               int32_t count)
{
    memset(request, 0xa5, sizeof *request);
    assert_true(token_pool_take(&w->pool, &request->chain, tokens, count));
    struct prefix_hit hit = find(w, request);
    request->pages = kv_pages_for_tokens(count);
    int32_t more = request->pages - hit.position / 64;
    prefix_cache_take(&w->cache, &w->kv, &hit, count, request->page_ids);
    if (hit.checkpoint != PREFIX_NONE && w->copies)
        prefix_cache_unpin(&w->cache, hit.checkpoint, w->step);
    prefix_cache_make_room(&w->cache, &w->kv, more);
    assert_true(kv_pages_take(&w->kv, more, request->page_ids + hit.position / 64));
    request->node = hit.node;
    request->position = hit.position;
    request->reserved = PREFIX_NONE;
    check(w);
    return hit;
}

static bool reserve(struct world *w, struct request *request)
{
    request->reserved = prefix_cache_reserve(&w->cache, &w->kv, w->step - 1);
    if (request->reserved != PREFIX_NONE)
        prefix_cache_name(&w->cache, request->reserved, w->step);
    check(w);
    return request->reserved != PREFIX_NONE;
}

// Step `step` has written the reserved checkpoint.
static bool fill(struct world *w, struct request *request, int32_t position, uint64_t step)
{
    const struct prefix_save save = {.text = text_of(w, request),
                                     .node = request->node,
                                     .position = position,
                                     .page_ids = request->page_ids,
                                     .step = step};
    bool filled = prefix_cache_fill(&w->cache, &w->kv, &save, request->reserved, &request->node);
    if (filled)
        request->reserved = PREFIX_NONE;
    check(w);
    return filled;
}

static int32_t save(struct world *w, struct request *request, int32_t position)
{
    const struct prefix_save save = {.text = text_of(w, request),
                                     .node = request->node,
                                     .position = position,
                                     .page_ids = request->page_ids,
                                     .step = w->step,
                                     .step_done = w->step - 1};
    int32_t checkpoint = prefix_cache_save(&w->cache, &w->kv, &save, &request->node);
    check(w);
    return checkpoint;
}

static void end(struct world *w, struct request *request)
{
    kv_pages_give_back(&w->kv, request->page_ids, request->pages);
    if (request->reserved != PREFIX_NONE)
        prefix_cache_release(&w->cache, request->reserved);
    prefix_cache_leave(&w->cache, &w->kv, request->node);
    token_pool_give_back(&w->pool, &request->chain);
    check(w);
}

static void text(int32_t *tokens, int32_t first)
{
    for (int32_t i = 0; i < TEXT_TOKENS; i++)
        tokens[i] = first + i;
}

// What was saved is found by a later step, no further than the tokens agree and the limit allows.
static void finds_the_longest_checkpoint(void **state)
{
    struct world w;
    struct request a, b;
    int32_t tokens[TEXT_TOKENS];
    (void)state;
    open_world(&w, PAGES, 4);
    text(tokens, 0);
    assert_int_equal(start(&w, &a, tokens, 300).position, 0);
    assert_true(save(&w, &a, 128) >= 0);
    int32_t deeper = save(&w, &a, 256);
    assert_int_equal(find(&w, &a).position, 0); // the step that writes it cannot read it
    assert_int_equal(find(&w, &a).known, 256);
    w.step++;
    assert_int_equal(find(&w, &a).position, 256);
    assert_int_equal(find(&w, &a).checkpoint, deeper);
    end(&w, &a);
    static const struct {
        int32_t count, differs_at, position, known;
    } cases[] = {
        {300, 299, 256, 256}, {257, 299, 256, 256}, {256, 299, 128, 192}, {300, 255, 128, 192},
        {300, 192, 128, 192}, {300, 191, 128, 128}, {129, 299, 128, 128}, {128, 299, 0, 64},
        {300, 127, 0, 64},    {64, 299, 0, 0},      {1, 299, 0, 0},       {300, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        text(tokens, 0);
        tokens[cases[i].differs_at] = 7777;
        struct prefix_hit hit = start(&w, &b, tokens, cases[i].count);
        assert_int_equal(hit.position, cases[i].position);
        assert_int_equal(hit.known, cases[i].known);
        for (int32_t page = 0; page < hit.position / 64; page++)
            assert_int_equal(b.page_ids[page], a.page_ids[page]);
        end(&w, &b);
        w.step++;
    }
    close_world(&w);
}

// 100 tokens more in front: nothing is shared, and nothing wrong is found.
static void a_shift_is_another_text(void **state)
{
    struct world w;
    struct request a, b;
    int32_t tokens[TEXT_TOKENS];
    (void)state;
    open_world(&w, PAGES, 4);
    text(tokens, 100);
    start(&w, &a, tokens, 640);
    assert_true(save(&w, &a, 576) >= 0);
    end(&w, &a);
    w.step++;
    text(tokens, 0);
    assert_int_equal(start(&w, &b, tokens, 740).known, 0);
    end(&w, &b);
    close_world(&w);
}

// Two requests of one text at once: both have pages of their own, the tree has one of each.
static void two_write_the_same_text(void **state)
{
    struct world w;
    struct request a, b;
    int32_t tokens[TEXT_TOKENS];
    (void)state;
    open_world(&w, PAGES, 4);
    text(tokens, 0);
    start(&w, &a, tokens, 300);
    start(&w, &b, tokens, 300);
    assert_true(save(&w, &a, 128) >= 0);
    assert_true(save(&w, &b, 192) >= 0); // goes on where a's path ends
    assert_int_equal(w.cache.nodes_used, 3);
    assert_true(prefix_cache_has(&w.cache, text_of(&w, &b), PREFIX_NONE, 128));
    assert_false(prefix_cache_has(&w.cache, text_of(&w, &b), PREFIX_NONE, 64));
    assert_true(prefix_cache_has(&w.cache, text_of(&w, &a), a.node, 192));
    assert_false(prefix_cache_has(&w.cache, text_of(&w, &a), a.node, 256));
    end(&w, &a);
    end(&w, &b);
    w.step++;
    assert_int_equal(start(&w, &a, tokens, 300).position, 192);
    assert_int_equal(a.page_ids[2], b.page_ids[2]);
    end(&w, &a);
    close_world(&w);
}

// Checkpoints go least recently used first; pages below the last checkpoint go with it.
static void checkpoints_are_evicted_by_use(void **state)
{
    struct world w;
    struct request r[3];
    int32_t tokens[TEXT_TOKENS], first;
    (void)state;
    open_world(&w, PAGES, 2);
    for (int i = 0; i < 2; i++) {
        text(tokens, i * 10000);
        start(&w, &r[i], tokens, 200);
        first = save(&w, &r[i], 192);
        assert_true(first >= 0);
        end(&w, &r[i]);
        w.step++;
    }
    text(tokens, 0); // used again: the other one is older now
    assert_int_equal(start(&w, &r[0], tokens, 200).position, 192);
    end(&w, &r[0]);
    w.step++;
    text(tokens, 20000);
    start(&w, &r[2], tokens, 200);
    assert_int_equal(save(&w, &r[2], 128), first);
    end(&w, &r[2]);
    assert_int_equal(w.cache.nodes_used, 3 + 2);
    assert_int_equal(w.cache.counts.checkpoints_evicted, 1);
    text(tokens, 10000);
    assert_int_equal(start(&w, &r[1], tokens, 200).position, 0);
    end(&w, &r[1]);
    close_world(&w);
}

// A checkpoint that a step in flight copies or saves is not given to another text.
static void what_is_in_flight_is_not_given_away(void **state)
{
    struct world w;
    struct request a, b;
    int32_t tokens[TEXT_TOKENS];
    (void)state;
    open_world(&w, PAGES, 1);
    text(tokens, 0);
    start(&w, &a, tokens, 200);
    int32_t only = save(&w, &a, 128); // by step 1
    text(tokens, 10000);
    start(&w, &b, tokens, 200);
    assert_false(prefix_cache_can_save(&w.cache, 0));
    w.step = 2;
    assert_true(prefix_cache_can_save(&w.cache, 1));
    end(&w, &a);
    text(tokens, 0);
    assert_int_equal(start(&w, &a, tokens, 200).checkpoint, only); // copied by step 2
    assert_false(prefix_cache_can_save(&w.cache, 1));
    assert_int_equal(save(&w, &b, 64), PREFIX_NONE);
    w.step = 3;
    assert_true(prefix_cache_can_save(&w.cache, 2));
    end(&w, &a);
    w.copies = false;
    assert_int_equal(start(&w, &a, tokens, 200).checkpoint, only); // to be copied later
    w.step = 9;
    assert_false(prefix_cache_can_save(&w.cache, 8));
    prefix_cache_unpin(&w.cache, only, 0); // it never was
    assert_int_equal(save(&w, &b, 64), only);
    assert_int_equal(find(&w, &a).known, 128); // a holds its path without checkpoint
    assert_int_equal(find(&w, &a).position, 0);
    end(&w, &a);
    assert_int_equal(w.cache.nodes_used, 1);
    end(&w, &b);
    close_world(&w);
}

// A reserved checkpoint is nobody else's until it is given back and the last step that names it has
// ended; filled, it is found from the step after the one that wrote it on.
static void what_is_reserved_is_kept(void **state)
{
    struct world w;
    struct request a, b, c;
    int32_t tokens[TEXT_TOKENS];
    (void)state;
    open_world(&w, PAGES, 2);
    text(tokens, 0);
    start(&w, &a, tokens, 300);
    assert_true(save(&w, &a, 64) >= 0);
    w.step = 2;
    assert_true(reserve(&w, &a));
    int32_t first = a.reserved;
    text(tokens, 10000);
    start(&w, &b, tokens, 300);
    assert_true(reserve(&w, &b)); // the one at a's 64 is given up for it
    assert_int_equal(w.cache.checkpoints_used, 0);
    assert_int_equal(w.cache.counts.checkpoints_evicted, 1);
    assert_false(prefix_cache_can_save(&w.cache, 100));
    w.step = 5;
    prefix_cache_name(&w.cache, a.reserved, 4); // a's rows of steps 2 to 4 name it; 3 wrote it
    assert_true(fill(&w, &a, 256, 3));
    text(tokens, 0);
    w.step = 3;
    assert_int_equal(start(&w, &c, tokens, 300).position, 0);
    end(&w, &c);
    w.step = 4;
    w.copies = false;
    struct prefix_hit hit = start(&w, &c, tokens, 300);
    prefix_cache_unpin(&w.cache, hit.checkpoint, 0);
    assert_int_equal(hit.position, 256);
    assert_int_equal(hit.checkpoint, first);
    assert_false(prefix_cache_can_save(&w.cache, 3)); // step 4 names it
    assert_true(prefix_cache_can_save(&w.cache, 4));
    // The text is cached by now: another's checkpoint for it goes back.
    c.node = hit.node;
    w.step = 6;
    prefix_cache_name(&w.cache, b.reserved, 6);
    c.reserved = b.reserved;
    b.reserved = PREFIX_NONE;
    assert_false(fill(&w, &c, 256, 6));
    end(&w, &c);
    assert_int_equal(w.cache.checkpoints_reserved, 0);
    assert_true(reserve(&w, &b));
    assert_int_equal(b.reserved, first); // step 6 still names the other one
    end(&w, &b);
    end(&w, &a);
    close_world(&w);
}

// Leaves go least recently used first, from the end of a branch, and what is held stays.
static void pages_are_evicted_leaf_by_leaf(void **state)
{
    struct world w;
    struct request r[3];
    int32_t tokens[TEXT_TOKENS];
    (void)state;
    open_world(&w, PAGES, 8);
    for (int i = 0; i < 3; i++) { // a common page, then 10 pages of its own
        text(tokens, 0);
        for (int k = 64; k < TEXT_TOKENS; k++)
            tokens[k] += i * 10000;
        start(&w, &r[i], tokens, 11 * 64 + 1);
        if (i == 0)
            assert_true(save(&w, &r[i], 64) >= 0);
        assert_true(save(&w, &r[i], 11 * 64) >= 0);
        w.step++;
    }
    end(&w, &r[1]);
    end(&w, &r[2]);
    end(&w, &r[0]);
    assert_int_equal(w.cache.nodes_used, 31);
    text(tokens, 0);
    assert_int_equal(start(&w, &r[0], tokens, 11 * 64 + 1).position, 11 * 64);
    assert_int_equal(prefix_cache_evictable(&w.cache, PREFIX_NONE), 20);
    int32_t free_now = w.kv.pages_free;
    prefix_cache_make_room(&w.cache, &w.kv, free_now + 1); // r[1] was left first
    assert_int_equal(w.kv.pages_free, free_now + 10);
    prefix_cache_make_room(&w.cache, &w.kv, PAGES);
    assert_int_equal(w.kv.pages_free, free_now + 20);
    assert_int_equal(w.cache.nodes_used, 11);
    end(&w, &r[0]);
    assert_int_equal(prefix_cache_evictable(&w.cache, r[0].node), 0); // as if held
    close_world(&w);
}

// Fewer nodes than a text has pages: it is not cached, nothing breaks.
static void nodes_run_out(void **state)
{
    struct world w;
    struct request a, b;
    int32_t tokens[TEXT_TOKENS];
    (void)state;
    open_world(&w, 4, 4);
    text(tokens, 0);
    start(&w, &a, tokens, 400);
    assert_int_equal(save(&w, &a, 320), PREFIX_NONE);
    assert_true(save(&w, &a, 128) >= 0);
    text(tokens, 10000);
    start(&w, &b, tokens, 400);
    assert_int_equal(save(&w, &b, 192), PREFIX_NONE); // two are held
    end(&w, &a);
    assert_true(save(&w, &b, 192) >= 0); // evicts one, and what lies before it is of no use
    assert_int_equal(w.cache.nodes_used, 3);
    end(&w, &b);
    close_world(&w);
}

static void no_checkpoints_no_cache(void **state)
{
    struct world w;
    struct request a;
    int32_t tokens[TEXT_TOKENS];
    (void)state;
    open_world(&w, 0, 0);
    text(tokens, 0);
    start(&w, &a, tokens, 400);
    assert_false(prefix_cache_can_save(&w.cache, 100));
    assert_int_equal(save(&w, &a, 320), PREFIX_NONE);
    assert_int_equal(w.cache.counts.query_tokens, 400);
    assert_int_equal(w.cache.counts.hit_tokens, 0);
    end(&w, &a);
    close_world(&w);
}

// ---- long random runs ----

static uint32_t dice(struct world *w, uint32_t sides)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->random >> 33) % sides;
}

// Texts of a few common beginnings, so that all branches happen.
static int32_t random_text(struct world *w, int32_t *tokens)
{
    int32_t count = 1 + (int32_t)dice(w, 700);
    for (int32_t i = 0; i < count; i++) {
        if (i % 64 == 0)
            tokens[i] = (int32_t)dice(w, i < 192 ? 2 : 3);
        else
            tokens[i] = i;
    }
    return count;
}

// A hit's tokens are the text's, one by one.
static void check_path(const struct world *w, int32_t node, const int32_t *tokens, int32_t position)
{
    for (; position > 0; position -= 64) {
        assert_memory_equal(w->cache.nodes[node].tokens, tokens + position - 64, 64 * 4);
        node = w->cache.nodes[node].parent;
    }
    assert_int_equal(node, PREFIX_NONE);
}

static void random_runs(void **state)
{
    enum { REQUESTS = 5, TURNS = 4000 };
    uint64_t hits = 0, evicted = 0, fills = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct world w;
        struct request r[REQUESTS];
        bool runs[REQUESTS] = {false};
        int32_t tokens[TEXT_TOKENS];
        open_world(&w, seed % 2 ? PAGES : 20, 3 + (int32_t)seed);
        w.random = seed;
        w.cache.hash_mask = seed < 4 ? UINT64_MAX : seed - 4; // from no collision to nothing else
        for (int turn = 0; turn < TURNS; turn++) {
            uint32_t i = dice(&w, REQUESTS), act = dice(&w, 3);
            w.step += dice(&w, 2);
            if (!runs[i] && w.kv.pages_free + prefix_cache_evictable(&w.cache, PREFIX_NONE) > 22) {
                int32_t count = random_text(&w, tokens);
                struct prefix_hit hit = start(&w, &r[i], tokens, count);
                assert_true(hit.position < count);
                check_path(&w, hit.node, tokens, hit.position);
                runs[i] = true;
            } else if (runs[i] && act == 0) {
                end(&w, &r[i]);
                runs[i] = false;
            } else if (runs[i] && r[i].position + 64 <= r[i].chain.tokens) {
                int32_t most = (r[i].chain.tokens - r[i].position) / 64;
                int32_t position = r[i].position + 64 * (1 + (int32_t)dice(&w, (uint32_t)most));
                if (r[i].reserved != PREFIX_NONE)
                    prefix_cache_name(&w.cache, r[i].reserved, w.step);
                if (r[i].reserved != PREFIX_NONE)
                    fills += fill(&w, &r[i], position, w.step);
                else if (act == 2 && reserve(&w, &r[i]))
                    continue;
                else if (!prefix_cache_has(&w.cache, text_of(&w, &r[i]), r[i].node, position))
                    save(&w, &r[i], position);
                r[i].position = position;
            }
        }
        for (int i = 0; i < REQUESTS; i++) {
            if (runs[i])
                end(&w, &r[i]);
        }
        hits += w.cache.counts.hits;
        evicted += w.cache.counts.pages_evicted;
        close_world(&w);
    }
    assert_true(hits > 1000 && evicted > 1000 && fills > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_longest_checkpoint),
        cmocka_unit_test(a_shift_is_another_text),
        cmocka_unit_test(two_write_the_same_text),
        cmocka_unit_test(checkpoints_are_evicted_by_use),
        cmocka_unit_test(what_is_in_flight_is_not_given_away),
        cmocka_unit_test(what_is_reserved_is_kept),
        cmocka_unit_test(pages_are_evicted_leaf_by_leaf),
        cmocka_unit_test(nodes_run_out),
        cmocka_unit_test(no_checkpoints_no_cache),
        cmocka_unit_test(random_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
