// All of a post-norm block that follows attention, with weights of 4 or 8 bits:
//   h = LayerNorm(x + mixed Woᵀ + bo),    y = LayerNorm(h + GELU(h Wuᵀ + bu) Wdᵀ + bd).
// None of it looks at other rows, so a thread takes a band of rows from the beginning to the end: what lies between the
// products stays in its own cache, the hidden units even as bytes, and threads wait for each other once.

#include <math.h>
#include <stdint.h>
#include "tile_product.h"

namespace {
namespace post_norm {

struct Dense {
    int64_t bits;
    const uint8_t* weight;
    const float* bias;
    int64_t groups, n;  // its inputs, and its outputs, a multiple of 32

    // TILES tiles from `tile` on times `rows` rows, to `y`, where these stand `apart`
    void operator()(const Inputs& in, int64_t rows, int64_t tile, float* y, int64_t apart, bool gelu, bool by_tiles) const {
        const Finish finish = {bias, gelu};
        const auto product = bits == 4 ? some_tiles<4> : some_tiles<8>;
        product(weight, tile, n / ROWS, in, 0, rows, groups, y, apart, finish, by_tiles);
    }
};

struct Norm {
    const float *weight, *bias;
    float eps;

    // y becomes the norm of x + y
    void operator()(const float* x, float* y, int64_t n) const {
        lanes::Lanes total = {}, squares = {};
        for (int64_t i = 0; i < n; i += lanes::LANES) {
            const lanes::Lanes both = lanes::wide(x + i) + lanes::wide(y + i);
            lanes::store(both, y + i);
            total += both;
        }
        const float mean = lanes::sum(total) / static_cast<float>(n);
        for (int64_t i = 0; i < n; i += lanes::LANES) {
            const lanes::Lanes apart = lanes::wide(y + i) - mean;
            squares += apart * apart;
        }
        const float scale = 1.0f / sqrtf(lanes::sum(squares) / static_cast<float>(n) + eps);
        for (int64_t i = 0; i < n; i += lanes::LANES)
            lanes::store((lanes::wide(y + i) - mean) * scale * lanes::wide(weight + i) + lanes::wide(bias + i), y + i);
    }
};

void round_rows(Inputs& in, const float* x, int64_t rows, int64_t k) {
    make_room(in, rows, k);
    round_groups(in, x, rows * k / GROUP, 0, 1);
}

struct Rest {
    Dense out, up, down;
    Norm first, second;

    // `rows` rows, BAND or fewer; y has room for them
    void operator()(const float* mixed, const float* x, float* y, int64_t rows, bool by_tiles) const {
        static thread_local Inputs in, hidden;
        static thread_local std::vector<float> between;
        const int64_t d = out.n;
        between.resize(rows * d);
        round_rows(in, mixed, rows, out.groups * GROUP);
        residual(out, in, x, between.data(), rows, first, by_tiles);
        round_rows(in, between.data(), rows, d);
        hide(in, hidden, rows, by_tiles);
        residual(down, hidden, between.data(), y, rows, second, by_tiles);
    }

    static void residual(const Dense& layer, const Inputs& in, const float* x, float* y, int64_t rows, const Norm& norm,
                         bool by_tiles) {
        for (int64_t tile = 0; tile < layer.n / ROWS; tile += TILES)
            layer(in, rows, tile, y + tile * ROWS, layer.n, false, by_tiles);
        for (int64_t row = 0; row < rows; row++) norm(x + row * layer.n, y + row * layer.n, layer.n);
    }

    // the hidden units, a group of 32 at a time, which are rounded at once
    void hide(const Inputs& in, Inputs& hidden, int64_t rows, bool by_tiles) const {
        alignas(64) static thread_local float group[BAND * GROUP];
        const int64_t groups = up.n / GROUP;
        make_room(hidden, rows, up.n);
        for (int64_t g = 0; g < groups; g++) {
            for (int64_t part = 0; part < GROUP / ROWS; part += TILES)
                up(in, rows, g * (GROUP / ROWS) + part, group + part * ROWS, GROUP, true, by_tiles);
            round_groups(hidden, group, rows, g, groups);
        }
    }
};

}  // namespace post_norm
}  // namespace

extern "C" {

// data: mixed [rows, k], x and y [rows, d]; then weight and bias of the three layers and of the two norms. sizes: rows, k,
// d, hidden units, threads, bits of the three layers. k, d and the hidden units are multiples of 32.
void glassformer_post_norm(const void* const* data, const int64_t* sizes, const float* eps) {
    using namespace post_norm;
    const int64_t rows = sizes[0], k = sizes[1], d = sizes[2], f = sizes[3], threads = sizes[4];
    const auto dense = [&](int i, int64_t from, int64_t n) {
        return Dense{sizes[5 + i], static_cast<const uint8_t*>(data[3 + 2 * i]), static_cast<const float*>(data[4 + 2 * i]),
                     from / GROUP, n};
    };
    const auto norm = [&](int i) {
        return Norm{static_cast<const float*>(data[9 + 2 * i]), static_cast<const float*>(data[10 + 2 * i]), eps[i]};
    };
    const Rest rest = {dense(0, k, d), dense(1, d, f), dense(2, f, d), norm(0), norm(1)};
    const float *mixed = static_cast<const float*>(data[0]), *x = static_cast<const float*>(data[1]);
    float* y = static_cast<float*>(const_cast<void*>(data[2]));
#pragma omp parallel
    {
        const bool by_tiles = take_tiles(rows);
        const int64_t unit = turn(by_tiles), even = (rows + threads - 1) / threads, most = band_of(rows, unit);
        const int64_t band = even < most ? (even + unit - 1) / unit * unit : most;
#pragma omp for schedule(dynamic, 1)  // a core may be slower than another
        for (int64_t row = 0; row < rows; row += band) {
            const int64_t some = row + band < rows ? band : rows - row;
            rest(mixed + row * k, x + row * d, y + row * d, some, by_tiles);
        }
        give_tiles_back(by_tiles);
    }
}
}
