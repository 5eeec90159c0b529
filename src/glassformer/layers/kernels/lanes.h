// Numbers side by side in a register, for the kernels of fp32 and bf16: as many as the machine adds at once.
//
// The vectors are GCC's and clang's; what a machine has no registers for, the compiler cuts into smaller ones.

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace lanes {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

inline Lanes wide(const float* at) {
    Lanes value;
    memcpy(&value, at, sizeof value);
    return value;
}
inline Lanes wide(const uint16_t* at) {  // bf16 is the upper half of fp32
    Halves halves;
    memcpy(&halves, at, sizeof halves);
    const Words words = __builtin_convertvector(halves, Words) << 16;
    Lanes value;
    memcpy(&value, &words, sizeof value);
    return value;
}
inline float wide1(float value) { return value; }
inline float wide1(uint16_t value) {
    const uint32_t word = static_cast<uint32_t>(value) << 16;
    float wider;
    memcpy(&wider, &word, 4);
    return wider;
}

inline void store(float value, float* to) { *to = value; }
inline void store(float value, uint16_t* to) {  // to the nearest, to even between two; what is no number stays none
    uint32_t word;
    memcpy(&word, &value, 4);
    *to = static_cast<uint16_t>(value == value ? (word + 0x7fff + (word >> 16 & 1)) >> 16 : 0x7fc0);
}
inline void store(Lanes value, float* to) { memcpy(to, &value, sizeof value); }

inline float sum(Lanes value) {  // in halves, so that additions do not wait for each other
    float lane[LANES];
    store(value, lane);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[half + i];
    return lane[0];
}
inline float largest(Lanes value) {
    float lane[LANES];
    store(value, lane);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = lane[half + i] > lane[i] ? lane[half + i] : lane[i];
    return lane[0];
}
inline Lanes larger(Lanes a, Lanes b) { return a < b ? b : a; }  // a, where either is no number

// e to the power of numbers that are not above 0, to 2 units in the last place; 0 below -87; what is no number stays none
inline Lanes exponential(Lanes x) {
    constexpr float shift = 12582912.0f;  // 1.5 · 2^23: what is added to it is rounded to a whole number
    const Lanes zero = {}, least = zero - 87.0f;
    const Lanes kept = larger(x, least), shifted = kept * 1.44269504f + shift, whole = shifted - shift;
    const Lanes r = (kept - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln 2 in two parts
    Lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    Words bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127u) << 23;  // the whole number stands in the lowest bits of `shifted`
    Lanes power;
    memcpy(&power, &bits, sizeof power);
    return x < least ? zero : p * power;
}

// x times the chance that a normal variable is below it, to 4e-7 of x. The chance is 1/2 + x P(x²) up to |x| = 5, where it
// is 0 or 1; P was fitted by least squares, weighted until its errors were about even, in 2 x²/25 - 1, which keeps terms small.
inline Lanes gelu(Lanes x) {
    constexpr float P[] = {
        0.14136378f, -0.07029628f, 0.051520523f, -0.04044261f, 0.031442173f,
        -0.023268655f, 0.016402181f, -0.011164331f, 0.006410495f, -0.0026855853f,
        0.0017228157f, -0.0016132109f, 0.00060877093f,
    };
    const Lanes zero = {}, one = zero + 1.0f, most = zero + 5.0f, least = zero - 5.0f;
    const Lanes above = larger(x, least), kept = above > most ? most : above, s = kept * kept * 0.08f - 1.0f;
    Lanes p = zero + P[12];
#pragma GCC unroll 12
    for (int i = 11; i >= 0; i--) p = p * s + P[i];
    const Lanes chance = larger(kept * p + 0.5f, zero);
    return x * (chance > one ? one : chance);
}

// `seen` > 0 scores become e to their power, but for a common factor; what they are to be multiplied with to sum to 1.
// There is room for them, rounded up to LANES.
inline float softmax(float* scores, int64_t seen) {
    for (int64_t k = seen; k % LANES; k++) scores[k] = -INFINITY;
    Lanes highest = wide(scores), totals = {};
    for (int64_t k = LANES; k < seen; k += LANES) highest = larger(highest, wide(scores + k));
    const float most = largest(highest);
    for (int64_t k = 0; k < seen; k += LANES) {
        const Lanes weights = exponential(wide(scores + k) - most);
        store(weights, scores + k);
        totals += weights;
    }
    return 1 / sum(totals);
}

}  // namespace lanes
