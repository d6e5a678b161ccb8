// SPDX-License-Identifier: Apache-2.0
// socket_curve.c -- a sorted list of keys behind ZeroMQ's own endpoint for such questions.
#include "parallel/wire/socket_curve.h"

#include <stdlib.h>
#include <string.h>

#include <zmq.h>

enum { KEY_BYTES = 32, FRAMES_MAX = 16 };

// The frames of a question (RFC 27).
enum {
    FRAME_VERSION,
    FRAME_ID,
    FRAME_DOMAIN,
    FRAME_ADDRESS,
    FRAME_PEER,
    FRAME_MECHANISM,
    FRAME_KEY
};

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, KEY_BYTES);
}

static enum status copy_allowed(struct socket_curve *curve, const struct curve_keys *keys,
                                struct error *error)
{
    curve->allowed = calloc((size_t)keys->allowed_count + 1, sizeof *curve->allowed);
    if (curve->allowed == NULL)
        return error_set(error, E_SYSTEM, "no memory for %d keys", (int)keys->allowed_count);
    for (int32_t i = 0; i < keys->allowed_count; i++)
        ASSERT(zmq_z85_decode(curve->allowed[i], keys->allowed[i]) != NULL); // read_key checked
    curve->allowed_count = keys->allowed_count;
    qsort(curve->allowed, (size_t)curve->allowed_count, KEY_BYTES, compare);
    return OK;
}

static bool set_text(void *handle, int option, const char *text)
{
    return zmq_setsockopt(handle, option, text, strlen(text)) == 0;
}

enum status socket_curve_init(struct socket_curve *curve, void *context, void *handle,
                              const struct curve_keys *keys, struct error *error)
{
    int server = 1;
    bool fine;
    *curve = (struct socket_curve){.zap = NULL};
    if (!keys->is_server) {
        fine = set_text(handle, ZMQ_CURVE_SERVERKEY, keys->server_key) &&
               set_text(handle, ZMQ_CURVE_PUBLICKEY, keys->public_key) &&
               set_text(handle, ZMQ_CURVE_SECRETKEY, keys->secret_key);
    } else {
        TRY(copy_allowed(curve, keys, error));
        curve->zap = zmq_socket(context, ZMQ_REP);
        // The domain makes an answer necessary: without one nobody gets in.
        fine = curve->zap != NULL && zmq_bind(curve->zap, "inproc://zeromq.zap.01") == 0 &&
               zmq_setsockopt(handle, ZMQ_CURVE_SERVER, &server, sizeof server) == 0 &&
               set_text(handle, ZMQ_CURVE_SECRETKEY, keys->secret_key) &&
               set_text(handle, ZMQ_ZAP_DOMAIN, "deltamesh");
    }
    if (fine)
        return OK;
    if (!zmq_has("curve"))
        return error_set(error, E_UNSUPPORTED, "this libzmq was built without CURVE");
    return error_set(error, E_SYSTEM, "CURVE: %s", zmq_strerror(zmq_errno()));
}

void socket_curve_fini(struct socket_curve *curve)
{
    int linger = 0;
    if (curve->zap != NULL) {
        zmq_setsockopt(curve->zap, ZMQ_LINGER, &linger, sizeof linger);
        zmq_close(curve->zap);
    }
    free(curve->allowed);
    *curve = (struct socket_curve){.zap = NULL};
}

// Receives a question; the number of its frames, 0 when none waits.
static int receive(void *zap, zmq_msg_t *frames)
{
    int count = 0;
    bool more = true;
    while (more && count < FRAMES_MAX) {
        zmq_msg_init(&frames[count]);
        if (zmq_msg_recv(&frames[count], zap, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&frames[count]);
            return count;
        }
        more = zmq_msg_more(&frames[count++]);
    }
    return count;
}

static bool is_allowed(const struct socket_curve *curve, zmq_msg_t *frames, int count)
{
    if (count != FRAME_KEY + 1 || zmq_msg_size(&frames[FRAME_KEY]) != KEY_BYTES ||
        zmq_msg_size(&frames[FRAME_MECHANISM]) != 5 ||
        memcmp(zmq_msg_data(&frames[FRAME_MECHANISM]), "CURVE", 5) != 0)
        return false;
    return bsearch(zmq_msg_data(&frames[FRAME_KEY]), curve->allowed, (size_t)curve->allowed_count,
                   KEY_BYTES, compare) != NULL;
}

void socket_curve_answer(struct socket_curve *curve)
{
    zmq_msg_t frames[FRAMES_MAX];
    for (int count; curve->zap != NULL && (count = receive(curve->zap, frames)) > 0;) {
        bool allowed = is_allowed(curve, frames, count);
        const char *code = allowed ? "200" : "400";
        const char *text = allowed ? "OK" : "this key is not among those that may connect";
        zmq_send(curve->zap, "1.0", 3, ZMQ_SNDMORE);
        if (count > FRAME_ID)
            zmq_send(curve->zap, zmq_msg_data(&frames[FRAME_ID]), zmq_msg_size(&frames[FRAME_ID]),
                     ZMQ_SNDMORE);
        zmq_send(curve->zap, code, 3, ZMQ_SNDMORE);
        zmq_send(curve->zap, text, strlen(text), ZMQ_SNDMORE);
        zmq_send(curve->zap, "", 0, ZMQ_SNDMORE);
        zmq_send(curve->zap, "", 0, 0);
        for (int i = 0; i < count; i++)
            zmq_msg_close(&frames[i]);
    }
}
