/* The CPU device: opening, buffers, running programs, the profile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/alloc.h"
#include "base/diag.h"
#include "cpu.h"

/* By level. "avx512" asked for is the best of them that the processor has. */
static const char *const isa_names[] = {"scalar",     "avx2",       "avx512f",
                                        "avx512vnni", "avx512vbmi", "avx512"};

static const lqt__cpu_kernels *kernels_of(lqt__cpu_isa isa) {
#if defined(__x86_64__)
  if (isa >= LQT__CPU_AVX512F) return &lqt__cpu_kernels_avx512;
  if (isa == LQT__CPU_AVX2) return &lqt__cpu_kernels_avx2;
#else
  (void)isa;
#endif
  return &lqt__cpu_kernels_scalar;
}

/* The processor's own name, without the blanks that pad it. */
static void processor_name(char out[64]) {
  snprintf(out, 64, "CPU");
#if defined(__x86_64__)
  unsigned r[12];
  for (unsigned i = 0; i < 3; i++) {
    if (!__get_cpuid(0x80000002u + i, &r[i * 4], &r[i * 4 + 1], &r[i * 4 + 2], &r[i * 4 + 3])) {
      return;
    }
  }
  char text[49];
  memcpy(text, r, 48);
  text[48] = '\0';
  size_t start = strspn(text, " "), length = strlen(text);
  while (length > start && text[length - 1] == ' ') text[--length] = '\0';
  if (length > start) snprintf(out, 64, "%s", text + start);
#endif
}

static void fill_info(lqt_device_info *info, bool oracle, lqt__cpu_isa isa, unsigned threads) {
  char name[64];
  processor_name(name);
  memset(info, 0, sizeof *info);
  snprintf(info->backend, sizeof info->backend, "cpu");
  snprintf(info->name, sizeof info->name, "%s (%s)", name, oracle ? "oracle" : isa_names[isa]);
  snprintf(info->selector, sizeof info->selector, oracle ? "cpu-oracle" : "cpu");
  long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  info->memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
  info->threads = threads;
  info->activation = LQT_DTYPE_F32;
}

static size_t device_count(const char **out_reason) {
  *out_reason = "";
  return 1;
}

static lqt_status device_describe(size_t index, lqt_device_info *out_info) {
  if (index != 0) return LQT_OUT_OF_RANGE;
  fill_info(out_info, false, lqt__cpu_best_isa(), lqt__core_count());
  return LQT_OK;
}

static lqt_status choose_isa(const char *wanted, lqt__cpu_isa *out, lqt_diag *diag) {
  lqt__cpu_isa best = lqt__cpu_best_isa();
  *out = best;
  if (wanted == NULL || wanted[0] == '\0') return LQT_OK;
  for (int i = 0; i <= LQT__CPU_AVX512; i++) {
    if (strcmp(wanted, isa_names[i]) != 0) continue;
    if (i == LQT__CPU_AVX512 && best >= LQT__CPU_AVX512F) return LQT_OK;
    if (i > (int)best) {
      return lqt__fail(diag, LQT_DEVICE_NOT_AVAILABLE, "cpu",
                       "this processor has no %s; its best instruction set is %s", wanted,
                       isa_names[best]);
    }
    *out = (lqt__cpu_isa)i;
    return LQT_OK;
  }
  return lqt__fail(diag, LQT_INVALID_ARGUMENT, "cpu",
                   "unknown instruction set '%s'; there are scalar, avx2, avx512 and its parts "
                   "avx512f, avx512vnni and avx512vbmi",
                   wanted);
}

static lqt_status device_open(const char *rest, const lqt_device_options *options,
                              lqt_device **out_device, lqt_diag *diag) {
  bool oracle = strcmp(rest, "-oracle") == 0;
  if (!oracle && rest[0] != '\0') {
    return lqt__fail(diag, LQT_DEVICE_NOT_AVAILABLE, "cpu",
                     "there is no device 'cpu%s'; use cpu or cpu-oracle", rest);
  }
  if (options->threads > 4096) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "cpu", "%u threads are more than 4096",
                     options->threads);
  }
  lqt__cpu_isa isa = LQT__CPU_SCALAR;
  const char *wanted = options->isa != NULL ? options->isa : getenv("LQT_CPU_ISA");
  if (!oracle) LQT__TRY(choose_isa(wanted, &isa, diag));
  unsigned threads = options->threads != 0 ? options->threads : lqt__core_count();
  if (oracle) threads = 1;
  lqt__cpu_device *device = lqt__alloc_zero(sizeof *device);
  if (device == NULL) return lqt__fail_memory(diag, "cpu", sizeof *device, "device");
  /* A pool of one thread starts none, but holds the scratch of the fast products. */
  device->pool = lqt__pool_create(threads);
  if (device->pool == NULL) {
    lqt__free(device);
    return lqt__fail(diag, LQT_OUT_OF_MEMORY, "cpu", "cannot start %u threads", threads);
  }
  pthread_mutex_init(&device->mutex, NULL);
  device->oracle = oracle;
  device->exact = options->exact;
  device->isa = isa;
  device->kernels = kernels_of(isa);
  fill_info(&device->base.info, oracle, isa, threads);
  *out_device = &device->base;
  return LQT_OK;
}

static void device_close(lqt_device *base) {
  lqt__cpu_device *device = lqt__cpu_device_of(base);
  lqt__pool_destroy(device->pool);
  pthread_mutex_destroy(&device->mutex);
  lqt__free(device->scratch);
  lqt__free(device->side);
  lqt__free(device->angles.values);
  lqt__free(device->angles.positions);
  lqt__free(device->angles.frequencies);
  lqt__profile_destroy(&device->profile);
  lqt__free(device);
}

static void *grown(float **block, size_t *size, size_t bytes) {
  if (bytes <= *size) return *block;
  lqt__free(*block);
  *size = 0;
  *block = lqt__alloc_aligned(bytes, 64);
  if (*block != NULL) *size = bytes;
  return *block;
}

void *lqt__cpu_scratch(lqt__cpu_device *device, size_t bytes) {
  return grown(&device->scratch, &device->scratch_bytes, bytes);
}

void *lqt__cpu_side_scratch(lqt__cpu_device *device, size_t bytes) {
  return grown(&device->side, &device->side_bytes, bytes);
}

static lqt_status buffer_create(lqt_device *device, uint64_t bytes, lqt_buffer **out,
                                lqt_diag *diag) {
  (void)device;
  lqt__cpu_buffer *buffer = lqt__alloc_zero(sizeof *buffer);
  if (buffer == NULL) return lqt__fail_memory(diag, "cpu", sizeof *buffer, "a buffer");
  buffer->data = lqt__alloc_aligned(bytes, 64);
  if (buffer->data == NULL) {
    lqt__free(buffer);
    return lqt__fail_memory(diag, "cpu", bytes, "a buffer");
  }
  *out = &buffer->base;
  return LQT_OK;
}

static void buffer_destroy(lqt_buffer *base) {
  lqt__cpu_buffer *buffer = (lqt__cpu_buffer *)base;
  lqt__free(buffer->data);
  lqt__free(buffer);
}

static lqt_status buffer_write(lqt_buffer *base, uint64_t offset, const void *data, uint64_t bytes,
                               lqt_diag *diag) {
  (void)diag;
  memcpy(((lqt__cpu_buffer *)base)->data + offset, data, bytes);
  return LQT_OK;
}

static lqt_status buffer_read(lqt_buffer *base, uint64_t offset, void *data, uint64_t bytes,
                              lqt_diag *diag) {
  (void)diag;
  memcpy(data, ((lqt__cpu_buffer *)base)->data + offset, bytes);
  return LQT_OK;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static lqt_status run_op(lqt__cpu_device *device, const lqt_op *op, lqt_diag *diag) {
  const lqt_view *activation = &op->out[0];
  if (op->kind == LQT_OP_KV_WRITE) activation = &op->in[0];
  if (activation->dtype != LQT_DTYPE_F32) {
    return lqt__fail(diag, LQT_UNSUPPORTED, lqt_op_name(op->kind),
                     "the CPU backend computes with f32 activations, not %s",
                     lqt_dtype_name(activation->dtype));
  }
  LQT__TRY(lqt__cpu_check_indices(op, diag));
  if (op->kind == LQT_OP_TOPK) {
    lqt__cpu_topk(op);
    return LQT_OK;
  }
  if (device->oracle) return lqt__cpu_oracle_op(device, op, diag);
  switch (op->kind) {
    case LQT_OP_MATMUL:
      return lqt__cpu_matmul(device, op, diag);
    case LQT_OP_ATTENTION:
      return lqt__cpu_attention_op(device, op, diag);
    default:
      return lqt__cpu_vector_op(device, op, diag);
  }
}

static lqt_status run(lqt_device *base, const lqt_op *ops, size_t count, lqt_diag *diag) {
  lqt__cpu_device *device = lqt__cpu_device_of(base);
  pthread_mutex_lock(&device->mutex);
  lqt_status status = LQT_OK;
  double start = device->profile.on ? now() : 0;
  for (size_t i = 0; i < count && status == LQT_OK; i++) {
    status = run_op(device, &ops[i], diag);
    if (!device->profile.on) continue;
    double end = now();
    lqt__profile_add(&device->profile, &ops[i], end - start);
    start = end;
  }
  pthread_mutex_unlock(&device->mutex);
  return status;
}

static const char *variant(lqt_device *base, const lqt_op *op) {
  lqt__cpu_device *device = lqt__cpu_device_of(base);
  if (device->oracle) return "lqt_oracle__scalar";
  if (op->kind == LQT_OP_MATMUL && op->weight[0] != NULL) {
    const lqt__cpu_weight *weight = lqt__cpu_weight_of(op->weight[0]);
    if (weight->fast != NULL) return lqt__cpu_fast_variant(weight->fast, op->in[0].rows);
  }
  static const char *const names[LQT_OP_COUNT_][3] = {
#define NAMES(kind, name) [kind] = {name "__scalar", name "__avx2", name "__avx512"}
      NAMES(LQT_OP_EMBED, "lqt_embed_any_f32"),
      NAMES(LQT_OP_RMSNORM, "lqt_rmsnorm_f32"),
      NAMES(LQT_OP_LAYERNORM, "lqt_layernorm_f32"),
      NAMES(LQT_OP_MATMUL, "lqt_matmul_any_f32"),
      NAMES(LQT_OP_ROPE, "lqt_rope_f32"),
      NAMES(LQT_OP_KV_WRITE, "lqt_kv_write_f32"),
      NAMES(LQT_OP_ATTENTION, "lqt_attention_f32"),
      NAMES(LQT_OP_GLU, "lqt_glu_f32"),
      NAMES(LQT_OP_ACT, "lqt_act_f32"),
      NAMES(LQT_OP_ADD, "lqt_add_f32"),
      NAMES(LQT_OP_GATHER, "lqt_gather_f32"),
      NAMES(LQT_OP_DEQUANT, "lqt_dequant_any_f32"),
      [LQT_OP_TOPK] = {"lqt_topk_f32__scalar", "lqt_topk_f32__scalar", "lqt_topk_f32__scalar"},
#undef NAMES
  };
  if (op->kind <= 0 || op->kind >= LQT_OP_COUNT_) return "";
  return names[op->kind][device->isa < LQT__CPU_AVX512F ? device->isa : 2];
}

static void profile_enable(lqt_device *base, bool on) {
  lqt__cpu_device *device = lqt__cpu_device_of(base);
  pthread_mutex_lock(&device->mutex);
  device->profile.on = on;
  pthread_mutex_unlock(&device->mutex);
}

static size_t profile_take(lqt_device *base, lqt_profile_entry *out, size_t capacity) {
  lqt__cpu_device *device = lqt__cpu_device_of(base);
  pthread_mutex_lock(&device->mutex);
  const size_t count = lqt__profile_take(&device->profile, out, capacity);
  pthread_mutex_unlock(&device->mutex);
  return count;
}

const lqt_backend *lqt_backend_cpu(void) {
  static const lqt_backend backend = {
      .abi = LQT_BACKEND_ABI,
      .size = sizeof(lqt_backend),
      .name = "cpu",
      .device_count = device_count,
      .device_describe = device_describe,
      .device_open = device_open,
      .device_close = device_close,
      .buffer_create = buffer_create,
      .buffer_destroy = buffer_destroy,
      .buffer_write = buffer_write,
      .buffer_read = buffer_read,
      .weight_create = lqt__cpu_weight_create,
      .weight_destroy = lqt__cpu_weight_destroy,
      .weight_patch = lqt__cpu_weight_patch,
      .run = run,
      .variant = variant,
      .profile_enable = profile_enable,
      .profile_take = profile_take,
      .patch_create = lqt__cpu_patch_create,
      .patch_wait = lqt__cpu_patch_wait,
      .patch_flip = lqt__cpu_patch_flip,
      .patch_destroy = lqt__cpu_patch_destroy,
      .weight_digest = lqt__cpu_weight_digest,
      .optional_ops = 1u << LQT_OP_TOPK,
  };
  return &backend;
}
