//! The integration tests, in one binary: against a really listening server, on real databases, Redis and S3.

#[cfg(not(feature = "failpoints"))]
compile_error!(
    "the tests end processes at failpoints: run them with `--features failpoints`, as scripts/test does"
);

mod faults;
mod journey;
mod support;
