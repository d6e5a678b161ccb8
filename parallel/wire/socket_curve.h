// SPDX-License-Identifier: Apache-2.0
// socket_curve.h -- CURVE on a ZeroMQ socket: options, and for a server the answers to ZeroMQ's
// question who may connect (ZAP, RFC 27), given by the thread that owns the socket. For socket.c.
#pragma once

#include <stdint.h>

#include "parallel/wire/curve.h"

struct socket_curve {
    void *zap;              // a server: where ZeroMQ asks, else NULL
    uint8_t (*allowed)[32]; // [allowed_count], sorted
    int32_t allowed_count;
};

// Before the socket is bound or connected. Copies what it needs of the keys; `curve` is the
// caller's storage. E_UNSUPPORTED: this libzmq has no CURVE; E_SYSTEM.
enum status socket_curve_init(struct socket_curve *curve, void *context, void *handle,
                              const struct curve_keys *keys, struct error *error) MUST_CHECK;

// Before the context ends.
void socket_curve_fini(struct socket_curve *curve);

// Answers every question that waits; never blocks.
void socket_curve_answer(struct socket_curve *curve);
