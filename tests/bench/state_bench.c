// SPDX-License-Identifier: Apache-2.0
// state_bench.c -- what a bf16 recurrent state costs in accuracy, on the CPU, and where.
//   state_bench                           a head by itself: what is lost at which decay, rounded at
//                                         every token or every eighth, to nearest or by chance
//   state_bench MODEL TOKENS [SEQUENCES]  a model's logits on texts that it drew itself: with a
//                                         bf16 state, and, to hold that against, on two ranks
// Prints tables; run by hand.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/gdn.h"
#include "parallel/base/mix.h"
#include "tests/fixtures/team.h"

enum { DIM = GDN_HEAD_DIM, PROMPT = 16, BLOCK = 64, QUARTERS = 4, HEAD_TOKENS = 8192 };

// ---- a head by itself ----

enum way { EXACT, TO_NEAREST, BY_CHANCE };

// How its state is kept, and the state; exact: the one without rounding that it is held against.
struct head {
    const char *name;
    enum way way;
    int every; // tokens between two roundings
    float state[DIM][DIM];
};

static double uniform(uint64_t seed, uint64_t i)
{
    return (double)(mix_at(seed, i) >> 11) * 0x1p-53;
}

static float round_to(enum way way, float x, uint64_t seed)
{
    uint32_t bits;
    float result;
    if (way == TO_NEAREST)
        return bf16_to_float(bf16_from_float(x));
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + (uint32_t)(mix_at(seed, bits) & 0xffffu)) & 0xffff0000u;
    memcpy(&result, &bits, sizeof result);
    return result;
}

// A unit vector about a common direction, as behind SiLU: `common` of its length.
static void draw_unit(float *x, uint64_t seed, double common)
{
    double squares = 0;
    for (int i = 0; i < DIM; i++) {
        double shared = uniform(1, (uint64_t)i) - 0.3;
        x[i] = (float)(common * shared + (1 - common) * (uniform(seed, (uint64_t)i) - 0.5));
        squares += (double)x[i] * (double)x[i];
    }
    for (int i = 0; i < DIM; i++)
        x[i] /= (float)sqrt(squares);
}

// S <- alpha S + k u^T, u = beta (v - alpha S^T k); without input (beta 0) the state only decays.
static void advance(struct head *head, int token, double alpha, double beta)
{
    float k[DIM], v[DIM];
    uint64_t seed = 100 + (uint64_t)token;
    draw_unit(k, seed, 0.5);
    draw_unit(v, seed << 20, 0.3);
    bool rounds = head->way != EXACT && (token + 1) % head->every == 0;
    for (int row = 0; row < DIM; row++) {
        float *s = head->state[row];
        double read = 0;
        for (int i = 0; i < DIM; i++)
            read += (double)s[i] * (double)k[i];
        float u = (float)(beta * (8 * (double)v[row] - alpha * read));
        for (int i = 0; i < DIM; i++) {
            s[i] = (float)(alpha * (double)s[i] + (double)k[i] * (double)u);
            if (rounds)
                s[i] = round_to(head->way, s[i], seed ^ (uint64_t)(row * DIM + i) << 32);
        }
    }
}

// How far from the exact state, and how much of it there is, less one.
static void compare(const struct head *exact, const struct head *head, double *off, double *more)
{
    double squares = 0, dot = 0, difference = 0;
    for (int i = 0; i < DIM * DIM; i++) {
        double a = (double)exact->state[i / DIM][i % DIM],
               b = (double)head->state[i / DIM][i % DIM];
        squares += a * a;
        dot += a * b;
        difference += (a - b) * (a - b);
    }
    *off = sqrt(difference / squares);
    *more = dot / squares - 1;
}

static void head_table(void)
{
    static struct head heads[] = {{"exact", EXACT, 1, {{0}}},
                                  {"nearest, every token", TO_NEAREST, 1, {{0}}},
                                  {"nearest, every 8th", TO_NEAREST, GDN_ROUND_TOKENS, {{0}}},
                                  {"by chance, every 8th", BY_CHANCE, GDN_ROUND_TOKENS, {{0}}}};
    const int count = (int)(sizeof heads / sizeof heads[0]);
    printf("%d tokens with input (beta 0.3), then 1,024 of decay alone: the state's distance from "
           "the exact one\nin %% of its length, and in brackets how much more of it there is\n",
           HEAD_TOKENS);
    for (int exponent = 4; exponent <= 14; exponent += 2) {
        double alpha = 1 - ldexp(1, -exponent), off, more;
        for (int h = 0; h < count; h++) {
            memset(heads[h].state, 0, sizeof heads[h].state);
            for (int t = 0; t < HEAD_TOKENS; t++)
                advance(&heads[h], t, alpha, 0.3);
        }
        for (int h = 1; h < count; h++) {
            compare(&heads[0], &heads[h], &off, &more);
            printf("alpha 1 - 2^-%-2d  %-22s %8.3f (%+.3f)", exponent, heads[h].name, 100 * off,
                   100 * more);
            struct head alone[2] = {heads[0], heads[h]};
            for (int t = 0; t < 1024; t++) {
                advance(&alone[0], t, alpha, 0);
                advance(&alone[1], t, alpha, 0);
            }
            compare(&alone[0], &alone[1], &off, &more);
            printf("   decay alone %10.3f (%+.3f)\n", 100 * off, 100 * more);
        }
    }
}

// ---- a model ----

// Against one rank and an f32 state.
struct change {
    const char *name;
    int ranks;
    bool bf16_state;
};

struct text {
    int tokens;
    int32_t *ids;
    float *logits; // [tokens, vocab] with a state of f32
};

static void open_team(struct team *team, const char *dir, int tokens, const struct change *change)
{
    struct team_options options = {.model_dir = dir,
                                   .load_format = LOAD_AUTO,
                                   .ranks = change->ranks,
                                   .sequences = 1,
                                   .sequence_tokens = tokens,
                                   .step_tokens = BLOCK,
                                   .bf16_state = change->bf16_state};
    char weights[4096];
    snprintf(weights, sizeof weights, "%s/model.safetensors", dir);
    FILE *file = fopen(weights, "rb");
    if (file == NULL)
        options.load_format = LOAD_DUMMY;
    else
        fclose(file);
    team_open(team, &options);
    team_open_slot(team, 0, (tokens + BLOCK - 1) / BLOCK, 0, 1);
}

// The largest logit plus Gumbel noise: a draw at temperature 1.
static int32_t draw(const float *logits, int vocab, uint64_t seed)
{
    int32_t best = 0;
    double most = -INFINITY;
    for (int i = 0; i < vocab; i++) {
        double value = (double)logits[i] - log(-log(uniform(seed, (uint64_t)i) + 1e-300));
        if (value > most) {
            most = value;
            best = i;
        }
    }
    return best;
}

// Draws a text token by token, as when serving; keeps the logits of all positions.
static void draw_text(struct text *text, const char *dir, uint64_t seed)
{
    struct team team;
    open_team(&team, dir, text->tokens, &(struct change){.ranks = 1});
    size_t vocab = (size_t)team.vocab;
    text->logits = malloc((size_t)text->tokens * vocab * sizeof(float));
    ASSERT(text->logits != NULL);
    for (int i = 0; i < PROMPT; i++)
        text->ids[i] = (int32_t)(mix_at(seed, (uint64_t)i) % (vocab < 3000 ? vocab : 3000));
    team_prefill(&team, 0, text->ids, PROMPT, text->ids[PROMPT - 1], text->logits);
    for (int i = PROMPT; i < text->tokens; i++) {
        text->ids[i] = draw(text->logits + (size_t)(i - 1) * vocab, team.vocab, seed + (uint64_t)i);
        struct team_row row = {.kind = ROW_PREFILL, .ids = text->ids + i, .count = 1};
        team_step(&team, &row, 1, text->logits + (size_t)i * vocab, NULL);
    }
    team_close(&team);
}

// Of a part of the positions.
struct figures {
    double squares, difference, largest, divergence, margin;
    int positions, changed;
};

static int argmax(const float *logits, int vocab)
{
    int best = 0;
    for (int i = 1; i < vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static double log_sum(const float *logits, int vocab)
{
    double sum = 0, most = (double)logits[argmax(logits, vocab)];
    for (int i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - most);
    return most + log(sum);
}

static void add(struct figures *f, const float *exact, const float *rounded, int vocab)
{
    double sum_a = log_sum(exact, vocab), sum_b = log_sum(rounded, vocab), mean = 0;
    int best = argmax(exact, vocab), other = argmax(rounded, vocab);
    for (int i = 0; i < vocab; i++)
        mean += (double)exact[i] / vocab;
    for (int i = 0; i < vocab; i++) {
        double a = (double)exact[i], b = (double)rounded[i];
        f->squares += (a - mean) * (a - mean) / vocab;
        f->difference += (a - b) * (a - b) / vocab;
        f->largest = fmax(f->largest, fabs(a - b));
        f->divergence += exp(a - sum_a) * (a - sum_a - b + sum_b);
    }
    f->positions++;
    f->changed += best != other;
    f->margin = fmax(f->margin, (double)exact[best] - (double)exact[other]);
}

static void compare_text(struct figures figures[QUARTERS], const struct text *text, const char *dir,
                         const struct change *change)
{
    struct team team;
    open_team(&team, dir, text->tokens, change);
    size_t vocab = (size_t)team.vocab;
    float *logits = malloc(BLOCK * vocab * sizeof(float));
    ASSERT(logits != NULL);
    for (int first = 0; first < text->tokens; first += BLOCK) {
        int count = text->tokens - first < BLOCK ? text->tokens - first : BLOCK;
        struct team_row row = {.kind = ROW_PREFILL, .ids = text->ids + first, .count = count};
        team_step(&team, &row, 1, logits, NULL);
        for (int i = 0; i < count; i++) {
            add(&figures[(int64_t)(first + i) * QUARTERS / text->tokens],
                text->logits + (size_t)(first + i) * vocab, logits + (size_t)i * vocab, team.vocab);
        }
    }
    free(logits);
    team_close(&team);
}

static void print_figures(const char *name, const struct figures *f)
{
    double n = f->positions;
    printf(
        "%-14s %6d positions: logits' deviation %.4f, difference rms %.6f (%.4f %%), largest "
        "%.4f; divergence %.3g nats; greedy token changed at %d (%.3f %%), margin of these up to "
        "%.4f\n",
        name, f->positions, sqrt(f->squares / n), sqrt(f->difference / n),
        100 * sqrt(f->difference / f->squares), f->largest, f->divergence / n, f->changed,
        100.0 * f->changed / n, f->margin);
}

static void print_change(const char *name, const struct figures quarters[QUARTERS])
{
    struct figures all = {0};
    printf("%s\n", name);
    for (int q = 0; q < QUARTERS; q++) {
        static const char *const names[QUARTERS] = {"first quarter", "second", "third", "last"};
        print_figures(names[q], &quarters[q]);
        all.squares += quarters[q].squares;
        all.difference += quarters[q].difference;
        all.divergence += quarters[q].divergence;
        all.positions += quarters[q].positions;
        all.changed += quarters[q].changed;
        all.largest = fmax(all.largest, quarters[q].largest);
        all.margin = fmax(all.margin, quarters[q].margin);
    }
    print_figures("all", &all);
}

static void model_table(const char *dir, int tokens, int sequences)
{
    static const struct change changes[] = {{"bf16 state", 1, true}, {"two ranks", 2, false}};
    struct figures quarters[2][QUARTERS] = {{{0}}};
    for (int s = 0; s < sequences; s++) {
        struct text text = {.tokens = tokens, .ids = malloc((size_t)tokens * sizeof(int32_t))};
        ASSERT(text.ids != NULL);
        draw_text(&text, dir, 1000000u * (uint64_t)(s + 1));
        for (int i = 0; i < 2; i++)
            compare_text(quarters[i], &text, dir, &changes[i]);
        free(text.ids);
        free(text.logits);
    }
    printf("%s: %d texts of %d tokens\n", dir, sequences, tokens);
    for (int i = 0; i < 2; i++)
        print_change(changes[i].name, quarters[i]);
}

int main(int count, char **arguments)
{
    int tokens = count > 2 ? atoi(arguments[2]) : 0, sequences = count > 3 ? atoi(arguments[3]) : 1;
    if (count == 1) {
        head_table();
        return 0;
    }
    if (count > 4 || tokens <= PROMPT || sequences < 1) {
        fprintf(stderr, "usage: state_bench [MODEL_DIR TOKENS [SEQUENCES]]; more than %d tokens\n",
                PROMPT);
        return 1;
    }
    model_table(arguments[1], tokens, sequences);
    return 0;
}
