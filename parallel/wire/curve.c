// SPDX-License-Identifier: Apache-2.0
// curve.c -- small text files, checked before libzmq sees them.
#include "parallel/wire/curve.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zmq.h>

enum { PATH_BYTES_MAX = 4096, KEY_BYTES = 32, NAME_BYTES_MAX = 64 };

static const char hint[] = "`deltamesh keys --curve-dir DIR` makes keys";

// ---- reading ----

static enum status path_of(char *out, const char *folder, const char *name, const char *suffix,
                           struct error *error)
{
    int count = snprintf(out, PATH_BYTES_MAX, "%s/%s%s", folder, name, suffix);
    if (count < PATH_BYTES_MAX)
        return OK;
    return error_set(error, E_LIMIT, "--curve-dir: a path of %d bytes, the limit is %d", count,
                     PATH_BYTES_MAX - 1);
}

static enum status read_key(char *out, const char *path, struct error *error)
{
    char text[CURVE_KEY_CHARACTERS + 16] = "";
    uint8_t key[KEY_BYTES];
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return error_set(error, errno == ENOENT ? E_NOT_FOUND : E_SYSTEM, "%.300s: %s (%s)", path,
                         strerror(errno), hint);
    }
    size_t count = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    while (count > 0 && strchr(" \t\r\n", text[count - 1]) != NULL)
        text[--count] = '\0';
    bool right =
        count == CURVE_KEY_CHARACTERS && strlen(text) == count && zmq_z85_decode(key, text) != NULL;
    if (right)
        memcpy(out, text, count + 1);
    memset(text, 0, sizeof text);
    if (right)
        return OK;
    return error_set(error, E_INPUT, "%.300s: accepted is one key, %d characters of Z85", path,
                     CURVE_KEY_CHARACTERS);
}

static enum status read_named(char *out, const char *folder, const char *name, const char *suffix,
                              struct error *error)
{
    char path[PATH_BYTES_MAX];
    TRY(path_of(path, folder, name, suffix, error));
    return read_key(out, path, error);
}

static bool is_public(const char *name)
{
    static const char suffix[] = ".public";
    size_t count = strlen(name);
    return count >= sizeof suffix && strcmp(name + count - (sizeof suffix - 1), suffix) == 0;
}

static enum status read_allowed(struct curve_keys *keys, const char *path, struct error *error)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return error_set(error, errno == ENOENT ? E_NOT_FOUND : E_SYSTEM, "%.300s: %s (%s)", path,
                         strerror(errno), hint);
    }
    enum status status = OK;
    for (struct dirent *entry; status == OK && (entry = readdir(folder)) != NULL;) {
        if (!is_public(entry->d_name))
            continue;
        if (keys->allowed_count == CURVE_ALLOWED_MAX) {
            status =
                error_set(error, E_LIMIT, "%.300s has more than %d keys", path, CURVE_ALLOWED_MAX);
            break;
        }
        void *grown =
            realloc(keys->allowed, (size_t)(keys->allowed_count + 1) * sizeof *keys->allowed);
        if (grown == NULL) {
            status = error_set(error, E_SYSTEM, "no memory for keys");
            break;
        }
        keys->allowed = grown;
        status = read_named(keys->allowed[keys->allowed_count], path, entry->d_name, "", error);
        keys->allowed_count += status == OK;
    }
    closedir(folder);
    if (status == OK && keys->allowed_count == 0) {
        status =
            error_set(error, E_INPUT, "%.300s has no key: nobody could connect (%s)", path, hint);
    }
    return status;
}

static enum status load_server(struct curve_keys *keys, const char *folder, const char *who,
                               struct error *error)
{
    char path[PATH_BYTES_MAX];
    keys->is_server = true;
    TRY(read_named(keys->public_key, folder, "server", ".public", error));
    TRY(read_named(keys->secret_key, folder, "server", ".secret", error));
    TRY(path_of(path, folder, who, "s", error));
    return read_allowed(keys, path, error);
}

enum status curve_load_server(struct curve_keys *out, const char *folder, const char *who,
                              struct error *error)
{
    struct curve_keys keys = {.is_server = true};
    enum status status = load_server(&keys, folder, who, error);
    if (status == OK)
        *out = keys;
    else
        curve_fini(&keys);
    return status;
}

static enum status load_client(struct curve_keys *keys, const char *folder, const char *who,
                               struct error *error)
{
    TRY(read_named(keys->server_key, folder, "server", ".public", error));
    TRY(read_named(keys->public_key, folder, who, ".public", error));
    return read_named(keys->secret_key, folder, who, ".secret", error);
}

enum status curve_load_client(struct curve_keys *out, const char *folder, const char *who,
                              struct error *error)
{
    struct curve_keys keys = {.is_server = false};
    enum status status = load_client(&keys, folder, who, error);
    if (status == OK)
        *out = keys;
    else
        curve_fini(&keys);
    return status;
}

void curve_fini(struct curve_keys *keys)
{
    if (keys == NULL)
        return;
    explicit_bzero(keys->secret_key, sizeof keys->secret_key);
    free(keys->allowed);
    keys->allowed = NULL;
    keys->allowed_count = 0;
}

// ---- making ----

static enum status make_folder(const char *path, mode_t mode, struct error *error)
{
    if (mkdir(path, mode) == 0 || errno == EEXIST)
        return OK;
    return error_set(error, E_SYSTEM, "%.300s: %s", path, strerror(errno));
}

// A new file; one that is there is not touched.
static enum status write_key(const char *path, const char *key, mode_t mode, struct error *error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    bool fine = fd >= 0 && dprintf(fd, "%s\n", key) == CURVE_KEY_CHARACTERS + 1;
    int number = errno;
    if (fd >= 0)
        fine = close(fd) == 0 && fine;
    return fine ? OK : error_set(error, E_SYSTEM, "%.300s: %s", path, strerror(number));
}

static enum status make_pair(const char *folder, const char *name, const char *kind,
                             struct error *error)
{
    char public_key[CURVE_KEY_CHARACTERS + 1], secret_key[CURVE_KEY_CHARACTERS + 1];
    char path[PATH_BYTES_MAX], below[NAME_BYTES_MAX + 16];
    if (zmq_curve_keypair(public_key, secret_key) != 0)
        return error_set(error, E_UNSUPPORTED, "this libzmq was built without CURVE");
    TRY(path_of(path, folder, name, ".secret", error));
    TRY(write_key(path, secret_key, 0600, error));
    TRY(path_of(path, folder, name, ".public", error));
    TRY(write_key(path, public_key, 0644, error));
    explicit_bzero(secret_key, sizeof secret_key);
    if (kind == NULL)
        return OK;
    TRY(path_of(path, folder, kind, "s", error));
    TRY(make_folder(path, 0755, error));
    snprintf(below, sizeof below, "%ss/%s", kind, name);
    TRY(path_of(path, folder, below, ".public", error));
    return write_key(path, public_key, 0644, error);
}

static bool exists(const char *folder, const char *name)
{
    char path[PATH_BYTES_MAX];
    return path_of(path, folder, name, ".public", NULL) == OK && access(path, F_OK) == 0;
}

enum status curve_make(const char *folder, int *made, struct error *error)
{
    static const char *const names[][2] = {
        {"server", NULL}, {"client", "client"}, {"worker", "worker"}};
    int count = 0;
    TRY(make_folder(folder, 0755, error));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (exists(folder, names[i][0]))
            continue;
        TRY(make_pair(folder, names[i][0], names[i][1], error));
        count++;
    }
    *made = count;
    return OK;
}

enum status curve_make_one(const char *folder, const char *kind, const char *name,
                           struct error *error)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    size_t count = strlen(name);
    if (count == 0 || count > NAME_BYTES_MAX || strspn(name, letters) != count)
        return error_set(error, E_INPUT, "'%.80s': accepted are 1 to %d letters, digits, - and _",
                         name, NAME_BYTES_MAX);
    if (exists(folder, name))
        return error_set(error, E_INPUT, "%.300s has a key '%s' already", folder, name);
    return make_pair(folder, name, kind, error);
}
