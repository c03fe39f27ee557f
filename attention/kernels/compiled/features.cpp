// Linear attention φ(Q)(φ(K)ᵀV) in float32, forward and backward: what
// `attention.kernels.linear.tiled` does by torch's products, a group of queries and keys a thread.
//
// Features are kept transposed, a row a feature and a lane a token, for a chunk of tokens at a
// time: what is common to a query's features is taken off down the rows, and all products read
// their operands as they lie. Logits and stabilisers are in base 2.

#include "products.h"

constexpr int64_t CHUNK = 64;  // tokens
constexpr float INFINITE = std::numeric_limits<float>::infinity();

struct FeatureCall {
  const float* omega;         // [rank, dim], times all that makes logits, in base 2
  const float* plain_omega;   // [rank, dim], times the scale of the inputs
  const uint8_t* hidden;      // [groups, keys], not 0 = takes no part; or null
  float* inverse;             // [groups, queries]; forward: written
  float* sums;                // [groups, rank, dim of values + 1]: S and z of all keys
  float* tops;                // [groups, chunks + 1, rank]: stabilisers before each chunk, and last
  int64_t groups, heads, queries, keys, rank, dim, value_dim;
  int64_t is_causal, is_exponential, keeps;  // keeps: whether a backward pass will follow
  float epsilon, norm, square_scale, least_total;
  Matrix q, k, v, out, grad_out, grad_q, grad_k, grad_v;
};

// Of one group: where its tensors lie, and a thread's buffers.
struct Group {
  const FeatureCall& call;
  int64_t group, batch, head, rank, dim, value_dim;
  float *inputs, *phi_q, *phi_k, *grad_phi, *square, *g, *dden, *s, *z, *top, *later_s, *later_z;

  static int64_t floats(const FeatureCall& c) {
    return CHUNK * (std::max({c.dim, c.value_dim, CHUNK}) + 3 * c.rank + CHUNK + 2 * c.value_dim + 1) +
           2 * c.rank * (c.value_dim + 1) + c.rank + 8 * LANES;
  }
  Group(const FeatureCall& call, Buffer& buffer)
      : call(call), group(0), batch(0), head(0), rank(call.rank), dim(call.dim),
        value_dim(call.value_dim) {
    inputs = buffer.take(CHUNK * std::max({dim, value_dim, CHUNK}));
    phi_q = buffer.take(CHUNK * rank);
    phi_k = buffer.take(CHUNK * rank);
    grad_phi = buffer.take(CHUNK * rank);
    square = buffer.take(CHUNK * CHUNK);
    g = buffer.take(CHUNK * value_dim);
    dden = buffer.take(CHUNK);
    s = buffer.take(rank * value_dim);
    z = buffer.take(rank);
    top = buffer.take(rank);
    later_s = buffer.take(rank * value_dim);
    later_z = buffer.take(rank);
  }
  void begin(int64_t of) {
    group = of;
    batch = of / call.heads;
    head = of % call.heads;
  }
  float* at(const Matrix& x, int64_t row) const { return row_of(x, batch, head, row); }
  bool is_hidden(int64_t key) const {
    return call.hidden && call.hidden[group * call.keys + key];
  }
  float* kept_tops(int64_t chunk) const {
    const int64_t length = std::min(call.queries, call.keys);
    const int64_t chunks = call.is_causal ? (length + CHUNK - 1) / CHUNK : 0;
    return call.tops + (group * (chunks + 1) + chunk) * rank;
  }
  void no_sums() {
    std::fill_n(s, rank * value_dim, 0.0f);
    std::fill_n(z, rank, 0.0f);
    std::fill_n(top, rank, call.is_exponential ? LEAST : 0.0f);
  }
};

// [rows, dim] to [dim, padded rows], the rest zeros.
static void transpose_rows(const float* from, int64_t to_row, int64_t rows, int64_t dim,
                           float* to) {
  const int64_t width = padded(rows);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t d = 0; d < dim; ++d) to[d * width + i] = from[i * to_row + d];
  for (int64_t d = 0; d < dim; ++d)
    for (int64_t i = rows; i < width; ++i) to[d * width + i] = 0.0f;
}

static inline float sum_of(vec x) {
  float sum = 0.0f;
  for (int i = 0; i < LANES; ++i) sum += x[i];
  return sum;
}

// φ of a chunk of queries: [rank, width]; each query's largest feature is 1.
static void query_features(Group& at, int64_t row, int64_t rows) {
  const FeatureCall& call = at.call;
  const int64_t width = padded(rows);
  transpose_rows(at.at(call.q, row), call.q.to_row, rows, at.dim, at.inputs);
  product<false>(call.omega, at.dim, at.inputs, width, at.phi_q, width, at.rank, width, at.dim,
                 1.0f, false);
  for (int64_t t = 0; t < width; t += LANES) {
    if (!call.is_exponential) {
      for (int64_t r = 0; r < at.rank; ++r) {
        float* phi = at.phi_q + r * width + t;
        const vec x = load(phi);
        store(phi, (x < 0.0f ? vec{} : x) + call.epsilon);
      }
      continue;
    }
    vec peak = all(-INFINITE);
    for (int64_t r = 0; r < at.rank; ++r) {
      float* phi = at.phi_q + r * width + t;
      const vec x = load(phi) + at.top[r];
      store(phi, x);
      peak = x > peak ? x : peak;
    }
    for (int64_t r = 0; r < at.rank; ++r) {
      float* phi = at.phi_q + r * width + t;
      store(phi, exp2_of(load(phi) - peak));
    }
  }
}

// φ of a chunk of keys, divided by the stabilisers: [rank, width]; 0 of keys that take no part.
// Where they are raised, the sums shrink with them.
static void key_features(Group& at, int64_t row, int64_t rows, bool raise) {
  const FeatureCall& call = at.call;
  const int64_t width = padded(rows);
  const float* keys = at.at(call.k, row);
  transpose_rows(keys, call.k.to_row, rows, at.dim, at.inputs);
  product<false>(call.omega, at.dim, at.inputs, width, at.phi_k, width, at.rank, width, at.dim,
                 1.0f, false);
  alignas(64) float less[CHUNK], seen[CHUNK];
  for (int64_t t = 0; t < width; ++t) {
    const bool takes_part = t < rows && !at.is_hidden(row + t);
    seen[t] = takes_part ? 1.0f : 0.0f;
    less[t] = takes_part ? 0.0f : INFINITE;
    if (!takes_part || !call.is_exponential) continue;
    for (int64_t d = 0; d < at.dim; ++d) {
      const float x = keys[t * call.k.to_row + d];
      less[t] += x * x;
    }
    less[t] *= call.norm;
  }
  for (int64_t r = 0; r < at.rank; ++r) {
    float* phi = at.phi_k + r * width;
    if (!call.is_exponential) {
      for (int64_t t = 0; t < width; t += LANES) {
        const vec x = load(phi + t);
        store(phi + t, ((x < 0.0f ? vec{} : x) + call.epsilon) * load(seen + t));
      }
      continue;
    }
    vec peak = all(LEAST);
    for (int64_t t = 0; t < width; t += LANES) {
      const vec x = load(phi + t) - load(less + t);
      store(phi + t, x);
      peak = x > peak ? x : peak;
    }
    if (raise) {
      float most = at.top[r];
      for (int i = 0; i < LANES; ++i) most = peak[i] > most ? peak[i] : most;
      if (most > at.top[r]) {
        const float factor = std::exp2(at.top[r] - most);
        at.z[r] *= factor;
        float* sums = at.s + r * at.value_dim;
        for (int64_t d = 0; d < at.value_dim; ++d) sums[d] *= factor;
        at.top[r] = most;
      }
    }
    const vec top = all(at.top[r]);
    for (int64_t t = 0; t < width; t += LANES) store(phi + t, exp2_of(load(phi + t) - top));
  }
}

// Add the features of a chunk of keys, and of their values, to the sums.
static void add_keys(Group& at, int64_t row, int64_t rows) {
  const int64_t width = padded(rows);
  const Matrix& v = at.call.v;
  product<false>(at.phi_k, width, at.at(v, row), v.to_row, at.s, at.value_dim, at.rank,
                 at.value_dim, rows, 1.0f, true);
  for (int64_t r = 0; r < at.rank; ++r) {
    vec sum = {};
    for (int64_t t = 0; t < width; t += LANES) sum += load(at.phi_k + r * width + t);
    at.z[r] += sum_of(sum);
  }
}

// [keys, queries] of a chunk: φ(k)·φ(q), or any product over features; 0 where a key is later.
static void square_of(Group& at, int64_t rows) {
  const int64_t width = padded(rows);
  product<true>(at.phi_k, width, at.phi_q, width, at.square, width, rows, width, at.rank, 1.0f,
                false);
  for (int64_t j = 0; j < rows; ++j) std::fill_n(at.square + j * width, j, 0.0f);
}

// Read the sums for a chunk of queries, and the keys of the chunk itself.
static void read_sums(Group& at, int64_t row, int64_t rows, int64_t key, bool with_square) {
  const FeatureCall& call = at.call;
  const int64_t width = padded(rows);
  float* out = at.at(call.out, row);
  product<true>(at.phi_q, width, at.s, at.value_dim, out, call.out.to_row, rows, at.value_dim,
                at.rank, 1.0f, false);
  alignas(64) float totals[CHUNK];
  for (int64_t t = 0; t < width; t += LANES) {
    vec total = {};
    for (int64_t r = 0; r < at.rank; ++r) total += load(at.phi_q + r * width + t) * at.z[r];
    store(totals + t, total);
  }
  if (with_square) {
    square_of(at, rows);
    product<true>(at.square, width, at.at(call.v, key), call.v.to_row, out, call.out.to_row, rows,
                  at.value_dim, rows, 1.0f, true);
    for (int64_t t = 0; t < width; t += LANES) {
      vec total = load(totals + t);
      for (int64_t j = 0; j < rows; ++j) total += load(at.square + j * width + t);
      store(totals + t, total);
    }
  }
  for (int64_t t = 0; t < rows; ++t) {
    // At most so much: it has lost its meaning to underflow, or there was no key. NaN stays.
    const float inverse = totals[t] <= call.least_total ? 0.0f : 1.0f / totals[t];
    call.inverse[at.group * call.queries + row + t] = inverse;
    for (int64_t d = 0; d < at.value_dim; ++d) out[t * call.out.to_row + d] *= inverse;
  }
}

// Gradients of numerator, [rows, value_dim], and denominator, [rows], of a chunk of queries.
static void output_gradient(Group& at, int64_t row, int64_t rows) {
  const FeatureCall& call = at.call;
  const float* grad = at.at(call.grad_out, row);
  const float* out = at.at(call.out, row);
  for (int64_t t = 0; t < padded(rows); ++t) {
    at.dden[t] = 0.0f;
    if (t >= rows) continue;
    const float inverse = call.inverse[at.group * call.queries + row + t];
    for (int64_t d = 0; d < at.value_dim; ++d) {
      const float x = grad[t * call.grad_out.to_row + d] * inverse;
      at.g[t * at.value_dim + d] = x;
      at.dden[t] -= x * out[t * call.out.to_row + d];
    }
  }
}

// Turn the gradient of φ into that of the inputs of a chunk.
static void input_gradient(Group& at, const float* phi, const Matrix& to, int64_t row,
                           int64_t rows, bool is_key) {
  const FeatureCall& call = at.call;
  const int64_t width = padded(rows);
  alignas(64) float sums[CHUNK];
  for (int64_t t = 0; t < width; t += LANES) {
    vec sum = {};
    for (int64_t r = 0; r < at.rank; ++r) {
      const vec x = load(phi + r * width + t), grad = load(at.grad_phi + r * width + t);
      const vec made = call.is_exponential ? grad * x : (x > call.epsilon ? grad : vec{});
      store(at.grad_phi + r * width + t, made);
      sum += made;
    }
    store(sums + t, sum);
  }
  float* target = at.at(to, row);
  product<true>(at.grad_phi, width, call.plain_omega, at.dim, target, to.to_row, rows, at.dim,
                at.rank, 1.0f, false);
  for (int64_t t = 0; t < rows; ++t) {
    float* into = target + t * to.to_row;
    if (is_key && at.is_hidden(row + t)) {
      std::fill_n(into, at.dim, 0.0f);
    } else if (is_key && call.is_exponential) {
      const float* keys = at.at(call.k, row + t);
      for (int64_t d = 0; d < at.dim; ++d) into[d] -= keys[d] * call.square_scale * sums[t];
    }
  }
}

// Add S·gᵀ + z·dden, or the same of later sums and values, to the gradient of φ: [rank, width].
static void feature_gradient(Group& at, const float* sums, const float* totals, const float* rows_,
                             int64_t to_row, const float* dden, int64_t rows, bool add) {
  const int64_t width = padded(rows);
  transpose_rows(rows_, to_row, rows, at.value_dim, at.inputs);
  product<false>(sums, at.value_dim, at.inputs, width, at.grad_phi, width, at.rank, width,
                 at.value_dim, 1.0f, add);
  for (int64_t r = 0; r < at.rank; ++r)
    for (int64_t t = 0; t < width; t += LANES) {
      float* grad = at.grad_phi + r * width + t;
      store(grad, load(grad) + totals[r] * (dden ? load(dden + t) : all(1.0f)));
    }
}

// Add the gradients of a chunk of queries to those of the sums.
static void add_later(Group& at, int64_t rows) {
  const int64_t width = padded(rows);
  product<false>(at.phi_q, width, at.g, at.value_dim, at.later_s, at.value_dim, at.rank,
                 at.value_dim, rows, 1.0f, true);
  for (int64_t r = 0; r < at.rank; ++r) {
    vec sum = {};
    for (int64_t t = 0; t < width; t += LANES)
      sum += load(at.phi_q + r * width + t) * load(at.dden + t);
    at.later_z[r] += sum_of(sum);
  }
}

// Write the gradients of keys that every query behind the later sums sees.
static void whole_keys_gradient(Group& at, int64_t row, int64_t rows) {
  const FeatureCall& call = at.call;
  const int64_t width = padded(rows);
  key_features(at, row, rows, false);
  product<true>(at.phi_k, width, at.later_s, at.value_dim, at.at(call.grad_v, row),
                call.grad_v.to_row, rows, at.value_dim, at.rank, 1.0f, false);
  feature_gradient(at, at.later_s, at.later_z, at.at(call.v, row), call.v.to_row, nullptr, rows,
                   false);
  input_gradient(at, at.phi_k, call.grad_k, row, rows, true);
}

// dO·Vᵀ + dden within a chunk: [keys, queries], 0 where a key is later.
static void square_gradient(Group& at, int64_t key, int64_t rows) {
  const int64_t width = padded(rows);
  transpose_rows(at.g, at.value_dim, rows, at.value_dim, at.inputs);
  product<false>(at.at(at.call.v, key), at.call.v.to_row, at.inputs, width, at.square, width, rows,
                 width, at.value_dim, 1.0f, false);
  for (int64_t j = 0; j < rows; ++j) {
    float* row = at.square + j * width;
    for (int64_t t = 0; t < width; t += LANES) store(row + t, load(row + t) + load(at.dden + t));
    std::fill_n(row, j, 0.0f);
    for (int64_t t = rows; t < width; ++t) row[t] = 0.0f;
  }
}

// Call `work(first, tokens)` for each chunk of `length` tokens.
template <class Work>
static void chunks(int64_t length, Work work) {
  for (int64_t at = 0; at < length; at += CHUNK) work(at, std::min(CHUNK, length - at));
}

static void absorb(Group& at, int64_t keys) {
  at.no_sums();
  chunks(keys, [&](int64_t key, int64_t rows) {
    key_features(at, key, rows, true);
    add_keys(at, key, rows);
  });
}

static void forward_group(Group& at) {
  const FeatureCall& call = at.call;
  if (!call.is_causal) {
    absorb(at, call.keys);
    chunks(call.queries, [&](int64_t row, int64_t rows) {
      query_features(at, row, rows);
      read_sums(at, row, rows, 0, false);
    });
    if (call.keeps) {
      float* kept = call.sums + at.group * at.rank * (at.value_dim + 1);
      std::copy_n(at.s, at.rank * at.value_dim, kept);
      std::copy_n(at.z, at.rank, kept + at.rank * at.value_dim);
      std::copy_n(at.top, at.rank, at.kept_tops(0));
    }
    return;
  }
  const int64_t length = std::min(call.queries, call.keys);
  const int64_t query = call.queries - length, key = call.keys - length;
  for (int64_t t = 0; t < query; ++t) {  // before the first key
    std::fill_n(at.at(call.out, t), at.value_dim, 0.0f);
    call.inverse[at.group * call.queries + t] = 0.0f;
  }
  absorb(at, key);
  if (call.keeps) std::copy_n(at.top, at.rank, at.kept_tops(0));
  chunks(length, [&](int64_t t, int64_t rows) {
    key_features(at, key + t, rows, true);
    query_features(at, query + t, rows);
    read_sums(at, query + t, rows, key + t, true);
    add_keys(at, key + t, rows);
    if (call.keeps) std::copy_n(at.top, at.rank, at.kept_tops(t / CHUNK + 1));
  });
}

static void backward_group(Group& at) {
  const FeatureCall& call = at.call;
  std::fill_n(at.later_s, at.rank * at.value_dim, 0.0f);
  std::fill_n(at.later_z, at.rank, 0.0f);
  if (!call.is_causal) {
    const float* kept = call.sums + at.group * at.rank * (at.value_dim + 1);
    std::copy_n(kept, at.rank * at.value_dim, at.s);
    std::copy_n(kept + at.rank * at.value_dim, at.rank, at.z);
    std::copy_n(at.kept_tops(0), at.rank, at.top);
    chunks(call.queries, [&](int64_t row, int64_t rows) {
      query_features(at, row, rows);
      output_gradient(at, row, rows);
      add_later(at, rows);
      feature_gradient(at, at.s, at.z, at.g, at.value_dim, at.dden, rows, false);
      input_gradient(at, at.phi_q, call.grad_q, row, rows, false);
    });
    chunks(call.keys, [&](int64_t row, int64_t rows) { whole_keys_gradient(at, row, rows); });
    return;
  }
  // S before each chunk is not kept but summed up again: dq is written on a way forward in time,
  // dk and dv on one back.
  const int64_t length = std::min(call.queries, call.keys);
  const int64_t query = call.queries - length, key = call.keys - length;
  for (int64_t t = 0; t < query; ++t) std::fill_n(at.at(call.grad_q, t), at.dim, 0.0f);
  absorb(at, key);
  chunks(length, [&](int64_t t, int64_t rows) {
    const int64_t width = padded(rows);
    key_features(at, key + t, rows, true);
    query_features(at, query + t, rows);
    output_gradient(at, query + t, rows);
    feature_gradient(at, at.s, at.z, at.g, at.value_dim, at.dden, rows, false);
    square_gradient(at, key + t, rows);
    product<false>(at.phi_k, width, at.square, width, at.grad_phi, width, at.rank, width, rows,
                   1.0f, true);
    input_gradient(at, at.phi_q, call.grad_q, query + t, rows, false);
    add_keys(at, key + t, rows);
  });
  for (int64_t chunk = (length - 1) / CHUNK; length && chunk >= 0; --chunk) {
    const int64_t t = chunk * CHUNK, rows = std::min(CHUNK, length - t), width = padded(rows);
    // Later sums multiply features that were divided by higher stabilisers where they arose.
    const float* top = at.kept_tops(chunk + 1);
    for (int64_t r = 0; r < at.rank && call.is_exponential; ++r) {
      const float factor = std::exp2(top[r] - at.top[r]);
      at.later_z[r] *= factor;
      for (int64_t d = 0; d < at.value_dim; ++d) at.later_s[r * at.value_dim + d] *= factor;
      at.top[r] = top[r];
    }
    key_features(at, key + t, rows, false);
    query_features(at, query + t, rows);
    output_gradient(at, query + t, rows);
    square_of(at, rows);
    float* grad_v = at.at(call.grad_v, key + t);
    product<false>(at.square, width, at.g, at.value_dim, grad_v, call.grad_v.to_row, rows,
                   at.value_dim, rows, 1.0f, false);
    product<true>(at.phi_k, width, at.later_s, at.value_dim, grad_v, call.grad_v.to_row, rows,
                  at.value_dim, at.rank, 1.0f, true);
    feature_gradient(at, at.later_s, at.later_z, at.at(call.v, key + t), call.v.to_row, nullptr,
                     rows, false);
    square_gradient(at, key + t, rows);
    transpose_rows(at.square, width, rows, width, at.inputs);  // [queries, keys]
    product<false>(at.phi_q, width, at.inputs, width, at.grad_phi, width, at.rank, width, rows,
                   1.0f, true);
    add_later(at, rows);
    input_gradient(at, at.phi_k, call.grad_k, key + t, rows, true);
  }
  const float* top = at.kept_tops(0);
  for (int64_t r = 0; r < at.rank && call.is_exponential; ++r) {
    const float factor = std::exp2(top[r] - at.top[r]);
    at.later_z[r] *= factor;
    for (int64_t d = 0; d < at.value_dim; ++d) at.later_s[r * at.value_dim + d] *= factor;
    at.top[r] = top[r];
  }
  chunks(key, [&](int64_t row, int64_t rows) { whole_keys_gradient(at, row, rows); });
}

extern "C" int64_t size_of_feature_call() { return sizeof(FeatureCall); }

template <class Work>
static void by_groups(const FeatureCall& call, int threads, Work work) {
#pragma omp parallel num_threads(threads)
  {
    Buffer buffer(Group::floats(call) + 12 * LANES);
    Group at(call, buffer);
#pragma omp for schedule(dynamic, 1)
    for (int64_t group = 0; group < call.groups; ++group) {
      at.begin(group);
      work(at);
    }
  }
}

extern "C" void features_forward(const FeatureCall* call, int threads) {
  by_groups(*call, threads, forward_group);
}

extern "C" void features_backward(const FeatureCall* call, int threads) {
  by_groups(*call, threads, backward_group);
}
