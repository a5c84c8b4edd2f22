#!/usr/bin/env bash
# install_test.sh CMAKE BUILD SOURCE CC
set -eu
cmake=$1 build=$2 source=$3 cc=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix
"$cmake" --install "$build" --prefix "$prefix" >"$work/install.log" || { cat "$work/install.log"; exit 1; }
libdir=$(dirname "$(find "$prefix" -name lqt.pc)")/..
libdir=$(cd "$libdir" && pwd)
export PKG_CONFIG_PATH=$libdir/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}

# lqt.pc holds the prefix of the configure step; this one is elsewhere.
flags=$(pkg-config --define-variable=prefix="$prefix" --cflags --libs lqt)
for example in "$source"/examples/*.c; do
  name=$(basename "$example" .c)
  # shellcheck disable=SC2086
  "$cc" -std=c17 -Wall -Wextra -Werror "$example" $flags -o "$work/$name"
  echo "pkg-config: built $name"
  # Without arguments an example says how it is used and ends with 2.
  code=0
  LD_LIBRARY_PATH=$libdir "$work/$name" >"$work/out" 2>&1 || code=$?
  [ "$code" -eq 2 ] || { echo "$name without arguments ended with $code, not 2"; cat "$work/out"; exit 1; }
done

mkdir "$work/project"
{
  echo 'cmake_minimum_required(VERSION 3.25)'
  echo 'project(consumer LANGUAGES C)'
  echo 'find_package(lqt 0.1 REQUIRED COMPONENTS static)'
  for example in "$source"/examples/*.c; do
    name=$(basename "$example" .c)
    echo "add_executable($name $example)"
    echo "target_link_libraries($name PRIVATE lqt::lqt)"
    echo "add_executable(${name}_static $example)"
    echo "target_link_libraries(${name}_static PRIVATE lqt::lqt_static)"
  done
} >"$work/project/CMakeLists.txt"
"$cmake" -S "$work/project" -B "$work/project/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" >"$work/log" 2>&1 &&
  "$cmake" --build "$work/project/build" >>"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
echo "find_package: built against the shared and the static library"

"$prefix"/bin/lqt --version
# Every installed header compiles alone, as C and as C++.
for header in "$prefix"/include/lqt/*.h; do
  echo "#include <lqt/$(basename "$header")>" | "$cc" -std=c17 -Wall -Wextra -Wpedantic -Werror -I"$prefix/include" -fsyntax-only -xc -
  echo "#include <lqt/$(basename "$header")>" | "$cc" -std=c++17 -Wall -Wextra -Werror -I"$prefix/include" -fsyntax-only -xc++ - ||
    { command -v c++ >/dev/null && exit 1; }
done
# Only the public names leave the shared library.
stray=$(nm -D --defined-only "$libdir/liblqt.so" | awk '$2 ~ /[TDBRV]/ {print $3}' | grep -v '^lqt_[a-z]' || true)
[ -z "$stray" ] || { echo "exported, but not public: $stray"; exit 1; }
echo "installed tree: good"
