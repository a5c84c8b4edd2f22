/* The worked example of docs/journal.md opens, means what the page says, and is what the writer
 * makes. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "edit/record.h"
#include "io/file.h"
#include "support.h"
#include "support/data.h"

/* Bytes of the lines "    OFFSET: bytes | text"; every offset must continue the one before. */
static size_t read_example(const char *text, uint8_t *out, size_t room) {
  size_t at = 0;
  const char *line = strstr(text, "## Worked example");
  cr_assert_not_null(line);
  for (; line != NULL; line = strchr(line, '\n'), line = line != NULL ? line + 1 : NULL) {
    if (strncmp(line, "    ", 4) != 0 || strspn(line + 4, "0123456789abcdef") != 4) continue;
    char *end;
    cr_assert_eq(strtoul(line + 4, &end, 16), at, "offsets continue at %zx", at);
    cr_assert_eq(*end, ':');
    for (const char *p = end + 1; *p != '|'; p++) {
      if (*p == ' ') continue;
      cr_assert(isxdigit((unsigned char)p[0]) && isxdigit((unsigned char)p[1]) && at < room);
      char digits[3] = {p[0], p[1], 0};
      out[at++] = (uint8_t)strtoul(digits, NULL, 16);
      p++;
    }
  }
  return at;
}

/* The private key of the example: no secret. */
static const char pem[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
    "-----END PRIVATE KEY-----\n";

typedef struct buffer {
  uint8_t bytes[4096];
  size_t count;
} buffer;

static lqt_status put(void *user, const void *data, size_t bytes, lqt_diag *diag) {
  (void)diag;
  buffer *to = user;
  if (bytes > 0) memcpy(to->bytes + to->count, data, bytes);
  to->count += bytes;
  return LQT_OK;
}

/* What the example says: one signed transaction that changes an entry of codebook 3. */
static size_t make_example(uint8_t *out) {
  static uint8_t new_bytes[] = {0x00, 0x38}, old_bytes[] = {0x00, 0x3c}, payload[] = {7, 0, 0, 0};
  static char actor[] = "ada", reason[] = "half";
  lqt__operation operation = {.operation = 1,
                              .target_kind = 1,
                              .target_id = 3,
                              .payload = payload,
                              .payload_bytes = sizeof payload};
  lqt__change change = {.kind = LQT__CHANGE_BYTES,
                        .id = 3,
                        .offset = 78,
                        .has_old = true,
                        .has_new = true,
                        .data = new_bytes,
                        .old_data = old_bytes,
                        .bytes = 2,
                        .old_bytes = 2};
  lqt__journal_entry entry = {.revision = 1,
                              .timestamp_ns = 1000000000000000000u,
                              .actor = actor,
                              .user = 5,
                              .reason = reason,
                              .operations = &operation,
                              .operation_count = 1,
                              .changes = &change,
                              .change_count = 1};
  lqt__journal_header header = {.salt = 0x0807060504030201u, .created_ns = 1000000000000000000u};
  memset(header.base, 0xaa, 32);
  lqt__journal_header_store(&header, out);
  lqt__frame frame = {.flags = LQT__FRAME_COMMIT,
                      .salt = header.salt,
                      .revision = 1,
                      .durable = 128,
                      .offset = 128};
  cr_assert_eq(lqt__sha256(out, 128, frame.previous), LQT_OK);
  static buffer content;
  content.count = 0;
  lqt__record_codec *codec;
  cr_assert_eq(lqt__record_codec_create(&codec, NULL), LQT_OK);
  cr_assert_eq(lqt__record_write(codec, &entry, put, &content, NULL), LQT_OK);
  lqt__record_codec_destroy(codec);
  frame.payload_bytes = (uint32_t)content.count;
  memcpy(out + 128 + LQT__FRAME_HEADER_BYTES, content.bytes, content.count);
  lqt_key *key;
  uint8_t hash[32];
  cr_assert_eq(lqt__key_parse(pem, strlen(pem), "example", &key, NULL), LQT_OK);
  cr_assert_eq(lqt__frame_seal(&frame, key, out + 128, hash, NULL), LQT_OK);
  lqt__key_destroy(key);
  return 128 + lqt__frame_bytes(frame.payload_bytes, frame.flags);
}

Test(document, the_worked_example) {
  char path[1024], *text;
  size_t text_bytes;
  cr_assert(test_source_path("docs/journal.md", path, sizeof path), "%s", path);
  cr_assert_eq(lqt__file_read(path, 1 << 20, &text, &text_bytes, NULL), LQT_OK);
  static uint8_t data[4096], made[4096];
  size_t bytes = read_example(text, data, sizeof data), made_bytes = make_example(made);
  lqt__free(text);
  cr_assert_eq(bytes, made_bytes);
  cr_assert_arr_eq(data, made, bytes);
  lqt__journal *journal;
  lqt__journal_policy policy = {.every_signature = true};
  uint64_t used;
  lqt_diag diag = {0};
  cr_assert_eq(lqt__journal_open_memory(data, bytes, "example", &policy, &journal, &used, &diag),
               LQT_OK, "%s", diag.what);
  cr_assert(used == bytes && lqt__journal_count(journal) == 1);
  lqt__journal_entry entry;
  cr_assert_eq(lqt__journal_read(journal, 0, &entry, &diag), LQT_OK, "%s", diag.what);
  cr_assert(entry.revision == 1 && entry.user == 5 && entry.change_count == 1);
  cr_assert_str_eq(entry.actor, "ada");
  cr_assert(entry.changes[0].offset == 78 && entry.changes[0].data[1] == 0x38);
  lqt__entry_free(&entry);
  lqt__journal_close(journal);
}
