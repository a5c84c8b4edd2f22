"""lqt devices, selftest and bench."""

import os
import unittest

from harness import Case, NO_DEVICE, SLOW, WRONG_USE


class Devices(Case):
    def test_devices(self):
        listing = self.lqt("devices", "--json").json()
        selectors = [device["selector"] for device in listing["devices"]]
        self.assertIn("cpu", selectors)
        text = self.lqt("devices").out.decode()
        for selector in selectors:
            self.assertIn(selector, text)

    def test_a_device_that_is_not_there(self):
        selectors = [d["selector"] for d in self.lqt("devices", "--json").json()["devices"]]
        for device in ("tpu", "cpu:7", "cuda:99", "vulkan:no-such-card", ""):
            if device not in selectors:
                result = self.run_lqt("selftest", "--device", device)
                self.assertIn(result.code, (NO_DEVICE, WRONG_USE), f"{device}: {result}")
                self.assertEqual(len(result.err.splitlines()), 1, result)
        self.fails(NO_DEVICE, ["cuda:99"], "selftest", "--device", "cuda:99")

    def test_required_devices_are_there(self):
        selectors = [d["backend"] for d in self.lqt("devices", "--json").json()["devices"]]
        for backend in filter(None, os.environ.get("LQT_REQUIRE", "").split(",")):
            self.assertIn(backend, selectors, "LQT_REQUIRE names it")


class Selftest(Case):
    def test_one_family(self):
        result = self.lqt("selftest", "--device", "cpu", "--filter", "rmsnorm", "--seed", 3)
        self.assertRegex(result.out.decode(), r"\n[1-9]\d* passed, 0 failed\n$")
        verbose = self.lqt("selftest", "--device", "cpu", "--filter", "rmsnorm", "-v").out.decode()
        self.assertIn("pass  cpu", verbose)

    @unittest.skipIf(SLOW, "the conformance tests run the suite under the sanitizers")
    def test_whole_suite(self):
        result = self.lqt("selftest", "--device", "cpu")
        self.assertRegex(result.out.decode(), r"\n[1-9]\d* passed, 0 failed\n$")

    def test_json(self):
        report = self.lqt("selftest", "--device", "cpu", "--filter", "add", "--json").json()
        self.assertEqual(report["failed"], 0)
        self.assertGreater(report["passed"], 0)
        self.assertEqual(len(report["cases"]),
                         report["passed"] + report["failed"] + report["skipped"])

    def test_wrong_isa(self):
        self.fails(WRONG_USE, ["--isa", "'sse9'"], "selftest", "--isa", "sse9")


class Bench(Case):
    def test_ops(self):
        options = ["--rows", 256, "--cols", 192, "--tokens", "1,3", "--rotate", 1, "--repeat", 3]
        report = self.lqt("bench", "ops", *options, "--threads", 1, "--json").json()
        self.assertEqual(len(report["results"]), 10)
        for result in report["results"]:
            self.assertGreater(result["seconds"], 0)
            self.assertLess(result["error"], 0.01, result)
            self.assertTrue(result["variant"].startswith("lqt_matmul_"), result)
        exact = self.lqt("bench", "ops", *options, "--exact", "--json").json()
        for result in exact["results"]:
            self.assertLess(result["error"], 1e-5, result)
        self.assertIn("GB/s", self.lqt("bench", "ops", *options, "--weights", 4).out.decode())

    def test_wrong_lists(self):
        for option, value in (("--tokens", "1,x"), ("--tokens", "0"), ("--weights", "5")):
            self.fails(WRONG_USE, [option, f"'{value}'"], "bench", "ops", option, value)


if __name__ == "__main__":
    unittest.main()
