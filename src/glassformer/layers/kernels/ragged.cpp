// Attention of texts of several lengths that lie one behind the other, and its gradients, for glassformer/layers/ragged.py:
// what a training does. All fp32.
//
// query, mixed and their gradients are [N, H, d]; key, value and their gradients [M, G, d]; text b has the queries from
// query_ends[b - 1] to query_ends[b] and the keys likewise, and head h reads group h / (H / G). What is given may lie
// anywhere as long as its last axis is dense; what is found is dense. `normalizer` [H, N] is log Σ exp(score) of each
// query, by which the gradients form its weights anew. A thread takes one group of one text at a time, so that nothing is
// added up in an order that depends on the threads.

#include <algorithm>
#include <vector>

#include "lanes.h"

namespace ragged {

using namespace lanes;

constexpr int ROWS = 4;  // of a product in registers, PANEL columns wide
constexpr int VECTORS = 2;
constexpr int64_t PANEL = VECTORS * LANES;
constexpr int64_t QUERIES = 8 * ROWS;  // of a block
constexpr int64_t SMALL = 1 << 15;  // products of numbers that are not worth a second thread

inline int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

template <typename T> struct Vectors {  // of d numbers each, one per token and head
    T* data;
    int64_t token, head;

    T* at(int64_t t, int64_t h) const { return data + t * token + h * head; }
};
typedef Vectors<const float> Given;
typedef Vectors<float> Found;

struct Task {
    Given query, key, value;
    const int64_t *query_ends, *key_ends;
    int64_t texts, heads, groups, d, queries;  // of all texts
    bool causal;
    float scale;

    int64_t padded() const { return rounded(d, LANES); }
};

struct Text {  // one text: its first query and key, and how many it has
    int64_t query, key, queries, keys;

    Text(const Task& task, int64_t b)
        : query(b ? task.query_ends[b - 1] : 0), key(b ? task.key_ends[b - 1] : 0),
          queries(task.query_ends[b] - query), keys(task.key_ends[b] - key) {}

    // how many keys query i sees: the queries are the last of the keys
    int64_t seen(int64_t i, bool causal) const { return causal ? std::max<int64_t>(0, keys - queries + i + 1) : keys; }
};

// c [ROWS, V · LANES] = (or with MORE: +=) a [ROWS, depth] b [depth, V · LANES], a's numbers being `row` and `step` apart
template <int V, bool MORE>
void panel(const float* a, int64_t row, int64_t step, const float* b, int64_t b_stride, int64_t depth, float* c,
           int64_t c_stride) {
    Lanes sums[ROWS * V] = {};
    if (MORE) {
#pragma GCC unroll 8
        for (int i = 0; i < ROWS * V; i++) sums[i] = wide(c + i / V * c_stride + i % V * LANES);
    }
    for (int64_t k = 0; k < depth; k++) {
        Lanes right[V];
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) right[v] = wide(b + k * b_stride + v * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS * V; i++) sums[i] += a[i / V * row + k * step] * right[i % V];
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS * V; i++) store(sums[i], c + i / V * c_stride + i % V * LANES);
}

// the same for `rows` (a multiple of ROWS) and `columns` (a multiple of LANES)
template <bool MORE>
void product(const float* a, int64_t row, int64_t step, const float* b, int64_t b_stride, int64_t depth, float* c,
             int64_t c_stride, int64_t rows, int64_t columns) {
    int64_t column = 0;
    for (; column + PANEL <= columns; column += PANEL)
        for (int64_t i = 0; i < rows; i += ROWS)
            panel<VECTORS, MORE>(a + i * row, row, step, b + column, b_stride, depth, c + i * c_stride + column,
                                 c_stride);
    for (; column < columns; column += LANES)
        for (int64_t i = 0; i < rows; i += ROWS)
            panel<1, MORE>(a + i * row, row, step, b + column, b_stride, depth, c + i * c_stride + column, c_stride);
}

struct Matrix {  // room for numbers that is kept from text to text
    std::vector<float> numbers;

    float* empty(int64_t size) {
        if (static_cast<int64_t>(numbers.size()) < size) numbers.resize(size);
        return numbers.data();
    }
    float* zeros(int64_t size) {
        std::fill_n(empty(size), size, 0.0f);
        return numbers.data();
    }
};

// ask for the next head's numbers, which lie behind these and are wanted next
inline void ahead(const float* numbers, int64_t d) {
    for (int64_t c = 0; c < d; c += 16) __builtin_prefetch(numbers + c);
}

// `count` vectors below each other, `width` apart and times `factor`; zeros beyond them, up to `rows`
void below(const Given& from, int64_t first, int64_t head, int64_t count, int64_t rows, int64_t d, int64_t width,
           float factor, float* to) {
    for (int64_t t = 0; t < count; t++) {
        float* row = to + t * width;
        const float* vector = from.at(first + t, head);
        ahead(vector + d, d);
        for (int64_t c = 0; c < d; c++) row[c] = vector[c] * factor;
        std::fill(row + d, row + width, 0.0f);
    }
    std::fill(to + count * width, to + rows * width, 0.0f);
}

// the same beside each other: [d, width], zeros beyond `count`
void beside(const Given& from, int64_t first, int64_t head, int64_t count, int64_t d, int64_t width, float* to) {
    for (int64_t t = 0; t < count; t++) {
        const float* vector = from.at(first + t, head);
        ahead(vector + d, d);
        for (int64_t c = 0; c < d; c++) to[c * width + t] = vector[c];
    }
    for (int64_t c = 0; c < d; c++) std::fill(to + c * width + count, to + (c + 1) * width, 0.0f);
}

// e to the power of `seen` scores less the largest, zeros up to `columns`; their sum, and the largest in `most`
float weigh(float* scores, int64_t seen, int64_t columns, float& most) {
    for (int64_t k = seen; k < columns; k++) scores[k] = -INFINITY;
    Lanes highest = wide(scores), totals = {};
    for (int64_t k = LANES; k < columns; k += LANES) highest = larger(highest, wide(scores + k));
    most = largest(highest);
    for (int64_t k = 0; k < columns; k += LANES) {
        const Lanes weights = exponential(wide(scores + k) - most);
        store(weights, scores + k);
        totals += weights;
    }
    return sum(totals);
}

struct Forward {
    const Task& task;
    Found mixed;
    float* normalizer;
    Matrix turned, values, query, scores, found;

    void operator()(int64_t b, int64_t group) {
        const Text text(task, b);
        if (!text.queries) return;
        const int64_t width = rounded(text.keys, LANES), padded = task.padded(), shared = task.heads / task.groups;
        beside(task.key, text.key, group, text.keys, task.d, width, turned.empty(task.d * width));
        below(task.value, text.key, group, text.keys, text.keys, task.d, padded, 1, values.empty(text.keys * padded));
        for (int64_t head = group * shared; head < (group + 1) * shared; head++)
            for (int64_t first = 0; first < text.queries; first += QUERIES) block(text, head, first, width);
    }

    void block(const Text& text, int64_t head, int64_t first, int64_t width) {
        const int64_t count = std::min(QUERIES, text.queries - first), rows = rounded(count, ROWS), d = task.d;
        const int64_t padded = task.padded(), seen = text.seen(first + count - 1, task.causal);
        const int64_t columns = rounded(seen, LANES);
        float *q = query.empty(rows * d), *s = scores.empty(rows * width), *f = found.empty(rows * padded);
        below(task.query, text.query + first, head, count, rows, d, d, task.scale, q);
        product<false>(q, d, 1, turned.numbers.data(), width, d, s, width, rows, columns);
        float factor[QUERIES];
        for (int64_t i = 0; i < count; i++) {
            const int64_t mine = text.seen(first + i, task.causal);
            float most = 0, total = 0;
            if (mine) total = weigh(s + i * width, mine, columns, most);
            else std::fill_n(s + i * width, columns, 0.0f);
            factor[i] = mine ? 1 / total : 0;
            normalizer[head * task.queries + text.query + first + i] = mine ? most + logf(total) : INFINITY;
        }
        product<false>(s, width, 1, values.numbers.data(), padded, seen, f, padded, rows, padded);
        for (int64_t i = 0; i < count; i++) {
            float* to = mixed.at(text.query + first + i, head);
            for (int64_t c = 0; c < d; c++) to[c] = f[i * padded + c] * factor[i];
        }
    }
};

struct Backward {
    const Task& task;
    Given grad, mixed;
    const float* normalizer;
    Found grad_query, grad_key, grad_value;
    Matrix turned_keys, turned_values, keys, query, above, scores, slopes, found, for_keys, for_values;

    void operator()(int64_t b, int64_t group) {
        const Text text(task, b);
        const int64_t width = rounded(text.keys, LANES), d = task.d, padded = task.padded();
        const int64_t shared = task.heads / task.groups;
        beside(task.key, text.key, group, text.keys, d, width, turned_keys.empty(d * width));
        beside(task.value, text.key, group, text.keys, d, width, turned_values.empty(d * width));
        below(task.key, text.key, group, text.keys, text.keys, d, padded, 1, keys.empty(text.keys * padded));
        for_keys.zeros(width * padded);
        for_values.zeros(width * padded);
        for (int64_t head = group * shared; head < (group + 1) * shared; head++)
            for (int64_t first = 0; first < text.queries; first += QUERIES) block(text, head, first, width);
        for (int64_t k = 0; k < text.keys; k++) {
            std::copy_n(for_keys.numbers.data() + k * padded, d, grad_key.at(text.key + k, group));
            std::copy_n(for_values.numbers.data() + k * padded, d, grad_value.at(text.key + k, group));
        }
    }

    void block(const Text& text, int64_t head, int64_t first, int64_t width) {
        const int64_t count = std::min(QUERIES, text.queries - first), rows = rounded(count, ROWS), d = task.d;
        const int64_t padded = task.padded(), seen = text.seen(first + count - 1, task.causal);
        const int64_t columns = rounded(seen, LANES);
        float *q = query.empty(rows * padded), *g = above.empty(rows * padded), *f = found.empty(rows * padded);
        float *s = scores.empty(rows * width), *slope = slopes.empty(rows * width);
        below(task.query, text.query + first, head, count, rows, d, padded, task.scale, q);
        below(grad, text.query + first, head, count, rows, d, padded, 1, g);
        product<false>(q, padded, 1, turned_keys.numbers.data(), width, d, s, width, rows, columns);
        product<false>(g, padded, 1, turned_values.numbers.data(), width, d, slope, width, rows, columns);
        for (int64_t i = 0; i < rows; i++) slopes_of(text, head, first, i, count, width, columns);
        product<false>(slope, width, 1, keys.numbers.data(), padded, seen, f, padded, rows, padded);
        product<true>(slope, 1, width, q, padded, count, for_keys.numbers.data(), padded, columns, padded);
        product<true>(s, 1, width, g, padded, count, for_values.numbers.data(), padded, columns, padded);
        for (int64_t i = 0; i < count; i++) {
            float* to = grad_query.at(text.query + first + i, head);
            for (int64_t c = 0; c < d; c++) to[c] = f[i * padded + c] * task.scale;
        }
    }

    // weights from the scores of query i, and gradients of the scores from those of the weights:
    // weight · (slope - Σ weight · slope), the sum being mixed · its gradient
    void slopes_of(const Text& text, int64_t head, int64_t first, int64_t i, int64_t count, int64_t width,
                   int64_t columns) {
        float *s = scores.numbers.data() + i * width, *slope = slopes.numbers.data() + i * width;
        const int64_t mine = i < count ? text.seen(first + i, task.causal) : 0, at = text.query + first + i;
        for (int64_t k = mine; k < columns; k++) s[k] = -INFINITY;
        if (!mine) {
            std::fill_n(s, columns, 0.0f);
            std::fill_n(slope, columns, 0.0f);
            return;
        }
        const float *g = above.numbers.data() + i * task.padded(), *m = mixed.at(at, head);
        float level = 0;
        for (int64_t c = 0; c < task.d; c++) level += g[c] * m[c];
        const float normal = normalizer[head * task.queries + at];
        for (int64_t k = 0; k < columns; k += LANES) {
            const Lanes zero = {}, score = wide(s + k) - normal;
            const Lanes weights = exponential(score < zero ? score : zero);
            store(weights, s + k);
            store(weights * (wide(slope + k) - level), slope + k);
        }
    }
};

template <typename Work> void each(const Task& task, const Work& work) {
    const int64_t units = task.texts * task.groups;
#pragma omp parallel if (task.queries * task.heads * task.d > SMALL)
    {
        Work mine = work;
#pragma omp for schedule(dynamic, 4)
        for (int64_t unit = 0; unit < units; unit++) mine(unit / task.groups, unit % task.groups);
    }
}

// `strides`: of tokens and of heads, of one tensor after the other
inline Given given(const void* data, const int64_t* strides) {
    return {static_cast<const float*>(data), strides[0], strides[1]};
}
inline Found dense(void* data, int64_t heads, int64_t d) { return {static_cast<float*>(data), heads * d, d}; }

}  // namespace ragged

extern "C" {

// `data`: query, key, value, query_ends, key_ends, mixed, normalizer; `strides`: two each of the first three; `sizes`:
// texts, H, G, d, N, whether causal
void glassformer_ragged(void* const* data, const int64_t* strides, const int64_t* sizes, float scale) {
    using namespace ragged;
    const Task task{given(data[0], strides), given(data[1], strides + 2), given(data[2], strides + 4),
                    static_cast<const int64_t*>(data[3]), static_cast<const int64_t*>(data[4]),
                    sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5] != 0, scale};
    each(task, Forward{task, dense(data[5], task.heads, task.d), static_cast<float*>(data[6]), {}, {}, {}, {}, {}});
}

// `data`: as above, then the gradient of mixed and those of query, key and value; `strides`: two each of query, key,
// value and the gradient of mixed
void glassformer_ragged_back(void* const* data, const int64_t* strides, const int64_t* sizes, float scale) {
    using namespace ragged;
    const Task task{given(data[0], strides), given(data[1], strides + 2), given(data[2], strides + 4),
                    static_cast<const int64_t*>(data[3]), static_cast<const int64_t*>(data[4]),
                    sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5] != 0, scale};
    const int64_t across[] = {task.heads * task.d, task.d};
    each(task, Backward{task, given(data[7], strides + 6), given(data[5], across), static_cast<const float*>(data[6]),
                        dense(data[8], task.heads, task.d), dense(data[9], task.groups, task.d),
                        dense(data[10], task.groups, task.d), {}, {}, {}, {}, {}, {}, {}, {}, {}, {}});
}
}
