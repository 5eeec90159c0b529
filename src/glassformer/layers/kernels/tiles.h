// Products of whole numbers by the processor's tile registers (Intel AMX), for quantized.cpp: 16 rows of inputs by the 16
// rows of a tile of the weight at a time. Sums of whole numbers are exact, and what follows them is the same arithmetic in
// the same order as without: results are equal to the bit.
//
// A tile register holds 16 rows of 64 bytes. The weight's numbers of a group are 8 such rows (its layout is that which the
// instruction reads), the inputs' 16 rows of 32 bytes, their sums 16 rows of 16 numbers of 32 bits.

#pragma once

#if defined(__AMX_INT8__) && defined(__linux__) && defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define TILED
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "intrinsics.h"
#include "packed.h"

namespace tiles {

constexpr int64_t LEAST = 13;  // rows of inputs that are worth 16 of a register

// Linux keeps what is in these registers only for processes that ask once. False where it refuses.
inline bool allowed() {
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool granted = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
    return granted;
}

// What a thread says before it uses them: registers 0 and 1 are sums, 2 and 3 inputs, 4 and 5 weights.
struct Shapes {
    uint8_t palette = 1, begin = 0, unused[14] = {};
    uint16_t bytes[16] = {64, 64, 32, 32, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 8, 8};
};

// Each says that it reads memory: compilers have dropped what was written for it (GCC 12 before ldtilecfg).
inline void take() {
    const Shapes shapes;
    static_assert(sizeof shapes == 64, "as the instruction reads it");
    asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory");
}
inline void give_back() { asm volatile("tilerelease" ::: "memory"); }

template <int PLACE> inline void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(PLACE), "r"(from), "r"(stride) : "memory");
}
template <int PLACE> inline void clear() { asm volatile("tilezero %%tmm%c0" ::"i"(PLACE)); }
template <int PLACE> inline void store(void* to) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(PLACE), "r"(to), "r"(static_cast<int64_t>(64)) : "memory");
}
// inputs are signed; weights of 4 bits are not, those of 8 are
template <int BITS, int SUMS, int INPUTS, int WEIGHTS> inline void multiply() {
    if constexpr (BITS == 4) asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(INPUTS), "i"(WEIGHTS));
    else asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(INPUTS), "i"(WEIGHTS));
}

// the whole numbers of 4 bits as bytes, all groups of a tile one after the other
inline void unpack(const uint8_t* tile, int64_t groups, uint8_t* to) {
    const __m512i low = _mm512_set1_epi8(15);
    for (int64_t g = 0; g < groups; g++, tile += tile_bytes(4))
        for (int part = 0; part < 4; part++, to += 128) {
            const __m512i halved = _mm512_loadu_si512(tile + wholes4 + 4 * ROWS * part);
            _mm512_store_si512(to, _mm512_and_si512(halved, low));
            _mm512_store_si512(to + 64, _mm512_and_si512(_mm512_srli_epi16(halved, 4), low));
        }
}

}  // namespace tiles
#endif
