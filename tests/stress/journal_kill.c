/* A writer is killed at random moments while it commits, rolls back, compacts and opens again; what
 * it had acknowledged must be there afterwards, in order and exact, and nothing half.
 *
 * Usage: journal_kill [COUNT [SEED [FOLDER]]]: a child process writes until it is killed, COUNT
 * times over one journal, which grows and is compacted all along. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "support/journal_base_file.h"
#include "support/journal_sample.h"

enum { SEED = 23 };

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

static char folder[64], base_path[96], path[112];

/* What the child says, in memory that outlives it. */
typedef struct words {
  volatile uint64_t acknowledged, attempted, compactions, steps;
} words;
static words *said;

static lqt__journal *open_writer(base_file *base, lqt__journal_recovery *recovery) {
  MUST(base_file_read(base_path, base, &diag));
  lqt__journal_options options = {.write = true, .create = true, .base = &base->file};
  lqt__journal *journal;
  MUST(lqt__journal_open(path, &options, &journal, recovery, &diag));
  return journal;
}

static void compact(lqt__journal *journal, base_file *base) {
  uint8_t *image;
  uint64_t bytes;
  MUST(lqt__journal_image(journal, &image, &bytes, &diag));
  MUST(base_file_write(base_path, SEED, lqt__journal_revision(journal), image, bytes, &diag));
  lqt__free(image);
  base_file next;
  MUST(base_file_read(base_path, &next, &diag));
  MUST(lqt__journal_restart(journal, &next.file, &diag));
  base_file_free(base);
  *base = next;
  lqt__journal_move_base(journal, &base->file);
  said->compactions++;
}

static void child(uint64_t seed) {
  lqt__random random = lqt__random_seed(seed);
  base_file base;
  lqt__journal *journal = open_writer(&base, NULL);
  lqt__journal_set_frame_limit(journal, 4096);
  for (;;) {
    said->steps++;
    uint64_t revision = lqt__journal_revision(journal) + 1;
    uint32_t choice = lqt__random_below(&random, 100);
    if (choice < 6 && base_file_history(&base) < 60000) {
      compact(journal, &base);
    } else if (choice < 10) {
      lqt__journal_close(journal);
      base_file_free(&base);
      journal = open_writer(&base, NULL);
      lqt__journal_set_frame_limit(journal, 4096);
    } else {
      lqt__journal_entry entry;
      sample_entry(SEED, revision, revision % 10 == 0 ? 20000 : 0, &entry);
      if (choice < 30) entry.flags |= LQT__ENTRY_ROLLBACK;
      bool group = choice % 3 == 0;
      said->attempted = revision;
      MUST(lqt__journal_append(
          journal, &entry, group ? LQT__DURABILITY_GROUP : LQT__DURABILITY_SYNCED, NULL, &diag));
      /* What is in the kernel survives the process, synced or not. */
      said->acknowledged = revision;
      lqt__entry_free(&entry);
    }
  }
}

/* Everything in the base and behind it, in order; flags aside, which a rollback adds to. */
static uint64_t check(void) {
  base_file base;
  lqt__journal_recovery recovery;
  lqt__journal *journal = open_writer(&base, &recovery);
  uint64_t revision = 0;
  if (!base_file_check(&base, SEED, 10, 20000, &revision)) exit(1);
  if (revision != base.revision) {
    fprintf(stderr, "the base is of revision %llu and its edit log ends with %llu\n",
            (unsigned long long)base.revision, (unsigned long long)revision);
    exit(1);
  }
  for (size_t i = lqt__journal_first(journal); i < lqt__journal_count(journal); i++) {
    if (!base_file_check_entry(journal, i, SEED, 10, 20000, ++revision)) exit(1);
  }
  lqt__journal_close(journal);
  base_file_free(&base);
  return revision;
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 200;
  uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  lqt__random random = lqt__random_seed(seed);
  said = mmap(NULL, sizeof *said, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  snprintf(folder, sizeof folder, "%s/lqt-journal-kill-XXXXXX", argc > 3 ? argv[3] : "/tmp");
  if (said == MAP_FAILED || mkdtemp(folder) == NULL) return 1;
  snprintf(base_path, sizeof base_path, "%s/model.lqt", folder);
  snprintf(path, sizeof path, "%s.journal", base_path);
  MUST(base_file_write(base_path, SEED, 0, NULL, 0, &diag));
  uint64_t last = 0, torn = 0;
  int failures = 0;
  for (int i = 0; i < count && failures == 0; i++) {
    /* Now and then a fresh start, so that young journals are killed too. */
    if (i % 25 == 24) {
      unlink(path);
      MUST(base_file_write(base_path, SEED, 0, NULL, 0, &diag));
      said->acknowledged = said->attempted = 0;
    }
    pid_t pid = fork();
    if (pid < 0) return 1;
    if (pid == 0) child(seed + (uint64_t)i * 7919);
    /* After so many of its steps and a moment more, however busy the machine is. */
    uint64_t steps = said->steps + lqt__random_below(&random, 12);
    struct timespec moment = {.tv_nsec = 20000};
    for (int k = 0; k < 20000 && said->steps < steps; k++) nanosleep(&moment, NULL);
    moment.tv_nsec = (long)lqt__random_below(&random, i % 2 == 0 ? 100000 : 3000000);
    nanosleep(&moment, NULL);
    kill(pid, SIGKILL);
    int status;
    waitpid(pid, &status, 0);
    if (!WIFSIGNALED(status)) failures++;
    last = check();
    if (last < said->acknowledged || last > said->attempted) {
      fprintf(stderr, "kill %d: revision %llu, of %llu acknowledged and %llu attempted\n", i,
              (unsigned long long)last, (unsigned long long)said->acknowledged,
              (unsigned long long)said->attempted);
      failures++;
    }
    torn += last < said->attempted;
    said->acknowledged = said->attempted = last;
  }
  printf(
      "%d kills, %llu compactions, the last of them at revision %llu; %llu times a transaction "
      "was cut off; %d failures\n",
      count, (unsigned long long)said->compactions, (unsigned long long)last,
      (unsigned long long)torn, failures);
  char command[160];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return failures != 0 || system(command) != 0;
}
