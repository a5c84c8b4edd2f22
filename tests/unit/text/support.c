#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The stand-in of a byte, written independently of the library: GPT-2's bytes_to_unicode. */
static void stand_in(unsigned byte, char out[5]) {
  unsigned code = 0, next = 256;
  for (unsigned b = 0; b <= byte; b++) {
    bool plain = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    code = plain ? b : next++;
  }
  if (code < 0x80)
    snprintf(out, 5, "%c", (char)code);
  else
    snprintf(out, 5, "%c%c", (char)(0xC0 | code >> 6), (char)(0x80 | (code & 0x3F)));
}

static json_t *added(int id, const char *content, bool special) {
  return json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", id, "content", content, "special",
                   special, "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", !special);
}

json_t *test_tokenizer_json(const char *const *merges) {
  json_t *vocab = json_object(), *list = json_array();
  for (unsigned byte = 0; byte < 256; byte++) {
    char name[5];
    stand_in(byte, name);
    json_object_set_new(vocab, name, json_integer(byte));
  }
  int id = 256;
  for (; *merges != NULL; merges++) {
    char joined[64];
    const char *space = strchr(*merges, ' ');
    snprintf(joined, sizeof joined, "%.*s%s", (int)(space - *merges), *merges, space + 1);
    json_object_set_new(vocab, joined, json_integer(id++));
    json_array_append_new(list, json_string(*merges));
  }
  return json_pack("{s:s,s:n,s:{s:s,s:b,s:b},s:[o,o],s:{s:s,s:n,s:o,s:o}}", "version", "1.0",
                   "normalizer", "pre_tokenizer", "type", "ByteLevel", "add_prefix_space", 0,
                   "use_regex", 1, "added_tokens", added(id, "<|end|>", true),
                   added(id + 1, "<sep>", false), "model", "type", "BPE", "dropout", "vocab", vocab,
                   "merges", list);
}

json_t *test_json_at(json_t *root, const char *path) {
  char part[64];
  while (root != NULL && *path != '\0') {
    size_t length = strcspn(path, ".");
    snprintf(part, sizeof part, "%.*s", (int)length, path);
    root = json_is_array(root) ? json_array_get(root, (size_t)atoi(part))
                               : json_object_get(root, part);
    path += length + (path[length] == '.');
  }
  return root;
}

lqt_status test_tokenizer_load(const json_t *root, lqt_tokenizer **out, lqt_diag *diag) {
  char *text = json_dumps(root, JSON_COMPACT);
  lqt_status status = lqt_tokenizer_from_json(text, strlen(text), out, diag);
  free(text);
  return status;
}
