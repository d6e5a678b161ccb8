// SPDX-License-Identifier: Apache-2.0
// socket.h -- ZeroMQ with our options: a ROUTER that serves peers or a DEALER that calls one. One
// message is one frame. Nothing here blocks but socket_wait and socket_close. A socket belongs to
// one thread and has a ZeroMQ context of its own. Knows no message.
//
// What is seen of a foreign peer that misbehaves: a frame of up to twice the limit is received,
// dropped and counted, and its sender is known, so that the door can tell it; a larger one makes
// ZeroMQ close the connection, which looks like any other disconnection; bytes that are no ZMTP
// are a failed handshake. A peer that went away is found out within SOCKET_SILENCE_MS_MAX.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parallel/base/status.h"

enum {
    SOCKET_ENDPOINT_BYTES_MAX = 256,
    SOCKET_HEARTBEAT_INTERVAL_MS = 500,
    // A connection without any byte for so long is given up: a cable that was pulled is found out
    // within 5 s, and a virtual machine may stand still a little (3.4 s were seen on a busy host).
    SOCKET_SILENCE_MS_MAX = 4500,
    SOCKET_HANDSHAKE_MS_MAX = 5000, // from TCP's accept to the end of ZMTP's handshake
};

struct socket; // opaque

struct socket_options {
    const char *endpoint;     // tcp://HOST:PORT or ipc://PATH; to bind, port 0 is any free one
    size_t frame_bytes_max;   // of one message, either way
    int32_t queue_frames_max; // waiting for one peer; at a dealer also from it
    bool insecure;            // allow an endpoint that is not on the loopback
    const char *curve_dir;    // a folder with keys (curve.h): encrypted, and both sides known
    const char *curve_who;    // with curve_dir: "client" or "worker", who connects
};

// Who sent a message to a ROUTER: ZeroMQ's routing id. A peer that connects again is another one.
struct socket_peer {
    uint8_t bytes_count;
    uint8_t bytes[255];
};

struct socket_counts {
    uint64_t connected;         // handshakes that succeeded
    uint64_t disconnected;      // of those, connections that ended, whoever ended them
    uint64_t handshakes_failed; // something else than ZMTP, or of another security
    uint64_t frames_oversized;  // dropped: above the limit, up to twice the limit
    uint64_t frames_multipart;  // dropped: a message of several frames
};

// E_USAGE unless endpoint is tcp://HOST:PORT or ipc://PATH; E_UNSUPPORTED unless it is on the
// loopback (127.0.0.0/8, [::1], localhost, ipc) or is_protected: by keys, or by being told so.
enum status socket_check_endpoint(const char *endpoint, bool is_protected,
                                  struct error *error) MUST_CHECK;

// Binds. E_SYSTEM names the endpoint when the port is in use or the address is not ours; also the
// errors of socket_check_endpoint and, of curve_dir, those of curve_load_server or _client.
enum status socket_open_router(struct socket **out, const struct socket_options *options,
                               struct error *error) MUST_CHECK;

// Begins to connect, and goes on trying until closed: the peer need not be there yet.
enum status socket_open_dealer(struct socket **out, const struct socket_options *options,
                               struct error *error) MUST_CHECK;

// Gives what is queued up to linger_ms to leave, then drops it. NULL is allowed.
void socket_close(struct socket *socket, int linger_ms);

// Where it is bound (with the real port) or connects to. Owned by the socket.
const char *socket_endpoint(const struct socket *socket);

// A DEALER: whether the handshake with the peer succeeded and the connection stands.
bool socket_is_connected(struct socket *socket);

// A DEALER: what may be wrong when the other side does not let it in, for an error's text; "" when
// no handshake failed.
const char *socket_refusal(struct socket *socket);

// What was counted since it was opened.
struct socket_counts socket_counts(struct socket *socket);

// Readable when something may have happened. It tells edges, not levels: after it fired, and after
// every send, receive until E_TIMEOUT before waiting on it again.
int socket_fd(const struct socket *socket);

// Waits until a message is there, other_fd (-1 = none) is readable, timeout_ms (-1 = for ever) have
// passed, a connection came or went, or a signal arrived. True when a message is there.
bool socket_wait(struct socket *socket, int other_fd, int timeout_ms);

// Queues a copy of the frame for a peer (a DEALER: NULL). E_LIMIT: larger than frame_bytes_max, by
// name; E_OVERLOADED: queue_frames_max are waiting, try later; E_CONNECTION: the peer is gone.
enum status socket_send(struct socket *socket, const struct socket_peer *peer, const void *frame,
                        size_t frame_bytes, struct error *error) MUST_CHECK;

// The next message, borrowed until the next call. E_TIMEOUT: none is there. A message that was
// dropped: E_LIMIT (oversized) or E_MALFORMED (several frames), with *peer set. A DEALER passes
// peer NULL.
enum status socket_receive(struct socket *socket, struct socket_peer *peer, const void **frame,
                           size_t *frame_bytes) MUST_CHECK;
