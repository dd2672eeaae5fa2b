// The processor's own instructions by name, where there are some to be named.
#pragma once

#include "isa.h"
#ifdef BK_X86
#pragma GCC diagnostic push  // what GCC 12 finds wrong in its own header
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif
