// SPDX-License-Identifier: Apache-2.0
// exchange_host_test.c -- the meeting over shared memory: who comes late, twice, never, with other
// sizes, or dies in it; and that no name stays in /dev/shm.
#include "parallel/exchange_host.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "parallel/base/clock.h"

static const uint64_t join_ns_long = 20ull * CLOCK_NS_PER_S;
static const uint64_t join_ns_short = 200ull * CLOCK_NS_PER_MS;
static const uint64_t busy_ns = 10ull * CLOCK_NS_PER_S; // more than any wait here should take

static struct exchange_host_options make_options(int ranks)
{
    struct exchange_host_options options = {
        .place = {.group = 7, .rank = 0, .ranks = ranks},
        .count = 2,
        .lane_bytes = {1000, 64},
        .wait_ns_max = join_ns_long,
        .join_ns_max = join_ns_long,
    };
    assert_int_equal(getrandom(options.id, sizeof options.id, 0), sizeof options.id);
    return options;
}

static bool name_exists(const struct exchange_host_options *options)
{
    char name[EXCHANGE_HOST_NAME_BYTES], path[128];
    exchange_host_name(name, options->id);
    snprintf(path, sizeof path, "/dev/shm%s", name);
    return access(path, F_OK) == 0;
}

static void wait_for_name(const struct exchange_host_options *options)
{
    uint64_t until_ns = clock_now_ns() + busy_ns;
    while (!name_exists(options)) {
        assert_true(clock_now_ns() < until_ns);
        clock_sleep_ns(CLOCK_NS_PER_MS);
    }
}

// ---------------------------------------------------------------- openers in threads

struct opener {
    struct exchange_host_options options;
    uint64_t delay_ns;
    struct exchange_host host;
    struct error error;
    enum status status;
    atomic_bool done;
    pthread_t thread;
};

static void *run_opener(void *argument)
{
    struct opener *opener = argument;
    clock_sleep_ns(opener->delay_ns);
    opener->status = exchange_host_open(&opener->host, &opener->options, &opener->error);
    atomic_store(&opener->done, true);
    return NULL;
}

static void start_opener(struct opener *opener, const struct exchange_host_options *options,
                         int rank, uint64_t delay_ns)
{
    *opener = (struct opener){.options = *options, .delay_ns = delay_ns};
    opener->options.place.rank = rank;
    assert_int_equal(pthread_create(&opener->thread, NULL, run_opener, opener), 0);
}

static enum status join_opener(struct opener *opener)
{
    pthread_join(opener->thread, NULL);
    return opener->status;
}

static void assert_text(const struct opener *opener, const char *part)
{
    if (strstr(opener->error.text, part) == NULL)
        fail_msg("no \"%s\" in \"%s\"", part, opener->error.text);
}

// ---------------------------------------------------------------- meetings that succeed

// Every lane of every exchange is its own memory, seen alike by all ranks.
static void check_lanes(struct opener *openers, int ranks)
{
    for (int x = 0; x < 2; x++) {
        size_t lane_bytes = openers[0].host.exchanges[x].lane_bytes;
        for (int r = 0; r < ranks; r++) {
            struct exchange *exchange = &openers[r].host.exchanges[x];
            assert_int_equal(exchange->rank, r);
            assert_int_equal(exchange->ranks, ranks);
            assert_int_equal(exchange->lane_bytes % EXCHANGE_LANE_ALIGN_BYTES, 0);
            uint8_t *data = malloc(lane_bytes);
            memset(data, 1 + x * 16 + r, lane_bytes);
            exchange_push(exchange, data, lane_bytes);
            free(data);
        }
        for (int r = 0; r < ranks; r++) {
            const uint8_t *lanes[EXCHANGE_RANKS_MAX];
            assert_true(exchange_pull(&openers[r].host.exchanges[x], lanes));
            for (int s = 0; s < ranks; s++) {
                assert_int_equal((uintptr_t)lanes[s] % EXCHANGE_LANE_ALIGN_BYTES, 0);
                for (size_t i = 0; i < lane_bytes; i++)
                    assert_int_equal(lanes[s][i], 1 + x * 16 + s);
            }
        }
    }
}

static void ranks_meet_in_any_order(void **state)
{
    (void)state;
    static const int ranks_of[] = {1, 2, 3, 8, 8, 8};
    for (size_t round = 0; round < sizeof ranks_of / sizeof ranks_of[0]; round++) {
        int ranks = ranks_of[round];
        struct opener openers[EXCHANGE_RANKS_MAX];
        struct exchange_host_options options = make_options(ranks);
        for (int r = 0; r < ranks; r++) {
            uint64_t late = (uint64_t)(round % 2 == 0 ? r : ranks - r) * CLOCK_NS_PER_MS;
            start_opener(&openers[r], &options, r, round < 4 ? late : 0);
        }
        for (int r = 0; r < ranks; r++)
            assert_int_equal(join_opener(&openers[r]), OK);
        assert_false(name_exists(&options));
        check_lanes(openers, ranks);
        exchange_abort(&openers[0].host.exchanges[0]);
        for (int r = 0; r < ranks; r++) {
            assert_true(exchange_failed(&openers[r].host.exchanges[1]));
            exchange_host_close(&openers[r].host);
        }
    }
}

static void lanes_are_rounded_up(void **state)
{
    (void)state;
    struct exchange_host_options options = make_options(1);
    struct exchange_host host;
    struct error error;
    assert_int_equal(exchange_host_open(&host, &options, &error), OK);
    assert_int_equal(host.exchanges[0].lane_bytes, 1024);
    assert_int_equal(host.exchanges[1].lane_bytes, 256);
    assert_int_equal(host.bytes, exchange_host_bytes(&options));
    exchange_host_close(&host);
    options.place.ranks = 8;
    size_t lanes_bytes = 2u * 8u * 8u * (1024u + 256u);
    assert_true(exchange_host_bytes(&options) >= lanes_bytes);
    assert_true(exchange_host_bytes(&options) < lanes_bytes + 40u * 4096u);
}

static void other_id_is_another_meeting(void **state)
{
    (void)state;
    struct exchange_host_options options = make_options(2);
    char name[EXCHANGE_HOST_NAME_BYTES], other[EXCHANGE_HOST_NAME_BYTES];
    exchange_host_name(name, options.id);
    for (int i = 0; i < EXCHANGE_HOST_ID_BYTES; i++) {
        options.id[i] ^= 1;
        exchange_host_name(other, options.id);
        assert_string_not_equal(name, other);
        options.id[i] ^= 1;
    }
}

// ---------------------------------------------------------------- meetings that fail

static void absent_ranks_are_named(void **state)
{
    (void)state;
    struct exchange_host_options options = make_options(4);
    struct opener openers[2];
    start_opener(&openers[0], &options, 0, 0); // is told when rank 2 gives up
    wait_for_name(&options);
    options.join_ns_max = join_ns_short;
    uint64_t before_ns = clock_now_ns();
    start_opener(&openers[1], &options, 2, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(join_opener(&openers[i]), E_TIMEOUT);
        assert_text(&openers[i], "ranks 1 and 3 of 4 did not come");
        assert_text(&openers[i], i == 0 ? "rank 2 gave up waiting" : "waited 200 ms");
        assert_text(&openers[i], i == 0 ? "group 7 rank 0" : "group 7 rank 2");
    }
    uint64_t waited_ns = clock_now_ns() - before_ns;
    assert_true(waited_ns >= join_ns_short && waited_ns < busy_ns);
    assert_false(name_exists(&options));
}

static void late_rank_finds_nobody(void **state)
{
    (void)state;
    struct exchange_host_options options = make_options(2);
    struct opener early, late;
    options.join_ns_max = join_ns_short;
    start_opener(&early, &options, 0, 0);
    assert_int_equal(join_opener(&early), E_TIMEOUT);
    start_opener(&late, &options, 1, 0);
    assert_int_equal(join_opener(&late), E_TIMEOUT);
    assert_text(&late, "rank 0 of 2 did not come");
    assert_false(name_exists(&options));
}

static void other_sizes_are_refused_by_all(void **state)
{
    (void)state;
    static const char *const texts[] = {"exchange 0 has lanes of", "exchange 1 has lanes of",
                                        "exchanges here", "3 ranks"};
    for (int round = 0; round < 4; round++) {
        struct exchange_host_options options = make_options(2), other = options;
        other.lane_bytes[0] += round == 0 ? 1000 : 0;
        other.lane_bytes[1] += round == 1 ? 1000 : 0;
        other.count = round == 2 ? 1 : 2;
        other.place.ranks = round == 3 ? 3 : 2;
        struct opener first, second;
        uint64_t before_ns = clock_now_ns();
        start_opener(&first, &options, 0, 0);
        wait_for_name(&options);
        start_opener(&second, &other, 1, 0);
        assert_int_equal(join_opener(&first), E_MISMATCH);
        assert_int_equal(join_opener(&second), E_MISMATCH);
        assert_text(&second, texts[round]);
        assert_text(&first, "rank 1 did not agree");
        assert_true(clock_now_ns() - before_ns < busy_ns);
        assert_false(name_exists(&options));
    }
}

static void rank_that_is_there_twice_is_refused(void **state)
{
    (void)state;
    struct exchange_host_options options = make_options(2);
    struct opener first, twin, other;
    start_opener(&first, &options, 0, 0);
    start_opener(&twin, &options, 0, 0);
    uint64_t until_ns = clock_now_ns() + busy_ns;
    while (!atomic_load(&first.done) && !atomic_load(&twin.done) && clock_now_ns() < until_ns)
        clock_sleep_ns(CLOCK_NS_PER_MS);
    start_opener(&other, &options, 1, 0);
    enum status first_status = join_opener(&first), twin_status = join_opener(&twin);
    assert_int_equal(join_opener(&other), OK); // the group is not harmed
    struct opener *refused = first_status == OK ? &twin : &first;
    assert_true((first_status == OK) != (twin_status == OK));
    assert_int_equal(refused->status, E_MISMATCH);
    assert_text(refused, "two processes claim to be rank 0 of 2");
    exchange_host_close(&other.host);
    exchange_host_close(first_status == OK ? &first.host : &twin.host);
    assert_false(name_exists(&options));
}

static void impossible_places_are_refused(void **state)
{
    (void)state;
    static const struct place places[] = {
        {0, 0, 0}, {0, -1, 2}, {0, 2, 2}, {0, 0, EXCHANGE_RANKS_MAX + 1}};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct exchange_host_options options = make_options(2);
        struct exchange_host host;
        struct error error;
        options.place = places[i];
        assert_int_equal(exchange_host_open(&host, &options, &error), E_INPUT);
        assert_non_null(strstr(error.text, "is no place"));
    }
    struct exchange_host_options options = make_options(2);
    struct exchange_host host;
    struct error error;
    options.lane_bytes[1] = SIZE_MAX / 2;
    assert_int_equal(exchange_host_open(&host, &options, &error), E_LIMIT);
}

// More shared memory than a process may write is an error at once, not a SIGBUS later.
static void too_little_memory_is_an_error(void **state)
{
    (void)state;
    struct exchange_host_options options = make_options(2);
    options.lane_bytes[0] = (size_t)1 << 20;
    options.join_ns_max = join_ns_short;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
        struct exchange_host host;
        struct error error = {0};
        signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(1);
        if (exchange_host_open(&host, &options, &error) != E_SYSTEM)
            _exit(2);
        _exit(strstr(error.text, strerror(EFBIG)) == NULL ? 3 : 0);
    }
    int wait_status = -1;
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    assert_int_equal(wait_status, 0);
    assert_false(name_exists(&options));
}

// ---------------------------------------------------------------- deaths in the meeting

static void rank_killed_while_it_waits_is_cleaned_up(void **state)
{
    (void)state;
    struct exchange_host_options options = make_options(3);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct exchange_host host;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)!exchange_host_open(&host, &options, NULL);
        _exit(0);
    }
    wait_for_name(&options);
    clock_sleep_ns(20u * CLOCK_NS_PER_MS);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(name_exists(&options));
    struct opener opener;
    options.join_ns_max = join_ns_short;
    start_opener(&opener, &options, 1, 0);
    assert_int_equal(join_opener(&opener), E_TIMEOUT);
    assert_text(&opener, "2 of 3 did not come"); // rank 0 had come, or had begun to
    assert_false(name_exists(&options));
}

static void half_made_segment_is_cleaned_up(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        struct exchange_host_options options = make_options(2);
        char name[EXCHANGE_HOST_NAME_BYTES];
        exchange_host_name(name, options.id);
        int fd = shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
        assert_true(fd >= 0);
        // Its creator died before it had reserved pages, or before it had written the head.
        if (round == 1)
            assert_int_equal(ftruncate(fd, (off_t)exchange_host_bytes(&options)), 0);
        close(fd);
        struct opener opener;
        options.join_ns_max = join_ns_short;
        start_opener(&opener, &options, 0, 0);
        assert_int_equal(join_opener(&opener), E_TIMEOUT);
        assert_text(&opener, "did not finish");
        assert_false(name_exists(&options));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_little_memory_is_an_error),
        cmocka_unit_test(rank_killed_while_it_waits_is_cleaned_up),
        cmocka_unit_test(half_made_segment_is_cleaned_up),
        cmocka_unit_test(ranks_meet_in_any_order),
        cmocka_unit_test(lanes_are_rounded_up),
        cmocka_unit_test(other_id_is_another_meeting),
        cmocka_unit_test(absent_ranks_are_named),
        cmocka_unit_test(late_rank_finds_nobody),
        cmocka_unit_test(other_sizes_are_refused_by_all),
        cmocka_unit_test(rank_that_is_there_twice_is_refused),
        cmocka_unit_test(impossible_places_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
