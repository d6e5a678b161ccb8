// SPDX-License-Identifier: Apache-2.0
// clients.c -- draws requests, submits and finishes them, and checks every answer.
#include "tests/sim/clients.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/memory_plan.h"
#include "tests/sim/oracle.h"
#include "tests/sim/sim.h"

static const char *const door_aborts = "abort";
static const char *const door_stops = "stop string";

// ---- what is asked ----

static void draw_stops(struct sim *sim, struct coord_sampling *sampling)
{
    int32_t vocab = sim->scenario.options.vocab_real;
    sampling->stop_count = (int32_t)dice_between(&sim->dice, 1, STEP_STOP_IDS_MAX);
    for (int32_t i = 0; i < sampling->stop_count; i++)
        sampling->stop_ids[i] = (int32_t)dice_between(&sim->dice, 0, vocab - 1);
    if (dice_chance(&sim->dice, 0.3))
        sampling->min_tokens = (int32_t)dice_between(&sim->dice, 0, 20);
}

static void draw_client(struct sim *sim, int32_t index)
{
    const struct scenario *scenario = &sim->scenario;
    struct dice *dice = &sim->dice;
    struct client *client = &sim->clients.list[index];
    bool is_short = dice_chance(dice, scenario->short_prompts);
    int32_t longest = is_short ? scenario->short_tokens_max : scenario->prompt_tokens_max;
    *client = (struct client){.number = (uint64_t)index + 1,
                              .seed = sim->clients.seed_first + (uint64_t)index,
                              .follows = -1,
                              .group = -1};
    client->prompt_tokens = (int32_t)dice_between(dice, 1, longest);
    if (!is_short && dice_chance(dice, 0.2)) // at and around the grid of chunks and pages
        client->prompt_tokens =
            (client->prompt_tokens + 63) / 64 * 64 + (int32_t)dice_between(dice, -1, 1);
    client->sampling = (struct coord_sampling){
        .seed = client->seed,
        .temperature = dice_chance(dice, 0.5) ? 1.0f : 0.0f,
        .top_k = (int32_t)dice_between(dice, 0, 50),
        .top_p = (float)dice_between(dice, 0, 10) / 10,
        .min_p = (float)dice_between(dice, 0, 10) / 10,
        .repetition = (float)dice_between(dice, 10, 20) / 10,
        .frequency = (float)dice_between(dice, -20, 20) / 10,
        .presence = (float)dice_between(dice, -20, 20) / 10,
        .max_tokens = (int32_t)dice_between(dice, 1, scenario->output_tokens_max),
    };
    if (dice_chance(dice, scenario->endless))
        client->sampling.max_tokens = dice_chance(dice, 0.7) ? -1 : INT32_MAX;
    if (dice_chance(dice, scenario->stops))
        draw_stops(sim, &client->sampling);
    client->leaves = dice_chance(dice, scenario->aborts);
    if (scenario->priorities)
        client->priority = (int32_t)dice_between(dice, -1, 1) * (int32_t)dice_between(dice, 0, 2);
    if (dice_chance(dice, scenario->timeouts))
        client->timeout_ns =
            (uint64_t)dice_between(dice, 1, dice_chance(dice, 0.5) ? 100 : 5000) * SIM_MS_NS;
    if (dice_chance(dice, scenario->door_stops))
        client->door_stops_after = (int32_t)dice_between(dice, 1, scenario->output_tokens_max);
    uint64_t arrival_ns = (uint64_t)dice_between(dice, 0, (int64_t)scenario->arrivals_ns);
    if (dice_chance(dice, 0.5)) // bursts: everybody of a tenth comes at once
        arrival_ns -= arrival_ns % (scenario->arrivals_ns / 10 + 1);
    sim_later(sim, arrival_ns, (struct agenda_item){.type = AGENDA_CLIENT_SUBMITS, .index = index});
    if (client->leaves) {
        int64_t patience_ns = dice_chance(dice, 0.3) ? 20 * SIM_MS_NS : 3 * (int64_t)SIM_S_NS;
        sim_later(sim, arrival_ns + (uint64_t)dice_between(dice, 0, patience_ns),
                  (struct agenda_item){.type = AGENDA_CLIENT_FINISHES, .index = index});
    }
}

void clients_open(struct sim *sim)
{
    struct clients *clients = &sim->clients;
    clients->seed_first = dice_next(&sim->dice) >> 1;
    clients->prompt = malloc(2 * SEQUENCE_TOKENS_MAX * sizeof *clients->prompt);
    ASSERT(clients->prompt != NULL);
    clients->coming = sim->scenario.clients;
    for (int32_t i = 0; i < sim->scenario.clients; i++)
        draw_client(sim, i);
}

void clients_close(struct sim *sim)
{
    for (int32_t i = 0; i < sim->scenario.clients; i++)
        free(sim->clients.list[i].tokens);
    free(sim->clients.prompt);
}

struct client *clients_of_seed(struct sim *sim, uint64_t seed)
{
    uint64_t index = seed - sim->clients.seed_first;
    return index < (uint64_t)sim->scenario.clients ? &sim->clients.list[index] : NULL;
}

static struct client *client_of_number(struct sim *sim, uint64_t number)
{
    for (int32_t i = 0; i < sim->scenario.clients; i++) {
        struct client *client = &sim->clients.list[i];
        if (client->phase == CLIENT_ACCEPTED && client->number == number)
            return client;
    }
    return NULL;
}

// A number that no unfinished request has; small ones, used over and over.
static uint64_t reused_number(struct sim *sim)
{
    for (;;) {
        uint64_t door = (uint64_t)dice_between(&sim->dice, 0, 1) << 56;
        uint64_t number = door | (uint64_t)dice_between(&sim->dice, 1, 2 * SIM_CLIENTS_MAX);
        if (client_of_number(sim, number) == NULL)
            return number;
    }
}

// Steps that a request needs at most when it is alone or the most senior: in every second step a
// token drawn, or in every second of those a chunk of at least 64 tokens, and some until its slot
// is free.
static uint64_t steps_alone(const struct sim *sim, const struct client *client)
{
    int32_t context = sim->scenario.options.wishes.sequence_tokens - client->prompt_tokens;
    int32_t outputs = client->sampling.max_tokens;
    if (outputs == -1 || outputs > context)
        outputs = context > 1 ? context : 1;
    return 4 * (uint64_t)(client->prompt_tokens / TOKENS_PER_PAGE + 1) + 2 * (uint64_t)outputs + 4;
}

// A request may have to wait for all that came before it and for the more urgent that come after,
// and for nobody else.
static void bound_steps(struct sim *sim, struct client *client)
{
    uint64_t steps = steps_alone(sim, client);
    for (int32_t i = 0; i < sim->scenario.clients; i++) {
        const struct client *other = &sim->clients.list[i];
        if (other->phase == CLIENT_ACCEPTED && other != client)
            steps += steps_alone(sim, other);
    }
    client->steps_bound = steps;
    for (int32_t i = 0; i < sim->scenario.clients; i++) { // for whom a more urgent one has come
        struct client *other = &sim->clients.list[i];
        if (other->phase == CLIENT_ACCEPTED && other->priority > client->priority)
            other->steps_bound += steps_alone(sim, client);
    }
    for (int g = 0; g < sim->scenario.options.groups; g++)
        client->steps_at_accept[g] = sim->invariants.groups[g].sent;
}

void clients_group_failed(struct sim *sim)
{
    for (int32_t i = 0; i < sim->scenario.clients; i++) {
        struct client *client = &sim->clients.list[i];
        for (int g = 0; g < sim->scenario.options.groups && client->group < 0; g++)
            client->steps_at_accept[g] = sim->invariants.groups[g].sent;
    }
}

// ---- what is answered at once ----

// Whether the text names this number, and not only digits of a longer one.
static bool text_has_number(const char *text, int32_t number)
{
    char digits[16];
    int count = snprintf(digits, sizeof digits, "%d", number);
    for (const char *at = text; at != NULL; at++) {
        at = strstr(at, digits);
        if (at == NULL)
            return false;
        bool begins = at == text || at[-1] < '0' || at[-1] > '9';
        if (begins && (at[count] < '0' || at[count] > '9'))
            return true;
    }
    return false;
}

// The shortest context of the groups when all are known to be ready, else 0.
static int32_t known_context(const struct sim *sim)
{
    int32_t context = INT32_MAX;
    for (int g = 0; g < sim->scenario.options.groups; g++) {
        const struct watched_group *group = &sim->invariants.groups[g];
        if (!group->ready || group->failed)
            return 0;
        if (group->memory.sequence_tokens < context)
            context = group->memory.sequence_tokens;
    }
    return context;
}

static void check_refusal(struct sim *sim, const struct client *client,
                          const struct coord_action *action, const struct coord_status *before)
{
    int32_t context = known_context(sim);
    int64_t blocks = (client->prompt_tokens + 63) / 64 * 64;
    int32_t waiting = before->queued - before->preempted;
    const char *text = action->text != NULL ? action->text : "";
    bool right = false;
    if (action->status == E_INPUT)
        right = (context == 0 || client->prompt_tokens >= context) &&
                text_has_number(text, client->prompt_tokens);
    else if (action->status == E_FAILED)
        right = before->failed;
    else if (action->status == E_OVERLOADED && strstr(text, "drains") != NULL)
        right = sim->clients.draining;
    else if (action->status == E_OVERLOADED && strstr(text, "waiting") != NULL)
        right = waiting >= before->queued_max && text_has_number(text, waiting);
    else if (action->status == E_OVERLOADED && strstr(text, "pool") != NULL)
        right = before->pool_tokens_free < blocks;
    if (!right)
        sim_violation(sim, "request %llx (%d tokens) was refused: %s: '%s'",
                      (unsigned long long)client->number, client->prompt_tokens,
                      status_name(action->status), text);
    sim->clients.overloaded_seen += action->status == E_OVERLOADED;
}

static void check_accepted(struct sim *sim, const struct client *client,
                           const struct coord_status *before)
{
    int32_t context = known_context(sim);
    if ((context > 0 && client->prompt_tokens >= context) || before->failed ||
        before->queued - before->preempted >= before->queued_max || sim->clients.draining ||
        before->pool_tokens_free < (client->prompt_tokens + 63) / 64 * 64)
        sim_violation(sim, "request %llx of %d tokens was accepted and cannot be served",
                      (unsigned long long)client->number, client->prompt_tokens);
}

// The answer to a SUBMIT has to be the first action about the request, in the same call.
static void answer(struct sim *sim, struct client *client, const struct coord_action *action)
{
    struct clients *clients = &sim->clients;
    clients->submitting = NULL;
    clients->coming--;
    if (action->type == ACTION_ACCEPTED) {
        check_accepted(sim, client, &clients->before);
        client->phase = CLIENT_ACCEPTED;
        client->tokens = malloc(CLIENT_OUTPUTS_MAX * sizeof *client->tokens);
        ASSERT(client->tokens != NULL);
        client->arrival = clients->arrivals++;
        client->accepted_ns = sim->now_ns;
        clients->unfinished++;
        bound_steps(sim, client);
    } else if (action->type == ACTION_ERROR) {
        check_refusal(sim, client, action, &clients->before);
        client->phase = CLIENT_ENDED;
    } else {
        sim_violation(sim, "request %llx was not answered by ACCEPTED or ERROR",
                      (unsigned long long)client->number);
    }
}

// The next turn of a conversation: what another sent and was told, and some more.
static void follow(struct sim *sim, struct client *client)
{
    int32_t other = (int32_t)dice_between(&sim->dice, 0, sim->scenario.clients - 1);
    const struct client *before = &sim->clients.list[other];
    if (!dice_chance(&sim->dice, sim->scenario.follows) || before->phase != CLIENT_ENDED ||
        before->tokens == NULL)
        return;
    client->follows = other;
    client->follows_tokens = before->prompt_tokens + before->outputs;
    client->prompt_tokens = client->follows_tokens + (int32_t)dice_between(&sim->dice, 1, 70);
}

void clients_submit(struct sim *sim, int32_t index)
{
    struct client *client = &sim->clients.list[index];
    if (sim->scenario.numbers_reused)
        client->number = reused_number(sim);
    client->state = 0;
    follow(sim, client);
    for (int32_t t = 0; t < client->prompt_tokens; t++) {
        int32_t token = clients_token(sim, client, t);
        sim->clients.prompt[t] = token;
        client->state = oracle_fold(client->state, token);
    }
    sim_trace(sim, "request %llx: %d tokens, max_tokens %d, %d stop ids",
              (unsigned long long)client->number, client->prompt_tokens,
              client->sampling.max_tokens, client->sampling.stop_count);
    sim->clients.submitting = client;
    coord_status(sim->coord, &sim->clients.before);
    front_step(sim, &(struct coord_event){.type = EVENT_SUBMIT,
                                          .worker = -1,
                                          .submit = {.request = client->number,
                                                     .prompt = sim->clients.prompt,
                                                     .prompt_tokens = client->prompt_tokens,
                                                     .priority = client->priority,
                                                     .timeout_ns = client->timeout_ns,
                                                     .sampling = client->sampling}});
    if (sim->clients.submitting != NULL)
        sim_violation(sim, "request %llx was not answered", (unsigned long long)client->number);
}

// ---- its life ----

static void end_client(struct sim *sim, struct client *client)
{
    client->phase = CLIENT_ENDED;
    sim->clients.unfinished--;
    sim->clients.ended++;
    sim->invariants.moved_ns = sim->now_ns;
}

void clients_finish(struct sim *sim, int32_t index)
{
    struct client *client = &sim->clients.list[index];
    bool waits = client->phase == CLIENT_ACCEPTED;
    const char *reason = client->leaves ? door_aborts : door_stops;
    // The door forgets a request that has ended; its number may be another's by now.
    if (client->phase == CLIENT_COMING || (!waits && sim->scenario.numbers_reused))
        return;
    client->finish_sent = true;
    sim_trace(sim, "request %llx: the door says %s", (unsigned long long)client->number, reason);
    front_step(sim, &(struct coord_event){.type = EVENT_FINISH,
                                          .worker = -1,
                                          .finish = {.request = client->number, .reason = reason}});
    if (client->phase != CLIENT_ENDED)
        sim_violation(sim, "request %llx lives on after FINISH",
                      (unsigned long long)client->number);
}

// A preempted request is back: it may be computed again, and that may delay everybody.
static void returned(struct sim *sim, struct client *client, int32_t group,
                     const struct step_open *open)
{
    if (group != client->group || open->tokens_end != client->tokens_end)
        sim_violation(sim, "request %llx was in group %d to %d, is back in group %d to %d",
                      (unsigned long long)client->number, client->group, client->tokens_end, group,
                      open->tokens_end);
    int32_t tokens = client->prompt_tokens + client->outputs;
    for (int32_t i = 0; i < sim->scenario.clients; i++)
        sim->clients.list[i].steps_bound += 4 * (uint64_t)(tokens / TOKENS_PER_PAGE + 1) + 4;
    sim->clients.returned_seen++;
    sim->clients.returns_found += open->position > client->prompt_tokens;
}

void clients_opened(struct sim *sim, int32_t group, const struct step_open *open)
{
    struct client *client = clients_of_seed(sim, open->seed);
    if (client == NULL || client->phase != CLIENT_ACCEPTED || client->has_slot) {
        sim_violation(sim, "group %d opens a slot for a request that %s", group,
                      client == NULL ? "nobody sent" : "runs or has ended");
        return;
    }
    client->has_slot = true;
    if (client->group >= 0) {
        returned(sim, client, group, open);
        return;
    }
    int32_t context = sim->invariants.groups[group].context;
    int64_t wanted = (int64_t)client->prompt_tokens + client->sampling.max_tokens;
    int64_t least = INT32_MAX; // another group's context may have cut the end before
    for (int g = 0; g < sim->scenario.options.groups; g++) {
        int32_t other = sim->invariants.groups[g].context;
        least = other > 0 && other < least ? other : least;
    }
    if (client->sampling.max_tokens == -1)
        wanted = context;
    least = wanted < least ? wanted : least;
    client->group = group;
    client->tokens_end = open->tokens_end;
    if (open->tokens_end > wanted || open->tokens_end > context || open->tokens_end < least)
        sim_violation(sim, "request %llx ends at %d, wanted %lld, context %d",
                      (unsigned long long)client->number, open->tokens_end, (long long)wanted,
                      context);
    if (open->prompt_tokens != client->prompt_tokens ||
        open->temperature != client->sampling.temperature ||
        open->top_k != client->sampling.top_k || open->top_p != client->sampling.top_p ||
        open->min_p != client->sampling.min_p || open->repetition != client->sampling.repetition ||
        open->frequency != client->sampling.frequency ||
        open->presence != client->sampling.presence ||
        open->stop_count != client->sampling.stop_count ||
        memcmp(open->stop_ids, client->sampling.stop_ids,
               (size_t)open->stop_count * sizeof(int32_t)) != 0)
        sim_violation(sim, "request %llx is opened with another's sampling",
                      (unsigned long long)client->number);
}

int32_t clients_token(const struct sim *sim, const struct client *client, int32_t position)
{
    while (position < client->follows_tokens)
        client = &sim->clients.list[client->follows];
    return position < client->prompt_tokens
               ? oracle_prompt_token(client->seed, position, sim->scenario.options.vocab_real)
               : client->tokens[position - client->prompt_tokens];
}

int32_t clients_prompt(const void *context, uint64_t seed, int32_t position)
{
    const struct sim *sim = (const struct sim *)context;
    uint64_t index = seed - sim->clients.seed_first;
    return index < (uint64_t)sim->scenario.clients
               ? clients_token(sim, &sim->clients.list[index], position)
               : -1;
}

static int32_t expected_token(const struct sim *sim, const struct client *client)
{
    int32_t position = client->prompt_tokens + client->outputs, probed[ORACLE_PROBES];
    for (int i = 0; i < ORACLE_PROBES; i++)
        probed[i] = clients_token(sim, client, oracle_probe(client->seed, position, i));
    int32_t vocab = sim->scenario.options.vocab_real;
    int32_t token = oracle_draw(client->seed, position, client->state, probed, vocab);
    if (client->outputs < client->sampling.min_tokens)
        token = oracle_avoid(token, client->sampling.stop_ids, client->sampling.stop_count, vocab);
    return token;
}

static void take_token(struct sim *sim, struct client *client, int32_t token)
{
    int32_t expected = expected_token(sim, client);
    if (client->group < 0 || client->said_stop ||
        client->prompt_tokens + client->outputs >= client->tokens_end) {
        sim_violation(sim, "request %llx: token %d after its end",
                      (unsigned long long)client->number, client->outputs);
        return;
    }
    if (sim->invariants.groups[client->group].failed)
        sim_violation(sim, "request %llx: a token of a dead epoch",
                      (unsigned long long)client->number);
    if (token != expected)
        sim_violation(sim, "request %llx: output %d is %d, the oracle says %d",
                      (unsigned long long)client->number, client->outputs, token, expected);
    client->tokens[client->outputs++] = token;
    client->state = oracle_fold(client->state, token);
    for (int32_t i = 0; i < client->sampling.stop_count; i++)
        client->said_stop = client->said_stop || client->sampling.stop_ids[i] == token;
    sim->clients.tokens_seen++;
    if (client->outputs == client->door_stops_after)
        sim_later(sim, (uint64_t)dice_between(&sim->dice, 0, 3 * SIM_MS_NS),
                  (struct agenda_item){.type = AGENDA_CLIENT_FINISHES,
                                       .index = (int32_t)(client - sim->clients.list)});
}

static void check_done(struct sim *sim, const struct client *client,
                       const struct coord_action *action)
{
    const char *reason = action->reason != NULL ? action->reason : "";
    bool full = client->group >= 0 && client->prompt_tokens + client->outputs == client->tokens_end;
    bool right;
    if (strcmp(reason, "stop") == 0)
        right = client->said_stop;
    else if (strcmp(reason, "length") == 0)
        right = full && !client->said_stop;
    else if (strcmp(reason, "timeout") == 0)
        right = client->timeout_ns > 0 && !full && !client->said_stop &&
                sim->now_ns >= client->accepted_ns + client->timeout_ns;
    else
        right = client->finish_sent && !full && !client->said_stop &&
                strcmp(reason, client->leaves ? door_aborts : door_stops) == 0;
    if (!right)
        sim_violation(sim, "request %llx is done (%s) after %d outputs, end %d, stop %d",
                      (unsigned long long)client->number, reason, client->outputs,
                      client->tokens_end, client->said_stop);
    if (action->usage.cached_tokens < 0 || action->usage.cached_tokens >= client->prompt_tokens ||
        action->usage.cached_tokens % TOKENS_PER_PAGE != 0)
        sim_violation(sim, "request %llx: %d of %d prompt tokens were cached",
                      (unsigned long long)client->number, action->usage.cached_tokens,
                      client->prompt_tokens);
    if (action->usage.prompt_tokens != client->prompt_tokens ||
        action->usage.completion_tokens != client->outputs ||
        action->usage.target_steps + action->usage.accepted < client->outputs ||
        action->usage.accepted > action->usage.drafted ||
        (action->usage.drafted > 0 && !sim->scenario.mtp))
        sim_violation(sim, "request %llx: usage says %d + %d tokens in %d steps, it has %d + %d",
                      (unsigned long long)client->number, action->usage.prompt_tokens,
                      action->usage.completion_tokens, action->usage.target_steps,
                      client->prompt_tokens, client->outputs);
    if (client->follows >= 0)
        sim->clients.answers_found +=
            action->usage.cached_tokens > sim->clients.list[client->follows].prompt_tokens;
    sim->clients.done_seen++;
    sim->clients.aborted_seen += client->finish_sent;
    sim->clients.timeouts_seen += strcmp(reason, "timeout") == 0;
}

static void check_error(struct sim *sim, const struct client *client,
                        const struct coord_action *action)
{
    const struct watched_group *groups = sim->invariants.groups;
    bool right = false, every_failed = true, some_large = false;
    for (int g = 0; g < sim->scenario.options.groups; g++) {
        every_failed = every_failed && (groups[g].failed || sim->clients.shut_down);
        some_large = some_large || (!groups[g].failed && client->prompt_tokens < groups[g].context);
    }
    if (action->status == E_FAILED)
        right = client->group >= 0 ? groups[client->group].failed : every_failed;
    else if (action->status == E_INPUT) // accepted before the memory plan was known
        right = client->group < 0 && !some_large &&
                text_has_number(action->text, client->prompt_tokens);
    if (!right || action->text == NULL || action->text[0] == '\0')
        sim_violation(sim, "request %llx (%d tokens, group %d) ends with %s: '%s'",
                      (unsigned long long)client->number, client->prompt_tokens, client->group,
                      status_name(action->status), action->text != NULL ? action->text : "");
    sim->clients.errors_seen++;
}

void clients_action(struct sim *sim, const struct coord_action *action)
{
    struct client *client = sim->clients.submitting;
    if (client != NULL && client->number == action->request) {
        answer(sim, client, action);
        return;
    }
    client = client_of_number(sim, action->request);
    if (client == NULL || action->type == ACTION_ACCEPTED) {
        sim_violation(sim, "an action about request %llx, which is unknown or has ended",
                      (unsigned long long)action->request);
    } else if (action->type == ACTION_TOKENS) {
        if (action->tokens_count < 1)
            sim_violation(sim, "an empty list of tokens");
        for (int32_t i = 0; i < action->tokens_count && !sim->violated; i++)
            take_token(sim, client, action->tokens[i]);
    } else if (action->type == ACTION_DONE) {
        check_done(sim, client, action);
        end_client(sim, client);
    } else {
        check_error(sim, client, action);
        end_client(sim, client);
    }
}

// Who has no row yet may have a slot already, in any group, of which nobody knows: it starves when
// every group has gone on for too long.
static void check_steps(struct sim *sim, const struct client *client)
{
    uint64_t fewest = UINT64_MAX;
    for (int32_t g = 0; g < sim->scenario.options.groups; g++) {
        const struct watched_group *group = &sim->invariants.groups[g];
        uint64_t steps = group->sent - client->steps_at_accept[g];
        if ((client->group == g || client->group < 0) && !group->failed && steps < fewest)
            fewest = steps;
    }
    if (fewest != UINT64_MAX && fewest > client->steps_bound)
        sim_violation(sim, "request %llx starves: %llu steps since it came, %d outputs",
                      (unsigned long long)client->number, (unsigned long long)fewest,
                      client->outputs);
}

void clients_check(struct sim *sim)
{
    bool every_failed = true;
    for (int32_t g = 0; g < sim->scenario.options.groups; g++)
        every_failed = every_failed && sim->invariants.groups[g].failed;
    for (int32_t i = 0; i < sim->scenario.clients && sim->clients.unfinished > 0; i++) {
        const struct client *client = &sim->clients.list[i];
        if (client->phase != CLIENT_ACCEPTED)
            continue;
        check_steps(sim, client);
        if (client->timeout_ns > 0 && sim->now_ns > client->accepted_ns + client->timeout_ns)
            sim_violation(sim, "request %llx lives on after its time",
                          (unsigned long long)client->number);
        bool lost = client->group >= 0 && sim->invariants.groups[client->group].failed;
        if (lost || every_failed || sim->front.drained || sim->clients.shut_down)
            sim_violation(sim, "request %llx waits for a group that is gone",
                          (unsigned long long)client->number);
    }
}
