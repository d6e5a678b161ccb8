// SPDX-License-Identifier: Apache-2.0
// door_http.h -- the door for OpenAI's clients: HTTP in, orders to the core out, answers and
// server-sent events back. One thread serves every connection; it never waits for a client. A
// client that closes its connection, or its sending half, has left: its work stops at once.
#pragma once

#include "coordinator/link.h"
#include "coordinator/text/tokenizer.h"
#include "parallel/config.h"

struct door_http_options {
    const char *address;               // HOST:PORT; port 0 = any free one
    const char *api_key;               // clients must send it; NULL or "" = none
    bool insecure;                     // allow an address off the loopback without an api_key
    struct link *link;                 // borrowed; this door's alone
    int link_index;                    // which of the shell's links: the top byte of its numbers
    const struct tokenizer *tokenizer; // borrowed; NULL: token ids only
    struct model_config config;
    int vocab_real;
    const char *model_name;
    struct coord_sampling sampling_default; // of generation_config.json, or temperature 1
    uint64_t seed;                          // --seed
    bool has_seed;
    int requests_max; // unfinished prompts over all clients
};

struct door_http; // opaque

// Binds and starts the thread. E_USAGE: the address; E_UNSUPPORTED: it is not on the loopback and
// nothing protects it; E_SYSTEM.
enum status door_http_open(struct door_http **out, const struct door_http_options *options,
                           struct error *error) MUST_CHECK;

// http://HOST:PORT with the real port. Owned by the door.
const char *door_http_url(const struct door_http *door);

// Waits until the thread has told its clients what the link brought up to NEWS_END, a second at
// most.
void door_http_close(struct door_http *door);
