/* The loader of Vulkan's entry points, compiled in: the library needs no Vulkan to start. */
#define VOLK_IMPLEMENTATION
#include <volk.h>
