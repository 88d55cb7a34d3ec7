#!/data/data/com.termux/files/usr/bin/sh
# Sets edgevoice up on an Android phone, in Termux: a Debian under proot with the bundle that this
# file lies in, sound through Termux's PulseAudio, and a start at boot. docs/termux.md explains it.
#
#   sh services/termux/setup.sh              packages, Debian, the bundle, the command edgevoice-termux
#   sh services/termux/setup.sh --boot       and start the daemon when the phone starts
#   sh services/termux/setup.sh --uninstall  take all of that away again, but for the packages
set -eu

fail() {
    echo "setup.sh: $1" >&2
    exit 1
}

case ${PREFIX:-} in
    */com.termux/files/usr) ;;
    *) fail "this is not Termux (PREFIX is '${PREFIX:-}'); on Linux run ./install.sh" ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
bundle=$(dirname "$(dirname "$here")")
command=$PREFIX/bin/edgevoice-termux
boot=$HOME/.termux/boot/edgevoice

if [ "${1:-}" = --uninstall ]; then
    rm -f "$command" "$boot"
    proot-distro login debian -- /opt/edgevoice/install.sh --uninstall
    echo "removed; \`proot-distro remove debian\` takes the Debian away, too"
    exit 0
fi
[ "$(uname -m)" = aarch64 ] || fail "this phone is $(uname -m); edgevoice needs a 64-bit one (aarch64)"
[ -f "$bundle/bundle.env" ] || fail "$bundle is no bundle; unpack it whole, then run this file there"
# Programs started from shared storage may not be executed, and it knows no modes.
case $bundle in
    /sdcard/* | /storage/*) fail "unpack the bundle in Termux's own home, not in shared storage" ;;
esac

# termux-api: asks Android for the microphone; needs the app Termux:API beside it.
pkg install -y pulseaudio termux-api proot-distro
proot-distro login debian -- true 2>/dev/null || proot-distro install debian
# parec and pacat are edgevoice's microphone and speaker.
proot-distro login debian -- sh -c \
    'apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 pulseaudio-utils'
# Under the same path inside: proot-distro shows Termux's home to its Debian.
proot-distro login debian -- "$bundle/install.sh" --prefix /opt/edgevoice --bin /usr/local/bin

cp "$here/edgevoice-termux" "$command"
chmod 755 "$command"
if [ "${1:-}" = --boot ]; then
    # Needs the app Termux:Boot, opened once.
    mkdir -p "$HOME/.termux/boot"
    cp "$here/boot" "$boot"
    chmod 755 "$boot"
    echo "the daemon starts with the phone, where Termux:Boot is installed and was opened once"
fi
echo "next: edgevoice-termux doctor, then edgevoice-termux talk"
