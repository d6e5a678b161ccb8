// SPDX-License-Identifier: Apache-2.0
// weight_reader.c -- a bounded queue of chunks and the threads that take them. A thread reads a
// chunk into one of its two slots while the other one's copy is under way.
#include "worker/weight_reader.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLOTS = 2,
    QUEUE_CHUNKS = 2 * WEIGHT_READERS_MAX,
    ALIGN_BYTES = 256, // a chunk lies in its slot as it will lie on the device
};

struct slot {
    uint8_t *memory; // [ALIGN_BYTES + WEIGHT_CHUNK_BYTES]
    struct event *copied;
    bool used;
};

struct thread {
    struct weight_reader *reader;
    pthread_t id;
    bool started;
    struct stream *stream;
    struct slot slots[SLOTS];
    uint8_t *scratch;
    struct weight_chunk chunk; // at work
};

struct weight_reader {
    struct checkpoint *checkpoint;
    pthread_mutex_t mutex; // of all below but the threads' own
    pthread_cond_t put, taken;
    struct weight_chunk queue[QUEUE_CHUNKS]; // chunk n waits in queue[n % QUEUE_CHUNKS]
    uint64_t put_count, taken_count;
    uint64_t bytes;
    bool closing, failed;
    uint64_t failed_number; // of the first chunk that failed
    struct error error;
    int threads_count;
    struct thread threads[WEIGHT_READERS_MAX];
};

static void fail(struct weight_reader *reader, uint64_t number, const struct error *error)
{
    pthread_mutex_lock(&reader->mutex);
    if (!reader->failed || number < reader->failed_number) {
        reader->failed = true;
        reader->failed_number = number;
        reader->error = *error;
    }
    pthread_mutex_unlock(&reader->mutex);
}

// Reads the pieces into slot memory and zeroes what lies between them.
static enum status fill(struct thread *thread, uint8_t *memory, struct error *error)
{
    const struct weight_chunk *chunk = &thread->chunk;
    size_t at = 0;
    for (int i = 0; i < chunk->pieces_count; i++) {
        const struct weight_piece *piece = &chunk->pieces[i];
        size_t bytes = (size_t)piece->range.rows * checkpoint_row_bytes(&piece->range);
        ASSERT(piece->at_bytes >= at && piece->at_bytes + bytes <= chunk->bytes);
        memset(memory + at, 0, piece->at_bytes - at);
        TRY(checkpoint_read(thread->reader->checkpoint, memory + piece->at_bytes, &piece->range,
                            thread->scratch, error));
        at = piece->at_bytes + bytes;
    }
    memset(memory + at, 0, chunk->bytes - at);
    return OK;
}

// Takes the next chunk; false when there will be none. After a failure chunks are taken and let go.
static bool take(struct thread *thread, uint64_t *number, bool *wanted)
{
    struct weight_reader *reader = thread->reader;
    pthread_mutex_lock(&reader->mutex);
    while (reader->taken_count == reader->put_count && !reader->closing)
        pthread_cond_wait(&reader->put, &reader->mutex);
    bool has = reader->taken_count < reader->put_count;
    if (has) {
        *number = reader->taken_count++;
        *wanted = !reader->failed;
        thread->chunk = reader->queue[*number % QUEUE_CHUNKS];
        reader->bytes += thread->chunk.bytes;
        pthread_cond_signal(&reader->taken);
    }
    pthread_mutex_unlock(&reader->mutex);
    return has;
}

static void *run(void *argument)
{
    struct thread *thread = argument;
    uint64_t number;
    bool wanted;
    for (int turn = 0; take(thread, &number, &wanted); turn++) {
        struct slot *slot = &thread->slots[turn % SLOTS];
        struct error error = {.status = OK};
        uint8_t *to_dev = thread->chunk.to_dev;
        uint8_t *memory = slot->memory + (uintptr_t)to_dev % ALIGN_BYTES;
        if (slot->used)
            event_synchronize(slot->copied);
        slot->used = false;
        if (!wanted)
            continue;
        if (fill(thread, memory, &error) != OK) {
            fail(thread->reader, number, &error);
            continue;
        }
        stream_copy_to_device(thread->stream, to_dev, memory, thread->chunk.bytes);
        event_record(slot->copied, thread->stream);
        slot->used = true;
    }
    stream_synchronize(thread->stream);
    return NULL;
}

static enum status open_thread(struct thread *thread, struct error *error)
{
    TRY(stream_open(&thread->stream, error));
    thread->scratch = malloc(CHECKPOINT_SCRATCH_BYTES);
    for (int i = 0; i < SLOTS; i++) {
        struct slot *slot = &thread->slots[i];
        slot->memory = runtime_alloc_host(ALIGN_BYTES + WEIGHT_CHUNK_BYTES);
        if (slot->memory == NULL || thread->scratch == NULL)
            return error_set(error, E_SYSTEM, "no host memory to read weights into: %d bytes",
                             ALIGN_BYTES + WEIGHT_CHUNK_BYTES);
        TRY(event_open(&slot->copied, error));
    }
    if (pthread_create(&thread->id, NULL, run, thread) != 0)
        return error_set(error, E_SYSTEM, "no thread to read weights");
    thread->started = true;
    return OK;
}

static void close_thread(struct thread *thread)
{
    if (thread->started)
        pthread_join(thread->id, NULL);
    for (int i = 0; i < SLOTS; i++) {
        if (thread->slots[i].copied != NULL)
            event_close(thread->slots[i].copied);
        runtime_free_host(thread->slots[i].memory);
    }
    if (thread->stream != NULL)
        stream_close(thread->stream);
    free(thread->scratch);
}

// Processors that this process may use, within limits.
static int threads_wanted(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return WEIGHT_READERS_MAX; // more than a set of this size can hold
    int count = CPU_COUNT(&set);
    return count < WEIGHT_READERS_MAX ? count : WEIGHT_READERS_MAX;
}

enum status weight_reader_open(struct weight_reader **out, struct checkpoint *checkpoint,
                               struct error *error)
{
    struct weight_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL)
        return error_set(error, E_SYSTEM, "no memory to read weights");
    reader->checkpoint = checkpoint;
    pthread_mutex_init(&reader->mutex, NULL); // these three cannot fail with default attributes
    pthread_cond_init(&reader->put, NULL);
    pthread_cond_init(&reader->taken, NULL);
    enum status status = OK;
    for (int wanted = threads_wanted(); status == OK && reader->threads_count < wanted;) {
        struct thread *thread = &reader->threads[reader->threads_count++];
        thread->reader = reader;
        status = open_thread(thread, error);
    }
    if (status == OK) {
        *out = reader;
        return OK;
    }
    struct error later;
    enum status closed = weight_reader_close(reader, &later);
    ASSERT(closed == OK); // no chunk was put
    return status;
}

bool weight_reader_put(struct weight_reader *reader, const struct weight_chunk *chunk)
{
    ASSERT(chunk->bytes <= WEIGHT_CHUNK_BYTES && chunk->pieces_count <= WEIGHT_CHUNK_PIECES);
    pthread_mutex_lock(&reader->mutex);
    while (reader->put_count - reader->taken_count == QUEUE_CHUNKS)
        pthread_cond_wait(&reader->taken, &reader->mutex);
    bool good = !reader->failed;
    if (good) {
        reader->queue[reader->put_count++ % QUEUE_CHUNKS] = *chunk;
        pthread_cond_signal(&reader->put);
    }
    pthread_mutex_unlock(&reader->mutex);
    return good;
}

uint64_t weight_reader_bytes(struct weight_reader *reader)
{
    pthread_mutex_lock(&reader->mutex);
    uint64_t bytes = reader->bytes;
    pthread_mutex_unlock(&reader->mutex);
    return bytes;
}

enum status weight_reader_close(struct weight_reader *reader, struct error *error)
{
    if (reader == NULL)
        return OK;
    pthread_mutex_lock(&reader->mutex);
    reader->closing = true;
    pthread_cond_broadcast(&reader->put);
    pthread_mutex_unlock(&reader->mutex);
    for (int i = 0; i < reader->threads_count; i++)
        close_thread(&reader->threads[i]);
    enum status status = reader->failed ? reader->error.status : OK;
    if (status != OK)
        *error = reader->error;
    pthread_cond_destroy(&reader->taken);
    pthread_cond_destroy(&reader->put);
    pthread_mutex_destroy(&reader->mutex);
    free(reader);
    return status;
}
