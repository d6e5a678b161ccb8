// SPDX-License-Identifier: Apache-2.0
// gdn_open_check.cu -- opening slots zeroes their state in every layer, and nothing else.
#include "tests/gpu/check.cuh"

extern "C" {
#include "kernels/gdn.h"
}

CPU_FUNCTION(gdn_open);

enum { SLOTS = 4, LAYERS = 3, OPENINGS = 3 };

static void launch(struct stream *stream, const void *argument)
{
    gdn_open(stream, static_cast<const struct gdn_open *>(argument));
}

template <typename T> static T *filled(size_t count)
{
    T *values = static_cast<T *>(check_array(ARRAY_STATE, count * sizeof(T)));
    check_fill(values, count, 1);
    return values;
}

// Slots opened at 0 and behind a checkpoint, and one that is not opened.
static void check_open(int key_heads, int value_heads, bool bf16_state)
{
    check_begin("gdn_open%s heads=%d/%d", bf16_state ? " bf16" : "", key_heads, value_heads);
    const size_t states = static_cast<size_t>(SLOTS * value_heads) * GDN_HEAD_DIM * GDN_HEAD_DIM;
    const size_t columns = static_cast<size_t>(SLOTS * (2 * key_heads + value_heads)) *
                           GDN_HEAD_DIM * (GDN_CONV_WIDTH - 1);
    struct gdn_state layers[LAYERS] = {};
    struct gdn_state *layers_dev =
        static_cast<struct gdn_state *>(check_array(ARRAY_INPUT, sizeof layers));
    struct slot_opening *openings = static_cast<struct slot_opening *>(
        check_array(ARRAY_INPUT, OPENINGS * sizeof(struct slot_opening)));
    for (int i = 0; i < LAYERS; i++) {
        layers[i].state =
            bf16_state ? static_cast<void *>(filled<bf16>(states)) : filled<float>(states);
        layers[i].conv = filled<bf16>(columns);
        layers[i].waiting = static_cast<struct gdn_waiting *>(
            check_array(ARRAY_STATE, 2 * SLOTS * sizeof(struct gdn_waiting)));
        for (int k = 0; k < 2 * SLOTS; k++)
            layers[i].waiting[k] = {k, 9};
        layers_dev[i].state = check_dev(layers[i].state);
        layers_dev[i].conv = check_dev(layers[i].conv);
        layers_dev[i].waiting = check_dev(layers[i].waiting);
    }
    for (int i = 0; i < OPENINGS; i++) {
        openings[i].slot = SLOTS - 1 - i;
        openings[i].position = i == 1 ? 64 : 0;
    }
    struct gdn_open host = {layers, LAYERS, key_heads, value_heads, bf16_state, openings, OPENINGS};
    struct gdn_open dev = host;
    dev.layers = check_dev(layers_dev);
    dev.openings = check_dev(openings);
    check_run(launch, &dev);
    cpu_gdn_open(check_cpu_stream(), &host);
    check_cpu_wait();
    for (const struct gdn_state &layer : layers) {
        check_equal("state", layer.state, layer.state, states,
                    static_cast<size_t>(gdn_state_bytes(bf16_state)));
        check_equal("conv", layer.conv, layer.conv, columns, sizeof(bf16));
        check_equal("waiting", layer.waiting, layer.waiting, 2 * SLOTS, sizeof(struct gdn_waiting));
    }
    check_end();
}

SMALL(gdn_open)
{
    check_open(1, 2, false);
    check_open(1, 2, true);
}

CHECK(gdn_open)
{
    check_open(1, 2, false);
    check_open(1, 2, true);
    check_open(16, 32, false);
    check_open(16, 32, true);
}
