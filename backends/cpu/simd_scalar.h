/* One float: any processor. */
#define W 1
#define TILE_ROWS 4
typedef float vf;

static inline vf v_zero(void) { return 0.0f; }
static inline vf v_set(float x) { return x; }
static inline vf v_load(const float *p) { return *p; }
static inline void v_store(float *p, vf x) { *p = x; }
/* Never called with n > 0: there is no part of one lane. */
static inline vf v_load_n(const float *p, size_t n) { return n != 0 ? *p : 0.0f; }
static inline void v_store_n(float *p, vf x, size_t n) {
  if (n != 0) *p = x;
}
static inline vf v_add(vf a, vf b) { return a + b; }
static inline vf v_sub(vf a, vf b) { return a - b; }
static inline vf v_mul(vf a, vf b) { return a * b; }
static inline vf v_div(vf a, vf b) { return a / b; }
static inline vf v_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf v_max(vf a, vf b) { return a > b ? a : b; }
static inline vf v_min(vf a, vf b) { return a < b ? a : b; }
static inline vf v_abs(vf a) { return fabsf(a); }
/* x where low <= p <= high, else other. */
static inline vf v_keep_range(vf x, vf p, vf low, vf high, vf other) {
  return p >= low && p <= high ? x : other;
}
static inline vf v_round(vf x) { return rintf(x); }
static inline vf v_scale2(vf x, vf n) { return isnan(n) ? n : ldexpf(x, (int)n); }
static inline float v_sum(vf x) { return x; }
/* Four sums, into out[4]. */
static inline void v_sum4(vf a, vf b, vf c, vf d, float *out) {
  out[0] = a;
  out[1] = b;
  out[2] = c;
  out[3] = d;
}
static inline vf v_iota(void) { return 0.0f; }
static inline vf v_load_f16(const uint16_t *p) { return lqt__f32_from_f16(*p); }
static inline vf v_load_f16_n(const uint16_t *p, size_t n) { return n != 0 ? v_load_f16(p) : 0.0f; }
static inline vf v_load_bf16(const uint16_t *p) { return lqt__f32_from_bf16(*p); }
static inline vf v_load_bf16_n(const uint16_t *p, size_t n) {
  return n != 0 ? v_load_bf16(p) : 0.0f;
}
static inline void v_store_f16(uint16_t *p, vf x) { *p = lqt__f16_from_f32(x); }
