#!/bin/sh
# Create a virtual environment if it is missing, and install groundup into it.
#
#   tools/setup.sh VENV EXTRAS STAMP
#
# EXTRAS is "" or "[dev]". STAMP is a file that is created on success. Environment variables:
#   PYTHON       interpreter [the first of python3.11 ... python3 with a supported version]
#   TORCH_INDEX  additional package index, for example with CPU builds of torch
#   LOCKED       if set, install the versions of requirements.lock or requirements-dev.lock and check their hashes
#   LOWEST       if set, install the lowest versions that pyproject.toml allows
set -eu

venv=$1 extras=$2 stamp=$3
log=$venv/install.log
need='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'

find_python() {
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
        if "$candidate" -c "$need" >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    {
        echo "error: no usable Python among: ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}"
        echo " rule: groundup requires Python 3.11 or newer with the venv module"
        echo "  fix: install it (on Debian and Ubuntu also python3-venv), or set its path: make PYTHON=/path/to/python3.12"
    } >&2
    exit 1
}

# Run a command with its output in the log, and print the elapsed seconds. Ctrl-C stops both.
watched() {
    label=$1
    shift
    "$@" >>"$log" 2>&1 &
    job=$!
    trap 'kill $job 2>/dev/null; echo; exit 130' INT TERM
    seconds=0
    while kill -0 $job 2>/dev/null; do
        if [ -t 1 ]; then printf '\r%s ... %d s' "$label" $seconds; fi
        sleep 1
        seconds=$((seconds + 1))
    done
    trap - INT TERM
    if [ -t 1 ]; then printf '\r'; fi
    if wait $job; then
        printf '%s: done in %d s\n' "$label" $seconds
    else
        printf '%s: failed. The end of %s:\n\n' "$label" "$log" >&2
        tail -n 25 "$log" >&2
        return 1
    fi
}

lock=""
if [ -n "${LOCKED:-}" ]; then
    case "$extras" in
        "") lock=requirements.lock ;;
        "[dev]") lock=requirements-dev.lock ;;
        *)
            echo "error: LOCKED=1 does not support the extras $extras" >&2
            echo "  fix: remove LOCKED=1, or install groundup or groundup[dev]" >&2
            exit 1
            ;;
    esac
fi

if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c "$need" >/dev/null 2>&1; then
    python=$(find_python)
    echo "Creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
pip="$venv/bin/python -m pip --disable-pip-version-check"
index=${TORCH_INDEX:+--extra-index-url $TORCH_INDEX}
: >"$log"

versions="" # constraints file
if [ -n "$lock" ]; then
    versions=$lock
elif [ -n "${LOWEST:-}" ]; then
    versions=$venv/lowest.txt
    watched "Installing uv" $pip install "uv>=0.8"
    extra=$(echo "$extras" | tr -d '[]')
    watched "Resolving the lowest versions" "$venv/bin/uv" pip compile --resolution lowest-direct \
        --python "$venv/bin/python" ${extra:+--extra "$extra"} --output-file "$versions" pyproject.toml
fi

# On Linux, the default build of torch includes CUDA. Without an NVIDIA GPU, pin the CPU build of the locked or newest
# version if the package index has one. Otherwise install the default build.
build=""
if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then
    wanted='.*'
    if [ -n "$versions" ]; then wanted=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$versions"); fi
    build=$($pip index versions $index torch 2>>"$log" | tr -s ' ,' '\n\n' | grep -m 1 -x "$wanted+cpu" || true)
    if [ -z "$build" ] && [ "$(uname -m)" = x86_64 ]; then
        echo "No NVIDIA GPU found, but the package index has no CPU build of torch. Installing the CUDA build (several GB)."
        echo "To add an index with CPU builds: make TORCH_INDEX=URL (see README.md, Installation)."
    fi
fi

# shellcheck disable=SC2086  # $pip and $index are lists of words
install() {
    watched "$1" $pip install $index ${2:+--constraint "$2"} --editable ".$extras"
}

# The lock file has no hashes of CPU builds of torch, so torch is installed without a hash.
# shellcheck disable=SC2086
install_locked() {
    awk -v skip="$build" '/^[a-z0-9]/ { keep = !(skip && /^(torch|triton|nvidia-|cuda-)/) } keep' "$lock" >"$venv/lock.txt"
    watched "$1" $pip install --require-hashes --requirement "$venv/lock.txt"
    if [ -n "$build" ]; then watched "Installing torch $build" $pip install --no-deps $index "torch==$build"; fi
    watched "Installing groundup" $pip install --no-deps --editable .
}

what="Installing groundup$extras and its dependencies into $venv"
if [ -n "$lock" ]; then
    install_locked "$what with the versions of $lock${build:+, with torch $build (no NVIDIA GPU)}"
elif [ -n "$build" ]; then
    { [ -z "$versions" ] || grep -v '^torch==' "$versions"; echo "torch==$build"; } >"$venv/torch.txt"
    install "$what, with torch $build (no NVIDIA GPU)" "$venv/torch.txt" || install "$what, again" "$versions"
else
    install "$what" "$versions"
fi
touch "$stamp"
