// SPDX-License-Identifier: Apache-2.0
// requests_fuzz.c -- any bytes as a client's request and as a reply. What is accepted is encoded
// again and has to decode to the same.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/base/utf8.h"
#include "parallel/wire/requests.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { IDS_MAX = 256 };

static bool is_refusal(enum status status)
{
    return status == E_MALFORMED || status == E_INPUT || status == E_LIMIT;
}

// Encodes a request and decodes that; both have to be the same where the wire carries it.
static void generate_again(const struct generate_request *request, size_t bytes)
{
    size_t room = bytes + 512, again_bytes;
    uint8_t *frame = malloc(room);
    struct generate_request back;
    struct error error;
    ASSERT(generate_request_encode(frame, room, &again_bytes, request) == OK);
    ASSERT(generate_request_decode(&back, frame, again_bytes, &error) == OK);
    ASSERT(strcmp(back.id, request->id) == 0);
    ASSERT(back.prompt_bytes == request->prompt_bytes && back.ids_count == request->ids_count &&
           back.messages_bytes == request->messages_bytes);
    ASSERT(back.max_tokens == request->max_tokens && back.top_k == request->top_k);
    ASSERT(memcmp(&back.temperature, &request->temperature, sizeof(double)) == 0);
    ASSERT(back.has_seed == request->has_seed && back.seed == request->seed);
    ASSERT(back.stop_count == request->stop_count && back.want_text == request->want_text);
    free(frame);
}

static void try_generate(const uint8_t *data, size_t bytes)
{
    struct generate_request request;
    struct error error = {0};
    int32_t ids[IDS_MAX];
    memset(&request, 0xA5, sizeof request);
    enum status status = generate_request_decode(&request, data, bytes, &error);
    ASSERT(memchr(request.id, 0, sizeof request.id) != NULL); // also on failure
    if (status != OK) {
        ASSERT(is_refusal(status) && error.text[0] != '\0');
        return;
    }
    ASSERT(request.id[0] != '\0');
    ASSERT((request.prompt != NULL) + (request.ids != NULL) + (request.messages != NULL) == 1);
    ASSERT(utf8_valid_bytes(request.prompt, request.prompt_bytes) == request.prompt_bytes);
    ASSERT(memchr(request.unknown, 0, sizeof request.unknown) != NULL);
    if (request.ids != NULL) {
        status = generate_request_ids(ids, IDS_MAX, 1000, &request, &error);
        ASSERT(status == OK || is_refusal(status));
        for (int32_t i = 0; status == OK && i < request.ids_count; i++)
            ASSERT(ids[i] >= 0 && ids[i] < 1000);
    }
    generate_again(&request, bytes);
}

static void try_reply(const uint8_t *data, size_t bytes)
{
    struct reply reply, back;
    struct error error = {0};
    int32_t ids[IDS_MAX], ids_back[IDS_MAX];
    enum status status = reply_decode(&reply, ids, IDS_MAX, data, bytes, &error);
    if (status != OK) {
        ASSERT(status == E_MALFORMED && error.text[0] != '\0');
        return;
    }
    size_t room = bytes + 1024, again_bytes;
    uint8_t *frame = malloc(room);
    ASSERT(reply_encode(frame, room, &again_bytes, &reply) == OK);
    ASSERT(reply_decode(&back, ids_back, IDS_MAX, frame, again_bytes, &error) == OK);
    ASSERT(back.type == reply.type && strcmp(back.id, reply.id) == 0);
    if (reply.type == REPLY_DELTA) {
        ASSERT(back.ids_count == reply.ids_count && back.text_bytes == reply.text_bytes);
        ASSERT(memcmp(ids, ids_back, (size_t)reply.ids_count * sizeof *ids) == 0);
    }
    free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char id[REQUEST_ID_BYTES_MAX + 1];
    struct plain_request plain;
    struct tokenize_request tokenize;
    struct error error = {0};
    (void)request_type_of(data, bytes);
    request_id_of(id, data, bytes);
    ASSERT(strlen(id) <= REQUEST_ID_BYTES_MAX);
    enum status status = plain_request_decode(&plain, data, bytes, &error);
    ASSERT(status == OK || (is_refusal(status) && error.text[0] != '\0'));
    ASSERT((tokenize_request_decode(&tokenize, data, bytes, &error) == OK) == (status == OK));
    try_generate(data, bytes);
    try_reply(data, bytes);
    return 0;
}
