// SPDX-License-Identifier: Apache-2.0
// output.c -- flushes stdout and looks at its error mark, which stays once set.
#include "deploy/cli/output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum status output_flush(struct error *error)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return OK;
    // A printf that failed before may have left nothing to flush, and its reason is gone.
    return error_set(error, E_SYSTEM, "stdout: %s", strerror(errno != 0 ? errno : EIO));
}
