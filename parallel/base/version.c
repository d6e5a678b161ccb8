// SPDX-License-Identifier: Apache-2.0
// version.c -- the only file compiled with the build's name, so that a new commit recompiles no
// other.
#include "parallel/base/version.h"

const char *version_build(void)
{
    return DELTAMESH_BUILD;
}
