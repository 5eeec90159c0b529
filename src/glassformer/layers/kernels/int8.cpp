// Products of 8-bit numbers, for glassformer/layers/int8.py: a whole one of our own, and what stands before and behind
// oneDNN's, each in one visit.
//
// Ours has the weight [N, K] in tiles of 16 rows: for four columns after the other, these four of each row. Rows and
// columns that are missing from the last ones are 0. A lane is a row of the weight, so nothing is summed across lanes.
// It is meant for AVX2, where two products of bytes must fit into 16 bits; elsewhere the compiler does what it can.

#include <algorithm>
#include <string.h>
#include <vector>

#include "intrinsics.h"
#include "lanes.h"

namespace int8 {

using namespace lanes;

constexpr int64_t SMALL = 1 << 15;  // numbers that are not worth a second thread
constexpr int64_t SMALL_PRODUCT = 1 << 17;  // products that are not
constexpr int ROWS = 16, COLUMNS = 4;
constexpr int64_t BAND = 96;  // rows of inputs that stay in a core's cache while the weight passes by

inline int64_t rounded_up(int64_t number, int64_t unit) { return (number + unit - 1) / unit * unit; }

inline Lanes magnitude(Lanes x) {
    const Lanes zero = {};
    return larger(x, zero - x);
}

// x / largest · levels + zero in whole numbers, and the largest magnitude (at least 1e-30). A row with something that
// is no number, or not finite, has NaN as its largest, and so all that is made of it.
inline void round_row(const float* from, uint8_t* to, float* largest, int64_t k, float levels, float zero) {
    Lanes most = {}, odd = {};  // x - x is 0, or NaN where x is not finite
    int64_t i = 0;
    for (; i + LANES <= k; i += LANES) {
        const Lanes x = wide(from + i);
        most = larger(most, magnitude(x));
        odd += x - x;
    }
    float top = std::max(lanes::largest(most), 1e-30f), rest = 0;
    for (; i < k; i++) {
        top = std::max(top, fabsf(from[i]));
        rest += from[i] - from[i];
    }
    top += sum(odd) + rest;
    *largest = top;
    if (top != top) {
        std::fill(to, to + k, 0);
        return;
    }
    const float factor = levels / top;
    for (i = 0; i < k; i++) to[i] = static_cast<uint8_t>(static_cast<int32_t>(from[i] * factor + (zero + 0.5f)));
}

struct Weight {
    const int8_t* tiles;
    const float *scale, *offset, *bias;
    int64_t k, n;  // k: rounded up
};

#if defined(__AVX2__)

inline __m256i pairs_of(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
inline void in_order(__m256i& sum) { asm("" : "+x"(sum)); }  // else the compiler gathers products first, and spills them

// dots of M rows of inputs with a tile; all arrays in registers, which loops that are not unrolled would prevent
template <int M> inline void dots(const uint8_t* x, const int8_t* tile, int64_t k, int32_t (*found)[ROWS]) {
    __m256i left[M], right[M];
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) left[i] = right[i] = _mm256_setzero_si256();
    for (int64_t column = 0; column < k; column += COLUMNS, tile += COLUMNS * ROWS) {
        const __m256i* weights = reinterpret_cast<const __m256i*>(tile);
        _mm_prefetch(reinterpret_cast<const char*>(tile + 2048), _MM_HINT_T0);
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) {
            const float* four = reinterpret_cast<const float*>(x + i * k + column);
            const __m256i a = _mm256_castps_si256(_mm256_broadcast_ss(four));
            left[i] = _mm256_add_epi32(left[i], pairs_of(_mm256_maddubs_epi16(a, _mm256_load_si256(weights))));
            right[i] = _mm256_add_epi32(right[i], pairs_of(_mm256_maddubs_epi16(a, _mm256_load_si256(weights + 1))));
            in_order(left[i]);
            in_order(right[i]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(found[i]), left[i]);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(found[i] + 8), right[i]);
    }
}

#else  // any other machine: the same sums, left to the compiler

template <int M> inline void dots(const uint8_t* x, const int8_t* tile, int64_t k, int32_t (*found)[ROWS]) {
    for (int i = 0; i < M; i++) {
        std::fill(found[i], found[i] + ROWS, 0);
        for (int64_t column = 0; column < k; column += COLUMNS)
            for (int r = 0; r < ROWS; r++)
                for (int c = 0; c < COLUMNS; c++)
                    found[i][r] += x[i * k + column + c] * static_cast<int32_t>(tile[ROWS * column + COLUMNS * r + c]);
    }
}

#endif

// 16 outputs, from `output` on, of M rows of inputs
template <int M>
void tile_product(const uint8_t* x, const float* largest, const Weight& weight, int64_t output, float* y) {
    int32_t found[M][ROWS];
    dots<M>(x, weight.tiles + output * weight.k, weight.k, found);
    const int64_t there = std::min<int64_t>(ROWS, weight.n - output);
    for (int i = 0; i < M; i++) {
        float values[ROWS];
        for (int r = 0; r < ROWS; r++) {
            const float whole = found[i][r] * weight.scale[output + r] + weight.offset[output + r];
            values[r] = whole * largest[i] + weight.bias[output + r];
        }
        if (there == ROWS) memcpy(y + i * weight.n + output, values, sizeof values);
        else memcpy(y + i * weight.n + output, values, there * sizeof(float));
    }
}

template <int M>
int64_t rows_of(int64_t row, int64_t end, const uint8_t* x, const float* largest, const Weight& weight, int64_t output,
                float* y) {
    for (; row + M <= end; row += M)
        tile_product<M>(x + row * weight.k, largest + row, weight, output, y + row * weight.n);
    return row;
}

}  // namespace int8

extern "C" {

// Whether our product is the quicker one, as it is with AVX2 alone: nothing else was measured.
int glassformer_int8_is_quick() {
#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(__AVXVNNI__)
    return 1;
#else
    return 0;
#endif
}

// whole [n, k] to tiles [n / 16, k / 4, 16, 4], both rounded up
void glassformer_int8_pack(const int8_t* whole, int8_t* tiles, int64_t k, int64_t n) {
    using namespace int8;
    const int64_t columns = rounded_up(k, COLUMNS);
    std::fill(tiles, tiles + rounded_up(n, ROWS) * columns, 0);
    for (int64_t row = 0; row < n; row++)
        for (int64_t i = 0; i < k; i++)
            tiles[row / ROWS * ROWS * columns + i / COLUMNS * COLUMNS * ROWS + row % ROWS * COLUMNS + i % COLUMNS] =
                whole[row * k + i];
}

// y [rows, n] = (dots · scale + offset) · largest + bias for x [rows, k], which is rounded as below; `vectors` are
// scale, offset and bias, each as long as all tiles.
void glassformer_int8_product(const float* x, const int8_t* tiles, const float* vectors, float* y, int64_t rows,
                              int64_t k, int64_t n, float levels, float zero) {
    using namespace int8;
    static thread_local std::vector<uint8_t> whole_room;
    static thread_local std::vector<float> largest_room;
    const int64_t room = rounded_up(n, ROWS);
    const Weight weight{tiles, vectors, vectors + room, vectors + 2 * room, rounded_up(k, COLUMNS), n};
    whole_room.resize(rows * weight.k);
    largest_room.resize(rows);
    uint8_t* whole = whole_room.data();
    float* largest = largest_room.data();
    const int64_t bands = (rows + BAND - 1) / BAND;
#pragma omp parallel if (rows * k * n > SMALL_PRODUCT)
    {
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++)
            round_row(x + row * k, whole + row * weight.k, largest + row, k, levels, zero);
#pragma omp for collapse(2) schedule(static)
        for (int64_t band = 0; band < bands; band++)
            for (int64_t output = 0; output < n; output += ROWS) {
                const int64_t end = std::min(rows, (band + 1) * BAND);
                int64_t row = rows_of<6>(band * BAND, end, whole, largest, weight, output, y);
                row = rows_of<4>(row, end, whole, largest, weight, output, y);
                row = rows_of<2>(row, end, whole, largest, weight, output, y);
                rows_of<1>(row, end, whole, largest, weight, output, y);
            }
    }
}

// Each row of x [rows, k]: its largest magnitude, and itself in whole numbers.
void glassformer_round_rows(const float* x, uint8_t* whole, float* largest, int64_t rows, int64_t k, float levels,
                            float zero) {
#pragma omp parallel for schedule(static) if (rows * k > int8::SMALL)
    for (int64_t row = 0; row < rows; row++)
        int8::round_row(x + row * k, whole + row * k, largest + row, k, levels, zero);
}

// y [rows, n] · largest [rows] + bias [n] (or null: none), in place.
void glassformer_scale_rows(float* y, const float* largest, const float* bias, int64_t rows, int64_t n) {
#pragma omp parallel for schedule(static) if (rows * n > int8::SMALL)
    for (int64_t row = 0; row < rows; row++) {
        float* at = y + row * n;
        const float factor = largest[row];
        if (bias)
            for (int64_t i = 0; i < n; i++) at[i] = at[i] * factor + bias[i];
        else
            for (int64_t i = 0; i < n; i++) at[i] *= factor;
    }
}
}
