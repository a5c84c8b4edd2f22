/* The power fails. What a writer did to its files is recorded, call by call; then, after every
 * call, the disk is taken in states that a power cut can leave: what was synced is there, and of
 * what was not, some writes are, some are not, some are torn. From each the journal must recover
 * with every transaction that was acknowledged as durable, with none that was never begun, and each
 * exact.
 *
 * Usage: journal_powercut [LENGTH [STATES [SEED]]]: all sequences of up to LENGTH operations, at
 * most STATES states after each call. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "io/hook.h"
#include "support/journal_base_file.h"
#include "support/journal_sample.h"

enum { SEED = 31, MAX_EVENTS = 4000, MAX_FILES = 64, MAX_NAMES = 8, SECTOR = 512 };
static const uint64_t every = 4, large = 3000;

#define MUST(call)                                                                        \
  do {                                                                                    \
    lqt_diag diag = {0};                                                                  \
    lqt_status must_status = (call);                                                      \
    if (must_status != LQT_OK) {                                                          \
      fprintf(stderr, "%s:%d: %s %s\n", __FILE__, __LINE__, lqt_status_name(must_status), \
              diag.what);                                                                 \
      exit(1);                                                                            \
    }                                                                                     \
  } while (0)

/* ---- What was done ---- */

typedef struct event {
  lqt__io_event_kind kind;
  char path[128], target[128];
  uint64_t offset;
  uint8_t *data;
  size_t bytes;
  uint64_t acknowledged, attempted; /* revisions, when the event had happened */
} event;
static event events[MAX_EVENTS];
static size_t event_count;
static uint64_t acknowledged, attempted;
static bool recording;

static void record(void *user, const lqt__io_event *from) {
  (void)user;
  if (event_count == MAX_EVENTS) exit(1);
  event *to = &events[event_count++];
  *to = (event){.kind = from->kind,
                .offset = from->offset,
                .bytes = from->bytes,
                .acknowledged = acknowledged,
                .attempted = attempted};
  snprintf(to->path, sizeof to->path, "%s", from->path);
  if (from->target != NULL) snprintf(to->target, sizeof to->target, "%s", from->target);
  if (from->bytes > 0) {
    to->data = malloc(from->bytes);
    if (to->data == NULL) exit(1);
    memcpy(to->data, from->data, from->bytes);
  }
}

/* An acknowledgement comes after the call that made it true. */
static void acknowledge(uint64_t revision) {
  if (!recording) return;
  acknowledged = revision;
  if (event_count > 0) events[event_count - 1].acknowledged = revision;
}

static char base_path[96], path[112], crash_base[96], crash_path[112], folder[64];

typedef struct actor {
  base_file base;
  lqt__journal *journal;
} actor;

static void open_actor(actor *a, const char *base, const char *journal) {
  MUST(base_file_read(base, &a->base, &diag));
  lqt__journal_options options = {.write = true, .create = true, .base = &a->base.file};
  MUST(lqt__journal_open(journal, &options, &a->journal, NULL, &diag));
  lqt__journal_set_frame_limit(a->journal, 1200);
  lqt__journal_hold_sync(a->journal);
}

static void close_actor(actor *a) {
  lqt__journal_close(a->journal);
  base_file_free(&a->base);
}

static void commit(actor *a, lqt__durability durability, uint32_t flags) {
  uint64_t revision = lqt__journal_revision(a->journal) + 1;
  lqt__journal_entry entry;
  sample_entry(SEED, revision, revision % every == 0 ? large : 0, &entry);
  entry.flags |= flags;
  attempted = revision;
  MUST(lqt__journal_append(a->journal, &entry, durability, NULL, &diag));
  lqt__entry_free(&entry);
  if (durability == LQT__DURABILITY_SYNCED) acknowledge(revision);
}

static void compact(actor *a) {
  uint8_t *image;
  uint64_t bytes, revision = lqt__journal_revision(a->journal);
  MUST(lqt__journal_image(a->journal, &image, &bytes, &diag));
  MUST(base_file_write(base_path, SEED, revision, image, bytes, &diag));
  lqt__free(image);
  acknowledge(revision); /* in the new base, whether or not it was synced in the journal */
  base_file next;
  MUST(base_file_read(base_path, &next, &diag));
  MUST(lqt__journal_restart(a->journal, &next.file, &diag));
  base_file_free(&a->base);
  a->base = next;
  lqt__journal_move_base(a->journal, &a->base.file);
}

/* A transaction that fails after its frames were written is taken back. */
static void fail_commit(actor *a) {
  uint64_t revision = lqt__journal_revision(a->journal) + 1;
  lqt__journal_entry entry;
  sample_entry(SEED, revision, revision % every == 0 ? large : 0, &entry);
  attempted = revision;
  lqt__io_fail_after(revision % every == 0 ? 3 : 1);
  (void)!lqt__journal_append(a->journal, &entry, LQT__DURABILITY_SYNCED, NULL, NULL);
  lqt__io_fail_after(-1);
  lqt__entry_free(&entry);
  if (lqt__journal_revision(a->journal) == revision) acknowledge(revision);
  if (!lqt__journal_must_reopen(a->journal)) return;
  close_actor(a);
  open_actor(a, base_path, path);
}

static const char letters[] = "srgwcof";
static void perform(actor *a, char letter) {
  switch (letter) {
    case 's': /* a commit */
      commit(a, LQT__DURABILITY_SYNCED, 0);
      break;
    case 'r': /* a rollback */
      commit(a, LQT__DURABILITY_SYNCED, LQT__ENTRY_ROLLBACK);
      break;
    case 'g': /* two commits that are synced some time */
      commit(a, LQT__DURABILITY_GROUP, 0);
      commit(a, LQT__DURABILITY_GROUP, 0);
      break;
    case 'w': /* a commit, and then all so far are waited for */
      commit(a, LQT__DURABILITY_GROUP, 0);
      MUST(lqt__journal_wait(a->journal, &diag));
      acknowledge(lqt__journal_revision(a->journal));
      break;
    case 'c':
      compact(a);
      break;
    case 'f':
      fail_commit(a);
      break;
    default: { /* closed, which syncs, and opened */
      uint64_t revision = lqt__journal_revision(a->journal);
      close_actor(a);
      acknowledge(revision);
      open_actor(a, base_path, path);
    }
  }
}

/* ---- The disk ---- */

/* Files are numbered as they are created; names point to them. */
typedef struct disk_file {
  uint8_t *bytes;
  size_t size, room;
  size_t pending[MAX_EVENTS]; /* events that are not on the disk for sure */
  size_t pending_count;
} disk_file;
typedef struct name {
  char path[128];
  int file; /* -1: removed */
} name;
static disk_file files[MAX_FILES];
static int file_count;
static name seen[MAX_NAMES]; /* as the processes see it */
static size_t seen_count;
static name kept[MAX_NAMES]; /* as the disk has it */
static size_t kept_count;
static size_t name_events[MAX_EVENTS], name_event_count;

static int *slot(name *names, size_t *count, const char *what) {
  for (size_t i = 0; i < *count; i++) {
    if (strcmp(names[i].path, what) == 0) return &names[i].file;
  }
  if (*count == MAX_NAMES) exit(1);
  snprintf(names[*count].path, sizeof names[*count].path, "%s", what);
  names[*count].file = -1;
  return &names[(*count)++].file;
}

static void apply_write(disk_file *file, uint64_t offset, const uint8_t *data, size_t bytes) {
  size_t end = (size_t)offset + bytes;
  if (end > file->room) {
    file->bytes = realloc(file->bytes, end * 2);
    if (file->bytes == NULL) exit(1);
    memset(file->bytes + file->room, 0, end * 2 - file->room);
    file->room = end * 2;
  }
  if (bytes > 0) memcpy(file->bytes + offset, data, bytes);
  if (end > file->size) file->size = end;
}

static void apply_truncate(disk_file *file, uint64_t bytes) {
  if (bytes > file->size) apply_write(file, bytes, NULL, 0);
  if (file->room > bytes) memset(file->bytes + bytes, 0, file->room - (size_t)bytes);
  file->size = (size_t)bytes;
}

static void apply(disk_file *file, const event *e) {
  if (e->kind == LQT__IO_WRITE) apply_write(file, e->offset, e->data, e->bytes);
  if (e->kind == LQT__IO_TRUNCATE) apply_truncate(file, e->offset);
}

/* Some sectors of a write. */
static void apply_torn(disk_file *file, const event *e, lqt__random *random) {
  if (e->kind != LQT__IO_WRITE) return;
  for (size_t at = 0; at < e->bytes;) {
    size_t sector = SECTOR - (size_t)(e->offset + at) % SECTOR;
    size_t part = e->bytes - at < sector ? e->bytes - at : sector;
    if (lqt__random_below(random, 2) != 0) apply_write(file, e->offset + at, e->data + at, part);
    at += part;
  }
}

/* Names change in the order in which they were asked to. The numbers of files follow from the order
 * of creation, so they are those of `seen`. */
static void apply_name(name *names, size_t *count, const event *e, int file) {
  if (e->kind == LQT__IO_CREATE) *slot(names, count, e->path) = file;
  if (e->kind == LQT__IO_REMOVE) *slot(names, count, e->path) = -1;
  if (e->kind == LQT__IO_RENAME) {
    *slot(names, count, e->target) = file;
    *slot(names, count, e->path) = -1;
  }
}
static int name_file[MAX_EVENTS];

static void happen(size_t index) {
  const event *e = &events[index];
  if (e->kind == LQT__IO_CREATE) {
    if (file_count == MAX_FILES) exit(1);
    files[file_count].size = files[file_count].pending_count = 0;
    if (files[file_count].room > 0) memset(files[file_count].bytes, 0, files[file_count].room);
    name_file[index] = file_count++;
  } else if (e->kind == LQT__IO_RENAME || e->kind == LQT__IO_REMOVE) {
    name_file[index] = *slot(seen, &seen_count, e->path);
  }
  switch (e->kind) {
    case LQT__IO_CREATE:
    case LQT__IO_RENAME:
    case LQT__IO_REMOVE:
      apply_name(seen, &seen_count, e, name_file[index]);
      name_events[name_event_count++] = index;
      break;
    case LQT__IO_SYNC_DIRECTORY:
      for (size_t i = 0; i < name_event_count; i++) {
        apply_name(kept, &kept_count, &events[name_events[i]], name_file[name_events[i]]);
      }
      name_event_count = 0;
      break;
    default: {
      disk_file *file = &files[*slot(seen, &seen_count, e->path)];
      if (e->kind != LQT__IO_SYNC) {
        file->pending[file->pending_count++] = index;
        break;
      }
      for (size_t i = 0; i < file->pending_count; i++) apply(file, &events[file->pending[i]]);
      file->pending_count = 0;
    }
  }
}

static void write_out(const char *to, const disk_file *file) {
  FILE *stream = fopen(to, "wb");
  if (stream == NULL || fwrite(file->bytes, 1, file->size, stream) != file->size ||
      fclose(stream) != 0) {
    exit(1);
  }
}

/* One state: which unsynced writes came through is drawn from `random`; states 0 and 1 are none and
 * all. Returns how many choices there were. */
static size_t make_state(unsigned state, lqt__random *random) {
  size_t choices = name_event_count;
  name names[MAX_NAMES];
  size_t count = kept_count;
  memcpy(names, kept, sizeof names);
  size_t through = state == 0   ? 0
                   : state == 1 ? name_event_count
                                : lqt__random_below(random, (uint32_t)name_event_count + 1);
  for (size_t i = 0; i < through; i++) {
    apply_name(names, &count, &events[name_events[i]], name_file[name_events[i]]);
  }
  unlink(crash_base);
  unlink(crash_path);
  for (size_t i = 0; i < count; i++) {
    bool is_base = strcmp(names[i].path, base_path) == 0;
    if (names[i].file < 0 || (!is_base && strcmp(names[i].path, path) != 0)) continue;
    const disk_file *from = &files[names[i].file];
    disk_file copy = {.bytes = malloc(from->room + 1), .size = from->size, .room = from->room};
    if (copy.bytes == NULL) exit(1);
    if (from->room > 0) memcpy(copy.bytes, from->bytes, from->room);
    for (size_t k = 0; k < from->pending_count; k++) {
      uint32_t draw = state == 0 ? 0 : state == 1 ? 1 : lqt__random_below(random, 3);
      if (draw == 1) apply(&copy, &events[from->pending[k]]);
      if (draw == 2) apply_torn(&copy, &events[from->pending[k]], random);
    }
    choices += from->pending_count;
    write_out(is_base ? crash_base : crash_path, &copy);
    free(copy.bytes);
  }
  return choices;
}

/* ---- Recovery ---- */

static bool check_state(const char *sequence, size_t after, unsigned state) {
  uint64_t least = after > 0 ? events[after - 1].acknowledged : 0;
  uint64_t most = after > 0 ? events[after - 1].attempted : 0, revision;
  actor a;
  MUST(base_file_read(crash_base, &a.base, &diag));
  lqt__journal_options options = {.write = true, .create = true, .base = &a.base.file};
  lqt_diag diag = {0};
  bool good = true;
  for (int again = 0; again < 2 && good; again++) {
    if (lqt__journal_open(crash_path, &options, &a.journal, NULL, &diag) != LQT_OK) {
      fprintf(stderr, "'%s', %zu calls, state %u: %s\n", sequence, after, state, diag.what);
      return false;
    }
    good = base_file_check(&a.base, SEED, every, large, &revision);
    for (size_t i = lqt__journal_first(a.journal); i < lqt__journal_count(a.journal) && good; i++) {
      good = base_file_check_entry(a.journal, i, SEED, every, large, ++revision);
    }
    if (good && (revision < least || revision > most)) {
      fprintf(stderr, "'%s', %zu calls, state %u: revision %llu; %llu were durable, %llu begun\n",
              sequence, after, state, (unsigned long long)revision, (unsigned long long)least,
              (unsigned long long)most);
      good = false;
    }
    /* It goes on from there. */
    uint64_t before = attempted;
    if (good && again == 0) commit(&a, LQT__DURABILITY_SYNCED, 0);
    most = least = lqt__journal_revision(a.journal);
    attempted = before;
    lqt__journal_close(a.journal);
  }
  base_file_free(&a.base);
  return good;
}

static uint64_t states_checked, sequences_checked;

static bool run_sequence(const char *sequence, unsigned states, lqt__random *random) {
  for (size_t i = 0; i < event_count; i++) free(events[i].data);
  event_count = 0;
  acknowledged = attempted = 0;
  unlink(path);
  MUST(base_file_write(base_path, SEED, 0, NULL, 0, &diag));
  /* The first base was on the disk before. */
  file_count = 0;
  seen_count = kept_count = name_event_count = 0;
  struct stat info;
  if (stat(base_path, &info) != 0) return false;
  lqt__map map;
  MUST(lqt__map_open(base_path, &map, &diag));
  files[0].size = files[0].pending_count = 0;
  apply_write(&files[0], 0, map.data, map.bytes);
  lqt__map_close(&map);
  file_count = 1;
  *slot(seen, &seen_count, base_path) = *slot(kept, &kept_count, base_path) = 0;
  lqt__io_record(record, NULL);
  recording = true;
  actor a;
  open_actor(&a, base_path, path);
  for (const char *letter = sequence; *letter != '\0'; letter++) perform(&a, *letter);
  /* Closing is not recorded: the power fails before. */
  lqt__io_record(NULL, NULL);
  recording = false;
  close_actor(&a);
  for (size_t after = 0; after <= event_count; after++) {
    if (after > 0) happen(after - 1);
    for (unsigned state = 0; state < states; state++) {
      size_t choices = make_state(state, random);
      if (!check_state(sequence, after, state)) return false;
      states_checked++;
      if (choices == 0 || (choices == 1 && state >= 4)) break;
    }
  }
  sequences_checked++;
  return true;
}

static bool run_all(char *sequence, size_t length, size_t longest, unsigned states,
                    lqt__random *random) {
  sequence[length] = '\0';
  if (length > 0 && !run_sequence(sequence, states, random)) return false;
  if (length == longest) return true;
  for (size_t i = 0; i < sizeof letters - 1; i++) {
    sequence[length] = letters[i];
    if (!run_all(sequence, length + 1, longest, states, random)) return false;
  }
  return true;
}

int main(int argc, char **argv) {
  size_t longest = argc > 1 ? (size_t)atoi(argv[1]) : 2;
  unsigned states = argc > 2 ? (unsigned)atoi(argv[2]) : 6;
  lqt__random random = lqt__random_seed(argc > 3 ? strtoull(argv[3], NULL, 10) : 1);
  snprintf(folder, sizeof folder, "%s/lqt-powercut-XXXXXX",
           access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  if (longest > 15 || mkdtemp(folder) == NULL) return 1;
  snprintf(base_path, sizeof base_path, "%s/model.lqt", folder);
  snprintf(path, sizeof path, "%s.journal", base_path);
  snprintf(crash_base, sizeof crash_base, "%s/after.lqt", folder);
  snprintf(crash_path, sizeof crash_path, "%s.journal", crash_base);
  char sequence[16];
  bool good = run_all(sequence, 0, longest, states, &random);
  printf("%llu sequences, %llu states of the disk: %s\n", (unsigned long long)sequences_checked,
         (unsigned long long)states_checked, good ? "all recovered" : "FAILED");
  char command[96];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return system(command) != 0 || !good;
}
