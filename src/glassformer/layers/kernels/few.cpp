// Attention of a few queries that share a context, under a mask, for glassformer/layers/attention.py: what a step of a
// translation does. All fp32.
//
// query [R, H, Q, d], keys and values [R, G, K, d], mask [R, H, Q, K] (not 0: may attend; none: everything) may lie
// anywhere as long as their last axis is dense: the other strides are given in numbers, 0 for what is repeated. Head h
// reads group h / (H / G). mixed [R, Q, H, d] is dense. Keys that a query may not see are not even read; where it sees
// none, it finds zeros.

#include <algorithm>
#include <vector>

#include "lanes.h"

namespace few {

using namespace lanes;

constexpr int64_t PANEL = 64;  // columns of the values that are summed in registers
constexpr int64_t SMALL = 1 << 15;  // products of numbers that are not worth a second thread

struct Shape {
    int64_t rows, heads, queries, groups, keys, d;
};

struct Where {  // numbers from one row, head (or group) and query (or key) to the next
    int64_t row, head, item;

    int64_t at(int64_t r, int64_t h, int64_t i) const { return r * row + h * head + i * item; }
};

// scores of N keys, whose sums do not wait for each other
template <int N> void score(const float* query, const float* const* keys, int64_t d, float scale, float* scores) {
    Lanes sums[N] = {};
    float totals[N];
    int64_t i = 0;
    for (; i + LANES <= d; i += LANES)
        for (int n = 0; n < N; n++) sums[n] += wide(query + i) * wide(keys[n] + i);
    for (int n = 0; n < N; n++) totals[n] = sum(sums[n]);
    for (; i < d; i++)
        for (int n = 0; n < N; n++) totals[n] += query[i] * keys[n][i];
    for (int n = 0; n < N; n++) scores[n] = totals[n] * scale;
}

// the weighted sum of V · LANES columns of the values
template <int V>
void mix(const float* weights, const float* const* values, int64_t seen, int64_t column, float factor, float* mixed) {
    Lanes sums[V] = {};
    for (int64_t k = 0; k < seen; k++)
        for (int v = 0; v < V; v++) sums[v] += weights[k] * wide(values[k] + column + v * LANES);
    for (int v = 0; v < V; v++) store(sums[v] * factor, mixed + column + v * LANES);
}

// one query and the keys that it sees; `scores` has room for them, rounded up to LANES
inline void attend_one(const float* query, const float* const* keys, const float* const* values, int64_t seen,
                       int64_t d, float scale, float* scores, float* mixed) {
    if (!seen) {
        std::fill(mixed, mixed + d, 0.0f);
        return;
    }
    int64_t key = 0;
    for (; key + 4 <= seen; key += 4) score<4>(query, keys + key, d, scale, scores + key);
    for (; key < seen; key++) score<1>(query, keys + key, d, scale, scores + key);
    const float factor = softmax(scores, seen);
    int64_t column = 0;
    for (; column + PANEL <= d; column += PANEL) mix<PANEL / LANES>(scores, values, seen, column, factor, mixed);
    for (; column + LANES <= d; column += LANES) mix<1>(scores, values, seen, column, factor, mixed);
    for (; column < d; column++) {
        float total = 0;
        for (int64_t k = 0; k < seen; k++) total += scores[k] * values[k][column];
        mixed[column] = total * factor;
    }
}

}  // namespace few

extern "C" {

// `data`: query, keys, values, mask (or null), mixed; `strides`: three each of the first four; `sizes`: R, H, Q, G, K, d
void glassformer_attend_few(const void* const* data, const int64_t* strides, const int64_t* sizes, float scale) {
    const few::Shape shape{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]};
    const float *query = static_cast<const float*>(data[0]), *keys = static_cast<const float*>(data[1]);
    const float* values = static_cast<const float*>(data[2]);
    const uint8_t* mask = static_cast<const uint8_t*>(data[3]);
    float* mixed = static_cast<float*>(const_cast<void*>(data[4]));
    few::Where where[4];
    for (int i = 0; i < 4; i++) where[i] = {strides[3 * i], strides[3 * i + 1], strides[3 * i + 2]};
    const int64_t units = shape.rows * shape.heads, shared = shape.heads / shape.groups;
#pragma omp parallel if (units * shape.queries * shape.keys * shape.d > few::SMALL)
    {
        std::vector<float> scores(shape.keys + few::LANES);
        std::vector<const float*> seen_keys(shape.keys), seen_values(shape.keys);
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < units; unit++) {
            const int64_t row = unit / shape.heads, head = unit % shape.heads, group = head / shared;
            for (int64_t q = 0; q < shape.queries; q++) {
                const uint8_t* allowed = mask ? mask + where[3].at(row, head, q) : nullptr;
                int64_t seen = 0;
                for (int64_t k = 0; k < shape.keys; k++) {
                    if (allowed && !allowed[k]) continue;
                    seen_keys[seen] = keys + where[1].at(row, group, k);
                    seen_values[seen++] = values + where[2].at(row, group, k);
                }
                few::attend_one(query + where[0].at(row, head, q), seen_keys.data(), seen_values.data(), seen, shape.d,
                                scale, scores.data(),
                                mixed + ((row * shape.queries + q) * shape.heads + head) * shape.d);
            }
        }
    }
}
}
