# shellcheck shell=sh
# What scripts/up and scripts/test share: installing a package by whichever package manager there
# is, saying so first, and saying nothing where nothing has to be done.

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

# The first of the given commands that there is.
first_of() {
    for candidate in "$@"; do
        if have "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# Quiet if it goes well, and everything it said if not.
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

# Says what will be run by sudo, and waits for an answer where a person can give one.
confirm() {
    say "this needs root, by sudo: $*"
    if [ -t 0 ] && [ -t 2 ]; then
        printf 'landfall: run it? [Y/n] ' >&2
        read -r answer || answer=n
        case $answer in
        '' | [Yy]*) ;;
        *) die "nothing was changed; run it by hand, and start again" ;;
        esac
    fi
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        quietly "$@"
    elif have sudo; then
        confirm "$@"
        # Asked for before the output is hidden, so that the prompt is seen.
        sudo -v || die "sudo was refused; as root, run: $*"
        quietly sudo "$@"
    else
        die "this needs root, and there is no sudo; as root, run: $*"
    fi
}

manager() {
    first_of apt-get dnf apk pacman brew >/dev/null ||
        die "no package manager that is known here (apt, dnf, apk, pacman, brew)"
    basename "$(first_of apt-get dnf apk pacman brew)"
}

apt_updated=

# install WHAT APT DNF APK PACMAN BREW: the packages of WHAT, as each manager calls them.
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
            # One of several sources being out of reach need not matter; the install tells.
            as_root apt-get -q update || say "apt-get update failed; going on with the old lists"
            apt_updated=yes
        fi
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
            install --no-install-recommends $packages
        ;;
    dnf) as_root dnf -q -y install $packages ;;
    apk) as_root apk add --quiet $packages ;;
    pacman) as_root pacman -Sy --noconfirm --needed $packages ;;
    brew) quietly brew install $packages ;;
    esac || die "could not install $what; do it by hand ($packages) and start again"
}

need_rust() {
    have cargo || die "Rust is missing: install it by rustup, and start again"
    first_of cc gcc clang >/dev/null || die "a C compiler is missing (cc): install gcc or clang"
}

need_redis() {
    first_of redis-server valkey-server >/dev/null ||
        install Redis redis-server valkey valkey valkey redis
}
