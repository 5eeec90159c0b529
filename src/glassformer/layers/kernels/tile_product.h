// Some tiles of a weight of 4 or 8 bits times some rows of inputs, for quantized.cpp and post_norm.cpp. packed.h says how
// weights and inputs lie in memory.

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#include "lanes.h"
#include "packed.h"
#include "tiles.h"

namespace {

// What becomes of outputs once they are there, while they are still in a core's first cache.
struct Finish {
    const float* bias;  // or null: nothing becomes of them
    bool gelu;

    // `columns` outputs, a multiple of ROWS, of `rows` rows of n, the first of which is output `first`
    __attribute__((noinline)) void operator()(float* y, int64_t rows, int64_t columns, int64_t n, int64_t first) const {
        if (bias == nullptr) return;
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < columns; i += lanes::LANES) {
                const lanes::Lanes value = lanes::wide(y + row * n + i) + lanes::wide(bias + first + i);
                lanes::store(gelu ? lanes::gelu(value) : value, y + row * n + i);
            }
    }
};

#if defined(__AVX2__)

#if defined(WIDE)

inline __m512 halves(const uint8_t* at) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))); }
inline __m512i bytes(const uint8_t* at) { return _mm512_loadu_si512(at); }
inline __m512i four(const int8_t* at) {  // four columns, for each of the 16 rows
    int32_t columns;
    memcpy(&columns, at, 4);
    return _mm512_set1_epi32(columns);
}

// dots of M rows of inputs with the 16 rows of T tiles that stand `apart` bytes, for one group
template <int T, int M> inline void dots4(const uint8_t* tile, int64_t apart, const int8_t* const* x, __m512i (*dots)[M]) {
    const __m512i low = _mm512_set1_epi8(15);
    for (int t = 0; t < T; t++)
        for (int i = 0; i < M; i++) dots[t][i] = _mm512_setzero_si512();
    for (int part = 0; part < 4; part++) {
        __m512i first[T], second[T];
        for (int t = 0; t < T; t++) {
            const __m512i halved = bytes(tile + t * apart + wholes4 + 4 * ROWS * part);
            first[t] = _mm512_and_si512(halved, low);
            second[t] = _mm512_and_si512(_mm512_srli_epi16(halved, 4), low);
        }
        for (int i = 0; i < M; i++) {
            const __m512i a = four(x[i] + 8 * part), b = four(x[i] + 8 * part + 4);
            for (int t = 0; t < T; t++) dots[t][i] = _mm512_dpbusd_epi32(dots[t][i], first[t], a);
            for (int t = 0; t < T; t++) dots[t][i] = _mm512_dpbusd_epi32(dots[t][i], second[t], b);
        }
    }
}

// weights are 128 more than they are, which is taken off again as 128 times the sum of the inputs
template <int T, int M>
inline void dots8(const uint8_t* tile, int64_t apart, const int8_t* const* x, const int32_t* const* base, __m512i (*dots)[M]) {
    for (int i = 0; i < M; i++)
        for (int t = 0; t < T; t++) dots[t][i] = _mm512_set1_epi32(*base[i]);
    for (int part = 0; part < 8; part++) {
        __m512i whole[T];
        for (int t = 0; t < T; t++) {
            whole[t] = bytes(tile + t * apart + wholes8 + 4 * ROWS * part);
            if constexpr (RAISED == 0) whole[t] = _mm512_xor_si512(whole[t], _mm512_set1_epi8(-128));
        }
        for (int i = 0; i < M; i++) {
            const __m512i a = four(x[i] + 4 * part);
            for (int t = 0; t < T; t++) dots[t][i] = _mm512_dpbusd_epi32(dots[t][i], whole[t], a);
        }
    }
}

// 16 outputs for each of T tiles, of M rows of inputs
template <int BITS, int T, int M>
void tile_product(const uint8_t* tile, const Inputs& in, int64_t row, int64_t groups, float* y, int64_t stride) {
    const int64_t apart = groups * tile_bytes(BITS);
    __m512 sums[T][M];
    const int8_t* x[M];
    const int32_t* base[M];
    const float *scale[M], *sum[M];
    for (int i = 0; i < M; i++) {
        const int64_t at = (row + i) * groups;
        for (int t = 0; t < T; t++) sums[t][i] = _mm512_setzero_ps();
        x[i] = in.whole.data() + at * GROUP;
        base[i] = in.base.data() + at, scale[i] = in.scale.data() + at, sum[i] = in.sum.data() + at;
    }
    for (int64_t g = 0; g < groups; g++, tile += tile_bytes(BITS)) {
        if (row == 0)  // weights come from memory; for later rows, from a cache
            for (int64_t line = 0; line < tile_bytes(BITS); line += 64)
                _mm_prefetch(reinterpret_cast<const char*>(tile + AHEAD + line), _MM_HINT_T0);
        __m512i dots[T][M];
        if constexpr (BITS == 4) dots4<T, M>(tile, apart, x, dots);
        else dots8<T, M>(tile, apart, x, base, dots);
        for (int t = 0; t < T; t++) {
            const __m512 d = halves(tile + t * apart);
            for (int i = 0; i < M; i++) {
                const __m512 scaled = _mm512_mul_ps(d, _mm512_set1_ps(scale[i][g]));
                sums[t][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t][i]), scaled, sums[t][i]);
            }
            if constexpr (BITS == 4) {
                const __m512 m = halves(tile + t * apart + minima);
                for (int i = 0; i < M; i++) sums[t][i] = _mm512_fmadd_ps(m, _mm512_set1_ps(sum[i][g]), sums[t][i]);
            }
        }
        for (int i = 0; i < M; i++) x[i] += GROUP, base[i]++;
    }
    for (int i = 0; i < M; i++)
        for (int t = 0; t < T; t++) _mm512_storeu_ps(y + i * stride + t * ROWS, sums[t][i]);
}

#if defined(TILED)

// the sums of a group for 16 rows of inputs, on their way from a register to `dots`
template <int BITS, int PLACE> inline void tile_dots(const uint8_t* whole, const int8_t* x, int64_t k, int32_t* dots) {
    tiles::clear<PLACE>();
    tiles::load<2 + PLACE>(x, k);
    tiles::load<4 + PLACE>(whole, 64);
    tiles::multiply<BITS, PLACE, 2 + PLACE, 4 + PLACE>();
    tiles::store<PLACE>(dots);
}

// 16 outputs of `real` rows of inputs, M or fewer; `whole` has the numbers of each group, `step` bytes apart
template <int BITS, int M>
void tiled_rows(const uint8_t* tile, const uint8_t* whole, int64_t step, const Inputs& in, int64_t row, int64_t real,
                int64_t groups, float* y, int64_t stride, bool first) {
    alignas(64) int32_t dots[2][ROWS * ROWS];
    __m512 sums[M];
    for (int i = 0; i < M; i++) sums[i] = _mm512_setzero_ps();
    const int8_t* x = in.whole.data() + row * groups * GROUP;
    const float *scale = in.scale.data() + row * groups, *sum = in.sum.data() + row * groups;
    tile_dots<BITS, 0>(whole, x, groups * GROUP, dots[0]);
    for (int64_t g = 0; g < groups; g++, tile += tile_bytes(BITS)) {
        if (first)  // the next tile comes from memory meanwhile
            for (int64_t line = 0; line < tile_bytes(BITS); line += 64)
                _mm_prefetch(reinterpret_cast<const char*>(tile + groups * tile_bytes(BITS) + line), _MM_HINT_T0);
        if (g + 1 < groups) {  // the next is multiplied while this one is scaled
            const uint8_t* next = whole + (g + 1) * step;
            if (g % 2) tile_dots<BITS, 0>(next, x + (g + 1) * GROUP, groups * GROUP, dots[0]);
            else tile_dots<BITS, 1>(next, x + (g + 1) * GROUP, groups * GROUP, dots[1]);
        }
        const __m512 d = halves(tile);
        for (int i = 0; i < M; i++) {
            const __m512 scaled = _mm512_mul_ps(d, _mm512_set1_ps(scale[i * groups + g]));
            const __m512i dot = _mm512_load_si512(dots[g % 2] + ROWS * i);
            sums[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scaled, sums[i]);
        }
        if constexpr (BITS == 4) {
            const __m512 m = halves(tile + minima);
            for (int i = 0; i < M; i++) sums[i] = _mm512_fmadd_ps(m, _mm512_set1_ps(sum[i * groups + g]), sums[i]);
        }
    }
    for (int i = 0; i < M; i++)
        if (i < real) _mm512_storeu_ps(y + i * stride, sums[i]);
}

// the rows from `row` on, but for a few that are better off without; returns the first of those
template <int BITS>
int64_t tiled(const uint8_t* tile, const Inputs& in, int64_t row, int64_t end, int64_t groups, float* y, int64_t n,
              int64_t output, const Finish& finish) {
    static thread_local std::vector<uint8_t> room;
    const uint8_t* whole = tile + wholes8;
    int64_t step = tile_bytes(BITS);
    if constexpr (BITS == 4) {
        step = 8 * 64;
        room.resize(groups * step + 64);
        uint8_t* unpacked = room.data() + (64 - reinterpret_cast<uintptr_t>(room.data()) % 64) % 64;
        tiles::unpack(tile, groups, unpacked);
        whole = unpacked;
    }
    const int64_t from = row;
    for (; end - row >= tiles::LEAST; row = row + ROWS < end ? row + ROWS : end) {
        tiled_rows<BITS, ROWS>(tile, whole, step, in, row, end - row, groups, y + row * n, n, row == from);
        finish(y + row * n, end - row < ROWS ? end - row : ROWS, ROWS, n, output);
    }
    return row;
}

#endif

#else

inline __m256 halves(const uint8_t* at) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))); }
inline __m256i bytes(const uint8_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }
inline __m256i four(const int8_t* at) {  // four columns, for each of 8 rows
    return _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float*>(at)));
}
inline void in_order(__m256i& sum) { asm("" : "+x"(sum)); }  // else the compiler gathers products first, and spills them
inline __m256i pairs_of(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

// dots of M rows of inputs with 8 rows of a tile, for one group
template <int M> inline void dots4(const uint8_t* wholes, const int8_t* const* x, __m256i* dots) {
    const __m256i low = _mm256_set1_epi8(15);
    for (int i = 0; i < M; i++) dots[i] = _mm256_setzero_si256();
    for (int part = 0; part < 4; part++) {
        const __m256i halved = bytes(wholes + 4 * ROWS * part);
        const __m256i first = _mm256_and_si256(halved, low), second = _mm256_and_si256(_mm256_srli_epi16(halved, 4), low);
        for (int i = 0; i < M; i++) {
            const __m256i a = four(x[i] + 8 * part), b = four(x[i] + 8 * part + 4);
            // 16 bits are enough for the sum of a group: 16 x 15 x 127 < 2^15
            __m256i both = _mm256_add_epi16(_mm256_maddubs_epi16(first, a), _mm256_maddubs_epi16(second, b));
            in_order(both);
            dots[i] = _mm256_add_epi16(dots[i], both);
            in_order(dots[i]);
        }
    }
    for (int i = 0; i < M; i++) dots[i] = pairs_of(dots[i]);
}

template <int M> inline void dots8(const uint8_t* wholes, const int8_t* const* x, __m256i* dots) {
    for (int i = 0; i < M; i++) dots[i] = _mm256_setzero_si256();
    for (int part = 0; part < 8; part++) {
        const __m256i whole = bytes(wholes + 4 * ROWS * part), size = _mm256_abs_epi8(whole);
        for (int i = 0; i < M; i++) {
            const __m256i turned = _mm256_sign_epi8(four(x[i] + 4 * part), whole);
            dots[i] = _mm256_add_epi32(dots[i], pairs_of(_mm256_maddubs_epi16(size, turned)));
            in_order(dots[i]);
        }
    }
}

// 16 outputs of one row of inputs, all at once, so that the weight is asked for as evenly as it can come
#define ONE_AT_ONCE
template <int BITS> void tile_product_of_one(const uint8_t* tile, const Inputs& in, int64_t groups, float* y) {
    const int8_t* x = in.whole.data();
    const float *scale = in.scale.data(), *sum = in.sum.data();
    __m256 sums[2] = {};
    for (int64_t g = 0; g < groups; g++, tile += tile_bytes(BITS), x += GROUP) {
        for (int64_t line = 0; line < tile_bytes(BITS); line += 64)
            _mm_prefetch(reinterpret_cast<const char*>(tile + AHEAD + line), _MM_HINT_T0);
        const __m256 scaled = _mm256_broadcast_ss(scale + g);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            __m256i dots[1];
            if constexpr (BITS == 4) dots4<1>(tile + wholes4 + 32 * half, &x, dots);
            else dots8<1>(tile + wholes8 + 32 * half, &x, dots);
            const __m256 d = _mm256_mul_ps(halves(tile + 16 * half), scaled);
            sums[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[0]), d, sums[half]);
            if constexpr (BITS == 4)
                sums[half] = _mm256_fmadd_ps(halves(tile + minima + 16 * half), _mm256_broadcast_ss(sum + g), sums[half]);
        }
    }
    for (int half = 0; half < 2; half++) _mm256_storeu_ps(y + 8 * half, sums[half]);
}

// 16 outputs of M rows of inputs, 8 and then 8
template <int BITS, int T, int M>
void tile_product(const uint8_t* whole_tile, const Inputs& in, int64_t row, int64_t groups, float* y, int64_t stride) {
    for (int half = 0; half < 2; half++) {
        const uint8_t* tile = whole_tile;
        __m256 sums[M];
        const int8_t* x[M];
        for (int i = 0; i < M; i++) {
            sums[i] = _mm256_setzero_ps();
            x[i] = in.whole.data() + (row + i) * groups * GROUP;
        }
        const float *scale = in.scale.data() + row * groups, *sum = in.sum.data() + row * groups;
        for (int64_t g = 0; g < groups; g++, tile += tile_bytes(BITS)) {
            if (half == 0)
                for (int64_t line = 0; line < tile_bytes(BITS); line += 64)
                    _mm_prefetch(reinterpret_cast<const char*>(tile + AHEAD + line), _MM_HINT_T0);
            __m256i dots[M];
            if constexpr (BITS == 4) dots4<M>(tile + wholes4 + 32 * half, x, dots);
            else dots8<M>(tile + wholes8 + 32 * half, x, dots);
            const __m256 d = halves(tile + 16 * half);
            for (int i = 0; i < M; i++) {
                const __m256 scaled = _mm256_mul_ps(d, _mm256_broadcast_ss(scale + i * groups + g));
                sums[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[i]), scaled, sums[i]);
            }
            if constexpr (BITS == 4) {
                const __m256 m = halves(tile + minima + 16 * half);
                for (int i = 0; i < M; i++)
                    sums[i] = _mm256_fmadd_ps(m, _mm256_broadcast_ss(sum + i * groups + g), sums[i]);
            }
            for (int i = 0; i < M; i++) x[i] += GROUP;
        }
        for (int i = 0; i < M; i++) _mm256_storeu_ps(y + i * stride + 8 * half, sums[i]);
    }
}

#endif

#else  // any other machine: the same sums, left to the compiler

template <int BITS, int T, int M>
void tile_product(const uint8_t* weight, const Inputs& in, int64_t row, int64_t groups, float* y, int64_t stride) {
    for (int i = 0; i < M; i++) {
        float sums[ROWS] = {};
        const uint8_t* tile = weight;
        for (int64_t g = 0; g < groups; g++, tile += tile_bytes(BITS)) {
            const int64_t at = (row + i) * groups + g;
            const int8_t* x = in.whole.data() + at * GROUP;
            for (int r = 0; r < ROWS; r++) {
                int32_t dot = 0;
                for (int k = 0; k < GROUP; k++) {
                    if (BITS == 4) {
                        const uint8_t both = tile[wholes4 + 4 * ROWS * (k / 8) + 4 * r + k % 4];
                        dot += static_cast<int32_t>(k % 8 < 4 ? both & 15 : both >> 4) * x[k];
                    } else {
                        const uint8_t whole = tile[wholes8 + 4 * ROWS * (k / 4) + 4 * r + k % 4];
                        dot += static_cast<int8_t>(whole) * static_cast<int32_t>(x[k]);
                    }
                }
                sums[r] += half(tile + 2 * r) * in.scale[at] * static_cast<float>(dot);
                if (BITS == 4) sums[r] += half(tile + minima + 2 * r) * in.sum[at];
            }
        }
        memcpy(y + i * stride, sums, sizeof sums);
    }
}

#endif

template <int BITS, int T, int M>
int64_t rows_of(const uint8_t* tile, const Inputs& in, int64_t row, int64_t end, int64_t groups, float* y, int64_t n,
                int64_t output, const Finish& finish) {
    for (; row + M <= end; row += M) {
        tile_product<BITS, T, M>(tile, in, row, groups, y + row * n, n);
        finish(y + row * n, M, T * ROWS, n, output);
    }
    return row;
}

template <int BITS, int T>
void tile_rows(const uint8_t* tile, const Inputs& in, int64_t row, int64_t end, int64_t groups, float* y, int64_t n,
               int64_t output, const Finish& finish) {
    if constexpr (T == TILES) {  // what is left of tiles is little: no code is compiled for it
        row = rows_of<BITS, T, 6>(tile, in, row, end, groups, y, n, output, finish);
        row = rows_of<BITS, T, 4>(tile, in, row, end, groups, y, n, output, finish);
    }
    row = rows_of<BITS, T, 2>(tile, in, row, end, groups, y, n, output, finish);
    rows_of<BITS, T, 1>(tile, in, row, end, groups, y, n, output, finish);
}

// TILES tiles from `tile` on, or what is left of `count`, times the rows of inputs from `from` up to `end`. The first of
// these outputs of row 0 belongs at `y`, and rows stand n apart. `by_tiles`: the thread has taken the tile registers.
template <int BITS>
void some_tiles(const uint8_t* weight, int64_t tile, int64_t count, const Inputs& in, int64_t from, int64_t end,
                int64_t groups, float* y, int64_t n, const Finish& finish, bool by_tiles) {
    const int64_t size = groups * tile_bytes(BITS);
    const uint8_t* at = weight + tile * size;
    int64_t row = from;
#if defined(TILED)
    if (by_tiles)
        for (int t = 0; t < TILES && tile + t < count; t++)
            row = tiled<BITS>(at + t * size, in, from, end, groups, y + t * ROWS, n, (tile + t) * ROWS, finish);
#endif
    if (end - row > 1 && tile + TILES <= count)
        return tile_rows<BITS, TILES>(at, in, row, end, groups, y, n, tile * ROWS, finish);
    for (int t = 0; t < TILES && tile + t < count; t++)
        tile_rows<BITS, 1>(at + t * size, in, row, end, groups, y + t * ROWS, n, (tile + t) * ROWS, finish);
}

// Whether so many rows are multiplied by tile registers, which each thread then takes and gives back, and how many of
// them are a turn.
#if defined(TILED)
inline bool take_tiles(int64_t rows) {
    const bool by_tiles = rows >= tiles::LEAST && tiles::allowed();
    if (by_tiles) tiles::take();
    return by_tiles;
}
inline void give_tiles_back(bool by_tiles) {
    if (by_tiles) tiles::give_back();
}
#else
inline bool take_tiles(int64_t) { return false; }
inline void give_tiles_back(bool) {}
#endif
constexpr int64_t turn(bool by_tiles) { return by_tiles ? ROWS : 6; }

inline void make_room(Inputs& in, int64_t rows, int64_t k) {
    const int64_t room = (rows + ROWS - 1) / ROWS * ROWS;  // tile registers read whole ones; what is too much is not kept
    in.whole.resize(room * k);
    in.scale.resize(room * k / GROUP);
    in.sum.resize(room * k / GROUP);
    in.base.resize(rows * k / GROUP);
}

}  // namespace
