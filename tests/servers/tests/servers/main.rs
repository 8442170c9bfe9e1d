//! The test servers, tested: one binary, a module for each server.

// `cfg(test)` always holds here; it tells clippy that the functions between the tests are test
// code too, where `unwrap` is allowed.
#[cfg(test)]
mod ending;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod receiver;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod s3;
#[cfg(test)]
mod wait;
