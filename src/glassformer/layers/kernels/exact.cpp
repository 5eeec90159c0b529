// Products with weights of 4 or 8 bits and inputs as they are, in fp32, for glassformer/layers/quantized.py: whole numbers
// become fp32 in registers, so only the bits that are stored are read from memory. A group of 32 gives
//   4 bits: d Σ q x + m Σ x,    8 bits: d Σ q x,
// which is Σ w x without rounding w. packed.h says how q, d and m lie there; a lane is a row of the weight, and nothing is
// summed across lanes, so a row of inputs gives the same in any company.

#include "lanes.h"
#include "packed.h"

namespace exact {

using namespace lanes;

constexpr int PARTS = ROWS / LANES;  // registers that hold the rows of a tile
// registers of outputs of so many rows of inputs: enough sums that do not wait for each other, and no more than there is room
constexpr int registers(int rows) { return (rows == 1 ? 4 : rows == 2 ? 2 : 1) * (rows > 1 && LANES == 16 ? 2 : 1); }

typedef int32_t Wholes __attribute__((vector_size(4 * LANES)));

inline Words words(const uint8_t* at) {
    Words value;
    memcpy(&value, at, sizeof value);
    return value;
}
inline Lanes scales(const uint8_t* at) {  // fp16
#if defined(__AVX512F__)
    return (Lanes)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
#elif defined(__AVX2__)
    return (Lanes)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
#else
    Lanes value;
    for (int lane = 0; lane < LANES; lane++) value[lane] = half(at + 2 * lane);
    return value;
#endif
}
inline Lanes numbers(Words whole) { return __builtin_convertvector((Wholes)whole, Lanes); }

// What P registers of outputs read of a group: tiles that are `size` bytes apart, from the register `first` of one of them on.
struct Group {
    const uint8_t* tile;
    int64_t size;
    int first;
    const uint8_t* begin(int p) const { return tile + (first + p) / PARTS * size; }
    int lane(int p) const { return (first + p) % PARTS * LANES; }
    Lanes scale(int p) const { return scales(begin(p) + 2 * lane(p)); }
    Lanes least(int p) const { return scales(begin(p) + minima + 2 * lane(p)); }
    Words whole(int p, int64_t from, int part) const { return words(begin(p) + from + 4 * ROWS * part + 4 * lane(p)); }
};

// The eight numbers of 4 bits in a word are not shifted down but for the last: the first seven stand for q 16^s, and the
// inputs, which `arrange` has put in their order, are divided by the same power of two, which is exact.
inline Words eighth(Words both, int s) { return s < 7 ? both & (15u << 4 * s) : both >> 28; }

// one group of `arranged`, from 32 inputs in the order of columns; returns Σ x
inline float arrange(const float* x, float* arranged) {
    constexpr float down[8] = {1.0f, 0x1p-4f, 0x1p-8f, 0x1p-12f, 0x1p-16f, 0x1p-20f, 0x1p-24f, 1.0f};
    float totals[8] = {};
    for (int part = 0; part < 4; part++)
        for (int s = 0; s < 8; s++) {
            const float value = x[8 * part + s / 2 + s % 2 * 4];  // halves of bytes, from the lowest
            arranged[8 * part + s] = value * down[s];
            totals[s] += value;
        }
    return ((totals[0] + totals[1]) + (totals[2] + totals[3])) + ((totals[4] + totals[5]) + (totals[6] + totals[7]));
}

// Σ q x of a group: P registers of outputs of M rows of inputs
template <int BITS, int P, int M> inline void group_sums(const Group& group, const float* const* x, Lanes* own) {
    constexpr int COLUMNS = BITS == 4 ? 8 : 4;  // in a word
    for (int part = 0; part < GROUP / COLUMNS; part++) {
        Words whole[P];
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            whole[p] = group.whole(p, BITS == 4 ? wholes4 : wholes8, part);
            if (BITS == 8) whole[p] ^= 0x01010101u * RAISED;
        }
#pragma GCC unroll 8
        for (int s = 0; s < COLUMNS; s++) {
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) {
                const Words q = BITS == 4 ? eighth(whole[p], s) : (Words)((Wholes)(whole[p] << (24 - 8 * s)) >> 24);
                const Lanes number = numbers(q);
#pragma GCC unroll 6
                for (int i = 0; i < M; i++) own[p * M + i] += number * x[i][COLUMNS * part + s];
            }
        }
    }
}

struct Inputs {  // rows of them as they are read, and with 4 bits the sum of each group
    const float *x, *total;
    int64_t k;
};

// P registers of outputs of M rows of inputs from `row` on, from the register `first` of a tile on
template <int BITS, int P, int M>
void outputs(const uint8_t* tile, int first, const Inputs& in, int64_t row, float* y, int64_t n) {
    const int64_t groups = in.k / GROUP;
    Group group = {tile, groups * tile_bytes(BITS), first};
    Lanes sums[P * M] = {};
    const float *x[M], *total[M];
    for (int i = 0; i < M; i++) {
        x[i] = in.x + (row + i) * in.k;
        total[i] = in.total + (BITS == 4 ? (row + i) * groups : 0);
    }
    for (int64_t g = 0; g < groups; g++, group.tile += tile_bytes(BITS)) {
        if (first == 0)
            for (int p = 0; p < P; p += PARTS)
                for (int64_t line = 0; line < tile_bytes(BITS); line += 64)
                    __builtin_prefetch(group.begin(p) + AHEAD + line);
        Lanes own[P * M] = {};
        group_sums<BITS, P, M>(group, x, own);
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            const Lanes d = group.scale(p);
#pragma GCC unroll 6
            for (int i = 0; i < M; i++) sums[p * M + i] += own[p * M + i] * d;
            if constexpr (BITS == 4) {
                const Lanes m = group.least(p);
#pragma GCC unroll 6
                for (int i = 0; i < M; i++) sums[p * M + i] += m * total[i][g];
            }
        }
        for (int i = 0; i < M; i++) x[i] += GROUP;
    }
#pragma GCC unroll 12
    for (int i = 0; i < P * M; i++) store(sums[i], y + (row + i % M) * n + (i / M + first) * LANES);
}

// Outputs of M rows: tiles from `tile` up to `end`, as many at a time as there are registers for.
template <int BITS, int M>
void tiles_of(const uint8_t* weight, int64_t tile, int64_t end, const Inputs& in, int64_t row, float* y, int64_t n) {
    constexpr int P = registers(M), T = P / PARTS, Q = P < PARTS ? P : PARTS;
    const int64_t size = in.k / GROUP * tile_bytes(BITS);
    if constexpr (T > 1)
        for (; tile + T <= end; tile += T) outputs<BITS, P, M>(weight + tile * size, 0, in, row, y + tile * ROWS, n);
    for (; tile < end; tile++)
        for (int first = 0; first < PARTS; first += Q)
            outputs<BITS, Q, M>(weight + tile * size, first, in, row, y + tile * ROWS, n);
}

template <int BITS> void product(const Inputs& in, const uint8_t* weight, float* y, int64_t rows, int64_t n) {
    const int64_t count = n / ROWS, size = band_of(rows), bands = (rows + size - 1) / size;
    const int64_t some = rows > 2 ? LANES / 8 : 4;  // tiles, which stay in a core's first cache while rows take turns
#pragma omp for collapse(2) schedule(static) nowait
    for (int64_t band = 0; band < bands; band++)
        for (int64_t tile = 0; tile < count; tile += some) {
            const int64_t last = tile + some < count ? tile + some : count;
            const int64_t end = (band + 1) * size < rows ? (band + 1) * size : rows;
            int64_t row = band * size;
            for (; row + 6 <= end; row += 6) tiles_of<BITS, 6>(weight, tile, last, in, row, y, n);
            for (; row + 4 <= end; row += 4) tiles_of<BITS, 4>(weight, tile, last, in, row, y, n);
            for (; row + 2 <= end; row += 2) tiles_of<BITS, 2>(weight, tile, last, in, row, y, n);
            for (; row < end; row++) tiles_of<BITS, 1>(weight, tile, last, in, row, y, n);
        }
}

}  // namespace exact

extern "C" {

// y [rows, n] = x [rows, k] Wt in fp32, W packed; n is a multiple of 16 and k of 32
void glassformer_exact(int bits, const float* x, const uint8_t* weight, float* y, int64_t rows, int64_t k, int64_t n) {
    if (bits == 8) {
#pragma omp parallel
        exact::product<8>({x, nullptr, k}, weight, y, rows, n);
        return;
    }
    static thread_local std::vector<float> arranged, total;
    arranged.resize(rows * k);
    total.resize(rows * k / GROUP);
    float *to = arranged.data(), *sums = total.data();
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows * k / GROUP; i++) sums[i] = exact::arrange(x + i * GROUP, to + i * GROUP);
        exact::product<4>({to, sums, k}, weight, y, rows, n);
    }
}

AOTITorchError aoti_torch_cpu_exact_linear(AtenTensorHandle x, AtenTensorHandle weight, int64_t bits, AtenTensorHandle* y) {
    return compiled_product(glassformer_exact, x, weight, bits, y);
}
}
