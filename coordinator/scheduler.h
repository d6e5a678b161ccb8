// SPDX-License-Identifier: Apache-2.0
// scheduler.h -- what the files of the scheduler do for the core and for each other. Pure.
#pragma once

#include "coordinator/coord.h"

enum { STEP_END_BROKEN = 3 }; // step_result.end

// ---- scheduler.c: how requests get a slot, lose it and end ----

// Sends plans while fewer than COORD_FLIGHT_MAX are in flight and there is work.
void scheduler_pump(struct coord *coord, int32_t group, struct coord_actions *out);

// Gives ERROR to requests of failed groups (and to queued ones when no group is left).
void scheduler_tell_failure(struct coord *coord, struct coord_actions *out);

// Ends a request that the door is done with: DONE now, slot and pages after its last step.
void scheduler_finish(struct coord *coord, int32_t index, const char *reason,
                      struct coord_actions *out);

// Ends a request of which the device could not draw a token: ERROR now, slot and pages later.
void scheduler_break(struct coord *coord, int32_t index, struct coord_actions *out);

// Ends the requests whose time is over.
void scheduler_check_deadlines(struct coord *coord, struct coord_actions *out);

// A request that was running has no step in flight any more: frees its slot and pages when it is
// CLOSING or PREEMPTED.
void scheduler_settle(struct coord *coord, int32_t index);

// Takes the slot from a running request, now or after its last step in flight; it waits in the
// queue again, in its old place, and is computed anew from what has been told.
void scheduler_preempt(struct coord *coord, int32_t index);

// ERROR as the last action about a request.
void scheduler_tell_error(struct coord *coord, int32_t index, enum status status, const char *text,
                          struct coord_actions *out);

// Forgets a queued request.
void scheduler_drop_queued(struct coord *coord, int32_t index);

// ---- scheduler_admit.c: the queue's way into slots ----

// Gives slots and pages to those who wait, most senior first, as far as there are any.
void scheduler_admit(struct coord *coord, int32_t group, struct coord_actions *out);

// ---- scheduler_prefix.c: what requests take from the prefix cache and leave there ----

// Takes pages, of the cache where not enough are free. False, and nothing taken, when there are not
// enough.
bool scheduler_take_pages(struct group_state *group, int32_t count, int32_t *page_ids);

// Notes where turns of a conversation end in the prompt of a new request.
void scheduler_find_turns(const struct coord *coord, struct request *request,
                          const int32_t *prompt);

// The hit that a request which gets a slot in the next step would have.
struct prefix_hit scheduler_find_prefix(const struct coord *coord, const struct group_state *group,
                                        const struct request *request);

// The request, which has just got its slot, takes the hit's pages.
void scheduler_take_prefix(struct group_state *group, struct request *request,
                           const struct prefix_hit *hit);

// The request leaves its slot: what it held of the cache is let go.
void scheduler_leave_prefix(struct group_state *group, struct request *request);

// Adds the copy of the request's checkpoint, when it has one, to the plan that opens its slot.
void scheduler_copy_prefix(struct group_state *group, struct request *request);

// Adds to the row the checkpoints that the request's chunk is to leave on its way. Returns where
// the row ends: with the chunk, or before it where a row can leave no more.
int32_t scheduler_save_prefixes(struct coord *coord, struct group_state *group,
                                struct request *request, struct step_plan_row *row);

// Tokens between two checkpoints of a text of this length.
int32_t scheduler_interval(const struct coord *coord, const struct group_state *group,
                           int32_t tokens);

// ---- scheduler_fold.c: checkpoints in what requests draw ----

// Gives a decode row of the plan that is being built a checkpoint, when it may come to a place for
// one. Before the row is counted as in flight.
void scheduler_fold_row(const struct coord *coord, struct group_state *group,
                        struct request *request, struct step_plan_row *row);

// A decode row of a request that lives was reported: when it began at its place, the checkpoint
// goes into the cache. Before its tokens are kept. False when the row contradicts its plan.
bool scheduler_fold_apply(struct coord *coord, struct request *request, const struct flight *flight,
                          int32_t row);

// ---- scheduler_plan.c: which rows the next step of a group runs ----

// Fills group->plan and its flight; false when there is nothing to run.
bool scheduler_build(struct coord *coord, int32_t group, struct coord_actions *out);

// ---- scheduler_drafts.c: speculation ----

// Sets the plan's verify and draft; before pages are reserved and rows are built.
void scheduler_plan_drafts(struct coord *coord, int32_t group);

// Counts what came of a step's drafts, before its rows are applied.
void scheduler_note_drafts(struct coord *coord, int32_t group, const struct flight *flight);

// ---- scheduler_apply.c: what came of a step ----

// Takes a report of one rank of a group into the step it is of.
void scheduler_report(struct coord *coord, int32_t group, const struct report *report,
                      struct coord_actions *out);

// Applies the oldest step in flight of a group when every rank has reported it.
void scheduler_apply(struct coord *coord, int32_t group, struct coord_actions *out);
