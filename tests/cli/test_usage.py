"""The front: commands, help, options, exit codes."""

import unittest

from harness import Case, WRONG_USE

COMMANDS = ["quantize", "inspect", "validate", "run", "eval", "edit codebook", "edit delta",
            "edit mask", "edit scale", "edit tensor", "edit module", "edit hyper", "log", "keygen",
            "bench ops", "bench session", "selftest", "devices", "synth"]


class Usage(Case):
    def test_no_command_prints_the_overview(self):
        result = self.run_lqt()
        self.assertEqual(result.code, WRONG_USE)
        self.assertIn("Usage: lqt", result.err)
        self.assertEqual(result.out, b"")

    def test_help_lists_every_command(self):
        for arguments in (["help"], ["--help"]):
            text = self.lqt(*arguments).out.decode()
            for command in COMMANDS:
                self.assertRegex(text, rf"\n  {command} +\S")

    def test_help_of_every_command(self):
        for command in COMMANDS:
            text = self.lqt("help", *command.split()).out.decode()
            self.assertIn(f"Usage: lqt {command} ", text)
            self.assertEqual(text, self.lqt(*command.split(), "--help").out.decode())

    def test_unknown_commands(self):
        self.fails(WRONG_USE, ["no command 'frobnicate'", "lqt help"], "frobnicate")
        self.fails(WRONG_USE, ["no command 'frobnicate'"], "help", "frobnicate")
        self.fails(WRONG_USE, ["lqt edit codebook"], "edit")
        self.fails(WRONG_USE, ["edit nothing", "lqt edit codebook"], "edit", "nothing")
        self.fails(WRONG_USE, ["lqt bench ops"], "bench", "everything")

    def test_unknown_option_of_every_command(self):
        for command in COMMANDS:
            self.fails(WRONG_USE, ["--frobnicate"], *command.split(), "--frobnicate")

    def test_too_many_arguments(self):
        for command in COMMANDS:
            result = self.run_lqt(*command.split(), "a", "b", "c", "d")
            self.assertEqual(result.code, WRONG_USE, f"{command}: {result}")

    def test_missing_arguments(self):
        for command in ("quantize", "inspect", "validate", "run", "eval", "edit codebook", "synth",
                        "bench session"):
            self.fails(WRONG_USE, ["give"], *command.split())

    def test_version(self):
        self.assertRegex(self.lqt("--version").out.decode(), r"^lqt \d+\.\d+\.\d+\n$")

    def test_full_disk_is_an_error(self):
        with open("/dev/full", "wb") as full:
            result = self.run_lqt("help", stdout=full)
        self.assertEqual(result.code, 3)
        self.assertIn("standard output", result.err)


if __name__ == "__main__":
    unittest.main()
