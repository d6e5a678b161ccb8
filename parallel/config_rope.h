// SPDX-License-Identifier: Apache-2.0
// config_rope.h -- the rotary embedding's part of config.json. Only config.c uses it; the
// frequencies are in config.h.
#pragma once

#include "parallel/config.h"
#include "parallel/config_fields.h"

// Reads rope_parameters, or the older rope_scaling beside rope_theta and partial_rotary_factor,
// from the text model's object. Failures go to fields.
void config_rope_parse(struct rope_config *out, struct config_fields *fields, int head_dim,
                       int max_position_embeddings);
