#!/usr/bin/env bash
# Installs the Debian packages that are missing for what is asked (build, test, fuzz, valgrind,
# vulkan), and says which. With everything there it says nothing and touches nothing.
set -eu

build="build-essential cmake ninja-build pkg-config libjansson-dev libssl-dev libdeflate-dev libzstd-dev"
declare -A packages=(
  [build]="$build python3"
  [test]="$build libcriterion-dev python3"
  [fuzz]="$build clang libclang-rt-dev"
  [valgrind]="$build python3 valgrind"
  [vulkan]="libvulkan-dev libvulkan-volk-dev glslc mesa-vulkan-drivers vulkan-validationlayers"
)

# A tool or library may be there without its package (another distribution, a newer CMake).
present() {
  case $1 in
    build-essential) command -v cc >/dev/null && command -v make >/dev/null ;;
    cmake | python3 | valgrind | clang | glslc) command -v "$1" >/dev/null ;;
    ninja-build) command -v ninja >/dev/null ;;
    pkg-config) command -v pkg-config >/dev/null ;;
    libjansson-dev) pkg-config --exists jansson ;;
    libssl-dev) pkg-config --exists libcrypto ;;
    libdeflate-dev) pkg-config --exists libdeflate ;;
    libzstd-dev) pkg-config --exists libzstd ;;
    libcriterion-dev) pkg-config --exists criterion ;;
    libvulkan-dev) pkg-config --exists vulkan ;;
    *) dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed' ;;
  esac 2>/dev/null
}

missing=()
for group in "${@:-build}"; do
  [ -n "${packages[$group]:-}" ] || { echo "deps.sh: unknown group $group (${!packages[*]})" >&2; exit 2; }
  for package in ${packages[$group]}; do
    case " ${missing[*]} " in *" $package "*) continue ;; esac
    present "$package" || missing+=("$package")
  done
done
[ ${#missing[@]} -gt 0 ] || exit 0

command="apt-get install -y --no-install-recommends ${missing[*]}"
if ! command -v apt-get >/dev/null; then
  echo "Missing: ${missing[*]} (names of Debian 12). Install them with your package manager." >&2
  exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
  sudo=""
elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
  sudo="sudo "
else
  echo "Missing: ${missing[*]}. Run as root: $command" >&2
  exit 1
fi
echo "Installing what is missing: $sudo$command"
export DEBIAN_FRONTEND=noninteractive
# The package lists of a fresh machine may be absent or old.
${sudo}apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
  { ${sudo}apt-get update -q >/dev/null && ${sudo}${command}; }
