// SPDX-License-Identifier: Apache-2.0
// gdn_chunked_test.c -- the chunked form against the recurrence, both in double: lengths around
// the chunk's, a state that is not zero, and the gates and keys at which the system is worst.
#include "kernels/twins/gdn_chunked.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/gdn.h"
#include "tests/fixtures/ops.h"

enum { DIM = GDN_HEAD_DIM, TOKENS_MAX = 260 };

enum keys {
    KEYS_RANDOM,
    KEYS_EQUAL,     // all the same
    KEYS_ALTERNATE, // of turning sign
    KEYS_REPEATED,  // three of them, again and again
};

// What is hard: alpha = exp(g) with g from -g_most to -g_least, beta from beta_least to 1.
struct kind {
    const char *name;
    enum keys keys;
    double g_least, g_most, beta_least;
};

static const struct kind KINDS[] = {
    {"plain", KEYS_RANDOM, 0.001, 2, 0},
    {"remembers all", KEYS_RANDOM, 0, 1e-9, 0},
    {"forgets at once", KEYS_RANDOM, 30, 700, 0}, // exp(G_i - G_j) overflows above the diagonal
    {"some of both", KEYS_RANDOM, 0, 90, 0.5},
    {"equal keys", KEYS_EQUAL, 0, 1e-6, 0.999999},
    {"turning keys", KEYS_ALTERNATE, 0, 1e-6, 0.999999},
    {"equal keys, half steps", KEYS_EQUAL, 0, 0.1, 0.4},
    {"repeated keys", KEYS_REPEATED, 0, 0.01, 0.9},
};

struct sequence {
    struct ops ops;
    double q[TOKENS_MAX][DIM], k[TOKENS_MAX][DIM], v[TOKENS_MAX][DIM];
    double g[TOKENS_MAX], beta[TOKENS_MAX];
    double o[2][TOKENS_MAX][DIM], state[2][DIM][DIM]; // recurrence, chunked form
};

static void unit(struct sequence *s, double *x)
{
    double squares = 0;
    for (int i = 0; i < DIM; i++) {
        x[i] = ops_uniform(&s->ops, -1, 1);
        squares += x[i] * x[i];
    }
    for (int i = 0; i < DIM; i++)
        x[i] /= sqrt(squares);
}

static void fill_keys(struct sequence *s, enum keys keys)
{
    for (int t = 0; t < TOKENS_MAX; t++) {
        int like = keys == KEYS_REPEATED ? t % 3 : 0;
        unit(s, s->k[t]);
        if (keys != KEYS_RANDOM && t > like)
            memcpy(s->k[t], s->k[like], sizeof s->k[t]);
        for (int i = 0; i < DIM && keys == KEYS_ALTERNATE && t % 2 == 1; i++)
            s->k[t][i] = -s->k[t][i];
    }
}

static struct sequence *open_sequence(const struct kind *kind, uint64_t seed)
{
    struct sequence *s = calloc(1, sizeof *s);
    assert_non_null(s);
    ops_open(&s->ops, 1, 64, seed);
    fill_keys(s, kind->keys);
    for (int t = 0; t < TOKENS_MAX; t++) {
        unit(s, s->q[t]);
        for (int i = 0; i < DIM; i++)
            s->v[t][i] = ops_uniform(&s->ops, -3, 3);
        s->g[t] = -ops_uniform(&s->ops, kind->g_least, kind->g_most);
        s->beta[t] = ops_uniform(&s->ops, kind->beta_least, 1);
    }
    for (int i = 0; i < DIM; i++) {
        for (int j = 0; j < DIM; j++)
            s->state[0][i][j] = s->state[1][i][j] = ops_uniform(&s->ops, -1, 1);
    }
    return s;
}

static void recur(struct sequence *s, int tokens)
{
    for (int t = 0; t < tokens; t++) {
        for (int row = 0; row < DIM; row++) {
            double *state = s->state[0][row], read = 0;
            for (int i = 0; i < DIM; i++)
                read += (state[i] *= exp(s->g[t])) * s->k[t][i];
            s->o[0][t][row] = 0;
            for (int i = 0; i < DIM; i++) {
                state[i] += s->beta[t] * (s->v[t][row] - read) * s->k[t][i];
                s->o[0][t][row] += state[i] * s->q[t][i] / sqrt((double)DIM);
            }
        }
    }
}

// Values stay below 128 (v 3, a state that a step of the delta rule does not enlarge), a chunk's
// sums have 64 terms of that size, and (I + A)^-1 has entries below 2 for such keys: well under
// 2^-32.
static void assert_near(const double *got, const double *want, int count, const struct kind *kind)
{
    for (int i = 0; i < count; i++) {
        if (!(fabs(got[i] - want[i]) < 0x1p-32))
            fail_msg("%s: element %d is %.17g, the recurrence has %.17g", kind->name, i, got[i],
                     want[i]);
    }
}

static void follows_the_recurrence(void **state)
{
    (void)state;
    static const int lengths[] = {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 260};
    for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++) {
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            int tokens = lengths[i];
            struct sequence *s = open_sequence(&KINDS[k], 100 * k + i);
            recur(s, tokens);
            gdn_chunked_run(
                s->o[1][0], s->state[1][0],
                &(struct gdn_chunked){tokens, s->q[0], s->k[0], s->v[0], s->g, s->beta});
            assert_near(s->o[1][0], s->o[0][0], tokens * DIM, &KINDS[k]);
            assert_near(s->state[1][0], s->state[0][0], DIM * DIM, &KINDS[k]);
            assert_true(tokens == TOKENS_MAX || s->o[1][tokens][0] == 0); // not beyond
            ops_close(&s->ops);
            free(s);
        }
    }
}

// Cut at a multiple of the chunk, bit for bit the whole: the state carries everything.
static void cuts_at_chunks_change_no_bit(void **state)
{
    (void)state;
    for (int cut = 64; cut <= 192; cut += 64) {
        struct sequence *s = open_sequence(&KINDS[0], 7);
        const struct gdn_chunked whole = {200, s->q[0], s->k[0], s->v[0], s->g, s->beta};
        gdn_chunked_run(s->o[0][0], s->state[0][0], &whole);
        struct gdn_chunked part = whole;
        part.tokens = cut;
        gdn_chunked_run(s->o[1][0], s->state[1][0], &part);
        part = (struct gdn_chunked){200 - cut, s->q[cut],  s->k[cut],
                                    s->v[cut], s->g + cut, s->beta + cut};
        gdn_chunked_run(s->o[1][cut], s->state[1][0], &part);
        assert_memory_equal(s->o[1], s->o[0], 200 * sizeof s->o[0][0]);
        assert_memory_equal(s->state[1], s->state[0], sizeof s->state[0]);
        ops_close(&s->ops);
        free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_recurrence),
        cmocka_unit_test(cuts_at_chunks_change_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
