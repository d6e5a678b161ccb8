// SPDX-License-Identifier: Apache-2.0
// door_rpc.h -- the door for RPC clients: ZeroMQ + msgpack in, orders to the core out, and back.
// A thread of its own; never blocks on a client, never makes the core wait. Wire:
// parallel/wire/requests.h and parallel/wire/README.md.
#pragma once

#include "coordinator/link.h"
#include "coordinator/text/tokenizer.h"
#include "parallel/config.h"

struct door_rpc_options {
    const char *endpoint; // port 0 = any free one
    bool insecure;
    const char *curve_dir;             // socket.h
    struct link *link;                 // borrowed; this door's alone
    int link_index;                    // which of the shell's links: the top byte of its numbers
    const struct tokenizer *tokenizer; // borrowed; NULL: token ids only
    struct model_config config;
    int vocab_real;
    const char *model_name;
    struct coord_sampling sampling_default; // of generation_config.json, or temperature 1
    uint64_t seed;    // --seed: requests without one get a hash of it and their number
    bool has_seed;    // else random
    int requests_max; // unfinished requests over all clients
};

struct door_rpc; // opaque

// Binds and starts the thread. Errors of socket_open_router.
enum status door_rpc_open(struct door_rpc **out, const struct door_rpc_options *options,
                          struct error *error) MUST_CHECK;

// Where it listens, with the real port. Owned by the door.
const char *door_rpc_endpoint(const struct door_rpc *door);

// Waits until the thread has told its clients everything that the link brought up to NEWS_END.
void door_rpc_close(struct door_rpc *door);
