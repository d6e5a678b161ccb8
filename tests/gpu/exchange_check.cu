// SPDX-License-Identifier: Apache-2.0
// exchange_check.cu -- packets between the ranks of a group, all of them on this one GPU, each on a
// stream of its own: sums and gathers, the same bits everywhere, waits that end.
#include <cmath>
#include <cstring>
#include <vector>

#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/exchange_cuda.h"
}

enum { ROUNDS = 6, WAIT_MS = 300, WAIT_SANITIZED_MS = 20000 };

struct member {
    struct stream stream;
    struct exchange_cuda exchange;
    uint8_t *inbox;
    bf16 *lane, *out;
    uint8_t *counters;
};

struct team {
    std::vector<member> members;
    struct exchange_report *reports; // host, mapped
    uint32_t *abort_word;            // host, mapped
};

static uint64_t large_calls;
static uint64_t wait_ms = WAIT_MS;

static void add_large(void *context, void *, size_t bytes, struct stream *)
{
    large_calls += context == NULL ? bytes : 0;
}

static void open_team(struct team *team, int ranks, size_t bytes)
{
    team->members.resize(static_cast<size_t>(ranks));
    CUDA_CHECK(cudaHostAlloc(&team->reports, sizeof *team->reports * EXCHANGE_RANKS_MAX, 0));
    CUDA_CHECK(cudaHostAlloc(&team->abort_word, sizeof *team->abort_word, 0));
    memset(team->reports, 0, sizeof *team->reports * EXCHANGE_RANKS_MAX);
    *team->abort_word = 0;
    for (member &m : team->members) {
        size_t inbox = exchange_cuda_inbox_bytes(ranks);
        CUDA_CHECK(cudaStreamCreateWithFlags(&m.stream.handle, cudaStreamNonBlocking));
        CUDA_CHECK(cudaMalloc(&m.inbox, inbox));
        CUDA_CHECK(cudaMemset(m.inbox, 0, inbox));
        CUDA_CHECK(cudaMalloc(&m.counters, 256));
        CUDA_CHECK(cudaMemset(m.counters, 0, 256));
        CUDA_CHECK(cudaMalloc(&m.lane, bytes));
        CUDA_CHECK(cudaMalloc(&m.out, bytes * static_cast<size_t>(ranks)));
    }
    for (int rank = 0; rank < ranks; rank++) {
        member &m = team->members[static_cast<size_t>(rank)];
        m.exchange.rank = rank;
        m.exchange.ranks = ranks;
        for (int peer = 0; peer < ranks; peer++)
            m.exchange.inboxes_dev[peer] = team->members[static_cast<size_t>(peer)].inbox;
        m.exchange.epoch_dev = reinterpret_cast<uint64_t *>(m.counters);
        m.exchange.ticket_dev = reinterpret_cast<uint32_t *>(m.counters + 64);
        m.exchange.failed_dev = reinterpret_cast<uint32_t *>(m.counters + 128);
        m.exchange.look_dev = reinterpret_cast<uint64_t *>(m.counters + 192);
        m.exchange.abort_word_dev = team->abort_word;
        m.exchange.report_dev = team->reports + rank;
        m.exchange.wait_ns_max = wait_ms * 1000000ull;
        m.exchange.add_large = add_large;
    }
    CUDA_CHECK(cudaDeviceSynchronize());
}

static void close_team(struct team *team)
{
    CUDA_CHECK(cudaDeviceSynchronize());
    for (member &m : team->members) {
        CUDA_CHECK(cudaStreamDestroy(m.stream.handle));
        for (void *memory : {static_cast<void *>(m.inbox), static_cast<void *>(m.counters),
                             static_cast<void *>(m.lane), static_cast<void *>(m.out)})
            CUDA_CHECK(cudaFree(memory));
    }
    CUDA_CHECK(cudaFreeHost(team->reports));
    CUDA_CHECK(cudaFreeHost(team->abort_word));
}

// Every rank's lane gets new values; returns them, rank by rank.
static std::vector<bf16> fill(struct team *team, size_t bytes)
{
    size_t count = bytes / sizeof(bf16);
    std::vector<bf16> values(count * team->members.size());
    check_fill(values.data(), values.size(), 1);
    for (size_t rank = 0; rank < team->members.size(); rank++)
        CUDA_CHECK(cudaMemcpy(team->members[rank].lane, values.data() + rank * count, bytes,
                              cudaMemcpyHostToDevice));
    CUDA_CHECK(cudaDeviceSynchronize());
    return values;
}

static void compare(const struct team &team, const std::vector<bf16> &want, bool gathered)
{
    std::vector<bf16> got(want.size());
    for (const member &m : team.members) {
        CUDA_CHECK(cudaMemcpy(got.data(), gathered ? m.out : m.lane, want.size() * sizeof(bf16),
                              cudaMemcpyDeviceToHost));
        for (size_t i = 0; i < want.size(); i++) {
            if (got[i].bits != want[i].bits) {
                check_fail("rank %d, value %zu: got %g, want %g", m.exchange.rank, i,
                           static_cast<double>(bf16_to_float(got[i])),
                           static_cast<double>(bf16_to_float(want[i])));
                return;
            }
        }
    }
}

static void check_sums(int ranks, size_t bytes)
{
    check_begin("exchange sum of %zu bytes, %d ranks", bytes, ranks);
    struct team team = {};
    open_team(&team, ranks, bytes);
    size_t count = bytes / sizeof(bf16);
    for (int round = 0; round < ROUNDS; round++) {
        std::vector<bf16> values = fill(&team, bytes), want(count);
        for (size_t i = 0; i < count; i++) {
            float sum = 0;
            for (size_t rank = 0; rank < team.members.size(); rank++)
                sum += bf16_to_float(values[rank * count + i]);
            want[i] = bf16_from_float(sum);
        }
        // Another rank begins each time.
        for (int k = 0; k < ranks; k++) {
            member &m = team.members[static_cast<size_t>((round + k) % ranks)];
            exchange_cuda_add(&m.stream, &m.exchange, m.lane, bytes);
        }
        CUDA_CHECK(cudaDeviceSynchronize());
        compare(team, want, false);
    }
    if (*team.abort_word != 0 || team.reports[0].failed != 0)
        check_fail("a wait failed");
    close_team(&team);
    check_end();
}

// Exchange after exchange without a halt, so that a quick rank is ahead of a slow one: from the
// second on all lanes are alike and each sum is exactly twice the one before.
static void check_chain(int length, size_t bytes)
{
    check_begin("exchange %d times in a row of %zu bytes, 2 ranks", length, bytes);
    struct team team = {};
    open_team(&team, 2, bytes);
    size_t count = bytes / sizeof(bf16);
    std::vector<bf16> values = fill(&team, bytes), want(count);
    for (size_t i = 0; i < count; i++) {
        float sum = bf16_to_float(values[i]) + bf16_to_float(values[count + i]);
        want[i] = bf16_from_float(ldexpf(bf16_to_float(bf16_from_float(sum)), length - 1));
    }
    for (int k = 0; k < length; k++) {
        for (member &m : team.members)
            exchange_cuda_add(&m.stream, &m.exchange, m.lane, bytes);
    }
    CUDA_CHECK(cudaDeviceSynchronize());
    compare(team, want, false);
    close_team(&team);
    check_end();
}

static void check_gathers(int ranks, size_t bytes)
{
    check_begin("exchange gather of %zu bytes, %d ranks", bytes, ranks);
    struct team team = {};
    open_team(&team, ranks, bytes);
    for (int round = 0; round < ROUNDS; round++) {
        std::vector<bf16> values = fill(&team, bytes);
        for (int k = 0; k < ranks; k++) {
            member &m = team.members[static_cast<size_t>((round + k) % ranks)];
            exchange_cuda_gather(&m.stream, &m.exchange, m.out, m.lane, bytes);
        }
        CUDA_CHECK(cudaDeviceSynchronize());
        compare(team, values, true);
    }
    close_team(&team);
    check_end();
}

// Rank 1 never comes: rank 0 says so in time, and rank 2, who waits for both, ends by the word.
static void check_missing()
{
    check_begin("exchange with a rank that does not come");
    struct team team = {};
    open_team(&team, 3, 4096);
    fill(&team, 4096);
    for (int rank : {0, 2}) {
        member &m = team.members[static_cast<size_t>(rank)];
        exchange_cuda_add(&m.stream, &m.exchange, m.lane, 4096);
        exchange_cuda_add(&m.stream, &m.exchange, m.lane, 4096); // returns at once
    }
    CUDA_CHECK(cudaDeviceSynchronize());
    uint32_t missing = team.reports[0].missing | team.reports[2].missing;
    if (team.reports[0].failed == 0 || team.reports[2].failed == 0 || *team.abort_word == 0)
        check_fail("not noticed");
    if (missing != 2)
        check_fail("missing ranks are said to be %x, not 2", missing);
    close_team(&team);
    check_end();
}

static void check_large()
{
    check_begin("exchange of what is large goes elsewhere");
    struct team team = {};
    open_team(&team, 2, 2 * EXCHANGE_CHUNKED_BYTES_MAX);
    member &m = team.members[0];
    large_calls = 0;
    exchange_cuda_add(&m.stream, &m.exchange, m.lane, EXCHANGE_CHUNKED_BYTES_MAX + 8);
    if (large_calls != EXCHANGE_CHUNKED_BYTES_MAX + 8)
        check_fail("%llu bytes went there", static_cast<unsigned long long>(large_calls));
    close_team(&team);
    check_end();
}

// Ranks are kernels that wait for one another: a sanitizer that runs one at a time cannot.
SMALL(exchange)
{
    wait_ms = WAIT_SANITIZED_MS;
    check_sums(2, 4096);
    check_gathers(2, 4096);
}

CHECK(exchange)
{
    for (size_t bytes : {size_t{8}, size_t{24}, size_t{4096}, size_t{65536}, size_t{262144},
                         size_t{262152}, size_t{1 << 20}})
        check_sums(2, bytes);
    for (size_t bytes : {size_t{8}, size_t{65536}, size_t{262144}})
        check_chain(60, bytes);
    check_sums(3, 12296);
    check_sums(4, 65536);
    check_sums(8, 16384);
    for (size_t bytes : {size_t{24}, size_t{6144}, size_t{262144}})
        check_gathers(2, bytes);
    check_gathers(5, 4096);
    check_missing();
    check_large();
}
