// SPDX-License-Identifier: Apache-2.0
// generation_config.h -- the sampling that a model's release recommends, for requests that name
// none. The ids that end a text, in the same file, are config.h's and the tokenizer's.
#pragma once

#include "coordinator/core.h"

// Fills *out with temperature, top_k, top_p, min_p and repetition of DIR/generation_config.json;
// what is absent or null there, or a file that is absent, is temperature 1 and all else off, and
// "do_sample": false is temperature 0. Other fields of *out are 0, other keys of the file are not
// looked at. E_INPUT names the file, the field, its value and what is accepted: the same as in
// requests. Errors of config_file_read.
enum status generation_config_load(struct coord_sampling *out, const char *model_dir,
                                   struct error *error) MUST_CHECK;
