// What stands before and behind a product of 8-bit numbers, each in one visit, for glassformer/layers/int8.py.

#include <algorithm>

#include "lanes.h"

namespace rounding {

using namespace lanes;

constexpr int64_t SMALL = 1 << 15;  // numbers that are not worth a second thread

inline Lanes magnitude(Lanes x) {
    const Lanes zero = {};
    return larger(x, zero - x);
}

}  // namespace rounding

extern "C" {

// Each row of x [rows, k]: its largest magnitude (at least 1e-30), and x / largest · levels + zero in whole numbers. A
// row with something that is no number, or not finite, has NaN as its largest, and so all that is made of it.
void glassformer_round_rows(const float* x, uint8_t* whole, float* largest, int64_t rows, int64_t k, float levels,
                            float zero) {
    using namespace rounding;
#pragma omp parallel for schedule(static) if (rows * k > SMALL)
    for (int64_t row = 0; row < rows; row++) {
        const float* from = x + row * k;
        uint8_t* to = whole + row * k;
        Lanes most = {}, odd = {};  // x - x is 0, or NaN where x is not finite
        int64_t i = 0;
        for (; i + LANES <= k; i += LANES) {
            const Lanes x_i = wide(from + i);
            most = larger(most, magnitude(x_i));
            odd += x_i - x_i;
        }
        float top = std::max(lanes::largest(most), 1e-30f), rest = 0;
        for (; i < k; i++) {
            top = std::max(top, fabsf(from[i]));
            rest += from[i] - from[i];
        }
        top += sum(odd) + rest;
        largest[row] = top;
        if (top != top) {
            std::fill(to, to + k, 0);
            continue;
        }
        const float factor = levels / top;
        for (i = 0; i < k; i++) to[i] = static_cast<uint8_t>(static_cast<int32_t>(from[i] * factor + (zero + 0.5f)));
    }
}

// y [rows, n] · largest [rows] + bias [n] (or null: none), in place.
void glassformer_scale_rows(float* y, const float* largest, const float* bias, int64_t rows, int64_t n) {
#pragma omp parallel for schedule(static) if (rows * n > rounding::SMALL)
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
