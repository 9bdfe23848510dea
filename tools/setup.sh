#!/bin/sh
# Make a virtual environment (if absent) and install groundup into it, quietly.
#
#   tools/setup.sh VENV EXTRAS STAMP
#
# EXTRAS is "" or "[dev]"; STAMP is written when all went well. From the environment:
#   PYTHON       the interpreter to use, else the first of python3.11 ... python3 that is new enough
#   TORCH_INDEX  a package index to search beside your own, e.g. one that holds CPU builds of torch
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

if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c "$need" >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
pip="$venv/bin/python -m pip --disable-pip-version-check"
index=${TORCH_INDEX:+--extra-index-url $TORCH_INDEX}
: >"$log"

# On Linux, the torch that an index gives by default brings CUDA along. Without an NVIDIA GPU, pin the newest CPU build
# that the user's own index offers; where it offers none, or none that fits, take what there is.
build=""
if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then
    build=$($pip index versions $index torch 2>>"$log" | tr -s ' ,' '\n\n' | grep -m 1 '+cpu$' || true)
    if [ -z "$build" ] && [ "$(uname -m)" = x86_64 ]; then
        echo "No NVIDIA GPU here, but your package index offers no CPU build of torch: pip will fetch the CUDA"
        echo "build, some gigabytes. Another index can be added: make TORCH_INDEX=URL (see README.md, Installation)."
    fi
fi

# shellcheck disable=SC2086  # $pip and $index are lists of words
install() {
    watched "$1" $pip install $index ${2:+--constraint "$2"} --editable ".$extras"
}

what="Installing groundup$extras and its libraries into $venv"
if [ -n "$build" ]; then
    echo "torch==$build" >"$venv/torch.txt"
    install "$what, with torch $build (no NVIDIA GPU here)" "$venv/torch.txt" || install "$what, again" ""
else
    install "$what" ""
fi
touch "$stamp"
