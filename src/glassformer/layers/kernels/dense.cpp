// y = x Wt in fp32 for a few rows of x, for glassformer/layers/linear.py: as fast as the weight can be read.
//
// Libraries for matrices are made for many rows; for one they reach half of what memory gives.

#include <stdint.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#define TRY(call) \
    if ((call) != AOTI_TORCH_SUCCESS) return AOTI_TORCH_FAILURE

namespace {

constexpr int AT_ONCE = 4;  // outputs, so that sums do not wait for each other

template <int N> void outputs(const float* weight, const float* x, float* y, int64_t k) {
    float sums[N] = {};
    if constexpr (N == 4) {
        float a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
        for (int64_t i = 0; i < k; i++) {
            a += weight[i] * x[i];
            b += weight[k + i] * x[i];
            c += weight[2 * k + i] * x[i];
            d += weight[3 * k + i] * x[i];
        }
        sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
    } else {
        float a = 0;
#pragma omp simd reduction(+ : a)
        for (int64_t i = 0; i < k; i++) a += weight[i] * x[i];
        sums[0] = a;
    }
    for (int i = 0; i < N; i++) y[i] = sums[i];
}

}  // namespace

extern "C" {

void glassformer_dense(const float* x, const float* weight, float* y, int64_t rows, int64_t k, int64_t n) {
#pragma omp parallel for schedule(static)
    for (int64_t tile = 0; tile < (n + AT_ONCE - 1) / AT_ONCE; tile++) {
        const int64_t first = tile * AT_ONCE;
        for (int64_t row = 0; row < rows; row++) {  // the tile's weights stay close while rows take turns
            if (first + AT_ONCE <= n) outputs<AT_ONCE>(weight + first * k, x + row * k, y + row * n + first, k);
            else
                for (int64_t i = first; i < n; i++) outputs<1>(weight + i * k, x + row * k, y + row * n + i, k);
        }
    }
}

// The same for code that torch has compiled; all contiguous.
AOTITorchError aoti_torch_cpu_dense_linear(AtenTensorHandle x, AtenTensorHandle weight, AtenTensorHandle* y) {
    int64_t rows, k, n;
    void *from, *by, *to;
    TRY(aoti_torch_get_size(x, 0, &rows));
    TRY(aoti_torch_get_size(x, 1, &k));
    TRY(aoti_torch_get_size(weight, 0, &n));
    const int64_t sizes[] = {rows, n}, strides[] = {n, 1};
    TRY(aoti_torch_empty_strided(2, sizes, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, y));
    TRY(aoti_torch_get_data_ptr(x, &from));
    TRY(aoti_torch_get_data_ptr(weight, &by));
    TRY(aoti_torch_get_data_ptr(*y, &to));
    glassformer_dense(static_cast<const float*>(from), static_cast<const float*>(by), static_cast<float*>(to), rows, k, n);
    return AOTI_TORCH_SUCCESS;
}
}
