// Weights of 4 or 8 bits as they lie in memory, and inputs rounded to 8 bits, for quantized.cpp.
//
// A weight [N, K] is cut into tiles of 16 rows and groups of 32 columns. A tile of a group holds, for its 16 rows side
// by side, a scale d (and with 4 bits a minimum m) as fp16, then the whole numbers q, four columns of each row at a time:
//   4 bits: w = d q + m, q in 0 .. 15.  16 x d, 16 x m, then 4 x 64 bytes; byte 4 r + c of part p holds row r, column
//           8 p + c in its low half and column 8 p + 4 + c in its high half: 320 bytes, 5 bits a weight.
//   8 bits: w = d q, q in -128 .. 127.  16 x d, then 8 x 64 bytes; byte 4 r + c of part p holds row r, column 4 p + c:
//           544 bytes, 8.5 bits a weight.
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
