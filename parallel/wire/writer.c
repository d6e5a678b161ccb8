// SPDX-License-Identifier: Apache-2.0
// writer.c -- the packer's callback and the few things that msgpack-c does not do.
#include "parallel/wire/writer.h"

#include <string.h>

#include <msgpack/pack.h>

#include "parallel/base/utf8.h"

// msgpack-c calls this with every piece; anything but 0 would only be handed through.
static int append(void *data, const char *bytes, size_t bytes_count)
{
    struct writer *writer = data;
    if (writer->status != OK)
        return 0;
    if (bytes_count > (size_t)(writer->end - writer->at)) {
        writer->status = E_LIMIT;
        return 0;
    }
    if (bytes_count > 0)
        memcpy(writer->at, bytes, bytes_count);
    writer->at += bytes_count;
    return 0;
}

static msgpack_packer packer_of(struct writer *writer)
{
    msgpack_packer packer;
    msgpack_packer_init(&packer, writer, append);
    return packer;
}

void writer_init(struct writer *writer, void *buffer, size_t buffer_bytes)
{
    *writer = (struct writer){buffer, buffer, (uint8_t *)buffer + buffer_bytes, OK};
}

enum status writer_end(const struct writer *writer, size_t *bytes_out)
{
    *bytes_out = writer->status == OK ? (size_t)(writer->at - writer->start) : 0;
    return writer->status;
}

void writer_map(struct writer *writer, size_t pairs)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_map(&packer, pairs);
}

void writer_array(struct writer *writer, size_t elements)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_array(&packer, elements);
}

void writer_nil(struct writer *writer)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_nil(&packer);
}

void writer_bool(struct writer *writer, bool value)
{
    msgpack_packer packer = packer_of(writer);
    if (value)
        msgpack_pack_true(&packer);
    else
        msgpack_pack_false(&packer);
}

void writer_int(struct writer *writer, int64_t value)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_int64(&packer, value);
}

void writer_uint(struct writer *writer, uint64_t value)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_uint64(&packer, value);
}

void writer_float(struct writer *writer, float value)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_float(&packer, value);
}

void writer_double(struct writer *writer, double value)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_double(&packer, value);
}

void writer_key(struct writer *writer, const char *key)
{
    msgpack_packer packer = packer_of(writer);
    size_t bytes = strlen(key);
    msgpack_pack_str(&packer, bytes);
    msgpack_pack_str_body(&packer, key, bytes);
}

void writer_text(struct writer *writer, const char *text, size_t bytes)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_str(&packer, bytes);
    uint8_t *body = writer->at;
    append(writer, text, bytes);
    if (writer->status != OK)
        return;
    for (size_t i = utf8_valid_bytes(body, bytes); i < bytes;) {
        body[i++] = '?';
        i += utf8_valid_bytes(body + i, bytes - i);
    }
    for (size_t i = 0; i < bytes; i++) {
        if (body[i] == 0)
            body[i] = '?';
    }
}

void writer_bin(struct writer *writer, const void *bytes, size_t bytes_count)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_bin(&packer, bytes_count);
    append(writer, bytes, bytes_count);
}

void writer_int32s(struct writer *writer, const int32_t *numbers, int32_t count)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_bin(&packer, (size_t)count * 4);
    for (int32_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)numbers[i];
        const uint8_t bytes[4] = {(uint8_t)bits, (uint8_t)(bits >> 8), (uint8_t)(bits >> 16),
                                  (uint8_t)(bits >> 24)};
        append(writer, (const char *)bytes, sizeof bytes);
    }
}

void writer_raw(struct writer *writer, const void *bytes, size_t bytes_count)
{
    append(writer, bytes, bytes_count);
}
