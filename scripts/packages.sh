# shellcheck shell=sh
# Shared by scripts/up and scripts/test: installs packages with the available package manager, and
# announces it first.

say() {
    printf '%s\n' "landfall: $*" >&2
}

die() {
    say "$*"
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Prints the first of the given commands that exists.
first_of() {
    for candidate in "$@"; do
        if have "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# Prints the output of a command only if it fails.
quietly() {
    quietly_log=$(mktemp)
    if "$@" >"$quietly_log" 2>&1 </dev/null; then
        rm -f "$quietly_log"
    else
        cat "$quietly_log" >&2
        rm -f "$quietly_log"
        return 1
    fi
}

# Announces what will run with sudo, and asks for confirmation in a terminal.
confirm() {
    say "this needs root (sudo): $*"
    if [ -t 0 ] && [ -t 2 ]; then
        printf 'landfall: run it? [Y/n] ' >&2
        read -r answer || answer=n
        case $answer in
        '' | [Yy]*) ;;
        *) die "nothing was changed; run it by hand, then run this again" ;;
        esac
    fi
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        quietly "$@"
    elif have sudo; then
        confirm "$@"
        # Before the output is hidden, so that the prompt is visible.
        sudo -v || die "sudo was refused; as root, run: $*"
        quietly sudo "$@"
    else
        die "this needs root, and there is no sudo; as root, run: $*"
    fi
}

manager() {
    first_of apt-get dnf apk pacman brew >/dev/null ||
        die "no supported package manager (apt, dnf, apk, pacman, brew)"
    basename "$(first_of apt-get dnf apk pacman brew)"
}

apt_updated=

# install WHAT APT DNF APK PACMAN BREW: installs WHAT; each argument lists the package names of one manager.
install() {
    what=$1 apt=$2 dnf=$3 apk=$4 pacman=$5 brew=$6
    manager=$(manager)
    case $manager in
    apt-get) packages=$apt ;;
    dnf) packages=$dnf ;;
    apk) packages=$apk ;;
    pacman) packages=$pacman ;;
    brew) packages=$brew ;;
    esac
    say "installing $what with $manager: $packages"
    # Package names are split into words on purpose.
    # shellcheck disable=SC2086
    case $manager in
    apt-get)
        if [ -z "$apt_updated" ]; then
            # An unreachable source may not matter; the installation will fail if it does.
            as_root apt-get -q update || say "apt-get update failed; continuing with the old lists"
            apt_updated=yes
        fi
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
            install --no-install-recommends $packages
        ;;
    dnf) as_root dnf -q -y install $packages ;;
    apk) as_root apk add --quiet $packages ;;
    pacman) as_root pacman -Sy --noconfirm --needed $packages ;;
    brew) quietly brew install $packages ;;
    esac || die "could not install $what; install it by hand ($packages) and run this again"
}

need_rust() {
    have cargo || die "Rust is missing: install it with rustup and run this again"
    first_of cc gcc clang >/dev/null || die "a C compiler is missing (cc): install gcc or clang"
}

need_redis() {
    first_of redis-server valkey-server >/dev/null ||
        install Redis redis-server valkey valkey valkey redis
}
