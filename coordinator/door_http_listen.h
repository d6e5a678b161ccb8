// SPDX-License-Identifier: Apache-2.0
// door_http_listen.h -- HOST:PORT to a listening TCP socket. Speaks no HTTP.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "parallel/base/status.h"

// Binds and listens; port 0 = any free one. A host is a name or an address, IPv6 in brackets. *fd
// is the caller's to close; url[url_bytes] gets http://HOST:PORT with the real port. E_USAGE: no
// HOST:PORT, or a host that nobody knows; E_UNSUPPORTED: not on the loopback, unless `open`;
// E_SYSTEM names address and reason.
enum status door_http_listen(int *fd, char *url, size_t url_bytes, const char *address, bool open,
                             struct error *error) MUST_CHECK;

// How many connections may be open at once, up to `wanted`. Every one is a file, and the soft limit
// of many systems is 1,024: raises this process's towards its hard limit.
unsigned door_http_listen_connections(unsigned wanted);
