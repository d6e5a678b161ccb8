// SPDX-License-Identifier: Apache-2.0
// version.h -- which build this is. Coordinator and workers must be of one build: they compare it
// in HELLO.
#pragma once

// "0.1.0" or, from a git checkout, "0.1.0+1a2b3c4". A literal.
const char *version_build(void);
