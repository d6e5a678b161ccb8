// SPDX-License-Identifier: Apache-2.0
// options.c -- the table-driven reader of command lines.
#include "parallel/base/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES_MAX = 64 };

// The next word of a list separated by `separator`; false at its end.
static bool next_word(const char **list, char separator, const char **word, size_t *bytes)
{
    while (**list == separator)
        (*list)++;
    *word = *list;
    while (**list != '\0' && **list != separator)
        (*list)++;
    *bytes = (size_t)(*list - *word);
    return *bytes > 0;
}

static bool is_word(const char *word, size_t bytes, const char *text)
{
    return strlen(text) == bytes && memcmp(word, text, bytes) == 0;
}

static struct option *find(struct option *options, int options_count, const char *name)
{
    for (int i = 0; i < options_count; i++) {
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
        const char *list = options[i].aliases != NULL ? options[i].aliases : "";
        const char *word;
        size_t bytes;
        while (next_word(&list, ' ', &word, &bytes)) {
            if (is_word(word, bytes, name))
                return &options[i];
        }
    }
    return NULL;
}

// Levenshtein's distance of two names, both shorter than NAME_BYTES_MAX.
static int distance(const char *a, const char *b)
{
    int row[NAME_BYTES_MAX + 1];
    int columns = (int)strlen(b);
    for (int j = 0; j <= columns; j++)
        row[j] = j;
    for (int i = 1; a[i - 1] != '\0'; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= columns; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            int shift = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = change < shift ? change : shift;
        }
    }
    return row[columns];
}

// E_USAGE for a name that is in no row, with the nearest name when one is near.
static enum status unknown(const struct option *options, int options_count, const char *name,
                           struct error *error)
{
    int best = 4; // three slips of the finger are near
    const char *nearest = NULL;
    for (int i = 0; i < options_count; i++) {
        if (strlen(name) >= NAME_BYTES_MAX || strlen(options[i].name) >= NAME_BYTES_MAX)
            continue;
        int far = distance(name, options[i].name);
        if (far < best) {
            best = far;
            nearest = options[i].name;
        }
    }
    if (nearest != NULL)
        return error_set(error, E_USAGE, "unknown option %s; did you mean %s?", name, nearest);
    return error_set(error, E_USAGE, "unknown option %s; see --help", name);
}

static enum status set_int(const struct option *option, const char *word, struct error *error)
{
    char *end;
    errno = 0;
    long long value = strtoll(word, &end, 10);
    if (*word == '\0' || *end != '\0')
        return error_set(error, E_USAGE, "%s: '%s' is not a whole number", option->name, word);
    if (errno != 0 || (double)value < option->min || (double)value > option->max)
        return error_set(error, E_USAGE, "%s: %s is outside %.0f .. %.0f", option->name, word,
                         option->min, option->max);
    *(int32_t *)option->value = (int32_t)value;
    return OK;
}

static enum status set_real(const struct option *option, const char *word, struct error *error)
{
    char *end;
    double value = strtod(word, &end);
    if (*word == '\0' || *end != '\0')
        return error_set(error, E_USAGE, "%s: '%s' is not a number", option->name, word);
    if (!isfinite(value) || value < option->min || value > option->max)
        return error_set(error, E_USAGE, "%s: %s is outside %g .. %g", option->name, word,
                         option->min, option->max);
    *(double *)option->value = value;
    return OK;
}

static enum status set_seed(const struct option *option, const char *word, struct error *error)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(word, &end, 10);
    if (*word == '\0' || *end != '\0' || *word == '-' || errno != 0)
        return error_set(error, E_USAGE, "%s: '%s' is not a whole number in 0 .. %llu",
                         option->name, word, (unsigned long long)UINT64_MAX);
    *(uint64_t *)option->value = value;
    return OK;
}

static enum status set_choice(const struct option *option, const char *word, struct error *error)
{
    const char *list = option->argument;
    const char *choice;
    size_t bytes;
    while (next_word(&list, '|', &choice, &bytes)) {
        if (is_word(choice, bytes, word)) {
            *(const char **)option->value = word;
            return OK;
        }
    }
    return error_set(error, E_USAGE, "%s: '%s' is none of %s", option->name, word,
                     option->argument);
}

static enum status set(struct option *option, const char *word, struct error *error)
{
    switch (option->kind) {
    case OPTION_INT: TRY(set_int(option, word, error)); break;
    case OPTION_REAL: TRY(set_real(option, word, error)); break;
    case OPTION_SEED: TRY(set_seed(option, word, error)); break;
    case OPTION_CHOICE: TRY(set_choice(option, word, error)); break;
    case OPTION_TEXT: *(const char **)option->value = word; break;
    case OPTION_FLAG: *(bool *)option->value = true; break;
    case OPTION_REFUSED: return error_set(error, E_USAGE, "%s: %s", option->name, option->help);
    }
    option->given = word;
    return OK;
}

// Copies a word up to '=' and turns '_' of a long name into '-'. False when it is no option name.
static bool read_name(char name[NAME_BYTES_MAX], const char *word)
{
    size_t bytes = strcspn(word, "=");
    if (word[0] != '-' || word[1] == '\0' || bytes >= NAME_BYTES_MAX)
        return false;
    memcpy(name, word, bytes);
    name[bytes] = '\0';
    for (size_t i = 2; name[1] == '-' && i < bytes; i++) {
        if (name[i] == '_')
            name[i] = '-';
    }
    return true;
}

enum status options_parse(struct option *options, int options_count, int count,
                          char *const *arguments, struct error *error)
{
    for (int i = 0; i < count; i++) {
        char name[NAME_BYTES_MAX];
        if (!read_name(name, arguments[i]))
            return error_set(error, E_USAGE, "unexpected word '%.80s'; see --help", arguments[i]);
        struct option *option = find(options, options_count, name);
        if (option == NULL)
            return unknown(options, options_count, name, error);
        const char *equals = strchr(arguments[i], '=');
        bool takes_value = option->kind != OPTION_FLAG && option->kind != OPTION_REFUSED;
        if (!takes_value) {
            if (option->kind == OPTION_FLAG && equals != NULL)
                return error_set(error, E_USAGE, "%s takes no value", name);
            TRY(set(option, "", error));
        } else if (equals != NULL) {
            TRY(set(option, equals + 1, error));
        } else if (i + 1 < count) {
            TRY(set(option, arguments[++i], error));
        } else {
            return error_set(error, E_USAGE, "%s needs a value: %s", name, option->argument);
        }
    }
    return OK;
}

void options_print(FILE *file, const struct option *options, int options_count)
{
    enum { HELP_COLUMN = 34 };
    for (int i = 0; i < options_count; i++) {
        const struct option *option = &options[i];
        if (option->help == NULL || option->kind == OPTION_REFUSED)
            continue;
        int column = fprintf(file, "  %s", option->name);
        if (option->argument != NULL)
            column += fprintf(file, " %s", option->argument);
        if (column >= HELP_COLUMN) {
            fputc('\n', file);
            column = 0;
        }
        fprintf(file, "%*s%s", HELP_COLUMN - column, "", option->help);
        if (option->aliases != NULL)
            fprintf(file, " (also %s)", option->aliases);
        fputc('\n', file);
    }
}
