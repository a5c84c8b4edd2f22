# Two commands do everything on a fresh Debian 12 machine: `make demo` and `make test`. Both install
# what is missing (scripts/deps.sh says what). Developers use CMake directly: `cmake --list-presets`.
.PHONY: help demo test bench fuzz valgrind format tidy clean

help:
	@echo "make demo      a 4-bit model writes text, is edited, and edited back"
	@echo "make test      build and run the tests (LQT_TEST_ALL=1: the exhaustive ones too)"
	@echo "make bench     benchmarks of the devices of this machine; JSON in build/bench/"
	@echo "make fuzz      fuzz every parser (SECONDS_EACH=60)"
	@echo "make valgrind  the program's tests under valgrind"
	@echo "make format    clang-format over the sources"
	@echo "make tidy      clang-tidy over the sources"
	@echo "make clean     remove build/"

demo:
	@scripts/demo.sh

test:
	@scripts/test.sh

bench:
	@bench/run.sh

SECONDS_EACH ?= 60
fuzz:
	@scripts/deps.sh fuzz
	cmake --preset fuzz
	cmake --build build/fuzz
	cd build/fuzz && LQT_FUZZ_RUNS=-1 LQT_FUZZ_SECONDS=$(SECONDS_EACH) ctest -L fuzz --verbose

valgrind:
	@scripts/deps.sh valgrind
	cmake --preset dev
	cmake --build build/dev
	cd build/dev && LQT_VALGRIND=1 ctest -L cli --output-on-failure

format:
	@scripts/format.sh

clean:
	rm -rf build

tidy:
	@scripts/tidy.sh
