// The processor's own instructions by name: what <immintrin.h> has, without the most of it, which nobody here uses and
// which GCC reads for about a second, while the first word of a language model waits.

#pragma once

#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ == 12 && !defined(__AVX512F__)  // others were not tried
#define _IMMINTRIN_H_INCLUDED  // its parts ask for it
#include <mmintrin.h>
#include <xmmintrin.h>
#include <emmintrin.h>
#include <pmmintrin.h>
#include <tmmintrin.h>
#include <smmintrin.h>
#include <avxintrin.h>
#include <avx2intrin.h>
#include <f16cintrin.h>
#include <fmaintrin.h>
#else
#include <immintrin.h>
#endif
#endif
