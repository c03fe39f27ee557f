// Tiles of softmax attention in float32, forward and backward: what `attention.kernels.tiled` does
// by torch's products, as one pass over a few buffers that stay in the second-level cache.
//
// Scores are kept transposed, a row a key and a lane a query. So the operand that must be
// transposed is the tile's queries, once a tile, and never keys or values; the softmax runs down
// the rows, lane by lane; and all five products of the backward pass read their operands as they
// lie. Where a tile has many columns they come in chunks, with a running maximum and sum
// (Milakov and Gimelshein 2018, arXiv 1805.02867).

#include "products.h"

constexpr int64_t COLUMNS = 1024;  // of a tile, at a time

// Columns of a tile that lie side by side in memory.
struct Segment { int64_t is_extra, row, count, column; };
// What is not seen: bytes at `at + row * to_row + column * to_column`, of columns lo to hi.
struct Mask { int64_t at, to_row, to_column, lo, hi; };
// Neighbouring queries of a group, with their segments and masks.
struct Tile { int64_t group, start, rows, segments, segments_end, masks, masks_end, columns; };
struct Call {
  const Tile* tiles;
  const Segment* segments;
  const Mask* masks;
  const int64_t* parts;  // backward: of each part its first tile, and one past the last part's
  const float* sink;     // in base 2, a head; or null
  float* log_total;      // in base 2, [groups, rows]; null where nobody asks
  int64_t num_tiles, num_parts, may_be_empty;
  int64_t heads, sharing;  // query heads, and how many of them share a key head
  int64_t queries, dim, value_dim;
  int64_t most_rows, most_columns;
  float scale_of_base_2, scale;
  Matrix q, k, v, extra_k, extra_v, out;
  Matrix grad_out, grad_q, grad_k, grad_v, grad_extra_k, grad_extra_v;
};

// Where a tile's operands lie.
struct Place {
  const Call& call;
  const Tile& tile;
  int64_t batch, head, shared, width;
  Place(const Call& call, const Tile& tile)
      : call(call), tile(tile), batch(tile.group / call.heads), head(tile.group % call.heads),
        shared(head / call.sharing), width(padded(tile.rows)) {}
  float* query(const Matrix& x) const { return row_of(x, batch, head, tile.start); }
  float* log_total() const { return call.log_total + tile.group * call.queries + tile.start; }

  // Call `work(row, count, column, is_extra)` for what of each segment lies in columns lo to hi.
  template <class Work>
  void segments(int64_t lo, int64_t hi, Work work) const {
    for (int64_t s = tile.segments; s < tile.segments_end; ++s) {
      const Segment& one = call.segments[s];
      const int64_t from = std::max(lo, one.column), to = std::min(hi, one.column + one.count);
      if (from < to) work(one.row + from - one.column, to - from, from - lo, one.is_extra != 0);
    }
  }
  const float* key(bool is_extra, int64_t row) const {
    return row_of(is_extra ? call.extra_k : call.k, batch, shared, row);
  }
  const float* value(bool is_extra, int64_t row) const {
    return row_of(is_extra ? call.extra_v : call.v, batch, shared, row);
  }
  int64_t to_key(bool is_extra) const { return (is_extra ? call.extra_k : call.k).to_row; }
  int64_t to_value(bool is_extra) const { return (is_extra ? call.extra_v : call.v).to_row; }
};

// [rows, dim] to [dim, width], the rest zeros.
static void transpose(const Place& at, const Matrix& x, int64_t dim, float* to) {
  const float* from = at.query(x);
  for (int64_t i = 0; i < at.tile.rows; ++i)
    for (int64_t d = 0; d < dim; ++d) to[d * at.width + i] = from[i * x.to_row + d];
  for (int64_t d = 0; d < dim; ++d)
    for (int64_t i = at.tile.rows; i < at.width; ++i) to[d * at.width + i] = 0.0f;
}

// Give what columns lo to hi hide the least score.
static void hide(const Place& at, int64_t lo, int64_t hi, float* scores) {
  for (int64_t m = at.tile.masks; m < at.tile.masks_end; ++m) {
    const Mask& mask = at.call.masks[m];
    const uint8_t* hidden = reinterpret_cast<const uint8_t*>(mask.at);
    for (int64_t c = std::max(lo, mask.lo); c < std::min(hi, mask.hi); ++c) {
      const uint8_t* column = hidden + (c - mask.lo) * mask.to_column;
      float* of = scores + (c - lo) * at.width;
      if (mask.to_row) {
        for (int64_t r = 0; r < at.tile.rows; ++r) of[r] = column[r * mask.to_row] ? LEAST : of[r];
      } else if (*column) {
        std::fill_n(of, at.width, LEAST);
      }
    }
  }
}

// Scores of columns lo to hi, transposed and in base 2: [hi - lo, width].
static void scores_of(const Place& at, int64_t lo, int64_t hi, const float* queries,
                      float* scores) {
  at.segments(lo, hi, [&](int64_t row, int64_t count, int64_t column, bool is_extra) {
    product<false>(at.key(is_extra, row), at.to_key(is_extra), queries, at.width,
                   scores + column * at.width, at.width, count, at.width, at.call.dim,
                   at.call.scale_of_base_2, false);
  });
  hide(at, lo, hi, scores);
}

// Multiply the output's rows.
static void multiply(const Place& at, const float* factors) {
  for (int64_t r = 0; r < at.tile.rows; ++r) {
    float* out = at.query(at.call.out) + r * at.call.out.to_row;
    for (int64_t d = 0; d < at.call.value_dim; ++d) out[d] *= factors[r];
  }
}

static void forward_tile(const Place& at, float* queries, float* scores, float* peaks,
                         float* totals, float* factors) {
  const Call& call = at.call;
  const int64_t width = at.width, columns = at.tile.columns;
  transpose(at, call.q, call.dim, queries);
  std::fill_n(peaks, width, LEAST);
  std::fill_n(totals, width, 0.0f);
  for (int64_t lo = 0; lo < columns; lo += COLUMNS) {
    const int64_t hi = std::min(columns, lo + COLUMNS), count = hi - lo;
    scores_of(at, lo, hi, queries, scores);
    for (int64_t r = 0; r < width; r += LANES) {
      const vec before = load(peaks + r);
      vec peak = before, sum = {};
      for (int64_t c = 0; c < count; ++c) {
        const vec x = load(scores + c * width + r);
        peak = x > peak ? x : peak;
      }
      for (int64_t c = 0; c < count; ++c) {
        const vec x = exp2_of(load(scores + c * width + r) - peak);
        store(scores + c * width + r, x);
        sum += x;
      }
      const vec factor = exp2_of(before - peak);
      store(peaks + r, peak);
      store(factors + r, factor);
      store(totals + r, load(totals + r) * factor + sum);
    }
    if (lo) multiply(at, factors);
    at.segments(lo, hi, [&](int64_t row, int64_t size, int64_t column, bool is_extra) {
      product<true>(scores + column * width, width, at.value(is_extra, row), at.to_value(is_extra),
                    at.query(call.out), call.out.to_row, at.tile.rows, call.value_dim, size, 1.0f,
                    lo || column);
    });
  }
  for (int64_t r = 0; r < at.tile.rows; ++r) {
    float total = totals[r];
    if (call.sink) total += std::exp2(call.sink[at.head] - peaks[r]);
    if (!columns || (call.may_be_empty && peaks[r] <= LEAST))
      total = std::numeric_limits<float>::infinity();  // divided by it, the output is zero
    factors[r] = 1.0f / total;
    if (call.log_total) at.log_total()[r] = peaks[r] + std::log2(total);
    if (!columns) std::fill_n(at.query(call.out) + r * call.out.to_row, call.value_dim, 0.0f);
  }
  multiply(at, factors);
}

static void backward_tile(const Place& at, int64_t part, float* queries, float* grads,
                          float* scores, float* weights, float* totals, float* means) {
  const Call& call = at.call;
  const int64_t width = at.width, columns = at.tile.columns;
  transpose(at, call.q, call.dim, queries);
  transpose(at, call.grad_out, call.value_dim, grads);
  const float* grad_out = at.query(call.grad_out);
  for (int64_t r = 0; r < width; ++r) {  // of rows that are not there nothing is added
    totals[r] = r < at.tile.rows ? at.log_total()[r] : std::numeric_limits<float>::infinity();
    means[r] = 0.0f;
  }
  for (int64_t r = 0; r < at.tile.rows; ++r)  // the sum of P∘dP over a row is that of O∘dO
    for (int64_t d = 0; d < call.value_dim; ++d)
      means[r] += at.query(call.out)[r * call.out.to_row + d] *
                  grad_out[r * call.grad_out.to_row + d];
  if (!columns)
    for (int64_t r = 0; r < at.tile.rows; ++r)
      std::fill_n(at.query(call.grad_q) + r * call.grad_q.to_row, call.dim, 0.0f);
  for (int64_t lo = 0; lo < columns; lo += COLUMNS) {
    const int64_t hi = std::min(columns, lo + COLUMNS), count = hi - lo;
    scores_of(at, lo, hi, queries, weights);
    at.segments(lo, hi, [&](int64_t row, int64_t size, int64_t column, bool is_extra) {
      product<false>(at.value(is_extra, row), at.to_value(is_extra), grads, width,
                     scores + column * width, width, size, width, call.value_dim, 1.0f, false);
    });
    for (int64_t r = 0; r < width; r += LANES) {
      const vec total = load(totals + r), mean = load(means + r);
      for (int64_t c = 0; c < count; ++c) {
        float* of_weights = weights + c * width + r;
        float* of_scores = scores + c * width + r;
        const vec weight = exp2_of(load(of_weights) - total);
        store(of_weights, weight);
        store(of_scores, weight * (load(of_scores) - mean));  // dS = P∘(dP − mean)
      }
    }
    at.segments(lo, hi, [&](int64_t row, int64_t size, int64_t column, bool is_extra) {
      const Matrix& grad_k = is_extra ? call.grad_extra_k : call.grad_k;
      const Matrix& grad_v = is_extra ? call.grad_extra_v : call.grad_v;
      const float* of_scores = scores + column * width;
      product<true>(of_scores, width, at.key(is_extra, row), at.to_key(is_extra),
                    at.query(call.grad_q), call.grad_q.to_row, at.tile.rows, call.dim, size,
                    call.scale, lo || column);
      product<false>(of_scores, width, at.query(call.q), call.q.to_row,
                     row_of(grad_k, part, 0, row), grad_k.to_row, size, call.dim, at.tile.rows,
                     call.scale, true);
      product<false>(weights + column * width, width, grad_out, call.grad_out.to_row,
                     row_of(grad_v, part, 0, row), grad_v.to_row, size, call.value_dim,
                     at.tile.rows, 1.0f, true);
    });
  }
}

extern "C" int64_t size_of_call() { return sizeof(Call); }

extern "C" void attend_forward(const Call* call, int threads) {
  const int64_t width = padded(call->most_rows);
  const int64_t columns = std::min(COLUMNS, call->most_columns);
#pragma omp parallel num_threads(threads)
  {
    Buffer buffer(width * (call->dim + columns + 3));
    float *queries = buffer.take(width * call->dim), *scores = buffer.take(width * columns);
    float *peaks = buffer.take(width), *totals = buffer.take(width), *factors = buffer.take(width);
#pragma omp for schedule(dynamic, 1)
    for (int64_t t = 0; t < call->num_tiles; ++t)
      forward_tile(Place(*call, call->tiles[t]), queries, scores, peaks, totals, factors);
  }
}

extern "C" void attend_backward(const Call* call, int threads) {
  const int64_t width = padded(call->most_rows);
  const int64_t columns = std::min(COLUMNS, call->most_columns);
#pragma omp parallel num_threads(threads)
  {
    Buffer buffer(width * (call->dim + call->value_dim + 2 * columns + 2));
    float *queries = buffer.take(width * call->dim), *grads = buffer.take(width * call->value_dim);
    float *scores = buffer.take(width * columns), *weights = buffer.take(width * columns);
    float *totals = buffer.take(width), *means = buffer.take(width);
#pragma omp for schedule(dynamic, 1)
    for (int64_t p = 0; p < call->num_parts; ++p)
      for (int64_t t = call->parts[p]; t < call->parts[p + 1]; ++t)
        backward_tile(Place(*call, call->tiles[t]), p, queries, grads, scores, weights, totals,
                      means);
  }
}
