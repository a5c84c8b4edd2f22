/* The Vulkan backend's own types. Memory is reached by device addresses, so there are no
 * descriptors; see docs/adr for why. */
#ifndef LQT_BACKENDS_VULKAN_VULKAN_H_
#define LQT_BACKENDS_VULKAN_VULKAN_H_

#include <pthread.h>
#include <volk.h>

#include "backends/vulkan/params.h"
#include "device/profile.h"
#include "lqt/backend.h"

/* ---- VK_KHR_cooperative_matrix, which older headers than the extension lack. ---- */

#define LQT__VK_MATRIX_EXTENSION "VK_KHR_cooperative_matrix"
#define LQT__VK_MATRIX_FEATURES ((VkStructureType)1000506000)
#define LQT__VK_MATRIX_SHAPE ((VkStructureType)1000506001)
typedef struct lqt__vk_matrix_features { /* VkPhysicalDeviceCooperativeMatrixFeaturesKHR */
  VkStructureType type;
  void *next;
  VkBool32 matrices, robust;
} lqt__vk_matrix_features;
typedef struct lqt__vk_matrix_shape { /* VkCooperativeMatrixPropertiesKHR */
  VkStructureType type;
  void *next;
  uint32_t m, n, k;
  uint32_t a, b, c, result; /* 0: float16, 1: float32 */
  VkBool32 saturating;
  uint32_t scope; /* 3: subgroup */
} lqt__vk_matrix_shape;

/* ---- driver.c: the loader, the instance and its devices, once a process ---- */

#define LQT__VK_MAX_DEVICES 16

typedef struct lqt__vk_physical {
  VkPhysicalDevice handle;
  VkPhysicalDeviceProperties properties;
  VkDriverId driver;
  uint32_t subgroup_size;
  uint64_t max_allocation;
  uint64_t memory;   /* bytes of the largest device-local heap */
  const char *lacks; /* a needed feature that is missing, or NULL */
  uint32_t queue_family;
  bool matrices;            /* cooperative matrices of 16 x 8 x 16, float16 into float32 */
  uint32_t multiprocessors; /* of the device, or a guess */
  uint32_t transfer_queues; /* of the transfer family, when it is one of its own */
  uint32_t transfer_family; /* = queue_family when there is no transfer-only one */
} lqt__vk_physical;

typedef struct lqt__vk_driver {
  VkInstance instance; /* VK_NULL_HANDLE: see reason */
  lqt_status status;   /* why there is no instance */
  int32_t native;
  char reason[256];
  size_t count;
  lqt__vk_physical devices[LQT__VK_MAX_DEVICES];
} lqt__vk_driver;

/* Loads and enumerates on the first call. Threads: any. */
const lqt__vk_driver *lqt__vk_driver_get(void);
/* Device that a selector's rest (":1", ":part of a name", "") means. */
LQT_NODISCARD lqt_status lqt__vk_driver_find(const char *rest, const lqt__vk_physical **out,
                                             lqt_diag *diag);
size_t lqt__vk_device_count(const char **out_reason);
lqt_status lqt__vk_device_describe(size_t index, lqt_device_info *out_info);
void lqt__vk_physical_info(const lqt__vk_physical *physical, const char *selector,
                           lqt_device_info *out_info);
/* Validation: on when LQT_VK_VALIDATE=1 and the layer is there; messages so far. */
bool lqt__vk_validating(void);
uint64_t lqt__vk_validation_messages(void);

/* "VK_ERROR_DEVICE_LOST", ... */
const char *lqt__vk_result_name(VkResult result);
/* Fills the diag with the status that a VkResult means and a sentence about `what`. */
LQT_NODISCARD lqt_status lqt__vk_fail(lqt_diag *diag, const char *where, VkResult result,
                                      const char *what);

/* ---- memory.c: ranges of device memory out of large blocks ---- */

typedef struct lqt__vk_block lqt__vk_block;
typedef struct lqt__vk_node lqt__vk_node;
typedef struct lqt__vk_range {
  lqt__vk_block *block;
  lqt__vk_node *node;
  VkBuffer buffer;
  uint64_t offset; /* in the buffer */
  uint64_t bytes;
  VkDeviceAddress address;
  uint8_t *mapped; /* host pointer, or NULL when the host does not see it */
} lqt__vk_range;

/* A host-visible buffer of its own, for staging. */
typedef struct lqt__vk_staging {
  VkBuffer buffer;
  VkDeviceMemory memory;
  uint8_t *mapped;
  uint64_t bytes;
} lqt__vk_staging;

typedef struct lqt__vk_memory {
  pthread_mutex_t lock;
  lqt__vk_block *blocks;
  uint32_t device_type, host_type; /* memory types */
  bool direct;                     /* device memory is mapped: no staging needed */
  uint64_t block_bytes;
} lqt__vk_memory;

/* ---- pipeline.c ---- */

typedef struct lqt__vk_constant {
  uint32_t id, value;
} lqt__vk_constant;
#define LQT__VK_MAX_CONSTANTS 40
typedef struct lqt__vk_spec {
  lqt__vk_shader shader;
  uint32_t count;
  lqt__vk_constant constants[LQT__VK_MAX_CONSTANTS];
} lqt__vk_spec;

typedef struct lqt__vk_pipeline {
  lqt__vk_spec spec;
  VkPipeline handle;
} lqt__vk_pipeline;

typedef struct lqt__vk_pipelines {
  VkPipelineLayout layout;
  VkPipelineCache cache;
  uint64_t loaded; /* bytes of the cache that came from the disk */
  VkShaderModule modules[LQT__VK_SHADER_COUNT];
  lqt__vk_pipeline *slots; /* open addressing, a power of two */
  size_t capacity, used;
} lqt__vk_pipelines;

/* ---- a queue's submissions in order ---- */

typedef struct lqt__vk_context {
  VkQueue queue;
  VkCommandPool pool;
  VkCommandBuffer commands[2];
  VkSemaphore timeline;
  uint64_t submitted; /* value that the last submission signals */
} lqt__vk_context;

typedef struct lqt__vk_profile {
  VkQueryPool queries;
  lqt__profile counters;
} lqt__vk_profile;

/* What an invocation holds of a matrix; see shaders/frag.glsl. */
typedef struct lqt__vk_frag {
  bool usable;
  bool emulated; /* LQT_VK_MATRICES=emulate, for tests: products by plain arithmetic */
  uint32_t a_order, b_order, c_order;
} lqt__vk_frag;

/* The tiled order of a weight (shaders/weight.glsl); lane 0: in the order of the file. */
typedef struct lqt__vk_tiling {
  uint32_t lane, granule; /* bytes */
  uint32_t row_bytes, blocks, groups, tiles;
} lqt__vk_tiling;

typedef struct lqt__vk_device {
  lqt_device head;
  const lqt__vk_physical *physical;
  VkDevice handle;
  struct VolkDeviceTable vk;
  lqt__vk_memory memory;
  lqt__vk_pipelines pipelines;
  lqt__vk_context compute, transfer;
  lqt__vk_context copy;       /* of staged patches: waits for nobody, and only flips wait for it */
  pthread_mutex_t queue_lock; /* submissions; both contexts may share a queue */
  pthread_mutex_t transfer_lock; /* the transfer context and the staging ring */
  lqt__vk_staging staging;
  lqt__vk_staging patch_ring; /* two halves, made with the first patch */
  uint64_t patch_turn, patch_values[2];
  bool lost;
  lqt__vk_frag frag;
  bool emulate_matrices;
  uint64_t generation; /* atomic; changes whenever a buffer or weight comes or goes */
  /* The program recorded last, kept to be submitted again when the same ops come. */
  lqt_op *recorded;
  size_t recorded_count, recorded_capacity;
  uint64_t recorded_generation;
  lqt__vk_profile profile;
} lqt__vk_device;

typedef struct lqt__vk_buffer {
  lqt_buffer head;
  lqt__vk_range range;
} lqt__vk_buffer;

/* Parts of a weight in device memory; indices and group scales may be tiled (lqt__vk_tiling). */
typedef enum lqt__vk_part {
  LQT__VK_PART_BLOCK, /* lqt__vk_weight_block */
  LQT__VK_PART_DATA,
  LQT__VK_PART_RESIDUAL_DATA,
  LQT__VK_PART_BOOK,
  LQT__VK_PART_RESIDUAL_BOOK,
  LQT__VK_PART_SCALES,
  LQT__VK_PART_ZEROS,
  LQT__VK_PART_DELTA, /* both factors of a low-rank one */
  LQT__VK_PART_ROW_PTR,
  LQT__VK_PART_COLUMNS,
  LQT__VK_PART_MASK,
  LQT__VK_PART_COUNT
} lqt__vk_part;

typedef struct lqt__vk_weight {
  lqt_weight head;
  lqt__vk_range parts[LQT__VK_PART_COUNT];
  uint64_t part_bytes[LQT__VK_PART_COUNT]; /* without the room for reads past the end */
  uint32_t rows, cols;
  bool wide_chunks; /* shaders/matvec.comp, FAST */
  uint32_t constant_count;
  lqt__vk_tiling tiling;
  lqt__vk_constant constants[20]; /* of shaders/weight.glsl */
  char kind[40];                  /* "cb4g64" for the variant's name */
} lqt__vk_weight;

/* memory.c */
LQT_NODISCARD lqt_status lqt__vk_memory_create(lqt__vk_device *device, lqt_diag *diag);
void lqt__vk_memory_destroy(lqt__vk_device *device);
LQT_NODISCARD lqt_status lqt__vk_allocate(lqt__vk_device *device, uint64_t bytes,
                                          lqt__vk_range *out, lqt_diag *diag);
void lqt__vk_free(lqt__vk_device *device, lqt__vk_range *range); /* an empty range is accepted */
LQT_NODISCARD lqt_status lqt__vk_staging_create(lqt__vk_device *device, uint64_t bytes,
                                                lqt__vk_staging *out, lqt_diag *diag);
void lqt__vk_staging_destroy(lqt__vk_device *device, lqt__vk_staging *staging);

/* transfer.c */
typedef struct lqt__vk_copy {
  const lqt__vk_range *to;
  uint64_t offset;
  const void *data;
  uint64_t bytes;
} lqt__vk_copy;
LQT_NODISCARD lqt_status lqt__vk_upload(lqt__vk_device *device, const lqt__vk_range *to,
                                        uint64_t offset, const void *data, uint64_t bytes,
                                        lqt_diag *diag);
LQT_NODISCARD lqt_status lqt__vk_download(lqt__vk_device *device, const lqt__vk_range *from,
                                          uint64_t offset, void *data, uint64_t bytes,
                                          lqt_diag *diag);
/* All copies in order, in one submission: either all reach the device or none. */
LQT_NODISCARD lqt_status lqt__vk_upload_many(lqt__vk_device *device, const lqt__vk_copy *copies,
                                             size_t count, lqt_diag *diag);
lqt_status lqt__vk_buffer_create(lqt_device *device, uint64_t bytes, lqt_buffer **out,
                                 lqt_diag *diag);
void lqt__vk_buffer_destroy(lqt_buffer *buffer);
lqt_status lqt__vk_buffer_write(lqt_buffer *buffer, uint64_t offset, const void *data,
                                uint64_t bytes, lqt_diag *diag);
lqt_status lqt__vk_buffer_read(lqt_buffer *buffer, uint64_t offset, void *data, uint64_t bytes,
                               lqt_diag *diag);

/* device.c */
lqt_status lqt__vk_device_open(const char *rest, const lqt_device_options *options,
                               lqt_device **out_device, lqt_diag *diag);
void lqt__vk_device_close(lqt_device *device);
LQT_NODISCARD lqt_status lqt__vk_begin(lqt__vk_device *device, VkCommandBuffer commands, bool again,
                                       lqt_diag *diag);
/* Ends and submits; the work starts after everything that both contexts submitted before. */
LQT_NODISCARD lqt_status lqt__vk_submit(lqt__vk_device *device, lqt__vk_context *context,
                                        VkCommandBuffer commands, bool end, lqt_diag *diag);
LQT_NODISCARD lqt_status lqt__vk_wait(lqt__vk_device *device, lqt__vk_context *context,
                                      uint64_t value, lqt_diag *diag);
/* Fails with LQT_DEVICE_LOST once the device was lost; else maps the result. */
LQT_NODISCARD lqt_status lqt__vk_device_fail(lqt__vk_device *device, lqt_diag *diag,
                                             VkResult result, const char *what);
void lqt__vk_barrier(lqt__vk_device *device, VkCommandBuffer commands, VkPipelineStageFlags from,
                     VkPipelineStageFlags to);

/* cache.c: the pipeline cache's file */
LQT_NODISCARD lqt_status lqt__vk_cache_create(lqt__vk_device *device, lqt_diag *diag);
void lqt__vk_cache_save(lqt__vk_device *device);

/* pipeline.c */
LQT_NODISCARD lqt_status lqt__vk_pipelines_create(lqt__vk_device *device, lqt_diag *diag);
void lqt__vk_pipelines_destroy(lqt__vk_device *device);
void lqt__vk_spec_add(lqt__vk_spec *spec, uint32_t id, uint32_t value);
LQT_NODISCARD lqt_status lqt__vk_pipeline_get(lqt__vk_device *device, const lqt__vk_spec *spec,
                                              VkPipeline *out, lqt_diag *diag);
/* Whether there is one already. */
bool lqt__vk_pipeline_known(const lqt__vk_device *device, const lqt__vk_spec *spec);
/* Makes pipelines on several threads; equal ones are made once. */
LQT_NODISCARD lqt_status lqt__vk_pipelines_add(lqt__vk_device *device, const lqt__vk_spec *specs,
                                               size_t count, lqt_diag *diag);
/* The same text for equal texts, for the process's life; "" without memory. Threads: any. */
const char *lqt__vk_intern(const char *text);

/* weight.c */
lqt_status lqt__vk_weight_create(lqt_device *device, const lqt_weight_desc *desc, lqt_weight **out,
                                 lqt_diag *diag);
void lqt__vk_weight_destroy(lqt_weight *weight);

/* patch.c */
lqt_status lqt__vk_weight_patch(lqt_weight *weight, const lqt_weight_patch *patches, size_t count,
                                lqt_diag *diag);
lqt_status lqt__vk_patch_create(lqt_device *device, const lqt_patch_change *changes, size_t count,
                                lqt_patch **out, lqt_diag *diag);
lqt_status lqt__vk_patch_wait(lqt_patch *patch, lqt_diag *diag);
lqt_status lqt__vk_patch_flip(lqt_patch *patch, lqt_diag *diag);
void lqt__vk_patch_destroy(lqt_patch *patch);
lqt_status lqt__vk_weight_digest(lqt_weight *weight, uint64_t *out_digest, lqt_diag *diag);

/* op.c */
typedef struct lqt__vk_dispatch {
  lqt__vk_spec spec;
  uint32_t x, y; /* workgroups; 0: nothing to do */
  uint32_t push_bytes;
  union {
    lqt__vk_push_matmul matmul;
    lqt__vk_push_dequant dequant;
    lqt__vk_push_elementwise elementwise;
    lqt__vk_push_norm norm;
    lqt__vk_push_rope rope;
    lqt__vk_push_kv_write kv_write;
    lqt__vk_push_attention attention;
    lqt__vk_push_gather gather;
    lqt__vk_push_probe probe;
    lqt__vk_push_swap swap;
  } push;
  char name[72];
} lqt__vk_dispatch;
#define LQT__VK_MAX_DISPATCHES LQT_OP_MAX_OUT
/* The dispatches of an op; they do not depend on each other. */
LQT_NODISCARD lqt_status lqt__vk_op_plan(const lqt__vk_device *device, const lqt_op *op,
                                         lqt__vk_dispatch out[LQT__VK_MAX_DISPATCHES],
                                         size_t *out_count, lqt_diag *diag);
const char *lqt__vk_variant(lqt_device *device, const lqt_op *op);

/* frag.c */
/* Finds out whether the shaders on matrix units can be used. */
LQT_NODISCARD lqt_status lqt__vk_frag_probe(lqt__vk_device *device, lqt_diag *diag);
/* The tiled order that a weight gets; false: the order of the file. */
bool lqt__vk_tiling_choose(const lqt__vk_device *device, const lqt_weight_desc *desc,
                           lqt__vk_tiling *out);
uint64_t lqt__vk_tiled_bytes(const lqt__vk_tiling *tiling);
/* Where byte `at` of a row's indices is, and the index of a group scale. */
uint64_t lqt__vk_tiled_byte(const lqt__vk_tiling *tiling, uint64_t row, uint64_t at);
uint64_t lqt__vk_tiled_scale(const lqt__vk_tiling *tiling, uint64_t row, uint64_t group);
LQT_NODISCARD lqt_status lqt__vk_tiled_upload(lqt__vk_device *device, const lqt__vk_tiling *tiling,
                                              const lqt_weight_desc *desc,
                                              const lqt__vk_range *data,
                                              const lqt__vk_range *scales, lqt_diag *diag);
bool lqt__vk_frag_takes(const lqt__vk_device *device, const lqt__vk_weight *weight,
                        const lqt_view *x, bool aligned);
void lqt__vk_frag_few(const lqt__vk_device *device, const lqt__vk_weight *weight, uint32_t tokens,
                      lqt__vk_dispatch *d);
void lqt__vk_frag_many(const lqt__vk_device *device, const lqt__vk_weight *weight, uint32_t tokens,
                       lqt__vk_dispatch *d);

/* run.c */
/* hazard.c */
typedef struct lqt__vk_span {
  uint64_t begin, end; /* device addresses; end 0: nothing */
} lqt__vk_span;
#define LQT__VK_MAX_SPANS 64
typedef struct lqt__vk_hazards { /* since the last barrier; zero at first */
  lqt__vk_span reads[LQT__VK_MAX_SPANS], writes[LQT__VK_MAX_SPANS];
  size_t read_count, write_count;
} lqt__vk_hazards;
/* Adds an op; true when a barrier has to come before it. */
bool lqt__vk_hazards_meet(lqt__vk_hazards *hazards, const lqt_op *op);

/* The ops, with barriers where one needs what another did, but none after the last. */
LQT_NODISCARD lqt_status lqt__vk_record_ops(lqt__vk_device *device, VkCommandBuffer commands,
                                            const lqt_op *ops, size_t count, lqt_diag *diag);
/* Runs one dispatch to its end. */
LQT_NODISCARD lqt_status lqt__vk_run_dispatch(lqt__vk_device *device,
                                              const lqt__vk_dispatch *dispatch, lqt_diag *diag);
lqt_status lqt__vk_run(lqt_device *device, const lqt_op *ops, size_t count, lqt_diag *diag);
void lqt__vk_profile_enable(lqt_device *device, bool on);
size_t lqt__vk_profile_take(lqt_device *device, lqt_profile_entry *out, size_t capacity);

/* program.c */
lqt_status lqt__vk_program_run(lqt_program *program, const lqt_transfer *in, size_t in_count,
                               const lqt_transfer *out, size_t out_count, lqt_diag *diag);
void lqt__vk_program_forget(lqt_program *program);

#endif /* LQT_BACKENDS_VULKAN_VULKAN_H_ */
