// SPDX-License-Identifier: Apache-2.0
// affinity.c -- reads sysfs (Documentation/ABI/testing/sysfs-bus-pci of Linux: local_cpulist).
#include "worker/affinity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 512, LIST_BYTES = 4096 };

// A number of at most CPU_SETSIZE - 1 at *at, which moves behind it; -1 when there is none.
static int read_number(const char **at)
{
    int number = 0, digits = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++, digits++) {
        number = number * 10 + (**at - '0');
        if (number >= CPU_SETSIZE)
            return -1;
    }
    return digits > 0 ? number : -1;
}

bool affinity_parse(cpu_set_t *out, const char *list)
{
    const char *at = list;
    CPU_ZERO(out);
    for (;;) {
        int first = read_number(&at), last = first;
        if (*at == '-') {
            at++;
            last = read_number(&at);
        }
        if (first < 0 || last < first)
            return false;
        for (size_t i = (size_t)first; i <= (size_t)last; i++)
            CPU_SET(i, out);
        if (*at != ',')
            return *at == '\0' || strcmp(at, "\n") == 0;
        at++;
    }
}

int affinity_near(const char *pci_id, const char *sysfs, int processors_min)
{
    char path[PATH_BYTES], list[LIST_BYTES];
    cpu_set_t near, allowed;
    const char *asked = getenv("DELTAMESH_AFFINITY");
    if (*pci_id == '\0' || (asked != NULL && *asked == '0'))
        return 0;
    snprintf(path, sizeof path, "%s/bus/pci/devices/%s/local_cpulist", sysfs, pci_id);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    bool told = fgets(list, sizeof list, file) != NULL && affinity_parse(&near, list);
    fclose(file);
    if (!told || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return 0;
    CPU_AND(&near, &near, &allowed);
    if (CPU_COUNT(&near) < processors_min || CPU_EQUAL(&near, &allowed))
        return 0;
    return sched_setaffinity(0, sizeof near, &near) == 0 ? CPU_COUNT(&near) : 0;
}
