#!/bin/sh
# Installs edgevoice from the bundle that this file lies in. Needs no network and compiles nothing.
#
#   ./install.sh [--prefix FOLDER] [--bin FOLDER] [--python PROGRAM] [--service user|system]
#   ./install.sh --uninstall [--prefix FOLDER]
#
# Everything goes into one folder (default: ~/.local/share/edgevoice-app, /opt/edgevoice for root),
# but for the command `edgevoice` (~/.local/bin, /usr/local/bin) and the service, if one is wished.
set -eu
LC_ALL=C
export LC_ALL

here=$(cd "$(dirname "$0")" && pwd)
prefix=
bin=
python=
service=
action=install

fail() {
    echo "install.sh: $1" >&2
    exit "${2:-1}"
}

usage() {
    sed -n '2,8s/^#  \{0,1\}//p' "$0"
}

while [ $# -gt 0 ]; do
    case $1 in
        --prefix | --bin | --python | --service)
            [ $# -ge 2 ] || fail "$1 needs a value; --help shows how" 2
            case $1 in
                --prefix) prefix=$2 ;;
                --bin) bin=$2 ;;
                --python) python=$2 ;;
                --service) service=$2 ;;
            esac
            shift
            ;;
        --uninstall) action=uninstall ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail "unknown option '$1'; --help shows those there are" 2 ;;
    esac
    shift
done
case $service in
    '' | user) ;;
    system) [ "$(id -u)" -eq 0 ] || fail "--service system needs root; try sudo, or --service user" 2 ;;
    *) fail "--service '$service': known: system, user" 2 ;;
esac

if [ -z "$prefix" ]; then
    if [ -f "$here/installed" ]; then
        prefix=$here # the copy of this file in an installed folder
    elif [ "$(id -u)" -eq 0 ]; then
        prefix=/opt/edgevoice
    else
        prefix=${XDG_DATA_HOME:-$HOME/.local/share}/edgevoice-app
    fi
fi
if [ -z "$bin" ]; then
    if [ "$(id -u)" -eq 0 ]; then bin=/usr/local/bin; else bin=$HOME/.local/bin; fi
fi
# These go into a script and a service file, where blanks and quotes would mean something.
for folder in "$prefix" "$bin"; do
    case $folder in
        *[!A-Za-z0-9._/+@-]*) fail "'$folder': use letters, digits and . _ / + @ - alone" 2 ;;
        /*) ;;
        *) fail "'$folder' must begin with /" 2 ;;
    esac
done

# ---------------------------------------------------------------- undoing

# What lies outside $prefix is listed in $prefix/installed, a kind and a path on each line.
undo() {
    [ -f "$prefix/installed" ] || return 0
    while read -r kind path; do
        case $kind in
            user-service)
                systemctl --user disable --now "$(basename "$path")" >/dev/null 2>&1 || true
                rm -f "$path"
                systemctl --user daemon-reload >/dev/null 2>&1 || true
                ;;
            system-service)
                systemctl disable --now "$(basename "$path")" >/dev/null 2>&1 || true
                rm -f "$path"
                systemctl daemon-reload >/dev/null 2>&1 || true
                # The state of its user, which nobody else could read.
                rm -rf /var/lib/private/edgevoice /var/lib/edgevoice
                ;;
            file) rm -f "$path" ;;
            folder) rmdir "$path" 2>/dev/null || true ;;
        esac
    done <"$prefix/installed"
    made=$(sed -n 's/^prefix-parent //p' "$prefix/installed")
    rm -rf "$prefix"
    for folder in $made; do rmdir "$folder" 2>/dev/null || true; done
}

if [ "$action" = uninstall ]; then
    [ -f "$prefix/installed" ] ||
        fail "no edgevoice of a bundle in $prefix; --prefix names another folder" 2
    undo
    echo "removed $prefix"
    exit 0
fi

# ---------------------------------------------------------------- does it fit here?

[ -f "$here/bundle.env" ] || fail "bundle.env is missing; unpack the whole bundle, then run it there" 2
# shellcheck source=/dev/null
. "$here/bundle.env"

machine=$(uname -m)
[ "$machine" = arm64 ] && machine=aarch64
[ "$machine" = amd64 ] && machine=x86_64
[ "$machine" = "$ARCHITECTURE" ] ||
    fail "this bundle is for $ARCHITECTURE ($PROFILE), this machine is $machine; make one for it with \`edgevoice devices bundle\`" 2

version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none
}
found=
for candidate in ${python:-"python$PYTHON" python3}; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    found="$found, $candidate is $(version_of "$candidate")"
    if [ "$(version_of "$candidate")" = "$PYTHON" ]; then
        python=$candidate
        found=ok
        break
    fi
done
[ "$found" = ok ] ||
    fail "this bundle is for Python $PYTHON${found:-, and there is no python3 here}; install python$PYTHON, or make the bundle with --python" 2
[ "$("$python" -c 'import struct; print(struct.calcsize("P") * 8)')" = 64 ] ||
    fail "$python is a 32-bit program; install the 64-bit variant of this system" 2
"$python" -c 'import venv' 2>/dev/null || fail "$python has no module venv; apt install python3-venv" 2

libc=$("$python" -c 'import os; print(os.confstr("CS_GNU_LIBC_VERSION").split(".")[1])' 2>/dev/null) || libc=0
[ "$libc" -ge "$GLIBC_MINOR" ] ||
    fail "this bundle needs glibc 2.$GLIBC_MINOR or newer, this system has 2.$libc; take a newer system" 2

if [ -e "$prefix" ]; then
    [ ! -f "$prefix/installed" ] ||
        fail "$prefix holds an edgevoice already; $prefix/install.sh --uninstall removes it" 2
    [ -z "$(ls -A "$prefix" 2>/dev/null)" ] ||
        fail "$prefix is not empty and not edgevoice's; --prefix names another folder" 2
fi
if [ -e "$bin/edgevoice" ]; then
    fail "$bin/edgevoice is there already; remove it, or choose another folder with --bin" 2
fi

standing=$prefix
while [ ! -d "$standing" ]; do standing=$(dirname "$standing"); done
free_mb=$(df -Pk "$standing" | awk 'NR == 2 { print int($4 / 1024) }')
[ "$free_mb" -ge "$NEED_MB" ] ||
    fail "$standing has $free_mb MiB free, edgevoice needs $NEED_MB; make room, or choose another folder with --prefix"

echo "checking $(wc -l <"$here/SHA256SUMS") files"
if ! (cd "$here" && sha256sum -c SHA256SUMS >/dev/null 2>&1); then
    damaged=$(cd "$here" && sha256sum -c SHA256SUMS 2>/dev/null | sed -n 's/: FAILED.*//p' | head -n 1)
    fail "${damaged:-SHA256SUMS} is damaged or missing; copy the bundle to this machine again"
fi

# ---------------------------------------------------------------- installing

finished=no
on_exit() {
    [ "$finished" = yes ] || {
        undo
        echo "install.sh: nothing was installed" >&2
    }
}
trap on_exit EXIT
trap 'exit 130' INT TERM HUP

# Those of a folder and the folders above it that are not there, the deepest first.
missing_of() {
    folder=$1
    while [ ! -d "$folder" ]; do
        echo "$folder"
        folder=$(dirname "$folder")
    done
}
# A file outside of $prefix, and the folders that are made for it. Undone in this order.
record() {
    echo "$1 $2/edgevoice${3:-}" >>"$prefix/installed"
    missing_of "$2" | sed 's/^/folder /' >>"$prefix/installed"
    mkdir -p "$2"
}
parents=$(missing_of "$(dirname "$prefix")" | sed 's/^/prefix-parent /')
mkdir -p "$prefix/home" 2>/dev/null || fail "cannot make $prefix; choose another folder with --prefix"
echo "$parents" >"$prefix/installed"
cp "$here/install.sh" "$here/bundle.env" "$here/bundle.json" "$prefix/"

echo "installing into $prefix"
# Without pip: Debian keeps what would bring it in a package of its own. The bundle's pip does it.
"$python" -m venv --without-pip "$prefix/venv"
PYTHONPATH=$(echo "$here"/wheels/pip-*.whl) "$prefix/venv/bin/python" -m pip --isolated install \
    --quiet --no-index --find-links "$here/wheels" --no-cache-dir --disable-pip-version-check \
    --no-warn-script-location --root-user-action=ignore "$REQUIREMENT"

echo "copying the models"
cp -R "$here/models" "$prefix/home/models"
cp "$here/edgevoice.toml" "$prefix/edgevoice.toml"
# A device profile that edgevoice does not bring; it is looked for beside the configuration.
[ ! -d "$here/devices" ] || cp -R "$here/devices" "$prefix/devices"

record file "$bin"
cat >"$bin/edgevoice" <<WRAPPER
#!/bin/sh
# edgevoice as its bundle installed it; $prefix/install.sh --uninstall removes it.
if [ -z "\${EDGEVOICE_HOME:-}" ]; then
    EDGEVOICE_HOME=$prefix/home
    if [ ! -w "\$EDGEVOICE_HOME" ]; then
        # Somebody else's installation: its models, this user's own cache and running daemons.
        EDGEVOICE_HOME=\${XDG_CACHE_HOME:-\$HOME/.cache}/edgevoice-app
        mkdir -p "\$EDGEVOICE_HOME" && ln -sfn $prefix/home/models "\$EDGEVOICE_HOME/models"
    fi
    export EDGEVOICE_HOME
fi
: "\${EDGEVOICE_CONFIG:=$prefix/edgevoice.toml}"
export EDGEVOICE_CONFIG
exec $prefix/venv/bin/edgevoice "\$@"
WRAPPER
chmod 755 "$bin/edgevoice"
"$bin/edgevoice" --version

if [ -n "$service" ]; then
    if [ "$service" = system ]; then
        units=/etc/systemd/system
        manage="systemctl"
    else
        units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
        manage="systemctl --user"
    fi
    [ ! -e "$units/edgevoice.service" ] || fail "$units/edgevoice.service is there already; remove it"
    record "$service-service" "$units" .service
    sed "s|@PREFIX@|$prefix|g" "$here/services/edgevoice-$service.service" >"$units/edgevoice.service"
    if $manage daemon-reload 2>/dev/null && $manage enable --now edgevoice.service; then
        echo "the service runs: $manage status edgevoice"
    else
        echo "no systemd answers here; start it later: $manage enable --now edgevoice" >&2
    fi
fi
finished=yes

echo "installed; next: $bin/edgevoice doctor, then $bin/edgevoice talk"
case ":$PATH:" in
    *":$bin:"*) ;;
    *) echo "$bin is not in PATH; log in again, or add it" ;;
esac
