// SPDX-License-Identifier: Apache-2.0
// git_lfs_test.c -- a pointer is told from all that only begins like one.
#include "parallel/base/git_lfs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void only_a_pointer_is_one(void **state)
{
    (void)state;
    static const char pointer[] =
        "version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
        "size 12345\n";
    struct error error = {.status = OK};
    assert_int_equal(git_lfs_check("a/b", pointer, sizeof pointer - 1, &error), E_INPUT);
    assert_string_equal(error.text, "a/b: a Git LFS pointer, not the file itself; run `git lfs "
                                    "pull` in its folder");
    assert_int_equal(git_lfs_check("a/b", pointer, GIT_LFS_BYTES, NULL), E_INPUT);
    assert_int_equal(git_lfs_check("a/b", pointer, GIT_LFS_BYTES - 1, NULL), OK);
    assert_int_equal(git_lfs_check("a/b", pointer, 0, NULL), OK);
    assert_int_equal(git_lfs_check("a/b", "{\"version\": \"https://git-lfs\"}", 30, NULL), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(only_a_pointer_is_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
