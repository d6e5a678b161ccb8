// SPDX-License-Identifier: Apache-2.0
// door_order.h -- a generate request of the RPC door as an order to the core: what is not served is
// refused by name, defaults are filled in, the prompt becomes ids. Sends nothing.
#pragma once

#include "coordinator/door_requests.h"
#include "coordinator/door_sampling.h"
#include "coordinator/door_text.h"
#include "coordinator/link.h"

// Where an order's defaults come from. All borrowed.
struct door_order_sources {
    struct door_sampling_rules rules;
    struct door_text *text;
    struct door_seeds *seeds;
};

// Everything of *out but its request number and arrival; out->prompt and out->lists are malloc'ed.
// E_UNSUPPORTED, E_INPUT, E_LIMIT name the field; *out then holds nothing to free.
enum status door_order_make(struct link_order *out, const struct generate_request *request,
                            const struct door_order_sources *sources,
                            struct error *error) MUST_CHECK;

// Gives the orders of all request->n answers to the core: `first` is the place of the first one,
// the others are added to it. False when there is no room: the order is then still the caller's,
// and places of answers that the core does not know are marked as ended.
bool door_order_give(struct link_order *order, const struct generate_request *request,
                     struct door_request *first, struct door_requests *requests, struct link *link,
                     struct door_text *text) MUST_CHECK;
