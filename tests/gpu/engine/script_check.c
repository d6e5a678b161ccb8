// SPDX-License-Identifier: Apache-2.0
// script_check.c -- one sequence of plans, made from a seed and from nothing that a step reports:
// prompts of many lengths whole and in chunks, checkpoints saved, folded and loaded, replays, slots
// and pages that change hands as soon as the coordinator's rules allow, drafts 0 to 5. It runs
// several times from a fresh engine, and every report must be the same. Then each greedy text is
// run again as one prompt: what was drawn must be the best token there, near ties aside.
#include "tests/gpu/engine/engine_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fixtures/golden.h"

enum {
    SLOTS = 12,
    STEPS = 180,
    BURST = 12, // steps from one time of openings to the next; most only decode
    TEXTS_MAX = 400,
    PAGES_EACH = 7,
    TEXT_MAX = PAGES_EACH * 64,
    KNOWN_MAX = 320, // a fold behind it lies before the text's end
    PAGES = 190,
    CHECKPOINTS = 2 * SLOTS, // by prefill of a slot; folded by a slot
    IDS = 300,
    DRAFT_VOCAB = 100, // of 384, and no whole tiles of the head
    REST = 2, // steps after which nothing in flight names a slot, page or checkpoint any more
};

struct sequence {
    int32_t text[TEXT_MAX + ROW_VERIFY_MAX];
    bool own[TEXT_MAX + ROW_VERIFY_MAX]; // drawn by the model: not a draft accepted by chance
    int prompt, known, count;            // tokens; count with what was drawn
    int parent, position; // starts behind so many tokens of the parent, -1: of nobody
    int32_t pages[PAGES_EACH];
    bool greedy;
};

struct donor {
    int sequence, position; // -1: nothing there
    int named;              // last step that names the checkpoint
};

struct seat {
    int sequence; // -1: free
    int free_at;  // step from which it may be opened
    int given, steps_left, decodes;
    int save_at, fold_at; // 0 = nowhere
};

struct script {
    struct rig *rig;
    uint64_t random;
    int step, ahead, drafts_made, drafts_max, sequences_count;
    struct sequence sequences[TEXTS_MAX];
    struct seat seats[SLOTS];
    struct donor donors[CHECKPOINTS];
    int page_users[PAGES], page_free_at[PAGES], page_next;
    // Of steps in flight: the rows' sequences and how many tokens decode rows verify.
    int rows[STEP_STAGING][SLOTS], rows_count[STEP_STAGING], verify[STEP_STAGING];
    bool decode[STEP_STAGING][SLOTS];
    int loads, saves, folds, replays, graphs, accepted;
    // Of every step: the hash of all reports up to it, its rows, tokens of prompts and what it
    // verifies and drafts.
    uint64_t trail[STEPS + 1];
    struct shape {
        int decode_rows, prompt_rows, prompt_tokens, verify, draft;
    } shapes[STEPS + 1];
};

static int below(struct script *s, int limit)
{
    s->random = s->random * 6364136223846793005u + 1442695040888963407u;
    return (int)((s->random >> 33) % (uint64_t)limit);
}

// ---- pages ----

static int take_page(struct script *s)
{
    for (int k = 0; k < PAGES; k++) {
        int page = (s->page_next + k * 7) % PAGES;
        if (s->page_users[page] == 0 && s->page_free_at[page] <= s->step) {
            s->page_next = page + 1;
            s->page_users[page] = 1;
            return page;
        }
    }
    DIE("the script has too few pages");
}

static void let_go(struct script *s, const struct sequence *sequence, int count)
{
    for (int i = 0; i < count; i++) {
        int page = sequence->pages[i];
        s->page_users[page]--;
        s->page_free_at[page] = s->step + REST;
    }
}

static void hold(struct script *s, const struct sequence *sequence, int count)
{
    for (int i = 0; i < count; i++)
        s->page_users[sequence->pages[i]]++;
}

// ---- donors ----

static void forget_donor(struct script *s, int checkpoint)
{
    struct donor *donor = &s->donors[checkpoint];
    if (donor->sequence >= 0)
        let_go(s, &s->sequences[donor->sequence], donor->position / 64);
    donor->sequence = -1;
}

static void set_donor(struct script *s, int checkpoint, int sequence, int position)
{
    struct donor *donor = &s->donors[checkpoint];
    *donor = (struct donor){.sequence = sequence, .position = position, .named = s->step};
    hold(s, &s->sequences[sequence], position / 64);
}

// ---- openings ----

static int some_length(struct script *s)
{
    static const int lengths[] = {1, 2, 3, 15, 16, 17, 23, 24, 25, 63, 64, 65, 127, 128, 129, 200};
    return lengths[below(s, (int)(sizeof lengths / sizeof *lengths))];
}

static void set_sampling(struct script *s, struct sequence *sequence, struct step_open *open)
{
    int kind = below(s, 12);
    open->seed = (uint64_t)below(s, 1 << 20);
    sequence->greedy = kind < 9;
    if (kind == 8) {
        open->logprobs = 1 + below(s, 6);
    } else if (kind == 9) {
        open->temperature = 0.7f;
    } else if (kind == 10) {
        open->temperature = 0.9f;
        open->top_k = 20;
        open->top_p = 0.9f;
    } else if (kind == 11) {
        open->repetition = 1.3f;
        open->presence = 0.5f;
    }
    if (below(s, 5) == 0)
        open->drafts = 1 + below(s, 4);
}

// Where the sequence saves by prefill, and where it is folded while it decodes.
static void set_places(struct script *s, struct seat *seat, const struct sequence *sequence,
                       const struct step_open *open)
{
    int slot = (int)(seat - s->seats), last = (sequence->known - 1) / 64 * 64;
    if (below(s, 2) == 0 && last > sequence->position && s->donors[slot].named + REST <= s->step) {
        forget_donor(s, slot);
        seat->save_at = last;
    }
    int fold = (sequence->known / 64 + 1) * 64;
    if (below(s, 3) > 0 && fold < open->tokens_end &&
        s->donors[SLOTS + slot].named + REST <= s->step) {
        forget_donor(s, SLOTS + slot);
        seat->fold_at = fold;
    }
}

// Of a fresh sequence, or of one that goes on behind a checkpoint; some have tokens behind the
// prompt that were drawn before, in a life without records.
static void open_seat(struct script *s, int slot)
{
    struct seat *seat = &s->seats[slot];
    struct sequence *sequence = &s->sequences[s->sequences_count];
    const struct donor *donor = &s->donors[below(s, CHECKPOINTS)];
    bool child = donor->sequence >= 0 && donor->named < s->step;
    memset(sequence, 0, sizeof *sequence);
    sequence->parent = child ? donor->sequence : -1;
    sequence->position = child ? donor->position : 0;
    sequence->prompt = sequence->position + some_length(s);
    if (sequence->prompt > KNOWN_MAX)
        sequence->prompt = sequence->position + 1;
    sequence->known = sequence->prompt;
    if (below(s, 4) == 0 && sequence->known + 40 < KNOWN_MAX)
        sequence->known += 1 + below(s, 40);
    sequence->count = sequence->known;
    for (int i = sequence->position; i < sequence->known; i++)
        sequence->text[i] = below(s, IDS);
    for (int i = 0; i < PAGES_EACH; i++) {
        bool shared = i < sequence->position / 64;
        sequence->pages[i] = shared ? s->sequences[sequence->parent].pages[i] : take_page(s);
        s->page_users[sequence->pages[i]] += shared;
    }
    struct step_open *open = rig_add_open(s->rig, slot, 0, PAGES_EACH);
    memcpy(s->rig->plan.page_ids + s->rig->plan.page_ids_count - PAGES_EACH, sequence->pages,
           sizeof sequence->pages);
    open->position = sequence->position;
    open->prompt_tokens = sequence->prompt;
    open->tokens_end = below(s, 8) == 0 ? sequence->known + 1 + below(s, 5) : TEXT_MAX - 1;
    set_sampling(s, sequence, open);
    *seat = (struct seat){.sequence = s->sequences_count++,
                          .given = sequence->position,
                          .steps_left = 3 + below(s, open->logprobs > 0 ? 8 : 90)};
    if (child) {
        s->rig->plan.copies[s->rig->plan.copies_count++] =
            (struct step_copy){.checkpoint = (int32_t)(donor - s->donors), .slot = slot};
        s->donors[donor - s->donors].named = s->step;
        s->loads++;
    }
    s->replays += sequence->known > sequence->prompt;
    set_places(s, seat, sequence, open);
}

static void close_seat(struct script *s, int slot)
{
    struct seat *seat = &s->seats[slot];
    s->rig->plan.closes[s->rig->plan.closes_count++] = slot;
    let_go(s, &s->sequences[seat->sequence], PAGES_EACH);
    *seat = (struct seat){.sequence = -1, .free_at = s->step - 1 + REST};
}

// ---- rows ----

static void add_row(struct script *s, int slot, bool decode)
{
    int at = s->step % STEP_STAGING, row = s->rows_count[at]++;
    s->rows[at][row] = s->seats[slot].sequence;
    s->decode[at][row] = decode;
}

static void add_chunk(struct script *s, int slot)
{
    struct seat *seat = &s->seats[slot];
    const struct sequence *sequence = &s->sequences[seat->sequence];
    int from = seat->given, end = sequence->known;
    if (from < sequence->prompt) {
        end = sequence->prompt;
        if (below(s, 3) == 0 && end > (from / 64 + 1) * 64)
            end = (from / 64 + 1) * 64;
    } else if (end > (from / STEP_REPLAY_TOKENS_MAX + 1) * STEP_REPLAY_TOKENS_MAX) {
        end = (from / STEP_REPLAY_TOKENS_MAX + 1) * STEP_REPLAY_TOKENS_MAX;
    }
    if (seat->save_at > from && seat->save_at < end && (seat->save_at - from) % 64 != 0)
        end = seat->save_at;
    struct step_plan_row *row = rig_add_prompt(s->rig, slot, sequence->text + from, end - from,
                                               end < sequence->known ? sequence->text[end] : -1);
    if (seat->save_at > from && seat->save_at <= end) { // on its way, or at its end
        row->saves[row->saves_count++] = (struct step_save){slot, seat->save_at - from};
        set_donor(s, slot, seat->sequence, seat->save_at);
        s->saves++;
    }
    seat->given = end;
    add_row(s, slot, false);
}

// Every decode row goes on by a token at least: so it is known when the fold's place was passed.
static void add_decode(struct script *s, int slot)
{
    struct seat *seat = &s->seats[slot];
    struct step_plan_row *row = rig_add_decode(s->rig, slot);
    seat->decodes++;
    if (seat->fold_at > 0) {
        row->checkpoint = SLOTS + slot;
        row->checkpoint_at = seat->fold_at;
        if (s->sequences[seat->sequence].known + seat->decodes > seat->fold_at) {
            set_donor(s, SLOTS + slot, seat->sequence, seat->fold_at);
            seat->fold_at = 0;
            s->folds++;
        }
    }
    s->donors[SLOTS + slot].named = s->step;
    add_row(s, slot, true);
}

static bool decodes(const struct script *s, int slot)
{
    const struct seat *seat = &s->seats[slot];
    return seat->sequence >= 0 && seat->given == s->sequences[seat->sequence].known;
}

static void plan_rows(struct script *s)
{
    struct step_plan *plan = &s->rig->plan;
    bool was_decoding[SLOTS];
    int verify = below(s, 8) == 0 ? below(s, s->drafts_made + 1) : s->drafts_made;
    int draft = below(s, 6) == 0 ? below(s, s->drafts_max + 1) : s->drafts_made;
    plan->verify = 1 + verify;
    plan->draft = draft;
    s->drafts_made = draft;
    s->rows_count[s->step % STEP_STAGING] = 0;
    s->verify[s->step % STEP_STAGING] = plan->verify;
    for (int slot = 0; slot < SLOTS; slot++) {
        was_decoding[slot] = decodes(s, slot);
        if (was_decoding[slot] && below(s, 15) > 0)
            add_decode(s, slot);
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        if (s->seats[slot].sequence >= 0 && !was_decoding[slot])
            add_chunk(s, slot);
    }
    s->shapes[s->step] = (struct shape){
        .prompt_tokens = plan->tokens_count, .verify = plan->verify, .draft = plan->draft};
    for (int i = 0; i < plan->rows_count; i++) {
        s->shapes[s->step].decode_rows += plan->rows[i].kind == STEP_ROW_DECODE;
        s->shapes[s->step].prompt_rows += plan->rows[i].kind != STEP_ROW_DECODE;
    }
    s->graphs += plan->tokens_count == 0 && plan->rows_count > 0 && verify == draft;
}

static void plan_step(struct script *s)
{
    s->step++;
    rig_plan(s->rig);
    for (int slot = 0; slot < SLOTS; slot++) {
        struct seat *seat = &s->seats[slot];
        if (seat->sequence >= 0 && --seat->steps_left <= 0)
            close_seat(s, slot);
        if (seat->sequence < 0 && seat->free_at <= s->step && s->step % BURST < 3 &&
            s->sequences_count < TEXTS_MAX && below(s, 2) == 0)
            open_seat(s, slot);
    }
    plan_rows(s);
}

static void take_report(void *context, const struct report *report)
{
    struct script *s = (struct script *)context;
    int at = (int)(report->step % STEP_STAGING);
    s->trail[report->step] = s->rig->hash;
    if (report->rows_count != s->rows_count[at])
        DIE("step %llu reports %d rows", (unsigned long long)report->step, report->rows_count);
    for (int i = 0; i < report->rows_count; i++) {
        const struct step_result *row = &report->rows[i];
        struct sequence *sequence = &s->sequences[s->rows[at][i]];
        for (int k = 0; k < row->count && sequence->count < TEXT_MAX; k++) {
            bool last = k == row->count - 1 && (!s->decode[at][i] || row->count == s->verify[at]);
            sequence->own[sequence->count] = last || !(s->rig->options.synthetic_length > 0);
            sequence->text[sequence->count++] = row->tokens[k];
        }
        s->accepted += row->count > 1;
    }
}

// ---- runs ----

struct outcome {
    uint64_t reports, state;
    uint64_t bytes_before, bytes_after;
    uint64_t trail[STEPS + 1];
    int32_t draft_most; // of the drafts that lie in the slots, -1: there are none
};

static int32_t draft_most(struct rig *rig)
{
    int32_t drafts[ROW_VERIFY_MAX - 1], most = -1;
    for (int slot = 0; slot < SLOTS; slot++) {
        rig_drafts(rig, slot, drafts);
        for (int i = 0; i < ROW_VERIFY_MAX - 1; i++)
            most = drafts[i] > most ? drafts[i] : most;
    }
    return most;
}

static struct outcome run_script(struct script *s, const struct rig_options *options, int ahead)
{
    struct outcome outcome;
    struct rig *rig = (struct rig *)calloc(1, sizeof *rig);
    memset(s, 0, sizeof *s);
    rig_open(rig, options);
    s->rig = rig;
    s->random = 2026;
    s->drafts_max = rig->weights.has_mtp ? options->drafts_max : 0;
    for (int i = 0; i < SLOTS; i++)
        s->seats[i].sequence = -1;
    for (int i = 0; i < CHECKPOINTS; i++)
        s->donors[i] = (struct donor){.sequence = -1, .named = -REST};
    rig->took = take_report;
    rig->context = s;
    outcome.bytes_before = runtime_bytes_free();
    for (int i = 0; i < STEPS; i++) {
        plan_step(s);
        rig_submit(rig, ahead);
    }
    rig_drain(rig, 0);
    outcome.bytes_after = runtime_bytes_free();
    outcome.reports = rig->hash;
    memcpy(outcome.trail, s->trail, sizeof outcome.trail);
    outcome.state = rig_state_hash(rig);
    outcome.draft_most = draft_most(rig);
    rig_close(rig);
    free(rig);
    return outcome;
}

static int compare(const char *name, const char *what, const struct script *s,
                   const struct outcome *a, const struct outcome *b, bool state)
{
    bool right = a->reports == b->reports && (!state || a->state == b->state);
    printf("%s %s script, %s: reports %016llx, state %016llx\n", right ? "ok  " : "FAIL", name,
           what, (unsigned long long)b->reports, (unsigned long long)b->state);
    for (int i = 1; i <= STEPS; i++) {
        const struct shape *shape = &s->shapes[i];
        if (a->trail[i] == b->trail[i])
            continue;
        printf("     %s script, %s: first at step %d of %d decode rows, %d prompts of %d tokens, "
               "verify %d, draft %d\n",
               name, what, i, shape->decode_rows, shape->prompt_rows, shape->prompt_tokens,
               shape->verify, shape->draft);
        break;
    }
    return !right;
}

// ---- each text once more, as one prompt ----

static void judge_text(struct near_ties *ties, struct rig *rig, const struct sequence *sequence,
                       float *logits)
{
    size_t vocab = (size_t)rig->model.config.vocab;
    rig_plan(rig);
    rig_add_open(rig, 0, 0, PAGES_EACH);
    rig_add_prompt(rig, 0, sequence->text, sequence->count, -1);
    rig_submit(rig, 0);
    rig_drain(rig, 0);
    rig_all_logits(rig, sequence->count, logits);
    for (int i = sequence->known; i < sequence->count; i++) {
        const float *row = logits + (size_t)(i - 1) * vocab;
        if (!sequence->own[i])
            continue;
        double gap = (double)row[near_ties_best(ties, row)] - (double)row[sequence->text[i]];
        ties->tokens++;
        ties->changed += !(gap <= 0);
        ties->unexplained += !(gap <= ties->text_tolerance);
        ties->gap_max = gap > ties->gap_max || isnan(gap) ? gap : ties->gap_max;
    }
}

// The share of other tokens is at most twice what transformers' bf16 run has against float32 (two
// runs of bf16 differ by sqrt(2) of that), and four standard deviations of a share.
static double most_changed(const json_t *root, bool experts, int tokens)
{
    const char *key = experts ? "bf16_minus_f32_natural.hf" : "bf16_minus_f32.hf";
    char path[96];
    snprintf(path, sizeof path, "%s.best_id_differs", key);
    double share = 2 * golden_number(root, path);
    snprintf(path, sizeof path, "%s.positions", key);
    share /= golden_number(root, path);
    return share + 4 * sqrt(share * (1 - share) / tokens);
}

static int judge_texts(const char *name, struct script *s, const struct rig_options *options,
                       const json_t *root)
{
    struct rig *rig = (struct rig *)calloc(1, sizeof *rig);
    struct near_ties ties = {.real_ids = options->vocab_real};
    near_ties_of(&ties, root);
    rig_open(rig, options);
    float *logits = (float *)calloc(TEXT_MAX * (size_t)rig->model.config.vocab, sizeof(float));
    for (int i = 0; i < s->sequences_count; i++) {
        struct sequence *sequence = &s->sequences[i];
        for (int k = 0; k < sequence->position; k++)
            sequence->text[k] = s->sequences[sequence->parent].text[k];
        if (sequence->greedy && sequence->count > sequence->known)
            judge_text(&ties, rig, sequence, logits);
    }
    double share = (double)ties.changed / ties.tokens;
    double most = most_changed(root, rig->model.config.experts > 0, ties.tokens);
    bool right = ties.tokens > 0 && ties.unexplained == 0 && share <= most;
    printf("%s %s texts as prompts: %d tokens, %d others (%.2f %%, limit %.2f %%) by up to %.4f "
           "(limit %.4f), %d unexplained\n",
           right ? "ok  " : "FAIL", name, ties.tokens, ties.changed, 100 * share, 100 * most,
           ties.gap_max, ties.text_tolerance, ties.unexplained);
    free(logits);
    rig_close(rig);
    free(rig);
    return !right;
}

static int check_script(const char *name, struct script *s, const struct rig_options *options,
                        const json_t *root)
{
    struct rig_options zeroed = *options, eager = *options;
    zeroed.fill = 0;
    eager.graphs = false;
    eager.padded = true;
    struct outcome first = run_script(s, options, 1);
    struct outcome other = run_script(s, options, 1);
    int failed = compare(name, "again", s, &first, &other, true);
    if (strcmp(runtime_backend(), "cuda") == 0) {
        bool kept = other.bytes_before == other.bytes_after;
        printf("%s %s script: %lld bytes of device memory taken after start\n",
               kept ? "ok  " : "FAIL", name, (long long)(other.bytes_before - other.bytes_after));
        failed += !kept;
    }
    other = run_script(s, &zeroed, 0);
    failed += compare(name, "memory zeroed, a step at a time", s, &first, &other, false);
    other = run_script(s, &eager, 1);
    failed += compare(name, "op by op", s, &first, &other, true);
    printf("     %s script: %d sequences, %d loads, %d saves, %d folds, %d replays, %d steps for "
           "graphs, %d rows of several tokens\n",
           name, s->sequences_count, s->loads, s->saves, s->folds, s->replays, s->graphs,
           s->accepted);
    if (options->draft_vocab > 0) {
        bool below = first.draft_most >= 0 && first.draft_most < options->draft_vocab;
        printf("%s %s script: the largest draft is %d of %d\n", below ? "ok  " : "FAIL", name,
               first.draft_most, options->draft_vocab);
        failed += !below;
    }
    return failed + judge_texts(name, s, options, root);
}

int script_check(const char *name)
{
    struct golden golden;
    struct script *s = (struct script *)calloc(1, sizeof *s);
    bool head = strcmp(name, "dense_untied_r2") == 0 || strcmp(name, "moe_e8_r2") == 0;
    golden_open(&golden, name, "logits");
    struct rig_options options = {.model_dir = golden.dir,
                                  .sequences = SLOTS,
                                  .sequence_tokens = TEXT_MAX,
                                  .step_tokens = 2048,
                                  .pages = PAGES,
                                  .checkpoints = CHECKPOINTS,
                                  .drafts_max = STEP_VERIFY_MAX - 1,
                                  .vocab_real = (int)golden_number(golden.root, "real_ids"),
                                  .graphs = true,
                                  .fill = 0xff};
    int failed = check_script(name, s, &options, golden.root);
    if (head) {
        options.synthetic_length = 3.39;
        printf("     %s with drafts accepted by chance\n", name);
        failed += check_script(name, s, &options, golden.root);
        options.synthetic_length = 0;
        options.draft_vocab = DRAFT_VOCAB;
        printf("     %s with drafts of few ids\n", name);
        failed += check_script(name, s, &options, golden.root);
    }
    golden_close(&golden);
    free(s);
    return failed;
}
