# Everyday commands; `just` without arguments lists them. https://just.systems

_default:
    @just --list --unsorted

# Everything in one process, on http://127.0.0.1:8080
up *arguments:
    scripts/up {{ arguments }}

# Check that it compiles
check:
    cargo check --workspace --all-targets --features every-server

# Format, lints and spelling
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked --features every-server -- -D warnings
    typos

# Every test whose name contains FILTER: `just t sweep::`; needs only Redis, or what scripts/test installed
t filter:
    cargo test --features every-server --test it {{ filter }}

# Every test, on every server; installs what is missing
test *arguments:
    scripts/test {{ arguments }}

# The release binary with default features, and the tests that are run against it
test-release:
    scripts/test-release

# The documentation as a book, in target/book; needs mdBook (cargo install mdbook)
book:
    mdbook build

# Write the pages that are generated from config.toml and the command line
docs:
    LANDFALL_WRITE_DOCS=1 cargo test --features every-server --test it docs::reference

# Licences, banned crates, sources and known vulnerabilities of dependencies
deny:
    cargo deny check

# Everything that must pass before a change is merged
ci:
    .ci/run
