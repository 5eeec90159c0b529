// Weights of 4 or 8 bits as they lie in memory, and inputs rounded to 8 bits, for quantized.cpp.
//
// A weight [N, K] is cut into tiles of 16 rows and groups of 32 columns. A tile of a group holds, for its 16 rows side
// by side, a scale d (and with 4 bits a minimum m) as fp16, then the whole numbers q, four columns of each row at a time:
//   4 bits: w = d q + m, q in 0 .. 15.  16 x d, 16 x m, then 4 x 64 bytes; byte 4 r + c of part p holds row r, column
//           8 p + c in its low half and column 8 p + 4 + c in its high half: 320 bytes, 5 bits a weight.
//   8 bits: w = d q, q in -128 .. 127.  16 x d, then 8 x 64 bytes; byte 4 r + c of part p holds row r, column 4 p + c,
//           or 128 more (RAISED): 544 bytes, 8.5 bits a weight.
// Each group of 32 inputs is rounded to 8 bits with a scale of its own; sums are exact in whole numbers.
//
// A lane is a row of the weight, so nothing is summed across lanes: with AVX-512 a tile is one register wide, with AVX2
// two, taken one after the other.

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <vector>

#include "intrinsics.h"
#include "torch_c.h"

namespace {

constexpr int GROUP = 32, ROWS = 16;
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define WIDE  // 512 bits, and four products of bytes added at once
constexpr int TILES = 2;  // at a time, so that inputs are spread over registers half as often; enough of those for 6 rows
constexpr int64_t BAND = 96;  // rows of inputs that stay in a core's cache while the weight passes by
#else
constexpr int TILES = 1;
constexpr int64_t BAND = 24;
#endif
#if defined(WIDE) && !(defined(__AMX_INT8__) && defined(__linux__))
constexpr uint8_t RAISED = 128;  // the instruction wants unsigned weights; tile registers do not
#else
constexpr uint8_t RAISED = 0;
#endif
constexpr int64_t AHEAD = 5120;  // bytes of a weight that are asked for before their turn

// Rows of a band when there are so many in all: BAND at most, shared out evenly, in whole turns of `unit` rows.
inline int64_t band_of(int64_t rows, int64_t unit = 6) {
    const int64_t bands = (rows + BAND - 1) / BAND, each = (rows + bands - 1) / bands;
    return (each + unit - 1) / unit * unit;
}

constexpr int64_t tile_bytes(int bits) { return bits == 4 ? 320 : 544; }
// from blocks as GGUF files have them: fp16 d (and m), 16 bytes of halves or 32 whole ones
constexpr int64_t block_bytes(int bits) { return bits == 4 ? 20 : 34; }

constexpr int64_t minima = 2 * ROWS, wholes4 = 4 * ROWS, wholes8 = 2 * ROWS;  // where they begin in a tile of a group

struct Inputs {  // of all rows: whole numbers, and of every group a scale, what they sum to, and -128 times their sum
    std::vector<int8_t> whole;
    std::vector<float> scale, sum;
    std::vector<int32_t> base;
};

#if !defined(__AVX2__)

float half(const uint8_t* at) {
    uint16_t bits;
    memcpy(&bits, at, 2);
    const uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * ldexpf(static_cast<float>(fraction), -24);
    const uint32_t word = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

#endif

#if defined(WIDE)

// Sixteen groups at once, equal to the bit to one after the other: nothing is summed across a register but for all of them
// together, and numbers that a group needs once are computed side by side.
namespace rounding {

inline __m512 pairs(__m512 a, __m512 b, __m512 (*both)(__m512, __m512)) {
    return both(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}
inline __m512 quads(__m512 a, __m512 b, __m512 (*both)(__m512, __m512)) {
    const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
    return both(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)), _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
}
inline __m512 blocks(__m512 a, __m512 b, __m512 (*both)(__m512, __m512)) {
    return both(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
inline __m512 larger(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
inline __m512 added(__m512 a, __m512 b) {  // whole numbers
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
// four registers: of each of their quarters the sum (or the largest), those of one quarter side by side
inline __m512 quarters(const __m512* v, __m512 (*both)(__m512, __m512)) {
    return quads(pairs(v[0], v[1], both), pairs(v[2], v[3], both), both);
}

inline void sixteen(Inputs& in, const float* x, int64_t first, int64_t step) {
    __m512 part[16], size[4];
    for (int g = 0; g < 16; g++) {
        const __m512 low = _mm512_abs_ps(_mm512_loadu_ps(x + g * GROUP));
        part[g] = _mm512_max_ps(low, _mm512_abs_ps(_mm512_loadu_ps(x + g * GROUP + 16)));
    }
    for (int i = 0; i < 4; i++) size[i] = quarters(part + 4 * i, larger);
    const __m512 most = blocks(blocks(size[0], size[1], larger), blocks(size[2], size[3], larger), larger);
    const __m512 levels = _mm512_set1_ps(127.0f);
    const __mmask16 some = _mm512_cmp_ps_mask(most, _mm512_setzero_ps(), _CMP_GT_OQ);
    alignas(64) float inverse[16], scales[16], sums[16];
    alignas(64) int32_t bases[16];
    _mm512_store_ps(inverse, _mm512_maskz_div_ps(some, levels, most));
    const __m512 scale = _mm512_div_ps(most, levels);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512 total[8];
    for (int g = 0; g < 16; g += 2) {  // packing works within quarters
        __m512i halves[2];
        for (int i = 0; i < 2; i++) {
            const __m512 by = _mm512_set1_ps(inverse[g + i]);
            const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + (g + i) * GROUP), by));
            const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + (g + i) * GROUP + 16), by));
            halves[i] = _mm512_packs_epi32(low, high);
        }
        const __m512i whole = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(halves[0], halves[1]));
        int8_t* to = in.whole.data() + (first + g * step) * GROUP;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(whole));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + step * GROUP), _mm512_extracti64x4_epi64(whole, 1));
        total[g / 2] = _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), whole));
    }
    const __m512i count = _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15),
        _mm512_castps_si512(blocks(quarters(total, added), quarters(total + 4, added), added)));
    const __m512i base = _mm512_mullo_epi32(count, _mm512_set1_epi32(-128));
    const __m512 sum = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(count));
    if (step == 1) {
        _mm512_storeu_ps(in.scale.data() + first, scale);
        _mm512_storeu_ps(in.sum.data() + first, sum);
        _mm512_storeu_si512(in.base.data() + first, base);
        return;
    }
    _mm512_store_ps(scales, scale);
    _mm512_store_ps(sums, sum);
    _mm512_store_si512(bases, base);
    for (int g = 0; g < 16; g++) {
        const int64_t at = first + g * step;
        in.scale[at] = scales[g], in.sum[at] = sums[g], in.base[at] = bases[g];
    }
}

}  // namespace rounding

#endif

#if defined(__AVX2__)

void round_group(const float* x, int8_t* whole, float* scale, float* sum, int32_t* base) {
    __m256 part[4], largest = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) {
        part[i] = _mm256_loadu_ps(x + 8 * i);
        largest = _mm256_max_ps(largest, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), part[i]));
    }
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    const float most = _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    const __m256 inverse = _mm256_set1_ps(most > 0 ? 127.0f / most : 0.0f);
    __m256i word[4], total = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        word[i] = _mm256_cvtps_epi32(_mm256_mul_ps(part[i], inverse));
        total = _mm256_add_epi32(total, word[i]);
    }
    const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(word[0], word[1]), _mm256_packs_epi32(word[2], word[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing works within halves
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(whole), _mm256_permutevar8x32_epi32(mixed, order));
    const __m128i halves = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    const __m128i pairs = _mm_add_epi32(halves, _mm_shuffle_epi32(halves, 0x4e));
    const int32_t count = _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_shuffle_epi32(pairs, 0xb1)));
    *base = -128 * count;
    *scale = most / 127.0f;
    *sum = *scale * static_cast<float>(count);
}

#else  // any other machine: left to the compiler

void round_group(const float* x, int8_t* whole, float* scale, float* sum, int32_t* base) {
    float largest = 0;
    for (int i = 0; i < GROUP; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    int32_t total = 0;
    for (int i = 0; i < GROUP; i++) {
        const int32_t q = static_cast<int32_t>(nearbyintf(x[i] * inverse));
        whole[i] = static_cast<int8_t>(q);
        total += q;
    }
    *scale = largest / 127.0f;
    *sum = *scale * static_cast<float>(total);
    *base = -128 * total;
}

#endif

inline void round_one(Inputs& in, const float* x, int64_t i) {
    round_group(x, in.whole.data() + i * GROUP, in.scale.data() + i, in.sum.data() + i, in.base.data() + i);
}
// `count` groups that lie one behind the other, the first of which is group `first` of `in`, the next `first + step`, …
inline void round_groups(Inputs& in, const float* x, int64_t count, int64_t first, int64_t step) {
    int64_t g = 0;
#if defined(WIDE)
    for (; g + 16 <= count; g += 16) rounding::sixteen(in, x + g * GROUP, first + g * step, step);
#endif
    for (; g < count; g++) round_one(in, x + g * GROUP, first + g * step);
}

// A product for code that torch has compiled: x [rows, k] and the packed weight [n / 16, k / 32, bytes], both contiguous.
typedef void (*Product)(int bits, const float* x, const uint8_t* weight, float* y, int64_t rows, int64_t k, int64_t n);

AOTITorchError compiled_product(Product product, AtenTensorHandle x, AtenTensorHandle weight, int64_t bits,
                                AtenTensorHandle* y) {
    int64_t rows, k, tiles;
    void *from, *packed, *to;
    TRY(aoti_torch_get_size(x, 0, &rows));
    TRY(aoti_torch_get_size(x, 1, &k));
    TRY(aoti_torch_get_size(weight, 0, &tiles));
    const int64_t sizes[] = {rows, tiles * ROWS}, strides[] = {tiles * ROWS, 1};
    TRY(aoti_torch_empty_strided(2, sizes, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, y));
    TRY(aoti_torch_get_data_ptr(x, &from));
    TRY(aoti_torch_get_data_ptr(weight, &packed));
    TRY(aoti_torch_get_data_ptr(*y, &to));
    product(static_cast<int>(bits), static_cast<const float*>(from), static_cast<const uint8_t*>(packed),
            static_cast<float*>(to), rows, k, tiles * ROWS);
    return SUCCESS;
}

}  // namespace
