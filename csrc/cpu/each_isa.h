// Compiles BK_KERNEL (a header, in quotes) once per instruction set, each in a namespace of its own, and BK_AMX_KERNEL, where
// there is one, for tiles of bfloat16.
// Every other header must have been included before: functions defined here may run on one instruction set only.
namespace bk::portable {
#define BK_LANES 4
#include "vec.h"
#include BK_KERNEL
#undef BK_LANES
}  // namespace bk::portable

#ifdef BK_X86
#define BK_INTRINSICS 1  // g++ 12 does not tell by __AVX2__: it reads a whole file's tokens before its pragmas
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace bk::avx2 {
#define BK_LANES 8
#include "vec.h"
#include BK_KERNEL
#undef BK_LANES
}  // namespace bk::avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
namespace bk::avx512 {
#define BK_LANES 16
#include "vec.h"
#include BK_KERNEL
#undef BK_LANES
}  // namespace bk::avx512
#pragma GCC pop_options
#undef BK_INTRINSICS
#endif

#if defined(BK_AMX) && defined(BK_AMX_KERNEL)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,prefer-vector-width=512")
namespace bk::amx {
#define BK_LANES 16
#include "vec.h"
#include BK_AMX_KERNEL
#undef BK_LANES
}  // namespace bk::amx
#pragma GCC pop_options
#endif
