// SPDX-License-Identifier: Apache-2.0
// affinity.h -- the processors near a GPU: on a host with several memory nodes, page-locked memory
// and the threads that fill it belong to the node that the GPU's PCI Express link comes from.
#pragma once

#include <sched.h>
#include <stdbool.h>

// Parses a list of processors as Linux writes them ("0-15,32-47\n") into *out. False when it is
// none, or names one beyond CPU_SETSIZE.
bool affinity_parse(cpu_set_t *out, const char *list);

enum { AFFINITY_PROCESSORS_MIN = 4 }; // fewer would be in each other's way

// Lets the calling thread, and threads that it starts, run on the processors near a PCI device
// alone ("0000:3b:00.0"), of those that it may use now. Returns how many they are; 0 when nothing
// was changed: no device, a system that does not tell, too few of them allowed,
// DELTAMESH_AFFINITY=0. sysfs: "/sys", or a test's folder; processors_min: fewer are too few.
int affinity_near(const char *pci_id, const char *sysfs, int processors_min);
