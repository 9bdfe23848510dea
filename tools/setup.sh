#!/bin/sh
# Make a virtual environment (if absent) and install groundup into it, quietly.
#
#   tools/setup.sh VENV EXTRAS STAMP
#
# EXTRAS is "" or "[dev]"; STAMP is written when all went well. From the environment:
#   PYTHON       the interpreter to use, else the first of python3.11 ... python3 that is new enough
#   TORCH_INDEX  a package index to search beside your own, e.g. one that holds CPU builds of torch
#   LOCKED       not empty: install the versions of requirements.lock or requirements-dev.lock, and check their hashes
#   LOWEST       not empty: install the lowest versions that pyproject.toml allows
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
        echo " rule: groundup needs Python 3.11 or newer, with its venv module"
        echo "  fix: install one (on Debian and Ubuntu also python3-venv), or name it: make PYTHON=/path/to/python3.12"
    } >&2
    exit 1
}

# Run a command with its output in the log, and one moving line here; Ctrl-C ends both.
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
            echo "error: LOCKED=1 with the extras $extras: only groundup and groundup[dev] have lock files" >&2
            echo "  fix: leave LOCKED out" >&2
            exit 1
            ;;
    esac
fi

if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c "$need" >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
pip="$venv/bin/python -m pip --disable-pip-version-check"
index=${TORCH_INDEX:+--extra-index-url $TORCH_INDEX}
: >"$log"

versions="" # the file of exact versions to install, if any
if [ -n "$lock" ]; then
    versions=$lock
elif [ -n "${LOWEST:-}" ]; then
    versions=$venv/lowest.txt
    watched "Installing uv" $pip install "uv>=0.8"
    extra=$(echo "$extras" | tr -d '[]')
    watched "Resolving the lowest versions" "$venv/bin/uv" pip compile --resolution lowest-direct \
        --python "$venv/bin/python" ${extra:+--extra "$extra"} --output-file "$versions" pyproject.toml
fi

# On Linux, the torch that an index gives by default brings CUDA along. Without an NVIDIA GPU, pin the newest CPU build
# that the user's own index offers, or that of the exact version; where it offers none, or none that fits, take what
# there is.
build=""
if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then
    wanted='.*'
    if [ -n "$versions" ]; then wanted=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$versions"); fi
    build=$($pip index versions $index torch 2>>"$log" | tr -s ' ,' '\n\n' | grep -m 1 -x "$wanted+cpu" || true)
    if [ -z "$build" ] && [ "$(uname -m)" = x86_64 ]; then
        echo "No NVIDIA GPU here, but your package index offers no CPU build of torch: pip will fetch the CUDA"
        echo "build, some gigabytes. Another index can be added: make TORCH_INDEX=URL (see README.md, Installation)."
    fi
fi

# shellcheck disable=SC2086  # $pip and $index are lists of words
install() {
    watched "$1" $pip install $index ${2:+--constraint "$2"} --editable ".$extras"
}

# A CPU build of torch has no hash on PyPI, and so none in the lock file: it alone is installed without one.
# shellcheck disable=SC2086
install_locked() {
    awk -v skip="$build" '/^[a-z0-9]/ { keep = !(skip && /^(torch|triton|nvidia-|cuda-)/) } keep' "$lock" >"$venv/lock.txt"
    watched "$1" $pip install --require-hashes --requirement "$venv/lock.txt"
    if [ -n "$build" ]; then watched "Installing torch $build" $pip install --no-deps $index "torch==$build"; fi
    watched "Installing groundup" $pip install --no-deps --editable .
}

what="Installing groundup$extras and its libraries into $venv"
if [ -n "$lock" ]; then
    install_locked "$what, as $lock says${build:+, with torch $build (no NVIDIA GPU here)}"
elif [ -n "$build" ]; then
    { [ -z "$versions" ] || grep -v '^torch==' "$versions"; echo "torch==$build"; } >"$venv/torch.txt"
    install "$what, with torch $build (no NVIDIA GPU here)" "$venv/torch.txt" || install "$what, again" "$versions"
else
    install "$what" "$versions"
fi
touch "$stamp"
