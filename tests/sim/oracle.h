// SPDX-License-Identifier: Apache-2.0
// oracle.h -- the model that the simulated devices run: a token depends on the request's seed, its
// position and every token before it, so whatever is lost, repeated, misplaced or mixed up with
// another sequence changes the text. Devices compute it from what plans told them, clients from
// what they asked for.
#pragma once

#include <stdint.h>

enum { ORACLE_PROBES = 2 };

// Token number `position` of the prompt of the request with this seed. Prompts come in a few
// families whose beginnings are alike, for a length that the seed decides.
int32_t oracle_prompt_token(uint64_t seed, int32_t position, int32_t vocab);

// The recurrent state after one more token; the empty sequence has state 0.
uint64_t oracle_fold(uint64_t state, int32_t token);

// Which earlier position, of [0, position), the token at `position` looks at.
int32_t oracle_probe(uint64_t seed, int32_t position, int which);

// The token at `position` (>= 1): from the state of everything before it, and the tokens that KV
// holds at the probed positions.
int32_t oracle_draw(uint64_t seed, int32_t position, uint64_t state,
                    const int32_t probed[ORACLE_PROBES], int32_t vocab);

// The token itself, or the next id (in a circle) that is none of these: what is drawn where stop
// ids may not be.
int32_t oracle_avoid(int32_t token, const int32_t *ids, int32_t ids_count, int32_t vocab);
