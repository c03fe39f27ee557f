// Matrix products and exponentials over vectors as wide as the processor's registers: plain vectors
// of gcc and clang, in any instruction set.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS_OF_KERNEL = 8, VECTORS = 2;
#else
constexpr int LANES = 8, ROWS_OF_KERNEL = 4, VECTORS = 2;
#endif
constexpr int PANEL = LANES * VECTORS;
constexpr int64_t DEPTH = 256;  // of a product's inner dimension, at a time
constexpr float LEAST = -std::numeric_limits<float>::max();

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));

static inline vec load(const float* at) { return *reinterpret_cast<const vec*>(at); }
static inline void store(float* at, vec x) { *reinterpret_cast<vec*>(at) = x; }
static inline vec all(float x) { return x - vec{}; }

// 2^x for x <= 0, to 2 units in the last place; 0 below -126; not a number stays one.
static inline vec exp2_of(vec x) {
  const vec magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const vec shifted = x + magic;
  const vec f = x - (shifted - magic);  // in [-0.5, 0.5]
  vec p = all(1.5345811e-4f);  // a least-squares fit, weighted until its largest error is least
  p = p * f + 1.3399931e-3f;
  p = p * f + 9.6184891e-3f;
  p = p * f + 5.5503286e-2f;
  p = p * f + 2.4022646e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  ivec n;
  std::memcpy(&n, &shifted, sizeof n);
  n = (n - 0x4B400000 + 127) << 23;
  vec power;
  std::memcpy(&power, &n, sizeof n);
  const vec result = p * power;
  return x < -126.0f ? vec{} : result;
}

// One block of a product: MR rows and VECTORS vectors of C, set or added to.
// A is read as A[i * lda + k], or as A[k * lda + i] where it lies transposed.
template <int MR, int NV, bool TRANSPOSED>
static inline void block(const float* __restrict a, int64_t lda, const float* __restrict b,
                         int64_t ldb, float* __restrict c, int64_t ldc, int64_t depth, float alpha,
                         bool add) {
  vec sum[MR][NV] = {};
  for (int64_t k = 0; k < depth; ++k) {
    vec of_b[NV];
    for (int j = 0; j < NV; ++j) of_b[j] = load(b + k * ldb + j * LANES);
    for (int i = 0; i < MR; ++i) {
      const float of_a = TRANSPOSED ? a[k * lda + i] : a[i * lda + k];
      for (int j = 0; j < NV; ++j) sum[i][j] += of_a * of_b[j];
    }
  }
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NV; ++j) {
      float* at = c + i * ldc + j * LANES;
      store(at, add ? load(at) + alpha * sum[i][j] : alpha * sum[i][j]);
    }
}

template <int NV, bool TRANSPOSED>
static void strip(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc,
                  int64_t m, int64_t depth, float alpha, bool add) {
  const int64_t to_row = TRANSPOSED ? 1 : lda;
  int64_t i = 0;
  for (; i + ROWS_OF_KERNEL <= m; i += ROWS_OF_KERNEL)
    block<ROWS_OF_KERNEL, NV, TRANSPOSED>(a + i * to_row, lda, b, ldb, c + i * ldc, ldc, depth,
                                          alpha, add);
  for (; i + 4 <= m; i += 4)
    block<4, NV, TRANSPOSED>(a + i * to_row, lda, b, ldb, c + i * ldc, ldc, depth, alpha, add);
  for (; i < m; ++i)
    block<1, NV, TRANSPOSED>(a + i * to_row, lda, b, ldb, c + i * ldc, ldc, depth, alpha, add);
}

// C = alpha * A * B, or C += …; n is a multiple of LANES.
template <bool TRANSPOSED>
static void product(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc,
                    int64_t m, int64_t n, int64_t depth, float alpha, bool add) {
  for (int64_t k = 0; k < depth; k += DEPTH) {
    const int64_t deep = depth - k < DEPTH ? depth - k : DEPTH;
    const float* of_a = a + k * (TRANSPOSED ? lda : 1);
    const float* of_b = b + k * ldb;
    int64_t j = 0;
    for (; j + PANEL <= n; j += PANEL)
      strip<VECTORS, TRANSPOSED>(of_a, lda, of_b + j, ldb, c + j, ldc, m, deep, alpha, add || k);
    for (; j < n; j += LANES)
      strip<1, TRANSPOSED>(of_a, lda, of_b + j, ldb, c + j, ldc, m, deep, alpha, add || k);
  }
}

// [B, heads, rows, dim], of which group g holds head g % heads of batch g / heads.
struct Matrix { float* at; int64_t to_batch, to_head, to_row; };

static inline float* row_of(const Matrix& x, int64_t batch, int64_t head, int64_t row) {
  return x.at + batch * x.to_batch + head * x.to_head + row * x.to_row;
}

// Lanes that so many rows take.
static inline int64_t padded(int64_t rows) { return (rows + LANES - 1) / LANES * LANES; }

// A thread's memory, cut into aligned pieces.
struct Buffer {
  std::vector<float> all;
  int64_t used = 0;
  explicit Buffer(int64_t size) : all(size + 8 * LANES) {
    used = -(reinterpret_cast<intptr_t>(all.data()) / 4) & (LANES - 1);
  }
  float* take(int64_t size) {
    float* at = all.data() + used;
    used += (size + LANES - 1) / LANES * LANES;
    return at;
  }
};
