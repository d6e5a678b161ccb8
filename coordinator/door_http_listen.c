// SPDX-License-Identifier: Apache-2.0
// door_http_listen.c -- getaddrinfo, bind, listen.
#include "coordinator/door_http_listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HOST_BYTES_MAX = 256, BACKLOG = 1024 };
enum { FILES_SPARE = 128 }; // for everything that is no HTTP connection

// Splits at the last colon; brackets around an IPv6 address are left out.
static enum status split(const char *address, char host[HOST_BYTES_MAX], const char **port,
                         struct error *error)
{
    const char *colon = strrchr(address, ':');
    size_t count = colon != NULL ? (size_t)(colon - address) : 0;
    const char *start = address;
    bool digits = colon != NULL && colon[1] != '\0' && strlen(colon + 1) <= 5 &&
                  strspn(colon + 1, "0123456789") == strlen(colon + 1);
    if (count > 1 && address[0] == '[' && address[count - 1] == ']') {
        start++;
        count -= 2;
    } else if (memchr(address, ':', count) != NULL) {
        count = 0; // an IPv6 address wants brackets
    }
    if (!digits || count == 0 || count >= HOST_BYTES_MAX)
        return error_set(error, E_USAGE, "http: '%s' is no HOST:PORT", address);
    memcpy(host, start, count);
    host[count] = '\0';
    *port = colon + 1;
    return OK;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, address, sizeof in6);
    return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

static int bind_one(const struct addrinfo *at)
{
    int on = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on); // accepted sockets inherit these
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

static int port_of(int fd)
{
    struct sockaddr_storage space = {0};
    struct sockaddr_in6 in6;
    socklen_t bytes = sizeof space;
    getsockname(fd, (struct sockaddr *)&space, &bytes);
    memcpy(&in6, &space, sizeof in6); // the port lies at the same place in both families
    return ntohs(in6.sin6_port);
}

enum status door_http_listen(int *fd, char *url, size_t url_bytes, const char *address, bool open,
                             struct error *error)
{
    char host[HOST_BYTES_MAX];
    const char *port = NULL;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    TRY(split(address, host, &port, error));
    int problem =
        strtol(port, NULL, 10) <= 65535 ? getaddrinfo(host, port, &hints, &found) : EAI_SERVICE;
    if (problem != 0)
        return error_set(error, E_USAGE, "http: '%s': %s", address, gai_strerror(problem));
    enum status status = OK;
    if (!open && !is_loopback(found->ai_addr)) {
        status =
            error_set(error, E_UNSUPPORTED,
                      "http: '%s' is not on the loopback: give --api-key, or --insecure", address);
    } else if ((*fd = bind_one(found)) < 0) {
        status =
            error_set(error, E_SYSTEM, "http: cannot listen on '%s': %s", address, strerror(errno));
    } else {
        bool brackets = strchr(host, ':') != NULL;
        snprintf(url, url_bytes, brackets ? "http://[%s]:%d" : "http://%s:%d", host, port_of(*fd));
    }
    freeaddrinfo(found);
    return status;
}

unsigned door_http_listen_connections(unsigned wanted)
{
    struct rlimit files = {.rlim_cur = 1024, .rlim_max = 1024};
    rlim_t needed = (rlim_t)wanted + FILES_SPARE;
    (void)getrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < needed) {
        files.rlim_cur = files.rlim_max < needed ? files.rlim_max : needed;
        (void)setrlimit(RLIMIT_NOFILE, &files);
        (void)getrlimit(RLIMIT_NOFILE, &files);
    }
    rlim_t count = files.rlim_cur > 2 * FILES_SPARE ? files.rlim_cur - FILES_SPARE : FILES_SPARE;
    return count < wanted ? (unsigned)count : wanted;
}
