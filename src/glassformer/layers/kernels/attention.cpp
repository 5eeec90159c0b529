// Attention of new queries to the keys that are kept, for glassformer/layers/rows.py: what decoding and reading do.
//
// query [B, H, T, d]; key and value [B, G, T, d] are new and are first written into keys and values [B, G, C, d] at
// positions [B, T], which go up by 1 in a row. Head h reads the keys of group h / (H / G), and a query at position p
// the first p + 1 of them: rows may differ in length, and none reads more than its own. All are fp32 or all bf16; sums
// are fp32. A few queries are taken one by one, many in blocks (FlashAttention, Dao et al. 2022).

#include <algorithm>
#include <memory>
#include <vector>

#include "lanes.h"
#include "torch_c.h"

namespace attention {

using namespace lanes;

constexpr int64_t KEYS = 64;  // of a block
constexpr int ROWS = 6;  // of a product in registers, PANEL columns wide
constexpr int64_t QUERIES = 4 * ROWS;  // of a block
constexpr int64_t FEW = 8;  // queries of a row that are not worth blocks
#if defined(__AVX512F__)
constexpr int VECTORS = 4;
#else
constexpr int VECTORS = 2;
#endif
constexpr int64_t PANEL = VECTORS * LANES;

struct Shape {
    int64_t rows, heads, queries, groups, capacity, d;
    float scale;

    int64_t padded() const { return (d + LANES - 1) / LANES * LANES; }
};

// scores of N keys, whose sums do not wait for each other
template <int N, typename T> void score(const T* query, const T* keys, int64_t d, float scale, float* scores) {
    Lanes sums[N] = {};
    float totals[N];
    int64_t i = 0;
    for (; i + LANES <= d; i += LANES)
        for (int n = 0; n < N; n++) sums[n] += wide(query + i) * wide(keys + n * d + i);
    for (int n = 0; n < N; n++) totals[n] = sum(sums[n]);
    for (; i < d; i++)
        for (int n = 0; n < N; n++) totals[n] += wide1(query[i]) * wide1(keys[n * d + i]);
    for (int n = 0; n < N; n++) scores[n] = totals[n] * scale;
}

// the weighted sum of V · LANES columns of the values
template <int V, typename T>
void mix(const float* weights, const T* values, int64_t seen, int64_t d, float factor, T* mixed) {
    Lanes sums[V] = {};
    for (int64_t k = 0; k < seen; k++)
        for (int v = 0; v < V; v++) sums[v] += weights[k] * wide(values + k * d + v * LANES);
    for (int v = 0; v < V; v++)
        for (int lane = 0; lane < LANES; lane++) store(sums[v][lane] * factor, mixed + v * LANES + lane);
}

// one query, and the first `seen` keys; `scores` has room for them, rounded up to LANES
template <typename T>
void attend_one(const T* query, const T* keys, const T* values, T* mixed, float* scores, int64_t seen, int64_t d,
                float scale) {
    int64_t key = 0;
    for (; key + 4 <= seen; key += 4) score<4>(query, keys + key * d, d, scale, scores + key);
    for (; key < seen; key++) score<1>(query, keys + key * d, d, scale, scores + key);
    const float factor = softmax(scores, seen);
    int64_t column = 0;
    for (; column + PANEL <= d; column += PANEL) mix<VECTORS>(scores, values + column, seen, d, factor, mixed + column);
    for (; column + LANES <= d; column += LANES) mix<1>(scores, values + column, seen, d, factor, mixed + column);
    for (; column < d; column++) {
        float total = 0;
        for (int64_t k = 0; k < seen; k++) total += scores[k] * wide1(values[k * d + column]);
        store(total * factor, mixed + column);
    }
}

// c [ROWS, V · LANES] += a [ROWS, depth] b [depth, V · LANES]; strides in numbers
template <int V>
void panel(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t depth, float* c,
           int64_t c_stride) {
    Lanes sums[ROWS][V];
    for (int i = 0; i < ROWS; i++)
        for (int v = 0; v < V; v++) sums[i][v] = wide(c + i * c_stride + v * LANES);
    for (int64_t k = 0; k < depth; k++) {
        Lanes right[V];
        for (int v = 0; v < V; v++) right[v] = wide(b + k * b_stride + v * LANES);
        for (int i = 0; i < ROWS; i++)
            for (int v = 0; v < V; v++) sums[i][v] += a[i * a_stride + k] * right[v];
    }
    for (int i = 0; i < ROWS; i++)
        for (int v = 0; v < V; v++) store(sums[i][v], c + i * c_stride + v * LANES);
}

// the same for `rows` (a multiple of ROWS) and `columns` (a multiple of LANES)
void product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t depth, float* c,
             int64_t c_stride, int64_t rows, int64_t columns) {
    for (int64_t column = 0; column < columns; column += PANEL)
        for (int64_t row = 0; row < rows; row += ROWS) {
            const float *left = a + row * a_stride, *right = b + column;
            float* to = c + row * c_stride + column;
            const int64_t vectors = std::min<int64_t>(VECTORS, (columns - column) / LANES);
            if (vectors == VECTORS) panel<VECTORS>(left, a_stride, right, b_stride, depth, to, c_stride);
            else
                for (int64_t v = 0; v < vectors; v++)
                    panel<1>(left, a_stride, right + v * LANES, b_stride, depth, to + v * LANES, c_stride);
        }
}

// `count` keys and values as blocks want them: keys [d, KEYS], values [KEYS, padded d]; zeros beyond
template <typename T>
void pack(const T* keys, const T* values, int64_t count, const Shape& shape, float* turned, float* wider) {
    const int64_t d = shape.d, padded = shape.padded();
    std::fill(turned, turned + d * KEYS, 0.0f);
    std::fill(wider, wider + KEYS * padded, 0.0f);
    for (int64_t k = 0; k < count; k++)
        for (int64_t i = 0; i < d; i++) {
            turned[i * KEYS + k] = wide1(keys[k * d + i]);
            wider[k * padded + i] = wide1(values[k * d + i]);
        }
}

struct Block {  // what a block of queries works with; the largest score and the sum of weights of each query so far
    std::vector<float> query, scores, found;
    float most[QUERIES], total[QUERIES];

    explicit Block(const Shape& shape)
        : query(QUERIES * shape.d), scores(QUERIES * KEYS), found(QUERIES * shape.padded()) {}
};

// scores become weights; where a larger score came up, what was found before it counts less
inline void weigh(Block& block, int64_t i, int64_t seen, int64_t padded) {
    float* scores = block.scores.data() + i * KEYS;
    if (seen <= 0) {
        std::fill(scores, scores + KEYS, 0.0f);
        return;
    }
    for (int64_t k = seen; k < KEYS; k++) scores[k] = -INFINITY;
    Lanes most = wide(scores);
    for (int64_t k = LANES; k < KEYS; k += LANES) most = larger(most, wide(scores + k));
    const float top = std::max(block.most[i], largest(most));
    if (top > block.most[i]) {
        const float factor = expf(block.most[i] - top);
        float* found = block.found.data() + i * padded;
        for (int64_t c = 0; c < padded; c += LANES) store(wide(found + c) * factor, found + c);
        block.total[i] *= factor;
        block.most[i] = top;
    }
    Lanes totals = {};
    for (int64_t k = 0; k < KEYS; k += LANES) {
        const Lanes weights = exponential(wide(scores + k) - top);
        store(weights, scores + k);
        totals += weights;
    }
    block.total[i] += sum(totals);
}

// queries of one head from position `first` on, `count` of them, and all packed keys up to their own
template <typename T>
void attend_block(Block& block, const T* query, T* mixed, int64_t first, int64_t count, const Shape& shape,
                  const float* turned, const float* wider) {
    const int64_t d = shape.d, padded = shape.padded(), rows = (count + ROWS - 1) / ROWS * ROWS;
    for (int64_t i = 0; i < rows * d; i++) block.query[i] = i < count * d ? wide1(query[i]) * shape.scale : 0.0f;
    std::fill(block.found.begin(), block.found.end(), 0.0f);
    std::fill(block.most, block.most + QUERIES, -INFINITY);
    std::fill(block.total, block.total + QUERIES, 0.0f);
    for (int64_t key = 0; key < first + count; key += KEYS) {
        const int64_t at = key / KEYS;
        std::fill(block.scores.begin(), block.scores.end(), 0.0f);
        product(block.query.data(), d, turned + at * d * KEYS, KEYS, d, block.scores.data(), KEYS, rows, KEYS);
        for (int64_t i = 0; i < rows; i++) weigh(block, i, first + i + 1 - key, padded);
        product(block.scores.data(), KEYS, wider + at * KEYS * padded, padded, std::min(KEYS, first + count - key),
                block.found.data(), padded, rows, padded);
    }
    for (int64_t i = 0; i < count; i++)
        for (int64_t c = 0; c < d; c++) store(block.found[i * padded + c] / block.total[i], mixed + i * d + c);
}

template <typename T>
void keep(const T* key, const T* value, T* keys, T* values, const int64_t* positions, const Shape& shape,
          int64_t unit) {
    const int64_t size = shape.d * sizeof(T), row = unit / shape.groups;
    for (int64_t t = 0; t < shape.queries; t++) {
        const int64_t to = (unit * shape.capacity + positions[row * shape.queries + t]) * shape.d;
        memcpy(keys + to, key + (unit * shape.queries + t) * shape.d, size);
        memcpy(values + to, value + (unit * shape.queries + t) * shape.d, size);
    }
}

template <typename T>
void attend_few(const T* query, const T* keys, const T* values, const int64_t* positions, T* mixed,
                const Shape& shape) {
    const int64_t shared = shape.heads / shape.groups;
#pragma omp parallel
    {
        std::vector<float> scores(shape.capacity + LANES);
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < shape.rows * shape.heads; unit++) {
            const int64_t row = unit / shape.heads, group = unit % shape.heads / shared;
            const int64_t context = (row * shape.groups + group) * shape.capacity * shape.d;
            for (int64_t t = 0; t < shape.queries; t++) {
                const int64_t at = (unit * shape.queries + t) * shape.d;
                attend_one(query + at, keys + context, values + context, mixed + at, scores.data(),
                           positions[row * shape.queries + t] + 1, shape.d, shape.scale);
            }
        }
    }
}

template <typename T>
void attend_many(const T* query, const T* keys, const T* values, const int64_t* positions, T* mixed,
                 const Shape& shape) {
    const int64_t shared = shape.heads / shape.groups, queries = shape.queries, d = shape.d, padded = shape.padded();
    int64_t longest = 0;
    for (int64_t row = 0; row < shape.rows; row++) longest = std::max(longest, positions[(row + 1) * queries - 1] + 1);
    const int64_t blocks = (longest + KEYS - 1) / KEYS, parts = (queries + QUERIES - 1) / QUERIES;
    const int64_t of_keys = blocks * d * KEYS, of_values = blocks * KEYS * padded;
    const std::unique_ptr<float[]> turned(new float[shape.rows * shape.groups * of_keys]);
    const std::unique_ptr<float[]> wider(new float[shape.rows * shape.groups * of_values]);
#pragma omp parallel
    {
        Block block(shape);
#pragma omp for schedule(static) collapse(2)
        for (int64_t unit = 0; unit < shape.rows * shape.groups; unit++)
            for (int64_t at = 0; at < blocks; at++) {
                const int64_t seen = positions[(unit / shape.groups + 1) * queries - 1] + 1, from = at * KEYS;
                if (from >= seen) continue;
                const int64_t context = (unit * shape.capacity + from) * d;
                pack(keys + context, values + context, std::min(KEYS, seen - from), shape,
                     turned.get() + unit * of_keys + at * d * KEYS,
                     wider.get() + unit * of_values + at * KEYS * padded);
            }
#pragma omp for schedule(dynamic) collapse(2)
        for (int64_t part = parts - 1; part >= 0; part--)  // the longest first
            for (int64_t unit = 0; unit < shape.rows * shape.heads; unit++) {
                const int64_t row = unit / shape.heads, group = row * shape.groups + unit % shape.heads / shared;
                const int64_t from = part * QUERIES, at = (unit * queries + from) * d;
                attend_block(block, query + at, mixed + at, positions[row * queries + from],
                             std::min(QUERIES, queries - from), shape, turned.get() + group * of_keys,
                             wider.get() + group * of_values);
            }
    }
}

template <typename T>
void attend(const void* const* data, const Shape& shape) {
    const T *query = static_cast<const T*>(data[0]), *key = static_cast<const T*>(data[1]);
    const T* value = static_cast<const T*>(data[2]);
    T *keys = static_cast<T*>(const_cast<void*>(data[3])), *values = static_cast<T*>(const_cast<void*>(data[4]));
    const int64_t* positions = static_cast<const int64_t*>(data[5]);
    T* mixed = static_cast<T*>(const_cast<void*>(data[6]));
    for (int64_t unit = 0; unit < shape.rows * shape.groups; unit++)
        keep(key, value, keys, values, positions, shape, unit);
    if (shape.queries < FEW) attend_few<T>(query, keys, values, positions, mixed, shape);
    else attend_many<T>(query, keys, values, positions, mixed, shape);
}

}  // namespace attention

extern "C" {

// `data`: query, key, value, keys, values, positions, mixed; all contiguous
void glassformer_attend(int half, const void* const* data, int64_t rows, int64_t heads, int64_t queries, int64_t groups,
                        int64_t capacity, int64_t d, float scale) {
    const attention::Shape shape{rows, heads, queries, groups, capacity, d, scale};
    if (half) attention::attend<uint16_t>(data, shape);
    else attention::attend<float>(data, shape);
}

// The same for code that torch has compiled.
AOTITorchError aoti_torch_cpu_attend_rows(AtenTensorHandle query, AtenTensorHandle key, AtenTensorHandle value,
                                          AtenTensorHandle keys, AtenTensorHandle values, AtenTensorHandle positions,
                                          double scale, AtenTensorHandle* mixed) {
    int64_t q[4], groups, capacity;
    int32_t dtype;
    for (int64_t i = 0; i < 4; i++) TRY(aoti_torch_get_size(query, i, q + i));
    TRY(aoti_torch_get_dtype(query, &dtype));
    TRY(aoti_torch_get_size(keys, 1, &groups));
    TRY(aoti_torch_get_size(keys, 2, &capacity));
    const int64_t strides[] = {q[1] * q[2] * q[3], q[2] * q[3], q[3], 1};
    TRY(aoti_torch_empty_strided(4, q, strides, dtype, aoti_torch_device_type_cpu(), 0, mixed));
    const AtenTensorHandle tensors[] = {query, key, value, keys, values, positions, *mixed};
    void* data[7];
    for (int64_t i = 0; i < 7; i++) TRY(aoti_torch_get_data_ptr(tensors[i], data + i));
    glassformer_attend(dtype == aoti_torch_dtype_bfloat16(), data, q[0], q[1], q[2], groups, capacity, q[3],
                       static_cast<float>(scale));
    return SUCCESS;
}
}
