// SPDX-License-Identifier: Apache-2.0
// fake_device.h -- the steps of one simulated rank: slots, pages, KV and recurrent state as
// kernels/slots.h and worker/step.h define them, with the oracle in place of the model. Checks
// every plan with the real worker's check, and far more strictly what a plan may say at all.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/memory_plan.h"
#include "parallel/wire/messages.h"

enum {
    DEVICE_SLOTS_MAX = 128,
    DEVICE_STAGING = 4, // worker/step.h: steps given to the device and not ended
};

struct device_slot {
    bool open;
    int32_t position, token_next, end; // as in kernels/slots.h
    int32_t pages_count;               // of its row of the block table
    int32_t draws_planned;             // tokens after the prompt: given back to it, or to be drawn
    int32_t pages_shared;              // of them, with what others have written
    int32_t loaded;                    // checkpoint that was copied into it, -1 = none
    int32_t drafts;                    // made by the last step for the next
    uint64_t state;                    // the recurrent state
    struct step_open opening;
};

struct device_checkpoint {
    int32_t position; // 0 = never saved
    uint64_t state;
};

// Knows what the client of a request with this seed has sent as token `position` of its prompt.
struct device_prompts {
    int32_t (*token)(const void *context, uint64_t seed, int32_t position);
    const void *context;
};

struct device {
    struct device_prompts prompts;
    struct place_message place;
    struct memory_plan memory; // its counts
    struct device_slot slots[DEVICE_SLOTS_MAX];
    int32_t *block_table;  // [sequences, pages_per_sequence]
    int32_t *page_owner;   // [pages] slot that may write it, -1 when none
    int32_t *page_readers; // [pages] open slots that share it
    struct device_checkpoint *checkpoints;
    int32_t *kv; // [pages, 64] the token at each position
    uint64_t submitted, done;
    int32_t drafts_made; // that the last plan asked for
    struct {
        uint8_t *frame;
        size_t frame_bytes;
        int32_t decode_rows, prefill_tokens;
    } queue[DEVICE_STAGING]; // step s waits in queue[s % DEVICE_STAGING]
};

// Empty device for a place; owns memory until device_close.
void device_open(struct device *device, const struct place_message *place,
                 struct device_prompts prompts);
void device_close(struct device *device);

// As step_submit: checks the plan in `frame` (decoded into *plan) against what this rank holds and
// queues it. E_MALFORMED or E_OVERLOADED with the reason as a worker would tell it.
enum status device_submit(struct device *device, const struct step_plan *plan, const uint8_t *frame,
                          size_t frame_bytes, struct error *error) MUST_CHECK;

// Runs the oldest queued step: decodes it into *plan (arrays opened by the caller) and fills
// report, whose rows the caller has set; rows_count is set for every rank. E_FAILED when the plan
// says what no plan may say: the text names the rule.
enum status device_run(struct device *device, struct step_plan *plan, struct report *report,
                       struct error *error) MUST_CHECK;
