// y = x Wt for a few rows of x, for glassformer/layers/linear.py: as fast as the weight can be read. W, x and y are all
// fp32 or all bf16; sums are fp32.
//
// Libraries for matrices are made for many rows; for one they reach half of what memory gives.

#include "lanes.h"
#include "torch_c.h"

namespace dense {

using namespace lanes;

constexpr int SUMS = 4;  // which do not wait for each other
constexpr int64_t STRIDE = LANES * SUMS;
#if defined(__AVX512F__)
constexpr int64_t AHEAD = 5120;  // bytes of the weight that are asked for before their turn
#else
constexpr int64_t AHEAD = 0;  // there the one that was measured is quicker when it asks by itself
#endif

template <typename T> float dot(const T* weight, const T* x, int64_t k) {
    Lanes sums[SUMS] = {};
    int64_t i = 0;
    for (; i + STRIDE <= k; i += STRIDE)
        for (int s = 0; s < SUMS; s++) {
            if (AHEAD) __builtin_prefetch(reinterpret_cast<const char*>(weight + i + s * LANES) + AHEAD);
            sums[s] += wide(weight + i + s * LANES) * wide(x + i + s * LANES);
        }
    float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; i < k; i++) total += wide1(weight[i]) * wide1(x[i]);
    return total;
}

template <typename T> void product(const T* x, const T* weight, T* y, int64_t rows, int64_t k, int64_t n) {
#pragma omp parallel for schedule(static)
    for (int64_t output = 0; output < n; output++)
        for (int64_t row = 0; row < rows; row++)  // the weight stays close while rows take turns
            store(dot(weight + output * k, x + row * k, k), y + row * n + output);
}

}  // namespace dense

extern "C" {

void glassformer_dense(int half, const void* x, const void* weight, void* y, int64_t rows, int64_t k, int64_t n) {
    if (half)
        dense::product(static_cast<const uint16_t*>(x), static_cast<const uint16_t*>(weight), static_cast<uint16_t*>(y),
                       rows, k, n);
    else
        dense::product(static_cast<const float*>(x), static_cast<const float*>(weight), static_cast<float*>(y), rows, k,
                       n);
}

// The same for code that torch has compiled; all contiguous.
AOTITorchError aoti_torch_cpu_dense_linear(AtenTensorHandle x, AtenTensorHandle weight, AtenTensorHandle* y) {
    int64_t rows, k, n;
    int32_t dtype;
    void *from, *by, *to;
    TRY(aoti_torch_get_dtype(x, &dtype));
    TRY(aoti_torch_get_size(x, 0, &rows));
    TRY(aoti_torch_get_size(x, 1, &k));
    TRY(aoti_torch_get_size(weight, 0, &n));
    const int64_t sizes[] = {rows, n}, strides[] = {n, 1};
    TRY(aoti_torch_empty_strided(2, sizes, strides, dtype, aoti_torch_device_type_cpu(), 0, y));
    TRY(aoti_torch_get_data_ptr(x, &from));
    TRY(aoti_torch_get_data_ptr(weight, &by));
    TRY(aoti_torch_get_data_ptr(*y, &to));
    glassformer_dense(dtype == aoti_torch_dtype_bfloat16(), from, by, to, rows, k, n);
    return SUCCESS;
}
}
