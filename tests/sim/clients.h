// SPDX-License-Identifier: Apache-2.0
// clients.h -- requests and what their clients see: every token is held against the oracle, every
// answer against what was asked, and every request ends exactly once.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core.h"
#include "tests/sim/scenario.h"

struct sim;

enum { CLIENT_OUTPUTS_MAX = 6400 };

enum client_phase { CLIENT_COMING, CLIENT_ACCEPTED, CLIENT_ENDED };

struct client {
    enum client_phase phase;
    uint64_t number; // the door's
    uint64_t seed;   // names the client in plans
    int32_t prompt_tokens;
    int32_t follows, follows_tokens; // another's text, with which its own begins; -1 none
    int32_t priority;
    uint64_t timeout_ns, accepted_ns;
    uint64_t arrival; // counts those who were accepted
    struct coord_sampling sampling;
    int32_t door_stops_after; // outputs after which the door finds a stop string, 0 = never
    bool leaves;              // the door aborts it at some time
    // What has come true.
    int32_t group;      // -1 until a plan opened its slot
    bool has_slot;      // opened and not closed again
    int32_t tokens_end; // of that plan
    int32_t outputs;
    uint64_t state;   // of the oracle: every token so far
    bool said_stop;   // the newest token is a stop id
    bool finish_sent; // the door has sent FINISH
    uint64_t steps_at_accept[SIM_GROUPS_MAX];
    uint64_t steps_bound; // steps of its group within which it must end
    int32_t *tokens;      // [CLIENT_OUTPUTS_MAX] outputs, allocated when accepted
};

struct clients {
    struct client list[SIM_CLIENTS_MAX];
    uint64_t seed_first; // of client 0; the others follow
    uint64_t arrivals;
    int unfinished; // accepted and not ended
    int ended, coming;
    int32_t *prompt;            // scratch
    struct client *submitting;  // its SUBMIT has not been answered yet
    struct coord_status before; // the core's counts before that SUBMIT
    bool shut_down, draining;
    uint64_t tokens_seen, done_seen, errors_seen, overloaded_seen, aborted_seen, returned_seen,
        timeouts_seen;
    uint64_t answers_found, returns_found; // starts in another's answer, in one's own
};

// Draws all clients of the scenario and puts them on the agenda.
void clients_open(struct sim *sim);
void clients_close(struct sim *sim);

// The door submits, or finishes, the request of a client.
void clients_submit(struct sim *sim, int32_t index);
void clients_finish(struct sim *sim, int32_t index);

// The core's actions about requests.
void clients_action(struct sim *sim, const struct coord_action *action);

// A plan opens a slot in this group.
void clients_opened(struct sim *sim, int32_t group, const struct step_open *open);

// A group has failed: who had a slot in it and no row yet waits from now on for another.
void clients_group_failed(struct sim *sim);

// Token number `position` of a client's sequence; it must be known.
int32_t clients_token(const struct sim *sim, const struct client *client, int32_t position);

// The same for a token of the prompt of the client with this seed, -1 when there is none; context:
// the sim.
int32_t clients_prompt(const void *context, uint64_t seed, int32_t position);

// The client whose seed a plan names, NULL when there is none.
struct client *clients_of_seed(struct sim *sim, uint64_t seed);

// After each event and all of its actions: nobody waits who cannot be served any more, and nobody
// waits for more steps than it may.
void clients_check(struct sim *sim);
