// SPDX-License-Identifier: Apache-2.0
// scenario.h -- everything that a seed decides before a run begins: the deployment, the network,
// the clients, the faults, the end.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core.h"
#include "tests/sim/dice.h"

enum {
    SIM_GROUPS_MAX = 2,
    SIM_RANKS_MAX = 4,
    SIM_PROCESSES_MAX = 12,
    SIM_CLIENTS_MAX = 400,
    SIM_FAULTS_MAX = 8,
};

#define SIM_US_NS 1000u
#define SIM_MS_NS 1000000u
#define SIM_S_NS  1000000000u

enum mood {
    MOOD_CALM,   // nothing goes wrong: every request must be served
    MOOD_NOISY,  // copies, overtaking and pauses that must be borne: every request must be served
    MOOD_FAULTY, // anything: every request must end, once, and say only what is true
};

enum fault_type {
    FAULT_KILL,     // the process dies, its connection closes
    FAULT_VANISH,   // the process dies, nobody is told
    FAULT_FREEZE,   // the process does nothing for a while, then goes on
    FAULT_HANG,     // its device begins no further step; it still beats
    FAULT_CUT_IN,   // nothing reaches it for a while
    FAULT_CUT_OUT,  // nothing that it says arrives for a while
    FAULT_HASH,     // its next report carries another hash
    FAULT_NONSENSE, // rank 0: its next report contradicts the plan
    FAULT_GARBAGE,  // it sends bytes that are no message
    FAULT_GIVES_UP, // it says FAILURE and ends
    FAULT_PAUSE,    // the coordinator itself does nothing for a while, then goes on
    FAULT_TYPE_COUNT
};

struct fault {
    enum fault_type type;
    uint64_t when_ns, duration_ns;
    int32_t process;
};

enum ending {
    ENDING_LAST,     // DRAIN when the last client has its answer
    ENDING_DRAIN,    // DRAIN in the middle
    ENDING_SHUTDOWN, // SHUTDOWN in the middle
};

// What is wrong with a process beyond those that the groups need.
enum intruder {
    INTRUDER_NONE,
    INTRUDER_VERSION,
    INTRUDER_BUILD,
    INTRUDER_CONFIG,
    INTRUDER_SURPLUS
};

struct scenario {
    uint64_t seed;
    enum mood mood;
    struct coord_options options;
    bool poisoned_memory; // the core's memory is not zero at start
    int processes;
    enum intruder intruders[SIM_PROCESSES_MAX];
    uint64_t bytes_free[SIM_PROCESSES_MAX];
    bool mtp;    // the model can draft
    bool hungry; // many pages of output for few pages of memory: preemption
    bool cpu;    // ranks of one host share its memory
    uint64_t start_ns_max, load_ns_max;
    uint64_t step_ns_min, step_ns_max;
    uint64_t token_ns;         // that a prompt's token makes a step longer
    uint64_t exchange_wait_ns; // a rank that waits longer for its peers gives up

    uint64_t latency_ns_min, latency_ns_max;
    double lost, copied, overtaken; // per message; copied and overtaken: to the coordinator
    double copied_plans;            // per message to a worker
    uint64_t late_ns_max;           // of an overtaken message or a copy

    int clients;
    uint64_t arrivals_ns; // all clients come within this time
    int32_t prompt_tokens_max, short_tokens_max, output_tokens_max;
    double short_prompts, endless, stops, aborts, door_stops, timeouts;
    double follows; // whose prompt is another's text with its answer
    bool priorities;
    bool numbers_reused;

    struct fault faults[SIM_FAULTS_MAX];
    int faults_count;
    enum ending ending;
    uint64_t ending_ns;
    uint64_t virtual_ns_max; // a faulty run is shut down then; another must be over
};

// Draws a scenario; the dice go on to be used by the run.
void scenario_draw(struct scenario *scenario, struct dice *dice, uint64_t seed);

// One line for a person.
void scenario_print(const struct scenario *scenario);
