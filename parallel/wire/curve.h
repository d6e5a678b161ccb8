// SPDX-License-Identifier: Apache-2.0
// curve.h -- CURVE keys in a folder: who a program is, whom it trusts. One folder serves a whole
// deployment; a program on another host gets a folder with what it needs of it:
//   server.public   server.secret    the coordinator's pair; others need server.public only
//   client.public   client.secret    the pair that clients of ours take
//   worker.public   worker.secret    the pair that workers take
//   clients/*.public                 who may use the RPC door; read when the server starts
//   workers/*.public                 who may be a worker
// A file holds one key, 40 characters of Z85. Knows no socket.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum {
    CURVE_KEY_CHARACTERS = 40,
    CURVE_ALLOWED_MAX = 4096, // of clients/, and of workers/
};

struct curve_keys {
    char public_key[CURVE_KEY_CHARACTERS + 1], secret_key[CURVE_KEY_CHARACTERS + 1];
    char server_key[CURVE_KEY_CHARACTERS + 1]; // a client: of the server that it trusts
    char (*allowed)[CURVE_KEY_CHARACTERS + 1]; // a server: [allowed_count], who may connect
    int32_t allowed_count;
    bool is_server;
};

// The server's pair and the keys of FOLDER/<who>s, `who` being "client" or "worker". E_NOT_FOUND
// names the file or folder that is missing and how keys are made; E_INPUT: what is no key, or no
// key of anybody is there; E_LIMIT, E_SYSTEM.
enum status curve_load_server(struct curve_keys *out, const char *folder, const char *who,
                              struct error *error) MUST_CHECK;

// The pair <who>.public, <who>.secret and server.public. Errors as above.
enum status curve_load_client(struct curve_keys *out, const char *folder, const char *who,
                              struct error *error) MUST_CHECK;

// NULL and what was never loaded (all zero) are allowed. Secrets are wiped.
void curve_fini(struct curve_keys *keys);

// Makes what is missing of FOLDER: itself, the server's pair, "client" and "worker" with their
// places in clients/ and workers/. *made counts the pairs that are new; nothing is replaced.
// Secrets are readable by their owner only. E_UNSUPPORTED: this libzmq has no CURVE; E_SYSTEM.
enum status curve_make(const char *folder, int *made, struct error *error) MUST_CHECK;

// Makes one pair NAME.public, NAME.secret of a kind "client" or "worker" and lets it in. E_INPUT:
// the name is taken, or no name for a file (letters, digits, - and _); others as above.
enum status curve_make_one(const char *folder, const char *kind, const char *name,
                           struct error *error) MUST_CHECK;
