#include "exec/gate.h"

#include <pthread.h>

#include "base/alloc.h"

struct lqt__gate {
  lqt_device *device;
  lqt__gate *next;
  size_t refs; /* guarded by gates_mutex, like the list */
  pthread_mutex_t mutex;
  pthread_cond_t turn;
  uint64_t next_ticket, serving;
};

static pthread_mutex_t gates_mutex = PTHREAD_MUTEX_INITIALIZER;
static lqt__gate *gates;

static lqt__gate *gate_create(lqt_device *device) {
  lqt__gate *gate = lqt__alloc_zero(sizeof *gate);
  if (gate == NULL) return NULL;
  gate->device = device;
  pthread_mutex_init(&gate->mutex, NULL);
  pthread_cond_init(&gate->turn, NULL);
  gate->next = gates;
  gates = gate;
  return gate;
}

lqt__gate *lqt__gate_get(lqt_device *device) {
  pthread_mutex_lock(&gates_mutex);
  lqt__gate *gate = gates;
  while (gate != NULL && gate->device != device) gate = gate->next;
  if (gate == NULL) gate = gate_create(device);
  if (gate != NULL) gate->refs++;
  pthread_mutex_unlock(&gates_mutex);
  return gate;
}

void lqt__gate_put(lqt__gate *gate) {
  if (gate == NULL) return;
  pthread_mutex_lock(&gates_mutex);
  bool last = --gate->refs == 0;
  if (last) {
    lqt__gate **link = &gates;
    while (*link != gate) link = &(*link)->next;
    *link = gate->next;
  }
  pthread_mutex_unlock(&gates_mutex);
  if (!last) return;
  pthread_cond_destroy(&gate->turn);
  pthread_mutex_destroy(&gate->mutex);
  lqt__free(gate);
}

void lqt__gate_enter(lqt__gate *gate) {
  pthread_mutex_lock(&gate->mutex);
  uint64_t ticket = gate->next_ticket++;
  while (gate->serving != ticket) pthread_cond_wait(&gate->turn, &gate->mutex);
  pthread_mutex_unlock(&gate->mutex);
}

void lqt__gate_leave(lqt__gate *gate) {
  pthread_mutex_lock(&gate->mutex);
  gate->serving++;
  pthread_cond_broadcast(&gate->turn);
  pthread_mutex_unlock(&gate->mutex);
}
