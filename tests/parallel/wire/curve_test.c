// SPDX-License-Identifier: Apache-2.0
// curve_test.c -- folders of keys: made, read, and what is wrong with them by name.
#include "parallel/wire/curve.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];
static struct error error;

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/deltamesh-curve-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
    return 0;
}

static void must(enum status status)
{
    if (status != OK)
        fail_msg("%s", error.text);
}

static const char *path(const char *name)
{
    static char text[128];
    snprintf(text, sizeof text, "%s/%s", folder, name);
    return text;
}

static void write_text(const char *name, const char *text)
{
    FILE *file = fopen(path(name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void made_once_and_read(void **state)
{
    (void)state;
    int made = -1;
    struct stat secret;
    struct curve_keys server, client, worker, again;
    must(curve_make(folder, &made, &error));
    assert_int_equal(made, 3);
    assert_int_equal(stat(path("server.secret"), &secret), 0);
    assert_int_equal(secret.st_mode & 0777, 0600);
    must(curve_load_server(&server, folder, "client", &error));
    must(curve_load_client(&client, folder, "client", &error));
    must(curve_load_client(&worker, folder, "worker", &error));
    assert_true(server.is_server);
    assert_string_equal(client.server_key, server.public_key);
    assert_int_equal(server.allowed_count, 1);
    assert_string_equal(server.allowed[0], client.public_key);
    assert_string_not_equal(worker.public_key, client.public_key);
    must(curve_make(folder, &made, &error));
    assert_int_equal(made, 0);
    must(curve_make_one(folder, "client", "board-1", &error));
    must(curve_load_server(&again, folder, "client", &error));
    assert_string_equal(again.secret_key, server.secret_key);
    assert_int_equal(again.allowed_count, 2);
    curve_fini(&again);
    must(curve_load_server(&again, folder, "worker", &error));
    assert_int_equal(again.allowed_count, 1);
    assert_string_equal(again.allowed[0], worker.public_key);
    curve_fini(&again);
    curve_fini(&server);
    assert_string_equal(server.secret_key, "");
    curve_fini(&client);
    curve_fini(NULL);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    int made;
    struct curve_keys keys;
    assert_int_equal(curve_load_server(&keys, folder, "client", &error), E_NOT_FOUND);
    assert_non_null(strstr(error.text, "server.public"));
    assert_non_null(strstr(error.text, "deltamesh keys"));
    must(curve_make(folder, &made, &error));
    static const char *const wrong[] = {"", "short", "not Z85 at all, although of the right size..",
                                        "0000000000000000000000000000000000000000x"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        write_text("client.secret", wrong[i]);
        assert_int_equal(curve_load_client(&keys, folder, "client", &error), E_INPUT);
        assert_non_null(strstr(error.text, "client.secret"));
        assert_non_null(strstr(error.text, "40"));
    }
    assert_int_equal(unlink(path("workers/worker.public")), 0);
    assert_int_equal(curve_load_server(&keys, folder, "worker", &error), E_INPUT);
    assert_non_null(strstr(error.text, "nobody"));
    assert_int_equal(rmdir(path("workers")), 0);
    assert_int_equal(curve_load_server(&keys, folder, "worker", &error), E_NOT_FOUND);
    assert_int_equal(curve_make_one(folder, "client", "client", &error), E_INPUT);
    assert_int_equal(curve_make_one(folder, "client", "../x", &error), E_INPUT);
    assert_int_equal(curve_make_one(folder, "client", "", &error), E_INPUT);
    assert_int_equal(curve_make("/proc/nowhere/x", &made, &error), E_SYSTEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(made_once_and_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_wrong_is_named, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
