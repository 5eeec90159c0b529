// Products with weights of 4 or 8 bits, for glassformer/layers/quantized.py, which compiles this file and says what it
// is called with. Plain C++: the compiler is asked for the machine's own instructions.

#include <stdint.h>
#include <string.h>
#include "tile_product.h"

namespace {

#if !defined(ONE_AT_ONCE)
template <int BITS> void tile_product_of_one(const uint8_t* tile, const Inputs& in, int64_t groups, float* y) {
    tile_product<BITS, 1, 1>(tile, in, 0, groups, y, ROWS);
}
#endif

// one row, which each thread has rounded for itself: nobody waits for others but at the end
template <int BITS>
void product_of_one(const Inputs& in, const uint8_t* weight, float* y, int64_t groups, int64_t n, const Finish& finish) {
#pragma omp for schedule(static) nowait
    for (int64_t tile = 0; tile < n / ROWS; tile++) {
        tile_product_of_one<BITS>(weight + tile * groups * tile_bytes(BITS), in, groups, y + tile * ROWS);
        finish(y + tile * ROWS, 1, ROWS, n, tile * ROWS);
    }
}

template <int BITS>
void product(const Inputs& in, const uint8_t* weight, float* y, int64_t rows, int64_t groups, int64_t n,
             const Finish& finish) {
    const bool by_tiles = take_tiles(rows);
    const int64_t size = band_of(rows, turn(by_tiles)), count = n / ROWS, bands = (rows + size - 1) / size;
    const auto some = [&](int64_t band, int64_t tile) {
        const int64_t from = band * size, end = from + size < rows ? from + size : rows;
        some_tiles<BITS>(weight, tile, count, in, from, end, groups, y + tile * ROWS, n, finish, by_tiles);
    };
    if (bands == 1) {
#pragma omp for schedule(static)
        for (int64_t tile = 0; tile < count; tile += TILES) some(0, tile);
    } else {
#pragma omp for collapse(2) schedule(dynamic, 4)  // a core may be slower than another
        for (int64_t band = 0; band < bands; band++)
            for (int64_t tile = 0; tile < count; tile += TILES) some(band, tile);
    }
    give_tiles_back(by_tiles);
}

}  // namespace

extern "C" {

// y [rows, n] = x [rows, k] Wt + bias, where there is one, and GELU of that where it is wanted; n is a multiple of 16
// and k of 32
void glassformer_product(int bits, const float* x, const uint8_t* weight, float* y, int64_t rows, int64_t k, int64_t n,
                         const float* bias, int gelu) {
    static thread_local Inputs inputs;
    const Finish finish = {bias, gelu != 0};
    const int64_t groups = k / GROUP;
    if (rows == 1) {
#pragma omp parallel
        {
            make_room(inputs, 1, k);
            round_groups(inputs, x, groups, 0, 1);
            if (bits == 4) product_of_one<4>(inputs, weight, y, groups, n, finish);
            else product_of_one<8>(inputs, weight, y, groups, n, finish);
        }
        return;
    }
    make_room(inputs, rows, k);
    Inputs& in = inputs;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) round_groups(in, x + row * k, groups, row * groups, 1);
        if (bits == 4) product<4>(in, weight, y, rows, groups, n, finish);
        else product<8>(in, weight, y, rows, groups, n, finish);
    }
}

// blocks [n, k / 32, 20 or 34 bytes] as GGUF's Q4_1 and Q8_0, to the tiles described above
void glassformer_pack(int bits, const uint8_t* blocks, uint8_t* packed, int64_t k, int64_t n) {
    const int64_t groups = k / GROUP, from = block_bytes(bits), to = tile_bytes(bits);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < n; row++) {
        const int64_t r = row % ROWS;
        for (int64_t g = 0; g < groups; g++) {
            const uint8_t* block = blocks + (row * groups + g) * from;
            uint8_t* tile = packed + (row / ROWS * groups + g) * to;
            memcpy(tile + 2 * r, block, 2);
            if (bits == 8) {
                for (int k = 0; k < GROUP; k++) tile[wholes8 + 4 * ROWS * (k / 4) + 4 * r + k % 4] = block[2 + k] ^ RAISED;
                continue;
            }
            memcpy(tile + minima + 2 * r, block + 2, 2);
            const uint8_t* q = block + 4;  // low halves are columns 0 .. 15, high ones 16 .. 31
            for (int part = 0; part < 4; part++)
                for (int c = 0; c < 4; c++) {
                    const int first = 8 * part + c, second = first + 4;
                    const uint8_t low = first < 16 ? q[first] & 15 : q[first - 16] >> 4;
                    const uint8_t high = second < 16 ? q[second] & 15 : q[second - 16] >> 4;
                    tile[wholes4 + 4 * ROWS * part + 4 * r + c] = static_cast<uint8_t>(low | high << 4);
                }
        }
    }
}

AOTITorchError aoti_torch_cpu_quantized_linear(AtenTensorHandle x, AtenTensorHandle weight, int64_t bits, AtenTensorHandle* y) {
    const Product plain = [](int bits, const float* x, const uint8_t* weight, float* y, int64_t rows, int64_t k, int64_t n) {
        glassformer_product(bits, x, weight, y, rows, k, n, nullptr, 0);
    };
    return compiled_product(plain, x, weight, bits, y);
}
}
