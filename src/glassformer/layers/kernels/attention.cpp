// Attention of a few new queries to the keys that are kept, for glassformer/layers/rows.py: what decoding does.
//
// query [B, H, T, d]; key and value [B, G, T, d] are new and are first written into keys and values [B, G, C, d] at
// positions [B, T]. Head h reads the keys of group h / (H / G), and a query at position p the first p + 1 of them: rows
// may differ in length, and none reads more than its own.

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <vector>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#define TRY(call) \
    if ((call) != AOTI_TORCH_SUCCESS) return AOTI_TORCH_FAILURE

namespace {

void attend(const float* query, const float* keys, const float* values, float* mixed, float* scores, int64_t seen,
            int64_t d, float scale) {
    float largest = -INFINITY;
    for (int64_t k = 0; k < seen; k++) {
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < d; i++) dot += query[i] * keys[k * d + i];
        scores[k] = dot * scale;
        largest = scores[k] > largest ? scores[k] : largest;
    }
    float total = 0;
    for (int64_t k = 0; k < seen; k++) {
        scores[k] = expf(scores[k] - largest);
        total += scores[k];
    }
    memset(mixed, 0, d * sizeof(float));
    for (int64_t k = 0; k < seen; k++) {
        const float weight = scores[k] / total;
#pragma omp simd
        for (int64_t i = 0; i < d; i++) mixed[i] += weight * values[k * d + i];
    }
}

}  // namespace

extern "C" {

void glassformer_attend(const float* query, const float* key, const float* value, float* keys, float* values,
                        const int64_t* positions, float* mixed, int64_t rows, int64_t heads, int64_t queries,
                        int64_t groups, int64_t capacity, int64_t d, float scale) {
#pragma omp parallel
    {
        std::vector<float> scores(capacity);
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < rows * groups; unit++)
            for (int64_t t = 0; t < queries; t++) {
                const int64_t to = (unit * capacity + positions[unit / groups * queries + t]) * d;
                memcpy(keys + to, key + (unit * queries + t) * d, d * sizeof(float));
                memcpy(values + to, value + (unit * queries + t) * d, d * sizeof(float));
            }
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < rows * heads; unit++) {
            const int64_t row = unit / heads, group = unit % heads / (heads / groups);
            const int64_t context = (row * groups + group) * capacity * d;
            for (int64_t t = 0; t < queries; t++) {
                const int64_t at = (unit * queries + t) * d;
                attend(query + at, keys + context, values + context, mixed + at, scores.data(),
                       positions[row * queries + t] + 1, d, scale);
            }
        }
    }
}

// The same for code that torch has compiled; all contiguous.
AOTITorchError aoti_torch_cpu_attend_rows(AtenTensorHandle query, AtenTensorHandle key, AtenTensorHandle value,
                                          AtenTensorHandle keys, AtenTensorHandle values, AtenTensorHandle positions,
                                          double scale, AtenTensorHandle* mixed) {
    int64_t q[4], groups, capacity;
    for (int64_t i = 0; i < 4; i++) TRY(aoti_torch_get_size(query, i, q + i));
    TRY(aoti_torch_get_size(keys, 1, &groups));
    TRY(aoti_torch_get_size(keys, 2, &capacity));
    const int64_t strides[] = {q[1] * q[2] * q[3], q[2] * q[3], q[3], 1};
    TRY(aoti_torch_empty_strided(4, q, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, mixed));
    const AtenTensorHandle tensors[] = {query, key, value, keys, values, positions, *mixed};
    void* data[7];
    for (int64_t i = 0; i < 7; i++) TRY(aoti_torch_get_data_ptr(tensors[i], data + i));
    glassformer_attend(static_cast<const float*>(data[0]), static_cast<const float*>(data[1]),
                       static_cast<const float*>(data[2]), static_cast<float*>(data[3]), static_cast<float*>(data[4]),
                       static_cast<const int64_t*>(data[5]), static_cast<float*>(data[6]), q[0], q[1], q[2], groups,
                       capacity, q[3], static_cast<float>(scale));
    return AOTI_TORCH_SUCCESS;
}
}
