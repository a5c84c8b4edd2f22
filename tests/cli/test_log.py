"""lqt log and lqt keygen."""

import json
import os
import shutil
import stat
import unittest

from harness import BAD_INPUT, NO, WRONG_USE, Case, read, write


class Log(Case):
    def setUp(self):
        super().setUp()
        self.model = self.tiny_model("model.lqt")
        self.journal = self.model + ".journal"
        self.base = read(self.model)

    def edit(self, value, *options):
        return self.lqt("edit", "codebook", self.model, "--id", 0, "--vector", 1, "--value", value,
                        *options)

    def value(self):
        return self.lqt("edit", "codebook", self.model, "--id", 0, "--vector", 1, "--value", 0,
                        "--dry-run", "--json").json()["old"][0]

    def log(self, *arguments):
        return self.lqt("log", self.model, *arguments)

    def test_no_edits(self):
        self.assertEqual(self.log("--json").json(), [])
        self.assertEqual(self.log().out, b"no transactions\n")
        self.assertEqual(self.log("head").out, b"0" * 64 + b"\n")
        self.assertIn(b"0 transactions", self.log("verify").out)
        self.assertEqual(self.log("export").out, b"")
        self.fails(BAD_INPUT, ["no edits"], "log", self.model, "compact")
        self.fails(BAD_INPUT, ["no edits"], "log", self.model, "rollback", 0)
        self.assertEqual(self.files(), ["model.lqt"])

    def test_control_characters_stay_out_of_the_table(self):
        self.edit("0.25", "--actor", "a\nb", "--reason", "x\x1b[2Jy\u009bz")
        for arguments in ((), ("show", 1)):
            out = self.log(*arguments).out.decode()
            self.assertIn("a?b", out)
            self.assertIn("x?[2Jy?z", out)
            self.assertNotIn("\x1b", out)
        self.assertEqual(len(self.log().out.splitlines()), 1)
        self.assertEqual(self.log("--json").json()[0]["actor"], "a\nb")

    def test_list_show_and_export(self):
        self.edit("0.25", "--actor", "ada", "--reason", "half")
        self.edit("0.5")
        entries = self.log("--json").json()
        self.assertEqual([e["revision"] for e in entries], [1, 2])
        self.assertEqual((entries[0]["actor"], entries[0]["reason"]), ("ada", "half"))
        self.assertEqual(entries[1]["actor"], None)
        self.assertEqual(entries[0]["operations"][0]["operation"], "codebook_entries")
        self.assertEqual(entries[0]["operations"][0]["id"], 0)
        self.assertEqual([e["signed"] for e in entries], [False, False])
        self.assertEqual(self.log("list", "--json").json(), entries)
        lines = self.log().out.decode().splitlines()
        self.assertEqual(len(lines), 2)
        self.assertIn("ada", lines[0])
        shown = self.log("show", 1, "--json").json()
        self.assertEqual(shown["hash"], entries[0]["hash"])
        self.assertEqual(len(shown["change_list"]), shown["changes"])
        self.assertEqual(shown["change_list"][0]["what"], "codebook")
        self.assertIn("reason    half", self.log("show", 1).out.decode())
        self.fails(BAD_INPUT, ["no revision 3"], "log", self.model, "show", 3)
        exported = [json.loads(line) for line in self.log("export").out.splitlines()]
        self.assertEqual([e["hash"] for e in exported], [e["hash"] for e in entries])
        self.assertEqual(exported[0], shown)
        self.log("export", "-o", self.path("log.jsonl"))
        self.assertEqual(read(self.path("log.jsonl")), self.log("export").out)
        self.assertEqual(read(self.model), self.base, "the model file stays as it is")

    def test_rollback(self):
        first = self.value()
        self.edit("0.25")
        self.edit("0.5")
        out = self.log("rollback", 1, "--actor", "ada", "--reason", "worse", "--json").json()
        self.assertEqual((out["revision"], out["reference"]), (3, 1))
        self.assertEqual(self.value(), 0.25)
        self.assertEqual(self.log("head").out.decode().strip(), out["head"])
        entry = self.log("show", 3, "--json").json()
        self.assertEqual((entry["flags"], entry["reference"]), (["rollback"], 1))
        self.assertEqual((entry["actor"], entry["reason"]), ("ada", "worse"))
        self.log("rollback", 0)
        self.assertEqual(self.value(), first)
        self.fails(BAD_INPUT, ["9"], "log", self.model, "rollback", 9)
        self.assertEqual(len(self.log("--json").json()), 4)
        self.log("verify")

    def test_compact(self):
        self.edit("0.25")
        self.edit("0.5")
        head = self.log("head").out.decode().strip()
        self.log("compact")
        self.assertNotEqual(read(self.model), self.base)
        self.assertEqual(self.value(), 0.5)
        self.lqt("validate", self.model, "-q")
        entries = self.log("--json").json()
        self.assertEqual([(e["revision"], e["in_base"]) for e in entries], [(1, True), (2, True)])
        self.edit("0.75")
        entries = self.log("--json").json()
        self.assertEqual([(e["revision"], e["in_base"]) for e in entries],
                         [(1, True), (2, True), (3, False)])
        # The hash noted before is in the chain still.
        self.log("verify", "--head", head)
        self.log("rollback", 2)
        self.assertEqual(self.value(), 0.5)
        self.fails(BAD_INPUT, [], "log", self.model, "rollback", 1)
        self.log("compact")
        self.assertEqual(len(self.log("--json").json()), 4)
        self.assertEqual(self.files(), ["model.lqt", "model.lqt.journal"])

    def test_verify_finds_what_was_changed(self):
        for value in ("0.25", "0.5", "0.75"):
            self.edit(value)
        head = self.log("head").out.decode().strip()
        self.log("verify", "--head", head)
        good = read(self.journal)
        entries = self.log("--json").json()
        last = len(good) - entries[2]["stored_bytes"]
        changed = bytearray(good)
        changed[200] ^= 1
        for data, options, word in (
                (bytes(changed), [], "frame 0"),
                (good[:last], ["--head", head], "noted"),
                (good[:-3], [], "unfinished"),
                (good[:last] + good[last + 8:], [], "unfinished"),
                (b"x" * 200, [], "not a journal")):
            write(self.journal, data)
            result = self.run_lqt("log", self.model, "verify", *options)
            self.assertEqual(result.code, NO, str(result))
            self.assertIn(word, result.out.decode())
            result = self.run_lqt("log", self.model, "verify", "--json", *options)
            self.assertEqual((result.code, result.json()["valid"]), (NO, False))
            self.assertEqual(read(self.journal), data)
        # Cut off between two transactions, it is a journal as good as any to whoever noted nothing.
        write(self.journal, good[:last])
        self.log("verify")
        # An unfinished transaction is cut off by the next writer, who says so.
        write(self.journal, good[:-3])
        self.assertIn("cut off", self.edit("0.5").err)
        self.log("verify")

    def test_signatures(self):
        key, other = self.path("key"), self.path("other")
        made = self.lqt("keygen", key, "--json").json()
        self.assertEqual((made["private"], made["public"]), (key, key + ".pub"))
        self.assertEqual(stat.S_IMODE(os.stat(key).st_mode), 0o600)
        self.lqt("keygen", other)
        self.fails(BAD_INPUT, ["not overwritten"], "keygen", key)
        self.edit("0.25", "--sign", key)
        entry = self.log("show", 1, "--json").json()
        self.assertEqual((entry["signed"], entry["key"]), (True, made["key"]))
        self.log("verify", "--required-key", key + ".pub")
        self.log("verify", "--required-key", other + ".pub", "--required-key", key)
        result = self.run_lqt("log", self.model, "verify", "--required-key", other + ".pub")
        self.assertEqual(result.code, NO)
        self.assertIn("BAD_SIGNATURE", result.out.decode())
        self.fails(BAD_INPUT, ["BAD_SIGNATURE"], "log", self.model, "--required-key", other + ".pub")
        self.log("rollback", 0, "--sign", key, "--required-key", key + ".pub")
        self.log("verify", "--required-key", key + ".pub")
        self.edit("0.5")
        self.assertEqual(
            self.run_lqt("log", self.model, "verify", "--required-key", key).code, NO)
        self.fails(WRONG_USE, [], "log", self.model, "rollback", 0, "--sign", key + ".pub")

    def test_bad_use(self):
        for words in (["nothing"], ["show"], ["rollback"], ["show", "x"], ["list", "3"],
                      ["verify", "--head", "12"], ["verify", "--head", "g" * 64]):
            self.fails(WRONG_USE, [], "log", self.model, *words)
        self.fails(WRONG_USE, [], "log")
        self.fails(WRONG_USE, [], "keygen")
        self.fails(BAD_INPUT, ["none"], "log", self.path("none"))
        self.fails(WRONG_USE, ["Ed25519"], "log", self.model, "--required-key", self.model_text())

    def model_text(self):
        return write(self.path("text"), b"no key\n")

    def test_another_models_journal(self):
        self.edit("0.25")
        other = write(self.path("other.lqt"), self.base[:-8] + self.base[-8:])
        shutil.copy(self.journal, other + ".journal")
        # The same bytes are the same base.
        self.lqt("log", other, "verify")
        self.lqt("edit", "codebook", other, "--id", 0, "--vector", 1, "--value", 0.5, "-o",
                 self.path("third.lqt"))
        shutil.copy(self.journal, self.path("third.lqt.journal"))
        result = self.run_lqt("log", self.path("third.lqt"), "verify")
        self.assertEqual(result.code, NO)
        self.assertIn("WRONG_BASE", result.out.decode())


if __name__ == "__main__":
    unittest.main()
