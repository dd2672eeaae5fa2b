// Which instruction set the CPU kernels run on, chosen once per process.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define BK_X86 1
#endif

namespace bk {

enum class Isa { portable, avx2, avx512 };

// The best the processor has, or BIGSMALL_KERNELS_ISA=portable|avx2|avx512 (never more than it has).
Isa isa();
const char* isa_name();

// Whether the processor multiplies matrices of bfloat16 (AMX), so fast that aten's direct convolutions win.
bool fast_half();

}  // namespace bk

// Calls NAME(...) of the namespace compiled for the chosen instruction set (see each_isa.h).
#ifdef BK_X86
#define BK_DISPATCH(NAME, ...)                                              \
  (::bk::isa() == ::bk::Isa::avx512 ? ::bk::avx512::NAME(__VA_ARGS__)       \
   : ::bk::isa() == ::bk::Isa::avx2 ? ::bk::avx2::NAME(__VA_ARGS__)         \
                                    : ::bk::portable::NAME(__VA_ARGS__))
#else
#define BK_DISPATCH(NAME, ...) ::bk::portable::NAME(__VA_ARGS__)
#endif
