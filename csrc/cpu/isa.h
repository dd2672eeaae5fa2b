// Which instruction set the CPU kernels run on, chosen once per process.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define BK_X86 1
#ifdef __linux__
#define BK_AMX 1
#endif
#endif

namespace bk {

// avx512_vnni: avx512 (F, BW, DQ, VL) with products and permutations of bytes (VNNI, VBMI). amx: that, and products of
// matrices of bfloat16.
enum class Isa { portable, avx2, avx512, avx512_vnni, amx };

// The best the processor has, or BIGSMALL_KERNELS_ISA=portable|avx2|avx512|avx512_vnni|amx (never more than it has).
Isa isa();
const char* isa_name();

}  // namespace bk

// Calls NAME(...) of the namespace compiled for the chosen instruction set (see each_isa.h).
#ifdef BK_X86
#define BK_DISPATCH(NAME, ...)                                              \
  (::bk::isa() >= ::bk::Isa::avx512 ? ::bk::avx512::NAME(__VA_ARGS__)       \
   : ::bk::isa() == ::bk::Isa::avx2 ? ::bk::avx2::NAME(__VA_ARGS__)         \
                                    : ::bk::portable::NAME(__VA_ARGS__))
#else
#define BK_DISPATCH(NAME, ...) ::bk::portable::NAME(__VA_ARGS__)
#endif
